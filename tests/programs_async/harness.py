"""One program for every driver: `await it(...)` awaits what can be awaited, and takes the rest.

    python tests/programs_async/steps.py DRIVER [STEP ...]

Each step is one line of JSON: what the program saw, with types. A driver's own class names differ
(AsyncCursor, AsyncIOMotorCursor) and are not part of it, so that all drivers say the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import re
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from timetracer.plugins import enable_motor, enable_pymongo

ENABLE = {"pymongo": enable_pymongo, "motor": enable_motor}
Step = Callable[["Driver"], Awaitable[Any]]
STEPS: dict[str, Step] = {}


def step(function: Step) -> Step:
    """A step of the program; its name is its function's."""
    STEPS[function.__name__] = function
    return function


async def it(value: Any) -> Any:
    """The value, awaited where the driver is one that awaits."""
    return await value if inspect.isawaitable(value) else value


class Driver:
    """A client of one driver, and what differs between drivers beside `await`.

    Args:
        name: "sync", "async", "motor" or "tornado".
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.uri = os.environ["MONGODB_URI"]
        self.client = self.make()
        self.db = self.client[os.environ["TEST_DATABASE"]]

    @property
    def is_motor(self) -> bool:
        return self.name in ("motor", "tornado")

    def make(self, uri: str = "", **options: Any) -> Any:
        """A client."""
        uri = uri or self.uri
        if self.name == "sync":
            from pymongo import MongoClient

            return MongoClient(uri, **options)
        if self.name == "async":
            from pymongo import AsyncMongoClient

            return AsyncMongoClient(uri, **options)
        if self.name == "motor":
            from motor.motor_asyncio import AsyncIOMotorClient

            return AsyncIOMotorClient(uri, **options)
        from motor.motor_tornado import MotorClient

        return MotorClient(uri, **options)

    def bucket(self, **options: Any) -> Any:
        """A GridFS bucket."""
        if self.name == "sync":
            from gridfs import GridFSBucket as Bucket
        elif self.name == "async":
            from gridfs.asynchronous import AsyncGridFSBucket as Bucket
        elif self.name == "motor":
            from motor.motor_asyncio import AsyncIOMotorGridFSBucket as Bucket
        else:
            from motor.motor_tornado import MotorGridFSBucket as Bucket
        return Bucket(self.db, **options)

    async def read(self, cursor: Any, count: int | None = None) -> list[Any]:
        """What a cursor gives, up to a count; it can be read on."""
        cursor, found = await it(cursor), []
        if count == 0:
            return found
        if self.name == "sync":
            for document in cursor:
                found.append(document)
                if len(found) == count:
                    break
        else:
            async for document in cursor:
                found.append(document)
                if len(found) == count:
                    break
        return found

    async def close(self, thing: Any) -> None:
        """Close a cursor, a stream or a client."""
        await it(thing.close())

    @contextlib.asynccontextmanager
    async def session(self, **options: Any) -> AsyncIterator[Any]:
        """A session of the client's."""
        session = await it(self.client.start_session(**options))
        if self.name == "sync":
            with session:
                yield session
        else:
            async with session:
                yield session

    @contextlib.asynccontextmanager
    async def transaction(self, session: Any) -> AsyncIterator[None]:
        """A transaction of a session's."""
        context = await it(session.start_transaction())
        if self.name == "sync":
            with context:
                yield
        else:
            async with context:
                yield

    def callback(self, function: Any) -> Any:
        """A function for with_transaction: a coroutine is run to its end where there is no loop."""
        if self.name != "sync":
            return function

        def run(*arguments: Any) -> Any:
            made = function(*arguments)
            try:
                made.send(None)
            except StopIteration as stop:
                return stop.value
            raise RuntimeError("a coroutine of a sync driver awaited something")

        return run


# ------------------------------------------------------------------------------- what was seen

_DRIVERS = re.compile(r"^(AsyncIOMotor|Motor|Async)(?=[A-Z])")


def seen(value: Any) -> Any:
    """A value with its types, as JSON."""
    if isinstance(value, BaseException):
        return _error(value)
    if isinstance(value, Mapping):
        return [type(value).__name__, [[key, seen(item)] for key, item in value.items()]]
    if isinstance(value, list | tuple):
        return [_name(value), [seen(item) for item in value]]
    if value is None or isinstance(value, bool):
        return value
    if type(value).__module__ == "pymongo.results":
        return [type(value).__name__, _properties(value)]
    if type(value).__module__.startswith("pymongo.") and hasattr(value, "full_name"):
        return [_name(value), value.full_name]
    return [_name(value), repr(value)]


def _name(value: Any) -> str:
    return _DRIVERS.sub("", type(value).__name__)


def _properties(result: Any) -> dict[str, Any]:
    found = {}
    for name in sorted(dir(type(result))):
        if not name.startswith("_"):
            try:
                found[name] = seen(getattr(result, name))
            except Exception as error:
                found[name] = seen(error)
    return found


def _error(error: BaseException) -> Any:
    shown = {"class": f"{type(error).__module__}.{type(error).__qualname__}", "text": str(error)}
    for name in ("code", "details", "timeout"):
        if hasattr(error, name):
            shown[name] = seen(getattr(error, name))
    shown["labels"] = sorted(getattr(error, "_error_labels", ()))
    return shown


async def raised(value: Any) -> BaseException:
    """What awaiting a call, or calling a function, raises."""
    try:
        value = await it(value() if callable(value) and not inspect.isawaitable(value) else value)
    except Exception as error:
        return error
    raise AssertionError(f"it gave {value!r}")


# ------------------------------------------------------------------------------- running


async def run(name: str, wanted: list[str]) -> None:
    driver = Driver(name)
    for step_name, function in STEPS.items():
        if wanted and step_name not in wanted:
            continue
        try:
            told = seen(await function(driver))
        except Exception as error:
            if os.environ.get("STEPS_RAISE"):
                raise
            told = ["raised", seen(error)]
        sys.stdout.write(json.dumps([step_name, told]) + "\n")
    await driver.close(driver.client)


def main() -> None:
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    name, *wanted = sys.argv[1:]
    for lib in filter(None, os.environ.get("ENABLE", "pymongo,motor").split(",")):
        ENABLE[lib]()
    asyncio.run(run(name, wanted))
