"""The facts that travel through Timetracer: what was called, what came of it, in which request.

Facts are frozen; only a cassette and a session change. JSON values here are what the codec made of
BSON: plain Python objects that orjson writes as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Json = Any
"""A JSON-ready value: dict, list, str, int, float, bool or None (see `timetracer.codec`)."""

EVENT_TYPE = "db.query"


@dataclass(frozen=True, slots=True)
class Signature:
    """What identifies a call in a cassette (the seed format's `signature`).

    Attributes:
        lib: "pymongo" or "motor".
        method: the operation, such as "FIND_ONE".
        url: "{database}.{collection}", "{database}" or "*" for a client's call.
        filter_keys: the filter's keys, sorted.
        body_hash: hash of all that changes the answer, the same in every recording.
    """

    lib: str
    method: str
    url: str
    filter_keys: tuple[str, ...] = ()
    body_hash: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a driver method, as it was made, before the driver saw it.

    Attributes:
        lib: "pymongo" or "motor".
        method: the operation, such as "FIND_ONE".
        url: the namespace, as in `Signature`.
        arguments: the arguments that change the answer, by name; a snapshot is in `key`.
        key: the arguments as BSON bytes, or as JSON bytes where BSON cannot hold them.
        ends: what of the transaction that it ends: while recording, the numbers of the events of
            its operations; in replay, the events that answered them.
    """

    lib: str
    method: str
    url: str
    arguments: dict[str, Any] = field(repr=False)
    key: bytes = field(repr=False)
    ends: tuple[Any, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """The HTTP request that a cassette belongs to, as it is written.

    Attributes:
        method: "GET", ...
        path: the path with its leading slash, not decoded further than the server did.
        query: the raw query string, without "?".
        headers: pairs of lower-case name and value, in order.
        body: the body as JSON-ready value (parsed JSON or form), text, or None.
        body_hash: blake2b of the raw body, in hex; "" for no body.
        route: the framework's route template, such as "/users/<id>", where known.
    """

    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: Json = None
    body_hash: str = ""
    route: str | None = None


@dataclass(frozen=True, slots=True)
class ResponseRecord:
    """The HTTP response that was given, as it is written.

    Attributes:
        status: status code.
        headers: pairs of lower-case name and value, in order.
        body: the body as JSON-ready value, text, or None where it was not kept.
        duration_ms: time from the request's start to the response's end, in milliseconds.
        error: the class name of an exception that left the application, or None.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: Json = None
    duration_ms: float = 0.0
    error: str | None = None
