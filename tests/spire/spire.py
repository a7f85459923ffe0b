"""A SPIRE server and agent in a folder of their own, on loopback and Unix sockets; their certificates live briefly."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from e2e.processes import LOOPBACK, ProcessError, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spire.programs import Programs

DOMAIN = "example.org"
NODE = f"spiffe://{DOMAIN}/node"
SVID_TTL = 30  # seconds; SPIRE dates it 10 s back and renews it at half of that
CA_TTL = 90  # seconds; the next CA is prepared at a half, used from five sixths on
START = 30.0

_SERVER = """\
server {{
  bind_address = "{address}"
  bind_port = "{port}"
  socket_path = "{folder}/server.sock"
  trust_domain = "{domain}"
  data_dir = "{folder}/server"
  log_level = "INFO"
  ca_ttl = "{ca_ttl}s"
  default_x509_svid_ttl = "{svid_ttl}s"
  experimental {{
    cache_reload_interval = "1s"
  }}
}}
plugins {{
  DataStore "sql" {{
    plugin_data {{
      database_type = "sqlite3"
      connection_string = "{folder}/server/data.sqlite3"
    }}
  }}
  KeyManager "disk" {{
    plugin_data {{
      keys_path = "{folder}/server/keys.json"
    }}
  }}
  NodeAttestor "join_token" {{
    plugin_data {{}}
  }}
}}
"""

_AGENT = """\
agent {{
  data_dir = "{folder}/agent"
  log_level = "INFO"
  server_address = "{address}"
  server_port = "{port}"
  socket_path = "{folder}/agent.sock"
  trust_bundle_path = "{folder}/bootstrap.pem"
  trust_domain = "{domain}"
  experimental {{
    sync_interval = "1s"
  }}
}}
plugins {{
  KeyManager "disk" {{
    plugin_data {{
      directory = "{folder}/agent"
    }}
  }}
  NodeAttestor "join_token" {{
    plugin_data {{}}
  }}
  WorkloadAttestor "unix" {{
    plugin_data {{
      discover_workload_path = true
    }}
  }}
}}
"""


@dataclass
class Spire:
    """The two processes and what an operator does with them."""

    programs: Programs
    folder: Path
    port: int = field(default_factory=free_port)
    agent: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> str:
        """Where workloads find the Workload API."""
        return f"unix://{self.folder}/agent.sock"

    def command(self, line: str) -> str:
        """Runs a `spire-server` command as docs/identity.md has it; returns what it prints. Raises ProcessError."""
        program, *arguments = shlex.split(line)
        assert program == "spire-server"
        arguments += ["-socketPath", f"{self.folder}/server.sock"]
        done = subprocess.run(
            [self.programs.server, *arguments], capture_output=True, text=True, timeout=START, check=False
        )
        if done.returncode:
            raise ProcessError(f"{line}: {done.stderr or done.stdout}")
        return done.stdout

    def register(self, line: str) -> str:
        """Runs `spire-server entry create …` and returns the entry's id."""
        found = re.search(r"^Entry ID\s*: (\S+)$", self.command(line), re.MULTILINE)
        assert found
        return found[1]

    def start_agent(self, *arguments: str) -> None:
        """Starts the agent and waits until it says that it is healthy."""
        log = (self.folder / "agent.log").open("ab")
        command = [str(self.programs.agent), "run", "-config", str(self.folder / "agent.conf"), *arguments]
        with log:
            self.agent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        healthy = [str(self.programs.agent), "healthcheck", "-socketPath", f"{self.folder}/agent.sock"]
        self._wait(
            "spire-agent", self.agent, lambda: subprocess.run(healthy, capture_output=True, check=False).returncode == 0
        )

    def kill_agent(self) -> None:
        """As when it crashes."""
        assert self.agent
        self.agent.kill()
        self.agent.wait()

    def _wait(self, name: str, process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise ProcessError(f"{name} didn't start: {(self.folder / f'{name[6:]}.log').read_text()[-3000:]}")
            time.sleep(0.1)


@contextmanager
def spire(programs: Programs) -> Iterator[Spire]:
    """Runs SPIRE until the block ends. Its folder is short: a Unix socket's path has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="spire-"))
    started: list[subprocess.Popen[bytes]] = []
    running = Spire(programs, folder)
    try:
        values = {"folder": folder, "port": running.port, "address": LOOPBACK, "domain": DOMAIN}
        for name, text in (("server", _SERVER), ("agent", _AGENT)):
            (folder / name).mkdir(mode=0o700)
            (folder / f"{name}.conf").write_text(text.format(**values, ca_ttl=CA_TTL, svid_ttl=SVID_TTL))
        with (folder / "server.log").open("wb") as log:
            server = subprocess.Popen(
                [programs.server, "run", "-config", folder / "server.conf"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        started.append(server)
        running._wait("spire-server", server, lambda: _answers(running))
        (folder / "bootstrap.pem").write_text(running.command("spire-server bundle show"))
        token = running.command(f"spire-server token generate -spiffeID {NODE}").split()[1]
        running.start_agent("-joinToken", token)
        yield running
    finally:
        for process in [*started, *([running.agent] if running.agent else [])]:
            if process.poll() is None:
                process.kill()
            process.wait()
        shutil.rmtree(folder)


def _answers(running: Spire) -> bool:
    try:
        running.command("spire-server healthcheck")
    except ProcessError:
        return False
    return True
