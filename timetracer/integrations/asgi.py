"""An ASGI middleware that gives every request, and every websocket, its session.

    app = TimeTracerMiddleware(app)

Messages pass through it as they come, in both directions. The session is current as long as the
application is at work, until its callable returns: background tasks and the clean-up of
dependencies belong to the request too. Calls at start-up (lifespan) are the program's own.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from timetracer.config import TraceConfig
from timetracer.integrations.request import (
    RequestTrace,
    answer_naming,
    decoded,
    harmless,
    open_trace,
    set_up,
    wants_body,
)
from timetracer.model import RequestRecord

logger = logging.getLogger("timetracer")

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

TRACE_KEY = "timetracer.trace"
"""Where the scope holds the request's trace."""

TRACED = ("http", "websocket")
"""Types of scope that are requests."""

STARTS = {
    "http.response.start": None,
    "websocket.http.response.start": None,
    "websocket.accept": 101,
    "websocket.close": 403,
}
"""Messages that may begin a response, with the status of those that carry none."""

BODIES = {
    "http.response.body": True,
    "websocket.http.response.body": True,
    "http.response.zerocopysend": False,
    "http.response.pathsend": False,
}
"""Messages with a response's bytes, and whether the bytes are in them, for a copy."""


class TimeTracerMiddleware:
    """Records and replays the driver calls of each request of an ASGI application.

    Args:
        app: the application.
        config: settings that count more than the environment; None for the environment,
            pyproject.toml and the defaults. They are looked up here, once.

    Raises:
        ConfigError: a setting has a bad value.
    """

    error_pages = False
    """Whether the framework sends its error pages from within an `except` block."""

    def __init__(self, app: Application, config: TraceConfig | None = None) -> None:
        self.app = app
        self.configure(config)

    def configure(self, config: TraceConfig | None) -> None:
        """Look the settings up anew; see the class."""
        self.config = set_up(config)
        self.active = self.config.mode != "off"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection; see the ASGI specification."""
        if not self.active or scope["type"] not in TRACED or TRACE_KEY in scope:
            await self.app(scope, receive, send)
            return
        trace, receive = await self._begin(scope, receive)
        if trace is None:
            await self.app(scope, receive, send)
            return
        scope[TRACE_KEY] = trace
        await _Exchange(self, trace, scope, receive, send).run()

    def route_of(self, scope: Scope) -> str | None:
        """Return the framework's route template of a request, None where it is not known."""
        return None

    def has_own_page(self, scope: Scope, error: BaseException) -> bool:
        """Tell whether the application answers an exception itself, or a debugger does."""
        return False

    async def _begin(
        self, scope: Scope, receive: Receive
    ) -> tuple[RequestTrace | None, Receive]:
        body = b""
        length = _content_length(scope)
        if wants_body(self.config, length):
            body, receive = await _read_ahead(receive)
        try:
            facts = _facts(scope, self.route_of(scope))
            trace = open_trace(
                self.config, facts, body_length=length, read_body=lambda size: body[:size]
            )
        except Exception:
            logger.exception("timetracer: cannot trace a request")
            trace = None
        if trace is not None and trace.records and not body:
            receive = _copying(receive, trace)
        return trace, receive


# ------------------------------------------------------------------------------- the request


def _facts(scope: Scope, route: str | None) -> RequestRecord:
    return RequestRecord(
        method=scope.get("method", "WEBSOCKET"),
        path=scope["path"] or "/",
        query=decoded(scope.get("query_string", b"").decode("latin-1")),
        headers=tuple((_text(name).lower(), _text(value)) for name, value in scope["headers"]),
        route=route,
    )


def _text(raw: bytes) -> str:
    return decoded(raw.decode("latin-1"))


def _header(scope: Scope, name: bytes) -> str:
    return next((_text(value) for key, value in scope["headers"] if key.lower() == name), "")


def _content_length(scope: Scope) -> int | None:
    text = _header(scope, b"content-length") if scope["type"] == "http" else ""
    return int(text) if text.isascii() and text.isdigit() else None


async def _read_ahead(receive: Receive) -> tuple[bytes, Receive]:
    """Return the request's body, and what gives the application the same messages again."""
    messages: list[Message] = []
    more = True
    while more:
        messages.append(await receive())
        more = messages[-1].get("more_body", False)
    body = b"".join(message.get("body", b"") for message in messages)

    async def again() -> Message:
        return messages.pop(0) if messages else await receive()

    return body, again


def _copying(receive: Receive, trace: RequestTrace) -> Receive:
    async def copied() -> Message:
        message = await receive()
        if message["type"] == "http.request":
            trace.request_body.add(message.get("body", b""))
            trace.request_body.ended = not message.get("more_body", False)
        return message

    return copied


# ------------------------------------------------------------------------------- the response


class _Exchange:
    """One request on its way through the application, and the response on its way back."""

    def __init__(
        self,
        middleware: TimeTracerMiddleware,
        trace: RequestTrace,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._middleware = middleware
        self._trace = trace
        self._scope = scope
        self._receive = receive
        self._send = send
        self._started = False
        self._ended = False
        self._answered = False

    async def run(self) -> None:
        try:
            with self._trace.current():
                await self._middleware.app(self._scope, self._receive, self._pass_on)
            self._ended = self._ended or self._scope["type"] == "websocket"
        except Exception as error:
            self._trace.failed(error)
            miss = self._to_name(error)
            if miss is not None and not self._ended:
                await self._name(miss)
            raise  # as frameworks do with what they made a page of: servers log it, tests see it
        finally:
            if self._ended:
                self._trace.complete()
            self._trace.close()

    async def _pass_on(self, message: Message) -> None:
        if self._answered:
            return  # the rest of the page in whose place the answer was given
        if self._middleware.error_pages and message.get("status") == 500 and not self._started:
            miss = self._to_name(sys.exc_info()[1])
            if miss is not None:
                await self._name(miss)
                return
        self._note(message)
        await self._send(message)

    @harmless
    def _note(self, message: Message) -> None:
        kind = message["type"]
        if kind in STARTS and not self._started:
            self._started = True
            headers = [(_text(name), _text(value)) for name, value in message.get("headers", ())]
            self._trace.responding(STARTS[kind] or message.get("status", 500), headers)
        if kind in BODIES:
            self._note_body(message, BODIES[kind])
        self._ended = self._ended or kind == "websocket.close"

    def _note_body(self, message: Message, is_seen: bool) -> None:
        self._ended = not message.get("more_body", False)
        if not self._trace.records:
            return
        self._trace.response_body.add(message.get("body", b""))
        self._trace.response_body.spoilt |= not is_seen
        if self._ended:
            self._trace.complete()

    def _to_name(self, error: BaseException | None) -> BaseException | None:
        """The miss that an exception is, if it is left to us to tell the client."""
        if error is None or self._middleware.has_own_page(self._scope, error):
            return None
        return self._trace.miss_in(error)

    async def _name(self, miss: BaseException) -> None:
        if self._scope["type"] == "websocket":
            await self._send({"type": "websocket.close", "code": 1011, "reason": _short(miss)})
        elif not self._started:
            self._answered = self._ended = True
            answer = answer_naming(miss, _header(self._scope, b"accept"))
            headers = [(name.lower().encode(), value.encode()) for name, value in answer.headers]
            start = {"type": "http.response.start", "status": answer.status, "headers": headers}
            body = b"" if self._scope.get("method") == "HEAD" else answer.body
            await self._send(start)
            await self._send({"type": "http.response.body", "body": body, "more_body": False})


def _short(miss: BaseException) -> str:
    """The beginning of a message, as long as a websocket's closing frame may be."""
    return str(miss).encode("utf-8", "backslashreplace")[:120].decode("utf-8", "ignore")
