"""The lifecycle of keys: what each command changes, and what it refuses."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from livekit_auth_server.cli.app import app
from livekit_auth_server.core.keys import KeyState, Secret
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.keys import lifecycle
from livekit_auth_server.keys.edited_file import RefusedError
from livekit_auth_server.keys.keys_file import keys_from_file
from livekit_auth_server.keys.text_edits import KeyText

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOW = 1_800_000_000  # 2027-01-15T08:00:00Z
SECRETS = {name: f"{name}-" + "q7Zk2VxW9bTnR4mY8cLd1HfJ5sGp" for name in ("APIone", "APItwo", "APIthree", "APInew")}
LIVEKIT_FORM = "".join(f"{name}: {SECRETS[name]}\n" for name in ("APIone", "APItwo"))


def key_file(folder: Path, *keys: str, text: str = "") -> Path:
    """A file with keys such as "APIone active", or "APItwo verify-only, not_after: …"."""
    lines = []
    for key in keys:
        name, _, rest = key.partition(" ")
        lines.append(f"  - {{id: {name}, secret: {SECRETS[name]}, state: {rest}}}\n")
    path = folder / "keys.yaml"
    path.touch(mode=0o600)
    path.write_text(text or ("keys:\n" + "".join(lines) if lines else "keys: []\n"))
    return path


def states(path: Path) -> dict[str, str]:
    return {key.id: str(key.state) for key in keys_from_file(path)}


def refused(path: Path, call: Callable[[], object]) -> str:
    """The words of a refusal, which leaves the file as it is."""
    before = path.read_bytes()
    with pytest.raises(RefusedError) as caught:
        call()
    assert path.read_bytes() == before
    return str(caught.value)


def new(path: Path, key_id: str = "APInew", **options: Any) -> lifecycle.NewKey:
    given = "secret" in options
    return lifecycle.NewKey(key_id, export=None if given else path.with_name(f"{key_id}.export"), **options)


# Adding


def test_a_new_key_verifies_and_doesnt_sign(tmp_path: Path) -> None:
    path = key_file(tmp_path, "APIone active")
    change = lifecycle.add(path, new(path), NOW)
    assert states(path) == {"APIone": "active", "APInew": "verify-only"}
    assert [(key.id, key.does) for key in change.keys] == [("APIone", "signs"), ("APInew", "verifies")]


def test_a_secret_that_is_made_is_exported_in_livekits_own_form_for_the_owner_alone(tmp_path: Path) -> None:
    path = key_file(tmp_path, "APIone active")
    lifecycle.add(path, new(path), NOW)
    export = tmp_path / "APInew.export"
    assert export.stat().st_mode & 0o777 == 0o600
    (exported,) = keys_from_file(export)
    made = keys_from_file(path)[1]
    assert (exported.id, len(exported.secret)) == ("APInew", 43)
    assert made.secret.fits(b"message", exported.secret.sign(b"message"))


def test_no_two_secrets_and_no_two_ids_are_made_alike(tmp_path: Path) -> None:
    path = key_file(tmp_path, "APIone active")
    ids = [lifecycle.new_id() for _ in range(20)]
    for key_id in ids:
        lifecycle.add(path, new(path, key_id), NOW)
    signed = {key.secret.sign(b"") for key in keys_from_file(path)}
    assert len(signed) == len(set(ids)) + 1 == 21


def test_an_export_overwrites_nothing_and_the_key_isnt_added_then(tmp_path: Path) -> None:
    path = key_file(tmp_path, "APIone active")
    export, before = tmp_path / "APInew.export", path.read_bytes()
    export.write_text("precious")
    with pytest.raises(ConfigError, match="is there already, and nothing is overwritten"):
        lifecycle.add(path, new(path), NOW)
    export.unlink()
    export.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is there already"):
        lifecycle.add(path, new(path), NOW)
    assert not (tmp_path / "elsewhere").exists()
    assert path.read_bytes() == before


def test_an_export_is_taken_back_when_the_key_file_cant_be_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = key_file(tmp_path, "APIone active")
    monkeypatch.setattr("livekit_auth_server.files.private_file.PrivateFile._write", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        lifecycle.add(path, new(path), NOW)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["keys.yaml"]


@pytest.mark.parametrize("error", [OSError(22, "Invalid argument"), KeyboardInterrupt()])
def test_an_export_stays_when_the_key_file_has_its_key_although_the_command_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """The file is in its place, and its folder can't be brought to the disk, or somebody presses Ctrl-C just then."""
    synced: list[Path] = []

    def fails(folder: Path) -> None:
        synced.append(folder)
        if len(synced) == 2:  # the first is the export's
            raise error

    path = key_file(tmp_path, "APIone active")
    monkeypatch.setattr("livekit_auth_server.files.private_file._sync_folder", fails)
    key = new(path)
    with pytest.raises((ConfigError, KeyboardInterrupt)) as caught:
        lifecycle.add(path, key, NOW)
    assert len(synced) == 2
    assert key.export is not None
    secret = key.export.read_text().split(": ")[1].strip()
    assert secret in path.read_text()
    if caught.type is ConfigError:
        assert "was changed" in str(caught.value)
        assert secret not in str(caught.value)


def test_an_export_in_the_place_of_the_next_key_file_is_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path, "APIone active")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="choose another name"):
        lifecycle.add(path, replace(new(path), export=tmp_path / f".{path.name}.new"), NOW)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["keys.yaml"]


def test_a_key_that_is_added_active_signs_and_the_others_verify(tmp_path: Path) -> None:
    path = key_file(tmp_path, "APIone active", "APItwo active")
    change = lifecycle.add(path, new(path, active=True), NOW)
    assert states(path) == {"APIone": "verify-only", "APItwo": "verify-only", "APInew": "active"}
    assert [key.does for key in change.keys] == ["verifies", "verifies", "signs"]


def test_the_first_key_of_a_file_may_be_one_that_only_verifies(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    lifecycle.add(path, new(path, "APIone"), NOW)
    assert states(path) == {"APIone": "verify-only"}
    assert "no key of the file could sign then" in refused(path, lambda: lifecycle.add(path, new(path), NOW))
    lifecycle.add(path, new(path, active=True), NOW)
    assert states(path) == {"APIone": "verify-only", "APInew": "active"}


def test_times_are_written_as_they_were_given(tmp_path: Path) -> None:
    path = key_file(tmp_path, "APIone active")
    start, end = dt.datetime(2027, 1, 1, tzinfo=dt.UTC), dt.datetime(2028, 1, 1, 12, tzinfo=dt.UTC)
    lifecycle.add(path, new(path, not_before=start, not_after=end), NOW)
    key = keys_from_file(path)[1]
    assert (key.not_before, key.not_after) == (int(start.timestamp()), int(end.timestamp()))
    never = new(path, "APItwo", not_before=end, not_after=start)
    assert "never be valid" in refused(path, lambda: lifecycle.add(path, never, NOW))


def test_an_active_key_that_isnt_valid_yet_takes_no_ones_place(tmp_path: Path) -> None:
    path = key_file(tmp_path, "APIone active")
    later = new(path, active=True, not_before=dt.datetime(2028, 1, 1, tzinfo=dt.UTC))
    assert "could sign then" in refused(path, lambda: lifecycle.add(path, later, NOW))
    assert not (tmp_path / "APInew.export").exists()


@pytest.mark.parametrize("secret", [*SECRETS.values(), "a'b\"c\\d#e: f".replace(" ", "") * 4, "é" * 16 + "x" * 10])
def test_a_secret_that_was_given_is_the_one_that_counts(tmp_path: Path, secret: str) -> None:
    path = key_file(tmp_path, text=f"keys:\n  - {{id: APIold, secret: {'k9' * 20}}}\n")
    lifecycle.add(path, new(path, secret=f"{secret}\r\n".encode()), NOW)
    assert keys_from_file(path)[1].secret.fits(b"x", Secret(secret.encode()).sign(b"x"))


@pytest.mark.parametrize(
    "secret", [b"APInew: " + b"x" * 40, b"x" * 20 + b"\n" + b"x" * 20, b"\xff" * 40, b"x" * 31, b"", b"x" * 40 + b"\0"]
)
def test_what_cant_be_a_secret_is_refused(tmp_path: Path, secret: bytes) -> None:
    path = key_file(tmp_path, "APIone active")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="the new key: "):
        lifecycle.add(path, new(path, secret=secret), NOW)
    assert path.read_bytes() == before


def test_the_same_id_or_the_same_secret_twice_is_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path, "APIone active", "APItwo revoked")
    assert "a key with that id" in refused(path, lambda: lifecycle.add(path, new(path, "APItwo"), NOW))
    same = new(path, secret=SECRETS["APItwo"].encode())
    assert "another key of the file has this secret" in refused(path, lambda: lifecycle.add(path, same, NOW))


def test_an_id_that_livekit_couldnt_have_is_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path, "APIone active")
    for key_id in ("API new", "", "a" * 129, "a,b", "a\n"):
        with pytest.raises(ConfigError, match="a key id has 1 to 128"):
            lifecycle.add(path, new(path, key_id, secret=b"q" * 40), NOW)


# Promoting


def test_promoting_swaps_who_signs(tmp_path: Path) -> None:
    path = key_file(tmp_path, "APIone active", "APItwo verify-only", "APIthree revoked")
    change = lifecycle.promote(path, "APItwo", NOW)
    assert states(path) == {"APIone": "verify-only", "APItwo": "active", "APIthree": "revoked"}
    assert change.changed
    assert not lifecycle.promote(path, "APItwo", NOW).changed


def test_a_leaked_key_is_revoked_in_the_same_step(tmp_path: Path) -> None:
    path = key_file(tmp_path, "APIone active", "APItwo verify-only", "APIthree verify-only")
    lifecycle.promote(path, "APItwo", NOW, ["APIone", "APIthree"])
    assert states(path) == {"APIone": "revoked", "APItwo": "active", "APIthree": "revoked"}


def test_what_cant_sign_isnt_promoted(tmp_path: Path) -> None:
    path = key_file(
        tmp_path,
        "APIone active",
        "APItwo verify-only, not_before: 2027-02-01T00:00:00Z",
        "APIthree verify-only, not_after: 2027-01-01T00:00:00Z",
        "APInew revoked",
    )
    assert "could sign then" in refused(path, lambda: lifecycle.promote(path, "APItwo", NOW))
    assert "could sign then" in refused(path, lambda: lifecycle.promote(path, "APIthree", NOW))
    assert "is revoked, and can't be promoted again" in refused(path, lambda: lifecycle.promote(path, "APInew", NOW))
    assert "holds no key with that id" in refused(path, lambda: lifecycle.promote(path, "APIother", NOW))
    assert "holds no key" in refused(path, lambda: lifecycle.promote(path, "APIone", NOW, ["APIother"]))
    assert "at once" in refused(path, lambda: lifecycle.promote(path, "APIone", NOW, ["APIone"]))


# Retiring


def test_a_key_is_retired_and_then_removed(tmp_path: Path) -> None:
    path = key_file(tmp_path, "APIone verify-only", "APItwo active")
    lifecycle.retire(path, "APIone", NOW)
    assert states(path) == {"APIone": "revoked", "APItwo": "active"}
    assert not lifecycle.retire(path, "APIone", NOW).changed
    lifecycle.retire(path, "APIone", NOW, remove=True)
    assert states(path) == {"APItwo": "active"}


def test_no_step_of_retiring_can_be_left_out(tmp_path: Path) -> None:
    path = key_file(tmp_path, "APIone active", "APItwo active", "APIthree verify-only")
    for remove in (False, True):
        text = refused(path, partial(lifecycle.retire, path, "APIone", NOW, remove=remove))
        assert "is active; promote another one first" in text
    assert "still verifies" in refused(path, lambda: lifecycle.retire(path, "APIthree", NOW, remove=True))
    assert "holds no key" in refused(path, lambda: lifecycle.retire(path, "APIother", NOW))


def test_a_key_can_be_revoked_while_none_can_sign(tmp_path: Path) -> None:
    path = key_file(tmp_path, "APIone verify-only", "APItwo verify-only")
    lifecycle.retire(path, "APIone", NOW)
    assert states(path) == {"APIone": "revoked", "APItwo": "verify-only"}


# LiveKit's own form


@pytest.mark.parametrize("call", [lifecycle.promote, lifecycle.retire])
def test_livekits_own_form_has_no_states_to_change(tmp_path: Path, call: Callable[..., object]) -> None:
    path = key_file(tmp_path, text=LIVEKIT_FORM)
    with pytest.raises(ConfigError, match="livekit-auth-server keys convert"):
        call(path, "APItwo", NOW)
    with pytest.raises(ConfigError, match="livekit-auth-server keys convert"):
        lifecycle.add(path, new(path), NOW)
    assert path.read_text() == LIVEKIT_FORM
    assert not (tmp_path / "APInew.export").exists()


def test_a_converted_file_means_the_same(tmp_path: Path) -> None:
    path = key_file(tmp_path, text=f"# both\r\n{LIVEKIT_FORM}# end".replace("\n", "\r\n").replace("\r\r", "\r"))
    assert [key.does for key in lifecycle.listed(path, NOW)] == ["signs", "verifies"]
    change = lifecycle.convert(path, NOW)
    assert [(key.id, key.state, key.does) for key in change.keys] == [
        ("APIone", "active", "signs"),
        ("APItwo", "active", "verifies"),
    ]
    text = path.read_bytes().decode()
    assert text.startswith("# both\r\nkeys:\r\n  - id: APIone\r\n    secret: ")
    assert text.endswith("# end")
    with pytest.raises(ConfigError, match="have states already"):
        lifecycle.convert(path, NOW)


# Looking


def test_a_list_says_what_each_key_does_now(tmp_path: Path) -> None:
    path = key_file(
        tmp_path,
        "APIone active, not_after: 2027-01-01T00:00:00Z",
        "APItwo active",
        "APIthree verify-only",
        "APInew revoked",
    )
    assert [(key.id, key.does) for key in lifecycle.listed(path, NOW)] == [
        ("APIone", "nothing"),
        ("APItwo", "signs"),
        ("APIthree", "verifies"),
        ("APInew", "nothing"),
    ]
    assert lifecycle.listed(path, NOW)[0].not_after == "2027-01-01T00:00:00Z"


def test_an_id_that_is_long_enough_to_be_a_secret_isnt_shown(tmp_path: Path) -> None:
    path = key_file(tmp_path, text=f"{'zqxj' * 10}: {'zqxj' * 11}\n")
    assert [key.id for key in lifecycle.listed(path, NOW)] == ["(an id of 40 characters)"]


def test_a_check_warns_of_what_will_be_a_problem(tmp_path: Path) -> None:
    path = key_file(
        tmp_path,
        text=f"""\
keys:
  - {{id: APIone, secret: {SECRETS["APIone"]}, not_after: 2027-02-01T00:00:00Z}}
  - {{id: APItwo, secret: thiskeyistotallyunsafeandlongenough}}
  - {{id: APIthree, secret: {"ab" * 20}, not_before: 2027-02-01T00:00:00Z}}
  - {{id: APIfour, secret: {"ab" * 21}, state: revoked}}
  - {{id: APIfive, secret: {SECRETS["APItwo"]}, not_after: 2027-01-01T00:00:00Z}}
""",
    )
    assert lifecycle.check(path, NOW).warnings == (
        ("APIone", "expires at 2027-02-01T00:00:00Z: rotate before"),
        ("APItwo", "its secret looks made up: rotate to one that `keys add` makes"),
        ("APIthree", "its secret looks made up: rotate to one that `keys add` makes"),
        ("APIthree", "isn't valid before 2027-02-01T00:00:00Z"),
        ("APIfive", "expired at 2027-01-01T00:00:00Z: retire it"),
    )
    assert ("APIone", "expires at 2027-02-01T00:00:00Z: rotate before") not in lifecycle.check(
        path, NOW, within=3600
    ).warnings


def test_a_check_says_when_nothing_can_sign(tmp_path: Path) -> None:
    path = key_file(tmp_path, "APIone verify-only")
    assert lifecycle.check(path, NOW).warnings == (("", "no key can sign now, so no token can be issued: promote one"),)


def test_secrets_that_are_made_never_look_made_up(tmp_path: Path) -> None:
    path = key_file(tmp_path, "APIone active")
    for number in range(20):
        assert lifecycle.add(path, new(path, f"API{number}"), NOW).warnings == ()
    assert "made up" in lifecycle.add(path, new(path, "APIweak", secret=b"changeme" * 5), NOW).warnings[0]


def test_a_key_id_stands_once_in_a_file(tmp_path: Path) -> None:
    path = key_file(tmp_path, "APIone active", "APIone verify-only")
    for call in (lifecycle.check, lifecycle.listed, lifecycle.convert):
        with pytest.raises(ConfigError, match=f"duplicate key id: at {path}:2 and at {path}:3"):
            call(path, NOW)
    with pytest.raises(ConfigError, match=f"duplicate key id: at {path}:2 and at {path}:3"):
        lifecycle.promote(path, "APIone", NOW)


# The command line

run = CliRunner().invoke


def keys(*arguments: object, exit_code: int = 0, stdin: str | None = None) -> Any:
    done = run(app, ["keys", *map(str, arguments), "--json"], input=stdin)
    assert done.exit_code == exit_code, done.output
    return json.loads(done.stdout) if done.stdout else {}


def test_a_rotation_is_one_command_a_step(tmp_path: Path) -> None:
    path = key_file(tmp_path, "APIone active")
    made = keys("add", path, "--export", tmp_path / "export")["id"]
    assert made.startswith("API")
    assert len(made) == 15
    assert keys("promote", path, made)["done"] == "promoted"
    assert keys("retire", path, "APIone")["done"] == "revoked"
    assert keys("retire", path, "APIone", "--remove")["done"] == "removed"
    assert [(key["id"], key["does"]) for key in keys("list", path)["keys"]] == [(made, "signs")]
    assert keys("check", path, "--strict")["fine"]


def test_a_refusal_exits_with_1_and_misuse_with_2(tmp_path: Path) -> None:
    path = key_file(tmp_path, "APIone active")
    assert "is active" in keys("retire", path, "APIone", exit_code=1)["refused"]
    assert "nothing changed" in run(app, ["keys", "retire", str(path), "APIone"]).stderr
    for arguments in (
        ["add", path],
        ["add", path, "--export", "x", "--secret-file", "y"],
        ["add", path, "--not-after", "1"],
    ):
        assert keys(*arguments, exit_code=2) == {}
    keys("promote", path, "APIone", "APIone", exit_code=2)


def test_a_file_that_isnt_there_isnt_made_by_mistake(tmp_path: Path) -> None:
    done = run(app, ["keys", "add", str(tmp_path / "kyes.yaml"), "--export", str(tmp_path / "export")])
    assert "there is no such file; create an empty one first" in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_check_exits_with_1_for_a_warning_when_it_is_strict(tmp_path: Path) -> None:
    path = key_file(tmp_path, "APIone verify-only")
    assert keys("check", path)["warnings"][0]["id"] == ""
    assert not keys("check", path, "--strict", exit_code=1)["fine"]
    assert "WARNING no key can sign now" in run(app, ["keys", "check", str(path)]).stderr


def test_a_secret_comes_from_stdin_or_a_private_file(tmp_path: Path) -> None:
    path = key_file(tmp_path, "APIone active")
    keys("add", path, "APItwo", "--secret-file", "-", stdin=SECRETS["APItwo"] + "\n")
    file = tmp_path / "secret.txt"
    file.touch(mode=0o600)
    file.write_text(SECRETS["APInew"] + "\n")
    keys("add", path, "APInew", "--secret-file", file, "--active")
    assert states(path) == {"APIone": "verify-only", "APItwo": "verify-only", "APInew": "active"}
    file.chmod(0o644)
    done = run(app, ["keys", "add", str(path), "APIthree", "--secret-file", str(file)])
    assert str(done.exception) == "--secret-file: can be read by others"


def test_with_the_settings_a_key_id_of_another_project_is_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path, "APIone active")
    other = tmp_path / "other.yaml"
    other.touch(mode=0o600)
    other.write_text(f"APInew: {SECRETS['APInew']}\n")
    settings = tmp_path / "server.yaml"
    settings.write_text("""\
tls: {certificate: none.pem, key: none.key}
identity: {dns_bundle: none.pem}
policy: none.yaml
projects:
  default: {url: "wss://one.example.org", keys: {file: keys.yaml}}
  second: {url: "wss://two.example.org", keys: {file: other.yaml}}
""")
    done = run(app, ["keys", "add", str(path), "APInew", "--export", str(tmp_path / "e"), "--config", str(settings)])
    assert f'and in project "second" ({other}:1)' in str(done.exception)
    assert states(path) == {"APIone": "active"}
    assert keys("add", path, "APItwo", "--export", tmp_path / "e", "--config", settings)["changed"]
    stray = tmp_path / "stray.yaml"
    stray.touch(mode=0o600)
    stray.write_text(path.read_text())
    done = run(app, ["keys", "check", str(stray), "--config", str(settings)])
    assert "no project there has its keys in" in str(done.exception)


@pytest.mark.parametrize("name", ["not_before", "not_after"])
def test_an_edit_that_changed_a_keys_times_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    year = b"2020" if name == "not_before" else b"2090"
    path = key_file(tmp_path, "APIone active", f"APItwo verify-only, {name}: {year.decode()}-01-01T00:00:00Z")
    before, edited = path.read_bytes(), KeyText.with_state

    def with_other_times(self: KeyText, key_id: str, state: KeyState) -> bytes:
        return edited(self, key_id, state).replace(year, b"2021")

    monkeypatch.setattr(KeyText, "with_state", with_other_times)
    with pytest.raises(ConfigError, match="can only be changed by hand"):
        lifecycle.promote(path, "APItwo", NOW)
    assert path.read_bytes() == before
