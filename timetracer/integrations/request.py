"""One HTTP request under trace, whatever framework serves it: its session, copies of its bodies.

    trace = open_trace(config, facts)        before the application sees the request
    with trace.current(): ...                each time that the application's code runs
    trace.request_body.add(data)             bytes on their way to the application
    trace.responding(200, headers)           the response begins
    trace.response_body.add(data)            bytes on their way to the client
    trace.complete()                         the last of them: the cassette is written
    trace.close()                            the application is done with the request

A body is copied as it streams past, never held back. What went wrong with the trace is logged, and
the request goes on.
"""

from __future__ import annotations

import email.parser
import email.policy
import functools
import hashlib
import logging
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import orjson

from timetracer.codec import to_json
from timetracer.config import MODES, TraceConfig, resolve
from timetracer.errors import CassetteError, MissError, TimetracerError
from timetracer.model import Json, RequestRecord, ResponseRecord
from timetracer.redaction import Redactor
from timetracer.session import CURRENT, Session, open_request, redaction_rules, set_default

logger = logging.getLogger("timetracer")

Headers = Iterable[tuple[str, str]]

_MAX_DEPTH = 64
_Method = TypeVar("_Method", bound=Callable[..., Any])


def harmless(method: _Method) -> _Method:
    """Return the same method; what goes wrong in it is logged, and stops no request."""

    @functools.wraps(method)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except Exception:
            logger.exception("timetracer: %s of a request failed", method.__name__.strip("_"))
            return None

    return guarded  # type: ignore[return-value]


# ------------------------------------------------------------------------------- bodies


@dataclass(slots=True)
class BodyCopy:
    """The copy of a body that streams past.

    Attributes:
        limit: how many bytes are kept at most.
        content_type: the header, "" where there is none.
        encoding: the Content-Encoding header, "" where there is none.
        length: how many bytes have passed.
        ended: whether the whole body has passed.
        spoilt: whether bytes may have passed unseen, or twice.
    """

    limit: int = 0
    content_type: str = ""
    encoding: str = ""
    length: int = 0
    ended: bool = False
    spoilt: bool = False
    _kept: bytearray = field(default_factory=bytearray)

    def add(self, data: bytes) -> None:
        """Note bytes on their way."""
        room = self.limit - self.length
        if room > 0:
            self._kept += data[:room]
        self.length += len(data)

    @property
    def whole(self) -> bool:
        """Whether the copy has all of the body."""
        return self.ended and not self.spoilt and self.length <= self.limit

    def value(self) -> Json:
        """Return what a cassette shows of the body.

        Returns:
            None for no body; the value of JSON; a form's fields by name; text as text. For other
            bodies, and for those that were not kept whole, {"$body": {...}} with the length, what
            is missing, and of text the part that was kept.
        """
        if not self.length:
            return None
        kept = bytes(self._kept)
        if self.spoilt:
            return self._described(omitted="not seen as a whole")
        if self.encoding not in ("", "identity"):
            return self._described(truncated=True, omitted=self.encoding)
        if self.length > len(kept):
            return self._beginning(kept)
        value = _parsed(kept, self.content_type)
        return self._described(omitted="binary") if value is None else value

    def _beginning(self, kept: bytes) -> Json:
        # Half of a JSON document cannot be searched for secrets by name.
        text = _text(kept, self.content_type, cut=True)
        structured = kept.lstrip()[:1] in (b"{", b"[") or "multipart" in self.content_type
        if not text or structured or "json" in self.content_type:
            return self._described(truncated=True)
        end = max(text.rfind(character) for character in "\n>&;,")
        return self._described(truncated=True, text=text[: end + 1])

    def _described(self, **facts: Json) -> Json:
        return {"$body": {"length": self.length, "content_type": self.content_type, **facts}}

    def digest(self, redactor: Redactor | None) -> str:
        """Return the hash that tells the bodies of two requests apart.

        Args:
            redactor: takes the secrets out first, since a short one could be guessed from a hash.

        Returns:
            Hex digits; "" for no body and for one that was not kept whole.
        """
        if not self.length or not self.whole:
            return ""
        value = self.value()
        if isinstance(value, dict) and "$body" in value:
            data = bytes(self._kept)
        else:
            shown = redactor.redact_request({"body": value}) if redactor is not None else value
            data = orjson.dumps(shown, option=orjson.OPT_SORT_KEYS)
        return hashlib.blake2b(data, digest_size=16).hexdigest()


def _parsed(data: bytes, content_type: str) -> Json:
    """The body as JSON-ready value; None for bytes that are no text."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return _multipart(data, content_type)
    if data.lstrip()[:1] in (b"{", b"[") or kind.endswith("json"):
        try:
            value = orjson.loads(data)
            # As a value of the codec's, so that a body cannot pass for one of its tags.
            return to_json(value) if _is_shallow(value, _MAX_DEPTH) else None
        except ValueError:
            pass
    text = _text(data, content_type)
    if text is not None and kind == "application/x-www-form-urlencoded":
        return _by_name(urllib.parse.parse_qsl(text, keep_blank_values=True)) or text
    return text


def _is_shallow(value: Json, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    below = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_shallow(item, levels - 1) for item in below)


def _text(data: bytes, content_type: str, cut: bool = False) -> str | None:
    charset = _parameter(content_type, "charset") or "utf-8"
    for drop in range(4 if cut else 1):  # a cut may go through the bytes of one character
        try:
            text = data[: len(data) - drop].decode(charset)
            orjson.dumps(text)  # refuses the surrogates that utf-7 and the like let through
            return None if "\0" in text else text
        except (ValueError, TypeError, LookupError):
            continue
    return None


def _parameter(content_type: str, name: str) -> str:
    for part in content_type.split(";")[1:]:
        key, _, value = part.partition("=")
        if key.strip().lower() == name:
            return value.strip().strip('"')
    return ""


def _multipart(data: bytes, content_type: str) -> Json:
    """The fields of a form with files; of a file its name, type, length and hash."""
    head = b"Content-Type: " + content_type.encode("latin-1", "replace") + b"\r\n\r\n"
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + data)
    if not message.is_multipart():
        return None
    return _by_name(_form_field(part) for part in message.iter_parts())


def _form_field(part: Any) -> tuple[str, Json]:
    name = str(part.get_param("name", "", header="content-disposition"))
    data = part.get_payload(decode=True) or b""
    filename = part.get_filename()
    text = None if filename is not None else _text(data, str(part.get("content-type", "")))
    if text is not None:
        return name, text
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    content_type = part.get_content_type()
    return name, {
        "filename": filename,
        "content_type": content_type,
        "length": len(data),
        "hash": digest,
    }


def _by_name(pairs: Iterable[tuple[str, Json]]) -> dict[str, Json]:
    values: dict[str, list[Json]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: found[0] if len(found) == 1 else found for name, found in values.items()}


# ------------------------------------------------------------------------------- the request


class RequestTrace:
    """One request under trace.

    Attributes:
        session: what its driver calls belong to.
        records: whether calls are recorded, so that bodies are worth a copy.
        request_body: the copy of the request's body.
        response_body: the copy of the response's body.
        unanswered: a miss that the application left to its framework, which made an error page
            of it that does not name it; None where there is none.
    """

    def __init__(self, config: TraceConfig, session: Session, request_body: BodyCopy) -> None:
        self.session = session
        self.records = session.recording is not None
        self.request_body = request_body
        self.response_body = BodyCopy(config.max_response_body)
        self.unanswered: BaseException | None = None
        self._redactor = _redactor(config)
        self._status = 500
        self._headers: tuple[tuple[str, str], ...] = ()
        self._error: str | None = None
        self._began = time.perf_counter()
        self._duration = 0.0
        self._completed = False
        self._written = -1
        self._may_grow = False
        self._writing = threading.RLock()

    def current(self) -> AbstractContextManager[Session]:
        """Make the request's session the one that driver calls in the block belong to."""
        return self.session.entered()

    def miss_in(self, error: BaseException | None) -> BaseException | None:
        """Return the miss that an exception is, holds, or came of; None where there is none.

        Args:
            error: what left the application.
        """
        link = error if self.session.replays else None
        while link is not None and not isinstance(link, MissError | CassetteError):
            for held in getattr(link, "exceptions", ()):  # a group, as a task group raises it
                if (found := self.miss_in(held)) is not None:
                    return found
            link = link.__cause__ or link.__context__
        return link

    @harmless
    def unhandled(self, error: BaseException) -> None:
        """Note an exception of which the framework makes an error page.

        Args:
            error: what the application let through.
        """
        self._error = type(error).__name__
        self.unanswered = self.miss_in(error)

    @harmless
    def responding(self, status: int, headers: Headers) -> None:
        """Note how the response begins.

        Args:
            status: status code.
            headers: pairs of name and value.
        """
        self._status = status
        self._headers = tuple((name.lower(), value) for name, value in headers)
        known = dict(self._headers)
        self.response_body.content_type = known.get("content-type", "")
        self.response_body.encoding = known.get("content-encoding", "").lower()

    @harmless
    def failed(self, error: BaseException) -> None:
        """Note that an exception left the application, and write what was recorded."""
        self._error = type(error).__name__
        self._written = -1
        self.complete()

    @harmless
    def complete(self) -> None:
        """Note that the response has passed wholly, and write what was recorded.

        Called before the last bytes go out, so that who has the answer finds the cassette, and
        requests that follow one another are takes in that order.
        """
        if not self._completed:
            self._completed = True
            self._duration = (time.perf_counter() - self._began) * 1000
            self._log_replay()
        self.response_body.ended = True
        self._write(failed=False)

    @harmless
    def close(self, *, interrupted: bool = False) -> None:
        """Write what came after the response, such as calls made while it was closed.

        Args:
            interrupted: whether the program is ended while it serves the request. A response that
                was closed before its end counts as interrupted anyway.
        """
        failed = interrupted or not self._completed
        if not self._completed:
            self._completed = True
            self._duration = (time.perf_counter() - self._began) * 1000
        self._write(failed=failed)
        self.session.recorded_late = functools.partial(self._write, failed=failed)

    def _write(self, *, failed: bool) -> None:
        with self._writing:
            self._write_news(failed)

    def _write_news(self, failed: bool) -> None:
        recording = self.session.recording
        if recording is None or (recording.count == self._written and not self._may_grow):
            return
        self._written = recording.count
        self._may_grow = recording.may_grow
        if self.session.request is not None:
            self.session.request = replace(
                self.session.request,
                body=self.request_body.value(),
                body_hash=self.request_body.digest(self._redactor()),
            )
        self.session.finish(failed=failed, response=self._response())

    def _response(self) -> ResponseRecord:
        return ResponseRecord(
            status=self._status,
            headers=self._headers,
            body=self.response_body.value(),
            duration_ms=self._duration,
            error=self._error,
        )

    def _log_replay(self) -> None:
        cassette = self.session.cassette
        if cassette is None or not logger.isEnabledFor(logging.INFO):
            return
        unused = len(cassette.unused)
        logger.info(
            "timetracer: replayed %d events of %s, %d unused",
            len(cassette.events) - unused,
            self.session.where,
            unused,
        )


def open_trace(
    config: TraceConfig,
    request: RequestRecord,
    *,
    body_length: int | None = None,
    read_body: Callable[[int], bytes] | None = None,
) -> RequestTrace | None:
    """Begin the trace of a request.

    Args:
        config: resolved settings.
        request: what is known of the request before its body is read.
        body_length: bytes of the request's body, None where they are not known before.
        read_body: reads that many bytes of it, ahead of the application. Called in replay only:
            the body tells which recording of the request answers.

    Returns:
        The trace; None where the request's calls are nobody's concern.
    """
    outer = CURRENT.get()
    if isinstance(outer, Session) and outer.kind not in ("request", "skipped"):
        return None  # a request made inside a cassette that was opened explicitly
    known = dict(request.headers)
    encoding = known.get("content-encoding", "").lower()
    body = BodyCopy(config.max_request_body, known.get("content-type", ""), encoding)
    redactor = _redactor(config)
    if read_body is not None and body_length is not None and wants_body(config, body_length):
        request = _with_body(request, body, body_length, read_body, redactor)
    session = _session(config, request)
    if session is None:
        return None
    return RequestTrace(config, session, body)


def set_up(config: TraceConfig | None, *, serves_requests: bool = True) -> TraceConfig:
    """Decide the settings of an application, which its calls at start-up follow too.

    Args:
        config: settings that count more than the environment; None for the environment,
            pyproject.toml and the defaults.
        serves_requests: whether it is sure that requests are served, by a program that is not
            one of the application's scripts.

    Raises:
        ConfigError: a setting has a bad value.
    """
    resolved = resolve(config)
    if resolved.mode != "off":
        set_default(resolved, serves_requests=serves_requests)
    return resolved


def wants_body(config: TraceConfig, length: int | None) -> bool:
    """Tell whether a request's body is to be read before the application is called.

    Args:
        config: resolved settings.
        length: its bytes, None where they are not known before.
    """
    reads = MODES[config.mode].reads != "never"
    return reads and length is not None and 0 < length <= config.max_request_body


def _with_body(
    request: RequestRecord,
    body: BodyCopy,
    length: int,
    read: Callable[[int], bytes],
    redactor: Callable[[], Redactor | None],
) -> RequestRecord:
    body.add(read(length))
    body.ended = body.length == length
    return replace(request, body_hash=body.digest(redactor()))


def _session(config: TraceConfig, request: RequestRecord) -> Session | None:
    try:
        return open_request(config, request)
    except Exception as error:
        logger.error(
            "timetracer: no cassette for %s %s: %s",
            request.method,
            request.path,
            error,
            exc_info=None if isinstance(error, TimetracerError) else error,
        )
        return _broken_session(config, error)


def _broken_session(config: TraceConfig, error: Exception) -> Session:
    """The session of a request whose cassette cannot be had: its calls must not be made where
    they would be answered, and are nobody's concern where they would be recorded."""
    mode = MODES[config.mode]
    if mode.reads == "never":
        return Session(config, MODES["off"], where="(not recorded)", kind="skipped")
    cassette: Any = _Unreadable(error)
    return Session(config, mode, where=getattr(error, "path", "(none)"), cassette=cassette)


class _Unreadable:
    """Stands in for a cassette that cannot be read: the first call learns why."""

    header: dict[str, Json] = {}  # noqa: RUF012
    events: tuple[Any, ...] = ()
    unused: tuple[Any, ...] = ()

    def __init__(self, error: Exception) -> None:
        self._error = error

    def take(self, call: Any, *, reads: bool = False) -> Any:
        if isinstance(self._error, TimetracerError):
            raise self._error
        raise MissError(f"The cassette cannot be opened: {self._error!r}", call=call)

    def nearest(self, call: Any) -> Any:
        return None


def _redactor(config: TraceConfig) -> Callable[[], Redactor | None]:
    def make() -> Redactor | None:
        # Numbered from 1 each time: the hash is to be the same in record and replay.
        return None if config.redact is False else Redactor(redaction_rules(config))

    return make


# ------------------------------------------------------------------------------- a clear answer


@dataclass(frozen=True, slots=True)
class Answer:
    """The response that names a miss.

    Attributes:
        status: status code.
        headers: pairs of name and value.
        body: its bytes.
    """

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


def answer_naming(error: BaseException, accept: str) -> Answer:
    """Return the response to a request whose driver call no cassette answers.

    Args:
        error: the miss.
        accept: the request's Accept header; JSON is given to who asks for it.
    """
    if "json" in accept:
        body = orjson.dumps({"error": type(error).__name__, "message": str(error)})
        content_type = "application/json"
    else:
        body = f"{error}\n".encode("utf-8", "backslashreplace")
        content_type = "text/plain; charset=utf-8"
    return Answer(500, (("Content-Type", content_type), ("Content-Length", str(len(body)))), body)


def decoded(raw: str) -> str:
    """Return text of a request line whose UTF-8 bytes a server gave as one character each."""
    return raw.encode("latin-1", "backslashreplace").decode("utf-8", "backslashreplace")


__all__ = [
    "Answer",
    "BodyCopy",
    "RequestTrace",
    "answer_naming",
    "decoded",
    "harmless",
    "open_trace",
    "set_up",
    "wants_body",
]
