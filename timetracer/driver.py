"""What a driver's tables are made of: which class, which method, how its answer is kept.

A new driver method is one `MethodRow`; a new way to keep an answer is one `Reply`. The rows name
classes as "module:Class", so that a table can be read without importing a driver.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from timetracer.model import Call, Json


class Outcome(Protocol):
    """What came of a recorded call: a snapshot, rendered to JSON later and off the call's path.

    Attributes:
        reached_server: whether a server took part, also when it answered with an error.
        open: whether more may still be added, such as further batches of a cursor.
        extras: what the plugin keeps in the event's `result` beside the answer.
    """

    reached_server: bool
    open: bool
    extras: dict[str, Json]

    def to_json(self) -> dict[str, Json]:
        """Return the event's `result` as it is written to the cassette."""


class RecordedResult(Protocol):
    """The result of an event of a loaded cassette, parsed when it is asked for."""

    eid: int
    used: bool

    def between(self, one: int, other: int) -> Sequence[RecordedResult]:
        """Return the events of its cassette after number `one`, up to number `other`."""

    def result(self) -> dict[str, Any]:
        """Return the event's `result`, a fresh JSON value with placeholders filled in."""

    def cached(self, make: Callable[[dict[str, Any]], Any]) -> Any:
        """Return `make(result)`, made once for the event and kept; never to be altered."""


@dataclass(slots=True)
class Exchange:
    """One driver call under way: what the reply of its row may look at.

    Attributes:
        row: the row of the method.
        call: the facts that identify the call.
        instance: the driver object whose method was called.
        arguments: the arguments by parameter name, as the caller gave them.
        payload: the last reply of the server, as BSON bytes; None where none was seen.
        sealed: whether replies are ciphertext, of automatic encryption, and not to be kept.
        lacking_id: caller's documents that had no `_id` before the call.
        client: the client that makes the call; known once it is made.
        eid: the number of its event while it is recorded, 0 where it is not.
        hearing: what hears the client's command listeners, None where it has none.
    """

    row: MethodRow
    call: Call
    instance: Any
    arguments: dict[str, Any]
    payload: bytes | None = None
    sealed: bool = False
    lacking_id: tuple[Any, ...] = ()
    client: Any = None
    eid: int = 0
    hearing: Any = None


class Reply(Protocol):
    """How the answer of a method is kept when recording and given back in replay."""

    def keep(self, exchange: Exchange, result: Any) -> Outcome:
        """Take a snapshot of a result; quick, since it runs within the program's call."""

    def give(self, exchange: Exchange, event: RecordedResult) -> Any:
        """Return the recorded result as the driver would, type for type."""


@dataclass(frozen=True, slots=True)
class MethodRow:
    """One public driver method that reaches the server.

    Attributes:
        owner: the class, as "module:Class".
        name: the method's name.
        method: the operation in signatures, such as "FIND_ONE".
        reply: how its answer is kept.
        scope: what `url` is made of: "collection", "database", "client", "session" or "stream".
        reads: whether the call leaves the data as they are.
        documents: the argument that holds documents which get an `_id`, or "".
        rest: class whose parameters take further positional arguments (`find_one(*args)`), or "".
        raw: dotted path of the answer in the server's reply, "" where the result itself is kept.
        optional: whether the oldest supported driver lacks the method.
        awaits: whether the method is a coroutine function.
    """

    owner: str
    name: str
    method: str
    reply: Reply
    scope: str = "collection"
    reads: bool = False
    documents: str = ""
    rest: str = ""
    raw: str = ""
    optional: bool = False
    awaits: bool = False

    def on(self, owner: str, *, awaits: bool) -> MethodRow:
        """Return the same row for another class, such as the async twin."""
        return replace(self, owner=owner, awaits=awaits)


@dataclass(frozen=True, slots=True)
class GuardRow:
    """One driver internal that is replaced while it must not run, or watched while it does.

    Attributes:
        owner: the class or module, as "module:Class" or "module".
        name: the attribute's name.
        wrapper: `wrapper(wrapped, instance, args, kwargs)`, as wrapt calls it.
        optional: whether some supported releases lack the attribute.
    """

    owner: str
    name: str
    wrapper: Callable[[Any, Any, Any, Any], Any]
    optional: bool = False
