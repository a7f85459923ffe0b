"""Whether a process is ready, and why not: the content of /readyz."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Phase = Literal["starting", "serving", "draining"]
PHASES: tuple[Phase, ...] = get_args(Phase)


@dataclass(frozen=True, slots=True)
class Readiness:
    """Ready unless there are reasons why not. Warnings need an operator's attention, and stop nothing."""

    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether calls should be sent here."""
        return not self.reasons

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"ready": self.ready, **asdict(self)}


@dataclass(slots=True)
class Condition:
    """The phase of one process, and the problems and warnings of its parts."""

    phase: Phase = "starting"
    problems: list[Callable[[], Iterable[str]]] = field(default_factory=list)
    warnings: list[Callable[[], Iterable[str]]] = field(default_factory=list)

    def now(self) -> Readiness:
        """The readiness at this moment."""
        reasons: list[str] = [] if self.phase == "serving" else [self.phase]
        reasons += [reason for part in self.problems for reason in part()]
        return Readiness(tuple(reasons), tuple(warning for part in self.warnings for warning in part()))
