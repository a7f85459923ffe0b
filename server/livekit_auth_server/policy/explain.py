"""Answers for a policy file offline: what it decides and why, and whether it meets its expectations."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from google.protobuf import json_format
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.core.policy import CallerPolicy, Denial, decide
from livekit_auth_server.core.refusal import Reason
from livekit_auth_server.files.document import Document
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.policy.models import seconds
from livekit_auth_server.service.convert import token_request
from livekit_auth_server.service.validation import violations

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from livekit_auth_server.core.limits import Limit
    from livekit_auth_server.core.policy import AllowEntry, Lack, Matcher, Policy


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision in full. `lacked` says for each entry of the caller what it lacked; empty when permitted."""

    permitted: bool
    reason: str
    message: str
    project: str
    entry: str
    ttl_seconds: int | None
    lacked: tuple[tuple[str, tuple[str, ...]], ...]
    permits: tuple[tuple[str, Permits], ...] = ()


@dataclass(frozen=True, slots=True)
class Permits:
    """What an entry permits, in words, where a request asked for something else. Lifetimes are in seconds.

    For the operator only: callers are never told the names of others' rooms, or how their entry is written.
    """

    roles: tuple[str, ...]
    rooms: tuple[str, ...]
    identities: tuple[str, ...]
    max_ttl_seconds: int

    def of(self, reason: Reason) -> str:
        """What the entry permits instead of what was refused for this reason; empty for other reasons."""
        named = {
            Reason.ROLE_NOT_PERMITTED: ("roles", self.roles),
            Reason.ROOM_NOT_PERMITTED: ("rooms", self.rooms),
            Reason.IDENTITY_NOT_PERMITTED: ("identities", self.identities),
            Reason.TTL_NOT_PERMITTED: ("ttl", (f"up to {self.max_ttl_seconds} s",)),
        }
        if reason not in named:
            return ""
        name, values = named[reason]
        return f" (permitted {name}: {', '.join(values) or 'none'})"


def explain(policy: Policy, caller_id: str, request: pb.IssueTokenRequest) -> Explanation:
    """What the server would decide for this caller and request; the same code decides."""
    caller = policy.callers.get(caller_id)
    if caller is None:
        return _refused(Reason.CALLER_NOT_LISTED, f"the policy doesn't list {caller_id}")
    if found := violations(request):
        return _refused(Reason.REQUEST_INVALID, "; ".join(f"{v.field}: {v.description}" for v in found))
    decision = decide(policy, caller, token_request(request))
    if isinstance(decision, Denial):
        lacked, permits = [], []
        for entry, (name, lacks) in zip(caller.entries, decision.lacked, strict=False):  # none, or one for each
            permitted = _permits(entry, lacks)
            permits.append((name, permitted))
            lacked.append((name, tuple(lack.message + permitted.of(lack.reason) for lack in lacks)))
        return Explanation(
            permitted=False,
            reason=decision.reason,
            message=decision.message,
            project=decision.project,
            entry="",
            ttl_seconds=None,
            lacked=tuple(lacked),
            permits=tuple(permits),
        )
    return Explanation(
        permitted=True,
        reason="",
        message="",
        project=decision.project,
        entry=decision.entry,
        ttl_seconds=decision.ttl,
        lacked=(),
    )


def _permits(entry: AllowEntry, lacks: tuple[Lack, ...]) -> Permits:
    """What the entry permits; its longest ttl is the one for the grants at hand, where that is what was refused."""
    longest = [lack.metadata["max_ttl_seconds"] for lack in lacks if lack.reason is Reason.TTL_NOT_PERMITTED]
    return Permits(
        roles=tuple(sorted(entry.roles)),
        rooms=tuple(matcher_rules(entry.rooms)),
        identities=tuple(matcher_rules(entry.identities)),
        max_ttl_seconds=int(longest[0]) if longest else entry.max_ttl,
    )


def _refused(reason: Reason, message: str) -> Explanation:
    return Explanation(
        permitted=False, reason=reason, message=message, project="", entry="", ttl_seconds=None, lacked=()
    )


def request_from(fields: Mapping[str, Any]) -> pb.IssueTokenRequest:
    """A request from plain fields, as the contract names them; `ttl` as "10m", `kind` as "agent".

    Raises ValueError for a field or value that the contract doesn't have.
    """
    plain = {name: value for name, value in fields.items() if value is not None}
    if "ttl" in plain:
        plain["ttl"] = f"{seconds(plain['ttl'])}s"
    if "kind" in plain:
        plain["kind"] = f"PARTICIPANT_KIND_{str(plain['kind']).upper()}"
    try:
        json.dumps(plain, ensure_ascii=False, default=str).encode()  # a surrogate, for one, would crash protobuf
    except (TypeError, ValueError, RecursionError):
        raise ValueError("holds something that isn't text, a number, a list or a mapping by names") from None
    try:
        return json_format.ParseDict(plain, pb.IssueTokenRequest())
    except json_format.ParseError as error:
        raise ValueError(str(error).splitlines()[0]) from None


def _known_reason(name: str) -> str:
    if name not in Reason.__members__:
        raise ValueError("there is no reason of this name; docs/errors.md lists them")
    return name


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Expectation(_Model):
    """One request and what the policy should decide about it."""

    name: str = Field(min_length=1)
    caller: str
    request: dict[str, Any]
    outcome: Literal["permit", "deny"]
    reason: Annotated[str, AfterValidator(_known_reason)] | None = None


class ExpectationsFile(_Model):
    """The file beside a policy: policy.test.yaml for policy.yaml."""

    version: Literal[1]
    expect: list[Expectation] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class TestResult:
    """The result of an expectation; `problem` is empty when it was met."""

    name: str
    problem: str


def expectations_path(policy: Path) -> Path:
    """Where the expectations of a policy are kept."""
    return policy.with_name(f"{policy.stem}.test{policy.suffix}")


def run_expectations(policy: Policy, path: Path) -> list[TestResult]:
    """Runs every expectation of the file. Raises ConfigError when the file itself is wrong."""
    if not os.path.exists(path):  # noqa: PTH110 - raises nothing
        raise ConfigError(path, "there is no such file; write what the policy should decide, or name it with --expect")
    file = Document.read(path)
    document = file.validated(ExpectationsFile)
    results = []
    for index, expectation in enumerate(document.expect):
        try:
            request = request_from(expectation.request)
        except ValueError as error:
            raise file.error(("expect", index, "request"), str(error)) from None
        results.append(TestResult(expectation.name, _problem(expectation, policy, request)))
    return results


def _problem(expectation: Expectation, policy: Policy, request: pb.IssueTokenRequest) -> str:
    got = explain(policy, expectation.caller, request)
    outcome = "permit" if got.permitted else "deny"
    if outcome != expectation.outcome:
        why = f" by {got.entry}" if got.permitted else f": {got.reason}, {got.message}"
        return f"expected {expectation.outcome}, got {outcome}{why}"
    if expectation.reason is not None and got.reason != expectation.reason:
        return f"expected {expectation.reason}, got {got.reason}: {got.message}"
    return ""


def matcher_rules(matcher: Matcher) -> list[str]:
    """A matcher's rules as the policy file writes them, without rules that another one covers."""
    if matcher.any:
        return ["any"]
    prefixes = [
        prefix
        for prefix in set(matcher.prefixes)
        if not any(prefix != other and prefix.startswith(other) for other in matcher.prefixes)
    ]
    exact = [value for value in matcher.exact if not value.startswith(tuple(prefixes))]
    return sorted(f"exact {value}" for value in exact) + sorted(f"prefix {prefix}" for prefix in prefixes)


def limit_texts(limits: Iterable[Limit]) -> list[str]:
    """Limits in words, such as "20/s of IssueToken in default", sorted."""
    return sorted(
        limit.rate
        + (f" of {'+'.join(sorted(limit.methods))}" if limit.methods is not None else "")
        + (f" in {limit.project}" if limit.project else "")
        for limit in limits
    )


def summary(caller: CallerPolicy) -> str:
    """One line about what a caller may do."""
    roles = sorted(frozenset().union(*(entry.roles for entry in caller.entries)))
    parts = [f"roles {', '.join(roles)}"] if roles else []
    if any(entry.grants for entry in caller.entries):
        parts.append("spelled-out grants")
    if caller.default_project:
        parts.append(f"default project {caller.default_project}")
    if caller.verify_webhooks:
        parts.append(f"verifies webhooks of {', '.join(sorted(caller.verify_webhooks))}")
    if caller.verify_tokens:
        parts.append(f"verifies tokens of {', '.join(sorted(caller.verify_tokens))}")
    if caller.read_decisions:
        parts.append(f"reads decisions of {', '.join(sorted(caller.read_decisions))}")
    if caller.limits:
        parts.append(f"limits {', '.join(limit_texts(caller.limits))}")
    return f"{caller.id}: {'; '.join(parts) or 'nothing'}"
