"""Directories that a run has for itself, such as that of pytest's `tmp_path`.

What a program stores of one is another text in each run. The cassette tells which directory the
recording had; in replay the run's own stands for it, in calls and in answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from timetracer.codec import dumps

_finders: dict[str, Callable[[], str | None]] = {}

Pairs = tuple[tuple[bytes, bytes], ...]


def watch(name: str, find: Callable[[], str | None]) -> None:
    """Have cassettes tell of a directory.

    Args:
        name: what it is called in a cassette's header, such as "basetemp".
        find: gives its path, None as long as nobody asked for it.
    """
    _finders[name] = find


def unwatch(name: str) -> None:
    """Undo `watch`."""
    _finders.pop(name, None)


def of_this_run() -> dict[str, str]:
    """Return the directories that this run has by now, by their names."""
    found = {name: find() for name, find in _finders.items()}
    return {name: path for name, path in found.items() if path}


def moved(session: Mapping[str, Any]) -> Pairs:
    """Return the directories that are others now, as JSON text within a string.

    Args:
        session: what a cassette's header tells of its session.

    Returns:
        Recorded and live path of each.
    """
    if not _finders:
        return ()
    live, recorded = of_this_run(), session.get("directories")
    told = recorded if isinstance(recorded, dict) else {}
    pairs = [(told[name], path) for name, path in live.items() if told.get(name, path) != path]
    return tuple((_within(str(one)), _within(other)) for one, other in pairs)


def _within(path: str) -> bytes:
    return dumps(path)[1:-1]


def replaced(text: bytes, pairs: Pairs, *, back: bool = False) -> bytes:
    """Return JSON text with the run's own directories in place of the recorded ones.

    Args:
        text: the text.
        pairs: recorded and live path of each.
        back: whether the recorded ones are to be in the place of the run's own.
    """
    for recorded, live in pairs:
        text = text.replace(live, recorded) if back else text.replace(recorded, live)
    return text
