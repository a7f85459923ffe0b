"""The policy file as a JSON Schema (draft 2020-12), for editors.

Every file that the loader accepts fits the schema, except for a null where a field could be left out. The reverse isn't
true: only the loader (`livekit-auth-server policy check`) knows whether roles and projects exist, ids are unique, and
powers have what they depend on.
"""

from __future__ import annotations

import json
from typing import Any

from livekit_auth_server.policy.models import PolicyFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """The schema, made from the models that the loader checks with."""
    made = PolicyFile.model_json_schema(mode="validation")
    return {"$schema": DIALECT, **_without_nulls(made), "title": "livekit-auth policy"}


def schema_text() -> str:
    """The schema as docs/policy.schema.json has it."""
    return json.dumps(schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _without_nulls(node: Any) -> Any:  # noqa: ANN401 - JSON
    """The schema without nulls and defaults: the loader accepts no null, and the descriptions name the defaults."""
    if isinstance(node, list):
        return [_without_nulls(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {key: _without_nulls(value) for key, value in node.items() if key not in ("default", "title")}
    if "properties" in node:
        kept["properties"] = {key: _without_nulls(value) for key, value in node["properties"].items()}
    if "patternProperties" in node:
        kept["additionalProperties"] = False
    branches = [branch for branch in kept.pop("anyOf", []) if branch != {"type": "null"}]
    if len(branches) == 1:
        return {**branches[0], **kept}
    return {**kept, **({"anyOf": branches} if branches else {})}
