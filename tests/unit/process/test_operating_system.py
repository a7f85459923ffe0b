"""What a process asks of the system, and what its settings may ask of it."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from livekit_auth_server.config.sections import LimitSettings
from livekit_auth_server.config.settings import Settings
from livekit_auth_server.files.document import Document
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.process import operating_system as process
from livekit_auth_server.serve import capacity

if TYPE_CHECKING:
    from pathlib import Path


def child(code: str, **limits: tuple[int, int]) -> str:
    """What Python code prints in a process of its own, with these limits."""

    def limit() -> None:
        for name, pair in limits.items():
            resource.setrlimit(getattr(resource, name), pair)

    program = f"from livekit_auth_server.process import operating_system as process\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, preexec_fn=limit, check=True
    )
    return done.stdout.strip()


def test_the_soft_limit_of_open_files_is_raised_to_the_hard_one() -> None:
    assert child("print(process.raise_open_files())", RLIMIT_NOFILE=(64, 700)) == "700"


def test_an_unlimited_number_of_open_files_is_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert process.open_files() > 10**9


def test_a_hard_limit_that_the_system_refuses_leaves_the_soft_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuses)
    assert process.raise_open_files() == 256


def test_threads_are_counted_as_far_as_they_start_and_ended_again(monkeypatch: pytest.MonkeyPatch) -> None:
    before, plain = threading.active_count(), threading.Thread.start
    started: list[threading.Thread] = []

    def start(thread: threading.Thread) -> None:
        if len(started) == 5:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        plain(thread)

    assert process.startable_threads() == process.THREADS
    monkeypatch.setattr(threading.Thread, "start", start)
    assert process.startable_threads() == 5
    assert threading.active_count() == before


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_want_of_descriptors_is_seen_through_the_error_that_names_the_file(
    number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.open", full)
    with pytest.raises(ConfigError) as caught:
        Document.read(tmp_path / "deny.yaml")
    assert process.out_of_files(caught.value)


def test_another_fault_isnt_want_of_descriptors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Document.read(tmp_path / "deny.yaml")
    assert not process.out_of_files(caught.value)
    assert not process.out_of_files(ValueError("EMFILE"))


def test_deferred_signals_come_once_they_are_accepted() -> None:
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in (1, 12)}
    try:
        with process.deferred_signals():
            for number in before:
                signal.pthread_kill(threading.get_ident(), number)  # not to another thread, which has its own mask
            assert came == []
        assert sorted(came) == [1, 12]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("command", ["check", "audit", "--help"])
def test_other_commands_take_signals_and_limits_as_they_are(command: str) -> None:
    """`audit tail` ends with its terminal."""
    code = "import signal, resource; process.begin(['{}']); print(signal.pthread_sigmask(0, []), process.open_files())"
    assert child(code.format(command), RLIMIT_NOFILE=(64, 700)) == "set() 64"


def wanted(**limits: Any) -> Settings:
    """Settings with these limits, and nothing else."""
    return Settings.model_construct(limits=LimitSettings(**limits))


def test_connections_that_fit_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "open_files", lambda: 2000 + process.RESERVE)
    for settings, connections in ((wanted(), 1500), (wanted(connections=2000), 2000)):
        assert capacity.fit(settings) == ""
        assert settings.limits.connections == connections


def test_connections_that_were_asked_for_and_dont_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "open_files", lambda: 1999 + process.RESERVE)
    with pytest.raises(ConfigError, match=r"^limits\.connections: 2000 .* descriptor limit") as caught:
        capacity.fit(wanted(connections=2000))
    assert "at most 1999" in str(caught.value)


def test_the_default_of_connections_is_lowered_to_what_fits_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "open_files", lambda: 256)
    settings = wanted(handshake=2)
    assert "limits.connections" in capacity.fit(settings)
    assert settings.limits.connections == 256 - process.RESERVE


def test_too_few_threads_are_refused_before_grpc_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    capacity.check_threads()
    monkeypatch.setattr(process, "startable_threads", lambda: process.THREADS - 1)
    with pytest.raises(ConfigError, match=r"^threads: only 31 of 32 can be started"):
        capacity.check_threads()
