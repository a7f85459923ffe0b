"""Runs a worker behind the proxy: gives it the made-up key, forwards signals, and exits with its exit code."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from livekit_auth._messages.errors import ConfigError
from livekit_auth._messages.requests import TokenRequest
from livekit_auth._workers.secrets import refuse_secrets
from livekit_auth.agent_proxy import _die_with_parent
from livekit_auth.agent_proxy._credentials_file import written
from livekit_auth.agent_proxy._outbound_proxy import bypassing_proxy
from livekit_auth.agent_proxy._proxy import LOOPBACK, Rules, serving

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit_auth._async.client import AuthClient

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
FROM_KEYS = frozenset({signal.SIGINT, signal.SIGQUIT})


async def run(client: AuthClient, rules: Rules, command: Sequence[str], credentials_file: Path | None = None) -> int:
    """Runs the command until it ends. Returns its exit code, or 128 plus the number of the signal that killed it.

    The command gets LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET in its environment or in the credentials file,
    which only its owner may read and which is removed at the end. It gets no LIVEKIT_AUTH_* variable. On Linux it
    never outlives this process. Raises ConfigError if it can't be started or a secret is in the environment, and
    AuthError if the server refuses.
    """
    refuse_secrets("the worker gets a made-up secret; remove the real one")
    # Ask first, without minting a token: a worker that the policy refuses isn't started.
    request = TokenRequest(role=rules.role, project=rules.project, validate_only=True)
    url = (await client.issue(request)).url
    async with client, serving(client, rules, url) as proxy:
        credentials = {
            "LIVEKIT_URL": proxy.url,
            "LIVEKIT_API_KEY": proxy.key.id,
            "LIVEKIT_API_SECRET": proxy.key.secret,
        }
        # Workers prefer the environment to a file: another URL in it would bypass the proxy.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("LIVEKIT_AUTH_") and name not in credentials
        }
        environment |= bypassing_proxy(environment, LOOPBACK)
        if credentials_file is None:
            return await _child(command, {**environment, **credentials})
        with written(credentials_file, credentials):
            return await _child(command, environment)


async def _child(command: Sequence[str], environment: dict[str, str]) -> int:
    if shutil.which(command[0], path=environment.get("PATH")) is None:
        raise ConfigError(f"can't run {command[0]}: not found, or not executable")
    try:
        process = await asyncio.create_subprocess_exec(*_with_parent(command), env=environment)
    except OSError as error:
        raise ConfigError(f"can't run {command[0]}: {error.strerror}") from None
    loop = asyncio.get_running_loop()
    for number in FORWARDED:
        loop.add_signal_handler(number, _forward, process, number)
    try:
        code = await process.wait()
    finally:
        for number in FORWARDED:
            loop.remove_signal_handler(number)
        if process.returncode is None:
            process.kill()
    return code if code >= 0 else 128 - code


def _with_parent(command: Sequence[str]) -> list[str]:
    """The command, wrapped on Linux so that it is killed when this process ends, even by SIGKILL."""
    if sys.platform != "linux" or not sys.executable:
        return list(command)
    # -I and -S keep the worker's environment and site-packages out of this step.
    return [sys.executable, "-I", "-S", str(Path(_die_with_parent.__file__)), str(os.getpid()), *command]


def _forward(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None and not (number in FROM_KEYS and _in_the_foreground()):
        process.send_signal(number)


def _in_the_foreground() -> bool:
    """Whether the terminal signals this process group, including the worker. A second signal makes it drop its jobs."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:  # no terminal
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
