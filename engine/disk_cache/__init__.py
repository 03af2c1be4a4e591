"""KV pages and kept states on the disk: their files, found by exact token prefix, and the folder's budget."""
