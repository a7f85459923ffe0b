"""The audit trail in a chained file: on the disk before a token leaves.

Guarantees:
- `record` returns only after its lines were written and synced; calls that come together share one sync;
- when the disk fails, or takes longer than `patience`, `record` raises AUDIT_UNAVAILABLE; the next call tries again,
  and without a call `tick` does, so that the sink recovers by itself;
- a line whose call gave up before it was handed to the disk isn't written; one that was written nevertheless is
  followed by a *withheld* line that names its decision: its token didn't leave;
- notes (denials) are chained in order and not waited for, bounded in memory, and dropped with a count, which goes into
  the trail too, when the disk doesn't follow.

The file is touched by one thread, so that a disk that hangs doesn't stop anything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING

import structlog

from livekit_auth_server.audit.chained_file import ChainedFile, SinkError, reason
from livekit_auth_server.core.refusal import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit_auth_server.core.audit import AuditRecord
    from livekit_auth_server.core.chain import Head
    from livekit_auth_server.service.ports import AuditObserver, Clock

MAX_NOTES = 2_000  # lines that wait for the disk without anybody waiting for them
HEAD_SECONDS, HEAD_LINES = 10.0, 1_000  # how often the head goes to the log
_GAP = 0.002  # seconds from one sync to the next: under load calls share one, and a call by itself waits for nothing
_NOTE_DELAY = 0.1  # seconds that a note waits for others to share a sync with
_log = structlog.get_logger("livekit_auth_server")


@dataclass(slots=True, eq=False)
class _Lines:
    """Lines to be written together and who waits for them: nobody, for notes. `issues` are decisions with tokens.

    Those that are `kept` are tried again when the disk fails, since a missing "withheld" line says that a token left.
    """

    members: list[str]
    done: asyncio.Future[None] | None = None
    issues: tuple[str, ...] = ()
    kept: bool = False

    def given_up(self) -> bool:
        return self.done is not None and self.done.done()


class AuditFile:
    """The sink for asyncio. `patience` is how long a decision waits for the disk, in seconds."""

    def __init__(self, file: ChainedFile, clock: Clock, observer: AuditObserver, patience: float) -> None:
        self._file, self._clock, self._observer, self._patience = file, clock, observer, patience
        self._pending: list[_Lines] = []
        self._writing: list[_Lines] | None = None
        self._scheduled = False
        self._notes = self._dropped = 0
        self._failure = ""  # why nothing can be written; empty while all is well
        self._stuck = False  # whether the batch being written takes longer than the patience
        self._oldest = 0.0  # when the first of the pending lines came
        self._submitted_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._note_timer: asyncio.TimerHandle | None = None
        self._exported, self._exported_at = 0, 0.0
        self._loop: asyncio.AbstractEventLoop
        self._opened = False
        self._queue: SimpleQueue[list[str] | None] = SimpleQueue()

    async def open(self) -> None:
        """Opens the file and begins a segment. Raises SinkError, within the patience."""
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._write, name="audit", daemon=True).start()
        self._submit([_Lines([], opened)])
        try:
            await opened
        except SinkError:
            self._queue.put(None)
            raise
        self._opened = True
        self._export()

    async def record(self, records: Sequence[AuditRecord]) -> None:
        """Returns when a line for each is on the disk. Raises AUDIT_UNAVAILABLE."""
        if self._stuck:
            raise _unavailable()
        lines = _Lines(
            [f'"kind":"decision",{record.to_json()[1:-1]}' for record in records],
            self._loop.create_future(),
            tuple(record.decision_id for record in records if record.token_sha256),
        )
        self._add(lines)
        self._schedule()
        assert lines.done is not None  # noqa: S101 - set above
        try:
            await lines.done
        except SinkError:
            raise _unavailable() from None
        except asyncio.CancelledError:
            written = lines.done.done() and not lines.done.cancelled() and lines.done.exception() is None
            if written:  # and the call ended before it heard of it
                self.withhold(lines.issues, "the call had ended")
            raise

    def note(self, members: str) -> None:
        """Adds a line that nobody waits for."""
        if self._notes >= MAX_NOTES:
            self._drop(1)
            return
        self._notes += 1
        self._add(_Lines([members]))
        if self._note_timer is None and self._writing is None:
            self._note_timer = self._loop.call_later(_NOTE_DELAY, self._schedule)

    def withhold(self, decisions: Sequence[str], why: str) -> None:
        """Says in the trail that the tokens of these decisions didn't leave."""
        if decisions:
            end = f'"time":{int(self._clock.now())},"why":"{why}"'
            lines = [f'"kind":"withheld","decision_id":"{decision}",{end}' for decision in decisions]
            self._add(_Lines(lines, kept=True))
            self._schedule()

    def tick(self) -> None:
        """To be called about every second: exports the head when it is due, and asks whether the file can be written.

        So readiness doesn't wait for a call to fail, and a failure is over without one.
        """
        if self._writing is None and (self._failure or not self._pending):
            self._submit(self._take())
        if self._clock.monotonic() - self._exported_at >= HEAD_SECONDS:
            self._export()

    def ready(self) -> list[str]:
        """Why nothing can be issued now; empty when it can."""
        return [f"the audit trail can't be written: {self._failure} ({self._file.path})"] if self._failure else []

    async def close(self) -> None:
        """Writes what is pending, exports the head and lets go of the file; takes the patience at most."""
        with contextlib.suppress(SinkError, TimeoutError):
            async with asyncio.timeout(self._patience):
                while self._pending or self._writing is not None:
                    await self._flushed()
        if lost := sum(len(lines.members) for lines in self._pending if lines.kept):
            _log.error(
                "tokens that didn't leave couldn't be recorded as withheld", path=str(self._file.path), count=lost
            )
        self._export()
        self._queue.put(None)

    async def _flushed(self) -> None:
        """Returns when all that is pending now is on the disk. Raises SinkError."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._add(_Lines([], done))
        self._schedule()
        await done

    def _add(self, lines: _Lines) -> None:
        if not self._pending:
            self._oldest = self._loop.time()
        self._pending.append(lines)

    def _schedule(self) -> None:
        """Hands over what is pending, together with what else this turn of the loop or the gap brings."""
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

    def _take(self) -> list[_Lines]:
        batch, self._pending, self._notes = self._pending, [], 0
        return [lines for lines in batch if not lines.given_up()]

    def _submit(self, batch: list[_Lines]) -> None:
        if self._note_timer is not None:
            self._note_timer.cancel()
            self._note_timer = None
        self._writing = batch
        self._submitted_at = now = self._loop.time()
        waits = self._patience - (now - self._oldest if self._oldest else 0.0)
        self._timer = self._loop.call_later(max(0.0, waits), self._expire)
        self._oldest = 0.0
        self._queue.put([members for lines in batch for members in lines.members])

    def _write(self) -> None:
        """The thread: writes batch after batch."""
        while (members := self._queue.get()) is not None:
            error: BaseException | None = None
            try:
                self._file.append(members)
            except BaseException as caught:  # noqa: BLE001 - whatever it is, nobody may wait in vain
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self._loop.call_soon_threadsafe(self._written, error)
        self._file.close()

    def _written(self, error: BaseException | None) -> None:
        """A batch came to its end."""
        batch, self._writing, self._stuck = self._writing or [], None, False
        if self._timer is not None:
            self._timer.cancel()
        if error is None:
            self._succeeded(batch)
        else:
            self._failed(batch, reason(error))
        if any(error is None or not lines.kept for lines in self._pending):  # after a failure those wait for a tick
            self._schedule()

    def _succeeded(self, batch: list[_Lines]) -> None:
        if self._failure:
            _log.warning("the audit trail goes on", path=str(self._file.path), after=self._failure)
            self._failure = ""
        self._observer.up(up=True)
        for lines in batch:
            if lines.done is None:
                continue
            if lines.done.done():
                self.withhold(lines.issues, "the call had ended")
            else:
                lines.done.set_result(None)
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._add(_Lines([f'"kind":"dropped","denials":{dropped},"time":{int(self._clock.now())}']))
        if self._head.sequence - self._exported >= HEAD_LINES:
            self._export()

    def _failed(self, batch: list[_Lines], why: str) -> None:
        self._fail(why)
        self._pending[:0] = [lines for lines in batch if lines.kept]
        for lines in batch:
            if lines.kept:
                continue
            if lines.done is None:
                self._drop(len(lines.members))
            elif not lines.done.done():
                lines.done.set_exception(SinkError(why))

    def _expire(self) -> None:
        """The disk hasn't answered in time: who waits is told so, and who comes meanwhile doesn't wait."""
        if self._writing is None:
            return
        self._stuck = True
        why = f"the disk hasn't answered for {self._patience:g} s"
        self._fail(why)
        for lines in (*self._writing, *self._pending):
            if lines.done is not None and not lines.done.done():
                lines.done.set_exception(SinkError(why))
        self._pending = [lines for lines in self._pending if not lines.given_up()]

    def _fail(self, why: str) -> None:
        if why != self._failure and self._opened:
            _log.error("the audit trail can't be written: nothing is issued", path=str(self._file.path), why=why)
        self._failure = why
        self._observer.up(up=False)

    def _drop(self, count: int) -> None:
        self._dropped += count
        self._observer.dropped(count)

    @property
    def _head(self) -> Head:
        head = self._file.head
        assert head is not None  # noqa: S101 - opening sets it
        return head

    def _export(self) -> None:
        """Tells the log and the metrics how far the chain has come, if it has moved since they were told."""
        head = self._head
        if head.sequence != self._exported:
            _log.info("audit head", path=str(self._file.path), head=str(head))
            self._observer.head(head.sequence)
            self._exported, self._exported_at = head.sequence, self._clock.monotonic()


def _unavailable() -> Refusal:
    return Refusal(Reason.AUDIT_UNAVAILABLE, "the decision can't be recorded, so nothing is issued")
