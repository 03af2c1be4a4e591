"""The application: screens, command line, conversations, settings. It never imports torch."""

__version__ = "0.1.0"
