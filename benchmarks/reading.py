"""A replayed find of many documents, beside bson's own decoding of the same."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import bson
from pymongo import MongoClient

from benchmarks.data import order
from benchmarks.drivers import DATABASE, NOWHERE, SYNC
from benchmarks.measure import Block, Contender, Row, in_turn, milli, ratio
from timetracer import TraceConfig, use_cassette


def replayed_find(uri: str, documents: int, rounds: int) -> list[Row]:
    """Return what a replayed find costs, warm and cold.

    Args:
        uri: the server.
        documents: how many are found.
        rounds: rounds that count.
    """
    raw = b"".join(bson.encode(order(number)) for number in range(documents))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "orders.json")
        _record(uri, path, documents)
        plain, warm, cold = in_turn([_decoding(raw), _warm(path), _cold(path)], rounds)
    decoded = f"bson.decode_all {milli(median(plain.cpu))}"
    name = f"replayed find of {documents:,} documents"
    return [
        Row(
            f"{name}, {what}",
            milli(median(costs.cpu)),
            decoded,
            ratio(costs.cpu, plain.cpu),
            f"<= {limit}x",
        )
        for what, costs, limit in (("warm", warm, 2), ("cold, from the file", cold, 3))
    ]


def _record(uri: str, path: Path, documents: int) -> None:
    with MongoClient(uri) as client:
        collection = client[DATABASE].orders
        collection.drop()
        collection.insert_many([order(number) for number in range(documents)])
        with SYNC.enabled(), use_cassette(path, mode="record"):
            found = _found(client)
        client.drop_database(DATABASE)
    assert found == [order(number) for number in range(documents)]


def _found(client: Any) -> list[Any]:
    return list(client[DATABASE].orders.find())


def _decoding(raw: bytes) -> Contender:
    @contextmanager
    def contender() -> Iterator[Block]:
        yield lambda: bson.decode_all(raw)

    return contender


def _warm(path: Path) -> Contender:
    @contextmanager
    def contender() -> Iterator[Block]:
        repeats = TraceConfig(allow_repeats=True)
        with (
            SYNC.enabled(),
            MongoClient(NOWHERE, connect=False) as client,
            use_cassette(path, mode="replay", config=repeats),
        ):
            _found(client)
            yield lambda: _found(client)

    return contender


def _cold(path: Path) -> Contender:
    @contextmanager
    def contender() -> Iterator[Block]:
        with SYNC.enabled(), MongoClient(NOWHERE, connect=False) as client:

            def block() -> None:
                with use_cassette(path, mode="replay"):
                    _found(client)

            yield block

    return contender
