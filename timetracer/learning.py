"""Two recordings of one program, side by side: what differs, and what that says of the program.

A value that looks made up and differs without evidence of its making is *learned*: noted in the
first cassette, so that a replay may bind what stands there. Whatever else differs is told, and
never left out of a comparison unless the user asks for it. `lessons.KINDS` are the ways.

The matcher's own walk (`alike.Fit`) compares the calls, so that what it would bind is no difference
here, and what it would refuse is one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from timetracer import document
from timetracer.alike import PLACES, Fit, Pattern, Place, has_writes, is_ignored, place_name
from timetracer.alike import steps_to_value as without_tags
from timetracer.bindings import Bindings, Run
from timetracer.cassette import Cassette, Event
from timetracer.codec import dumps
from timetracer.errors import ABSENT, Difference, LearnError, StrPath
from timetracer.evidence import Clock, Evidence, same_moment
from timetracer.learned import LearnedPlace, learned_rows, merged, with_learned
from timetracer.lessons import (
    ANSWERS,
    DERIVED,
    FIRST_ONLY,
    LEARNED,
    ORDER,
    PROPOSED,
    REORDERED,
    SECOND_ONLY,
    UNCLEAR,
    Change,
    Lesson,
    shown,
)
from timetracer.model import Json
from timetracer.nearest import differences
from timetracer.pairing import moved, pair_events
from timetracer.shared_parts import is_shared
from timetracer.stores import Store, split_suffix
from timetracer.stores.files import FileStore
from timetracer.volatile import TIME, Token, is_object_id, looks_made, skeleton, tokens

# ------------------------------------------------------------------------------------- two paths


def learn(first: StrPath, second: StrPath, ignore: Iterable[str] = ()) -> list[Lesson]:
    """Compare two recordings of the same program, and note what was learned in the first.

    Args:
        first: a cassette, or a directory of cassettes.
        second: the same of the other recording; cassettes of directories are paired by name.
        ignore: the places that replay ignores already, as in the setting `ignore`.

    Returns:
        One lesson for each pair, in the order in which the first ones were recorded; then one for
        each cassette without a counterpart.

    Raises:
        CassetteError: a cassette cannot be read or written.
        LearnError: there are no two recordings.
    """
    paired, alone = _paired(first, second)
    pairs = [(_Tape.read(*one), _Tape.read(*other)) for one, other in paired]
    pairs.sort(key=lambda pair: pair[0].recorded_at)
    known = _Known()
    patterns = tuple(tuple(path.split(".")) for path in ignore)
    lessons = []
    for one, other in pairs:
        lessons.append(_Comparison(one.cassette, other.cassette, patterns, known).lesson())
        one.note(lessons[-1].of_kind(LEARNED))
    return lessons + [Lesson(store.locate(name)) for store, name in alone]


_Kept = tuple[FileStore, str]


def _paired(first: StrPath, second: StrPath) -> tuple[list[tuple[_Kept, _Kept]], list[_Kept]]:
    """Return which cassettes belong together, and those that are alone."""
    directories = [os.path.isdir(path) for path in (first, second)]
    if not any(directories):
        return [(FileStore.for_path(first), FileStore.for_path(second))], []
    if not all(directories):
        raise LearnError(
            f"{first} and {second} are a directory and a file. Name two cassettes, or two "
            "directories whose cassettes have the same names."
        )
    ones, others = _by_stem(first), _by_stem(second)
    pairs = [(ones[stem], others[stem]) for stem in ones if stem in others]
    if not pairs:
        raise LearnError(
            f"No cassette of {first} has the name of one of {second}. Record the same program "
            "into both directories."
        )
    alone = ones.keys() ^ others.keys()
    return pairs, [kept for stem, kept in [*ones.items(), *others.items()] if stem in alone]


def _by_stem(directory: StrPath) -> dict[str, _Kept]:
    store = FileStore(Path(directory))
    return {split_suffix(name)[0]: (store, name) for name in cassette_names(store)}


def cassette_names(store: Store) -> list[str]:
    """Return the names of a store's cassettes, but for those that wait to be accepted."""
    return [
        name
        for name in store.names()
        if all(split_suffix(name)) and ".unaccepted-" not in name and not is_shared(name)
    ]


@dataclass(frozen=True, slots=True)
class _Tape:
    """A cassette, and where it is kept."""

    store: FileStore
    name: str
    cassette: Cassette

    @classmethod
    def read(cls, store: FileStore, name: str) -> _Tape:
        return cls(store, name, Cassette(store.read(name), store.locate(name)))

    @property
    def recorded_at(self) -> str:
        session = self.cassette.header.get("session") or {}
        return str(session.get("recorded_at") or "")

    def note(self, changes: Iterable[Change]) -> None:
        """Add what was learned to the file; every other byte of it stays."""
        session = self.cassette.header.get("session") or {}
        known = learned_rows(session, self.cassette.path)
        new = [LearnedPlace(one.method, one.url, one.path, one.events) for one in changes]
        rows = merged([*known, *new])
        if rows != merged(known):
            self.store.write(self.name, [with_learned(self.store.read(self.name), rows)])


# ------------------------------------------------------------------------------------- two tapes


@dataclass(slots=True)
class _Known:
    """What the pairs of events so far have shown, of all cassettes of the two recordings.

    Attributes:
        run: which value of the second recording stands for which of the first.
        given: what the program knows as it was recorded: the tokens of the first's events.
        answered: the tokens of the answers, the first's and the second's.
        asked_pairs: pairs of other values that differed first in what the program asked or wrote.
        answered_pairs: those that differed first in answers.
    """

    run: Run = field(default_factory=Run)
    given: set[str] = field(default_factory=set)
    answered: tuple[set[str], set[str]] = field(default_factory=lambda: (set(), set()))
    asked_pairs: set[tuple[str, str]] = field(default_factory=set)
    answered_pairs: set[tuple[str, str]] = field(default_factory=set)

    def was_given(self, key: str) -> bool:
        """Tell what `bindings.Run.was_given` would tell in a replay of the first."""
        return key in self.given and key not in self.run.owners

    def note_pair(self, one: Event, other: Event) -> None:
        """Take in two events that were compared."""
        for event, answered in zip((one, other), self.answered, strict=True):
            answered.update(token.key for token in tokens(_text(event.result_text)))
        self.given.update(token.key for token in tokens(_text(one.line)) if token.kind != TIME)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")


class _Comparison:
    """Two cassettes, compared event by event; see `Lesson` for what comes of it."""

    def __init__(
        self, first: Cassette, second: Cassette, ignore: tuple[Pattern, ...], known: _Known
    ) -> None:
        self.first = first
        self.second = second
        self.ignore = ignore
        self.known = known
        self.bindings = Bindings(first.path, known.run, of_test=first.bindings.of_test)
        self.placeholders: dict[str, Json] = {}
        self.explained = 0
        self._changes: dict[tuple[str, str, str, str], tuple[Any, Any, list[int]]] = {}

    def lesson(self) -> Lesson:
        """Compare, and return what it shows."""
        pairing = pair_events(self.first.events, self.second.events)
        for one, other in pairing.pairs:
            _Side(self, one, other).compare()
            self._compare_answers(one, other)
            self.known.note_pair(one, other)
        for kind, events in ((FIRST_ONLY, pairing.left), (SECOND_ONLY, pairing.right)):
            for event in events:
                self.note(kind, event, "", None, None)
        for one, other in moved(pairing.pairs):
            self.note(ORDER, one, "", one.eid, other.eid)
        session = self.first.header.get("session") or {}
        changes = (
            Change(*place, first, second, tuple(events))
            for place, (first, second, events) in self._changes.items()
        )
        return Lesson(
            self.first.path,
            self.second.path,
            compared=len(pairing.pairs),
            explained=self.explained,
            seeded=bool(session.get("entropy")),
            changes=tuple(changes),
        )

    def note(self, kind: str, event: Event, path: str, first: Any, second: Any) -> None:
        """Note one difference; those of the same place are one change."""
        place = (kind, event.method, skeleton(event.url), path)
        events = self._changes.setdefault(place, (first, second, []))[2]
        if events[-1:] != [event.eid]:
            events.append(event.eid)

    def _compare_answers(self, one: Event, other: Event) -> None:
        for found in differences(_answer(one), _answer(other)):
            pair = shown(found.recorded), shown(found.asked)
            if found.reordered:
                self.note(ANSWERS, one, f"{_pattern(found.path.split('.'))} (its order)", *pair)
            elif pair not in self.known.asked_pairs and not _is_made_up(found):
                self.known.answered_pairs.add(pair)
                path = _pattern(found.path.split("."))
                self.note(ANSWERS, one, path, found.recorded, found.asked)


def _answer(event: Event) -> dict[str, Json]:
    result = document.result_of(event.result_text, event.cassette.path, event.eid)
    return {key: result.get(key) for key in ("status", "body", "error")}


SERVERS_OWN = frozenset(
    ("$clusterTime", "operationTime", "electionId", "topologyVersion", "connectionId", "opTime")
)
"""Fields of replies that tell of the server and not of the data."""


def _is_made_up(found: Difference) -> bool:
    """Tell whether two answers differ in nothing but a value that is made anew each time."""
    if not SERVERS_OWN.isdisjoint(found.path.split(".")):
        return True
    recorded, asked = found.recorded, found.asked
    if ABSENT in (recorded, asked):
        return False
    if all(isinstance(value, dict) and "$timestamp" in value for value in (recorded, asked)):
        return True
    return skeleton(shown(recorded)) == skeleton(shown(asked))


def _pattern(path: Iterable[str]) -> str:
    """Return a place as an ignore path: with "*" for items of lists, and for made-up keys."""
    steps = ".".join(without_tags(path)).split(".")
    while len(steps) > 1 and steps[-1].isdigit():
        steps.pop()  # what is ignored is a key
    return ".".join("*" if one.isdigit() or skeleton(one) != one else one for one in steps)


# ------------------------------------------------------------------------------------- two events


@dataclass(frozen=True)
class RecordedTwice(Evidence):
    """What is known of the makers of the values of two recorded calls."""

    other: Evidence | None = None

    @classmethod
    def of(cls, one: Event, other: Event) -> RecordedTwice:
        ours = one.evidence()
        return cls(ours.process, ours.made, ours.at, ours.seen, ours.learned, other.evidence())

    @cached_property
    def clock_now(self) -> Clock:
        """The other recording process's clock at the call."""
        assert self.other is not None
        return self.other.clock

    def both_made(self, recorded: Token, live: Token) -> bool:
        """Tell whether each of two values was made by the process that used it."""
        assert self.other is not None
        if recorded.kind == TIME:
            return same_moment(recorded, live, self.clock, self.clock_now)
        if is_object_id(recorded) and self.made_object_id(recorded):
            return self.other.made_object_id(live)
        return recorded.key in self.made and live.key in self.other.made

    def wholes(self, recorded: Token, live: Token) -> tuple[Token, Token] | None:
        """Return what two pieces that were made are the beginning, or the end, of."""
        assert self.other is not None
        return self.wholes_among(recorded, live, self.other.made)

    def live_order(self, value: Json) -> tuple[int, str]:
        """Return what orders the second recording's values as they were made."""
        assert self.other is not None
        return self.other.recorded_order(value)


class _Side(Fit):
    """A walk through two calls as the matcher makes it, that notes what differs and goes on."""

    _notes_places = True

    def __init__(self, comparison: _Comparison, one: Event, other: Event) -> None:
        super().__init__(
            comparison.bindings,
            RecordedTwice.of(one, other),
            comparison.placeholders,
            comparison.known.was_given,
            writes=has_writes(one.arguments() or {}),
            ignore=comparison.ignore,
        )
        self._comparison = comparison
        self._known_pairs = comparison.known
        self._one = one
        self._other = other
        self._kind = PROPOSED
        self._learned = 0

    def compare(self) -> None:
        """Note every difference of the two calls, and what they bind."""
        recorded, live = self._one.arguments(), self._other.arguments()
        if not self._text(self._one.url, self._other.url, self._writes):
            self._note(self._one.url, self._other.url)
        if recorded is not None and live is not None:
            self._value(recorded, live, PLACES["call"])
        self._comparison.explained += len(self.born) - self._learned
        self._comparison.bindings.bear(self.born)

    def _note(self, recorded: Any, live: Any, kind: str = "") -> None:
        kind, self._kind = kind or self._kind, PROPOSED
        pair = shown(recorded), shown(live)
        if kind == PROPOSED and pair in self._known_pairs.answered_pairs:
            kind = DERIVED
        self._known_pairs.asked_pairs.add(pair)
        self._comparison.note(kind, self._one, _pattern(self._path), recorded, live)

    # ------------------------------------------------------------------------- the walk

    def _value(self, recorded: Json, live: Json, place: Place, key: str = "") -> bool:
        if not _same_secret(recorded, live) and not super()._value(recorded, live, place, key):
            self._note(recorded, live)
        return True

    def _mapping(self, recorded: dict[str, Json], live: dict[str, Json], place: Place) -> bool:
        lacking = [key for key in recorded if key not in live]
        further = [key for key in live if key not in recorded]
        if sorted(map(skeleton, lacking)) != sorted(map(skeleton, further)):
            for key in (*lacking, *further):
                self._note_key(key, recorded.get(key, ABSENT), live.get(key, ABSENT))
            recorded = {key: item for key, item in recorded.items() if key in live}
            live = {key: item for key, item in live.items() if key in recorded}
        if not place.free and recorded.keys() == live.keys() and list(recorded) != list(live):
            self._note(list(recorded), list(live), REORDERED)
            live = {key: live[key] for key in recorded}
        return super()._mapping(recorded, live, place)

    def _note_key(self, key: str, recorded: Any, live: Any) -> None:
        if not is_ignored((*self._path, key), self._ignore):
            self._path.append(key)
            self._note(recorded, live)
            self._path.pop()

    def _items(self, recorded: list[Json], live: list[Json], place: Place) -> bool:
        if recorded != live and sorted(map(dumps, recorded)) == sorted(map(dumps, live)):
            self._note(recorded, live, REORDERED)
            return True
        return super()._items(recorded, live, place)

    def _is_itself(self, token: Token, place: Place) -> bool:
        if super()._is_itself(token, place):
            return True
        self._kind = UNCLEAR
        return False

    def _pair(self, recorded: Token, live: Token, place: Place) -> bool:
        if super()._pair(recorded, live, place):
            return True
        if recorded.form != live.form or not (looks_made(recorded) and looks_made(live)):
            return False
        first, second = self._known_pairs.answered
        if self._stands_elsewhere(recorded, live):
            self._kind = UNCLEAR
            return False
        if not (recorded.key in first and live.key in second):
            if self._was_given(recorded.key) or self._was_given(live.key):
                self._kind = UNCLEAR
                return False
            path = place_name(self._path)
            self._comparison.note(LEARNED, self._one, path, recorded.text, live.text)
            self._learned += 1
        self.born.add(recorded, live)
        return True

    def _stands_elsewhere(self, recorded: Token, live: Token) -> bool:
        """Tell whether one of two values stands for another one already."""
        if recorded.key == live.key:
            return True
        for one, other in self.born:
            if (one.key == recorded.key) != (other.key == live.key):
                return True
        known, stands_for = self._bindings.shown(recorded), self._bindings.recorded(live)
        return known not in (None, live.key) or bool({*stands_for} - {recorded.key})


def _same_secret(recorded: Json, live: Json) -> bool:
    """Tell whether two values are secrets of the same type, of which neither is known."""
    secrets = [one["$redacted"] for one in (recorded, live) if _is_secret(one)]
    return len(secrets) == 2 and secrets[0].get("type") == secrets[1].get("type")


def _is_secret(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("$redacted"), dict)
