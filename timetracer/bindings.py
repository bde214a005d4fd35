"""Which live value stands for which recorded one, as far as the run has shown.

A binding is born by a call that fits a recorded one but for made-up values, and holds from then on:
later calls are compared through it, and answers are given with the live value in place of the
recorded one. Ids are one to one in the whole run, across cassettes; tokens within one cassette;
times may be bound anew, since they are cut to milliseconds or seconds.
"""

from __future__ import annotations

import re
from bisect import bisect, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import repeat
from threading import RLock
from typing import Any

from timetracer.surroundings import Shown, without_worker
from timetracer.volatile import (
    ID,
    TIME,
    Token,
    found_in_line,
    is_object_id,
    replace,
    replace_in_reprs,
)


@dataclass(slots=True)
class _Table:
    """Pairs of a recorded and a live value, found from either side. A run has as many as its
    program makes values, so they are kept in what the garbage collector does not look through."""

    live: dict[str, str] = field(default_factory=dict)
    recorded: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def put(self, recorded: str, live: str) -> None:
        self.live[recorded] = live
        _add(self.recorded, live, recorded)


def _add(to: dict[str, tuple[str, ...]], live: str, recorded: str) -> None:
    """Note that a live value stands for a recorded one, too."""
    known = to.get(live, ())
    if recorded not in known:
        to[live] = (*known, recorded)


@dataclass(slots=True)
class Born:
    """The bindings that the comparison of two calls has shown so far, found from either side.

    Attributes:
        pairs: recorded and live value, in the order in which they were met.
    """

    pairs: list[tuple[Token, Token]] = field(default_factory=list)
    _live: dict[str, str] = field(default_factory=dict)
    _recorded: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _changed: set[str] = field(default_factory=set)
    _highest: tuple[str, str] = ("", "")

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.pairs)

    def __iter__(self) -> Iterator[tuple[Token, Token]]:
        """Yield the pairs."""
        return iter(self.pairs)

    def add(self, recorded: Token, live: Token) -> None:
        """Add a pair."""
        self.pairs.append((recorded, live))
        _add(self._recorded, live.key, recorded.key)
        if recorded.kind != TIME:
            self._live.setdefault(recorded.key, live.key)
            self._changed |= {recorded.key, live.key}
        if is_object_id(recorded):
            self._highest = max(self._highest[0], recorded.key), max(self._highest[1], live.key)

    def again(self, pairs: Iterable[tuple[Token, Token]]) -> None:
        """Note that pairs were met again: of several live times for one, the last stands for it."""
        self.pairs += pairs

    def cut(self, count: int) -> None:
        """Forget all pairs but the first ones."""
        left = self.pairs[:count]
        self.pairs, self._live, self._recorded, self._changed = [], {}, {}, set()
        self._highest = ("", "")
        for pair in left:
            self.add(*pair)

    def live(self, recorded: Token) -> str | None:
        """Return the key of the value that stands for a recorded one; None for none, or a time."""
        return self._live.get(recorded.key)

    def recorded(self, live: Token) -> tuple[str, ...]:
        """Return the keys of the recorded values that a live one stands for."""
        return self._recorded.get(live.key, ())

    def changes(self, value: Token) -> bool:
        """Tell whether a value stands for another one, or another one for it."""
        return value.key in self._changed

    def inverts(self, recorded: Token, live: Token) -> bool:
        """Tell whether two ObjectIds stand in another order to some that are here."""
        if recorded.key > self._highest[0] and live.key > self._highest[1]:
            return False
        return any(
            (one.key < recorded.key) is not (other.key < live.key)
            for one, other in self.pairs
            if is_object_id(one)
        )


@dataclass(slots=True)
class Run:
    """The bindings of all cassettes that this process replays.

    Attributes:
        lock: held while a call is compared and its bindings are born.
        owners: recorded value -> path of the cassette whose call bore its binding.
        used: the events that answered calls and are not looked through yet.
        births: how many bindings were born.
        wrote: whether a write of data was replayed.
        indexes: the indexes that were made in replay, by namespace and keys.
        by_look: the fields, by namespace, whose values were bound only because the program stores
            them.
        looks: those values.
        looked: the recorded values that they stand for.
        shown: what is around the run in place of what was around its recordings.
        unchanged: values that a live run beside a recording has shown to be the same in both.
    """

    lock: RLock = field(default_factory=RLock)
    pairs: _Table = field(default_factory=_Table)
    owners: dict[str, str] = field(default_factory=dict)
    used: list[Any] = field(default_factory=list)
    births: int = 0
    wrote: bool = False
    indexes: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    by_look: dict[str, set[str]] = field(default_factory=dict)
    looks: set[str] = field(default_factory=set)
    looked: set[str] = field(default_factory=set)
    shown: Shown = field(default_factory=Shown)
    unchanged: set[str] = field(default_factory=set)
    _given: set[str] = field(default_factory=set)

    def was_given(self, key: str) -> bool:
        """Tell whether the program knows a value as it was recorded: it was in an answer, or the
        program asked for it itself. No other value can stand for it."""
        used, self.used = self.used, []
        for event in used:
            self._given.update(found_in_line(event.line).keys)
        return key in self._given and key not in self.owners

    def note_by_look(
        self, url: str, fields: set[str], values: set[str], recorded: set[str]
    ) -> None:
        """Note fields whose values were bound only because the program stores them, and the live
        and recorded values."""
        self.by_look.setdefault(url, set()).update(fields)
        self.looks |= values
        self.looked |= recorded

    def fields_by_look(self, url: str, *, beside: bool = False) -> set[str]:
        """Return the fields of a collection, of a database's collections or of all, that hold such
        values.

        Args:
            url: the namespace.
            beside: whether those of the other collections of its database count.
        """
        if url == "*":
            return set().union(*self.by_look.values())
        if "." in url and not beside:
            return self.by_look.get(url, set())
        database = url.partition(".")[0] + "."
        return set().union(
            *(names for where, names in self.by_look.items() if where.startswith(database))
        )

    def fields_of_collection(self, url: str) -> set[str]:
        """Return the fields of a collection that hold such values, or of the same one in the
        database of another worker of xdist."""
        bare = without_worker(url)
        return set().union(
            *(names for where, names in self.by_look.items() if without_worker(where) == bare)
        )

    def note_used(self, event: Any) -> None:
        """Keep an event whose answer the program is given."""
        self.used.append(event)
        if len(self.used) >= _MOST_WAITING:
            self.was_given("")

    def forget(self) -> None:
        """Begin anew, as a new process does."""
        self.wrote = False
        self.indexes.clear()
        self.pairs = _Table()
        self.owners.clear()
        self.used.clear()
        self.shown.forget()
        self.unchanged.clear()
        self.by_look.clear()
        self.looks.clear()
        self.looked.clear()
        self._given.clear()


_MOST_WAITING = 10_000
_ID_FIELD = re.compile(r'("_id":(?:"(?:[^"\\]|\\.)*"|-?\d+|\{"\$[a-zA-Z]+":"[^"]*"\}))')
"""A document's id in JSON text, with its name."""


def _documents_in(line: bytes) -> list[str]:
    """Return what names the documents in an event: their ids, and any that look made up."""
    ids = _ID_FIELD.findall(line.decode("utf-8", "replace"))
    return list(dict.fromkeys((*ids, *found_in_line(line).ids)))


RUN = Run()


class Bindings:
    """The bindings that one loaded cassette sees: its own, then the run's.

    A cassette that is loaded again is replayed by a program that makes new values again, so what an
    earlier replay of it bound does not hold it back.

    Args:
        path: the cassette's path.
        run: the run's bindings.
        of_test: whether it is the cassette of a test, which clears away what others stored.
    """

    def __init__(self, path: str, run: Run = RUN, *, of_test: bool = False) -> None:
        self.path = path
        self.run = run
        self.of_test = of_test
        self._own = _Table()
        self._ordered: list[tuple[str, str]] = []
        self._bore: dict[str, tuple[str, list[Any]]] = {}
        self._times: dict[str, dict[str, str]] = {}
        self._named: dict[Any, list[str]] = {}

    @property
    def any(self) -> bool:
        """Whether anything is bound at all."""
        return bool(self.run.pairs.live)

    def live(self, recorded: Token, *, is_made: bool = False) -> str | None:
        """Return the key of the value that stands for a recorded one, None where none must.

        Args:
            recorded: the recorded value.
            is_made: whether its process was seen to make it, and so no equal one.
        """
        own = self._own.live.get(recorded.key)
        if own is not None:
            return own
        shared = self.run.pairs.live.get(recorded.key)
        return None if shared is None or self._may_rebind(recorded, is_made) else shared

    def recorded(self, live: Token) -> tuple[str, ...]:
        """Return the keys of the recorded values that a live one stands for."""
        own = self._own.recorded.get(live.key)
        return own if own is not None else self.run.pairs.recorded.get(live.key, ())

    def is_free(self, live: Token, *, is_made: bool = False) -> bool:
        """Tell whether a live value may stand for yet another recorded one. A test's digest may:
        that those of two tests are the same may come of when each was made.

        Args:
            live: the live value.
            is_made: whether this process was seen to make it, and so no equal one.
        """
        other = not is_made and live.kind != ID and self.of_test
        return other and live.key not in self._own.recorded

    def was_bound(self, recorded: Token, live: Token) -> bool:
        """Tell whether the run has shown that the one stands for the other."""
        return recorded.key in self.run.pairs.recorded.get(live.key, ())

    def _may_rebind(self, recorded: Token, is_made: bool) -> bool:
        if recorded.kind != ID and not is_made and self.of_test:
            return True
        return self.run.owners.get(recorded.key) == self.path

    def inverts(self, recorded: Token, live: Token) -> bool:
        """Tell whether two ObjectIds stand in another order to those before them, in the cassette:
        a server that sorts by them, or asks for a range, gives another answer."""
        place = bisect(self._ordered, (recorded.key, live.key))
        before = self._ordered[place - 1] if place else ("", "")
        after = self._ordered[place] if place < len(self._ordered) else ("g", "g")
        return not before[1] <= live.key <= after[1]

    def bear(self, pairs: Iterable[tuple[Token, Token]]) -> None:
        """Bind live values to recorded ones, for this cassette and for the run.

        Args:
            pairs: recorded value and live value.
        """
        for recorded, live in pairs:
            if is_object_id(recorded):
                insort(self._ordered, (recorded.key, live.key))
            self._own.put(recorded.key, live.key)
            self.run.pairs.put(recorded.key, live.key)
            self.run.owners.setdefault(recorded.key, self.path)
            self.run.births += 1

    def note_times(self, pairs: Iterable[tuple[Token, Token]], event: Any) -> None:
        """Keep apart what one recorded time stands for in several documents: two that were stored
        in one second may be stored in two.

        Args:
            pairs: recorded and live time, of a call.
            event: the event that answers it, whose ids are those of its documents.
        """
        for recorded, live in dict.fromkeys(pairs):
            if recorded.key not in self._bore:  # what was the same in both runs bore nothing
                same = event.used_before_with(recorded.text)
                self._bore[recorded.key] = (recorded.key if same else live.key, same)
            moment, events = self._bore[recorded.key]
            if moment == live.key:
                events.append(event)
                continue
            for other, one in (*zip(repeat(moment), events), (live.key, event)):
                for name in self._documents_of(one):
                    self._times.setdefault(name, {})[recorded.key] = other
            self._bore[recorded.key] = ("", [])  # each its own from now on

    @property
    def tells_times_apart(self) -> bool:
        """Whether some recorded time stands for several live ones, each in documents of its own."""
        return bool(self._times)

    def is_one_time(self, recorded: Token) -> bool:
        """Tell whether a recorded time that documents hold stands for one live time: else the
        server would find others by it than were recorded."""
        moment, _ = self._bore.get(recorded.key, (recorded.key, []))
        return moment != ""

    def _documents_of(self, event: Any) -> list[str]:
        if event not in self._named:
            self._named[event] = _documents_in(event.line)
        return self._named[event]

    def _shown_in_documents(self, text: str) -> str:
        """Return a text with live values, the times of each document its own."""
        document: dict[str, str] = {}

        def shown(token: Token) -> str | None:
            nonlocal document
            if token.kind == ID:
                document = self._times.get(token.key, document)
            return document.get(token.key) or self.shown(token)

        filled = []
        for part in _ID_FIELD.split(text):
            document = self._times.get(part, document)
            filled.append(replace(part, shown))
        return "".join(filled)

    def with_live_values_in(self, text: bytes) -> bytes:
        """Return recorded JSON text with the live values in place of the recorded ones; the same
        object where there is nothing to do."""
        if self.run.shown.pairs:
            text = self.run.shown.in_place(text)
        if not self.any:
            return text
        plain = text.decode(errors="surrogateescape")
        filled = self._shown_in_documents(plain) if self._times else replace(plain, self.shown)
        if "Binary(b" in plain:
            filled = replace_in_reprs(filled, self.shown)
        return text if filled == plain else filled.encode(errors="surrogateescape")

    def shown(self, recorded: Token) -> str | None:
        """Return the key of the value that answers show for a recorded one, None for itself."""
        own = self._own.live.get(recorded.key)
        return own if own is not None else self.run.pairs.live.get(recorded.key)

    def is_itself(self, value: Token) -> bool:
        """Tell whether a value stands for no other one, and no other one for it."""
        if value.kind == TIME:
            return self.is_one_time(value)
        known, stands_for = self.live(value), self.recorded(value)
        if known not in (None, value.key):
            return False
        return not stands_for or value.key in stands_for or self.is_free(value)
