"""The command-line program. Only `livekit_auth.cli` imports it; it may import everything else."""
