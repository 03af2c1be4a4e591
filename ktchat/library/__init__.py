"""The person's models: what is on the disk, what could be, and the downloads between."""
