"""Whether a process can do its work, and why not: what /readyz says."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Phase = Literal["starting", "serving", "draining"]
PHASES: tuple[Phase, ...] = get_args(Phase)


@dataclass(frozen=True, slots=True)
class Readiness:
    """Not ready for these reasons, if there are any. Warnings need somebody's attention and stop nothing."""

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
    """How one process stands: its phase, and what its parts have to say."""

    phase: Phase = "starting"
    problems: list[Callable[[], Iterable[str]]] = field(default_factory=list)
    warnings: list[Callable[[], Iterable[str]]] = field(default_factory=list)

    def now(self) -> Readiness:
        """The state at this moment."""
        reasons: list[str] = [] if self.phase == "serving" else [self.phase]
        reasons += [reason for part in self.problems for reason in part()]
        return Readiness(tuple(reasons), tuple(warning for part in self.warnings for warning in part()))
