"""Generates the Python code from the contract and compares it with what is checked in, or writes it with --write."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path("clients/python/livekit_auth/v1")


def generate(out: Path) -> dict[str, bytes]:
    """The generated files by name. Stubs for files without a service are empty shells and left out."""
    subprocess.run(["buf", "generate", "--output", str(out)], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    files = {path.name: path.read_bytes() for path in sorted((out / PACKAGE).iterdir())}
    return {name: text for name, text in files.items() if "_pb2_grpc" not in name or b"Stub" in text}


def main() -> None:
    """Exits with 1 and the names of the files that differ."""
    with tempfile.TemporaryDirectory() as directory:
        fresh = generate(Path(directory))
    present = {path.name: path.read_bytes() for path in (ROOT / PACKAGE).glob("*_pb2*")}
    if "--write" in sys.argv:
        for name in present.keys() - fresh.keys():
            (ROOT / PACKAGE / name).unlink()
        for name, text in fresh.items():
            (ROOT / PACKAGE / name).write_bytes(text)
        shutil.rmtree(ROOT / PACKAGE / "__pycache__", ignore_errors=True)
        return
    stale = sorted(name for name in fresh.keys() | present.keys() if fresh.get(name) != present.get(name))
    if stale:
        raise SystemExit(f"generated code isn't the contract's: {', '.join(stale)}; run: make proto")


if __name__ == "__main__":
    main()
