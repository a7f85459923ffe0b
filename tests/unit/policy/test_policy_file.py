"""The policy file: what loads means what it says, and what doesn't is one line that says where and why."""

from __future__ import annotations

import gc
import json
from dataclasses import fields
from io import StringIO
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from livekit_auth_server.core.grants import GROUPS, ORDINARY_GRANTS, POWERS, UNSCOPED_POWERS, Grants, VideoGrants
from livekit_auth_server.core.policy import AllowEntry, CallerPolicy, Matcher, Policy
from livekit_auth_server.files.document import Document
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.policy import policy_file
from livekit_auth_server.policy.explain import expectations_path, run_expectations
from livekit_auth_server.policy.models import seconds
from livekit_auth_server.policy.policy_file import compile_policy, load_policies, load_policy
from support.examples import examples
from support.policies import ANY, JOIN

if TYPE_CHECKING:
    from collections.abc import Callable

WEB = "spiffe://example.org/web"


CONFIGURED = frozenset({"default", "other"})


def load(text: str, projects: frozenset[str] | None = CONFIGURED, name: str = "policy.yaml") -> Policy:
    return compile_policy(Document.parse(Path(name), text.encode()), projects)


def as_json(text: str) -> str:
    """The YAML text as JSON; empty where it isn't YAML, or holds nothing."""
    try:
        data = YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        return ""
    return "" if data is None else json.dumps(data, indent=1)


def entry(text: str) -> AllowEntry:
    """The entry that this allow block, with `projects` before it, compiles to."""
    return load(one_caller(text)).callers[WEB].entries[0]


def one_caller(allow: str, roles: str = "{guest: {video: {room_join: true}}}") -> str:
    """A policy with one caller and one entry; the entry's first line is line 6."""
    lines = [f"version: 1\nroles: {roles}\ncallers:\n  - id: {WEB}\n    allow:\n      - projects: [default]\n"]
    return lines[0] + "".join(f"        {line}\n" for line in dedent(allow).strip().splitlines())


DESIGN = """\
version: 1
roles:
  guest: {video: {room_join: true, can_publish: true, can_subscribe: true, can_publish_data: false}}
  agent-worker: {video: {agent: true}}
callers:
  - id: spiffe://example.org/ns/web/sa/consult-api
    allow:
      - projects: [default]
        roles: [guest]
        rooms: [{prefix: "consult-"}]
        identities: [{prefix: "user-"}]
        ttl: {default: 10m, max: 1h}
    verify: {webhooks: [default], tokens: [default]}
  - id: spiffe://example.org/ns/agents/sa/fleet
    allow:
      - projects: [default]
        roles: [agent-worker]
        powers: [agent]
        rooms: any
        ttl: {default: 5m, max: 10m}
"""


def test_the_example_of_the_design_loads_and_means_what_it_says():
    policy = load(DESIGN)
    assert policy.roles == {
        "guest": Grants(video=VideoGrants(room_join=True, can_publish_data=False)),
        "agent-worker": Grants(video=VideoGrants(agent=True)),
    }
    web, fleet = "spiffe://example.org/ns/web/sa/consult-api", "spiffe://example.org/ns/agents/sa/fleet"
    default = frozenset({"default"})
    guests = AllowEntry(
        name="allow[0]",
        projects=default,
        roles=frozenset({"guest"}),
        rooms=Matcher(prefixes=("consult-",)),
        identities=Matcher(prefixes=("user-",)),
        default_ttl=600,
        max_ttl=3600,
    )
    workers = AllowEntry(
        name="allow[0]",
        projects=default,
        roles=frozenset({"agent-worker"}),
        powers=frozenset({"agent"}),
        rooms=ANY,
        default_ttl=300,
        max_ttl=600,
    )
    assert policy.callers == {
        web: CallerPolicy(web, (guests,), verify_webhooks=default, verify_tokens=default),
        fleet: CallerPolicy(fleet, (workers,)),
    }


def test_callers_and_roles_are_looked_up_and_not_searched():
    policy = load(DESIGN)
    assert type(policy.callers) is dict
    assert type(policy.roles) is dict


def test_the_revision_names_the_text():
    assert load(DESIGN).revision == load(DESIGN).revision
    assert load(DESIGN).revision != load(DESIGN + "# a comment\n").revision
    assert len(load(DESIGN).revision) == 16


def test_a_policy_is_read_from_its_file(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(DESIGN)
    assert load_policy(path, frozenset({"default"})) == load(DESIGN)
    with pytest.raises(ConfigError, match="there is no such file"):
        load_policy(tmp_path / "missing.yaml", None)


# What isn't written permits nothing


def test_an_entry_permits_nothing_but_what_it_says():
    assert entry("") == AllowEntry(name="allow[0]", projects=frozenset({"default"}), default_ttl=600, max_ttl=3600)


def test_a_policy_without_callers_permits_nobody():
    assert load("version: 1\ncallers: []\n").callers == {}
    assert load(f"version: 1\ncallers: [{{id: {WEB}}}]\n").callers == {WEB: CallerPolicy(WEB)}


@pytest.mark.parametrize("field", ["roles", "grants", "powers", "rooms", "identities"])
def test_an_empty_list_permits_nothing(field):
    assert entry(f"{field}: []") == entry("")


def test_no_project_can_be_listed():
    policy = load(f"version: 1\ncallers:\n  - id: {WEB}\n    allow: [{{projects: []}}]\n")
    assert policy.callers[WEB].projects == frozenset()


def test_any_has_to_be_written():
    everything = entry("grants: any\nrooms: any\nidentities: any")
    assert (everything.grants, everything.rooms, everything.identities) == (ORDINARY_GRANTS, ANY, ANY)
    assert everything.powers == frozenset()


def test_matchers_are_whole_values_and_beginnings():
    rooms = entry("rooms: [{exact: lobby}, {prefix: consult-}, {exact: 'any'}, {prefix: '*'}]").rooms
    assert rooms == Matcher(exact=frozenset({"lobby", "any"}), prefixes=("consult-", "*"))


def test_any_project_is_every_configured_one():
    verify = "{webhooks: any, tokens: any}"
    text = f"version: 1\ncallers:\n  - id: {WEB}\n    allow: [{{projects: any}}]\n    verify: {verify}\n"
    caller = load(text).callers[WEB]
    configured = frozenset({"default", "other"})
    assert (caller.projects, caller.verify_webhooks, caller.verify_tokens) == (configured, configured, configured)
    assert load(text, frozenset()).callers[WEB].projects == frozenset()


def test_a_caller_without_a_default_project_has_none():
    caller = load(f"version: 1\ncallers:\n  - id: {WEB}\n    allow: [{{projects: any}}]\n").callers[WEB]
    assert (caller.default_project, caller.read_decisions) == ("", frozenset())


@pytest.mark.parametrize("projects", ["any", "[default]", "[other, default]"])
def test_the_default_project_is_one_of_the_allow_entries(projects):
    allow = f"allow: [{{projects: [other]}}, {{projects: {projects}}}]"
    text = f"version: 1\ncallers:\n  - id: {WEB}\n    default_project: default\n    {allow}\n"
    assert load(text).callers[WEB].default_project == "default"


def test_reading_decisions_is_permitted_by_project():
    text = f"version: 1\ncallers:\n  - id: {WEB}\n    read_decisions: {{}}\n"
    assert load(text.format("any")).callers[WEB].read_decisions == CONFIGURED
    assert load(text.format("[other]")).callers[WEB].read_decisions == frozenset({"other"})
    assert load(text.format("[]")).callers[WEB].read_decisions == frozenset()


def test_offline_any_project_is_every_one_that_the_file_names_or_the_default():
    any_project = f"version: 1\ncallers:\n  - id: {WEB}\n    allow: [{{projects: any}}]\n    verify: {{tokens: any}}\n"
    caller = load(any_project, None).callers[WEB]
    assert (caller.projects, caller.verify_tokens) == (frozenset({"default"}), frozenset({"default"}))
    named = any_project + "  - id: dns:a.example\n    allow: [{projects: [a, b]}]\n    verify: {webhooks: [c]}\n"
    assert load(named, None).callers[WEB].projects == frozenset({"a", "b", "c"})
    more = any_project + "    default_project: d\n    read_decisions: [e]\n"
    assert load(more, None).callers[WEB].projects == frozenset({"d", "e"})


def test_every_power_can_be_listed():
    listed = entry(f"rooms: any\npowers: [{', '.join(sorted(POWERS))}]")
    assert listed.powers == POWERS


@pytest.mark.parametrize("name", [f"{group}.{f.name}" for group, cls in GROUPS.items() for f in fields(cls)])
def test_a_role_can_hold_every_grant(name):
    group, field = name.split(".")
    default = getattr(GROUPS[group](), field)
    value, text = {
        bool: (not default, str(not default).lower()),
        type(None): (True, "true"),
        str: ("x", "x"),
        tuple: (("camera",), "[camera]"),
    }[type(default)]
    role = load(f"version: 1\nroles: {{r: {{{group}: {{{field}: {text}}}}}}}\ncallers: []\n").roles["r"]
    assert role == Grants(**{group: GROUPS[group](**{field: value})})


def test_a_role_can_say_false_instead_of_nothing():
    roles = "{a: {video: {can_subscribe_metrics: false}}, b: {video: {}}}"
    policy = load(f"version: 1\nroles: {roles}\ncallers: []\n")
    assert policy.roles["a"] == Grants(video=VideoGrants(can_subscribe_metrics=False))
    assert policy.roles["b"] == Grants(video=VideoGrants())
    assert policy.roles["a"] != policy.roles["b"]


def test_aliases_and_merged_mappings_are_part_of_the_text():
    """A merge that was passed over would widen a role: what isn't said is LiveKit's default, true."""
    roles = "{quiet: {video: &q {can_publish: false}}, guest: {video: {<<: *q, room_join: true}}, same: {video: *q}}"
    policy = load(f"version: 1\nroles: {roles}\ncallers: []\n")
    assert policy.roles["guest"] == Grants(video=VideoGrants(room_join=True, can_publish=False))
    assert policy.roles["same"] == policy.roles["quiet"] == Grants(video=VideoGrants(can_publish=False))
    anchored = load("version: 1\nroles: {r: {video: {can_publish: &no false, can_subscribe: *no}}}\ncallers: []\n")
    assert anchored.roles["r"] == Grants(video=VideoGrants(can_publish=False, can_subscribe=False))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("45s", 45), ("10m", 600), ("1h30m", 5400), ("1h", 3600), ("1h1m1s", 3661), ("8760h", 31536000), ("1s", 1)],
)
def test_a_duration_is_hours_minutes_and_seconds(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "0s", "10", 600, 1.5, None, True, "1m1h", "-1m", "+1m", "1.5h", "1d", "1H", " 1m", "1m ", "1m\n"),
        *("8761h", "1h 30m", "99999999h", "\u0661s", "m", "1hm"),
    ],
)
def test_what_isnt_a_duration_is_refused(text):
    with pytest.raises(ValueError, match="should be a duration such as"):
        seconds(text)


def test_ttls_are_in_seconds():
    assert (entry("ttl: {default: 90s, max: 2m}").default_ttl, entry("ttl: {max: 10m}").max_ttl) == (90, 600)


# Mistakes

MISTAKES: dict[str, tuple[str, int | None, str]] = {
    # The file as a whole
    "an empty file": ("", None, "is empty"),
    "nothing but a comment": ("# policy\n", None, "is empty"),
    "a list": ("- version: 1\n", None, "should be a mapping with the fields version, roles, callers"),
    "plain text": ("version 1\n", None, "should be a mapping with the fields version, roles, callers"),
    "two documents": ("version: 1\ncallers: []\n---\nversion: 1\n", 3, "isn't valid YAML"),
    "broken YAML": ("version: 1\ncallers: [\n", 3, "isn't valid YAML"),
    "a tab": ("version: 1\ncallers:\n\t- id: x\n", 3, "isn't valid YAML"),
    "an unknown alias": ("version: 1\ncallers: *x\n", 2, "isn't valid YAML"),
    "no version": ("callers: []\n", None, "version: is required"),
    "no callers": ("version: 1\n", None, "callers: is required"),
    "another version": ("version: 2\ncallers: []\n", 1, "version: should be 1"),
    "a version as text": ("version: '1'\ncallers: []\n", 1, "version: should be 1"),
    "a version that is true": ("version: true\ncallers: []\n", 1, "version: should be 1"),
    "a version that is a fraction": ("version: 1.0\ncallers: []\n", 1, "version: should be 1"),
    "no version at all": ("version:\ncallers: []\n", 1, "version: should be 1"),
    "callers that are null": ("version: 1\ncallers:\n", 2, "callers: should be a list"),
    "callers that are a mapping": ("version: 1\ncallers: {a: b}\n", 2, "callers: should be a list"),
    "a key twice": ("version: 1\ncallers: []\nversion: 1\n", 3, "duplicate key, in line 1 too; remove one"),
    "an unknown field": ("version: 1\nrules: []\ncallers: []\n", 2, "rules: there is no such field"),
    "a field that isn't text": ("version: 1\n2: 3\ncallers: []\n", 2, "should be"),
    # Roles
    "a role twice": ("version: 1\nroles:\n  a: {}\n  a: {}\ncallers: []\n", 4, "duplicate key, in line 3 too"),
    "a role's name": (
        "version: 1\nroles:\n  Guest: {}\ncallers: []\n",
        3,
        "roles.Guest: isn't a role's name: a-z, 0-9",
    ),
    "a role's name with brackets": (
        "version: 1\nroles:\n  guest[0]: {}\ncallers: []\n",
        3,
        "roles.guest[0]: isn't a role's",
    ),
    "a role that is null": ("version: 1\nroles:\n  guest:\ncallers: []\n", 3, "roles.guest: should be a mapping"),
    "a group that is null": (
        "version: 1\nroles:\n  guest:\n    video:\ncallers: []\n",
        4,
        "roles.guest.video: should be a mapping with the fields room_create",
    ),
    "an unknown group": (
        "version: 1\nroles:\n  guest: {audio: {}}\ncallers: []\n",
        3,
        "roles.guest.audio: there is no",
    ),
    "an unknown grant": (
        "version: 1\nroles:\n  guest:\n    video:\n      room_joins: true\ncallers: []\n",
        5,
        "roles.guest.video.room_joins: there is no such field; check its spelling",
    ),
    "a role with a room": (
        "version: 1\nroles: {guest: {video: {room: lobby}}}\ncallers: []\n",
        2,
        "roles.guest.video.room: there is no such field",
    ),
    "yes for true": (
        "version: 1\nroles:\n  guest:\n    video:\n      room_join: yes\ncallers: []\n",
        5,
        "roles.guest.video.room_join: should be true or false",
    ),
    "1 for true": ("version: 1\nroles: {g: {video: {room_join: 1}}}\ncallers: []\n", 2, "should be true or false"),
    "null for a grant": (
        "version: 1\nroles: {g: {video: {can_publish: }}}\ncallers: []\n",
        2,
        "should be true or false",
    ),
    "a number for text": ("version: 1\nroles: {g: {video: {destination_room: 7}}}\ncallers: []\n", 2, "should be text"),
    "an unknown source": (
        "version: 1\nroles: {g: {video: {can_publish_sources: [video]}}}\ncallers: []\n",
        2,
        "should be 'camera', 'microphone', 'screen_share' or 'screen_share_audio'",
    ),
    "a source twice": (
        "version: 1\nroles: {g: {video: {can_publish_sources: [camera, camera]}}}\ncallers: []\n",
        2,
        "roles.g.video.can_publish_sources: names a source twice",
    ),
    "a control character in a role": (
        'version: 1\nroles: {g: {video: {destination_room: "a\\u202eb"}}}\ncallers: []\n',
        2,
        "roles.g.video.destination_room: holds a control character",
    ),
    "half a character in a role": (
        'version: 1\nroles: {g: {agent_thread: {scope: "\\ud83d"}}}\ncallers: []\n',
        2,
        "roles.g.agent_thread.scope: holds a surrogate",
    ),
    "too long a name in a role": (
        f"version: 1\nroles: {{g: {{agent_endpoint: {{agent_name: {'x' * 257}}}}}}}\ncallers: []\n",
        2,
        "roles.g.agent_endpoint.agent_name: 257 bytes are over the limit of 256",
    ),
    "a grant that is called like a type": (
        "version: 1\nroles:\n  g:\n    agent_thread:\n      list: yes\ncallers: []\n",
        5,
        "roles.g.agent_thread.list: should be true or false",
    ),
    # Callers
    "a caller without an id": ("version: 1\ncallers:\n  - allow: []\n", 3, "callers.0.id: is required"),
    "a caller's id": (
        "version: 1\ncallers:\n  - id: spiffe://Example.org/web\n",
        3,
        "callers.0.id: not a SPIFFE id: spiffe://trust-domain/path",
    ),
    "an id that is a pattern": ("version: 1\ncallers:\n  - id: spiffe://example.org/*\n", 3, "not a SPIFFE id"),
    "a DNS name": ("version: 1\ncallers:\n  - id: dns:*.example.org\n", 3, "callers.0.id: not a DNS name"),
    "two callers with one id": (
        f"version: 1\ncallers:\n  - id: {WEB}\n    allow: []\n  - id: {WEB}\n",
        5,
        f"callers.1.id: duplicate caller {WEB}; put its entries under one caller",
    ),
    "an unknown field of a caller": (
        f"version: 1\ncallers:\n  - id: {WEB}\n    deny: []\n",
        4,
        "callers.0.deny: there is",
    ),
    "entries that are null": (
        f"version: 1\ncallers:\n  - id: {WEB}\n    allow:\n",
        4,
        "callers.0.allow: should be a list",
    ),
    "an entry that is text": (
        f"version: 1\ncallers:\n  - id: {WEB}\n    allow: [any]\n",
        4,
        "callers.0.allow.0: should be",
    ),
    "two entries with one name": (
        f"version: 1\ncallers:\n  - id: {WEB}\n    allow: [{{name: a, projects: []}}, {{name: a, projects: []}}]\n",
        4,
        "callers.0.allow: two entries have one name",
    ),
    "a name that another entry has by default": (
        f"version: 1\ncallers:\n  - id: {WEB}\n    allow: [{{projects: []}}, {{name: 'allow[0]', projects: []}}]\n",
        4,
        "callers.0.allow: two entries have one name",
    ),
    "verification of an unknown project": (
        f"version: 1\ncallers:\n  - id: {WEB}\n    verify:\n      webhooks: [default]\n      tokens: [nowhere]\n",
        6,
        'callers.0.verify.tokens.0: there is no project "nowhere"; configured are: default, other',
    ),
    "verification of a project that isn't listed": (
        f"version: 1\ncallers:\n  - id: {WEB}\n    verify: {{webhooks: default}}\n",
        4,
        "callers.0.verify.webhooks: should be a list, or the word any",
    ),
    # Entries: the first line after `projects` is line 7
    "no projects": (
        f"version: 1\ncallers:\n  - id: {WEB}\n    allow: [{{roles: []}}]\n",
        4,
        "allow.0.projects: is required",
    ),
    "an unknown field of an entry": (one_caller("role: guest"), 7, "callers.0.allow.0.role: there is no such field"),
    "limits, which aren't offered": (one_caller("limits: []"), 7, "callers.0.allow.0.limits: there is no such field"),
    "a field of an entry twice": (one_caller("roles: []\nrooms: any\nroles: []"), 9, "duplicate key, in line 7 too"),
    "an unknown role": (
        one_caller("roles: [guest, host]"),
        7,
        'allow.0.roles.1: there is no role "host"; define it under roles',
    ),
    "any role": (one_caller("roles: any"), 7, "callers.0.allow.0.roles: should be a list"),
    "an unknown power": (
        one_caller("rooms: any\npowers: [agents]"),
        8,
        "powers.0: there is no power of this name; there are: agent",
    ),
    "any power": (one_caller("powers: any"), 7, "callers.0.allow.0.powers: should be a list"),
    "an ordinary grant as a power": (one_caller("powers: [room_join]"), 7, "there is no power of this name"),
    "a power as a grant": (
        one_caller("grants: [room_admin]"),
        7,
        "grants.0: there is no ordinary grant of this name; there are: can_",
    ),
    "a power that a role needs": (
        one_caller("roles: [guest]\nrooms: any", "{guest: {video: {room_join: true, hidden: true}, sip: {}}}"),
        7,
        'allow.0.roles.0: role "guest" needs powers that the entry doesn\'t list: hidden, sip',
    ),
    "an empty prefix": (one_caller('rooms: [{exact: a}, {prefix: ""}]'), 7, "rooms.1: an empty matcher would match"),
    "an empty exact": (one_caller('identities: [{exact: ""}]'), 7, "identities.0: an empty matcher would match"),
    "an empty matcher": (one_caller("rooms: [{}]"), 7, "rooms.0: needs exactly one of exact and prefix"),
    "exact and prefix": (
        one_caller("rooms: [{exact: a, prefix: b}]"),
        7,
        "rooms.0: needs exactly one of exact and prefix",
    ),
    "a null matcher": (one_caller("rooms: [{exact: }]"), 7, "rooms.0: needs exactly one of exact and prefix"),
    "a pattern": (one_caller("rooms:\n  - {regex: .*}"), 8, "rooms.0.regex: there is no such field"),
    "a room as text": (
        one_caller("rooms:\n  - consult-42"),
        8,
        "rooms.0: should be a mapping with the fields exact, prefix",
    ),
    "a room that isn't in a list": (one_caller("rooms: consult-42"), 7, "rooms: should be a list, or the word any"),
    "a matcher that isn't in a list": (one_caller("rooms: {prefix: a}"), 7, "rooms: should be a list"),
    "rooms that are null": (one_caller("rooms:"), 7, "rooms: should be a list"),
    "rooms that are true": (one_caller("rooms: true"), 7, "rooms: should be a list"),
    "any in another case": (one_caller("identities: Any"), 7, "identities: should be a list, or the word any"),
    "any in a list": (one_caller("identities: [any]"), 7, "identities.0: should be a mapping"),
    "a room that no request can name": (
        one_caller('rooms: [{exact: "a\\nb"}]'),
        7,
        "rooms.0.exact: holds a control character",
    ),
    "too long a room": (
        one_caller(f"rooms: [{{prefix: {'x' * 257}}}]"),
        7,
        "rooms.0.prefix: 257 bytes are over the limit",
    ),
    "half a character": (one_caller('identities: [{prefix: "\\udc00"}]'), 7, "identities.0.prefix: holds a surrogate"),
    "an entry's name": (one_caller('name: "a\\u001b[31m"'), 7, "allow.0.name: holds a control character"),
    "an empty name": (one_caller('name: ""'), 7, "allow.0.name"),
    "a null name": (one_caller("name:"), 7, "allow.0.name: should be text"),
    "too long a name": (one_caller(f"name: {'x' * 65}"), 7, "allow.0.name"),
    "a ttl as text": (one_caller("ttl: 10m"), 7, "allow.0.ttl: should be a mapping with the fields default, max"),
    "a ttl that is null": (one_caller("ttl:"), 7, "allow.0.ttl: should be a mapping"),
    "a ttl as a number": (one_caller("ttl:\n  default: 600"), 8, "allow.0.ttl.default: should be a duration such as"),
    "an endless ttl": (
        one_caller("ttl:\n  default: 1m\n  max: 8761h"),
        9,
        "allow.0.ttl.max: should be a duration such as",
    ),
    "a default over the max": (
        one_caller("ttl: {default: 20m, max: 10m}"),
        7,
        "allow.0.ttl: the default (1200 s) is longer than the max (600 s)",
    ),
    "a max under the default that isn't written": (
        one_caller("ttl: {max: 5m}"),
        7,
        "allow.0.ttl: the default (600 s) is longer than the max (300 s); write both",
    ),
    "over an hour without long_ttl": (
        one_caller("rooms: any\nttl:\n  default: 10m\n  max: 3601s"),
        10,
        "allow.0.ttl.max: over 1h needs the power long_ttl",
    ),
    "an agent's default over ten minutes": (
        one_caller("roles: [w]\npowers: [agent]\nrooms: any\nttl: {default: 601s}", "{w: {video: {agent: true}}}"),
        10,
        'allow.0.ttl: role "w" has agent: a ttl over 10m needs the power long_ttl',
    ),
    "an unknown project": (
        f"version: 1\ncallers:\n  - id: {WEB}\n    allow:\n      - projects: [default, nowhere]\n",
        5,
        'callers.0.allow.0.projects.1: there is no project "nowhere"; configured are: default, other',
    ),
    "a default project that the caller doesn't have": (
        f"version: 1\ncallers:\n  - id: {WEB}\n    default_project: other\n    allow: [{{projects: [default]}}]\n",
        4,
        'callers.0.default_project: "other" is in no allow entry of this caller; its projects are: default',
    ),
    "a default project of a caller that gets no tokens": (
        f"version: 1\ncallers:\n  - id: {WEB}\n    verify: {{tokens: any}}\n    default_project: other\n",
        5,
        'callers.0.default_project: "other" is in no allow entry of this caller; its projects are: none',
    ),
    "a list of default projects": (
        f"version: 1\ncallers:\n  - id: {WEB}\n    default_project: [other]\n",
        4,
        "callers.0.default_project: should be text",
    ),
    "an unknown project whose decisions are read": (
        f"version: 1\ncallers:\n  - id: {WEB}\n    read_decisions: [default, nowhere]\n",
        4,
        'callers.0.read_decisions.1: there is no project "nowhere"; configured are: default, other',
    ),
    "a project's name": (
        f"version: 1\ncallers:\n  - id: {WEB}\n    allow:\n      - projects: [my_project]\n",
        5,
        "callers.0.allow.0.projects.0: isn't a project's name: a-z, 0-9",
    ),
}


@pytest.mark.parametrize(("text", "line", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_that_says_where_it_is_and_what_is_wrong(text, line, message):
    with pytest.raises(ConfigError) as caught:
        load(text)
    shown = str(caught.value)
    assert message in shown
    assert caught.value.line == line
    assert shown.startswith(f"policy.yaml:{line}: " if line else "policy.yaml: ")
    assert "\n" not in shown
    assert "pydantic" not in shown


# What JSON can't say, or what its reader refuses before the policy is looked at.
YAML_ALONE = {"a field that isn't text", "half a character", "half a character in a role"}


@pytest.mark.parametrize("name", [name for name in MISTAKES if name not in YAML_ALONE and as_json(MISTAKES[name][0])])
def test_a_mistake_is_the_same_in_json(name):
    """JSON is YAML too, so the same text goes to both readers."""
    text, line, message = MISTAKES[name]
    caught = []
    for file in ("policy.json", "policy.yaml"):
        with pytest.raises(ConfigError) as error:
            load(as_json(text), name=file)
        caught.append((error.value.line, error.value.message))
    assert caught[0] == caught[1]
    assert message in f"policy.json:{caught[0][0]}: {caught[0][1]}"
    assert (caught[0][0] is None) == (line is None)


@pytest.mark.parametrize("power", sorted(UNSCOPED_POWERS))
@pytest.mark.parametrize("rooms", ["", "rooms: []", "rooms: [{prefix: a}]"])
def test_a_power_that_livekit_doesnt_scope_to_a_room_needs_any_room(power, rooms):
    with pytest.raises(ConfigError, match=f"LiveKit doesn't scope {power} to a room; write `rooms: any` beside it"):
        load(one_caller(f"powers: [{power}]\n{rooms}"))
    assert entry(f"powers: [{power}]\nrooms: any").powers == {power}


@pytest.mark.parametrize("power", sorted(POWERS - UNSCOPED_POWERS))
def test_every_other_power_can_stand_beside_some_rooms(power):
    assert entry(f"powers: [{power}]\nrooms: [{{prefix: a}}]").powers == {power}


def test_with_long_ttl_a_token_may_live_longer():
    long = entry("powers: [long_ttl]\nrooms: any\nttl: {default: 2h, max: 8760h}")
    assert (long.default_ttl, long.max_ttl) == (7200, 31536000)
    worker = one_caller(
        "roles: [w]\npowers: [agent, long_ttl]\nrooms: any\nttl: {default: 1h}", "{w: {video: {agent: true}}}"
    )
    assert load(worker).callers[WEB].entries[0].default_ttl == 3600


def test_a_mistake_names_how_many_more_there_are():
    with pytest.raises(ConfigError, match=r"room_joins.*\(and 1 more\)"):
        load("version: 1\nroles: {a: {video: {room_joins: true}}, b: {video: {hide: true}}}\ncallers: []\n")


def test_a_role_that_nobody_may_use_is_no_mistake():
    assert load("version: 1\nroles: {guest: {video: {room_join: true}}}\ncallers: []\n").roles == {"guest": JOIN}


# Anything else that can be written

words = st.sampled_from(
    [
        *("version", "roles", "callers", "id", "allow", "projects", "rooms", "any", "exact", "prefix", "powers"),
        *("agent", "ttl", "default", "max", "video", "room_join", "guest", "name", "verify", "tokens", "10m"),
        *(WEB, "", "\ud800", "\n", "<<"),
    ]
)
scalars = words | st.none() | st.booleans() | st.integers(-1, 2**70) | st.floats() | st.text(max_size=3)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.integers(0, 2), inner, max_size=4),
    max_leaves=12,
)


def path(*names: str) -> Callable[[object], object]:
    def place(tree: object) -> object:
        for name in reversed(names):
            tree = [tree] if name == "-" else {name: tree}
        return tree

    return place


AT = [
    path(),
    path("roles"),
    path("roles", "guest"),
    path("roles", "guest", "video"),
    path("callers"),
    path("callers", "-", "allow", "-"),
    path("callers", "-", "allow", "-", "rooms"),
    path("callers", "-", "allow", "-", "ttl"),
    path("callers", "-", "verify"),
]


@examples(250)
@given(st.sampled_from(AT), trees, st.booleans(), st.none() | st.just(frozenset({"default"})))
def test_whatever_stands_in_a_file_is_a_policy_or_a_config_error(place, tree, with_version, projects):
    data = place(tree)
    if isinstance(data, dict) and with_version:
        data = {"version": 1, "callers": [], **data}
    for caller in data["callers"] if isinstance(data, dict) and isinstance(data.get("callers"), list) else ():
        if isinstance(caller, dict):
            caller.setdefault("id", WEB)
            for item in caller["allow"] if isinstance(caller.get("allow"), list) else ():
                item.setdefault("projects", ["default"]) if isinstance(item, dict) else None
    out = StringIO()
    YAML(typ="safe", pure=True).dump(data, out)
    try:
        policy = compile_policy(
            Document.parse(Path("policy.yaml"), out.getvalue().encode("utf-8", "surrogatepass")), projects
        )
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is fine
    else:
        assert isinstance(policy, Policy)


@examples(250)
@given(st.lists(st.sampled_from(DESIGN.splitlines() + list("{}[]:,-&*!|>'\"%@`#?\t~ \n\x00\u2028")), max_size=30))
def test_broken_text_is_a_config_error_and_nothing_else(pieces):
    try:
        load("\n".join(pieces))
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017


# Large policies


def many(callers: int, more: str = "") -> str:
    """A policy of callers that differ in their ids and rooms alone."""
    text = "version: 1\ncallers:\n" + "".join(
        f"  - id: spiffe://example.org/s-{n}\n    allow:\n      - {{projects: [default], roles: [guest],"
        f" rooms: [{{prefix: r-{n % 7}-}}], identities: any, ttl: {{default: 17m}}}}\n"
        "    verify: {tokens: [default, other]}\n    limits: [{rate: 17/s}]\n"
        for n in range(callers)
    )
    return text + "roles: {guest: {video: {room_join: true}}}\n" + more  # below the callers, where they may stand


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        (
            "s-40\n",
            "s-3\n",
            203,
            "callers.40.id: duplicate caller spiffe://example.org/s-3; put its entries under one caller",
        ),
        (
            "r-5-}], identities: any, ttl: {default: 17m",
            "r-5-}], identities: any, ttl: {default: 2h",
            30,
            "callers.5.allow.0.ttl: the default",
        ),
        ("guest: {video", "gust: {video", 5, 'callers.0.allow.0.roles.0: there is no role "guest"'),
        ("{rate: 17/s}", "{rate: 17/s}, {rate: 17/s}", 7, "callers.0.limits.1: duplicate limit"),
        ("[default, other]", "[default, third]", 6, 'callers.0.verify.tokens.1: there is no project "third"'),
        ("room_join: true", "room_list: true", 5, 'callers.0.allow.0.roles.0: role "guest" needs powers'),
        ("roles: [guest]", "role: [guest]", 5, "callers.0.allow.0.role: there is no such field; check its spelling"),
    ],
)
def test_a_mistake_of_one_caller_among_many_has_its_line(tmp_path, old, new, line, message):
    text = many(60).replace(old, new, 1)
    with pytest.raises(ConfigError) as caught:
        load_policy(written(tmp_path, text), CONFIGURED)
    assert caught.value.message.startswith(message)
    assert caught.value.line == line


def test_equal_parts_of_callers_are_one_object(tmp_path):
    callers = list(load_policy(written(tmp_path, many(100)), CONFIGURED).callers.values())
    first, eighth, other = callers[0], callers[7], callers[1]
    assert first.entries is eighth.entries
    assert first.entries[0] is not other.entries[0]
    assert first.entries[0].identities is other.entries[0].identities
    assert first.verify_tokens is other.verify_tokens
    assert first.limits is other.limits
    assert first.projects is first.entries[0].projects is other.entries[0].projects
    assert len({id(entry) for caller in callers for entry in caller.entries}) == 7


# JSON


plain_text = st.text(
    st.characters(codec="utf-8", exclude_categories=["C"], exclude_characters="\u2028\u2029"), max_size=4
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | plain_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_text, inner, max_size=3),
    max_leaves=6,
)
rooms = st.just("any") | st.lists(
    st.builds(lambda kind, text: {kind: text}, st.sampled_from(["exact", "prefix"]), plain_text.filter(bool)),
    max_size=3,
)
entries = st.fixed_dictionaries(
    {"projects": st.sampled_from(["any", ["default"], ["default", "other"]])},
    optional={
        "roles": st.lists(st.sampled_from(["guest", "admin"]), max_size=2),
        "grants": st.sampled_from(["any", [], sorted(ORDINARY_GRANTS)[:2]]),
        "powers": st.lists(st.sampled_from(["room_admin", "hidden"]), max_size=2),
        "rooms": rooms,
        "identities": rooms,
        "ttl": st.fixed_dictionaries({}, optional={"default": st.just("5m"), "max": st.sampled_from(["1h", "2h"])}),
        "": json_values,
    },
)
callers = st.fixed_dictionaries(
    {"id": st.sampled_from([WEB, f"{WEB}-2", "dns:a.example"])},
    optional={
        "allow": st.lists(entries, max_size=2),
        "verify": st.fixed_dictionaries({}, optional={"webhooks": st.just("any"), "tokens": st.just(["other"])}),
        "limits": st.just([{"rate": "5/s", "methods": ["GetCaller"]}]),
    },
)
policies = st.fixed_dictionaries(
    {"version": st.just(1), "callers": st.lists(callers, max_size=3)},
    optional={"roles": st.just({"guest": {"video": {"room_join": True}}, "admin": {"video": {"room_admin": True}}})},
)


def outcome(text: str, name: str) -> object:
    try:
        return load(text, name=name)
    except ConfigError as error:
        return error.line, error.message


@given(policies | json_values, st.sampled_from([None, 1]))
@examples(200)
def test_json_text_means_the_same_to_both_readers(policy, indent):
    text = json.dumps(policy, ensure_ascii=False, indent=indent)
    assert outcome(text, "policy.json") == outcome(text, "policy.yaml")


def test_a_policy_written_as_json_is_the_same_policy(tmp_path):
    path = tmp_path / "policy.json"
    path.write_text(as_json(many(200)))
    policy = load_policy(path, CONFIGURED)
    same = load(many(200))
    assert (policy.callers, policy.roles) == (same.callers, same.roles)


def test_a_policy_as_json_can_be_compared_with_one_as_yaml(tmp_path):
    (tmp_path / "old.yaml").write_text(DESIGN)
    (tmp_path / "new.json").write_text(as_json(DESIGN))
    old, new = load_policies([tmp_path / "old.yaml", tmp_path / "new.json"], None)
    assert (old.callers, old.roles) == (new.callers, new.roles)


def test_expectations_beside_a_json_policy_are_json(tmp_path):
    policy = tmp_path / "policy.json"
    policy.write_text(as_json(DESIGN))
    assert expectations_path(policy) == tmp_path / "policy.test.json"
    request = {"role": "guest", "room": "consult-1", "identity": "user-1", "ttl": "5m"}
    expectation = {"name": "a guest", "caller": "spiffe://example.org/ns/web/sa/consult-api", "request": request}
    form = {"version": 1, "expect": [{**expectation, "outcome": "permit"}, {**expectation, "outcome": "deny"}]}
    expectations_path(policy).write_text(json.dumps(form))
    results = run_expectations(load_policy(policy, CONFIGURED), expectations_path(policy))
    assert [bool(result.problem) for result in results] == [False, True]


def test_the_collector_runs_again_after_a_load_and_after_a_failed_one(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text('{"version": 1, "roles": {}, "callers": []}')
    bad.write_text("{")
    load_policy(good, None)
    assert gc.isenabled()
    with pytest.raises(ConfigError):
        load_policy(bad, None)
    assert gc.isenabled()


def test_collection_stays_paused_until_the_last_of_two_loads_ends() -> None:
    first, second = policy_file._no_collection(), policy_file._no_collection()
    with first:
        second.__enter__()
    assert not gc.isenabled()
    second.__exit__(None, None, None)
    assert gc.isenabled()


@pytest.mark.parametrize("name", ["policy.yaml", "policy.json"])
def test_an_empty_list_of_sources_is_refused_since_livekit_reads_it_as_all(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    role = '{"room_join": true, "can_publish_sources": []}'
    path.write_text(f'{{"version": 1, "roles": {{"r": {{"video": {role}}}}}, "callers": []}}')
    with pytest.raises(ConfigError, match=r"roles\.r\.video\.can_publish_sources"):
        load_policy(path, None)
