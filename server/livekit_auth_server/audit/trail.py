"""The audit trail: permits go through one by one, denials as far as the caller's allowance of lines reaches."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import structlog

from livekit_auth_server.audit.audit_file import AuditFile
from livekit_auth_server.audit.audit_log import AuditLog
from livekit_auth_server.audit.chained_file import ChainedFile, SinkError
from livekit_auth_server.audit.metrics import AuditMetrics
from livekit_auth_server.core.counted_denials import UNLISTED, Denials
from livekit_auth_server.core.refusal import Refusal
from livekit_auth_server.files.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from prometheus_client import CollectorRegistry

    from livekit_auth_server.core.audit import AuditRecord
    from livekit_auth_server.logs.nonblocking_stream import LineStream
    from livekit_auth_server.service.ports import AuditObserver, Clock

_log = structlog.get_logger("livekit_auth_server")


class Sink(Protocol):
    """Where lines go: AuditFile or AuditLog."""

    async def open(self) -> None:
        """Makes ready to write. Raises SinkError."""

    async def record(self, records: Sequence[AuditRecord]) -> None:
        """Writes a line for each and returns when they are safe. Raises AUDIT_UNAVAILABLE."""

    def note(self, members: str) -> None:
        """Adds a line that nobody waits for; `members` are JSON members in ASCII."""

    def withhold(self, decisions: Sequence[str], why: str) -> None:
        """Adds lines that nobody waits for, and that aren't dropped: the tokens of these decisions didn't leave."""

    def tick(self) -> None:
        """Is called every second."""

    def ready(self) -> list[str]:
        """Why nothing can be issued now; empty when it can."""

    async def close(self) -> None:
        """Writes what is pending and lets go."""


@dataclass(slots=True)
class AuditTrail:
    """Records every issuance decision in a sink: service.ports.AuditSink."""

    sink: Sink
    clock: Clock
    observer: AuditObserver
    denials: Denials = field(default_factory=Denials)
    waiting: int = 0  # decisions that aren't recorded yet
    _ticking: asyncio.Task[None] | None = None

    async def record(self, *records: AuditRecord) -> None:
        """Records permits; returns when they are safe. Raises AUDIT_UNAVAILABLE."""
        self.waiting += len(records)
        started = self.clock.monotonic()
        try:
            await self.sink.record(records)
        except Refusal:
            self.observer.unrecorded(records)
            raise
        except asyncio.CancelledError:  # the sink writes these lines all the same, and that no token left
            self._count(records)
            self.observer.withheld([record for record in records if record.token_sha256], "")
            raise
        finally:
            self.waiting -= len(records)
            self.observer.waited(self.clock.monotonic() - started)
        self._count(records)

    def _count(self, records: Sequence[AuditRecord]) -> None:
        for record in records:
            self.observer.decided(record)

    def withhold(self, records: Sequence[AuditRecord], why: str) -> None:
        """Says that the tokens of these permits didn't leave, though they are recorded. Never waits."""
        if records:
            self.sink.withhold([record.decision_id for record in records], why)
            self.observer.withheld(records, why)

    def deny(self, record: AuditRecord, *, listed: bool = True) -> None:
        """Records a denial, in a line of its own or counted with others. Never fails, never waits."""
        self.observer.decided(record)
        if self.denials.admits(record, self.clock.monotonic(), shared=None if listed else UNLISTED):
            self.sink.note(f'"kind":"decision",{record.to_json()[1:-1]}')
        else:
            self.observer.coalesced(1)

    def ready(self) -> list[str]:
        """Why nothing can be issued now; empty when it can."""
        return self.sink.ready()

    async def open(self) -> None:
        """Opens the sink and starts what is done every second. Raises SinkError."""
        await self.sink.open()
        self._ticking = asyncio.create_task(self._tick_every_second(), name="audit")

    async def close(self) -> None:
        """Writes out what was counted and what is pending."""
        if self._ticking is not None:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking
        self._write_counted(0.0)
        await self.sink.close()

    async def _tick_every_second(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            try:
                self._write_counted(1.0)
                self.sink.tick()
            except Exception:  # noqa: BLE001 - it must go on
                _log.exception("the audit trail's housekeeping failed")

    def _write_counted(self, every: float) -> None:
        for counted in self.denials.counted(self.clock.monotonic(), every):
            self.sink.note(f'"kind":"denials",{counted.to_json()[1:-1]}')


async def open_trail(  # noqa: PLR0913 - the parts that it puts together
    directory: Path | None,
    patience: float,
    clock: Clock,
    registry: CollectorRegistry,
    *,
    stream: LineStream,
    worker: int | None = None,
) -> AuditTrail:
    """A worker's trail: its file in the directory, or log lines on the stream without one. Raises ConfigError.

    `worker` is its number where there are several.
    """
    metrics = AuditMetrics(registry)
    if directory is None:
        trail = AuditTrail(AuditLog(stream, metrics, worker), clock, metrics)
        metrics.show_waiting(lambda: trail.waiting)
        await trail.open()
        return trail
    path = directory / f"audit.{worker or 0}.jsonl"
    trail = AuditTrail(AuditFile(ChainedFile(path, clock), clock, metrics, patience), clock, metrics)
    metrics.show_waiting(lambda: trail.waiting)
    try:
        await trail.open()
    except SinkError as error:
        raise ConfigError(path, f"the audit trail can't be kept here: {error}") from None
    return trail
