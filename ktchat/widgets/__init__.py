"""Widgets of the screens: what several screens show is here, the rest in `chat` and `models`.

They speak by messages upwards and by method calls downwards.
"""
