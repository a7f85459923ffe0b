"""FastAPI routers: LiveKit's token endpoint behind your own login, and the receiver of its webhooks.

The token router serves what your `authorize` returns and nothing else; without it there is no router. CORS is the
application's: without its middleware only pages of the same origin can ask, which is the safe default.
"""
# No postponed annotations here: FastAPI reads them, and these name what only exists in a function.

import logging
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Protocol

try:
    from fastapi import APIRouter, Depends, Request, Response
    from fastapi.responses import JSONResponse
    from fastapi.routing import APIRoute
    from pydantic import BaseModel
    from starlette.datastructures import MutableHeaders
    from starlette.exceptions import HTTPException  # FastAPI's is one of these
    from starlette.requests import ClientDisconnect
    from starlette.types import Message, Receive, Scope, Send
except ImportError as _error:  # an extra
    from livekit_auth.extras import how_to_install

    raise ImportError(f"livekit_auth.fastapi needs FastAPI: {how_to_install('fastapi')}") from _error

from livekit_auth._messages.errors import AuthError, Denied, InvalidRequest, RateLimited, Unavailable
from livekit_auth._messages.requests import TokenRequest
from livekit_auth._messages.results import IssuedToken
from livekit_auth._web.bodies import read_body, require_json, values
from livekit_auth._web.openapi import REFUSALS, OlderToken, StandardToken, at_fault, request_body
from livekit_auth._web.responses import Answer, RefusedError, retry_after
from livekit_auth._web.strict_json import pairs_to_object, parse_object
from livekit_auth._web.token_request import (
    OLDER,
    STANDARD,
    Access,
    AskedToken,
    check_asked,
    check_members,
    fields_at_fault,
)
from livekit_auth.webhooks import MAX_BODY, EventType, HandlerT, Verifier, WebhookReceiver

__all__ = ["Access", "Asked", "AskedToken", "WebhookRouter", "token_router", "webhook_router"]

TOKEN_BODY = 64 * 1024
"""The default limit of a token request's body, in bytes."""

_SHAPE = "livekit_auth.shape"  # where a route leaves its fields' names and limit for `_asked`, in the ASGI scope
_log = logging.getLogger("livekit_auth.fastapi")


class Issuer(Protocol):
    """What the token router needs of AuthClient."""

    async def issue(self, request: TokenRequest) -> IssuedToken:
        """As AuthClient.issue."""
        ...


async def _asked(request: Request) -> AskedToken:
    """Reads the body, once for all that depend on it."""
    if _SHAPE not in request.scope:
        raise RuntimeError("Asked reads what the token endpoint is asked: use it in the `authorize` of token_router")
    names, limit = request.scope[_SHAPE]
    if names is OLDER and request.url.query:
        return _asked_in_the_query(request)
    require_json(request.headers.raw)
    try:
        body = await read_body(request.headers.raw, request.stream(), limit)
    except ClientDisconnect:
        raise RefusedError(400, "the body isn't whole") from None
    return check_members(parse_object(body), names)


def _asked_in_the_query(request: Request) -> AskedToken:
    """The older request as a FastAPI route with plain parameters takes it: in the url, and then nowhere else."""
    if values(request.headers.raw, b"content-type"):
        raise RefusedError(400, "send the fields in the url or in the body, not in both")
    return check_members(pairs_to_object(request.query_params.multi_items()), OLDER)


Asked = Annotated[AskedToken, Depends(_asked)]
"""What the front end asks for, as a parameter of `authorize`. Nothing in it is checked; any field may be None."""


def token_router(
    client: Issuer,
    *,
    authorize: Callable[..., Any],
    path: str = "/livekit/token-source",
    older_path: str | None = "/livekit/token",
    max_body: int = TOKEN_BODY,
) -> APIRouter:
    """The endpoint that LiveKit's front-end SDKs call (TokenSource.endpoint), and the `{token, url}` shape before it.

    `authorize` is a dependency of your own, `async` or not: it takes the signed-in user, as your other routes do, and
    `Asked`, and returns the Access that this user may have, or raises HTTPException. A field that asks for something
    else than the Access gives is refused by name. `older_path` of None leaves the older shape out; `max_body` is in
    bytes. Raises TypeError when `authorize` can't be called.
    """
    if not callable(authorize):
        raise TypeError("authorize is the dependency that says what the signed-in user may have; there is no default")
    router = APIRouter()

    async def standard(access: Annotated[Access, Depends(authorize)], asked: Asked) -> Response:
        issued = await _issue(client, access, asked, STANDARD)
        return JSONResponse({"server_url": issued.url, "participant_token": issued.token}, 201)

    async def older(access: Annotated[Access, Depends(authorize)], asked: Asked) -> Response:
        issued = await _issue(client, access, asked, OLDER)
        return JSONResponse({"token": issued.token, "url": issued.url})

    title = "LiveKit's token endpoint"
    _add(router, path, standard, summary=title, shape=(STANDARD, max_body), success=(201, StandardToken))
    if older_path is not None:
        title = "A LiveKit token and its server's url"
        _add(router, older_path, older, summary=title, shape=(OLDER, max_body), success=(200, OlderToken))
    return router


def _add(  # noqa: PLR0913 - what a route is made of
    router: APIRouter,
    path: str,
    endpoint: Callable[..., Any],
    *,
    summary: str,
    shape: tuple[Mapping[str, str], int],
    success: tuple[int, type[BaseModel]],
) -> None:
    class Route(APIRoute):
        """Answers refusals and its own faults itself, and lets nobody keep any answer of this path."""

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            scope[_SHAPE] = shape
            started = False

            async def send_unkept(message: Message) -> None:
                nonlocal started
                if message["type"] == "http.response.start":
                    started = True
                    MutableHeaders(raw=message["headers"])["cache-control"] = "no-store"
                await send(message)

            try:
                await super().handle(scope, receive, send_unkept)
            except RefusedError as refused:
                await _response(refused.answer)(scope, receive, send_unkept)
            except HTTPException as error:  # the router's own, for another method
                error.headers = {**(error.headers or {}), "cache-control": "no-store"}
                raise
            except Exception:
                # Outside the application's middleware a 500 would be made without the header. What failed is raised
                # all the same, so that the server logs it and whoever watches for exceptions sees it.
                if not started:
                    await _response(at_fault().answer)(scope, receive, send_unkept)
                raise

    status, model = success
    router.add_api_route(
        path,
        endpoint,
        methods=["POST"],
        summary=summary,
        status_code=status,
        response_model=model,
        response_description="The token",
        responses=REFUSALS,
        route_class_override=Route,
        response_class=JSONResponse,
        openapi_extra={"requestBody": request_body(shape[0])},
    )


async def _issue(client: Issuer, access: object, asked: AskedToken, names: Mapping[str, str]) -> IssuedToken:
    """Raises RefusedError, and TypeError when `authorize` returned something else than an Access."""
    if not isinstance(access, Access):
        raise TypeError(f"authorize returns an Access or raises HTTPException, not {type(access).__name__}")
    check_asked(asked, access, names)
    try:
        return await client.issue(access.request())
    except AuthError as error:
        raise _refusal(error, asked, names) from None


def _refusal(error: AuthError, asked: AskedToken, names: Mapping[str, str]) -> RefusedError:
    """The service's refusal for the browser; its words and reasons go to the log."""
    match error:
        case Denied():
            _log.warning("no token: %s", error)
            return RefusedError(403, "you may not have a token for this", decision_id=error.decision_id)
        case RateLimited():
            return RefusedError(429, "too many tokens at once: try again later", headers=retry_after(error))
        case Unavailable():
            _log.warning("no token: %s", error)
            return RefusedError(503, "tokens can't be issued now: try again", headers=retry_after(error))
        case InvalidRequest() if fields := fields_at_fault(
            {v.field: v.description for v in error.violations}, asked, names
        ):
            return RefusedError(400, "the request has fields that break LiveKit's limits", fields=fields)
        case _:
            _log.error("no token, and the application or the service is at fault: %s", error)
            return at_fault()


class WebhookRouter(APIRouter):
    """A route for LiveKit's webhooks and the handlers that run for them: see WebhookReceiver."""

    def __init__(self, client: Verifier, *, path: str, project: str, max_body: int) -> None:
        super().__init__()
        self._receiver = WebhookReceiver(client, project=project, max_body=max_body)
        self.add_api_route(path, self._receive, methods=["POST"], include_in_schema=False)

    def on(self, *types: EventType) -> Callable[[HandlerT], HandlerT]:
        """As WebhookReceiver.on."""
        return self._receiver.on(*types)

    def on_any(self, handler: HandlerT) -> HandlerT:
        """As WebhookReceiver.on_any."""
        return self._receiver.on_any(handler)

    async def _receive(self, request: Request) -> Response:
        try:
            return _response(await self._receiver.receive(request.headers.raw, request.stream()))
        except ClientDisconnect:
            return _response(Answer(400, {"detail": "the body isn't whole"}))


def webhook_router(
    client: Verifier, *, path: str = "/livekit/webhook", project: str = "", max_body: int = MAX_BODY
) -> WebhookRouter:
    """A router that receives LiveKit's webhooks; register handlers with its `on`.

    `project` names the only project that may have signed; `max_body` is in bytes.
    """
    return WebhookRouter(client, path=path, project=project, max_body=max_body)


def _response(answer: Answer) -> Response:
    return JSONResponse(answer.content, answer.status, dict(answer.headers))
