"""Draws what `make demo` prints as docs/images/demo.svg, with values that differ at each run replaced by fixed ones."""

from __future__ import annotations

import hashlib
import io
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from livekit_auth_server.cli import demo, terminal

if TYPE_CHECKING:
    from collections.abc import Callable

PICTURE = Path(__file__).resolve().parents[1] / "docs/images/demo.svg"
WIDTH = 84  # columns
_FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def main() -> int:
    """Runs the demo and writes the picture; returns the demo's exit code."""
    screen = Console(
        record=True,
        width=WIDTH,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
        legacy_windows=False,
    )
    screen.print("[bold]$ make demo[/bold]")
    for module in (demo, terminal):
        vars(module)["out"] = screen
    code = demo.run(as_json=False)
    if code == 0:
        PICTURE.write_text(picture(screen))
    return code


def picture(screen: Console) -> str:
    """The recorded screen as SVG that loads no font, the same for each run."""
    svg = screen.export_svg(title="livekit-auth", unique_id="demo")
    svg = re.sub(r"@font-face \{.*?\}\n", "", svg, flags=re.DOTALL)
    svg = re.sub(r"Fira Code, monospace|arial", _FONT, svg)
    svg = re.sub(r"\b(127\.0\.0\.1:)\d{5}\b", r"\g<1>40127", svg)
    svg = re.sub(r"\b(127\.0\.0\.1:)\d{4}\b", r"\g<1>4012", svg)
    svg = re.sub(r"\b[0-9a-f]{8}(?=…)", _counted(), svg)
    return re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE)


def _counted() -> Callable[[re.Match[str]], str]:
    """Replaces each value with a fixed one that depends on its position."""
    seen: dict[str, str] = {}

    def of(match: re.Match[str]) -> str:
        return seen.setdefault(match[0], hashlib.sha256(str(len(seen)).encode()).hexdigest()[:8])

    return of


if __name__ == "__main__":
    sys.exit(main())
