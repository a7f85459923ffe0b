"""Generated from protos/livekit_auth/v1."""
