"""GetCaller tells a caller who it is; ListPermissions and ListProjects what it may do, in pages."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from copy import deepcopy
from dataclasses import fields, replace
from typing import TYPE_CHECKING, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1 import permissions_pb2
from livekit_auth_server.core.grants import AgentThreadGrants, Grants
from livekit_auth_server.core.keys import KeySet, Project
from livekit_auth_server.core.policy import AllowEntry, CallerPolicy, Matcher, Permission, Policy
from livekit_auth_server.core.refusal import Reason, Refusal
from livekit_auth_server.service.admission import Caller, ListedCaller
from livekit_auth_server.service.caller import get_caller, list_permissions, list_projects
from livekit_auth_server.service.convert import grants_message
from livekit_auth_server.service.pages import MAX_BYTES, MAX_VALUES
from livekit_auth_server.service.validation import Valid
from support.examples import examples
from support.fakes import IDENTIFIED, NOW
from support.handlers import KEY, URL, keys_of
from support.policies import ANY, CALLER, JOIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
ROLES = {"host": JOIN, "guest": Grants()}


def asking(
    policy: CallerPolicy, roles: Mapping[str, Grants] = ROLES, revision: str = "r1", keys: KeySet | None = None
) -> ListedCaller:
    """A caller with this policy."""
    whole = Policy(revision, roles, {policy.id: policy})
    return ListedCaller(IDENTIFIED, policy, whole, keys or keys_of(KEY), NOW, "", None, 0, lambda caller: caller)


def permitting(*entries: AllowEntry) -> ListedCaller:
    return asking(replace(LISTED, entries=entries))


async def permissions(caller: ListedCaller, size: int = 0, token: str = "") -> pb.ListPermissionsResponse:
    return await list_permissions(caller, Valid(pb.ListPermissionsRequest(page_size=size, page_token=token)))


async def projects(caller: ListedCaller, size: int = 0, token: str = "") -> pb.ListProjectsResponse:
    return await list_projects(caller, Valid(pb.ListProjectsRequest(page_size=size, page_token=token)))


async def pages(ask, caller, sizes: Iterable[int]):
    """Every page, each as large as the next of `sizes`."""
    found, token = [], ""
    for size in sizes:
        page = await ask(caller, size, token)
        found.append(page)
        token = page.next_page_token
        if not token:
            return found
    raise AssertionError("the sizes ended before the pages")


LISTS = ("projects", "roles", "grants", "powers", "rooms", "identities")


def values(entry: permissions_pb2.AllowEntry) -> int:
    return sum(len(getattr(entry, name)) for name in LISTS)


def joined(found: Iterable[pb.ListPermissionsResponse]) -> list[permissions_pb2.AllowEntry]:
    """The entries of all pages, put together as the contract says."""
    whole: list[permissions_pb2.AllowEntry] = []
    for page in found:
        for entry in page.entries:
            if whole and whole[-1].index == entry.index:
                assert entry == page.entries[0]
                for name in LISTS:
                    getattr(whole[-1], name).extend(getattr(entry, name))
            else:
                whole.append(deepcopy(entry))
    return whole


# GetCaller


@pytest.mark.parametrize("listed", [None, LISTED])
async def test_a_caller_learns_its_identity_and_a_listed_one_the_revision(listed):
    policy = Policy("r1", {}, {CALLER: LISTED} if listed else {})
    caller = Caller(IDENTIFIED, listed, policy, keys_of(KEY), NOW, "", None, 0, lambda caller: caller)
    assert await get_caller(caller, Valid(pb.GetCallerRequest())) == pb.GetCallerResponse(
        workload_id=CALLER,
        listed=listed is not None,
        policy_revision="r1" if listed else "",
        certificate_serial="2a",
        certificate_expire_time={"seconds": NOW + 3600},
    )


# ListPermissions


async def test_a_listed_caller_learns_what_it_may_do():
    assert await permissions(asking(LISTED)) == pb.ListPermissionsResponse(
        policy_revision="r1",
        entries=[
            {
                "name": "guests",
                "projects": ["a", "b"],
                "roles": [{"name": "guest", "grants": {}}, {"name": "host", "grants": grants_message(JOIN)}],
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
    answer = await permissions(permitting(replace(ENTRY, name="first"), ENTRY))
    told = {field.name for field, _ in answer.entries[1].ListFields()}
    assert told == set(permissions_pb2.AllowEntry.DESCRIPTOR.fields_by_name)
    assert told == {field.name for field in fields(AllowEntry) if field.init} | {"index"}


async def test_entries_come_in_the_order_in_which_they_are_tried():
    answer = await permissions(permitting(*(replace(ENTRY, name=name) for name in ("z", "a", "m"))))
    assert [(entry.name, entry.index) for entry in answer.entries] == [("z", 0), ("a", 1), ("m", 2)]


async def test_an_entry_that_covers_no_room_says_so():
    answer = await permissions(permitting(replace(ENTRY, rooms=Matcher(), identities=Matcher())))
    assert not answer.entries[0].rooms
    assert not answer.entries[0].identities


async def test_a_caller_without_entries_gets_one_empty_page():
    assert await permissions(permitting()) == pb.ListPermissionsResponse(policy_revision="r1")


async def test_an_entry_goes_on_as_the_first_of_the_next_page():
    first, second, last = await pages(permissions, asking(LISTED), [6, 4, 9])
    assert [entry.name for page in (first, second, last) for entry in page.entries] == ["guests"] * 3
    assert [values(page.entries[0]) for page in (first, second, last)] == [6, 4, 3]
    assert list(second.entries[0].rooms) == [permissions_pb2.Matcher(exact="x"), permissions_pb2.Matcher(exact="y")]


async def test_a_page_that_ends_with_its_entry_is_followed_by_the_next_entry():
    caller = permitting(ENTRY, replace(ENTRY, name="second"))
    first, second = await pages(permissions, caller, [13, 13])
    assert [entry.name for entry in first.entries] == ["guests"]
    assert [entry.name for entry in second.entries] == ["second"]


names = st.frozensets(st.text("abc", min_size=1, max_size=3), max_size=6)
matchers = st.just(ANY) | st.builds(
    Matcher, exact=names, prefixes=st.lists(st.text(min_size=1, max_size=3), unique=True, max_size=4).map(tuple)
)


@st.composite
def policies(draw: st.DrawFn) -> tuple[CallerPolicy, dict[str, Grants]]:
    roles = draw(st.dictionaries(st.text("rst", min_size=1, max_size=2), st.sampled_from((Grants(), JOIN)), max_size=4))
    known = st.frozensets(st.sampled_from(sorted(roles)), max_size=4) if roles else st.just(frozenset[str]())
    entry = st.builds(
        AllowEntry, st.text("n", max_size=2), names, known, names, names, matchers, matchers, st.just(60), st.just(120)
    )
    entries = tuple(draw(st.lists(entry, max_size=5)))
    return CallerPolicy(CALLER, entries, draw(names), draw(names)), roles


@examples(200)
@given(policies(), st.lists(st.integers(1, 12) | st.just(5000), min_size=1, max_size=6))
async def test_the_pages_of_any_size_are_the_whole_together(policy, sizes):
    caller = asking(*policy)
    sizes = (sizes * 400)[:400]
    (whole,) = await pages(permissions, caller, [0])
    found = await pages(permissions, caller, sizes)
    assert joined(found) == list(whole.entries)
    assert len(whole.entries) == len(caller.policy.entries)
    for page, size in zip(found, sizes, strict=False):
        assert sum(map(values, page.entries)) <= min(size, MAX_VALUES)
        assert page.entries or not caller.policy.entries
    (all_projects,) = await pages(projects, caller, [0])
    some = await pages(projects, caller, sizes)
    assert [project for page in some for project in page.projects] == list(all_projects.projects)
    assert all(len(page.projects) <= size for page, size in zip(some, sizes, strict=False))


async def test_a_page_has_at_most_a_thousand_values_whatever_was_asked_for():
    caller = permitting(replace(ENTRY, rooms=Matcher(exact=frozenset(f"room-{n:05}" for n in range(2500)))))
    for size in (0, 1001, 2**31 - 1):
        found = await pages(permissions, caller, [size] * 3)
        assert [sum(map(values, page.entries)) for page in found] == [MAX_VALUES, MAX_VALUES, 509]


async def test_a_page_is_about_a_mebibyte_whatever_its_values():
    thread = AgentThreadGrants(thread_ids=tuple(f"{number:0256}" for number in range(100)))
    roles = {f"role-{number:03}": Grants(agent_thread=replace(thread, scope=str(number))) for number in range(200)}
    caller = asking(replace(LISTED, entries=(replace(ENTRY, roles=frozenset(roles)),)), roles)
    found = await pages(permissions, caller, [0] * 9)
    assert len(found) > 4
    assert all(page.ByteSize() < MAX_BYTES * 1.05 for page in found)
    assert [role.name for role in joined(found)[0].roles] == sorted(roles)


async def test_the_names_of_entries_count_too():
    caller = permitting(*(replace(ENTRY, name=f"{number:02000}") for number in range(1000)))
    assert all(page.ByteSize() < MAX_BYTES * 1.05 for page in await pages(permissions, caller, [0] * 99))
    bare = AllowEntry("n" * 2_000_000, frozenset())
    assert len(await pages(permissions, permitting(bare, bare, bare), [0] * 3)) == 3


# ListProjects


async def test_a_project_says_for_what_it_may_be_used():
    keys = KeySet([Project("a", URL, (KEY,))])
    assert await projects(asking(LISTED, keys=keys)) == pb.ListProjectsResponse(
        policy_revision="r1",
        projects=[
            {"name": "a", "url": URL, "issue_tokens": True, "verify_webhooks": True},
            {"name": "b", "issue_tokens": True, "verify_webhooks": True},
            {"name": "c", "verify_tokens": True},
        ],
    )


async def test_the_only_project_for_tokens_is_the_default():
    only = replace(LISTED, entries=(replace(ENTRY, projects=frozenset({"b"})),))
    answer = await projects(asking(only))
    assert [project.name for project in answer.projects if project.is_default] == ["b"]


async def test_of_several_the_default_project_is_the_policys():
    answer = await projects(asking(replace(LISTED, default_project="b", read_decisions=frozenset({"z"}))))
    assert [project.name for project in answer.projects if project.is_default] == ["b"]
    assert [project.name for project in answer.projects if project.read_decisions] == ["z"]


async def test_without_a_default_no_project_is_one():
    assert not any(project.is_default for project in (await projects(asking(LISTED))).projects)


async def test_every_permission_of_the_policy_is_told():
    assert {"name", "url", "is_default", "issue_tokens", *get_args(Permission)} - {"projects"} == set(
        permissions_pb2.Project.DESCRIPTOR.fields_by_name
    )


async def test_no_key_is_told():
    assert KEY.id not in str(await projects(asking(LISTED)))


# Page tokens


async def token_of(ask, caller) -> str:
    return (await ask(caller, 2)).next_page_token


def bytes_of(token: str) -> bytes:
    return urlsafe_b64decode(token + "=" * (-len(token) % 4))


def text_of(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


async def refused(ask, caller: ListedCaller, token: str) -> None:
    with pytest.raises(Refusal) as caught:
        await ask(caller, 2, token)
    assert caught.value.reason is Reason.PAGE_TOKEN_INVALID


@pytest.mark.parametrize("ask", [permissions, projects])
async def test_a_token_is_for_its_method_its_caller_and_its_policy_only(ask):
    caller = asking(LISTED)
    token = await token_of(ask, caller)
    assert 0 < len(token) <= 256
    await ask(caller, 5, token)
    await refused(ask, asking(LISTED, revision="r2"), token)
    await refused(ask, asking(replace(LISTED, id="spiffe://example.org/other")), token)
    await refused(ask, caller, await token_of(projects if ask is permissions else permissions, caller))


MADE_UP = {
    "text": lambda _: "hello",
    "another alphabet": lambda token: token[:-2] + "+/",
    "not ASCII": lambda token: token[:-1] + "é",
    "padded": lambda token: token + "==",
    "with a blank": lambda token: token + " ",
    "longer": lambda token: token + "AAAA",
    "shorter": lambda token: token[:-4],
    "other bits at the end": lambda token: token[:-1] + chr(ord(token[-1]) + 1),
    "another version": lambda token: text_of(b"\x02" + bytes_of(token)[1:]),
    "another binding": lambda token: text_of(bytes_of(token)[:1] + bytes(16) + bytes_of(token)[17:]),
    "the beginning": lambda token: text_of(bytes_of(token)[:17] + bytes(8)),
    "an item that isn't there": lambda token: text_of(bytes_of(token)[:17] + b"\xff" * 4 + bytes(4)),
    "the item after the last": lambda token: text_of(bytes_of(token)[:17] + b"\0\0\0\1" + bytes(4)),
    "a value that isn't there": lambda token: text_of(bytes_of(token)[:17] + bytes(4) + b"\xff" * 4),
    "the value after the last": lambda token: text_of(bytes_of(token)[:17] + bytes(4) + b"\0\0\0\x0d"),
}


@pytest.mark.parametrize("made_up", MADE_UP.values(), ids=MADE_UP)
@pytest.mark.parametrize("ask", [permissions, projects])
async def test_any_other_token_is_refused(ask, made_up):
    caller = asking(LISTED)
    token = await token_of(ask, caller)
    assert made_up(token) != token
    await refused(ask, caller, made_up(token))


@examples(200)
@given(st.binary(max_size=40) | st.binary(min_size=25, max_size=25))
async def test_arbitrary_bytes_are_no_token(data):
    for ask in (permissions, projects):
        if data:
            await refused(ask, asking(LISTED), text_of(data))


@pytest.mark.parametrize("message", [pb.ListPermissionsRequest, pb.ListProjectsRequest])
def test_a_negative_page_size_and_a_long_token_are_invalid(message):
    for request in (message(page_size=-1), message(page_token="x" * 257)):
        with pytest.raises(Refusal) as caught:
            Valid(request)
        assert caught.value.reason is Reason.REQUEST_INVALID
