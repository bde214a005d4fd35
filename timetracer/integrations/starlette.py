"""Starlette: each request has its session, and a miss is named in place of the bare error page.

    app = auto_setup(Starlette(routes=[...]))
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.convertors import CONVERTOR_TYPES, Convertor
from starlette.exceptions import HTTPException
from starlette.routing import Match

from timetracer.config import TraceConfig
from timetracer.integrations import asgi

_App = TypeVar("_App", bound=Starlette)


class TimeTracerMiddleware(asgi.TimeTracerMiddleware):
    """Records and replays the driver calls of each request of a Starlette application.

        app.add_middleware(TimeTracerMiddleware, config=TraceConfig(...))

    What is added after it stands around it, and is none of the request's; `auto_setup` stands
    around all.

    Args:
        app: the application.
        config: see `request.set_up`, also for what is raised.
    """

    error_pages = True

    def route_of(self, scope: asgi.Scope) -> str | None:
        """Return the path of the route that the request matches, such as "/users/{user_id}"."""
        router = getattr(scope.get("app"), "router", None)
        if router is None or not _has_plain_convertors():
            return None
        try:
            return _template(router.routes, scope)
        except Exception:  # the application will meet it too, and say so
            return None

    def has_own_page(self, scope: asgi.Scope, error: BaseException) -> bool:
        """Tell whether an exception has a handler, or is shown by the debugger."""
        app = scope.get("app")
        if isinstance(error, HTTPException) or getattr(app, "debug", False):
            return True
        handlers = getattr(app, "exception_handlers", {})
        return 500 in handlers or any(kind in handlers for kind in type(error).__mro__)


def _has_plain_convertors() -> bool:
    """Whether matching a URL runs no code of the application, which must not run twice."""
    home = Convertor.__module__
    return all(type(convertor).__module__ == home for convertor in CONVERTOR_TYPES.values())


def _template(routes: Iterable[Any], scope: asgi.Scope) -> str | None:
    for route in routes:
        match, found = route.matches({**scope})
        if match is Match.FULL:
            included = getattr(route, "effective_route_contexts", None)  # of FastAPI's routers
            below = included() if included is not None else getattr(route, "routes", None)
            path = getattr(route, "path", None) or ""
            return path + (_template(below or (), {**scope, **found}) or "") or None
    return None


class _Stack:
    """Builds an application's middleware stack as it would be, with ours around all of it."""

    def __init__(self, app: Starlette, config: TraceConfig | None) -> None:
        self._build = app.build_middleware_stack
        self.middleware = TimeTracerMiddleware(_not_built, config)

    def __call__(self) -> asgi.Application:
        self.middleware.app = self._build()
        return self.middleware


async def _not_built(*_: Any) -> None:
    raise AssertionError("the middleware stack is built before the first request")


def auto_setup(app: _App, config: TraceConfig | None = None) -> _App:
    """Set up an application and return it; once more changes its settings, and nothing else.

        app = auto_setup(Starlette(routes=[...]))

    Args:
        app: the application.
        config: see `request.set_up`, also for what is raised.
    """
    stack = app.build_middleware_stack
    if not isinstance(stack, _Stack):
        app.build_middleware_stack = _Stack(app, config)  # type: ignore[method-assign]
        if app.middleware_stack is not None:  # it serves already
            app.middleware_stack = app.build_middleware_stack()
    elif config is not None:
        stack.middleware.configure(config)
    return app


__all__ = ["TimeTracerMiddleware", "auto_setup"]
