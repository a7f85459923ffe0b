"""SPIRE, a livekit-auth server with an SVID, and workloads that only their selectors tell apart."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from e2e.processes import interruptible
from spire.programs import GoMissingError, Programs, programs
from spire.spire import DOMAIN, SVID_TTL, Spire, spire
from support.deployment import KEYS_ALPHA, SECRETS, Deployment
from support.pki import Authority
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORKLOADS = ("web", "leaving", "denied")
SERVER_ID = f"spiffe://{DOMAIN}/livekit-auth"
DOCUMENT = Path(__file__).parents[2] / "docs/identity.md"
SCRIPT = Path(__file__).with_name("workload.py")


def soon(condition: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} didn't happen in {seconds:g} s"
        time.sleep(0.1)


def interpreter(folder: Path, name: str) -> Path:
    """A Python program of its own path, which is what SPIRE's selector unix:path goes by."""
    subprocess.run([sys.executable, "-m", "venv", "--copies", "--without-pip", folder / name], check=True)
    return folder / name / "bin" / "python3"


@dataclass
class Asking:
    """A workload's process and what it said last."""

    process: subprocess.Popen[str]
    lines: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=1))

    def read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    @property
    def seen(self) -> dict[str, Any]:
        return self.lines[-1] if self.lines else {"calls": 0, "failed": [], "serials": [], "last": "", "identity": ""}


@dataclass
class World:
    """Everything that runs."""

    spire: Spire
    folder: Path
    deployment: Deployment
    other: Authority
    entries: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Of a workload: the standard's variable, and where its Python finds what is installed here."""
        path = os.pathsep.join(entry for entry in sys.path if entry)
        return {**os.environ, "SPIFFE_ENDPOINT_SOCKET": self.spire.socket, "PYTHONPATH": path}

    @property
    def address(self) -> str:
        return f"localhost:{self.deployment.port}"

    @contextmanager
    def workload(self, name: str, clients: int = 1) -> Iterator[Asking]:
        """Runs a workload until the block ends."""
        process = subprocess.Popen(
            [self.folder / name / "bin/python3", SCRIPT, self.address, str(clients)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
        asking = Asking(process)
        reading = threading.Thread(target=asking.read, daemon=True)
        reading.start()
        try:
            yield asking
        finally:
            assert process.stdin
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            reading.join(5)
            assert process.stdout
            process.stdout.close()

    def python(self, name: str, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs Python code as a workload, to its end."""
        command = [str(self.folder / name / "bin/python3"), "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment, timeout=60, check=False)


@pytest.fixture(scope="session")
def built() -> Programs:
    """SPIRE's binaries. Without Go there are none: tests are skipped, but in CI that is a failure."""
    try:
        return programs()
    except GoMissingError as error:
        missing = str(error)
    if os.environ.get("CI") == "true":
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def world(built: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with interruptible(), spire(built) as running:
        world = World(running, folder, Deployment(folder), Authority.create("other.org CA"))
        register(world)
        write(world)
        serve(world)
        yield world
        assert world.deployment.stop() == 0


def documented(world: World) -> dict[str, str]:
    """The four commands of docs/identity.md, with this run's paths, its DNS name and an SVID's short life."""
    text = DOCUMENT.read_text().replace(" \\\n", "")
    server, web, bundle, federate = re.findall(r"^spire-server .*$", text, re.MULTILINE)
    here = {"/opt/": f"{world.folder}/", "-dns livekit-auth.example.org": "-dns localhost"}
    life = f" -x509SVIDTTL {SVID_TTL}"
    commands = {"server": server + life, "web": web + life, "bundle": bundle, "federate": federate + life}
    for old, new in here.items():
        commands = {name: command.replace(old, new) for name, command in commands.items()}
    return commands


def register(world: World) -> None:
    """What docs/identity.md says, and the same for more workloads and one more domain."""
    for name in ("livekit-auth", "stranger", *WORKLOADS):
        interpreter(world.folder, name)
    commands = documented(world)
    entry = world.spire.register(commands["server"])
    world.entries["web"] = world.spire.register(commands["web"])
    for name in WORKLOADS[1:]:
        mine = commands["web"].replace(f"{DOMAIN}/web", f"{DOMAIN}/{name}").replace("/web/bin", f"/{name}/bin")
        world.entries[name] = world.spire.register(mine)
    for name, authority in (("other.org", world.other), ("unnamed.org", Authority.create("unnamed.org CA"))):
        path = world.folder / f"{name}.pem"
        path.write_bytes(authority.leaf_pem)
        world.spire.command(commands["bundle"].replace("other.org.pem", str(path)).replace("//other.org", f"//{name}"))
    federate = commands["federate"].replace("-entryID ENTRY", f"-entryID {entry}")
    world.spire.command(f"{federate} -federatesWith spiffe://unnamed.org")


def write(world: World) -> None:
    folder = world.folder
    (folder / "server.yaml").write_text(f"""\
listen: 127.0.0.1:0
workload_api: {{socket: '{world.spire.socket}', patience: 30}}
tls: {{workload_api: true}}
identity:
  workload_api: [example.org, other.org]
  deny_list: deny.yaml
policy: policy.yaml
projects:
  alpha: {{url: "wss://alpha.example.org", keys: {{file: alpha.yaml}}}}
metrics: 127.0.0.1:{free_port()}
log: {{format: json, level: debug}}
""")
    world.deployment.private("alpha.yaml", KEYS_ALPHA)
    (folder / "deny.yaml").write_text("version: 1\ndeny: []\n")
    callers = "".join(
        f"  - {{id: 'spiffe://{name}', allow: [{{projects: [alpha], roles: [guest], rooms: any, identities: any}}]}}\n"
        for name in [*(f"{DOMAIN}/{name}" for name in WORKLOADS), "other.org/web", "unnamed.org/web"]
    )
    (folder / "policy.yaml").write_text(
        f"version: 1\nroles:\n  guest: {{video: {{room_join: true}}}}\ncallers:\n{callers}"
    )


def serve(world: World) -> None:
    """Starts the server by its own interpreter, so that the agent knows it."""
    deployment, log = world.deployment, world.folder / "server.log"
    command = [str(world.folder / "livekit-auth/bin/python3"), "-m", "livekit_auth_server.cli", "serve"]
    environment = {**world.environment, "PYTHONWARNINGS": "error"}
    with log.open("wb") as stream:
        deployment.process = subprocess.Popen(
            [*command, "--config", str(world.folder / "server.yaml")], stderr=stream, env=environment
        )
    soon(lambda: '"event":"serving"' in deployment.log or deployment.started.poll() is not None, 60, "serving")
    serving = [line for line in deployment.log.splitlines() if '"event":"serving"' in line]
    assert serving, deployment.log[-2000:]
    deployment.port = json.loads(serving[0])["port"]


@pytest.fixture(scope="session", autouse=True)
def no_secret_shows(world: World) -> Iterator[None]:
    """No key of an SVID and no LiveKit secret in any log."""
    yield
    logs = world.deployment.log + (world.spire.folder / "agent.log").read_text(errors="replace")
    assert "PRIVATE KEY" not in logs
    assert not [name for name, secret in SECRETS.items() if secret in logs]
