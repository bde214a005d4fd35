"""What this process's replays left: every miss, and every cassette opened with what stayed unused.

    misses()                every miss, also those that the application swallowed
    clear_misses()          forget them
    report()                misses, and the unused events of each cassette
    orphans(directory)      cassettes there that no process of the run has opened

Only facts are kept, no exceptions: those would keep every local variable of the program alive.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakSet

from timetracer import document, runs
from timetracer.errors import (
    CallSite,
    CassetteError,
    Difference,
    MissError,
    Remedy,
    SessionError,
    StrPath,
)
from timetracer.shared_parts import is_shared
from timetracer.stores import split_suffix
from timetracer.stores.files import FileStore

_MOST_MISSES = 1000
_OPENED = "opened"


@dataclass(frozen=True, slots=True)
class Miss:
    """One call that replay had no answer for.

    Attributes:
        error: the error's class, such as "MissError" or "ReadPastRecordingError".
        message: what it says, in several lines.
        method: the operation, such as "FIND_ONE"; "" outside driver calls.
        url: the namespace; "" outside driver calls.
        cassette: path of the cassette that was asked, None where none was.
        call_site: where the program made the call, None where that is not known.
        request: the HTTP request in which it was made, such as "GET /users/1", None outside one.
        nearest: number of the nearest event, None where nothing is near.
        differences: the places in which the call and that event differ.
        used_by: where the call was made that the nearest event had answered already.
        remedies: what may be done.
    """

    error: str
    message: str
    method: str
    url: str
    cassette: str | None
    call_site: CallSite | None
    request: str | None
    nearest: int | None
    differences: tuple[Difference, ...]
    used_by: CallSite | None
    remedies: tuple[Remedy, ...]


@dataclass(frozen=True, slots=True)
class UnusedEvent:
    """An event that answered no call.

    Attributes:
        cassette: path of its cassette.
        eid: its number there.
        method: the operation, such as "FIND_ONE".
        url: the namespace.
    """

    cassette: str
    eid: int
    method: str
    url: str


@dataclass(frozen=True, slots=True)
class CassetteUse:
    """What became of one cassette, however often this process opened it.

    Attributes:
        path: its path.
        events: how many events it holds.
        unused: those that answered no call in any of its openings.
    """

    path: str
    events: int
    unused: tuple[UnusedEvent, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What this process's replays left so far.

    Attributes:
        misses: the first misses, in their order.
        further_misses: how many more there were.
        cassettes: the cassettes that were read, in the order of their first opening.
    """

    misses: tuple[Miss, ...]
    further_misses: int
    cassettes: tuple[CassetteUse, ...]

    @property
    def unused(self) -> tuple[UnusedEvent, ...]:
        """The unused events of all cassettes."""
        return tuple(event for cassette in self.cassettes for event in cassette.unused)


@dataclass(slots=True)
class _Ledger:
    misses: list[Miss] = field(default_factory=list)
    further: int = 0
    opened: set[str] = field(default_factory=set)
    open_now: WeakSet[Any] = field(default_factory=WeakSet)
    uses: dict[str, CassetteUse] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.RLock)
    listeners: list[Callable[[Miss], None]] = field(default_factory=list)


_ledger = _Ledger()


def misses() -> tuple[Miss, ...]:
    """Return every miss of this process since it began or `clear_misses` was called: of all
    threads, requests and blocks, in their order, also those that the application swallowed.

    The first 1,000 are kept; `report().further_misses` counts the others.
    """
    with _ledger.lock:
        return tuple(_ledger.misses)


def clear_misses() -> None:
    """Forget the misses so far."""
    with _ledger.lock:
        _ledger.misses.clear()
        _ledger.further = 0


def report() -> Report:
    """Return what the replays of this process left: misses, and cassettes with unused events."""
    with _ledger.lock:
        for cassette in list(_ledger.open_now):
            _note_use(cassette)
        return Report(tuple(_ledger.misses), _ledger.further, tuple(_ledger.uses.values()))


def orphans(directory: StrPath) -> tuple[str, ...]:
    """Return the paths of the cassettes that no process of this run has read or written.

    To be asked at the end of a run, by one of its processes. Files that are no cassettes are left
    out, and so are recordings that were kept beside another to be accepted.

    Args:
        directory: where to look; the directories below it too.
    """
    store = FileStore(Path(directory))
    found = (store.locate(name) for name in store.names() if _is_cassette(store, name))
    return tuple(path for path in found if not is_opened(path))


def is_opened(path: str) -> bool:
    """Tell whether a process of this run has read or written a cassette."""
    return runs.is_claimed(_OPENED, os.path.abspath(path))


def _is_cassette(store: FileStore, name: str) -> bool:
    stem, suffix = split_suffix(name)
    if not suffix or ".unaccepted-" in stem or is_shared(name):
        return False
    try:
        return bool(document.header_of(store.read(name), store.locate(name)))
    except CassetteError:
        return False


# ------------------------------------------------------------------------------------- keeping


def keep_miss(error: MissError, request: str | None = None) -> None:
    """Keep a miss aside.

    Args:
        error: the miss; only facts of it are kept.
        request: the HTTP request in which it happened.
    """
    call, event = error.call, error.nearest
    kept = Miss(
        type(error).__name__,
        str(error),
        call.method if call is not None else "",
        call.url if call is not None else "",
        error.cassette,
        error.call_site,
        request,
        event.eid if event is not None else None,
        error.differences,
        error.used_by,
        error.remedies,
    )
    with _ledger.lock:
        if len(_ledger.misses) < _MOST_MISSES:
            _ledger.misses.append(kept)
        else:
            _ledger.further += 1
        for listener in _ledger.listeners:
            listener(kept)


def listen(listener: Callable[[Miss], None]) -> None:
    """Have each miss told as it happens.

    Args:
        listener: given the miss.
    """
    _ledger.listeners.append(listener)


def note_opened(path: str, cassette: Any = None) -> None:
    """Note that this run reads or writes a cassette.

    Args:
        path: its path.
        cassette: the loaded cassette, None for one that is only written.
    """
    place = os.path.abspath(path)
    with _ledger.lock:
        if cassette is not None:
            _ledger.open_now.add(cassette)
        if place in _ledger.opened:
            return
        _ledger.opened.add(place)
    with contextlib.suppress(SessionError):  # told where the run's processes need each other
        runs.claim(_OPENED, place)


def note_finished(cassette: Any) -> None:
    """Note which events of a cassette are unused, as its session ends."""
    with _ledger.lock:
        if cassette in _ledger.open_now:
            _note_use(cassette)


def _note_use(cassette: Any) -> None:
    path = cassette.path
    known = _ledger.uses.get(path)
    unused = cassette.unused
    if known is not None:
        before = {event.eid for event in known.unused}
        unused = [event for event in unused if event.eid in before]
    _ledger.uses[path] = CassetteUse(
        path,
        len(cassette.events),
        tuple(UnusedEvent(path, event.eid, event.method, event.url) for event in unused),
    )


def _forget() -> None:
    """A forked child's misses and cassettes are its own; what the run has opened stays opened."""
    global _ledger
    _ledger = _Ledger(opened=_ledger.opened)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
