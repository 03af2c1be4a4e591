"""Widgets of the chat screen. They speak by messages upwards and by method calls downwards."""
