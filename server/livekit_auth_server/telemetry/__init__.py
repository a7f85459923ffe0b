"""Metrics and traces: what those who watch the server see."""
