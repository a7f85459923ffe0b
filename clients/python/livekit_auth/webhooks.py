"""Receives LiveKit's webhooks: an ASGI application that verifies each one with the server and runs handlers.

Guarantees: a handler runs only for events that LiveKit signed, at least once per event, and not again once the event is
acknowledged. Write handlers so that running twice is safe: a redelivery that arrives while the first delivery is being
handled, or at another process, runs them again.
Needs no web framework; `livekit_auth.fastapi.webhook_router` mounts it in FastAPI.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, get_args

from livekit_auth._messages.errors import AuthError, InvalidRequest, VerificationFailed
from livekit_auth._messages.webhook import VerifiedWebhook
from livekit_auth._web.bodies import TooSlowError, read_body, values
from livekit_auth._web.responses import HttpResponse, RefusedError, retry_after

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable, MutableMapping
    from datetime import datetime

    Message = MutableMapping[str, Any]

EventType = Literal[
    "room_started",
    "room_finished",
    "participant_joined",
    "participant_left",
    "participant_connection_aborted",
    "track_published",
    "track_unpublished",
    "egress_started",
    "egress_updated",
    "egress_ended",
    "ingress_started",
    "ingress_ended",
    "agent_job_pending",
    "agent_job_started",
    "agent_job_ended",
]
"""The LiveKit events that are part of the contract, by LiveKit's names."""

MAX_BODY = 1024 * 1024
"""The default size limit of a body, in bytes. The same as the server's default."""

Handler = Callable[[VerifiedWebhook], Awaitable[None] | None]
"""A function that handles an event."""

HandlerT = TypeVar("HandlerT", bound=Handler)
_REMEMBERED = 1024  # unacknowledged events that were handled here; a forgotten one may be handled again
_log = logging.getLogger("livekit_auth.webhooks")


class Verifier(Protocol):
    """The part of AuthClient that a receiver needs."""

    async def verify_webhook(self, body: bytes, authorization: str, project: str = "") -> VerifiedWebhook:
        """As AuthClient.verify_webhook."""
        ...

    async def ack_webhook(self, event: VerifiedWebhook) -> datetime | None:
        """As AuthClient.ack_webhook."""
        ...


class WebhookReceiver:
    """An ASGI application for the URL that LiveKit posts to.

    Responds 200 if all handlers succeeded or the event was handled before; 401 or 400 if LiveKit didn't sign it; 413
    above `max_body` bytes; 503 with Retry-After if a handler or the server failed, so that LiveKit sends it again, and
    once for an event that was handled but not acknowledged.
    `project` restricts which project may have signed.
    """

    def __init__(self, client: Verifier, *, project: str = "", max_body: int = MAX_BODY) -> None:
        self._client = client
        self._project = project
        self._max_body = max_body
        self._handlers: dict[str, list[Handler]] = {}
        self._any: list[Handler] = []
        self._unacknowledged: dict[tuple[str, str, bytes], None] = {}

    def on(self, *types: EventType) -> Callable[[HandlerT], HandlerT]:
        """Registers a handler, `async` or not, for events of these types. It takes the VerifiedWebhook.

        A handler that isn't `async` runs in a thread. Raises ValueError for an unknown type, and TypeError for a
        handler that yields.
        """
        unknown = [name for name in types if name not in get_args(EventType)]
        if unknown or not types:
            known = ", ".join(get_args(EventType))
            raise ValueError(
                f"unknown event types {', '.join(map(repr, unknown)) or '(none given)'}: LiveKit has {known}"
            )

        def register(handler: HandlerT) -> HandlerT:
            _refuse_generator(handler)
            for name in types:
                self._handlers.setdefault(name, []).append(handler)
            return handler

        return register

    def on_any(self, handler: HandlerT) -> HandlerT:
        """Registers a handler for all events, including types unknown to this version. Raises as `on`."""
        _refuse_generator(handler)
        self._any.append(handler)
        return handler

    async def receive(self, headers: Iterable[tuple[bytes, bytes]], chunks: AsyncIterable[bytes]) -> HttpResponse:
        """Handles one delivery. `headers` are those of ASGI, `chunks` is the body as it arrives."""
        headers = list(headers)
        try:
            authorization = _authorization(headers)
            event = await self._verify(await self._read(headers, chunks), authorization)
            if event.is_duplicate:
                return HttpResponse(200, {"detail": "already handled"})
            if handlers := [*self._handlers.get(event.type, ()), *self._any]:
                await self._handle(event, handlers)
        except RefusedError as refused:
            return refused.response
        return HttpResponse(200, {"detail": "handled"})

    async def _read(self, headers: list[tuple[bytes, bytes]], chunks: AsyncIterable[bytes]) -> bytes:
        try:
            return await read_body(headers, chunks, self._max_body)
        except TooSlowError:
            # This process may have been too busy to read it, and after a 4xx LiveKit drops the event.
            raise RefusedError(503, "the body didn't arrive in time", headers=retry_after()) from None

    async def _verify(self, body: bytes, authorization: str) -> VerifiedWebhook:
        try:
            return await self._client.verify_webhook(body, authorization, self._project)
        except AuthError as error:
            if _is_senders_fault(error):
                _log.warning("webhook refused: %s", error)
                raise _refusal(error) from None
            # Not the sender's fault, whatever the code: after a 4xx LiveKit drops the event.
            _log.error("can't verify webhooks: %s", error)
            raise RefusedError(503, "webhooks can't be verified now", headers=retry_after(error)) from None

    async def _handle(self, event: VerifiedWebhook, handlers: list[Handler]) -> None:
        """Runs all handlers, even after one failed, and acknowledges the event if all succeeded.

        A failed acknowledgement is retried once, when LiveKit sends the event again. The handlers don't run then, and
        LiveKit isn't asked for another delivery, whatever the result.
        """
        key = (event.project, event.event_id, event.body_sha256)
        asked_again = key in self._unacknowledged
        if not asked_again:
            results = [await _attempt(handler, event) for handler in handlers]
            if not all(results):
                raise RefusedError(503, "the event can't be handled now", headers=retry_after())
        try:
            await self._client.ack_webhook(event)
        except AuthError as error:
            _log.error("handled %s %s but can't acknowledge it: %s", event.type, event.event_id, error)
            self._remember(key)
            if not asked_again:
                detail = "the event was handled but not recorded; send it again"
                raise RefusedError(503, detail, headers=retry_after(error)) from None
        else:
            self._unacknowledged.pop(key, None)

    def _remember(self, key: tuple[str, str, bytes]) -> None:
        self._unacknowledged[key] = None
        if len(self._unacknowledged) > _REMEMBERED:
            del self._unacknowledged[next(iter(self._unacknowledged))]

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """The ASGI interface (HTTP only). Responds 405 to anything but POST."""
        if scope["type"] != "http":
            raise RuntimeError(f"a webhook receiver supports HTTP, not {scope['type']}")
        if scope["method"] == "POST":
            answer = await self.receive(scope["headers"], _chunks(receive))
        else:
            answer = HttpResponse(405, {"detail": "use POST"}, {"allow": "POST"})
        body = json.dumps(answer.content).encode()
        headers = {**answer.headers, "content-type": "application/json", "content-length": str(len(body))}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        await send({"type": "http.response.body", "body": body})


def _authorization(headers: list[tuple[bytes, bytes]]) -> str:
    """The header with LiveKit's token: Authorization or, without one, X-LiveKit-Signature."""
    found = values(headers, b"authorization") or values(headers, b"x-livekit-signature")
    if len(found) != 1:
        raise RefusedError(
            401, "a webhook has exactly one Authorization header", headers={"www-authenticate": "Bearer"}
        )
    return found[0].decode("latin-1")


def _is_senders_fault(error: AuthError) -> bool:
    """False for a wrong `project`, which is the application's fault: LiveKit retries until it is fixed."""
    ours = any(violation.field == "project" for violation in error.violations)
    return isinstance(error, (VerificationFailed, InvalidRequest)) and not ours


def _refusal(error: AuthError) -> RefusedError:
    if error.reason == "BODY_TOO_LARGE" or error.code == "RESOURCE_EXHAUSTED":
        return RefusedError(413, "the body is too large")
    if isinstance(error, VerificationFailed):
        return RefusedError(401, "not a webhook that LiveKit signed", headers={"www-authenticate": "Bearer"})
    return RefusedError(400, "not a LiveKit webhook")


def _called(handler: Handler, event: VerifiedWebhook) -> Awaitable[None] | None:
    try:
        return handler(event)
    except StopIteration as error:  # a future can't hold it: before Python 3.11.8 the waiter never ends
        raise RuntimeError("the handler raised StopIteration") from error


async def _attempt(handler: Handler, event: VerifiedWebhook) -> bool:
    """Runs the handler and returns whether it succeeded. Logs its failure."""
    try:
        if inspect.iscoroutinefunction(handler):
            await handler(event)
        else:
            result = await asyncio.to_thread(_called, handler, event)
            if inspect.isawaitable(result):  # such as a partial of an async function
                await result
    except (Exception, asyncio.CancelledError) as error:  # anything that a handler raises
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise  # the delivery was cancelled, not something that the handler awaited
        _log.exception("%s failed for %s %s", _name(handler), event.type, event.event_id)
        return False
    return True


def _name(handler: Handler) -> str:
    """A handler's name for the log. Not its repr, which for a partial includes its arguments."""
    function = handler.func if isinstance(handler, functools.partial) else handler
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _refuse_generator(handler: Handler) -> None:
    """Raises TypeError for a generator function: calling it would run nothing, and the event would be lost."""
    for function in (handler, getattr(handler, "__call__", None)):  # noqa: B004 - for callable objects
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{_name(handler)} contains a yield, so calling it runs nothing: use a function")


async def _chunks(receive: Callable[[], Awaitable[Message]]) -> AsyncIterator[bytes]:
    """The body as ASGI delivers it. Raises RefusedError if the sender disconnects."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RefusedError(400, "incomplete body")
        yield message.get("body", b"")
        more = message.get("more_body", False)
