"""Generates files from the contract and compares them with the checked-in files, or writes them with --write.

The files are the Python code, and the contract without its validation rules, which `protoc`, Go and grpcurl can read
with no other files on their path. The plain contract omits only the validation rules and field behaviours.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path("clients/python/livekit_auth/v1")
PLAIN = Path("protos-plain")
SERVICE_CONFIG = "livekit_auth/v1/auth_service_grpc_service_config.json"
_PART = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"|[\[\]]|[^/"\[\]]+|/')
_RULE = re.compile(r"^[ \t]*option \(buf\.validate\.[a-z.]+\)[^;]*;\n\n?", re.MULTILINE)
_ANOTHER_OPTION = re.compile(r"\[(?!\s*\((?:buf\.validate|google\.api)\.field)")
_IMPORT = re.compile(r'^import "(?:buf/validate|google/api)/[^"]+";\n', re.MULTILINE)


def plain(text: str) -> str:
    """A file of the contract without its rules. Raises ValueError for field options of other kinds."""
    kept: list[str] = []
    depth, options = 0, ""
    for part in _PART.findall(text):
        if part == "[":
            depth += 1
        if depth:
            options += part
        else:
            kept.append(part)
        if part == "]":
            depth -= 1
            if depth == 0:
                if _ANOTHER_OPTION.match(options):
                    raise ValueError(f"an option that is neither a rule nor a behaviour: {options[:80]}")
                kept[-1] = kept[-1].rstrip()
                options = ""
    without = _IMPORT.sub("", _RULE.sub("", "".join(kept)))
    return re.sub(r"^(package [^;]+;\n)\n+", r"\1\n", without, count=1, flags=re.MULTILINE)


def plain_files() -> dict[str, bytes]:
    """The files under PLAIN, by their paths there: the contract, what it imports, and its service config."""
    sources = sorted((ROOT / "protos/livekit_auth/v1").glob("*.proto"))
    files = {f"livekit_auth/v1/{path.name}": plain(path.read_text()).encode() for path in sources}
    copies = {"google/rpc/status.proto": "third_party/protos", SERVICE_CONFIG: "protos"}
    return files | {name: (ROOT / folder / name).read_bytes() for name, folder in copies.items()}


def generate(out: Path) -> dict[str, bytes]:
    """The generated files by name, without the empty stubs of files that define no service."""
    subprocess.run(["buf", "generate", "--output", str(out)], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    files = {path.name: path.read_bytes() for path in sorted((out / PACKAGE).iterdir())}
    return {name: text for name, text in files.items() if "_pb2_grpc" not in name or b"Stub" in text}


def files_of(folder: Path, pattern: str) -> dict[str, bytes]:
    """The checked-in files, by their paths in the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(pattern)}


def write(folder: Path, fresh: dict[str, bytes], present: dict[str, bytes]) -> None:
    """Replaces the files in the folder with the fresh ones."""
    for name in present.keys() - fresh.keys():
        (folder / name).unlink()
    for name, text in fresh.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text)


def main() -> None:
    """Exits with 1 and the names of the files that differ."""
    with tempfile.TemporaryDirectory() as directory:
        code = generate(Path(directory))
    generated = {PACKAGE: (code, "*_pb2*"), PLAIN: (plain_files(), "*.*")}
    stale: list[str] = []
    for folder, (fresh, pattern) in generated.items():
        shutil.rmtree(ROOT / folder / "__pycache__", ignore_errors=True)
        present = files_of(ROOT / folder, pattern)
        if "--write" in sys.argv:
            write(ROOT / folder, fresh, present)
        else:
            names = fresh.keys() | present.keys()
            stale += [f"{folder}/{name}" for name in names if fresh.get(name) != present.get(name)]
    if stale:
        raise SystemExit(f"generated files don't match the contract: {', '.join(sorted(stale))}; run: make proto")


if __name__ == "__main__":
    main()
