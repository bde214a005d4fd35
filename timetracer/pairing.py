"""Which event of one recording is which event of another recording of the same program.

    pair_events(first, second)    pairs, and what has no counterpart
    moved(pairs)                  those that come in another order
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from timetracer.cassette import Event
from timetracer.matching import body_hash, masked_paths
from timetracer.nearest import find as find_nearest
from timetracer.volatile import skeleton

_COMPARED = 32  # how many events are looked at as the nearest one

_Key = Callable[[Event], Hashable]


@dataclass(slots=True)
class Pairing:
    """Which event of one recording is which of another.

    Attributes:
        pairs: in the order of the first.
        left: events of the first that have no counterpart.
        right: events of the second that have none.
    """

    pairs: list[tuple[Event, Event]] = field(default_factory=list)
    left: list[Event] = field(default_factory=list)
    right: list[Event] = field(default_factory=list)


def pair_events(first: Sequence[Event], second: Sequence[Event]) -> Pairing:
    """Pair the events of two recordings of the same program.

    Within one method and namespace, equal calls belong together, then calls that differ in made-up
    values only, then those that differ least; of equally good ones the earlier.

    Args:
        first: the events of the first recording, in recorded order.
        second: those of the second.
    """
    made = Pairing()
    ones, others = _by(first, _call_of), _by(second, _call_of)
    for call in [*ones, *(call for call in others if call not in ones)]:
        left, right = ones.get(call, []), others.get(call, [])
        for key in (_exactly, _roughly):
            left, right = _pair_by(key, left, right, made)
        made.right += _pair_nearest(left, right, made)
    made.pairs.sort(key=lambda pair: pair[0].eid)
    made.left.sort(key=_number)
    made.right.sort(key=_number)
    return made


def _number(event: Event) -> int:
    return event.eid


def _call_of(event: Event) -> tuple[str, str]:
    return event.method, skeleton(event.url)


def _exactly(event: Event) -> tuple[str, bytes | None]:
    return event.url, event.arguments_text


def _roughly(event: Event) -> str:
    arguments = event.arguments()
    if arguments is None or event.body_hash:
        return event.body_hash
    return body_hash(arguments, masked_paths(arguments))


def _by(events: Iterable[Event], key: _Key) -> dict[Hashable, list[Event]]:
    found: dict[Hashable, list[Event]] = {}
    for event in events:
        found.setdefault(key(event), []).append(event)
    return found


def _pair_by(
    key: _Key, left: list[Event], right: list[Event], made: Pairing
) -> tuple[list[Event], list[Event]]:
    """Pair events of equal keys in their order; return those that are left."""
    waiting = {name: deque(events) for name, events in _by(right, key).items()}
    alone = []
    for event in left:
        others = waiting.get(key(event))
        if others:
            made.pairs.append((event, others.popleft()))
        else:
            alone.append(event)
    return alone, sorted((one for events in waiting.values() for one in events), key=_number)


def _pair_nearest(left: list[Event], right: list[Event], made: Pairing) -> list[Event]:
    """Pair each event with the nearest of the earliest others; return those that are left."""
    waiting = list(right)
    for number, event in enumerate(left):
        if not waiting:
            made.left += left[number:]
            break
        other = _nearest(event, waiting[:_COMPARED])
        waiting.remove(other)
        made.pairs.append((event, other))
    return waiting


def _nearest(event: Event, others: list[Event]) -> Event:
    arguments = event.arguments()
    if arguments is None or len(others) == 1:
        return others[0]
    found = find_nearest(others, event, arguments, _call_of)  # type: ignore[arg-type]
    return found.event if found is not None else others[0]


def moved(pairs: Sequence[tuple[Event, Event]]) -> Iterator[tuple[Event, Event]]:
    """Yield as few pairs as can be without which the second recording has the first's order."""
    ends: list[int] = []  # of increasing runs, by their length
    last: list[int] = []
    before: list[int] = []
    for place, (_, other) in enumerate(pairs):
        length = bisect.bisect_left(ends, other.eid)
        before.append(last[length - 1] if length else -1)
        ends[length : length + 1] = [other.eid]
        last[length : length + 1] = [place]
    kept = set()
    place = last[-1] if last else -1
    while place >= 0:
        kept.add(place)
        place = before[place]
    yield from (pair for place, pair in enumerate(pairs) if place not in kept)
