"""Which recorded event answers a call: one decision, made here, and every answer knows its reason.

The index looks a call up by method and namespace, then by its arguments. `LEVELS` are tried in
order; each is a look-up, never a scan, so that a call costs the same among 100,000 events:

    exact       the same arguments, types told apart
    redacted    the same but for placeholders, which stand for any one value of their type
    signature   an event that kept no arguments: the same filter keys, and no contradiction
    repeat      a used-up read, where `allow_repeats` is set

Equal calls are answered in recorded order, different ones in any order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from threading import Lock
from typing import Any, NamedTuple, Protocol

import bson

from timetracer.codec import (
    TAG_NAMES,
    CodecError,
    bson_to_json,
    dumps,
    from_json,
    json_to_bson,
    loads,
    to_json,
)
from timetracer.errors import Difference
from timetracer.model import Call, Json
from timetracer.redaction import bind, find_placeholders, has_placeholders

_COMPARED = 1000
_ABSENT = "(absent)"


class Recorded(Protocol):
    """What the index knows of an event."""

    eid: int
    used: bool

    @property
    def lib(self) -> str: ...

    @property
    def redacted(self) -> bool: ...

    @property
    def method(self) -> str: ...

    @property
    def url(self) -> str: ...

    @property
    def filter_keys(self) -> tuple[str, ...]: ...

    @property
    def arguments_text(self) -> bytes | None: ...

    def arguments(self) -> Json: ...

    def recorded_document(self) -> Any: ...


class Match(NamedTuple):
    """An event that answers a call, and why.

    Attributes:
        event: the event.
        reason: the level's name.
    """

    event: Any
    reason: str


# ------------------------------------------------------------------------------------- the key


def key_of(arguments: Mapping[str, Any], options: Any = None) -> bytes:
    """Return the bytes that tell one call's arguments from another's, types included.

    BSON does that at C speed; what BSON cannot hold is keyed by its JSON form.

    Args:
        arguments: the arguments by name.
        options: codec options of the collection, None for the default ones.
    """
    try:
        return bson.encode(arguments) if options is None else bson.encode(arguments, False, options)
    except Exception:
        return _key_of_refused(to_json(arguments))


def _key_of_refused(arguments: Json) -> bytes:
    """Return the key of arguments that the collection's codec options do not encode, told from
    equal ones that others do encode, such as a UUID."""
    text = dumps(arguments)
    try:
        return json_to_bson({**arguments, "$refused": True})
    except CodecError:
        return b"json:" + text


def key_to_json(key: bytes) -> Json:
    """Return the arguments that `key_of` made a key of, as JSON."""
    return loads(key[5:]) if key.startswith(b"json:") else bson_to_json(key)


def key_of_json(arguments: Json, text: bytes) -> bytes:
    """Return the key of arguments that a cassette holds.

    Args:
        arguments: the arguments as JSON; used up.
        text: the same as JSON text.
    """
    try:
        return json_to_bson(arguments)
    except CodecError:
        return b"json:" + dumps(loads(text))


def filter_keys(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the sorted keys of a call's filter; of `_id` alone for a filter that is a bare id."""
    wanted = arguments.get("filter")
    if wanted is None:
        return ()
    if type(wanted) is dict and len(wanted) == 1:
        return (str(next(iter(wanted))),)
    if isinstance(wanted, Mapping):
        return tuple(sorted(str(key) for key in wanted))
    return ("_id",)


# ------------------------------------------------------------------------------------- the index


@dataclass(slots=True)
class _Group:
    """The events of one method and namespace, indexed at the first call that asks for them."""

    events: list[Any] = field(default_factory=list)
    exact: dict[bytes, list[Any]] = field(default_factory=dict)  # the next one is the last
    redacted: dict[tuple[_Path, ...], dict[bytes, deque[Any]]] = field(default_factory=dict)
    by_signature: dict[tuple[str, ...], deque[Any]] = field(default_factory=dict)
    last: dict[bytes, Any] = field(default_factory=dict)
    ready: bool = False


_Path = tuple[str | int, ...]


class Index:
    """The events of one cassette, to be taken one by one.

    Args:
        events: the events in recorded order.
        allow_repeats: whether a used-up event may answer a read again.
        strict_order: whether calls must come in the recorded order.
        match_lib: whether an event answers only calls of the driver that it was recorded of.
    """

    def __init__(
        self,
        events: Iterable[Any],
        *,
        allow_repeats: bool = False,
        strict_order: bool = False,
        match_lib: bool = False,
    ) -> None:
        self._groups: dict[tuple[str, ...], _Group] = {}
        self._key: Callable[[Any], tuple[str, ...]] = attrgetter(
            "method", "url", *(["lib"] if match_lib else [])
        )
        self._allow_repeats = allow_repeats
        self._reads = False
        self._strict_order = strict_order
        self._order = list(events)
        self._next = 0
        self._lock = Lock()
        for event in self._order:
            key = self._key(event)
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = _Group()
            group.events.append(event)

    def take(self, call: Call, *, reads: bool = False) -> Match | None:
        """Return the event that answers `call` and mark it used, or None for a miss."""
        group = self._groups.get(self._key(call))
        if group is None:
            return None
        with self._lock:
            self._reads = reads
            if not group.ready:
                self._prepare(group)
            for level in LEVELS:
                if level.reads_only and not (reads and self._allow_repeats):
                    continue
                event = level.look_up(self, group, call)
                if event is not None:
                    event.used = True
                    return Match(event, level.name)
        return None

    def _prepare(self, group: _Group) -> None:
        for event in group.events:
            text = event.arguments_text
            if text is None:
                group.by_signature.setdefault(event.filter_keys, deque()).append(event)
            elif event.redacted and has_placeholders(text):
                arguments = event.arguments()
                paths = tuple(path for path, _ in find_placeholders(arguments))
                masked = group.redacted.setdefault(paths, {})
                key = _masked_key(arguments, paths) or b""
                masked.setdefault(key, deque()).append(event)
            else:
                group.exact.setdefault(key_of_json(event.arguments(), text), []).append(event)
        for waiting in group.exact.values():
            waiting.reverse()
        group.ready = True

    def _in_order(self, event: Any) -> bool:
        if not self._strict_order:
            return True
        while self._next < len(self._order) and self._order[self._next].used:
            self._next += 1
        return self._next < len(self._order) and self._order[self._next] is event

    # -------------------------------------------------------------------- what a miss tells

    def nearest(self, call: Call) -> tuple[Any, tuple[Difference, ...]] | None:
        """Return the event nearest to a call that missed, and the first fields that differ.

        The same method and namespace come first, then the fewest differing values, unused ones
        before used ones.
        """
        group = self._groups.get(self._key(call))
        if group is not None:
            asked = key_to_json(call.key)
            return _fewest(group.events[:_COMPARED], asked)
        kin = [e for e in self._order if e.method == call.method or e.url == call.url]
        kin.sort(key=lambda event: (event.url != call.url, event.used))
        return (kin[0], ()) if kin else None


def _fewest(events: list[Any], asked: Json) -> tuple[Any, tuple[Difference, ...]] | None:
    best: tuple[tuple[int, bool], Any, tuple[Difference, ...]] | None = None
    for event in events:
        found = tuple(differences(event.arguments() or {}, asked))
        rank = (sum(map(_weight, found)), event.used)
        if best is None or rank < best[0]:
            best = (rank, event, found)
    return best and (best[1], best[2][:5])


def _weight(difference: Difference) -> int:
    return 2 if _ABSENT in (difference.recorded, difference.asked) else 1


def differences(recorded: Json, asked: Json, path: str = "") -> Iterator[Difference]:
    """Yield the places in which two JSON values differ, in the recorded order."""
    if isinstance(recorded, dict) and isinstance(asked, dict) and not _is_tag(recorded, asked):
        if list(recorded) != list(asked) and recorded.keys() == asked.keys():
            yield Difference(f"{path} (its order)".lstrip(), list(recorded), list(asked))
        for key in [*recorded, *(key for key in asked if key not in recorded)]:
            yield from differences(
                recorded.get(key, _ABSENT), asked.get(key, _ABSENT), f"{path}.{key}".lstrip(".")
            )
    elif isinstance(recorded, list) and isinstance(asked, list) and len(recorded) == len(asked):
        for number, (one, other) in enumerate(zip(recorded, asked, strict=True)):
            yield from differences(one, other, f"{path}.{number}".lstrip("."))
    elif recorded != asked or type(recorded) is not type(asked):
        yield Difference(path, recorded, asked)


def _is_tag(recorded: dict[str, Json], asked: dict[str, Json]) -> bool:
    return any(len(value) == 1 and next(iter(value)) in TAG_NAMES for value in (recorded, asked))


# ------------------------------------------------------------------------------------- the levels


def _exact(index: Index, group: _Group, call: Call) -> Any:
    waiting = group.exact.get(call.key)
    if not waiting or not index._in_order(waiting[-1]):
        return None
    event = waiting.pop()
    if index._allow_repeats:
        group.last[call.key] = event
    return event


def _redacted(index: Index, group: _Group, call: Call) -> Any:
    if not group.redacted:
        return None
    asked = key_to_json(call.key)
    for paths, masked in group.redacted.items():
        key = _masked_key(asked, paths)
        waiting = masked.get(key) if key is not None else None
        for event in waiting or ():
            bindings = event.bound(shared=index._reads)
            if bind(event.arguments(), asked, bindings) and index._in_order(event):
                assert waiting is not None
                waiting.remove(event)
                event.keep_bound(bindings)
                group.last[call.key] = event
                return event
    return None


def _by_signature(index: Index, group: _Group, call: Call) -> Any:
    if not group.by_signature:
        return None
    waiting = group.by_signature.get(filter_keys(call.arguments))
    for event in waiting or ():
        if index._in_order(event) and not _contradicts(event, call):
            assert waiting is not None
            waiting.remove(event)
            group.last[call.key] = event
            return event
    return None


def _repeat(index: Index, group: _Group, call: Call) -> Any:
    return group.last.get(call.key)


def _masked_key(arguments: Json, paths: tuple[_Path, ...]) -> bytes | None:
    """Return the key of arguments with the values at `paths` blanked; None if a path is absent."""
    copy = loads(dumps(arguments))
    for path in paths:
        place = copy
        try:
            for step in path[:-1]:
                place = place[step]
            place[path[-1]]
        except (LookupError, TypeError):
            return None
        place[path[-1]] = None
    return dumps(copy)


def _contradicts(event: Any, call: Call) -> bool:
    """Tell whether the recorded document denies an equality of the call's filter."""
    document = event.recorded_document()
    wanted = call.arguments.get("filter")
    if not isinstance(document, Mapping) or wanted is None:
        return False
    equalities = wanted if isinstance(wanted, Mapping) else {"_id": wanted}
    return any(
        key in document and _plain(value) and not _holds(document[key], value)
        for key, value in equalities.items()
    )


def _plain(value: Any) -> bool:
    return not (isinstance(value, Mapping) and any(str(key).startswith("$") for key in value))


def _holds(stored: Any, wanted: Any) -> bool:
    same = from_json(to_json(wanted))
    return bool(stored == same or (isinstance(stored, list) and same in stored))


@dataclass(frozen=True, slots=True)
class _Level:
    name: str
    look_up: Callable[[Index, _Group, Call], Any]
    reads_only: bool = False


LEVELS = (
    _Level("exact", _exact),
    _Level("redacted", _redacted),
    _Level("signature", _by_signature),
    _Level("repeat", _repeat, reads_only=True),
)
