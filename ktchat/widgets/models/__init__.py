"""Widgets of the model screens: tables, plans, downloads, the machine."""
