"""A deployment as `livekit-auth-server dev` writes it, its server, and clients with the certificates of its callers."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from livekit_auth import AuthClient

from e2e.processes import LOOPBACK, free_port, run, running
from e2e.secrecy import keep_secret

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = Path(sys.executable).with_name("livekit-auth-server")


@dataclass(frozen=True, slots=True)
class Deployment:
    """A folder with a throwaway PKI, one LiveKit key, a policy and settings, and the address that its server takes."""

    directory: Path
    port: int

    @classmethod
    def create(cls, directory: Path, livekit_url: str) -> Deployment:
        """Writes a new folder."""
        port = free_port()
        options = ["--dir", directory, "--address", f"{LOOPBACK}:{port}", "--livekit-url", livekit_url]
        run("livekit-auth-server dev", [PROGRAM, "dev", *options])
        return cls(directory, port)

    @property
    def key_file(self) -> Path:
        """The key and its secret, in the format that LiveKit reads too."""
        return self.directory / "keys.yaml"

    @property
    def key_id(self) -> str:
        """The id of the only key."""
        return self._key()[0]

    @property
    def secret(self) -> str:
        """The secret of the only key: for what only LiveKit could sign, and to forge what must be refused."""
        return keep_secret(self._key()[1])

    @contextmanager
    def serve(self) -> Iterator[None]:
        """Runs the server until the block ends."""
        command = [PROGRAM, "serve", "--config", self.directory / "server.yaml"]
        with running("livekit-auth-server", command, self.port, self.directory / "server.log"):
            yield

    def client(self, caller: str) -> AuthClient:
        """A client with the certificate CALLER.pem of the folder."""
        cert, key = self.directory / f"{caller}.pem", self.directory / f"{caller}.key"
        return AuthClient(f"{LOOPBACK}:{self.port}", ca=self.directory / "ca.pem", cert=cert, key=key)

    def _key(self) -> tuple[str, str]:
        key_id, _, secret = self.key_file.read_text().strip().partition(": ")
        return key_id, secret
