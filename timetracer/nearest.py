"""Which recorded event is nearest to a call that missed, and in which places the two differ.

Events of the same method and namespace come first, then those with the fewest differing leaves.
All events are ranked by the pieces that their JSON text shares with the call's; the best few are
then compared leaf by leaf.

    find(events, call, asked)       the nearest event, with all differences
    compare(event, asked)           the places in which a call differs from an event
    differences(recorded, asked)    the places in which two JSON values differ
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from heapq import nsmallest
from itertools import zip_longest
from typing import Any

from timetracer.alike import PLACES
from timetracer.bindings import Bindings
from timetracer.codec import TAG_NAMES, dumps, loads
from timetracer.errors import ABSENT, Difference
from timetracer.model import Call, Json
from timetracer.redaction import bind
from timetracer.volatile import replace

_COMPARED = 64
_COMPARED_BYTES = 2_000_000

# Between two fields of an object stands `,"`, and inside a string such a quote is escaped.
_OPENING = bytes.maketrans(b"{[", b",,")
_CLOSING = b"}]"
_BETWEEN = b',"'
_SPACED = b'": '


@dataclass(frozen=True, slots=True)
class Nearest:
    """The recorded event that is nearest to a call.

    Attributes:
        event: the event.
        same_call: whether it is of the same method and namespace; if not, nothing is compared.
        differences: every place in which their arguments differ.
    """

    event: Any
    same_call: bool
    differences: tuple[Difference, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether it is the same call with the same arguments."""
        return self.same_call and not self.differences

    @property
    def reordered(self) -> bool:
        """Whether nothing but the order of keys or list items differs."""
        return bool(self.differences) and all(one.reordered for one in self.differences)


def find(
    events: Iterable[Any],
    call: Call,
    asked: Json,
    key: Callable[[Any], Any] | None = None,
    bindings: Bindings | None = None,
) -> Nearest | None:
    """Return the event nearest to a call, None where none has its method or its namespace.

    Args:
        events: all events of a cassette, in recorded order.
        call: the call.
        asked: its arguments as JSON.
        key: gives what must be the same of an event and of the call; method and namespace if None.
        bindings: which values of this run stand for recorded ones; those are no difference.
    """
    known = list(events)
    group_of = key or _method_and_namespace
    wanted = group_of(call)
    same = [event for event in known if group_of(event) == wanted]
    text = _as_recorded(dumps(asked), bindings)
    if same:
        return _fewest(_ranked(same, text, _COMPARED), asked, bindings)
    kin = [event for event in known if event.method == call.method or event.url == call.url]
    best = _ranked(kin, text, 1, lambda event: event.url != call.url)
    return Nearest(best[0], same_call=False) if best else None


def _method_and_namespace(call: Any) -> tuple[str, str]:
    return call.method, call.url


def _as_recorded(text: bytes, bindings: Bindings | None) -> bytes:
    """Return JSON text with the recorded values in place of the live ones that stand for them."""
    if bindings is None or not bindings.any:
        return text
    known = bindings.recorded
    return replace(text.decode(), lambda token: next(iter(known(token)), None)).encode()


def _fewest(events: list[Any], asked: Json, bindings: Bindings | None) -> Nearest:
    best: tuple[tuple[int, int, bool], Nearest] | None = None
    compared = 0
    for event in events:
        found = tuple(compare(event, asked, bindings))
        rank = (len(found), sum(ABSENT in (one.recorded, one.asked) for one in found), event.used)
        if best is None or rank < best[0]:
            best = rank, Nearest(event, same_call=True, differences=found)
        compared += len(event.arguments_text or b"")
        if compared > _COMPARED_BYTES:
            break
    assert best is not None
    return best[1]


def _ranked(
    events: list[Any], text: bytes, count: int, further: Callable[[Any], Any] | None = None
) -> list[Any]:
    """Return the best events by the pieces their texts share with the call's: unused ones first,
    then in recorded order."""
    pieces = frozenset(_pieces(text))
    size = len(pieces)

    def rank(place: int) -> tuple[int, Any, bool, int]:
        event = events[place]
        others = _pieces(_text(event))
        differing = max(size, len(others)) - len(pieces.intersection(others))
        return differing, further(event) if further is not None else 0, event.used, place

    return [events[row[-1]] for row in nsmallest(count, map(rank, range(len(events))))]


def _pieces(text: bytes) -> list[bytes]:
    return text.translate(_OPENING, _CLOSING).split(_BETWEEN)


def _text(event: Any) -> bytes:
    text: bytes = event.arguments_text or b""
    return dumps(event.arguments()) if _SPACED in text else text  # written by hand


# ------------------------------------------------------------------------------------- differences


def compare(event: Any, asked: Json, bindings: Bindings | None = None) -> Iterator[Difference]:
    """Yield the places in which a call's arguments differ from an event's, in recorded order.

    A placeholder of redaction differs from no value of its type, unless it stands for another
    one already. An event that kept no arguments is compared by the keys of its filter.

    Args:
        event: the event.
        asked: the call's arguments as JSON.
        bindings: which values of this run stand for recorded ones.
    """
    recorded = event.arguments()
    if recorded is not None and bindings is not None and bindings.any:
        recorded = loads(bindings.with_live_values_in(dumps(recorded)))
    if recorded is None:
        keys = sorted(asked["filter"]) if isinstance(asked.get("filter"), dict) else []
        yield from differences(list(event.filter_keys), keys, "filter (its keys)")
        return
    bound = event.bound(shared=True) if event.redacted else {}
    found = list(differences(recorded, asked, bound=bound))
    told = [one for one in found if not (one.reordered and _is_free(one.path))]
    yield from told or found


def _is_free(path: str) -> bool:
    """Tell whether the order says nothing at a place, so that it is not what made a call miss
    that differs elsewhere."""
    place = PLACES["call"]
    for step in path.split(".") if path else ():
        if place.operators and step.startswith("$"):
            place = PLACES[place.operators]
        place = PLACES[place.inside.get(step, place.other)]
    return place.free


def differences(
    recorded: Json, asked: Json, path: str = "", bound: dict[str, Json] | None = None
) -> Iterator[Difference]:
    """Yield the places in which two JSON values differ, in the recorded order.

    Args:
        recorded: the recorded value.
        asked: the call's value.
        path: where both stand.
        bound: what placeholders of redaction stand for; None where there are none.
    """
    if recorded == asked and dumps(recorded) == dumps(asked):
        return
    if type(recorded) is dict and type(asked) is dict and not _is_leaf(recorded, asked):
        yield from _of_dicts(recorded, asked, path, bound)
    elif type(recorded) is list and type(asked) is list:
        yield from _of_lists(recorded, asked, path, bound)
    elif not bound_or_free(recorded, asked, bound):
        yield Difference(path, recorded, asked)


def _of_dicts(
    recorded: dict[str, Json], asked: dict[str, Json], path: str, bound: dict[str, Json] | None
) -> Iterator[Difference]:
    if recorded.keys() == asked.keys() and list(recorded) != list(asked):
        yield Difference(path, list(recorded), list(asked), reordered=True)
    for key in [*recorded, *(key for key in asked if key not in recorded)]:
        yield from differences(
            recorded.get(key, ABSENT), asked.get(key, ABSENT), _below(path, key), bound
        )


def _of_lists(
    recorded: list[Json], asked: list[Json], path: str, bound: dict[str, Json] | None
) -> Iterator[Difference]:
    if len(recorded) == len(asked) and _in_any_order(recorded) == _in_any_order(asked):
        if dumps(recorded) == dumps(asked):
            return
        yield Difference(path, recorded, asked, reordered=True)
        return
    start, end = _same_ends(recorded, asked)
    ours, theirs = recorded[start : len(recorded) - end], asked[start : len(asked) - end]
    for number, (one, other) in enumerate(zip_longest(ours, theirs, fillvalue=ABSENT), start):
        yield from differences(one, other, _below(path, str(number)), bound)


def _same_ends(recorded: list[Json], asked: list[Json]) -> tuple[int, int]:
    """Return how many items two lists share at their beginning and, behind those, at their end."""
    most = min(len(recorded), len(asked))
    start = 0
    while start < most and dumps(recorded[start]) == dumps(asked[start]):
        start += 1
    end = 0
    while end < most - start and dumps(recorded[-1 - end]) == dumps(asked[-1 - end]):
        end += 1
    return start, end


def _in_any_order(value: Json) -> bytes:
    if type(value) is list:
        return b"[" + b",".join(sorted(map(_in_any_order, value))) + b"]"
    if type(value) is dict:
        return b"{" + b",".join(sorted(dumps(k) + _in_any_order(value[k]) for k in value)) + b"}"
    return dumps(value)


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _is_leaf(recorded: dict[str, Json], asked: dict[str, Json]) -> bool:
    return "$redacted" in recorded or any(
        len(value) == 1 and next(iter(value)) in TAG_NAMES for value in (recorded, asked)
    )


def bound_or_free(recorded: Json, asked: Json, bound: dict[str, Json] | None) -> bool:
    """Tell whether a recorded leaf has placeholders that may stand for the call's value."""
    return bool(bound is not None and asked is not ABSENT and bind(recorded, asked, dict(bound)))
