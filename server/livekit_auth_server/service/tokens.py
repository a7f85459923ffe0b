"""VerifyToken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.core.tokens import MAX_UNSIGNED, verify_access_token
from livekit_auth_server.service.convert import KIND_NUMBERS, cut, grants_message, room_config_message
from livekit_auth_server.service.methods import VERIFY_TOKEN
from livekit_auth_server.service.webhooks import permitted_to_verify

if TYPE_CHECKING:
    from livekit_auth_server.service.admission import ListedCaller
    from livekit_auth_server.service.turns import Turns
    from livekit_auth_server.service.validation import Valid

_OTHER_CLAIMS = 32
_NAME_BYTES = 64  # of a claim or a kind, which a token can name at any length


@dataclass(frozen=True, slots=True)
class Tokens:
    """Verifies tokens; large ones, which take the worker milliseconds, in turns."""

    turns: Turns

    async def verify(self, caller: ListedCaller, request: Valid[pb.VerifyTokenRequest]) -> pb.VerifyTokenResponse:
        """VerifyToken."""
        text = request.message.token
        if len(text) <= MAX_UNSIGNED:
            return _verified(caller, text)
        answers: list[pb.VerifyTokenResponse] = []
        async with self.turns.of(caller.policy.id):
            await self.turns.each((text,), lambda token: answers.append(_verified(caller.renewed(), token)))
        return answers[0]


def _verified(caller: ListedCaller, text: str) -> pb.VerifyTokenResponse:
    projects = permitted_to_verify(caller, VERIFY_TOKEN, "")
    token = verify_access_token(text, caller.keys, projects, caller.now)
    signed = token.signed
    response = pb.VerifyTokenResponse(
        grants=grants_message(token.grants),
        room=token.room,
        identity=token.identity,
        name=token.name,
        metadata=token.metadata,
        attributes=token.attributes,
        kind=KIND_NUMBERS.get(token.kind, 0),  # type: ignore[arg-type]
        raw_kind=cut(token.raw_kind, _NAME_BYTES),
        room_preset=token.room_preset,
        expire_time=Timestamp(seconds=signed.expires),
        key_id=signed.key.id,
        project=signed.project.name,
        other_claims=[cut(name, _NAME_BYTES) for name in token.other_claims[:_OTHER_CLAIMS]],
    )
    if signed.not_before is not None:
        response.issue_time.seconds = signed.not_before
    if token.room_config is not None:
        response.room_config.CopyFrom(room_config_message(token.room_config))
    return response
