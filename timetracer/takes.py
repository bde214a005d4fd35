"""Which file a request's cassette is: the same request again in one run is another take.

    GET__users.json, GET__users.2.json, GET__users.3.json

The data may have changed between two equal requests, so replay serves the takes in order and then
repeats the last. The processes of a run claim takes from each other and never share one. Takes of
an earlier run go only once their request is recorded again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from timetracer import document, runs
from timetracer.errors import CassetteError, CassetteFormatError
from timetracer.model import RequestRecord
from timetracer.naming import parse_take, take_name
from timetracer.stores import Store, split_suffix, write_alone

_RECORD = "take"
_REPLAY = "replay"

_reached: dict[tuple[str, str, str], int] = {}
"""The last take that this process claimed, by run, kind and stem: the next begins behind it."""

_served: dict[tuple[str, str, str], int] = {}
"""How many takes this process has tried to serve, by run, stem and first take."""


def claim_take(store: Store, stem: str, suffix: str) -> str:
    """Return the name of this run's next take, claimed for the caller."""
    return take_name(stem, claim_next(_RECORD, store, stem), suffix)


def claim_next(kind: str, store: Store, stem: str, first: int = 1) -> int:
    """Return the number of this run's next take, claimed for the caller.

    Args:
        kind: what it is of; takes of two kinds do not meet.
        store: where the takes lie.
        stem: their common name.
        first: the least number that it may have.
    """
    place = _place(store, stem)
    counted = (runs.run_label(), kind, place)
    take = max(first, _reached.get(counted, 0) + 1)
    while not runs.claim(kind, take_name(place, take, "")):
        take += 1
    _reached[counted] = take
    return take


def write_take(store: Store, name: str, chunks: Any) -> None:
    """Write a claimed take; with the first one of a run, the takes of earlier runs go."""
    write_alone(store, name, chunks)
    stem, take, _ = parse_take(name) or (name, 0, "")
    if take != 1:
        return
    for other, number in _takes(store, stem):
        claimed = take_name(_place(store, stem), number, "")
        if number > 1 and runs.claim(_RECORD, claimed):
            store.remove(other)
            runs.release(_RECORD, claimed)


def choose_take(
    store: Store, stem: str, request: RequestRecord, *, earlier_runs_only: bool = False
) -> tuple[str, bytes] | None:
    """Return name and bytes of the take that answers a request, or None where there is none.

    Takes whose request had an equal body come before all others; of those, the first that no
    request of this run has had yet, else the last.

    Args:
        store: where the takes lie.
        stem: their common name.
        request: the request.
        earlier_runs_only: whether takes that this run recorded do not count: since then, the
            data may have changed.

    Raises:
        CassetteFormatError: the file belongs to another request.
    """
    names = [name for name, _ in _takes(store, stem)]
    if earlier_runs_only:
        names = [name for name in names if _facts(store, name).run != runs.run_label()]
    if len(names) > 1:
        equal = [name for name in names if _facts(store, name).body_hash == request.body_hash]
        names = equal or names
    if not names:
        return None
    name = _next_unserved(store, stem, names)
    data = store.read(name)
    where = store.locate(name)
    _check_request(document.header_of(data, where), request, where)
    return name, data


def _next_unserved(store: Store, stem: str, names: list[str]) -> str:
    counted = (runs.run_label(), store.locate(stem), names[0])
    for position in range(_served.get(counted, 0), len(names)):
        _served[counted] = position + 1
        if runs.claim(_REPLAY, store.locate(names[position])):
            return names[position]
    return names[-1]


def _takes(store: Store, stem: str) -> list[tuple[str, int]]:
    newest: dict[int, str] = {}
    for name in store.names(stem):
        parsed = parse_take(name)
        if parsed is None or parsed[0] != stem:
            continue
        twin = newest.get(parsed[1])
        if twin is None or store.modified(name) >= store.modified(twin):
            newest[parsed[1]] = name
    return [(newest[number], number) for number in sorted(newest)]


def _place(store: Store, stem: str) -> str:
    return store.locate(split_suffix(stem)[0])


@dataclass(frozen=True, slots=True)
class _Facts:
    run: str
    body_hash: str


_known: dict[tuple[str, float], _Facts] = {}
_MOST_KNOWN = 10_000


def _facts(store: Store, name: str) -> _Facts:
    version = (store.locate(name), store.modified(name))
    if version not in _known:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[version] = _read_facts(store, name)
    return _known[version]


def _read_facts(store: Store, name: str) -> _Facts:
    try:
        header = document.header_of(store.read(name), store.locate(name))
    except CassetteError:
        return _Facts("", "")  # the error comes when the take is used
    request, session = header.get("request") or {}, header.get("session") or {}
    return _Facts(str(session.get("run") or ""), str(request.get("body_hash") or ""))


def _check_request(header: Mapping[str, Any], request: RequestRecord, path: str) -> None:
    recorded = header.get("request") or {}
    named = (recorded.get("method"), recorded.get("path"))
    if recorded and named != (request.method, request.path) and "redacted" not in str(named):
        raise CassetteFormatError(
            f"{path} holds the request {named[0]} {named[1]}, not {request.method} "
            f"{request.path}. Rename it, or name it in TIMETRACER_CASSETTE to use it for every "
            "request.",
            path=path,
        )
