"""Where API keys may come from, and mistakes in them that never show a secret."""

from __future__ import annotations

import datetime as dt
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_auth_server.core.keys import ApiKey, KeyState
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.keys.keys_file import (
    MIN_SECRET,
    keys_from_directory,
    keys_from_environment,
    keys_from_file,
)
from support.examples import examples

if TYPE_CHECKING:
    from collections.abc import Callable

UNIT = "zqxj"  # of the marker: so that every part of a secret that matters holds it
SECRET = UNIT * 10
OTHER = UNIT * 11
SIGNED = b"message"


def write(folder: Path, content: str | bytes, name: str = "keys.yaml", mode: int = 0o600) -> Path:
    path = folder / name
    path.touch(mode=0o600)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


def load(folder: Path, content: str | bytes) -> tuple[ApiKey, ...]:
    return keys_from_file(write(folder, content))


def holds(key: ApiKey, secret: str) -> bool:
    """Whether the key's secret is this one, told by what it signs."""
    from livekit_auth_server.core.keys import Secret  # noqa: PLC0415

    return key.secret.fits(SIGNED, Secret(secret.encode()).sign(SIGNED))


def mistake(call: Callable[[], object]) -> ConfigError:
    """The error of a load that must fail. Nothing of a secret is in it, nor in anything that prints it."""
    with pytest.raises(ConfigError) as caught:
        call()
    everything = f"{caught.value}{caught.value!r}{''.join(traceback.format_exception(caught.value))}"
    assert UNIT not in everything.lower()
    assert "\n" not in str(caught.value)
    return caught.value


def mistake_in(folder: Path, content: str | bytes) -> str:
    path = write(folder, content)
    text = str(mistake(lambda: keys_from_file(path)))
    assert text.startswith(str(path))
    return text.removeprefix(str(path)).lstrip(": ")


# LiveKit's own form


@pytest.mark.parametrize(
    "content",
    [
        f"APIone: {SECRET}\nAPItwo: {OTHER}\n",
        f"APIone: {SECRET}\nAPItwo: {OTHER}",
        f"APIone: {SECRET}\r\nAPItwo: {OTHER}\r\n",
        f"# keys\n\nAPIone: {SECRET}  # of the fleet\nAPItwo: '{OTHER}'\n",
        f'APIone: "{SECRET}"\n"APItwo": {OTHER}\n\n\n',
        f"APIone: >-\n  {SECRET}\nAPItwo: |\n  {OTHER}\n",
        f'{{"APIone": "{SECRET}", "APItwo": "{OTHER}"}}',
        f"{{APIone: {SECRET}, APItwo: {OTHER}}}",
        f"\ufeffAPIone: {SECRET}\nAPItwo: {OTHER}\n",
        f"---\nAPIone: {SECRET}\nAPItwo: {OTHER}\n...\n",
    ],
)
def test_key_secret_lines_are_livekits_own_form(tmp_path: Path, content: str) -> None:
    one, two = load(tmp_path, content)
    assert (one.id, two.id) == ("APIone", "APItwo")
    assert holds(one, SECRET)
    assert holds(two, OTHER)
    assert not holds(one, OTHER)
    assert (one.state, one.not_before, one.not_after) == (KeyState.ACTIVE, None, None)


def test_a_secret_may_hold_any_visible_characters(tmp_path: Path) -> None:
    odd = "a#b:c'd\\e+/=é" * 4
    (key,) = load(tmp_path, f"APIone: |\n  {odd}\n")
    assert holds(key, odd)


def test_a_secret_has_at_least_32_bytes(tmp_path: Path) -> None:
    assert MIN_SECRET == 32
    (key,) = load(tmp_path, f"APIone: {'x' * 32}\n")
    assert len(key.secret) == 32
    assert "is under 32 bytes" in mistake_in(tmp_path, f"APIone: {UNIT * 7}zqx\n")


# This service's form


def test_the_own_form_has_states_and_times(tmp_path: Path) -> None:
    keys = load(
        tmp_path,
        f"""\
keys:
  - {{id: APIone, secret: {SECRET}, not_after: 2027-01-01T00:00:00Z}}
  - id: APItwo
    secret: "{OTHER}"
    state: verify-only
    not_before: "2026-01-01T02:00:00+02:00"
  - {{id: APIthree, secret: {SECRET}, state: revoked}}
""",
    )
    assert [(key.id, key.state) for key in keys] == [
        ("APIone", KeyState.ACTIVE),
        ("APItwo", KeyState.VERIFY_ONLY),
        ("APIthree", KeyState.REVOKED),
    ]
    assert keys[0].not_after == dt.datetime(2027, 1, 1, tzinfo=dt.UTC).timestamp()
    assert keys[1].not_before == dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()
    assert holds(keys[1], OTHER)


@pytest.mark.parametrize("quote", ["", "'"])
@pytest.mark.parametrize("zone", ["Z", "+00:00", "+05:30", "-08:00"])
def test_a_time_means_its_zone_quoted_or_not(tmp_path: Path, zone: str, quote: str) -> None:
    time = f"2027-03-04T05:06:07{zone}"
    (key,) = load(tmp_path, f"keys:\n  - {{id: APIone, secret: {SECRET}, not_after: {quote}{time}{quote}}}\n")
    assert key.not_after == int(dt.datetime.fromisoformat(time).timestamp())


@pytest.mark.parametrize(
    "time", ["2027-01-01", "2027-01-01 00:00:00", "20270101", "1800000000", "'1800000000'", "soon", "10m", "[]", "true"]
)
def test_a_time_without_its_zone_or_as_a_number_is_refused(tmp_path: Path, time: str) -> None:
    """A number would be taken for seconds: 20270101 lies in August 1970."""
    text = mistake_in(tmp_path, f"keys:\n  - {{id: APIone, secret: {SECRET}, not_after: {time}}}\n")
    assert text == "2: keys.0.not_after: should be a time with its zone, such as 2027-01-01T00:00:00Z"


def test_a_key_that_would_never_be_valid_is_refused(tmp_path: Path) -> None:
    times = "not_before: 2027-01-01T00:00:00Z, not_after: 2027-01-01T00:00:00Z"
    text = mistake_in(tmp_path, f"keys:\n  - {{id: APIone, secret: {SECRET}, {times}}}\n")
    assert text.startswith("2: this key's not_after isn't after its not_before")


# Mistakes


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "holds no keys; write `key: secret`, one a line"),
        ("\n# nothing\n", "holds no keys; write `key: secret`, one a line"),
        (SECRET, "holds no keys; write `key: secret`, one a line"),
        (f"APIone:{SECRET}\n", "holds no keys; write `key: secret`, one a line"),
        (f"APIone={SECRET}\n", "holds no keys; write `key: secret`, one a line"),
        (f"- {SECRET}\n", "holds no keys; write `key: secret`, one a line"),
        (f"{SECRET}: APIone\n", "1: the secret of this key is under 32 bytes; make a longer one, unless id and secret"),
        (f"APIa: {SECRET}\n{SECRET}: APIone\n", "2: the secret of this key is under 32 bytes"),
        ("APIone: short-zqxj\n", '1: the secret of key "APIone" is under 32 bytes'),
        ("short-zqxj: APIone\n", "1: the secret of this key is under 32 bytes"),
        (f'APIone: " {SECRET}"\n', '1: the secret of key "APIone" has blanks around it or control characters in it'),
        (f'APIone: "{SECRET}\\t{SECRET}"\n', '1: the secret of key "APIone" has blanks'),
        (f'APIone: "{SECRET}\\0"\n', '1: the secret of key "APIone" has blanks'),
        (f"API one: {SECRET}\n", "1: a key id has 1 to 128 letters, digits, '-' and '_'"),
        (f"{SECRET}+/=: APIone\n", "1: a key id has 1 to 128 letters, digits, '-' and '_'"),
        (f'"": {SECRET}\n', "1: a key id has 1 to 128 letters"),
        (f"{'x' * 129}: {SECRET}\n", "1: a key id has 1 to 128 letters"),
        ("APIone: 12345678901234567890123456789012\n", "1: a key and its secret are text; quote them"),
        ("APIone: 0x" + "F" * 40 + "\n", "1: a key and its secret are text; quote them"),
        (f"12345: {SECRET}\n", "1: a key and its secret are text; quote them"),
        (f"APIa: {SECRET}\nAPIone:\n", "2: a key and its secret are text; quote them"),
        (f"APIone: [{SECRET}]\n", "1: a key and its secret are text; quote them"),
        (f"APIone: {{secret: {SECRET}}}\n", "1: a key and its secret are text; quote them"),
        ("APIone: 2027-01-01\n", "1: a key and its secret are text; quote them"),
        ("APIone: yes\n", '1: the secret of key "APIone" is under 32 bytes'),
        (f"APIone: {SECRET}\nAPIone: {OTHER}\n", "2: duplicate key, in line 1 too; remove one"),
        (f"keys:\n  APIone: {SECRET}\n", "1: below `keys` stands a list of {id, secret}; `key: secret` lines stand"),
        (f"keys:\n  - APIone: {SECRET}\n", "2: keys.0: there is no such field; check its spelling (and 2 more)"),
        (f"keys:\n  - {{{SECRET}: APIone}}\n", "2: keys.0: there is no such field; check its spelling (and 2 more)"),
        (f"keys:\n  - {SECRET}\n", "2: keys.0: should hold fields, written `name: value` and indented below it"),
        (f"keys:\n  - {{id: {SECRET}}}\n", "2: keys.0.secret: is required"),
        (f"keys:\n  - {{secret: {SECRET}}}\n", "2: keys.0.id: is required"),
        (f"keys:\n  - {{id: a, secret: {SECRET}, stat: x}}\n", "2: keys.0: there is no such field"),
        (f"keys:\n  - {{id: a, secret: {SECRET}, state: {SECRET}}}\n", "2: keys.0.state: should be 'active', 'verify-"),
        ("keys:\n  - {id: a, secret: 123}\n", "2: keys.0.secret: should be text; put it in quotes"),
        (f"keys:\n  - {{id: a, secret: [{SECRET}]}}\n", "2: keys.0.secret: should be text; put it in quotes"),
        (f"keys: []\n{SECRET}: x\n", "2: there is no such field; check its spelling"),
        (f"keys:\n  - {{id: {SECRET}, secret: APIone}}\n", "2: the secret of this key is under 32 bytes"),
        (f"keys:\n  - {{id: a, secret: {SECRET}, id: b}}\n", "2: duplicate key, in line 2 too; remove one"),
    ],
)
def test_a_mistake_is_shown_with_its_line_and_what_to_do(tmp_path: Path, content: str, text: str) -> None:
    assert mistake_in(tmp_path, content).startswith(text)


BROKEN = [
    f'APIone: "{SECRET}\n',
    f"APIone: '{SECRET}\n",
    f"APIone: [{SECRET}\n",
    f"APIone: {{{SECRET}\n",
    f"APIone: %{SECRET}\n",
    f"APIone: @{SECRET}\n",
    f"APIone: `{SECRET}\n",
    f"APIone: *{SECRET}\n",
    f"APIone: &{SECRET}\n",
    f"APIone: &{SECRET} {SECRET}\nAPItwo: &{SECRET} {SECRET}\n",
    f"APIone: !{SECRET} {SECRET}\n",
    f"APIone: !!{SECRET} {SECRET}\n",
    f"APIone: !!python/object:{SECRET} {SECRET}\n",
    f"APIone: !!bool {SECRET}\n",
    f"APIone: !!int {SECRET}\n",
    f"APIone: !!float {SECRET}\n",
    f"APIone: !!null {SECRET}\n",
    f"APIone: !!timestamp {SECRET}\n",
    f"APIone: !!binary {SECRET}=\n",
    f"APIone: !!set {{{SECRET}}}\n",
    f"APIone: !!omap [{SECRET}]\n",
    f"APIone: !!seq {SECRET}\n",
    f"%YAML {SECRET}\n---\nAPIone: {SECRET}\n",
    f"%YAML 9.{SECRET}\n---\nAPIone: {SECRET}\n",
    f"%TAG {SECRET} {SECRET}\n---\nAPIone: {SECRET}\n",
    f"%{SECRET}\n---\n- {SECRET}\n",
    f"%YAML 1.1\n---\nAPIone: 1e{'1' * 40}\n",
    f"APIone:\t{SECRET}\n\tAPItwo: {SECRET}\n",
    f"APIone: {SECRET}\n APItwo: {SECRET}\n",
    f"APIone: {SECRET}: {SECRET}\n",
    f"APIone: {SECRET}\n---\nAPItwo: {SECRET}\n",
    f"? [a, b]\n: {SECRET}\n",
    f"? {{a: {SECRET}}}\n: {SECRET}\n",
    f"<<: {SECRET}\nAPIone: {SECRET}\n",
    f"<<: [{SECRET}]\n",
    f"a: &a\n  <<: *a\n  b: {SECRET}\n",
    f"a: &a [*a, {SECRET}]\n",
    f"APIone: {SECRET}\0\n",
    f"APIone: {SECRET}\x07\n",
    f"APIone: |9\n  {SECRET}\n",
    f"APIone: >x\n  {SECRET}\n",
    f'APIone: "{SECRET}\\q"\n',
    f'APIone: "{SECRET}\\xZZ"\n',
    "[" * 400 + SECRET,
    f"{{a: {SECRET}, " * 150,
    "APIone: " + "9" * 5000 + "\n",
    f"!!{SECRET}",
    f"*{SECRET}",
    f"%{SECRET}",
]


@pytest.mark.parametrize("content", BROKEN)
def test_a_file_that_yaml_chokes_on_shows_no_secret(tmp_path: Path, content: str) -> None:
    assert mistake_in(tmp_path, content)


@pytest.mark.parametrize(
    "content", [f"APIone: {SECRET}".encode("utf-16"), b"APIone: \xff\xfe", b"\x80" + SECRET.encode()]
)
def test_a_file_that_isnt_utf_8_says_so(tmp_path: Path, content: bytes) -> None:
    assert mistake_in(tmp_path, content) == "isn't UTF-8 text"


WELL = [
    f"APIone: {SECRET}\nAPItwo: {OTHER}\n",
    f"{SECRET}: APIone\n{OTHER}: {SECRET}\n",
    f'APIone: "{SECRET}"\nAPItwo: |\n  {OTHER}\n',
    f"keys:\n  - {{id: APIone, secret: {SECRET}, state: active}}\n  - id: {SECRET}\n    secret: {OTHER}\n",
    f'keys:\n  - {{"{SECRET}": APIone, not_after: {SECRET}}}\n{SECRET}: {SECRET}\n',
]
SPICE = [
    *"\"'[]{}%@`*&!|>#:,-?<=~\\\t\n\r\0\x07\x85\u2028é",
    *("!!", "<<: ", "*a", "&a ", "!!bool ", "!!int ", "!!map ", "---\n", "...\n", "%YAML 1.1\n---\n", "? ", ": ", "- "),
    *(
        "{a: ",
        "keys:",
        "keys: ",
        "\n  ",
        "null",
        "1e5",
        "0o7",
        "2027-13-01",
        "\ud800".encode("utf-8", "replace").decode(),
    ),
    SECRET,
]


@given(st.sampled_from(WELL), st.lists(st.tuples(st.integers(0, 140), st.sampled_from(SPICE)), max_size=4), st.data())
@examples(400)
def test_no_mistake_anywhere_in_a_file_shows_a_secret(
    content: str, spices: list[tuple[int, str]], data: st.DataObject
) -> None:
    for place, spice in spices:
        content = content[:place] + spice + content[place:]
    cut = data.draw(st.integers(0, len(content)))
    content = data.draw(st.sampled_from([content, content[:cut], content[cut:]]))
    check_environment(content)


@given(st.text() | st.text("aA: \n-{}[]\"'&*!|>%#", max_size=60))
@examples(200)
def test_any_text_is_keys_or_a_config_error(content: str) -> None:
    check_environment(content)


def check_environment(content: str) -> None:
    """Loads the text; what loads are sound keys, and what doesn't shows no secret."""
    try:
        keys = keys_from_environment("KEYS", {"KEYS": content})
    except ConfigError:
        mistake(lambda: keys_from_environment("KEYS", {"KEYS": content}))
        return
    for key in keys:
        assert len(key.secret) >= MIN_SECRET
        assert key.id.replace("-", "x").replace("_", "x").isalnum()
        assert SECRET not in repr(key).replace(key.id, "")


# Files


def test_the_owner_and_the_group_may_read_it(tmp_path: Path) -> None:
    for mode in (0o400, 0o600, 0o640, 0o440, 0o660):
        assert len(keys_from_file(write(tmp_path, f"APIone: {SECRET}\n", f"keys-{mode:o}.yaml", mode))) == 1


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o606, 0o602, 0o601, 0o777])
def test_a_file_open_to_others_is_refused_with_the_command_to_run(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path, f"APIone: {SECRET}\n", mode=mode)
    assert str(mistake(lambda: keys_from_file(path))) == f"{path}: can be read by others; run: chmod o= {path}"


def test_what_counts_is_a_links_target(tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(write(tmp_path, f"APIone: {SECRET}\n", mode=0o644))
    assert "can be read by others" in str(mistake(lambda: keys_from_file(link)))
    (tmp_path / "keys.yaml").chmod(0o600)
    assert len(keys_from_file(link)) == 1


def test_what_cant_be_read_says_why(tmp_path: Path) -> None:
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    for path, why in (
        (tmp_path / "missing.yaml", "there is no such file"),
        (tmp_path, "can't be read: Is a directory"),
        (loop, "can't be read: Too many levels of symbolic links"),
        (Path("a\0b"), "isn't a path: it holds a NUL character"),
        (write(tmp_path, "x", "file") / "below", "can't be read: Not a directory"),
    ):
        assert mistake(partial(keys_from_file, path)).message == why


# A mounted directory


def mounted(folder: Path, **files: str) -> Path:
    directory = folder / "keys"
    directory.mkdir()
    for name, content in files.items():
        write(directory, content, name)
    return directory


def test_in_a_directory_each_file_is_a_key(tmp_path: Path) -> None:
    directory = mounted(tmp_path, APItwo=f"{OTHER}\n", APIone=f"{SECRET}\r\n", APIthree=SECRET)
    (directory / "folder").mkdir()
    write(directory, "not a secret", ".hidden", 0o644)
    keys = keys_from_directory(directory)
    assert [key.id for key in keys] == ["APIone", "APIthree", "APItwo"]
    assert holds(keys[0], SECRET)
    assert holds(keys[2], OTHER)


def test_a_kubernetes_mount_is_read_through_its_links(tmp_path: Path) -> None:
    directory = tmp_path / "keys"
    version = directory / "..2026_11_24"
    version.mkdir(parents=True)
    write(version, SECRET, "APIone", 0o440)
    (directory / "..data").symlink_to("..2026_11_24")
    (directory / "APIone").symlink_to("..data/APIone")
    assert [key.id for key in keys_from_directory(directory)] == ["APIone"]


def test_a_bad_file_of_a_directory_is_named_and_its_secret_isnt(tmp_path: Path) -> None:
    directory = mounted(tmp_path, APIone=SECRET, APItwo=f"{UNIT} short")
    error = mistake(lambda: keys_from_directory(directory))
    assert error.where == str(directory)
    assert 'key "APItwo" is under 32 bytes' in error.message


@pytest.mark.parametrize("secret", [f" {SECRET}", f"{SECRET} \n", f"{SECRET}\n{SECRET}", f"{SECRET}\0", f"\t{SECRET}"])
def test_a_secret_file_holds_the_secret_alone(tmp_path: Path, secret: str) -> None:
    directory = mounted(tmp_path, APIone=secret)
    assert "has blanks around it or control characters" in str(mistake(lambda: keys_from_directory(directory)))


def test_a_directory_with_a_file_open_to_others_is_refused(tmp_path: Path) -> None:
    directory = mounted(tmp_path, APIone=SECRET)
    (directory / "APIone").chmod(0o644)
    assert "can be read by others" in str(mistake(lambda: keys_from_directory(directory)))


def test_a_file_that_isnt_named_after_a_key_is_refused(tmp_path: Path) -> None:
    directory = mounted(tmp_path, **{"APIone.txt": SECRET})
    assert "a key id has" in str(mistake(lambda: keys_from_directory(directory)))


def test_a_directory_that_isnt_there_or_is_empty_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path / "missing", write(tmp_path, SECRET, "file")):
        assert mistake(partial(keys_from_directory, path)).message == "there is no such directory"
    assert mistake(lambda: keys_from_directory(mounted(tmp_path))).message.startswith("holds no keys: one file a key")

    def forbidden(_: Path) -> list[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", forbidden)
    assert mistake(lambda: keys_from_directory(tmp_path)).message == "can't be read: Permission denied"


# The environment


def test_the_environment_holds_key_secret_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEKIT_KEYS", f"APIone: {SECRET}\nAPItwo: {OTHER}")
    assert [key.id for key in keys_from_environment("LIVEKIT_KEYS")] == ["APIone", "APItwo"]


@pytest.mark.parametrize("environment", [{}, {"KEYS": ""}])
def test_a_variable_that_isnt_set_says_what_it_should_hold(environment: dict[str, str]) -> None:
    text = "$KEYS: isn't set; it should hold `key: secret` lines"
    assert str(mistake(lambda: keys_from_environment("KEYS", environment))) == text


@pytest.mark.parametrize("content", [*BROKEN[:12], SECRET, f"{SECRET}: APIone", f"APIone:{SECRET}"])
def test_a_mistake_in_the_environment_names_the_variable_only(content: str) -> None:
    assert str(mistake(lambda: keys_from_environment("KEYS", {"KEYS": content}))).startswith("$KEYS")
