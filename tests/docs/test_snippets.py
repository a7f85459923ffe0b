"""Every snippet of the documents is whole: no name is undefined, and shells take it. test_snippets_run.py runs them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.snippets import snippets

PYTHON, SHELL = snippets("python"), snippets("sh")


def test_there_are_snippets() -> None:
    assert (len(PYTHON) > 12, len(SHELL) > 25) == (True, True)


@pytest.mark.parametrize(("name", "source"), PYTHON, ids=[name for name, _ in PYTHON])
def test_no_name_of_a_python_snippet_is_undefined_or_unused(name: str, source: str) -> None:
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--quiet",
        "--select",
        "F",
        "--stdin-filename",
        "snippet.py",
        "-",
    ]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("name", "source"), SHELL, ids=[name for name, _ in SHELL])
def test_a_shell_snippet_is_one(name: str, source: str) -> None:
    done = subprocess.run(["bash", "-n"], input=source, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
