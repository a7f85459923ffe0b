"""What a worker and its supervisor say to each other: every message comes back, and every line is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.process.readiness import PHASES, Readiness
from livekit_auth_server.supervisor.protocol import (
    Failed,
    Heartbeat,
    Message,
    MetricsPage,
    Order,
    Unreadable,
    decode,
    decode_order,
    encode,
    encode_order,
)

TEXTS = st.lists(st.text()).map(tuple)
MESSAGES = st.one_of(
    st.builds(Heartbeat, st.sampled_from(PHASES), st.builds(Readiness, TEXTS, TEXTS)),
    st.builds(Failed, st.text(), st.text(), st.none() | st.integers(1, 2**31)),
    st.builds(MetricsPage, st.text()),
)
HEARTBEAT = encode(Heartbeat("serving", Readiness()))


@given(MESSAGES)
def test_a_message_comes_back_from_its_line(message: Message) -> None:
    line = encode(message)
    assert decode(line) == message
    assert (line.count(b"\n"), line[-1:]) == (1, b"\n")


@given(st.binary())
def test_any_bytes_are_a_message_or_unreadable(line: bytes) -> None:
    assert isinstance(decode(line), Message | Unreadable)
    assert isinstance(decode_order(line), Order | Unreadable)


@given(MESSAGES.map(encode), st.data())
def test_a_line_with_a_byte_changed_is_a_message_or_unreadable(line: bytes, data: st.DataObject) -> None:
    place, byte = data.draw(st.integers(0, len(line) - 1)), data.draw(st.integers(0, 255))
    assert isinstance(decode(line[:place] + bytes([byte]) + line[place + 1 :]), Message | Unreadable)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"no JSON\n",
        b"[" * 100_000,
        b"5\n",
        b"[]\n",
        b"{}\n",
        b"null\n",
        b'{"failed": 1}\n',
        b'{"failed": {}}\n',
        b'{"failed": {"where": "x", "message": "no", "line": "3"}}\n',
        b'{"metrics": null}\n',
        b'{"phase": "serving"}\n',
        b'{"phase": "resting", "state": {"reasons": [], "warnings": []}}\n',
        b'{"phase": "serving", "state": {"reasons": [1], "warnings": []}}\n',
        b'{"phase": "serving", "state": {"reasons": [], "warnings": "x"}}\n',
    ],
)
def test_a_line_that_is_no_message_is_unreadable(line: bytes) -> None:
    assert isinstance(decode(line), Unreadable)


@pytest.mark.parametrize("message", [Heartbeat("starting", Readiness(("\ud800",))), Failed("\ud800", "\ud800", 1)])
def test_a_text_that_utf_8_cant_carry_is_sent_with_question_marks(message: Message) -> None:
    assert decode(encode(message)) in (Heartbeat("starting", Readiness(("?",))), Failed("?", "?", 1))


def test_an_error_reaches_the_supervisor_with_its_place() -> None:
    error = ConfigError("policy.yaml", "duplicate key", 3)
    failed = decode(encode(Failed.of(error)))
    assert isinstance(failed, Failed)
    assert str(failed.error()) == str(error)


@pytest.mark.parametrize("order", Order)
def test_an_order_comes_back_from_its_line(order: Order) -> None:
    assert decode_order(encode_order(order)) is order


@pytest.mark.parametrize("line", [b"", b"\n", b"\xff\n", b"relod\n", b"metrics reload\n"])
def test_a_line_that_is_no_order_is_unreadable(line: bytes) -> None:
    assert isinstance(decode_order(line), Unreadable)


def test_the_lines_stay_as_older_releases_read_them() -> None:
    assert HEARTBEAT == b'{"phase":"serving","state":{"ready":true,"reasons":[],"warnings":[]}}\n'
    assert encode(Failed("x", "no", 3)) == b'{"failed":{"where":"x","line":3,"message":"no"}}\n'
    assert encode(MetricsPage("# page")) == b'{"metrics":"# page"}\n'
    assert [encode_order(order) for order in Order] == [b"metrics\n", b"reload\n"]
