"""The inference engine: from a GGUF file and a conversation to a streamed reply."""
