"""Django: each request has its session, sync or async, and a miss is named in its response.

    MIDDLEWARE = ["timetracer.integrations.django.TimeTracerMiddleware", ...]
    TIMETRACER = {"exclude_paths": ["/health"]}

Management commands have the program's own cassette, as any script.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
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
    TRACE_KEY,
    Middleware,
    RequestTrace,
    bytes_ahead,
    decoded,
    harmless,
    open_trace,
    set_up,
)
from timetracer.integrations.streams import AsyncSteps, CopiedFile, Steps, copy_file, read_ahead
from timetracer.model import RequestRecord

MIDDLEWARE = "timetracer.integrations.django.TimeTracerMiddleware"


class TimeTracerMiddleware(Middleware):
    """Records and replays the driver calls of each request; to be named first in MIDDLEWARE.

    Args:
        get_response: what serves the request, sync or async.

    Raises:
        ConfigError: a setting has a bad value.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        super().__init__(_settings())
        if not self.active:
            raise MiddlewareNotUsed
        got_request_exception.connect(_note_exception)
        self.get_response = get_response
        self._awaits = iscoroutinefunction(get_response)
        if self._awaits:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """Serve a request."""
        traced = TRACE_KEY in request.META or TRACE_KEY in getattr(request, "scope", ())
        trace = None if traced else self._begin(request)
        if trace is None:
            return self.get_response(request)
        request.META[TRACE_KEY] = trace
        if self._awaits:
            return self._served(request, trace)
        with trace.at_work():
            response = self.get_response(request)
        _end(trace, request, response)
        return response

    async def _served(self, request: Any, trace: RequestTrace) -> Any:
        with trace.at_work():
            response = await self.get_response(request)
        _end(trace, request, response)
        return response

    def route_of(self, facts: Any) -> str | None:
        """Return the route that a request matches, such as "/users/<int:user_id>"."""
        if REGISTERED_CONVERTERS:  # code of the application, which must not run twice
            return None
        try:
            return f"/{_resolver(facts).resolve(facts.path_info).route}"
        except Exception:  # no such page, or a broken URLconf: Django will say so
            return None

    @harmless
    def _begin(self, request: Any) -> RequestTrace | None:
        facts = _facts(request, self.route_of(request))
        body = b""
        if size := bytes_ahead(self.config, facts):
            request._stream = ahead = read_ahead(request._stream, size)
            body = ahead.getvalue()
        trace = open_trace(self.config, facts, body)
        if trace is not None and trace.copies_request and hasattr(request, "_stream"):
            _copy_body(request, trace)
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


def _facts(request: Any, route: str | None) -> RequestRecord:
    return RequestRecord(
        method=request.method,
        path=request.path,
        query=decoded(request.META.get("QUERY_STRING", "")),
        headers=tuple((n.lower(), decoded(str(v))) for n, v in request.headers.items() if v),
        route=route,
    )


def _resolver(request: Any) -> Any:
    return get_resolver(getattr(request, "urlconf", None))


def _copy_body(request: Any, trace: RequestTrace) -> None:
    # Under ASGI Django has the whole body in a file before anybody asks for it.
    if not copy_file(request._stream, trace.request_body) and trace.request_length:
        copy = CopiedFile(request._stream, trace.request_body, trace.request_length)
        request._stream = copy


# ------------------------------------------------------------------------------- the response


def _note_exception(sender: Any, request: Any = None, **_: Any) -> None:
    trace = getattr(request, "META", {}).get(TRACE_KEY)
    error = sys.exc_info()[1]
    if isinstance(trace, RequestTrace) and error is not None:
        trace.unhandled(error)


@harmless
def _end(trace: RequestTrace, request: Any, response: Any) -> None:
    if trace.unanswered is not None and response.status_code == 500:
        _name_miss(trace.unanswered, trace, request, response)
    cookies = [("set-cookie", cookie.output(header="")) for cookie in response.cookies.values()]
    trace.responding(response.status_code, [*response.items(), *cookies])
    if response.streaming:
        _trace_stream(trace, response)
        return
    trace.passing(response.content)
    trace.complete()
    trace.close()


def _name_miss(miss: BaseException, trace: RequestTrace, request: Any, response: Any) -> None:
    """Write the miss into Django's own error page; a page of the application's stays."""
    handler = _resolver(request).resolve_error_handler(500)
    if settings.DEBUG or handler is not server_error or response.streaming:
        return
    answer = trace.answer_naming(miss)
    response.content = answer.body
    for name, value in answer.headers:
        response[name] = value


def _trace_stream(trace: RequestTrace, response: Any) -> None:
    closers = response._resource_closers
    closers[:] = [functools.partial(_within, trace, closer) for closer in closers]
    steps = AsyncSteps if getattr(response, "is_async", False) else Steps
    response.streaming_content = steps(trace, response.streaming_content)


def _within(trace: RequestTrace, closer: Callable[[], Any]) -> None:
    with trace.at_work():
        closer()


__all__ = ["TimeTracerMiddleware", "auto_setup"]
