"""Where in the program a driver call was made: noted in a fraction of a microsecond, told later.

    code, offset = here()      while the call is made: a code object and a place in it
    site_of(code, offset)      when somebody asks: file, line and function

The driver, Timetracer and what carries calls between threads and tasks are passed over, then the
program's own frame counts more than one of an installed library, such as an object mapper's.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import sysconfig
from contextvars import ContextVar
from importlib import util
from types import CodeType, FrameType

from timetracer.errors import CallSite

_PASSED_OVER = ("timetracer", "pymongo", "motor", "bson", "gridfs", "wrapt")
_DEEPEST = 40
_INSTALLED = re.compile(r"[\\/](?:site|dist)-packages[\\/]")
_PROGRAM, _LIBRARY, _PASSED = "program", "library", "passed over"

ASKED: ContextVar[tuple[CodeType | None, int]] = ContextVar("timetracer_asked", default=(None, 0))
"""What `here` gave where a call was handed to the thread that makes it."""

_kinds: dict[str, str] = {}
"""File name -> whose it is; a look-up for each frame is all that a call pays."""


def here(up: int = 1) -> tuple[CodeType | None, int]:
    """Return where the program is just now: the code that runs, and the offset of an instruction
    in it; None and 0 where no code but the driver's is on the stack.

    Args:
        up: how many frames, the caller's among them, are known not to be the program's: those
            are passed over at once.
    """
    frame: FrameType | None
    try:
        frame = sys._getframe(up)
    except ValueError:  # a thread that begins with the call itself
        return ASKED.get()
    library: tuple[CodeType | None, int] = (None, 0)
    deepest = _DEEPEST
    while frame is not None and deepest:
        code = frame.f_code
        kind = _kinds.get(code.co_filename) or _kind_of(code.co_filename)
        if kind is _PROGRAM:
            return code, frame.f_lasti
        if kind is _LIBRARY and library[0] is None:
            library = code, frame.f_lasti
        frame = frame.f_back
        deepest -= 1
    return library if library[0] is not None else ASKED.get()


def is_importing() -> bool:
    """Tell whether a module is imported just now in this thread."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "_find_and_load" and code.co_filename == _IMPORTLIB:
            return True
        frame = frame.f_back
    return False


_IMPORTLIB = "<frozen importlib._bootstrap>"


def site_of(code: CodeType | None, offset: int) -> CallSite | None:
    """Return the file, line and function of what `here` noted, None where it noted none."""
    if code is None:
        return None
    line = code.co_firstlineno
    for start, end, number in code.co_lines():
        if start <= offset < end and number is not None:
            line = number
    return CallSite(_shown(code.co_filename), line, code.co_name)


def _shown(file: str) -> str:
    """Return a path as a reader finds it: relative where it lies below the working directory."""
    try:
        relative = os.path.relpath(file)
    except (OSError, ValueError):  # no working directory any more, or another drive
        return file
    return file if relative.startswith(os.pardir) else relative


def _kind_of(file: str) -> str:
    kind = _kinds[file] = _look_up(file)
    return kind


def _look_up(file: str) -> str:
    if file.startswith(_carriers()):
        return _PASSED
    if file.startswith(("<frozen ", "<attrs ")) or _INSTALLED.search(file):
        return _LIBRARY
    return _LIBRARY if file.startswith(_standard_library()) else _PROGRAM


@functools.cache
def _carriers() -> tuple[str, ...]:
    """The directories whose frames make no calls of their own."""
    found = []
    for name in _PASSED_OVER:
        with contextlib.suppress(Exception):  # not installed, or a test's stand-in
            found += list(util.find_spec(name).submodule_search_locations)  # type: ignore
    library = _standard_library()
    found += [os.path.join(library, name) for name in ("asyncio", "concurrent")]
    return (*(os.path.join(place, "") for place in found), os.path.join(library, "threading.py"))


@functools.cache
def _standard_library() -> str:
    return sysconfig.get_path("stdlib")
