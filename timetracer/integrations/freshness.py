"""How old a cassette is, and what becomes of one that is too old: `timetracer_expire = 90d fail`.

    warn      the summary lists it
    fail      so does the test fail whose cassette it is
    record    it is recorded again in a mode that records, where its database can be reached

A cassette is as old as its oldest events. One that was recorded again and is the same in meaning
stays as it was; then `session.confirmed_at` in its header says when that was found, and its age
counts from there.
"""

from __future__ import annotations

import functools
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from timetracer import document, frozen_time
from timetracer.codec import from_json
from timetracer.errors import CassetteError, ConfigError
from timetracer.integrations.pytest_names import EXPIRE
from timetracer.stores import find_latest
from timetracer.stores.files import FileStore

HOURS = {"h": 1, "d": 24, "w": 7 * 24}
ACTIONS = ("warn", "fail", "record")

_FORM = re.compile(r"([0-9]{1,6}) *([a-z]+)(?:[ ,]+([a-z]+))?")
_NAMES = {"h": "hours", "d": "days", "w": "weeks"}
_CONNECT_SECONDS = 1.0
_DAY = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Expiry:
    """When a cassette is too old, and what becomes of it then.

    Attributes:
        seconds: the age from which on it is.
        action: a row of `ACTIONS`.
        text: the age as it was written, such as "90 days".
    """

    seconds: float
    action: str
    text: str

    @classmethod
    def parse(cls, text: str) -> Expiry | None:
        """Return what a setting says, None for nothing.

        Args:
            text: a number with h, d or w, and perhaps an action: "90d", "2w fail".

        Raises:
            ConfigError: it says something else.
        """
        said = text.strip().lower()
        if not said:
            return None
        form = _FORM.fullmatch(said)
        unit, action = (form[2], form[3] or "warn") if form else ("", "")
        if form is None or unit not in HOURS or action not in ACTIONS or not int(form[1]):
            raise ConfigError(
                f"{EXPIRE} cannot be {text!r}. It is a number with h, d or w (hours, days, "
                f"weeks), and perhaps one of {', '.join(ACTIONS)}: 90d, 90d fail, 12w record.",
                setting=EXPIRE,
                source="ini",
            )
        return cls(int(form[1]) * HOURS[unit] * 3600.0, action, f"{form[1]} {_NAMES[unit]}")

    def is_over(self, header: Mapping[str, Any]) -> bool:
        """Tell whether a cassette is too old."""
        return age(header) >= self.seconds

    def is_half_over(self, header: Mapping[str, Any]) -> bool:
        """Tell whether it is worth a change of the file to say that the cassette still holds."""
        return age(header) >= self.seconds / 2


@dataclass(frozen=True, slots=True)
class Stale:
    """A cassette that is too old.

    Attributes:
        where: its path.
        node: the test or fixture.
        days: its age.
        unreached: the address at which no database was found to record it again; "" where that
            was not tried.
    """

    where: str
    node: str
    days: int
    unreached: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.days} days old, of {self.node}"


def age(header: Mapping[str, Any]) -> float:
    """Return the age of a cassette, in seconds; 0 where it does not tell."""
    session = header.get("session") or {}
    parts = [one.get("recorded_at") for one in session.get("processes") or ()]
    oldest = min(filter(None, map(_seconds, parts or [session.get("recorded_at")])), default=0.0)
    since = max(oldest, _seconds(session.get("confirmed_at")))
    return frozen_time.now() - since if since else 0.0


def days(header: Mapping[str, Any]) -> int:
    """Return the age of a cassette in whole days."""
    return int(age(header) / _DAY)


def _seconds(text: Any) -> float:
    try:
        told = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return 0.0
    return (told if told.tzinfo else told.replace(tzinfo=timezone.utc)).timestamp()


def header_at(where: str) -> dict[str, Any] | None:
    """Return what a cassette says of itself; None where there is none, or none that can be read.

    Args:
        where: its path, without the suffix.
    """
    try:
        store, stem = FileStore.for_path(where)
        name = find_latest(store, stem)
        return document.header_of(store.read(name), store.locate(name)) if name else None
    except CassetteError:
        return None


def confirmed(data: bytes, path: str, by: Mapping[str, Any]) -> bytes:
    """Return a cassette's bytes with a header that says when it was last found to hold.

    Args:
        data: the bytes.
        path: where they came from, for errors.
        by: the header's "session" of the recording that says the same.

    Raises:
        CassetteFormatError: the bytes are no cassette.
    """
    told = {"confirmed_at": by.get("recorded_at"), "confirmed_run": by.get("run")}
    return document.with_session(data, path, told)


def unreached(header: Mapping[str, Any]) -> str:
    """Return the addresses of a cassette's database if none of them takes a connection, else "".

    Args:
        header: the cassette's header, which knows the servers of its clients.
    """
    known = list(_addresses((header.get("session") or {}).get("topologies") or {}))
    if any(_takes_connections(*address) for address in known):
        return ""
    return ", ".join(dict.fromkeys(f"{host}:{port}" for host, port in known)) or "no known address"


def _addresses(topologies: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for seeds, servers in topologies.items():
        for seed in seeds.split(","):
            host, _, port = seed.rpartition(":")
            if port.isdigit():
                yield host, int(port)
        for server in servers or ():
            host, port = from_json(server["address"])
            if port is not None:
                yield str(host), int(port)


@functools.cache
def _takes_connections(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), _CONNECT_SECONDS).close()
    except Exception:  # also what a plugin raises that keeps tests from the network
        return False
    return True
