"""The page of the contract, from protoc's descriptors and the comments of the .proto files."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2

_PACKAGE = ".livekit_auth.v1."
_MESSAGE, _ENUM, _SERVICE = 4, 5, 6  # field numbers of FileDescriptorProto, which begin a comment's path
_FIELD, _NESTED, _VALUE, _METHOD = 2, 3, 2, 2  # and those of the descriptors in it
_INTRODUCTION = """\
# The contract

Package `livekit_auth.v1`, generated from the `.proto` files with their comments. Generate code from `protos-plain/`,
which needs no other file; [other languages](other-languages.md) has the commands. [Versions of the
contract](versioning.md) says what may change in it.
"""


def contract_page(root: Path) -> str:
    """The page in Markdown: services first, then each message and enum, file by file."""
    files = [_File(file) for file in _descriptors(root / "protos-plain")]
    files.sort(key=lambda file: not file.proto.service)
    return _INTRODUCTION + "".join(text for file in files for text in file.page())


def _descriptors(folder: Path) -> list[descriptor_pb2.FileDescriptorProto]:
    sources = sorted(str(path) for path in (folder / "livekit_auth/v1").glob("*.proto"))
    with tempfile.TemporaryDirectory() as out:
        image = Path(out) / "image.binpb"
        command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(folder), "--include_source_info"]
        subprocess.run([*command, f"--descriptor_set_out={image}", *sources], check=True)
        return list(descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes()).file)


class _File:
    """One .proto file, and the comment of each element in it by its path."""

    def __init__(self, proto: descriptor_pb2.FileDescriptorProto) -> None:
        self.proto = proto
        self._comments = {tuple(at.path): at.leading_comments for at in proto.source_code_info.location}

    def page(self) -> Iterator[str]:
        for number, service in enumerate(self.proto.service):
            yield from self._service(service, (_SERVICE, number))
        yield f"\n## {Path(self.proto.name).name}\n"
        for number, message in enumerate(self.proto.message_type):
            yield from self._message(message, message.name, (_MESSAGE, number))
        for number, enum in enumerate(self.proto.enum_type):
            yield from self._enum(enum, enum.name, (_ENUM, number))

    def _text(self, path: tuple[int, ...]) -> str:
        """A comment as Markdown, a line break only between paragraphs and before list items."""
        comment = self._comments.get(path, "").strip().replace("\n - ", "\n\n - ")
        return "\n\n".join(_escaped(" ".join(map(str.strip, text.splitlines()))) for text in comment.split("\n\n"))

    def _cell(self, path: tuple[int, ...]) -> str:
        return self._text(path).replace("\n\n", "<br>").replace("|", "\\|")

    def _service(self, service: descriptor_pb2.ServiceDescriptorProto, path: tuple[int, ...]) -> Iterator[str]:
        yield f"\n## {service.name}\n\n{self._text(path)}\n\n| method | request, answer | |\n|---|---|---|\n"
        for number, method in enumerate(service.method):
            about = self._cell((*path, _METHOD, number))
            yield f"| `{method.name}` | {_type(method.input_type)}<br>{_type(method.output_type)} | {about} |\n"

    def _message(self, message: descriptor_pb2.DescriptorProto, name: str, path: tuple[int, ...]) -> Iterator[str]:
        yield f"\n### {name}\n\n{self._text(path)}\n"
        entries = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
        if message.field:
            yield "\n| field | number | type | |\n|---|---|---|---|\n"
        for number, field in enumerate(message.field):
            about = self._cell((*path, _FIELD, number))
            yield f"| `{field.name}` | {field.number} | {_field_type(field, message, entries)} | {about} |\n"
        for number, nested in enumerate(message.nested_type):
            if nested.name not in entries:
                yield from self._message(nested, f"{name}.{nested.name}", (*path, _NESTED, number))
        for number, enum in enumerate(message.enum_type):
            yield from self._enum(enum, f"{name}.{enum.name}", (*path, _ENUM, number))

    def _enum(self, enum: descriptor_pb2.EnumDescriptorProto, name: str, path: tuple[int, ...]) -> Iterator[str]:
        yield f"\n### {name}\n\n{self._text(path)}\n\n| value | number | |\n|---|---|---|\n"
        for number, value in enumerate(enum.value):
            yield f"| `{value.name}` | {value.number} | {self._cell((*path, _VALUE, number))} |\n"


def _field_type(
    field: descriptor_pb2.FieldDescriptorProto,
    message: descriptor_pb2.DescriptorProto,
    entries: dict[str, descriptor_pb2.DescriptorProto],
) -> str:
    entry = entries.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        return f"map of {_scalar(entry.field[0])} to {_scalar(entry.field[1])}"
    if field.label == field.LABEL_REPEATED:
        return f"list of {_scalar(field)}"
    if field.proto3_optional:
        return f"{_scalar(field)}, optional"
    one_of = f", one of `{message.oneof_decl[field.oneof_index].name}`" if field.HasField("oneof_index") else ""
    return _scalar(field) + one_of


def _scalar(field: descriptor_pb2.FieldDescriptorProto) -> str:
    kind = descriptor_pb2.FieldDescriptorProto.Type.Name(field.type)
    return _type(field.type_name) if field.type_name else f"`{kind.removeprefix('TYPE_').lower()}`"


def _type(name: str) -> str:
    """A type's name, as a link if this page describes the type."""
    if name.startswith(_PACKAGE):
        short = name.removeprefix(_PACKAGE)
        return f"[`{short}`](#{short.lower().replace('.', '')})"
    return f"`{name.removeprefix('.')}`"


def _escaped(text: str) -> str:
    return re.sub(r"([*_<>\[\]`\\])", r"\\\1", text)
