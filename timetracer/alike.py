"""Whether a live call is a recorded one in all but what may differ, and what it shows if it is.

Both calls' arguments are walked side by side. Everything must be equal, types included, but for
four freedoms, each of which is noted where it was needed:

    redacted   a placeholder stands for any one value of its type
    order      fields that have no order for the server, and the members of $in, $nin and $all
    unified    values that the program makes anew in each run; see `_pair` for when
    ignored    what lies at a path that the user named

`PLACES` tells what a place in the arguments means: whether the program writes there, and whether
the order of keys or members says anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field

from timetracer.bindings import Bindings, Born
from timetracer.codec import TAG_NAMES, dumps
from timetracer.evidence import Evidence, are_durations, made_token
from timetracer.model import Json
from timetracer.redaction import fits_placeholder, fits_text, placeholder_numbers
from timetracer.volatile import (
    SHORTEST,
    TIME,
    Token,
    is_object_id,
    is_piece,
    looks_made,
    may_hold_made,
    replace,
    skeleton,
    split,
)

REDACTED, ORDER, UNIFIED, IGNORED = "redacted", "order", "unified", "ignored"

Pattern = tuple[str, ...]

# ------------------------------------------------------------------------------------- places


@dataclass(frozen=True, slots=True)
class Place:
    """What a place in a call's arguments means.

    Attributes:
        writes: whether the program stores what stands here.
        free: whether keys, or a list's members, may come in another order.
        bounds: whether what stands here is only a bound that stored values are compared with.
        names: whether a dict here names fields to give: those that are computed come in its order.
        inside: key -> name of the place below it.
        other: name of the place below any other key, and of a list's members.
        operators: name of the place that this is where all keys begin with "$".
    """

    writes: bool = False
    free: bool = False
    bounds: bool = False
    names: bool = False
    inside: dict[str, str] = field(default_factory=dict)
    other: str = "plain"
    operators: str = ""


_BOUNDS = dict.fromkeys(("$lt", "$lte", "$gt", "$gte"), "bound")

PLACES: dict[str, Place] = {
    "call": Place(
        free=True,
        inside={
            "filter": "filter",
            "document": "document",
            "documents": "documents",
            "replacement": "document",
            "update": "update",
            "array_filters": "filters",
            "pipeline": "pipeline",
            "requests": "operations",
            "models": "operations",
            "projection": "projection",
        },
    ),
    "plain": Place(inside=_BOUNDS),
    "filter": Place(
        free=True,
        inside=dict.fromkeys(("$and", "$or", "$nor"), "filters"),
        other="condition",
    ),
    "upserted": Place(
        writes=True,
        free=True,
        inside=dict.fromkeys(("$and", "$or", "$nor"), "filters"),
        other="equality",
    ),
    "equality": Place(writes=True, operators="operators", other="stored"),
    "filters": Place(other="filter"),
    "condition": Place(operators="operators"),
    "operators": Place(
        free=True,
        inside={
            **dict.fromkeys(("$in", "$nin", "$all"), "members"),
            **_BOUNDS,
            "$not": "condition",
            "$elemMatch": "filter",
        },
    ),
    "members": Place(free=True),
    "bound": Place(bounds=True, other="bound"),
    "document": Place(writes=True, free=True, other="stored"),
    "documents": Place(writes=True, other="document"),
    "stored": Place(writes=True, other="stored"),
    "update": Place(
        free=True,
        inside={
            **dict.fromkeys(("$pop", "$unset", "$rename", "$min", "$max"), "plain"),
            "$pull": "pulled",
            "$pullAll": "all pulled",
        },
        other="document",
    ),
    "pulled": Place(operators="operators", other="pulled"),
    "all pulled": Place(other="members"),
    "pipeline": Place(other="stage"),
    "stage": Place(inside={"$match": "filter", "$project": "projection"}),
    "projection": Place(free=True, names=True),
    "operations": Place(other="operation"),
    "operation": Place(
        inside={
            "InsertOne": "inserting",
            "ReplaceOne": "inserting",
            "UpdateOne": "updating",
            "UpdateMany": "updating",
            "DeleteOne": "updating",
            "DeleteMany": "updating",
        }
    ),
    "inserting": Place(free=True, inside={"doc": "document", "filter": "filter"}),
    "updating": Place(
        free=True, inside={"doc": "update", "filter": "filter", "array_filters": "filters"}
    ),
}


ROOTS = {"GRIDFS_NEW_FILE": PLACES["document"]}
"""Operation -> what its arguments as a whole mean, where they are no named arguments."""


def _place(place: Place, value: Json) -> Place:
    """Return what a place means for the dict that stands there."""
    if place.operators and value and all(map(_is_operator, value)):
        return PLACES[place.operators]
    return place


def _is_computed(named: Json) -> bool:
    return type(named) in (dict, list, str)


def _is_operator(key: str) -> bool:
    return key.startswith("$") and key not in TAG_NAMES


def _below(place: Place, key: str) -> Place:
    return place if key == "$escaped" else PLACES[place.inside.get(key, place.other)]


def has_writes(arguments: Json) -> bool:
    """Tell whether a call's arguments hold anything that the program stores."""
    return any(name in arguments for name in _WRITING)


_WRITING = ("document", "documents", "replacement", "update", "requests", "models")


def place_name(path: Iterable[str]) -> str:
    """Return a place in a call's arguments, named as it is in every run of the same program: with
    "*" for the items of a list, and without what made-up values stand for in keys."""
    return _INDEX.sub("*", skeleton(".".join(steps_to_value(path))))


def steps_to_value(path: Iterable[str]) -> list[str]:
    """Return a path without the tags in which values are written, such as "$oid"."""
    steps: list[str] = []
    for step in path:
        if step in _VALUE_TAGS:
            break
        steps.append(step)
    return steps


_VALUE_TAGS = TAG_NAMES - {"$escaped"}
_INDEX = re.compile(r"(?<![^.])\d+(?![^.])")


# ------------------------------------------------------------------------------------- the walk


class Fit:
    """One comparison of a live call with a recorded one.

    Args:
        bindings: what is bound by now.
        evidence: who made the values of the two calls.
        placeholders: placeholder number -> live value, as bound by now.
        was_given: tells whether the program was shown a recorded value, or asked for it itself.
        is_first: tells whether no earlier recorded call or answer holds a recorded text.
        method: the operation.
        writes: whether the call as a whole writes, for the names of what it is called on.
        ignore: paths to leave out.
        shared: gives the placeholders with what other cassettes of the run have shown, too.
        upserted: the upserts that found no document, and stored what their filter asks for: "" for
            the call itself, else the number of the operation.

    Attributes:
        needed: the freedoms that were needed.
        born: the bindings that the calls show, as recorded and live value.
        placeholders: with those that the calls show.
        by_look: the fields whose values were bound only because the program stores them.
        looks: those values.
        times: the times of the calls, as recorded and live value, also those that are the same.
    """

    _notes_places = False
    """Whether something is noted of each place, so that none is passed over."""

    def __init__(
        self,
        bindings: Bindings,
        evidence: Evidence,
        placeholders: dict[str, Json],
        was_given: Callable[[str], bool],
        is_first: Callable[[str], bool] = lambda text: True,
        *,
        method: str = "",
        writes: bool = False,
        ignore: tuple[Pattern, ...] = (),
        shared: Callable[[], Mapping[str, Json]] = dict,
        upserted: Container[str] = (),
    ) -> None:
        self.needed: set[str] = set()
        self.by_look: set[str] = set()
        self.looks: set[str] = set()
        self.born = Born()
        self.placeholders = placeholders
        self._shared = shared
        self._bindings = bindings
        self._evidence = evidence
        self._was_given = was_given
        self._is_first = is_first
        self._root = ROOTS.get(method, PLACES["call"])
        self._kept: set[str] = set()
        self._writes = Place(writes=writes)
        self._ignore = ignore
        self._upserted = upserted
        self._path: list[str] = []
        self.times: list[tuple[Token, Token]] = []
        self._numbers: list[tuple[float, float]] = []
        self._stored: dict[tuple[str, str], list[tuple[Token, Token]]] = {}

    @property
    def looked(self) -> set[str]:
        """The recorded values that those which are bound by their look stand for."""
        return {recorded.key for recorded, live in self.born if live.key in self.looks}

    def fits(self, recorded: Json, live: Json, recorded_url: str, live_url: str) -> bool:
        """Tell whether two calls' arguments, and the names they are called on, are alike."""
        return (
            self._text(recorded_url, live_url, self._writes)
            and self._value(recorded, live, self._root)
            and (not self._numbers or are_durations(self._numbers, self.times))
        )

    def _value(self, recorded: Json, live: Json, place: Place, key: str = "") -> bool:
        kind = type(recorded)
        if kind is dict and "$redacted" in recorded and key != "$escaped":
            return self._secret(fits_placeholder, recorded, live, place)
        if kind is not type(live):
            return False
        if kind is dict:
            return self._mapping(recorded, live, _place(place, recorded))
        if kind is list:
            return (self._members if place.free else self._items)(recorded, live, place)
        if kind is str:
            return self._text(recorded, live, place, is_base64=key == "base64")
        if recorded == live and not self._bindings.tells_times_apart:
            return True
        if kind not in (int, float):
            return bool(recorded == live)
        return self._text(repr(recorded), repr(live), place) or (
            kind is float and place.writes and self._may_be_duration(recorded, live)
        )

    def _may_be_duration(self, recorded: float, live: float) -> bool:
        """Note two numbers that are alike if they are how long it was between two times of their
        calls, which is known once all times are."""
        self._numbers.append((recorded, live))
        self.needed.add(UNIFIED)
        return True

    def _mapping(self, recorded: dict[str, Json], live: dict[str, Json], place: Place) -> bool:
        if self._ignore:
            recorded, live = self._left(recorded), self._left(live)
        if len(recorded) != len(live):
            return False
        names, asked = list(recorded), list(live)
        if names != asked:
            aligned = self._aligned(recorded, live, place)
            if aligned is None:
                return False
            names, asked = aligned
        if not all(self._name(one, two, place) for one, two in zip(names, asked, strict=True)):
            return False
        for name, other in zip(names, asked, strict=True):
            one, two = recorded[name], live[other]
            if _is_plainly_same(one, two):
                continue
            self._path.append(name)
            alike = self._value(one, two, self._below(place, name), name)
            self._path.pop()
            if not alike:
                return False
        return True

    def _below(self, place: Place, name: str) -> Place:
        """Return what the place means that a key leads to, which is the end of the path."""
        below = _below(place, name)
        if below is PLACES["filter"] and name == "filter":
            operation = ".".join(self._path[1:2])  # ["filter"], ["requests", "0", ..., "filter"]
            return PLACES["upserted"] if operation in self._upserted else below
        return below

    def _aligned(
        self, recorded: dict[str, Json], live: dict[str, Json], place: Place
    ) -> tuple[list[str], list[str]] | None:
        """Return the keys of both, those that belong together at the same place."""
        if not place.free:
            pairs = list(zip(recorded, live, strict=True))
        else:
            rest = [key for key in live if key not in recorded]
            pairs = [(key, key if key in live else "") for key in recorded]
            if sum(other == "" for _, other in pairs) != len(rest):
                return None
            left = iter(rest)
            pairs = [(key, other or next(left)) for key, other in pairs]
            if [other for _, other in pairs] != list(live):
                self.needed.add(ORDER)
        if place.names:
            computed = [other for one, other in pairs if _is_computed(recorded[one])]
            if computed != [key for key in live if _is_computed(live[key])]:
                return None
        return [one for one, _ in pairs], [other for _, other in pairs]

    def _name(self, recorded: str, live: str, place: Place) -> bool:
        """Compare two keys."""
        return (recorded == live and not may_hold_made(live)) or self._text(recorded, live, place)

    def _items(self, recorded: list[Json], live: list[Json], place: Place) -> bool:
        if len(recorded) != len(live):
            return False
        below = PLACES[place.other]
        for number, (one, other) in enumerate(zip(recorded, live, strict=True)):
            self._path.append(str(number))
            alike = self._value(one, other, below)
            self._path.pop()
            if not alike:
                return False
        return True

    def _members(self, recorded: list[Json], live: list[Json], place: Place) -> bool:
        """Compare lists whose order says nothing: what is known first, then what was made, in the
        order in which it was made."""
        if len(recorded) != len(live):
            return False
        waiting: dict[str, list[Json]] = {}
        for one in recorded:
            waiting.setdefault(dumps(one).decode(), []).append(one)
        pairs, rest = [], []
        for other in live:
            same = waiting.get(replace(dumps(other).decode(), self._recorded_key))
            if same:
                pairs.append((same.pop(), other))
            else:
                rest.append(other)
        left = [one for ones in waiting.values() for one in ones]
        left.sort(key=self._evidence.recorded_order)
        rest.sort(key=self._evidence.live_order)
        pairs += zip(left, rest, strict=True)
        if pairs != list(zip(recorded, live, strict=True)):
            self.needed.add(ORDER)
        below = PLACES[place.other]
        return all(self._value(one, other, below) for one, other in pairs)

    def _recorded_key(self, live: Token) -> str | None:
        known = self._bindings.recorded(live)
        return known[0] if len(known) == 1 else None

    def _secret(
        self, fits: Callable[..., bool], recorded: Json, live: Json, place: Place
    ) -> bool:
        """Compare what a placeholder stands for: what is asked for is what another cassette of the
        run has shown; what is written may be new."""
        self.needed.add(REDACTED)
        if not place.writes:
            shared = self._shared()
            for number in placeholder_numbers(recorded):
                if number in shared:
                    self.placeholders.setdefault(number, shared[number])
        before = len(self.placeholders)
        return fits(recorded, live, self.placeholders) and not self._is_known_secret(before)

    def _is_known_secret(self, before: int) -> bool:
        """Tell whether what placeholders came to stand for is what another one stands for already:
        two of the recording's are not the same one. Times may be, which are cut to milliseconds."""
        values = list(self.placeholders.values())
        return any(
            value in values[:before] and not (type(value) is dict and "$date" in value)
            for value in values[before:]
        )

    # ------------------------------------------------------------------------- texts

    def _text(
        self, recorded: str, live: str, place: Place, *, is_base64: bool = False
    ) -> bool:
        if "[redacted:" in recorded:
            return self._secret(fits_text, recorded, live, place)
        if not may_hold_made(recorded):
            return recorded == live
        plain, found = split(recorded, is_base64=is_base64)
        if recorded == live:
            return all(self._is_itself(token, place) for token in found)
        again = self._stored.get((recorded, live)) if place.writes else None
        if again is not None:
            self.born.again(again)
            return True
        other, asked = split(live, is_base64=is_base64)
        if plain != other or len(found) != len(asked):
            return False
        before = len(self.born)
        alike = all(self._pair(one, two, place) for one, two in zip(found, asked, strict=True))
        if alike and place.writes and self._holds_only_times(found):
            self._stored[recorded, live] = self.born.pairs[before:]
        return alike

    def _holds_only_times(self, found: Iterable[Token]) -> bool:
        """Tell whether two texts are alike wherever the program stores them, if they are once: many
        documents are stored at one time."""
        of_any_place = not (self._notes_places or self._evidence.learned)
        return of_any_place and all(token.kind == TIME for token in found)

    def _is_itself(self, token: Token, place: Place) -> bool:
        if token.kind == TIME:
            self.times.append((token, token))
            return self._is_one_time(token, place)
        self._kept.add(token.key)
        return not self.born.changes(token) and self._bindings.is_itself(token)

    def _known(self, recorded: Token) -> str | None:
        born = self.born.live(recorded)
        if born is not None:
            return born
        return self._bindings.live(recorded, is_made=self._evidence.made_token(recorded))

    def _pair(self, recorded: Token, live: Token, place: Place) -> bool:
        """Tell whether a live value stands for a recorded one, by now or from now on.

        It does if it was bound to it. A binding is born only where neither value is bound yet and
        the program was not shown the recorded one, and then by evidence that each process made its
        value, or where the program stores it: there a consistent renaming of what is read later
        harms nothing. In a filter the look of a value is never enough, unless another recording
        has shown that the value of this very call is made anew in each run.
        """
        if recorded.text == live.text:
            return self._is_itself(recorded, place)
        if recorded.form != live.form or recorded.key == live.key:
            return False
        alike = self._moment if recorded.kind == TIME else self._identity
        if not alike(recorded, live, place):
            return False
        if recorded.kind == TIME:
            self.times.append((recorded, live))
        self.needed.add(UNIFIED)
        return True

    def _identity(self, recorded: Token, live: Token, place: Place) -> bool:
        known = self._known(recorded)
        if known is None:
            if not self._is_born(recorded, live, place):
                return False
        elif known != live.key:
            return False
        by_look = live.key in self.looks or live.key in self._bindings.run.looks
        if by_look and place.writes:
            self._note_look(live)
        return True

    def _is_born(self, recorded: Token, live: Token, place: Place) -> bool:
        """Bind a recorded value that has no live one yet, if nothing stands against it."""
        stands_for = self.born.recorded(live)
        free = not stands_for and self._bindings.is_free(live, is_made=made_token(live))
        stands_for = stands_for or self._bindings.recorded(live)
        if stands_for and recorded.key not in stands_for:
            if not free:
                return False
            stands_for = ()
        born = bool(stands_for) or self._may_be_born(recorded, live, place)
        if born:
            if is_object_id(recorded) and self._inverts(recorded, live):
                self._note_look(live)
            self.born.add(recorded, live)
        return born

    def _inverts(self, recorded: Token, live: Token) -> bool:
        """Tell whether ObjectIds that are bound stand in another order in the two runs."""
        return self._bindings.inverts(recorded, live) or self.born.inverts(recorded, live)

    def _may_be_born(self, recorded: Token, live: Token, place: Place) -> bool:
        if not self._kept.isdisjoint((recorded.key, live.key)) or not self._is_first(recorded.text):
            return False
        if self._evidence.both_made(recorded, live):
            if is_piece(recorded):
                return self._are_pieces_of_one(recorded, live, place)
            return not (self._was_given(recorded.key) or self._was_given(live.key))
        if self._was_given(recorded.key) or self._was_given(live.key):
            return False
        if self._is_learned():
            return True
        looks = looks_made(recorded) and looks_made(live)
        if not (place.writes and looks) or self._evidence.tells_its_maker(recorded):
            return False
        self.looks.add(live.key)
        return True

    def _note_look(self, live: Token) -> None:
        """Note where the program stores a value that is known by its look alone."""
        steps = steps_to_value(self._path)[1:]
        names = ".".join(step for step in steps if not step.startswith("$")).split(".")
        self.by_look.update(name for name in names if name and not name.isdigit())
        self.looks.add(live.key)

    def _are_pieces_of_one(self, recorded: Token, live: Token, place: Place) -> bool:
        """Tell whether what two pieces are of stands for each other."""
        wholes = self._evidence.wholes(recorded, live)
        if wholes is None or wholes[0].key == recorded.key:
            return wholes is not None and not self._was_given(recorded.key)
        return self._identity(*wholes, place)

    def _moment(self, recorded: Token, live: Token, place: Place) -> bool:
        """Tell whether a live time stands for a recorded one.

        Two times read one after the other are the same millisecond in one run and not in the
        other: so a bound may be a new time that is written as a known one is. Two known times are
        told apart, and any known one where it is asked for itself.
        """
        if self._bindings.was_bound(recorded, live):
            if place.writes and self._bindings.shown(recorded) != live.key:
                self.born.add(recorded, live)  # what the run has shown since was another test's
            return self._is_one_time(recorded, place)
        known = (
            bool(self._bindings.recorded(live)) or self._was_given(live.text),
            self._bindings.shown(recorded) is not None or self._was_given(recorded.text),
        )
        if not place.writes and (all(known) if place.bounds else any(known)):
            return False
        made = self._evidence.both_made(recorded, live) or (
            place.writes and self._evidence.same_day(recorded, live)
        )
        if not (made or self._is_learned()):
            return False
        self.born.add(recorded, live)
        return True

    def _is_one_time(self, recorded: Token, place: Place) -> bool:
        return place.writes or place.bounds or self._bindings.is_one_time(recorded)

    def _is_learned(self) -> bool:
        """Tell whether another recording has shown that the value here is made anew."""
        learned = self._evidence.learned
        return bool(learned) and place_name(self._path) in learned

    # ------------------------------------------------------------------------- ignored

    def _left(self, mapping: dict[str, Json]) -> dict[str, Json]:
        left = {
            key: item
            for key, item in mapping.items()
            if not is_ignored((*self._path, key), self._ignore)
        }
        if len(left) < len(mapping):
            self.needed.add(IGNORED)
        return left


def _is_plainly_same(recorded: Json, live: Json) -> bool:
    """Tell whether two values are the same, and nothing that may be made up."""
    kind = type(recorded)
    if kind is not type(live) or kind is dict or kind is list or recorded != live:
        return False
    if kind is str:
        return len(recorded) < SHORTEST
    return kind not in (int, float) or abs(recorded) < _LEAST_EPOCH


_LEAST_EPOCH = 10**9


def is_ignored(path: tuple[str, ...], ignore: tuple[Pattern, ...]) -> bool:
    """Tell whether a path is one of those that the user named; "*" stands for one step.

    A key such as "address.city" is two steps, as it is in the user's path.
    """
    steps = ".".join(path).split(".")
    return any(
        len(pattern) == len(steps)
        and all(wanted in ("*", step) for wanted, step in zip(pattern, steps, strict=True))
        for pattern in ignore
    )


def without_ignored(json: Json, ignore: tuple[Pattern, ...], path: tuple[str, ...] = ()) -> Json:
    """Return JSON without what lies at ignored paths."""
    if type(json) is dict:
        return {
            key: without_ignored(item, ignore, (*path, key))
            for key, item in json.items()
            if not is_ignored((*path, key), ignore)
        }
    if type(json) is list:
        return [without_ignored(item, ignore, (*path, str(n))) for n, item in enumerate(json)]
    return json
