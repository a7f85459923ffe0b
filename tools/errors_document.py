"""Writes the table of docs/errors.md from the comments in errors.proto, or compares it with --check.

A reason's comment has its gRPC code, what happened, and in a second paragraph what to do. The code says whether to
retry.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONTRACT = ROOT / "protos/livekit_auth/v1/errors.proto"
DOCUMENT = ROOT / "docs/errors.md"
_RETRY = {"UNAVAILABLE": "with backoff", "RESOURCE_EXHAUSTED": "after `RetryInfo`"}
_VALUE = re.compile(r"((?:^  //.*\n)+)^  ERROR_REASON_(\w+) = [1-9]", re.MULTILINE)
_COMMENT = re.compile(r"([A-Z_]+)\. (\S.*)\n\n(\S.*)\n")
_TABLE = re.compile(r"(<!-- from errors\.proto: make proto -->\n\n)[^<]*(\n<!-- to here -->)")
_HEAD = "| reason | code | retry | what happened | what to do |\n|---|---|---|---|---|\n"


def rows(contract: str) -> Iterator[str]:
    """A row for each reason. Raises SystemExit for a comment without a code or without what to do."""
    for comment, reason in _VALUE.findall(contract):
        text = re.sub(r"(?<=\S)\n(?=\S)", " ", re.sub(r"^  // ?", "", comment, flags=re.MULTILINE))
        found = _COMMENT.fullmatch(text)
        if not found:
            raise SystemExit(
                f"{CONTRACT}: {reason}: write its code, what happened, and in a second paragraph what to do"
            )
        code, happened, action = found.groups()
        yield f"| `{reason}` | `{code}` | {_RETRY.get(code, 'no')} | {happened} | {action} |\n"


def main() -> None:
    """Exits with 1 if --check finds a difference."""
    before = DOCUMENT.read_text()
    table = _HEAD + "".join(rows(CONTRACT.read_text()))
    after, count = _TABLE.subn(lambda found: found[1] + table + found[2], before)
    if count != 1:
        raise SystemExit("docs/errors.md has no place for the table")
    if "--check" not in sys.argv:
        DOCUMENT.write_text(after)
    elif after != before:
        raise SystemExit("docs/errors.md doesn't match errors.proto; run: make proto")


if __name__ == "__main__":
    main()
