"""What the web parts share: bodies read within bounds, strict JSON, refusals as HTTP answers. No web framework here."""
