"""A throwaway deployment that works, and that keeps its secrets to its owner."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from livekit_auth_server.cli import devkit
from livekit_auth_server.cli.devkit_pki import Authority, new_authority
from livekit_auth_server.config.settings import load_settings
from livekit_auth_server.core.identity import Identifier
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.policy.explain import run_expectations
from livekit_auth_server.reload.load import load_state
from livekit_auth_server.transport.tls import ServerIdentity

if TYPE_CHECKING:
    import datetime as dt

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
URL = "ws://127.0.0.1:7880"
FILES = {
    *("ca.pem", "ca.key", "server.pem", "server.key", "server.yaml", "keys.yaml", "policy.yaml", "policy.test.yaml"),
    "deny.yaml",
    *(f"{client}.{suffix}" for client in ("web", "agents", "webhooks") for suffix in ("pem", "key")),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("devkit") / "below" / "dev"
    before = os.umask(0)  # the worst that a user can have
    try:
        devkit.write(folder, "127.0.0.1:7443", URL)
    finally:
        os.umask(before)
    return folder


def test_these_are_the_files(made: Path) -> None:
    assert {path.name for path in made.iterdir()} == FILES


def test_every_key_is_its_owners_alone(made: Path) -> None:
    secret = [path for path in made.iterdir() if path.suffix == ".key" or path.name == "keys.yaml"]
    assert len(secret) == 6
    assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {0o600}


def test_no_other_file_holds_a_key(made: Path) -> None:
    secret = (made / "keys.yaml").read_text().split(": ")[1].strip()
    assert len(secret) >= 43
    for path in made.iterdir():
        if path.suffix != ".key":
            assert "PRIVATE KEY" not in path.read_text()
        if path.name != "keys.yaml":
            assert secret not in path.read_text()


def test_the_cas_key_is_kept_and_is_nobody_elses(made: Path) -> None:
    ca = x509.load_pem_x509_certificate((made / "ca.pem").read_bytes())
    holders = [
        path.name
        for path in made.glob("*.key")
        if load_pem_private_key(path.read_bytes(), None).public_key() == ca.public_key()
    ]
    assert holders == ["ca.key"]


def test_the_server_loads_it(made: Path) -> None:
    settings = load_settings(made / "server.yaml")
    state = load_state(settings)
    assert (settings.listen, settings.projects["default"].url) == ("127.0.0.1:7443", URL)
    assert set(state.policy.callers) == {f"spiffe://dev.example.org/{client}" for client in devkit.CLIENTS}
    assert len(state.keys.projects["default"].keys) == 1
    ServerIdentity((made / "server.pem").read_bytes(), (made / "server.key").read_bytes()).check()


def test_its_policy_decides_as_it_is_expected_to(made: Path) -> None:
    results = run_expectations(load_state(load_settings(made / "server.yaml")).policy, made / "policy.test.yaml")
    assert [result.problem for result in results] == [""] * 8


def test_a_policy_without_expectations_says_how_to_name_them(made: Path) -> None:
    policy = load_state(load_settings(made / "server.yaml")).policy
    with pytest.raises(ConfigError, match=r"candidate\.test\.yaml: there is no such file; .*--expect"):
        run_expectations(policy, made / "candidate.test.yaml")


def test_its_policy_has_the_roles_that_the_examples_ask_for(made: Path) -> None:
    asked = {role for path in EXAMPLES.rglob("*.py") for role in re.findall(r'role="([\w-]+)"', path.read_text())}
    assert asked == {"guest", "agent-worker", "agent-api"}
    assert asked <= set(load_state(load_settings(made / "server.yaml")).policy.roles)


@pytest.mark.parametrize("client", devkit.CLIENTS)
def test_its_clients_are_who_the_policy_lists(made: Path, client: str) -> None:
    state = load_state(load_settings(made / "server.yaml"))
    leaf = (made / f"{client}.pem").read_bytes()
    now = int(x509.load_pem_x509_certificate(leaf).not_valid_before_utc.timestamp())
    identified = state.identifier.identify(leaf, b"", now + 600)
    assert identified.identity.text in state.policy.callers
    assert identified.valid_until - now == 30 * 86400 + 300


def test_its_server_certificate_is_no_client(made: Path) -> None:
    usage = x509.load_pem_x509_certificate((made / "server.pem").read_bytes())
    purposes = usage.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [purpose._name for purpose in purposes] == ["serverAuth"]


@pytest.mark.parametrize(
    ("address", "dns", "ip"),
    [
        ("127.0.0.1:1", ["localhost"], ["127.0.0.1"]),
        ("[::1]:7443", ["localhost"], ["::1"]),
        ("0.0.0.0:7443", ["localhost"], ["0.0.0.0"]),
        ("localhost:7443", ["localhost"], []),
        ("auth.example.org:443", ["localhost", "auth.example.org"], []),
    ],
)
def test_the_server_can_be_called_by_its_address(tmp_path: Path, address: str, dns: list[str], ip: list[str]) -> None:
    devkit.write(tmp_path / "dev", address, URL)
    assert load_settings(tmp_path / "dev" / "server.yaml").listen == address
    certificate = x509.load_pem_x509_certificate((tmp_path / "dev" / "server.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == dns
    assert [str(value) for value in names.get_values_for_type(x509.IPAddress)] == ip


@pytest.mark.parametrize("url", ["wss://x.livekit.cloud", "https://x.example.org/path", "ws://[::1]:7880", "ws://x/'#"])
def test_the_url_is_kept_whatever_it_holds(tmp_path: Path, url: str) -> None:
    if "#" in url:
        with pytest.raises(ConfigError, match="url: should be the url"):
            devkit.write(tmp_path / "dev", "127.0.0.1:1", url)
        return
    devkit.write(tmp_path / "dev", "127.0.0.1:1", url)
    assert load_settings(tmp_path / "dev" / "server.yaml").projects["default"].url == url


@pytest.mark.parametrize("address", ["7443", "::1:7443", "bücher.example:1", "a:1\nreflection: true", 'a:1" #', ""])
def test_an_address_that_the_server_wouldnt_take_writes_nothing(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match="address: should be HOST:PORT"):
        devkit.write(tmp_path / "dev", address, URL)
    assert not (tmp_path / "dev").exists()


@pytest.mark.parametrize("name", ["keys.yaml", "something", ".hidden"])
def test_a_folder_that_isnt_empty_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match="isn't empty"):
        devkit.write(tmp_path, "127.0.0.1:7443", URL)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_a_file_in_the_folders_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "dev").write_text("mine")
    with pytest.raises(FileExistsError):
        devkit.write(tmp_path / "dev", "127.0.0.1:7443", URL)


def test_a_planted_link_isnt_written_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the folder and the writing, somebody puts a link where a key will be."""
    target, folder = tmp_path / "target", tmp_path / "dev"
    folder.mkdir()

    def plant(now: dt.datetime) -> Authority:
        (folder / "keys.yaml").symlink_to(target)
        return new_authority(now)

    monkeypatch.setattr(devkit, "new_authority", plant)
    with pytest.raises(FileExistsError):
        devkit.write(folder, "127.0.0.1:7443", URL)
    assert not target.exists()


def test_two_deployments_share_nothing(tmp_path: Path) -> None:
    for name in ("one", "two"):
        devkit.write(tmp_path / name, "127.0.0.1:7443", URL)
    for file in ("ca.pem", "ca.key", "server.key", "web.key", "keys.yaml"):
        assert (tmp_path / "one" / file).read_bytes() != (tmp_path / "two" / file).read_bytes()
    stranger = x509.load_pem_x509_certificate((tmp_path / "one" / "web.pem").read_bytes())
    other = load_state(load_settings(tmp_path / "two" / "server.yaml")).identifier
    assert isinstance(other, Identifier)
    with pytest.raises(Exception, match="doesn't lead to a CA"):
        other.identify(stranger.public_bytes(Encoding.PEM), b"", int(stranger.not_valid_before_utc.timestamp()) + 600)


# --- more callers ---

BILLING = f"spiffe://{devkit.TRUST_DOMAIN}/billing"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    devkit.write(tmp_path / "dev", "127.0.0.1:7443", URL)
    return tmp_path / "dev"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_added_caller_is_believed_and_listed(own: Path) -> None:
    before = (own / "policy.yaml").read_text()
    files, entry = devkit.add_caller(own, "billing")
    assert [path.name for path in files] == ["billing.pem", "billing.key"]
    assert stat.S_IMODE(files[1].stat().st_mode) == 0o600
    state = load_state(load_settings(own / "server.yaml"))
    leaf = files[0].read_bytes()
    now = int(x509.load_pem_x509_certificate(leaf).not_valid_before_utc.timestamp()) + 600
    assert state.identifier.identify(leaf, b"", now).identity.text == BILLING
    assert state.policy.callers[BILLING].entries[0].roles == {"guest"}
    added = indent(entry, "  ")
    assert (own / "policy.yaml").read_text() == before.replace("callers:\n", f"callers:\n{added}")
    assert BILLING in entry
    assert not [result for result in run_expectations(state.policy, own / "policy.test.yaml") if result.problem]


def test_a_caller_that_the_policy_lists_gets_a_certificate_alone(own: Path) -> None:
    devkit.add_caller(own, "billing")
    for name in ("billing.pem", "billing.key"):
        (own / name).unlink()
    policy = (own / "policy.yaml").read_bytes()
    assert devkit.add_caller(own, "billing")[1] == ""
    assert (own / "policy.yaml").read_bytes() == policy


@pytest.mark.parametrize("name", ["server", "ca", "web"])
def test_no_file_is_overwritten_by_a_caller(own: Path, name: str) -> None:
    before = contents(own)
    with pytest.raises(ConfigError, match="exists already"):
        devkit.add_caller(own, name)
    assert contents(own) == before


@pytest.mark.parametrize("name", ["", "Web", "a/b", "../x", ".", "a b", "1a", "é", "a" * 64, "a\nb", "a\n"])
def test_a_name_that_is_no_plain_word_is_refused(own: Path, name: str) -> None:
    before = contents(own)
    with pytest.raises(ConfigError, match="isn't a caller's name"):
        devkit.add_caller(own, name)
    assert contents(own) == before


@pytest.mark.parametrize("form", ["comments", "not indented"])
def test_an_edited_policy_is_extended_in_its_own_form(own: Path, form: str) -> None:
    policy = own / "policy.yaml"
    head, _, callers = policy.read_text().partition("callers:\n")
    callers = f"\n  # the first\n{callers}" if form == "comments" else re.sub(r"^  ", "", callers, flags=re.MULTILINE)
    policy.write_text(f"{head}callers: # ours\n{callers}")
    devkit.add_caller(own, "billing")
    assert BILLING in load_state(load_settings(own / "server.yaml")).policy.callers


def test_a_policy_that_only_a_person_can_extend_is_left_and_the_entry_shown(own: Path) -> None:
    (own / "policy.yaml").write_text("{version: 1, roles: {}, callers: []}\n")
    before = contents(own)
    with pytest.raises(ConfigError, match=f"changed by hand(?s:.*){BILLING}"):
        devkit.add_caller(own, "billing")
    assert contents(own) == before


@pytest.mark.parametrize("wrong", ["missing", "other", "text"])
def test_without_the_cas_key_nothing_is_issued(own: Path, wrong: str) -> None:
    if wrong == "missing":
        (own / "ca.key").unlink()
    else:
        (own / "ca.key").write_bytes((own / "web.key").read_bytes() if wrong == "other" else b"no key")
    before = contents(own)
    with pytest.raises(ConfigError, match=r"ca\.key"):
        devkit.add_caller(own, "billing")
    assert contents(own) == before


def test_a_certificate_doesnt_outlive_its_ca(own: Path) -> None:
    files, _ = devkit.add_caller(own, "billing")
    leaf, ca = (x509.load_pem_x509_certificate(path.read_bytes()) for path in (files[0], own / "ca.pem"))
    assert leaf.not_valid_after_utc <= ca.not_valid_after_utc


def test_one_caller_may_verify_tokens(own: Path) -> None:
    callers = load_state(load_settings(own / "server.yaml")).policy.callers.values()
    assert [caller.id.rpartition("/")[2] for caller in callers if caller.verify_tokens] == ["webhooks"]
