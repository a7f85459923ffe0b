"""What the settings name, loaded at the start and again on change."""
