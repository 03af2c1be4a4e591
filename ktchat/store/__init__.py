"""Conversations on the disk: SQLite, saved in steps, repaired, exported."""
