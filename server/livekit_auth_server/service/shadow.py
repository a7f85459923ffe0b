"""A candidate policy beside the one in force: an observer, and nobody else, is told what it would decide.

Guarantees: the candidate never changes an answer. It is asked only after the decision is made; its failures are
contained here; its limits count nothing; a `Grant` of the candidate doesn't leave this module.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from livekit_auth_server.core.policy import Denial, Grant, decide
from livekit_auth_server.core.refusal import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from livekit_auth_server.core.policy import CallerPolicy, Decision, Permission, Policy, TokenRequest

Kind = Literal["would_allow", "would_deny", "differs"]
"""`differs`: another project, other grants or another lifetime; or a denial for another reason."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What the policy in force decided, and what the candidate would have. `decision_id` is empty for verifications."""

    kind: Kind
    caller: str
    method: str
    live: str
    candidate: str
    candidate_revision: str
    decision_id: str = ""


class ShadowObserver(Protocol):
    """Hears of the candidate, for metrics and the log."""

    def same(self) -> None:
        """The candidate decides as the policy in force did."""

    def different(self, difference: Difference) -> None:
        """The candidate decides differently."""

    def failed(self, error: Exception) -> None:
        """The candidate couldn't be asked."""


@dataclass(frozen=True, slots=True)
class Shadow:
    """A candidate policy and who hears of it. None of its methods raises an Exception."""

    policy: Policy
    observer: ShadowObserver

    def issued(self, caller: str, method: str, request: TokenRequest, live: Decision, decision_id: str) -> None:
        """Compares with a decision about a token."""

        def compare() -> Difference | None:
            listed = self.policy.callers.get(caller)
            candidate = decide(self.policy, listed, request) if listed is not None else _UNLISTED
            kind = _decided(live, candidate)
            return kind and Difference(
                kind, caller, method, _words(live), _words(candidate), self.policy.revision, decision_id
            )

        self._observe(compare)

    def verified(self, caller: CallerPolicy, method: str, permission: Permission | None, project: str) -> None:
        """Compares with a decision about a webhook or a token to verify; an empty project stands for all permitted."""

        def compare() -> Difference | None:
            listed = self.policy.callers.get(caller.id)
            live = _narrowed(caller.permitted(permission), project)
            candidate = _narrowed(listed.permitted(permission), project) if listed is not None else frozenset()
            if live == candidate:
                return None
            kind: Kind = "differs" if live and candidate else "would_allow" if candidate else "would_deny"
            return Difference(kind, caller.id, method, _projects(live), _projects(candidate), self.policy.revision)

        self._observe(compare)

    def unlisted(self, caller: str, method: str, decision_id: str) -> None:
        """Compares with the denial of a caller that isn't listed. Its request isn't read."""

        def compare() -> Difference | None:
            if caller not in self.policy.callers:
                return None
            live = Reason.CALLER_NOT_LISTED
            return Difference("differs", caller, method, live, "listed", self.policy.revision, decision_id)

        self._observe(compare)

    def _observe(self, compare: Callable[[], Difference | None]) -> None:
        try:
            difference = compare()
            if difference is None:
                self.observer.same()
            else:
                self.observer.different(difference)
        except Exception as error:  # noqa: BLE001 - the candidate must not make an answer fail
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        with suppress(Exception):  # nobody is left to tell
            self.observer.failed(error)


_NAMED_PROJECTS = 16  # a log line is bounded, the number of projects isn't
_UNLISTED = Denial(Reason.CALLER_NOT_LISTED, "the candidate doesn't list the caller", "")


def _decided(live: Decision, candidate: Decision) -> Kind | None:
    if isinstance(live, Denial):
        if isinstance(candidate, Grant):
            return "would_allow"
        return "differs" if live.reason != candidate.reason else None
    if isinstance(candidate, Denial):
        return "would_deny"
    mine, other = ((one.project, one.grants, one.ttl) for one in (live, candidate))
    return "differs" if mine != other else None


def _words(decision: Decision) -> str:
    """The decision for people: the reason of a denial, or the entry that permits."""
    if isinstance(decision, Denial):
        return decision.reason
    return f"{decision.entry} in {decision.project} for {decision.ttl} s"


def _projects(projects: frozenset[str]) -> str:
    return ", ".join(sorted(projects)[:_NAMED_PROJECTS]) or Reason.PROJECT_NOT_PERMITTED


def _narrowed(permitted: frozenset[str], project: str) -> frozenset[str]:
    return permitted & {project} if project else permitted
