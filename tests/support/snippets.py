"""The documents, and the blocks of code in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / name / "README.md" for name in ("server", "clients/python", "examples")),
    ]
)
_FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```[ ]*$", re.DOTALL | re.MULTILINE)


def blocks(path: Path) -> list[tuple[str, str]]:
    """The language and text of each block; one that is indented, in a list or a tab, without its indentation."""
    return [
        (language.strip(), re.sub(rf"^{indent}", "", text, flags=re.MULTILINE))
        for indent, language, text in _FENCE.findall(path.read_text())
    ]


def snippets(language: str) -> list[tuple[str, str]]:
    """Each block of a language with a name: its document and its number there."""
    return [
        (f"{path.relative_to(ROOT)}:{number}", text)
        for path in DOCUMENTS
        for number, text in enumerate(text for found, text in blocks(path) if found == language)
    ]
