"""The model hub: search, names, access, reading ranges of remote files."""
