"""A cassette as bytes: one JSON document, one event a line, readable by a person and by a diff.

    {"format": "timetracer-mongodb", "schema_version": "1.0",
    "session": {...},
    "request": {...},
    "events": [
    {"eid": 1, "event_type": ..., "signature": {...}, "arguments": {...}, "result": {...}},
    {"eid": 2, ...}
    ]}

The writer puts a space after the colon of an event's own keys and nowhere else, so the three parts
of a line are found by searching for `, "result": `: no JSON string can hold those quotes unescaped.
A line may stand for a stretch of events that other cassettes hold too, see `shared_parts`. A file
in any other layout, such as one that was edited or formatted, is parsed whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from timetracer.codec import CodecError, dumps, loads
from timetracer.errors import CassetteFormatError, CassetteVersionError
from timetracer.model import EVENT_TYPE, Json, Signature
from timetracer.shared_parts import (
    Shelf,
    body_reference,
    check_there,
    in_order,
    is_reference,
    marks_of,
    stretch,
    with_body,
)

FORMAT = "timetracer-mongodb"
SCHEMA_VERSION = "1.0"
_READS_MAJOR = 1

_HEAD = b'{"format": '
_EVENTS = b'\n"events": [\n'
_END = b"\n]}\n"
_SIGNATURE = b', "signature": '
_ARGUMENTS = b', "arguments": '
_MADE = b', "made": '
_RESULT = b', "result": '
_OFFSET = b', "start_offset_ms": '
_DURATION = b', "duration_ms": '
_BODY_HASH = b',"body_hash":'
_LINE = b'{"eid": '
_SHARED_BODY = b'"shared":"body-'
_OBJECT_OR_NONE = (dict, type(None))
_AFTER_HASH = (b'"}' + _ARGUMENTS, b'"}' + _RESULT)


class EventText(NamedTuple):
    """One event of a document: its line, as a stretch of the file, of which nothing is copied.

    A long answer that the cassette shares with others is read when it is asked for.

    Attributes:
        eid: the event's number, from 1.
        call: the signature without its body_hash; one object for all events that share it.
        data: the file.
        start: where in the file the line begins.
        end: where it ends.
        path: the cassette's path, from where what it shares with others is found.
    """

    eid: int
    call: Signature
    data: bytes
    start: int
    end: int
    path: str = ""

    @property
    def line(self) -> bytes:
        """The event's line."""
        if self.shared is None:
            return self.data[self.start : self.end]
        return self.data[self.start : self._result] + self.result + b"}"

    @property
    def arguments(self) -> bytes | None:
        """The arguments' JSON text, None where none were kept."""
        end = self.data.index(_RESULT, self.start)
        start = self.data.find(_ARGUMENTS, self.start, end)
        if start < 0:
            return None
        made = self.data.find(_MADE, start, end)
        return self.data[start + len(_ARGUMENTS) : end if made < 0 else made]

    @property
    def made(self) -> tuple[str, ...]:
        """The UUIDs, as hex digits, and tokens in the arguments that the recorded program made."""
        end = self.data.index(_RESULT, self.start)
        start = self.data.find(_MADE, self.start, end)
        return () if start < 0 else tuple(orjson.loads(self.data[start + len(_MADE) : end]))

    @property
    def offset(self) -> float:
        """When the call began, in seconds from the session's beginning."""
        return self._seconds(_OFFSET)

    @property
    def ended(self) -> float:
        """When the call ended, in seconds from the session's beginning."""
        return self._seconds(_OFFSET) + self._seconds(_DURATION)

    def _seconds(self, name: bytes) -> float:
        start = self.data.index(name, self.start) + len(name)
        return float(self.data[start : self.data.index(b",", start)]) / 1000

    @property
    def result(self) -> bytes:
        """The result's JSON text."""
        text, shared = self.data[self._result : self.end - 1], self.shared
        return text if shared is None else with_body(text, shared, self.path, self.eid)

    @property
    def _result(self) -> int:
        return self.data.index(_RESULT, self.start) + len(_RESULT)

    @property
    def shared(self) -> str | None:
        """The name of the answer where the cassette shares it with others, else None."""
        return body_reference(self.data, self._result, self.end - 1)

    @property
    def succeeded(self) -> bool:
        """Whether the result's text begins as that of a call that returned."""
        return self.data.startswith(b'{"status":0', self._result)

    @property
    def signature(self) -> Signature:
        """The whole signature."""
        start = self.data.index(_BODY_HASH, self.start) + len(_BODY_HASH)
        text = self.data[start : self.data.index(b"}", start)]
        return replace(self.call, body_hash=loads(text))


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed cassette.

    Attributes:
        header: everything but the events: format, schema_version, session, request, response.
        events: the events in recorded order.
    """

    header: dict[str, Any]
    events: list[EventText]


# ------------------------------------------------------------------------------------- writing


def event_line(
    eid: int,
    offset_ms: float,
    duration_ms: float,
    signature: Signature,
    arguments: bytes | None,
    result: bytes,
    made: list[str] | None = None,
) -> bytes:
    """Return the line of one event; `arguments` and `result` are compact JSON text, `made` are the
    values in the arguments that the program made."""
    parts = [
        b'{"eid": %d, "event_type": "%s", ' % (eid, EVENT_TYPE.encode()),
        b'"start_offset_ms": %s, "duration_ms": %s' % (_number(offset_ms), _number(duration_ms)),
        _SIGNATURE,
        _signature_text(signature.lib, signature.method, signature.url, signature.filter_keys),
        _BODY_HASH,
        dumps(signature.body_hash),
        b"}",
    ]
    if arguments is not None:
        parts += (_ARGUMENTS, arguments)
    if made:
        parts += (_MADE, dumps(made))
    parts += (_RESULT, result, b"}")
    return b"".join(parts)


def render(header: dict[str, Json], lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the document's bytes, so that no more than one event need be in memory.

    Args:
        header: the keys beside the events; "format" and "schema_version" are set here.
        lines: the event lines, as `event_line` makes them.
    """
    yield header_text(header)
    first = True
    for line in lines:
        yield line if first else b",\n" + line
        first = False
    yield _END


def header_text(header: dict[str, Json]) -> bytes:
    """Return the document's text up to its first event."""
    head = b'{"format": "%s", "schema_version": "%s"' % (FORMAT.encode(), SCHEMA_VERSION.encode())
    rest = (
        b',\n"%s": %s' % (key.encode(), dumps(value))
        for key, value in header.items()
        if key not in ("format", "schema_version", "events") and value is not None
    )
    return head + b"".join(rest) + b"," + _EVENTS


def with_session(data: bytes, path: str, news: dict[str, Json]) -> bytes:
    """Return a cassette's bytes with more in its header's "session"; its events stay as they are.

    Args:
        data: the bytes.
        path: where they came from, for errors.
        news: what is set there.

    Raises:
        CassetteFormatError, CassetteVersionError: as `parse`.
    """
    header = header_of(data, path)
    header["session"] = {**(header.get("session") or {}), **news}
    start = data.find(_EVENTS)
    if data.startswith(_HEAD) and start > 0:
        return header_text(header) + data[start + len(_EVENTS) :]
    return b"".join(render(header, (event.line for event in parse(data, path).events)))


def _number(milliseconds: float) -> bytes:
    return orjson.dumps(round(milliseconds, 3))


@lru_cache(1024)
def _signature_text(lib: str, method: str, url: str, filter_keys: tuple[str, ...]) -> bytes:
    """Return a signature's text up to its body_hash: many calls of a program share it."""
    query = {"filter_keys": list(filter_keys)}
    return dumps({"lib": lib, "method": method, "url": url, "query": query})[:-1]


# ------------------------------------------------------------------------------------- reading


def parse(data: bytes, path: str) -> Document:
    """Return the document in `data`.

    Args:
        data: a cassette's bytes, decompressed.
        path: where they came from, for errors.

    Raises:
        CassetteFormatError: the bytes are not a whole cassette.
        CassetteVersionError: a newer Timetracer wrote them.
    """
    return _parse_lines(data, path) or _parse_whole(data, path)


def header_of(data: bytes, path: str) -> dict[str, Any]:
    """Return what a cassette says of itself, without its events where the layout allows it.

    Raises:
        CassetteFormatError, CassetteVersionError: as `parse`.
    """
    start = data.find(_EVENTS)
    if data.startswith(_HEAD) and start > 0:
        try:
            header = orjson.loads(data[:start] + b'\n"events": []}')
        except ValueError:
            return _parse_whole(data, path).header
        check_header(header, path)
        return header  # type: ignore[no-any-return]
    return _parse_whole(data, path).header


def _parse_lines(data: bytes, path: str) -> Document | None:
    start = data.find(_EVENTS)
    if not data.startswith(_HEAD) or start < 0 or not data.endswith(_END):
        return None
    try:
        header = orjson.loads(data[:start] + b'\n"events": []}')
        calls: dict[bytes, Signature] = {}
        stretches = _stretches(data, start + len(_EVENTS), len(data) - len(_END))
        events: list[EventText] = []
        count = 0
        for count, (first, last) in enumerate(stretches, 1):  # noqa: B007
            if is_reference(data, first):
                events += _shared_events(stretch(data[first:last], path), calls, path)
            else:
                events.append(_event_at(data, first, last, calls, path))
    except (ValueError, LookupError, TypeError, AttributeError):
        return None  # the whole-document parser names the place
    if data.count(_LINE, start) != count:
        return None  # a damaged line break would make one event of two
    check_header(header, path)
    _check_bodies(data, events)
    return Document(header, events)


def _shared_events(
    lines: list[bytes], calls: dict[bytes, Signature], path: str
) -> Iterator[EventText]:
    data, start = b",\n".join(lines), 0
    for line in lines:
        yield _event_at(data, start, start + len(line), calls, path)
        start += len(line) + 2


def _check_bodies(data: bytes, events: list[EventText]) -> None:
    """Find the shared answers: that one is missing is no matter of what the program makes of it."""
    if _SHARED_BODY in data or any(event.data is not data for event in events):
        for event in events:
            if event.shared is not None:
                check_there(event.shared, event.path, event.eid)


def rewritten(data: bytes, path: str, change: Callable[[bytes], bytes]) -> bytes:
    """Return a recording with the lines of its events changed; what it shares, it shares still.

    Args:
        data: its bytes, decompressed, as they were written.
        path: its path.
        change: returns what an event's line is to be.

    Raises:
        CassetteError: what it shares cannot be read or written.
    """
    marks = [mark for line in own_lines(data) or () for mark in marks_of(line)]
    lines = [change(event.line) for event in parse(data, path).events]
    head = data[: data.index(_EVENTS) + len(_EVENTS)]
    return head + b",\n".join(Shelf.beside(path).put(lines, marks)) + _END


def own_lines(data: bytes) -> list[bytes] | None:
    """Return the lines between the brackets of a cassette's events, of which one may stand for a
    stretch; None for another layout.

    Args:
        data: a cassette's bytes, decompressed.
    """
    start = data.find(_EVENTS)
    if not data.startswith(_HEAD) or start < 0 or not data.endswith(_END):
        return None
    stretches = _stretches(data, start + len(_EVENTS), len(data) - len(_END))
    return [data[first:last] for first, last in stretches]


def _stretches(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield where the lines between two places of the file begin and end."""
    while start < end:
        found = data.find(b",\n", start, end)
        yield start, end if found < 0 else found
        start = end if found < 0 else found + 2


def _event_at(
    data: bytes, start: int, end: int, calls: dict[bytes, Signature], path: str
) -> EventText:
    """Return the event of a line that `event_line` made.

    Args:
        data: the file.
        start: where the line begins.
        end: where it ends.
        calls: the signatures met so far by their text up to the body_hash; added to.
        path: the cassette's path.

    Raises:
        ValueError, LookupError, TypeError: the line has another layout.
    """
    at_signature = data.index(_SIGNATURE, start, end) + len(_SIGNATURE)
    at_hash = data.index(_BODY_HASH, at_signature, end)
    text = data[at_signature:at_hash]
    call = calls.get(text)
    if call is None:
        call = calls[text] = _call(orjson.loads(text + b"}"))
    after_hash = data.index(b'"', at_hash + len(_BODY_HASH) + 1, end)
    data.index(_RESULT, after_hash, end)
    if not (
        data.startswith(_LINE, start)
        and data.startswith(_AFTER_HASH, after_hash)
        and data.endswith(b"}}", start, end)
    ):
        raise ValueError("not an event line")
    number = data[start + len(_LINE) : data.index(b",", start, end)]
    return EventText(int(number), call, data, start, end, path)


def _call(signature: dict[str, Any]) -> Signature:
    return Signature(
        signature["lib"],
        signature["method"],
        signature["url"],
        tuple(signature["query"]["filter_keys"]),
    )


def _parse_whole(data: bytes, path: str) -> Document:
    try:
        document = orjson.loads(data)
    except (ValueError, RecursionError) as error:
        raise CassetteFormatError(
            f"{path} is not a whole cassette: {error}. It is damaged or was cut short; restore "
            "it from version control, or record it again.",
            path=path,
        ) from None
    check_header(document, path)
    raw_events = document.get("events")
    if not isinstance(raw_events, list):
        raise _damaged(path, "events", "is not there, or is not a list")
    calls: dict[bytes, Signature] = {}
    events: list[EventText] = []
    for number, raw in enumerate(raw_events):
        if isinstance(raw, dict) and "shared" in raw:
            events += _referred(raw, f"events[{number}]", path, calls)
        else:
            events.append(_event(raw, f"events[{number}]", path, calls))
    _check_bodies(data, events)
    header = {key: value for key, value in document.items() if key != "events"}
    return Document(header, events)


def check_header(header: object, path: str) -> None:
    """Check that a document is a cassette that this version reads.

    Raises:
        CassetteFormatError: it is something else.
        CassetteVersionError: a newer Timetracer wrote it.
    """
    if not isinstance(header, dict) or "schema_version" not in header:
        raise CassetteFormatError(
            f"{path} is JSON, but not a cassette: it has no schema_version. Name another file, or "
            "restore it from version control.",
            path=path,
        )
    _refuse_foreign(header, path)
    version = str(header["schema_version"])
    major = version.partition(".")[0]
    if not major.isdigit():
        raise _damaged(path, "schema_version", f"is {version!r}, not a version such as 1.0")
    if int(major) > _READS_MAJOR:
        raise CassetteVersionError(
            f"{path} has schema_version {version}; this Timetracer reads {SCHEMA_VERSION}. "
            "Upgrade Timetracer, or record the cassette again.",
            path=path,
        )
    for key in ("session", "request", "response"):
        if not isinstance(header.get(key, {}), dict | None):
            raise _damaged(path, key, "is not an object")


def _refuse_foreign(header: dict[str, Any], path: str) -> None:
    session = header.get("session")
    written_by = session.get("timetracer_version") if isinstance(session, dict) else None
    if "format" in header:
        if header["format"] != FORMAT:
            raise CassetteFormatError(
                f"{path} has format {header['format']!r}, not {FORMAT!r}: another program wrote "
                "it. Record it with this Timetracer.",
                path=path,
            )
    elif written_by is not None:
        # The package of the same name on PyPI writes schema_version 1.0 too, without results
        # that could be replayed.
        raise CassetteFormatError(
            f"{path} was written by the package timetracer {written_by} from PyPI, which keeps "
            "no documents to replay. Record it with this Timetracer.",
            path=path,
        )


def _referred(
    raw: dict[str, Any], place: str, path: str, calls: dict[bytes, Signature]
) -> list[EventText]:
    try:
        return list(_shared_events(stretch(dumps(raw), path), calls, path))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, place, f"is damaged ({type(error).__name__}: {error})") from None


def _event(raw: Any, place: str, path: str, calls: dict[bytes, Signature]) -> EventText:
    try:
        signature = raw["signature"]
        line = event_line(
            int(raw["eid"]),
            _milliseconds(raw, "start_offset_ms"),
            _milliseconds(raw, "duration_ms"),
            Signature(
                str(signature["lib"]),
                str(signature["method"]),
                str(signature["url"]),
                tuple(signature.get("query", {}).get("filter_keys", ())),
                str(signature.get("body_hash", "")),
            ),
            dumps(raw["arguments"]) if raw.get("arguments") is not None else None,
            dumps(in_order(raw["result"])),
            [str(key) for key in raw.get("made") or ()],
        )
        event = _event_at(line, 0, len(line), calls, path)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, place, f"is damaged ({type(error).__name__}: {error})") from None
    if not isinstance(raw["result"], dict):
        raise _damaged(path, f"{place}.result", "is not an object")
    return event


def _milliseconds(raw: dict[str, Any], key: str) -> float:
    value = raw.get(key, 0.0)
    return float(value) if isinstance(value, int | float) else 0.0


def arguments_of(text: bytes, path: str, eid: int) -> dict[str, Any]:
    """Return the parsed arguments of an event.

    Raises:
        CassetteFormatError: the text is damaged.
    """
    return _object(text, path, f"event {eid}, arguments,")


def result_of(text: bytes, path: str, eid: int) -> dict[str, Any]:
    """Return the parsed result of an event, whose `body` is an object or None.

    Raises:
        CassetteFormatError: the text is damaged.
    """
    result = _object(text, path, f"event {eid}, result,")
    for key in ("body", "cursor", "error"):
        if not isinstance(result.get(key), _OBJECT_OR_NONE):
            raise _damaged(path, f"event {eid}, result.{key},", "is not an object")
    if "shared" in (result.get("body") or {}):
        raise _damaged(path, f"event {eid}, result.body.shared,", "is no name of a shared part")
    return result


def _object(text: bytes, path: str, place: str) -> dict[str, Any]:
    try:
        value = loads(text)
    except CodecError as error:
        raise _damaged(path, place, f"is damaged ({error})") from None
    if not isinstance(value, dict):
        raise _damaged(path, place, "is not an object")
    return value


def _damaged(path: str, place: str, what: str) -> CassetteFormatError:
    return CassetteFormatError(
        f"{path}: {place} {what}. Restore the file from version control, or record it again.",
        path=path,
    )
