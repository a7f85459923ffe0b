"""What the documents tell somebody to type, click or watch exists: commands, options, headings, metrics, tests."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
import typer

from livekit_auth._cli.app import app as client_app
from livekit_auth_server.cli.app import app as server_app
from support.snippets import DOCUMENTS, ROOT, blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAMS = {
    "livekit-auth-server": typer.main.get_command(server_app),
    "livekit-auth": typer.main.get_command(client_app),
}
NAME = re.compile(r"(?:^|[\s/])(livekit-auth(?:-server)?)(?=\s+[a-z-])")


def commands(path: Path, *, spans: bool = True) -> Iterator[str]:
    """Each call of a program in shell blocks, continued lines joined, up to a pipe; and in code spans."""
    text = path.read_text()
    shell = "\n".join(block for language, block in blocks(path) if language == "sh").replace("\\\n", " ")
    found_spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)) if spans else []
    for line in [*shell.splitlines(), *(span for span in found_spans if span.startswith("livekit-auth"))]:
        found = list(NAME.finditer(line))
        # Elsewhere it is the name of an image, a unit or a release.
        if found and not re.match(r"\s*(docker|systemctl|helm|kubectl|install|spire-server)\b", line):
            yield re.split(r"\s+(?:\|\|?|&&|[;#])\s|\s+\d?[<>]|(?<=\w)[;)]", line[found[-1].start(1) :])[0]


def unknown(command: str) -> str:
    """What of a command its program doesn't have; nothing if all is there."""
    program, *words = shlex.split(command.replace("…", ""), comments=True)
    at: Any = PROGRAMS[program]
    while hasattr(at, "commands") and words and re.fullmatch(r"[a-z][a-z-]*", words[0]):
        name = words.pop(0)
        if name not in at.commands:
            return f"{program}: no command {name}"
        at = at.commands[name]
    options = {option for parameter in at.params for option in (*parameter.opts, *parameter.secondary_opts)}
    options |= {"--help"}
    words = words[: words.index("--")] if "--" in words else words  # what follows is another program's
    return ", ".join(word for word in words if word.startswith("--") and word.partition("=")[0] not in options)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_and_option_that_is_named_exists(path: Path) -> None:
    for command in commands(path):
        assert unknown(command) == "", command


def refused(command: str) -> str:
    """What a program's own parser has against a whole command; nothing if it takes it."""
    program, *words = shlex.split(command, comments=True)
    at: Any = PROGRAMS[program]
    while hasattr(at, "commands") and words and words[0] in at.commands:
        at = at.commands[words.pop(0)]
    try:
        at.make_context(program, words)
    except (typer.Exit, SystemExit):  # --help, --version
        return ""
    except Exception as error:  # noqa: BLE001 - the parser's own kinds of errors
        return f"{type(error).__name__}: {getattr(error, 'message', '') or error}"
    return ""


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_a_shell_block_is_taken_by_its_parser(path: Path) -> None:
    for command in commands(path, spans=False):
        assert refused(command) == "", command


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("livekit-auth-server policy check p.yaml", ""),
        ("livekit-auth-server policy check", "MissingParameter"),
        ("livekit-auth-server serve", "MissingParameter"),
        ("livekit-auth-server audit tail x -n many", "BadParameter"),
        ("livekit-auth-server audit tail x y", "UsageError"),
        ("livekit-auth-server dev --dri x", "NoSuchOption"),
    ],
)
def test_a_command_that_its_parser_refuses_is_noticed(command: str, problem: str) -> None:
    assert refused(command).partition(":")[0] == problem


def test_commands_are_found_at_all() -> None:
    found = [command for path in DOCUMENTS for command in commands(path)]
    assert len(found) > 25
    assert {command.split()[0] for command in found} == PROGRAMS.keys()


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("livekit-auth-server policy check p.yaml", ""),
        ("livekit-auth-server policy chekc p.yaml", "livekit-auth-server: no command chekc"),
        ("livekit-auth-server audit query x --since 1h --calller y", "--calller"),
        ("livekit-auth token --role guest --room=r", ""),
        ("livekit-auth frob", "livekit-auth: no command frob"),
    ],
)
def test_a_command_that_is_not_there_is_noticed(command: str, problem: str) -> None:
    assert unknown(command) == problem


def anchor(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_headings_lead_to_one(path: Path) -> None:
    for target, name in re.findall(r"\]\((?!https?:)((?:[^)#]*\.md)?)#([^)]+)\)", path.read_text()):
        page = path.parent / target if target else path
        headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
        assert name in {anchor(heading) for heading in headings}, f"{target}#{name}"


def test_the_metrics_that_are_named_exist() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "server").rglob("*.py"))
    known = set(re.findall(r'"(livekit_auth_[a-z_]+)"', code))
    for path in DOCUMENTS:
        text = re.sub(r"livekit_auth_server\b", "", path.read_text())
        named = set(re.findall(r"`(livekit_auth_[a-z_]+)[`{]", text))
        assert {name for name in named if name not in known and name.removesuffix("_total") not in known} == set(), path


@pytest.mark.parametrize("page", ["incidents.md", "operations.md", "audit.md"])
def test_the_log_lines_that_are_named_are_written(page: str) -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "server").rglob("*.py"))
    text = re.sub(r"```.*?```", "", (ROOT / "docs" / page).read_text(), flags=re.DOTALL)
    events = re.findall(r'"event":"([^"]+)"', text)
    sentences = re.findall(
        r"`((?:Redis (?:un)?available|Redis gave|worker [dht]|rolling restart |the audit trail|reload failed)[^`]*)`",
        text,
    )
    assert [event for event in events if f'"{event}"' not in code] == []
    assert [line for line in sentences if f'"{line}' not in code] == []  # pages may give a message's beginning


@pytest.mark.parametrize("page", ["threat-model.md", "security.md"])
def test_the_tests_that_are_named_exist(page: str) -> None:
    named = re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", (ROOT / "docs" / page).read_text())
    assert len(named) > 15
    for path, function in named:
        assert f"def {function}(" in (ROOT / path).read_text() if function else (ROOT / path).exists(), (path, function)
