"""The chat screen: its frame, and what happens in it to replies, sessions and the model."""
