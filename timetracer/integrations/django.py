"""Django: each request has its session, sync or async, and a miss is named in its response.

    MIDDLEWARE = ["timetracer.integrations.django.TimeTracerMiddleware", ...]
    TIMETRACER = {"exclude_paths": ["/health"]}

Management commands have the program's own cassette, as any script.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.core.signals import got_request_exception
from django.urls import get_resolver
from django.urls.converters import REGISTERED_CONVERTERS
from django.views.defaults import server_error

from timetracer.config import TraceConfig, resolve
from timetracer.errors import ConfigError
from timetracer.integrations.request import (
    BodyCopy,
    RequestTrace,
    answer_naming,
    decoded,
    open_trace,
    set_up,
)
from timetracer.integrations.wsgi import TRACE_KEY, CopiedInput
from timetracer.model import RequestRecord

logger = logging.getLogger("timetracer")

MIDDLEWARE = "timetracer.integrations.django.TimeTracerMiddleware"


class TimeTracerMiddleware:
    """Records and replays the driver calls of each request; to be named first in MIDDLEWARE.

    Args:
        get_response: what serves the request, sync or async.

    Raises:
        ConfigError: a setting has a bad value.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response
        self.config = set_up(_settings())
        if self.config.mode == "off":
            raise MiddlewareNotUsed
        got_request_exception.connect(_note_exception)
        self._awaits = iscoroutinefunction(get_response)
        if self._awaits:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """Serve a request."""
        trace = self._begin(request)
        if trace is None:
            return self.get_response(request)
        if self._awaits:
            return self._served(request, trace)
        with _at_work(trace):
            response = self.get_response(request)
        return _ended(trace, request, response)

    async def _served(self, request: Any, trace: RequestTrace) -> Any:
        with _at_work(trace):
            response = await self.get_response(request)
        return _ended(trace, request, response)

    def _begin(self, request: Any) -> RequestTrace | None:
        if TRACE_KEY in request.META or TRACE_KEY in getattr(request, "scope", ()):
            return None
        try:
            length = _content_length(request)
            trace = open_trace(
                self.config,
                _facts(request),
                body_length=length,
                read_body=lambda size: _read_ahead(request, size),
            )
            if trace is not None and trace.records and not trace.request_body.length:
                _copy_body(request, trace.request_body, length)
        except Exception:
            logger.exception("timetracer: cannot trace a request")
            return None
        if trace is not None:
            request.META[TRACE_KEY] = trace
        return trace


def auto_setup(config: TraceConfig | None = None) -> TraceConfig:
    """Put the middleware first in MIDDLEWARE, and have management commands follow the settings.

        class ShopConfig(AppConfig):
            def ready(self):
                auto_setup()

    Args:
        config: settings in place of those of `settings.TIMETRACER`.

    Returns:
        The resolved settings.

    Raises:
        ConfigError: a setting has a bad value.
    """
    if config is not None:
        settings.TIMETRACER = config
    if MIDDLEWARE not in settings.MIDDLEWARE:
        settings.MIDDLEWARE = [MIDDLEWARE, *settings.MIDDLEWARE]
    return set_up(_settings(), serves_requests=False)


def _settings() -> TraceConfig:
    given = getattr(settings, "TIMETRACER", None)
    if given is None or isinstance(given, TraceConfig | Mapping):
        return resolve(given)
    raise ConfigError(
        f"settings.TIMETRACER is {given!r} and no dict.\nWrite it so: "
        'TIMETRACER = {"cassette_dir": "./cassettes"}',
        setting="TIMETRACER",
        source="Django settings",
    )


# ------------------------------------------------------------------------------- the request


def _facts(request: Any) -> RequestRecord:
    return RequestRecord(
        method=request.method,
        path=request.path,
        query=decoded(request.META.get("QUERY_STRING", "")),
        headers=tuple((n.lower(), decoded(str(v))) for n, v in request.headers.items() if v),
        route=_route(request),
    )


def _route(request: Any) -> str | None:
    if REGISTERED_CONVERTERS:  # code of the application, which must not run twice
        return None
    try:
        match = get_resolver(getattr(request, "urlconf", None)).resolve(request.path_info)
        return f"/{match.route}"
    except Exception:  # no such page, or a broken URLconf: Django will say so
        return None


def _content_length(request: Any) -> int | None:
    text = str(request.META.get("CONTENT_LENGTH") or "")
    return int(text) if text.isascii() and text.isdigit() else None


def _read_ahead(request: Any, size: int) -> bytes:
    """The request's body, which the application then reads from memory."""
    stream = request._stream
    data = bytearray()
    while len(data) < size and (part := stream.read(size - len(data))):
        data += part
    request._stream = io.BytesIO(data)
    return bytes(data)


def _copy_body(request: Any, copy: BodyCopy, length: int | None) -> None:
    stream = getattr(request, "_stream", None)
    if stream is None:
        return
    if not _is_file(stream):
        request._stream = CopiedInput(stream, copy, length) if length else stream
        return
    # Under ASGI Django has the whole body in a file before anybody asks for it.
    place = stream.tell()
    while part := stream.read(65536):
        copy.add(part)
    stream.seek(place)
    copy.ended = True


def _is_file(stream: Any) -> bool:
    try:
        stream.seek(stream.tell())
    except (AttributeError, OSError):
        return False
    return True


# ------------------------------------------------------------------------------- the response


@contextlib.contextmanager
def _at_work(trace: RequestTrace) -> Iterator[None]:
    """The session is current; an exception that Django lets through ends the request."""
    try:
        with trace.current():
            yield
    except Exception as error:
        trace.failed(error)
        trace.close()
        raise
    except BaseException:
        trace.close()
        raise


def _note_exception(sender: Any, request: Any = None, **_: Any) -> None:
    trace = getattr(request, "META", {}).get(TRACE_KEY)
    error = sys.exc_info()[1]
    if isinstance(trace, RequestTrace) and error is not None:
        trace.unhandled(error)


def _ended(trace: RequestTrace, request: Any, response: Any) -> Any:
    try:
        if trace.unanswered is not None and response.status_code == 500:
            _name_miss(trace.unanswered, request, response)
        cookies = [("set-cookie", cookie.output(header="")) for cookie in response.cookies.values()]
        trace.responding(response.status_code, [*response.items(), *cookies])
        if response.streaming:
            _trace_stream(trace, response)
        else:
            trace.response_body.add(response.content)
            trace.complete()
            trace.close()
    except Exception:
        logger.exception("timetracer: cannot trace a response")
    return response


def _name_miss(miss: BaseException, request: Any, response: Any) -> None:
    """Write the miss into Django's own error page; a page of the application's stays."""
    handler = get_resolver(getattr(request, "urlconf", None)).resolve_error_handler(500)
    if settings.DEBUG or handler is not server_error or response.streaming:
        return
    answer = answer_naming(miss, request.headers.get("Accept", ""))
    response.content = answer.body
    for name, value in answer.headers:
        response[name] = value


def _trace_stream(trace: RequestTrace, response: Any) -> None:
    closers = response._resource_closers
    closers[:] = [functools.partial(_within, trace, closer) for closer in closers]
    stream = _AsyncStream if getattr(response, "is_async", False) else _Stream
    response.streaming_content = stream(trace, response.streaming_content)


def _within(trace: RequestTrace, closer: Callable[[], Any]) -> None:
    with trace.current():
        closer()


class _Stream:
    """A streaming response step by step, with its session current in each."""

    def __init__(self, trace: RequestTrace, chunks: Any) -> None:
        self._trace = trace
        self._chunks = chunks
        self.close = trace.close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with _at_work(self._trace):
            chunk = next(self._chunks, None)
        return self._passed(chunk, StopIteration)

    def _passed(self, chunk: bytes | None, end: type[Exception]) -> bytes:
        if chunk is None:
            self._trace.complete()
            raise end
        self._trace.response_body.add(chunk)
        return chunk


class _AsyncStream(_Stream):
    """The same for an async iterator."""

    __iter__ = None  # type: ignore[assignment]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        with _at_work(self._trace):
            chunk = await anext(self._chunks, None)
        return self._passed(chunk, StopAsyncIteration)


__all__ = ["TimeTracerMiddleware", "auto_setup"]
