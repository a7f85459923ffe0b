"""What a child writes is read as a report or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_auth_server.selfcheck.report import LISTED, Difference, Kind, NotRun, Report, decode, encode
from support.examples import examples

numbers = st.integers(0, 1000)
differences = st.builds(
    Difference, st.sampled_from(Kind), numbers, st.from_regex(r"[a-zA-Z0-9_., ()-]{1,40}", fullmatch=True)
)
reports = st.builds(
    Report,
    numbers,
    numbers,
    st.lists(differences, max_size=LISTED).map(tuple),
    st.dictionaries(st.sampled_from(Kind), numbers),
)


@examples(100)
@given(reports | st.sampled_from(NotRun))
def test_a_result_arrives_as_it_was_sent(result: Report | NotRun) -> None:
    assert decode(encode(result)) == result


@examples(200)
@given(st.binary() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(repr).map(str.encode))
def test_anything_else_is_no_result(data: bytes) -> None:
    assert decode(data) is None


def report(**changed: object) -> bytes:
    import orjson  # noqa: PLC0415

    fields = {"tokens": 1, "keys": 1, "listed": [], "counts": {}, **changed}
    return orjson.dumps(fields)


@pytest.mark.parametrize(
    "data",
    [
        report(tokens="1"),
        report(counts={"other": 1}),
        report(counts={"token": -1}),
        report(counts={"token": "x"}),
        report(listed=[{"kind": "token", "at": 0, "what": "a\nline"}]),
        report(listed=[{"kind": "token", "at": 0, "what": "eyJ" + "x" * 600}]),
        report(listed=[{"kind": "token", "at": -1, "what": "exp"}]),
        report(listed=["exp"]),
        b'{"not_run":"something else"}',
    ],
)
def test_a_report_with_something_odd_in_it_is_no_report(data: bytes) -> None:
    assert decode(data) is None


def test_no_more_differences_are_read_than_are_listed() -> None:
    read = decode(report(listed=[{"kind": "token", "at": n, "what": "exp"} for n in range(LISTED + 5)]))
    assert isinstance(read, Report)
    assert len(read.listed) == LISTED
