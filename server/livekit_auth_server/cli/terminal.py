"""What the commands share: consoles, exit codes, help as people expect it, JSON output."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REFUSED = 1

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]

Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 when there is a warning.")]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:  # noqa: ANN401 - JSON
    """Prints a value as indented JSON in printable ASCII."""
    sys.stdout.write(json.dumps(value, indent=2).replace("\x7f", "\\u007f") + "\n")


def end_with(warnings: Sequence[str], *, strict: bool, as_json: bool) -> None:
    """Shows the warnings, unless they were in the JSON, and exits with 1 if there are some and that is asked for."""
    for warning in () if as_json else warnings:
        err.print(f"WARNING {warning}", markup=False, style="yellow")
    if warnings and strict:
        raise typer.Exit(REFUSED)


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - typer's own types
        """Flags take no value, and their help shows none."""
        return _flags_shown(super().get_params(ctx))


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401
        """Likewise."""
        return _flags_shown(super().get_params(ctx))


def _flags_shown(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


class App(typer.Typer):
    """A group of commands: -h beside --help, flags shown as flags, and examples at the end of a command's help."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - typer's
        super().__init__(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]}, **settings)

    def command(self, *names: Any, examples: tuple[str, ...] = (), **settings: Any) -> Callable[..., Any]:  # noqa: ANN401
        """As typer's; `examples` are lines to copy."""
        return super().command(*names, cls=_Command, epilog=shown_examples(*examples), **settings)


def shown_examples(*lines: str) -> str | None:
    """The end of a help text."""
    return "\n\n".join(["Examples:", *lines]) if lines else None
