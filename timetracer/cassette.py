"""The tape: a loaded cassette whose events are taken, and a recording that becomes one.

A loaded event stays text until it is taken; a recorded one stays a snapshot until it is written.
So loading N events is one pass over the file, taking one is a look-up, and the JSON of a recording
is made off the program's path.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from timetracer import document
from timetracer.codec import blank_volatile, dumps, from_json
from timetracer.driver import Outcome
from timetracer.errors import NotCapturedError, TimetracerError
from timetracer.matching import Index, Match, filter_keys, key_to_json
from timetracer.model import Call, Json, Signature
from timetracer.recovery import Spool
from timetracer.redaction import Redactor, has_placeholders, substitute

logger = logging.getLogger("timetracer")

BINDINGS: dict[str, Json] = {}
"""Placeholder label -> live value, for all cassettes that this process replays."""

_SPILL_EVENTS = 512
_SPILL_BYTES = 4 * 1024 * 1024
_SPILL_SECONDS = 0.25
_LONGEST_WAIT = 2.0
_RETURNED = b'{"status":0,"body":{"captured":true,"data":'


# ------------------------------------------------------------------------------------- loaded


class Event:
    """One event of a loaded cassette.

    Attributes:
        eid: its number in the cassette.
        used: whether it has answered a call.
        cassette: the cassette it belongs to.
    """

    __slots__ = ("_cache", "_redacted", "_text", "cassette", "eid", "used")

    def __init__(self, text: document.EventText, cassette: Cassette) -> None:
        self._text = text
        self.eid = text.eid
        self.used = False
        self.cassette = cassette
        self._cache: Any = None
        self._redacted: bool | None = None

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
    def failed(self) -> bool:
        """Whether the call raised."""
        return not self._text.succeeded and bool(self.result().get("error"))

    def arguments(self) -> Json:
        """Return the recorded arguments, a fresh JSON value; None where none were kept."""
        text = self._text.arguments
        return text and document.arguments_of(text, self.cassette.path, self.eid)

    def result(self) -> dict[str, Any]:
        """Return the event's `result`, a fresh JSON value with bound placeholders filled in.

        Raises:
            CassetteFormatError: its text is damaged.
        """
        text = self._text.result
        value = document.result_of(text, self.cassette.path, self.eid)
        if self._redacted is None:
            self._redacted = self.redacted and has_placeholders(text)
        if self._redacted:
            value = substitute(value, self.cassette.bindings())
        return value

    def body(self) -> Any:
        """Return what `result.body.data` holds, as JSON.

        Raises:
            NotCapturedError: the result was not kept.
        """
        body = self.result().get("body") or {}
        if not body.get("captured", "data" in body):
            raise NotCapturedError(
                f"event {self.eid} of {self.cassette.path} ({self.method} on {self.url}) was kept "
                "without its result (captured: false). Record it again.",
                cassette=self.cassette.path,
                nearest=self,
            )
        return body.get("data")

    def cached(self, make: Callable[[dict[str, Any]], Any]) -> Any:
        """Return `make(result)`, made once and kept; never to be altered."""
        if self._cache is None:
            made = make(self.result())
            if self._redacted:
                return made  # what is bound may change from call to call
            self._cache = made
        return self._cache

    def recorded_document(self) -> Any:
        """Return the recorded answer as Python values, None where there is none."""
        body = self.result().get("body") or {}
        data = body.get("data")
        return from_json(data) if isinstance(data, dict) else None

    def bound(self, *, shared: bool) -> dict[str, Json]:
        """Return what placeholders stand for already, so that a call may not contradict it.

        Args:
            shared: whether bindings of the run's other cassettes count. They do for a read, which
                asks for what was written before; a write may bring a new value.
        """
        return self.cassette.bindings() if shared else dict(self.cassette.bound)

    def keep_bound(self, bindings: dict[str, Json]) -> None:
        """Keep bindings, and make them known to the other cassettes of the run."""
        self.cassette.bound.update(bindings)
        for number, value in bindings.items():
            label = self.cassette.labels.get(number)
            if label is not None:
                BINDINGS[label] = value

    def __repr__(self) -> str:
        return f"<event {self.eid}: {self.method} on {self.url}>"


class Cassette:
    """A loaded cassette.

    Args:
        data: the file's bytes, decompressed.
        path: where they came from.
        allow_repeats: whether a used-up read may be answered again.
        strict_order: whether calls must come in recorded order.
        match_lib: whether PyMongo's calls and Motor's are told apart.

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
        match_lib: bool = False,
    ) -> None:
        parsed = document.parse(data, path)
        self.path = path
        self.header = parsed.header
        session = parsed.header.get("session") or {}
        self.redacted = bool(session.get("redaction"))
        self.labels: dict[str, str] = session.get("redacted") or {}
        self.bound: dict[str, Json] = {}
        self.events = [Event(text, self) for text in parsed.events]
        self._index = Index(
            self.events,
            allow_repeats=allow_repeats,
            strict_order=strict_order,
            match_lib=match_lib,
        )

    @property
    def unused(self) -> list[Event]:
        """The events that answered no call, in recorded order."""
        return [event for event in self.events if not event.used]

    @property
    def lines(self) -> list[bytes]:
        """The events' own text, one a line, for a writer that adds to them."""
        return [event.line for event in self.events]

    def bindings(self) -> dict[str, Json]:
        """Return placeholder numbers with what they stand for: as bound by a call of this
        cassette, else by one of another cassette of the run."""
        shared = {n: BINDINGS[label] for n, label in self.labels.items() if label in BINDINGS}
        return {**shared, **self.bound}

    def take(self, call: Call, *, reads: bool = False) -> Match | None:
        """Return the event that answers a call, marked as used, or None for a miss."""
        return self._index.take(call, reads=reads)

    def nearest(self, call: Call) -> Any:
        """Return the event nearest to a call that missed, with the fields that differ."""
        return self._index.nearest(call)


class Unreadable:
    """Stands in for a cassette that cannot be opened: each call learns why, and none is made."""

    header: Mapping[str, Json] = {}
    events: tuple[Event, ...] = ()
    unused: tuple[Event, ...] = ()

    def __init__(self, error: TimetracerError) -> None:
        self._error = error

    def take(self, call: Call, *, reads: bool = False) -> Match | None:
        """Raise what opening the cassette raised."""
        raise self._error

    def nearest(self, call: Call) -> Any:
        """Return None: nothing is near."""
        return None


# ------------------------------------------------------------------------------------- recorded


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

    Events wait as snapshots. With `spill`, they are written to an append-only partial file soon
    after, off the program's path, so that a long-lived process keeps little in memory and loses
    little when it is killed.

    Attributes:
        redactor: makes placeholders of secrets.
        before_record: the user's hook, given each event's arguments and result as JSON.
        spill: opens the partial file; None to keep everything in memory.
        facts: tells what a document's header is to say of the session so far.
        first_eid: number of the first event.
        spill_events: how many events wait at most, as long as they can be written.
    """

    redactor: Redactor | None = None
    before_record: Callable[[dict[str, Json]], dict[str, Json] | None] | None = None
    spill: Callable[[], Spool] | None = None
    facts: Callable[[], dict[str, Json]] = dict
    first_eid: int = 1
    spill_events: int = _SPILL_EVENTS
    reached_server: bool = False
    count: int = 0
    _pending: list[_Pending] = field(default_factory=list)
    _rendered: dict[int, bytes] = field(default_factory=dict)
    _waiting_bytes: int = 0
    _spool: Spool | None = None
    _spiller: _Spiller | None = None
    _seen: dict[int, int] = field(default_factory=dict)
    _lock: Any = field(default_factory=Lock)

    def add(self, call: Call, outcome: Outcome, offset_ms: float, duration_ms: float) -> int:
        """Keep one event and return its number."""
        with self._lock:
            eid = self.first_eid + self.count
            self.count += 1
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
            lines = [(event.eid, self._line(event)) for event in events]
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
        self._lock = Lock()
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

    def _line(self, event: _Pending) -> bytes | None:
        try:
            return self._render(event)
        except Exception:
            logger.exception("timetracer: event %d could not be written", event.eid)
            return None

    def _render(self, event: _Pending) -> bytes | None:
        arguments, result = key_to_json(event.key), event.outcome.to_json()
        texts = dumps(arguments), dumps(result)
        secret = self._holds_secrets(*texts)
        if secret or self.before_record is not None:
            shown = self._shown(event, arguments, result, secret)
            if shown is None:
                return None
            texts = dumps(shown["arguments"]), dumps(shown["result"])
        signature = Signature(
            event.lib, event.method, event.url, event.filter_keys, body_hash(texts[0])
        )
        return document.event_line(
            event.eid, event.offset_ms, event.duration_ms, signature, *texts
        )

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
            shown = self.before_record(shown)
        return shown


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


def body_hash(arguments: bytes) -> str:
    """Return the hash of a call's arguments, the same in every recording of the same program.

    Args:
        arguments: the arguments as compact JSON text, secrets already replaced.
    """
    return hashlib.blake2b(blank_volatile(arguments), digest_size=8).hexdigest()
