"""Has a server process do something at an exact moment of its start: when it imports a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_HOOK = """\
import os, resource, signal, sys, time

def spin(*_):
    while True:
        pass

def my_turn():
    for name in os.listdir({tokens!r}):
        try:
            os.unlink(os.path.join({tokens!r}, name))
            return True
        except FileNotFoundError:
            pass
    return False

class Moment:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            if my_turn():
                exec({code!r}, globals())

if {command!r} in sys.orig_argv:
    sys.meta_path.insert(0, Moment())
"""


def at_import(folder: Path, module: str, code: str, *, command: str = "serve", times: int = 1) -> Path:
    """A folder for PYTHONPATH, with which the command runs `code` when it is about to import the module.

    The first `times` processes that come there run it. `os`, `signal`, `time` and an endless `spin` are at hand.
    """
    tokens = folder / "tokens"
    tokens.mkdir(parents=True)
    for number in range(times):
        (tokens / str(number)).touch()
    (folder / "sitecustomize.py").write_text(
        _HOOK.format(module=module, code=code, command=command, tokens=str(tokens))
    )
    return folder
