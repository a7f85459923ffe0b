"""Audit files read back: what verify shows and what it can't, what query finds, what tail follows."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from livekit_auth_server.audit.chained_file import ChainedFile
from livekit_auth_server.audit.query import LeftOut, Wanted, search
from livekit_auth_server.audit.tail import followed, last_lines, last_verified
from livekit_auth_server.audit.verify import verify_files
from livekit_auth_server.cli.app import app
from livekit_auth_server.core.audit import AuditRecord, Withheld
from livekit_auth_server.core.chain import Head, read
from livekit_auth_server.core.counted_denials import UNLISTED, CountedDenials
from livekit_auth_server.files.errors import ConfigError
from support.examples import examples
from support.fakes import FakeClock
from support.records import RECORD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from livekit_auth_server.audit.reading import Finding

TOKEN = "aaa.bbb.ccc"
NOW = RECORD.time


def decision(**fields: Any) -> AuditRecord:
    return replace(RECORD, **fields)


@pytest.fixture
def trail(tmp_path: Path) -> tuple[list[Path], Head]:
    """Three files of one chain, oldest first, and its head."""
    path = tmp_path / "trail" / "audit.0.jsonl"
    sink = ChainedFile(path, FakeClock())
    sink.open()
    for number in (2, 1):
        sink.append([decision(decision_id=f"{number}-{n}") for n in range(4)])
        path.rename(path.with_name(f"audit.0.jsonl.{number}"))
    sink.append([decision(decision_id=f"0-{n}") for n in range(4)])
    sink.close()
    assert sink.head is not None
    return [path.with_name("audit.0.jsonl.2"), path.with_name("audit.0.jsonl.1"), path], sink.head


def what(paths: list[Path], *heads: Head) -> list[str]:
    """The problems as FILE:LINE: WHAT."""
    return [f"{p.file.rsplit('/', 1)[-1]}:{p.line}: {p.what}" for p in verify_files(paths, heads).problems]


def test_rotated_files_make_one_chain_in_any_order(trail: tuple[list[Path], Head]) -> None:
    files, head = trail
    for paths in (files, files[::-1], [files[1], files[0], files[2]], [files[0].parent], [*files, files[0].parent]):
        verdict = verify_files(paths, [head])
        assert verdict.problems == verdict.notes == []
        [chain] = verdict.chains
        assert (chain.files, chain.lines, chain.first, chain.head) == ([str(path) for path in files], 15, 1, head)


def test_a_compressed_file_counts(trail: tuple[list[Path], Head]) -> None:
    files, head = trail
    packed = files[0].with_name("audit.0.jsonl.2.gz")
    packed.write_bytes(gzip.compress(files[0].read_bytes()))
    files[0].unlink()
    assert what([files[0].parent], head) == []
    packed.write_bytes(packed.read_bytes()[:-10])
    found = what([files[0].parent])[0]
    assert found.startswith("audit.0.jsonl.2.gz:")
    assert "can't be read further: Compressed file ended" in found


@given(st.data())
@settings(examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_harm_to_the_files_shows_with_the_head(
    trail: tuple[list[Path], Head], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    files, head = trail
    folder = tmp_path_factory.mktemp("harmed")
    copies = [Path(shutil.copy(path, folder / path.name)) for path in files]
    victim = data.draw(st.sampled_from(copies))
    lines = victim.read_bytes().splitlines(keepends=True)
    index = data.draw(st.integers(0, len(lines) - 1))
    harm = data.draw(st.sampled_from(["alter", "remove", "insert", "swap", "file", "cut"]))
    if harm == "alter":
        at = data.draw(st.integers(0, len(lines[index]) - 1))
        lines[index] = lines[index][:at] + bytes([lines[index][at] ^ 1]) + lines[index][at + 1 :]
    elif harm == "remove":
        del lines[index]
    elif harm == "insert":
        lines.insert(index, data.draw(st.sampled_from([b"x\n", b"\n", lines[index]])))
    elif harm == "swap":
        lines[index], lines[index - 1] = lines[index - 1], lines[index]
    victim.write_bytes(b"".join(lines))
    if harm == "file":
        victim.unlink()
    elif harm == "cut":
        victim.write_bytes(victim.read_bytes()[: -data.draw(st.integers(2, 500))])
    verdict = verify_files([folder], [head])
    # The oldest file may be gone for good reasons, and says so itself.
    oldest_is_gone = (
        harm in ("file", "remove") and verdict.notes and "older files weren't given" in verdict.notes[0].what
    )
    assert verdict.problems or oldest_is_gone


def test_the_file_and_the_line_are_named(trail: tuple[list[Path], Head]) -> None:
    files, _ = trail
    files[1].write_bytes(files[1].read_bytes().replace(b'"1-2"', b'"1-9"'))
    assert what(files) == [
        "audit.0.jsonl.1:5: doesn't name the hash of the line before it: that line was altered, or this one"
    ]
    files[1].unlink()
    assert what([files[0], files[2]]) == ["audit.0.jsonl:1: has number 11 and should have 6: lines were removed"]


def test_a_cut_off_end_shows_by_a_head_and_not_without(trail: tuple[list[Path], Head]) -> None:
    files, head = trail
    lines = files[2].read_bytes().splitlines(keepends=True)
    files[2].write_bytes(b"".join(lines[:-1]))
    assert what(files) == []
    assert what(files, head) == ["audit.0.jsonl:0: ends with line 14, and line 15 was exported: its end was removed"]


def test_a_rewritten_chain_shows_by_a_head_and_not_without(trail: tuple[list[Path], Head]) -> None:
    files, head = trail
    before = Head(head.chain, 10, json.loads(files[2].read_text().splitlines()[0])["prev"])
    files[2].unlink()
    forged = ChainedFile(files[2], FakeClock(), head=before)
    forged.append([decision(decision_id="forged")] * 4)
    assert what(files) == []
    assert what(files, head)[0].startswith("audit.0.jsonl:5: isn't the line whose hash was exported")


def test_a_head_whose_lines_arent_there_is_a_problem(trail: tuple[list[Path], Head]) -> None:
    files, head = trail
    early = Head(head.chain, 2, "0" * 64)
    assert what(files[2:], early) == ["audit.0.jsonl:0: line 2, which was exported as a head, isn't in these files"]
    assert "no file of chain ffffffffffffffff was given" in what(files, Head("f" * 16, 3, "0" * 64))[0]


def test_older_files_that_are_gone_are_a_remark(trail: tuple[list[Path], Head]) -> None:
    files, head = trail
    verdict = verify_files(files[1:], [head])
    assert verdict.problems == []
    assert "the chain begins with line 6: older files weren't given" in verdict.notes[0].what


def test_a_half_line_at_the_end_is_a_remark(trail: tuple[list[Path], Head]) -> None:
    files, head = trail
    with files[2].open("ab") as stream:
        stream.write(head.next_start[:30])
    verdict = verify_files(files, [head])
    assert verdict.problems == []
    assert (verdict.notes[0].line, "has no end" in verdict.notes[0].what) == (6, True)


def test_files_that_are_none_are_problems_or_mistakes(tmp_path: Path) -> None:
    (tmp_path / "audit.0.jsonl").write_text("{}\n")
    assert what([tmp_path]) == ["audit.0.jsonl:1: isn't an audit file"]
    (tmp_path / "audit.0.jsonl").write_text("")
    assert what([tmp_path]) == []
    with pytest.raises(ConfigError, match="there is no such file"):
        verify_files([tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no audit files"):
        verify_files([tmp_path / "empty"])


# Searching


@pytest.fixture
def decisions(tmp_path: Path) -> Path:
    """A folder with decisions of two workers."""
    first, second = (ChainedFile(tmp_path / "q" / f"audit.{n}.jsonl", FakeClock()) for n in (0, 1))
    counted = CountedDenials(UNLISTED, NOW + 10, NOW + 20, "r", shared=True)
    counted.add(
        replace(RECORD, caller="spiffe://x/stranger", time=NOW + 20, permitted=False, reason="CALLER_NOT_LISTED")
    )
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    for sink in (first, second):
        sink.open()
    first.append([decision(decision_id="a", room="r1"), decision(decision_id="c", time=NOW + 5, token_sha256=digest)])
    first.append([Withheld("c", NOW + 6, "the call had ended")])
    second.append(
        [
            decision(
                decision_id="b",
                time=NOW + 1,
                permitted=False,
                reason="ROOM_NOT_PERMITTED",
                key_id="",
                request_reason="T-1",
            )
        ]
    )
    second.append([counted])
    return tmp_path / "q"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(), ["a", "b", "c", "c", "denials"]),
        (Wanted(room="r1"), ["a"]),
        (Wanted(room="r2"), []),
        (Wanted(identity="user-1"), ["a", "b", "c", "c"]),
        (Wanted(caller="spiffe://example.org/web"), ["a", "b", "c", "c"]),
        (Wanted(caller="spiffe://x/stranger"), ["denials"]),
        (Wanted(decision="b"), ["b"]),
        (Wanted(key="APIalpha"), ["a", "c", "c"]),
        (Wanted(request_reason="T-1"), ["b"]),
        (Wanted(denied=True), ["b", "denials"]),
        (Wanted(token_sha256=hashlib.sha256(TOKEN.encode()).hexdigest()), ["c", "c"]),
        (Wanted(since=NOW + 5), ["c", "c", "denials"]),
        (Wanted(until=NOW + 1), ["a", "b"]),
        (Wanted(since=NOW + 15, until=NOW + 16), ["denials"]),
    ],
    ids=str,
)
def test_query_finds_what_is_looked_for_by_time(decisions: Path, wanted: Wanted, found: list[str]) -> None:
    assert [line.get("decision_id", line["kind"]) for line in search([decisions], wanted)] == found


# Following


def taking(steps: list[Callable[[], object]]) -> Callable[[float], None]:
    """A sleep during which the next step is taken."""

    def sleep(_: float) -> None:
        steps.pop(0)()

    return sleep


def test_follow_goes_on_through_rotation(tmp_path: Path) -> None:
    path = tmp_path / "audit.0.jsonl"
    sink = ChainedFile(path, FakeClock())
    sink.open()
    sink.append([decision(decision_id="old")] * 3)
    steps: list[Callable[[], object]] = [
        lambda: sink.append([decision(decision_id="new")]),
        lambda: path.rename(tmp_path / "audit.0.jsonl.1"),
        lambda: sink.append([decision(decision_id="rotated")]),
        lambda: None,
        lambda: None,
    ]
    left: list[object] = []
    lines = list(followed([path], 1, left.append, taking(steps), turns=5))
    assert [json.loads(line).get("decision_id", "segment") for line in lines] == ["old", "new", "segment", "rotated"]


@pytest.mark.parametrize("count", [0, 1, 3, 1000])
def test_the_last_lines_of_a_large_file(tmp_path: Path, count: int) -> None:
    path = tmp_path / "audit.0.jsonl"
    path.write_bytes(b"".join(b"%d%s\n" % (n, b"x" * 300) for n in range(2000)) + b"half")
    packed = tmp_path / "audit.0.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    numbers = [int(line.split(b"x")[0]) for line in last_lines(path, count)]
    assert numbers == list(range(2000 - count, 2000))
    assert last_lines(packed, count) == last_lines(path, count)


def test_a_file_without_line_breaks_is_read_back_to_the_longest_line_only(tmp_path: Path) -> None:
    path = tmp_path / "audit.0.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    left: list[Finding] = []
    tracemalloc.start()
    try:
        assert list(last_verified(path, 1000, left.append)) == []
        assert list(followed([path], 1000, left.append, turns=0)) == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [one.what for one in left] == ["one of the last lines isn't a line of the audit trail"] * 2
    assert peak < 32 << 20


def test_the_last_lines_after_one_that_is_too_long_are_shown(trail: tuple[list[Path], Head]) -> None:
    path = trail[0][2]
    path.write_bytes(b"x" * (3 << 20) + b"\n" + path.read_bytes())
    left: list[Finding] = []
    assert ids(last_verified(path, 1000, left.append)) == ["segment", *(f"0-{n}" for n in range(4))]
    assert len(left) == 1


# The command line

run = CliRunner().invoke


def test_verify_exits_with_0_1_or_2(trail: tuple[list[Path], Head]) -> None:
    files, head = trail
    good = run(app, ["audit", "verify", str(files[0].parent), "--head", str(head)])
    assert good.exit_code == 0
    assert "Changes after line 15 of chain" in good.stdout
    without = run(app, ["audit", "verify", str(files[0].parent)])
    assert (without.exit_code, "Without --head, lines removed from the end" in without.stdout) == (0, True)
    assert run(app, ["audit", "verify", str(files[0].parent), "--head", "x"]).exit_code == 2
    files[1].write_bytes(files[1].read_bytes().replace(b"user-1", b"user-2", 1))
    bad = run(app, ["audit", "verify", *map(str, files), "--json"])
    answer = json.loads(bad.stdout)
    assert (bad.exit_code, answer["fine"]) == (1, False)
    assert (answer["problems"][0]["file"], answer["problems"][0]["line"]) == (str(files[1]), 3)
    assert run(app, ["audit", "verify", *map(str, files)]).exit_code == 1


def test_query_takes_a_token_from_a_file_and_shows_its_hash_alone(decisions: Path) -> None:
    token = decisions / "token"
    token.write_text(TOKEN + "\n")
    done = run(app, ["audit", "query", str(decisions), "--token-file", str(token), "--json"])
    assert [line["kind"] for line in json.loads(done.stdout)["records"]] == ["decision", "withheld"]
    assert TOKEN not in done.stdout
    done = run(app, ["audit", "query", str(decisions), "--token-file", "-"], input=TOKEN)
    assert " permit   " in done.stdout
    assert " withheld " in done.stdout


def test_query_finds_and_shows_what_was_behind_a_request(decisions: Path) -> None:
    done = run(app, ["audit", "query", str(decisions), "--request-reason", "T-1"])
    assert [line.count(" request_reason=T-1") for line in done.stdout.splitlines()] == [1]


def test_query_takes_times_in_two_forms(decisions: Path) -> None:
    def count(*options: str) -> int:
        return len(json.loads(run(app, ["audit", "query", str(decisions), *options, "--json"]).stdout)["records"])

    assert count("--since", "2027-01-15T08:00:05Z") == count("--since", "2027-01-15T10:00:05+02:00") == 3
    assert count("--until", "2027-01-15T08:00:00") == 1
    assert count("--until", "8760h") == 0
    assert run(app, ["audit", "query", str(decisions), "--since", "yesterday"]).exit_code == 2


def test_query_says_where_a_decision_may_be_that_isnt_found(decisions: Path) -> None:
    done = run(app, ["audit", "query", str(decisions), "--decision", "zzz"])
    assert (done.exit_code, "counted together" in done.output) == (0, True)


def test_nothing_that_a_terminal_acts_on_is_shown(tmp_path: Path) -> None:
    sink = ChainedFile(tmp_path / "audit.0.jsonl", FakeClock())
    sink.open()
    sink.append([decision(room="a\x1b[2J\u202e\nb c")])
    with (tmp_path / "audit.0.jsonl").open("ab") as stream:
        stream.write(b"\x1b[2J foreign\n")
    for command in (["query", str(tmp_path)], ["tail", str(tmp_path)], ["tail", str(tmp_path), "--json"]):
        shown = run(app, ["audit", *command]).stdout
        assert "\\u202e" in shown
        assert all(line.isprintable() and line.isascii() for line in shown.splitlines())


def test_tail_shows_the_last_lines_of_every_worker(decisions: Path) -> None:
    shown = run(app, ["audit", "tail", str(decisions), "-n", "1"]).stdout.splitlines()
    assert [line.split()[1] for line in shown] == ["withheld", "denials"]
    assert len(run(app, ["audit", "tail", str(decisions / "audit.0.jsonl"), "--json"]).stdout.splitlines()) == 4


# Damaged and hostile files


def shown_and_left(folder: Path) -> tuple[list[str], list[str]]:
    """The decisions that query finds, and what it leaves out, as FILE:LINE."""
    left = LeftOut()
    found = [str(line["decision_id"]) for line in search([folder], Wanted(), left) if line["kind"] == "decision"]
    return found, [f"{one.file.rsplit('/', 1)[-1]}:{one.line}" for one in left.findings()]


ALL = [f"{file}-{n}" for file in (2, 1, 0) for n in range(4)]
TAILS = {
    "a half line": b'{"chain":"0123',
    "the start of the next line": None,
    "text without a line break": b"trailing",
    "a line of text": b"trailing\n",
    "an empty line": b"\n",
    "zeros": b"\0" * 512,
    "JSON": b"{}\n",
}


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("packed", [False, True])
def test_whatever_comes_after_the_last_line_of_a_rotated_file_fails_and_is_not_shown(
    trail: tuple[list[Path], Head],
    tail: str,
    packed: bool,  # noqa: FBT001
) -> None:
    files, head = trail
    content, extra = files[1].read_bytes(), TAILS[tail]
    if extra is None:
        last = read(content.splitlines()[-1])
        assert last is not None
        extra = last.head.next_start[:40]
    harmed = files[1].with_name("audit.0.jsonl.1.gz") if packed else files[1]
    files[1].unlink()
    harmed.write_bytes(gzip.compress(content + extra) if packed else content + extra)
    place = f"{harmed.name}:6"
    assert [one.partition(": ")[0] for one in what([files[0].parent], head)] == [place]
    assert run(app, ["audit", "verify", str(files[0].parent)]).exit_code == 1
    assert shown_and_left(files[0].parent) == (ALL, [place])
    shown = run(app, ["audit", "tail", str(harmed), "-n", "100"])
    assert [line.split("decision_id=")[1].split()[0] for line in shown.stdout.splitlines()[1:]] == ALL[4:8]
    assert "trailing" not in shown.stdout


def test_the_last_file_is_only_live_under_its_own_name_and_up_to_the_next_line(
    trail: tuple[list[Path], Head],
) -> None:
    files, head = trail
    live, rotated = files[2], files[2].with_name("audit.0.jsonl.0")
    whole = live.read_bytes()
    for half, fine in (
        (head.next_start[:50], True),
        (head.next_start + b'"kind":"dec', True),
        (b'{"chain":"00', False),
    ):
        live.write_bytes(whole + half)
        assert (what(files) == []) is fine
        live.rename(rotated)
        assert what([*files[:2], rotated]) != []
        rotated.rename(live)


def test_a_line_that_was_altered_removed_or_added_is_not_shown(trail: tuple[list[Path], Head]) -> None:
    files, _ = trail
    whole = files[1].read_bytes()
    lines = whole.splitlines(keepends=True)
    before, after = ALL[:4], ALL[8:]
    files[1].write_bytes(whole.replace(b'"1-1"', b'"9-9"'))
    assert shown_and_left(files[0].parent) == ([*before, "1-0", "1-2", "1-3", *after], ["audit.0.jsonl.1:3"])
    before_it = Head(json.loads(lines[0])["chain"], 7, json.loads(lines[2])["prev"])
    forged, _ = before_it.append(decision(decision_id="9-9").members())
    files[1].write_bytes(b"".join([*lines[:2], forged, *lines[2:]]))
    assert "9-9" not in shown_and_left(files[0].parent)[0]
    foreign, _ = Head("f" * 16).append(decision(decision_id="9-9").members())
    files[1].write_bytes(b"".join([*lines[:2], foreign, *lines[2:]]))
    assert shown_and_left(files[0].parent) == (ALL, ["audit.0.jsonl.1:3"])
    files[1].write_bytes(b"".join([*lines[:2], *lines[3:]]))
    found, left = shown_and_left(files[0].parent)
    assert (found, left) == ([*before, "1-2", "1-3", *after], ["audit.0.jsonl.1:2"])


ODD = {
    "time as text": '"kind":"decision","time":"x"',
    "no time": '"kind":"decision","time":null',
    "times": '"kind":"decision","time":[1]',
    "half a second": '"kind":"decision","time":1.5',
    "a time after all times": '"kind":"decision","time":99999999999999999999',
    "infinity": '"kind":"decision","time":1e999',
    "not a number": '"kind":"decision","time":NaN',
    "a time of 5,000 digits": f'"kind":"decision","time":{"9" * 5000}',
    "a time before all times": '"kind":"decision","time":-1',
    "from as text": '"kind":"denials","from":"x","time":1',
    "callers that are one number": '"kind":"denials","callers":5,"time":1',
    "callers that are numbers": '"kind":"denials","callers":[5],"time":1',
    "a caller that is a list": '"kind":"decision","caller":["a"],"time":1',
    "an id that is a list": '"kind":"decision","decision_id":["a"],"time":1',
    "a kind that is a list": '"kind":["decision"],"time":1',
    "permitted as text": '"kind":"decision","permitted":"no","time":1',
    "counts of text": '"kind":"denials","reasons":{"a":"b"},"time":1',
    "deep in a new field": f'"kind":"decision","new":{"[" * 900}{"]" * 900}',
    "deep beyond the parser": f'"kind":"decision","new":{"[" * 100_000}{"]" * 100_000}',
    "half a character": '"kind":"decision","room":"\\ud800"',
    "another number": '"kind":"decision","seq":7',
    "a number of 4,300 digits": f'"kind":"decision","seq":{"9" * 4300}',
}


def of_any_members(head: Head, members: str) -> tuple[bytes, Head]:
    """A line whose members no writer writes."""
    line = head.next_start + f"{members}}}".encode("ascii")
    return line + b"\n", Head(head.chain, head.sequence + 1, hashlib.sha256(line).hexdigest())


@pytest.mark.parametrize("members", ODD)
def test_odd_values_are_named_by_verify_and_shown_by_nobody(tmp_path: Path, members: str) -> None:
    path = tmp_path / "audit.0.jsonl"
    head, lines = Head("0123456789abcdef"), []
    for line in (decision(decision_id="a"), ODD[members], decision(decision_id="b")):
        data, head = head.append(line.members()) if isinstance(line, AuditRecord) else of_any_members(head, line)
        lines.append(data)
    path.write_bytes(b"".join(lines))
    assert what([tmp_path])[0].startswith("audit.0.jsonl:2: ")
    assert run(app, ["audit", "verify", str(tmp_path)]).exit_code == 1
    found, left = shown_and_left(tmp_path)
    assert (set(found) <= {"a", "b"}, len(left)) == (True, 1)
    for command in (["query"], ["query", "--json"], ["query", "--caller", "x"], ["query", "--since", "1h"], ["tail"]):
        done = run(app, ["audit", command[0], str(tmp_path), *command[1:]])
        assert (done.exit_code, done.exception) == (0, None)
        assert "left out: " in done.stderr


@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe{}", b'{"chain":"\xff"}', '{"a":1}'.encode("utf-16"), b"[" * 100_000, b"1" * 5000, b"null", b'"x"'],
)
def test_lines_of_anything_are_named_and_passed_over(tmp_path: Path, line: bytes) -> None:
    head = Head("0123456789abcdef")
    first, head = head.append(decision(decision_id="a").members())
    last, _ = head.append(decision(decision_id="b").members())
    (tmp_path / "audit.0.jsonl").write_bytes(first + line + b"\n" + last)
    assert what([tmp_path]) == ["audit.0.jsonl:2: isn't a line of the audit trail"]
    assert shown_and_left(tmp_path) == (["a", "b"], ["audit.0.jsonl:2"])


def test_a_compressed_file_that_is_damaged_is_a_problem_of_its_line(trail: tuple[list[Path], Head]) -> None:
    files, _ = trail
    packed = files[0].with_name("audit.0.jsonl.2.gz")
    whole = gzip.compress(files[0].read_bytes())
    files[0].unlink()
    middle = len(whole) // 2
    for harmed in (
        whole[:-10],
        whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
        whole[:-8] + b"\0" * 8,
        whole + b"trailing",
        b"no gzip",
        b"\x1f\x8b",
    ):
        packed.write_bytes(harmed)
        assert any("audit.0.jsonl.2.gz:" in one and "can't be read further" in one for one in what([files[0].parent]))
        assert run(app, ["audit", "verify", str(files[0].parent)]).exit_code == 1
        found, left = shown_and_left(files[0].parent)
        assert found[-8:] == ALL[4:]
        assert left[0].startswith("audit.0.jsonl.2.gz:")


@pytest.mark.parametrize(
    "content", [b"\0" * (32 << 20), b"\n" * (1 << 15), b"x\n" * (1 << 15)], ids=["zeros", "breaks", "x"]
)
def test_a_file_that_unpacks_to_a_lot_takes_little_memory(trail: tuple[list[Path], Head], content: bytes) -> None:
    files, _ = trail
    folder = files[0].parent
    (folder / "audit.1.jsonl.gz").write_bytes(gzip.compress(files[0].read_bytes() + content))
    del content
    tracemalloc.start()
    try:
        problems = verify_files([folder]).problems
        found, left = shown_and_left(folder)
        tailed = run(app, ["audit", "tail", str(folder / "audit.1.jsonl.gz")])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
    assert (0 < len(problems) <= 100, len(left) > 0, tailed.exit_code) == (True, True, 0)
    assert set(ALL[4:]) <= set(found)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "audit.0.jsonl")
    for command in ("verify", "query", "tail"):
        done = run(app, ["audit", command, str(tmp_path)])
        assert "isn't a regular file" in str(done.exception)


def test_names_and_values_never_reach_the_terminal_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "a\x1b[2J\x7f"
    sink = ChainedFile(folder / "audit.0.jsonl", FakeClock())
    sink.open()
    sink.append([decision(room="a\x7f\x1b[2J", decision_id="a")])
    sink.close()
    shutil.copy(sink.path, folder / "audit.\x1b[31m.jsonl.1")
    with sink.path.open("ab") as stream:
        stream.write(b"\x1b[2J\n")
    for command in (["verify"], ["verify", "--json"], ["query"], ["query", "--json"], ["tail"], ["tail", "--json"]):
        done = run(app, ["audit", command[0], str(folder), *command[1:]])
        for line in (done.stdout + done.stderr).splitlines():
            assert line.isprintable(), command
            assert line.isascii(), command


def test_tail_and_follow_leave_out_what_does_not_follow(tmp_path: Path) -> None:
    path = tmp_path / "audit.0.jsonl"
    sink = ChainedFile(path, FakeClock())
    sink.open()
    for number in range(6):
        sink.append([decision(decision_id=f"d{number}")])
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"d3"', b'"dX"'))
    left: list[Finding] = []
    assert ids(last_verified(path, 4, left.append)) == ["d2", "d4", "d5"]
    assert [one.line for one in left] == [0]
    path.write_bytes(whole)
    lines = whole.splitlines(keepends=True)
    assert sink.head is not None
    forged, _ = Head(sink.head.chain).append(decision(decision_id="forged").members())
    steps: list[Callable[[], object]] = [
        lambda: path.write_bytes(whole + b"text\n" + forged),
        lambda: path.write_bytes(whole + b"text\n" + forged + lines[2]),
    ]
    left.clear()
    assert ids(followed([path], 2, left.append, taking(steps), turns=2)) == ["d4", "d5"]


def ids(lines: Iterable[bytes]) -> list[str]:
    return [json.loads(line).get("decision_id", "segment") for line in lines]


@pytest.mark.parametrize("command", ["verify", "query", "tail"])
def test_output_on_a_full_disk_says_that_it_is_full(trail: tuple[list[Path], Head], command: str) -> None:
    arguments = [sys.executable, "-m", "livekit_auth_server.cli", "audit", command, str(trail[0][0].parent)]
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        done = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "livekit-auth-server: the output can't be written: the disk is full\n")
