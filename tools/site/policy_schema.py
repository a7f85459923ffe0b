"""The page of the policy's fields, from the JSON Schema that `livekit-auth-server policy schema` prints."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_INTRODUCTION = """\
# Policy fields

Every field of a policy, generated from [policy.schema.json](policy.schema.json). [The policy file](policy.md) explains
them and has examples.
"""


def schema_page(root: Path) -> str:
    """The page in Markdown: the whole file, then each kind of object in it by name."""
    schema = json.loads((root / "docs/policy.schema.json").read_text())
    definitions = {"The file": schema, **schema["$defs"]}
    return _INTRODUCTION + "".join(text for name, found in definitions.items() for text in _definition(name, found))


def _definition(name: str, found: dict[str, Any]) -> Iterator[str]:
    yield f"\n## {name}\n\n{found['description']}\n\n| field | type | |\n|---|---|---|\n"
    for field, about in found["properties"].items():
        needed = ", required" if field in found.get("required", ()) else ""
        yield f"| `{field}` | {_type(about)}{needed} | {about['description']} |\n"


def _type(about: dict[str, Any]) -> str:
    if "$ref" in about:
        name = about["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "oneOf" in about:
        return " or ".join(_type(one) for one in about["oneOf"])
    if "const" in about:
        return f"`{about['const']}`"
    if "enum" in about:
        return "one of " + ", ".join(f"`{value}`" for value in about["enum"])
    if "items" in about:
        return f"list of {_type(about['items'])}"
    if "patternProperties" in about:
        (values,) = about["patternProperties"].values()
        return f"map of names to {_type(values)}"
    return f"`{about['type']}`"
