"""The install command for a missing extra: only names of packages that exist."""

import re
from importlib import metadata

import pytest

from livekit_auth.extras import how_to_install


@pytest.mark.parametrize(
    ("extras", "command"),
    [
        (["fastapi"], r"pip install 'fastapi>=[\d.]+'"),
        (["cli"], r"pip install 'rich>=[\d.]+' 'typer>=[\d.]+'"),
        (["cli", "livekit"], r"pip install ('[a-z-]+[<>=,\d.]+' ?)+"),
    ],
)
def test_packages_of_an_extra_are_named(extras, command):
    assert re.fullmatch(command, how_to_install(*extras))


def test_each_extra_is_known():
    for extra in metadata.metadata("livekit-auth").get_all("Provides-Extra", []):
        assert how_to_install(extra).startswith("pip install '")


@pytest.mark.parametrize(("extra", "dist"), [("fastapi", "no-such-dist"), ("no-such-extra", "livekit-auth")])
def test_no_package_is_guessed_without_metadata(extra, dist):
    assert how_to_install(extra, dist=dist).endswith(f"with [{extra}] after its path")
