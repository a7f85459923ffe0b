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
    match about:
        case {"$ref": ref}:
            name = ref.rpartition("/")[2]
            text = f"[{name}](#{name.lower()})"
        case {"oneOf": choices}:
            text = " or ".join(map(_type, choices))
        case {"const": value}:
            text = f"`{value}`"
        case {"enum": values}:
            text = "one of " + ", ".join(f"`{value}`" for value in values)
        case {"items": items}:
            text = f"list of {_type(items)}"
        case {"patternProperties": patterns}:
            text = "map of names to " + " or ".join(map(_type, patterns.values()))
        case _:
            text = f"`{about['type']}`"
    return text
