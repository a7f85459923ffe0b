"""Which tokens hold, and the many that don't."""

from __future__ import annotations

import datetime as dt
import json
import string
import tracemalloc
from dataclasses import asdict, fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from livekit import api
from livekit.protocol.room import RoomConfiguration

from livekit_auth_server.core import tokens as tokens_module
from livekit_auth_server.core.grants import (
    CLAIMS,
    GROUPS,
    PARTICIPANT_KINDS,
    TRACK_SOURCES,
    AgentEndpointGrants,
    AgentThreadGrants,
    CloudAgentGrants,
    Grants,
    InferenceGrants,
    ObservabilityGrants,
    SipGrants,
    VideoGrants,
    camel,
)
from livekit_auth_server.core.keys import ApiKey, KeySet, KeyState, Project, Secret
from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.core.tokens import MAX_UNSIGNED, VerifiedToken, verify_access_token, verify_signed
from support.examples import examples
from support.jws import HS256, base64url, encoded, pyjwt_at, sign
from support.livekit import LIVEKIT_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 1_800_000_000
LAST_SECOND = 253_402_300_799
SECRETS = {
    id_: f"MARKER-{id_}-".encode() + b"0123456789abcdef" * 4
    for id_ in ("APIalpha", "APIolder", "APIgone", "APIended", "APIbeta")
}


def key(id_: str, state: KeyState = KeyState.ACTIVE, not_after: int | None = None) -> ApiKey:
    return ApiKey(id_, Secret(SECRETS[id_]), state, None, not_after)


KEYS = KeySet(
    [
        Project(
            "alpha",
            "wss://alpha.example.org",
            (
                key("APIalpha"),
                key("APIolder", KeyState.VERIFY_ONLY),
                key("APIgone", KeyState.REVOKED),
                key("APIended", not_after=NOW),
            ),
        ),
        Project("beta", "wss://beta.example.org", (key("APIbeta"),)),
    ]
)
ALPHA = frozenset({"alpha"})


def payload(without: str = "", **claims: Any) -> dict[str, Any]:
    """A join token's claims, with changes, and without one of them."""
    base = {"video": {"roomJoin": True, "room": "r"}, "sub": "user-1", "iss": "APIalpha", "nbf": NOW, "exp": NOW + 600}
    return {name: value for name, value in {**base, **claims}.items() if name != without}


def token(without: str = "", *, signed_by: str = "APIalpha", header: Any = HS256, **claims: Any) -> str:
    return sign(payload(without, **claims), SECRETS[signed_by], header=header)


def verify(text: str, now: int = NOW, projects: frozenset[str] = ALPHA, keys: KeySet = KEYS) -> VerifiedToken:
    return verify_access_token(text, keys, projects, now)


def reason(text: str, now: int = NOW, projects: frozenset[str] = ALPHA, keys: KeySet = KEYS) -> Reason:
    """Why this token is refused. Whatever the reason, the token and the secrets stay out of the message."""
    with pytest.raises(Refusal) as caught:
        verify(text, now, projects, keys)
    assert "MARKER" not in str(caught.value)
    assert len(text) < 40 or text not in str(caught.value)
    return caught.value.reason


# What holds


def test_a_token_that_holds_says_all_that_it_carries() -> None:
    room_config = {"name": "r", "maxParticipants": 5}
    got = verify(
        token(
            name="Ada",
            metadata='{"a":1}',
            attributes={"tier": "gold"},
            kind="agent",
            roomPreset="p",
            roomConfig=room_config,
        )
    )
    assert got.grants == Grants(
        video=VideoGrants(room_join=True, can_publish=None, can_subscribe=None, can_publish_data=None)
    )
    assert (got.room, got.identity, got.name, got.metadata) == ("r", "user-1", "Ada", '{"a":1}')
    assert (got.attributes, got.kind, got.room_preset, got.room_config) == ({"tier": "gold"}, "agent", "p", room_config)
    assert (got.signed.project.name, got.signed.key.id) == ("alpha", "APIalpha")
    assert (got.signed.not_before, got.signed.expires) == (NOW, NOW + 600)
    assert got.other_claims == ()


def test_a_token_that_says_little_holds() -> None:
    got = verify(sign({"iss": "APIalpha", "exp": NOW + 1}, SECRETS["APIalpha"]))
    assert got.grants == Grants()
    assert (got.room, got.identity, got.name, got.metadata, got.kind, got.room_preset) == ("",) * 6
    assert (got.attributes, got.room_config, got.signed.not_before) == ({}, None, None)


@pytest.mark.parametrize(
    "header", [HS256, {"alg": "HS256"}, {"alg": "HS256", "typ": "jwt"}, {**HS256, "kid": "x"}, {"typ": "JWT", **HS256}]
)
def test_headers_that_livekits_libraries_write_are_fine(header: dict[str, str]) -> None:
    assert verify(token(header=header)).identity == "user-1"


def test_a_verify_only_key_still_verifies() -> None:
    assert verify(token(iss="APIolder", signed_by="APIolder")).signed.key.id == "APIolder"


# Form


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "...",
        "a",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "a..c",
        ".b.c",
        "a.b.",
        "null",
        "{}",
        "\0",
        "é.é.é",
        "\ud800.a.a",
        " " * 100,
        "." * 100_000,
        "a" * 100_000,
    ],
)
def test_what_isnt_three_parts_of_base64url_is_no_token(text: str) -> None:
    assert reason(text) is Reason.TOKEN_MALFORMED


def test_a_long_token_of_dots_takes_little_memory() -> None:
    tracemalloc.start()
    try:
        assert reason("ab." * 1_000_000) is Reason.TOKEN_MALFORMED
        assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
    finally:
        tracemalloc.stop()


GOOD = token()


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t + ".",
        lambda t: "." + t,
        lambda t: t + "." + base64url(b"x"),
        lambda t: t.rsplit(".", 1)[0],
        lambda t: t.rsplit(".", 1)[0] + ".",
        lambda t: t + "=",
        lambda t: t.replace(".", "=.", 1),
        lambda t: t + "\n",
        lambda t: "\n" + t,
        lambda t: t + " ",
        lambda t: " " + t,
        lambda t: t[:40] + "\n" + t[40:],
        lambda t: t[:-1] + "+",
        lambda t: t[:-1] + "/",
        lambda t: t + "AA",
        lambda t: t[:-2] + "é",
        lambda t: t[:10] + "\u0430" + t[11:],
        lambda t: t.replace("J", "\uff2a", 1),
        lambda t: f"Bearer {t}",
        lambda t: f'"{t}"',
    ],
)
def test_a_good_token_damaged_in_its_form_is_no_token(damage: Callable[[str], str]) -> None:
    assert verify(GOOD).identity == "user-1"
    assert reason(damage(GOOD)) is Reason.TOKEN_MALFORMED


ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_token_has_one_spelling(part: int) -> None:
    """Base64 may end in bits that mean nothing (RFC 4648 section 3.5); with them, one token would have many hashes."""
    good = token(header={**HS256, "kid": "xx"})
    parts = good.split(".")
    assert len(parts[part]) % 4, "this part has no spare bits; change its length"
    other = [*parts]
    other[part] = parts[part][:-1] + ALPHABET[ALPHABET.index(parts[part][-1]) + 1]
    assert jwt.utils.base64url_decode(other[part].encode()) == jwt.utils.base64url_decode(parts[part].encode())
    assert reason(".".join(other)) is Reason.TOKEN_MALFORMED
    assert not accepted(lambda: VERIFIER.verify(".".join(other)))
    assert verify(good).identity == "user-1"


# Header


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none", "typ": "JWT"},
        {"alg": "None"},
        {"alg": "NONE"},
        {"alg": ""},
        {"alg": None},
        {"alg": ["HS256"]},
        {"alg": {"HS256": 1}},
        {"alg": 256},
        {"alg": "hs256"},
        {"alg": "Hs256"},
        {"alg": "HS256 "},
        {"alg": "HS384"},
        {"alg": "HS512"},
        {"alg": "RS256"},
        {"alg": "ES256"},
        {"alg": "PS256"},
        {"alg": "EdDSA"},
        {"typ": "JWT"},
        {"ALG": "HS256"},
        {},
        {**HS256, "crit": ["exp"]},
        {**HS256, "crit": []},
        {**HS256, "crit": None},
        {**HS256, "b64": False},
        {**HS256, "b64": True},
        {**HS256, "typ": "JWE"},
        {**HS256, "typ": ""},
        {**HS256, "typ": None},
        {**HS256, "typ": ["JWT"]},
        [],
        ["HS256"],
        None,
        "HS256",
        '"HS256"',
        b"\xff",
        b"",
        b'{"alg":"HS256"',
        b'{"alg":"HS256","alg":"none"}',
    ],
)
def test_only_hs256_without_extensions_is_a_livekit_token(header: Any) -> None:
    assert reason(sign(payload(), SECRETS["APIalpha"], header=header)) is Reason.TOKEN_MALFORMED


def test_a_header_of_1_kib_is_read_and_a_longer_one_is_not() -> None:
    header = {**HS256, "kid": "x" * 983}
    assert len(json.dumps(header)) == 1024
    assert verify(token(header=header)).identity == "user-1"
    with pytest.raises(Refusal, match="header or signature is longer") as caught:
        verify(token(header={**HS256, "kid": "x" * 984}))
    assert caught.value.reason is Reason.TOKEN_MALFORMED


def test_a_long_signature_is_not_decoded() -> None:
    with pytest.raises(Refusal, match="header or signature is longer"):
        verify(GOOD.rpartition(".")[0] + "." + "A" * 1367)


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_a_signature_with_another_hash_is_refused_though_it_fits(algorithm: str) -> None:
    made = jwt.encode(payload(), SECRETS["APIalpha"], algorithm=algorithm)
    assert reason(made) is Reason.TOKEN_MALFORMED
    claimed = sign(payload(), SECRETS["APIalpha"], digest=algorithm.replace("HS", "sha"))
    assert reason(claimed) is Reason.SIGNATURE_INVALID


def test_an_unsigned_token_is_refused() -> None:
    no_key: Any = None  # what PyJWT takes for "none", though its types don't say so
    assert reason(jwt.encode(payload(), no_key, algorithm="none")) is Reason.TOKEN_MALFORMED
    assert reason(f"{encoded({'alg': 'none'})}.{encoded(payload())}.{base64url(b'x')}") is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_public_key_algorithm_is_refused(algorithm: str) -> None:
    private = rsa.generate_private_key(65537, 2048) if algorithm == "RS256" else ec.generate_private_key(ec.SECP256R1())
    assert reason(jwt.encode(payload(), private, algorithm=algorithm)) is Reason.TOKEN_MALFORMED


# Payload


@pytest.mark.parametrize(
    "content",
    [
        [],
        [payload()],
        "text",
        '"text"',
        "1",
        "null",
        "true",
        b"",
        b" ",
        b"{",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        json.dumps(payload()).encode("utf-16"),
        json.dumps(payload())[:-1],
        json.dumps(payload()) + "{}",
        '{"iss": "APIalpha", "exp": NaN}',
        '{"iss": "APIalpha", "exp": Infinity}',
        '{"iss": "APIalpha", "exp": 1e400}',
        '{"iss": "APIalpha", "exp": 0x10}',
        '{"iss": "APIalpha", "exp": 1900000000,}',
        "{'iss': 'APIalpha'}",
        '{"iss": "\\ud800", "exp": 1900000000}',
        '{"\\udfff": 1, "iss": "APIalpha", "exp": 1900000000}',
        '{"a":' * 2000 + "1" + "}" * 2000,
        "[" * 100_000,
        '{"iss": "APIalpha", "exp": 1900000000, "x": ' + "[" * 2000 + "]" * 2000 + "}",
    ],
)
def test_what_isnt_one_json_object_is_no_token(content: Any) -> None:
    assert reason(sign(content, SECRETS["APIalpha"])) is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize("iss", ["", None, 0, 1, True, [], ["APIalpha"], {"APIalpha": 1}])
def test_the_issuer_is_text_that_names_a_key(iss: object) -> None:
    assert reason(token(iss=iss)) is Reason.TOKEN_MALFORMED
    assert reason(token("iss")) is Reason.TOKEN_MALFORMED


def test_of_two_claims_with_one_name_the_last_counts_as_in_livekit() -> None:
    """RFC 7519 section 4 allows it. Go's encoding/json and PyJWT, so LiveKit and its SDKs, read it the same way."""
    double = '{"sub":"a","sub":"b","iss":"APInever","iss":"APIalpha","exp":1,"exp":1800000600}'
    made = sign(double, SECRETS["APIalpha"])
    assert verify(made).identity == "b"
    assert jwt.decode(made, options={"verify_signature": False})["sub"] == "b"


NO_TIMES: list[Any] = [
    None,
    "1900000000",
    "",
    True,
    False,
    -1,
    -0.5,
    LAST_SECOND + 1,
    1e30,
    10**30,
    [],
    [1900000000],
    {},
]


@pytest.mark.parametrize("value", NO_TIMES)
def test_exp_must_be_there_and_a_time(value: object) -> None:
    assert reason(token(exp=value)) is Reason.TOKEN_MALFORMED
    assert reason(token("exp")) is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize("value", NO_TIMES[1:])
def test_nbf_is_a_time_if_it_is_there(value: object) -> None:
    assert reason(token(nbf=value)) is Reason.TOKEN_MALFORMED
    assert verify(token("nbf")).signed.not_before is None
    assert verify(token(nbf=None)).signed.not_before is None


def test_times_may_have_fractions_and_reach_the_year_9999() -> None:
    got = verify(token(nbf=NOW - 0.5, exp=NOW + 0.9)).signed
    assert (got.not_before, got.expires) == (NOW - 1, NOW)
    assert verify(token(exp=LAST_SECOND)).signed.expires == LAST_SECOND


VERIFIER = api.TokenVerifier("APIalpha", SECRETS["APIalpha"].decode())


@pytest.mark.parametrize(
    ("times", "holds"),
    [
        ({"exp": NOW - 59}, True),
        ({"exp": NOW - 60}, False),
        ({"exp": NOW - 61}, False),
        ({"exp": NOW}, True),
        ({"exp": 0}, False),
        ({"nbf": NOW + 60}, True),
        ({"nbf": NOW + 61}, False),
        ({"nbf": NOW + 10**6, "exp": NOW + 10**7}, False),
        ({"nbf": NOW + 50, "exp": NOW - 50}, True),
    ],
)
def test_the_leeway_is_60_seconds_to_the_second_as_in_livekit(times: dict[str, Any], holds: bool) -> None:  # noqa: FBT001
    made = token(**times)
    if holds:
        assert verify(made).identity == "user-1"
    else:
        assert reason(made) is Reason.TOKEN_EXPIRED
    with pyjwt_at(NOW):
        assert accepted(lambda: VERIFIER.verify(made)) is holds


# Key and signature


def test_a_token_signed_with_another_key_than_it_names_is_refused() -> None:
    for signed_by in ("APIolder", "APIbeta", "APIgone"):
        assert reason(token(signed_by=signed_by)) is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize("iss", ["APInever", "APIbeta", "APIgone", "APIended", "apialpha", "APIalpha ", "APIalpha\0"])
def test_a_key_that_may_not_verify_answers_as_an_unknown_one(iss: str) -> None:
    answers = []
    for signed_by in ("APIalpha", iss if iss in SECRETS else "APIbeta"):
        with pytest.raises(Refusal) as caught:
            verify(token(iss=iss, signed_by=signed_by))
        answers.append((caught.value.reason, caught.value.message, caught.value.metadata))
    assert answers[0] == answers[1]
    assert answers[0][0] is Reason.KEY_UNKNOWN


def test_any_bit_of_the_signature_matters() -> None:
    head, _, tail = GOOD.rpartition(".")
    signature = jwt.utils.base64url_decode(tail.encode())
    for bit in range(256):
        altered = bytearray(signature)
        altered[bit // 8] ^= 1 << bit % 8
        assert reason(f"{head}.{base64url(bytes(altered))}") is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize("length", [1, 16, 31, 33, 64])
def test_a_signature_of_another_length_is_refused(length: int) -> None:
    head, _, tail = GOOD.rpartition(".")
    signature = (jwt.utils.base64url_decode(tail.encode()) * 2)[:length]
    assert reason(f"{head}.{base64url(signature)}") is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize("claims", [{"exp": 1}, {"exp": "x"}, {"nbf": "x"}, {"sha256": "x"}, {"video": 1}])
def test_no_claim_is_judged_before_the_signature(claims: dict[str, Any]) -> None:
    assert reason(token(signed_by="APIbeta", **claims)) is Reason.SIGNATURE_INVALID
    assert reason(token(iss="APInever", **claims)) is Reason.KEY_UNKNOWN


# Large tokens: their key is found before they are parsed


def large(*, signed_by: str = "APIalpha", **claims: Any) -> str:
    """A token with more payload than is parsed unsigned. The other claims come before "iss", as in minted ones."""
    base = {"metadata": "x" * MAX_UNSIGNED, "sub": "user-1", **claims}
    return sign(base if "iss" in base else {**base, "iss": "APIalpha", "exp": NOW + 600}, SECRETS[signed_by])


@pytest.fixture
def signatures(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what is signed or compared with a signature."""
    sizes, real = [], Secret.sign

    def counting(self: Secret, message: bytes) -> bytes:
        sizes.append(len(message))
        return real(self, message)

    monkeypatch.setattr(Secret, "sign", counting)
    return sizes


MANY = KeySet(
    [Project("alpha", "", (*(ApiKey(f"API{n}", Secret(b"%d" % n * 32)) for n in range(30)), key("APIalpha")))]
)


def test_a_large_token_costs_one_signature_whatever_the_number_of_keys(signatures: list[int]) -> None:
    assert verify(large(), keys=MANY).identity == "user-1"
    assert len(signatures) == 1
    assert reason(large(signed_by="APIbeta"), keys=MANY) is Reason.SIGNATURE_INVALID
    assert len(signatures) == 2


@pytest.mark.parametrize("iss", ["APIbeta", "APIgone", "APIended", "APInever"])
def test_a_large_token_of_a_key_that_may_not_verify_costs_no_signature(iss: str, signatures: list[int]) -> None:
    assert reason(large(iss=iss, exp=NOW + 600, signed_by=iss if iss in SECRETS else "APIalpha")) is Reason.KEY_UNKNOWN
    assert signatures == []


@pytest.mark.parametrize("signed_by", ["APIbeta", "APIolder"])
def test_a_large_payload_is_not_parsed_before_its_signature_fits(signed_by: str, monkeypatch: Any) -> None:
    parsed: list[int] = []
    real = tokens_module._object

    def counted(data: bytes) -> Any:
        parsed.append(len(data))
        return real(data)

    monkeypatch.setattr(tokens_module, "_object", counted)
    assert reason(large(signed_by=signed_by)) is Reason.SIGNATURE_INVALID
    assert max(parsed) < 1024
    verify(large())
    assert max(parsed) > MAX_UNSIGNED


def test_the_key_of_a_large_token_is_the_one_that_it_names_at_the_top() -> None:
    nested: dict[str, Any] = {"attributes": {"iss": "APIolder"}}
    assert verify(large(**nested)).attributes == {"iss": "APIolder"}
    decoy = {"iss": "APIalpha", "exp": NOW + 600, **nested}
    for signed_by in ("APIalpha", "APIolder"):
        assert reason(large(signed_by=signed_by, **decoy)) is Reason.SIGNATURE_INVALID


def test_text_that_looks_like_an_issuer_is_none_of_a_large_token() -> None:
    text = '"iss":"APIbeta"'
    assert verify(large(name=text, iss="APIalpha", exp=NOW + 600, kind="", roomPreset=text)).identity == "user-1"


@pytest.mark.parametrize("iss", ["", None, 0, True, [], ["APIalpha"], {"APIalpha": 1}, "x" * 1000])
def test_a_large_token_without_an_issuer_is_malformed(iss: object) -> None:
    assert reason(large(iss=iss, exp=NOW + 600)) is Reason.TOKEN_MALFORMED


def test_the_issuer_of_a_large_token_may_be_written_with_escapes_and_spaces() -> None:
    for member in (r'"iss":"\u0041PIalpha"', '"iss" :\n "APIalpha"'):
        content = f'{{"metadata":"{"x" * MAX_UNSIGNED}","sub":"user-1",{member},"exp":{NOW + 600}}}'
        assert verify(sign(content, SECRETS["APIalpha"])).identity == "user-1"
    broken = f'{{"metadata":"{"x" * MAX_UNSIGNED}","iss":"\\ud800","exp":{NOW + 600}}}'
    assert reason(sign(broken, SECRETS["APIalpha"])) is Reason.TOKEN_MALFORMED


def test_a_large_payload_of_issuers_is_looked_at_in_a_few_places() -> None:
    for count, why in ((7, Reason.TOKEN_EXPIRED), (20_000, Reason.TOKEN_MALFORMED)):
        assert reason(large(iss="APIalpha", exp=1, roomConfig={"tags": ["iss"] * count})) is why


# What claims may hold


def test_a_webhooks_token_gives_no_access() -> None:
    for sha256 in ("CoEQz1chqJ9bnZRcORddjplkvpjmPujmLTR42DbefYI=", "x", " "):
        assert reason(token(sha256=sha256)) is Reason.NOT_AN_ACCESS_TOKEN
        assert reason(sign({"iss": "APIalpha", "exp": NOW, "sha256": sha256}, SECRETS["APIalpha"])) is (
            Reason.NOT_AN_ACCESS_TOKEN
        )


def test_an_empty_sha256_is_none() -> None:
    """Go leaves it out when empty and reads it so."""
    assert verify(token(sha256="")).identity == "user-1"
    assert verify(token(sha256=None)).identity == "user-1"


OPTIONAL = [name for name, hint in get_type_hints(VideoGrants).items() if hint == bool | None]
MODELLED = ("sub", "name", "metadata", "kind", "attributes", "roomPreset", "roomConfig", *CLAIMS.values())


@pytest.mark.parametrize("name", MODELLED)
def test_a_claim_that_is_null_counts_as_absent(name: str) -> None:
    nothing: dict[str, Any] = {name: None}
    null, absent = verify(token(**nothing)), verify(token(name))
    for field in fields(VerifiedToken):
        if field.name != "signed":
            assert getattr(null, field.name) == getattr(absent, field.name)


def each(*values: Any) -> tuple[Any, ...]:
    """The same values, each of any type."""
    return values


WRONG_TYPES = [
    *(
        (name, value)
        for name in ("sub", "name", "metadata", "kind", "roomPreset")
        for value in each(0, 1, True, [], {"a": 1})
    ),
    *((name, value) for name in ("sha256",) for value in each(0, False, True, [], {}, ["x"])),
    *(
        (name, value)
        for name in ("attributes", "roomConfig", *CLAIMS.values())
        for value in each(0, True, "", "x", [], [1])
    ),
    *(("attributes", {"a": value}) for value in each(1, None, True, [], {})),
    *(("video", {"room": value}) for value in each(1, True, [], {})),
    *(("video", {"roomJoin": value}) for value in each(1, 0, "true", "", [], {})),
    *(("video", {camel(name): value}) for name in OPTIONAL for value in each(1, "false", [])),
    *(("video", {"canPublishSources": value}) for value in each("camera", {}, [1], [None], [["camera"]], True)),
    *(("video", {"destinationRoom": value}) for value in each(1, True, [])),
    *(("sip", {"admin": value}) for value in each(1, "yes")),
    *(("agentEndpoint", {"agentName": value}) for value in each(1, True, ["a"])),
    *(("agentThread", {"threadIds": value}) for value in each("a", [1], {})),
]


@pytest.mark.parametrize(("name", "value"), WRONG_TYPES)
def test_a_claim_of_another_type_is_malformed(name: str, value: object) -> None:
    claim: dict[str, Any] = {name: value}
    assert reason(token(**claim)) is Reason.TOKEN_MALFORMED
    assert reason(token(sub=None, jti=1)) is Reason.TOKEN_MALFORMED


def test_what_isnt_modelled_is_named_and_nothing_more() -> None:
    got = verify(
        token(
            futureClaim={"secret": "x"},
            iat=NOW,
            jti="id",
            aud="x",
            kindDetails=["forwarded"],
            video={"roomJoin": True, "room": "r", "futureGrant": True, "canPublish": None},
            sip={"admin": True, "future": 1},
            agentThread={"all": True, "more": {}},
        )
    )
    assert got.other_claims == (
        "agentThread.more",
        "aud",
        "futureClaim",
        "iat",
        "kindDetails",
        "sip.future",
        "video.futureGrant",
    )
    assert got.grants.sip == SipGrants(admin=True)


def test_unknown_sources_are_named_beside_what_else_is_not_modelled() -> None:
    got = verify(token(futureClaim=1, video={"roomJoin": True, "canPublishSources": ["hologram"], "future": 1}))
    assert got.other_claims == ("futureClaim", "video.canPublishSources", "video.future")


@pytest.mark.parametrize(
    ("claims", "identity"),
    [
        ({"sub": None, "jti": "user-9"}, "user-9"),
        ({"sub": "", "jti": "user-9"}, "user-9"),
        ({"sub": "user-1", "jti": "user-9"}, "user-1"),
        ({"sub": "user-1", "jti": 9}, "user-1"),
        ({"sub": None, "jti": None}, ""),
    ],
)
def test_without_a_subject_the_jti_is_the_identity_as_in_livekit(claims: dict[str, Any], identity: str) -> None:
    """livekit/protocol auth/verifier.go, ParseAPIToken: whoever holds such a token joins under its jti."""
    assert verify(token(**claims)).identity == identity


def test_snake_case_is_not_what_livekit_reads() -> None:
    got = verify(token(video={"room_join": True, "can_publish": False}, room_config={}, agent_thread={"all": True}))
    assert got.grants == Grants(video=VideoGrants(can_publish=None, can_subscribe=None, can_publish_data=None))
    assert got.other_claims == ("agent_thread", "room_config", "video.can_publish", "video.room_join")


def video(**claim: Any) -> VideoGrants:
    got = verify(token(video=claim)).grants.video
    assert got is not None
    return got


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_permission_that_the_token_is_silent_about_is_neither_true_nor_false(name: str) -> None:
    nothing: dict[str, Any] = {camel(name): None}
    assert getattr(video(), name) is getattr(video(**nothing), name) is None
    assert getattr(video(**{camel(name): True}), name) is True
    assert getattr(video(**{camel(name): False}), name) is False


def test_sources_are_those_that_livekit_compares_with() -> None:
    """In lower case only: livekit/protocol auth/grants.go, GetCanPublishSource."""
    assert video(canPublishSources=list(TRACK_SOURCES)).can_publish_sources == TRACK_SOURCES
    got = verify(token(video={"canPublishSources": ["camera", "hologram", "MICROPHONE"]}))
    assert got.grants.video is not None
    assert got.grants.video.can_publish_sources == ("camera",)
    assert got.grants.video.can_publish is None
    assert got.other_claims == ("video.canPublishSources",)


@pytest.mark.parametrize("sources", [["hologram"], ["unknown"], ["CAMERA"], [""]])
@pytest.mark.parametrize("more", [{}, {"canPublish": True}])
def test_a_list_of_unknown_sources_doesnt_turn_into_every_source(sources: list[str], more: dict[str, bool]) -> None:
    got = verify(token(video={"canPublishSources": sources, **more}))
    assert got.grants.video is not None
    assert (got.grants.video.can_publish, got.grants.video.can_publish_sources) == (False, ())
    assert got.other_claims == ("video.canPublishSources",)


def test_an_empty_list_of_sources_is_every_source_as_in_livekit() -> None:
    assert video(canPublishSources=[]) == video()
    assert verify(token(video={"canPublishSources": []})).other_claims == ()


@pytest.mark.parametrize("kind", PARTICIPANT_KINDS)
def test_a_kind_is_known_in_any_case_as_in_livekit(kind: str) -> None:
    for spelling in (kind, kind.upper(), kind.capitalize()):
        got = verify(token(kind=spelling))
        assert (got.kind, got.raw_kind) == (kind, spelling)


def test_kind_details_are_named_among_the_other_claims() -> None:
    assert verify(token(kindDetails=["cloud_agent"])).other_claims == ("kindDetails",)


@pytest.mark.parametrize("kind", ["", "hologram", "agent ", "7"])
def test_an_unknown_kind_is_none_and_keeps_its_name(kind: str) -> None:
    got = verify(token(kind=kind))
    assert (got.kind, got.raw_kind) == ("", kind)


# Public vectors


def of(key_id: str, secret: str) -> KeySet:
    return KeySet([Project("alpha", "", (ApiKey(key_id, Secret(secret.encode())),))])


GO_KEY, GO_SECRET = "APID3B67uxk4Nj2GKiRPibAZ9", "YHC-CUhbQhGeVCaYgn1BNA++"
GO_TOKEN = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE2MDg5MzAzMDgsImlzcyI6IkFQSUQzQjY3dXhrNE5qMkdLaVJQaWJBWjkiLCJuYmYiOjE"
    "2MDg5MjY3MDgsInJvb21fam9pbiI6dHJ1ZSwicm9vbV9zaWQiOiJteWlkIiwic3ViIjoiQVBJRDNCNjd1eGs0TmoyR0tpUlBpYkFaOSJ9.cmHEBq0MLyR"
    "qphmVLM2cLXg5ao5Sro7am8yXhcYKcwE"
)


def test_livekits_go_vector_has_expired() -> None:
    """livekit/protocol auth/verifier_test.go."""
    keys = of(GO_KEY, GO_SECRET)
    assert reason(GO_TOKEN, keys=keys) is Reason.TOKEN_EXPIRED
    assert reason(GO_TOKEN, 1608930308 + 60, keys=keys) is Reason.TOKEN_EXPIRED
    assert reason(GO_TOKEN, 1608926708 - 61, keys=keys) is Reason.TOKEN_EXPIRED
    assert reason(GO_TOKEN, keys=of(GO_KEY, "anothersecret")) is Reason.SIGNATURE_INVALID
    assert reason(GO_TOKEN, keys=of("APIother", GO_SECRET)) is Reason.KEY_UNKNOWN


def test_livekits_go_vector_held_in_its_time() -> None:
    got = verify(GO_TOKEN, 1608930308 + 59, keys=of(GO_KEY, GO_SECRET))
    assert (got.identity, got.signed.expires) == (GO_KEY, 1608930308)
    assert got.grants == Grants()
    assert got.other_claims == ("room_join", "room_sid")


def test_livekits_rust_and_python_key_verifies_what_it_signs() -> None:
    """The key of rust-sdks livekit-api/src/access_token.rs and python-sdks tests; exp is its test_token.txt's."""
    keys = of("myapikey", "thiskeyistotallyunsafe")
    claims = {"iss": "myapikey", "sub": "test", "name": "test", "video": {}, "nbf": 0, "exp": 4102444800}
    made = sign(claims, b"thiskeyistotallyunsafe")
    got = verify(made, keys=keys)
    assert (got.identity, got.name, got.signed.expires) == ("test", "test", 4102444800)
    assert reason(made, keys=of("incorrect", "thiskeyistotallyunsafe")) is Reason.KEY_UNKNOWN
    assert reason(made, keys=of("myapikey", "incorrect")) is Reason.SIGNATURE_INVALID


def test_rfc_7515s_example_isnt_livekits() -> None:
    """Appendix A.1: a good HS256 signature, an issuer that is no key of ours."""
    header, claims = (
        b'{"typ":"JWT",\r\n "alg":"HS256"}',
        b'{"iss":"joe",\r\n "exp":1300819380,\r\n "http://example.com/is_root":true}',
    )
    secret = jwt.utils.base64url_decode(
        b"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
    )
    made = sign(claims, secret, header=header)
    assert made.endswith(".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
    keys = KeySet([Project("alpha", "", (ApiKey("joe", Secret(secret)),))])
    assert verify(made, 1300819380, keys=keys).other_claims == ("http://example.com/is_root",)
    assert reason(made) is Reason.KEY_UNKNOWN


# Beside livekit-api


def accepted(call: Callable[[], object]) -> bool:
    try:
        call()
    except (Refusal, jwt.PyJWTError):
        return False
    return True


def test_livekits_own_token_means_here_what_it_means_there() -> None:
    made = (
        api.AccessToken("APIalpha", SECRETS["APIalpha"].decode())
        .with_identity("user-1")
        .with_name("Ada")
        .with_kind("agent")
        .with_metadata("m")
        .with_attributes({"a": "b"})
        .with_grants(
            api.VideoGrants(
                room_join=True,
                room="r",
                room_admin=True,
                can_publish=False,
                can_publish_sources=["camera", "microphone"],
                hidden=True,
                agent=True,
                destination_room="d",
            )
        )
        .with_sip_grants(api.SIPGrants(admin=True, call=True))
        .with_inference_grants(api.access_token.InferenceGrants(perform=True))
        .with_observability_grants(api.access_token.ObservabilityGrants(write=True))
        .with_agent_grants(api.access_token.AgentGrants(simulation_admin=True))
        .with_agent_endpoint_grants(api.access_token.AgentEndpointGrants(call=True, agent_name="a"))
        .with_agent_thread_grants(api.access_token.AgentThreadGrants(scope="s", thread_ids=["t"], read=True))
        .with_room_preset("p")
        .with_room_config(RoomConfiguration(name="r", max_participants=3))
        .with_ttl(dt.timedelta(minutes=5))
        .to_jwt()
    )
    now = jwt.decode(made, options={"verify_signature": False})["nbf"]
    got = verify(made, now)
    assert (got.identity, got.name, got.kind, got.metadata, got.attributes) == (
        "user-1",
        "Ada",
        "agent",
        "m",
        {"a": "b"},
    )
    assert (got.room, got.room_preset, got.room_config) == ("r", "p", {"name": "r", "maxParticipants": 3})
    assert (got.signed.not_before, got.signed.expires) == (now, now + 300)
    assert got.other_claims == ()
    assert got.grants == Grants(
        VideoGrants(
            room_admin=True,
            room_join=True,
            destination_room="d",
            can_publish=False,
            can_publish_sources=("camera", "microphone"),
            hidden=True,
            agent=True,
        ),
        SipGrants(admin=True, call=True),
        InferenceGrants(perform=True),
        ObservabilityGrants(write=True),
        CloudAgentGrants(simulation_admin=True),
        AgentEndpointGrants(call=True, agent_name="a"),
        AgentThreadGrants(scope="s", thread_ids=("t",), read=True),
    )


def test_pyjwts_token_holds() -> None:
    assert verify(jwt.encode(payload(), SECRETS["APIalpha"], algorithm="HS256")).identity == "user-1"


def test_where_livekit_api_is_stricter_or_laxer_is_known() -> None:
    """The differences that the test below leaves out: if one goes away, it can be generated as well."""
    with pyjwt_at(NOW):
        audience = token(aud="x")
        assert not accepted(lambda: VERIFIER.verify(audience))
        assert verify(audience).other_claims == ("aud",)
        future = token(iat=NOW + 3600)
        assert not accepted(lambda: VERIFIER.verify(future))
        assert verify(future).other_claims == ("iat",)
        webhook = token(sha256="x")
        assert VERIFIER.verify(webhook).sha256 == "x"
        assert reason(webhook) is Reason.NOT_AN_ACCESS_TOKEN
        textual = token(exp=str(NOW + 600))
        assert accepted(lambda: VERIFIER.verify(textual))
        assert reason(textual) is Reason.TOKEN_MALFORMED


TEXT = st.text(max_size=12)


def grant_claims(cls: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any part of a group of grants as a claim, of the right types."""
    values = {
        camel(f.name): st.booleans()
        if isinstance(f.default, bool | None)
        else st.lists(st.sampled_from(TRACK_SOURCES) if f.name == "can_publish_sources" else TEXT, max_size=3)
        if isinstance(f.default, tuple)
        else TEXT
        for f in fields(cls)
    }
    extra = {"room": TEXT} if cls is VideoGrants else {}
    return st.fixed_dictionaries({}, optional={**values, **extra})


TOKEN_CLAIMS = st.fixed_dictionaries(
    {"exp": st.sampled_from([NOW + 600, NOW + 600, NOW - 50, NOW - 60, NOW - 61, NOW - 7200, NOW + 0.5])},
    optional={
        "iss": st.sampled_from(["APIalpha"] * 6 + ["APInever", "apialpha"]),
        "nbf": st.sampled_from([NOW, 0, NOW + 60, NOW + 61, NOW + 3600]),
        "sub": TEXT,
        "name": TEXT,
        "metadata": TEXT,
        "kind": st.sampled_from(PARTICIPANT_KINDS),
        "attributes": st.dictionaries(TEXT, TEXT, max_size=3),
        "roomPreset": TEXT,
        "futureClaim": st.integers(),
        **{CLAIMS[name]: grant_claims(cls) for name, cls in GROUPS.items()},
    },
)


@given(
    TOKEN_CLAIMS,
    st.sampled_from(["APIalpha"] * 5 + ["APIbeta"]),
    st.sampled_from([HS256] * 6 + [{"alg": "HS512"}, {"alg": "none"}, {"alg": "hs256"}]),
    st.none() | st.integers(0, 400),
)
@examples(300)
def test_it_accepts_what_livekit_api_accepts_and_reads_it_alike(
    claims: dict[str, Any], signed_by: str, header: dict[str, str], flipped: int | None
) -> None:
    made = sign(claims, SECRETS[signed_by], header=header)
    if flipped is not None and flipped < len(made) and made[flipped] != ".":
        made = made[:flipped] + ("A" if made[flipped] != "A" else "B") + made[flipped + 1 :]
    with pyjwt_at(NOW):
        theirs = accepted(lambda: VERIFIER.verify(made))
        assert accepted(lambda: verify(made)) is theirs
        if theirs:
            compare(verify(made), VERIFIER.verify(made))


def compare(ours: VerifiedToken, theirs: api.access_token.Claims) -> None:
    assert (ours.identity, ours.name, ours.metadata) == (theirs.identity, theirs.name, theirs.metadata)
    assert (ours.kind, ours.attributes, ours.room_preset) == (theirs.kind, theirs.attributes, theirs.room_preset or "")
    assert theirs.video is not None
    assert ours.room == theirs.video.room
    for name in GROUPS:
        group, other = getattr(ours.grants, name), getattr(theirs, LIVEKIT_NAMES[name])
        if group is None:
            assert other is None or not any(value for value in asdict(other).values() if value is not True)
            continue
        assert is_dataclass(group)
        for field in fields(group):
            mine, their = getattr(group, field.name), getattr(other, field.name)
            if isinstance(mine, tuple):
                assert list(mine) == (their or [])
            elif mine is None:
                assert their is field.default, "livekit-api fills in the default"
            else:
                assert mine == (their or type(mine)())


# Nothing but a refusal


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = ["iss", "exp", "nbf", "sub", "sha256", *MODELLED]
ODD_CLAIMS = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=6), JSON, max_size=6).map(
    lambda odd: {"iss": "APIalpha", "exp": NOW + 600, **odd}
)
TEXTS = st.one_of(
    st.text(),
    st.text(ALPHABET + ".=+/", max_size=60),
    st.lists(st.binary(max_size=40).map(base64url), min_size=1, max_size=4).map(".".join),
    st.builds(lambda *parts: ".".join(map(encoded, parts)), JSON, JSON, st.binary(max_size=33)),
    st.builds(lambda content: sign(content, SECRETS["APIalpha"]), st.binary(max_size=60) | JSON | ODD_CLAIMS),
)


REASONS = {
    Reason.TOKEN_MALFORMED,
    Reason.KEY_UNKNOWN,
    Reason.SIGNATURE_INVALID,
    Reason.TOKEN_EXPIRED,
    Reason.NOT_AN_ACCESS_TOKEN,
}


@given(TEXTS)
@examples(500)
def test_any_text_is_verified_or_refused_and_what_is_verified_is_sound(text: str) -> None:
    if not accepted(lambda: verify(text)):
        assert reason(text) in REASONS
        return
    got, (header, content, _) = verify(text), map(jwt.utils.base64url_decode, map(str.encode, text.split(".")))
    claims = json.loads(content)
    assert text == f"{encoded(header)}.{encoded(content)}.{sign(content, SECRETS['APIalpha'], header=header)[-43:]}"
    assert json.loads(header)["alg"] == "HS256"
    assert claims["iss"] == got.signed.key.id == "APIalpha"
    assert not claims.get("sha256")
    assert claims["exp"] > NOW - 60
    assert (claims.get("nbf") or 0) < NOW + 61
    for value in (got.room, got.identity, got.name, got.metadata, got.kind, got.room_preset):
        assert isinstance(value, str)
        value.encode()  # no lone surrogate, which protobuf couldn't carry
    assert all(isinstance(part, str) for pair in got.attributes.items() for part in pair)
    members = {f"{name}.{member}" for name in claims if isinstance(claims[name], dict) for member in claims[name]}
    assert set(got.other_claims) <= claims.keys() | members


@given(st.integers(0, len(GOOD) - 1), st.characters(codec="utf-8"))
@examples(200)
def test_no_character_of_a_token_can_be_another(place: int, char: str) -> None:
    if char != GOOD[place]:
        assert reason(GOOD[:place] + char + GOOD[place + 1 :]) in {
            Reason.TOKEN_MALFORMED,
            Reason.KEY_UNKNOWN,
            Reason.SIGNATURE_INVALID,
        }


def test_the_signed_claims_alone_are_checked_alike() -> None:
    signed = verify_signed(GOOD, KEYS, ALPHA, NOW)
    assert (signed.claims["sub"], signed.project.name, signed.key.id) == ("user-1", "alpha", "APIalpha")
    assert verify_signed(token(sha256="x"), KEYS, ALPHA, NOW).claims["sha256"] == "x"
