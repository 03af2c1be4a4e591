"""The application: screen, command line, conversations, settings. Never imports torch."""

__version__ = "0.1.0"
