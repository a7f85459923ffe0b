"""The options that commands share, and the parsing of their values."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from livekit_auth.sync import AuthClient

Address = Annotated[
    str | None,
    typer.Option("--address", metavar="HOST:PORT", envvar="LIVEKIT_AUTH_ADDRESS", help="The livekit-auth server."),
]
Ca = Annotated[
    str | None,
    typer.Option("--ca", metavar="FILE", envvar="LIVEKIT_AUTH_CA", help="PEM file of the server's CA."),
]
Cert = Annotated[
    str | None,
    typer.Option("--cert", metavar="FILE", envvar="LIVEKIT_AUTH_CERT", help="PEM file of the client certificate."),
]
Key = Annotated[
    str | None,
    typer.Option("--key", metavar="FILE", envvar="LIVEKIT_AUTH_KEY", help="PEM file of the client's private key."),
]
Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="Time limit per call, including retries.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout, also for errors.")]
Project = Annotated[
    str, typer.Option("--project", metavar="NAME", help="The LiveKit project; optional if there is only one.")
]

_DURATION = re.compile(
    r"(?:(?P<days>[0-9]+)d)?(?:(?P<hours>[0-9]+)h)?(?:(?P<minutes>[0-9]+)m)?(?:(?P<seconds>[0-9]+)s)?"
)


@dataclass(frozen=True, slots=True)
class Connect:
    """The connection options."""

    address: str | None
    ca: str | None
    cert: str | None
    key: str | None
    timeout: float

    def client(self) -> AuthClient:
        """A client for these options. Raises ConfigError."""
        return AuthClient(self.address, ca=self.ca, cert=self.cert, key=self.key, timeout=self.timeout)


def examples(*lines: str, title: str = "Examples:") -> str:
    """Lines for the end of a command's help that keep their line breaks (typer marks these with a backspace)."""
    return "\n  ".join(("\b", title, *lines)).replace("\b\n  ", "\b\n", 1)


def duration(text: str) -> timedelta:
    """Parses a duration such as "90s", "5m" or "1h30m"."""
    if re.fullmatch("[0-9]{1,9}", text):
        raise typer.BadParameter(f"{text!r} has no unit: write {text}s or {text}m", param_hint="--ttl")
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise typer.BadParameter(f"{text!r} isn't a duration such as 90s, 5m or 1h30m", param_hint="--ttl")
    try:
        return timedelta(**{unit: int(count) for unit, count in match.groupdict(default="0").items()})
    except OverflowError:
        raise typer.BadParameter(f"{text!r} is too long", param_hint="--ttl") from None


def attributes(pairs: list[str]) -> dict[str, str]:
    """Parses `key=value` pairs."""
    for pair in pairs:
        if "=" not in pair:
            raise typer.BadParameter(f"{pair!r} isn't key=value", param_hint="--attribute")
    return dict((pair.split("=", 1)) for pair in pairs)


def read_bytes(path: str, option: str) -> bytes:
    """Reads the bytes of a file, or of stdin for "-"."""
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        shown = "the given path" if "eyJ" in path else path  # don't repeat a token given instead of a path
        raise typer.BadParameter(f"can't read {shown}: {error.strerror}", param_hint=option) from None


def read_line(path: str, option: str) -> str:
    """Reads a file that contains one value, without a trailing line ending."""
    try:
        text = read_bytes(path, option).decode()
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{path} isn't text", param_hint=option) from None
    return text.removesuffix("\n").removesuffix("\r")
