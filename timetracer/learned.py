"""What `timetracer learn` has shown, as the header of a cassette keeps it.

    "session": {..., "learned": [
        {"method": "FIND_ONE", "url": "shop.locks", "path": "filter.key", "events": [2, 7]}]}

Each row is a place in the arguments of certain events whose value another recording of the program
has shown to be made anew in each run. Only there may a replay bind a value that nobody saw being
made. `with_learned` puts rows into a cassette's bytes and leaves all others as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from timetracer.codec import dumps
from timetracer.errors import CassetteFormatError
from timetracer.model import Json


@dataclass(frozen=True, slots=True)
class LearnedPlace:
    """A row of `session.learned`.

    Attributes:
        method: the operation, such as "FIND_ONE".
        url: the namespace, without what made-up values stand for.
        path: the place in the arguments, as `alike.place_name` names it; "" for the namespace.
        events: the numbers of the events.
    """

    method: str
    url: str
    path: str
    events: tuple[int, ...]

    def to_json(self) -> dict[str, Json]:
        """Return the row as JSON."""
        return {
            "method": self.method,
            "url": self.url,
            "path": self.path,
            "events": list(self.events),
        }


def learned_rows(session: Mapping[str, Any], cassette: str) -> list[LearnedPlace]:
    """Return what a cassette's session says was learned.

    Args:
        session: the header's "session".
        cassette: the cassette's path, for errors.

    Raises:
        CassetteFormatError: a row is damaged.
    """
    try:
        return [
            LearnedPlace(
                str(row["method"]),
                str(row["url"]),
                str(row["path"]),
                tuple(int(number) for number in row["events"]),
            )
            for row in session.get("learned") or ()
        ]
    except (LookupError, TypeError, ValueError) as error:
        raise CassetteFormatError(
            f"{cassette}: session.learned is damaged ({type(error).__name__}: {error}). Remove it, "
            "and run `timetracer learn` again.",
            path=cassette,
        ) from None


def learned_places(session: Mapping[str, Any], cassette: str) -> dict[int, frozenset[str]]:
    """Return the learned places by the number of their event; arguments as `learned_rows`."""
    places: dict[int, set[str]] = {}
    for row in learned_rows(session, cassette):
        for number in row.events:
            places.setdefault(number, set()).add(row.path)
    return {number: frozenset(names) for number, names in places.items()}


def merged(rows: Iterable[LearnedPlace]) -> list[LearnedPlace]:
    """Return rows with those of the same place made one, in the order of their first events."""
    events: dict[tuple[str, str, str], set[int]] = {}
    for row in rows:
        events.setdefault((row.method, row.url, row.path), set()).update(row.events)
    made = [LearnedPlace(*place, tuple(sorted(numbers))) for place, numbers in events.items()]
    return sorted(made, key=lambda row: row.events)


# ------------------------------------------------------------------------------------- in the bytes


def with_learned(data: bytes, rows: Iterable[LearnedPlace]) -> bytes:
    """Return a cassette's bytes with `session.learned` set; all other bytes stay as they are.

    Args:
        data: a whole cassette, in any layout.
        rows: what was learned.
    """
    text = data.decode()
    learned = dumps([row.to_json() for row in rows]).decode()
    events = text.index("{") + 1
    for found in _members(text, text.index("{")):
        if found.key == "session":
            break
        if found.key == "events":
            events = found.start
    else:
        return _replaced(text, events, events, f'"session": {{"learned":{learned}}},\n')
    if text[found.value] != "{":
        return _replaced(text, found.value, found.end, f'{{"learned":{learned}}}')
    inside = {one.key: one for one in _members(text, found.value)}
    old = inside.get("learned")
    if old is not None:
        return _replaced(text, old.value, old.end, learned)
    end = max((one.end for one in inside.values()), default=found.value + 1)
    return _replaced(text, end, end, f'{"," if inside else ""}"learned":{learned}')


class _Member(NamedTuple):
    """A key of an object in JSON text: where it starts, and where its value does and ends."""

    key: str
    start: int
    value: int
    end: int


_decoder = json.JSONDecoder()
_space = re.compile(r"[ \t\r\n]*")


def _members(text: str, start: int) -> Iterator[_Member]:
    """Yield the keys of the object that starts at a place of JSON text, which is whole."""
    place = _after_space(text, start + 1)
    while text[place] != "}":
        key, colon = _decoder.raw_decode(text, place)
        value = _after_space(text, _after_space(text, colon) + 1)
        _, end = _decoder.raw_decode(text, value)
        yield _Member(key, place, value, end)
        place = _after_space(text, end)
        if text[place] == ",":
            place = _after_space(text, place + 1)


def _after_space(text: str, place: int) -> int:
    found = _space.match(text, place)
    assert found is not None
    return found.end()


def _replaced(text: str, start: int, end: int, new: str) -> bytes:
    return (text[:start] + new + text[end:]).encode()
