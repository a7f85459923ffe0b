"""The pictures show what there is: the demo as it runs, and the parts that the architecture's source names."""

from __future__ import annotations

import hashlib
import html
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs/images"
SVG = "{http://www.w3.org/2000/svg}"


def lines_of_the_screen() -> list[str]:
    """The demo's picture as text: pieces with one clip path are a line, from left to right."""
    lines: dict[str, list[tuple[float, str]]] = {}
    for piece in ET.parse(IMAGES / "demo.svg").iter(f"{SVG}text"):  # noqa: S314 - a file of this repository
        if clip := piece.get("clip-path"):
            lines.setdefault(clip, []).append((float(piece.get("x", "0")), piece.text or ""))
    return ["".join(text for _, text in sorted(pieces)) for pieces in lines.values()]


def skeleton(lines: list[str]) -> list[str]:
    """Words alone, without what differs from run to run."""
    changing = r"[0-9a-f]{8}(?=…)|127\.0\.0\.1:\d+"
    words = [re.sub(changing, "", " ".join(line.split())) for line in lines]
    return [line for line in words if line]


def test_the_picture_of_the_demo_shows_the_demo_as_it_is() -> None:
    """`make demo-picture` draws it anew."""
    done = subprocess.run(["livekit-auth-server", "demo"], capture_output=True, text=True, timeout=60, check=True)
    first, *rest = skeleton(lines_of_the_screen())
    assert first == "$ make demo"
    assert rest == skeleton(done.stdout.splitlines())
    assert len(rest) > 20


@pytest.mark.parametrize("picture", sorted(IMAGES.glob("*.svg")), ids=lambda path: path.name)
def test_a_picture_shows_no_token_and_loads_nothing(picture: Path) -> None:
    text = picture.read_text()
    assert not re.search(r"eyJ[\w-]+\.|[0-9a-f]{32}", re.sub(r"<!--.*?-->", "", text))
    assert not re.search(r"url\(['\"]?http|<(?:image|script|use)\b|@import", text)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_pictures_of_the_architecture_are_those_of_their_source(theme: str) -> None:
    """`make architecture` draws them anew."""
    source, picture = (IMAGES / "architecture.dot").read_bytes(), (IMAGES / f"architecture-{theme}.svg").read_text()
    assert f"<!-- architecture.dot: sha256 {hashlib.sha256(source).hexdigest()} -->" in picture
    labels = {html.unescape(label) for label in re.findall(r"<text[^>]*>([^<]*)</text>", picture)}
    named = re.findall(r"<b>([^<]+)</b>", source.decode())
    assert len(named) > 5
    assert [name for name in named if name not in labels] == []
