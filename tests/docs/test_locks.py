"""The image's locks are parts of the one lock: the same versions with the same hashes, complete, and nothing else."""

from __future__ import annotations

import re
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements"
OWN = {"livekit-auth", "livekit-auth-server"}
ROOTS = {
    "server.txt": ["livekit-auth-server[redis,otlp,spiffe]"],
    "build.txt": ["hatchling"],
}


def pins(lock: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Each package's version and hashes."""
    text = (REQUIREMENTS / lock).read_text()
    found = re.findall(r"^([\w.-]+)==(\S+).*\n((?:    --hash.*\n?)+)", text, re.MULTILINE)
    return {name: (version, frozenset(re.findall(r"sha256:[0-9a-f]{64}", hashes))) for name, version, hashes in found}


def needed(roots: list[str]) -> set[str]:
    """What these need on this platform, by what is installed."""
    seen: set[tuple[str, str]] = set()
    waiting = [
        (canonicalize_name(root.name), extra) for root in map(Requirement, roots) for extra in ("", *root.extras)
    ]
    while waiting:
        at = waiting.pop()
        if at in seen:
            continue
        seen.add(at)
        for line in requires(at[0]) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": at[1]}):
                waiting += [(canonicalize_name(requirement.name), extra) for extra in ("", *requirement.extras)]
    return {name for name, _ in seen} - OWN


@pytest.mark.parametrize("lock", ROOTS)
def test_every_pin_is_the_one_that_everything_is_tested_with(lock: str) -> None:
    assert pins(lock).items() <= pins("dev.txt").items()


@pytest.mark.parametrize("lock", ROOTS)
def test_what_is_needed_is_there(lock: str) -> None:
    assert needed(ROOTS[lock]) <= pins(lock).keys()


@pytest.mark.parametrize("lock", ROOTS)
def test_nothing_is_there_that_only_development_needs(lock: str) -> None:
    elsewhere = re.findall(r"^([\w.-]+)==[^;\n]*;", (REQUIREMENTS / lock).read_text(), re.MULTILINE)
    assert pins(lock).keys() - needed(ROOTS[lock]) <= set(elsewhere)
