"""Single calls, of each driver: passed through, recorded, replayed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from pymongo import MongoClient

from benchmarks.data import order
from benchmarks.drivers import DATABASE, DOCUMENTS, NOWHERE, Driver, Orders, fill, opened
from benchmarks.measure import Block, Contender, Costs, Row, in_turn, micro, ratio
from timetracer import TraceConfig, use_cassette
from timetracer.model import RequestRecord
from timetracer.opening import open_request

Make: TypeAlias = Callable[[], Block]
"""Prepares the calls of a round."""


def _finds(orders: Orders, calls: int) -> Block:
    wanted = [{"_id": order(number % DOCUMENTS)["_id"]} for number in range(calls)]
    return orders.each("find_one", wanted)


def _inserts(orders: Orders, collection: Any, calls: int) -> Block:
    documents = [order(number) for number in range(calls)]
    for document in documents:
        del document["_id"]
    collection.drop()
    return orders.each("insert_one", documents)


def _live(make: Make) -> Contender:
    @contextmanager
    def contender() -> Iterator[Block]:
        yield make()

    return contender


# ------------------------------------------------------------------------------- pass-through


def pass_through(driver: Driver, calls: int, rounds: int) -> list[Row]:
    """Return what a wrapped method costs while nothing is recorded or replayed.

    `find_one` is replaced by a function that does nothing, so that the wrapper is all there is.

    Args:
        driver: whose `find_one`.
        calls: calls in a round.
        rounds: rounds that count.
    """
    with driver.idle(), opened(driver, NOWHERE) as orders:
        made = orders.each("find_one", [{"_id": 1}] * calls)
        wrapped, plain = in_turn([_enabled(driver, made), _live(lambda: made)], rounds)
    pairs = zip(wrapped.cpu, plain.cpu, strict=True)
    added = median((one - other) / calls for one, other in pairs)
    other = f"unwrapped {micro(median(plain.cpu) / calls)}"
    name = f"{driver.label}pass-through, added to a call"
    return [Row(name, micro(added), other, added * 1e6, "<= 1 us")]


def _enabled(driver: Driver, block: Block) -> Contender:
    @contextmanager
    def contender() -> Iterator[Block]:
        with driver.enabled():
            yield block

    return contender


# ------------------------------------------------------------------------------- recording


def recording(driver: Driver, uri: str, calls: int, rounds: int) -> list[Row]:
    """Return what recording adds to live calls.

    Args:
        driver: whose calls.
        uri: the server.
        calls: calls in a round.
        rounds: rounds that count.
    """
    with MongoClient(uri) as keeper, opened(driver, uri) as orders:
        collection = fill(keeper)
        inserts = max(1, calls // 4)  # some servers insert ever more slowly
        rows = [
            *_recorded(driver, "find_one", lambda: _finds(orders, calls), calls, rounds),
            *_recorded(
                driver, "insert_one", lambda: _inserts(orders, collection, inserts), inserts, rounds
            ),
        ]
        keeper.drop_database(DATABASE)
    return rows


def _recorded(driver: Driver, method: str, make: Make, calls: int, rounds: int) -> list[Row]:
    live, recorded, written = in_turn(
        [
            _live(make),
            _recording(driver, make, finish=False),
            _recording(driver, make, finish=True),
        ],
        rounds,
    )

    def row(what: str, ours: tuple[float, ...], live: tuple[float, ...], aim: str = "") -> Row:
        name = f"{driver.label}record {method}, {what}"
        times = micro(median(ours) / calls), micro(median(live) / calls)
        return Row(name, times[0], f"live {times[1]}", ratio(ours, live), aim)

    return [
        row("elapsed", recorded.wall, live.wall, "<= 1.05x"),
        row("client's CPU", recorded.cpu, live.cpu, "<= 1.05x"),
        row("elapsed, with the file", written.wall, live.wall),
    ]


def _recording(driver: Driver, make: Make, *, finish: bool) -> Contender:
    @contextmanager
    def contender() -> Iterator[Block]:
        with driver.enabled(), tempfile.TemporaryDirectory() as directory:
            config = TraceConfig(mode="record", cassette_dir=directory).resolve()
            session = open_request(config, RequestRecord("GET", "/orders"))
            assert session is not None
            calls = make()
            with session.entered():
                yield (lambda: (calls(), session.finish())) if finish else calls

    return contender


# ------------------------------------------------------------------------------- replay


def replayed_find_one(driver: Driver, uri: str, calls: int, rounds: int) -> list[Row]:
    """Return what a replayed find_one by `_id` costs, beside a live one and a mock's.

    Args:
        driver: whose `find_one`.
        uri: the server.
        calls: calls in a round, and events in the cassette.
        rounds: rounds that count.
    """
    with (
        tempfile.TemporaryDirectory() as directory,
        MongoClient(uri) as keeper,
        opened(driver, uri) as orders,
    ):
        path = Path(directory, "orders.json")
        fill(keeper)
        with driver.enabled(), use_cassette(path, mode="record"):
            _finds(orders, calls)()
        live, first, again, *mocks = in_turn(
            [
                _live(lambda: _finds(orders, calls)),
                _replaying(driver, path, calls, repeats=False),
                _replaying(driver, path, calls, repeats=True),
                *_mocks(driver, calls),
            ],
            rounds,
        )
        keeper.drop_database(DATABASE)
    others = [("live, CPU", live, ""), *((_MOCK, mock, ">= 3x faster") for mock in mocks)]

    def row(what: str, ours: Costs, other: str, theirs: Costs, clock: str, aim: str) -> Row:
        mine, their = getattr(ours, clock), getattr(theirs, clock)
        name = f"{driver.label}replayed find_one by _id{what}"
        shown = f"{other} {micro(median(their) / calls)}"
        return Row(name, micro(median(mine) / calls), shown, ratio(their, mine), aim)

    return [
        row(", elapsed", first, "live", live, "wall", ">= 10x faster"),
        *(row("", first, other, theirs, "cpu", aim) for other, theirs, aim in others),
        *(row(", repeated", again, other, theirs, "cpu", aim) for other, theirs, aim in others),
    ]


_MOCK = f"mongomock, {DOCUMENTS} documents,"


def _mocks(driver: Driver, calls: int) -> list[Contender]:
    mock = driver.mock
    return [] if mock is None else [_live(lambda: _finds(Orders(fill(mock())), calls))]


def _replaying(driver: Driver, path: Path, calls: int, *, repeats: bool) -> Contender:
    @contextmanager
    def contender() -> Iterator[Block]:
        with (
            driver.enabled(),
            opened(driver, NOWHERE) as orders,
            use_cassette(path, mode="replay", config=TraceConfig(allow_repeats=repeats)),
        ):
            finds = _finds(orders, calls)
            if repeats:
                finds()
            yield finds

    return contender
