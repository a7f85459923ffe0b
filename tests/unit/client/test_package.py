"""The package itself: light to import, complete, and its generated half up to date."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import livekit_auth

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "clients" / "python" / "livekit_auth"
PUBLIC = {
    *("AuthClient", "TokenSource", "TokenRequest"),
    *("IssuedToken", "VerifiedToken", "VerifiedWebhook"),
    *("Caller", "AllowEntry", "Role", "Matcher", "Project"),
    *("Decision", "EntryShortfall", "Lack", "ServerInfo"),
    *("AuthError", "ConfigError", "Denied", "InvalidRequest", "NotConnected", "NotFound", "RateLimited"),
    *("ServerError", "ServerTooOld", "Unauthenticated", "Unavailable", "VerificationFailed", "Violation"),
}
MODULES = [
    *("agent_proxy", "agents", "cli.py", "extras.py", "fastapi.py", "sync.py", "v1", "webhooks.py", "workload_api.py"),
]


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", livekit_auth.__all__)
def test_each_public_name_is_importable(name):
    assert getattr(livekit_auth, name).__name__ == name
    assert name in dir(livekit_auth)


def test_public_names_are_those_that_the_package_promises():
    assert livekit_auth.__all__ == sorted(PUBLIC)
    assert [path.name for path in sorted(PACKAGE.glob("[!_]*")) if path.name != "py.typed"] == MODULES


def test_a_private_name_is_not_importable():
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = livekit_auth.Nonsense


def test_importing_the_contract_loads_nothing_of_the_client():
    code = "import sys, livekit_auth.v1; print(sorted(m for m in sys.modules if m.startswith(('livekit', 'grpc'))))"
    assert python("-c", code).stdout == "['livekit_auth', 'livekit_auth.v1']\n"


@pytest.mark.parametrize("module", ["livekit_auth.sync", "livekit_auth._async.client"])
def test_the_client_loads_no_extra(module):
    code = f"import sys, {module}; print({{'livekit', 'rich', 'typer'}} & set(sys.modules))"
    assert python("-c", code).stdout == "set()\n"


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in PACKAGE.glob("_*/__init__.py")))
def test_importing_a_private_folder_imports_nothing_else(folder):
    code = (
        f"import sys, livekit_auth.{folder}; print(sorted(m for m in sys.modules if m.startswith(('livekit', 'grpc'))))"
    )
    assert python("-c", code).stdout == f"['livekit_auth', 'livekit_auth.{folder}']\n"


def test_the_client_for_threads_is_generated_from_the_one_for_asyncio():
    done = python(str(ROOT / "tools" / "unasync.py"), "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_server_client_and_chart_have_one_version():
    server, client = (
        tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
        for folder in ("server", "clients/python")
    )
    required = [need for need in server["dependencies"] if need.startswith("livekit-auth")]
    assert required == [f"livekit-auth=={client['version']}"]
    assert server["version"] == client["version"]
    chart = (ROOT / "deploy/helm/livekit-auth/Chart.yaml").read_text()
    assert f'appVersion: "{server["version"]}"' in chart.splitlines()


def test_the_command_line_without_its_extra_says_what_to_install():
    code = "import sys; sys.modules['typer'] = None; from livekit_auth.cli import main; main()"
    done = python("-c", code)
    assert done.returncode == 2
    assert "pip install 'rich>=" in done.stderr
    assert "Traceback" not in done.stderr
