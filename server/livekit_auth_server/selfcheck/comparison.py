"""Compares this server's tokens and webhook checks with livekit-api's. The one module of the server that imports it.

Runs in the child only: livekit-api brings aiohttp and all of LiveKit's protocol, 45 MiB and half a second
(docs/adr/0001). A fault of either side is a difference like any other, named by its type.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from dataclasses import asdict, fields, replace
from datetime import timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast, get_type_hints

from google.protobuf.json_format import ParseDict
from livekit import api
from livekit.api import access_token
from livekit.protocol.room import RoomConfiguration

from livekit_auth.v1 import room_config_pb2
from livekit_auth_server.core.grants import (
    GROUPS,
    ORDINARY_GRANTS,
    POWERS,
    AgentEndpointGrants,
    AgentThreadGrants,
    CloudAgentGrants,
    InferenceGrants,
    ObservabilityGrants,
    SipGrants,
    VideoGrants,
)
from livekit_auth_server.core.keys import KeySet, Project
from livekit_auth_server.core.mint import mint
from livekit_auth_server.core.policy import AllowEntry, CallerPolicy, Grant, Matcher, Policy, decide
from livekit_auth_server.core.refusal import Refusal
from livekit_auth_server.core.webhook import verify_webhook
from livekit_auth_server.selfcheck.report import LISTED, Difference, Kind, Report
from livekit_auth_server.service.convert import room_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from livekit_auth_server.core.grants import Grants
    from livekit_auth_server.core.keys import ApiKey
    from livekit_auth_server.core.policy import TokenRequest
    from livekit_auth_server.selfcheck.task import CheckedKey, Sample, Task

_PROJECT = "selfcheck"
_TRIES = 3  # livekit-api looks at the clock twice, and a second may pass in between
_NAMED = 8  # claims in a difference
_WEBHOOK_TTL = 300  # seconds, as in livekit/protocol webhook/url_notifier.go

_TWINS: dict[type[Any], tuple[type[Any], Callable[[api.AccessToken, Any], object]]] = {
    VideoGrants: (api.VideoGrants, api.AccessToken.with_grants),
    SipGrants: (api.SIPGrants, api.AccessToken.with_sip_grants),
    InferenceGrants: (access_token.InferenceGrants, api.AccessToken.with_inference_grants),
    ObservabilityGrants: (access_token.ObservabilityGrants, api.AccessToken.with_observability_grants),
    CloudAgentGrants: (access_token.AgentGrants, api.AccessToken.with_agent_grants),
    AgentEndpointGrants: (access_token.AgentEndpointGrants, api.AccessToken.with_agent_endpoint_grants),
    AgentThreadGrants: (access_token.AgentThreadGrants, api.AccessToken.with_agent_thread_grants),
}

_PLAIN = frozenset(name for name, hint in get_type_hints(VideoGrants).items() if hint is bool)
"""Video grants that a token holds only where they are true."""

# A caller that may have everything: what is compared is the mint, not the policy.
_EVERYTHING = CallerPolicy(
    _PROJECT,
    (
        AllowEntry(
            name=_PROJECT,
            projects=frozenset({_PROJECT}),
            grants=ORDINARY_GRANTS,
            powers=POWERS,
            rooms=Matcher(any=True),
            identities=Matcher(any=True),
        ),
    ),
)
_POLICY = Policy(_PROJECT, {}, {})
_ROOM_CONFIG = room_config(
    room_config_pb2.RoomConfig(
        name="selfcheck", empty_timeout=30, max_participants=2, metadata='"é\u2028', sync_streams=True
    )
)


def compare(task: Task, now: Callable[[], float]) -> Report:
    """Every difference. Each sample is minted with the first key, and each key signs the first sample."""
    samples = task.samples()
    listed: list[Difference] = []
    counts: Counter[Kind] = Counter()
    for difference in _differences(task, samples, now):
        counts[difference.kind] += 1
        if len(listed) < LISTED:
            listed.append(difference)
    return Report(len(samples) if task.keys else 0, len(task.keys), tuple(listed), counts)


def _differences(task: Task, samples: list[Sample], now: Callable[[], float]) -> Iterator[Difference]:
    if not task.keys:
        return
    signing = task.keys[0].key
    for at, sample in enumerate(samples):
        if what := _attempted(partial(_token, sample, signing)):
            yield Difference(Kind.TOKEN, at, what)
    for at, checked in enumerate(task.keys):
        if what := _attempted(partial(_verification, samples[0], checked.key)):
            yield Difference(Kind.VERIFICATION, at, what)
        if what := _attempted(partial(_webhook, checked, int(now()))):
            yield Difference(Kind.WEBHOOK, at, what)


def _attempted(compared: Callable[[], str]) -> str:
    """What differs, or the type of what was raised: an exception's text could hold a token."""
    try:
        return compared()
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever livekit-api raises is a difference
        return f"{type(error).__name__} raised"


def _token(sample: Sample, key: ApiKey) -> str:
    ours, theirs = _both(sample, key)
    if ours == theirs:
        return ""
    return _named(_claims(ours), _claims(theirs)) or "the header, the order of claims or the signature"


def _verification(sample: Sample, key: ApiKey) -> str:
    """Whether livekit-api's verifier reads the same from both tokens."""
    ours, theirs = _both(sample, key)
    verifier = api.TokenVerifier(key.id, key.secret.exposed().decode())
    return _named(asdict(verifier.verify(ours)), asdict(verifier.verify(theirs)))


def _webhook(checked: CheckedKey, now: int) -> str:
    """Whether both accept a webhook, read the same from it, and refuse it with another body."""
    body = json.dumps(
        {
            "event": "participant_joined",
            "room": {"name": "selfcheck-room"},
            "participant": {"identity": "selfcheck-identity"},
            "id": "EV_selfcheck",
            "createdAt": str(now),
        }
    )
    key, altered = checked.key, body.replace("EV_selfcheck", "EV_another")
    authorization = _signed(body.encode(), key, now)
    projects, keys = frozenset({checked.project}), KeySet([Project(checked.project, "", (key,))])
    receiver = api.WebhookReceiver(api.TokenVerifier(key.id, key.secret.exposed().decode()))
    theirs = receiver.receive(body, authorization)
    ours = verify_webhook(body.encode(), authorization, keys, projects, now)
    read = {
        "event": (ours.raw_type, theirs.event),
        "id": (ours.id, theirs.id),
        "room.name": (ours.room, theirs.room.name),
        "participant.identity": (ours.participant_identity, theirs.participant.identity),
        "createdAt": (ours.create_time, theirs.created_at),
    }
    if unequal := [name for name, (mine, other) in read.items() if mine != other]:
        return ", ".join(unequal)
    if not _refuses(lambda: receiver.receive(altered, authorization)):
        return "livekit-api accepts an altered body"
    if not _refuses(lambda: verify_webhook(altered.encode(), authorization, keys, projects, now)):
        return "this server accepts an altered body"
    return ""


def _refuses(check: Callable[[], object]) -> bool:
    try:
        check()
    except Exception:  # noqa: BLE001 - livekit-api raises plain ones
        return True
    return False


def _signed(body: bytes, key: ApiKey, now: int) -> str:
    """The Authorization header of a webhook, as livekit/protocol's url_notifier makes it."""
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    claims = {"sha256": digest, "iss": key.id, "nbf": now, "exp": now + _WEBHOOK_TTL}
    message = b".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256", "typ": "JWT"}, claims)
    )
    return (message + b"." + base64.urlsafe_b64encode(key.secret.sign(message)).rstrip(b"=")).decode()


def _both(sample: Sample, key: ApiKey) -> tuple[str, str]:
    """The sample's token as this server and as livekit-api make it, of the same second."""
    grant = _granted(sample.request)
    for _ in range(_TRIES):
        theirs = _livekit_token(sample, grant, key)
        begins, ends = (_claims(theirs).get(name) for name in ("nbf", "exp"))
        if isinstance(begins, int) and ends == begins + grant.ttl:
            break
    else:
        raise _NoTimesError
    return mint(grant, key, begins), theirs


class _NoTimesError(Exception):
    """livekit-api's token doesn't hold its ttl."""


def _granted(request: TokenRequest) -> Grant:
    decision = decide(_POLICY, _EVERYTHING, replace(request, project=_PROJECT, room_config=_ROOM_CONFIG))
    if not isinstance(decision, Grant):
        raise Refusal(decision.reason, decision.message)
    return decision


def _livekit_token(sample: Sample, grant: Grant, key: ApiKey) -> str:
    request = sample.request
    token = api.AccessToken(key.id, key.secret.exposed().decode()).with_ttl(timedelta(seconds=grant.ttl))
    token = token.with_identity(request.identity).with_name(request.name).with_metadata(request.metadata)
    token = token.with_attributes(dict(request.attributes)).with_room_preset(request.room_preset)
    token = token.with_kind(cast("Any", request.kind))
    token = token.with_room_config(_livekit_room_config())
    _set_grants(token, sample.grants, request.room)
    return token.to_jwt()


@cache
def _livekit_room_config() -> RoomConfiguration:
    """The room configuration as LiveKit's own message reads it from the claim."""
    return ParseDict(json.loads(_ROOM_CONFIG.claim), RoomConfiguration())


def _set_grants(token: api.AccessToken, grants: Grants, room: str) -> None:
    """Sets the grants as somebody would who writes them with livekit-api: what isn't granted isn't mentioned."""
    for name, cls in GROUPS.items():
        group = getattr(grants, name)
        if group is None:
            continue
        twin, put = _TWINS[cls]
        values = {f.name: getattr(group, f.name) for f in fields(cls)}
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        values = {name: value for name, value in values.items() if value not in ("", [])}
        if cls is VideoGrants:
            values = {name: value for name, value in values.items() if value or name not in _PLAIN} | {"room": room}
        put(token, twin(**values))


def _claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


def _named(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """The claims that differ, by the names that this server's have; empty when none does."""
    names = [name for claim in ours for name in _unequal(claim, ours[claim], theirs.get(claim))]
    if theirs.keys() - ours.keys():
        names.append("a claim that only livekit-api has")
    return ", ".join(names[:_NAMED]) + (" and others" if len(names) > _NAMED else "")


def _unequal(name: str, ours: object, theirs: object) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict) and name != "attributes":
        yield from (f"{name}.{member}" for member in ours if ours[member] != theirs.get(member))
        if theirs.keys() - ours.keys():
            yield f"{name}.(a member that only livekit-api has)"
    elif ours != theirs:
        yield name
