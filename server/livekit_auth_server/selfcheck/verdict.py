"""What the newest self-check says: to /readyz, to the metrics, and to whoever issues tokens.

Guarantees: only `enforce` stops issuing, and only for a difference; a check that came to no result stops nothing, and
lifts nothing that an earlier one found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.selfcheck.report import Kind, NotRun, Report

if TYPE_CHECKING:
    from livekit_auth_server.config.sections import SelfcheckMode
    from livekit_auth_server.selfcheck.task import Task

Status = Literal["pending", "passed", "different", "not_run"]

_SHOWN = 3  # differences in /readyz and in a log line
_SUBJECTS = {
    Kind.TOKEN: "token of {}",
    Kind.VERIFICATION: "token verified with {}",
    Kind.WEBHOOK: "webhook signed with {}",
}
REASONS = {
    NotRun.NOT_STARTED: "its process can't be started",
    NotRun.NOT_IMPORTED: "livekit-api can't be imported",
    NotRun.TIMEOUT: "it took too long",
    NotRun.OUT_OF_MEMORY: "it ran out of memory",
    NotRun.CRASHED: "its process ended early",
    NotRun.UNREADABLE: "its process wrote no report",
}


def described(report: Report, task: Task) -> list[str]:
    """The listed differences, each with what it is about."""
    samples, found = task.samples(), []
    for difference in report.listed:
        subjects = samples if difference.kind is Kind.TOKEN else task.keys
        label = subjects[difference.at].label if difference.at < len(subjects) else "something unknown"
        found.append(f"{_SUBJECTS[difference.kind].format(label)}: {difference.what}")
    return found


def shortened(report: Report, task: Task) -> str:
    """The number of differences, and the first of them."""
    more = report.differences - _SHOWN
    texts = [*described(report, task)[:_SHOWN], *([f"{more} more"] if more > 0 else [])]
    number = "1 difference" if report.differences == 1 else f"{report.differences} differences"
    return f"{number} from livekit-api: {'; '.join(texts)}"


class Verdict:
    """The newest result: `found` of the newest check with a result, `not_run` why the newest came to none."""

    def __init__(self, mode: SelfcheckMode) -> None:
        self._mode = mode
        self.found: Report | None = None
        self.not_run: NotRun | None = None
        self._differences = ""

    def record(self, result: Report | NotRun, task: Task) -> None:
        """Takes the result of a check of this task."""
        if isinstance(result, NotRun):
            self.not_run = result
            return
        self.found, self.not_run = result, None
        self._differences = shortened(result, task) if result.differences else ""

    @property
    def status(self) -> Status:
        """How the newest check ended."""
        if self.not_run is not None:
            return "not_run"
        if self.found is None:
            return "pending"
        return "different" if self.found.differences else "passed"

    def problems(self) -> list[str]:
        """Why the server isn't ready."""
        return [f"selfcheck: {self._differences}"] if self._differences and self._mode == "enforce" else []

    def warnings(self) -> list[str]:
        """What an operator should see to."""
        found = [f"selfcheck: {self._differences}"] if self._differences and self._mode != "enforce" else []
        return [*found, *([f"selfcheck didn't run: {REASONS[self.not_run]}"] if self.not_run else [])]

    def gate(self) -> None:
        """Raises SELFCHECK_FAILED while no token may be issued."""
        if self._differences and self._mode == "enforce":
            raise Refusal(
                Reason.SELFCHECK_FAILED,
                "what this server signs or verifies differs from livekit-api, so it issues no token; its log and "
                "/readyz say where",
            )
