"""The person's models: on this disk, to choose from, and being downloaded."""
