"""Where API keys come from, and their lifecycle in a key file."""
