"""The import of lk's projects in docs/livekit-cloud.md, run as it stands."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

DOCUMENT = (Path(__file__).parents[2] / "docs" / "livekit-cloud.md").read_text()
IMPORT = re.search(r"^```python\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)[1]
SECRET = "a secret of enough bytes that only these tests know"
CONFIG = f"""\
default_project: Shop
projects:
  - {{name: Shop, project_id: p_1, url: "wss://shop-x1.livekit.cloud", api_key: APIshop, api_secret: "{SECRET}"}}
  - {{name: My 2nd Project!, url: "wss://second.livekit.cloud", api_key: APIsecond, api_secret: "{SECRET}"}}
theme: ""
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    (tmp_path / ".livekit").mkdir()
    (tmp_path / ".livekit" / "cli-config.yaml").write_text(CONFIG)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return lambda: exec(compile(IMPORT, "livekit-cloud.md", "exec"), {})  # noqa: S102 - the project's own text


def test_every_project_gets_a_key_file_of_its_own_and_its_settings(run, tmp_path, capsys):
    run()
    printed = capsys.readouterr().out
    assert YAML(typ="safe").load(printed)["projects"] == {
        "shop": {"url": "wss://shop-x1.livekit.cloud", "keys": {"file": "shop.keys.yaml"}},
        "my-2nd-project": {"url": "wss://second.livekit.cloud", "keys": {"file": "my-2nd-project.keys.yaml"}},
    }
    assert SECRET not in printed
    file = tmp_path / "shop.keys.yaml"
    assert (file.read_text(), file.stat().st_mode & 0o777) == (f"APIshop: {SECRET}\n", 0o600)


def test_a_key_file_that_is_there_is_not_overwritten(run, tmp_path):
    (tmp_path / "shop.keys.yaml").write_text("mine")
    with pytest.raises(FileExistsError):
        run()
    assert (tmp_path / "shop.keys.yaml").read_text() == "mine"
