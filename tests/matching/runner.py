"""Runs a program against a client, and writes down what each of its calls gave.

A program is `{"number", "world", "database", "driver", "values", "stock", "calls", "cut", ...}`:
"stock" is what the database holds before it, and from its call "cut" on it has another cassette.
A call is `{"id", "op", "coll", "args"}` (`db` where it is not the program's own database,
`unordered` where the server may answer in any order); what an operation does is its row in
`OPERATIONS`. These hold calls of their own: "group" (made at once), "transaction" (with "end":
"commit" or "abort") and "session".

One coroutine runs programs of every driver: with a synchronous one it never waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NoReturn

import gridfs
from pymongo import ReturnDocument, operations

from tests.matching.values import NoSuchValueError, Values
from tests.support.traces import shown
from timetracer.errors import MissError

Program = dict[str, Any]
Call = dict[str, Any]
HOLDERS = ("group", "transaction", "session")


class StopRun(Exception):
    """The program goes no further: a call missed, could not be made, or was the last asked for."""


@dataclass(slots=True)
class Trace:
    """What a run saw.

    Attributes:
        answers: each call's number and its answer as text, with names for made values.
        missed: the number of the first call that missed, None if none did.
        why: what the miss said.
    """

    answers: dict[int, str] = field(default_factory=dict)
    missed: int | None = None
    why: str = ""


async def it(value: Any) -> Any:
    """The value, awaited where it can be."""
    return await value if inspect.isawaitable(value) else value


def finish(running: Any) -> Any:
    """Run a coroutine that never waits."""
    try:
        running.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("a synchronous program waited")


# ------------------------------------------------------------------------------- the operations


@dataclass(slots=True)
class Place:
    """Where a call is made, and with what."""

    client: Any
    database: Any
    coll: Any
    args: dict[str, Any]
    options: dict[str, Any]
    driver: str

    @property
    def bucket(self) -> Any:
        return BUCKETS.get(self.driver, gridfs.GridFSBucket)(self.database, bucket_name=self.coll)


def _motor_bucket(*args: Any, **options: Any) -> Any:
    from motor.motor_asyncio import AsyncIOMotorGridFSBucket

    return AsyncIOMotorGridFSBucket(*args, **options)


BUCKETS: dict[str, Callable[..., Any]] = {
    "async": gridfs.AsyncGridFSBucket, "motor": _motor_bucket
}  # fmt: skip


def _method(name: str, *positional: str) -> Callable[[Place], Awaitable[Any]]:
    async def call(place: Place) -> Any:
        args = dict(place.args)
        first = [args.pop(key) for key in positional if key in args]
        method = getattr(place.database[place.coll], name)
        return await it(method(*first, **args, **place.options))

    return call


def _listed(name: str, *positional: str) -> Callable[[Place], Awaitable[Any]]:
    called = _method(name, *positional)

    async def call(place: Place) -> Any:
        return await it((await called(place)).to_list(None))

    return call


async def _insert(place: Place) -> Any:
    """Insert a document and show what the driver made of it, as well."""
    document = place.args["document"]
    result = await it(place.database[place.coll].insert_one(document, **place.options))
    return result, document


async def _bulk(place: Place) -> Any:
    requests = [
        getattr(operations, part["type"])(**part["args"]) for part in place.args["requests"]
    ]
    ordered = place.args.get("ordered", True)
    return await it(
        place.database[place.coll].bulk_write(requests, ordered=ordered, **place.options)
    )


async def _find_and_update(place: Place) -> Any:
    args = dict(place.args)
    after = ReturnDocument.AFTER if args.pop("after", False) else ReturnDocument.BEFORE
    method = place.database[place.coll].find_one_and_update
    return await it(method(**args, return_document=after, **place.options))


async def _put(place: Place) -> Any:
    args = dict(place.args)
    name, data = args.pop("filename"), str(args.pop("data")).encode()
    if "file_id" in args:
        key = args.pop("file_id")
        await it(place.bucket.upload_from_stream_with_id(key, name, data, **args))
        return key
    return await it(place.bucket.upload_from_stream(name, data, **args))


async def _get(place: Place) -> Any:
    out = await it(place.bucket.open_download_stream(place.args["id"]))
    return await _file(out)


async def _get_by_name(place: Place) -> Any:
    return await _file(await it(place.bucket.open_download_stream_by_name(place.args["filename"])))


async def _drop_file(place: Place) -> Any:
    return await it(place.bucket.delete(place.args["id"]))


async def _rename_file(place: Place) -> Any:
    return await it(place.bucket.rename(place.args["id"], place.args["filename"]))


async def _command(place: Place) -> Any:
    told = await it(place.database.command(place.args["command"]))
    return told.get("ok"), told.get("version")


async def _server_info(place: Place) -> Any:
    return (await it(place.client.server_info()))["version"]


async def _file(out: Any) -> Any:
    read = await it(out.read())
    return {"name": out.filename, "meta": out.metadata, "size": out.length, "data": read}


async def _names(place: Place) -> Any:
    return sorted(await it(place.database.list_collection_names(**place.args)))


async def _nothing(place: Place) -> None:
    """What a twin does where it leaves a call out."""


OPERATIONS: dict[str, Callable[[Place], Awaitable[Any]]] = {
    "insert_one": _insert,
    "insert_many": _method("insert_many", "documents"),
    "find_one": _method("find_one", "filter"),
    "find": _listed("find", "filter"),
    "update_one": _method("update_one", "filter", "update"),
    "update_many": _method("update_many", "filter", "update"),
    "replace_one": _method("replace_one", "filter", "replacement"),
    "delete_one": _method("delete_one", "filter"),
    "delete_many": _method("delete_many", "filter"),
    "count_documents": _method("count_documents", "filter"),
    "distinct": _method("distinct", "key", "filter"),
    "aggregate": _listed("aggregate", "pipeline"),
    "bulk_write": _bulk,
    "find_one_and_update": _find_and_update,
    "find_one_and_delete": _method("find_one_and_delete", "filter"),
    "create_index": _method("create_index", "keys"),
    "drop": _method("drop"),
    "list_collection_names": _names,
    "put": _put,
    "get": _get,
    "get_by_name": _get_by_name,
    "drop_file": _drop_file,
    "rename_file": _rename_file,
    "index_information": _method("index_information"),
    "command": _command,
    "server_info": _server_info,
    "nothing": _nothing,
}
START_UP = ("create_index", "list_collection_names", "index_information", "command", "server_info")
"""What a program does as it starts, and other cassettes may answer."""
_WITHOUT_SESSION = {"put", "get", "get_by_name", "drop_file", "rename_file", "drop", *START_UP}


def kept(result: Any) -> Any:
    """What later calls may take from a result, by name."""
    if isinstance(result, tuple):
        result = result[0]
    for name in ("inserted_id", "inserted_ids", "upserted_id"):
        if hasattr(result, name):
            return {name: getattr(result, name)}
    return {"value": result}


def _without(result: Any, keys: frozenset[str]) -> Any:
    """Documents without some keys."""
    if isinstance(result, dict):
        return {key: _without(item, keys) for key, item in result.items() if key not in keys}
    if type(result) in (list, tuple):
        return type(result)(_without(item, keys) for item in result)
    return result


def _sorted_keys(result: Any) -> Any:
    """Documents with their keys in order, for a program that sets fields in the order of a set."""
    if isinstance(result, dict):
        return {key: _sorted_keys(value) for key, value in sorted(result.items())}
    if type(result) in (list, tuple):
        return type(result)(map(_sorted_keys, result))
    return result


# ------------------------------------------------------------------------------- the run


class Run:
    """One run of one program.

    Args:
        program: the program.
        client: the client, synchronous or not.
        upto: the last call to be made, None for all.
        shuffle: what calls that are made at once are shuffled by, None for their own order.
        parts: how many cassettes it goes through at most.
    """

    def __init__(
        self,
        program: Program,
        client: Any,
        upto: int | None = None,
        shuffle: Any = None,
        parts: int = 1,
    ) -> None:
        self.trace = Trace()
        self.databases: set[str] = set()
        self._program, self._client, self._upto = program, client, upto
        self._shuffle = random.Random(shuffle) if shuffle is not None else None
        self._is_async = program["driver"] in BUCKETS
        self._parts = parts
        self._hidden = frozenset(program.get("hidden", ()))
        self._values = Values(program["values"], ordered=bool(program.get("ordered")))
        self._stock = [(coll, self._values.of(documents)) for coll, documents in program["stock"]]
        self._texts: dict[int, str] = {}

    def before(self) -> None:
        """Make what the program makes before its first call."""
        for name in self._program.get("early", ()):
            self._values.make(name)

    async def stock(self) -> None:
        """Store what the database holds before the program; nothing of it is recorded."""
        name = self._program["database"]
        for coll, documents in self._stock:
            self.databases.add(name)
            await it(self._client[name][coll].insert_many(documents))

    async def all(self, block: Callable[[int], Any]) -> Trace:
        """Make the calls, and return what they gave.

        Args:
            block: gives the context for the calls of each cassette, by its number.
        """
        for number, calls in enumerate(self._divided()):
            with block(number):
                if not await self._made(calls, first=not number):
                    break
        numbers = sorted(self._texts)
        blurred = self._values.names.blurred([self._texts[number] for number in numbers])
        self.trace.answers = dict(zip(numbers, blurred, strict=True))
        return self.trace

    def _divided(self) -> list[list[Call]]:
        calls, cut = self._program["calls"], self._program["cut"]
        if self._parts == 1 or not cut:
            return [calls]
        place = next(place for place, call in enumerate(calls) if _last_id(call) >= cut)
        return [calls[:place], calls[place:]]

    async def _made(self, calls: list[Call], *, first: bool) -> bool:
        """Make calls; whether the program goes on after them."""
        if first:
            self.before()
        with contextlib.suppress(StopRun):
            for call in calls:
                await self._step(call, {})
            return True
        return False

    async def _step(self, call: Call, options: dict[str, Any]) -> None:
        if call["op"] in HOLDERS:
            return await getattr(self, f"_{call['op']}")(call)
        self._stop_after(call)
        try:
            place = self._place(call, options)
            result = await OPERATIONS[call["op"]](place)
        except MissError as miss:
            self._miss(call, miss)
        except NoSuchValueError as error:
            self._texts[call["id"]] = f"not made: {error}"  # as a program ends by a TypeError
            raise StopRun from None
        except Exception as error:
            self._texts[call["id"]] = f"raised {shown(error)}"
        else:
            self._values.results[call["id"]] = kept(result)
            self._texts[call["id"]] = self._shown(call, result)

    def _miss(self, call: Call, miss: MissError) -> NoReturn:
        if self.trace.missed is None or call["id"] < self.trace.missed:
            self.trace.missed, self.trace.why = call["id"], f"{type(miss).__name__}: {miss}"
        raise StopRun from None

    def _stop_after(self, call: Call) -> None:
        if self._upto is not None and call["id"] > self._upto:
            raise StopRun

    def _shown(self, call: Call, result: Any) -> str:
        """A result as text; where the server may answer in any order, its parts in one order."""
        if self._hidden:
            result = _without(result, self._hidden)
        if self._program.get("sorted_keys"):
            result = _sorted_keys(result)
        unordered = call.get("unordered") or call["op"] == "list_collection_names"
        if not unordered or not isinstance(result, list):
            return shown(result)
        parts = sorted(map(shown, result), key=self._values.names.sort_key)
        return "in any order: " + " ".join(parts)

    def _place(self, call: Call, options: dict[str, Any]) -> Place:
        name = self._values.of(call.get("db", self._program["database"]))
        self.databases.add(name)
        if call["op"] in _WITHOUT_SESSION:
            options = {}
        args = self._values.of(call["args"])
        if isinstance(args.get("sort"), list):
            args["sort"] = [tuple(pair) for pair in args["sort"]]
        if "keys" in args:
            args["keys"] = [tuple(pair) for pair in args["keys"]]
        coll = self._values.of(call["coll"])
        return Place(self._client, self._client[name], coll, args, options, self._program["driver"])

    async def _session(self, call: Call) -> None:
        async with _ended(await it(self._client.start_session())) as session:
            for inner in call["calls"]:
                await self._step(inner, {"session": session})
            await it(session.end_session())

    async def _transaction(self, call: Call) -> None:
        async with _ended(await it(self._client.start_session())) as session:
            await it(session.start_transaction())
            for inner in call["calls"]:
                await self._step(inner, {"session": session})
            self._stop_after(call)
            try:
                end = session.commit_transaction if call["end"] == "commit" else None
                await it((end or session.abort_transaction)())
            except MissError as miss:
                self._miss(call, miss)
            except Exception as error:
                self._texts[call["id"]] = f"raised {shown(error)}"
            await it(session.end_session())

    async def _group(self, call: Call) -> None:
        calls = list(call["calls"])
        for inner in calls:
            self._make_all(inner)
        if self._shuffle is not None:
            self._shuffle.shuffle(calls)
        if self._is_async:
            steps = (self._step(inner, {}) for inner in calls)
            ended = await asyncio.gather(*steps, return_exceptions=True)
        elif self._program["driver"] == "threads":
            with ThreadPoolExecutor(len(calls)) as pool:
                ended = list(pool.map(self._step_in_thread, calls))
        else:
            ended = [self._step_in_thread(inner) for inner in calls]
        if self.trace.missed is not None:  # which of the others came before it, nothing tells
            for inner in calls:
                self._texts.pop(inner["id"], None)
        for error in ended:
            if error is not None:
                raise error

    def _make_all(self, node: Any) -> None:
        """Make the values of calls that are made at once beforehand, in one order."""
        if isinstance(node, dict):
            if node.get("§") == "made":
                self._values.make(node["name"])
            for part in node.values():
                self._make_all(part)
        elif isinstance(node, list):
            for part in node:
                self._make_all(part)

    def _step_in_thread(self, call: Call) -> Exception | None:
        try:
            finish(self._step(call, {}))
        except Exception as error:
            return error
        return None


def _last_id(call: Call) -> int:
    return int(call["id"])


@contextlib.asynccontextmanager
async def _ended(session: Any) -> AsyncIterator[Any]:
    """A session that is ended where the program stops, whatever replay says to that."""
    try:
        yield session
    except StopRun:
        with contextlib.suppress(Exception):
            await it(session.end_session())
        raise
