"""The client for asyncio, from which tools/unasync.py generates livekit_auth._sync.

Imports `_connection`, `_messages` and `_process`.
"""
