"""The server's own certificate, and the bundles of the trust domains that the settings name, from the Workload API.

Guarantees: a bundle for a domain that isn't named is ignored; a named domain that the agent takes back is trusted no
more (SPIFFE_Workload_API.md section 4.4); when the agent is unavailable, its last update stays, and `report` says so.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.trust.bundles import authorities

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from livekit_auth.workload_api import Issued, Svid, WorkloadApi
    from livekit_auth_server.config.settings import Settings
    from livekit_auth_server.core.certificate_chain import CertificateBundle

_LOOK = 0.05  # seconds between looks for the bundles that are missing
_log = structlog.get_logger("livekit_auth_server")


class WorkloadSource:
    """What the Workload API gives this process, as the server uses it. Safe to use from any thread."""

    def __init__(self, api: WorkloadApi, first: Issued, domains: Sequence[str]) -> None:
        self._api, self._first, self._domains = api, first, domains
        self._missing: set[str] = set()

    def svid(self) -> Svid:
        """The SVID that was sent last: the server's certificate."""
        return self._latest().svid

    def bundles(self) -> dict[str, CertificateBundle]:
        """The named domains' bundles as they were sent last; one that was taken back is empty. Raises ConfigError."""
        sent = self._latest().bundles
        return {
            name: authorities(sent.get(name, b""), f"the bundle of {name} from the agent") for name in self._domains
        }

    def svid_state(self) -> object:
        """Another object when the SVID, or whether the agent is there, has changed."""
        issued, problem = self._api.state
        return issued and issued.svid, problem

    def bundles_state(self) -> object:
        """Another object when a bundle, or whether the agent is there, has changed."""
        issued, problem = self._api.state
        return issued and issued.bundles, problem

    def report(self) -> None:
        """Warns of domains that were taken back. Raises ConfigError while nothing newer can come from the agent."""
        missing = {name for name in self._domains if name not in self._latest().bundles}
        for name in sorted(missing - self._missing):
            _log.warning("the Workload API gives no bundle for a trust domain any more: it is refused", domain=name)
        self._missing = missing
        if problem := self._api.state[1]:
            raise ConfigError(f"workload_api {self._api.socket}", problem)

    def moved(self) -> bool:
        """Whether something was sent since the start."""
        return self._api.state[0] is not self._first

    def _latest(self) -> Issued:
        return self._api.state[0] or self._first


@contextmanager
def opened(settings: Settings) -> Iterator[WorkloadSource | None]:
    """The source while the block runs, or None where the settings name none. Waits for an SVID and the named bundles.

    Raises ConfigError when one of them doesn't come in time.
    """
    wanted = settings.workload_api
    if wanted is None:
        yield None
        return
    # Imported here: it brings gRPC, and the library is an extra.
    from livekit_auth import ConfigError as ClientConfigError  # noqa: PLC0415
    from livekit_auth.workload_api import WorkloadApi  # noqa: PLC0415

    try:
        # Problems are the reloader's to report, as those of files are.
        api = WorkloadApi(wanted.socket, spiffe_id=wanted.id, dist="livekit-auth-server", warn=lambda _: None)
    except ClientConfigError as error:
        raise ConfigError("workload_api", str(error)) from None
    try:
        try:
            first = _first(api, settings.identity.workload_api, wanted.patience)
        except ClientConfigError as error:
            raise ConfigError("workload_api", str(error)) from None
        yield WorkloadSource(api, first, settings.identity.workload_api)
    finally:
        api.close()


def _first(api: WorkloadApi, domains: Sequence[str], patience: float) -> Issued:
    """What was sent first with a bundle for each domain: an agent can send the SVID before the federated bundles."""
    until = time.monotonic() + patience
    first = api.first(patience)
    while missing := [name for name in domains if name not in first.bundles]:
        if time.monotonic() >= until:
            raise ConfigError(
                "identity.workload_api",
                f"the agent gives no bundle for {missing[0]}, only for {', '.join(sorted(first.bundles))}: "
                f"have the server's entry federate with it, or remove it",
            )
        time.sleep(_LOOK)
        first = api.state[0] or first
    return first
