"""One process, as the operating system and its probes see it."""
