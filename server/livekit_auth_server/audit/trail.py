"""The audit trail: every permit has a line of its own, and denials as far as the caller's allowance of lines reaches.

Guarantees: a permit is recorded when every sink has taken it, the first one first; if one refuses it, those before it
get a line that says that its token didn't leave. Which sinks may refuse is part of the settings.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import structlog

from livekit_auth_server.audit.sink import unavailable
from livekit_auth_server.core.counted_denials import UNLISTED, Denials
from livekit_auth_server.core.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from livekit_auth_server.audit.sink import Sink
    from livekit_auth_server.core.audit import AuditLine, AuditRecord
    from livekit_auth_server.service.ports import AuditObserver, Clock

_log = structlog.get_logger("livekit_auth_server")


@dataclass(slots=True)
class AuditTrail:
    """Records every issuance decision in its sinks: service.ports.AuditSink."""

    sinks: Sequence[Sink]
    clock: Clock
    observer: AuditObserver
    denials: Denials = field(default_factory=Denials)
    waiting: int = 0  # decisions that aren't recorded yet
    _ticking: asyncio.Task[None] | None = None

    async def record(self, *records: AuditRecord) -> None:
        """Records permits. Raises AUDIT_UNAVAILABLE."""
        self.waiting += len(records)
        started = self.clock.monotonic()
        try:
            await self._record(records)
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

    async def _record(self, records: Sequence[AuditRecord]) -> None:
        if any(sink.stopped() for sink in self.sinks):  # before any sink has a line
            raise unavailable()
        for number, sink in enumerate(self.sinks):
            try:
                await sink.record(records)
            except BaseException as error:
                why = "the call had ended" if isinstance(error, asyncio.CancelledError) else "another sink refused it"
                decisions = [record.decision_id for record in records if record.token_sha256]
                for before in self.sinks[:number]:
                    before.withhold(decisions, why)
                raise

    def withhold(self, records: Sequence[AuditRecord], why: str) -> None:
        """Records that the tokens of these recorded permits didn't leave. Never waits."""
        if records:
            for sink in self.sinks:
                sink.withhold([record.decision_id for record in records], why)
            self.observer.withheld(records, why)

    def deny(self, record: AuditRecord, *, listed: bool = True) -> None:
        """Records a denial, in a line of its own or counted with others. Never fails, never waits."""
        self.observer.decided(record)
        if self.denials.admits(record, self.clock.monotonic(), shared=None if listed else UNLISTED):
            self._note(record)
        else:
            self.observer.coalesced(1)

    def ready(self) -> list[str]:
        """Why nothing can be issued now; empty if it can."""
        return [reason for sink in self.sinks for reason in sink.ready()]

    async def open(self) -> None:
        """Opens the sinks and starts what is done every second. Raises SinkError."""
        for sink in self.sinks:
            await sink.open()
        self._ticking = asyncio.create_task(self._tick_every_second(), name="audit")

    async def close(self) -> None:
        """Writes what was counted and what is pending."""
        if self._ticking is not None:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking
        self._write_counted(0.0)
        await asyncio.gather(*(sink.close() for sink in self.sinks))

    async def _tick_every_second(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            chores: list[Callable[[], object]] = [partial(self._write_counted, 1.0), *(one.tick for one in self.sinks)]
            for chore in chores:
                try:
                    chore()
                except Exception:  # noqa: BLE001 - the others must go on
                    _log.exception("the audit trail's housekeeping failed")

    def _write_counted(self, every: float) -> None:
        for counted in self.denials.counted(self.clock.monotonic(), every):
            self._note(counted)

    def _note(self, line: AuditLine) -> None:
        for sink in self.sinks:
            sink.note(line)
