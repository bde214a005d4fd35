"""A WSGI middleware that gives every request its session; any WSGI application can be wrapped.

    application = TimeTracerMiddleware(application)

Bytes pass through it as they come, in both directions. The session is current while the
application's code runs: in its call, in each step through what it returned, and in that one's
`close()`; nowhere else.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from timetracer.config import TraceConfig
from timetracer.integrations.request import (
    BodyCopy,
    RequestTrace,
    answer_naming,
    decoded,
    open_trace,
    set_up,
)
from timetracer.model import RequestRecord

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("timetracer")

TRACE_KEY = "timetracer.trace"
"""Where the WSGI environment holds the request's trace."""

_END: Any = object()


class TimeTracerMiddleware:
    """Records and replays the driver calls of each request of a WSGI application.

    Args:
        wsgi_app: the application.
        config: settings that count more than the environment; None for the environment,
            pyproject.toml and the defaults. They are looked up here, once.

    Raises:
        ConfigError: a setting has a bad value.
    """

    def __init__(self, wsgi_app: WSGIApplication, config: TraceConfig | None = None) -> None:
        self.wsgi_app = wsgi_app
        self.configure(config)

    def configure(self, config: TraceConfig | None) -> None:
        """Look the settings up anew; see the class."""
        self.config = set_up(config)
        self.active = self.config.mode != "off"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        """Serve a request; see PEP 3333."""
        if not self.active or TRACE_KEY in environ:
            return self.wsgi_app(environ, start_response)
        trace = self._begin(environ)
        if trace is None:
            return self.wsgi_app(environ, start_response)
        environ[TRACE_KEY] = trace
        return _Exchange(self, trace, environ, start_response).run()

    def route_of(self, environ: WSGIEnvironment) -> str | None:
        """Return the framework's route template of a request, None where it is not known."""
        return None

    def propagates(self, error: Exception) -> bool:
        """Tell whether a miss is to leave the application, for a debugger or a test to see."""
        return False

    def _begin(self, environ: WSGIEnvironment) -> RequestTrace | None:
        try:
            length = _content_length(environ)
            trace = open_trace(
                self.config,
                _facts(environ, self.route_of(environ)),
                body_length=length,
                read_body=lambda size: _read_ahead(environ, size),
            )
            if trace is not None and trace.records:
                _copy_input(environ, trace.request_body, length)
            return trace
        except Exception:
            logger.exception("timetracer: cannot trace a request")
            return None


# ------------------------------------------------------------------------------- the request


def _facts(environ: WSGIEnvironment, route: str | None) -> RequestRecord:
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return RequestRecord(
        method=environ.get("REQUEST_METHOD", "GET"),
        path=decoded(path) or "/",
        query=decoded(environ.get("QUERY_STRING", "")),
        headers=tuple(_headers(environ)),
        route=route,
    )


def _headers(environ: WSGIEnvironment) -> Iterator[tuple[str, str]]:
    for key, value in environ.items():
        if key.startswith("HTTP_") or (key in ("CONTENT_TYPE", "CONTENT_LENGTH") and value):
            yield key.removeprefix("HTTP_").replace("_", "-").lower(), decoded(str(value))


def _content_length(environ: WSGIEnvironment) -> int | None:
    text = str(environ.get("CONTENT_LENGTH") or "")
    return int(text) if text.isascii() and text.isdigit() else None


def _read_ahead(environ: WSGIEnvironment, size: int) -> bytes:
    """The request's body, which the application then reads from memory."""
    data = bytearray()
    while len(data) < size and (part := environ["wsgi.input"].read(size - len(data))):
        data += part
    environ["wsgi.input"] = io.BytesIO(data)
    return bytes(data)


def _copy_input(environ: WSGIEnvironment, copy: BodyCopy, length: int | None) -> None:
    if copy.length or length == 0 or "wsgi.input" not in environ:
        return
    ends_itself = environ.get("wsgi.input_terminated") or "HTTP_TRANSFER_ENCODING" in environ
    if length is not None or ends_itself:
        environ["wsgi.input"] = CopiedInput(environ["wsgi.input"], copy, length)


class CopiedInput:
    """The request's body as the server gives it, with a copy of what the application reads."""

    def __init__(self, stream: Any, copy: BodyCopy, length: int | None) -> None:
        self._stream = stream
        self._copy = copy
        self._length = length

    def read(self, *size: int) -> bytes:
        whole = not size or size[0] is None or size[0] < 0
        return self._seen(self._stream.read(*size), at_end=whole, sized=size)

    def readline(self, *size: int) -> bytes:
        return self._seen(self._stream.readline(*size), sized=size)

    def readlines(self, *hint: int) -> list[bytes]:
        lines: list[bytes] = self._stream.readlines(*hint)
        self._seen(b"".join(lines), at_end=not hint)
        return lines

    def __iter__(self) -> Iterator[bytes]:
        for line in self._stream:
            yield self._seen(line)
        self._seen(b"")

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._stream, name)
        if name in ("readinto", "readinto1"):
            return lambda buffer: self._read_into(attribute, buffer)
        if name in _UNSEEN:
            return lambda *args: self._unseen(attribute(*args))
        return attribute

    def _unseen(self, result: Any) -> Any:
        self._copy.spoilt = True  # only now: a stream that cannot do it has raised
        return result

    def _read_into(self, read: Any, buffer: Any) -> Any:
        size = read(buffer)
        if size is not None:
            self._seen(bytes(memoryview(buffer)[:size]), sized=(len(buffer),))
        return size

    def _seen(self, data: bytes, *, at_end: bool = False, sized: tuple[int, ...] = ()) -> bytes:
        self._copy.add(data)
        if self._length is not None:
            self._copy.ended = self._copy.length >= self._length
        elif at_end or (not data and sized != (0,)):
            self._copy.ended = True
        return data


_UNSEEN = frozenset(("seek", "read1", "detach", "fileno"))
"""Attributes of a stream by which bytes may pass unseen, or twice."""


# ------------------------------------------------------------------------------- the response


class _Exchange:
    """One request on its way through the application, and the response on its way back."""

    def __init__(
        self,
        middleware: TimeTracerMiddleware,
        trace: RequestTrace,
        environ: WSGIEnvironment,
        start_response: StartResponse,
    ) -> None:
        self._middleware = middleware
        self.trace = trace
        self._environ = environ
        self._start_response = start_response
        self._started = False
        self._expected: int | None = None
        self.answer: bytes | None = None
        self.passed = 0
        self.is_head = environ.get("REQUEST_METHOD") == "HEAD"

    def run(self) -> Any:
        try:
            with self.trace.current():
                result = self._middleware.wsgi_app(self._environ, self._start)
        except Exception as error:
            return [self.answered(error)]
        except BaseException:
            self.trace.close(interrupted=True)
            raise
        size = _size(result)
        if size is not None and self.answer is None:
            return _SizedBody(self, result, size)
        return _Body(self, result)

    def _start(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        miss = self.trace.unanswered
        if miss is not None and status.startswith("500"):
            status, headers, self.answer = self._naming(miss, headers)
        # A server may take no third argument where there is no exception.
        write = self._start_response(status, headers, *([exc_info] if exc_info else []))
        self._started = True
        self.trace.responding(_status_code(status), headers)
        self._expected = _declared_length(headers)

        def copying_write(data: bytes) -> object:
            self.saw(data)
            return write(data)

        return copying_write

    def _naming(self, miss: BaseException, headers: Any) -> tuple[str, Any, bytes]:
        answer = answer_naming(miss, str(self._environ.get("HTTP_ACCEPT", "")))
        about_body = ("content-type", "content-length", "content-encoding")
        kept = [pair for pair in headers if pair[0].lower() not in about_body]
        body = b"" if self.is_head else answer.body
        return "500 Internal Server Error", [*kept, *answer.headers], body

    def saw(self, data: bytes) -> None:
        """Note bytes of the response that are on their way to the client."""
        self.passed += len(data)
        if self.trace.records:
            self.trace.response_body.add(data)

    def passes_last(self) -> bool:
        """Whether the bytes that passed are all that the response declared."""
        return self._expected is not None and self.passed >= self._expected > 0

    def answered(self, error: Exception) -> bytes:
        """Return the body that names a miss; any other exception goes on its way."""
        self.trace.failed(error)
        miss = self.trace.miss_in(error)
        if miss is None or self.passed or self._middleware.propagates(error):
            raise error
        status, headers, body = self._naming(miss, ())
        # The server refuses a second start, by raising the error, if it sent the first one.
        again = [sys.exc_info()] if self._started else []
        self._start_response(status, headers, *again)
        return body


def _size(result: Any) -> int | None:
    try:
        return len(result)
    except Exception:  # most results have no length, and some refuse to tell it
        return None


def _status_code(status: str) -> int:
    code = str(status).partition(" ")[0]
    return int(code) if code.isascii() and code.isdigit() else 500


def _declared_length(headers: Any) -> int | None:
    texts = [str(value) for name, value in headers if name.lower() == "content-length"]
    return int(texts[0]) if texts and texts[0].isascii() and texts[0].isdigit() else None


class _Body:
    """What the application returned, step by step, with its session current in each."""

    def __init__(self, exchange: _Exchange, result: Any, size: int = -1) -> None:
        self._exchange = exchange
        self._trace = exchange.trace
        self._result = result
        self._chunks: Iterator[bytes] | None = None
        self._size = size
        self._to_come = size
        self._closed = False
        self._answered = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._answered:
            raise StopIteration
        try:
            chunk = self._step() if self._exchange.answer is None else b""
        except Exception as error:
            self._answered = True
            return self._exchange.answered(error)
        if self._exchange.answer is not None:
            self._answered = True
            self._trace.complete()
            return self._exchange.answer
        if chunk is _END:
            self._trace.complete()
            raise StopIteration
        self._exchange.saw(chunk)
        self._to_come -= 1
        if self._to_come == 0 or self._exchange.passes_last():
            self._trace.complete()
        return chunk

    def _step(self) -> Any:
        with self._trace.current():
            if self._chunks is None:
                self._chunks = iter(self._result)
            return next(self._chunks, _END)

    def close(self) -> None:
        """Close what the application returned, once."""
        if self._closed:
            return
        self._closed = True
        if self._exchange.is_head:  # some servers close the response to HEAD without a look at it
            self._trace.complete()
        try:
            with self._trace.current():
                close = getattr(self._result, "close", None)
                if close is not None:
                    close()
        except Exception as error:
            self._trace.failed(error)
            raise
        finally:
            self._trace.close()


class _SizedBody(_Body):
    """The same for a list or tuple: a server may set Content-Length for one that has one item."""

    def __len__(self) -> int:
        return self._size
