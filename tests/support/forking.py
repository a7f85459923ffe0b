"""A program that makes a client, forks, and uses the client on both sides, as servers that preload their code do.

`python forking.py PATTERN`, with LIVEKIT_AUTH_* or SPIFFE_ENDPOINT_SOCKET set. It prints a JSON object per process, and
ends with exit code 0 when every child did.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
import threading
from typing import TYPE_CHECKING

import livekit_auth
from livekit_auth import TokenRequest, sync

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT = 40  # seconds; a call whose threads are gone doesn't even end at its deadline
CHILDREN = 3


def report(process: str, call: Callable[[], object]) -> None:
    try:
        result = call()
    except Exception as error:  # noqa: BLE001 - the test looks at it
        result = f"{type(error).__name__}: {error}"
    os.write(1, (json.dumps({"process": process, "result": result}) + "\n").encode())


def forked(*calls: Callable[[], object]) -> bool:
    """Runs each in a child of its own, all at once. Each ends as a worker process does, its interpreter torn down."""
    children = []
    for call in calls:
        if (pid := os.fork()) == 0:
            signal.alarm(TIMEOUT)
            report("child", call)
            sys.exit(0)
        children.append(pid)
    statuses = [os.waitpid(pid, 0)[1] for pid in children]
    return not any(statuses)


def threads_used() -> bool:
    client = sync.AuthClient()
    report("parent", lambda: client.get_caller().workload_id)
    good = forked(*[lambda: client.get_caller().workload_id] * CHILDREN)
    report("parent", lambda: client.get_caller().workload_id)
    return good


def threads_in_a_call() -> bool:
    """Another thread's call is in flight while the process forks; the server answers when a line comes from stdin."""
    client = sync.AuthClient()
    calling = threading.Thread(target=report, args=("parent", lambda: client.get_caller(timeout=TIMEOUT).workload_id))
    calling.start()
    sys.stdin.readline()
    good = forked(lambda: client.get_caller().workload_id)
    calling.join()
    return good


def asyncio_unused() -> bool:
    client = livekit_auth.AuthClient()
    return forked(*[lambda: asyncio.run(call(client))] * CHILDREN)


async def call(client: livekit_auth.AuthClient) -> str:
    return (await client.get_caller()).workload_id


async def open_while_forking(child: Callable[[livekit_auth.AuthClient], object], count: int = 1) -> bool:
    async with livekit_auth.AuthClient() as client:
        await call(client)
        good = forked(*[lambda: child(client)] * count)
        workload_id = await call(client)
        report("parent", lambda: workload_id)
        return good


def asyncio_open() -> bool:
    def child(client: livekit_auth.AuthClient) -> str:
        asyncio._set_running_loop(None)  # the child inherits the mark of the loop that it was forked in
        return asyncio.run(call(client))

    return asyncio.run(open_while_forking(child))


def asyncio_open_threads_after() -> bool:
    return asyncio.run(open_while_forking(lambda _: sync.AuthClient().get_caller().workload_id, CHILDREN))


def source_renewing() -> bool:
    """A token source whose request is in flight in the parent."""
    client = sync.AuthClient()
    source = sync.TokenSource(client, TokenRequest(role="guest"))
    calling = threading.Thread(target=report, args=("parent", lambda: source.token().decision_id))
    calling.start()
    sys.stdin.readline()
    good = forked(lambda: source.token().decision_id)
    calling.join()
    return good


def stream_open() -> bool:
    """With an agent: the child calls again and again, until a line comes from stdin."""
    client = sync.AuthClient()
    report("parent", lambda: client.get_caller().workload_id)

    def child() -> str:
        while not select.select([sys.stdin], [], [], 0.05)[0]:
            workload_id = client.get_caller().workload_id
        return workload_id

    return forked(child)


if __name__ == "__main__":
    sys.exit(0 if globals()[sys.argv[1]]() else 1)
