"""What a user agent may become: a client of this project with three numbers, or "other"; never many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_auth_server.telemetry.client_versions import MOST, OTHER, ClientVersions


@pytest.mark.parametrize(
    ("user_agent", "labels"),
    [
        ("livekit-auth-python/1.2.3", ("livekit-auth-python", "1.2.3")),
        (
            "livekit-auth-python/0.2.0 grpc-python/1.85.1 grpc-c/53.1.0 (linux; chttp2)",
            ("livekit-auth-python", "0.2.0"),
        ),
        ("livekit-auth-go/10.0.12 grpc-go/1.80.0", ("livekit-auth-go", "10.0.12")),
        ("", OTHER),
        ("grpc-python/1.85.1 grpc-c/53.1.0", OTHER),
        ("livekit-auth-python/1.2", OTHER),
        ("livekit-auth-python/1.2.3.4", OTHER),
        ("livekit-auth-python/1.2.3rc1", ("livekit-auth-python", "1.2.3rc1")),
        ("livekit-auth-python/0.2.0.dev0 grpc-python/1.85.1", ("livekit-auth-python", "0.2.0.dev0")),
        ("livekit-auth-typescript/0.2.0-rc.1", ("livekit-auth-typescript", "0.2.0-rc.1")),
        ("livekit-auth-python/1.2.3nightly", OTHER),
        ("livekit-auth-python/1.2.3rc", OTHER),
        ("livekit-auth-python/01.2.3", OTHER),
        ("livekit-auth-python/1.2.123456", OTHER),
        ("livekit-auth-python/٣.2.3", OTHER),
        ("livekit-auth-cobol/1.2.3", OTHER),
        (" livekit-auth-python/1.2.3", OTHER),
        ("Livekit-Auth-Python/1.2.3", OTHER),
        ("livekit-auth-python/1.2.3\n", OTHER),
        ('livekit-auth-python/1.2.3"} 1\nforged_metric 1', OTHER),
        ("livekit-auth-python/1.2.3 " + "x" * 200, OTHER),
    ],
)
def test_a_client_is_named_only_as_its_library_writes_it(user_agent: str, labels: tuple[str, str]) -> None:
    assert ClientVersions().of(user_agent) == labels


def test_versions_beyond_the_most_are_others_and_the_first_keep_their_names() -> None:
    versions = ClientVersions()
    agents = [f"livekit-auth-python/1.0.{number}" for number in range(10_000)]
    named = {versions.of(agent) for agent in agents}
    assert named == {("livekit-auth-python", f"1.0.{number}") for number in range(MOST)} | {OTHER}
    assert versions.of("livekit-auth-python/1.0.0 grpc-python/2") == ("livekit-auth-python", "1.0.0")


def test_the_free_text_after_a_version_takes_no_memory() -> None:
    versions = ClientVersions()
    for number in range(10_000):
        assert versions.of(f"livekit-auth-python/1.0.0 {number}") == ("livekit-auth-python", "1.0.0")
    assert len(versions._known) == 10 * MOST


@given(st.lists(st.text() | st.from_regex(r"livekit-auth-python/[0-9.]{1,9}")))
def test_whatever_is_sent_labels_are_few_and_plain(agents: list[str]) -> None:
    versions = ClientVersions()
    named = {versions.of(agent) for agent in agents}
    assert len(named) <= MOST + 1
    assert all((client + version).isascii() and (client + version).isprintable() for client, version in named)
