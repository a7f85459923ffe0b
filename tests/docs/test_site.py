"""The documentation site, built as `make docs` builds it: strictly, whole, and without anything from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

import livekit_auth
import livekit_auth.agents
import livekit_auth.fastapi
import livekit_auth.sync
from livekit_auth.v1 import auth_service_pb2, errors_pb2, grants_pb2, room_config_pb2, webhook_pb2
from livekit_auth_server.policy.schema import schema
from support.snippets import DOCUMENTS, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTRACT = (auth_service_pb2, errors_pb2, grants_pb2, room_config_pb2, webhook_pb2)
MADE = {"contract.md", "policy-fields.md"}  # with no block of code
ELSEWHERE = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security-policy.md": "SECURITY.md",
    "python-client.md": "clients/python/README.md",
    "examples.md": "examples/README.md",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "tools.website.build", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return out


def named(nav: list[dict[str, Any]]) -> Iterator[str]:
    for entry in nav:
        for value in entry.values():
            yield from named(value) if isinstance(value, list) else [value]


NAV = list(named(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))


@pytest.mark.parametrize("page", NAV)
def test_a_page_of_the_navigation_is_a_document_that_the_tests_read(site: Path, page: str) -> None:
    assert (site / page.replace("README.md", "index.html").replace(".md", ".html")).exists()
    assert page in MADE or ROOT / ELSEWHERE.get(page, f"docs/{page}") in DOCUMENTS


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(NAV)
    for path in pages:
        loaded = re.findall(r"<(?:script|img|iframe|link|source)\b[^>]*?\b(?:src|href)=\"?([^\" >]+)", path.read_text())
        assert loaded
        assert [url for url in loaded if re.match(r"(?:https?:)?//", url)] == [], path
    for path in site.rglob("*.css"):
        assert re.findall(r"url\([\"']?(?:https?:)?//[^)]*|@import[^;]*", path.read_text()) == [], path


def test_every_list_table_and_block_is_one(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = re.sub(r"<(pre|code)\b.*?</\1>", "", path.read_text(), flags=re.DOTALL)
        assert re.findall(r"<p>(?:(?!</p>).)*?\n(?:- |\d+\. |\| )[^\n]{0,60}", text, re.DOTALL) == [], path
        assert "```" not in text, path


def test_the_python_page_has_every_public_name(site: Path) -> None:
    page = (site / "python-api.html").read_text()
    for module in (livekit_auth, livekit_auth.sync, livekit_auth.fastapi, livekit_auth.agents):
        for name in module.__all__:
            assert f'id="{module.__name__}.{name}"' in page, f"{module.__name__}.{name}"


def test_the_page_of_the_contract_has_every_message_field_and_value(site: Path) -> None:
    page = (site / "contract.html").read_text()
    for module in CONTRACT:
        file = module.DESCRIPTOR
        for message in file.message_types_by_name.values():
            assert f'id="{message.name.lower()}"' in page, message.full_name
            assert all(f"<code>{field.name}</code>" in page for field in message.fields), message.full_name
        for enum in file.enum_types_by_name.values():
            assert all(f"<code>{value.name}</code>" in page for value in enum.values), enum.full_name
        for service in file.services_by_name.values():
            assert all(f"<code>{method.name}</code>" in page for method in service.methods)


def test_the_page_of_the_policy_has_every_field(site: Path) -> None:
    page = (site / "policy-fields.html").read_text()
    for name, definition in schema()["$defs"].items():
        assert f'id="{name.lower()}"' in page, name
        assert all(f"<code>{field}</code>" in page for field in definition["properties"]), name
