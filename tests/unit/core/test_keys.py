"""A secret shows nowhere, and a key does what its state and its time allow."""

from __future__ import annotations

import copy
import hmac
import json
import pickle
import pprint
import re
import traceback
from dataclasses import asdict, astuple, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_auth_server.core.keys import ApiKey, KeySet, KeyState, Project, Secret
from livekit_auth_server.core.refusal import Reason, Refusal
from support.examples import examples

if TYPE_CHECKING:
    from collections.abc import Callable

MARKER = b"MARKER-0123456789-0123456789-0123"
NOW = 1_800_000_000


def key(key_id: str = "APIone", state: KeyState = KeyState.ACTIVE, **more: Any) -> ApiKey:
    return ApiKey(key_id, Secret(MARKER), state, **more)


def project(*keys: ApiKey, name: str = "alpha") -> Project:
    return Project(name, f"wss://{name}.example.org", keys)


HOLDERS = {
    "Secret": Secret(MARKER),
    "ApiKey": key(),
    "Project": project(key()),
    "KeySet": KeySet([project(key())]),
    "a list of them": [Secret(MARKER), key(), project(key()), KeySet([project(key())])],
}

WAYS_TO_SHOW: dict[str, Callable[[Any], object]] = {
    "repr": repr,
    "str": str,
    "ascii": ascii,
    "format": format,
    "%r": lambda value: "%r" % (value,),  # noqa: UP031 - one of the ways
    "f-string": lambda value: f"{value} {value!r}",
    "pprint": pprint.pformat,
    "bytes": bytes,
    "list": list,
    "vars": vars,
    "asdict": asdict,
    "astuple": astuple,
    "json": json.dumps,
    "json of repr": lambda value: json.dumps(value, default=repr),
    "pickle": pickle.dumps,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "replace": replace,
    "getstate": lambda value: value.__getstate__(),
    "reduce": lambda value: value.__reduce__(),
    "reduce_ex": lambda value: value.__reduce_ex__(2),
    "missing attribute": lambda value: value.missing,
    "index": lambda value: value["x"],
    "addition": lambda value: value + b"x",
    "order": lambda value: sorted([value, value]),
}


@pytest.mark.parametrize("way", WAYS_TO_SHOW)
@pytest.mark.parametrize("holder", HOLDERS)
def test_no_way_of_showing_a_value_shows_a_secret(holder: str, way: str) -> None:
    try:
        shown = repr(WAYS_TO_SHOW[way](HOLDERS[holder]))
    except (TypeError, AttributeError) as error:
        shown = "".join(traceback.format_exception(error)) + repr(error)
    assert "MARKER" not in shown


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("holder", HOLDERS)
def test_nothing_with_a_secret_can_be_pickled(holder: str, protocol: int) -> None:
    with pytest.raises(TypeError):
        pickle.dumps(HOLDERS[holder], protocol)


@pytest.mark.parametrize("name", ["value", "secret", "__dict__"])
def test_a_secret_has_no_other_attribute(name: str) -> None:
    assert not hasattr(Secret(MARKER), name)


def test_a_secret_signs_and_tells_whether_a_signature_fits() -> None:
    secret = Secret(MARKER)
    signature = hmac.new(MARKER, b"message", "sha256").digest()
    assert secret.sign(b"message") == signature
    assert secret.fits(b"message", signature)
    for wrong in (b"", signature[:-1], signature + b"\0", bytes(32), secret.sign(b"messagf"), MARKER):
        assert not secret.fits(b"message", wrong)
    assert len(secret) == len(MARKER)


def test_a_secret_signs_as_rfc_4231_says() -> None:
    """Test case 2 of section 4.3."""
    signed = Secret(b"Jefe").sign(b"what do ya want for nothing?")
    assert signed.hex() == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


@pytest.mark.parametrize(
    ("state", "signs", "verifies"),
    [(KeyState.ACTIVE, True, True), (KeyState.VERIFY_ONLY, False, True), (KeyState.REVOKED, False, False)],
)
def test_what_a_key_may_do_is_its_state(state: KeyState, signs: bool, verifies: bool) -> None:  # noqa: FBT001
    assert (key(state=state).may_sign(NOW), key(state=state).may_verify(NOW)) == (signs, verifies)


@pytest.mark.parametrize(
    ("times", "valid"),
    [
        ({}, True),
        ({"not_before": NOW}, True),
        ({"not_before": NOW + 1}, False),
        ({"not_after": NOW + 1}, True),
        ({"not_after": NOW}, False),
        ({"not_before": NOW, "not_after": NOW + 1}, True),
        ({"not_before": NOW + 1, "not_after": NOW}, False),
        ({"not_after": 0}, False),
        ({"not_before": 0}, True),
    ],
)
def test_a_key_is_valid_from_its_start_until_just_before_its_end(times: dict[str, Any], valid: bool) -> None:  # noqa: FBT001
    assert key(**times).may_sign(NOW) is valid
    assert key(**times).may_verify(NOW) is valid
    assert not key(state=KeyState.REVOKED, **times).may_verify(NOW)


@given(st.sampled_from(KeyState), *[st.none() | st.integers(NOW - 9, NOW + 9)] * 2, st.integers(NOW - 12, NOW + 12))
@examples(100)
def test_a_key_that_may_sign_may_verify(state: KeyState, start: int | None, end: int | None, now: int) -> None:
    """Or this service would refuse what it has just issued."""
    made = ApiKey("APIone", Secret(MARKER), state, start, end)
    assert made.may_verify(now) or not made.may_sign(now)


def test_the_first_key_that_may_sign_signs() -> None:
    keys = (
        key("APIrevoked", KeyState.REVOKED),
        key("APIold", KeyState.VERIFY_ONLY),
        key("APInext", not_before=NOW + 60),
        key("APIfirst"),
        key("APIsecond"),
    )
    assert project(*keys).signing_key(NOW).id == "APIfirst"
    assert project(*keys).signing_key(NOW + 60).id == "APInext"


@pytest.mark.parametrize("keys", [(), (key(state=KeyState.VERIFY_ONLY),), (key(not_after=NOW),)])
def test_a_project_without_a_key_that_may_sign_says_so(keys: tuple[ApiKey, ...]) -> None:
    with pytest.raises(Refusal) as caught:
        project(*keys).signing_key(NOW)
    assert caught.value.reason is Reason.SIGNING_KEY_MISSING
    assert "alpha" in caught.value.message


def test_two_projects_of_one_name_are_an_error() -> None:
    with pytest.raises(ValueError, match='"alpha" is listed twice'):
        KeySet([project(), project()])


@pytest.mark.parametrize(
    "projects",
    [
        [project(key("APIone"), key("APIone"))],
        [project(key("APIone")), project(key("APItwo"), key("APIone"), name="beta")],
        [project(key("APIone")), project(key("APIone", KeyState.REVOKED), name="beta")],
    ],
)
def test_a_key_id_stands_once_over_all_projects(projects: list[Project]) -> None:
    with pytest.raises(ValueError, match="one key id stands in project ") as caught:
        KeySet(projects)
    assert "MARKER" not in repr(caught.value)


def test_the_error_about_a_key_id_names_both_places() -> None:
    places = [project(key("APIone", place="a.yaml:2")), project(key("APIone", place="b.yaml:7"), name="beta")]
    message = 'one key id stands in project "beta" (b.yaml:7) and in project "alpha" (a.yaml:2): key ids are unique'
    with pytest.raises(ValueError, match=re.escape(message)):
        KeySet(places)


KEYS = KeySet(
    [
        project(
            key("APIone"),
            key("APIold", KeyState.VERIFY_ONLY),
            key("APIgone", KeyState.REVOKED),
            key("APIended", not_after=NOW),
            key("APInext", not_before=NOW + 1),
        ),
        project(key("APIbeta"), name="beta"),
    ]
)


@pytest.mark.parametrize("key_id", ["APIone", "APIold"])
def test_a_key_that_isnt_revoked_verifies(key_id: str) -> None:
    found, verifying = KEYS.verifying_key(key_id, frozenset({"alpha"}), NOW)
    assert (found.name, verifying.id) == ("alpha", key_id)


def test_every_permitted_project_is_looked_into() -> None:
    assert KEYS.verifying_key("APIbeta", frozenset({"alpha", "beta"}), NOW)[0].name == "beta"


def refusal(key_id: str, projects: frozenset[str] = frozenset({"alpha"})) -> tuple[Reason, str, dict[str, str]]:
    with pytest.raises(Refusal) as caught:
        KEYS.verifying_key(key_id, projects, NOW)
    return caught.value.reason, caught.value.message, dict(caught.value.metadata)


@pytest.mark.parametrize("key_id", ["APIbeta", "APIgone", "APIended", "APInext", "", "apione", "APIone ", "alpha"])
def test_a_foreign_key_answers_exactly_as_an_unknown_one(key_id: str) -> None:
    assert refusal(key_id) == refusal("APInever")
    assert refusal(key_id)[0] is Reason.KEY_UNKNOWN


def test_no_project_permits_no_key() -> None:
    assert refusal("APIone", frozenset()) == refusal("APInever")
    assert refusal("APIone", frozenset({"gamma"})) == refusal("APInever")


@given(st.text())
@examples(60)
def test_a_key_is_named_in_claims_as_json_writes_it(key_id: str) -> None:
    assert json.loads("{" + key(key_id).issuer_member + "}") == {"iss": key_id}
    assert key(key_id).issuer_member.isascii()


def test_a_token_is_its_keys_as_long_as_id_secret_project_and_state_agree() -> None:
    signed_with = key()
    assert KeySet([project(signed_with)]).verifies(signed_with, "alpha", NOW)
    assert KeySet([project(key())]).verifies(signed_with, "alpha", NOW), "read again, and the same"
    assert not KeySet([project(key())]).verifies(signed_with, "beta", NOW)
    assert not KeySet([project(key(state=KeyState.REVOKED))]).verifies(signed_with, "alpha", NOW)
    assert not KeySet([project(ApiKey("APIone", Secret(b"another" * 5)))]).verifies(signed_with, "alpha", NOW)
    assert not KeySet([]).verifies(signed_with, "alpha", NOW)
