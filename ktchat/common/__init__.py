"""What every part of the application needs: paths, settings, errors, safe text, words for figures."""
