"""What was recorded is never lost: partial files, their recovery, and recordings kept beside.

    x.json.1a2b3c4d.partial      grows while x.json is recorded, one event a line
    x.json                       what becomes of it
    x.unaccepted-1a2b3c4d.json   what becomes of it where it may be worth less than x.json

A partial file begins with a line that says who writes it, and holds a line of what else the
document's header is to say wherever that changes. Its events are in order of their numbers but for
those that took longer or were open longer; only where these lie is kept in memory.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import orjson

from timetracer import document
from timetracer.codec import dumps
from timetracer.errors import CassetteError, CassettePathError, StrPath
from timetracer.model import Json
from timetracer.naming import parse_take
from timetracer.stores import PartialFile, Store, find_latest, split_suffix, write_alone
from timetracer.stores.files import FileStore

logger = logging.getLogger("timetracer")

_EVENT = b'{"eid": '
_PARTIAL_NAME = re.compile(r"(.+)\.([0-9a-f]{8})\.partial", re.DOTALL)
_BESIDE_STEM = re.compile(r"(.+)\.unaccepted-[0-9a-f]{8}", re.DOTALL)
_OMITTED = -1


def beside_name(name: str, session_id: str) -> str:
    """Return where a recording goes that is not to replace `name`: x.unaccepted-1a2b3c4d.json."""
    stem, suffix = split_suffix(name)
    return f"{stem}.unaccepted-{session_id[:8]}{suffix}"


# ------------------------------------------------------------------------------- the partial file


@dataclass(slots=True)
class Spool:
    """The events of a recording in its partial file, and the way to read them back in order.

    Attributes:
        file: the partial file.
        session: what the document's header is to say under "session".
        adds_to: whether the events go on in the cassette that is there.
        dropped: how many lines were damaged or cut off.
        count: how many events `lines` has yielded.
    """

    file: PartialFile
    session: dict[str, Json] = field(default_factory=dict)
    adds_to: bool = False
    dropped: int = 0
    count: int = 0
    _last: int = 0
    _apart: dict[int, int] = field(default_factory=dict)

    def write(self, lines: list[tuple[int, bytes | None]], session: dict[str, Json]) -> None:
        """Append the lines of events; a later line of an event stands for the earlier one.

        Args:
            lines: number and text of each; None for an event that is not to be kept.
            session: what the header is to say of the session from now on.

        Raises:
            CassetteWriteError: they could not be written; the file is as it was.
        """
        news = {key: value for key, value in session.items() if self.session.get(key) != value}
        texts = [dumps({"session": news})] if news else []
        texts += [line for _, line in lines if line is not None]
        offset = self.file.size + (len(texts[0]) + 1 if news else 0)
        self.file.write(b"".join(text + b"\n" for text in texts))
        self.session.update(orjson.loads(orjson.dumps(news)))
        for eid, line in lines:
            self._place(eid, offset if line is not None else _OMITTED)
            offset += len(line) + 1 if line is not None else 0

    def _place(self, eid: int, offset: int) -> None:
        if eid <= self._last:
            self._apart[eid] = offset
        elif offset != _OMITTED:
            self._last = eid

    @property
    def is_empty(self) -> bool:
        """Whether it holds no event."""
        return not self._last

    def lines(self, rest: Mapping[int, bytes] | None = None) -> Iterator[bytes]:
        """Yield the line of every event, in order of their numbers.

        Args:
            rest: further events, by number.
        """
        self.count = 0
        for line in self._merged(rest or {}):
            self.count += 1
            yield line

    def _merged(self, rest: Mapping[int, bytes]) -> Iterator[bytes]:
        apart: dict[int, int | bytes] = {**self._apart, **rest}
        waiting = iter(sorted(apart))
        following = next(waiting, None)
        for line in self.file.lines():
            eid = _eid(line)
            if eid is None:
                continue
            while following is not None and following <= eid:
                yield from self._line_at(apart[following])
                following = next(waiting, None)
            if eid not in apart:
                yield line
        while following is not None:
            yield from self._line_at(apart[following])
            following = next(waiting, None)

    def _line_at(self, place: int | bytes) -> Iterator[bytes]:
        if isinstance(place, bytes):
            yield place
        elif place != _OMITTED:
            yield next(self.file.lines(place))

    def scan(self) -> None:
        """Learn what an adopted file holds."""
        offset = 0
        for line in self.file.lines():
            eid = _eid(line)
            if eid is None:
                self._read_facts(line)
            elif eid <= self._last:
                self._apart[eid] = offset
            else:
                self._last = eid
            offset += len(line) + 1
        self.dropped += offset < self.file.size

    def _read_facts(self, line: bytes) -> None:
        try:
            facts = orjson.loads(line)
            self.session.update(facts["session"])
            self.adds_to = facts.get("adds_to", self.adds_to)
        except (ValueError, LookupError, TypeError, AttributeError):
            self.dropped += 1


def _eid(line: bytes) -> int | None:
    """Return the number of an event's line; None for any other line."""
    if not line.startswith(_EVENT) or not line.endswith(b"}}"):
        return None
    number = line[len(_EVENT) : line.find(b",")]
    return int(number) if number.isdigit() else None


def open_spool(
    store: Store, name: str, session_id: str, session: dict[str, Json], *, adds_to: bool
) -> Spool:
    """Open the partial file of a recording.

    Args:
        store: the cassette's store.
        name: the cassette's name.
        session_id: the session's id, in hex.
        session: what the header says of the session so far.
        adds_to: whether the events go on in the cassette that is there.

    Raises:
        CassetteWriteError: it cannot be written.
    """
    spool = Spool(store.open_partial(f"{name}.{session_id[:8]}.partial"), adds_to=adds_to)
    facts = {
        "partial": document.FORMAT,
        "schema_version": document.SCHEMA_VERSION,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "adds_to": adds_to,
        "session": session,
    }
    spool.file.write(dumps(facts) + b"\n")
    spool.session.update(orjson.loads(orjson.dumps(session)))
    return spool


# ------------------------------------------------------------------------------- recovery


Saved = Callable[[str, str], None]
"""Told the paths of a cassette and of what was recorded, which somebody is to compare."""


def recover(store: Store, stem: str, *, replace: bool = False, saved: Saved | None = None) -> None:
    """Make cassettes of the partial files that dead processes left of one program or block.

    A cassette that is there stays, and what was recovered is kept beside it. What fails is logged.

    Args:
        store: the cassettes' store.
        stem: the name of the cassette without suffix; that of its takes is included.
        replace: whether what is recovered may replace a cassette (`accept_interrupted`).
        saved: told of what was recovered, so that nothing need be logged of it.
    """
    try:
        left = [name for name in store.names(f"{stem}.") if _belongs(name, stem)]
        left.sort(key=store.modified, reverse=True)
    except CassetteError:
        return
    for name in left:
        try:
            file = store.adopt_partial(name)
            if file is not None:
                _recover(store, name, file, replace, saved)
        except CassetteError as error:
            logger.error("timetracer: %s was not recovered: %s", store.locate(name), error)


def _belongs(name: str, stem: str) -> bool:
    match = _PARTIAL_NAME.fullmatch(name)
    if match is None:
        return False
    taken = parse_take(match[1])
    return stem in (split_suffix(match[1])[0], taken[0] if taken else stem)


def _recover(
    store: Store, name: str, file: PartialFile, replace: bool, saved: Saved | None
) -> None:
    target, session_id = _PARTIAL_NAME.fullmatch(name).groups()  # type: ignore[union-attr]
    spool = Spool(file)
    try:
        spool.scan()
        if not spool.is_empty:
            _write(store, target, session_id, spool, replace, saved)
        file.discard()
    finally:
        file.close()


def _write(
    store: Store,
    target: str,
    session_id: str,
    spool: Spool,
    replace: bool,
    saved: Saved | None,
) -> None:
    there = find_latest(store, split_suffix(target)[0])
    header: dict[str, Any] = {}
    before: list[bytes] = []
    if there is not None and spool.adds_to:
        base = document.parse(store.read(there), store.locate(there))
        header, before = base.header, [event.line for event in base.events]
    session = {**(header.get("session") or {}), **spool.session, "recovered": True}
    chunks = document.render({**header, "session": session}, chain(before, spool.lines()))
    lost = " Its last event was cut off and is left out." if spool.dropped else ""
    beside = beside_name(target, session_id)
    if saved is not None:
        name = target if there is None else beside
        store.write(name, chunks)
        saved(store.locate(target), store.locate(name))
        return
    if there is None or replace:
        write_alone(store, target, chunks)
        logger.warning(
            "timetracer: %s was made of %d events that a killed process had recorded.%s",
            store.locate(target),
            spool.count,
            lost,
        )
        return
    store.write(beside, chunks)
    tell_beside(store, target, beside, "was cut short by the end of its process", lost)


def tell_beside(store: Store, name: str, beside: str, reason: str, more: str = "") -> None:
    """Log that a recording was kept beside a cassette, why, and how to accept it."""
    logger.warning(
        "timetracer: the recording %s, so %s stays as it was; what was recorded is in %s.%s\n"
        "To accept it: python -m timetracer accept %s",
        reason,
        store.locate(name),
        store.locate(beside),
        more,
        store.locate(beside),
    )


# ------------------------------------------------------------------------------- accepting


def accept(path: StrPath) -> str:
    """Let a recording that was kept beside a cassette take its place.

    Args:
        path: path of the recording, such as x.unaccepted-1a2b3c4d.json.

    Returns:
        The path of the cassette.

    Raises:
        CassetteError: the path is no such recording, or it cannot be read or moved.
    """
    store, name = FileStore.for_path(path)
    stem, suffix = split_suffix(name)
    match = _BESIDE_STEM.fullmatch(stem)
    if match is None or not suffix:
        raise CassettePathError(_not_beside(store, name), path=store.locate(name))
    data = store.read(name)
    document.parse(data, store.locate(name))
    target = match[1] + suffix
    write_alone(store, target, [data])
    store.remove(name)
    return store.locate(target)


def _not_beside(store: Store, name: str) -> str:
    stem, _ = split_suffix(name)
    there = [store.locate(one) for one in store.names(f"{stem}.unaccepted-")]
    hint = f"\nThere is: {', '.join(there)}" if there else ""
    return (
        f"{store.locate(name)} is not a recording that was kept beside a cassette.\n"
        f"Such a file is named x.unaccepted-1a2b3c4d.json; the log tells its path.{hint}"
    )
