"""IssueToken, and the decision about a token that BatchIssueTokens takes for each of its entries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.core.audit import AuditRecord, token_digest
from livekit_auth_server.core.grants import claims_text, needs
from livekit_auth_server.core.mint import mint, token_size
from livekit_auth_server.core.policy import Denial, Grant, TokenRequest, decide, required_powers
from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.service.convert import grants_message, token_request
from livekit_auth_server.service.methods import ISSUE_TOKEN
from livekit_auth_server.service.validation import KIB

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from livekit_auth_server.core.grants import Grants
    from livekit_auth_server.core.keys import ApiKey, Project
    from livekit_auth_server.service.admission import Caller, ListedCaller
    from livekit_auth_server.service.ports import AuditSink
    from livekit_auth_server.service.validation import Valid

MAX_RESPONSE = 3 * KIB * KIB
_REST_OF_RESPONSE = 2 * KIB  # the most that a response holds beside token, url and grants
_REPLACED = "policy or keys were replaced"


class Permit(NamedTuple):
    """A token that may leave once its record is written, if it `stands` then. `version` is the state's."""

    record: AuditRecord
    response: pb.IssueTokenResponse
    wanted: TokenRequest
    grant: Grant
    key: ApiKey
    version: int

    def stands(self, caller: ListedCaller) -> bool:
        """Whether the caller would get the same now, and the key that signed it still verifies."""
        if caller.version != self.version:
            now = decide(caller.state_policy, caller.policy, self.wanted)
            if not isinstance(now, Grant) or _extent(now) != _extent(self.grant):
                return False
        return caller.keys.verifies(self.key, self.grant.project, caller.now)


@dataclass(frozen=True, slots=True)
class Issuer:
    """Issues tokens: decides, mints, records, answers. No token leaves before its record is written.

    What was replaced while the record was written counts: a token that wouldn't be issued any more is withheld, which
    the trail says, and its request decided again. `mint` is core.mint's, or that with a stopwatch around it.
    """

    audit: AuditSink
    new_decision_id: Callable[[], str]
    mint: Callable[[Grant, ApiKey, int], str] = mint

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
        """Says in the trail that the tokens of these permits didn't leave, though they are recorded."""
        self.audit.withhold([permit.record for permit in permits if permit.record.token_sha256], why)

    def deny_unlisted(self, caller: Caller, method: str) -> str:
        """Records that a caller which the policy doesn't list was denied; returns the decision's id."""
        record = AuditRecord(
            decision_id=self.new_decision_id(),
            time=caller.now,
            caller=caller.identified.identity.text,
            certificate_serial=caller.identified.serial,
            method=method,
            permitted=False,
            dry_run=False,
            project="",
            access="",
            room="",
            identity="",
            ttl=None,
            entry="",
            reason=Reason.CALLER_NOT_LISTED,
            key_id="",
            token_sha256="",
            policy_revision=caller.state_policy.revision,
            trace_id=caller.trace_id,
        )
        self.audit.deny(record, listed=False)
        return record.decision_id

    def decide(self, caller: ListedCaller, valid: Valid[pb.IssueTokenRequest], method: str, room_left: int) -> Permit:
        """The permit, whose record isn't written yet. Raises a denial, which is recorded."""
        request = valid.message
        wanted = token_request(request)
        decision = decide(caller.state_policy, caller.policy, wanted)
        record = self._record(caller, wanted, decision, method, dry_run=request.validate_only)
        if caller.shadow is not None:
            caller.shadow.issued(caller.policy.id, method, wanted, decision, record.decision_id)
        if isinstance(decision, Denial):
            self.audit.deny(record)
            raise _refusal(decision, record.decision_id)
        try:
            project, key = _signer(caller, decision)
            _check_size(decision, project, key, caller.now, room_left)
        except Refusal as refusal:
            self.audit.deny(replace(record, permitted=False, reason=refusal.reason))
            raise Refusal(refusal.reason, refusal.message, {"decision_id": record.decision_id}) from None
        token = "" if record.dry_run else self.mint(decision, key, caller.now)
        record = replace(record, key_id=key.id, token_sha256=token_digest(token) if token else "")
        response = _response(caller, decision, project, record, token)
        return Permit(record, response, wanted, decision, key, caller.version)

    def _record(
        self, caller: ListedCaller, wanted: TokenRequest, decision: Grant | Denial, method: str, *, dry_run: bool
    ) -> AuditRecord:
        grant = decision if isinstance(decision, Grant) else None
        return AuditRecord(
            decision_id=self.new_decision_id(),
            time=caller.now,
            caller=caller.identified.identity.text,
            certificate_serial=caller.identified.serial,
            method=method,
            permitted=grant is not None,
            dry_run=dry_run,
            project=decision.project,
            access=_access(wanted.access),
            room=wanted.room,
            identity=wanted.identity,
            ttl=grant.ttl if grant else wanted.ttl,
            entry=grant.entry if grant else "",
            reason=decision.reason if isinstance(decision, Denial) else "",
            key_id="",
            token_sha256="",
            policy_revision=caller.state_policy.revision,
            trace_id=caller.trace_id,
            participant_kind=wanted.kind,
            powers=",".join(sorted(required_powers(needs(grant.grants), wanted))) if grant else "",
            room_preset=wanted.room_preset,
        )


def _extent(grant: Grant) -> tuple[str, Grants, int]:
    """What a token is good for, beside what its request names."""
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
    """The granted project and its key that signs now. Raises NO_SIGNING_KEY."""
    project = caller.keys.projects.get(grant.project)
    if project is None:
        raise Refusal(Reason.NO_SIGNING_KEY, f'project "{grant.project}" has no keys')
    return project, project.signing_key(caller.now)


def _check_size(grant: Grant, project: Project, key: ApiKey, now: int, room_left: int) -> None:
    """Raises RESPONSE_TOO_LARGE when the response would take more than `room_left` bytes."""
    overhead = _REST_OF_RESPONSE + len(project.url) + grants_message(grant.grants).ByteSize()
    if overhead + token_size(grant, key, now) > room_left:
        raise too_large()


def too_large() -> Refusal:
    """The refusal of what doesn't fit in a response."""
    return Refusal(Reason.RESPONSE_TOO_LARGE, f"the response would be over {MAX_RESPONSE} bytes")


def _access(access: str | Grants) -> str:
    """The access for the audit trail: "role:NAME", or "grants:" and the claims that were asked for."""
    return f"role:{access}" if isinstance(access, str) else f"grants:{claims_text(access)}"


def _refusal(denial: Denial, decision_id: str) -> Refusal:
    metadata = {**denial.metadata, "decision_id": decision_id}
    violations = (denial.violation,) if denial.violation else ()
    return Refusal(denial.reason, denial.message, metadata, violations)
