"""What one process of a test makes, the others know: an id goes from a test to a program it starts.

The processes share a file, to which each appends a line for what it makes: its id, what kind of
thing it is, and the keys. Elsewhere nothing is shared, and nothing is written.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

PROCESS, VALUE = "process", "value"
"""What a line tells of: the digits in all ObjectIds of its process, or the keys of a value."""

_MOST_TOLD = 20_000


@dataclass(slots=True)
class _Shared:
    path: str = ""
    number: int = -1
    read: int = 0
    told: int = 0


_shared = _Shared()


def join(path: str) -> None:
    """Share what is made from now on.

    Args:
        path: the file, which is there.

    Raises:
        OSError: it cannot be written.
    """
    global _shared
    leave()
    _shared = _Shared(path, os.open(path, os.O_WRONLY | os.O_APPEND))


def leave() -> None:
    """Share nothing any more."""
    global _shared
    if _shared.path:
        os.close(_shared.number)
    _shared = _Shared()


def tell(what: str, *keys: str) -> None:
    """Tell the other processes of what this one has made.

    Args:
        what: `PROCESS` or `VALUE`.
        keys: the digits, or the keys by which the value may be met.
    """
    if _shared.path and _shared.told < _MOST_TOLD:
        _shared.told += 1
        line = " ".join((str(os.getpid()), what, *keys))
        with contextlib.suppress(OSError):
            os.write(_shared.number, line.encode() + b"\n")


def news() -> Iterator[tuple[str, list[str]]]:
    """Yield what other processes have told since this was asked last: `PROCESS` or `VALUE`, and
    the keys."""
    if not _shared.path:
        return
    mine = str(os.getpid())
    for line in _new_lines():
        pid, what, *keys = line.split()
        if pid != mine:
            yield what, keys


def _new_lines() -> list[str]:
    try:
        if os.stat(_shared.path).st_size == _shared.read:
            return []
        with open(_shared.path, "rb") as file:
            file.seek(_shared.read)
            data = file.read()
    except OSError:  # the suite has ended
        return []
    whole = data[: data.rfind(b"\n") + 1]
    _shared.read += len(whole)
    return whole.decode().splitlines()
