"""Runs the commands of the client's README unchanged; tests/docs/test_snippets.py runs its Python."""

import asyncio
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from livekit_auth._cli.app import app
from livekit_auth.v1.errors_pb2 import ErrorReason
from support.fake_auth_server import TOKEN

README = (Path(__file__).parents[3] / "clients" / "python" / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("livekit-auth ")]


@pytest.mark.parametrize("command", COMMANDS)
async def test_command_runs(environment, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    for name, text in {"body.json": "{}", "header.txt": "a.b.c\n", "token.txt": f"{TOKEN}\n"}.items():
        (tmp_path / name).write_text(text)
    result = await asyncio.to_thread(CliRunner().invoke, app, shlex.split(command)[1:])
    assert result.exit_code == 0, result.output


def test_readme_has_commands():
    assert len(COMMANDS) == 5


def test_reasons_in_the_readme_are_those_of_the_contract():
    table = README.partition("## Errors")[2].partition("```")[0]
    reasons = re.findall(r"`([A-Z]+(?:_[A-Z]+)+|INTERNAL)`", table)
    assert len(reasons) > 10
    assert {f"ERROR_REASON_{reason}" for reason in reasons} <= set(ErrorReason.keys())
