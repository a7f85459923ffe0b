"""Renewed TLS files count for the next connection to Redis, without a restart; files of no use leave the last ones."""

from __future__ import annotations

import asyncio
import datetime as dt
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.stores.redis_client import TlsContexts, TlsFiles, new_client
from livekit_auth_server.stores.redis_link import RedisAway, RedisLink
from support.pki import CLIENT, SERVER, Authority, Credential
from support.redis_server import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.slow

LIFETIME = 4  # seconds of a short certificate


@pytest.fixture(scope="module")
def ca() -> Authority:
    return Authority.create("redis CA")


def client(ca: Authority, lifetime: int = 3600) -> Credential:
    now = dt.datetime.now(dt.UTC)
    return ca.issue(dns=["client"], usages=[CLIENT], not_after=now + dt.timedelta(seconds=lifetime))


def tls_redis(folder: Path, ca: Authority) -> tuple[RedisServer, int]:
    """A Redis that takes TLS with a client certificate of this CA alone; and its TLS port."""
    certificate, key = ca.issue(dns=["localhost"], usages=[SERVER]).write(folder, "redis")
    (folder / "redis-ca.pem").write_bytes(ca.leaf_pem)
    port = free_port()
    options: list[object] = ["--tls-port", port, "--tls-cert-file", certificate, "--tls-key-file", key]
    options += ["--tls-ca-cert-file", folder / "redis-ca.pem", "--tls-auth-clients", "yes"]
    return RedisServer(folder, options=tuple(map(str, options))), port


def files(folder: Path, ca: Authority, credential: Credential) -> TlsFiles:
    (folder / "ca.pem").write_bytes(ca.leaf_pem)
    return TlsFiles(folder / "ca.pem", *credential.write(folder, "client"))


def drop_connections(server: RedisServer) -> None:
    with server.client() as database:
        database.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


@asynccontextmanager
async def linked(port: int, tls: TlsFiles) -> AsyncIterator[RedisLink]:
    link = RedisLink(new_client(f"rediss://localhost:{port}", None, tls), "t:", 5.0, lambda _: None)
    await link.open()
    try:
        assert await answers(link)
        yield link
    finally:
        await link.close()


async def answers(link: RedisLink) -> bool:
    try:
        return bool(await link.run("PING") == b"PONG")
    except RedisAway:
        return False


async def becomes(link: RedisLink, *, up: bool) -> None:
    for _ in range(1500):
        if await answers(link) is up:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"it didn't become {up}")


@pytest.mark.slow
async def test_an_expired_client_certificate_that_is_renewed_needs_no_restart(tmp_path: Path, ca: Authority) -> None:
    server, port = tls_redis(tmp_path, ca)
    short = client(ca, LIFETIME)
    tls = files(tmp_path, ca, short)
    with server:
        async with linked(port, tls) as link:
            expired = short.certificate.not_valid_after_utc
            await asyncio.sleep((expired - dt.datetime.now(dt.UTC)).total_seconds() + 1.5)
            drop_connections(server)
            await becomes(link, up=False)
            await asyncio.sleep(0.5)
            assert not await answers(link), "its certificate has expired"
            client(ca).write(tmp_path, "client")
            await becomes(link, up=True)


async def test_a_renewed_ca_and_certificate_count_for_the_next_connection(tmp_path: Path, ca: Authority) -> None:
    other = Authority.create("the next redis CA")
    server, port = tls_redis(tmp_path, ca)
    tls = files(tmp_path, ca, client(ca))
    with server:
        async with linked(port, tls) as link:
            (tmp_path / "redis-ca.pem").write_bytes(other.leaf_pem)
            certificate, key = other.issue(dns=["localhost"], usages=[SERVER]).write(tmp_path, "next")
            with server.client() as database:
                pair = ("tls-cert-file", str(certificate), "tls-key-file", str(key))
                database.config_set("tls-ca-cert-file", str(tmp_path / "redis-ca.pem"), *pair)
            drop_connections(server)
            await becomes(link, up=False)
            files(tmp_path, other, client(other))
            await becomes(link, up=True)


def test_a_pair_of_which_one_half_is_replaced_keeps_the_last_good_one(tmp_path: Path, ca: Authority) -> None:
    old, new = client(ca), client(ca)
    contexts = TlsContexts(files(tmp_path, ca, old))
    first = contexts.get()
    assert contexts.get() is first, "nothing has changed"
    (tmp_path / "client.pem").write_bytes(new.cert_pem)
    with capture_logs() as lines:
        assert [contexts.get() is first for _ in range(3)] == [True] * 3
        (tmp_path / "client.key").write_bytes(new.key_pem)
        renewed = contexts.get()
    assert renewed is not first
    assert contexts.get() is renewed
    [line] = lines
    assert (line["log_level"], "client.pem: can't be used with client.key" in line["error"]) == ("warning", True)


@pytest.mark.parametrize("name", ["ca.pem", "client.pem", "client.key"])
@pytest.mark.parametrize("harm", ["removed", "empty", "half"])
def test_tls_files_of_no_use_keep_the_last_good_ones_and_stop_a_start(
    tmp_path: Path, ca: Authority, name: str, harm: str
) -> None:
    tls = files(tmp_path, ca, client(ca))
    contexts = TlsContexts(tls)
    first, path = contexts.get(), tmp_path / name
    content = path.read_bytes()
    path.unlink() if harm == "removed" else path.write_bytes(b"" if harm == "empty" else content[: len(content) // 2])
    assert contexts.get() is first
    with pytest.raises(ConfigError) as caught:
        new_client("rediss://localhost:1", None, tls)
    assert "client.pem" in str(caught.value) or name in str(caught.value)
    assert "PRIVATE" not in str(caught.value)


def test_a_key_that_others_can_read_is_not_taken(tmp_path: Path, ca: Authority) -> None:
    contexts = TlsContexts(files(tmp_path, ca, client(ca)))
    first = contexts.get()
    client(ca).write(tmp_path, "client")[1].chmod(0o604)
    with capture_logs() as lines:
        assert contexts.get() is first
    assert "can be read by others" in lines[0]["error"]


def test_where_a_ca_is_given_no_other_counts(tmp_path: Path, ca: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "system.pem").write_bytes(Authority.create("some public CA").leaf_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    names = [str(one["subject"]) for one in TlsContexts(files(tmp_path, ca, client(ca))).get().get_ca_certs()]
    assert ["redis CA" in one for one in names] == [True]
    [system] = TlsContexts(TlsFiles()).get().get_ca_certs()
    assert "some public CA" in str(system["subject"])
