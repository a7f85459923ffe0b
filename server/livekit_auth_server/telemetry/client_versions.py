"""Client libraries and their versions: a bounded set of labels, from a header that callers choose freely.

Guarantees: a label is one of this project's clients with its version, or "other"; there are at most `MOST` and
"other".
"""

from __future__ import annotations

import re

MOST = 20
OTHER = ("other", "")
_NUMBER = r"(?:0|[1-9][0-9]{0,4})"
_BEFORE = rf"(?:[.-]?(?:dev|alpha|beta|a|b|rc)\.?{_NUMBER})?"  # of a version before a release: 0.2.0.dev0, 0.2.0-rc.1
_CLIENT = re.compile(
    rf"(livekit-auth-(?:go|java|python|ruby|typescript))/({_NUMBER}\.{_NUMBER}\.{_NUMBER}{_BEFORE})(?:[ ][ -~]*)?\Z"
)
_LONGEST = 200  # characters; gRPC's own part of a user agent takes less than half of it


class ClientVersions:
    """Client and version by user agent. The first `MOST` that come keep their names until the process ends."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, str]] = {}
        self._versions: set[tuple[str, str]] = set()

    def of(self, user_agent: str) -> tuple[str, str]:
        """The two labels, such as ("livekit-auth-python", "1.2.3")."""
        known = self._known.get(user_agent)
        if known is not None:
            return known
        match = _CLIENT.match(user_agent) if len(user_agent) <= _LONGEST else None
        if match is None:
            return OTHER
        version = match[1], match[2]
        if version not in self._versions:
            if len(self._versions) >= MOST:
                return OTHER
            self._versions.add(version)
        if len(self._known) < 10 * MOST:  # the rest of a user agent is free text
            self._known[user_agent] = version
        return version
