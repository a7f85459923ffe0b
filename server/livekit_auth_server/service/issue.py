"""IssueToken, and the decision about a token that BatchIssueTokens makes for each of its entries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.core.audit import AuditRecord, token_digest
from livekit_auth_server.core.grants import claims_text
from livekit_auth_server.core.mint import mint, token_size
from livekit_auth_server.core.policy import Denial, Grant, decide
from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.service.convert import grants_message, token_request
from livekit_auth_server.service.methods import ISSUE_TOKEN
from livekit_auth_server.service.validation import KIB

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from livekit_auth_server.core.grants import Grants
    from livekit_auth_server.core.keys import ApiKey, Project
    from livekit_auth_server.core.policy import Decision, Lack, TokenRequest
    from livekit_auth_server.service.admission import Caller, ListedCaller
    from livekit_auth_server.service.decisions import Decisions
    from livekit_auth_server.service.ports import AuditSink
    from livekit_auth_server.service.validation import Valid

MAX_RESPONSE = 3 * KIB * KIB
_REST_OF_RESPONSE = 2 * KIB  # the maximum that a response holds beside token, url and grants
_REPLACED = "policy or keys were replaced"


class Permit(NamedTuple):
    """A token that may leave once its record is written, if it still `stands`. `version` is the state's."""

    record: AuditRecord
    response: pb.IssueTokenResponse
    wanted: TokenRequest
    grant: Grant
    key: ApiKey
    version: int

    def stands(self, caller: ListedCaller) -> bool:
        """Whether the caller would get the same token now, and the key that signed it still verifies."""
        if caller.version != self.version:
            now = decide(caller.state_policy, caller.policy, self.wanted)
            if not isinstance(now, Grant) or _extent(now) != _extent(self.grant):
                return False
        return caller.keys.verifies(self.key, self.grant.project, caller.now)


@dataclass(frozen=True, slots=True)
class Issuer:
    """Issues tokens: decides, mints, records, answers. No token leaves before its record is written.

    If policy or keys were replaced meanwhile and the token wouldn't be issued now, it is withheld, the trail says so,
    and the request is decided again. `mint` is core.mint's, perhaps with a stopwatch around it. `gate` raises the
    refusal of every token while none may be issued.
    """

    audit: AuditSink
    decisions: Decisions
    new_decision_id: Callable[[], str]
    mint: Callable[[Grant, ApiKey, int], str] = mint
    gate: Callable[[], None] = lambda: None

    async def issue(self, caller: ListedCaller, request: Valid[pb.IssueTokenRequest]) -> pb.IssueTokenResponse:
        """IssueToken."""
        while True:
            permit = self.decide(caller, request, ISSUE_TOKEN.name, MAX_RESPONSE)
            await self.audit.record(permit.record)
            try:
                now = caller.renewed()
            except Refusal as refusal:
                self.withhold((permit,), refusal.reason)
                raise
            if now is caller or permit.stands(now):
                return permit.response
            self.withhold((permit,))
            caller = now

    def withhold(self, permits: Collection[Permit], why: str = _REPLACED) -> None:
        """Records that the tokens of these recorded permits didn't leave."""
        self.audit.withhold([permit.record for permit in permits if permit.record.token_sha256], why)

    def deny_unlisted(self, caller: Caller, method: str) -> str:
        """Records the denial of a caller that the policy doesn't list. Returns the decision's id."""
        record = _unread(caller, method, self.new_decision_id(), Reason.CALLER_NOT_LISTED)
        self.audit.deny(record, listed=False)
        return record.decision_id

    def deny_invalid(self, caller: Caller, method: str, refusal: Refusal) -> Refusal:
        """Records the denial of a request that breaks a field rule. Returns the refusal with the decision's id."""
        return self._deny(_unread(caller, method, self.new_decision_id(), refusal.reason), refusal)

    def decide(self, caller: ListedCaller, valid: Valid[pb.IssueTokenRequest], method: str, room_left: int) -> Permit:
        """The permit, which isn't recorded yet. Raises a denial, which is."""
        request, decision_id = valid.message, self.new_decision_id()
        wanted = token_request(request)
        decision = decide(caller.state_policy, caller.policy, wanted)
        if caller.shadow is not None:
            caller.shadow.issued(caller.policy.id, method, wanted, decision, decision_id)
        record = partial(_record, caller, method, decision_id, request, wanted, decision)
        if isinstance(decision, Denial):
            raise self._deny(record(reason=decision.reason), _refusal(decision), decision.lacked)
        try:
            self.gate()
            project, key = _signer(caller, decision)
            _check_size(decision, project, key, caller.now, room_left)
        except Refusal as refusal:
            raise self._deny(record(reason=refusal.reason), refusal) from None
        token = "" if request.validate_only else self.mint(decision, key, caller.now)
        permitted = record(key_id=key.id, token=token)
        response = _response(caller, decision, project, permitted, token)
        return Permit(permitted, response, wanted, decision, key, caller.version)

    def _deny(
        self, record: AuditRecord, refusal: Refusal, lacked: Sequence[tuple[str, Sequence[Lack]]] = ()
    ) -> Refusal:
        """Records and keeps a denial of a listed caller. Returns the refusal with the decision's id."""
        self.audit.deny(record)
        self.decisions.keep(record, refusal.message, lacked)
        return replace(refusal, metadata={**refusal.metadata, "decision_id": record.decision_id})


def _unread(caller: Caller, method: str, decision_id: str, reason: Reason) -> AuditRecord:
    """The record of a request that was refused before it was read: it holds nothing of what was asked for."""
    return AuditRecord(
        decision_id=decision_id,
        time=caller.now,
        caller=caller.identified.identity.text,
        certificate_serial=caller.identified.serial,
        method=method,
        permitted=False,
        reason=reason,
        policy_revision=caller.state_policy.revision,
        trace_id=caller.trace_id,
    )


def _record(  # noqa: PLR0913, PLR0917 - a record has many members
    caller: ListedCaller,
    method: str,
    decision_id: str,
    request: pb.IssueTokenRequest,
    wanted: TokenRequest,
    decision: Decision,
    *,
    reason: str = "",
    key_id: str = "",
    token: str = "",
) -> AuditRecord:
    """The record of a decision; with a reason it is a denial."""
    grant = decision if isinstance(decision, Grant) else None
    return AuditRecord(
        decision_id=decision_id,
        time=caller.now,
        caller=caller.identified.identity.text,
        certificate_serial=caller.identified.serial,
        method=method,
        permitted=not reason,
        dry_run=request.validate_only,
        project=decision.project,
        access=_access(wanted.access),
        room=wanted.room,
        identity=wanted.identity,
        ttl=grant.ttl if grant else wanted.ttl,
        entry=grant.entry if grant else "",
        reason=reason,
        key_id=key_id,
        token_sha256=token_digest(token) if token else "",
        policy_revision=caller.state_policy.revision,
        trace_id=caller.trace_id,
        participant_kind=wanted.kind,
        powers=",".join(sorted(grant.powers)) if grant else "",
        room_preset=wanted.room_preset,
        request_reason=request.request_reason,
    )


def _extent(grant: Grant) -> tuple[str, Grants, int]:
    """What a token permits, beside what its request names."""
    return grant.project, grant.grants, grant.ttl


def _response(
    caller: ListedCaller, grant: Grant, project: Project, record: AuditRecord, token: str
) -> pb.IssueTokenResponse:
    response = pb.IssueTokenResponse(
        token=token,
        url=project.url,
        grants=grants_message(grant.grants),
        key_id=record.key_id,
        policy_revision=grant.policy_revision,
        decision_id=record.decision_id,
        project=project.name,
    )
    response.issue_time.seconds = caller.now
    response.expire_time.seconds = caller.now + grant.ttl
    return response


def _signer(caller: ListedCaller, grant: Grant) -> tuple[Project, ApiKey]:
    """The granted project and its key that signs now. Raises SIGNING_KEY_MISSING."""
    project = caller.keys.projects.get(grant.project)
    if project is None:
        raise Refusal(Reason.SIGNING_KEY_MISSING, f'project "{grant.project}" has no keys')
    return project, project.signing_key(caller.now)


def _check_size(grant: Grant, project: Project, key: ApiKey, now: int, room_left: int) -> None:
    """Raises RESPONSE_TOO_LARGE when the response would take more than `room_left` bytes."""
    overhead = _REST_OF_RESPONSE + len(project.url) + grants_message(grant.grants).ByteSize()
    if overhead + token_size(grant, key, now) > room_left:
        raise too_large()


def too_large(decision_id: str = "") -> Refusal:
    """The refusal of a token that doesn't fit in a response, or of an error that doesn't."""
    metadata = {"decision_id": decision_id} if decision_id else {}
    return Refusal(Reason.RESPONSE_TOO_LARGE, f"the response would be over {MAX_RESPONSE} bytes", metadata)


def _access(access: str | Grants) -> str:
    """The access for the audit trail: "role:NAME", or "grants:" and the claims that were asked for."""
    return f"role:{access}" if isinstance(access, str) else f"grants:{claims_text(access)}"


def _refusal(denial: Denial) -> Refusal:
    violations = (denial.violation,) if denial.violation else ()
    return Refusal(denial.reason, denial.message, denial.metadata, violations)
