"""Attempts to get a secret out of the `keys` commands, to break a key file in the middle of one, to lose a change."""

from __future__ import annotations

import base64
import os
import pty
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

import pytest
from typer.testing import CliRunner

from livekit_auth_server.cli.app import app
from livekit_auth_server.files.private_file import PrivateFile
from livekit_auth_server.keys.keys_file import keys_from_file
from support.deployment import environment

UNIT = "Zq7x"  # every part of a secret that matters holds it
SECRET, OTHER, THIRD = (f"{UNIT}{n}" * 8 for n in range(3))
STATES = f"""\
keys:
  - {{id: APIone, secret: {SECRET}, state: active}}
  - {{id: APItwo, secret: {OTHER}, state: verify-only}}
"""
LIVEKIT = f"APIone: {SECRET}\nAPItwo: {OTHER}\n"
PROGRAM = [sys.executable, "-m", "livekit_auth_server.cli", "keys"]


def private(folder: Path, content: str, name: str = "keys.yaml") -> Path:
    path = folder / name
    path.touch(mode=0o600)
    path.write_text(content, newline="")
    return path


def shown(*arguments: object, stdin: str | None = None) -> str:
    """All that a command prints, and the traceback of what it raises."""
    done = CliRunner().invoke(app, ["keys", *map(str, arguments)], input=stdin)
    error = "".join(traceback.format_exception(done.exception)) if done.exception else ""
    return done.output + error + repr(done.exception)


def assert_nothing_of(secret: str, text: str) -> None:
    assert text
    assert secret not in text
    assert base64.b64encode(secret.encode()).decode()[:16] not in text
    assert secret.encode().hex() not in text


COMMANDS = {
    "add": ("add", "FILE", "APInew", "--export", "EXPORT"),
    "add active": ("add", "FILE", "APInew", "--export", "EXPORT", "--active"),
    "add the same secret": ("add", "FILE", "APInew", "--secret-file", "SAME"),
    "promote": ("promote", "FILE", "APItwo"),
    "promote and revoke": ("promote", "FILE", "APItwo", "--revoke", "APIone"),
    "retire": ("retire", "FILE", "APItwo"),
    "retire what is active": ("retire", "FILE", "APIone"),
    "remove": ("retire", "FILE", "APItwo", "--remove"),
    "convert": ("convert", "FILE"),
    "list": ("list", "FILE"),
    "check": ("check", "FILE", "--strict"),
}
FILES = {
    "states": STATES,
    "LiveKit's": LIVEKIT,
    "CRLF": STATES.replace("\n", "\r\n"),
    "anchors": f"keys:\n  - {{id: APIone, secret: &a {SECRET}}}\n  - {{id: APItwo, secret: {OTHER}}}\n",
    "an alias": f"keys:\n  - &a {{id: APIone, secret: {SECRET}}}\n  - {{<<: *a, id: APItwo}}\n",
    "a bad alias": f"keys:\n  - {{id: APIone, secret: *{UNIT}{SECRET}}}\n",
    "a duplicate field": f"keys:\n  - {{id: APIone, secret: {SECRET}, secret: {OTHER}}}\n",
    "a duplicate key": LIVEKIT + f"APIone: {THIRD}\n",
    "a duplicate id": STATES + f"  - {{id: APIone, secret: {THIRD}}}\n",
    "a secret as id": f"keys:\n  - {{id: {SECRET}, secret: APIone}}\n",
    "a secret as field": f"keys:\n  - {{{SECRET}: APIone}}\n",
    "a secret as state": f"keys:\n  - {{id: APIone, secret: {SECRET}, state: {OTHER}}}\n",
    "a secret as time": f"keys:\n  - {{id: APIone, secret: {SECRET}, not_after: {OTHER}}}\n",
    "a short secret": "keys:\n  - {id: APIone, secret: Zq7xZq7x}\n",
    "broken YAML": STATES + f"  - {{id: APInew, secret: '{THIRD}\n",
    "a tab": f"keys:\n\t- {{id: APIone, secret: {SECRET}}}\n",
    "two documents": STATES + "---\n" + LIVEKIT,
    "a tag": f"keys:\n  - !{UNIT} {{id: APIone, secret: {SECRET}}}\n",
    "secrets alone": f"{SECRET}\n{OTHER}\n",
    "one line": f'{{"keys": [{{"id": "APIone", "secret": "{SECRET}"}}]}}',
    "not UTF-8": STATES + "# \udcff\n",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_shows_a_secret_whatever_the_file_is_like(tmp_path: Path, command: str) -> None:
    same = private(tmp_path, SECRET, "same")
    for number, (name, content) in enumerate(FILES.items()):
        for options in ([], ["--json"]) if name in {"states", "LiveKit's"} else ([],):
            path, export = private(tmp_path, "", f"{number}.yaml"), tmp_path / f"export-{number}{len(options)}"
            path.write_bytes(content.encode("utf-8", "surrogateescape"))
            named = {"FILE": path, "EXPORT": export, "SAME": same}
            text = shown(*(named.get(part, part) for part in COMMANDS[command]), *options)
            assert_nothing_of(UNIT, text)
            if export.exists():
                assert_nothing_of(export.read_text().split()[1], text)


def test_a_secret_in_the_wrong_place_of_a_command_isnt_repeated(tmp_path: Path) -> None:
    path = private(tmp_path, STATES)
    for arguments in (
        ("add", path, "APInew", SECRET),
        ("add", path, "APInew", "--secret-file", SECRET),
        ("add", path, "APInew", "--secret-file", tmp_path / SECRET),
        ("add", path, "APInew", f"--secret={SECRET}"),
        ("add", path, "APInew", "--secret", SECRET),
        ("add", path, SECRET, "--secret-file", "-"),
        ("add", path, f"{SECRET}+/=", "--export", tmp_path / "export"),
        ("add", path, "APInew", "--export", tmp_path / "export", "--not-after", SECRET),
        ("promote", path, SECRET),
        ("promote", path, "APItwo", SECRET),
        ("promote", path, "APItwo", "--revoke", SECRET),
        ("retire", path, SECRET),
        ("retire", path, "APItwo", SECRET),
        ("list", path, SECRET),
        ("check", path, SECRET),
        ("convert", path, SECRET),
    ):
        assert_nothing_of(UNIT, shown(*arguments, stdin=f"APInew: {OTHER}"))
    assert path.read_text() == STATES


@pytest.mark.parametrize(
    "given", [f"APInew: {THIRD}", f"{THIRD} {THIRD}", f"{THIRD}\n{THIRD}", f"{THIRD}\0", UNIT, SECRET]
)
def test_a_secret_that_is_refused_isnt_shown(tmp_path: Path, given: str) -> None:
    path = private(tmp_path, STATES)
    for name, arguments in {"-": ("-",), "file": (private(tmp_path, given, "secret"),)}.items():
        text = shown("add", path, "APInew", "--secret-file", *arguments, stdin=given if name == "-" else None)
        assert_nothing_of(UNIT, text)
    assert path.read_text() == STATES


@pytest.mark.parametrize("place", ["_write", "replace"])
def test_the_traceback_of_a_bug_shows_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """As Python prints it, and with the values of all variables of the frames above as their repr."""

    def bug(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(PrivateFile, place, bug)
    path, export = private(tmp_path, STATES), tmp_path / "export"
    for arguments in (("add", path, "--export", export), ("promote", path, "APItwo"), ("retire", path, "APItwo")):
        text = shown(*arguments)
        assert "a bug" in text
        assert_nothing_of(UNIT, text)
    assert not export.exists()
    assert path.read_text() == STATES


def test_a_real_process_shows_no_secret_and_none_of_its_locals(tmp_path: Path) -> None:
    """Rich would print the values of local variables, if the program let it."""
    private(tmp_path, STATES)
    code = (
        "import os, sys\nfrom livekit_auth_server.cli.app import main\nos.fsync = lambda _: 1 / 0\n"
        "sys.argv = ['x', 'keys', 'add', 'keys.yaml', 'APInew', '--secret-file', '-']\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=THIRD,
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ZeroDivisionError" in done.stderr
    assert_nothing_of(UNIT, done.stdout + done.stderr)
    assert (tmp_path / "keys.yaml").read_text() == STATES
    assert [file.name for file in tmp_path.iterdir()] == ["keys.yaml"]


def test_a_secret_that_is_typed_isnt_echoed(tmp_path: Path) -> None:
    path = private(tmp_path, STATES)
    parent, child = pty.openpty()
    command = [*PROGRAM, "add", str(path), "APInew", "--secret-file", "-"]
    with subprocess.Popen(
        command, stdin=child, stdout=child, stderr=child, env=environment(), start_new_session=True
    ) as process:
        os.close(child)
        text = b""
        while b"isn't shown" not in text:
            text += os.read(parent, 1024)
        os.write(parent, f"{THIRD}\n".encode())
        try:
            while piece := os.read(parent, 1024):
                text += piece
        except OSError:
            pass  # what Linux says when the other side is closed
        assert process.wait(20) == 0
    os.close(parent)
    assert b"APInew added" in text
    assert_nothing_of(UNIT, text.decode())
    assert [key.id for key in keys_from_file(path)] == ["APIone", "APItwo", "APInew"]


KILLING = """
import os, signal, sys
from pathlib import Path
from livekit_auth_server.keys import lifecycle
from livekit_auth_server.keys.keys_file import keys_from_file

folder = Path(sys.argv[1])
path, export = folder / "keys.yaml", folder / "export"
old = path.read_bytes()
seen = {"old": 0, "new": 0}
POINTS = {"open", "os.rename", "os.remove", "os.chmod", "os.chown", "os.getxattr", "os.setxattr", "fcntl.flock"}
POINTS |= {"fsync", "fchmod", "fstat", "close"}  # before and after

def edit(point):
    count = 0
    def hook(event, _):
        nonlocal count
        if event not in POINTS:
            return
        count += 1
        if count == point:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    for name in ("fsync", "fchmod", "fstat", "close"):
        def watched(*arguments, name=name, real=getattr(os, name)):
            hook(name, ())
            result = real(*arguments)
            hook(name, ())
            return result
        setattr(os, name, watched)
    lifecycle.add(path, lifecycle.NewKey("APInew", export=export, active=True), 1_800_000_000)
    os._exit(0)

for point in range(1, 500):
    if (child := os.fork()) == 0:
        try:
            edit(point)
        finally:
            os._exit(3)
    status = os.waitpid(child, 0)[1]
    keys = [key.id for key in keys_from_file(path)]
    assert path.stat().st_mode & 0o777 == 0o600
    if path.read_bytes() == old:
        seen["old"] += 1
    else:
        assert keys == ["APIone", "APItwo", "APInew"], keys
        assert [key.id for key in keys_from_file(export)] == ["APInew"]  # it is never lost
        seen["new"] += 1
    for left in folder.iterdir():
        assert left.stat().st_mode & 0o077 == 0, left
    export.unlink(missing_ok=True)
    path.write_bytes(old)
    if status == 0:
        break
    assert os.WIFSIGNALED(status), status
else:
    raise AssertionError("never came to the end")
print(seen["old"], seen["new"], sorted(file.name for file in folder.iterdir()))
"""


@pytest.mark.slow  # in the fast suite: unit/files/test_private_file.py
def test_killed_command_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    private(tmp_path, STATES)
    done = subprocess.run(
        [sys.executable, "-c", KILLING, tmp_path],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    old, new, *left = done.stdout.split(maxsplit=2)
    assert int(old) > 20
    assert int(new) >= 2
    assert left == ["['keys.yaml']\n"]  # the last one cleared away what those before it had left


@pytest.mark.slow  # in the fast suite: unit/files/test_private_file.py
def test_concurrent_commands_lose_no_change_and_no_reader_sees_half_a_file(tmp_path: Path) -> None:
    path = private(tmp_path, STATES)
    stopping, read = threading.Event(), []

    def reader() -> None:
        while not stopping.is_set():
            read.append(len(keys_from_file(path)))

    watching = threading.Thread(target=reader)
    watching.start()
    try:
        started = [
            subprocess.Popen(
                [*PROGRAM, "add", path, f"APInew{n}", "--export", tmp_path / f"export{n}"], env=environment()
            )
            for n in range(5)
        ]
        assert [process.wait(60) for process in started] == [0] * 5
    finally:
        stopping.set()
        watching.join()
    assert {key.id for key in keys_from_file(path)} == {"APIone", "APItwo", *(f"APInew{n}" for n in range(5))}
    assert read == sorted(read)
    assert read[0] == 2


UNPRIVILEGED = """
import encodings.utf_8_sig, os
import livekit_auth_server.keys.lifecycle  # what is imported later might not be readable to everybody
from livekit_auth_server.cli.app import main
if os.geteuid() == 0:
    os.seteuid(65534)
main()
"""


def test_in_a_folder_that_cant_be_written_the_file_stays_and_the_message_says_why() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = private(Path(folder), STATES)
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
        Path(folder).chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, "keys", "promote", path, "APItwo"],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        Path(folder).chmod(0o755)
        assert done.returncode == 2
        assert "can't be replaced (Permission denied)" in done.stderr
        assert path.read_text() == STATES
