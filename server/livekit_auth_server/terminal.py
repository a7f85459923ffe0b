"""What the commands share: consoles, exit codes, JSON output."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Sequence

REFUSED, MISUSE = 1, 2

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]

Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 when there is a warning.")]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:  # noqa: ANN401 - JSON
    """Prints a value as indented JSON."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def end_with(warnings: Sequence[str], *, strict: bool, as_json: bool) -> None:
    """Shows the warnings, unless they were in the JSON, and exits with 1 if there are some and that is asked for."""
    for warning in () if as_json else warnings:
        err.print(f"WARNING {warning}", markup=False, style="yellow")
    if warnings and strict:
        raise typer.Exit(REFUSED)
