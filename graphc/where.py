"""Where in the user's code a node was written.

A location is the first frame outside graphc's three packages: file, line and function; inside a notebook the
cell's number. Capturing one costs microseconds, so every node has one.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
from dataclasses import dataclass
from types import CodeType

_PACKAGE_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OWN_FOLDERS = tuple(os.path.join(_PACKAGE_ROOT, name) + os.sep for name in ("graphc", "passes", "runtime"))
_is_own: dict[str, bool] = {}


@dataclass(frozen=True, slots=True)
class Location:
    """A place in source text: ``file`` as Python names it, 1-based ``line``, and the ``function``."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        cell = _notebook_cell(self.file)
        place = f"cell {cell}, line {self.line}" if cell else f"{_short(self.file)}:{self.line}"
        return place if self.function == "<module>" else f"{place} in {self.function}"


UNKNOWN = Location("<unknown>", 0, "<module>")
_interned: dict[tuple[str, int, str], Location] = {}


def _own_code(code: CodeType) -> bool:
    file = code.co_filename
    own = _is_own.get(file)
    if own is None:
        own = _is_own[file] = file.startswith(_OWN_FOLDERS) or os.path.abspath(file).startswith(_OWN_FOLDERS)
    return own


def _short(file: str) -> str:
    with contextlib.suppress(ValueError):
        relative = os.path.relpath(file)
        if not relative.startswith(".."):
            return relative
    return file


def _notebook_cell(file: str) -> str | None:
    """Number of the notebook cell that ``file`` stands for, when it is one."""
    if file.startswith("<ipython-input-"):
        return file.split("-")[2]
    if "ipykernel_" in file and "IPython" in sys.modules:
        shell = sys.modules["IPython"].get_ipython()
        names: dict[str, object] = getattr(getattr(shell, "compile", None), "_filename_map", {})
        number = names.get(file)
        return str(number) if number is not None else None
    return None


Origin = tuple[Location | None, str]  # where new nodes are said to come from, and in which role

_origin: contextvars.ContextVar[Origin | None] = contextvars.ContextVar("graphc_origin", default=None)


class derived_from:  # noqa: N801 - used as a function is; passes enter one for every node, so it is no generator
    """Give nodes built inside the block the location ``where`` (None: their own) and the ``role`` of a transform."""

    __slots__ = ("_made", "_token")

    def __init__(self, where: Location | None, role: str) -> None:
        self._made = (where, role)

    def __enter__(self) -> None:
        self._token = _origin.set(self._made)

    def __exit__(self, *error: object) -> None:
        _origin.reset(self._token)


def capture() -> tuple[Location, str]:
    """Location and role for a node being made now."""
    origin = _origin.get()
    if origin is None:
        return caller(), "forward"
    where, role = origin
    return where or caller(), role


def caller() -> Location:
    """The first frame outside graphc's packages."""
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if not _own_code(code):
            key = (code.co_filename, frame.f_lineno, code.co_name)
            location = _interned.get(key)
            if location is None:
                location = _interned[key] = Location(*key)
            return location
        if frame.f_back is None:
            break
        frame = frame.f_back
    return UNKNOWN
