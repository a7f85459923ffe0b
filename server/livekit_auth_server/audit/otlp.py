"""A copy of the audit trail for an OpenTelemetry collector: its queue, and what a refusal means.

Guarantees:
- a call never waits for the collector: lines queue, `QUEUE` at most, and one thread sends them in batches;
- a batch counts as taken if the collector answered 2xx and rejected none of its records. If the collector can't be
  reached, or asks to try later, the batch is sent again: a record may arrive twice, and its decision_id shows it;
- best effort: what doesn't fit in the queue, or the collector refuses for good, is dropped and counted;
- required: nothing is dropped but denials, and issuance stops while a line has waited for longer than `patience` or
  the queue is full. So tokens may be ahead of the collector, by `QUEUE` lines and by `patience` and the time that their
  calls waited for the disk at most;
- a batch that the collector refuses is halved until it is taken, so that one line it can't take costs no other;
- a value longer than `MAX_TEXT` characters is cut off; a token or a secret is in no line.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

import structlog

from livekit_auth_server.audit.sink import unavailable
from livekit_auth_server.core.audit import AuditRecord, Withheld

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit_auth_server.audit.metrics import CopyMetrics
    from livekit_auth_server.audit.otlp_exporter import Exporter
    from livekit_auth_server.core.audit import AuditLine
    from livekit_auth_server.service.ports import Clock

QUEUE = 2048  # lines
MAX_NOTES = QUEUE // 2  # denials don't crowd out permits
BATCH = 512
MAX_TEXT = 4096  # characters
_LAST = 2.0  # seconds for what is queued at the end
_DROPS_LOGGED = 10.0  # seconds between log lines about dropped lines
_FOR_GOOD = ("HTTP status 4", "rejected")  # how problems begin that another try won't solve ...
_NOT_FOR_GOOD = ("HTTP status 408", "HTTP status 429")  # ... but for these
_OF_A_LINE = ("HTTP status 400", "HTTP status 413", "rejected")  # problems that one line of a batch can be
_log = structlog.get_logger("livekit_auth_server")


class _Queued(NamedTuple):
    """A line, and when it came by the monotonic clock."""

    line: AuditLine
    at: float


class AuditOtlp:
    """audit.sink.Sink for a collector. `patience`, in seconds, is for a collector that is required."""

    def __init__(
        self, exporter: Exporter, clock: Clock, metrics: CopyMetrics, *, patience: float, required: bool = False
    ) -> None:
        self._exporter, self._clock, self._metrics = exporter, clock, metrics
        self._required, self._patience = required, patience
        self._queue: deque[_Queued] = deque()
        self._sending: list[_Queued] = []
        self._problem = ""  # why the last batch wasn't taken; empty if it was
        self._refused = ""  # the decision of a single line that the collector refused
        self._most = BATCH  # lines in the next batch
        self._dropped, self._drops_logged = 0, float("-inf")
        self._idle = asyncio.Event()
        self._idle.set()
        self._batches: SimpleQueue[list[AuditLine] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        metrics.show_waiting(lambda: self._waiting)

    async def open(self) -> None:
        """Starts the thread that sends. Whether the collector can be reached shows with the first line."""
        threading.Thread(target=self._send, name="audit-otlp", daemon=True).start()

    def stopped(self) -> bool:
        """Whether the collector is required, and takes nothing."""
        return bool(self.ready())

    async def record(self, records: Sequence[AuditRecord]) -> None:
        """Queues permits. Raises AUDIT_UNAVAILABLE if the collector is required and the queue has no room for all."""
        if self._required and self._waiting + len(records) > QUEUE:
            raise unavailable()
        for record in records:
            self._add(record, QUEUE)

    def note(self, line: AuditLine) -> None:
        """Queues a line about denials; drops it if the queue is half full."""
        self._add(line, MAX_NOTES)

    def withhold(self, decisions: Sequence[str], why: str) -> None:
        """Queues a line per decision. A required collector gets it even if the queue is full: it follows a permit."""
        now = int(self._clock.now())
        for decision in decisions:
            self._add(Withheld(decision, now, why), 2 * QUEUE if self._required else QUEUE)

    def tick(self) -> None:
        """Sends what is queued, and says how much was dropped."""
        self._submit()
        now = self._clock.monotonic()
        if self._dropped and now - self._drops_logged >= _DROPS_LOGGED:
            _log.warning("audit records for the collector were dropped", count=self._dropped)
            self._dropped, self._drops_logged = 0, now

    def ready(self) -> list[str]:
        """Why nothing can be issued now; empty if it can, and always if the collector isn't required."""
        oldest = self._sending[0] if self._sending else self._queue[0] if self._queue else None
        if not self._required or oldest is None:
            return []
        if self._waiting < QUEUE and self._clock.monotonic() - oldest.at <= self._patience:
            return []
        why = self._problem or f"it hasn't answered for {self._patience:g} s"
        line = f", decision {self._refused}" if self._refused else ""
        return [f"the audit trail's collector takes no records: {why}{line} ({self._exporter.endpoint})"]

    async def close(self) -> None:
        """Sends what is queued, as far as that is possible in two seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST):
                await self._idle.wait()
                while self._queue:
                    self._submit()
                    await self._idle.wait()
                    if self._problem:
                        break
        if lost := self._waiting + self._dropped:
            _log.warning("audit records for the collector were dropped", count=lost)
        self._exporter.shutdown()
        self._batches.put(None)

    @property
    def _waiting(self) -> int:
        return len(self._queue) + len(self._sending)

    @property
    def _enough(self) -> int:
        """Lines that are sent without waiting for a tick; a required collector's wait for none."""
        return 1 if self._required else self._most

    def _add(self, line: AuditLine, room: int) -> None:
        if self._waiting >= room:
            self._drop(1)
            return
        self._queue.append(_Queued(_bounded(line), self._clock.monotonic()))
        if len(self._queue) >= self._enough and not self._problem:  # after a problem the next try is a tick's
            self._submit()

    def _submit(self) -> None:
        if self._sending or not self._queue:
            return
        self._idle.clear()
        self._sending = [self._queue.popleft() for _ in range(min(self._most, len(self._queue)))]
        self._batches.put([queued.line for queued in self._sending])

    def _send(self) -> None:
        """The thread: sends batch after batch."""
        while (lines := self._batches.get()) is not None:
            problem = self._exporter.send(lines)
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self._loop.call_soon_threadsafe(self._sent, problem)

    def _sent(self, problem: str) -> None:
        """A batch was taken, or wasn't."""
        batch, self._sending = self._sending, []
        of_a_line = problem.startswith(_OF_A_LINE)
        self._refused = getattr(batch[0].line, "decision_id", "") if of_a_line and len(batch) == 1 else ""
        if problem and problem != self._problem:
            _log.warning("audit records can't be exported", endpoint=self._exporter.endpoint, problem=problem)
        elif self._problem and not problem:
            _log.info("audit records are exported again", endpoint=self._exporter.endpoint)
        self._problem = problem
        if not problem:
            self._metrics.count("exported", len(batch))
            self._most = min(BATCH, 2 * self._most)
        elif of_a_line and len(batch) > 1:
            self._most = len(batch) // 2
            self._queue.extendleft(reversed(batch))
        elif problem.startswith(_FOR_GOOD) and not problem.startswith(_NOT_FOR_GOOD) and not self._required:
            self._metrics.count("failed", len(batch))
        else:
            self._queue.extendleft(reversed(batch))
        if (len(self._queue) >= self._enough and not problem) or (of_a_line and len(batch) > 1):
            self._submit()
        if not self._sending:
            self._idle.set()

    def _drop(self, count: int) -> None:
        self._dropped += count
        self._metrics.count("dropped", count)


def _bounded(line: AuditLine) -> AuditLine:
    """The line without a text that callers can make long: spelled-out grants."""
    if isinstance(line, AuditRecord) and len(line.access) > MAX_TEXT:
        return replace(line, access=line.access[:MAX_TEXT])
    return line
