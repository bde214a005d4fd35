"""An ASGI server's side of a request, for applications called in the test's own process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

Message = dict[str, Any]


@dataclass
class Served:
    """What a server got from an application.

    Attributes:
        messages: all that was sent, in order.
        error: what left the application.
    """

    messages: list[Message] = field(default_factory=list)
    error: BaseException | None = None

    @property
    def status(self) -> int:
        starts = [m["status"] for m in self.messages if m["type"] == "http.response.start"]
        assert len(starts) == 1, f"the response began {len(starts)} times"
        return int(starts[0])

    @property
    def headers(self) -> dict[str, str]:
        start = next(m for m in self.messages if m["type"] == "http.response.start")
        return {name.decode(): value.decode() for name, value in start["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.messages if m["type"] == BODY)


BODY = "http.response.body"


def scope_of(method: str, path: str, headers: Iterable[tuple[str, str]] = (), **extra: Any) -> Any:
    """The scope of a request: path with query string, and more keys."""
    path, _, query = path.partition("?")
    return {
        "type": "websocket" if method == "WEBSOCKET" else "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        **({} if method == "WEBSOCKET" else {"method": method}),
        "path": unquote(path),
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 80),
        **extra,
    }


def messages_of(*body: bytes) -> list[Message]:
    """The messages of a request's body, one for each part."""
    parts = body or (b"",)
    last = len(parts) - 1
    return [
        {"type": "http.request", "body": part, "more_body": number < last}
        for number, part in enumerate(parts)
    ]


async def serve(
    app: Any,
    method: str,
    path: str,
    *body: bytes,
    headers: Iterable[tuple[str, str]] = (),
    messages: list[Message] | None = None,
    on_send: Callable[[Message], Awaitable[None]] | None = None,
    **extra: Any,
) -> Served:
    """Serve one request, or one websocket (method "WEBSOCKET"), as the specification says.

    Args:
        app: the application.
        method: "GET", ...
        path: the path, with query string.
        body: the parts in which the request's body comes; with a Content-Length if it is one.
        headers: the request's headers.
        messages: what the client sends, in place of `body`.
        on_send: awaited with each message that the application sends.
        extra: more keys of the scope.
    """
    served = Served()
    length = [("content-length", str(len(body[0])))] if len(body) == 1 else []
    to_come = list(messages if messages is not None else messages_of(*body))

    async def receive() -> Message:
        await asyncio.sleep(0)
        if to_come:
            return to_come.pop(0)
        if extra.get("connected"):
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        await asyncio.sleep(0)
        served.messages.append(dict(message))
        if on_send is not None:
            await on_send(message)

    try:
        await app(scope_of(method, path, [*length, *headers], **extra), receive, send)
    except Exception as error:
        served.error = error
    return served


async def respond(
    send: Any, *parts: bytes, status: int = 200, content_type: str = "text/plain"
) -> None:
    """Send a whole response, one message for each part of its body."""
    headers = [(b"content-type", content_type.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    last = len(parts) - 1
    for number, part in enumerate(parts):
        await send({"type": BODY, "body": part, "more_body": number < last})


async def read_body(receive: Any) -> list[bytes]:
    """The parts of the request's body, as they come; None of them after the client has gone."""
    parts = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        parts.append(message["body"])
        more = message["more_body"]
    return parts


def answering(call: Callable[..., Any]) -> Any:
    """An ASGI application whose response is what `call(scope)` gives, as text."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        await respond(send, str(call(scope)).encode())

    return app
