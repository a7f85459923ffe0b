"""Judges messages by the annotations in the proto: `python protovalidate_oracle.py IMAGE`, one line of JSON each.

A process of its own, since the annotated descriptors and the generated ones, which are without annotations, would be
two definitions of one message. In: {"type", "data" (base64)}; out: {"broken": [paths of the fields that break a rule]}.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import protovalidate
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass


def path(violation: protovalidate.Violation) -> str:
    """A violation's place, as service.validation writes it: without an index where the field is a list of scalars."""
    parts = []
    assert violation.proto.field is not None
    for element in violation.proto.field.elements:
        index = element.subscript.value if element.subscript is not None else None
        parts.append(element.field_name if index is None else f"{element.field_name}[{index}]")
    return ".".join(parts)


def main() -> None:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(Path(sys.argv[1]).read_bytes()).file:
        pool.Add(file)
    validator = protovalidate.Validator()
    for line in sys.stdin:
        asked = json.loads(line)
        message = GetMessageClass(pool.FindMessageTypeByName(asked["type"])).FromString(base64.b64decode(asked["data"]))
        try:
            broken = [path(violation) for violation in validator.collect_violations(message)]
        except protovalidate.EvaluationError:  # a value that the rule can't be evaluated for, such as an endless ttl
            broken = ["?"]
        print(json.dumps({"broken": broken}), flush=True)  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
