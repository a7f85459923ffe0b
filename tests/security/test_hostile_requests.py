"""Hostile bytes at the token endpoint: it answers each with a 4xx, or mints exactly what the application gave."""

import json
from string import printable

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from livekit_auth.fastapi import Access, Asked, token_router
from support.examples import examples
from support.web import JSON, FakeClient, calling

GIVEN = Access(room="consult-1", identity="user-1", role="guest", name="Ada", metadata="m", attributes={"a": "b"})


async def post(body: bytes, access=GIVEN) -> tuple[int, FakeClient]:
    service, app = FakeClient(), FastAPI()

    def authorize(asked: Asked) -> Access:
        return access

    app.include_router(token_router(service, authorize=authorize))
    async with calling(app) as http:
        answer = await http.post("/livekit/token-source", content=body, headers=JSON)
    answer.json()
    return answer.status_code, service


HOSTILE = {
    "empty": b"",
    "not an object": b"[]",
    "a text": b'"x"',
    "null": b"null",
    "given twice": b'{"room_name": "consult-1", "room_name": "board"}',
    "given twice, escaped": b'{"room_name": "consult-1", "room\\u005fname": "board"}',
    "given twice inside": b'{"participant_attributes": {"a": "b", "a": "c"}}',
    "given twice in both spellings": b'{"room_config": {"agents": [{"agent_name": "a", "agentName": "b"}]}}',
    "the other spelling": b'{"room_config": {"maxParticipants": 2}}',
    "an extension": b'{"room_config": {"[livekit_auth.v1.x]": {}}}',
    "NaN": b'{"room_config": {"empty_timeout": NaN}}',
    "Infinity": b'{"room_config": {"empty_timeout": -Infinity}}',
    "infinity by size": b'{"room_config": {"empty_timeout": 1e999}}',
    "a number of 5,000 digits": b'{"room_config": {"empty_timeout": ' + b"9" * 5000 + b"}}",
    "beyond 32 bits": b'{"room_config": {"empty_timeout": 4294967296}}',
    "below zero": b'{"room_config": {"empty_timeout": -1}}',
    "half a surrogate": b'{"participant_metadata": "\\ud800"}',
    "half a surrogate in a name": b'{"\\udfff": "x"}',
    "half a surrogate as a key": b'{"participant_attributes": {"\\ud800": "x"}}',
    "no UTF-8": b'{"room_name": "\xff"}',
    "overlong UTF-8": b'{"room_name": "\xc0\xaf"}',
    "UTF-16": '{"room_name": "consult-1"}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "more after the end": b"{} {}",
    "a comment": b"{/* */}",
    "a trailing comma": b'{"room_name": "consult-1",}',
    "single quotes": b"{'room_name': 'consult-1'}",
    "a raw control character": b'{"room_name": "a\nb"}',
    "deep arrays": b"[" * 60_000,
    "deep objects": b'{"room_config":' * 4_000 + b"{}" + b"}" * 4_000,
    "deep but whole": b'{"room_config": ' + b"[" * 900 + b"]" * 900 + b"}",
    "attributes that are too deep": b'{"participant_attributes": ' + b'{"a":' * 20 + b"{}" + b"}" * 21,
    "a prototype": b'{"__proto__": {"role": "admin"}}',
    "a role": b'{"role": "admin"}',
    "grants": b'{"grants": {"video": {"room_admin": true}}}',
    "a long name": b'{"' + b"n" * 60_000 + b'": 1}',
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_body_is_refused_and_nothing_is_asked_of_the_service(body):
    status, service = await post(body)
    assert (status, service.asked) == (400, [])


@pytest.mark.parametrize(
    "room", ["Consult-1", "consult-1 ", "consult-1\x00", "\u0441onsult-1", "consult-1\u200b", "*", "%"]
)
async def test_a_room_that_only_looks_like_the_given_one_is_refused(room):
    status, service = await post(json.dumps({"room_name": room}).encode())
    assert (status, service.asked) == (403, [])


TEXTS = st.text(printable, max_size=20) | st.sampled_from(["consult-1", "user-1", "Ada", "m", "a", "b", ""])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        "room_name",
        "participant_name",
        "participant_identity",
        "participant_metadata",
        "participant_attributes",
        "room_config",
        "user_id",
        "role",
    ]
)


@examples(150)
@given(body=st.dictionaries(NAMES, VALUES, max_size=4))
async def test_whatever_json_comes_the_token_is_the_applications_or_none(body):
    status, service = await post(json.dumps(body).encode())
    if status == 201:
        assert service.asked == [GIVEN.request()]
    else:
        assert 400 <= status < 500
        assert service.asked == []


@examples(150)
@given(body=st.binary(max_size=200))
async def test_whatever_bytes_come_they_are_answered(body):
    status, service = await post(body)
    assert (status == 201) == bool(service.asked)
    assert status in {201, 400, 403}
