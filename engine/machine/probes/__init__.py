"""Looks at this machine, one part a module. Nothing here raises: what fails becomes a note."""
