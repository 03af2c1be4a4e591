"""Sizes that the engine chooses and that kernels are planned and compiled for."""

PAGE_SIZE = 32
"""Positions in a page of the KV cache."""
PROMPT_CHUNK = 512
"""Tokens of a prompt in one pass: enough to reuse each expert's weights, few enough to cancel soon."""
STREAM_CHUNKS = (4096, 2048)
"""The same where experts that have no room on a device pass through it: all of them come once a pass, so that longer
ones are faster."""
