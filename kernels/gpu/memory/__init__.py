"""Device memory: a tracked allocator, staging through pinned memory, and the weights on the device."""
