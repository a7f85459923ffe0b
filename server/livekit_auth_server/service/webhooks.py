"""VerifyWebhook and AckWebhook."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1 import webhook_pb2
from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.core.webhook import VerifiedEvent, verify_webhook
from livekit_auth_server.service.methods import ACK_WEBHOOK, VERIFY_WEBHOOK
from livekit_auth_server.service.ports import StoreUnavailable

if TYPE_CHECKING:
    from livekit_auth_server.service.admission import ListedCaller
    from livekit_auth_server.service.method import AnyMethod
    from livekit_auth_server.service.ports import AckStore, WebhookObserver
    from livekit_auth_server.service.validation import Valid

_PREFIX = "WEBHOOK_EVENT_TYPE_"
EVENT_TYPES = {
    name.removeprefix(_PREFIX).lower(): number for name, number in webhook_pb2.WebhookEventType.items() if number
}

_STATUS = "DUPLICATE_STATUS_"
STATUS_NAMES = {number: name.removeprefix(_STATUS).lower() for name, number in pb.DuplicateStatus.items() if number}


@dataclass(frozen=True, slots=True)
class Webhooks:
    """Verifies webhooks and remembers which ones each caller has acknowledged. `max_body` is in bytes."""

    acknowledged: AckStore
    max_body: int
    observer: WebhookObserver | None = None

    def check_size(self, request: pb.VerifyWebhookRequest) -> None:
        """Raises BODY_TOO_LARGE."""
        if len(request.body) > self.max_body:
            limit = {"max_body_bytes": str(self.max_body)}
            raise Refusal(Reason.BODY_TOO_LARGE, f"a body may have {self.max_body} bytes here", limit)

    async def verify(self, caller: ListedCaller, valid: Valid[pb.VerifyWebhookRequest]) -> pb.VerifyWebhookResponse:
        """VerifyWebhook."""
        request = valid.message
        event = _verified(caller, request)
        status = await self._duplicate_status(caller, event)
        now = caller.renewed()
        if now.version != caller.version:  # something was replaced while the store was asked
            event = _verified(now, request)
        if self.observer is not None:
            self.observer.checked(STATUS_NAMES[status])
        return pb.VerifyWebhookResponse(
            event=_summary(event),
            key_id=event.key_id,
            project=event.project,
            duplicate_status=status,
        )

    async def acknowledge(self, caller: ListedCaller, valid: Valid[pb.AckWebhookRequest]) -> pb.AckWebhookResponse:
        """AckWebhook."""
        request = valid.message
        permitted_to_verify(caller, ACK_WEBHOOK, request.project)
        try:
            until = await self.acknowledged.acknowledge(
                caller.policy.id, request.project, request.event_id, request.body_sha256
            )
        except StoreUnavailable:
            raise Refusal(Reason.ACK_STORE_UNAVAILABLE, "the acknowledgement can't be stored now") from None
        return pb.AckWebhookResponse(expire_time=Timestamp(seconds=until))

    async def _duplicate_status(self, caller: ListedCaller, event: VerifiedEvent) -> pb.DuplicateStatus:
        if not event.id:
            return pb.DUPLICATE_STATUS_UNKNOWN
        try:
            acknowledged = await self.acknowledged.is_acknowledged(
                caller.policy.id, event.project, event.id, event.body_sha256
            )
        except StoreUnavailable:
            return pb.DUPLICATE_STATUS_UNKNOWN
        return pb.DUPLICATE_STATUS_DUPLICATE if acknowledged else pb.DUPLICATE_STATUS_NEW


def _verified(caller: ListedCaller, request: pb.VerifyWebhookRequest) -> VerifiedEvent:
    projects = permitted_to_verify(caller, VERIFY_WEBHOOK, request.project)
    return verify_webhook(request.body, request.authorization, caller.keys, projects, caller.now)


def permitted_to_verify(caller: ListedCaller, method: AnyMethod, project: str) -> frozenset[str]:
    """The projects in which this caller may call the method. Raises PROJECT_NOT_PERMITTED."""
    if caller.shadow is not None:
        caller.shadow.verified(caller.policy, method.name, method.permission, project)
    return permitted_projects(caller.policy.permitted(method.permission), project)


def permitted_projects(permitted: frozenset[str], project: str) -> frozenset[str]:
    """The projects to look for a key in: the one asked for, or all permitted ones. Raises PROJECT_NOT_PERMITTED."""
    if not project and permitted:
        return permitted
    if project not in permitted:
        message = f'you may not verify for project "{project}"' if project else "you may verify for no project"
        raise Refusal(Reason.PROJECT_NOT_PERMITTED, message)
    return frozenset({project})


def _summary(event: VerifiedEvent) -> webhook_pb2.WebhookEvent:
    created = Timestamp(seconds=event.create_time) if event.create_time is not None else None
    return webhook_pb2.WebhookEvent(
        type=EVENT_TYPES.get(event.raw_type, 0),  # type: ignore[arg-type]
        raw_type=event.raw_type,
        id=event.id,
        room=event.room,
        participant_identity=event.participant_identity,
        create_time=created,
        truncated=event.truncated,
    )
