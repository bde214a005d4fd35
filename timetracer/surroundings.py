"""What is around a run and none of its program's making: directories, the host, xdist's worker.

What a program stores or asks for of these is another text in each run and on each machine. The
cassette tells what was around the recording, as far as its calls hold it; in replay the run's own
stands for it: in calls, and in answers once a call has shown it. `LOOKS` is the table.

A worker's name is part of databases' names, and absent from them where nothing runs in parallel. So
those are told by what is left of them without it.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from timetracer.codec import dumps

_DIRECTORY = r"(?:(?<![\w./\\-])|(?<=://)){}(?![\w.-])"
_WORD = r"(?<![0-9A-Za-z]){}(?![0-9A-Za-z])"

LOOKS = {
    "basetemp": _DIRECTORY,
    "rootdir": _DIRECTORY,
    "cwd": _DIRECTORY,
    "home": _DIRECTORY,
    "host": _WORD,
    "testrun": _WORD,
    "worker": _WORD,
    "database": r"(?<![\w-]){}(?![\w-])",
}
"""What it is -> how it stands in a text. A database's name is never told, it is in the cassette's
calls."""

WORKER, _DATABASE, _ALONE = "worker", "database", "master"
"""The last is what xdist calls the one process of a run that has no workers."""

_LEAST_HOST = 6


# ------------------------------------------------------------------------------- this run


def _environment(name: str, otherwise: str | None = None) -> Callable[[], str | None]:
    return lambda: os.environ.get(name, otherwise)


@lru_cache(1)
def _host() -> str | None:
    """Return the host's name; None for one that may well be another word in a document."""
    name = socket.gethostname()
    return name if len(name) >= _LEAST_HOST and re.search(r"[\d.-]", name) else None


def _home() -> str | None:
    home = os.environ.get("HOME") or os.path.expanduser("~")
    return home if os.path.dirname(home) != home else None


_STARTED_IN = os.getcwd() if os.path.isdir(os.curdir) else None

_finders: dict[str, Callable[[], str | None]] = {
    "cwd": lambda: _STARTED_IN,
    "home": _home,
    "host": _host,
    "testrun": _environment("PYTEST_XDIST_TESTRUNUID"),
    WORKER: _environment("PYTEST_XDIST_WORKER", _ALONE),
}


def watch(name: str, find: Callable[[], str | None]) -> None:
    """Have cassettes tell of something more; of two that are the same, the last that is watched.

    Args:
        name: its name in `LOOKS`.
        find: gives it, None as long as there is none.
    """
    others = dict(_finders)
    _finders.clear()
    _finders.update({name: find, **others})


def unwatch(name: str) -> None:
    """Undo `watch`."""
    _finders.pop(name, None)


class Around(NamedTuple):
    """Something that is around a run.

    Attributes:
        name: what it is, a key of `LOOKS`.
        value: its text.
        within: the same as it stands in a JSON string.
    """

    name: str
    value: str
    within: str


def around_now() -> tuple[Around, ...]:
    """Return what is around this run just now."""
    found = ((name, find()) for name, find in _finders.items())
    return tuple(
        Around(name, value, _within(value)) for name, value in found if value and len(value) > 1
    )


def held_by(text: str, around: Iterable[Around]) -> dict[str, str]:
    """Return what is around a run, by name, as far as a text holds it.

    Args:
        text: JSON text of a call, and what it is called on.
        around: what is around the run.
    """
    found: dict[str, str] = {}
    for name, value, within in around:
        if within in text and value not in found.values() and _pattern(name, within).search(text):
            found[name] = value
    return found


def worker() -> str:
    """Return the name of xdist's worker that this process is."""
    return _now(WORKER) or _ALONE


def _now(name: str) -> str | None:
    return _finders[name]() if name in _finders else None


# ------------------------------------------------------------------------------- another run


class Pair(NamedTuple):
    """A text that was around a recording, and what is in its place now; as within JSON strings."""

    name: str
    recorded: str
    live: str


class Shown:
    """What the calls of this run have shown: which pairs stand for each other, and which recorded
    texts the program uses itself, so that nothing stands for them."""

    def __init__(self) -> None:
        self.pairs: set[Pair] = set()
        self.literals: set[str] = set()

    def forget(self) -> None:
        """Begin anew, as a new process does."""
        self.pairs.clear()
        self.literals.clear()

    def in_place(self, text: bytes) -> bytes:
        """Return an answer's JSON text with what is around this run; the same object where there is
        nothing to do."""
        known = [
            pair
            for pair in self.pairs
            if pair.recorded not in self.literals and pair.recorded.encode() in text
        ]
        if not known:
            return text
        plain = text.decode(errors="surrogateescape")
        for pair in sorted(known, key=lambda pair: len(pair.recorded), reverse=True):
            plain = _exchanged(pair.name, pair.recorded, pair.live, plain)
        return plain.encode(errors="surrogateescape")


class Surroundings:
    """What was around a recording, beside what is around this run.

    Args:
        told: what the cassette's header tells of its recording.
        databases: gives the names of the databases in it.
        shown: what the calls of this run have shown.

    Attributes:
        recorder: the worker of xdist that recorded it.
    """

    def __init__(
        self, told: Mapping[str, Any], databases: Callable[[], Iterable[str]], shown: Shown
    ) -> None:
        self._told = {name: str(value) for name, value in told.items() if name in LOOKS}
        self._shown = shown
        self._databases = databases
        self.recorder = self._told.get(WORKER, _ALONE)

    @cached_property
    def _by_bare_name(self) -> dict[str, str]:
        """The databases that may have been named after another worker."""
        if self.recorder == worker():
            return {}
        return {bare_name(name, self.recorder): name for name in self._databases()}

    @property
    def concern(self) -> bool:
        """Whether anything that was around the recording is, or may be, another thing now."""
        return self.recorder != worker() or any(
            _now(name) != value for name, value in self._told.items() if name != WORKER
        )

    def may_be_in(self, call: bytes) -> bool:
        """Tell whether a call may hold what is another thing in the recording.

        Args:
            call: the call's key, and what it is called on.
        """
        texts = [text for name, told in self._told.items() for text in (told, _now(name)) if text]
        if self.recorder != worker():
            texts.append(worker())
            texts += [bare for bare, name in self._by_bare_name.items() if bare != name]
        return any(text.encode() in call for text in texts)

    def of_recording(self, text: str) -> tuple[str, tuple[Pair, ...]]:
        """Return a call's JSON text as it was recorded, and the pairs that this took."""
        used = []
        for pair in (*self._pairs(), *self._renamed(text)):
            changed = _exchanged(pair.name, pair.live, pair.recorded, text)
            if changed != text:
                used.append(pair)
                text = changed
        return text, tuple(used)

    def note_asked(self, text: str) -> None:
        """Note what a call names literally that was around the recording."""
        for pair in self._pairs():
            if pair.recorded in text and _pattern(pair.name, pair.recorded).search(text):
                self._shown.literals.add(pair.recorded)

    def note_used(self, pairs: Iterable[Pair]) -> None:
        """Note the pairs of a call that was answered."""
        self._shown.pairs.update(pairs)

    def _pairs(self) -> list[Pair]:
        """Return the pairs of texts, the longer ones first: one directory may hold another."""
        found = []
        for name, recorded in self._told.items():
            live = _now(name)
            if live is not None and live != recorded and _ALONE not in (live, recorded):
                found.append(Pair(name, _within(recorded), _within(live)))
        return sorted(found, key=lambda pair: len(pair.live), reverse=True)

    def _renamed(self, text: str) -> Iterator[Pair]:
        """Yield the databases that a call names and that were named after another worker."""
        for name in dict.fromkeys(_NAME.findall(text)) if self._by_bare_name else ():
            recorded = self._by_bare_name.get(bare_name(name, worker()), name)
            if recorded != name:
                yield Pair(_DATABASE, recorded, name)


_NAME = re.compile(r"(?<![\w-])[\w-]+(?![\w-])")


def bare_name(name: str, of_worker: str) -> str:
    """Return a database's name without that of a worker of xdist in it.

    Args:
        name: the name, or a namespace.
        of_worker: the worker's name, such as "gw0".
    """
    return _named_after(re.escape(of_worker)).sub("", name) or name


def without_worker(name: str) -> str:
    """Return a database's name, or a namespace, without that of whichever worker in it."""
    return _named_after("gw[0-9]+").sub("", name) or name


@lru_cache(64)
def _named_after(word: str) -> re.Pattern[str]:
    return re.compile(
        rf"[_-]{word}(?![0-9A-Za-z])|(?<![0-9A-Za-z]){word}(?:[_-]|(?![0-9A-Za-z]))"
    )


def _exchanged(name: str, old: str, new: str, text: str) -> str:
    return text if old not in text else _pattern(name, old).sub(lambda match: new, text)


@lru_cache(256)
def _pattern(name: str, text: str) -> re.Pattern[str]:
    return re.compile(LOOKS[name].format(re.escape(text)))


@lru_cache(64)
def _within(text: str) -> str:
    return dumps(text).decode("utf-8", "replace")[1:-1]
