"""The package itself: light to import, complete, and its generated half up to date."""

import subprocess
import sys
from pathlib import Path

import pytest

import livekit_auth

ROOT = Path(__file__).parents[3]


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", livekit_auth.__all__)
def test_every_public_name_is_there(name):
    assert getattr(livekit_auth, name).__name__ == name
    assert name in dir(livekit_auth)


def test_a_name_that_is_not_public_is_not_there():
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = livekit_auth.Nonsense


def test_the_contract_alone_loads_nothing_of_the_client():
    code = "import sys, livekit_auth.v1; print(sorted(m for m in sys.modules if m.startswith(('livekit', 'grpc'))))"
    assert python("-c", code).stdout == "['livekit_auth', 'livekit_auth.v1']\n"


@pytest.mark.parametrize("module", ["livekit_auth.sync", "livekit_auth._async.client"])
def test_the_client_loads_no_extra(module):
    code = f"import sys, {module}; print({{'livekit', 'rich', 'typer'}} & set(sys.modules))"
    assert python("-c", code).stdout == "set()\n"


def test_the_client_for_threads_is_generated_from_the_one_for_asyncio():
    done = python(str(ROOT / "tools" / "unasync.py"), "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_line_without_its_extra_says_what_to_install():
    code = "import sys; sys.modules['typer'] = None; from livekit_auth.cli import main; main()"
    done = python("-c", code)
    assert done.returncode == 2
    assert "pip install 'rich>=" in done.stderr
    assert "Traceback" not in done.stderr
