"""A workload: asks livekit-auth for tokens without pause, with the identity that its SPIFFE agent gives it.

    python workload.py ADDRESS CLIENTS

Prints a JSON line of what happened every quarter of a second, until its standard input is closed. Never a token.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from livekit_auth import AuthClient, AuthError, ConfigError

PAUSE = 0.02  # seconds between the calls of a client


class Workload:
    def __init__(self, address: str) -> None:
        self.address = address
        self.calls = 0
        self.failed: list[str] = []
        self.serials: dict[str, None] = {}
        self.last = self.identity = ""
        self.slowest = 0.0

    async def ask(self) -> None:
        async with AuthClient(self.address) as client:
            while True:
                began = time.monotonic()
                try:
                    await client.issue_token(role="guest", room="consult-1", identity="user-1")
                    caller = await client.get_caller()
                except AuthError as error:
                    self.last = error.reason or error.code
                    self.failed.append(self.last)
                else:
                    self.last, self.identity = "ok", caller.workload_id
                    self.serials[caller.certificate_serial] = None
                self.calls += 2
                self.slowest = max(self.slowest, time.monotonic() - began)
                await asyncio.sleep(PAUSE)

    async def tell(self) -> None:
        while True:
            await asyncio.sleep(0.25)
            print(
                json.dumps({name: list(v) if isinstance(v, dict) else v for name, v in vars(self).items()}), flush=True
            )


async def main() -> None:
    workload = Workload(sys.argv[1])
    tasks = [asyncio.create_task(workload.ask()) for _ in range(int(sys.argv[2]))]
    tasks.append(asyncio.create_task(workload.tell()))
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    done, _ = await asyncio.wait([*tasks, ended], return_when=asyncio.FIRST_COMPLETED)
    for task in [*tasks]:
        task.cancel()
    for task in done - {ended}:
        task.result()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except ConfigError as error:
        sys.exit(str(error))
