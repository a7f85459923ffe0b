"""The server's command line: help as people ask for it, examples that parse, flags that look like flags."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from livekit_auth_server.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOT = typer.main.get_command(app)


def commands(command: Any = ROOT, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


SHOWN = [(path, command) for path, command in commands() if not command.hidden]


def run(*words: str) -> Any:
    return CliRunner().invoke(app, words)


@pytest.mark.parametrize("path", [path for path, _ in SHOWN], ids=" ".join)
def test_h_is_help(path: tuple[str, ...]) -> None:
    short, long = run(*path, "-h"), run(*path, "--help")
    assert (short.exit_code, short.output) == (0, long.output)
    assert "Usage:" in short.output


@pytest.mark.parametrize(("path", "command"), SHOWN, ids=[" ".join(path) for path, _ in SHOWN])
def test_a_flag_is_shown_as_one(path: tuple[str, ...], command: Any) -> None:
    output = run(*path, "--help").output
    flags = [option for p in command.params if getattr(p, "is_flag", False) for option in p.opts]
    assert "<bool>" not in output
    for flag in flags:
        assert flag in output


EXAMPLES = [
    line
    for _, command in SHOWN
    for line in (command.epilog or "").splitlines()
    if line.startswith("livekit-auth-server ")
]


def test_most_commands_have_examples() -> None:
    without = [path for path, command in SHOWN if not hasattr(command, "commands") and not command.epilog]
    assert without == [("demo",)]


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_parses(line: str) -> None:
    words = shlex.split(re.split(r" > ", line)[0])[1:]
    command: Any = ROOT
    while hasattr(command, "commands"):
        if command is not ROOT and words[0].startswith("-"):
            break
        command = command.commands[words.pop(0)]
    command.make_context("example", words)  # raises for an option or a number of arguments that it doesn't take


def test_completion_can_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--install-completion" in run("--help").output
    monkeypatch.setenv("_LIVEKIT_AUTH_SERVER_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "livekit-auth-server po")
    monkeypatch.setenv("COMP_CWORD", "1")
    done = CliRunner().invoke(app, [], prog_name="livekit-auth-server")
    assert done.output.split() == ["policy"]


def test_dev_adds_a_caller_and_says_what_it_did(tmp_path: Path) -> None:
    folder = str(tmp_path / "dev")
    assert run("dev", "--dir", folder).exit_code == 0
    shown = run("dev", "add-caller", "billing", "--dir", folder)
    assert shown.exit_code == 0
    for words in ("spiffe://dev.example.org/billing", "roles: [guest]", f"LIVEKIT_AUTH_CERT={folder}/billing.pem"):
        assert words in shown.output
    as_json = json.loads(run("dev", "add-caller", "other", "--dir", folder, "--json").output)
    assert as_json["files"] == ["other.pem", "other.key"]
    assert "spiffe://dev.example.org/other" in as_json["policy_entry"]


def test_the_commands_of_dev_work_in_a_folder_whose_name_needs_quotes(tmp_path: Path) -> None:
    folder = tmp_path / "it's [red]; here"
    done = json.loads(run("dev", "--dir", str(folder), "--json").output)
    serve, *rest = map(shlex.split, done["commands"])
    assert serve == ["livekit-auth-server", "serve", "--config", str(folder / "server.yaml")]
    exports = [f"{name}={value}" for name, value in done["environment"].items()]
    assert [words[1:] for words in rest if words[0] == "export"] == [[export] for export in exports]
    shown = run("dev", "add-caller", "billing", "--dir", str(folder)).output
    assert ["export", f"LIVEKIT_AUTH_CERT={folder}/billing.pem"] in map(shlex.split, shown.splitlines()[-2:])


@pytest.mark.parametrize("words", [["dev"], ["dev", "add-caller", "x"]])
def test_dev_without_a_folder_is_misuse(words: list[str]) -> None:
    done = run(*words)
    assert done.exit_code == 2
    assert "--dir" in done.output


def test_a_query_without_a_match_says_so(tmp_path: Path) -> None:
    (tmp_path / "audit.0.jsonl").touch()
    done = run("audit", "query", str(tmp_path), "--room", "nowhere")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "No decision matches.\n")
    by_id = run("audit", "query", str(tmp_path), "--decision", "d1")
    assert by_id.stderr.startswith("No decision matches. Denials beyond 10 per second")
    assert json.loads(run("audit", "query", str(tmp_path), "--json").stdout) == {"records": [], "left_out": []}
