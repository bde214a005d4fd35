"""The tape: a loaded cassette whose events are taken, and a recording that becomes one.

A loaded event stays text until it is taken; a recorded one stays a snapshot until it is written.
So loading N events is one pass over the file, taking one is a look-up, and the JSON of a recording
is made off the program's path.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from timetracer import document
from timetracer.codec import blank_volatile, dumps, from_json
from timetracer.driver import Outcome
from timetracer.errors import NotCapturedError
from timetracer.matching import Index, Match, filter_keys, key_to_json
from timetracer.model import Call, Json, Signature
from timetracer.redaction import Redactor, has_placeholders, substitute

logger = logging.getLogger("timetracer")

BINDINGS: dict[str, Json] = {}
"""Placeholder label -> live value, for all cassettes that this process replays."""

_SPILL_EVENTS = 512
_SPILL_SECONDS = 1.0
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
    def method(self) -> str:
        """The operation, such as "FIND_ONE"."""
        return self._text.signature.method

    @property
    def url(self) -> str:
        """The namespace."""
        return self._text.signature.url

    @property
    def filter_keys(self) -> tuple[str, ...]:
        """The filter's keys, sorted."""
        return self._text.signature.filter_keys

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
        text = self._text.result
        if text.startswith(b'{"status":0'):
            return False
        return bool(document.part(text, self.cassette.path, self.eid, "result").get("error"))

    def arguments(self) -> Json:
        """Return the recorded arguments, a fresh JSON value; None where none were kept."""
        text = self._text.arguments
        return text and document.part(text, self.cassette.path, self.eid, "arguments")

    def result(self) -> dict[str, Any]:
        """Return the event's `result`, a fresh JSON value with bound placeholders filled in.

        Raises:
            CassetteFormatError: its text is damaged.
        """
        text = self._text.result
        value = document.part(text, self.cassette.path, self.eid, "result")
        if self._redacted is None:
            self._redacted = self.redacted and has_placeholders(text)
        if self._redacted:
            value = substitute(value, self.cassette.bindings())
        return value  # type: ignore[no-any-return]

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

    def bound(self) -> dict[str, Json]:
        """Return what this cassette's placeholders were bound to since it was loaded."""
        return dict(self.cassette.bound)

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

    Raises:
        CassetteFormatError, CassetteVersionError: the bytes are no cassette that can be read.
    """

    def __init__(
        self, data: bytes, path: str, *, allow_repeats: bool = False, strict_order: bool = False
    ) -> None:
        parsed = document.parse(data, path)
        self.path = path
        self.header = parsed.header
        self.lines = parsed.lines
        session = parsed.header.get("session") or {}
        self.redacted = bool(session.get("redaction"))
        self.labels: dict[str, str] = session.get("redacted") or {}
        self.bound: dict[str, Json] = {}
        self.events = [Event(text, self) for text in parsed.events]
        self._index = Index(
            self.events,
            allow_repeats=allow_repeats,
            strict_order=strict_order,
        )

    @property
    def unused(self) -> list[Event]:
        """The events that answered no call, in recorded order."""
        return [event for event in self.events if not event.used]

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


# ------------------------------------------------------------------------------------- recorded


@dataclass(slots=True)
class _Pending:
    eid: int
    offset_ms: float
    duration_ms: float
    call: Call
    outcome: Outcome


@dataclass(slots=True)
class Recording:
    """The events of a session while they are recorded.

    Events wait as snapshots. With `spill`, they are written to an append-only partial file from
    time to time, so that a long-lived process keeps little in memory and loses little when killed.

    Attributes:
        redactor: makes placeholders of secrets.
        before_record: the user's hook, given each event's arguments and result as JSON.
        spill: opens the partial file; None to keep everything in memory.
        first_eid: number of the first event.
    """

    redactor: Redactor | None = None
    before_record: Callable[[dict[str, Json]], dict[str, Json] | None] | None = None
    spill: Callable[[], Any] | None = None
    first_eid: int = 1
    spill_events: int = _SPILL_EVENTS
    reached_server: bool = False
    count: int = 0
    _pending: list[_Pending] = field(default_factory=list)
    _partial: Any = None
    _spilled_at: float = field(default_factory=time.monotonic)
    _lock: Any = field(default_factory=Lock)

    def add(self, call: Call, outcome: Outcome, offset_ms: float, duration_ms: float) -> int:
        """Keep one event and return its number."""
        with self._lock:
            eid = self.first_eid + self.count
            self.count += 1
            self._pending.append(_Pending(eid, offset_ms, duration_ms, call, outcome))
            self.reached_server = self.reached_server or outcome.reached_server
            if self.spill is not None and self._is_due():
                self._write_partial()
        return eid

    @property
    def may_grow(self) -> bool:
        """Whether an event is still open, such as that of a cursor not yet read to its end."""
        return any(event.outcome.open for event in self._pending)

    def _is_due(self) -> bool:
        if len(self._pending) >= self.spill_events:
            return True
        return time.monotonic() - self._spilled_at > _SPILL_SECONDS

    def _write_partial(self) -> None:
        self._spilled_at = time.monotonic()
        closed = [event for event in self._pending if not event.outcome.open]
        if not closed or self.spill is None:
            return
        try:
            if self._partial is None:
                self._partial = self.spill()
            self._partial.write(b"".join(line + b"\n" for line in map(self._line, closed) if line))
        except Exception as error:
            # A full disk must not hurt the program: keep the events in memory and try no more.
            logger.error("timetracer: cannot write %s: %s", self._partial_path, error)
            self.spill = None
            return
        self._pending = [event for event in self._pending if event.outcome.open]

    @property
    def _partial_path(self) -> str:
        return getattr(self._partial, "path", "the partial cassette")

    def flush(self) -> None:
        """Write what is complete to the partial file now."""
        with self._lock:
            self._write_partial()

    def lines(self) -> Iterator[bytes]:
        """Yield the line of every event, in order of their numbers."""
        with self._lock:
            rest = sorted(self._pending, key=lambda event: event.eid)
        waiting = iter([(event.eid, event) for event in rest])
        next_eid, event = next(waiting, (None, None))
        for line in self._spilled():
            eid = int(line[8 : line.index(b",", 8)])
            while next_eid is not None and event is not None and next_eid < eid:
                yield from self._lines_of(event)
                next_eid, event = next(waiting, (None, None))
            yield line
        while event is not None:
            yield from self._lines_of(event)
            next_eid, event = next(waiting, (None, None))

    def _lines_of(self, event: _Pending) -> Iterator[bytes]:
        line = self._line(event)
        if line is not None:
            yield line

    def _spilled(self) -> Iterator[bytes]:
        # Spilled batches are in order, but an event that was open then comes in a later one.
        if self._partial is None:
            return
        lines = [line for line in self._partial.lines() if line.startswith(b'{"eid": ')]
        order = [int(line[8 : line.index(b",", 8)]) for line in lines]
        for position in sorted(range(len(lines)), key=order.__getitem__):
            yield lines[position]

    def discard_partial(self) -> None:
        """Remove the partial file, once the cassette is written."""
        if self._partial is not None:
            self._partial.discard()
            self._partial = None

    def _line(self, event: _Pending) -> bytes | None:
        try:
            return self._render(event)
        except Exception:
            logger.exception("timetracer: event %d could not be written", event.eid)
            return None

    def _render(self, event: _Pending) -> bytes | None:
        call = event.call
        arguments, result = key_to_json(call.key), event.outcome.to_json()
        keys = filter_keys(arguments) or filter_keys(call.arguments)
        texts = dumps(arguments), dumps(result)
        secret = self._holds_secrets(*texts)
        if secret or self.before_record is not None:
            shown = self._shown(call, arguments, result, secret)
            if shown is None:
                return None
            texts = dumps(shown["arguments"]), dumps(shown["result"])
        signature = Signature(call.lib, call.method, call.url, keys, body_hash(texts[0]))
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
        self, call: Call, arguments: Json, result: Json, secret: bool
    ) -> dict[str, Json] | None:
        """Return the event as it may be seen, None where the user's hook leaves it out."""
        shown: dict[str, Json] | None = {
            "arguments": arguments,
            "result": result,
            "method": call.method,
            "url": call.url,
        }
        if secret and self.redactor is not None:
            shown = self.redactor.redact_event(shown)
        if self.before_record is not None and shown is not None:
            shown = self.before_record(shown)
        return shown


def body_hash(arguments: bytes) -> str:
    """Return the hash of a call's arguments, the same in every recording of the same program.

    Args:
        arguments: the arguments as compact JSON text, secrets already replaced.
    """
    return hashlib.blake2b(blank_volatile(arguments), digest_size=8).hexdigest()


def process_mark() -> str:
    """Return what tells in a partial file's name which process writes it."""
    return str(os.getpid())
