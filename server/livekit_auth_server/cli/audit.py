"""`livekit-auth-server audit …`: verify, search and follow the audit trail's files."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from livekit_auth_server.cli.terminal import REFUSED, App, Json, err, out, print_json
from livekit_auth_server.core.chain import Head, read
from livekit_auth_server.files.read import read_bytes

if TYPE_CHECKING:
    from livekit_auth_server.audit.reading import Finding

app = App(help="Check, search and follow the audit trail's files.", no_args_is_help=True)

Paths = Annotated[list[Path], typer.Argument(help="Audit files, rotated ones too, or folders of them, in any order.")]


@app.command(examples=("livekit-auth-server audit verify ./audit --head 81f0c2b3a4d5e6f7:120931:9b5e…",))
def verify(
    paths: Paths,
    head: Annotated[
        list[str] | None, typer.Option(help='A head from the log, CHAIN:SEQUENCE:SHA256 ("audit head"); repeatable.')
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify that the files are as they were written. Exit code 1: lines were altered, removed or added."""
    from livekit_auth_server.audit.verify import verify_files

    heads = _heads(head or [])
    verdict = verify_files(paths, heads)
    if as_json:
        chains = [{**asdict(chain), "head": str(chain.head)} for chain in verdict.chains]
        findings = {name: [asdict(one) for one in getattr(verdict, name)] for name in ("problems", "notes")}
        print_json({"fine": not verdict.problems, "chains": chains, **findings})
    else:
        for chain in verdict.chains:
            lines = f"lines {chain.first} to {chain.head.sequence}" if chain.head else "no lines"
            out.print(f"chain {chain.chain}: {lines}, {len(chain.files)} file(s); head {chain.head}", markup=False)
        for note in verdict.notes:
            out.print(f"note: {_placed(note)}", markup=False)
        for problem in verdict.problems:
            err.print(f"PROBLEM {_placed(problem)}", markup=False, style="red")
        if verdict.problems:
            out.print(f"Verification failed: {len(verdict.problems)} problem(s), see above.")
        else:
            out.print(f"Every line follows from the one before it. {_limits(heads)}", markup=False)
    if verdict.problems:
        raise typer.Exit(REFUSED)


@app.command(examples=("livekit-auth-server audit tail ./audit --follow",))
def tail(
    path: Annotated[Path, typer.Argument(help="An audit file, or the folder with the workers' files.")],
    count: Annotated[int, typer.Option("-n", min=0, help="How many of the last lines of each file.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines, through rotation.")] = False,
    as_json: Json = False,
) -> None:
    """Show the last lines that verify, readable or as they are (--json), and new ones as they come."""
    from livekit_auth_server.audit.reading import live, trail_files
    from livekit_auth_server.audit.tail import followed, last_verified

    files = trail_files([path])
    if path.is_dir():
        files = [file for file in files if live(file)]
    if follow:
        lines = followed(files, count, _say_left_out)
    else:
        lines = (line for file in files for line in last_verified(file, count, _say_left_out))
    with contextlib.suppress(KeyboardInterrupt):
        for line in lines:
            checked = read(line)
            text = line.decode("ascii", "backslashreplace") if as_json or checked is None else shown(checked.fields)
            sys.stdout.write(_printable(text) + "\n")
            sys.stdout.flush()


def _say_left_out(finding: Finding) -> None:
    err.print(f"left out: {_placed(finding)}", markup=False, style="red")


@app.command(
    examples=(
        "livekit-auth-server audit query ./audit --decision b456d2cd521e1ff5a0c54269",
        "livekit-auth-server audit query ./audit --caller spiffe://example.org/web --denied --since 2h",
        "livekit-auth-server audit query ./audit --token-file found.jwt",
    )
)
def query(
    paths: Paths,
    caller: Annotated[str | None, typer.Option(help="Who asked.")] = None,
    room: Annotated[str | None, typer.Option(help="The room asked for.")] = None,
    identity: Annotated[str | None, typer.Option(help="The participant's identity asked for.")] = None,
    decision: Annotated[str | None, typer.Option(help="The decision's id, as an error or an answer has it.")] = None,
    key: Annotated[str | None, typer.Option(help="The API key that signed.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help='A file with a token, "-" for stdin: who got it? Only its SHA-256 is used.')
    ] = None,
    request_reason: Annotated[str | None, typer.Option(help="What the caller said was behind its request.")] = None,
    since: Annotated[str | None, typer.Option(help='ISO 8601, or how long ago: "2h30m".')] = None,
    until: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    denied: Annotated[bool, typer.Option("--denied", help="Denials alone.")] = False,
    as_json: Json = False,
) -> None:
    """Show decisions by who, what, when or token, of lines that verify.

    Exit code 0 whether or not one matches; when none does, stderr says so.
    """
    from livekit_auth_server.audit.query import LeftOut, Wanted, search

    wanted = Wanted(
        caller=caller,
        room=room,
        identity=identity,
        decision=decision,
        key=key,
        token_sha256=_digest(token_file) if token_file is not None else None,
        request_reason=request_reason,
        since=_time(since, "--since") if since is not None else None,
        until=_time(until, "--until") if until is not None else None,
        denied=denied,
    )
    left = LeftOut()
    found = search(paths, wanted, left)
    for finding in left.findings():
        _say_left_out(finding)
    if as_json:
        print_json({"records": found, "left_out": [asdict(finding) for finding in left.findings()]})
        return
    for fields in found:
        sys.stdout.write(shown(fields) + "\n")
    if not found:
        counted = "Denials beyond 10 per second are counted together: look for caller and time, with --denied."
        err.print("No decision matches." + f" {counted}" * (decision is not None))


def shown(fields: dict[str, Any]) -> str:
    """A line of the trail for people: in one line, without what a terminal would act on."""
    when = dt.datetime.fromtimestamp(int(fields.get("time", 0)), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    kind = fields.get("kind")
    rest = {
        name: value for name, value in fields.items() if name not in _UNSHOWN and value not in ("", None, [], False)
    }
    if kind == "decision":
        verdict = "DENY" if not fields.get("permitted") else "dry-run" if fields.get("dry_run") else "permit"
    else:
        verdict = str(kind)
    members = " ".join(f"{name}={_value(value)}" for name, value in rest.items())
    return _printable(f"{when} {verdict:<8} {members}")


_UNSHOWN = {"chain", "seq", "prev", "kind", "time", "permitted", "dry_run"}


def _value(value: object) -> str:
    if isinstance(value, str) and value.isprintable() and value.isascii() and " " not in value and '"' not in value:
        return value
    return json.dumps(value)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() and char.isascii() else ascii(char)[1:-1] for char in text)


def _placed(finding: Finding) -> str:
    place = f"{finding.file}:{finding.line}" if finding.line else finding.file
    return _printable(f"{place}: {finding.what}" if place else finding.what)


def _limits(heads: list[Head]) -> str:
    if not heads:
        return (
            "Without --head, lines removed from the end and a completely rewritten chain aren't detected: pass a head"
            ' from the log ("audit head").'
        )
    ends = ", ".join(f"line {head.sequence} of chain {head.chain}" for head in heads)
    return f"Changes after {ends} can't be detected: anyone who can write the files could have made them."


def _heads(texts: list[str]) -> list[Head]:
    try:
        return [Head.parse(text) for text in texts]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--head") from None


def _digest(path: Path) -> str:
    content = sys.stdin.buffer.read() if str(path) == "-" else read_bytes(path)
    return hashlib.sha256(content.strip()).hexdigest()


def _time(text: str, option: str) -> float:
    from livekit_auth_server.policy.models import seconds

    with contextlib.suppress(ValueError):
        return time.time() - seconds(text)
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        message = (
            'should be a time such as "2027-01-31T12:00:00Z" (UTC without a zone) or how long ago, such as "2h30m"'
        )
        raise typer.BadParameter(message, param_hint=option) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
