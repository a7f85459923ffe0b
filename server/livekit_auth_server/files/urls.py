"""What the urls in the settings have in common."""

from __future__ import annotations

from urllib.parse import urlsplit

HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?"
"""A pattern for a host and perhaps a port. It takes ports and addresses in brackets that aren't ones; see `splits`."""


def splits(url: str) -> bool:
    """Whether its port and its address in brackets are ones."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False
