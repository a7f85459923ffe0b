"""Reloading a part: all or nothing, loud, and never the end of the server."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.files.watch import fingerprint, places
from livekit_auth_server.reload import reloader as reload
from livekit_auth_server.reload.metrics import ReloadMetrics
from livekit_auth_server.reload.reloader import Part, Reloader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


@dataclass
class Thing:
    """A file whose content must be a word; `value` is what is in force."""

    path: Path
    value: str = "start"
    loads: int = 0
    failure: Exception | None = None
    threads: set[str] = field(default_factory=set)
    bundles: object = None

    def load(self) -> Callable[[], Mapping[str, object]]:
        self.loads += 1
        self.threads.add(threading.current_thread().name)
        if self.failure:
            raise self.failure
        text = self.path.read_text() if self.path.exists() else ""
        if not text.isalpha():
            raise ConfigError(self.path, "isn't a word")

        def apply() -> Mapping[str, object]:
            assert threading.current_thread() is threading.main_thread()
            self.value = text
            return {"word": text}

        return apply


@dataclass
class Running:
    thing: Thing
    reloader: Reloader
    registry: CollectorRegistry

    def write(self, text: str) -> None:
        self.thing.path.write_text(text)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"kind": "thing", **labels})

    async def until(self, condition: Callable[[], bool], seconds: float = 3) -> None:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - files tell nobody
                await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TICK": 0.1, "SETTLED": 0.01, "SETTLING": 0.1, "SECOND_LOOK": 0.1}.items():
        monkeypatch.setattr(reload, name, value)


@pytest.fixture
async def running(tmp_path: Path):
    thing = Thing(tmp_path / "word")
    thing.path.write_text("start")
    part = Part("thing", (thing.path,), thing.load, lambda: thing.bundles)
    registry = CollectorRegistry()
    reloader = Reloader([part], {"thing": fingerprint([thing.path])}, ReloadMetrics(registry, ["thing"]))
    task = asyncio.create_task(reloader.run())
    yield Running(thing, reloader, registry)
    assert not task.done(), task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_change_is_put_in_force_from_a_thread(running: Running) -> None:
    running.write("next")
    await running.until(lambda: running.thing.value == "next")
    assert running.thing.loads == 1
    assert threading.main_thread().name not in running.thing.threads
    assert running.metric("livekit_auth_reload_total", outcome="ok") == 1
    assert running.reloader.failing() == []


async def test_a_change_that_nobody_notifies_of_is_seen(
    running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def silent(*_: object) -> None:
        """A file system that tells nothing."""

    monkeypatch.setattr(reload, "notify", silent)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "word").write_text("linked")
    running.thing.path.unlink()
    running.thing.path.symlink_to(tmp_path / "elsewhere" / "word")  # other places: the watching begins anew
    await running.until(lambda: running.thing.value == "linked")
    (tmp_path / "elsewhere" / "word").write_text("unheard")
    await running.until(lambda: running.thing.value == "unheard")


async def test_files_that_dont_change_arent_read(running: Running) -> None:
    await asyncio.sleep(0.4)
    assert running.thing.loads == 0


async def test_a_bad_file_leaves_the_last_good_one_in_force_and_says_so(running: Running) -> None:
    with capture_logs() as lines:
        running.write("two words")
        await running.until(lambda: bool(running.reloader.failing()))
        assert running.thing.value == "start"
        assert running.reloader.failing() == [f"thing: {running.thing.path}: isn't a word"]
        assert running.metric("livekit_auth_reload_failed") == 1
        assert running.metric("livekit_auth_reload_total", outcome="failed") == 1
        running.write("good")
        await running.until(lambda: running.thing.value == "good" and not running.reloader.failing())
    assert running.metric("livekit_auth_reload_failed") == 0
    levels = [(line["log_level"], line.get("error", "")) for line in lines]
    assert levels == [("error", f"{running.thing.path}: isn't a word"), ("info", "")]


async def test_a_file_that_is_half_written_for_a_moment_isnt_reported(running: Running) -> None:
    with capture_logs() as lines:
        running.write("half ")
        await running.until(lambda: running.thing.loads == 1)
        running.write("whole")
        await running.until(lambda: running.thing.value == "whole")
    assert [line["log_level"] for line in lines] == ["info"]


async def test_a_fault_of_the_loader_stops_nothing(running: Running) -> None:
    running.thing.failure = KeyError("MARKER")
    with capture_logs():
        running.write("next")
        await running.until(lambda: bool(running.reloader.failing()))
    assert "MARKER" not in str(running.reloader.failing())
    running.thing.failure = None
    running.write("after")
    await running.until(lambda: running.thing.value == "after")


async def test_what_failed_is_tried_again(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "RETRY", 0.1)
    running.thing.failure = ConfigError("x", "the disk is away")
    with capture_logs() as lines:
        running.write("next")
        await running.until(lambda: running.thing.loads > 4)
        running.thing.failure = None
        await running.until(lambda: running.thing.value == "next")
    assert [line["log_level"] for line in lines] == ["error", "info"]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
async def test_files_that_couldnt_be_opened_for_want_of_descriptors_are_tried_at_once(
    running: Running, number: int
) -> None:
    """RETRY is 30 s here, in which a revocation wouldn't take effect."""
    failure = ConfigError("x", "can't be read: Too many open files")
    failure.__context__ = OSError(number, os.strerror(number))  # as the readers of files raise it
    running.thing.failure = failure
    with capture_logs() as lines:
        running.write("next")
        await running.until(lambda: running.thing.loads > 4)
        running.thing.failure = None
        await running.until(lambda: running.thing.value == "next")
    assert [line["log_level"] for line in lines] == ["error", "info"]


async def test_files_that_are_bad_themselves_are_tried_again_after_a_while(running: Running) -> None:
    running.thing.failure = ConfigError("x", "bad")
    with capture_logs():
        running.write("next")
        await running.until(lambda: bool(running.reloader.failing()))
        tries = running.thing.loads
        await asyncio.sleep(5 * reload.TICK)
    assert running.thing.loads == tries


async def test_a_request_reads_everything_again(running: Running) -> None:
    running.reloader.request()
    await running.until(lambda: running.thing.loads == 1)


async def test_what_a_part_was_made_from_counts_as_its_files(running: Running) -> None:
    running.thing.bundles = object()
    await running.until(lambda: running.thing.loads == 1)


async def test_the_last_of_many_changes_is_in_force(running: Running) -> None:
    for number in range(100):
        running.write("x" * (number + 1))
        await asyncio.sleep(0.003)
    await running.until(lambda: running.thing.value == "x" * 100)


async def test_a_change_from_before_the_start_is_seen(tmp_path: Path) -> None:
    thing = Thing(tmp_path / "word")
    before = {"thing": fingerprint([thing.path])}
    thing.path.write_text("early")
    reloader = Reloader(
        [Part("thing", (thing.path,), thing.load)], before, ReloadMetrics(CollectorRegistry(), ["thing"])
    )
    task = asyncio.create_task(reloader.run())
    await Running(thing, reloader, CollectorRegistry()).until(lambda: thing.value == "early")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_slow_part_delays_no_other(tmp_path: Path) -> None:
    slow, quick_one = Thing(tmp_path / "slow"), Thing(tmp_path / "quick")
    release = threading.Event()

    def wait() -> Callable[[], Mapping[str, object]]:
        release.wait(5)
        return slow.load()

    parts = [Part("slow", (slow.path,), wait), Part("quick", (quick_one.path,), quick_one.load)]
    before = {part.kind: fingerprint(part.paths) for part in parts}
    reloader = Reloader(parts, before, ReloadMetrics(CollectorRegistry(), before))
    task = asyncio.create_task(reloader.run())
    slow.path.write_text("later")
    quick_one.path.write_text("now")
    try:
        await Running(quick_one, reloader, CollectorRegistry()).until(lambda: quick_one.value == "now")
        assert slow.value == "start"
    finally:
        release.set()
        await Running(slow, reloader, CollectorRegistry()).until(lambda: slow.value == "later")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_fails_in_finding_the_folders_to_watch_doesnt_end_the_reloading(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as no thread to be had; a deny-list must go on being read."""

    def fails(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with capture_logs() as lines:
        monkeypatch.setattr(reload, "places", fails)
        await running.until(lambda: any(line["log_level"] == "error" for line in lines))
        running.write("word")
        await running.until(lambda: running.thing.value == "word")


async def test_it_ends_when_it_is_cancelled_in_the_moment_of_a_change(tmp_path: Path) -> None:
    thing = Thing(tmp_path / "word")
    thing.path.write_text("start")
    for _ in range(100):
        part = Part("thing", (thing.path,), thing.load)
        registry = CollectorRegistry()
        reloader = Reloader([part], {"thing": fingerprint([thing.path])}, ReloadMetrics(registry, ["thing"]))
        task = asyncio.create_task(reloader.run())
        await asyncio.sleep(0.01)
        reloader.request()
        task.cancel()
        async with asyncio.timeout(5):
            await asyncio.wait({task})


# Notifications, which looking at intervals would hide


async def test_a_notification_is_heard_where_nobody_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "TICK", 3600)
    thing = Thing(tmp_path / "word")
    thing.path.write_text("start")
    with running_alone(thing) as task:
        for word in ("one", "two", "three"):  # the first may be seen by the look at the start
            async with asyncio.timeout(20):
                while thing.value != word:
                    thing.path.write_text(word)  # again, until the watching has begun
                    await asyncio.sleep(0.3)
        assert not task.done()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_watcher_is_given_the_folders_and_wakes_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload, "TICK", 3600)
    thing, told, started = Thing(tmp_path / "word"), asyncio.Event(), asyncio.Event()
    thing.path.write_text("start")
    given: list[object] = []

    async def watching(folders: object, changed: Callable[[], None]) -> None:
        given.append(folders)
        started.set()
        await told.wait()
        changed()

    monkeypatch.setattr(reload, "notify", watching)
    with running_alone(thing) as task:
        async with asyncio.timeout(20):
            await started.wait()
            await asyncio.sleep(0.3)  # the look at the start is over
            thing.path.write_text("told")
            told.set()
            while thing.value != "told":  # noqa: ASYNC110 - files tell nobody
                await asyncio.sleep(0.01)
    assert given == [places([thing.path])]
    await asyncio.gather(task, return_exceptions=True)


async def test_a_watcher_ends_when_other_folders_are_watched_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thing, started, ended = Thing(tmp_path / "word"), list[object](), list[object]()
    thing.path.write_text("start")

    async def watching(folders: object, _changed: object) -> None:
        started.append(folders)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(folders)

    monkeypatch.setattr(reload, "notify", watching)
    async with asyncio.timeout(20):
        with running_alone(thing) as task:
            while len(started) < 1:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
            (tmp_path / "elsewhere").mkdir()
            (tmp_path / "elsewhere" / "word").write_text("linked")
            thing.path.unlink()
            thing.path.symlink_to(tmp_path / "elsewhere" / "word")
            while started[-1] != places([thing.path]):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
            assert ended == started[:-1]
        await asyncio.gather(task, return_exceptions=True)
    assert ended == started


@contextmanager
def running_alone(thing: Thing) -> Iterator[asyncio.Task[None]]:
    metrics = ReloadMetrics(CollectorRegistry(), ["thing"])
    part = Part("thing", (thing.path,), thing.load)
    task = asyncio.create_task(Reloader([part], {"thing": fingerprint([thing.path])}, metrics).run())
    try:
        yield task
    finally:
        task.cancel()
