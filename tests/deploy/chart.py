"""The chart, rendered by helm, and what it renders laid out as the kubelet would mount it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from deploy import helm_program

if TYPE_CHECKING:
    from collections.abc import Mapping

CHART = Path(__file__).resolve().parents[2] / "deploy/helm/livekit-auth"
VARIANTS = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
UID = GID = 10001

Manifest = dict[str, Any]
Files = dict[str, bytes]


class RefusedError(Exception):
    """helm didn't render; the message is what it says."""


def helm(*arguments: str | Path, given: str = "") -> str:
    """What helm prints, with `given` on its standard input; its own files stay in .cache. Raises RefusedError."""
    home = {f"HELM_{kind}_HOME": str(helm_program.CACHE / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
    command = [helm_program.binary(), *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, env={**os.environ, **home})
    if done.returncode:
        raise RefusedError(done.stdout + done.stderr)
    return done.stdout


def values_of(variant: str) -> Path:
    return CHART / "ci" / f"{variant}-values.yaml"


@dataclass(frozen=True)
class Rendered:
    """The manifests of one rendering."""

    text: str

    @classmethod
    def variant(cls, name: str, *arguments: str | Path, **values: Any) -> Rendered:
        """The chart with a variant's values; `values` are merged into them."""
        command = ["template", "livekit-auth", str(CHART), "--namespace", "media", "--values", str(values_of(name))]
        return cls(helm(*command, "--values", "-", *arguments, given=json.dumps(values)))

    @cached_property
    def manifests(self) -> list[Manifest]:
        return [manifest for manifest in yaml.safe_load_all(self.text) if manifest]

    def all(self, kind: str) -> list[Manifest]:
        return [manifest for manifest in self.manifests if manifest["kind"] == kind]

    def one(self, kind: str) -> Manifest:
        (found,) = self.all(kind)
        return found

    @property
    def workload(self) -> Manifest:
        (found,) = self.all("StatefulSet") + self.all("Deployment")
        return found

    @property
    def pod(self) -> Manifest:
        return self.workload["spec"]["template"]["spec"]

    @property
    def container(self) -> Manifest:
        (found,) = self.pod["containers"]
        return found

    @property
    def config_maps(self) -> dict[str, dict[str, str]]:
        return {manifest["metadata"]["name"]: manifest["data"] for manifest in self.all("ConfigMap")}

    @property
    def settings(self) -> Manifest:
        return yaml.safe_load(self.config_maps["livekit-auth"]["server.yaml"])

    def mount(self, folder: Path, given: Mapping[str, Mapping[str, bytes]], version: str = "..1") -> None:
        """Lays the projected volume out, links and modes as the kubelet's; `given` are objects that the chart names.

        Called again with another version it swaps everything in one step, as an update of an object does.
        """
        objects = {name: {key: text.encode() for key, text in data.items()} for name, data in self.config_maps.items()}
        objects |= {name: dict(data) for name, data in given.items()}
        (volume,) = [volume["projected"] for volume in self.pod["volumes"] if "projected" in volume]
        for source in volume["sources"]:
            (reference,) = source.values()
            for item in reference["items"]:
                path = folder / version / item["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(objects[reference["name"]][item["key"]])
                _own(path, volume["defaultMode"])
        (folder / "..data_tmp").symlink_to(version)
        os.replace(folder / "..data_tmp", folder / "..data")  # noqa: PTH105 - as the kubelet does it
        for entry in (folder / version).iterdir():
            if not (folder / entry.name).is_symlink():
                (folder / entry.name).symlink_to(f"..data/{entry.name}")


def _own(path: Path, mode: int) -> None:
    """Root's, for the pod's group, if this process may say so."""
    if os.geteuid() == 0:
        os.chown(path, 0, GID)
    path.chmod(mode)
