"""Draws docs/images/architecture.dot with graphviz, once for each theme, on a transparent background."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

IMAGES = Path(__file__).resolve().parents[1] / "docs/images"
THEMES = {
    "light": {"text": "#1f2328", "quiet": "#59636e", "line": "#818b98", "box": "#f6f8fa", "accent": "#8250df"},
    "dark": {"text": "#f0f6fc", "quiet": "#9198a1", "line": "#656c76", "box": "#151b23", "accent": "#b88dfb"},
}


def main() -> int:
    """Writes architecture-light.svg and architecture-dark.svg, which name the source that they show."""
    source = (IMAGES / "architecture.dot").read_text()
    mark = f"<!-- architecture.dot: sha256 {hashlib.sha256(source.encode()).hexdigest()} -->\n"
    for theme, colours in THEMES.items():
        coloured = source
        for name, colour in colours.items():
            coloured = coloured.replace(f'"@{name}"', f'"{colour}"')
        drawn = subprocess.run(["dot", "-Tsvg"], input=coloured, capture_output=True, text=True, check=True).stdout
        svg = re.sub(r"<!--.*?-->\n?", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
        svg = re.sub(r'<g id="node.*?</g>', _centred, svg, flags=re.DOTALL)
        svg = svg.replace("Helvetica,sans-Serif", "Helvetica, Arial, sans-serif")
        (IMAGES / f"architecture-{theme}.svg").write_text(mark + svg)
    return 0


def _centred(node: re.Match[str]) -> str:
    """A box with centred lines: dot places lines by the widths of its own fonts, not the reader's."""
    outline = re.search(r' (?:d|points)="([^"]*)"', node[0])
    if outline is None:
        raise ValueError(f"a node without an outline: {node[0]}")
    across = [float(x) for x in re.findall(r"(-?[\d.]+),-?[\d.]+", outline[1])]
    middle = (min(across) + max(across)) / 2
    return re.sub(r'text-anchor="start" x="[^"]*"', f'text-anchor="middle" x="{middle:g}"', node[0])


if __name__ == "__main__":
    sys.exit(main())
