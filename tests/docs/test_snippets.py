"""Every block of code in the documents is read by what it is for; tests/contract/test_snippets_run.py runs the Python.

Languages are a closed list: a block in another one fails until somebody says here how it is tested.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from livekit_auth_server.config.settings import Settings
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.keys.keys_file import parse_keys
from livekit_auth_server.policy.explain import ExpectationsFile
from livekit_auth_server.policy.schema import schema
from livekit_auth_server.trust.deny_list import DenyFile
from support.snippets import DOCUMENTS, ROOT, blocks, snippets

TESTED = {"go", "js", "python", "sh", "yaml"}
SHOWN = {"text", "hcl"}  # output, other programs' files; Vault's templates, which the page marks as not run
PYTHON, SHELL, YAMLS = snippets("python"), snippets("sh"), snippets("yaml")
SETTINGS = {
    "tls": {"certificate": "server.pem", "key": "server.key"},
    "identity": {"trust_domains": {"example.org": "ca.pem"}},
    "policy": "policy.yaml",
    "projects": {"default": {"url": "wss://livekit.example.org", "keys": {"file": "keys.yaml"}}},
}


def test_there_are_snippets() -> None:
    assert (len(PYTHON) > 12, len(SHELL) > 25, len(YAMLS) > 10) == (True, True, True)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_is_in_a_language_that_is_tested(path: Path) -> None:
    found = blocks(path)
    assert {language for language, _ in found} - TESTED - SHOWN == set()
    assert len(found) * 2 == len(re.findall(r"^\s*```", path.read_text(), re.MULTILINE)), "a block doesn't end"


@pytest.mark.parametrize(("name", "source"), PYTHON, ids=[name for name, _ in PYTHON])
def test_no_name_of_a_python_snippet_is_undefined_or_unused(name: str, source: str) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--quiet", "--select", "F"]
    done = subprocess.run(
        [*command, "--stdin-filename", "snippet.py", "-"], input=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("name", "source"), SHELL, ids=[name for name, _ in SHELL])
def test_a_shell_snippet_is_one(name: str, source: str) -> None:
    done = subprocess.run(["bash", "-n"], input=source, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("name", "source"), YAMLS, ids=[name for name, _ in YAMLS])
def test_a_yaml_snippet_is_taken_by_what_reads_it(name: str, source: str) -> None:
    read(YAML(typ="safe", pure=True).load(source), source)


def read(data: dict[str, Any], source: str) -> None:
    """Reads a whole file, or the part of one that a document shows, as the server does. Raises for a mistake."""
    if "apiVersion" in data:
        return  # an object of Kubernetes: another project's schema
    if "deny" in data:
        DenyFile.model_validate(data)
    elif "expect" in data:
        ExpectationsFile.model_validate(data)
    elif "callers" in data or "roles" in data:
        jsonschema.Draft202012Validator(schema()).validate({"version": 1, "callers": [], **data})
    elif "keys" in data:
        parse_keys(Path("keys.yaml"), source.replace("…", "0123456789abcdef0123456789abcdef").encode())
    else:
        Settings(**{**SETTINGS, **data})


@pytest.mark.parametrize(
    "source", ["listen: 7", "lsten: x:1", "callers: [{id: web}]", "version: 1\ndeny: [{}]", "keys: [{id: A}]"]
)
def test_a_mistake_in_a_yaml_snippet_is_noticed(source: str) -> None:
    with pytest.raises((ValueError, ConfigError, jsonschema.ValidationError)):
        read(YAML(typ="safe", pure=True).load(source), source)


@pytest.mark.parametrize(
    ("language", "command"), [("js", ["node", "--input-type=module", "--check"]), ("go", ["gofmt", "-e"])]
)
def test_snippets_in_other_languages_parse(language: str, command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"this needs {command[0]}")
    found = snippets(language)
    assert found
    for name, source in found:
        done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (name, done.stderr)


def test_openssl_pages_are_run() -> None:
    """Commands that make keys or certificates are run by a test that is named after their page."""
    pages = {path for path in DOCUMENTS for language, text in blocks(path) if language == "sh" and makes_keys(text)}
    for path in pages:
        test = ROOT / "tests/docs" / f"test_{path.stem.replace('-', '_')}.py"
        assert test.exists(), f"{path.relative_to(ROOT)} has openssl commands that nothing runs"


def makes_keys(commands: str) -> bool:
    return re.search(r"\bopenssl (?:req|ca|genpkey|ecparam|x509 (?:.*-)?(?:req|CA))\b", commands) is not None
