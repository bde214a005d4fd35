"""Which recorded event answers a call: one decision, made here, and every answer knows its reason.

The index looks a call up by method and namespace, then by its arguments. `LEVELS` are tried in
order; each is a look-up, never a scan, so that a call costs the same among 100,000 events:

    exact       the same arguments, types told apart
    alike       the same but for placeholders (redacted), for order where it says nothing (order),
                and for values that the program makes anew in each run (unified)
    ignored     the same but for these and for the paths that the user named
    matcher     any arguments, where `match_on` leaves them to matchers of the user's
    signature   an event that kept no arguments: the same filter keys, and no contradiction
    repeat      a used-up read, where `allow_repeats` is set

Equal calls are answered in recorded order, different ones in any order. How alike two calls may be
is told in `timetracer.alike`.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

import bson

from timetracer.alike import (
    IGNORED,
    ORDER,
    REDACTED,
    UNIFIED,
    Fit,
    Pattern,
    without_ignored,
)
from timetracer.bindings import Bindings, Run
from timetracer.codec import (
    CodecError,
    bson_to_json,
    dumps,
    from_json,
    json_to_bson,
    loads,
    to_json,
)
from timetracer.comparisons import holds_beside, keeps_names, reads_beside, rests_on
from timetracer.matchers import DEFAULT, PARTS, ComparedCall, registered
from timetracer.model import Call, Json
from timetracer.nearest import Nearest
from timetracer.nearest import find as find_nearest
from timetracer.redaction import find_placeholders, has_placeholders
from timetracer.volatile import TIME, Found, Token, blanked, find, skeleton, tokens

AMBIENT = "ambient"

OPTIONAL_LEVELS = (ORDER, UNIFIED, IGNORED, AMBIENT)
"""What a user may switch off; without any of them, made-up values and order must be the same."""


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

    @property
    def result_text(self) -> bytes: ...

    @property
    def failed(self) -> bool: ...

    def arguments(self) -> Json: ...

    def values(self) -> dict[str, Any]: ...

    def recorded_document(self) -> Any: ...


class Match(NamedTuple):
    """An event that answers a call, and why.

    Attributes:
        event: the event.
        reason: the level's name, or the loosest freedom that was needed.
        bound: the recorded and live values that it bound to each other.
    """

    event: Any
    reason: str
    bound: tuple[tuple[str, str], ...] = ()


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

_Path = tuple[str | int, ...]


@dataclass(slots=True)
class _Group:
    """The events of one method and namespace, indexed at the first call that asks for them."""

    events: list[Any] = field(default_factory=list)
    exact: dict[bytes, list[Any]] = field(default_factory=dict)  # the next one is the last
    by_signature: dict[tuple[str, ...], deque[Any]] = field(default_factory=dict)
    last: dict[bytes, Any] = field(default_factory=dict)
    ready: bool = False


class Index:
    """The events of one cassette, to be taken one by one.

    Args:
        events: the events in recorded order.
        bindings: what made-up values stand for.
        allow_repeats: whether a used-up event may answer a read again.
        strict_order: whether calls must come in the recorded order.
        match_on: what of a call must be the same; see `timetracer.matchers`.
        levels: which of the looser levels are allowed; see `OPTIONAL_LEVELS`.
        ignore: paths into the arguments, such as "documents.*.password", that are not compared.
    """

    def __init__(
        self,
        events: Iterable[Any],
        *,
        bindings: Bindings | None = None,
        allow_repeats: bool = False,
        strict_order: bool = False,
        match_on: Iterable[str] = DEFAULT,
        levels: Iterable[str] = OPTIONAL_LEVELS,
        ignore: Iterable[str] = (),
    ) -> None:
        self._groups: dict[tuple[str, ...], _Group] = {}
        parts = tuple(match_on)
        self._key = _group_key([part for part in PARTS if part in parts and part != "arguments"])
        self._matchers = registered(parts)
        self._any_arguments = "arguments" not in parts
        self._same_url = "url" in parts
        self._allow_repeats = allow_repeats
        self._strict_order = strict_order
        self._bindings = bindings or Bindings("", Run())
        self._freedoms = frozenset({REDACTED, *levels})
        self._ignore = tuple(tuple(path.split(".")) for path in ignore)
        self._order = list(events)
        self._kin: dict[tuple[str, ...], _Kin] | None = None
        self._next = 0
        self._refused: bytes | None = None
        for event in self._order:
            key = self._key(event)
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = _Group()
            group.events.append(event)

    def take(self, call: Call, *, reads: bool = False) -> Match | None:
        """Return the event that answers `call` and mark it used, or None for a miss.

        Args:
            call: the call.
            reads: whether it leaves the data as they are.
        """
        asked = _Asked(call, reads, self._key(call))
        with self._bindings.run.lock:
            if self._bindings.run.by_look and self._rests_on_looks(asked):
                return None
            group = self._groups.get(asked.group)
            if group is not None and not group.ready:
                self._prepare(group)
            for look_up in LEVELS.values():
                match = look_up(self, group, asked)
                if match is not None:
                    if self._shows_looks_of_others(match.event, asked):
                        return None
                    if not match.event.used:
                        match.event.used = True
                        self._bindings.run.note_used(match.event)
                    if self._allow_repeats and group is not None:
                        group.last[call.key] = match.event
                    return match
        return None

    def _shows_looks_of_others(self, event: Any, asked: _Asked, fit: Fit | None = None) -> bool:
        """Tell whether an answer shows a value that is bound by its look where the program stored
        none: there it is somebody else's, and stands for itself.

        Args:
            event: the event that gives the answer.
            asked: the call.
            fit: what binds such values by this very call, None for nothing.
        """
        run = self._bindings.run
        looked = run.looked if fit is None else run.looked | fit.looked
        if event.failed or not looked:
            return False
        answer = _documents_as_stored(event, asked.arguments)
        if answer is None:
            return False
        fields = run.fields_of_collection(asked.call.url)
        if fit is not None:
            fields |= fit.by_look
        if not holds_beside(answer, fields, looked):
            return False
        self._refused = asked.call.key
        return True

    def _rests_on_looks(self, asked: _Asked) -> bool:
        run = self._bindings.run
        beside = reads_beside(asked.arguments)
        fields = run.fields_by_look(asked.call.url, beside=beside)
        return rests_on(asked.arguments, fields, run.looks)

    def rests_on_looks(self, call: Call) -> bool:
        """Tell whether a call missed because it orders by, or computes with, values that were bound
        by their look alone, or because its answer shows them where the program stored none."""
        asked = _Asked(call, False, self._key(call))
        return call.key == self._refused or (
            bool(self._bindings.run.by_look) and self._rests_on_looks(asked)
        )

    def _prepare(self, group: _Group) -> None:
        for event in group.events:
            text = event.arguments_text
            if text is None:
                group.by_signature.setdefault(event.filter_keys, deque()).append(event)
            elif not (event.redacted and has_placeholders(text)):
                group.exact.setdefault(key_of_json(event.arguments(), text), []).append(event)
        for waiting in group.exact.values():
            waiting.reverse()
        group.ready = True

    def _may_answer(self, event: Any, asked: _Asked) -> bool:
        """Tell whether neither the order, nor a matcher of the user's, nor the transaction that is
        to be ended stands against it."""
        if asked.call.ends and not _ends_its_transaction(event, asked.call):
            return False
        if self._matchers:
            recorded = ComparedCall(event.lib, event.method, event.url, event.values())
            if not all(matcher(recorded, asked.compared) for matcher in self._matchers):
                return False
        if not self._strict_order:
            return True
        while self._next < len(self._order) and self._order[self._next].used:
            self._next += 1
        return self._next < len(self._order) and self._order[self._next] is event

    def _kin_of(self, asked: _Asked) -> _Kin | None:
        """Return the events that differ from a call in no more than what may be made up."""
        if self._kin is None:
            self._kin = {}
            for event in self._order:
                if event.arguments_text is not None:
                    key = _kin_key(self._key(event))
                    self._kin.setdefault(key, _Kin()).events.append(event)
        return self._kin.get(_kin_key(asked.group))

    # -------------------------------------------------------------------- what a miss tells

    def nearest(self, call: Call) -> Nearest | None:
        """Return the event nearest to a call that missed, None where nothing is near."""
        return find_nearest(
            self._order, call, key_to_json(call.key), self._key, self._bindings
        )


# ------------------------------------------------------------------------------------- candidates


class _Asked:
    """A call that is looked for, in the forms that the levels need; each made once."""

    def __init__(self, call: Call, reads: bool, group: tuple[str, ...]) -> None:
        self.call = call
        self.reads = reads
        self.group = group

    @cached_property
    def arguments(self) -> Json:
        """The arguments as JSON."""
        return key_to_json(self.call.key)

    @cached_property
    def compared(self) -> ComparedCall:
        """The call as a matcher of the user's sees it."""
        call = self.call
        arguments = from_json(key_to_json(call.key))  # which uses them up
        return ComparedCall(call.lib, call.method, call.url, arguments)

    @cached_property
    def text(self) -> str:
        """The arguments as JSON text."""
        return dumps(self.arguments).decode()

    @cached_property
    def found(self) -> list[Found]:
        """What looks made up in that text."""
        return list(find(self.text))

    @cached_property
    def body_hash(self) -> str:
        """The `body_hash` of the arguments."""
        return hash_but_for(self.text, self.found)

    @cached_property
    def may_hold_durations(self) -> bool:
        """Whether it may store how long something took."""
        return not self.reads and _may_hold_durations(self.text)

    @cached_property
    def tokens(self) -> list[Token]:
        """The values that look made up, but for times, in the arguments and in what they are called
        on."""
        found = [*(token for _, _, token in self.found), *tokens(self.call.url)]
        return [token for token in found if token.kind != TIME]


def body_hash(arguments: Json, masked: Iterable[_Path] = ()) -> str:
    """Return the hash of a call's arguments: the same in every recording of the same program, and
    whatever the order of their parts.

    It only narrows down which events are compared with a call, so that it may be too wide.

    Args:
        arguments: the arguments as JSON.
        masked: paths whose values say nothing, such as those of placeholders.
    """
    text = dumps(arguments)
    if masked:
        left = _blanked(text, masked)
        text = b"" if left is None else left
    plain = text.decode("utf-8", "replace")
    return hash_but_for(plain, find(plain))


def hash_but_for(text: str, found: Iterable[Found]) -> str:
    """Return the `body_hash` of arguments in which all that looks made up was found.

    Args:
        text: the arguments as JSON text.
        found: what `volatile.find` found in it.
    """
    return _hash_of_parts(blanked(text, found))


def hash_but_for_numbers(arguments: Json) -> str:
    """Return the hash of a call's arguments without the numbers that have a fraction.

    Args:
        arguments: the arguments as JSON.
    """
    bare = skeleton(dumps(arguments).decode("utf-8", "replace"), pieces=True)
    return _hash_of_parts(_FRACTION.sub("<number>", bare))


def _hash_of_parts(bare: str) -> str:
    parts = bare.translate(_BRACKETS).split(",")
    parts.sort()
    return hashlib.blake2b(
        ",".join(parts).encode("utf-8", "replace"), digest_size=8
    ).hexdigest()


_BRACKETS = str.maketrans("{}[]", ",,,,")
_FRACTION = re.compile(r"(?<=[:,\[])-?\d+(?:\.\d+(?:e-?\d+)?|e-?\d+)(?=[],}])")


def _may_hold_durations(text: str) -> bool:
    """Tell whether a call's JSON text holds a number with a fraction, and two times between which
    that may be how long it was."""
    if _FRACTION.search(text) is None:
        return False
    return sum(token.kind == TIME for token in tokens(text)) > 1


def _blanked(text: bytes, paths: Iterable[_Path]) -> bytes | None:
    """Return arguments with the values at paths blanked; None if a path is absent."""
    copy = loads(text)
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


@lru_cache(4096)
def _kin_key(group: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(skeleton(part, pieces=True) for part in group)


def _group_key(parts: list[str]) -> Callable[[Any], tuple[str, ...]]:
    if len(parts) > 1:
        return attrgetter(*parts)
    return lambda call: tuple(getattr(call, part) for part in parts)


@dataclass(slots=True)
class _Bucket:
    """Events of equal hash that are not used up, in recorded order, and by what is in them."""

    events: dict[int, Any] = field(default_factory=dict)
    _holding: dict[str, dict[int, Any]] | None = None

    def candidates(self, asked: _Asked, bindings: Bindings) -> Iterator[Any]:
        """Yield the events that may answer a call."""
        used = []
        alone = len(self.events) == 1  # to be compared anyhow
        narrowest = self.events if alone else self._narrowest(asked, bindings)
        try:
            for place, event in narrowest.items():
                if event.used:
                    used.append(place)
                else:
                    yield event
        finally:
            for place in used:
                narrowest.pop(place, None)
                self.events.pop(place, None)

    def _narrowest(self, asked: _Asked, bindings: Bindings) -> dict[int, Any]:
        if self._holding is None:
            self._holding = self._index()
        best: dict[int, Any] | None = None
        for token in asked.tokens:
            bound = bindings.recorded(token)
            found = [self._holding[key] for key in bound or (token.key,) if key in self._holding]
            if bound and not found and not bindings.is_free(token):
                return {}
            for events in found:
                if best is None or len(events) < len(best):
                    best = events
        return self.events if best is None else best

    def _index(self) -> dict[str, dict[int, Any]]:
        holding: dict[str, dict[int, Any]] = {}
        for place, event in self.events.items():
            for token in tokens(f"{event.arguments_text.decode('utf-8', 'replace')} {event.url}"):
                if token.kind != TIME:
                    holding.setdefault(token.key, {})[place] = event
        return holding


@dataclass(slots=True)
class _Kin:
    """The events of one method and of namespaces that may be the same, by their hashes."""

    events: list[Any] = field(default_factory=list)
    masks: dict[tuple[Pattern, ...], _Masks] = field(default_factory=dict)
    lasting: dict[str, _Bucket] | None = None
    _barren: dict[bytes, int] = field(default_factory=dict)

    def is_barren(self, asked: _Asked, bindings: Bindings) -> bool:
        """Tell whether a call like this found nothing before, and nothing was bound since: what a
        repeated read would look for in vain each time."""
        return self._barren.get(asked.call.key) == bindings.run.births

    def note_barren(self, asked: _Asked, bindings: Bindings) -> None:
        """Note that a call found nothing."""
        if set(self.masks.get((), ())) == {()}:  # placeholders bind otherwise
            self._barren[asked.call.key] = bindings.run.births

    def buckets(
        self, asked: _Asked, ignore: tuple[Pattern, ...] = ()
    ) -> Iterator[_Bucket]:
        """Yield the events whose hash is a call's but for what the user ignores, once for each set
        of placeholders."""
        if ignore not in self.masks:
            self.masks[ignore] = self._by_mask(ignore)
        left = without_ignored(asked.arguments, ignore) if ignore else asked.arguments
        for mask, hashed in self.masks[ignore].items():
            bucket = hashed.get(body_hash(left, mask) if mask or ignore else asked.body_hash)
            if bucket is not None:
                yield bucket
        if asked.may_hold_durations and not ignore:
            bucket = self._but_for_numbers().get(hash_but_for_numbers(asked.arguments))
            if bucket is not None:
                yield bucket

    def _but_for_numbers(self) -> dict[str, _Bucket]:
        """Return the events that may hold how long something took, by the hash of all else."""
        if self.lasting is None:
            self.lasting = {}
            for place, event in enumerate(self.events):
                if _may_hold_durations(event.arguments_text.decode("utf-8", "replace")):
                    hashed = hash_but_for_numbers(event.arguments())
                    self.lasting.setdefault(hashed, _Bucket()).events[place] = event
        return self.lasting

    def _by_mask(self, ignore: tuple[Pattern, ...]) -> _Masks:
        masks: _Masks = {}
        for place, event in enumerate(self.events):
            mask: tuple[_Path, ...] = ()
            if event.redacted and has_placeholders(event.arguments_text):
                mask = masked_paths(without_ignored(event.arguments(), ignore))
            hashed = "" if ignore else event.body_hash
            hashed = hashed or body_hash(without_ignored(event.arguments(), ignore), mask)
            buckets = masks.setdefault(mask, {})
            buckets.setdefault(hashed, _Bucket()).events[place] = event
        return masks


_Masks = dict[tuple[_Path, ...], dict[str, _Bucket]]
"""Where placeholders stand -> hash of all else -> the events."""


def masked_paths(arguments: Json) -> tuple[_Path, ...]:
    """Return where a call's placeholders stand."""
    return tuple(path for path, _ in find_placeholders(arguments))


# ------------------------------------------------------------------------------------- the levels


def _exact(index: Index, group: _Group | None, asked: _Asked) -> Match | None:
    waiting = group.exact.get(asked.call.key) if group is not None else None
    while waiting and waiting[-1].used:
        waiting.pop()
    if not waiting or not index._may_answer(waiting[-1], asked):
        return None
    if index._bindings.any and not _stands_for_itself(waiting[-1], index._bindings):
        return None
    return Match(waiting.pop(), "exact")


def _stands_for_itself(event: Any, bindings: Bindings) -> bool:
    """Tell whether no value of a call has another one standing for it by now."""
    found = tokens(event.arguments_text.decode("utf-8", "replace"))
    return all(bindings.is_itself(token) for token in found)


def _alike(index: Index, group: _Group | None, asked: _Asked) -> Match | None:
    kin = index._kin_of(asked)
    if kin is None or kin.is_barren(asked, index._bindings):
        return None
    for bucket in kin.buckets(asked):
        match = _compared(index, bucket, asked)
        if match is not None:
            return match
    kin.note_barren(asked, index._bindings)
    return None


def _ignored(index: Index, group: _Group | None, asked: _Asked) -> Match | None:
    kin = index._kin_of(asked) if index._ignore and IGNORED in index._freedoms else None
    for bucket in kin.buckets(asked, index._ignore) if kin is not None else ():
        match = _compared(index, bucket, asked, index._ignore)
        if match is not None:
            return match
    return None


def _compared(
    index: Index, bucket: _Bucket, asked: _Asked, ignore: tuple[Pattern, ...] = ()
) -> Match | None:
    bindings = index._bindings
    for event in bucket.candidates(asked, bindings):
        fit = Fit(
            bindings,
            event.evidence(),
            event.bound(shared=False),
            bindings.run.was_given,
            event.is_first_with,
            method=asked.call.method,
            writes=not asked.reads,
            ignore=ignore,
            shared=partial(event.bound, shared=True),
            upserted=_upserted(event),
        )
        if (
            fit.fits(
                event.arguments(),
                asked.arguments,
                event.url if index._same_url else asked.call.url,
                asked.call.url,
            )
            and fit.needed <= index._freedoms
            and not (fit.by_look and rests_on(asked.arguments, fit.by_look, fit.looks))
            and not (fit.by_look and (_failed_for(event, fit) or _changed_nothing(event)))
            and not (fit.by_look and index._shows_looks_of_others(event, asked, fit))
            and index._may_answer(event, asked)
        ):
            bindings.bear(fit.born)
            if not asked.reads:
                bindings.note_times(fit.times, event)
            if fit.by_look:
                bindings.run.note_by_look(asked.call.url, fit.by_look, fit.looks, fit.looked)
            event.keep_bound(fit.placeholders)
            reason = next((name for name in _LOOSEST if name in fit.needed), "exact")
            return Match(event, reason, tuple((one.text, two.text) for one, two in fit.born))
    return None


def _failed_for(event: Any, fit: Fit) -> bool:
    """Tell whether an event is a failure that names a value bound by its look, such as of a key
    that is there twice: another value may not be there."""
    if not event.failed:
        return False
    looked = fit.looked
    return any(token.key in looked for token in tokens(_told_of(event)))


def _told_of(event: Any) -> str:
    """Return what a failure says, as JSON text: of writes that failed all but the whole operation,
    which the driver adds."""
    text: bytes = event.result_text
    details = loads(text)["error"].get("details")
    writes = details.get("writeErrors") if isinstance(details, dict) else None
    if writes:
        told = [{name: one[name] for name in one if name != "op"} for one in writes]
        text = dumps(told)
    return text.decode("utf-8", "replace")


def _upserted(event: Any) -> set[str]:
    """Return which operations of a call were upserts that found no document: "" for the call
    itself, else their numbers."""
    if b'"upsert":true' not in event.arguments_text or not _has_upserted(event.result_text):
        return set()
    told = (event.result().get("body") or {}).get("data")
    if not isinstance(told, dict):
        return set()
    if "bulk_api_result" in told:
        return {str(one["index"]) for one in told["bulk_api_result"].get("upserted", ())}
    return {""} if "raw_result" in told else set()


def _has_upserted(result: bytes) -> bool:
    return b'"upserted":' in result and b'"upserted":[]' not in result


def _changed_nothing(event: Any) -> bool:
    """Tell whether a write found a document and left it as it was: with another value it may not
    have."""
    text = event.result_text
    if _has_upserted(text):
        return False
    return b'"nModified":0' in text and not (b'"n":0' in text or b'"nMatched":0' in text)


_LOOSEST = (IGNORED, UNIFIED, ORDER, REDACTED)


def _any_arguments(index: Index, group: _Group | None, asked: _Asked) -> Match | None:
    if group is None or not index._any_arguments:
        return None
    for event in group.events:
        if not event.used and index._may_answer(event, asked):
            return Match(event, "matcher")
    return None


def _by_signature(index: Index, group: _Group | None, asked: _Asked) -> Match | None:
    if group is None or not group.by_signature:
        return None
    waiting = group.by_signature.get(filter_keys(asked.call.arguments))
    for event in waiting or ():
        if index._may_answer(event, asked) and not _contradicts(event, asked.call):
            assert waiting is not None
            waiting.remove(event)
            return Match(event, "signature")
    return None


def _repeat(index: Index, group: _Group | None, asked: _Asked) -> Match | None:
    if group is None or not (asked.reads and index._allow_repeats):
        return None
    event = group.last.get(asked.call.key)
    return None if event is None else Match(event, "repeat")


def _documents_as_stored(event: Any, arguments: Json) -> Json:
    """Return the documents of an answer, under the names that they are stored by; None where a call
    gives others."""
    if event.method not in _GIVES_VALUES or not keeps_names(arguments.get("pipeline", [])):
        return None
    data = (loads(event.result_text).get("body") or {}).get("data")
    if event.method == "DISTINCT":
        return {str(arguments.get("key")).rpartition(".")[2]: data}
    return data


_GIVES_VALUES = frozenset(
    {"FIND", "FIND_ONE", "AGGREGATE", "DISTINCT"}
    | {f"FIND_ONE_AND_{what}" for what in ("DELETE", "REPLACE", "UPDATE")}
)


def _ends_its_transaction(event: Any, call: Call) -> bool:
    """Tell whether an event ended the transaction that a call ends, as far as the recording tells:
    threads may have got some of each other's operations, but not all."""
    recorded = event.result().get("ends")
    answered = {
        one.eid for one in call.ends if getattr(one, "cassette", None) is event.cassette
    }
    return not (recorded and answered) or not answered.isdisjoint(recorded)


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


LEVELS: dict[str, Callable[[Index, _Group | None, _Asked], Match | None]] = {
    "exact": _exact,
    "alike": _alike,
    "ignored": _ignored,
    "matcher": _any_arguments,
    "signature": _by_signature,
    "repeat": _repeat,
}
"""The levels, the stricter first; the names of freedoms are what `Match.reason` gives of two."""
