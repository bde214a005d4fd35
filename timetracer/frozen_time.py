"""Time as the program sees it may stand elsewhere than time as the recorder measures it.

Timetracer moves it when the setting `freeze_time` asks for it: the replayed program runs at the
moment at which it was recorded. A program may do so itself, with a library that is a row of
`LIBRARIES`, when it is recorded and when it is replayed; then it is left alone. What the recorder
measures is real in either case: `now()` and `perf_counter()`.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import import_module
from typing import Any

from timetracer.errors import ConfigError
from timetracer.model import Json


@dataclass(frozen=True, slots=True)
class Library:
    """A row of the table: a library that moves a program's time.

    Attributes:
        module: what of it is imported when it may be at work.
        works: whether it moves time now, of the module.
        time: the real `time.time()`, of the module.
        perf_counter: the real `time.perf_counter`, of the module; None where it is left alone.
    """

    module: str
    works: Callable[[Any], bool]
    time: Callable[[Any], float]
    perf_counter: Callable[[Any], Any] | None = None


OURS = "time_machine"
LIBRARIES = (
    Library(
        OURS,
        lambda module: module.escape_hatch.is_travelling(),
        lambda module: module.escape_hatch.time.time(),
    ),
    Library(
        "freezegun.api",
        lambda module: bool(module.freeze_factories),
        lambda module: module.real_time(),
        lambda module: module.real_perf_counter,
    ),
)


def _imported() -> Iterator[tuple[Library, Any]]:
    for row in LIBRARIES:
        module = sys.modules.get(row.module)
        if module is not None:
            yield row, module


def now() -> float:
    """Return the real time, in seconds since 1970."""
    for row, module in _imported():
        if row.works(module):
            return row.time(module)
    return time.time()


def is_moved() -> bool:
    """Return whether the program's time is not the real one now."""
    return any(row.works(module) for row, module in _imported())


def _real_perf_counter() -> Callable[[], float]:
    for row, module in _imported():
        if row.perf_counter is not None:
            return functools.partial(row.perf_counter(module))
    return functools.partial(time.perf_counter)


perf_counter = _real_perf_counter()
"""`time.perf_counter`, which freezegun replaces wherever it finds it: this it does not find."""


# ------------------------------------------------------------------------------- freeze_time


class Moment:
    """A time at which a program runs; it goes on from there.

    Args:
        library: time-machine.
        timestamp: in seconds since 1970.
    """

    def __init__(self, library: Any, timestamp: float) -> None:
        self._library = library
        self._timestamp = timestamp
        self._began: float | None = None
        self._travel: Any = None

    def enter(self) -> None:
        """Go there, unless the program has moved its time itself."""
        if self._began is None:
            self._began = perf_counter()
        if _is_moved_by_program():
            return
        since = perf_counter() - self._began
        self._travel = self._library.travel(self._timestamp + since, tick=True)
        self._travel.start()
        _entered.append(self)

    def leave(self) -> None:
        """Come back; no harm where nothing was moved."""
        if self not in _entered:
            return
        inner = _entered[_entered.index(self) + 1 :]
        for moment in [*reversed(inner), self]:
            moment._travel.stop()  # the library comes back from where it went last
            _entered.remove(moment)
        for moment in inner:
            moment.enter()


_entered: list[Moment] = []


def _is_moved_by_program() -> bool:
    ours = OURS if _entered else None
    return any(row.works(module) for row, module in _imported() if row.module != ours)


def open_moment(freeze: bool, session: Mapping[str, Json]) -> Moment | None:
    """Return the moment of a replayed session, to be entered and left; None where none is asked
    for, or the cassette has none.

    Args:
        freeze: the setting `freeze_time`.
        session: what the cassette says of its session.

    Raises:
        ConfigError: the library that moves time is not installed.
    """
    if not freeze:
        return None
    try:
        library = import_module(OURS)
    except ImportError:
        raise ConfigError(
            "The setting freeze_time needs the package time-machine, which is not installed.\n"
            "Install it with Timetracer: pip install 'timetracer[freeze]'",
            setting="freeze_time",
            source="session",
        ) from None
    recorded = session.get("frozen_at") or session.get("recorded_at")
    timestamp = _timestamp(recorded)
    return Moment(library, timestamp) if timestamp is not None else None


def _timestamp(text: Json) -> float | None:
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except (AttributeError, ValueError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
