"""The same chat line by line: no cursor is moved, nothing is coloured, no line is written over."""
