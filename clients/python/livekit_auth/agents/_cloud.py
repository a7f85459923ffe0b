"""Recording and LiveKit Inference with tokens from the server, each with its own role.

livekit-agents signs both with the API key. If a role is given, that signing is replaced. Without one, recording is off,
with one warning, and inference reports what is missing. Only tokens are replaced, never what is sent or where.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from livekit import api
from livekit.agents import APIConnectionError

from livekit_auth._messages.errors import AuthError, ConfigError, RateLimited, ServerError, Unavailable
from livekit_auth.agents import _livekit_internals
from livekit_auth.agents._http import STAND_IN, ApiSession
from livekit_auth.agents._process_tokens import process_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    import aiohttp

    from livekit_auth.agents._process_tokens import KeptToken, WaitingSource
    from livekit_auth.agents._settings import Settings

NO_INFERENCE = (
    "LiveKit Inference has no token: pass AgentServer an inference_role, a role of the policy with the grant "
    "inference.perform (and the power inference)"
)
NO_RECORDING = (
    "Recording is off: pass AgentServer an observability_role, a role of the policy with the grant "
    "observability.write (and the power observability)"
)

_log = logging.getLogger("livekit_auth")


def set_up(settings: Settings) -> None:
    """Makes livekit-agents in this process take these tokens from the server. Idempotent."""
    tokens = process_tokens(settings)
    if settings.inference_role is None:
        _livekit_internals.refuse_inference(NO_INFERENCE)
    else:
        _livekit_internals.sign_inference_with(_token_factory(lambda: inference_token(tokens.inference)))
    if settings.observability_role is None:
        _livekit_internals.stop_recording(lambda: _log.warning(NO_RECORDING))
    else:
        recording = tokens.observability
        _livekit_internals.sign_recording_with(
            _token_factory(lambda: STAND_IN),
            header=lambda: {"Authorization": f"Bearer {recording.wait().token}"},
            session=lambda session: _authorised(session, recording),
        )


def inference_token(kept: KeptToken) -> str:
    """The token for a connection to LiveKit Inference. Raises ConfigError and livekit-agents' APIConnectionError.

    Without an event loop nothing can be sent, so a model that is created then, at module level, gets the stand-in:
    livekit-agents asks again before it sends.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return STAND_IN
    match kept.now():
        case None:
            raise APIConnectionError("LiveKit Inference has no token yet: the request is in progress")
        case AuthError() as error:
            passing = isinstance(error, (RateLimited, Unavailable, ServerError))
            raise APIConnectionError(f"LiveKit Inference has no token: {error}", retryable=passing)
        case ConfigError() as error:
            raise ConfigError(f"LiveKit Inference has no token: {error}")
        case token:
            return token.token


def _authorised(session: aiohttp.ClientSession, source: WaitingSource) -> ApiSession:
    return ApiSession(session, source)


class _Issued:
    """Replaces the access token that livekit-agents builds. Its grants are those of the role; setters are ignored."""

    def __init__(self, token: Callable[[], str]) -> None:
        self.to_jwt = token

    def _same(self, _: object) -> _Issued:
        return self

    with_identity = with_ttl = with_inference_grants = with_observability_grants = _same


def _token_factory(token: Callable[[], str]) -> Callable[..., Any]:
    """The access token factory for a module of livekit-agents. A key that the user's code passes is still used."""

    def make(api_key: str | None = None, api_secret: str | None = None) -> Any:  # noqa: ANN401 - AccessToken or the like
        if api_key in {None, _livekit_internals.PLACEHOLDER_KEY}:
            return _Issued(token)
        return api.AccessToken(api_key, api_secret)

    return make
