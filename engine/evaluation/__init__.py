"""How fast and how faithful: bench, verify, traces, and the weights they need."""
