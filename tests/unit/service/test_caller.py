"""GetCaller: for a stranger its own identity, for a listed caller its policy."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth_server.core.policy import AllowEntry, CallerPolicy, Matcher, Policy
from livekit_auth_server.service.admission import Caller
from livekit_auth_server.service.caller import get_caller
from livekit_auth_server.service.validation import Valid
from support.fakes import IDENTIFIED, NOW
from support.handlers import KEY, keys_of
from support.policies import ANY, CALLER

ENTRY = AllowEntry(
    name="guests",
    projects=frozenset({"b", "a"}),
    roles=frozenset({"host", "guest"}),
    grants=frozenset({"room_join", "can_publish"}),
    powers=frozenset({"sip", "agent"}),
    rooms=Matcher(exact=frozenset({"y", "x"}), prefixes=("p", "o")),
    identities=ANY,
    default_ttl=60,
    max_ttl=120,
)
LISTED = CallerPolicy(CALLER, (ENTRY,), frozenset({"b", "a"}), frozenset({"c"}))


async def asked(listed: CallerPolicy | None) -> pb.GetCallerResponse:
    policy = Policy("r1", {}, {listed.id: listed} if listed else {})
    return await get_caller(
        Caller(IDENTIFIED, listed, policy, keys_of(KEY), NOW, "", None, 0, lambda caller: caller),
        Valid(pb.GetCallerRequest()),
    )


async def test_a_stranger_learns_its_own_identity_and_no_more():
    answer = await asked(None)
    assert answer == pb.GetCallerResponse(
        workload_id=CALLER, known=False, certificate_serial="2a", certificate_expire_time={"seconds": NOW + 3600}
    )
    assert {field.name for field, _ in answer.ListFields()} == {
        "workload_id",
        "certificate_serial",
        "certificate_expire_time",
    }


async def test_a_listed_caller_learns_what_it_may_do():
    answer = await asked(LISTED)
    assert answer == pb.GetCallerResponse(
        workload_id=CALLER,
        known=True,
        policy_revision="r1",
        certificate_serial="2a",
        certificate_expire_time={"seconds": NOW + 3600},
        verify_webhooks=["a", "b"],
        verify_tokens=["c"],
        allow=[
            {
                "name": "guests",
                "projects": ["a", "b"],
                "roles": ["guest", "host"],
                "grants": ["can_publish", "room_join"],
                "powers": ["agent", "sip"],
                "rooms": [{"exact": "x"}, {"exact": "y"}, {"prefix": "o"}, {"prefix": "p"}],
                "identities": [{"any": True}],
                "default_ttl": {"seconds": 60},
                "max_ttl": {"seconds": 120},
            }
        ],
    )


async def test_every_field_of_an_entry_is_told():
    answer = await asked(LISTED)
    told = {field.name for field, _ in answer.allow[0].ListFields()}
    assert told == set(pb.AllowEntry.DESCRIPTOR.fields_by_name) == {f.name for f in fields(AllowEntry)}


async def test_entries_come_in_the_order_in_which_they_are_tried():
    entries = tuple(replace(ENTRY, name=name) for name in ("z", "a", "m"))
    answer = await asked(replace(LISTED, entries=entries))
    assert [entry.name for entry in answer.allow] == ["z", "a", "m"]


async def test_an_entry_that_covers_no_room_says_so():
    answer = await asked(replace(LISTED, entries=(replace(ENTRY, rooms=Matcher(), identities=Matcher()),)))
    assert not answer.allow[0].rooms
    assert not answer.allow[0].identities


@pytest.mark.parametrize("listed", [None, LISTED])
async def test_no_secret_and_no_key_is_told(listed):
    assert KEY.id not in str(await asked(listed))
