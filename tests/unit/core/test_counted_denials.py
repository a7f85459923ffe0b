"""A caller that is denied a lot gets counted lines, for itself alone; memory doesn't grow with what it asks for."""

from __future__ import annotations

import json
from dataclasses import replace

from livekit_auth_server.core.audit import json_line
from livekit_auth_server.core.counted_denials import RATE, UNLISTED, Denials
from support.records import RECORD

T = 1000.0  # a monotonic clock's, which doesn't begin at 0
DENIED = replace(RECORD, permitted=False, reason="ROOM_NOT_PERMITTED", token_sha256="", key_id="")


def flood(denials: Denials, count: int, now: float, *, caller: str = "spiffe://a/b", listed: bool = True) -> int:
    """So many denials at one moment; returns how many got a line."""
    return sum(
        denials.admits(replace(DENIED, caller=caller), now, shared=None if listed else UNLISTED) for _ in range(count)
    )


def test_ten_lines_a_second_and_the_rest_is_counted() -> None:
    denials = Denials()
    assert flood(denials, 1000, T) == RATE
    assert flood(denials, 1000, T + 1.0) == RATE
    assert flood(denials, 1000, T + 1.5) == RATE / 2
    [counted] = denials.counted(T + 2.0)
    assert counted.count == 3000 - 25
    assert counted.reasons == {"ROOM_NOT_PERMITTED": counted.count}
    assert counted.methods == {"IssueToken": counted.count}
    assert denials.counted(T + 2.0) == []


def test_one_callers_denials_take_nothing_from_anothers() -> None:
    denials = Denials()
    flood(denials, 1000, T)
    assert flood(denials, 10, T, caller="spiffe://a/c") == 10


def test_all_unlisted_callers_share_one_allowance_and_one_line_names_a_few() -> None:
    denials = Denials()
    admitted = sum(flood(denials, 1, T, caller=f"spiffe://x/{n}", listed=False) for n in range(500))
    assert admitted == RATE
    assert len(denials._buckets) == 1
    [counted] = denials.counted(T + 1.0)
    line = json.loads(json_line(counted.members()))
    assert (line["caller"], line["listed"], line["count"], line["permitted"]) == (UNLISTED, False, 490, False)
    assert line["callers"] == [f"spiffe://x/{n}" for n in range(10, 18)]
    assert flood(denials, 5, T, caller="spiffe://x/1") == 5  # a listed one of the same name has its own


def test_a_counted_record_says_from_when_to_when() -> None:
    denials = Denials()
    for second in range(3):
        for _ in range(50):
            denials.admits(replace(DENIED, time=100 + second, method="BatchIssueTokens"), T + second / 100)
    [counted] = denials.counted(T + 5.0)
    line = json.loads(json_line(counted.members()))
    assert (line["from"], line["time"], line["count"]) == (100, 102, 140)
    assert line["methods"] == {"BatchIssueTokens": 140}


def test_counts_come_out_once_they_are_a_second_old() -> None:
    denials = Denials()
    flood(denials, 20, T)
    assert denials.counted(T + 0.5) == []
    assert len(denials.counted(T + 1.0)) == 1


def test_at_the_end_everything_comes_out() -> None:
    denials = Denials()
    flood(denials, 20, T)
    assert len(denials.counted(T, every=0.0)) == 1


def test_callers_that_are_denied_nothing_any_more_are_forgotten() -> None:
    denials = Denials()
    for number in range(1000):
        flood(denials, 15, T, caller=f"spiffe://a/{number}")
    assert len(denials._buckets) == 1000
    denials.counted(T + 1.0)
    assert denials._buckets == {}


def test_no_text_of_a_caller_can_forge_a_line() -> None:
    denials = Denials(rate=0.0)
    denials.admits(replace(DENIED, caller='x"}\n\u202e', reason="R"), T, shared=UNLISTED)
    line = json_line(denials.counted(T + 2.0)[0].members()).decode()
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["callers"] == ['x"}\n\u202e']


def test_an_allowance_comes_back_with_time_and_not_with_the_look_at_what_was_counted() -> None:
    denials = Denials()
    flood(denials, 50, T)
    assert flood(denials, 50, T + 0.75) == 7
    [counted] = denials.counted(T + 1.0)
    assert counted.count == 83
    assert flood(denials, 50, T + 1.0) == 3, "two and a half came back since, and half a one was left"
    assert denials.counted(T + 1.5) == []
    assert flood(denials, 50, T + 1.5) == 5
    assert flood(denials, 50, T + 60.0) == RATE, "and never more than a second's"


def test_a_caller_whose_allowance_is_not_whole_again_is_not_forgotten() -> None:
    denials = Denials()
    flood(denials, 8, T)
    denials.counted(T + 0.25)
    assert flood(denials, 50, T + 0.25) == 4
    assert bool(denials)
    denials.counted(T + 2.0)
    assert not denials
