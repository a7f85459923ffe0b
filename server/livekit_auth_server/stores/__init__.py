"""Rate limits and acknowledgements, kept in memory or in Redis."""
