"""The package itself: light to import, complete, compatible with its releases, and its generated half up to date."""

import ast
import importlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import livekit_auth

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "clients" / "python" / "livekit_auth"
RELEASES = sorted((ROOT / "tests" / "compat" / "wheels").glob("livekit_auth-*.whl"))
SOURCES = {
    (wheel.name.split("-")[1], path): zipfile.ZipFile(wheel).read(path).decode()
    for wheel in RELEASES
    for path in zipfile.ZipFile(wheel).namelist()
    if path.startswith("livekit_auth/") and path.endswith((".py", ".pyi"))
}


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def public_modules():
    """Each public module of a release: its version, its path in the wheel, and its name today."""
    for version, path in SOURCES:
        parts = Path(path).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if not any(part.startswith("_") for part in module.split(".")):
            yield pytest.param(version, path, module, id=f"{version}-{module}-{Path(path).suffix}")


def public_names(source):
    """What `from module import *` gives: __all__, or else what the module defines without an underscore."""
    names = set()
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
        for target in targets:
            if isinstance(target, ast.Name) and target.id == "__all__":
                return set(ast.literal_eval(node.value))
            if isinstance(target, (ast.Name, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                names.add(target.id if isinstance(target, ast.Name) else target.name)
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("name", livekit_auth.__all__)
def test_each_public_name_is_importable(name):
    assert getattr(livekit_auth, name).__name__ == name
    assert name in dir(livekit_auth)


@pytest.mark.parametrize(("version", "path", "module"), [*public_modules()])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # an alias of a moved name raises one
def test_public_names_of_each_release_are_importable(version, path, module):
    if path.endswith(".pyi"):
        present = public_names((PACKAGE.parent / path).read_text())
    else:
        present = set(dir(importlib.import_module(module)))
    assert public_names(SOURCES[version, path]) - present == set()


@pytest.mark.parametrize(
    ("path", "names"),
    [("__init__.py", {"AuthClient", "Denied"}), ("v1/grants_pb2.pyi", {"Grants"}), ("cli.py", {"main"})],
)
def test_public_names_are_found_in_every_kind_of_module(path, names):
    assert public_names((PACKAGE / path).read_text()) >= names


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
