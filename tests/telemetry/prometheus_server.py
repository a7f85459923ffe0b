"""A real Prometheus and its promtool: built once from the Go module beside this file, run on loopback only."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from e2e.processes import LOOPBACK, free_port, run, running

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULE = Path(__file__).parent / "prometheus"
CACHE = Path(__file__).parents[2] / ".cache" / "prometheus"
PACKAGE = "github.com/prometheus/prometheus/cmd"
# Without service discovery a build takes a third of the time; the web pages aren't in the Go module.
TAGS = "netgo,remove_all_sd"


def program(name: str) -> Path:
    """`prometheus` or `promtool`, built when this version of go.mod and go.sum hasn't been yet (minutes, once).

    Without Go the test is skipped, or fails in CI. Raises ProcessError when the build fails.
    """
    revision = hashlib.sha256(b"".join((MODULE / file).read_bytes() for file in ("go.mod", "go.sum"))).hexdigest()
    target = CACHE / revision[:16] / name
    if target.exists():
        return target
    go = shutil.which("go")
    if go is None:
        complaint = "Prometheus is built with Go 1.26 or newer: install it from https://go.dev/dl/"
        if os.environ.get("CI") == "true":
            pytest.fail(complaint, pytrace=False)
        pytest.skip(complaint)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{name}.{os.getpid()}")
    build = ["nice", "-n", "10", go, "build", "-p", "2", "-mod=readonly", "-buildvcs=false", "-tags", TAGS]
    run(f"building {name}", [*build, "-o", unfinished, f"{PACKAGE}/{name}"], cwd=MODULE)
    unfinished.replace(target)  # in one step, so that a build that is cut short is never taken for the program
    return target


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One that runs, asked over its HTTP API."""

    port: int

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query. Raises AssertionError with Prometheus' own words for a bad one."""
        return self._get("query", query=expression)["result"]

    def value(self, expression: str) -> float | None:
        """The one value that a query has now; None without one."""
        samples = self.query(expression)
        assert len(samples) <= 1, samples
        return float(samples[0]["value"][1]) if samples else None

    def rules(self) -> list[dict[str, Any]]:
        """Every alert rule, with its state."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, what: str, **parameters: str) -> Any:
        url = f"http://{LOOPBACK}:{self.port}/api/v1/{what}?{urlencode(parameters)}"
        try:
            with urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None


@contextmanager
def prometheus(directory: Path, targets: dict[str, list[str]], rules: Path) -> Iterator[Prometheus]:
    """Runs Prometheus until the block ends; it scrapes the targets of each job every second."""
    jobs = [{"job_name": job, "static_configs": [{"targets": addresses}]} for job, addresses in targets.items()]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": jobs,
    }
    file, port = directory / "prometheus.json", free_port()
    file.write_text(json.dumps(config))  # JSON is YAML
    command = [str(program("prometheus")), f"--config.file={file}", f"--storage.tsdb.path={directory / 'tsdb'}"]
    command += [f"--web.listen-address={LOOPBACK}:{port}", "--log.level=warn"]
    with running("prometheus", command, port, directory / "prometheus.log"):
        yield Prometheus(port)
