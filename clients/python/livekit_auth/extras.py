"""How to install what an extra needs: its packages by their own names, whatever this package was installed from.

Never this package's own name: nothing is published under it, and whoever takes it would be installed.
"""

from __future__ import annotations

import re


def how_to_install(*extras: str, dist: str = "livekit-auth") -> str:
    """The command that adds these extras, with the versions that the installed package asks for."""
    from importlib import metadata  # noqa: PLC0415 - for a message that is seldom needed

    try:
        requirements = metadata.requires(dist) or []
    except metadata.PackageNotFoundError:  # on a path, without what an installer writes
        requirements = []
    wanted = [
        package.strip()
        for package, _, marker in (requirement.partition(";") for requirement in requirements)
        if any(re.search(rf"""extra == ['"]{re.escape(extra)}['"]""", marker) for extra in extras)
    ]
    if not wanted:
        named = ",".join(extras)
        return f"install the checkout or the wheel that you have once more, with [{named}] behind its path"
    return "pip install " + " ".join(f"'{package}'" for package in dict.fromkeys(wanted))
