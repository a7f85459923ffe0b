"""A program that answers questions, one line of JSON each: LiveKit's verifier in Go, protovalidate."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


@contextmanager
def oracle(command: Sequence[str | Path]) -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
    """Runs the program for as long as the context lasts, and yields the function that asks it."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        questions, answers = process.stdin, process.stdout
        assert questions
        assert answers

        def ask(question: dict[str, Any]) -> dict[str, Any]:
            questions.write(json.dumps(question) + "\n")
            questions.flush()
            return json.loads(answers.readline())

        yield ask
        questions.close()
        assert process.wait(10) == 0
