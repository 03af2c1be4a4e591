"""Device memory: a tracked allocator, pinned staging, where weights lie."""
