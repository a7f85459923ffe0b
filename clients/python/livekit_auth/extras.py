"""How to install the packages of an extra. Public: livekit-auth-server uses it for its own extras.

The command names the packages of the extra, never livekit-auth itself: nothing is published under that name, so pip
would install whatever someone else publishes there. `how_to_install` keeps its signature within a major version.
"""

from __future__ import annotations

import re

__all__ = ["how_to_install"]


def how_to_install(*extras: str, dist: str = "livekit-auth") -> str:
    """The command that installs these extras of the package `dist`, in the versions that it requires."""
    from importlib import metadata  # noqa: PLC0415 - for a rare message

    try:
        requirements = metadata.requires(dist) or []
    except metadata.PackageNotFoundError:  # on PYTHONPATH, not installed
        requirements = []
    wanted = [
        package.strip()
        for package, _, marker in (requirement.partition(";") for requirement in requirements)
        if any(re.search(rf"""extra == ['"]{re.escape(extra)}['"]""", marker) for extra in extras)
    ]
    if not wanted:
        named = ",".join(extras)
        return f"reinstall your checkout or wheel with [{named}] after its path"
    return "pip install " + " ".join(f"'{package}'" for package in dict.fromkeys(wanted))
