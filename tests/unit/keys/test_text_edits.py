"""A key file keeps its comments and its layout, whatever is changed in it; what is unusual is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_auth_server.core.keys import KeyState
from livekit_auth_server.files.errors import ConfigError
from livekit_auth_server.keys.keys_file import parse_keys
from livekit_auth_server.keys.text_edits import Entry, KeyText, converted
from support.examples import examples

PATH = Path("keys.yaml")
SECRET = "zqxj" * 10
OTHER = "zqxj" * 11

LIVED_IN = f"""\
# Keys of LiveKit.

keys:
  # the old one
  - {{id: APIold, secret: "{SECRET}",   state: active}}   # signs
  # the new one
  - id: APInew       # since June
    secret: '{OTHER}'
    not_after: 2027-03-04T05:06:07+05:30
    # about the state
    state: "verify-only"

  # of the test site
  - {{ id: APIx, secret: {SECRET},
      state: revoked }}
# the end
"""


def text(content: str | bytes) -> KeyText:
    content = content if isinstance(content, bytes) else content.encode()
    parse_keys(PATH, content)
    return KeyText(PATH, content)


def changed_lines(before: str, after: bytes) -> tuple[list[str], list[str]]:
    """The lines that went and those that came."""
    old, new = before.splitlines(keepends=True), after.decode().splitlines(keepends=True)
    return [line for line in old if line not in new], [line for line in new if line not in old]


def test_a_state_is_changed_where_it_stands() -> None:
    gone, come = changed_lines(LIVED_IN, text(LIVED_IN).with_state("APIold", KeyState.VERIFY_ONLY))
    assert gone == [f'  - {{id: APIold, secret: "{SECRET}",   state: active}}   # signs\n']
    assert come == [f'  - {{id: APIold, secret: "{SECRET}",   state: verify-only}}   # signs\n']
    assert changed_lines(LIVED_IN, text(LIVED_IN).with_state("APInew", KeyState.ACTIVE)) == (
        ['    state: "verify-only"\n'],
        ['    state: "active"\n'],
    )
    assert changed_lines(LIVED_IN, text(LIVED_IN).with_state("APIx", KeyState.ACTIVE))[1] == ["      state: active }\n"]


def test_a_state_that_isnt_there_is_put_beside_the_id() -> None:
    flow = text(f"keys:\n- {{id: APIa, secret: {SECRET}}}\n").with_state("APIa", KeyState.REVOKED)
    assert flow.decode() == f"keys:\n- {{id: APIa, state: revoked, secret: {SECRET}}}\n"
    block = text(f"keys:\n-   secret: {SECRET}\n    'id':  \"APIa\" # mine\n").with_state("APIa", KeyState.REVOKED)
    assert block.decode() == f"keys:\n-   secret: {SECRET}\n    'id':  \"APIa\" # mine\n    state: revoked\n"


def test_a_key_is_added_below_the_last_one_and_written_as_it_is() -> None:
    entry = Entry("APIz", SECRET, KeyState.VERIFY_ONLY, not_after="2028-01-01T00:00:00Z")
    flow = text(LIVED_IN).with_entry(entry).decode()
    new = f'  - {{id: APIz, secret: "{SECRET}", state: verify-only, not_after: 2028-01-01T00:00:00Z}}\n'
    assert flow == LIVED_IN.replace("# the end", f"{new}# the end")
    block = text(f"keys:\n- id: APIa\n  secret: |\n    {SECRET}\n\n# end").with_entry(entry).decode()
    new = f'- id: APIz\n  secret: "{SECRET}"\n  state: verify-only\n  not_after: 2028-01-01T00:00:00Z\n'
    assert block == f"keys:\n- id: APIa\n  secret: |\n    {SECRET}\n\n{new}# end"
    assert len(parse_keys(PATH, block.encode())) == 2


@pytest.mark.parametrize("empty", ["keys: []", "keys: []\n", "# none\nkeys:   [ ]  # yet\n# end\n"])
def test_a_key_is_added_to_an_empty_list(empty: str) -> None:
    content = text(empty).with_entry(Entry("APIz", SECRET, KeyState.ACTIVE))
    assert [key.id for key in parse_keys(PATH, content)] == ["APIz"]
    assert [line for line in empty.splitlines() if line.startswith("#")] == [
        line for line in content.decode().splitlines() if line.startswith("#")
    ]


def test_a_key_is_removed_with_its_lines_and_no_comment_of_another_key() -> None:
    for key, lines in (("APIold", (4, 5)), ("APInew", (6, 11)), ("APIx", (13, 15))):
        kept = LIVED_IN.splitlines(keepends=True)
        del kept[slice(*lines)]
        assert text(LIVED_IN).without(key).decode() == "".join(kept)


def test_line_endings_and_a_byte_order_mark_stay() -> None:
    content = "\ufeff" + LIVED_IN.replace("\n", "\r\n")
    for change in (
        text(content).with_state("APIold", KeyState.REVOKED),
        text(content).with_entry(Entry("APIz", SECRET, KeyState.ACTIVE)),
        text(content).without("APInew"),
    ):
        parse_keys(PATH, change)
        assert change.startswith("\ufeff#".encode())
        assert change.count(b"\n") == change.count(b"\r\n")


UNUSUAL = {
    "anchors": f"keys:\n  - &a {{id: APIa, secret: {SECRET}}}\n",
    "aliases": f"keys:\n  - {{id: APIa, secret: &s {SECRET}}}\n  - {{id: APIb, secret: *s}}\n",
    "merge keys": f"keys:\n  - &a {{id: APIa, secret: {SECRET}}}\n  - {{<<: *a, id: APIb}}\n",
    "tags": f"keys:\n  - !!map {{id: APIa, secret: {SECRET}}}\n",
    "directives": f"%YAML 1.2\n---\nkeys:\n  - {{id: APIa, secret: {SECRET}}}\n",
    "JSON": f'{{"keys": [{{"id": "APIa", "secret": "{SECRET}"}}]}}',
    "a list in one line": f"keys: [{{id: APIa, secret: {SECRET}}}]\n",
}


@pytest.mark.parametrize("content", UNUSUAL.values(), ids=UNUSUAL)
def test_an_unusual_file_is_left_to_people(content: str) -> None:
    with pytest.raises(ConfigError, match="can only be changed by hand") as caught:
        text(content).with_state("APIa", KeyState.ACTIVE)
    assert "zqxj" not in str(caught.value)


def test_a_dash_on_a_line_of_its_own_is_left_to_people() -> None:
    content = f"keys:\n  -\n    id: APIa\n    secret: {SECRET}\n"
    for call in (
        lambda: text(content).without("APIa"),
        lambda: text(content).with_entry(Entry("b", "", KeyState.ACTIVE)),
    ):
        with pytest.raises(ConfigError, match="doesn't begin on the line of its dash"):
            call()
    assert b"    state: revoked\n" in text(content).with_state("APIa", KeyState.REVOKED)


@pytest.mark.parametrize(
    "content", [f"{{APIa: {SECRET}}}", f"APIa: >-\n  {SECRET}\n", f"? APIa\n: {SECRET}\n  {SECRET}\n"]
)
def test_only_key_secret_lines_are_converted(content: str) -> None:
    with pytest.raises(ConfigError, match="isn't written as one `key: secret` per line"):
        converted(PATH, content.encode())


def test_a_new_entry_doesnt_show_its_secret() -> None:
    assert SECRET not in repr(Entry("APIa", SECRET, KeyState.ACTIVE))


@st.composite
def files(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A file in some layout, and the ids in it."""
    ids = draw(
        st.lists(st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,8}", fullmatch=True), min_size=1, max_size=4, unique=True)
    )
    indent = " " * draw(st.integers(0, 4))
    lines = ["keys:"]
    for key_id in ids:
        lines += draw(st.sampled_from([[], [""], [f"{indent}# a comment", ""], ["# state: active"]]))
        quote = draw(st.sampled_from(['"', "'", ""]))
        state = draw(st.sampled_from(["", "active", "'revoked'", "verify-only"]))
        fields = [f'id: "{key_id}"', f"secret: {quote}{SECRET}{quote}", *([f"state: {state}"] if state else [])]
        fields = draw(st.permutations(fields))
        if draw(st.booleans()):
            lines.append(f"{indent}- {{{', '.join(fields)}}}" + draw(st.sampled_from(["", "  # state: x"])))
        else:
            gap = " " * draw(st.integers(1, 3))
            lines += [f"{indent}-{gap}{fields[0]}", *(f"{indent} {gap}{field} # c" for field in fields[1:])]
    lines += draw(st.sampled_from([[], ["# end"], ["", "# end", ""]]))
    line_break = draw(st.sampled_from(["\n", "\r\n"]))
    return line_break.join(lines) + draw(st.sampled_from(["", line_break])), ids


@examples(100)
@given(files(), st.sampled_from(list(KeyState)), st.data())
def test_a_change_says_what_it_should_and_touches_nothing_else(
    file: tuple[str, list[str]], state: KeyState, data: st.DataObject
) -> None:
    content, ids = file
    before = {key.id: key.state for key in parse_keys(PATH, content.encode())}
    key_id = data.draw(st.sampled_from(ids))

    def after(changed: bytes) -> dict[str, KeyState]:
        return {key.id: key.state for key in parse_keys(PATH, changed)}

    stated, added = text(content).with_state(key_id, state), text(content).with_entry(Entry("APIadded", OTHER, state))
    assert after(stated) == {**before, key_id: state}
    assert after(added) == {**before, "APIadded": state}
    gone, come = changed_lines(content, stated)
    assert max(len(gone), len(come)) <= 2  # a line break may be added to the last one
    assert added.decode().replace("\r", "").count("# ") == content.count("# ")
    if len(ids) > 1:
        assert after(text(content).without(key_id)) == {name: old for name, old in before.items() if name != key_id}
