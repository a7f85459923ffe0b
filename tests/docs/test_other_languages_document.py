"""docs/other-languages.md names what the contract has; tests/e2e/test_other_languages.py runs it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from google.protobuf import json_format

from livekit_auth.v1 import auth_service_pb2 as pb
from support.snippets import blocks

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/other-languages.md").read_text()
SERVICE = pb.DESCRIPTOR.services_by_name["AuthService"]
GO, JS = (re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)[1] for language in ("go", "js"))  # type: ignore[index]


def test_the_methods_and_files_that_are_named_exist() -> None:
    methods = set(re.findall(r"livekit_auth\.v1\.AuthService/(\w+)", TEXT)) | set(re.findall(r"client\.(\w+)\(", GO))
    assert methods >= {"GetCaller", "IssueToken"}
    assert methods <= set(SERVICE.methods_by_name)
    for proto in set(re.findall(r"livekit_auth/v1/\w+\.proto", TEXT)):
        assert (ROOT / "protos-plain" / proto).exists()


def test_the_requests_are_the_contracts() -> None:
    sent = re.findall(r"-d '(\{.*?\})'", TEXT)
    assert sent
    for request in sent:
        json_format.ParseDict(json.loads(request), pb.IssueTokenRequest())
    (fields,) = re.findall(r"issue\(\{ (.*?) \}\)", JS)
    assert set(re.findall(r"(\w+)(?=[:,]|$)", fields)) <= set(pb.IssueTokenRequest.DESCRIPTOR.fields_by_name) | {
        "guest"
    }
    go_fields = re.findall(r"^\t\t\t(\w+):", GO, re.MULTILINE)
    known = {name.capitalize() for name in pb.IssueTokenRequest.DESCRIPTOR.fields_by_name} | {"Access"}
    assert set(go_fields) <= known


@pytest.mark.parametrize(
    ("command", "source", "suffix"), [(["gofmt", "-e", "-l"], GO, "go"), (["node", "--check"], JS, "mjs")]
)
def test_the_programs_parse(tmp_path: Path, command: list[str], source: str, suffix: str) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"this needs {command[0]}")
    file = tmp_path / f"program.{suffix}"
    file.write_text(source)
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("language", ["sh", "go", "js"])
def test_the_start_shows_parts_of_these_programs(language: str) -> None:
    """So that what is run from this page is run for that one too."""
    for found, text in blocks(ROOT / "docs/start.md"):
        if found == language and (language != "sh" or "grpcurl" in text):
            assert stripped(text) in stripped(TEXT)


def stripped(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines())
