"""One decision, one line of ASCII JSON, never a token."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_auth_server.core.audit import AuditRecord, Dropped, Withheld, json_line, token_digest
from support.examples import examples
from support.records import RECORD


def line_of(record: AuditRecord) -> str:
    return json_line(record.members()).decode()


def test_a_record_is_one_object_with_every_field_in_order() -> None:
    assert list(json.loads(line_of(RECORD))) == ["kind", *(field.name for field in fields(AuditRecord))]
    assert json.loads(line_of(RECORD)) == {"kind": "decision", **asdict(RECORD)}
    assert line_of(RECORD).startswith('{"kind":"decision","decision_id":"')


def test_members_that_dont_apply_are_there_and_empty() -> None:
    least = {"decision_id": "d", "time": 1, "caller": "c", "certificate_serial": "1f", "method": "IssueToken"}
    record = AuditRecord(**least, permitted=False, policy_revision="r", trace_id="")  # type: ignore[arg-type]
    assert record.members().keys() == RECORD.members().keys()
    assert json.loads(line_of(record))["ttl"] is None


def test_other_lines_name_their_kind_first() -> None:
    assert json_line(Withheld("d", 7, "why").members()) == b'{"kind":"withheld","decision_id":"d","time":7,"why":"why"}'
    assert json_line(Dropped(3, 7).members()) == b'{"kind":"dropped","denials":3,"time":7}'


@pytest.mark.parametrize(
    "text",
    ['x","permitted":true,"y":"', "a\nb", "\r\n{}", "\0", "\x7f", "\x9b31m", "\u202e", "\u2028", "é", "\U0001f600"],
)
def test_no_text_can_forge_a_line_or_a_field(text: str) -> None:
    line = line_of(replace(RECORD, room=text, identity=text, caller=text))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {**RECORD.members(), "room": text, "identity": text, "caller": text}


@given(st.text(), st.text(), st.text())
@examples(80)
def test_any_text_is_recorded_in_one_printable_line(room: str, identity: str, access: str) -> None:
    record = replace(RECORD, room=room, identity=identity, access=access)
    line = line_of(record)
    assert line.isascii()
    assert not set(line) & {chr(code) for code in (*range(32), 127)}
    assert json.loads(line) == record.members()


def test_a_record_cant_be_changed() -> None:
    with pytest.raises(AttributeError):
        RECORD.permitted = False  # type: ignore[misc]


def test_a_token_is_traced_by_its_sha_256() -> None:
    token = "eyJhbGciOiJIUzI1NiJ9.e30.c2ln"
    assert token_digest(token) == hashlib.sha256(token.encode()).hexdigest()
    assert token_digest(token) == token_digest(token).lower()
