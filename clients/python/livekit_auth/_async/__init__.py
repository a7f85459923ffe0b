"""The client for asyncio, and the source from which tools/unasync.py generates livekit_auth._sync."""
