"""One HTTP request under trace, whatever framework serves it: its session, and how it ends.

    size = bytes_ahead(config, facts)        of the body, to be read before the application does
    trace = open_trace(config, facts, body)  before the application sees the request
    with trace.at_work(): ...                each time that the application's code runs
    trace.request_body.add(data)             bytes on their way to the application
    trace.responding(200, headers)           the response begins
    trace.passing(data)                      bytes on their way to the client
    trace.complete()                         the last of them: the cassette is written
    trace.close()                            the application is done with the request

A body is copied as it streams past, never held back. What went wrong with the trace is logged, and
the request goes on.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import orjson

from timetracer.aside import aside
from timetracer.cassette import Unreadable
from timetracer.config import MODES, TraceConfig, resolve
from timetracer.errors import CassetteError, MissError, TimetracerError
from timetracer.frozen_time import perf_counter
from timetracer.integrations.bodies import BodyCopy
from timetracer.model import RequestRecord, ResponseRecord
from timetracer.opening import open_request, redaction_rules
from timetracer.process import set_default
from timetracer.redaction import Redactor
from timetracer.session import CURRENT, Session

logger = logging.getLogger("timetracer")

TRACE_KEY = "timetracer.trace"
"""Where the framework's own facts of a request hold its trace, so that it is traced once."""

Headers = Iterable[tuple[str, str]]

_Method = TypeVar("_Method", bound=Callable[..., Any])


def harmless(method: _Method) -> _Method:
    """Return the same method; what goes wrong in it is logged, and stops no request."""

    @functools.wraps(method)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except Exception:
            step = method.__name__.strip("_")
            logger.exception("timetracer: cannot trace a request: %s failed", step)
            return None

    return guarded  # type: ignore[return-value]


# ------------------------------------------------------------------------------- settings


def set_up(config: TraceConfig | None, *, serves_requests: bool = True) -> TraceConfig:
    """Decide the settings of an application, which its calls at start-up follow too.

    Args:
        config: settings that count more than the environment; None for the environment,
            pyproject.toml and the defaults. They are looked up here, once.
        serves_requests: whether it is sure that requests are served, by a program that is not
            one of the application's scripts.

    Raises:
        ConfigError: a setting has a bad value.
    """
    resolved = resolve(config)
    if resolved.mode != "off":
        set_default(resolved, serves_requests=serves_requests)
    return resolved


class Middleware:
    """What the middleware of every framework begins with: its settings.

    Args:
        config: see `set_up`, also for what is raised.
    """

    def __init__(self, config: TraceConfig | None = None) -> None:
        self.configure(config)

    def configure(self, config: TraceConfig | None) -> None:
        """Look the settings up anew; see `set_up`."""
        self.config = set_up(config)
        self.active = self.config.mode != "off"

    def route_of(self, facts: Any) -> str | None:
        """Return the framework's route template of a request, None where it is not known.

        Args:
            facts: the framework's own facts of the request: a WSGI environment, an ASGI scope.
        """
        return None


# ------------------------------------------------------------------------------- the trace


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


class RequestTrace:
    """One request under trace.

    Attributes:
        session: what its driver calls belong to.
        request: what is known of it without its body.
        records: whether calls are recorded, so that bodies are worth a copy.
        request_body: the copy of the request's body.
        response_body: the copy of the response's body.
        started: whether the response has begun.
        unanswered: a miss that the application left to its framework, which made an error page
            of it that does not name it; None where there is none.
    """

    def __init__(
        self, config: TraceConfig, session: Session, request: RequestRecord, body: BodyCopy
    ) -> None:
        self.session = session
        self.request = request
        self.records = session.recording is not None
        self.request_body = body
        self.response_body = BodyCopy(config.max_response_body if self.records else 0)
        self.started = False
        self.unanswered: BaseException | None = None
        self._redactor = _redactor(config)
        self._status = 500
        self._headers: tuple[tuple[str, str], ...] = ()
        self._declared = 0
        self._error: str | None = None
        self._began = perf_counter()
        self._duration: float | None = None
        self._interrupted = False
        self._written = -1
        self._may_grow = False
        self._writing = threading.RLock()

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Driver calls in the block are the request's; an exception that leaves it ends it."""
        try:
            with self.session.entered():
                yield
        except BaseException as error:
            if isinstance(error, Exception):
                self.failed(error)
            self.close()
            raise

    @property
    def ended(self) -> bool:
        """Whether the response has passed wholly."""
        return self.response_body.ended

    @property
    def copies_request(self) -> bool:
        """Whether the request's body is to be copied when the application reads it."""
        return self.records and not self.request_body.length

    @property
    def request_length(self) -> int | None:
        """Bytes of the request's body, None where they are not known before."""
        return _declared_length(self.request.headers)

    # ---------------------------------------------------------------- misses

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

    def answer_naming(self, miss: BaseException) -> Answer:
        """Return the response that names a miss: JSON to who asks for it, without body to HEAD."""
        if "json" in _header(self.request.headers, "accept"):
            body = orjson.dumps({"error": type(miss).__name__, "message": str(miss)})
            content_type = "application/json"
        else:
            body = f"{miss}\n".encode("utf-8", "backslashreplace")
            content_type = "text/plain; charset=utf-8"
        headers = (("Content-Type", content_type), ("Content-Length", str(len(body))))
        return Answer(500, headers, b"" if self.request.method == "HEAD" else body)

    # ---------------------------------------------------------------- the response

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
        self.started = True
        self._status = status
        self._headers = tuple((name.lower(), value) for name, value in headers)
        self._declared = _declared_length(self._headers) or 0
        self.response_body.content_type = _header(self._headers, "content-type")
        self.response_body.encoding = _header(self._headers, "content-encoding").lower()

    @harmless
    def passing(self, data: bytes, *, last: bool = False) -> None:
        """Note bytes on their way to the client.

        Args:
            data: the bytes.
            last: whether no more come; noticed anyway when the declared length has passed.
        """
        self.response_body.add(data)
        if last or 0 < self._declared <= self.response_body.length:
            self.response_body.ended = True

    # ---------------------------------------------------------------- the end

    @harmless
    def failed(self, error: BaseException) -> None:
        """Note that an exception left the application, and write what was recorded."""
        self._error = type(error).__name__
        self._written = -1
        self._settle()

    @harmless
    def complete(self) -> None:
        """Note that the response has passed wholly, and write what was recorded.

        Called before the last bytes go out, so that who has the answer finds the cassette, and
        requests that follow one another are takes in that order.
        """
        self.response_body.ended = True
        self._settle()

    async def complete_aside(self) -> None:
        """Do what `complete` does, while the event loop serves others: a cassette that is to be
        safe on the disk takes milliseconds."""
        self.response_body.ended = True
        if self._stop_clock():
            self._log_replay()
            await aside(self._write_harmlessly)

    @harmless
    def _write_harmlessly(self) -> None:
        self._write()

    @harmless
    def close(self) -> None:
        """Write what came after the response, such as calls made while it was closed.

        A request that is closed before the end of its response was interrupted.
        """
        self._interrupted |= self._stop_clock()
        self._write()
        self.session.recorded_late = self._write
        if self.session.verification is not None:
            self.session.finish()

    def _settle(self) -> None:
        if self._stop_clock():
            self._log_replay()
        self._write()

    def _stop_clock(self) -> bool:
        """Whether it was still running."""
        runs = self._duration is None
        if runs:
            self._duration = (perf_counter() - self._began) * 1000
        return runs

    def _write(self) -> None:
        with self._writing:
            self._write_news()

    def _write_news(self) -> None:
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
        self.session.finish(failed=self._interrupted, response=self._response())

    def _response(self) -> ResponseRecord:
        return ResponseRecord(
            status=self._status,
            headers=self._headers,
            body=self.response_body.value(),
            duration_ms=self._duration or 0.0,
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


# ------------------------------------------------------------------------------- its beginning


def bytes_ahead(config: TraceConfig, request: RequestRecord) -> int:
    """Return how many bytes of a request's body are to be read ahead of the application.

    In replay all of them, if there are not too many: the body tells which recording answers.

    Args:
        config: resolved settings.
        request: what is known of the request before its body is read.
    """
    length = _declared_length(request.headers) or 0
    reads = MODES[config.mode].reads != "never" and not _is_inside_a_cassette()
    return length if reads and length <= config.max_request_body else 0


@harmless
def open_trace(
    config: TraceConfig, request: RequestRecord, body: bytes = b""
) -> RequestTrace | None:
    """Begin the trace of a request.

    Args:
        config: resolved settings.
        request: what is known of the request before its body is read.
        body: what was read of it; see `bytes_ahead`.

    Returns:
        The trace; None where the request's calls are nobody's concern.
    """
    if _is_inside_a_cassette():
        return None
    content_type = _header(request.headers, "content-type")
    encoding = _header(request.headers, "content-encoding").lower()
    copy = BodyCopy(config.max_request_body, content_type, encoding)
    if body:
        copy.add(body)
        copy.ended = copy.length == _declared_length(request.headers)
        request = replace(request, body_hash=copy.digest(_redactor(config)()))
    session = _session(config, request)
    return RequestTrace(config, session, request, copy) if session is not None else None


def _is_inside_a_cassette() -> bool:
    """Whether the request is made inside a cassette that was opened explicitly."""
    outer = CURRENT.get()
    return isinstance(outer, Session) and outer.kind not in ("request", "skipped")


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
    unreadable: Any = Unreadable(error)
    return Session(config, mode, where=getattr(error, "path", "(none)"), cassette=unreadable)


def _redactor(config: TraceConfig) -> Callable[[], Redactor | None]:
    def make() -> Redactor | None:
        # Numbered from 1 each time: the hash is to be the same in record and replay.
        return None if config.redact is False else Redactor(redaction_rules(config))

    return make


# ------------------------------------------------------------------------------- header fields


def _header(headers: Headers, name: str) -> str:
    return next((value for key, value in headers if key == name), "")


def _declared_length(headers: Headers) -> int | None:
    text = str(_header(headers, "content-length"))
    return int(text) if text.isascii() and text.isdigit() else None


def decoded(raw: str) -> str:
    """Return text of a request line whose UTF-8 bytes a server gave as one character each."""
    return raw.encode("latin-1", "backslashreplace").decode("utf-8", "backslashreplace")


__all__ = [
    "TRACE_KEY",
    "Answer",
    "Middleware",
    "RequestTrace",
    "bytes_ahead",
    "decoded",
    "harmless",
    "open_trace",
    "set_up",
]
