"""Cursors: what was read of one is one event, batch by batch, and is read again in the same steps.

Every batch of find, getMore, raw batches, GridOut and change streams passes the driver's
`MongoClient._run_operation(operation, bound_method, address)`. There a recording copies the
server's reply, and a replay answers with one made of the recorded documents; what a cursor does
with it (alive, rewind, clone, limits, decoding) stays the driver's own work.
"""

from __future__ import annotations

import inspect
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from typing import Any

import orjson
from pymongo.message import _GetMore, _OpMsg

from timetracer.codec import bson_to_json, dumps, from_json, json_to_bson, loads, to_json
from timetracer.driver import Exchange, MethodRow, RecordedResult
from timetracer.errors import MissError, ReadPastRecordingError
from timetracer.frozen_time import perf_counter
from timetracer.intercept import begin
from timetracer.model import Call, Json
from timetracer.plugins import commands, failures
from timetracer.plugins.replies import (
    embedded_array,
    encode_value,
    is_absent,
    raw_part,
    raw_to_json,
)
from timetracer.process import current
from timetracer.session import Session

LINK = "_timetracer"
"""The attribute of a driver's cursor that leads to its recording or its reading."""

_DOCUMENT_FIELDS = {"cursor": {"firstBatch": 1, "nextBatch": 1}}
_LONG_BATCHES = 1000
_LONG_BYTES = 8 * 1024 * 1024
_LEAST_KEPT = 16 * 1024
_MOST_KEPT = 4 * 1024 * 1024
_TEXTS_KEPT = 8
_OK = b"\x01ok\x00" + struct.pack("<d", 1.0)


# ------------------------------------------------------------------------------- recording


@dataclass(slots=True)
class Batch:
    """One reply to a cursor.

    Attributes:
        documents: makes the documents' JSON.
        size: bytes kept for it.
        token: the change stream's postBatchResumeToken, as JSON.
        raw: gives what the documents' JSON rests on, None where that is not known.
    """

    documents: Callable[[], list[Json]]
    size: int = 0
    token: Callable[[], Json] | None = None
    raw: Callable[[], bytes | None] = lambda: None

    def text(self) -> tuple[int, bytes]:
        """Return how many documents there are, and their JSON text; made once of what a program
        reads again and again."""
        raw = self.raw() if self.size >= _LEAST_KEPT else None
        key = None if raw is None else blake2b(raw, digest_size=16).digest()
        found = _texts.get(key) if key is not None else None
        if found is None:
            documents = self.documents()
            found = len(documents), dumps(documents)[1:-1]
            if key is not None and len(found[1]) <= _MOST_KEPT:
                _texts[key] = found
                if len(_texts) > _TEXTS_KEPT:
                    _texts.pop(next(iter(_texts)), None)
        return found


_texts: dict[bytes, tuple[int, bytes]] = {}


class _Weakly:
    """What others may know of without keeping it."""

    __slots__ = ("__weakref__",)


@dataclass(slots=True)
class CursorOutcome(_Weakly):
    """What was read of a cursor so far.

    Attributes:
        session: the session that records it.
        call: the call that opened it.
        open: whether the server has more, as far as is known.
        explained: whether the reply is a query plan and no cursor.
        error: the exception that ended it, as JSON.
        cancelled: the batches whose reading was cancelled at first, as [number, milliseconds].
        stream: whether it is read for data to come.
        after: of a stream, the number of the last event that had begun when each batch came, and
            the error that ended it.
    """

    session: Session
    call: Call
    address: Any = None
    namespace: str = ""
    batches: list[Batch] = field(default_factory=list)
    open: bool = True
    explained: bool = False
    error: Json = None
    reached_server: bool = True
    extras: dict[str, Json] = field(default_factory=dict)
    continued: int = 0
    cancelled: list[Json] = field(default_factory=list)
    stream: bool = False
    after: list[Json] = field(default_factory=list)
    _size: int = 0

    def add(self, batch: Batch, *, more: bool) -> None:
        """Add one reply."""
        self.batches.append(batch)
        self.note_begun()
        self._size += batch.size
        self.open = more

    def note_begun(self) -> None:
        """Note which calls had begun when a reply, or an error in its place, came."""
        recording = self.session.recording
        self.after.append(recording.last_begun if recording is not None else 0)

    @property
    def is_long(self) -> bool:
        """Whether it is time to go on in an event of its own, to bound what is in memory."""
        return len(self.batches) >= _LONG_BATCHES or self._size >= _LONG_BYTES

    def to_json(self) -> dict[str, Json]:
        """Return the event's `result`."""
        read = [batch.documents() for batch in self.batches]
        data = [document for batch in read for document in batch]
        if self.explained:
            return {"status": 0, **self.extras, "body": {"captured": True, "data": data[0]}}
        return self._result([len(batch) for batch in read], data)

    def to_written(self) -> dict[str, Json]:
        """Return the event's `result` for a writer that does not look into the documents."""
        if self.explained:
            return self.to_json()
        read = [batch.text() for batch in self.batches]
        joined = b",".join(text for _, text in read if text)
        return self._result([count for count, _ in read], orjson.Fragment(b"[%b]" % joined))

    def _result(self, sizes: list[int], data: Json) -> dict[str, Json]:
        cursor: dict[str, Json] = {
            "batches": sizes,
            "exhausted": not self.open and self.error is None and not self.continued,
        }
        if self.namespace:
            cursor["namespace"] = self.namespace
        if self.address is not None:
            cursor["address"] = [to_json(part) for part in self.address]
        tokens = [batch.token() if batch.token else None for batch in self.batches]
        if any(token is not None for token in tokens):
            cursor["tokens"] = tokens
        if self.error is not None:
            cursor["error"] = self.error
        if self.continued:
            cursor["continued"] = self.continued
        if self.cancelled:
            cursor["cancelled"] = self.cancelled
        if self.stream and (any(cursor["batches"][1:]) or self.error is not None):
            cursor["after"] = self.after
        return {
            "status": 0,
            "cursor": cursor,
            **self.extras,
            "body": {"captured": True, "data": data},
        }


def batch_of(payload: bytes | None, path: str, read: Any, options: Any) -> Batch:
    """Return one reply as a batch.

    Args:
        payload: the reply as BSON bytes, None where it was not seen (automatic encryption).
        path: where its documents are, such as "cursor.firstBatch"; "" for the reply itself.
        read: the documents as the driver decoded them, for want of a payload.
        options: the codec options they were decoded with.
    """
    if payload is None:
        documents = encode_value(list(read), options)
        return Batch(lambda: list(documents() or []))
    copied = bytes(payload)

    def from_payload() -> list[Json]:
        if not path:
            return [bson_to_json(copied)]
        found = raw_part(copied, path)
        return [] if is_absent(found) else [raw_to_json(document) for document in found]

    token = _token_of(copied) if b"postBatch" in copied else None
    return Batch(from_payload, len(copied), token, lambda: embedded_array(copied, path))


def _token_of(payload: bytes) -> Callable[[], Json]:
    def token() -> Json:
        found = raw_part(payload, "cursor.postBatchResumeToken")
        return None if is_absent(found) else raw_to_json(found)

    return token


# ------------------------------------------------------------------------------- replaying


@dataclass(frozen=True, slots=True)
class Recorded:
    """The batches of a recorded cursor, ready to be served.

    Attributes:
        arrays: each batch as a BSON array.
        sizes: the number of documents in each.
        tokens: the change stream's token after each, as BSON, or None.
        cancelled: the batches whose reading was cancelled at first, as (number, milliseconds).
        after: the number of the last event that had begun when each came; empty where not known.
    """

    arrays: tuple[bytes, ...]
    sizes: tuple[int, ...]
    tokens: tuple[bytes | None, ...]
    exhausted: bool
    namespace: str
    address: tuple[Any, ...] | None
    error: Json
    explained: bytes | None
    continued: int
    cancelled: tuple[tuple[int, float], ...]
    after: tuple[int, ...]


def recorded_cursor(result: dict[str, Any]) -> Recorded:
    """Return the cursor that an event's `result` holds."""
    cursor = result.get("cursor")
    data = (result.get("body") or {}).get("data")
    explained = None
    if cursor is None and isinstance(data, dict):
        explained, data = json_to_bson(data), []
    cursor = cursor or {}
    documents = data or []
    sizes = cursor.get("batches") or [len(documents)]
    arrays, start = [], 0
    for size in sizes:
        arrays.append(_array(documents[start : start + size]))
        start += size
    tokens = cursor.get("tokens") or [None] * len(sizes)
    address = cursor.get("address")
    return Recorded(
        tuple(arrays),
        tuple(sizes),
        tuple(token and json_to_bson(token) for token in tokens),
        bool(cursor.get("exhausted", True)),
        cursor.get("namespace") or "",
        tuple(from_json(part) for part in address) if address else None,
        cursor.get("error"),
        explained,
        cursor.get("continued") or 0,
        tuple((number, milliseconds) for number, milliseconds in cursor.get("cancelled") or ()),
        tuple(cursor.get("after") or ()),
    )


def _array(documents: list[Json]) -> bytes:
    # As the only field of a document: one encoding for all of them, not one for each.
    return json_to_bson({"": documents})[len(b"\0\0\0\0\x04\0") : -1]


def _embedded(name: bytes, document: bytes) -> bytes:
    return b"\x03" + name + b"\x00" + document


def _whole(elements: bytes) -> bytes:
    return (len(elements) + 5).to_bytes(4, "little") + elements + b"\x00"


class Reading(_Weakly):
    """One replayed cursor: which batch comes next.

    Args:
        event: the event that holds what was read.
        session: the session it is replayed in.
        call: the call that opened it.
        stream: whether it is polled for data to come, so that an empty last batch repeats.
    """

    __slots__ = (
        "_call",
        "_cancels",
        "_client",
        "_event",
        "_next",
        "_patience",
        "_recorded",
        "_session",
        "_stream",
        "_told",
        "listeners",
    )

    def __init__(self, event: RecordedResult, session: Session, call: Call, stream: bool) -> None:
        self._event = event
        self._recorded: Recorded = event.cached(recorded_cursor)
        self._session = session
        self._call = call
        self._stream = stream
        self._next = 0
        self._cancels = list(self._recorded.cancelled)
        self._patience = _LONGEST_PATIENCE
        self._told: tuple[RecordedResult, bytes] | None = None
        self._client: Any = None
        self.listeners: Any = None

    @property
    def address(self) -> Any:
        """The server that answered."""
        return self._recorded.address

    @property
    def made_by_driver(self) -> bool:
        """Whether no server sent it, such as the one over the databases' names."""
        return not self._recorded.namespace

    @property
    def plan(self) -> bytes | None:
        """The query plan, where the event holds one and no cursor."""
        return self._recorded.explained

    @property
    def at_end(self) -> bool:
        """Whether all that was read has been given."""
        return self._next >= len(self._recorded.arrays)

    def cancelled_after(self) -> float | None:
        """Return for how many seconds the next reply waits to be cancelled, None if not at all."""
        if not self._cancels or self._cancels[0][0] != self._next:
            return None
        return failures.patience(self._cancels.pop(0)[1])

    def pauses(self) -> Iterator[float]:
        """Yield how many seconds to wait, again and again, while what had begun before the next
        reply came is not asked for yet, such as a thread's write that a change tells of."""
        number, after = self._next, self._recorded.after
        if not 0 < number < len(after) or self._recorded.sizes[number : number + 1] == (0,):
            return
        since = max(self._event.eid, after[number - 1])
        for event in self._event.between(since, after[number]):
            while not event.used and self._patience > 0:
                self._patience -= _PAUSE
                yield _PAUSE

    def reply(self, kind: str, namespace: str, options: Any) -> bytes:
        """Return the next reply, as BSON.

        Args:
            kind: "firstBatch" or "nextBatch".
            namespace: the namespace where none was recorded.
            options: the codec options with which replies are decoded.

        Raises:
            ReadPastRecordingError: no more was read when it was recorded.
        """
        recorded = self._recorded
        if self._next >= len(recorded.arrays):
            self._beyond(options)
            recorded = self._recorded
        number = self._next
        self._next += 1
        last = self._next >= len(recorded.arrays)
        ended = last and recorded.exhausted
        cursor = (
            b"\x04%b\x00%b" % (kind.encode(), recorded.arrays[number])
            + b"\x12id\x00"
            + (0 if ended else number_of(self._event)).to_bytes(8, "little")
            + _string(b"ns", recorded.namespace or namespace)
        )
        token = recorded.tokens[number]
        if token is not None:
            cursor += _embedded(b"postBatchResumeToken", token)
        return _whole(_embedded(b"cursor", _whole(cursor)) + _OK)

    @property
    def step(self) -> int:
        """How many replies of its event were given."""
        return self._next

    def listen(self, client: Any) -> None:
        """Have a client's listeners told of every further command, if it has any."""
        self._client = client
        self.listeners = commands.listeners_of(client)
        if self.listeners is not None:
            self._session.open_cursors[number_of(self._event)] = self

    def tell(self, step: int, answer: Callable[[], Any], session: Any) -> None:
        """Tell the client's listeners what they were told in a step of the recorded cursor.

        Args:
            step: the step.
            answer: gives the documents of its reply, decoded.
            session: the ClientSession that the cursor has, None for none.
        """
        if self.listeners is None:
            return
        if self._told is None or self._told[0] is not self._event:
            kept = self._event.result().get(commands.COMMANDS) or []
            self._told = self._event, dumps(kept)
            self._session.open_cursors[number_of(self._event)] = self
        kept = commands.of_step({commands.COMMANDS: loads(self._told[1])}, step)
        live = commands.Live(answer, self._client, session, number_of(self._event))
        commands.tell(self._session, self.listeners, kept, live)

    def _beyond(self, options: Any) -> None:
        recorded = self._recorded
        if recorded.error is not None:
            raise failures.rebuild(recorded.error, options)
        if recorded.continued:
            self._go_on(recorded.continued)
            return
        if self._stream and recorded.sizes and recorded.sizes[-1] == 0:
            self._next = len(recorded.arrays) - 1  # nothing had come yet: poll again
            return
        count = sum(recorded.sizes)
        raise self._session.miss(
            self._call,
            ReadPastRecordingError,
            f"{self._call.method.lower()} on {self._call.url} is read further than it was "
            f"recorded: event {self._event.eid} of {self._session.where} holds {count} documents "
            f"in {len(recorded.sizes)} batches, and the cursor was not read to its end.",
        )

    def _go_on(self, mark: int) -> None:
        call = continuation(self._call, mark)
        event = self._session.answer(call, reads=True)
        if event is None:
            raise self._session.miss(call)
        self._event = event
        self._recorded = event.cached(recorded_cursor)
        self._next = 0
        self._cancels = list(self._recorded.cancelled)


_PAUSE, _LONGEST_PATIENCE = 0.005, 2.0
"""Seconds from one look to the next, and in all: a program may ask for less than was recorded."""

_REPLAYED = 0x54696D65 << 32
"""What the number of a replayed cursor begins with, so that it is never taken for a server's."""


def number_of(event: RecordedResult) -> int:
    """Return the number of the cursor that an event answers with."""
    return _REPLAYED + event.eid


def is_replayed(number: int) -> bool:
    """Tell whether a cursor of that number was opened in replay."""
    return number >> 32 == _REPLAYED >> 32


def continuation(call: Call, mark: int) -> Call:
    """Return the call under which a long cursor goes on in an event of its own."""
    from timetracer.matching import key_of

    arguments = {"continues": mark}
    return Call(call.lib, "GET_MORE", call.url, arguments, key_of(arguments))


def _string(name: bytes, text: str) -> bytes:
    raw = text.encode()
    return b"\x02" + name + b"\x00" + (len(raw) + 1).to_bytes(4, "little") + raw + b"\x00"


@dataclass(frozen=True, slots=True)
class ReplayedResponse:
    """What `_run_operation` returns: the shape of pymongo.response.Response."""

    docs: Any
    address: Any
    data: Any = None
    from_command: bool = True


def respond(reading: Reading, operation: Any, cursor: Any) -> ReplayedResponse:
    """Return the reply to a query or getMore, decoded by the cursor itself."""
    kind = "nextBatch" if isinstance(operation, _GetMore) else "firstBatch"
    try:
        payload = _payload_of(reading, operation, kind)
    except MissError:
        raise
    except Exception:
        reading.tell(reading.step, list, operation.session)
        raise
    docs = cursor._unpack_response(
        _OpMsg(0, payload),
        getattr(operation, "cursor_id", None),
        operation.codec_options,
        user_fields=_DOCUMENT_FIELDS,
    )
    if reading.listeners is not None:
        answer = docs[0].get("cursor", {}).get(kind)
        step = max(reading.step - 1, 0)
        reading.tell(step, lambda: answer, operation.session)
    return ReplayedResponse(docs, reading.address or _SOMEWHERE)


def _payload_of(reading: Reading, operation: Any, kind: str) -> bytes:
    if reading.plan is not None:
        operation.name = "explain"  # as it turns live, once the command is built
        return reading.plan
    namespace = f"{operation.db}.{operation.coll}"
    return reading.reply(kind, namespace, operation.codec_options)


_SOMEWHERE = ("localhost", 27017)


# ------------------------------------------------------------------------------- find


@dataclass(frozen=True, slots=True)
class Find:
    """The reply to a query: `instance` is the driver's cursor.

    Attributes:
        path: where the server's reply has the documents.
    """

    path: str = "cursor.firstBatch"

    def keep(self, exchange: Exchange, result: Any) -> CursorOutcome:
        """Keep the first batch; the cursor leads to what comes later."""
        operation = exchange.arguments["operation"]
        outcome = CursorOutcome(_session(), exchange.call, address=result.address)
        outcome.explained = operation.name == "explain"
        outcome.stream = _is_tailable(exchange.instance)
        path = "" if outcome.explained else self.path
        more = False
        read: Any = result.docs
        if not outcome.explained:
            cursor = result.docs[0]["cursor"]
            more = bool(cursor["id"])
            _hold(exchange, outcome, cursor["id"])
            outcome.namespace = str(cursor.get("ns") or "")
            read = cursor["firstBatch"]
        outcome.add(
            batch_of(_payload(result, operation), path, read, operation.codec_options), more=more
        )
        setattr(exchange.instance, LINK, outcome)
        return outcome

    def give(self, exchange: Exchange, event: RecordedResult) -> ReplayedResponse:
        """Answer the query with the recorded first batch."""
        cursor = exchange.instance
        reading = Reading(event, _session(), exchange.call, stream=_is_tailable(cursor))
        reading.listen(cursor.collection.database.client)
        setattr(cursor, LINK, reading)
        return respond(reading, exchange.arguments["operation"], cursor)


def _session() -> Session:
    state = current()
    assert isinstance(state, Session)
    return state


_READING_ON = MethodRow("pymongo", "_run_operation", "GET_MORE", Find(), scope="cursor")


def _is_tailable(cursor: Any) -> bool:
    return bool(getattr(cursor, "_query_flags", 0) & 2)


def _payload(response: Any, operation: Any) -> bytes | None:
    """Return the reply's bytes; None under automatic encryption, where they are ciphertext."""
    if getattr(operation.client, "_encrypter", None) is not None:
        return None
    return getattr(response.data, "payload_document", None)


# ------------------------------------------------------------------------------- listeners


def _hold(exchange: Exchange, outcome: CursorOutcome, number: Any) -> None:
    """Keep in mind which recording a cursor on the server has, where somebody listens."""
    if exchange.hearing is not None and number:
        exchange.hearing.session.open_cursors[int(number)] = outcome


def hearing_on(link: Any, cursor: Any) -> commands.Hearing | None:
    """Return what hears the listeners while a recorded cursor is read on; None where there are
    none."""
    if not isinstance(link, CursorOutcome) or commands.COMMANDS not in link.extras:
        return None
    client = cursor._collection.database.client
    return commands.hearing_of(client, link.session, "cursor.nextBatch")


def reading_on(link: CursorOutcome) -> Exchange:
    """Return the exchange of a recorded cursor that is read on or closed."""
    return Exchange(_READING_ON, link.call, None, {})


def keep_commands(
    link: CursorOutcome, hearing: commands.Hearing | None, *, known: bool = False, step: int
) -> None:
    """Add what listeners heard in a step of a recorded cursor to its event; for the arguments see
    `Hearing.kept`."""
    if hearing is not None:
        before = link.extras.get(commands.COMMANDS) or []
        link.extras[commands.COMMANDS] = [*before, *hearing.kept(known=known, step=step)]


def while_closing(
    link: CursorOutcome, client: Any, function: Callable[[], Any], *, awaits: bool
) -> Any:
    """Close a recorded cursor before its end, and keep what listeners hear of it."""
    hearing = commands.hearing_of(client, link.session)
    if hearing is None:
        return function()
    return (_close_async if awaits else _close)(link, hearing, function)


def _close(link: CursorOutcome, hearing: commands.Hearing, function: Callable[[], Any]) -> Any:
    try:
        return hearing.during(reading_on(link), function)
    finally:
        keep_commands(link, hearing, step=commands.CLOSING)


async def _close_async(
    link: CursorOutcome, hearing: commands.Hearing, function: Callable[[], Any]
) -> Any:
    try:
        return await hearing.during_async(reading_on(link), function)
    finally:
        keep_commands(link, hearing, step=commands.CLOSING)


# ------------------------------------------------------------------------------- reading on


def more(
    link: CursorOutcome, operation: Any, response: Any, hearing: commands.Hearing | None = None
) -> None:
    """Add the reply to a getMore to what was recorded of its cursor."""
    cursor = response.docs[0]["cursor"]
    payload = _payload(response, operation)
    keep_commands(link, hearing, known=payload is not None, step=len(link.batches))
    if hearing is not None and cursor["id"]:
        link.session.open_cursors[cursor["id"]] = link
    batch = batch_of(
        payload,
        "cursor.nextBatch",
        cursor["nextBatch"],
        operation.codec_options,
    )
    link.add(batch, more=bool(cursor["id"]))


def go_on(link: CursorOutcome) -> CursorOutcome:
    """Return the outcome that takes the next reply: a new event once the one before is long."""
    if not link.is_long or link.session.recording is None:
        return link
    ticket = begin(link.session)
    mark, _ = ticket
    following = CursorOutcome(
        link.session,
        link.call,
        address=link.address,
        namespace=link.namespace,
        stream=link.stream,
    )
    link.continued, link.open = mark, False
    link.session.record(continuation(link.call, mark), following, ticket)
    return following


def fail(
    link: CursorOutcome,
    error: Exception,
    options: Any,
    hearing: commands.Hearing | None = None,
) -> None:
    """Keep the exception that ended a recorded cursor, whose replies `options` decode."""
    keep_commands(link, hearing, step=len(link.batches))
    link.error = failures.error_to_json(error, options)
    link.note_begun()
    link.open = False


def cancel(
    link: CursorOutcome, started: float, hearing: commands.Hearing | None = None
) -> None:
    """Keep that reading the next batch was cancelled; the cursor may be read on."""
    keep_commands(link, hearing, step=len(link.batches))
    elapsed = round((perf_counter() - started) * 1000, 3)
    link.cancelled.append([len(link.batches), elapsed])


def is_getmore(operation: Any) -> bool:
    """Tell whether an operation reads on in a cursor that is open."""
    return isinstance(operation, _GetMore)


def query_arguments(operation: Any) -> dict[str, Any]:
    """Return the arguments that change the answer to a query, by the names `find` has."""
    spec = operation.spec
    arguments: dict[str, Any] = {}
    if "$query" in spec:
        arguments["filter"] = spec["$query"]
        for key, value in spec.items():
            if key in _MODIFIERS and value is not None:
                arguments[_MODIFIERS[key]] = _pairs(value) if key == "$orderby" else value
    elif spec:
        arguments["filter"] = spec
    for name, attribute in _QUERY:
        value = getattr(operation, attribute)
        if value:
            arguments[name] = value
    if operation.read_concern.level:
        arguments["read_concern"] = operation.read_concern.document
    return arguments


def _pairs(value: Any) -> Any:
    return [list(pair) for pair in value.items()] if isinstance(value, Mapping) else value


_MODIFIERS = {
    "$orderby": "sort",
    "$hint": "hint",
    "$comment": "comment",
    "$max": "max",
    "$min": "min",
    "$maxTimeMS": "max_time_ms",
    "$returnKey": "return_key",
    "$showDiskLoc": "show_record_id",
    "$explain": "explain",
}
_QUERY = (
    ("projection", "fields"),
    ("skip", "ntoskip"),
    ("limit", "limit"),
    ("batch_size", "batch_size"),
    ("flags", "flags"),
    ("collation", "collation"),
    ("allow_disk_use", "allow_disk_use"),
)


# ------------------------------------------------------------------------------- command cursors


@dataclass(frozen=True, slots=True)
class CommandCursors:
    """A cursor that a command opened: aggregate, list_indexes, list_collections, ...

    Attributes:
        target: gives the collection that the cursor is for.
        options: gives the codec options of the first batch; those of the target where None.
        path: where the server's reply has the documents.
        raw: whether batches stay bytes.
    """

    target: Callable[[Exchange], Any]
    options: Callable[[Exchange], Any] | None = None
    path: str = "cursor.firstBatch"
    raw: bool = False

    def keep(self, exchange: Exchange, result: Any) -> CursorOutcome:
        """Keep the first batch; the cursor leads to what comes later."""
        outcome = CursorOutcome(_session(), exchange.call, address=result.address)
        if type(result.cursor_id) is not int:  # else the driver itself made it
            outcome.namespace = str(getattr(result, "_ns", "") or "")
        options = self.options(exchange) if self.options else result._collection.codec_options
        _hold(exchange, outcome, result.cursor_id)
        batch = batch_of(exchange.payload, self.path, result._data, options)
        outcome.add(batch, more=bool(result.cursor_id))
        setattr(result, LINK, outcome)
        return outcome

    def give(self, exchange: Exchange, event: RecordedResult) -> Any:
        """Return a cursor on the recorded batches."""
        reading = Reading(event, _session(), exchange.call, stream=self.path == "")
        target = self.target(exchange)
        options = self.options(exchange) if self.options else target.codec_options
        reading.listen(target.database.client)
        cursor = command_cursor(reading, target, options, exchange.arguments, raw=self.raw)
        setattr(cursor, LINK, reading)
        return cursor


def command_cursor(
    reading: Reading, target: Any, options: Any, arguments: dict[str, Any], *, raw: bool = False
) -> Any:
    """Return the driver's own CommandCursor over a reading.

    Args:
        reading: what is read.
        target: the collection.
        options: codec options of the first batch.
        arguments: the call's arguments, of which the cursor keeps some.
        raw: whether it is a cursor of raw batches.
    """
    reply = _OpMsg(0, reading.reply("firstBatch", target.full_name, options))
    if raw:
        document: Any = dict(reply.unpack_response()[0]["cursor"])
        document["firstBatch"] = []
    else:
        fields = {"cursor": {"firstBatch": 1}}
        found = reply.unpack_response(codec_options=options, user_fields=fields)[0]["cursor"]
        document = dict(found)
        if reading.made_by_driver and not document["id"]:
            document["id"] = 0  # and no Int64
    kind = cursor_class(target, raw)
    optional = {
        "session": arguments.get("session"),
        "batch_size": arguments.get("batch_size") or arguments.get("batchSize") or 0,
        "max_await_time_ms": arguments.get("max_await_time_ms")
        or arguments.get("maxAwaitTimeMS"),
        "comment": arguments.get("comment"),
        "explicit_session": arguments.get("session") is not None,
    }
    known = _constructor(kind)
    given = {name: value for name, value in optional.items() if name in known}
    return kind(target, document, reading.address, **given)


@cache
def _constructor(kind: Any) -> frozenset[str]:
    return frozenset(inspect.signature(kind.__init__).parameters)


def cursor_class(target: Any, raw: bool) -> Any:
    """Return the CommandCursor class that goes with a collection, sync or async."""
    if inspect.iscoroutinefunction(type(target).drop):
        from pymongo.asynchronous import command_cursor as asynchronous

        return (
            asynchronous.AsyncRawBatchCommandCursor if raw else asynchronous.AsyncCommandCursor
        )
    from pymongo.synchronous import command_cursor as synchronous

    return synchronous.RawBatchCommandCursor if raw else synchronous.CommandCursor


# ------------------------------------------------------------------------------- change streams

_STREAM_STATE = ("_resume_token", "_start_at_operation_time")


@dataclass(frozen=True, slots=True)
class ChangeStreams:
    """The cursor that a change stream opens, and opens again when it resumes.

    `instance` is the stream; what the server's reply changed in it is kept beside the batches.

    Attributes:
        path: where the server's reply has the documents.
    """

    path: str = "cursor.firstBatch"

    def keep(self, exchange: Exchange, result: Any) -> CursorOutcome:
        """Keep the first batch and the stream's place."""
        outcome = CommandCursors(lambda _: None).keep(exchange, result)
        outcome.stream = True
        stream = exchange.instance
        outcome.extras["stream"] = {
            name: to_json(getattr(stream, name, None)) for name in _STREAM_STATE
        }
        return outcome

    def give(self, exchange: Exchange, event: RecordedResult) -> Any:
        """Return a cursor on the recorded batches, the stream at its recorded place."""
        stream = exchange.instance
        for name, value in (event.result().get("stream") or {}).items():
            if name in _STREAM_STATE:
                setattr(stream, name, from_json(value))
        target = stream_target(stream)
        reading = Reading(event, _session(), exchange.call, stream=True)
        arguments = {
            "session": stream._session,
            "batch_size": stream._batch_size,
            "max_await_time_ms": stream._max_await_time_ms,
            "comment": stream._comment,
        }
        options = stream._target.codec_options
        reading.listen(stream._client)
        cursor = command_cursor(reading, target, options, arguments)
        setattr(cursor, LINK, reading)
        return cursor


def stream_target(stream: Any) -> Any:
    """Return the collection of a change stream's cursor."""
    target = stream._target
    return target if hasattr(type(target), "insert_one") else target["$cmd.aggregate"]

