"""The engine's child process as its parent sees it: start, watch, end; the tie between the two."""
