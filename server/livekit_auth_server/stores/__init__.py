"""Rate limits, acknowledgements and recent decisions, kept in memory or in Redis."""
