"""A WSGI server's side of a request, and a driver call that needs no driver."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

import bson

from timetracer.model import Call
from timetracer.process import current
from timetracer.session import Session

Fetch = Callable[[], Any]


@dataclass(slots=True)
class Fetched:
    """The outcome of `driver_call`, as a plugin's reply would keep it."""

    value: Any
    open: bool = False
    reached_server: bool = True
    extras: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"status": 0, "body": {"captured": True, "data": self.value}}


def driver_call(key: Any, fetch: Fetch = lambda: "live") -> Any:
    """Do what a wrapped driver method does: answer from the session, or fetch and record.

    Args:
        key: what the call asks for.
        fetch: gives the live answer, a JSON value.
    """
    session = current()
    if type(session) is not Session:
        return fetch()
    arguments = {"filter": {"_id": key}}
    call = Call("pymongo", "FIND_ONE", "shop.things", arguments, bson.encode(arguments))
    event = session.answer(call, reads=True)
    if event is not None:
        return event.body()
    ticket = session.begin()
    value = fetch()
    session.record(call, Fetched(value), ticket)
    return value


@dataclass
class Response:
    """What a server got from an application."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    starts: int = 0
    result: Any = None

    def header(self, name: str) -> str | None:
        return next((v for n, v in self.headers if n.lower() == name), None)


def environ_of(
    method: str, path: str, body: bytes | None = None, **extra: Any
) -> dict[str, Any]:
    """The WSGI environment of a request.

    Args:
        method: "GET", ...
        path: the path, with query string.
        body: the request's body.
        extra: more keys, such as HTTP_ACCEPT.
    """
    path, _, query = path.partition("?")
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "wsgi.input": io.BytesIO(body or b""),
        "wsgi.errors": sys.stderr,
        "wsgi.url_scheme": "http",
        "wsgi.version": (1, 0),
    }
    if body is not None:
        environ["CONTENT_LENGTH"] = str(len(body))
    return {**environ, **extra}


def serve(
    app: Any,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    stop_after: int | None = None,
    **extra: Any,
) -> Response:
    """Serve one request as PEP 3333 says.

    Args:
        app: the WSGI application.
        method: "GET", ...
        path: the path, with query string.
        body: the request's body.
        stop_after: how many chunks the client reads before it goes away; None for all.
        extra: more keys of the environment.
    """
    response = Response()
    sent = False

    def write(data: bytes) -> None:
        nonlocal sent
        sent = sent or bool(data)
        response.body += data

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        if exc_info is not None and sent:
            raise exc_info[1].with_traceback(exc_info[2])
        assert exc_info is not None or not response.status, "start_response called twice"
        response.status, response.headers = int(status.split()[0]), list(headers)
        response.starts += 1
        return write

    result = response.result = app(environ_of(method, path, body, **extra), start_response)
    try:
        for number, chunk in enumerate(result):
            if number == stop_after:
                break
            assert response.status, "a chunk came before start_response"
            write(chunk)
    finally:
        if hasattr(result, "close"):
            result.close()
    return response


def plain(call: Callable[[dict[str, Any]], Any], status: str = "200 OK") -> Any:
    """A WSGI application whose response is what `call(environ)` gives, as text."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes] | list[bytes]:
        body = str(call(environ)).encode()
        start_response(status, [("Content-Type", "text/plain"), ("Content-Length", f"{len(body)}")])
        return [body]

    return app
