"""The settings on the screen: what holds, where it comes from, and changing it."""
