"""From messages to tokens and back: chat templates, tokenizers, thinking."""
