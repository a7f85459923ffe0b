"""The refusal to run a worker that holds a LiveKit secret."""

from __future__ import annotations

import os

from livekit_auth._messages.errors import ConfigError

_VARIABLES = ("LIVEKIT_API_SECRET", "LIVEKIT_INFERENCE_API_SECRET", "LIVEKIT_KEYS")
"""Where LiveKit's programs look for secrets."""


def refuse_secrets(what_to_do: str) -> None:
    """Raises ConfigError, with what to do, if a LiveKit secret is in the environment."""
    for variable in _VARIABLES:
        if os.environ.get(variable):
            raise ConfigError(f"{variable} is set: {what_to_do}")
