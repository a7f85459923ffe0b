"""What this server signs and accepts, compared with livekit-api in a short-lived process of its own."""
