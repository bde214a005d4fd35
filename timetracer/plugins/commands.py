"""Commands: what a client's command listeners are told in a call, kept and told again.

    {"told": "started", "command": {...}, "database_name": "shop", "request_id": 7, ...}
    {"told": "succeeded", "reply": {...}, "answer": "cursor.firstBatch", "duration": 812, ...}

All that the driver tells them passes `_EventListeners`, sync, async and Motor's. There a recording
keeps the arguments, and a replay calls the same methods of the client's own listeners with them.
Nothing is done for a client that has no command listeners.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any

from pymongo import monitoring
from pymongo.errors import PyMongoError
from pymongo.helpers_shared import _SENSITIVE_COMMANDS

from timetracer.codec import from_json, to_json
from timetracer.driver import Exchange, GuardRow
from timetracer.model import Json
from timetracer.session import CURRENT, Session

_PUBLISHERS = {
    "started": "publish_command_start",
    "succeeded": "publish_command_success",
    "failed": "publish_command_failure",
}
_TOLD = {publisher: told for told, publisher in _PUBLISHERS.items()}
_LISTENERS = "pymongo.monitoring:_EventListeners"

COMMANDS = "commands"
"""Where an event's `result` has them."""

_MICROSECOND = timedelta(microseconds=1)
_SENSITIVE = frozenset(_SENSITIVE_COMMANDS)

CLOSING = -1
"""The step in which a cursor is closed before its end."""


def listeners_of(client: Any) -> Any:
    """Return what tells a client's command listeners, None where it has none."""
    listeners = client._event_listeners
    if listeners is None:  # its hosts are not looked up yet
        listeners = client.options.pool_options._event_listeners
    return listeners if listeners.enabled_for_commands else None


# ------------------------------------------------------------------------------- recording


@dataclass(slots=True)
class Hearing:
    """What a client's listeners are told while one call, or one step of a cursor, is under way.

    Attributes:
        session: the session that records it; calls that a listener makes are its events, too.
        listeners: what tells them.
        answer: dotted path of what the event holds anyway in the last reply, "." for all of it; ""
            for nothing.
        told: what they were told, as JSON.
        apart: the last reply's value at that path, and the place in `told` where it is missing.
    """

    session: Session
    listeners: Any
    answer: str = ""
    told: list[dict[str, Json]] = field(default_factory=list)
    apart: tuple[int, Any] | None = None

    def note(self, publisher: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note what they are told now; the driver may change a command or a reply later."""
        given = {**dict(zip(_parameters(publisher), args, strict=False)), **kwargs}
        if "command" in given:
            given["command"] = _without_secrets(given["command"])
        elif str(given["command_name"]).lower() in _SENSITIVE or given.get("speculative_hello"):
            given.update({name: {} for name in ("reply", "failure") if name in given})
        if "reply" in given and self.answer:
            self._take_apart(given)
        entry: dict[str, Json] = {"told": _TOLD[publisher]}
        entry.update((key, _to_json(value)) for key, value in given.items() if value is not None)
        self.told.append(entry)

    def _take_apart(self, given: dict[str, Any]) -> None:
        self._put_together()
        try:
            given["reply"], held = _parted(given["reply"], self.answer)
        except (LookupError, TypeError, ValueError):
            return
        self.apart = len(self.told), held

    def _put_together(self) -> None:
        if self.apart is not None:
            (number, held), self.apart = self.apart, None
            entry = self.told[number]
            entry["reply"] = _put(entry["reply"], self.answer, to_json(held))

    def kept(self, *, known: bool = False, step: int = 0) -> list[Json]:
        """Return what they were told as JSON, and forget it.

        Args:
            known: whether the event holds the answer indeed.
            step: how many replies of the cursor came before, `CLOSING` for its end.
        """
        if known and self.apart is not None:
            self.told[self.apart[0]]["answer"] = self.answer
            self.apart = None
        self._put_together()
        told, self.told = self.told, []
        return [{**entry, "step": step} for entry in told] if step else list(told)

    def during(self, exchange: Exchange, function: Callable[[], Any]) -> Any:
        """Call a function that reads on in a cursor, or closes it, and listen."""
        exchange.hearing = self
        token = CURRENT.set(exchange)
        try:
            return function()
        finally:
            CURRENT.reset(token)

    async def during_async(self, exchange: Exchange, function: Callable[[], Any]) -> Any:
        """Do the same for a coroutine function."""
        exchange.hearing = self
        token = CURRENT.set(exchange)
        try:
            return await function()
        finally:
            CURRENT.reset(token)


def hearing_of(client: Any, session: Session, answer: str = "") -> Hearing | None:
    """Return what hears a client's listeners, None where it has none; see `Hearing`."""
    listeners = listeners_of(client)
    return None if listeners is None else Hearing(session, listeners, answer)


def _without_secrets(command: Any) -> Any:
    """Return a command as listeners see it: of one that logs in, its name alone."""
    name = next(iter(command))
    return {name: command[name]} if name.lower() in _SENSITIVE else command


def _to_json(value: Any) -> Json:
    return value // _MICROSECOND if isinstance(value, timedelta) else to_json(value)


def _parted(reply: Any, path: str) -> tuple[Any, Any]:
    """Return a reply without its value at a path, and the value."""
    if path == ".":
        return {}, reply
    held = reply
    for step in path.split("."):
        held = held[_key(held, step)]
    return _put(reply, path, None), held


def _put(holder: Any, path: str, value: Any) -> Any:
    """Return a copy of a document or a list with another value at a path."""
    if path == ".":
        return value
    name, _, rest = path.partition(".")
    changed: Any = list(holder) if isinstance(holder, list) else dict(holder)
    key = _key(holder, name)
    changed[key] = _put(holder[key], rest, value) if rest else value
    return changed


def _key(holder: Any, step: str) -> Any:
    return int(step) if isinstance(holder, list) else step


def hear(wrapped: Any, listeners: Any, args: Any, kwargs: Any) -> Any:
    """A method of `_EventListeners` that tells them: noted for the call that is under way."""
    exchange = CURRENT.get()
    hearing = exchange.hearing if type(exchange) is Exchange else None
    if hearing is None or hearing.listeners is not listeners:
        return wrapped(*args, **kwargs)
    try:
        hearing.note(wrapped.__name__, args, kwargs)
    except Exception as error:
        hearing.session.failed("keep the commands of", error)
    token = CURRENT.set(hearing.session)
    try:
        return wrapped(*args, **kwargs)
    finally:
        CURRENT.reset(token)


GUARDS = tuple(GuardRow(_LISTENERS, publisher, hear) for publisher in _TOLD)


@cache
def _parameters(publisher: str) -> dict[str, Any]:
    """Return the parameters of a method of `_EventListeners`, in order, with their defaults."""
    function = getattr(monitoring._EventListeners, publisher)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return {one.name: None if one.default is one.empty else one.default for one in parameters}


# ------------------------------------------------------------------------------- replaying


@dataclass(frozen=True, slots=True)
class Live:
    """What is live in what listeners are told again.

    Attributes:
        answer: makes the part of the last reply that the event holds as its answer.
        client: the client that makes the call.
        session: the ClientSession of the call or of its cursor; None for one that the driver takes
            for this call alone.
        cursor: the number of the replayed cursor, 0 for none.
    """

    answer: Callable[[], Any]
    client: Any
    session: Any = None
    cursor: int = 0


def tell(session: Session, listeners: Any, kept: Iterable[Json], live: Live) -> None:
    """Tell a client's listeners again what they were told.

    Args:
        session: the session that is replayed.
        listeners: what tells them.
        kept: what `Hearing.kept` made, in order; it is used up.
        live: what takes the place of recorded values.
    """
    for entry in kept:
        try:
            publisher, given = _PUBLISHERS[entry["told"]], _given(entry, live)
        except Exception as error:
            session.failed("tell the listeners of", error)
            return
        getattr(listeners, publisher)(**given)


def _given(entry: dict[str, Json], live: Live) -> dict[str, Any]:
    parameters = _parameters(_PUBLISHERS[entry["told"]])
    given = {name: from_json(value) for name, value in entry.items() if name in parameters}
    if "duration" in given:
        given["duration"] *= _MICROSECOND
    command, reply, path = given.get("command"), given.get("reply"), entry.get("answer")
    if path:
        given["reply"] = reply = _put(reply, path, live.answer())
    if isinstance(command, dict) and "lsid" in command:
        with suppress(PyMongoError):  # its session has ended by now: it is as recorded
            command["lsid"] = _session_id(live) or command["lsid"]
    if live.cursor:
        _renumber(command or {}, reply or {}, live.cursor)
    return {**parameters, **given}


def _session_id(live: Live) -> Any:
    """Return the id of the live session; of the driver's own, that which it would use next."""
    if live.session is not None:
        return live.session.session_id
    taken = live.client._ensure_session(None)
    if taken is None or not taken._implicit:
        return taken and taken.session_id
    try:
        return taken.session_id
    finally:
        live.client._return_server_session(taken._server_session)
        taken._server_session = None


def _renumber(command: dict[str, Any], reply: Any, number: int) -> None:
    """Put the number of a replayed cursor where commands and replies have that of the live one."""
    if "getMore" in command:
        command["getMore"] = type(command["getMore"])(number)
    if "killCursors" in command:
        command["cursors"] = [type(one)(number) for one in command["cursors"]]
    if isinstance(reply, dict):
        if reply.get("cursorsKilled"):
            reply["cursorsKilled"] = [type(one)(number) for one in reply["cursorsKilled"]]
        cursor = reply.get("cursor")
        if isinstance(cursor, Mapping) and cursor.get("id"):
            reply["cursor"] = {**cursor, "id": type(cursor["id"])(number)}


def of_step(result: dict[str, Any], step: int) -> list[Json]:
    """Return what was told in one step of a cursor, of an event's `result`."""
    return [entry for entry in result.get(COMMANDS) or () if entry.get("step", 0) == step]
