"""IssueToken and BatchIssueTokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.core.audit import AuditRecord, token_digest
from livekit_auth_server.core.grants import claims_text
from livekit_auth_server.core.mint import mint, token_size
from livekit_auth_server.core.policy import Denial, Grant, TokenRequest, decide
from livekit_auth_server.core.refusal import Reason, Refusal, Violation, invalid
from livekit_auth_server.service.calls import require_valid
from livekit_auth_server.service.convert import grants_message, token_request
from livekit_auth_server.service.status import to_status
from livekit_auth_server.service.validation import KIB, MAX_BATCH

if TYPE_CHECKING:
    from collections.abc import Callable

    from livekit_auth_server.core.grants import Grants
    from livekit_auth_server.core.keys import Project
    from livekit_auth_server.service.calls import ListedCaller
    from livekit_auth_server.service.ports import AuditSink

MAX_RESPONSE = 3 * KIB * KIB
MAX_BATCH_REQUEST = KIB * KIB
_REST_OF_RESPONSE = 2 * KIB  # the most that a response holds beside token, url and grants


@dataclass(frozen=True, slots=True)
class Issuer:
    """Issues tokens: decides, mints, records, answers. No token leaves before its record is written."""

    audit: AuditSink
    new_decision_id: Callable[[], str]

    async def issue(self, caller: ListedCaller, request: pb.IssueTokenRequest) -> pb.IssueTokenResponse:
        """IssueToken."""
        return await self._issue(caller, request, "IssueToken", MAX_RESPONSE)

    async def issue_batch(
        self, caller: ListedCaller, request: pb.BatchIssueTokensRequest
    ) -> pb.BatchIssueTokensResponse:
        """BatchIssueTokens: each entry for itself."""
        if not 1 <= len(request.requests) <= MAX_BATCH:
            raise invalid(Violation("requests", f"needs 1 to {MAX_BATCH} entries, has {len(request.requests)}"))
        if request.ByteSize() > MAX_BATCH_REQUEST:
            raise invalid(Violation("requests", f"a batch is limited to {MAX_BATCH_REQUEST} bytes"))
        response = pb.BatchIssueTokensResponse()
        left = MAX_RESPONSE
        for entry in request.requests:
            result = response.results.add()
            try:
                result.response.CopyFrom(await self._issue(caller, entry, "BatchIssueTokens", left))
            except Refusal as refusal:
                result.error.CopyFrom(to_status(refusal))
            left -= result.ByteSize() + 8  # with room for the field's tag and length
        return response

    async def _issue(
        self, caller: ListedCaller, request: pb.IssueTokenRequest, method: str, room_left: int
    ) -> pb.IssueTokenResponse:
        require_valid(request)
        wanted = token_request(request)
        decision = decide(caller.state_policy, caller.policy, wanted)
        record = self._record(caller, wanted, decision, method, dry_run=request.validate_only)
        if isinstance(decision, Denial):
            await self.audit.record(record)
            raise _refusal(decision, record.decision_id)
        project = caller.keys.projects.get(decision.project)
        if project is None:
            raise Refusal(Reason.NO_SIGNING_KEY, f'project "{decision.project}" has no keys')
        return await self._permit(caller, decision, project, record, room_left)

    async def _permit(
        self, caller: ListedCaller, grant: Grant, project: Project, record: AuditRecord, room_left: int
    ) -> pb.IssueTokenResponse:
        key = project.signing_key(caller.now)
        grants = grants_message(grant.grants)
        overhead = _REST_OF_RESPONSE + len(project.url) + grants.ByteSize()
        if overhead + token_size(grant, key, caller.now) > room_left:
            raise Refusal(Reason.RESPONSE_TOO_LARGE, f"the response would be over {MAX_RESPONSE} bytes")
        token = "" if record.dry_run else mint(grant, key, caller.now)
        digest = token_digest(token) if token else ""
        await self.audit.record(replace(record, key_id=key.id, token_sha256=digest))
        return pb.IssueTokenResponse(
            token=token,
            url=project.url,
            expire_time=Timestamp(seconds=caller.now + grant.ttl),
            issue_time=Timestamp(seconds=caller.now),
            grants=grants,
            key_id=key.id,
            policy_revision=grant.policy_revision,
            decision_id=record.decision_id,
            project=project.name,
        )

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
        )


def _access(access: str | Grants) -> str:
    """The access for the audit trail: "role:NAME", or "grants:" and the claims that were asked for."""
    return f"role:{access}" if isinstance(access, str) else f"grants:{claims_text(access)}"


def _refusal(denial: Denial, decision_id: str) -> Refusal:
    metadata = {**denial.metadata, "decision_id": decision_id}
    violations = (denial.violation,) if denial.violation else ()
    return Refusal(denial.reason, denial.message, metadata, violations)
