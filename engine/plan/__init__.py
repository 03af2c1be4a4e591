"""What goes where, whether it fits and how fast it will be: arithmetic without torch."""
