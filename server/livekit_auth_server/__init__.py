"""livekit-auth-server: holds LiveKit API secrets and issues tokens by policy, so that nothing else has to."""
