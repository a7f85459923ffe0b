"""The documents name the methods that are declared, and no others."""

from __future__ import annotations

import re
from pathlib import Path

from livekit_auth_server.service.methods import LIMITED, METHODS

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_policy_page_names_every_method_that_a_limit_can_count() -> None:
    row = re.search(r"^\| `methods` \| ([^|]*) \|", (DOCS / "policy.md").read_text(), re.MULTILINE)
    assert row
    assert tuple(re.findall(r"`(\w+)`", row[1])) == (*LIMITED, "any")


def test_the_first_page_tells_of_every_method_in_order() -> None:
    table = (DOCS / "index.md").read_text().split("## What it does\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| \*\*(\w+)\*\* \|", table, re.MULTILINE) == [method.name for method in METHODS]


def test_no_page_names_a_method_that_isnt_there() -> None:
    named = {
        name
        for page in DOCS.rglob("*.md")
        for name in re.findall(r"livekit_auth\.v1\.AuthService/([A-Z][a-z]\w+)", page.read_text())
    }
    assert named <= {method.name for method in METHODS}
    assert named
