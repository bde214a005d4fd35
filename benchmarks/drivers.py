"""The drivers whose calls are measured: a row each, and one way to make their calls."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import mongomock
from motor.core import AgnosticCollection
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection
from pymongo import AsyncMongoClient, MongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.collection import Collection

from benchmarks.data import order
from benchmarks.measure import Block
from timetracer.plugins import disable_motor, disable_pymongo, enable_motor, enable_pymongo

DATABASE = "timetracer_benchmark"
DOCUMENTS = 10
NOWHERE = "mongodb://replay.invalid:27017"


# ------------------------------------------------------------------------------- the table


async def _nothing_awaited(self: Any, filter: Any = None, *args: Any, **kwargs: Any) -> None:
    return None


def _nothing(self: Any, filter: Any = None, *args: Any, **kwargs: Any) -> None:
    return None


class _AtOnce(Executor):
    """Stands in for Motor's threads: a change of threads takes longer than what is measured."""

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*args, **kwargs))
        return future


@contextmanager
def _idle_motor() -> Iterator[None]:
    # Motor's classes hold what PyMongo's had when they were made.
    with (
        patch.object(Collection, "find_one", _nothing),
        patch("motor.frameworks.asyncio._EXECUTOR", _AtOnce()),
    ):
        made = AgnosticCollection.find_one.create_attribute(AsyncIOMotorCollection, "find_one")
        with patch.object(AsyncIOMotorCollection, "find_one", made):
            yield


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver whose calls are measured.

    Attributes:
        label: what the names of its rows begin with.
        client: makes a client of a URI.
        awaits: whether its calls are awaited.
        enable: switches Timetracer on for it.
        disable: switches Timetracer off again.
        idle: has `find_one` do nothing within a block.
        mock: makes a client that needs no server, to be compared with; None where there is none.
    """

    label: str
    client: Callable[..., Any]
    awaits: bool
    enable: Callable[[], None]
    disable: Callable[[], None]
    idle: Callable[[], AbstractContextManager[Any]]
    mock: Callable[[], Any] | None = None

    @contextmanager
    def enabled(self) -> Iterator[None]:
        """Have the plugin on within a block."""
        self.enable()
        try:
            yield
        finally:
            self.disable()


SYNC = Driver(
    "",
    MongoClient,
    False,
    enable_pymongo,
    disable_pymongo,
    lambda: patch.object(Collection, "find_one", _nothing),
    mongomock.MongoClient,
)
ASYNC = Driver(
    "AsyncMongoClient: ",
    AsyncMongoClient,
    True,
    enable_pymongo,
    disable_pymongo,
    lambda: patch.object(AsyncCollection, "find_one", _nothing_awaited),
)
MOTOR = Driver("Motor: ", AsyncIOMotorClient, True, enable_motor, disable_motor, _idle_motor)


# ------------------------------------------------------------------------------- the calls


class Orders:
    """A collection of orders, and the way in which calls on it are made.

    Args:
        collection: the collection.
        loop: what awaits its calls; None where they need not be awaited.
    """

    def __init__(self, collection: Any, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._collection = collection
        self._loop = loop

    def each(self, method: str, arguments: Sequence[Any]) -> Block:
        """Return a block that calls a method with each argument, one after the other.

        Args:
            method: name of the collection's method.
            arguments: its first argument, for each call.
        """
        collection, loop = self._collection, self._loop

        def called() -> None:
            for one in arguments:
                getattr(collection, method)(one)

        async def awaited() -> None:
            for one in arguments:
                await getattr(collection, method)(one)

        return called if loop is None else lambda: loop.run_until_complete(awaited())


@contextmanager
def opened(driver: Driver, uri: str) -> Iterator[Orders]:
    """Give the orders of a server through a driver's client, which connects when it has to."""
    loop = asyncio.new_event_loop()
    try:
        client = loop.run_until_complete(_open(driver, uri))
        try:
            yield Orders(client[DATABASE].orders, loop if driver.awaits else None)
        finally:
            loop.run_until_complete(_close(client))
    finally:
        loop.close()


async def _open(driver: Driver, uri: str) -> Any:
    return driver.client(uri, connect=False)


async def _close(client: Any) -> None:
    closed = client.close()
    if inspect.isawaitable(closed):
        await closed


def fill(client: Any) -> Any:
    """Return a collection that holds the documents of the benchmarks.

    Args:
        client: a client whose calls are not awaited.
    """
    collection = client[DATABASE].orders
    collection.drop()
    collection.insert_many([order(number) for number in range(DOCUMENTS)])
    return collection
