"""The commands. Each makes one or two calls, shows the result and exits with a code for scripts."""

from __future__ import annotations

import sys
from dataclasses import fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated

import typer
from google.protobuf import json_format

from livekit_auth._cli import options, output
from livekit_auth._cli.agent_proxy import agent_proxy
from livekit_auth._cli.options import Address, Ca, Cert, Connect, Json, Key, Project, Timeout, examples
from livekit_auth._cli.program import Program
from livekit_auth._connection.config import DEFAULT_TIMEOUT
from livekit_auth._messages.requests import TokenRequest
from livekit_auth.v1.grants_pb2 import Grants

if TYPE_CHECKING:
    from livekit_auth._messages.permissions import AllowEntry

app = typer.Typer(
    name="livekit-auth",
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain-text help, in which examples keep their line breaks
)
app.command(epilog=examples("livekit-auth agent-proxy --role agent-worker -- node agent.js start"))(agent_proxy)


def _print_version(requested: bool) -> None:  # noqa: FBT001 - as typer calls it
    if requested:
        output.write(f"livekit-auth {version('livekit-auth')}\n", sys.stdout)
        raise typer.Exit


@app.callback(
    epilog=examples(
        "export LIVEKIT_AUTH_ADDRESS=auth.example.org:8443",
        "export LIVEKIT_AUTH_CA=ca.pem LIVEKIT_AUTH_CERT=client.pem LIVEKIT_AUTH_KEY=client.key",
        "livekit-auth whoami",
        title="Set the server and the client certificate:",
    )
    + "\n\n"
    + examples(
        "0  success",
        "1  refused by the server",
        "2  usage error: options, files or settings",
        "3  no response from the server",
        "4  the output can't be written",
        title="Exit codes:",
    )
)
def root(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """LiveKit access tokens and webhook checks from a livekit-auth server."""


@app.command(
    epilog=examples(
        "livekit-auth token --role guest --room consult-42 --identity user-7 --ttl 10m",
        "TOKEN=$(livekit-auth token --role guest --room consult-42 --identity user-7)",
        "livekit-auth token --role guest --room consult-42 --identity user-7 --validate-only",
    )
)
def token(  # noqa: PLR0913 - the command's options
    *,
    role: Annotated[str | None, typer.Option(metavar="NAME", help="A role of the policy; or --grants-file.")] = None,
    grants_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="The grants in JSON, as in grants.proto; - for stdin.")
    ] = None,
    room: Annotated[str, typer.Option(metavar="NAME", help="The room to join.")] = "",
    identity: Annotated[str, typer.Option(metavar="ID", help="The participant's identity.")] = "",
    name: Annotated[str, typer.Option(metavar="TEXT", help="The participant's display name.")] = "",
    metadata: Annotated[str, typer.Option(metavar="TEXT", help="The participant's metadata.")] = "",
    attribute: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="One of the participant's attributes; repeatable.")
    ] = None,
    ttl: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Such as 90s, 5m, 1h30m; by default that of the policy.")
    ] = None,
    validate_only: Annotated[bool, typer.Option("--validate-only", help="Check everything, issue no token.")] = False,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Such as a ticket, for the server's audit trail.")] = "",
    project: Project = "",
    address: Address = None,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """Issue a token and print it. No other command prints a whole token."""
    with output.errors_shown(as_json=as_json):
        if (role is None) == (grants_file is None):
            raise typer.BadParameter("give either --role or --grants-file")
        request = TokenRequest(
            role=role,
            grants=_grants(grants_file) if grants_file is not None else None,
            room=room,
            identity=identity,
            name=name,
            metadata=metadata,
            attributes=options.attributes(attribute or []),
            ttl=options.duration(ttl) if ttl is not None else None,
            validate_only=validate_only,
            project=project,
            request_reason=reason,
        )
        with Connect(address, ca, cert, key, timeout).client() as client:
            issued = client.issue(request)
        title = "Permitted; no token issued" if validate_only else "Issued"
        output.show_token(issued.token, title, _fields(issued, without="token"), as_json=as_json)


@app.command(
    epilog=examples(
        "livekit-auth webhook --body-file body.json --authorization-file header.txt --no-ack",
    )
)
def webhook(  # noqa: PLR0913 - the command's options
    *,
    body_file: Annotated[str, typer.Option(metavar="FILE", help="The request's body, byte for byte; - for stdin.")],
    authorization_file: Annotated[str, typer.Option(metavar="FILE", help="The Authorization header's value.")],
    no_ack: Annotated[bool, typer.Option("--no-ack", help="Don't record it as handled.")] = False,
    project: Project = "",
    address: Address = None,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """Verify that LiveKit signed a webhook, and record it as handled: a redelivery is then a duplicate."""
    with output.errors_shown(as_json=as_json):
        body = options.read_bytes(body_file, "--body-file")
        authorization = options.read_line(authorization_file, "--authorization-file")
        with Connect(address, ca, cert, key, timeout).client() as client:
            event = client.verify_webhook(body, authorization, project)
            acked_until = None if no_ack else client.ack_webhook(event)
        shown = {
            **_fields(event, without="body"),
            "acknowledged": acked_until is not None,
            "acknowledged_until": acked_until,
        }
        output.show("LiveKit signed this webhook", shown, as_json=as_json)


@app.command(
    epilog=examples(
        "livekit-auth verify-token --token-file token.txt",
        "livekit-auth verify-token --token-file - --json < token.txt",
    )
)
def verify_token(  # noqa: PLR0913 - the command's options
    *,
    token_file: Annotated[str, typer.Option(metavar="FILE", help="The token; - for stdin.")],
    address: Address = None,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """Verify a LiveKit access token and show what it permits."""
    with output.errors_shown(as_json=as_json):
        text = options.read_line(token_file, "--token-file")
        with Connect(address, ca, cert, key, timeout).client() as client:
            verified = client.verify_token(text)
        output.show("The token is valid", _fields(verified), as_json=as_json)


@app.command(
    epilog=examples(
        "livekit-auth whoami --json",
    )
)
def whoami(  # noqa: PLR0913 - the command's options
    *,
    address: Address = None,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """Show how the server identifies this caller, and what the policy permits."""
    with output.errors_shown(as_json=as_json):
        with Connect(address, ca, cert, key, timeout).client() as client:
            caller = client.get_caller()
            entries = client.list_permissions() if caller.listed else []
            projects = client.list_projects() if caller.listed else []
        title = "The policy lists this caller" if caller.listed else "The policy doesn't list this caller"
        shown = {
            **_fields(caller),
            "permissions": [*map(_entry_fields, entries)],
            "projects": [*map(_fields, projects)],
        }
        output.show(title, shown, as_json=as_json)


@app.command(
    epilog=examples(
        "livekit-auth why 2f7d0c9e5b1a4f38",
    )
)
def why(  # noqa: PLR0913 - the command's options
    *,
    decision_id: Annotated[str, typer.Argument(metavar="DECISION_ID", help="The decision_id of the error.")],
    address: Address = None,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """Explain a recent denial: what each policy entry lacked."""
    with output.errors_shown(as_json=as_json):
        with Connect(address, ca, cert, key, timeout).client() as client:
            decision = client.get_decision(decision_id)
        shortfalls = [{s.entry: [_fields(lack) for lack in s.lacks]} for s in decision.shortfalls]
        output.show("Denied", {**_fields(decision), "shortfalls": shortfalls}, as_json=as_json)


def _grants(path: str) -> Grants:
    try:
        return json_format.Parse(options.read_bytes(path, "--grants-file"), Grants())
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} isn't grants in JSON: {error}", param_hint="--grants-file") from None


def _fields(result: object, *, without: str = "") -> dict[str, object]:
    return {f.name: getattr(result, f.name) for f in fields(result) if f.name != without}  # type: ignore[arg-type]


def _entry_fields(entry: AllowEntry) -> dict[str, object]:
    """The fields of an entry: matchers as text, such as "exact:lobby", and the grants of roles by name."""
    roles = {role.name: role.grants for role in entry.roles}
    return {
        **_fields(entry),
        "roles": roles,
        "rooms": [*map(str, entry.rooms)],
        "identities": [*map(str, entry.identities)],
    }
