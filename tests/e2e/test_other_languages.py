"""docs/other-languages.md, as pasted: grpcurl, Go and Node against a deployment of `dev`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from livekit_auth_server.cli import devkit
from support.first_hour import Served

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/other-languages.md").read_text()
HERE = Path(__file__).parent / "languages"
CACHE = ROOT / ".cache" / "languages"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("languages")
    devkit.write(folder / "dev", "127.0.0.1:0", "ws://127.0.0.1:7880")
    (folder / "protos-plain").symlink_to(ROOT / "protos-plain")
    with Served.start(folder / "dev") as served:
        yield served


def needs(program):
    """Without the tool chain a test is skipped, but in CI that is a failure."""
    if shutil.which(program) is None:
        reason = f"this needs {program}"
        pytest.fail(reason, pytrace=False) if os.environ.get("CI") == "true" else pytest.skip(reason)


@pytest.fixture(scope="module")
def programs():
    """grpcurl and the Go plugins, built once from the module beside this file, and protoc."""
    needs("go")
    target = CACHE / "bin"
    target.mkdir(parents=True, exist_ok=True)
    run(["go", "build", "-o", f"{target}/", "tool"], HERE / "go")
    protoc = target / "protoc"
    protoc.write_text(f'#!/bin/sh\nexec {sys.executable} -m grpc_tools.protoc "$@"\n')
    protoc.chmod(0o755)
    return target


def run(command, folder, **environment):
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def shell(commands, served, programs):
    path = f"{programs}:{os.environ['PATH']}"
    return run(["bash", "-euc", commands], served.directory.parent, PATH=path, **served.environment("web"))


def test_grpcurl(served, programs):
    (block,) = [block for block in blocks("sh") if "grpcurl -cacert" in block]
    said = shell(block, served, programs)
    decoder = json.JSONDecoder()
    caller, end = decoder.raw_decode(said)
    issued, _ = decoder.raw_decode(said[end:].lstrip())
    assert caller["workloadId"] == "spiffe://dev.example.org/web"
    assert "token" not in issued
    assert issued["decisionId"]


def test_go(served, programs, tmp_path_factory):
    (generate,) = [block for block in blocks("sh") if "--go_out" in block]
    (program,) = blocks("go")
    app = tmp_path_factory.mktemp("go") / "app"
    app.mkdir()
    (app / "protos-plain").symlink_to(ROOT / "protos-plain")
    run(["bash", "-euc", generate], app, PATH=f"{programs}:{os.environ['PATH']}")
    module = (HERE / "go/go.mod").read_text()
    (app / "go.mod").write_text(re.sub(r"^module .*$", "module app", module, flags=re.MULTILINE))
    shutil.copy(HERE / "go/go.sum", app)
    (app / "main.go").write_text(program)
    assert run(["gofmt", "-l", "main.go"], app) == ""
    run(["go", "build", "-o", "client", "."], app)
    told(
        run(["./client"], app, **served.environment("web")), "no token: PermissionDenied ROOM_NOT_PERMITTED, decision "
    )


def test_node(served, tmp_path_factory):
    needs("node")
    needs("npm")
    (program,) = blocks("js")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(HERE / "node" / name, folder)
    run(["npm", "ci"], folder)
    (folder / "protos-plain").symlink_to(ROOT / "protos-plain")
    (folder / "client.js").write_text(program)
    told(run(["node", "client.js"], folder, **served.environment("web")), "no token: PERMISSION_DENIED this room isn't")


def told(said, denial):
    permitted, denied = said.strip().splitlines()
    assert permitted.startswith("a token for ws://127.0.0.1:7880 until 2")
    assert denied.startswith(denial)
    assert "eyJ" not in said
