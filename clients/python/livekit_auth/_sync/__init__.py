# Generated from livekit_auth/_async/__init__.py by tools/unasync.py: edit that file instead.
"""The client for threads.

Imports `_connection`, `_messages` and `_process`.
"""
