# Generated from livekit_auth/_async/client.py by tools/unasync.py: edit that file instead.
"""The client: one method per RPC of AuthService."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypeVar

import grpc
from google.protobuf.message import Message
from tenacity import Retrying, retry_if_exception

from livekit_auth._connection.config import DEFAULT_TIMEOUT, Config, check_timeout
from livekit_auth._connection.retry import Attempts, is_transient
from livekit_auth._connection.trace import trace_metadata
from livekit_auth._messages import permissions, results
from livekit_auth._messages.decision import decision
from livekit_auth._messages.errors import AuthError, InvalidRequest, not_connected, unusable
from livekit_auth._messages.requests import TokenRequest, encode
from livekit_auth._messages.server_info import required, server_info
from livekit_auth._messages.status import to_error
from livekit_auth._messages.webhook import VerifiedWebhook, verified_webhook
from livekit_auth._sync.connection import Connection
from livekit_auth.v1 import auth_service_pb2 as pb

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime, timedelta
    from types import TracebackType

    from livekit_auth._messages.decision import Decision
    from livekit_auth._messages.permissions import AllowEntry, Caller, Project
    from livekit_auth._messages.requests import Kind
    from livekit_auth._messages.results import IssuedToken, VerifiedToken
    from livekit_auth._messages.server_info import ServerInfo
    from livekit_auth.v1.auth_service_pb2_grpc import AuthServiceStub
    from livekit_auth.v1.grants_pb2 import Grants, ParticipantKind
    from livekit_auth.v1.room_config_pb2 import RoomConfig

_RequestT = TypeVar("_RequestT", bound=Message)
_ResponseT = TypeVar("_ResponseT")
_PageT = TypeVar("_PageT", pb.ListPermissionsResponse, pb.ListProjectsResponse)
if TYPE_CHECKING:
    _Method = Callable[[AuthServiceStub], grpc.UnaryUnaryMultiCallable[_RequestT, _ResponseT]]

MAX_PAGES = 1_000
"""The most pages of a list that the client reads: a million values of a policy."""


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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Refuses new calls, and closes the connection when the calls in flight have ended."""
        self._connection.close()

    def issue_token(  # noqa: PLR0913 - the contract's fields, keyword-only
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
        request_reason: str = "",
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
            request_reason=request_reason,
        )
        return self.issue(request, timeout=timeout)

    def issue(self, request: TokenRequest, *, timeout: float | None = None) -> IssuedToken:
        """Issues one token for a TokenRequest; otherwise as `issue_token`."""
        response = self._call(lambda stub: stub.IssueToken, encode(request), timeout)
        return results.issued_token(response, validate_only=request.validate_only)

    def issue_tokens(
        self, requests: Sequence[TokenRequest], *, timeout: float | None = None
    ) -> list[IssuedToken | AuthError]:
        """Issues up to 500 tokens, with at most 1 MiB of requests. Each succeeds or fails on its own.

        The results are in the order of the requests; a failed entry is an error in the list. Raises AuthError only if
        the whole call fails.
        """
        if not requests:
            return []
        batch = pb.BatchIssueTokensRequest(requests=[encode(request) for request in requests])
        response = self._call(lambda stub: stub.BatchIssueTokens, batch, timeout)
        return results.batch(response, requests)

    def verify_webhook(
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
        response = self._call(lambda stub: stub.VerifyWebhook, request, timeout)
        return verified_webhook(response, body)

    def ack_webhook(self, event: VerifiedWebhook, *, timeout: float | None = None) -> datetime | None:
        """Records that this caller has handled a webhook, so that a redelivery is reported as a duplicate.

        Returns the time until which the server remembers it, in UTC; None for an event without an id, which can't be
        recorded.
        """
        if not event.event_id:
            return None
        request = pb.AckWebhookRequest(project=event.project, event_id=event.event_id, body_sha256=event.body_sha256)
        response = self._call(lambda stub: stub.AckWebhook, request, timeout)
        return results.to_datetime(response.expire_time)

    def verify_token(self, token: str, *, timeout: float | None = None) -> VerifiedToken:
        """Verifies a LiveKit access token of at most 3 MiB. Raises VerificationFailed if it isn't valid now."""
        request = pb.VerifyTokenRequest(token=token)
        return results.verified_token(self._call(lambda stub: stub.VerifyToken, request, timeout))

    def get_caller(self, *, timeout: float | None = None) -> Caller:
        """Returns how the server identifies this caller. Check this first when denied."""
        return permissions.caller(self._call(lambda stub: stub.GetCaller, pb.GetCallerRequest(), timeout))

    def list_permissions(self, *, timeout: float | None = None) -> list[AllowEntry]:
        """Returns what the policy permits this caller: its entries, all of one revision of the policy.

        Reads as many pages as there are, all within `timeout`.
        """
        pages = self._pages(lambda stub: stub.ListPermissions, pb.ListPermissionsRequest, timeout)
        return permissions.allow_entries(pages)

    def list_projects(self, *, timeout: float | None = None) -> list[Project]:
        """Returns the projects that this caller may use, sorted by name; otherwise as `list_permissions`."""
        return permissions.projects(self._pages(lambda stub: stub.ListProjects, pb.ListProjectsRequest, timeout))

    def get_decision(self, decision_id: str, *, timeout: float | None = None) -> Decision:
        """Explains a recent denial, by an error's `decision_id`.

        Raises NotFound once the server has forgotten it, and if it is another caller's in a project whose decisions
        this caller may not read.
        """
        request = pb.GetDecisionRequest(decision_id=decision_id)
        return decision((self._call(lambda stub: stub.GetDecision, request, timeout)).decision)

    def get_server_info(self, *, timeout: float | None = None) -> ServerInfo:
        """Returns the server's version, the revision of the contract that it speaks, and its limits."""
        return server_info(self._call(lambda stub: stub.GetServerInfo, pb.GetServerInfoRequest(), timeout))

    def require_server(self, *, timeout: float | None = None) -> ServerInfo:
        """Checks that the server knows every field and method of this client; call it when your service starts.

        Returns what `get_server_info` returns. Raises ServerTooOld, which says which server the client needs.
        """
        return required(self.get_server_info(timeout=timeout))

    def _pages(
        self,
        method: _Method[_RequestT, _PageT],
        request: Callable[..., _RequestT],
        timeout: float | None,
    ) -> list[_PageT]:
        """All pages of a list. Begins again once if the policy changes meanwhile, because pages are of one revision."""
        attempts = self._attempts(timeout)
        try:
            return self._all_pages(method, request, attempts)
        except InvalidRequest as error:
            if error.reason != "PAGE_TOKEN_INVALID":
                raise
        return self._all_pages(method, request, attempts)

    def _all_pages(
        self,
        method: _Method[_RequestT, _PageT],
        request: Callable[..., _RequestT],
        attempts: Attempts,
    ) -> list[_PageT]:
        pages = [self._retried(method, request(), attempts)]
        while token := pages[-1].next_page_token:
            if len(pages) == MAX_PAGES:
                raise unusable(f"more than {MAX_PAGES} pages")
            pages.append(self._retried(method, request(page_token=token), attempts))
        return pages

    def _call(
        self,
        method: _Method[_RequestT, _ResponseT],
        request: _RequestT,
        timeout: float | None,
    ) -> _ResponseT:
        return self._retried(method, request, self._attempts(timeout))

    def _attempts(self, timeout: float | None) -> Attempts:
        return Attempts(self._timeout if timeout is None else check_timeout(timeout))

    def _retried(
        self,
        method: _Method[_RequestT, _ResponseT],
        request: _RequestT,
        attempts: Attempts,
    ) -> _ResponseT:
        """Retries the call until it succeeds, fails permanently, or the time is over."""

        def attempt() -> _ResponseT:
            with self._connection.stub() as stub:
                try:
                    response = method(stub)(
                        request, timeout=attempts.left, wait_for_ready=attempts.again, metadata=trace_metadata()
                    )
                except grpc.RpcError as error:
                    raise self._explained(attempts.failed(to_error(error, type(request))), attempts) from error
            if response is None:  # what gRPC may return for bytes that don't parse, despite its types
                raise unusable("not a response message of this method")
            return response

        retrying = Retrying(
            retry=retry_if_exception(is_transient), wait=attempts.pause, stop=attempts.over, reraise=True
        )
        return retrying(attempt)

    def _explained(self, error: AuthError, attempts: Attempts) -> AuthError:
        """The same error, or NotConnected if there was no connection and its cause is already known."""
        if error.code != "UNAVAILABLE" or error.reason:
            return error
        finding = self._connection.diagnose(attempts.began)
        return error if finding is None else not_connected(finding)
