"""The version of the server, from its package metadata."""

from __future__ import annotations

from importlib.metadata import version

VERSION = version("livekit-auth-server")
