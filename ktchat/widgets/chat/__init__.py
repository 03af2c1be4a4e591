"""Widgets of the chat screen: messages, Markdown, the prompt, the session list."""
