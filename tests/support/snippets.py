"""The snippets of the documents."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / name / "README.md" for name in ("server", "clients/python", "examples")),
    ]
)


def snippets(language: str) -> list[tuple[str, str]]:
    """Each block with a name: its document and its number there."""
    return [
        (f"{path.relative_to(ROOT)}:{number}", block)
        for path in DOCUMENTS
        for number, block in enumerate(re.findall(rf"^```{language}\n((?:.*\n)*?)```", path.read_text(), re.MULTILINE))
    ]
