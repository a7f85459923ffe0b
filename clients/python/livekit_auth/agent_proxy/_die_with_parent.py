"""Runs a command that dies with its parent: `python _die_with_parent.py PARENT_PID COMMAND...` (Linux).

The kernel kills the command when its parent ends, even by SIGKILL (prctl(2), PR_SET_PDEATHSIG, kept across execve).
This is a separate program because setting it between fork and exec isn't safe in a process with threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_NOT_FOUND, _NOT_RUNNABLE = 127, 126  # as in shells


def main() -> None:
    """Ties this process to its parent, then executes the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"can't tie {command[0]} to agent-proxy: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it ended before prctl
        sys.exit("agent-proxy has exited")
    # Undo what Python changed at startup: the command inherits the signal handling of this process.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - the user's own command
    except OSError as error:
        sys.stderr.write(f"can't run {command[0]}: {error.strerror}\n")
        sys.exit(_NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_RUNNABLE)


if __name__ == "__main__":
    main()
