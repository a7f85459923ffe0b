"""The audit trail in a chained file: a line is on the disk before its token leaves.

Guarantees:
- `record` returns only after its lines were written and synced; concurrent calls share one sync;
- if the disk fails, or takes longer than `patience`, `record` raises AUDIT_UNAVAILABLE; the next call tries again, and
  without a call `tick` does, so that the sink recovers by itself;
- a line whose call gave up before the line was handed to the disk isn't written; if it was written nevertheless, a
  *withheld* line follows that names its decision: its token didn't leave;
- notes (denials) are chained in order and not waited for. Their memory is bounded; if the disk is too slow they are
  dropped, and the trail says how many.

One thread touches the file, so that a disk that hangs stops nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING

import structlog

from livekit_auth_server.audit.chained_file import ChainedFile, reason
from livekit_auth_server.audit.sink import SinkError, unavailable
from livekit_auth_server.core.audit import Dropped, Withheld

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit_auth_server.core.audit import AuditLine, AuditRecord
    from livekit_auth_server.core.chain import Head
    from livekit_auth_server.service.ports import AuditObserver, Clock

MAX_NOTES = 2_000  # notes in memory
HEAD_SECONDS, HEAD_LINES = 10.0, 1_000  # how often the head goes to the log
_GAP = 0.002  # seconds between syncs: under load calls share one, and a single call doesn't wait
_NOTE_DELAY = 0.1  # seconds that a note waits for others, to share a sync
_log = structlog.get_logger("livekit_auth_server")


@dataclass(slots=True, eq=False)
class _Entry:
    """Lines that are written together. `done` is what their call waits for; notes have none.

    `issues` are the decisions with tokens. Lines that are `kept` are written again after a failure, since a missing
    "withheld" line says that a token left.
    """

    lines: Sequence[AuditLine]
    done: asyncio.Future[None] | None = None
    issues: tuple[str, ...] = ()
    kept: bool = False

    def given_up(self) -> bool:
        return self.done is not None and self.done.done()


class AuditFile:
    """audit.sink.Sink on a ChainedFile. `patience` is how long a decision waits for the disk, in seconds."""

    def __init__(self, file: ChainedFile, clock: Clock, observer: AuditObserver, patience: float) -> None:
        self._file, self._clock, self._observer, self._patience = file, clock, observer, patience
        self._pending: list[_Entry] = []
        self._writing: list[_Entry] | None = None
        self._scheduled = False
        self._notes = self._dropped = 0
        self._failure = ""  # why nothing can be written; empty if all is well
        self._stuck = False  # whether the batch being written takes longer than the patience
        self._oldest = 0.0  # when the first pending entry was added
        self._submitted_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._note_timer: asyncio.TimerHandle | None = None
        self._exported, self._exported_at = 0, 0.0
        self._loop: asyncio.AbstractEventLoop
        self._opened = False
        self._queue: SimpleQueue[list[AuditLine] | None] = SimpleQueue()

    async def open(self) -> None:
        """Opens the file and begins a segment. Raises SinkError, after `patience` at the latest."""
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._write, name="audit", daemon=True).start()
        self._submit([_Entry((), opened)])
        try:
            await opened
        except SinkError:
            self._queue.put(None)
            raise
        self._opened = True
        self._export()

    def stopped(self) -> bool:
        """Whether the disk is known to hang."""
        return self._stuck

    async def record(self, records: Sequence[AuditRecord]) -> None:
        """Returns when a line per record is on the disk. Raises AUDIT_UNAVAILABLE."""
        if self._stuck:
            raise unavailable()
        done: asyncio.Future[None] = self._loop.create_future()
        issues = tuple(record.decision_id for record in records if record.token_sha256)
        self._add(_Entry(records, done, issues))
        self._schedule()
        try:
            await done
        except SinkError:
            raise unavailable() from None
        except asyncio.CancelledError:
            written = done.done() and not done.cancelled() and done.exception() is None
            if written:  # and the call ended before it was told
                self.withhold(issues, "the call had ended")
            raise

    def note(self, line: AuditLine) -> None:
        """Adds a line that nobody waits for."""
        if self._notes >= MAX_NOTES:
            self._drop(1)
            return
        self._notes += 1
        self._add(_Entry((line,)))
        if self._note_timer is None and self._writing is None:
            self._note_timer = self._loop.call_later(_NOTE_DELAY, self._schedule)

    def withhold(self, decisions: Sequence[str], why: str) -> None:
        """Adds a line per decision: its token didn't leave."""
        if decisions:
            now = int(self._clock.now())
            self._add(_Entry([Withheld(decision, now, why) for decision in decisions], kept=True))
            self._schedule()

    def tick(self) -> None:
        """Exports the head when it is due, and checks whether the file can be written.

        So readiness reports a failure, and its end, without a call.
        """
        if self._writing is None and (self._failure or not self._pending):
            self._submit(self._take())
        if self._clock.monotonic() - self._exported_at >= HEAD_SECONDS:
            self._export()

    def ready(self) -> list[str]:
        """Why nothing can be issued now; empty if it can."""
        return [f"the audit trail can't be written: {self._failure} ({self._file.path})"] if self._failure else []

    async def close(self) -> None:
        """Writes what is pending, exports the head and closes the file. Takes `patience` at most."""
        with contextlib.suppress(SinkError, TimeoutError):
            async with asyncio.timeout(self._patience):
                while self._pending or self._writing is not None:
                    await self._flushed()
        if lost := sum(len(entry.lines) for entry in self._pending if entry.kept):
            _log.error("withheld tokens couldn't be recorded as withheld", path=str(self._file.path), count=lost)
        self._export()
        self._queue.put(None)

    async def _flushed(self) -> None:
        """Returns when everything that is pending now is on the disk. Raises SinkError."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._add(_Entry((), done))
        self._schedule()
        await done

    def _add(self, entry: _Entry) -> None:
        if not self._pending:
            self._oldest = self._loop.time()
        self._pending.append(entry)

    def _schedule(self) -> None:
        """Submits what is pending, with what else comes in this turn of the loop or before the gap ends."""
        if self._writing is not None or self._scheduled:
            return
        self._scheduled = True
        gap = self._submitted_at + _GAP - self._loop.time()
        if gap > 0:
            self._loop.call_later(gap, self._flush)
        else:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._writing is None and (batch := self._take()):
            self._submit(batch)

    def _take(self) -> list[_Entry]:
        batch, self._pending, self._notes = self._pending, [], 0
        return [entry for entry in batch if not entry.given_up()]

    def _submit(self, batch: list[_Entry]) -> None:
        if self._note_timer is not None:
            self._note_timer.cancel()
            self._note_timer = None
        self._writing = batch
        self._submitted_at = now = self._loop.time()
        waits = self._patience - (now - self._oldest if self._oldest else 0.0)
        self._timer = self._loop.call_later(max(0.0, waits), self._expire)
        self._oldest = 0.0
        self._queue.put([line for entry in batch for line in entry.lines])

    def _write(self) -> None:
        """The thread: writes batch after batch."""
        while (lines := self._queue.get()) is not None:
            error: BaseException | None = None
            try:
                self._file.append(lines)
            except BaseException as caught:  # noqa: BLE001 - no call may wait forever, whatever it is
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self._loop.call_soon_threadsafe(self._written, error)
        self._file.close()

    def _written(self, error: BaseException | None) -> None:
        """A batch was written, or failed."""
        batch, self._writing, self._stuck = self._writing or [], None, False
        if self._timer is not None:
            self._timer.cancel()
        if error is None:
            self._succeeded(batch)
        else:
            self._failed(batch, reason(error))
        if any(error is None or not entry.kept for entry in self._pending):  # kept ones wait for a tick after a failure
            self._schedule()

    def _succeeded(self, batch: list[_Entry]) -> None:
        if self._failure:
            _log.warning("the audit trail can be written again", path=str(self._file.path), after=self._failure)
            self._failure = ""
        for entry in batch:
            if entry.done is None:
                continue
            if entry.done.done():
                self.withhold(entry.issues, "the call had ended")
            else:
                entry.done.set_result(None)
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._add(_Entry((Dropped(dropped, int(self._clock.now())),)))
        if self._head.sequence - self._exported >= HEAD_LINES:
            self._export()

    def _failed(self, batch: list[_Entry], why: str) -> None:
        self._fail(why)
        self._pending[:0] = [entry for entry in batch if entry.kept]
        for entry in batch:
            if entry.kept:
                continue
            if entry.done is None:
                self._drop(len(entry.lines))
            elif not entry.done.done():
                entry.done.set_exception(SinkError(why))

    def _expire(self) -> None:
        """The disk hasn't answered in time: the calls that wait fail, and those that come meanwhile fail at once."""
        if self._writing is None:
            return
        self._stuck = True
        why = f"the disk hasn't answered for {self._patience:g} s"
        self._fail(why)
        for entry in (*self._writing, *self._pending):
            if entry.done is not None and not entry.done.done():
                entry.done.set_exception(SinkError(why))
        self._pending = [entry for entry in self._pending if not entry.given_up()]

    def _fail(self, why: str) -> None:
        if why != self._failure and self._opened:
            _log.error("the audit trail can't be written: nothing is issued", path=str(self._file.path), why=why)
        self._failure = why

    def _drop(self, count: int) -> None:
        self._dropped += count
        self._observer.dropped(count)

    @property
    def _head(self) -> Head:
        head = self._file.head
        assert head is not None  # noqa: S101 - opening sets it
        return head

    def _export(self) -> None:
        """Writes the chain's head to the log and the metrics, if it has changed."""
        head = self._head
        if head.sequence != self._exported:
            _log.info("audit head", path=str(self._file.path), head=str(head))
            self._observer.head(head.sequence)
            self._exported, self._exported_at = head.sequence, self._clock.monotonic()
