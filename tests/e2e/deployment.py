"""A deployment as `livekit-auth-server dev` writes it, its server, and clients with the certificates of its callers."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
from ruamel.yaml import YAML

from e2e.processes import LOOPBACK, free_port, run, running
from e2e.secrecy import keep_secret
from livekit_auth import AuthClient
from support.pki import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROGRAM = Path(sys.executable).with_name("livekit-auth-server")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A LiveKit API key, to sign what LiveKit would, and what must be refused."""

    id: str
    secret: str = field(repr=False)

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A token with these claims, and "iss" unless they have one."""
        return jwt.encode({"iss": self.id, **claims}, self.secret, algorithm="HS256")


@dataclass(frozen=True, slots=True)
class Deployment:
    """A folder with a throwaway PKI, one LiveKit key, a policy and settings, and the port that its server takes."""

    directory: Path
    port: int

    @classmethod
    def create(cls, directory: Path, livekit_url: str) -> Deployment:
        """Writes a new folder."""
        port = free_port()
        options = ["--dir", str(directory), "--address", f"{LOOPBACK}:{port}", "--livekit-url", livekit_url]
        run("livekit-auth-server dev", [PROGRAM, "dev", *options])
        return cls(directory, port)

    def add_callers(self, trust_domain: str, *names: str) -> None:
        """Trusts another domain, with a CA of its own, and writes certificates for callers in it."""
        authority = Authority.create(f"{trust_domain} CA")
        (self.directory / f"{trust_domain}.pem").write_bytes(authority.cert_pem)
        for name in names:
            authority.issue(uris=[f"spiffe://{trust_domain}/{name}"]).write(self.directory, name)
        yaml, file = YAML(), self.directory / "server.yaml"
        settings = yaml.load(file)
        settings["identity"]["trust_domains"][trust_domain] = f"{trust_domain}.pem"
        yaml.dump(settings, file)

    @property
    def key_file(self) -> Path:
        """The key and its secret, in the format that LiveKit reads too."""
        return self.directory / "keys.yaml"

    @property
    def log(self) -> Path:
        """What the server wrote."""
        return self.directory / "server.log"

    @property
    def key(self) -> ApiKey:
        """The only key."""
        key_id, _, secret = self.key_file.read_text().strip().partition(": ")
        return ApiKey(key_id, keep_secret(secret))

    @contextmanager
    def serve(self) -> Iterator[None]:
        """Runs the server until the block ends."""
        command = [str(PROGRAM), "serve", "--config", str(self.directory / "server.yaml")]
        with running("livekit-auth-server", command, self.port, self.log):
            yield

    def client(self, caller: str) -> AuthClient:
        """A client with the certificate CALLER.pem of the folder."""
        cert, key = self.directory / f"{caller}.pem", self.directory / f"{caller}.key"
        return AuthClient(f"{LOOPBACK}:{self.port}", ca=self.directory / "ca.pem", cert=cert, key=key)
