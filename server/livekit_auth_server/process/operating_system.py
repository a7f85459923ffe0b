"""The process as the operating system sees it: early signals, standard streams, open files, threads, its parent.

Imports light parts of the standard library only, since `begin` runs before every other import.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Descriptors that connections leave free. A worker holds about 25, 16 for probes and redis_link.CONNECTIONS for Redis;
# the rest is for files, the audit trail, watches and traces.
RESERVE = 128
THREADS = 32  # a worker on two cores runs about 20; gRPC aborts the process where it can't start one
_DEFERRED = (signal.SIGHUP, signal.SIGUSR2)
_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
MISUSE = 2  # the exit code for wrong options, files or settings
_INTERRUPTED = 130
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_M_MMAP_THRESHOLD = -3


def begin(arguments: Sequence[str]) -> None:
    """Prepares the process for a command, before imports that take a second. Ends a process that couldn't serve.

    SIGHUP and SIGUSR2 are deferred until `accept_signals`. SIGINT ends `serve` with one line; a worker leaves it to its
    supervisor.
    """
    closed = _open_standard_streams()
    if not arguments or arguments[0] not in {"serve", "worker"}:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, _DEFERRED)
    signal.signal(signal.SIGINT, _interrupted if arguments[0] == "serve" else signal.SIG_IGN)
    if 2 in closed:  # noqa: PLR2004 - stderr
        _end("stderr is closed, and the log goes there: redirect it, to /dev/null if nobody reads it", stream=1)
    if (limit := raise_open_files()) <= RESERVE:
        _end(f"this process may open {limit} files, and needs more than {RESERVE}: raise the limit (ulimit -n)")


def accept_signals() -> None:
    """Delivers SIGHUP and SIGUSR2, including those that came before. Set their handlers first."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _DEFERRED)


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Processes that are started in this block begin with SIGHUP and SIGUSR2 deferred."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _DEFERRED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def raise_open_files() -> int:
    """Raises the soft limit of open files to the hard one; returns what this process may open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS says "unlimited" and allows less
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return open_files()


def open_files() -> int:
    """How many files this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def out_of_files(error: BaseException | None) -> bool:
    """Whether the cause is that too many files are open, which passes by itself."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
            return True
        error = error.__cause__ or error.__context__
    return False


def startable_threads(wanted: int = THREADS) -> int:
    """How many of `wanted` more threads can run at once. Starts them and ends them again."""
    over, started = threading.Event(), []
    try:
        for _ in range(wanted):
            thread = threading.Thread(target=over.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError:  # can't start new thread
        pass
    finally:
        over.set()
    for thread in started:
        thread.join()
    return len(started)


def end_with_parent() -> None:
    """Makes the kernel kill this process when its parent ends, on Linux and where ctypes works.

    A parent that has already ended isn't noticed: check for it afterwards.
    """
    _ask_libc("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def hide_memory() -> None:
    """Keeps this process out of core dumps and from debuggers of its own user, on Linux and where ctypes works.

    A limit of 0 for core dumps isn't enough: the kernel ignores it where it pipes them to a program (core(5)).
    """
    _ask_libc("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)


def return_large_blocks() -> None:
    """Makes glibc's malloc return large blocks to the system as soon as they are freed.

    Its own threshold grows with each large block that is freed, and then every thread keeps many megabytes.
    """
    _ask_libc("mallopt", _M_MMAP_THRESHOLD, 128 * 1024)


def _ask_libc(function: str, *arguments: int) -> None:
    if sys.platform == "linux":
        # ctypes may want executable memory, which systemd can deny; other C libraries have no mallopt.
        with suppress(ImportError, OSError, MemoryError, AttributeError):
            import ctypes  # noqa: PLC0415 - for servers alone

            getattr(ctypes.CDLL(None), function)(*arguments)


def _open_standard_streams() -> set[int]:
    """Opens closed standard streams on /dev/null, and returns their numbers.

    Otherwise a file or connection would get the number, and what is written to stderr would go there.
    """
    closed = set()
    for number, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            closed.add(number)
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - for the whole process
    return closed


def _interrupted(*_: object) -> NoReturn:
    """Python itself would print a traceback of whatever is being imported."""
    with suppress(OSError):
        os.write(2, b"livekit-auth-server: interrupted before it served\n")
    os._exit(_INTERRUPTED)


def _end(message: str, stream: int = 2) -> NoReturn:
    with suppress(OSError):
        os.write(stream, f"livekit-auth-server: {message}\n".encode())
    raise SystemExit(MISUSE)
