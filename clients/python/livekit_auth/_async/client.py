"""The client: one method per RPC of AuthService."""
# ruff: noqa: ASYNC109 - a timeout here is the deadline sent to the server, not a way to cancel

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypeVar

import grpc.aio
from tenacity import AsyncRetrying, retry_if_exception

from livekit_auth._async.connection import Connection
from livekit_auth._connection.config import DEFAULT_TIMEOUT, Config, check_timeout
from livekit_auth._connection.retry import Attempts, is_transient
from livekit_auth._connection.trace import trace_metadata
from livekit_auth._messages import results
from livekit_auth._messages.errors import AuthError, not_connected, unusable
from livekit_auth._messages.requests import TokenRequest, encode
from livekit_auth._messages.status import to_error
from livekit_auth._messages.webhook import VerifiedWebhook, verified_webhook
from livekit_auth.v1 import auth_service_pb2 as pb

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime, timedelta
    from types import TracebackType

    from livekit_auth._messages.requests import Kind
    from livekit_auth._messages.results import Caller, IssuedToken, VerifiedToken
    from livekit_auth.v1.auth_service_pb2_grpc import AuthServiceAsyncStub
    from livekit_auth.v1.grants_pb2 import Grants, ParticipantKind
    from livekit_auth.v1.room_config_pb2 import RoomConfig

_RequestT = TypeVar("_RequestT")
_ResponseT = TypeVar("_ResponseT")


class AuthClient:
    """A connection to livekit-auth. Keep one for the life of the process, and close it at the end.

    It connects on the first call and picks up renewed certificates. Each method takes `timeout`, its time limit in
    seconds including retries; transient failures (UNAVAILABLE) are retried within it. Each method raises a subclass of
    AuthError if the call fails, and RuntimeError after `close`.
    """

    def __init__(  # noqa: PLR0913 - keyword-only except the address
        self,
        address: str | None = None,
        *,
        ca: str | os.PathLike[str] | None = None,
        cert: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        workload_api: str | None = None,
        server_trust_domain: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """Takes missing values from LIVEKIT_AUTH_ADDRESS (HOST:PORT), _CA, _CERT and _KEY (paths of PEM files).

        `workload_api` is the socket of a SPIFFE agent (unix:///PATH) that provides the certificate, the CAs and their
        renewals instead of files. If no file is given, SPIFFE_ENDPOINT_SOCKET does the same. The constructor then waits
        up to `timeout` for the first SVID. The server's certificate must be signed by the bundle of
        `server_trust_domain`, by default this workload's own trust domain.

        `timeout` is the default of all calls, in seconds. Raises ConfigError if a setting is missing or unusable.
        """
        config = Config.resolve(
            address,
            ca=ca,
            cert=cert,
            key=key,
            workload_api=workload_api,
            server_trust_domain=server_trust_domain,
            timeout=timeout,
        )
        self._timeout = config.timeout
        self._connection = Connection(config)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Refuses new calls, and closes the connection when the calls in flight have ended."""
        await self._connection.close()

    async def issue_token(  # noqa: PLR0913 - the contract's fields, keyword-only
        self,
        *,
        room: str = "",
        identity: str = "",
        role: str | None = None,
        grants: Grants | None = None,
        project: str = "",
        name: str = "",
        metadata: str = "",
        attributes: Mapping[str, str] | None = None,
        ttl: timedelta | None = None,
        kind: Kind | ParticipantKind | None = None,
        room_config: RoomConfig | None = None,
        room_preset: str = "",
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> IssuedToken:
        """Issues one token, exactly as requested. The arguments are the fields of TokenRequest.

        Raises Denied, InvalidRequest, RateLimited and other subclasses of AuthError; ValueError if both role and
        grants are given.
        """
        request = TokenRequest(
            room=room,
            identity=identity,
            role=role,
            grants=grants,
            project=project,
            name=name,
            metadata=metadata,
            attributes=attributes or {},
            ttl=ttl,
            kind=kind,
            room_config=room_config,
            room_preset=room_preset,
            validate_only=validate_only,
        )
        return await self.issue(request, timeout=timeout)

    async def issue(self, request: TokenRequest, *, timeout: float | None = None) -> IssuedToken:
        """Issues one token for a TokenRequest; otherwise as `issue_token`."""
        response = await self._call(lambda stub: stub.IssueToken, encode(request), timeout)
        return results.issued_token(response, validate_only=request.validate_only)

    async def issue_tokens(
        self, requests: Sequence[TokenRequest], *, timeout: float | None = None
    ) -> list[IssuedToken | AuthError]:
        """Issues up to 500 tokens, with at most 1 MiB of requests. Each succeeds or fails on its own.

        The results are in the order of the requests; a failed entry is an error in the list. Raises AuthError only if
        the whole call fails.
        """
        if not requests:
            return []
        batch = pb.BatchIssueTokensRequest(requests=[encode(request) for request in requests])
        response = await self._call(lambda stub: stub.BatchIssueTokens, batch, timeout)
        return results.batch(response, requests)

    async def verify_webhook(
        self, body: bytes, authorization: str, project: str = "", *, timeout: float | None = None
    ) -> VerifiedWebhook:
        """Verifies that LiveKit signed this webhook, and checks whether this caller has already acknowledged it.

        `body` is the request body, byte for byte as received; `authorization` is the value of its Authorization
        header; `project` restricts which project may have signed it. Doesn't acknowledge it: see `ack_webhook`.
        Raises VerificationFailed if it isn't genuine, TypeError if the body isn't bytes.
        """
        if not isinstance(body, bytes):
            raise TypeError(f"pass the raw bytes of the body, not {type(body).__name__}: other bytes don't verify")
        request = pb.VerifyWebhookRequest(body=body, authorization=authorization, project=project)
        response = await self._call(lambda stub: stub.VerifyWebhook, request, timeout)
        return verified_webhook(response, body)

    async def ack_webhook(self, event: VerifiedWebhook, *, timeout: float | None = None) -> datetime | None:
        """Records that this caller has handled a webhook, so that a redelivery is reported as a duplicate.

        Returns the time until which the server remembers it, in UTC; None for an event without an id, which can't be
        recorded.
        """
        if not event.event_id:
            return None
        request = pb.AckWebhookRequest(project=event.project, event_id=event.event_id, body_sha256=event.body_sha256)
        response = await self._call(lambda stub: stub.AckWebhook, request, timeout)
        return results.to_datetime(response.expire_time)

    async def verify_token(self, token: str, *, timeout: float | None = None) -> VerifiedToken:
        """Verifies a LiveKit access token of at most 3 MiB. Raises VerificationFailed if it isn't valid now."""
        request = pb.VerifyTokenRequest(token=token)
        return results.verified_token(await self._call(lambda stub: stub.VerifyToken, request, timeout))

    async def get_caller(self, *, timeout: float | None = None) -> Caller:
        """Returns how the server identifies this caller and what the policy permits. Check this first when denied."""
        return results.caller(await self._call(lambda stub: stub.GetCaller, pb.GetCallerRequest(), timeout))

    async def _call(
        self,
        method: Callable[[AuthServiceAsyncStub], grpc.aio.UnaryUnaryMultiCallable[_RequestT, _ResponseT]],
        request: _RequestT,
        timeout: float | None,
    ) -> _ResponseT:
        """Retries the call until it succeeds, fails permanently, or its time is over."""
        attempts = Attempts(self._timeout if timeout is None else check_timeout(timeout))

        async def attempt() -> _ResponseT:
            async with self._connection.stub() as stub:
                try:
                    response = await method(stub)(
                        request, timeout=attempts.left, wait_for_ready=attempts.again, metadata=trace_metadata()
                    )
                except grpc.RpcError as error:
                    raise self._explained(attempts.failed(to_error(error)), attempts) from error
            if response is None:  # what gRPC may return for bytes that don't parse, despite its types
                raise unusable("not a response message of this method")
            return response

        retrying = AsyncRetrying(
            retry=retry_if_exception(is_transient), wait=attempts.pause, stop=attempts.over, reraise=True
        )
        return await retrying(attempt)

    def _explained(self, error: AuthError, attempts: Attempts) -> AuthError:
        """The same error, or NotConnected if there was no connection and its cause is already known."""
        if error.code != "UNAVAILABLE" or error.reason:
            return error
        finding = self._connection.diagnose(attempts.began)
        return error if finding is None else not_connected(finding)
