"""The fields of the policy file, as pydantic models: what each may hold, and what it means. docs/policy.md has more.

`livekit-auth-server policy schema` makes a JSON Schema of them, so the descriptions here are what an editor shows.
"""

from __future__ import annotations

import re
from dataclasses import fields
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    SkipValidation,
    StrictBool,
    StrictStr,
    WithJsonSchema,
    create_model,
    model_validator,
)
from ruamel.yaml.scalarbool import ScalarBoolean

from livekit_auth_server.config.limits import CallerLimit  # noqa: TC001 - pydantic reads it
from livekit_auth_server.config.project_name import ProjectName  # noqa: TC001 - pydantic reads it
from livekit_auth_server.core.grants import GROUPS, ORDINARY_GRANTS, POWERS
from livekit_auth_server.core.policy import AGENT_TTL_LIMIT, ROLE_NAME, TTL_LIMIT
from livekit_auth_server.core.workload_id import WorkloadId
from livekit_auth_server.files.field_types import AnyOr, Model, Version, listed, matching, one_of, patterned
from livekit_auth_server.service.validation import MAX_TTL, RULES

if TYPE_CHECKING:
    from collections.abc import Iterator


_DURATION = re.compile(r"(?:(?P<h>[0-9]{1,5})h)?(?:(?P<m>[0-9]{1,7})m)?(?:(?P<s>[0-9]{1,9})s)?\Z")


def seconds(value: object) -> int:
    """The seconds in "1h30m", "10m" or "45s". Raises ValueError."""
    return _seconds(value if isinstance(value, str) else "")


@lru_cache(maxsize=256)
def _seconds(text: str) -> int:
    match = _DURATION.match(text)
    total = sum(int(match[unit] or 0) * size for unit, size in (("h", 3600), ("m", 60), ("s", 1))) if match else 0
    if not 1 <= total <= MAX_TTL:
        raise ValueError('should be a duration such as "10m", "1h30m" or "45s", at least 1s and at most 8760h')
    return total


def _workload_id(text: str) -> str:
    return WorkloadId.parse(text).text


def _flag(value: object) -> object:
    if not isinstance(value, (bool, ScalarBoolean)):
        raise ValueError("should be true or false")  # noqa: TRY004 - what pydantic takes
    return bool(value)


def _unicode(text: str) -> str:
    """YAML's escapes can write half of a character, which no request can hold and no answer can carry."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds a surrogate, which is half of a character") from None
    return text


def _identifier(text: str) -> str:
    """A room or an identity, or the beginning of one, as a request could hold it."""
    if wrong := RULES["IssueTokenRequest.room"](text):
        raise ValueError(wrong)
    return text


Seconds = Annotated[
    int,
    BeforeValidator(seconds),
    patterned("(?=.)([0-9]{1,5}h)?([0-9]{1,7}m)?([0-9]{1,9}s)?"),
]
Flag = Annotated[StrictBool, BeforeValidator(_flag)]
Text = Annotated[StrictStr, AfterValidator(_unicode)]
Identifier = Annotated[
    Text,
    AfterValidator(_identifier),
    WithJsonSchema(
        {"type": "string", "minLength": 1, "maxLength": 256, "pattern": r"^[^\u0000-\u001f\u007f-\u009f]+$"}
    ),
]
RoleName = Annotated[StrictStr, matching(ROLE_NAME, 'a role\'s name: a-z, 0-9, "-" and "_"'), patterned(ROLE_NAME)]
OrdinaryGrant = Annotated[StrictStr, one_of(ORDINARY_GRANTS, "ordinary grant"), listed(ORDINARY_GRANTS)]
Power = Annotated[StrictStr, one_of(POWERS, "power"), listed(POWERS)]
CallerId = Annotated[
    StrictStr,
    AfterValidator(_workload_id),
    patterned(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)+|dns:[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*"),
]


class Matching(Model):
    """One matcher: `exact` or `prefix`, a whole value or its beginning, byte for byte."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["exact"]}, {"required": ["prefix"]}]})

    exact: Identifier | None = Field(default=None, description="The whole value, byte for byte.")
    prefix: Identifier | None = Field(default=None, description="The beginning of the value, byte for byte.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Matching:
        given = [value for value in (self.exact, self.prefix) if value is not None]
        if len(given) != 1:
            raise ValueError("needs exactly one of exact and prefix")
        if not given[0]:
            raise ValueError("an empty matcher would match nothing or everything; write `any` instead of the list")
        return self


class Ttl(Model):
    """How long tokens live: `default` where the request doesn't say, `max` at most."""

    default: Seconds = Field(default=AGENT_TTL_LIMIT, description="Where a request names no ttl: 45s, 10m, 1h30m.")
    max: Seconds = Field(
        default=TTL_LIMIT, description="At most. Over 1h, or 10m with agent, needs the power long_ttl."
    )


class Allow(Model):
    """One entry: it permits a request only as a whole. What isn't written permits nothing."""

    name: Annotated[Identifier, Field(min_length=1, max_length=64)] = Field(
        default="", description="Names the entry in decisions and the audit trail. Default: allow[0], allow[1], …"
    )
    projects: AnyOr[ProjectName] = Field(description="The projects, or any for every configured one.")
    roles: list[RoleName] = Field(default_factory=list, description="The roles that a request may ask for.")
    grants: AnyOr[OrdinaryGrant] = Field(
        default_factory=list, description="Ordinary grants that a request may spell out instead of a role, or any."
    )
    powers: list[Power] = Field(
        default_factory=list, description="The powers that are permitted, whether a role or a request asks for them."
    )
    rooms: AnyOr[Matching] = Field(
        default_factory=list, description="The rooms, compared whenever a request names one, or any."
    )
    identities: AnyOr[Matching] = Field(
        default_factory=list, description="The participants' identities, compared whenever a request names one, or any."
    )
    ttl: Ttl = Field(default_factory=Ttl, description="How long tokens live. Default: 10m, at most 1h.")


class Verify(Model):
    """The projects whose webhooks and tokens a caller may verify."""

    webhooks: AnyOr[ProjectName] = Field(default_factory=list, description="Whose webhooks it may verify, or any.")
    tokens: AnyOr[ProjectName] = Field(default_factory=list, description="Whose tokens it may verify, or any.")


class CallerEntry(Model):
    """What one workload identity may do."""

    id: CallerId = Field(
        description="The workload identity, spiffe://trust-domain/path or dns:name, as `livekit-auth whoami` prints it."
    )
    allow: list[Allow] = Field(
        default_factory=list,
        description="Entries, of which one alone must permit a whole request; the first such counts.",
    )
    default_project: ProjectName | None = Field(
        default=None,
        description="The project of a token request that names none; one of those in allow. Default: the only one.",
    )
    verify: Verify = Field(default_factory=Verify, description="What it may verify.")
    read_decisions: AnyOr[ProjectName] = Field(
        default_factory=list, description="The projects in which it may read the decisions of any caller, or any."
    )
    limits: Annotated[list[CallerLimit], Field(min_length=1)] = Field(
        default_factory=list, description="How often it may call; a call has to fit every limit that counts it."
    )


_STRICT = {bool: Flag, bool | None: Flag, str: Text, tuple[str, ...]: list[Text]}


def _strict(hint: Any, values: tuple[str, ...]) -> Any:  # noqa: ANN401 - types
    """The type of a role's field: no "yes" for true, no null, and no empty list, which LiveKit reads as everything."""
    return Annotated[list[Literal[values]], Field(min_length=1)] if values else _STRICT[hint]  # type: ignore[valid-type]


def _grant_models() -> Iterator[tuple[str, Any]]:
    """A model for each group of grants, made of its dataclass, so that the two can't differ."""
    for name, group in GROUPS.items():
        hints = get_type_hints(group)
        members: dict[str, Any] = {
            f.name: (
                _strict(hints[f.name], f.metadata.get("values", ())),
                Field(
                    default=list(f.default) if isinstance(f.default, tuple) else f.default,
                    description=_about(f.name if name == "video" else name),
                ),
            )
            for f in fields(group)
        }
        model = create_model(group.__name__, __base__=Model, __doc__=group.__doc__, **members)
        yield name, (model, Field(default=None, description=f"Grants of the group {name}."))


def _about(name: str) -> str:
    if name in ORDINARY_GRANTS:
        return "An ordinary grant."
    return f"A power: an entry that names this role must list {name} under powers."


Role: Any = create_model("Role", __base__=Model, __doc__="Grants under a name.", **dict(_grant_models()))


class PolicyFile(Model):
    """Who may have which token. Default deny: what isn't written permits nothing."""

    version: Version = Field(description="The form of the file: 1.")
    roles: dict[RoleName, Role] = Field(default_factory=dict, description="Sets of grants, by name.")
    # policy.policy_file validates callers one by one.
    callers: list[SkipValidation[CallerEntry]] = Field(
        strict=True, description="Every workload that may call, each once."
    )
