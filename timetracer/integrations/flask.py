"""Flask: each request has its session, and a miss is named in place of Flask's bare error page.

    app = auto_setup(Flask(__name__))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Flask, Request, got_request_exception, request
from werkzeug.exceptions import InternalServerError
from werkzeug.routing.converters import BaseConverter

from timetracer.config import TraceConfig
from timetracer.integrations import wsgi
from timetracer.integrations.request import TRACE_KEY, RequestTrace, harmless

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

_EXTENSION = "timetracer"


class TimeTracerMiddleware(wsgi.TimeTracerMiddleware):
    """Records and replays the driver calls of each request of a Flask application.

        app.wsgi_app = TimeTracerMiddleware(app.wsgi_app)

    Args:
        wsgi_app: the application's `wsgi_app`.
        config: see `request.set_up`, also for what is raised.
        app: the Flask application, where `wsgi_app` is no longer its own method.
    """

    def __init__(
        self,
        wsgi_app: WSGIApplication,
        config: TraceConfig | None = None,
        *,
        app: Flask | None = None,
    ) -> None:
        super().__init__(wsgi_app, config)
        owner = getattr(wsgi_app, "__self__", None)
        self._flask = app if app is not None or not isinstance(owner, Flask) else owner
        if self._flask is not None:
            got_request_exception.connect(self._note_miss, self._flask)

    def route_of(self, environ: WSGIEnvironment) -> str | None:
        """Return the rule that the request matches, such as "/users/<user_id>"."""
        app = self._flask
        if app is None or not _has_plain_converters(app):
            return None
        try:
            adapter = app.create_url_adapter(Request(environ, populate_request=False))
            return adapter.match(return_rule=True)[0].rule if adapter is not None else None
        except Exception:  # no rule, a redirect, a host that is not trusted: the app will say so
            return None

    def propagates(self, error: Exception) -> bool:
        """Tell whether Flask lets exceptions through, as it does in debug and testing mode."""
        app = self._flask
        if app is None:
            return False
        set_so = app.config["PROPAGATE_EXCEPTIONS"]
        return bool(app.testing or app.debug if set_so is None else set_so)

    @harmless
    def _note_miss(self, sender: Flask, exception: BaseException, **_: Any) -> None:
        trace = request.environ.get(TRACE_KEY)
        if isinstance(trace, RequestTrace) and not _has_error_page(sender):
            trace.unanswered = trace.miss_in(exception)


def _has_plain_converters(app: Flask) -> bool:
    """Whether matching a URL runs no code of the application, which must not run twice."""
    home = BaseConverter.__module__
    return all(converter.__module__ == home for converter in app.url_map.converters.values())


def _has_error_page(app: Flask) -> bool:
    """Whether the application answers an unexpected exception itself."""
    handlers = app.error_handler_spec
    return any(
        kind in InternalServerError.__mro__
        for scope in (*request.blueprints, None)
        for code in (InternalServerError.code, None)
        for kind in handlers.get(scope, {}).get(code, {})
    )


def init_app(app: Flask, config: TraceConfig | None = None) -> None:
    """Set up an application; once more changes its settings, and nothing else.

    Args:
        app: the application.
        config: see `request.set_up`, also for what is raised.
    """
    middleware = app.extensions.get(_EXTENSION)
    if middleware is None:
        middleware = TimeTracerMiddleware(app.wsgi_app, config, app=app)
        app.extensions[_EXTENSION] = middleware
        app.wsgi_app = middleware  # type: ignore[method-assign]
    elif config is not None:
        middleware.configure(config)


def auto_setup(app: Flask, config: TraceConfig | None = None) -> Flask:
    """Set up an application and return it; see `init_app`.

        app = auto_setup(Flask(__name__))
    """
    init_app(app, config)
    return app


__all__ = ["TimeTracerMiddleware", "auto_setup", "init_app"]
