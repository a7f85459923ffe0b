"""Generates the client for threads from the client for asyncio by replacing words.

`python tools/unasync.py` writes livekit_auth/_sync. With `--check` it writes nothing and fails if _sync is out of date.
"""

from __future__ import annotations

import difflib
import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "clients" / "python" / "livekit_auth"
SOURCE = PACKAGE / "_async"
TARGET = PACKAGE / "_sync"

HEADER = "# Generated from livekit_auth/_async/{name} by tools/unasync.py: edit that file instead.\n"

# Applied in this order; each matches from the start of a word.
REPLACEMENTS = [
    (r"The client for asyncio, from which .* livekit_auth\._sync\.", "The client for threads."),
    (r"# ruff: noqa: ASYNC109 [^\n]*\n", ""),
    (r"await ", ""),
    (r"async (def|with|for) ", r"\1 "),
    (r"import grpc\.aio", "import grpc"),
    (r"grpc\.aio\.", "grpc."),
    (r"AsyncSingleFlight", "SingleFlight"),
    (r"asynccontextmanager", "contextmanager"),
    (r"AsyncIterator", "Iterator"),
    (r"AsyncRetrying", "Retrying"),
    (r"AuthServiceAsyncStub", "AuthServiceStub"),
    (r"__aenter__", "__enter__"),
    (r"__aexit__", "__exit__"),
    (r"livekit_auth\._async", "livekit_auth._sync"),
]
LEFTOVER = re.compile(r"\b(a?sync(io)?|await|aio|Async\w*|__a\w+__)\b(?!\.py)")


def translate(text: str, name: str) -> str:
    """The source of a module for threads. Raises SystemExit if any asyncio code remains in it."""
    for pattern, replacement in REPLACEMENTS:
        text = re.sub(
            rf"(?<!\w){pattern}(?!\w)" if pattern[-1] not in " ." else rf"(?<!\w){pattern}", replacement, text
        )
    if leftover := LEFTOVER.search(text):
        raise SystemExit(f"{name}: no rule for {leftover[0]!r}")
    return tidy(HEADER.format(name=name) + text, name)


def tidy(text: str, name: str) -> str:
    """Removes imports that have become duplicates, and formats: shorter lines may now fit."""
    lines = text.splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith("    from ") or line.lstrip() not in lines)
    filename = str(TARGET / name)
    for arguments in (["check", "--quiet", "--fix-only", "--select=I"], ["format", "--quiet"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", filename, "-"]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    return text


def main() -> None:
    """Writes the generated modules, or with --check compares them with the existing ones."""
    check = sys.argv[1:] == ["--check"]
    stale = sorted({path.name for path in TARGET.glob("*.py")} - {path.name for path in SOURCE.glob("*.py")})
    for path in sorted(SOURCE.glob("*.py")):
        target = TARGET / path.name
        wanted = translate(path.read_text(), path.name)
        present = target.read_text() if target.exists() else ""
        if wanted == present:
            continue
        if check:
            stale.append(path.name)
            sys.stdout.writelines(difflib.unified_diff(present.splitlines(True), wanted.splitlines(True), str(target)))
        else:
            target.parent.mkdir(exist_ok=True)
            target.write_text(wanted)
    if stale:
        raise SystemExit(
            f"out of date: {', '.join(stale)}; run python tools/unasync.py (and delete modules without a source)"
        )


if __name__ == "__main__":
    main()
