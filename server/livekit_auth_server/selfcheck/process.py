"""Runs a self-check in a child process and returns what it found.

Guarantees: the task goes over a socket, so no argument and no variable of the child holds a secret, and of this
process's environment it gets only what Python needs; the child has SECONDS and may answer LONGEST bytes; what it writes
is read as a report or not at all; it has ended when `run` returns or is cancelled.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from livekit_auth_server.process.operating_system import deferred_signals
from livekit_auth_server.selfcheck.report import SECONDS, NotRun, decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit_auth_server.selfcheck.report import Report

LONGEST = 64 * 1024  # bytes of a report
_REAP = 0.01  # seconds between looks at a process that is going
# `-P` keeps the current folder out of where Python looks for code, as the installed program does.
_PROGRAM = (sys.executable, "-P", "-m", "livekit_auth_server.selfcheck.child")
# Not the whole environment: LIVEKIT_API_SECRET and variables with keys may be in it.
_VARIABLES = ("PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "LD_LIBRARY_PATH")


async def run(task: bytes, *, program: Sequence[str] = _PROGRAM, seconds: float = SECONDS) -> Report | NotRun:
    """What the child finds for an encoded task. `program` gets the id of this process as its last argument."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = _started(program, theirs)
        except OSError:
            ours.close()
            return NotRun.NOT_STARTED
    try:
        async with asyncio.timeout(seconds):
            answer = await _exchanged(ours, task)
            result = decode(answer) if len(answer) <= LONGEST else NotRun.UNREADABLE
            return result or (NotRun.UNREADABLE if answer else NotRun.CRASHED)
    except TimeoutError:
        return NotRun.TIMEOUT
    finally:
        await _end(process)


def _started(program: Sequence[str], line: socket.socket) -> subprocess.Popen[bytes]:
    """Starts the process. Not by asyncio, which needs a thread for each in Python 3.11 and loses it without one."""
    environment = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    with deferred_signals():
        return subprocess.Popen(  # noqa: S603 - our own program
            (*program, str(os.getpid())),
            stdin=line.fileno(),
            stdout=line.fileno(),
            stderr=subprocess.DEVNULL,
            env=environment,
        )


async def _exchanged(line: socket.socket, task: bytes) -> bytes:
    """Writes the task and reads until the child closes its end, or has written more than a report."""
    reader, writer = await asyncio.open_unix_connection(sock=line, limit=LONGEST)
    answer = b""
    try:
        with suppress(ConnectionError):  # a child that ended early has perhaps said why
            writer.write(task)
            await writer.drain()
            writer.write_eof()
        with suppress(ConnectionError):
            while len(answer) <= LONGEST and (more := await reader.read(LONGEST)):
                answer += more
    finally:
        writer.transport.abort()
    return answer


async def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    while process.poll() is None:  # noqa: ASYNC110 - it was killed
        await asyncio.sleep(_REAP)
