"""A Redis or Valkey that may be slow or unavailable: no command waits longer than `timeout`.

The first command that fails opens the circuit: from then on every command fails at once, and a probe in the background
tries until Redis answers again. Loss and return are logged once each. Concurrent commands share a round trip, so that a
burst of calls isn't mistaken for a slow Redis.

An error about a key, such as a key of another type, affects only the caller whose key it is, and doesn't open the
circuit.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import TYPE_CHECKING, Any

import structlog
from redis.exceptions import AuthenticationError, NoScriptError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

Command = tuple[str | int | bytes, ...]

CONNECTIONS = 8
"""Kept open, each with one batch of commands on its way."""

_BATCH = 64  # commands
_PROBE_TIMEOUT = 1.0  # seconds; a probe may connect, which takes longer than a command
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds between probes
_STEADY = 10.0  # seconds after which a return counts as one, and the next loss is probed quickly again
_TURNS = 5  # of the event loop, in which what has arrived by now is read
_ABOUT_A_KEY = re.compile(r"\bWRONGTYPE\b|\buser_script:")
_ABOUT_REDIS = re.compile(r"\b(?:OOM|READONLY|MISCONF|NOREPLICAS|MASTERDOWN|CLUSTERDOWN|LOADING|BUSY|NOPERM|NOAUTH)\b")
_log = structlog.get_logger("livekit_auth_server")


class RedisAway(Exception):  # noqa: N818 - a condition, not a fault of the program
    """Redis is unavailable now."""


class OddAnswer(RedisAway):
    """Redis is available, and its answer about this caller's keys is unusable. The message says why."""


class RedisLink:
    """The process's link to Redis. `timeout` is in seconds; `changed` is told whether Redis is available."""

    def __init__(self, client: Redis, prefix: str, timeout: float, changed: Callable[[bool], None]) -> None:
        self._client, self.prefix = client, prefix
        self._timeout, self._changed = timeout, changed
        self._up = False
        self._since = 0.0
        self._pause = _FIRST_PAUSE
        self._waiting: deque[tuple[Command, asyncio.Future[Any]]] = deque()
        self._sending: set[asyncio.Task[None]] = set()
        self._probing: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether it answers."""
        return self._up

    async def open(self) -> None:
        """Connects, in the background if Redis is unavailable. Raises AuthenticationError."""
        try:
            await self._probe()
        except AuthenticationError:
            raise
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            self._lost(error)
        else:
            self._found()

    async def close(self) -> None:
        """Stops probing and closes every connection."""
        if self._probing is not None:
            self._probing.cancel()
        await self._client.aclose()

    async def run(self, *command: str | int | bytes) -> Any:  # noqa: ANN401 - a command's own answer
        """What the command returns, unchecked. Raises NoScriptError, and RedisAway, at once while the circuit is open.

        An error about one of the command's keys is an OddAnswer.
        """
        if not self._up:
            raise RedisAway
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((command, answer))
        if len(self._sending) < CONNECTIONS:
            task = loop.create_task(self._send())
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        return await answer

    async def _send(self) -> None:
        """Sends what waits, batch by batch."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            try:
                results = await self._execute([command for command, _ in batch])
            except Exception as error:  # noqa: BLE001 - whatever it is, the waiting calls must be told
                results = [error] * len(batch)
            for result, (_, answer) in zip(results, batch, strict=True):
                self._answer(answer, result)

    def _answer(self, answer: asyncio.Future[Any], result: object) -> None:
        if isinstance(result, Exception) and about_a_key(result):
            result = OddAnswer("an error about a key" if "WRONGTYPE" not in str(result) else "a key of another type")
        elif isinstance(result, Exception) and not isinstance(result, NoScriptError):
            self._lost(result)
            result = RedisAway()
        if answer.done():  # its call was cancelled
            return
        if isinstance(result, Exception):
            answer.set_exception(result)
        else:
            answer.set_result(result)

    async def _execute(self, commands: list[Command]) -> list[Any]:
        """The answers, of which each may be an error. Raises what goes wrong with the connection, or TimeoutError."""
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        task = asyncio.ensure_future(pipeline.execute(raise_on_error=False))
        try:
            await asyncio.wait({task}, timeout=self._timeout)
            for _ in range(_TURNS):  # this process may have been busy, not Redis
                if task.done():
                    break
                await asyncio.sleep(0)
            if task.done():
                return task.result()
            raise TimeoutError
        finally:
            task.cancel()

    def _lost(self, error: Exception) -> None:
        """Opens the circuit, if it isn't open."""
        if self._probing is not None:
            return
        loop = asyncio.get_running_loop()
        self._pause = _FIRST_PAUSE if loop.time() - self._since > _STEADY else min(self._pause * 2, _LONGEST_PAUSE)
        self._up = False
        self._probing = loop.create_task(self._probe_until_found())
        while self._waiting:
            self._answer(self._waiting.popleft()[1], RedisAway())
        self._changed(False)
        _log.warning("Redis unavailable", problem=problem(error))

    def _found(self) -> None:
        again = self._probing is not None
        self._up, self._since, self._probing = True, asyncio.get_running_loop().time(), None
        self._changed(True)
        _log.info("Redis available again" if again else "Redis available")

    async def _probe_until_found(self) -> None:
        pause = self._pause
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            try:
                await self._probe()
            except Exception:  # noqa: BLE001, S112 - whatever it is, the next probe may succeed
                continue
            self._found()
            return

    async def _probe(self) -> None:
        """Writes over every connection: a replica, or a Redis without memory, answers and is unusable."""
        key = f"{self.prefix}probe"
        async with asyncio.timeout(_PROBE_TIMEOUT):
            writes = (self._client.set(key, "1", ex=60) for _ in range(CONNECTIONS))
            results = await asyncio.gather(*writes, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
            if result != b"OK":
                raise ResponseError("SET wasn't answered with OK")


def about_a_key(error: Exception) -> bool:
    """Whether the error is about one key, and not about Redis as a whole."""
    text = str(error)
    return type(error) is ResponseError and bool(_ABOUT_A_KEY.search(text)) and not _ABOUT_REDIS.search(text)


def problem(error: Exception) -> str:
    """What went wrong, for the log: the kind alone, since Redis' words can repeat a command, and with it a password."""
    if type(error) is RedisConnectionError and isinstance(error.__cause__ or error.__context__, OSError):
        return str(error)  # the client's words about the socket
    return type(error).__name__
