"""Builds the documentation site into a folder, without a network. Exits with 1 for a broken link, anchor or reference.

The pages are docs/, the documents in PAGES, those made from the contract and the policy's schema, and each file of the
repository that a page links to: every link between documents stays within the site.
"""

import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tools.website.contract import contract_page
from tools.website.policy_schema import schema_page

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "zensical.toml"
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "clients/python/README.md": "python-client.md",
    "examples/README.md": "examples.md",
}
"""Documents outside docs/, and the pages that show them."""

_LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)#\s]+)")
_CODE = re.compile(r"(^[ ]*```.*?^[ ]*```[ ]*$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
_LIST = re.compile(r"^((?![ \n#|-]|\d+\. |```).+\n)(?=- |1\. )", re.MULTILINE)
"""A paragraph's last line before a list. Python's Markdown needs an empty line between them; GitHub doesn't."""

_LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json"}


def main() -> int:
    """Builds the site into the folder given as the first argument."""
    out = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(prefix="livekit-auth-site-") as folder:
        tree = Path(folder)
        write(tree)
        if problems := sorted(lost(tree / "docs")):
            print("\n".join(problems), file=sys.stderr)
            return 1
        command = [sys.executable, "-m", "zensical", "build", "--strict"]
        done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stdout + done.stderr, file=sys.stderr)
            return 1
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(tree / "site", out)
    return 0


def write(tree: Path) -> None:
    """Writes the generator's input: its configuration, and every page with its links rewritten."""
    shutil.copy(CONFIG, tree)
    (tree / "clients").symlink_to(ROOT / "clients")
    shutil.copytree(ROOT / "docs", tree / "docs")
    texts = {f"docs/{path.relative_to(ROOT / 'docs')}": path.read_text() for path in (ROOT / "docs").rglob("*.md")}
    texts |= {path: (ROOT / path).read_text() for path in PAGES if (ROOT / path).exists()}
    pages = {page_of(path): moved(text, path) for path, text in texts.items()}
    targets = {target for path, text in texts.items() for target in _targets(text, path)}
    pages |= {page: _shown(target) for target in targets if (page := page_of(target)).startswith("source/")}
    pages |= {"contract.md": contract_page(ROOT), "policy-fields.md": schema_page(ROOT)}
    for page, text in pages.items():
        (tree / "docs" / page).parent.mkdir(parents=True, exist_ok=True)
        (tree / "docs" / page).write_text(text)


def lost(docs: Path) -> Iterator[str]:
    """Differences between navigation and pages. Readers reach decisions from their index, and sources by links."""
    listed = list(_named(tomllib.loads(CONFIG.read_text())["project"]["nav"]))
    there = {str(path.relative_to(docs)) for path in docs.rglob("*.md")}
    yield from (f"zensical.toml: {page} is in the navigation and doesn't exist" for page in set(listed) - there)
    yield from (f"zensical.toml: {page} is in the navigation twice" for page in listed if listed.count(page) > 1)
    for page in there - set(listed):
        if not re.match(r"source/|adr/\d{4}-", page):
            yield f"zensical.toml: {page} isn't in the navigation"


def moved(text: str, path: str) -> str:
    """A document for the site: its links to files of the repository lead to pages."""
    folder = posixpath.dirname(page_of(path)) or "."

    def link(match: re.Match[str]) -> str:
        return match[1] + posixpath.relpath(page_of(_target(path, match[2])), folder)

    # The odd parts are code.
    text = "".join(part if at % 2 else _LINK.sub(link, part) for at, part in enumerate(_CODE.split(text)))
    return _LIST.sub(r"\1\n", text)


def page_of(path: str) -> str:
    """The site's path of a file in the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith(("protos/", "protos-plain/")):
        return "contract.md"
    return "index.md" if path == "README.md" else PAGES.get(path, f"source/{path}.md")


def _targets(text: str, path: str) -> set[str]:
    """The files of the repository that a document links to."""
    return {_target(path, link) for _, link in _LINK.findall(_CODE.sub("", text))}


def _target(path: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def _shown(target: str) -> str:
    """The page of a file. Raises FileNotFoundError or IsADirectoryError for a link that leads to no file."""
    path = ROOT / target
    return f"# {target}\n\n````{_LANGUAGES.get(path.suffix, 'text')}\n{path.read_text()}````\n"


def _named(nav: list[dict[str, object]]) -> Iterator[str]:
    for entry in nav:
        for value in entry.values():
            if isinstance(value, list):
                yield from _named(value)
            else:
                yield str(value)


if __name__ == "__main__":
    sys.exit(main())
