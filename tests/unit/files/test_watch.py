"""What counts as a change of files, and the folders in which one can come about."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from livekit_auth_server.files.watch import fingerprint, notify, places

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """A folder as Kubernetes mounts a secret: names that lead through ..data to a dated folder."""
    folder = tmp_path / "mount"
    folder.mkdir()
    for version in ("..1", "..2"):
        (folder / version).mkdir()
        (folder / version / "policy.yaml").write_text("same")
    (folder / "..data").symlink_to("..1")
    (folder / "policy.yaml").symlink_to("..data/policy.yaml")
    return folder


def swap(folder: Path) -> None:
    (folder / "..next").symlink_to("..2")
    os.replace(folder / "..next", folder / "..data")  # noqa: PTH105 - as the kubelet does it


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_text("same")
    other.replace(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "written": lambda path: path.write_text("longer than before"),
    "replaced": replace,
    "deleted": lambda path: path.unlink(),
    "open to others": lambda path: path.chmod(0o644),
    "touched": lambda path: os.utime(path, (1, 1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_shows(tmp_path: Path, change: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("same")
    path.chmod(0o600)
    before = fingerprint([path])
    assert fingerprint([path]) == before
    CHANGES[change](path)
    assert fingerprint([path]) != before


def test_a_file_that_comes_shows(tmp_path: Path) -> None:
    before = fingerprint([tmp_path / "deny.yaml"])
    (tmp_path / "deny.yaml").touch()
    assert fingerprint([tmp_path / "deny.yaml"]) != before


def test_a_swapped_link_shows_although_the_content_is_the_same(mounted: Path) -> None:
    before = fingerprint([mounted / "policy.yaml"])
    swap(mounted)
    assert fingerprint([mounted / "policy.yaml"]) != before


def test_a_folder_of_keys_shows_its_files(tmp_path: Path) -> None:
    (tmp_path / "APIone").write_text("x")
    before = fingerprint([tmp_path])
    (tmp_path / "APIone").write_text("longer")
    changed = fingerprint([tmp_path])
    (tmp_path / "APItwo").write_text("y")
    assert len({before, changed, fingerprint([tmp_path])}) == 3


def test_a_path_that_isnt_one_is_a_state_like_another(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    paths = [tmp_path / "nul\0", tmp_path / "loop", tmp_path / "missing" / "x"]
    assert fingerprint(paths) == fingerprint(paths)
    assert places(paths)[str(tmp_path)][1] >= {"loop"}


def test_every_link_on_the_way_is_a_place(mounted: Path, tmp_path: Path) -> None:
    (tmp_path / "etc").symlink_to(mounted)
    found = places([tmp_path / "etc" / "policy.yaml"])
    assert {folder: names for folder, (_, names) in found.items()} == {
        str(tmp_path): {"etc"},
        str(mounted): {"policy.yaml", "..data"},
        str(mounted / "..1"): {"policy.yaml"},
    }


def test_a_folder_that_is_replaced_is_another_place(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    before = places([tmp_path / "a" / "x"])
    (tmp_path / "a").rmdir()
    (tmp_path / "b").rename(tmp_path / "a")
    assert places([tmp_path / "a" / "x"]) != before


async def told(paths: list[Path], change: Callable[[], object], within: float) -> bool:
    heard = asyncio.Event()
    task = asyncio.create_task(notify(places(paths), heard.set))
    await asyncio.sleep(0.2)
    change()
    try:
        await asyncio.wait_for(heard.wait(), within)
    except TimeoutError:
        return False
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return True


async def test_a_swap_is_told(mounted: Path) -> None:
    assert await told([mounted / "policy.yaml"], lambda: swap(mounted), 2)


async def test_a_neighbours_change_isnt(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").touch()
    assert not await told([tmp_path / "policy.yaml"], lambda: (tmp_path / "server.log").write_text("x"), 0.5)


async def test_a_folder_that_is_gone_ends_the_watching_quietly(tmp_path: Path) -> None:
    await asyncio.wait_for(notify({str(tmp_path / "gone"): (1, frozenset({"x"}))}, lambda: None), 2)
