"""Runs a command under the system-call filter and the memory rule that the systemd unit asks for, without systemd.

    python under_unit.py "read write …" COMMAND …

Every other call fails with EPERM, as the unit's SystemCallErrorNumber says; memory that can be written never becomes
executable (PR_SET_MDWE, where the kernel has it: Linux 6.3).
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

ALLOW, ERRNO = 0x7FFF0000, 0x00050000
PR_SET_MDWE, REFUSE_EXEC_GAIN, PR_SET_NO_NEW_PRIVS = 65, 1, 38


def seal(calls: list[str]) -> None:
    """Allows these system calls, and whatever this architecture doesn't know of them."""
    seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(ERRNO | errno.EPERM)))
    for name in calls:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            assert seccomp.seccomp_rule_add(context, ctypes.c_uint32(ALLOW), number, 0) == 0, name
    assert seccomp.seccomp_load(context) == 0


def main() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    refused = libc.prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0)
    if refused:
        sys.stderr.write("under_unit: this kernel has no memory rule\n")
    seal(sys.argv[1].split())
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - the command of the test that called


if __name__ == "__main__":
    main()
