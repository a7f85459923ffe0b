"""FastAPI routers: LiveKit's token endpoint behind your own login, and a receiver for LiveKit's webhooks.

The token router serves only what your `authorize` returns, and can't be created without it. CORS is left to the
application: without its middleware only pages of the same origin can request tokens, which is the safe default.
"""
# No postponed annotations: FastAPI reads them, and some name local variables.

import logging
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Protocol

try:
    from fastapi import APIRouter, Depends, Request, Response
    from fastapi.responses import JSONResponse
    from fastapi.routing import APIRoute
    from pydantic import BaseModel
    from starlette.datastructures import MutableHeaders
    from starlette.exceptions import HTTPException  # the base of FastAPI's
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
from livekit_auth._web.responses import HttpResponse, RefusedError, retry_after
from livekit_auth._web.strict_json import pairs_to_object, parse_object
from livekit_auth._web.token_request import (
    OLDER,
    STANDARD,
    Access,
    AskedToken,
    check_allowed,
    fields_at_fault,
    read_request,
)
from livekit_auth.webhooks import MAX_BODY, EventType, HandlerT, Verifier, WebhookReceiver

__all__ = ["Access", "Asked", "AskedToken", "WebhookRouter", "token_router", "webhook_router"]

TOKEN_BODY = 64 * 1024
"""The default size limit of a token request's body, in bytes."""

_SHAPE = "livekit_auth.shape"  # the key in the ASGI scope for a route's fields and size limit, read by `_asked`
_log = logging.getLogger("livekit_auth.fastapi")


class Issuer(Protocol):
    """The part of AuthClient that the token router needs."""

    async def issue(self, request: TokenRequest) -> IssuedToken:
        """As AuthClient.issue."""
        ...


async def _asked(request: Request) -> AskedToken:
    """Reads the request, once for all dependants."""
    if _SHAPE not in request.scope:
        raise RuntimeError("Asked works only in the `authorize` of token_router")
    names, limit = request.scope[_SHAPE]
    if names is OLDER and request.url.query:
        return _asked_in_the_query(request)
    require_json(request.headers.raw)
    try:
        body = await read_body(request.headers.raw, request.stream(), limit)
    except ClientDisconnect:
        raise RefusedError(400, "incomplete body") from None
    return read_request(parse_object(body), names)


def _asked_in_the_query(request: Request) -> AskedToken:
    """Reads the older request from the query string, as a FastAPI route with plain parameters would."""
    if values(request.headers.raw, b"content-type"):
        raise RefusedError(400, "send the fields either in the URL or in the body")
    return read_request(pairs_to_object(request.query_params.multi_items()), OLDER)


Asked = Annotated[AskedToken, Depends(_asked)]
"""What the front end requests, as a parameter of `authorize`. Unverified; each field may be None."""


def token_router(
    client: Issuer,
    *,
    authorize: Callable[..., Any],
    path: str = "/livekit/token-source",
    older_path: str | None = "/livekit/token",
    max_body: int = TOKEN_BODY,
) -> APIRouter:
    """The endpoint that LiveKit's front-end SDKs call (TokenSource.endpoint), and the older `{token, url}` one.

    `authorize` is your own dependency, `async` or not. It takes the signed-in user, as your other routes do, and
    `Asked`; it returns the Access that this user may have, or raises HTTPException. A requested field that differs from
    the Access is refused by name. `older_path=None` omits the older endpoint; `max_body` is in bytes. Raises TypeError
    if `authorize` isn't callable.
    """
    if not callable(authorize):
        raise TypeError("authorize must be a dependency that returns what the signed-in user may have: no default")
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


def _add(  # noqa: PLR0913 - the parts of a route
    router: APIRouter,
    path: str,
    endpoint: Callable[..., Any],
    *,
    summary: str,
    shape: tuple[Mapping[str, str], int],
    success: tuple[int, type[BaseModel]],
) -> None:
    class Route(APIRoute):
        """Responds to refusals and its own errors, and marks each response of this path as no-store."""

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
                await _response(refused.response)(scope, receive, send_unkept)
            except HTTPException as error:  # raised by the router for another method
                error.headers = {**(error.headers or {}), "cache-control": "no-store"}
                raise
            except Exception:
                # The application's middleware would send a 500 without the header. The exception is raised again so
                # that the server logs it and error monitoring sees it.
                if not started:
                    await _response(at_fault().response)(scope, receive, send_unkept)
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
    """Issues the token. Raises RefusedError; TypeError if `authorize` returned anything but an Access."""
    if not isinstance(access, Access):
        raise TypeError(f"authorize must return an Access or raise HTTPException, not return {type(access).__name__}")
    check_allowed(asked, access, names)
    try:
        return await client.issue(access.request())
    except AuthError as error:
        raise _refusal(error, asked, names) from None


def _refusal(error: AuthError, asked: AskedToken, names: Mapping[str, str]) -> RefusedError:
    """The refusal for the browser. The server's message and reason are only logged."""
    match error:
        case Denied():
            _log.warning("no token: %s", error)
            return RefusedError(403, "you aren't allowed a token for this", decision_id=error.decision_id)
        case RateLimited():
            return RefusedError(429, "too many requests: retry later", headers=retry_after(error))
        case Unavailable():
            _log.warning("no token: %s", error)
            return RefusedError(503, "tokens can't be issued now: retry", headers=retry_after(error))
        case InvalidRequest() if fields := fields_at_fault(
            {v.field: v.description for v in error.violations}, asked, names
        ):
            return RefusedError(400, "the request has fields that break LiveKit's limits", fields=fields)
        case _:
            _log.error("no token, because of a fault in the application or livekit-auth: %s", error)
            return at_fault()


class WebhookRouter(APIRouter):
    """A route for LiveKit's webhooks, and their handlers. See WebhookReceiver."""

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
            return _response(HttpResponse(400, {"detail": "incomplete body"}))


def webhook_router(
    client: Verifier, *, path: str = "/livekit/webhook", project: str = "", max_body: int = MAX_BODY
) -> WebhookRouter:
    """A router that receives LiveKit's webhooks. Register handlers with its `on`.

    `project` restricts which project may have signed; `max_body` is in bytes.
    """
    return WebhookRouter(client, path=path, project=project, max_body=max_body)


def _response(response: HttpResponse) -> Response:
    return JSONResponse(response.content, response.status, dict(response.headers))
