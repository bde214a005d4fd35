"""The tape: a loaded cassette whose events are taken, and a recording that becomes one.

A loaded event stays text until it is taken; a recorded one stays a snapshot until it is written.
So loading N events is one pass over the file, taking one is a look-up, and the JSON of a recording
is made off the program's path.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from operator import attrgetter
from threading import Lock, RLock
from time import sleep
from typing import Any, NamedTuple, cast

from timetracer import document
from timetracer.bindings import Bindings
from timetracer.codec import dumps, from_json, loads
from timetracer.driver import Outcome
from timetracer.errors import MissError, NotCapturedError, TimetracerError
from timetracer.evidence import UNKNOWN, Evidence, Process, learn_of_relatives, made_values
from timetracer.frozen_time import perf_counter
from timetracer.learned import learned_places
from timetracer.matchers import DEFAULT
from timetracer.matching import (
    OPTIONAL_LEVELS,
    Index,
    Match,
    body_hash,
    filter_keys,
    hash_but_for,
    key_of_json,
    key_to_json,
    masked_paths,
)
from timetracer.model import Call, Json, Signature
from timetracer.recovery import Spool
from timetracer.redaction import Redactor, has_placeholders, substitute
from timetracer.shared_parts import Mark
from timetracer.surroundings import Around, Pair, Surroundings, around_now, held_by
from timetracer.volatile import Token, find, found_in_line, tokens

logger = logging.getLogger("timetracer")

BINDINGS: dict[str, Json] = {}
"""Placeholder label -> live value, for all cassettes that this process replays."""

BODY_HASH = "skeleton 3"
"""How `body_hash` is made; a cassette that says so is trusted to have them."""

_MAY_HOLD = re.compile(rb"[0-9A-Za-z+/_=-]{6,}")
_MADE_UP = (
    re.compile(rb"[0-9A-Za-z+/_-]{22,}={0,2}"),
    re.compile(
        rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
        rb"|[0-9a-fA-F]{16,})"
    ),
    re.compile(rb"(?<![0-9a-f])[0-9a-fA-F]{6,31}(?![0-9A-Za-z])"),
)
"""How values that look made up stand in a stretch of text: alone, and within longer ones."""

_SPILL_EVENTS = 512
_SPILL_BYTES = 4 * 1024 * 1024
_SPILL_SECONDS = 0.25
_LONGEST_WAIT = 2.0
_MOST_LONG_ANSWERS = 8
_eid = attrgetter("eid")
_RETURNED = b'{"status":0,"body":{"captured":true,"data":'


# ------------------------------------------------------------------------------------- loaded


class Event:
    """One event of a loaded cassette.

    Attributes:
        eid: its number in the cassette.
        used: whether it has answered a call.
        reason: why it answered, a level or freedom of `timetracer.matching`; "" before it did.
        bound_values: the recorded and live values that it bound to each other then.
        used_by: the code that made that call, as `call_sites` notes it, None where unknown.
        used_at: the place in that code.
        cassette: the cassette it belongs to.
    """

    __slots__ = (
        "_cache",
        "_fixed",
        "_text",
        "bound_values",
        "cassette",
        "eid",
        "reason",
        "used",
        "used_at",
        "used_by",
    )

    def __init__(self, text: document.EventText, cassette: Cassette) -> None:
        self._text = text
        self.eid = text.eid
        self.used = False
        self.used_by: Any = None
        self.used_at = 0
        self.cassette = cassette
        self._cache: Any = None
        self._fixed = False
        self.reason = ""
        self.bound_values: tuple[tuple[str, str], ...] = ()

    @property
    def signature(self) -> Signature:
        """The event's signature."""
        return self._text.signature

    @property
    def lib(self) -> str:
        """The driver: "pymongo" or "motor"."""
        return self._text.call.lib

    @property
    def method(self) -> str:
        """The operation, such as "FIND_ONE"."""
        return self._text.call.method

    @property
    def url(self) -> str:
        """The namespace."""
        return self._text.call.url

    @property
    def filter_keys(self) -> tuple[str, ...]:
        """The filter's keys, sorted."""
        return self._text.call.filter_keys

    @property
    def line(self) -> bytes:
        """The event's line in the cassette."""
        return self._text.line

    @property
    def redacted(self) -> bool:
        """Whether secrets may have been replaced in it."""
        return self.cassette.redacted

    @property
    def arguments_text(self) -> bytes | None:
        """The arguments' JSON text, None where none were kept."""
        return self._text.arguments

    @property
    def result_text(self) -> bytes:
        """The result's JSON text, as it was recorded."""
        return self._text.result

    @property
    def failed(self) -> bool:
        """Whether the call raised."""
        return not self._text.succeeded and bool(self.result().get("error"))

    @property
    def body_hash(self) -> str:
        """The hash that narrows down which calls it may answer; "" where it must be made."""
        return self._text.signature.body_hash if self.cassette.hashed else ""

    def evidence(self) -> Evidence:
        """Return what shows who made the values in its arguments."""
        process = self.cassette.process_of(self.eid)
        offset = self._text.offset
        at = process.recorded + offset if process.recorded else 0.0
        seen = process.frozen + offset if process.frozen else 0.0
        learned = self.cassette.learned.get(self.eid, frozenset())
        return Evidence(process, self._text.made, at, seen, learned)

    def is_first_with(self, text: str) -> bool:
        """Tell whether no event before this one holds a text that looks made up. Those that asked
        with it at the same time, such as in another thread, may come after it in another run."""
        first = self.cassette.first_with(text)
        return first >= self.eid or (first > 0 and self._was_asked_beside(first, text))

    def _was_asked_beside(self, first: int, text: str) -> bool:
        wanted = text.encode("utf-8", "replace")
        return all(
            one._text.ended > self._text.offset and wanted not in one.result_text
            for one in self.between(first - 1, self.eid - 1)
            if wanted in one.line
        )

    def used_before_with(self, text: str) -> list[Event]:
        """Return the events before this one that answered a call and hold a text."""
        first, wanted = self.cassette.first_with(text), text.encode("utf-8", "replace")
        before = self.between(first - 1, self.eid - 1) if first else []
        return [one for one in before if one.used and wanted in one.line]

    def arguments(self) -> Json:
        """Return the recorded arguments, a fresh JSON value; None where none were kept."""
        text = self._text.arguments
        return text and document.arguments_of(text, self.cassette.path, self.eid)

    def values(self) -> dict[str, Any]:
        """Return the recorded arguments as Python values; {} where none were kept."""
        arguments = substitute(self.arguments() or {}, self.cassette.substitutes())
        return cast("dict[str, Any]", from_json(arguments))

    def result(self) -> dict[str, Any]:
        """Return the event's `result`, a fresh JSON value with bound placeholders filled in.

        Raises:
            CassetteFormatError: its text is damaged.
        """
        return self._read(self._filled())

    def _filled(self) -> bytes:
        """Return the result's text with live values, and note whether it is the same each time."""
        text = self._text.result
        filled = self.cassette.bindings.with_live_values_in(text)
        self._fixed = filled is text and not (self.redacted and has_placeholders(text))
        return filled

    def _read(self, text: bytes) -> dict[str, Any]:
        value = document.result_of(text, self.cassette.path, self.eid)
        if self.redacted and has_placeholders(text):
            return cast("dict[str, Any]", substitute(value, self.cassette.substitutes()))
        return value

    def body(self) -> Any:
        """Return what `result.body.data` holds, as JSON.

        Raises:
            NotCapturedError: the result was not kept.
        """
        body = self.result().get("body") or {}
        if not body.get("captured", "data" in body):
            raise self._not_captured()
        return body.get("data")

    def _not_captured(self) -> NotCapturedError:
        return NotCapturedError(
            f"event {self.eid} of {self.cassette.path} ({self.method} on {self.url}) was kept "
            "without its result (captured: false). Record it again.",
            cassette=self.cassette.path,
            nearest=self,
        )

    def between(self, one: int, other: int) -> list[Event]:
        """Return the events of its cassette after number `one`, up to number `other`."""
        events = self.cassette.events
        start = bisect_right(events, one, key=_eid)
        return events[start : bisect_right(events, other, start, key=_eid)]

    def cached(self, make: Callable[[dict[str, Any]], Any]) -> Any:
        """Return `make(result)`, made once and kept; never to be altered.

        Raises:
            NotCapturedError: the result was not kept.
        """
        if self._cache is None:
            text = self._filled()
            if self._text.shared is not None and self._fixed:
                self._cache = _long_answers.get(make, text, self._made)
            else:
                made = self._made(make, text)
                if not self._fixed:
                    return made  # what is bound may change from call to call
                self._cache = made
        return self._cache

    def _made(self, make: Callable[[dict[str, Any]], Any], text: bytes) -> Any:
        result = self._read(text)
        if (result.get("body") or {}).get("captured") is False:
            raise self._not_captured()
        return make(result)

    def recorded_document(self) -> Any:
        """Return the recorded answer as Python values, None where there is none."""
        body = self.result().get("body") or {}
        data = body.get("data")
        return from_json(data) if isinstance(data, dict) else None

    def bound(self, *, shared: bool) -> dict[str, Json]:
        """Return what placeholders stand for already, so that a call may not contradict it.

        Args:
            shared: whether bindings of the run's other cassettes count. They do where a call
                asks for what was written before; what it writes may be new.
        """
        return self.cassette.substitutes() if shared else dict(self.cassette.bound)

    def keep_bound(self, bindings: dict[str, Json]) -> None:
        """Keep bindings, and make them known to the other cassettes of the run."""
        self.cassette.bound.update(bindings)
        for number, value in bindings.items():
            label = self.cassette.labels.get(number)
            if label is not None:
                BINDINGS[label] = value

    def __repr__(self) -> str:
        return f"<event {self.eid}: {self.method} on {self.url}>"


class _LongAnswers:
    """What was made of the answers that cassettes share: the same in each test that asks."""

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[Any, bytes], Any] = OrderedDict()

    def get(self, make: Any, text: bytes, made: Callable[[Any, bytes], Any]) -> Any:
        key = make, blake2b(text, digest_size=16).digest()
        if key not in self._made:
            found = self._made[key] = made(make, text)
            if len(self._made) > _MOST_LONG_ANSWERS:
                self._made.popitem(last=False)
            return found
        return self._made[key]


_long_answers = _LongAnswers()


class Cassette:
    """A loaded cassette.

    Args:
        data: the file's bytes, decompressed.
        path: where they came from.
        allow_repeats: whether a used-up read may be answered again.
        strict_order: whether calls must come in recorded order.
        match_on: what of a call must be the same; see `timetracer.matchers`.
        levels: which looser levels of matching are allowed; see `matching.OPTIONAL_LEVELS`.
        ignore: paths into arguments that are not compared.

    Raises:
        CassetteFormatError, CassetteVersionError: the bytes are no cassette that can be read.
    """

    def __init__(
        self,
        data: bytes,
        path: str,
        *,
        allow_repeats: bool = False,
        strict_order: bool = False,
        match_on: Iterable[str] = DEFAULT,
        levels: Iterable[str] = OPTIONAL_LEVELS,
        ignore: Iterable[str] = (),
    ) -> None:
        parsed = document.parse(data, path)
        self.path = path
        self._data = data
        self.header = parsed.header
        session = parsed.header.get("session") or {}
        self.redacted = bool(session.get("redaction"))
        self.labels: dict[str, str] = session.get("redacted") or {}
        self.hashed = session.get("body_hash") == BODY_HASH
        self._processes = [
            (int(one.get("from_event") or 1), Process.of(one))
            for one in session.get("processes") or ()
        ]
        self.learned = learned_places(session, path)
        self.bindings = Bindings(path, of_test="node" in session)
        self._surroundings = Surroundings(
            session.get("surroundings") or {}, self._databases, self.bindings.run.shown
        )
        self._is_elsewhere = self._surroundings.concern
        self.bound: dict[str, Json] = {}
        self._first: dict[bytes, int] | None = None
        self.events = [Event(text, self) for text in parsed.events]
        self._index = Index(
            self.events,
            bindings=self.bindings,
            allow_repeats=allow_repeats,
            strict_order=strict_order,
            match_on=match_on,
            levels=levels,
            ignore=ignore,
        )

    @property
    def unused(self) -> list[Event]:
        """The events that answered no call, in recorded order."""
        return [event for event in self.events if not event.used]

    @property
    def lines(self) -> list[bytes]:
        """The file's own text of its events, for a writer that adds to them."""
        return document.own_lines(self._data) or [event.line for event in self.events]

    def first_with(self, text: str) -> int:
        """Return the number of the first event that holds a text that looks made up."""
        wanted = text.encode("utf-8", "replace")
        if self._first is None:
            self._first = {}
            for event in self.events:
                line = event.line
                held = [text.encode("utf-8", "replace") for text in found_in_line(line).texts]
                for one in (*held, *chain.from_iterable(map(_parts_of, _MAY_HOLD.findall(line)))):
                    self._first.setdefault(one, event.eid)
        found = self._first.get(wanted)
        if found is None:  # within a longer text, and of no form that is found there
            found = next((one.eid for one in self.events if wanted in one.line), 0)
        return found

    def process_of(self, eid: int) -> Process:
        """Return the process that recorded an event."""
        known = [process for first, process in self._processes if first <= eid]
        return known[-1] if known else UNKNOWN

    def substitutes(self) -> dict[str, Json]:
        """Return placeholder numbers with what they stand for: as bound by a call of this
        cassette, else by one of another cassette of the run."""
        shared = {n: BINDINGS[label] for n, label in self.labels.items() if label in BINDINGS}
        return {**shared, **self.bound}

    def take(self, call: Call, *, reads: bool = False) -> Match | None:
        """Return the event that answers a call, marked as used, or None for a miss."""
        asked, pairs = self._as_recorded(call)
        match = self._index.take(asked, reads=reads)
        if match is None and pairs:
            return self._index.take(call, reads=reads)
        self._surroundings.note_used(pairs)
        return match

    def _as_recorded(self, call: Call) -> tuple[Call, tuple[Pair, ...]]:
        """Return a call with what was around the recording in place of what is around this run."""
        around = self._surroundings
        if not self._is_elsewhere or not around.may_be_in(call.key + call.url.encode()):
            return call, ()
        asked = dumps(key_to_json(call.key)).decode("utf-8", "replace")
        around.note_asked(f"{asked} {call.url}")
        asked, pairs = around.of_recording(asked)
        url, more = around.of_recording(call.url)
        if not (pairs or more):
            return call, ()
        text = asked.encode()
        key = key_of_json(loads(text), text)
        return replace(call, url=url, key=key), (*pairs, *more)

    def _databases(self) -> set[str]:
        return {event.url.partition(".")[0] for event in self.events}

    @property
    def recorder(self) -> str:
        """The worker of xdist that recorded it."""
        return self._surroundings.recorder

    def rests_on_looks(self, call: Call) -> bool:
        """Tell whether a call misses because its answer rests on values bound by their look."""
        return self._index.rests_on_looks(self._as_recorded(call)[0])

    def nearest(self, call: Call) -> Any:
        """Return the event nearest to a call that missed, with the fields that differ."""
        return self._index.nearest(self._as_recorded(call)[0])


@lru_cache(8192)
def _parts_of(stretch: bytes) -> tuple[bytes, ...]:
    return tuple([one for pattern in _MADE_UP for one in pattern.findall(stretch)])


class Unreadable:
    """Stands in for a cassette that cannot be opened: each call learns why, and none is made."""

    header: Mapping[str, Json] = {}
    events: tuple[Event, ...] = ()
    unused: tuple[Event, ...] = ()

    def __init__(self, error: Exception) -> None:
        self._error = error

    def take(self, call: Call, *, reads: bool = False) -> Match | None:
        """Raise what opening the cassette raised, as a miss if it is no error of ours."""
        if isinstance(self._error, TimetracerError):
            raise self._error
        told = f"The cassette cannot be opened: {self._error!r}"
        raise MissError(told, call=call) from self._error

    def rests_on_looks(self, call: Call) -> bool:
        """Return False: nothing is bound."""
        return False

    def nearest(self, call: Call) -> Any:
        """Return None: nothing is near."""
        return None


# ------------------------------------------------------------------------------------- recorded

Ticket = tuple[int, float]
"""The number of a call's event, and `perf_counter()` when the call began; taken just before
it is made, so that equal calls at once are answered in replay in the order of their beginning."""


@dataclass(slots=True)
class _Pending:
    # Of the call only what is a copy: its arguments are the program's own documents.
    eid: int
    offset_ms: float
    duration_ms: float
    lib: str
    method: str
    url: str
    filter_keys: tuple[str, ...]
    key: bytes
    outcome: Outcome


@dataclass(slots=True)
class Recording:
    """The events of a session while they are recorded.

    An event is numbered as its call begins, so a call that leaves none may leave a gap. Events
    wait as snapshots. With `spill`, they are written to an append-only partial file soon after,
    off the program's path, so that a long-lived process keeps little in memory and loses little
    when it is killed.

    Attributes:
        redactor: makes placeholders of secrets.
        before_record: the user's hook, given each event's arguments and result as JSON.
        spill: opens the partial file; None to keep everything in memory.
        facts: tells what a document's header is to say of the session so far.
        first_eid: number of the first event.
        spill_events: how many events wait at most, as long as they can be written.
        marks: where stretches begin that other cassettes may hold too.
        surroundings: what is around the run, by name, as far as calls hold it.
    """

    redactor: Redactor | None = None
    before_record: Callable[[dict[str, Json]], dict[str, Json] | None] | None = None
    spill: Callable[[], Spool] | None = None
    facts: Callable[[], dict[str, Json]] = dict
    first_eid: int = 1
    spill_events: int = _SPILL_EVENTS
    reached_server: bool = False
    count: int = 0
    marks: list[Mark] = field(default_factory=list)
    surroundings: dict[str, str] = field(default_factory=dict)
    _pending: list[_Pending] = field(default_factory=list)
    _rendered: dict[int, bytes] = field(default_factory=dict)
    _waiting_bytes: int = 0
    _spool: Spool | None = None
    _spiller: _Spiller | None = None
    _seen: dict[int, int] = field(default_factory=dict)
    _lock: Any = field(default_factory=Lock)
    _next: int = 0
    _around: tuple[Around, ...] = ()
    _under_way: set[int] = field(default_factory=set)
    _issuing: Any = field(default_factory=RLock)  # reentrant: a finalizer may make a call in it

    def __post_init__(self) -> None:
        """Number events from the first on."""
        self._next = self.first_eid

    def mark(self, *, shareable: bool) -> None:
        """Begin a stretch of events.

        Args:
            shareable: whether other cassettes are likely to hold it too, as that of a set-up.
        """
        self.marks.append(Mark(self._next, shareable))

    def ticket(self) -> Ticket:
        """Return the number of the event that a call will be, and the time; as the call begins."""
        with self._issuing:
            eid = self._next
            self._next = eid + 1
            self._under_way.add(eid)
            return eid, perf_counter()

    def give_back(self, ticket: Ticket) -> None:
        """Leave no gap for a call that was no event, unless another one has begun since."""
        with self._issuing:
            self._under_way.discard(ticket[0])
            if self._next == ticket[0] + 1:
                self._next = ticket[0]

    @property
    def last_begun(self) -> int:
        """The number of the last event whose call has begun."""
        return self._next - 1

    def settle(self, seconds: float) -> bool:
        """Wait for the calls that have begun, such as those of threads that nobody waits for.

        Args:
            seconds: how long at most.

        Returns:
            Whether all have ended.
        """
        until = perf_counter() + seconds
        while self._under_way and perf_counter() < until:
            sleep(0.002)
        return not self._under_way

    def add(
        self,
        call: Call,
        outcome: Outcome,
        offset_ms: float,
        duration_ms: float,
        eid: int | None = None,
    ) -> int:
        """Keep one event and return its number.

        Args:
            call: the call.
            outcome: a snapshot of its answer.
            offset_ms: when it began, in milliseconds from the session's beginning.
            duration_ms: how long it took, in milliseconds.
            eid: the number of its ticket; the next one where it had none.
        """
        if eid is None:
            eid, _ = self.ticket()
        with self._lock:
            self.count += 1
            self._under_way.discard(eid)
            self._pending.append(
                _Pending(
                    eid,
                    offset_ms,
                    duration_ms,
                    call.lib,
                    call.method,
                    call.url,
                    filter_keys(call.arguments),
                    call.key,
                    outcome,
                )
            )
            self.reached_server = self.reached_server or outcome.reached_server
            if self.spill is not None:
                self._waiting_bytes += len(call.key)
                self._see_to_spilling()
        return eid

    @property
    def may_grow(self) -> bool:
        """Whether an event is still open, such as that of a cursor not yet read to its end."""
        return any(event.outcome.open for event in self._pending)

    def _see_to_spilling(self) -> None:
        if len(self._pending) >= self.spill_events or self._waiting_bytes >= _SPILL_BYTES:
            self._write_partial()
        elif self._spiller is None:
            self._spiller = _Spiller.start(self)

    def _write_partial(self) -> bool:
        """Write what is complete and forget it; write what is open as it is by now, and keep it.

        Returns:
            Whether there was anything to write.
        """
        self._waiting_bytes = 0
        events = [event for event in self._pending if self._is_news(event)]
        if not events or self.spill is None:
            return False
        closed = {event.eid for event in events if not event.outcome.open}
        try:
            self._look_around()
            lines = [(event.eid, self._line(event)) for event in sorted(events, key=_number)]
            if self._spool is None:
                self._spool = self.spill()
            self._spool.write(lines, self.facts())
        except Exception as error:
            # A full disk must not hurt the program: keep the events in memory and try no more.
            write_failed(error)
            self.spill = None
            return False
        self._pending = [event for event in self._pending if event.eid not in closed]
        for eid in closed:
            self._seen.pop(eid, None)
        return True

    def _is_news(self, event: _Pending) -> bool:
        if not event.outcome.open:
            return True
        read = len(getattr(event.outcome, "batches", ()))
        known, self._seen[event.eid] = self._seen.get(event.eid), read
        return known != read

    def flush(self) -> bool:
        """Write what waits to the partial file now; tell whether there was anything."""
        with self._lock:
            return self._write_partial()

    def has_ended(self, spiller: _Spiller) -> bool:
        """Tell a spiller whether nothing is left for it to wait for."""
        with self._lock:
            ended = self.spill is None or not self._pending
            if ended and self._spiller is spiller:
                self._spiller = None
            return ended

    @property
    def busy(self) -> bool:
        """Whether some thread is at work on the events just now."""
        return bool(self._lock.locked())

    def rest(self) -> None:
        """Have no thread at work until the next event, such as while the process is forked."""
        spiller, self._spiller = self._spiller, None
        if spiller is not None:
            spiller.stop()

    def go_on(self) -> None:
        """End a `rest`."""
        with self._lock:
            if self._pending and self.spill is not None:
                self._see_to_spilling()

    def abandon(self) -> None:
        """In a forked child: leave everything to the parent."""
        self._lock, self._issuing = Lock(), RLock()
        self._pending, self._spool, self._spiller, self.spill = [], None, None, None

    def lines(self) -> Iterator[bytes]:
        """Render what waits, and return the line of every event in order of their numbers.

        Once this returns, the redactor knows all that was replaced.
        """
        self.rest()
        with self._lock:
            if self._spool is not None:
                self._write_partial()
            growing = []
            rest = self._rendered
            self._look_around()
            for event in self._pending:
                line = self._line(event)
                if line is not None:
                    rest[event.eid] = line
                if event.outcome.open:
                    growing.append(event)
            self._pending = growing
            if self._spool is not None:
                return self._spool.lines(rest)
            return iter([rest[eid] for eid in sorted(rest)])

    def release_partial(self) -> str | None:
        """Close the partial file and leave it to be recovered; return its path, if it is there."""
        spool, self._spool, self.spill = self._spool, None, None
        if spool is None:
            return None
        spool.file.close()
        return spool.file.path

    def discard_partial(self) -> None:
        """Remove the partial file, once the cassette is written."""
        spool, self._spool = self._spool, None
        self.spill = None
        if spool is not None:
            spool.file.discard()

    def _look_around(self) -> None:
        """Learn what tells the calls that wait from those of another run."""
        learn_of_relatives()
        self._around = around_now()

    def _line(self, event: _Pending) -> bytes | None:
        try:
            return self._render(event)
        except Exception:
            logger.exception("timetracer: event %d could not be written", event.eid)
            return None

    def _render(self, event: _Pending) -> bytes | None:
        told, result = _told_by(event.key), self._result(event.outcome)
        texts = told.text, dumps(result)
        secret = self._holds_secrets(*texts)
        if secret or self.before_record is not None:
            shown = self._shown(event, key_to_json(event.key), result, secret)
            if shown is None:
                return None
            texts = dumps(shown["arguments"]), dumps(shown["result"])
            told = _Told.of(texts[0], shown=True)
        signature = Signature(
            event.lib, event.method, event.url, event.filter_keys, told.body_hash
        )
        self.surroundings.update(held_by(f"{texts[0].decode()} {event.url}", self._around))
        made = made_values((*told.tokens, *_tokens_of(event.url)))
        return document.event_line(
            event.eid, event.offset_ms, event.duration_ms, signature, *texts, made
        )

    def _result(self, outcome: Outcome) -> Json:
        if self.redactor is None and self.before_record is None:
            return getattr(outcome, "to_written", outcome.to_json)()
        return outcome.to_json()

    def _holds_secrets(self, arguments: bytes, result: bytes) -> bool:
        if self.redactor is None:
            return False
        needs = self.redactor.needs_redaction
        # What stands around every answer is no secret, and looking there takes as long again.
        return needs(arguments) or needs(result.removeprefix(_RETURNED))

    def _shown(
        self, event: _Pending, arguments: Json, result: Json, secret: bool
    ) -> dict[str, Json] | None:
        """Return the event as it may be seen, None where the user's hook leaves it out."""
        shown: dict[str, Json] | None = {
            "arguments": arguments,
            "result": result,
            "method": event.method,
            "url": event.url,
        }
        if secret and self.redactor is not None:
            shown = self.redactor.redact_event(shown)
        if self.before_record is not None and shown is not None:
            shown = _as_hooked(self.before_record, shown)
        return shown


def _as_hooked(
    hook: Callable[[dict[str, Json]], dict[str, Json] | None], event: dict[str, Json]
) -> dict[str, Json] | None:
    """Return what the user's hook makes of an event. Commands show what arguments and answers do:
    where the hook changed those alone, the commands are left out."""
    if "commands" not in event["result"]:
        return hook(event)
    before = dumps(event["result"]["commands"]), _beside_commands(event)
    shown = hook(event)
    held = shown["result"].get("commands") if shown is not None else None
    if shown is None or held is None or dumps(held) != before[0]:
        return shown
    if _beside_commands(shown) == before[1]:
        return shown
    result = {name: item for name, item in shown["result"].items() if name != "commands"}
    return {**shown, "result": result}


def _beside_commands(event: dict[str, Json]) -> bytes:
    result = {name: item for name, item in event["result"].items() if name != "commands"}
    return dumps([event["arguments"], result])


class _Told(NamedTuple):
    """A call's arguments as its event tells them.

    Attributes:
        text: the JSON text.
        body_hash: its hash.
        tokens: the values in it that look made up.
    """

    text: bytes
    body_hash: str
    tokens: tuple[Token, ...]

    @classmethod
    def of(cls, text: bytes, *, shown: bool = False) -> _Told:
        """Return what a text tells.

        Args:
            text: the JSON text.
            shown: whether secrets may have been replaced in it.
        """
        plain = text.decode()
        found = list(find(plain))
        hashed = hash_but_for(plain, found)
        if shown and has_placeholders(text):
            arguments = loads(text)
            hashed = body_hash(arguments, masked_paths(arguments))
        compact = plain.encode()  # orjson leaves room behind short texts
        return cls(compact, hashed, tuple(token for _, _, token in found))


_tokens_of = lru_cache(64)(tokens)


def _told_by(key: bytes) -> _Told:
    """Return what a call's key tells, which may be that of many calls, as of a clean-up."""
    return _told_again(key) if len(key) <= _LONGEST_TOLD else _told_again.__wrapped__(key)


@lru_cache(128)
def _told_again(key: bytes) -> _Told:
    return _Told.of(dumps(key_to_json(key)))


_LONGEST_TOLD = 1024


def _number(event: _Pending) -> int:
    return event.eid


class _Spiller:
    """A thread that writes what waits, and ends as soon as nothing does."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="timetracer-spill", daemon=True)

    @classmethod
    def start(cls, recording: Recording) -> _Spiller | None:
        """Return a started one; None where no thread can be had."""
        spiller = cls(recording)
        try:
            spiller._thread.start()
        except RuntimeError:  # the interpreter is shutting down
            return None
        return spiller

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        seconds = _SPILL_SECONDS
        while not self._stopped.wait(seconds):
            if self._recording.flush():
                seconds = _SPILL_SECONDS
            elif self._recording.has_ended(self):
                return
            else:  # only what is still open, such as a cursor that nobody reads on
                seconds = min(2 * seconds, _LONGEST_WAIT)


_told_failures: set[tuple[str, int | None]] = set()


def write_failed(error: BaseException, more: str = "") -> None:
    """Log that something cannot be written; once for each directory and cause."""
    cause = getattr(error.__cause__, "errno", None)
    failure = (os.path.dirname(str(getattr(error, "path", ""))), cause)
    if failure not in _told_failures:
        _told_failures.add(failure)
        logger.error("timetracer: not recorded: %s%s", error, more)


def write_succeeded() -> None:
    """Have the next failure logged again."""
    _told_failures.clear()
