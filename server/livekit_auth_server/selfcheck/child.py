"""The process that compares: `python -m … PARENT` reads a task from stdin and writes a report to stdout.

Guarantees: it limits its own memory, priority and lifetime, and keeps its memory from core dumps, before it reads a
secret; it ends with its parent; it writes nothing but a report (selfcheck/report.py).
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from contextlib import suppress

from livekit_auth_server.process.operating_system import end_with_parent, hide_memory
from livekit_auth_server.selfcheck.report import SECONDS, NotRun, Report, encode

MEMORY = 512 * 1024 * 1024  # bytes of address space; a check of 10,000 roles takes 80 MiB
CPU_SECONDS = 30  # a check of 1,000 roles takes 1
_NICE = 10


def main() -> None:
    """Runs one check for the process whose id is the one argument."""
    _limit()
    if os.getppid() != int(sys.argv[1]):
        return  # it ended before it could take this process with it
    result = _checked(sys.stdin.buffer.read())
    with suppress(OSError):  # nobody waits for it any more
        sys.stdout.buffer.write(encode(result))
        sys.stdout.buffer.flush()


def _limit() -> None:
    """Sets the limits that can be set: systemd's filter of system calls may deny them."""
    signal.alarm(SECONDS + 1)  # without a handler SIGALRM ends the process
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process
    end_with_parent()
    hide_memory()
    for limit, amount in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CPU, CPU_SECONDS)):
        with suppress(OSError, ValueError):
            resource.setrlimit(limit, (amount, amount))
    with suppress(OSError):
        os.nice(_NICE)


def _checked(data: bytes) -> Report | NotRun:
    try:
        # Imported here: under the limits, and where a missing livekit-api can be reported.
        from livekit_auth_server.selfcheck.comparison import compare  # noqa: PLC0415
        from livekit_auth_server.selfcheck.task import Task  # noqa: PLC0415
    except MemoryError:
        return NotRun.OUT_OF_MEMORY
    except Exception:  # noqa: BLE001 - whatever an import runs into
        return NotRun.NOT_IMPORTED
    try:
        return compare(Task.decode(data), time.time)
    except MemoryError:
        return NotRun.OUT_OF_MEMORY
    except Exception:  # noqa: BLE001 - an exception's text could hold a secret
        return NotRun.CRASHED


if __name__ == "__main__":
    main()
