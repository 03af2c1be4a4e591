"""The chat screen: its frame, and the flows of replies, sessions, models and downloads."""
