"""A WSGI middleware that gives every request its session; any WSGI application can be wrapped.

    application = TimeTracerMiddleware(application)

Bytes pass through it as they come, in both directions. The session is current while the
application's code runs: in its call, in each step through what it returned, and in that one's
`close()`; nowhere else.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from timetracer.config import TraceConfig
from timetracer.integrations.request import (
    TRACE_KEY,
    Middleware,
    RequestTrace,
    bytes_ahead,
    decoded,
    harmless,
    open_trace,
)
from timetracer.integrations.streams import END, CopiedFile, Steps, read_ahead
from timetracer.model import RequestRecord

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ABOUT_BODY = ("content-type", "content-length", "content-encoding")
"""Headers of an error page that go when a miss is named in its place."""


class TimeTracerMiddleware(Middleware):
    """Records and replays the driver calls of each request of a WSGI application.

    Args:
        wsgi_app: the application.
        config: see `request.set_up`, also for what is raised.
    """

    def __init__(self, wsgi_app: WSGIApplication, config: TraceConfig | None = None) -> None:
        self.wsgi_app = wsgi_app
        super().__init__(config)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        """Serve a request; see PEP 3333."""
        traced = self.active and TRACE_KEY not in environ
        trace = self._begin(environ) if traced else None
        if trace is None:
            return self.wsgi_app(environ, start_response)
        environ[TRACE_KEY] = trace
        return _Exchange(self, trace, start_response).run(environ)

    def propagates(self, error: Exception) -> bool:
        """Tell whether a miss is to leave the application, for a debugger or a test to see."""
        return False

    @harmless
    def _begin(self, environ: WSGIEnvironment) -> RequestTrace | None:
        facts = _facts(environ, self.route_of(environ))
        body = b""
        if size := bytes_ahead(self.config, facts):
            environ["wsgi.input"] = ahead = read_ahead(environ["wsgi.input"], size)
            body = ahead.getvalue()
        trace = open_trace(self.config, facts, body)
        if trace is not None and trace.copies_request and _has_end(environ, trace):
            stream = environ["wsgi.input"]
            environ["wsgi.input"] = CopiedFile(stream, trace.request_body, trace.request_length)
        return trace


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


def _has_end(environ: WSGIEnvironment, trace: RequestTrace) -> bool:
    """Whether there is a body of which the application can see where it ends."""
    ends_itself = environ.get("wsgi.input_terminated") or "HTTP_TRANSFER_ENCODING" in environ
    length = trace.request_length
    return "wsgi.input" in environ and bool(ends_itself if length is None else length)


@dataclass(slots=True)
class _Exchange:
    """One request on its way through the application, and the response on its way back.

    Attributes:
        page: what goes out in place of the application's body, None for nothing.
    """

    middleware: TimeTracerMiddleware
    trace: RequestTrace
    start_response: StartResponse
    page: Iterator[bytes] | None = None

    def run(self, environ: WSGIEnvironment) -> Any:
        try:
            with self.trace.at_work():
                result = self.middleware.wsgi_app(environ, self._start)
        except Exception as error:
            return list(self.page_naming(error))
        size = _size(result)
        return _Body(self, result) if size is None or self.page else _SizedBody(self, result, size)

    def _start(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        miss = self.trace.unanswered
        if miss is not None and status.startswith("500"):
            return self._start_page(miss, headers, exc_info)
        # A server may take no third argument where there is no exception.
        write = self.start_response(status, headers, *([exc_info] if exc_info else []))
        self.trace.responding(_status_code(status), headers)

        def copying_write(data: bytes) -> object:
            self.trace.passing(data)
            return write(data)

        return copying_write

    def _start_page(self, miss: BaseException, headers: Any, exc_info: Any) -> Any:
        answer = self.trace.answer_naming(miss)
        kept = [pair for pair in headers if pair[0].lower() not in ABOUT_BODY]
        self.trace.unanswered, self.page = None, iter((answer.body,))
        return self._start("500 Internal Server Error", [*kept, *answer.headers], exc_info)

    def page_naming(self, error: Exception) -> Iterator[bytes]:
        """Return the page that names a miss; any other exception goes on its way."""
        miss = self.trace.miss_in(error)
        passed = self.trace.response_body.length
        if miss is None or passed or self.middleware.propagates(error):
            raise error
        # The server refuses a second start, by raising the error, if it sent the first one.
        self._start_page(miss, (), sys.exc_info() if self.trace.started else None)
        assert self.page is not None
        return self.page


def _size(result: Any) -> int | None:
    try:
        return len(result)
    except Exception:  # most results have no length, and some refuse to tell it
        return None


def _status_code(status: str) -> int:
    code = str(status).partition(" ")[0]
    return int(code) if code.isascii() and code.isdigit() else 500


class _Body(Steps):
    """What the application returned, unless a page goes out in its place."""

    def __init__(self, exchange: _Exchange, result: Any, count: int | None = None) -> None:
        super().__init__(exchange.trace, result, count)
        self._exchange = exchange
        self._closed = False

    def step(self) -> Any:
        if self._exchange.page is None:
            try:
                chunk = super().step()
            except Exception as error:
                self._exchange.page_naming(error)
        page = self._exchange.page
        return chunk if page is None else next(page, END)

    def close(self) -> None:
        """Close what the application returned, once."""
        if self._closed:
            return
        self._closed = True
        with self.trace.at_work():
            close = getattr(self.chunks, "close", None)
            if close is not None:
                close()
        super().close()


class _SizedBody(_Body):
    """The same for a list or tuple: a server may set Content-Length for one that has one item."""

    def __len__(self) -> int:
        return len(self.chunks)


__all__ = ["TimeTracerMiddleware"]
