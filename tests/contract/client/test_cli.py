"""The command line against a server: what it prints, and the exit codes that scripts rely on."""

import asyncio
import json
import os
import re
import sys
from asyncio.subprocess import PIPE
from importlib.metadata import version
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToJson
from typer.testing import CliRunner

from livekit_auth._cli.app import app
from livekit_auth.v1.grants_pb2 import Grants, VideoGrant
from support.fake_auth_server import TOKEN, refusal
from support.pki import Authority


@pytest.fixture
def run(environment):
    async def run(*arguments, stdin=None):
        return await asyncio.to_thread(CliRunner().invoke, app, [str(a) for a in arguments], input=stdin)

    return run


@pytest.fixture
def webhook_files(tmp_path):
    (tmp_path / "body").write_bytes(b'{"event": "participant_joined"}\n')
    (tmp_path / "authorization").write_text("a.b.c\n")
    return ("--body-file", tmp_path / "body", "--authorization-file", tmp_path / "authorization")


async def test_token_prints_json(run, service):
    result = await run(
        "token", "--role", "guest", "--room", "consult-1", "--identity", "user-1", "--ttl", "5m", "--json"
    )
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    assert printed["token"] == TOKEN
    assert printed["url"] == "wss://livekit.example.org"
    assert printed["expire_time"] == "2027-01-15T08:05:00Z"
    assert (printed["key_id"], printed["decision_id"], printed["project"]) == ("APIkey", "dec-1", "default")
    assert printed["grants"] == {"video": {"room_join": True}}
    assert service.requests[0].ttl.seconds == 300


async def test_token_prints_the_token_alone_on_stdout_for_a_shell(run):
    result = await run("token", "--role", "guest")
    assert result.stdout == f"{TOKEN}\n"
    assert "wss://livekit.example.org" in result.stderr
    assert TOKEN not in result.stderr


async def test_token_sends_all_options(run, service):
    options = [
        "--name",
        "Ada",
        "--metadata",
        "m",
        "--attribute",
        "a=b",
        "--attribute",
        "c=d",
        "--project",
        "p",
        "--reason",
        "t",
    ]
    assert (await run("token", "--role", "guest", *options)).exit_code == 0
    request = service.requests[0]
    assert (request.name, request.metadata, request.project, request.request_reason) == ("Ada", "m", "p", "t")
    assert request.attributes == {"a": "b", "c": "d"}
    assert not request.HasField("ttl")


async def test_token_with_validate_only_issues_nothing(run):
    result = await run("token", "--role", "guest", "--validate-only")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no token issued" in result.stderr


async def test_grants_are_read_from_a_file_or_stdin(run, service, tmp_path):
    grants = Grants(video=VideoGrant(room_join=True, can_publish=False))
    (tmp_path / "grants.json").write_text(MessageToJson(grants))
    assert (await run("token", "--grants-file", tmp_path / "grants.json")).exit_code == 0
    assert (await run("token", "--grants-file", "-", stdin=MessageToJson(grants))).exit_code == 0
    assert [request.grants for request in service.requests] == [grants, grants]


async def test_webhook_acknowledges_so_that_a_redelivery_is_a_duplicate(run, service, webhook_files):
    first = json.loads((await run("webhook", *webhook_files, "--json")).stdout)
    second = json.loads((await run("webhook", *webhook_files, "--json")).stdout)
    assert (first["duplicate_status"], second["duplicate_status"]) == ("new", "duplicate")
    assert first["acknowledged"]
    assert first["type"] == "participant_joined"
    assert len(first["body_sha256"]) == 64
    assert service.requests[0].authorization == "a.b.c"
    assert service.requests[0].body == b'{"event": "participant_joined"}\n'


async def test_webhook_with_no_ack_acknowledges_nothing(run, service, webhook_files):
    for _ in range(2):
        printed = json.loads((await run("webhook", *webhook_files, "--no-ack", "--json")).stdout)
        assert printed["duplicate_status"] == "new"
    assert len(service.requests) == 2


async def test_body_may_be_read_from_stdin(run, service, webhook_files):
    assert (await run("webhook", "--body-file", "-", *webhook_files[2:], stdin=b"{}\n")).exit_code == 0
    assert service.requests[0].body == b"{}\n"


async def test_whoami_shows_the_identity_and_the_entries(run):
    printed = json.loads((await run("whoami", "--json")).stdout)
    assert printed["workload_id"] == "spiffe://example.org/web"
    [entry] = printed["permissions"]
    assert entry["rooms"] == ["prefix:consult-"]
    assert entry["roles"] == {"guest": {"video": {"room_join": True}}}
    assert entry["max_ttl"] == 3600.0
    assert [project["name"] for project in printed["projects"]] == ["default", "staging"]
    text = (await run("whoami")).stdout
    assert "spiffe://example.org/web" in text
    assert "prefix:consult-" in text
    assert '{"video": {"room_join": true}}' in text


async def test_whoami_of_an_unlisted_caller_asks_for_no_permissions(run, service):
    service.listed = False
    result = await run("whoami", "--json")
    assert (result.exit_code, len(service.requests)) == (0, 1)
    printed = json.loads(result.stdout)
    assert (printed["listed"], printed["permissions"], printed["projects"]) == (False, [], [])


async def test_why_shows_what_each_entry_lacked(run, service):
    printed = json.loads((await run("why", "dec-9", "--json")).stdout)
    assert printed["decision_id"] == service.requests[0].decision_id == "dec-9"
    assert printed["shortfalls"] == [{"web": [{"reason": "ROOM_NOT_PERMITTED", "message": "not this room"}]}]
    text = (await run("why", "dec-9")).stdout
    assert "web: reason: ROOM_NOT_PERMITTED; message: not this room" in text


async def test_why_of_an_unknown_decision_exits_1(run, service):
    service.script.append(refusal("NOT_FOUND", "DECISION_NOT_FOUND"))
    assert (await run("why", "dec-9")).exit_code == 1


async def test_verify_token_reads_a_file_or_stdin_and_never_prints_the_token(run, service, tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\r\n")
    result = await run("verify-token", "--token-file", tmp_path / "token", "--json")
    assert json.loads(result.stdout)["identity"] == "ada"
    assert TOKEN not in result.output
    assert (await run("verify-token", "--token-file", "-", stdin=f"{TOKEN}\n")).exit_code == 0
    assert [request.token for request in service.requests] == [TOKEN, TOKEN]


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("PERMISSION_DENIED", 1),
        ("UNAUTHENTICATED", 1),
        ("RESOURCE_EXHAUSTED", 1),
        ("FAILED_PRECONDITION", 1),
        ("INVALID_ARGUMENT", 1),
        ("NOT_FOUND", 1),
        ("INTERNAL", 3),
        ("UNIMPLEMENTED", 3),
    ],
)
async def test_exit_code_distinguishes_a_refusal_from_no_response(run, service, code, exit_code):
    service.script.append(refusal(code))
    result = await run("whoami")
    assert result.exit_code == exit_code
    assert result.stdout == ""
    assert code in result.stderr


async def test_json_option_prints_errors_as_json_on_stdout(run, service):
    service.script.append(
        refusal(
            "PERMISSION_DENIED",
            "TTL_NOT_PERMITTED",
            "the ttl is too long",
            metadata={"decision_id": "dec-9", "max_ttl_seconds": "60"},
            violations={"ttl": "too long"},
        )
    )
    result = await run("token", "--role", "guest", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "error": {
            "code": "PERMISSION_DENIED",
            "reason": "TTL_NOT_PERMITTED",
            "message": "the ttl is too long",
            "decision_id": "dec-9",
            "metadata": {"decision_id": "dec-9", "max_ttl_seconds": "60"},
            "violations": [{"field": "ttl", "description": "too long"}],
            "retry_after": None,
            "cause": None,
        }
    }


async def test_error_text_says_what_to_do_next(run, service):
    service.script.append(refusal("PERMISSION_DENIED", "ROLE_NOT_PERMITTED", "no [b]role[/b] \x1b[31m"))
    result = await run("token", "--role", "guest")
    assert "no [b]role[/b] \\x1b[31m" in result.stderr
    assert "livekit-auth whoami" in result.stderr
    service.script.append(refusal("PERMISSION_DENIED", "ROLE_NOT_PERMITTED", metadata={"decision_id": "dec-9"}))
    assert "livekit-auth why dec-9" in (await run("token", "--role", "guest")).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("token",),
        ("token", "--role", "guest", "--grants-file", "-"),
        ("token", "--role", "guest", "--ttl", "soon"),
        ("token", "--role", "guest", "--attribute", "novalue"),
        ("token", "--grants-file", "/nowhere/grants.json"),
        ("token", "--grants-file", "/dev/null"),
        ("token", "--unknown"),
        ("webhook", "--body-file", "/nowhere/body", "--authorization-file", "/dev/null"),
        ("verify-token", "--token-file", "/nowhere/token"),
        ("verify-token",),
        ("whoami", "--cert", "/nowhere/client.pem"),
        ("whoami", "--address", "https://host:1"),
        ("whoami", "--timeout", "0"),
        ("why",),
        ("nonsense",),
    ],
)
async def test_usage_error_exits_2_and_makes_no_call(run, service, arguments):
    result = await run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr != ""
    assert service.requests == []


async def test_json_option_prints_own_usage_errors_as_json(run):
    result = await run("whoami", "--cert", "/nowhere/client.pem", "--json")
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "MISUSE"
    assert "can't read /nowhere/client.pem" in error["message"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("token", "--unknown", "--json"),
        ("--json", "token"),
        ("token", "--json"),
        ("token", "--role", "guest", "--json", "--ttl", "10"),
        ("token", "--role", "guest", "--timeout", "soon", "--json"),
        ("webhook", "--json"),
        ("verify-token", "--token-file", "/nowhere/token", "--json"),
        ("nonsense", "--json"),
        ("whoami", "--json", "more"),
        ("whoami", "--json=1"),
    ],
)
async def test_json_option_prints_each_usage_error_as_one_object(run, service, arguments):
    result = await run(*arguments)
    assert result.exit_code == 2
    if "--json" in arguments:
        error = json.loads(result.stdout)["error"]
        assert (error["code"], result.stderr) == ("MISUSE", "")
        assert error["message"]
    assert service.requests == []


async def test_json_option_after_two_dashes_is_the_workers(run):
    result = await run("agent-proxy", "--unknown", "--", "worker", "--json")
    assert (result.exit_code, result.stdout) == (2, "")


async def test_duration_without_a_unit_is_refused(run):
    result = await run("token", "--role", "guest", "--ttl", "10")
    assert result.exit_code == 2
    assert "write 10s or 10m" in result.stderr


@pytest.mark.parametrize(
    "command", [(), ("token",), ("webhook",), ("verify-token",), ("whoami",), ("why",), ("agent-proxy",)]
)
async def test_both_help_options_show_the_same_examples(run, command):
    short, long = await run(*command, "-h"), await run(*command, "--help")
    assert (short.exit_code, short.stdout) == (0, long.stdout)
    example = " ".join(("livekit-auth", *(command or ("whoami",))))
    assert re.search(rf"^    (TOKEN=\$\()?{example}\b", short.stdout, re.MULTILINE)
    assert not re.search(
        r"--no-(?!ack)|<bool>|--(json|validate-only|no-ack|allow-simulation|version) [A-Z]", short.stdout
    )


STEERING = "\x1b[31m\x07\u202e\x9b2J\r\n"


async def test_no_control_characters_are_printed(run, service, tmp_path):
    said = refusal(
        "PERMISSION_DENIED", f"A{STEERING}", STEERING, metadata={STEERING: STEERING}, violations={STEERING: STEERING}
    )
    service.script.append(said)
    service.url = f"wss://{STEERING}"
    results = [
        await run("token", "--role", "guest"),
        await run("token", "--role", "guest"),
        await run("token", f"--{STEERING}"),
        await run(f"no{STEERING}"),
        await run("token", "--role", "guest", "--attribute", STEERING),
        await run("verify-token", "--token-file", f"/nowhere/{STEERING}"),
        await run("whoami", "--cert", f"/nowhere/{STEERING}"),
        await run("whoami", "--address", f"auth{STEERING}"),
    ]
    assert [result.exit_code for result in results] == [1, 0, 2, 2, 2, 2, 2, 2]
    for result in results:
        assert all(c.isprintable() or c == "\n" for c in result.output), repr(result.output)


async def program(*arguments, stdout=PIPE, stderr=PIPE, **variables):
    command = [sys.executable, "-m", "livekit_auth.cli", *arguments]
    env = {**os.environ, **variables}
    process = await asyncio.create_subprocess_exec(*command, stdout=stdout, stderr=stderr, env=env)
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, (output or b"").decode(), (errors or b"").decode()


async def installed(*arguments, **variables):
    """Runs the program by its installed name, which is what a shell completes."""
    command = [Path(sys.executable).with_name("livekit-auth"), *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, env={**os.environ, **variables})
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, output.decode(), errors.decode()


def open_full():
    return Path("/dev/full").open("wb")


NOT_WRITTEN = "livekit-auth: the output can't be written: "


@pytest.mark.parametrize(
    "arguments", [("token", "--role", "guest"), ("whoami", "--json"), ("token", "--json"), ("-h",)]
)
async def test_full_disk_is_not_a_refusal(environment, arguments):
    with open_full() as full:
        code, _, stderr = await program(*arguments, stdout=full)
    assert code == 4
    assert stderr.splitlines()[-1] == f"{NOT_WRITTEN}No space left on device"
    assert "Traceback" not in stderr
    assert "Exception ignored" not in stderr


@pytest.mark.parametrize("arguments", [("whoami",), ("whoami", "--json"), ("token", "--help")])
async def test_closed_pipe_is_not_a_refusal(environment, arguments):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        code, _, stderr = await program(*arguments, stdout=writer)
    finally:
        os.close(writer)
    assert (code, stderr) == (4, f"{NOT_WRITTEN}closed pipe\n")


async def test_unwritable_error_shows_in_the_exit_code(environment, service):
    service.script.append(refusal("PERMISSION_DENIED"))
    with open_full() as full:
        assert (await program("whoami", stderr=full))[0] == 4


async def test_unencodable_characters_are_escaped(environment, service):
    service.script.append(refusal("PERMISSION_DENIED", message="não"))
    code, _, stderr = await program("whoami", PYTHONIOENCODING="ascii")
    assert code == 1
    assert "n\\xe3o" in stderr


async def test_shell_completion_works(environment):
    asked = {"_LIVEKIT_AUTH_COMPLETE": "complete_bash", "COMP_WORDS": "livekit-auth tok", "COMP_CWORD": "1"}
    code, stdout, stderr = await installed(**asked)
    assert (code, stdout.split(), stderr) == (0, ["token"], "")


async def test_installed_program_runs(environment):
    code, stdout, stderr = await program("whoami", "--json")
    assert (code, stderr) == (0, "")
    assert json.loads(stdout)["listed"]


async def test_untrusted_server_exits_3_and_says_what_to_do(environment, tmp_path):
    (tmp_path / "other.pem").write_bytes(Authority.create("another CA").leaf_pem)
    code, stdout, stderr = await program("whoami", "--ca", str(tmp_path / "other.pem"), "--timeout", "2")
    assert (code, stdout) == (3, "")
    assert stderr.startswith(f"error: the server's certificate isn't signed by a CA in {tmp_path / 'other.pem'}")
    assert stderr.splitlines()[1:] == ["  code: UNAVAILABLE", "  cause: server_not_trusted"]


async def test_unreachable_server_exits_3(environment):
    code, stdout, _stderr = await program("whoami", "--address", "localhost:9", "--timeout", "2", "--json")
    assert code == 3
    error = json.loads(stdout)["error"]
    assert (error["code"], error["cause"]) == ("UNAVAILABLE", "refused")


async def test_decision_id_is_shown_once(run, service):
    service.script.append(
        refusal(
            "PERMISSION_DENIED", "TTL_NOT_PERMITTED", "no", metadata={"decision_id": "dec-9", "max_ttl_seconds": "60"}
        )
    )
    result = await run("token", "--role", "guest")
    assert result.stderr.count("decision_id: dec-9") == 1
    assert result.stderr.count("dec-9") == 2  # and in the hint
    assert "max_ttl_seconds: 60" in result.stderr


async def test_revoked_caller_is_told_whom_to_ask(run, service):
    service.script.append(refusal("UNAUTHENTICATED", "CERTIFICATE_REVOKED", "revoked"))
    result = await run("whoami")
    assert result.exit_code == 1
    assert "deny-list" in result.stderr


async def test_version_needs_no_settings(run):
    result = await run("--version")
    assert (result.exit_code, result.stdout) == (0, f"livekit-auth {version('livekit-auth')}\n")
