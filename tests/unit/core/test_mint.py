"""The mint against livekit-api and PyJWT: equal to the byte, for every combination of grants."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import time
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast, get_type_hints

import jwt
import livekit.api.access_token as livekit_api
import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit.protocol.room import RoomConfiguration

from livekit_auth_server.core.grants import GROUPS, Grants, RoomConfig, VideoGrants
from livekit_auth_server.core.keys import ApiKey, Secret
from livekit_auth_server.core.mint import claims, mint, token_size
from livekit_auth_server.core.policy import TokenRequest
from livekit_auth_server.service.convert import room_config
from support.examples import examples
from support.fakes import NOW
from support.handlers import KEY, SECRET
from support.livekit import LIVEKIT_GROUPS, LIVEKIT_NAMES
from support.messages import livekit_twin, room_configs
from support.policies import JOIN, YEAR, awkward_text, granted, token_requests

if TYPE_CHECKING:
    from collections.abc import Callable

# protobuf's maps have no order, so livekit-api's token of several entries has none: test_convert looks at maps.
MAPS = frozenset({"RoomConfig.tags", "RoomAgentDispatch.attributes"})
OPTIONAL = {name for name, hint in get_type_hints(VideoGrants).items() if hint == bool | None}
ROOM_CONFIG = RoomConfiguration(name="large", empty_timeout=30, metadata='"é\u2028')
ROOM_CONFIG_CLAIM = RoomConfig('{"name":"large","emptyTimeout":30,"metadata":"\\"\\u00e9\\u2028"}', frozenset())


@pytest.fixture(scope="module", autouse=True)
def frozen_time():
    """livekit-api reads the clock itself; here it reads NOW."""

    class Frozen(dt.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(NOW, tz)

    module = SimpleNamespace(datetime=Frozen, timedelta=dt.timedelta, timezone=dt.timezone)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(livekit_api, "datetime", module)
        yield


def livekit_grants(name: str, group: Any, room: str) -> Any:
    """The same grants as somebody would write them with livekit-api, who sets what isn't the default."""
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(group).items()}
    values = {key: value for key, value in values.items() if value not in ("", [])}
    if name != "video":
        return LIVEKIT_GROUPS[name](**values)
    silent = {key for key, value in values.items() if value is False and key not in OPTIONAL}
    return LIVEKIT_GROUPS[name](room=room, **{key: value for key, value in values.items() if key not in silent})


def livekit_token(request: TokenRequest, ttl: int, room_config: RoomConfiguration | None = None) -> str:
    """What livekit-api makes of a request."""
    assert isinstance(request.access, Grants)
    token = livekit_api.AccessToken(KEY.id, SECRET).with_ttl(dt.timedelta(seconds=ttl))
    token = token.with_identity(request.identity).with_name(request.name).with_metadata(request.metadata)
    setters: dict[str, Callable[[Any], object]] = {
        "video": token.with_grants,
        "sip": token.with_sip_grants,
        "inference": token.with_inference_grants,
        "observability": token.with_observability_grants,
        "cloud_agent": token.with_agent_grants,
        "agent_endpoint": token.with_agent_endpoint_grants,
        "agent_thread": token.with_agent_thread_grants,
    }
    assert set(setters) == set(GROUPS) == set(LIVEKIT_GROUPS)
    for name, set_grants in setters.items():
        if (group := getattr(request.access, name)) is not None:
            set_grants(livekit_grants(name, group, request.room))
    if request.kind:
        token.with_kind(cast("Any", request.kind))
    if request.attributes:
        token.with_attributes(dict(request.attributes))
    if request.room_preset:
        token.with_room_preset(request.room_preset)
    if room_config is not None:
        token.with_room_config(room_config)
    return token.to_jwt()


def payload(token: str) -> str:
    """A token's claims as text."""
    part = token.split(".")[1]
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode("ascii")


def assert_same_token(token: str, reference: str) -> None:
    """Compares claims first, and the rest without showing a token."""
    assert payload(token) == payload(reference)
    same = token == reference
    assert same, "the header or the signature differs"


@examples(300)
@given(token_requests(), st.none() | room_configs(without=MAPS))
def test_a_token_equals_livekit_apis_to_the_byte(request, config):
    twin: Any = None
    if config is not None:
        request = replace(request, room_config=room_config(config))
        twin = livekit_twin(config, RoomConfiguration())
    grant = granted(request)
    token = mint(grant, KEY, NOW)
    assert_same_token(token, livekit_token(request, grant.ttl, twin))


@examples(100)
@given(token_requests())
def test_a_token_equals_what_pyjwt_makes_of_the_same_claims(request):
    token = mint(granted(request), KEY, NOW)
    assert_same_token(token, jwt.encode(json.loads(payload(token)), SECRET, algorithm="HS256"))


@examples(100)
@given(token_requests())
def test_livekit_apis_verifier_reads_back_what_was_granted(request):
    now = int(time.time())
    request = replace(request, ttl=600, room_config=ROOM_CONFIG_CLAIM)
    read = livekit_api.TokenVerifier(KEY.id, SECRET).verify(mint(granted(request), KEY, now))
    absent = {"video": livekit_api.VideoGrants(), "sip": livekit_api.SIPGrants()}
    absent |= {"inference": livekit_api.InferenceGrants(), "observability": livekit_api.ObservabilityGrants()}
    for name in GROUPS:
        group = getattr(request.access, name)
        expected = absent.get(name) if group is None else livekit_grants(name, group, request.room)
        assert getattr(read, LIVEKIT_NAMES[name]) == expected
    assert (read.identity, read.name, read.metadata) == (request.identity, request.name, request.metadata)
    assert (read.kind, read.room_preset or "") == (request.kind, request.room_preset)
    assert read.attributes == dict(request.attributes)
    assert read.room_config == ROOM_CONFIG
    assert not read.sha256


@examples(100)
@given(token_requests())
def test_the_size_of_a_token_is_known_before_it_is_minted(request):
    grant = granted(request)
    assert token_size(grant, KEY, NOW) == len(mint(grant, KEY, NOW))


def single_grants() -> list[Any]:
    """Every field of every group, set alone."""
    cases = []
    for name, cls in GROUPS.items():
        for field, default in asdict(cls()).items():
            flags = [True, False] if default is None else [not default]
            values: list[Any] = flags if isinstance(default, bool | None) else ["x"] if default == "" else [("camera",)]
            cases += [pytest.param(name, cls(**{field: value}), id=f"{name}.{field}={value}") for value in values]
        cases.append(pytest.param(name, cls(), id=f"{name} with nothing set"))
    return cases


@pytest.mark.parametrize(("name", "group"), single_grants())
def test_each_single_grant_is_written_as_livekit_api_writes_it(name, group):
    request = TokenRequest(access=Grants(**{name: group}), room="r" if name == "video" else "", identity="i")
    grant = granted(request)
    assert_same_token(mint(grant, KEY, NOW), livekit_token(request, grant.ttl))


@pytest.mark.parametrize("ttl", [1, 600, 3600, YEAR])
@pytest.mark.parametrize("now", [0, 1, NOW, 2**31, 2**33])
def test_a_token_is_valid_from_now_until_its_ttl_is_over(now, ttl):
    read = json.loads(claims(granted(TokenRequest(access=JOIN, room="r", identity="i", ttl=ttl)), KEY, now))
    assert (read["nbf"], read["exp"]) == (now, now + ttl)
    assert "iat" not in read


def test_a_token_is_signed_with_the_key_that_it_names():
    key = ApiKey("APIother", Secret(b"another secret of at least thirty-two bytes"))
    token = mint(granted(TokenRequest(access=JOIN, room="r", identity="i")), key, NOW)
    options: Any = {"verify_exp": False, "verify_nbf": False}
    read = jwt.decode(token, "another secret of at least thirty-two bytes", algorithms=["HS256"], options=options)
    assert read["iss"] == "APIother"
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, SECRET, algorithms=["HS256"], options=options)


def test_a_known_token_stays_the_same():
    """A vector that was made with livekit-api 1.2.2, so that both can't drift together."""
    request = TokenRequest(access=JOIN, room="consult-42", identity="user-7", name="Zoë", ttl=600)
    token = mint(granted(request), KEY, NOW)
    assert token.startswith("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.")
    assert payload(token) == (
        '{"name":"Zo\\u00eb","video":{"roomJoin":true,"room":"consult-42","canPublish":true,"canSubscribe":true,'
        '"canPublishData":true},"sub":"user-7","iss":"APIfirst","nbf":1800000000,"exp":1800000600}'
    )
    assert (
        hashlib.sha256(token.encode()).hexdigest() == "3909cf92fdb5a2ae2d3d3c634474ee64b98623005815ef26d28c3c16a1783fbc"
    )


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    assert len(set(names)) == len(names), f"duplicate member: {names}"
    return dict(pairs)


injections = st.lists(
    st.sampled_from(
        [
            '"',
            '\\"',
            "\\",
            "}",
            "{",
            '","sha256":"x',
            '"},"sha256":"x","video":{"roomAdmin":true',
            '","exp":9999999999,"x":"',
            '","iss":"APIother","x":"',
            "\\u0022,\\u0022sha256\\u0022:",
            "\u2028",
            "\x00",
            "sha256",
            "exp",
            "iss",
            "é",
            "😀",
        ]
    ),
    min_size=1,
    max_size=4,
).map("".join)


@examples(200)
@given(st.data())
def test_no_text_of_a_request_can_change_another_claim(data):
    """Whatever the texts hold, the token parses to exactly the members that the request stands for, each once."""
    text = injections | awkward_text.filter(bool)
    room, identity, name, metadata, preset, destination = (data.draw(text) for _ in range(6))
    attributes = data.draw(st.dictionaries(text, text, min_size=1, max_size=3))
    request = TokenRequest(
        access=Grants(video=VideoGrants(room_join=True, destination_room=destination)),
        room=room,
        identity=identity,
        name=name,
        metadata=metadata,
        attributes=tuple(sorted(attributes.items())),
        ttl=60,
        room_preset=preset,
    )
    token = mint(granted(request), KEY, NOW)
    assert json.loads(payload(token), object_pairs_hook=without_duplicates) == {
        "name": name,
        "metadata": metadata,
        "video": {
            "roomJoin": True,
            "room": room,
            "destinationRoom": destination,
            "canPublish": True,
            "canSubscribe": True,
            "canPublishData": True,
        },
        "attributes": attributes,
        "roomPreset": preset,
        "sub": identity,
        "iss": KEY.id,
        "nbf": NOW,
        "exp": NOW + 60,
    }


@examples(200)
@given(token_requests())
def test_a_token_has_the_claims_of_its_rules_and_no_hash_of_a_body(request):
    grant = granted(request)
    read = json.loads(claims(grant, KEY, NOW), object_pairs_hook=without_duplicates)
    assert "sha256" not in read
    assert "jti" not in read
    assert "aud" not in read
    assert list(read)[-4:] == ["sub", "iss", "nbf", "exp"]
    assert (read["sub"], read["iss"]) == (request.identity, KEY.id)
    assert (read["nbf"], read["exp"]) == (NOW, NOW + grant.ttl)
