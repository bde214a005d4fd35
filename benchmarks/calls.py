"""Single calls: passed through, recorded, replayed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import mongomock
from pymongo import MongoClient
from pymongo.collection import Collection

from benchmarks.data import order
from benchmarks.measure import Block, Contender, Row, in_turn, micro, ratio
from timetracer import TraceConfig, use_cassette
from timetracer.model import RequestRecord
from timetracer.plugins import disable_pymongo, enable_pymongo
from timetracer.session import open_request

DATABASE = "timetracer_benchmark"
DOCUMENTS = 10
NOWHERE = "mongodb://replay.invalid:27017"


@contextmanager
def enabled() -> Iterator[None]:
    """Have the plugin on within a block."""
    enable_pymongo()
    try:
        yield
    finally:
        disable_pymongo()


# ------------------------------------------------------------------------------- pass-through


def pass_through(calls: int, rounds: int) -> list[Row]:
    """Return what a wrapped method costs while nothing is recorded or replayed.

    `find_one` is replaced by a function that does nothing, so that the wrapper is all there is.

    Args:
        calls: calls in a round.
        rounds: rounds that count.
    """
    original = Collection.find_one
    Collection.find_one = _nothing  # type: ignore[assignment, method-assign]
    try:
        with enabled(), MongoClient(NOWHERE, connect=False) as client:
            wrapped, unwrapped = in_turn(
                [_same_find(client.shop.orders, calls), _same_find(_Unwrapped(), calls)], rounds
            )
    finally:
        Collection.find_one = original  # type: ignore[method-assign]
    pairs = zip(wrapped.cpu, unwrapped.cpu, strict=True)
    added = median((one - other) / calls for one, other in pairs)
    plain = f"unwrapped {micro(median(unwrapped.cpu) / calls)}"
    return [Row("pass-through, added to a call", micro(added), plain, added * 1e6, "<= 1 us")]


def _nothing(self: Any, filter: Any = None, *args: Any, **kwargs: Any) -> None:
    return None


class _Unwrapped:
    find_one = _nothing


def _same_find(target: Any, calls: int) -> Contender:
    wanted = {"_id": 1}

    def block() -> None:
        for _ in range(calls):
            target.find_one(wanted)

    @contextmanager
    def contender() -> Iterator[Block]:
        yield block

    return contender


# ------------------------------------------------------------------------------- recording


def recording(uri: str, calls: int, rounds: int) -> list[Row]:
    """Return what recording adds to live calls.

    Args:
        uri: the server.
        calls: calls in a round.
        rounds: rounds that count.
    """
    with MongoClient(uri) as client:
        collection = fill(client)
        rows = [
            *_recorded("find_one", lambda: _finds(collection, calls), calls, rounds),
            *_recorded("insert_one", lambda: _inserts(collection, calls), calls, rounds),
        ]
        client.drop_database(DATABASE)
    return rows


def fill(client: Any) -> Any:
    """Return a collection that holds the documents of the benchmarks."""
    collection = client[DATABASE].orders
    collection.drop()
    collection.insert_many([order(number) for number in range(DOCUMENTS)])
    return collection


def _finds(collection: Any, calls: int) -> Block:
    wanted = [{"_id": order(number % DOCUMENTS)["_id"]} for number in range(calls)]

    def block() -> None:
        for one in wanted:
            collection.find_one(one)

    return block


def _inserts(collection: Any, calls: int) -> Block:
    documents = [order(number) for number in range(calls)]
    for document in documents:
        del document["_id"]
    collection.drop()  # some servers insert ever more slowly into a collection that grows

    def block() -> None:
        for document in documents:
            collection.insert_one(document)

    return block


def _recorded(name: str, make: Any, calls: int, rounds: int) -> list[Row]:
    live, recorded, written = in_turn(
        [_live(make), _recording(make, finish=False), _recording(make, finish=True)], rounds
    )

    def row(what: str, ours: tuple[float, ...], live: tuple[float, ...], aim: str = "") -> Row:
        times = micro(median(ours) / calls), micro(median(live) / calls)
        return Row(f"record {name}, {what}", times[0], f"live {times[1]}", ratio(ours, live), aim)

    return [
        row("elapsed", recorded.wall, live.wall, "<= 1.05x"),
        row("client's CPU", recorded.cpu, live.cpu, "<= 1.05x"),
        row("elapsed, with the file", written.wall, live.wall),
    ]


def _live(make: Any) -> Contender:
    @contextmanager
    def contender() -> Iterator[Block]:
        yield make()

    return contender


def _recording(make: Any, *, finish: bool) -> Contender:
    @contextmanager
    def contender() -> Iterator[Block]:
        with enabled(), tempfile.TemporaryDirectory() as directory:
            config = TraceConfig(mode="record", cassette_dir=directory).resolve()
            session = open_request(config, RequestRecord("GET", "/orders"))
            assert session is not None
            calls = make()
            with session.entered():
                yield (lambda: (calls(), session.finish())) if finish else calls

    return contender


# ------------------------------------------------------------------------------- replay


def replayed_find_one(uri: str, calls: int, rounds: int) -> list[Row]:
    """Return what a replayed find_one by `_id` costs, beside a live one and mongomock's.

    Args:
        uri: the server.
        calls: calls in a round, and events in the cassette.
        rounds: rounds that count.
    """
    with tempfile.TemporaryDirectory() as directory, MongoClient(uri) as client:
        path = Path(directory, "orders.json")
        collection = fill(client)
        with enabled(), use_cassette(path, mode="record"):
            _finds(collection, calls)()
        live, mock, first, again = in_turn(
            [
                _live(lambda: _finds(collection, calls)),
                _live(lambda: _finds(fill(mongomock.MongoClient()), calls)),
                _replaying(path, calls, repeats=False),
                _replaying(path, calls, repeats=True),
            ],
            rounds,
        )
        client.drop_database(DATABASE)
    ours = micro(median(first.cpu) / calls)
    live_time, live_cpu = median(live.wall) / calls, median(live.cpu) / calls
    mocked = f"mongomock, {DOCUMENTS} documents, {micro(median(mock.cpu) / calls)}"
    name = "replayed find_one by _id"
    return [
        Row(name, ours, f"live {micro(live_time)}", ratio(live.wall, first.cpu), ">= 10x faster"),
        Row(name, ours, f"live, CPU {micro(live_cpu)}", ratio(live.cpu, first.cpu)),
        Row(name, ours, mocked, ratio(mock.cpu, first.cpu), ">= 3x faster"),
        Row(
            f"{name}, repeated",
            micro(median(again.cpu) / calls),
            mocked,
            ratio(mock.cpu, again.cpu),
            ">= 3x faster",
        ),
    ]


def _replaying(path: Path, calls: int, *, repeats: bool) -> Contender:
    @contextmanager
    def contender() -> Iterator[Block]:
        with (
            enabled(),
            MongoClient(NOWHERE, connect=False) as client,
            use_cassette(path, mode="replay", config=TraceConfig(allow_repeats=repeats)),
        ):
            finds = _finds(client[DATABASE].orders, calls)
            if repeats:
                finds()
            yield finds

    return contender
