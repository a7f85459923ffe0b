"""server.yaml and the environment, as settings. Imports files and the core."""
