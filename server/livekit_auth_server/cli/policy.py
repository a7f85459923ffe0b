"""`livekit-auth-server policy …`: check, explain, test and compare policy files offline."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from livekit_auth_server.cli.terminal import REFUSED, App, Json, Strict, end_with, err, out, print_json

if TYPE_CHECKING:
    from livekit_auth_server.core.policy import Policy

app = App(help="Check, explain, test and compare policy files, offline.", no_args_is_help=True)

PolicyPath = Annotated[Path, typer.Argument(help="The policy file.")]
Config = Annotated[
    Path | None, typer.Option(help="The server's settings file: then the projects it configures must fit.")
]


@app.command(examples=("livekit-auth-server policy check policy.yaml --config server.yaml",))
def check(policy: PolicyPath, config: Config = None, strict: Strict = False, as_json: Json = False) -> None:
    """Say whether a policy loads, and what it holds; warn of what is probably not meant."""
    from livekit_auth_server.policy.doubts import of_policy
    from livekit_auth_server.policy.explain import summary

    loaded = _load(policy, config)
    warnings, roles, callers = list(of_policy(loaded, policy)), sorted(loaded.roles), sorted(loaded.callers)
    if as_json:
        print_json({"revision": loaded.revision, "roles": roles, "callers": callers, "warnings": warnings})
    else:
        found = f"Revision {loaded.revision}, {len(roles)} roles, {len(callers)} callers."
        out.print(f"{policy}: fine. {found}", markup=False)
        for caller in loaded.callers.values():
            out.print(f"  {summary(caller)}", markup=False)
    end_with(warnings, strict=strict, as_json=as_json)


@app.command(
    examples=(
        "livekit-auth-server policy explain policy.yaml --caller spiffe://example.org/web --role guest --room board-1",
    )
)
def explain(
    policy: PolicyPath,
    caller: Annotated[str, typer.Option(help="The workload identity: spiffe://… or dns:….")],
    role: Annotated[str | None, typer.Option(help="The role asked for.")] = None,
    grants: Annotated[str | None, typer.Option(help="Grants asked for, as JSON of livekit_auth.v1.Grants.")] = None,
    room: Annotated[str | None, typer.Option(help="The room.")] = None,
    identity: Annotated[str | None, typer.Option(help="The participant's identity.")] = None,
    ttl: Annotated[str | None, typer.Option(help='The lifetime, such as "10m".')] = None,
    project: Annotated[str | None, typer.Option(help="The project.")] = None,
    kind: Annotated[str | None, typer.Option(help="The kind of participant, such as agent.")] = None,
    room_preset: Annotated[str | None, typer.Option(help="The room preset.")] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Say what the policy decides about a request: the entry that permits it, or what each entry lacks."""
    from livekit_auth_server.policy import explain as policy_tools

    fields = {
        "role": role,
        "grants": _json_object(grants) if grants is not None else None,
        "room": room,
        "identity": identity,
        "ttl": ttl,
        "project": project,
        "kind": kind,
        "room_preset": room_preset,
    }
    try:
        request = policy_tools.request_from(fields)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    got = policy_tools.explain(_load(policy, config), caller, request)
    if as_json:
        lacked = {entry: list(lacks) for entry, lacks in got.lacked}
        permits = {entry: asdict(permitted) for entry, permitted in got.permits}
        print_json({**asdict(got), "lacked": lacked, "permits": permits})
    elif got.permitted:
        out.print(f"permitted by {got.entry} in project {got.project}, for {got.ttl_seconds} s", markup=False)
    else:
        out.print(f"denied: {got.reason}: {got.message}", markup=False)
        for entry, lacks in got.lacked:
            out.print(f"  {entry} lacks: {'; '.join(lacks)}", markup=False)
    if not got.permitted:
        raise typer.Exit(REFUSED)


@app.command(examples=("livekit-auth-server policy test candidate.yaml --expect policy.test.yaml",))
def test(
    policy: PolicyPath,
    expect: Annotated[Path | None, typer.Option(help="The expectations. Default: NAME.test.yaml beside it.")] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Run the expectations that are kept beside a policy."""
    from livekit_auth_server.policy import explain as policy_tools

    path = expect or policy_tools.expectations_path(policy)
    results = policy_tools.run_expectations(_load(policy, config), path)
    failed = [result for result in results if result.problem]
    if as_json:
        print_json({"passed": len(results) - len(failed), "failed": [asdict(result) for result in failed]})
    else:
        for result in failed:
            err.print(f"FAILED {result.name}: {result.problem}", markup=False, style="red")
        out.print(f"{len(results) - len(failed)} of {len(results)} expectations met")
    if failed:
        raise typer.Exit(REFUSED)


@app.command(examples=("livekit-auth-server policy diff policy.yaml candidate.yaml",))
def diff(
    old: Annotated[Path, typer.Argument(help="The policy file as it was.")],
    new: Annotated[Path, typer.Argument(help="The policy file as it will be.")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Say what each caller gains, loses and has differently. Exits with 0 when nothing changes, with 1 otherwise.

    What decides is compared, not what is written: an edited role shows at each caller that may use it, and entries in
    another order only where that changes which one decides.
    """
    from livekit_auth_server.policy import diff as policy_diff
    from livekit_auth_server.policy.policy_file import load_policies

    before, after = load_policies([old, new], _projects(config))
    found = policy_diff.diff(before, after)
    if as_json:
        revisions = {"old_revision": before.revision, "new_revision": after.revision}
        print_json({"equal": not found, **revisions, "callers": [asdict(caller) for caller in found]})
    else:
        for caller in found:
            out.print(f"{caller.caller}{'' if caller.kind == 'changed' else f' ({caller.kind})'}", markup=False)
            for change in caller.changes:
                out.print(f"  {change}", markup=False)
        out.print(_totals([caller.kind for caller in found]))
    if found:
        raise typer.Exit(REFUSED)


@app.command(examples=("livekit-auth-server policy schema > policy.schema.json",))
def schema() -> None:
    """Print the JSON Schema of policy files, for editors."""
    from livekit_auth_server.policy.schema import schema_text

    sys.stdout.write(schema_text())


def _totals(kinds: list[str]) -> str:
    if not kinds:
        return "No caller gains, loses or has anything differently."
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("added", "removed", "changed")) + "."


def _load(policy: Path, config: Path | None) -> Policy:
    from livekit_auth_server.policy.policy_file import load_policy

    return load_policy(policy, _projects(config))


def _projects(config: Path | None) -> frozenset[str] | None:
    from livekit_auth_server.config.settings import load_settings

    return frozenset(load_settings(config).projects) if config else None


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        raise typer.BadParameter("--grants isn't JSON") from None
    if not isinstance(value, dict):
        raise typer.BadParameter("--grants isn't a JSON object")
    return value
