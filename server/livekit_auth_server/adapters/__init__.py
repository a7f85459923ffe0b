"""Files, clocks, stores, metrics and logs: what the service's ports are plugged into."""
