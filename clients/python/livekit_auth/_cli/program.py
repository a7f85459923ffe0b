"""Runs the commands: usage errors as text or JSON, unwritable output, and exit codes."""
# ruff: noqa: ANN401 - typer's options are passed on unchanged

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, cast

import typer
from typer.core import TyperGroup

from livekit_auth._cli import output

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])
"""The base class of typer's errors about options and arguments, which typer doesn't export."""
INTERRUPTED = 130


class Program(TyperGroup):
    """The commands. Each way to end has its exit code and one line of output."""

    def main(  # type: ignore[override] # typer's are not keyword-only
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **options: Any
    ) -> NoReturn:
        """Runs a command and exits."""
        words = list(sys.argv[1:] if args is None else args)
        if any(name.endswith("_COMPLETE") and name.startswith("_") for name in os.environ):
            super().main(words, prog_name, **options)  # a shell asks for completions
        options["standalone_mode"] = False
        try:
            code = self._run(words, prog_name, options)
            output.flush()
        except output.NotWrittenError as error:
            code = output.show_not_written(error)
        sys.exit(code)

    def _run(self, words: list[str], prog_name: str | None, options: dict[str, Any]) -> int:
        try:
            return super().main(words, prog_name, **options) or output.DONE
        except _UsageError as error:
            as_json = "--json" in words[: words.index("--") if "--" in words else None]
            return output.show_misuse(error, as_json=as_json)
        except typer.Abort:
            return INTERRUPTED
        except SystemExit as end:
            if not end.code:  # a completion script was printed
                return output.DONE
            raise output.NotWrittenError(BrokenPipeError()) from end  # how typer ends when help meets a closed pipe
        except OSError as error:  # also from printing help
            if error.errno not in output.CANNOT_WRITE:
                raise
            raise output.NotWrittenError(error) from error
