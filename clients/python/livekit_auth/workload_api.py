"""X509-SVIDs and trust bundles from the SPIFFE Workload API, kept up to date. Needs the extra `spiffe`.

Public: livekit-auth-server uses it too, and its names keep their meaning within a major version.

A thread holds the agent's stream open and keeps the last update. Guarantees: an update is applied completely or not at
all; when the agent is unavailable the last update stays, and `state` says why there is nothing newer; the stream is
reopened automatically, on a new connection each time; a forked child keeps the last update and opens its own stream at
the next access. No key appears in a repr, a log or an error.

Source: SPIFFE_Workload_API.md sections 4 and 5.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from livekit_auth._messages.errors import ConfigError
from livekit_auth._process import fork
from livekit_auth.extras import how_to_install

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spiffe import WorkloadApiClient, X509Svid
    from spiffe.workloadapi.x509_context import X509Context

__all__ = ["VARIABLE", "Issued", "Svid", "WorkloadApi", "endpoint_socket"]

VARIABLE = "SPIFFE_ENDPOINT_SOCKET"
"""The environment variable that names the agent's socket."""
_SOCKET = re.compile(r"unix:(?://)?/(?!/)[^\s?#]+\Z")
_LONGEST_PATH = 107  # bytes, the limit of Linux for the path of a socket
_SHORTEST, _LONGEST = 0.1, 2.0  # seconds before the stream is reopened: a restarted agent should be found soon

_log = logging.getLogger("livekit_auth")


@dataclass(frozen=True, slots=True)
class Svid:
    """An identity with its certificate chain, leaf first, and its private key, both in PEM."""

    spiffe_id: str
    certificate: bytes
    key: bytes = field(repr=False)

    @property
    def trust_domain(self) -> str:
        """The trust domain of its SPIFFE ID."""
        return self.spiffe_id.removeprefix("spiffe://").partition("/")[0]


@dataclass(frozen=True, slots=True)
class Issued:
    """The agent's last update: this workload's SVID, and the CA certificates of each trust domain, in PEM."""

    svid: Svid
    bundles: Mapping[str, bytes]


def endpoint_socket(given: str | None) -> str:
    """The given socket, or else that of SPIFFE_ENDPOINT_SOCKET. Raises ConfigError."""
    socket = given or os.environ.get(VARIABLE, "")
    if not socket:
        raise ConfigError(
            f"no Workload API: name its socket, or set {VARIABLE}, for example to unix:///run/spire/agent.sock"
        )
    if not _SOCKET.match(socket):
        raise ConfigError(f"the Workload API socket must be unix:///PATH, not {socket!r}")
    if len(socket.removeprefix("unix:").removeprefix("//").encode()) > _LONGEST_PATH:
        raise ConfigError(f"the path of {socket} is too long for a socket: at most {_LONGEST_PATH} bytes")
    return socket


class WorkloadApi:
    """Follows the Workload API from construction until `close`. Safe to use from any thread.

    `spiffe_id` selects one of several SVIDs; by default the first is used (section 5.3).
    """

    def __init__(
        self,
        socket: str | None = None,
        *,
        spiffe_id: str | None = None,
        dist: str = "livekit-auth",
        warn: Callable[[str], None] = _log.warning,
    ) -> None:
        """Takes the socket from SPIFFE_ENDPOINT_SOCKET if none is given. Raises ConfigError.

        `dist` is the package whose extra installs `spiffe`. `warn` is called, on another thread, for each new problem.
        """
        self.socket = endpoint_socket(socket)
        try:
            import spiffe  # noqa: PLC0415 - an extra
        except ImportError:
            raise ConfigError(f"the Python package spiffe is missing: {how_to_install('spiffe', dist=dist)}") from None
        self._connect: Callable[[], WorkloadApiClient] = lambda: spiffe.WorkloadApiClient(self.socket)
        self._wanted, self._warn = spiffe_id, warn
        self._state: tuple[Issued | None, str] = (None, "no response yet")
        self._closed = False
        self.forked()
        fork.register(self)
        self._start()

    def forked(self) -> None:
        """Called in a forked child, which has none of the parent's threads: the next access opens another stream."""
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def _start(self) -> None:
        with self._changed:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="spiffe-workload-api", daemon=True)
                self._thread.start()

    @property
    def state(self) -> tuple[Issued | None, str]:
        """The last update, and why there is nothing newer: "" while the stream is open. A consistent pair."""
        if self._thread is None:
            self._start()
        return self._state

    def first(self, seconds: float) -> Issued:
        """Waits for the first SVID. Raises ConfigError, which says what to do, if none arrives in this time."""
        with self._changed:
            self._changed.wait_for(lambda: self._state[0] is not None or self._closed, seconds)
            issued, problem = self._state
        if issued is None:
            raise ConfigError(f"no SVID from the Workload API at {self.socket} within {seconds:g} s: {problem}")
        return issued

    def close(self) -> None:
        """Closes the stream. The last update stays readable."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._ended.set()

    def _run(self) -> None:
        pause = _SHORTEST
        while not self._closed:
            began = time.monotonic()
            problem = self._follow()
            self._put(self._state[0], problem)
            # A stream that lasted a while was a good one: the agent was restarted and will be back soon.
            pause = _SHORTEST if time.monotonic() - began > _LONGEST else min(2 * pause, _LONGEST)
            self._ended.clear()
            self._ended.wait(pause)

    def _follow(self) -> str:
        """Opens the stream and applies updates until it ends. Returns why it ended."""
        reasons: list[str] = []
        self._ended.clear()
        if self._closed:
            return "it was closed"

        def end(error: Exception) -> None:
            reasons.append(_meaning(error))
            self._ended.set()

        try:
            with closing(self._connect()) as client:
                # The library's own retries are off: they give up on some errors, and after a number of attempts.
                stream = client.stream_x509_contexts(self._take, end, retry_connect=False)
                self._ended.wait()
                stream.cancel()
        except Exception as error:  # noqa: BLE001 - the library's errors vary, and this thread must survive all of them
            reasons.append(_meaning(error))
        return reasons[0] if reasons else "the agent ended the stream"

    def _take(self, context: X509Context) -> None:
        """Called by the library for each update. Must not raise, since the library would then end the stream."""
        try:
            issued = Issued(self._choose(context), _bundles(context))
        except ConfigError as error:
            self._put(self._state[0], str(error))
        except Exception as error:  # noqa: BLE001
            self._put(self._state[0], f"the agent's update can't be used ({type(error).__name__})")
        else:
            self._put(issued, "")

    def _choose(self, context: X509Context) -> Svid:
        svids = context.x509_svids
        chosen = next((svid for svid in svids if self._wanted in {None, str(svid.spiffe_id)}), None)
        if chosen is None:
            given = ", ".join(str(svid.spiffe_id) for svid in svids)
            raise ConfigError(f"the agent has no SVID {self._wanted} for this process, only {given}")
        return _svid(chosen)

    def _put(self, issued: Issued | None, problem: str) -> None:
        with self._changed:
            before = self._state
            # An unchanged update keeps the same object, so that nothing reacts to it.
            self._state = (before[0] if issued == before[0] else issued, problem)
            self._changed.notify_all()
        if problem and problem != before[1] and not self._closed:
            self._warn(f"Workload API at {self.socket}: {problem}")


def _svid(svid: X509Svid) -> Svid:
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - installed by the extra
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    chain = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in svid.cert_chain)
    key = svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Svid(str(svid.spiffe_id), chain, key)


def _bundles(context: X509Context) -> dict[str, bytes]:
    """The CA certificates of each trust domain, in an order that is stable while they don't change."""
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415

    return {
        bundle.trust_domain.name: b"".join(sorted(ca.public_bytes(Encoding.PEM) for ca in bundle.x509_authorities))
        for bundle in context.x509_bundle_set.bundles
    }


def _meaning(error: Exception) -> str:
    """Why the stream ended, and what to do. The library reports the cause only as text."""
    text = str(error)
    if "PERMISSION_DENIED" in text:
        return "the agent has no identity for this process: register an entry whose selectors match it"
    if "UNAVAILABLE" in text:
        return "no agent responds: check that it is running and that this process may open its socket"
    if "does not exist" in text:
        return "no such socket: check that the agent is running and that its socket is mounted"
    if "stream ended" in text:
        return "the agent ended the stream"
    code = re.search(r"StatusCode\.(\w+)", text)
    return f"the stream failed ({code[1] if code else type(error).__name__})"
