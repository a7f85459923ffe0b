"""Log lines: how they look, and how many of them there are at most."""
