"""Whatever is done to a chain's lines shows: altered, removed, added, swapped; the end, by a head kept outside."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_auth_server.core.audit import Dropped, Withheld
from livekit_auth_server.core.chain import NOTHING, Checked, Head, Problem, check, read
from livekit_auth_server.core.counted_denials import UNLISTED, CountedDenials
from livekit_auth_server.core.refusal import Reason
from support.examples import examples
from support.records import RECORD

CHAIN = "0123456789abcdef"


def chain(count: int, head: Head | None = None) -> tuple[list[bytes], Head]:
    """A segment and so many lines after it, without line breaks, and their head."""
    lines = []
    line, head = (head or Head(CHAIN)).segment("started", 1)
    lines.append(line.removesuffix(b"\n"))
    for number in range(count):
        line, head = head.append({"kind": "decision", "n": number})
        lines.append(line.removesuffix(b"\n"))
    return lines, head


def problems(lines: list[bytes], after: Head | None = None) -> list[Problem]:
    return [found for found in check(lines, after) if isinstance(found, Problem)]


def end(lines: list[bytes]) -> Head:
    """The head that reading the lines comes to."""
    return [found for found in check(lines) if isinstance(found, Checked)][-1].head


def test_a_line_names_its_chain_its_number_and_the_line_before() -> None:
    lines, head = chain(2)
    first, second, third = (json.loads(line) for line in lines)
    assert [line["chain"] for line in (first, second, third)] == [CHAIN] * 3
    assert [line["seq"] for line in (first, second, third)] == [1, 2, 3]
    assert first["prev"] == NOTHING
    assert second["prev"] == sha256(lines[0]).hexdigest()
    assert third["prev"] == sha256(lines[1]).hexdigest()
    assert head == Head(CHAIN, 3, sha256(lines[2]).hexdigest())
    assert (first["kind"], first["why"]) == ("segment", "started")


def test_lines_are_what_released_versions_write_byte_for_byte() -> None:
    odd: dict[str, Any] = {
        "room": "caf\u00e9 \u202e \x7f",
        "ttl": None,
        "powers": "agent,hidden",
        "participant_kind": "agent",
    }
    denied: dict[str, Any] = {"permitted": False, "reason": Reason.ROOM_NOT_PERMITTED, "dry_run": True}
    refused = replace(RECORD, **odd, **denied, room_preset="p", request_reason="T-1", trace_id="0" * 32)
    counted = CountedDenials(UNLISTED, 1, 1, "r", shared=True)
    for record in (RECORD, refused):
        counted.add(replace(record, time=2))
    _, head = Head(CHAIN).segment('started "x"', 7)
    for value in (RECORD, refused, counted, Withheld("d", 3, "the call had ended"), Dropped(3, 4)):
        _, head = head.append(value.members())
    assert str(head) == f"{CHAIN}:6:ff5094cb57735071480d49c9053ab13f05abea2bb701a713c69cb17acad84647"


def test_a_segment_can_be_read_whatever_its_reason_is() -> None:
    line, head = Head(CHAIN).segment("kept as \udcff", 1)
    checked = read(line.removesuffix(b"\n"))
    assert checked is not None
    assert (checked.fields["why"], checked.head) == (r"kept as \udcff", head)


def test_a_whole_chain_has_no_problem() -> None:
    lines, head = chain(20)
    assert problems(lines) == []
    assert problems(lines, Head(CHAIN)) == []
    assert end(lines) == head
    more, _ = chain(3, head)
    assert problems(lines + more) == []
    assert problems(more, head) == []


def test_a_head_reads_back_what_it_writes() -> None:
    _, head = chain(2)
    assert Head.parse(str(head)) == head
    for text in (
        "",
        "x",
        f"{CHAIN}:1",
        f"{CHAIN}:-1:{NOTHING}",
        f"{CHAIN}:1:{NOTHING}\n",
        f"{CHAIN.upper()}:1:{NOTHING}",
    ):
        with pytest.raises(ValueError, match="CHAIN:SEQUENCE:SHA256"):
            Head.parse(text)


@given(st.data())
@examples(300)
def test_any_altered_byte_shows(data: st.DataObject) -> None:
    """In the last line it shows by the head, in any other by the next line as well."""
    lines, head = chain(6)
    index = data.draw(st.integers(0, len(lines) - 1))
    at = data.draw(st.integers(0, len(lines[index]) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != lines[index][at]))
    altered = [*lines]
    altered[index] = lines[index][:at] + bytes([byte]) + lines[index][at + 1 :]
    assert problems(altered, Head(CHAIN)) or (index == len(lines) - 1 and end(altered) != head)


@given(st.data())
@examples(200)
def test_removed_added_and_swapped_lines_show(data: st.DataObject) -> None:
    lines, head = chain(8)
    kind = data.draw(st.sampled_from(["remove", "add", "swap", "repeat", "foreign"]))
    index, other = data.draw(st.tuples(st.integers(0, 8), st.integers(0, 8)).filter(lambda pair: pair[0] != pair[1]))
    altered = [*lines]
    if kind == "remove":
        del altered[index]
    elif kind == "swap":
        altered[index], altered[other] = altered[other], altered[index]
    elif kind == "repeat":
        altered.insert(other, lines[index])
    else:
        foreign = chain(9, Head("f" * 16))[0][index + 1]
        altered.insert(index, foreign if kind == "foreign" else b'{"kind":"decision"}')
    assert problems(altered, Head(CHAIN)) or end(altered) != head


@given(st.integers(1, 7))
def test_a_cut_off_end_shows_by_the_head_alone(kept: int) -> None:
    lines, head = chain(7)
    assert problems(lines[:kept], Head(CHAIN)) == []
    assert end(lines[:kept]) != head


def test_a_chain_rewritten_from_a_line_on_shows_by_the_head_alone() -> None:
    lines, head = chain(5)
    middle = end(lines[:3])
    rewritten, _ = chain(2, middle)
    assert problems(lines[:3] + rewritten) == []
    assert end(lines[:3] + rewritten) != head


def test_the_first_problem_is_named_with_its_line_and_the_rest_is_read_on() -> None:
    lines, _ = chain(5)
    broken = [*lines[:2], b"not json", *lines[3:]]
    assert [(problem.line, problem.what) for problem in problems(broken)] == [
        (3, "isn't a line of the audit trail"),
        (4, "has number 4 and should have 3: lines were removed"),
    ]
    altered = [lines[0], lines[1].replace(b'"n":0', b'"n":7'), *lines[2:]]
    [problem] = problems(altered)
    assert (problem.line, "hash" in problem.what) == (3, True)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"chain":"x","seq":1,"prev":"y"}',
        f'{{"chain":"{CHAIN}","seq":true,"prev":"{NOTHING}"}}'.encode(),
        f'{{"chain":"{CHAIN}","seq":0,"prev":"{NOTHING}"}}'.encode(),
        f'{{"chain":"{CHAIN}","seq":1.0,"prev":"{NOTHING}"}}'.encode(),
        f'{{"chain":"{CHAIN}","seq":1,"prev":"{NOTHING[1:]}"}}'.encode(),
        f'{{"chain":"{CHAIN}\\n","seq":1,"prev":"{NOTHING}"}}'.encode(),
        f'{{"chain":null,"seq":1,"prev":"{NOTHING}"}}'.encode(),
    ],
)
def test_what_isnt_a_line_is_told_from_one(line: bytes) -> None:
    assert read(line) is None
    assert problems([line])[0].what == "isn't a line of the audit trail"
