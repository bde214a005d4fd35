"""Start-up calls that another cassette of the run holds: creating indexes, asking for the server.

A program makes them once, in whichever request or test comes first; replayed in another order, or
in part, it makes them where no cassette of its own has them. `AMBIENT` names the calls. The
session's cassette is asked first, then those beside it, the process's own before those of requests.
What depends on the data is answered only as long as the session has replayed no write.
"""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

from timetracer.bindings import RUN
from timetracer.cassette import Cassette, Event
from timetracer.codec import dumps
from timetracer.document import header_of
from timetracer.errors import CassetteError
from timetracer.matching import AMBIENT as LEVEL
from timetracer.matching import Match, key_to_json
from timetracer.model import Call, Json
from timetracer.shared_parts import texts
from timetracer.stores import split_suffix
from timetracer.stores.files import FileStore
from timetracer.surroundings import bare_name, worker
from timetracer.volatile import Token, replace

logger = logging.getLogger("timetracer")


@dataclass(frozen=True, slots=True)
class Ambient:
    """A kind of start-up call.

    Attributes:
        steady: whether its answer is the same however often it is made, and whatever the data.
        fits: tells which calls of the method are meant, by their arguments as JSON.
    """

    steady: bool = True
    fits: Callable[[Json], bool] = lambda arguments: True


_COMMANDS = frozenset({"ping", "hello", "ismaster", "buildinfo", "connectionstatus"})


def _asks_for_server(arguments: Json) -> bool:
    command = arguments.get("command")
    name = next(iter(command), "") if isinstance(command, dict) else command
    return str(name).lower() in _COMMANDS


_CREATE_INDEX = "CREATE_INDEX"

AMBIENT: dict[str, Ambient] = {
    _CREATE_INDEX: Ambient(),
    "CREATE_INDEXES": Ambient(),
    "SERVER_INFO": Ambient(),
    "COMMAND": Ambient(fits=_asks_for_server),
    "LIST_COLLECTIONS": Ambient(steady=False),
    "LIST_COLLECTION_NAMES": Ambient(steady=False),
    "LIST_INDEXES": Ambient(steady=False),
    "INDEX_INFORMATION": Ambient(steady=False),
}
"""Operation -> what is ambient of it."""


def is_ambient(call: Call) -> bool:
    """Tell whether a call is one that programs make as they start."""
    row = AMBIENT.get(call.method)
    return row is not None and row.fits(key_to_json(call.key))


def find(call: Call, cassette: Cassette | None, where: str) -> Match | None:
    """Return an event that answers a start-up call, None where no cassette has one.

    Args:
        call: a call that the session's own cassette has no unused event for.
        cassette: that cassette, None where there is none.
        where: its path, whether or not it is there.
    """
    row = AMBIENT.get(call.method)
    arguments = key_to_json(call.key) if row is not None else None
    if row is None or not row.fits(arguments):
        return None
    url = bare_name(call.url, worker())
    wanted = _text(call.method, url, arguments, _recorded)
    own = _own_answers(cassette).get(wanted, []) if cassette is not None else []
    if not row.steady and (RUN.wrote or own):
        return None
    if _is_made_otherwise(call, arguments):
        return None
    for events in (own, *_beside(where, wanted)):
        if events and _agree(events):
            return Match(events[-1], LEVEL)
    return None


def note(call: Call, reads: bool) -> None:
    """Note that a call was replayed: after one that writes, the data may be others, and once an
    index is made, none with the same keys can be made otherwise.

    Args:
        call: the call.
        reads: whether it only reads.
    """
    RUN.wrote = RUN.wrote or not (reads or is_ambient(call))
    if call.method == _CREATE_INDEX:
        arguments = key_to_json(call.key)
        made = RUN.indexes.setdefault(call.url, {})
        made.setdefault(dumps(arguments.get("keys")), dumps(arguments))


def _is_made_otherwise(call: Call, arguments: Json) -> bool:
    if call.method != _CREATE_INDEX:
        return False
    made = RUN.indexes.get(call.url, {}).get(dumps(arguments.get("keys")))
    return made is not None and made != dumps(arguments)


def forget() -> None:
    """Read directories anew, as a new process does."""
    _shelf.cache_clear()


def _agree(events: list[Event]) -> bool:
    """Tell whether all recorded answers to a call are the same."""
    first = events[0].result_text
    return all(event.result_text == first for event in events[1:])


_known: WeakKeyDictionary[Cassette, dict[str, list[Event]]] = WeakKeyDictionary()


def _own_answers(cassette: Cassette) -> dict[str, list[Event]]:
    if cassette not in _known:
        _known[cassette] = _answers(cassette.events)
    return _known[cassette]


def _answers(events: Iterable[Event]) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = {}
    for event in events:
        if event.method in AMBIENT and event.arguments_text is not None and not event.failed:
            url = bare_name(event.url, event.cassette.recorder)
            text = _text(event.method, url, event.arguments(), lambda token: None)
            found.setdefault(text, []).append(event)
    return found


def _text(method: str, url: str, arguments: Json, get: Callable[[Token], str | None]) -> str:
    return replace(f"{method} {url} {dumps(arguments).decode()}", get)


def _recorded(live: Token) -> str | None:
    known = RUN.pairs.recorded.get(live.key, ())
    return next(iter(known)) if len(known) == 1 else None


def _beside(where: str, wanted: str) -> Iterator[list[Event]]:
    for path, answers in _shelf(os.path.dirname(os.path.abspath(where))):
        if path != os.path.abspath(where) and wanted in answers:
            yield answers[wanted]


@functools.lru_cache(maxsize=64)
def _shelf(directory: str) -> list[tuple[str, dict[str, list[Event]]]]:
    """Return the start-up calls of a directory's cassettes, read once: those of processes first."""
    store = FileStore(Path(directory))
    shelf = []
    try:
        names = [name for name in store.names() if "/" not in name and split_suffix(name)[1]]
    except CassetteError:
        return []
    for name in names:
        try:
            data, path = store.read(name), store.locate(name)
            if not any(map(_HOLDS_SOME.search, texts(data, path))):
                continue
            of_request = "request" in header_of(data, path)
            answers = _answers(Cassette(data, path).events)
            shelf.append((of_request, os.path.abspath(path), answers))
        except CassetteError as error:
            logger.debug("timetracer: start-up calls are not looked for in %s: %s", name, error)
    return [(path, answers) for _, path, answers in sorted(shelf, key=lambda row: row[:2])]


_HOLDS_SOME = re.compile(rb'"method":\s*"(?:%b)"' % b"|".join(map(str.encode, AMBIENT)))
