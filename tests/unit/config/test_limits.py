"""Limits as people write them: what loads means what it says, and a mistake has a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from livekit_auth_server.core.limits import Limit
from livekit_auth_server.files.document import Document
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.policy.policy_file import compile_policy
from livekit_auth_server.service.methods import LIMITED

WEB = "spiffe://example.org/web"


def limits(text: str) -> tuple[Limit, ...]:
    """The limits of the one caller; `text` stands from line 5 on."""
    content = f"version: 1\ncallers:\n  - id: {WEB}\n    limits:\n{text}"
    file = Document.parse(Path("policy.yaml"), content.encode())
    return compile_policy(file, frozenset({"default", "other"})).callers[WEB].limits


def test_several_limits_are_several_windows():
    assert limits("      [{rate: 20/s}, {rate: 600/m}, {rate: 10000/h}, {rate: 200000/d}]") == (
        Limit(20, 1),
        Limit(600, 60),
        Limit(10000, 3600),
        Limit(200000, 86400),
    )


def test_a_limit_names_methods_and_a_project():
    assert limits("""\
      - {rate: 5/s, methods: [IssueToken, VerifyToken], project: other}
      - {rate: 5/s, methods: any}
""") == (Limit(5, 1, frozenset({"IssueToken", "VerifyToken"}), "other"), Limit(5, 1))


def test_a_caller_without_limits_has_none():
    file = Document.parse(Path("policy.yaml"), f"version: 1\ncallers: [{{id: {WEB}}}]".encode())
    assert compile_policy(file, None).callers[WEB].limits == ()


RATE = 'callers.0.limits.0.rate: should be a rate such as "20/s", "600/m", "10000/h" or "100000/d", at most 9999999'
METHODS = ", ".join(sorted(LIMITED))
WRONG = {
    "no unit": ("      - {rate: 20}", RATE),
    "zero": ("      - {rate: 0/s}", RATE),
    "leading zero": ("      - {rate: 020/s}", RATE),
    "negative": ("      - {rate: -1/s}", RATE),
    "fraction": ("      - {rate: 0.5/s}", RATE),
    "too many": ("      - {rate: 10000000/s}", RATE),
    "another unit": ("      - {rate: 5/w}", RATE),
    "several units": ("      - {rate: 5/10s}", RATE),
    "line break": ('      - {rate: "5/s\\n"}', RATE),
    "other digits": ('      - {rate: "\\u0665/s"}', RATE),
    "no rate": ("      - {methods: any}", "callers.0.limits.0.rate: is required"),
    "no mapping": ("      - 20/s", "callers.0.limits.0: should be a mapping with the fields rate, methods, project"),
    "no limits": ("      []", "callers.0.limits: needs at least one entry"),
    "nothing": ("      ", "callers.0.limits: should be a list: [a, b], or one `- a` a line"),
    "no methods": ("      - {rate: 5/s, methods: []}", "callers.0.limits.0.methods: needs at least one entry"),
    "unknown method": (
        "      - {rate: 5/s, methods: [Issue]}",
        "callers.0.limits.0.methods.0: there is no method that can be limited of this name; there are: " + METHODS,
    ),
    "batch": (
        "      - {rate: 5/s, methods: [BatchIssueTokens]}",
        "callers.0.limits.0.methods.0: BatchIssueTokens counts as IssueToken: name that",
    ),
    "a method without a list": (
        "      - {rate: 5/s, methods: IssueToken}",
        "callers.0.limits.0.methods: should be a list, or the word any",
    ),
    "unknown project": (
        "      - {rate: 5/s, project: third}",
        'callers.0.limits.0.project: there is no project "third"; configured are: default, other',
    ),
    "a method without a project": (
        "      - {rate: 5/s, methods: [GetCaller], project: other}",
        "callers.0.limits.0: GetCaller has no project, so this limit would count nothing",
    ),
    "misspelt field": (
        "      - {rate: 5/s, method: any}",
        "callers.0.limits.0.method: there is no such field; check its spelling",
    ),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_told_with_its_line(text, message):
    with pytest.raises(ConfigError) as caught:
        limits(text)
    assert caught.value.message == message
    assert caught.value.line in (4, 5)


def test_a_limit_that_stands_twice_is_refused_at_its_second_place():
    with pytest.raises(ConfigError, match=r"policy.yaml:7: callers.0.limits.2: duplicate limit") as caught:
        limits("""\
      - {rate: 5/s, methods: [IssueToken, VerifyToken]}
      - {rate: 5/s}
      - {rate: 5/s, methods: [VerifyToken, IssueToken]}
""")
    assert caught.value.line == 7


def test_a_project_is_known_from_elsewhere_in_the_policy_when_none_are_configured():
    text = f"""\
version: 1
callers:
  - id: {WEB}
    verify: {{tokens: [third]}}
    limits: [{{rate: 5/s, project: third}}]
"""
    policy = compile_policy(Document.parse(Path("policy.yaml"), text.encode()), None)
    assert policy.callers[WEB].limits == (Limit(5, 1, None, "third"),)
