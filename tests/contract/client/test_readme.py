"""The README's examples and commands, run as they stand."""

import ast
import asyncio
import inspect
import logging
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from livekit_auth._cli.app import app
from livekit_auth.v1.errors_pb2 import ErrorReason
from support.fake_auth_server import TOKEN

README = (Path(__file__).parents[3] / "clients" / "python" / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("livekit-auth ")]


@pytest.mark.parametrize("source", blocks("python"))
async def test_an_example_runs(client, environment, source):
    namespace = {
        "client": client,
        "body": b'{"event": "participant_joined", "id": "EV_1"}',
        "request": SimpleNamespace(headers={"Authorization": "a.b.c"}),
        "handle": print,
        "room": "consult-1",
        "user": "ada",
        "log": logging.getLogger(),
        "Forbidden": Exception,
    }
    code = compile(source, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        await eval(code, namespace)  # noqa: S307 - the project's own text
    else:
        await asyncio.to_thread(exec, code, namespace)


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_command_runs(environment, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    for name, text in {"body.json": "{}", "header.txt": "a.b.c\n", "token.txt": f"{TOKEN}\n"}.items():
        (tmp_path / name).write_text(text)
    result = await asyncio.to_thread(CliRunner().invoke, app, shlex.split(command)[1:])
    assert result.exit_code == 0, result.output


def test_there_are_examples_and_commands():
    assert len(blocks("python")) >= 5
    assert len(COMMANDS) == 4


def test_the_reasons_named_are_the_contracts():
    table = README.partition("## Errors")[2].partition("```")[0]
    reasons = re.findall(r"`([A-Z]+(?:_[A-Z]+)+|INTERNAL)`", table)
    assert len(reasons) > 10
    assert {f"ERROR_REASON_{reason}" for reason in reasons} <= set(ErrorReason.keys())
