"""One decision, one line of ASCII JSON, never a token."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_auth_server.core.audit import AuditRecord, token_digest
from support.examples import examples
from support.records import RECORD


def test_a_record_is_one_object_with_every_field_in_order() -> None:
    assert list(json.loads(RECORD.to_json())) == [field.name for field in fields(AuditRecord)]
    assert json.loads(RECORD.to_json()) == asdict(RECORD)
    assert RECORD.to_json().startswith('{"decision_id":"')


def test_what_doesnt_apply_is_null() -> None:
    assert json.loads(replace(RECORD, ttl=None).to_json())["ttl"] is None


@pytest.mark.parametrize(
    "text",
    ['x","permitted":true,"y":"', "a\nb", "\r\n{}", "\0", "\x7f", "\x9b31m", "\u202e", "\u2028", "é", "\U0001f600"],
)
def test_no_text_can_forge_a_line_or_a_field(text: str) -> None:
    line = replace(RECORD, room=text, identity=text, caller=text).to_json()
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {**asdict(RECORD), "room": text, "identity": text, "caller": text}


@given(st.text(), st.text(), st.text())
@examples(80)
def test_any_text_is_recorded_in_one_printable_line(room: str, identity: str, access: str) -> None:
    record = replace(RECORD, room=room, identity=identity, access=access)
    line = record.to_json()
    assert line.isascii()
    assert not set(line) & {chr(code) for code in (*range(32), 127)}
    assert AuditRecord(**json.loads(line)) == record


def test_a_record_cant_be_changed() -> None:
    with pytest.raises(AttributeError):
        RECORD.permitted = False  # type: ignore[misc]


def test_a_token_is_traced_by_its_sha_256() -> None:
    token = "eyJhbGciOiJIUzI1NiJ9.e30.c2ln"
    assert token_digest(token) == hashlib.sha256(token.encode()).hexdigest()
    assert token_digest(token) == token_digest(token).lower()
