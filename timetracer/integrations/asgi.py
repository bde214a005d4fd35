"""An ASGI middleware that gives every request, and every websocket, its session.

    app = TimeTracerMiddleware(app)

Messages pass through it as they come, in both directions. The session is current as long as the
application is at work, until its callable returns: background tasks and the clean-up of
dependencies belong to the request too. Calls at start-up (lifespan) are the program's own.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from timetracer.config import TraceConfig
from timetracer.integrations.request import (
    TRACE_KEY,
    Answer,
    Middleware,
    RequestTrace,
    bytes_ahead,
    decoded,
    harmless,
    open_trace,
)
from timetracer.integrations.streams import Message, Receive, copied_messages, messages_ahead
from timetracer.model import RequestRecord

Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

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


class TimeTracerMiddleware(Middleware):
    """Records and replays the driver calls of each request of an ASGI application.

    Args:
        app: the application.
        config: see `request.set_up`, also for what is raised.
    """

    error_pages = False
    """Whether the framework sends its error pages from within an `except` block."""

    def __init__(self, app: Application, config: TraceConfig | None = None) -> None:
        self.app = app
        super().__init__(config)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection; see the ASGI specification."""
        traced = self.active and scope["type"] in TRACED and TRACE_KEY not in scope
        facts = _facts(scope, self.route_of) if traced else None
        if facts is None:
            await self.app(scope, receive, send)
            return
        body = b""
        if scope["type"] == "http" and bytes_ahead(self.config, facts):
            body, receive = await messages_ahead(receive)
        trace = open_trace(self.config, facts, body)
        if trace is None:
            await self.app(scope, receive, send)
            return
        scope[TRACE_KEY] = trace
        await _Exchange(self, trace, scope, send).run(receive)

    def has_own_page(self, scope: Scope, error: BaseException) -> bool:
        """Tell whether the application answers an exception itself, or a debugger does."""
        return False


# ------------------------------------------------------------------------------- the request


@harmless
def _facts(scope: Scope, route_of: Callable[[Scope], str | None]) -> RequestRecord:
    return RequestRecord(
        method=scope.get("method", "WEBSOCKET"),
        path=scope["path"] or "/",
        query=_text(scope.get("query_string", b"")),
        headers=_fields(scope["headers"]),
        route=route_of(scope),
    )


def _fields(headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    return tuple((_text(name).lower(), _text(value)) for name, value in headers)


def _text(raw: bytes) -> str:
    return decoded(raw.decode("latin-1"))


# ------------------------------------------------------------------------------- the exchange


@dataclass(slots=True)
class _Exchange:
    """One request on its way through the application, and the response on its way back."""

    middleware: TimeTracerMiddleware
    trace: RequestTrace
    scope: Scope
    send: Send
    answered: bool = False

    async def run(self, receive: Receive) -> None:
        if self.trace.copies_request:
            receive = copied_messages(receive, self.trace.request_body)
        try:
            with self.trace.at_work():
                await self.middleware.app(self.scope, receive, self._pass_on)
        except Exception as error:
            miss = self._to_name(error)
            if miss is not None:
                await self._name(miss)
            raise  # as frameworks do with what they made a page of: servers log it, tests see it
        if self.trace.ended or self.scope["type"] == "websocket":
            self.trace.complete()
        self.trace.close()

    async def _pass_on(self, message: Message) -> None:
        if self.answered:
            return  # the rest of the page in whose place the answer was given
        is_page = self.middleware.error_pages and message.get("status") == 500
        miss = self._to_name(sys.exc_info()[1]) if is_page else None
        if miss is not None and not self.trace.started:
            await self._name(miss)
            return
        await self._noted(message)
        await self.send(message)

    async def _noted(self, message: Message) -> None:
        self._note(message)
        # In replay the calls of background tasks are still to come, and to be counted.
        if self.trace.ended and self.trace.records:
            await self.trace.complete_aside()

    @harmless
    def _note(self, message: Message) -> None:
        kind = message["type"]
        if kind in STARTS and not self.trace.started:
            status = STARTS[kind] or message.get("status", 500)
            self.trace.responding(status, _fields(message.get("headers", ())))
        if kind in BODIES:
            self.trace.passing(message.get("body", b""), last=not message.get("more_body", False))
            self.trace.response_body.spoilt |= not BODIES[kind]
        self.trace.response_body.ended |= kind == "websocket.close"

    def _to_name(self, error: BaseException | None) -> BaseException | None:
        """The miss that an exception is, if it is left to us to tell the client."""
        if error is None or self.middleware.has_own_page(self.scope, error):
            return None
        return self.trace.miss_in(error)

    async def _name(self, miss: BaseException) -> None:
        if self.scope["type"] == "websocket" and not self.trace.ended:
            await self.send({"type": "websocket.close", "code": 1011, "reason": _short(miss)})
        elif not self.trace.started:
            self.answered = True
            for message in _page(self.trace.answer_naming(miss)):
                await self._noted(message)
                await self.send(message)


def _page(answer: Answer) -> list[Message]:
    headers = [(name.lower().encode(), value.encode()) for name, value in answer.headers]
    return [
        {"type": "http.response.start", "status": answer.status, "headers": headers},
        {"type": "http.response.body", "body": answer.body},
    ]


def _short(miss: BaseException) -> str:
    """The beginning of a message, as long as a websocket's closing frame may be."""
    return str(miss).encode("utf-8", "backslashreplace")[:120].decode("utf-8", "ignore")


__all__ = ["TimeTracerMiddleware"]
