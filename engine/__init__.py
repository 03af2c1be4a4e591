"""The engine: GGUF files, tokens, templates, planning, KV cache, the decode loop. Never imports textual."""
