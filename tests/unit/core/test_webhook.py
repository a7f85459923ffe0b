"""What proves that LiveKit sent these bytes, and what doesn't."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from livekit import api
from livekit.protocol import agent, egress, ingress, models
from livekit.protocol.webhook import WebhookEvent

from livekit_auth.v1 import webhook_pb2
from livekit_auth_server.core.keys import ApiKey, KeySet, KeyState, Project, Secret
from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.core.webhook import VerifiedEvent, verify_webhook
from support.examples import examples
from support.jws import HS256, pyjwt_at, sign

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 1_800_000_000
SECRET, BETA, GONE = (f"MARKER-{name}-".encode() + b"0123456789abcdef" * 4 for name in ("alpha", "beta", "gone"))
KEYS = KeySet(
    [
        Project(
            "alpha",
            "",
            (
                ApiKey("APIalpha", Secret(SECRET)),
                ApiKey("APIolder", Secret(SECRET), KeyState.VERIFY_ONLY),
                ApiKey("APIgone", Secret(GONE), KeyState.REVOKED),
            ),
        ),
        Project("beta", "", (ApiKey("APIbeta", Secret(BETA)),)),
    ]
)
ALPHA = frozenset({"alpha"})

BODY = (
    b'{"event":"participant_joined","room":{"sid":"RM_1","name":"consult-1"},"participant":{"sid":"PA_1",'
    b'"identity":"user-1"},"id":"EV_1","createdAt":"1799999999"}'
)


def digest(body: bytes) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


def token(body: bytes = BODY, without: str = "", *, secret: bytes = SECRET, header: Any = HS256, **claims: Any) -> str:
    """The token that LiveKit sends with a body (livekit/protocol webhook/url_notifier.go), with changes."""
    base = {"iss": "APIalpha", "nbf": NOW, "iat": NOW, "exp": NOW + 300, "sha256": digest(body)}
    payload = {name: value for name, value in {**base, **claims}.items() if name != without}
    return sign(payload, secret, header=header)


def verify(body: bytes = BODY, authorization: str | None = None, projects: frozenset[str] = ALPHA) -> VerifiedEvent:
    return verify_webhook(body, token(body) if authorization is None else authorization, KEYS, projects, NOW)


def reason(body: bytes = BODY, authorization: str | None = None, projects: frozenset[str] = ALPHA) -> Reason:
    with pytest.raises(Refusal) as caught:
        verify(body, authorization, projects)
    assert "MARKER" not in str(caught.value)
    assert not authorization or len(authorization) < 40 or authorization not in str(caught.value)
    return caught.value.reason


def test_livekits_webhook_is_recognised_and_summarised() -> None:
    assert verify() == VerifiedEvent(
        project="alpha",
        key_id="APIalpha",
        body_sha256=hashlib.sha256(BODY).digest(),
        raw_type="participant_joined",
        id="EV_1",
        room="consult-1",
        participant_identity="user-1",
        create_time=1799999999,
        truncated=(),
    )


def test_checking_twice_gives_the_same_answer() -> None:
    made = token()
    assert verify(BODY, made) == verify(BODY, made)


# The body


@pytest.mark.parametrize(
    "alter",
    [
        lambda body: body[:-1],
        lambda body: body[:0],
        lambda body: body + b"\n",
        lambda body: b" " + body,
        lambda body: b"\xef\xbb\xbf" + body,
        lambda body: body.replace(b"user-1", b"user-2"),
        lambda body: body.replace(b'"', b"'"),
        lambda body: json.dumps(json.loads(body)).encode(),
        lambda body: json.dumps(json.loads(body), separators=(",", ":"), sort_keys=True).encode(),
        lambda body: json_format.MessageToJson(json_format.Parse(body, WebhookEvent())).encode(),
        lambda body: body.decode().encode("utf-16"),
        base64.b64encode,
        lambda body: hashlib.sha256(body).digest(),
    ],
)
def test_any_other_bytes_than_the_signed_ones_are_refused(alter: Callable[[bytes], bytes]) -> None:
    assert alter(BODY) != BODY
    assert reason(alter(BODY), token(BODY)) is Reason.BODY_ALTERED


def test_any_bit_of_the_body_matters() -> None:
    made = token()
    for bit in range(0, len(BODY) * 8, 7):
        altered = bytearray(BODY)
        altered[bit // 8] ^= 1 << bit % 8
        assert reason(bytes(altered), made) is Reason.BODY_ALTERED


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"[]", b"[{}]", b'"text"', b"1", b"null", b"{", b"{}{}", b"\xff\xfe", b'{"a":"\xff"}', b"[" * 5000],
)
def test_a_signed_body_that_isnt_a_json_object_is_said_to_be_that(body: bytes) -> None:
    assert reason(body) is Reason.BODY_NOT_JSON


def test_the_body_isnt_read_before_signature_and_hash_have_held() -> None:
    assert reason(b"[", token(b"{}")) is Reason.BODY_ALTERED
    assert reason(b"[", token(b"[", secret=BETA)) is Reason.SIGNATURE_INVALID


# The authorization


def test_bearer_may_stand_before_the_token() -> None:
    for scheme in ("", "Bearer ", "bearer "):
        assert verify(BODY, scheme + token()).id == "EV_1"


@pytest.mark.parametrize(
    "wrap",
    [
        "",
        "Bearer",
        "Bearer ",
        "bearer  {}",
        "Bearer  {}",
        "BEARER {}",
        "Bearer\t{}",
        "Bearer {} ",
        "Bearer Bearer {}",
        "Bearer{}",
        "Bearer: {}",
        "Basic {}",
        "JWT {}",
        "Token {}",
        " {}",
        "{} ",
        "{}\n",
        "\n{}",
        "{}, {}",
        "{},{}",
        "Bearer {}, Bearer {}",
        "Bearer {} {}",
        '"{}"',
        "{};",
        "{}\0",
        "Authorization: {}",
    ],
)
def test_a_header_of_any_other_form_is_refused(wrap: str) -> None:
    assert reason(BODY, wrap.replace("{}", token())) is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize("scheme", ["", "Bearer "])
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"secret": BETA}, Reason.SIGNATURE_INVALID),
        ({"iss": "APInever"}, Reason.KEY_UNKNOWN),
        ({"iss": "APIbeta", "secret": BETA}, Reason.KEY_UNKNOWN),
        ({"iss": "APIgone", "secret": GONE}, Reason.KEY_UNKNOWN),
        ({"iss": ""}, Reason.TOKEN_MALFORMED),
        ({"without": "iss"}, Reason.TOKEN_MALFORMED),
        ({"header": {"alg": "none"}}, Reason.TOKEN_MALFORMED),
        ({"header": {"alg": "HS512"}}, Reason.TOKEN_MALFORMED),
        ({"exp": NOW - 60}, Reason.TOKEN_EXPIRED),
        ({"nbf": NOW + 61}, Reason.TOKEN_EXPIRED),
        ({"without": "exp"}, Reason.TOKEN_MALFORMED),
    ],
)
def test_a_token_that_doesnt_hold_proves_nothing(changes: dict[str, Any], why: Reason, scheme: str) -> None:
    assert reason(BODY, scheme + token(BODY, **changes)) is why


def test_a_webhook_is_good_for_its_five_minutes_and_the_leeway() -> None:
    assert verify(BODY, token(exp=NOW - 59, nbf=NOW + 60)).id == "EV_1"


def test_a_key_that_only_verifies_still_signs_webhooks() -> None:
    assert verify(BODY, token(iss="APIolder")).key_id == "APIolder"


def test_a_webhook_of_any_permitted_project_is_recognised() -> None:
    made = token(iss="APIbeta", secret=BETA)
    assert verify(BODY, made, frozenset({"alpha", "beta"})).project == "beta"
    assert reason(BODY, made, frozenset()) is Reason.KEY_UNKNOWN


# Tokens that give access are signed with the same secret


def test_a_join_token_is_no_webhook() -> None:
    made = api.AccessToken("APIalpha", SECRET.decode()).with_identity("user-1")
    made = made.with_grants(api.VideoGrants(room_join=True, room="r")).with_sha256(digest(BODY))
    claims = jwt.decode(made.to_jwt(), options={"verify_signature": False})
    assert reason(BODY, sign({**claims, "nbf": NOW, "exp": NOW + 60}, SECRET)) is Reason.NOT_A_WEBHOOK_TOKEN


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "user-1"},
        {"sub": " "},
        {"sub": 0},
        {"sub": False},
        {"sub": []},
        {"video": {}},
        {"video": {"roomJoin": False}},
        {"video": False},
        {"video": []},
        {"video": ""},
        {"sip": {}},
        {"agent": {}},
        {"inference": {}},
        {"observability": {}},
        {"agentEndpoint": {}},
        {"agentThread": {}},
        {"roomPreset": ""},
        {"roomPreset": "p"},
        {"roomConfig": {}},
    ],
)
def test_a_token_with_a_subject_or_grants_is_no_webhook(claims: dict[str, Any]) -> None:
    assert reason(BODY, token(**claims)) is Reason.NOT_A_WEBHOOK_TOKEN


@pytest.mark.parametrize("name", ["sub", "video", "sip", "agent", "roomConfig", "roomPreset"])
def test_a_grant_that_is_null_is_none(name: str) -> None:
    null: dict[str, Any] = {name: None}
    assert verify(BODY, token(**null)).id == "EV_1"
    assert verify(BODY, token(sub="")).id == "EV_1"


NO_DIGESTS: list[Any] = [None, "", 0, True, [], {}]


@pytest.mark.parametrize("changes", [{"without": "sha256"}, *({"sha256": value} for value in NO_DIGESTS)])
def test_a_token_that_signs_no_body_is_no_webhook(changes: dict[str, Any]) -> None:
    assert reason(BODY, token(BODY, **changes)) is Reason.NOT_A_WEBHOOK_TOKEN


RAW = hashlib.sha256(BODY).digest()
STANDARD = digest(BODY)


def spare_bits(text: str) -> str:
    """The same 32 bytes in base64 with a bit set that means nothing."""
    assert text.endswith("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return text[:-2] + alphabet[alphabet.index(text[-2]) + 1] + "="


@pytest.mark.parametrize(
    "claim",
    [
        STANDARD[:-1],
        STANDARD + "=",
        STANDARD + "====",
        STANDARD + "\n",
        " " + STANDARD,
        STANDARD[:10] + "\n" + STANDARD[10:],
        STANDARD[:10] + " " + STANDARD[10:],
        "!!" + STANDARD,
        STANDARD + "!!",
        "=" + STANDARD,
        spare_bits(STANDARD),
        base64.urlsafe_b64encode(b"\xfb\xff" * 16).decode(),
        base64.b64encode(RAW[:31]).decode(),
        base64.b64encode(RAW + b"\0").decode(),
        base64.b64encode(RAW[:16]).decode(),
        base64.b64encode(RAW.hex().encode()).decode(),
        RAW.hex(),
        "é" * 44,
        "\0" * 44,
        "A",
    ],
)
def test_the_hash_is_32_bytes_in_strict_base64(claim: str) -> None:
    assert reason(BODY, token(sha256=claim)) is Reason.TOKEN_MALFORMED


def test_other_32_bytes_are_another_body() -> None:
    assert reason(BODY, token(sha256=digest(b"{}"))) is Reason.BODY_ALTERED


# Events


def protojson(event: WebhookEvent) -> bytes:
    return json_format.MessageToJson(event, indent=None).encode()


ROOM = models.Room(sid="RM_1", name="consult-1", creation_time=1799999000)
USER = models.ParticipantInfo(sid="PA_1", identity="user-1", name="Ada")
TRACK = models.TrackInfo(sid="TR_1", type=models.TrackType.AUDIO)
EGRESS = egress.EgressInfo(egress_id="EG_1", room_name="consult-1", status=egress.EgressStatus.EGRESS_ACTIVE)
INGRESS = ingress.IngressInfo(ingress_id="IN_1", room_name="consult-1", participant_identity="camera")
JOB = agent.Job(id="AJ_1", room=ROOM, participant=USER)

EVENTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "room_started": ({"room": ROOM}, "consult-1", ""),
    "room_finished": ({"room": ROOM}, "consult-1", ""),
    "participant_joined": ({"room": ROOM, "participant": USER}, "consult-1", "user-1"),
    "participant_left": ({"room": ROOM, "participant": USER}, "consult-1", "user-1"),
    "participant_connection_aborted": ({"room": ROOM, "participant": USER}, "consult-1", "user-1"),
    "track_published": ({"room": ROOM, "participant": USER, "track": TRACK}, "consult-1", "user-1"),
    "track_unpublished": ({"room": ROOM, "participant": USER, "track": TRACK}, "consult-1", "user-1"),
    "egress_started": ({"egress_info": EGRESS}, "consult-1", ""),
    "egress_updated": ({"egress_info": EGRESS}, "consult-1", ""),
    "egress_ended": ({"egress_info": EGRESS}, "consult-1", ""),
    "ingress_started": ({"ingress_info": INGRESS}, "consult-1", ""),
    "ingress_ended": ({"ingress_info": INGRESS}, "consult-1", ""),
    "agent_job_pending": ({"job": JOB}, "consult-1", ""),
    "agent_job_started": ({"job": JOB}, "consult-1", ""),
    "agent_job_ended": ({"job": JOB}, "consult-1", ""),
    "an_event_to_come": ({"room": ROOM}, "consult-1", ""),
    "": ({}, "", ""),
}


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_is_summarised_as_protojson_writes_it(name: str) -> None:
    content, room, participant = EVENTS[name]
    body = protojson(WebhookEvent(event=name, id="EV_1", created_at=1799999999, **content))
    got = verify(body)
    assert (got.raw_type, got.id, got.create_time) == (name, "EV_1", 1799999999)
    assert (got.room, got.participant_identity) == (room, participant)


def summary(**event: Any) -> VerifiedEvent:
    return verify(json.dumps(event).encode())


def test_an_event_that_says_nothing_is_an_event() -> None:
    got = verify(b"{}")
    assert (got.raw_type, got.id, got.room, got.participant_identity, got.create_time) == ("", "", "", "", None)


@pytest.mark.parametrize("value", [None, 1, True, [], {}, ["x"], {"name": "x"}])
def test_a_field_of_another_type_counts_as_none(value: object) -> None:
    got = summary(
        event=value, id=value, room=value if value != {"name": "x"} else 1, participant=value, createdAt=value
    )
    assert (got.raw_type, got.id, got.room, got.participant_identity) == ("", "", "", "")
    assert got.create_time == (1 if value == 1 and value is not True else None)
    nested = summary(room={"name": value}, participant={"identity": value}, egressInfo=value, job={"room": value})
    assert (nested.room, nested.participant_identity) == ("x" if value == {"name": "x"} else "", "")


TEXTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "raw_type": lambda text: {"event": text},
    "id": lambda text: {"id": text},
    "room": lambda text: {"room": {"name": text}},
    "participant_identity": lambda text: {"participant": {"identity": text}},
}


@pytest.mark.parametrize("text", ["EV_\n1", "\x00", "EV_1\x7f", "\x85EV_1"])
def test_an_id_that_cant_be_acknowledged_is_none(text: str) -> None:
    got = summary(id=text)
    assert (got.id, got.truncated) == ("", ())


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_of_256_bytes_is_whole_and_a_longer_one_is_truncated(name: str) -> None:
    """A cut name could be another room's, and a cut id another event's."""
    for text in ("x" * 256, "é" * 128):
        whole = summary(**TEXTS[name](text))
        assert (getattr(whole, name), whole.truncated) == (text, ())
    for text in ("x" * 257, "é" * 128 + "x"):
        longer = summary(**TEXTS[name](text))
        assert (getattr(longer, name), longer.truncated) == ("", (name,))


@pytest.mark.parametrize(
    "place", [{"egressInfo": {"roomName": "x" * 257}}, {"job": {"room": {"name": "x" * 257}}}, {"room": {"name": "r"}}]
)
def test_a_room_is_truncated_wherever_the_event_names_it(place: dict[str, Any]) -> None:
    got = summary(**place)
    assert (got.room, got.truncated) == (("r", ()) if "room" in place else ("", ("room",)))


def test_a_room_that_is_truncated_isnt_replaced_by_another_place() -> None:
    got = summary(room={"name": "x" * 257}, egressInfo={"roomName": "other"})
    assert (got.room, got.truncated) == ("", ("room",))


def test_every_text_that_is_truncated_is_named_in_the_contracts_order() -> None:
    long = "x" * 300
    got = summary(event=long, id=long, room={"name": long}, participant={"identity": long})
    assert got.truncated == tuple(TEXTS)
    assert set(TEXTS) < set(webhook_pb2.WebhookEvent.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1799999999", 1799999999),
        (1799999999, 1799999999),
        ("253402300799", 253402300799),
        ("253402300800", None),
        (253402300800, None),
        ("0", None),
        (0, None),
        (-1, None),
        ("-1", None),
        ("+1", None),
        (" 1", None),
        ("1.5", None),
        (1.5, None),
        ("1e9", None),
        (True, None),
        ("", None),
        ("yesterday", None),
        ("2026-11-24T00:00:00Z", None),
        ("\u0661\u0662", None),  # Arabic digits, which int() takes
        ("9" * 5000, None),
        (10**30, None),
        (None, None),
        ([], None),
        ({}, None),
    ],
)
def test_the_time_is_whole_seconds_that_a_timestamp_can_hold(value: object, seconds: int | None) -> None:
    assert summary(createdAt=value).create_time == seconds
    assert summary(created_at=value).create_time == seconds


def test_a_body_with_a_name_twice_is_read_as_protojson_reads_it() -> None:
    """The last one counts for orjson; Go and Python refuse the body, so LiveKit never sends one."""
    body = b'{"id":"EV_1","id":"EV_2"}'
    assert verify(body).id == "EV_2"
    with pytest.raises(json_format.ParseError):
        json_format.Parse(body, WebhookEvent())


# Public vectors


def test_livekits_node_vector_holds() -> None:
    """node-sdks packages/livekit-server-sdk/src/WebhookReceiver.test.ts."""
    body = (
        b'{"event":"room_started", "room":{"sid":"RM_TkVjUvAqgzKz", "name":"mytestroom", "emptyTimeout":300, '
        b'"creationTime":"1628545903", "turnPassword":"ICkSr2rEeslkN6e9bXL4Ji5zzMD5Z7zzr6ulOaxMj6N", '
        b'"enabledCodecs":[{"mime":"audio/opus"}, {"mime":"video/VP8"}]}}'
    )
    sha256 = "CoEQz1chqJ9bnZRcORddjplkvpjmPujmLTR42DbefYI="
    assert digest(body) == sha256
    keys = KeySet([Project("alpha", "", (ApiKey("abcdefg", Secret(b"abababa")),))])
    made = sign({"iss": "abcdefg", "nbf": NOW, "exp": NOW + 60, "sha256": sha256}, b"abababa")
    got = verify_webhook(body, made, keys, ALPHA, NOW)
    assert (got.raw_type, got.room, got.id) == ("room_started", "mytestroom", "")


def test_livekits_python_tests_sign_webhooks_that_hold() -> None:
    """python-sdks tests/api/test_webhook.py: an access token's class with nothing but a hash."""
    made = api.AccessToken("APIalpha", SECRET.decode()).with_sha256(digest(BODY)).to_jwt()
    now = jwt.decode(made, options={"verify_signature": False})["nbf"]
    assert verify_webhook(BODY, made, KEYS, ALPHA, now).id == "EV_1"


# Beside livekit-api


RECEIVER = api.WebhookReceiver(api.TokenVerifier("APIalpha", SECRET.decode()))


def receive(body: bytes, authorization: str) -> WebhookEvent | None:
    """What livekit-api's receiver makes of it, None when it refuses."""
    with pyjwt_at(NOW):
        try:
            return RECEIVER.receive(body.decode(), authorization)
        except Exception:  # noqa: BLE001 - it raises Exception itself
            return None


def accept(body: bytes, authorization: str) -> VerifiedEvent | None:
    try:
        return verify(body, authorization)
    except Refusal:
        return None


TEXT = st.text(max_size=20)
GENERATED = st.builds(
    WebhookEvent,
    event=st.sampled_from([*EVENTS, "track_muted"]),
    id=st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20),
    created_at=st.integers(1, 1 << 37),
    num_dropped=st.integers(0, 9),
    room=st.none() | st.builds(models.Room, name=TEXT, metadata=TEXT, creation_time=st.integers(0, 1 << 40)),
    participant=st.none() | st.builds(models.ParticipantInfo, identity=TEXT, name=TEXT, metadata=TEXT),
    egress_info=st.none() | st.builds(egress.EgressInfo, egress_id=TEXT),
)


@given(
    GENERATED.map(protojson),
    st.sampled_from(
        [{}] * 6 + [{"exp": NOW - 60}, {"nbf": NOW + 61}, {"iss": "x"}, {"secret": BETA}, {"without": "sha256"}]
    ),
    st.none() | st.integers(0, 60),
)
@examples(200)
def test_it_accepts_what_livekit_api_accepts_and_reads_it_alike(
    body: bytes, changes: dict[str, Any], damaged: int | None
) -> None:
    made = token(body, **changes)
    sent = body if damaged is None else body[:damaged] + b" " + body[damaged:]
    if not is_utf8(sent):
        return  # livekit-api takes text
    ours, theirs = accept(sent, made), receive(sent, made)
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        assert (ours.raw_type, ours.id, ours.create_time) == (theirs.event, theirs.id, theirs.created_at)
        assert ours.room == theirs.room.name
        assert ours.participant_identity == theirs.participant.identity


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_where_livekit_api_is_laxer_is_known() -> None:
    junk = token(sha256="!!" + STANDARD)
    assert receive(BODY, junk)
    assert reason(BODY, junk) is Reason.TOKEN_MALFORMED
    access = token(sub="user-1", video={"roomJoin": True})
    assert receive(BODY, access)
    assert reason(BODY, access) is Reason.NOT_A_WEBHOOK_TOKEN


# Nothing but a refusal


REASONS = {
    Reason.TOKEN_MALFORMED,
    Reason.KEY_UNKNOWN,
    Reason.SIGNATURE_INVALID,
    Reason.TOKEN_EXPIRED,
    Reason.NOT_A_WEBHOOK_TOKEN,
    Reason.BODY_ALTERED,
    Reason.BODY_NOT_JSON,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "identity", "room", "roomName"]) | st.text(max_size=4), inner, max_size=3
        )
    ),
    max_leaves=8,
)
NAMES = ["event", "id", "room", "participant", "egressInfo", "ingressInfo", "job", "createdAt", "created_at"]
BODIES = st.binary(max_size=40) | st.one_of(JSON, st.dictionaries(st.sampled_from(NAMES), JSON, max_size=6)).map(
    lambda value: json.dumps(value).encode()
)


@given(
    BODIES,
    st.dictionaries(st.sampled_from(["sub", "sha256", "video", "exp", "iss", "x"]), JSON, max_size=2),
    st.booleans(),
)
@examples(400)
def test_any_signed_body_is_summarised_or_refused_and_the_summary_is_sound(
    body: bytes,
    odd: dict[str, Any],
    plain: bool,  # noqa: FBT001
) -> None:
    made = token(body) if plain else token(body, **odd)
    got = accept(body, made)
    if got is None:
        assert reason(body, made) in REASONS
        return
    assert isinstance(json.loads(body), dict)
    assert got.body_sha256 == hashlib.sha256(body).digest()
    for name in TEXTS:
        assert len(getattr(got, name).encode()) <= 256
        assert name not in got.truncated or getattr(got, name) == ""
    assert got.create_time is None or 0 < got.create_time <= 253402300799


@given(st.text() | st.from_regex(re.compile(r"\A([Bb]earer )?[\w-]{0,9}(\.[\w-]{0,9}){0,4}\Z", re.ASCII)))
@examples(200)
def test_any_header_that_nobody_signed_is_refused(header: str) -> None:
    assert reason(BODY, header) in REASONS
