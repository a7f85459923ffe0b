"""The settings file and its environment, and the mistakes that people make in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from livekit_auth_server.config.sections import (
    AuditSettings,
    IdentitySettings,
    KeysSettings,
    LimitSettings,
    LogSettings,
    WebhookSettings,
    client_url,
    listen_address,
)
from livekit_auth_server.config.settings import Settings, load_settings
from livekit_auth_server.files.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

BASE = """\
listen: 127.0.0.1:7443
tls: {certificate: server.pem, key: server.key}
identity:
  trust_domains:
    example.org: ca.pem
policy: policy.yaml
projects:
  default:
    url: wss://livekit.example.org
    keys: {file: keys.yaml}
"""


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os  # noqa: PLC0415

    for name in [name for name in os.environ if name.upper().startswith("LIVEKIT_AUTH_SERVER_")]:
        monkeypatch.delenv(name)


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "server.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def load(folder: Path, content: str | bytes = BASE) -> Settings:
    return load_settings(write(folder, content))


def mistake(folder: Path, content: str | bytes = BASE) -> str:
    """The whole message, without the path of the file that every one of them starts with."""
    path = write(folder, content)
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert str(caught.value).isprintable()
    return str(caught.value).removeprefix(str(path)).lstrip(": ")


def with_(old: str, new: str) -> str:
    assert BASE.count(old) == 1
    return BASE.replace(old, new)


def test_what_must_be_said_is_enough(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert settings.listen == "127.0.0.1:7443"
    assert settings.projects["default"].url == "wss://livekit.example.org"
    assert settings.projects["default"].keys == KeysSettings(file=Path("keys.yaml"))
    assert settings.identity == IdentitySettings(trust_domains={"example.org": Path("ca.pem")})
    assert (settings.webhooks, settings.limits, settings.log) == (WebhookSettings(), LimitSettings(), LogSettings())
    assert (settings.metrics, settings.reflection, settings.drain) == (None, False, 30.0)


def test_the_server_listens_on_loopback_unless_told(tmp_path: Path) -> None:
    assert load(tmp_path, with_("listen: 127.0.0.1:7443\n", "")).listen == "127.0.0.1:7443"


def test_reflection_and_metrics_are_off_unless_told(tmp_path: Path) -> None:
    settings = load(tmp_path, BASE + "reflection: true\nmetrics: 127.0.0.1:9090\n")
    assert (settings.reflection, settings.metrics) == (True, "127.0.0.1:9090")


def test_the_selfcheck_warns_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(tmp_path).selfcheck == "warn"
    for mode in ("off", "warn", "enforce"):
        assert load(tmp_path, f"{BASE}selfcheck: {mode}\n").selfcheck == mode
    assert load(tmp_path, f"{BASE}selfcheck: false\n").selfcheck == "off", "as YAML 1.1 reads a bare off"
    assert "selfcheck: should be" in mistake(tmp_path, f"{BASE}selfcheck: true\n")
    monkeypatch.setenv("LIVEKIT_AUTH_SERVER_SELFCHECK", "enforce")
    assert load(tmp_path).selfcheck == "enforce"


def test_the_audit_trail_is_in_the_log_unless_told(tmp_path: Path) -> None:
    assert load(tmp_path).audit == AuditSettings(path=None, required=False, patience=2.0)
    settings = load(tmp_path, BASE + "audit: {path: audit, required: true, patience: 1.5}\n")
    assert settings.audit == AuditSettings(path=Path("audit"), required=True, patience=1.5)


def test_a_required_audit_trail_needs_a_place(tmp_path: Path) -> None:
    expected = "11: audit: required needs a path: log lines are best effort"
    assert mistake(tmp_path, BASE + "audit: {required: true}\n") == expected


@pytest.mark.parametrize("patience", ["0", "61", ".inf", "soon"])
def test_the_patience_with_a_disk_is_bounded(tmp_path: Path, patience: str) -> None:
    assert "audit.patience: should be" in mistake(tmp_path, BASE + f"audit: {{path: a, patience: {patience}}}\n")


# Paths


def test_relative_paths_start_at_the_files_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    settings = load(tmp_path)
    assert settings.at(settings.policy) == tmp_path / "policy.yaml"
    assert settings.at(Path("/etc/policy.yaml")) == Path("/etc/policy.yaml")
    assert settings.at(Path("../policy.yaml")) == tmp_path / "../policy.yaml"


def test_a_home_folder_is_found_and_an_unknown_one_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    settings = load(tmp_path)
    assert settings.at(Path("~/policy.yaml")) == Path("/home/ada/policy.yaml")
    with pytest.raises(ConfigError, match="there is no such home folder"):
        settings.at(Path("~nobody-of-this-name/policy.yaml"))


# Mistakes, each with its line and what to do

FIELDS = "should hold fields, written `name: value` and indented below it"
ADDRESS = 'should be HOST:PORT, such as "127.0.0.1:7443" or "[::1]:7443"'
URL = 'should be the url that clients connect to, such as "wss://livekit.example.org"'
KEYS = "names where the keys are, by exactly one of file, directory and environment"
TRUST_DOMAIN = 'isn\'t a trust domain such as example.org: a-z, 0-9, ".", "-" and "_", without "spiffe://"'
PROJECT = "isn't a project's name: a-z, 0-9 and \"-\", at most 63 characters"
NO_SETTINGS = "holds no settings; `livekit-auth-server dev` writes an example"

MISTAKES: list[tuple[str | bytes, str]] = [
    ("", NO_SETTINGS),
    ("# listen: x\n", NO_SETTINGS),
    ("- listen\n", NO_SETTINGS),
    ("listen\n", NO_SETTINGS),
    (BASE + "listn: x\n", "11: listn: there is no such field; check its spelling"),
    (BASE + "listen: a:1\n", "11: duplicate key, in line 1 too; remove one"),
    (with_("key: server.key", "kee: x"), "2: tls.kee: there is no such field; check its spelling"),
    (with_("tls: {certificate: server.pem, key: server.key}\n", ""), "tls: is required"),
    ("listen: 127.0.0.1:1\n", "tls: is required (and 3 more)"),
    (BASE + "log:\n", f"11: log: {FIELDS}"),
    (BASE + "log: debug\n", f"11: log: {FIELDS}"),
    (BASE + "log: {level: verbose}\n", "11: log.level: should be 'debug', 'info', 'warning' or 'error'"),
    (BASE + "log: {level: INFO}\n", "11: log.level: should be 'debug', 'info', 'warning' or 'error'"),
    (BASE + "log: {format: text}\n", "11: log.format: should be 'auto', 'json' or 'console'"),
    (with_("127.0.0.1:7443", "7443"), f"1: listen: {ADDRESS}"),
    (with_("127.0.0.1:7443", '":7443"'), f"1: listen: {ADDRESS}"),
    (with_("127.0.0.1:7443", "127.0.0.1"), f"1: listen: {ADDRESS}"),
    (with_("127.0.0.1:7443", '"[::1]:70000"'), f"1: listen: {ADDRESS}"),
    (with_("127.0.0.1:7443", ""), f"1: listen: {ADDRESS}"),
    (with_("127.0.0.1:7443", "[::1]:7443"), "1: isn't valid YAML (expected <block end>, but found '<scalar>'); check"),
    (BASE + "metrics: 9090\n", f"11: metrics: {ADDRESS}"),
    (with_("wss://livekit.example.org", "livekit.example.org"), f"9: projects.default.url: {URL}"),
    (with_("wss://livekit.example.org", ""), f"9: projects.default.url: {URL}"),
    (with_("wss://livekit.example.org", "wss://key:secret@x"), f"9: projects.default.url: {URL}"),
    (with_("{file: keys.yaml}", "{}"), f"10: projects.default.keys: {KEYS}"),
    (with_("{file: keys.yaml}", ""), f"10: projects.default.keys: {KEYS}"),
    (with_("{file: keys.yaml}", "keys.yaml"), f"10: projects.default.keys: {KEYS}"),
    (with_("{file: keys.yaml}", "{file: a, directory: b}"), f"10: projects.default.keys: {KEYS}"),
    (with_("{file: keys.yaml}", "{file: a, directory: b, environment: C}"), f"10: projects.default.keys: {KEYS}"),
    (with_("{file: keys.yaml}", "{files: a}"), f"10: projects.default.keys: {KEYS}"),
    (with_("{file: keys.yaml}", "{file: 1}"), "10: projects.default.keys.file: should be the path of a file or"),
    (with_("{file: keys.yaml}", "{environment: [A]}"), "10: projects.default.keys.environment: should be text; put"),
    (with_("    keys: {file: keys.yaml}\n", ""), "8: projects.default.keys: is required"),
    (with_("  default:", "  De fault:"), f"8: projects.De fault: {PROJECT}"),
    (with_("  default:", "  -x:"), f"8: projects.-x: {PROJECT}"),
    (with_("  default:", f"  {'x' * 64}:"), f"8: projects.…: {PROJECT}"),
    (with_("  default:", "  1:"), "8: projects.1: should be text; put it in quotes"),
    (BASE.split("projects:", maxsplit=1)[0] + "projects: {}\n", "7: projects: needs at least one entry"),
    (BASE.split("projects:", maxsplit=1)[0] + "projects: [default]\n", f"7: projects: {FIELDS}"),
    (BASE.split("projects:", maxsplit=1)[0] + "projects: default\n", f"7: projects: {FIELDS}"),
    (
        with_("example.org: ca", "spiffe://example.org: ca"),
        f"5: identity.trust_domains.spiffe://example.org: {TRUST_DOMAIN}",
    ),
    (with_("example.org: ca", "Example.org: ca"), f"5: identity.trust_domains.Example.org: {TRUST_DOMAIN}"),
    (with_("    example.org: ca.pem", "    - example.org"), f"4: identity.trust_domains: {FIELDS}"),
    (with_("    example.org: ca.pem\n", ""), f"4: identity.trust_domains: {FIELDS}"),
    (with_("  trust_domains:\n    example.org: ca.pem\n", ""), f"3: identity: {FIELDS}"),
    (
        with_("\n  trust_domains:\n    example.org: ca.pem\n", " {}\n"),
        "3: identity: needs at least one of trust_domains, workload_api and dns_bundle",
    ),
    (with_("policy.yaml", "5"), "6: policy: should be the path of a file or folder"),
    (with_("policy.yaml", ""), "6: policy: should be the path of a file or folder"),
    (BASE + "reflection: perhaps\n", "11: reflection: should be true or false"),
    (BASE + "drain: 30s\n", "11: drain: should be a number, without a unit"),
    (BASE + "drain: -1\n", "11: drain: should be at least 0"),
    (BASE + "drain: 3601\n", "11: drain: should be at most 3600"),
    (BASE + "drain: .nan\n", "11: drain: should be a number, without a unit"),
    (BASE + "limits: {connection_idle: .inf}\n", "11: limits.connection_idle: should be a number, without a unit"),
    (BASE + "limits: {handshake: .nan}\n", "11: limits.handshake: should be a number, without a unit"),
    (BASE + "limits: {handshake: 0}\n", "11: limits.handshake: should be at least 0.1"),
    (BASE + "limits: {metadata: 8KiB}\n", "11: limits.metadata: should be a whole number, without a unit"),
    (BASE + "limits: {metadata: 1}\n", "11: limits.metadata: should be at least 1024"),
    (BASE + "limits: {connections: 0}\n", "11: limits.connections: should be at least 1"),
    (BASE + "webhooks: {max_body: 4194304}\n", "11: webhooks.max_body: should be at most 3145728"),
    (BASE + "webhooks: {remember: 59}\n", "11: webhooks.remember: should be at least 60"),
    (BASE + "webhooks: {remember_per_caller: 99}\n", "11: webhooks.remember_per_caller: should be at least 100"),
    (BASE + "\tlog: x\n", "11: isn't valid YAML (found character '\\t' that cannot start any token)"),
    (BASE + "log: level: info\n", "11: isn't valid YAML (mapping values are not allowed here)"),
    (BASE + "log: {level: info\n", "12: isn't valid YAML"),
    (BASE + "1: x\n", "11: 1: there is no such field; check its spelling"),
    (BASE + "~: x\n", "11: None: there is no such field; check its spelling"),
    (BASE + "? [a]\n: x\n", "11: isn't valid YAML (a key is a list or a mapping)"),
    (BASE.encode() + b"# \xff\n", "isn't UTF-8 text"),
]


@pytest.mark.parametrize(("content", "text"), MISTAKES, ids=[text[:60] for _, text in MISTAKES])
def test_a_mistake_is_one_line_that_says_where_and_what_to_do(tmp_path: Path, content: str | bytes, text: str) -> None:
    assert mistake(tmp_path, content).startswith(text)


@pytest.mark.parametrize(
    "name", ["_env_file", "_env_prefix", "_cli_parse_args", "_secrets_dir", "_base", "__pydantic_self__"]
)
def test_no_name_is_an_order_to_the_settings_library(tmp_path: Path, name: str) -> None:
    assert (
        mistake(tmp_path, BASE + f"{name}: /etc/passwd\n") == f"11: {name}: there is no such field; check its spelling"
    )


def test_keys_written_into_the_settings_dont_show(tmp_path: Path) -> None:
    for pair in ("{APIone: MARKER}", "{MARKER: APIone}", "{file: a, MARKER: b}", "[MARKER]", "MARKER"):
        assert "MARKER" not in mistake(tmp_path, with_("{file: keys.yaml}", pair))


def test_a_file_that_isnt_there_is_named(tmp_path: Path) -> None:
    for path, why in (
        (tmp_path / "missing.yaml", "there is no such file"),
        (tmp_path, "can't be read: Is a directory"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_settings(path)
        assert str(caught.value) == f"{path}: {why}"


# Single values


@pytest.mark.parametrize(
    "text", ["127.0.0.1:7443", "0.0.0.0:0", "[::1]:65535", "[::ffff:10.0.0.1]:1", "auth.example.org:1"]
)
def test_an_address_is_host_and_port(text: str) -> None:
    assert listen_address(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1",
        "a",
        "a:",
        "a:65536",
        "a:-1",
        "a:1x",
        "::1:1",
        "[::1]",
        "a b:1",
        "http://a:1",
        "a:1/x",
        "a:1\n",
        "unix:/x",
        1,
        None,
    ],
)
def test_nothing_else_is_an_address(text: object) -> None:
    with pytest.raises(ValueError, match="should be HOST:PORT"):
        listen_address(text)


@pytest.mark.parametrize(
    "text",
    ["ws://localhost:7880", "wss://x.example.org", "https://x.livekit.cloud/", "http://[::1]:7880", "wss://x/path/to"],
)
def test_a_client_url_is_a_websocket_or_http_url(text: str) -> None:
    assert client_url(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "localhost:7880",
        "WSS://x",
        "wss://",
        "wss:///x",
        "ftp://x",
        "wss://u@x",
        "wss://u:p@x",
        "wss://x?token=a",
        "wss://x#f",
        "wss://x y",
        "wss://x\n",
        1,
        None,
    ],
)
def test_nothing_else_is_a_client_url(text: object) -> None:
    """A url with user information or a query could carry a secret to every client."""
    with pytest.raises(ValueError, match="should be the url that clients connect to"):
        client_url(text)


@pytest.mark.parametrize("name", ["default", "a", "0", "a-b", "x" * 63])
def test_a_projects_name_is_the_contracts(tmp_path: Path, name: str) -> None:
    assert list(load(tmp_path, with_("  default:", f'  "{name}":')).projects) == [name]


@pytest.mark.parametrize(
    ("where", "field"), [("{file: a}", "file"), ("{directory: a}", "directory"), ("{environment: A_B}", "environment")]
)
def test_keys_come_from_one_place(tmp_path: Path, where: str, field: str) -> None:
    keys = load(tmp_path, with_("{file: keys.yaml}", where)).projects["default"].keys
    assert [name for name in KeysSettings.model_fields if getattr(keys, name) is not None] == [field]


def test_dns_names_alone_are_enough(tmp_path: Path) -> None:
    settings = load(tmp_path, with_("trust_domains:\n    example.org: ca.pem", "dns_bundle: dns.pem"))
    assert settings.identity == IdentitySettings(dns_bundle=Path("dns.pem"))


# The Workload API

FROM_AGENT = {
    "tls: {certificate: server.pem, key: server.key}": "tls: {workload_api: true}",
    "trust_domains:\n    example.org: ca.pem": "workload_api: [example.org]",
    "policy: policy.yaml": "workload_api: {socket: unix:///run/spire/agent.sock}\npolicy: policy.yaml",
}
ONE_SOURCE = "needs certificate and key, or workload_api: true without them"


def from_agent(*without: int) -> str:
    """BASE with everything from the agent, but for some of these replacements."""
    text = BASE
    for index, (old, new) in enumerate(FROM_AGENT.items()):
        text = text if index in without else text.replace(old, new)
    return text


@pytest.mark.parametrize("without", [(), (0,), (1,)])
def test_certificate_and_bundles_each_come_from_files_or_from_the_agent(tmp_path: Path, without: tuple[int]) -> None:
    settings = load(tmp_path, from_agent(*without))
    assert settings.workload_api
    assert settings.workload_api.socket == "unix:///run/spire/agent.sock"
    assert settings.tls.workload_api is (0 not in without)
    assert settings.identity.workload_api == ([] if 1 in without else ["example.org"])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (from_agent(2), "tls.workload_api and identity.workload_api need workload_api: {socket: unix:///PATH}"),
        (from_agent(0, 1), "nothing uses workload_api: set tls.workload_api or identity.workload_api, or remove it"),
        (with_("key: server.key", "workload_api: true"), f"2: tls: {ONE_SOURCE}"),
        (with_(", key: server.key", ""), f"2: tls: {ONE_SOURCE}"),
        (
            with_("server.pem, key: server.key", "server.pem, key: server.key, workload_api: true"),
            f"2: tls: {ONE_SOURCE}",
        ),
        (
            with_("    example.org: ca.pem", "    example.org: ca.pem\n  workload_api: [example.org]"),
            "3: identity: example.org is in trust_domains and in workload_api; remove one",
        ),
        (
            from_agent().replace("[example.org]", "[spiffe://example.org]"),
            f"4: identity.workload_api.0: {TRUST_DOMAIN}",
        ),
        (from_agent().replace("{socket:", "{patience: 0, socket:"), "5: workload_api.patience: "),
        (from_agent().replace("{socket:", "{id: example.org/x, socket:"), "5: workload_api.id: not a SPIFFE id"),
        (
            from_agent().replace("{socket:", "{id: 'dns:a.example.org', socket:"),
            "5: workload_api.id: isn't a SPIFFE id",
        ),
    ],
)
def test_a_mistake_about_the_agent_says_what_to_do(tmp_path: Path, content: str, text: str) -> None:
    assert text in mistake(tmp_path, content)


# The environment

ENVIRONMENT: list[tuple[str, str, Callable[[Settings], object], object]] = [
    ("LISTEN", "0.0.0.0:1", lambda s: s.listen, "0.0.0.0:1"),
    ("LOG__LEVEL", "debug", lambda s: (s.log.level, s.log.format), ("debug", "json")),
    ("REFLECTION", "true", lambda s: s.reflection, True),
    ("DRAIN", "1.5", lambda s: s.drain, 1.5),
    ("METRICS", "127.0.0.1:9090", lambda s: s.metrics, "127.0.0.1:9090"),
    ("LIMITS__METADATA", "2048", lambda s: (s.limits.metadata, s.limits.connections), (2048, 1500)),
    ("LIMITS", '{"metadata": 2048}', lambda s: s.limits.metadata, 2048),
    ("PROJECTS__DEFAULT__URL", "wss://other", lambda s: s.projects["default"].url, "wss://other"),
    ("IDENTITY__DNS_BUNDLE", "dns.pem", lambda s: s.identity.dns_bundle, Path("dns.pem")),
    ("POLICY", "/etc/p.yaml", lambda s: s.policy, Path("/etc/p.yaml")),
]


@pytest.mark.parametrize("case", ENVIRONMENT, ids=[name for name, *_ in ENVIRONMENT])
def test_the_environment_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: tuple[str, str, Callable[[Settings], object], object]
) -> None:
    name, value, read, expected = case
    before = read(load(tmp_path, BASE + "log: {format: json}\n"))
    monkeypatch.setenv(f"LIVEKIT_AUTH_SERVER_{name}", value)
    assert read(load(tmp_path, BASE + "log: {format: json}\n")) == expected != before


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("LOG__LEVEL", "loud", "should be 'debug', 'info', 'warning' or 'error'"),
        ("LOG__LEVLE", "debug", "there is no such field; check its spelling"),
        ("LISTEN", "7443", ADDRESS),
        ("LISTEN", "", ADDRESS),
        ("DRAIN", "30s", "should be a number, without a unit"),
        ("REFLECTION", "perhaps", "should be true or false"),
        ("LIMITS__METADATA", "1", "should be at least 1024"),
        ("PROJECTS__DEFAULT__URL", "x", URL),
        ("TLS", "server.pem", "isn't a JSON object; set one field of it instead: LIVEKIT_AUTH_SERVER_TLS__FIELD"),
        ("PROJECTS", "{", "isn't a JSON object; set one field of it instead: LIVEKIT_AUTH_SERVER_PROJECTS__FIELD"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, text: str
) -> None:
    monkeypatch.setenv(f"LIVEKIT_AUTH_SERVER_{name}", value)
    assert mistake(tmp_path, BASE + "log: {level: info, format: json}\n") == f"$LIVEKIT_AUTH_SERVER_{name}: {text}"


def test_a_mistake_in_the_file_isnt_blamed_on_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEKIT_AUTH_SERVER_LOG__LEVEL", "debug")
    assert mistake(tmp_path, BASE + "log: {format: text}\n").startswith("11: log.format: should be")


def test_what_kubernetes_puts_into_the_environment_is_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service of the name livekit-auth-server makes such variables in every pod of its namespace."""
    for name, value in {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "7443",
        "PORT": "tcp://10.0.0.1:7443",
        "PORT_7443_TCP_ADDR": "10.0.0.1",
        "CONFIG": "/etc/server.yaml",
    }.items():
        monkeypatch.setenv(f"LIVEKIT_AUTH_SERVER_{name}", value)
    assert load(tmp_path).listen == "127.0.0.1:7443"


def test_no_env_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("LIVEKIT_AUTH_SERVER_LISTEN=0.0.0.0:1\n")
    monkeypatch.chdir(tmp_path)
    assert load(tmp_path).listen == "127.0.0.1:7443"


@pytest.mark.parametrize(
    "name", ["LISTENN", "LOGS__LEVEL", "LOG_LEVEL", "_LISTEN", "", "PORTS", "SERVICE_HOSTS", "listenn"]
)
def test_a_variable_that_would_set_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(f"LIVEKIT_AUTH_SERVER_{name}", "x")
    assert mistake(tmp_path).startswith(f"$LIVEKIT_AUTH_SERVER_{name}: there is no such setting; check its spelling")


def test_the_command_lines_own_variable_and_those_of_kubernetes_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Service of the name livekit-auth-server gives every pod of its namespace such variables."""
    links = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_GRPC", "PORT", "PORT_7443_TCP", "PORT_7443_TCP_ADDR")
    for name in ("CONFIG", *links, *(f"CANARY_{link}" for link in links)):
        monkeypatch.setenv(f"LIVEKIT_AUTH_SERVER_{name}", "tcp://10.0.0.1:7443")
    assert load(tmp_path).listen == "127.0.0.1:7443"
