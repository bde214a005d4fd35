"""PyMongo: the table of its methods that reach the server, and what is done around a call.

Each call is recorded once, at the outermost public method; what calls what inside PyMongo changes
from release to release and does not matter. `find` only makes a cursor and is not wrapped: its
query and its batches pass `_run_operation`. GridFS and with_transaction have no I/O of their own.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, ItemsView, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cache, partial
from operator import attrgetter
from time import sleep
from typing import Any
from weakref import WeakKeyDictionary

import bson
from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from bson.son import SON
from pymongo import operations, results
from pymongo.collation import Collation
from pymongo.errors import BulkWriteError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from timetracer import evidence, runs
from timetracer.codec import from_json, json_to_bson, to_json
from timetracer.config import resolve as check_settings
from timetracer.driver import Exchange, GuardRow, MethodRow, Outcome
from timetracer.entropy import refresh
from timetracer.errors import ReadPastRecordingError
from timetracer.frozen_time import perf_counter
from timetracer.intercept import ERRAND, Installation, begin, resolve, wrapper_for
from timetracer.matching import key_of, key_to_json
from timetracer.model import Call
from timetracer.plugins import clients, commands, cursors, failures, offline
from timetracer.plugins.canonical import canonical, make_canonical
from timetracer.plugins.replies import (
    ClientBulk,
    Document,
    Inserted,
    NewCollection,
    Nothing,
    Python,
    Result,
    body_of,
    command_options,
    index_information,
)
from timetracer.process import begin_script, current
from timetracer.session import Session, at_first_session

LIB = clients.PYMONGO

# ------------------------------------------------------------------------------- the table

_CURSOR = "pymongo.synchronous.cursor:Cursor"
_SON = CodecOptions(SON)

_FOUND = Document()
_VALUE = Python()
_NOTHING = Python()
_UPDATED = Result(results.UpdateResult, "raw_result")
_DELETED = Result(results.DeleteResult, "raw_result")


def _itself(exchange: Exchange) -> Any:
    return exchange.instance


def _indexes(exchange: Exchange) -> Any:
    return exchange.instance.with_options(
        codec_options=_SON, read_preference=ReadPreference.PRIMARY
    )


def _plain_options(exchange: Exchange) -> Any:
    return DEFAULT_CODEC_OPTIONS


def _search_indexes(exchange: Exchange) -> Any:
    return exchange.instance.with_options(
        codec_options=DEFAULT_CODEC_OPTIONS, read_preference=ReadPreference.PRIMARY
    )


def _commands(exchange: Exchange) -> Any:
    return exchange.instance.get_collection("$cmd")


def _aggregated(exchange: Exchange) -> Any:
    return exchange.instance["$cmd.aggregate"]


def _databases(exchange: Exchange) -> Any:
    return exchange.instance.get_database("admin", codec_options=DEFAULT_CODEC_OPTIONS)["$cmd"]


def _collection_rows(owner: str) -> tuple[MethodRow, ...]:
    def row(name: str, method: str, reply: Any, **more: Any) -> MethodRow:
        return MethodRow(owner, name, method, reply, **more)

    cursor = cursors.CommandCursors
    return (
        row("find_one", "FIND_ONE", _FOUND, reads=True, rest=_CURSOR, raw="cursor.firstBatch.0"),
        row(
            "insert_one",
            "INSERT_ONE",
            Inserted(results.InsertOneResult, "inserted_id"),
            documents="document",
        ),
        row(
            "insert_many",
            "INSERT_MANY",
            Inserted(results.InsertManyResult, "inserted_ids"),
            documents="documents",
        ),
        row(
            "bulk_write",
            "BULK_WRITE",
            Result(results.BulkWriteResult, "bulk_api_result"),
            documents="requests",
        ),
        row("replace_one", "REPLACE_ONE", _UPDATED),
        row("update_one", "UPDATE_ONE", _UPDATED),
        row("update_many", "UPDATE_MANY", _UPDATED),
        row("delete_one", "DELETE_ONE", _DELETED),
        row("delete_many", "DELETE_MANY", _DELETED),
        row("find_one_and_delete", "FIND_ONE_AND_DELETE", _FOUND, raw="value"),
        row("find_one_and_replace", "FIND_ONE_AND_REPLACE", _FOUND, raw="value"),
        row("find_one_and_update", "FIND_ONE_AND_UPDATE", _FOUND, raw="value"),
        row("count_documents", "COUNT_DOCUMENTS", _VALUE, reads=True),
        row("estimated_document_count", "ESTIMATED_DOCUMENT_COUNT", _VALUE, reads=True),
        row("distinct", "DISTINCT", _FOUND, reads=True, raw="values"),
        row("aggregate", "AGGREGATE", cursor(_itself), reads=True),
        row(
            "aggregate_raw_batches",
            "AGGREGATE_RAW_BATCHES",
            cursor(_itself, raw=True),
            reads=True,
        ),
        row("create_index", "CREATE_INDEX", _VALUE),
        row("create_indexes", "CREATE_INDEXES", _VALUE),
        row("drop_index", "DROP_INDEX", _NOTHING),
        row("drop_indexes", "DROP_INDEXES", _NOTHING),
        row("list_indexes", "LIST_INDEXES", cursor(_indexes), reads=True),
        row(
            "index_information",
            "INDEX_INFORMATION",
            Python(revive=index_information),
            reads=True,
        ),
        row("create_search_index", "CREATE_SEARCH_INDEX", _VALUE),
        row("create_search_indexes", "CREATE_SEARCH_INDEXES", _VALUE),
        row("drop_search_index", "DROP_SEARCH_INDEX", _NOTHING),
        row("update_search_index", "UPDATE_SEARCH_INDEX", _NOTHING),
        row("list_search_indexes", "LIST_SEARCH_INDEXES", cursor(_search_indexes), reads=True),
        row("options", "OPTIONS", _VALUE, reads=True),
        row("rename", "RENAME", _VALUE),
        row("drop", "DROP", _NOTHING),
    )


def _database_rows(owner: str) -> tuple[MethodRow, ...]:
    def row(name: str, method: str, reply: Any, **more: Any) -> MethodRow:
        return MethodRow(owner, name, method, reply, scope="database", **more)

    cursor = cursors.CommandCursors
    return (
        row("command", "COMMAND", Document(command_options), raw="."),
        row(
            "cursor_command",
            "CURSOR_COMMAND",
            cursor(_commands, command_options),
        ),
        row("aggregate", "AGGREGATE", cursor(_aggregated), reads=True),
        row("create_collection", "CREATE_COLLECTION", NewCollection()),
        row("drop_collection", "DROP_COLLECTION", _VALUE),
        row("list_collections", "LIST_COLLECTIONS", cursor(_commands, _plain_options), reads=True),
        row("list_collection_names", "LIST_COLLECTION_NAMES", _VALUE, reads=True),
        row("validate_collection", "VALIDATE_COLLECTION", _VALUE, reads=True),
        row("dereference", "DEREFERENCE", _FOUND, reads=True, raw="cursor.firstBatch.0"),
    )


def _client_rows(owner: str) -> tuple[MethodRow, ...]:
    def row(name: str, method: str, reply: Any, **more: Any) -> MethodRow:
        return MethodRow(owner, name, method, reply, scope="client", **more)

    return (
        row("server_info", "SERVER_INFO", _VALUE, reads=True),
        row(
            "list_databases",
            "LIST_DATABASES",
            cursors.CommandCursors(_databases, _plain_options, path="databases"),
            reads=True,
        ),
        row("list_database_names", "LIST_DATABASE_NAMES", _VALUE, reads=True),
        row("drop_database", "DROP_DATABASE", _NOTHING),
        row("bulk_write", "CLIENT_BULK_WRITE", ClientBulk(), documents="models"),
    )


def _flavour_rows(flavour: str, prefix: str) -> tuple[MethodRow, ...]:
    """Return the rows of one flavour: "synchronous" with "", or "asynchronous" with "Async"."""
    base = f"pymongo.{flavour}"
    rows = (
        *_collection_rows(f"{base}.collection:{prefix}Collection"),
        *_database_rows(f"{base}.database:{prefix}Database"),
        *_client_rows(f"{base}.mongo_client:{prefix}MongoClient"),
        MethodRow(
            f"{base}.client_session:{prefix}ClientSession",
            "_finish_transaction_with_retry",
            "TRANSACTION",
            Nothing(),
            scope="session",
        ),
        MethodRow(
            f"{base}.change_stream:{prefix}ChangeStream",
            "_create_cursor",
            "WATCH",
            cursors.ChangeStreams(),
            scope="stream",
            reads=True,
        ),
    )
    return tuple(row.on(row.owner, awaits=_awaits(row)) for row in rows)


def _awaits(row: MethodRow) -> bool:
    return inspect.iscoroutinefunction(getattr(resolve(row.owner), row.name, None))


# ------------------------------------------------------------------------------- describing

_NOT_COMPARED = frozenset({"codec_options", "session"})
_OPTIONS = ("write_concern", "read_concern", "read_preference")
_options_of = attrgetter(*(f"_{name}" for name in _OPTIONS))


def _describe_collection(instance: Any) -> tuple[str, Any, Any]:
    # Every call comes here, and the driver's properties cost more than what they give.
    return instance._full_name, instance._codec_options, instance._database._client


def _describe_database(instance: Any) -> tuple[str, Any, Any]:
    return instance._name, instance._codec_options, instance._client


def _describe_client(instance: Any) -> tuple[str, Any, Any]:
    return "*", instance.codec_options, instance


def _describe_session(instance: Any) -> tuple[str, Any, Any]:
    return "*", DEFAULT_CODEC_OPTIONS, instance.client


def _describe_stream(instance: Any) -> tuple[str, Any, Any]:
    target = instance._target
    # Not by attribute: a database makes a collection of any name it is asked for.
    url = target.full_name if hasattr(type(target), "full_name") else target.name
    if type(instance).__name__.endswith("ClusterChangeStream"):
        url = "*"
    return url, target.codec_options, instance._client


def _describe_cursor(instance: Any) -> tuple[str, Any, Any]:
    return _describe_collection(instance.collection)


_SCOPES: dict[str, Callable[[Any], tuple[str, Any, Any]]] = {
    "collection": _describe_collection,
    "database": _describe_database,
    "client": _describe_client,
    "session": _describe_session,
    "stream": _describe_stream,
    "cursor": _describe_cursor,
}


def _operation(request: Any) -> Any:
    """Return an operation of a bulk write as a document."""
    kind: Any = type(request)
    return {
        kind.__name__: {
            name: _plain(canonical(name, value))
            for slot, name in _parts_of(kind)
            if (value := getattr(request, slot, None)) not in (None, False)
        }
    }


@cache
def _parts_of(kind: type) -> tuple[tuple[str, str], ...]:
    """Return the slots of a kind of operation and what each is called, in order."""
    slots = sorted(name for base in kind.__mro__ for name in getattr(base, "__slots__", ()))
    return tuple((slot, name) for slot in slots if (name := slot.lstrip("_")))


_PLAIN: dict[type, Callable[[Any], Any]] = {
    **dict.fromkeys(
        (
            operations.InsertOne,
            operations.DeleteOne,
            operations.DeleteMany,
            operations.ReplaceOne,
            operations.UpdateOne,
            operations.UpdateMany,
        ),
        _operation,
    ),
    operations.IndexModel: lambda model: model.document,
    operations.SearchIndexModel: lambda model: model.document,
    Collation: lambda collation: collation.document,
    WriteConcern: lambda concern: concern.document,
    ReadConcern: lambda concern: concern.document,
}


def _plain(value: Any) -> Any:
    """Return an argument as what BSON can hold, where it is one of PyMongo's own objects."""
    kind = type(value)
    if kind in _BARE:
        return value
    if kind is list or kind is tuple:
        return [_plain(item) for item in value]
    for known, plain in _PLAIN.items():
        if isinstance(value, known):
            return plain(value)
    if hasattr(value, "mongos_mode") and hasattr(value, "document"):
        return value.document
    if hasattr(value, "full_name") and hasattr(value, "name"):
        return value.name
    return _ordered(value)


def _ordered(value: Any) -> Any:
    """Return sets in an order that is the same in every process, and views as lists."""
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    return [list(pair) for pair in value] if isinstance(value, ItemsView) else value


_BARE = frozenset({dict, str, int, float, bool, bytes})


# ------------------------------------------------------------------------------- the plugin


class PyMongo:
    """What is done around a call of PyMongo's, sync or async, or of Motor's that runs on it."""

    def describe(
        self, row: MethodRow, instance: Any, arguments: dict[str, Any], session: Session
    ) -> Call | None:
        """Return the facts that identify a call."""
        url, options, client = _SCOPES[row.scope](instance)
        lib = clients.lib_of(client)
        if lib not in clients.enabled or lib in session.passthrough:
            return None
        method = row.method
        ended: list[tuple[str, Any]] = []
        if row.scope in ("collection", "database"):
            compared = {
                name: _plain(value)
                for name, value in arguments.items()
                if name not in _NOT_COMPARED
            }
            own, usual = _options_of(instance), _options_of(client)
            if own != usual:
                for name, value, inherited in zip(_OPTIONS, own, usual, strict=True):
                    if value != inherited:
                        compared[name] = value.document
            if row.method == "FIND_ONE":
                wanted = compared.get("filter")
                if wanted is not None and not isinstance(wanted, Mapping):
                    compared["filter"] = {"_id": wanted}  # as the driver does
            make_canonical(compared)
            self._leave_out_driver_made(row, arguments, compared)
        elif row.scope == "client":
            compared = {
                name: _plain(value)
                for name, value in arguments.items()
                if name not in _NOT_COMPARED
            }
        elif row.scope == "session":
            method = "COMMIT" if arguments["command_name"] == "commitTransaction" else "ABORT"
            ended = transactions.pop(instance, [])
            compared = {"operations": [name for name, _ in ended]}
        elif row.scope == "cursor":
            operation = arguments["operation"]
            compared = cursors.query_arguments(operation)
            make_canonical(compared)
            method = "EXPLAIN" if "explain" in compared else row.method
            options = operation.codec_options
        else:
            compared = {
                "pipeline": instance._aggregation_pipeline(),
                **instance._command_options(),
            }
            if instance._collation is not None:
                compared["collation"] = _plain(instance._collation)
        return Call(
            lib,
            method,
            url,
            compared,
            key_of(compared, options),
            tuple(event for _, event in ended if event),
        )

    @staticmethod
    def _leave_out_driver_made(
        row: MethodRow, arguments: dict[str, Any], compared: dict[str, Any]
    ) -> None:
        """Leave out of a GridFS file's document what GridFS made, not the program."""
        if row.method != "INSERT_ONE":
            return
        state = current()
        document = arguments.get("document")
        if isinstance(state, Session) and id(document) in state.driver_documents:
            assert document is not None
            compared["document"] = {
                key: value for key, value in document.items() if key != "uploadDate"
            }

    def before(self, exchange: Exchange, session: Session) -> None:
        """Note which of the caller's documents will get an `_id`, and who listens."""
        client = exchange.client = _client_of(exchange)
        if getattr(client, "_encrypter", None) is not None:
            exchange.sealed = True
        if (listeners := commands.listeners_of(client)) is not None:
            answer = str(getattr(exchange.row.reply, "path", exchange.row.raw))
            exchange.hearing = commands.Hearing(session, listeners, answer)
        documents = _documents(exchange)
        if documents:
            exchange.lacking_id = tuple(_lacking_id(documents))

    def recorded(self, exchange: Exchange, session: Session, outcome: Outcome) -> None:
        """Keep the ids that the driver made, the session's times, and a command it altered."""
        if exchange.lacking_id:
            outcome.extras["generated_ids"] = [
                to_json(document["_id"]) if "_id" in document else None
                for document in exchange.lacking_id
            ]
        driver_session = _explicit_session(exchange)
        if driver_session is not None:
            _note_operation(driver_session, exchange, exchange.eid)
            if exchange.call.ends:
                outcome.extras["ends"] = [
                    event if type(event) is int else event.eid for event in exchange.call.ends
                ]
            outcome.extras["session"] = {
                name: to_json(getattr(driver_session, name))
                for name in ("cluster_time", "operation_time")
                if getattr(driver_session, name, None) is not None
            }
        command = exchange.arguments.get("command")
        if isinstance(command, MutableMapping):
            added = _added(command, key_to_json(exchange.call.key)["command"])
            if added:
                outcome.extras["command"] = to_json(added)
        if id(exchange.arguments.get("document")) in session.driver_documents:
            document = session.driver_documents.pop(id(exchange.arguments["document"]))
            outcome.extras["upload_date"] = to_json(document.get("uploadDate"))
        if exchange.hearing is not None:
            known = exchange.payload is not None and not isinstance(outcome, failures.Failed)
            outcome.extras[commands.COMMANDS] = exchange.hearing.kept(known=known)
        offline.note_topology(exchange.client, session)

    def telling(self, exchange: Exchange, session: Session, event: Any) -> None:
        """Tell the client's listeners of the recorded commands, if it has any."""
        if exchange.row.scope == "cursor" and not event.failed:
            return  # with the reply, as for every further one
        client = _client_of(exchange)
        listeners = commands.listeners_of(client)
        if listeners is None:
            return
        result = event.result()
        live = commands.Live(
            partial(_answer, exchange, result),
            client,
            _explicit_session(exchange),
            cursors.number_of(event) if "cursor" in result else 0,
        )
        commands.tell(session, listeners, commands.of_step(result, 0), live)

    def replaying(self, exchange: Exchange, event: Any) -> None:
        """Do to the caller's documents and session what the driver did live."""
        documents = _documents(exchange)
        driver_session = _explicit_session(exchange)
        command = exchange.arguments.get("command")
        if not documents and driver_session is None and command is None:
            return
        result = event.result()
        if documents:
            _inject_ids(documents, result)
            document = exchange.arguments.get("document")
            if "upload_date" in result and isinstance(document, MutableMapping):
                document["uploadDate"] = from_json(result["upload_date"])
                current_session = current()
                if isinstance(current_session, Session):
                    current_session.driver_documents.pop(id(document), None)
        if driver_session is not None:
            _note_operation(driver_session, exchange, event)
            _restore(driver_session, result.get("session") or {})
        if isinstance(command, MutableMapping) and "command" in result:
            command.update(from_json(result["command"]))

    def keep_error(self, exchange: Exchange, error: BaseException) -> Outcome:
        """Take a snapshot of an exception."""
        return failures.keep(error, _options_for(exchange))

    def cancelled_after(self, event: Any) -> float | None:
        """Return for how many seconds a cancelled call waits, None for any other."""
        return failures.cancelled_after(event)

    def raise_recorded(self, exchange: Exchange, event: Any) -> None:
        """Raise the exception that the event recorded, if it did."""
        if event.failed:
            given = (*exchange.arguments.values(), *exchange.call.arguments.values())
            error = failures.rebuild(event.result()["error"], _options_for(exchange), given)
            if isinstance(error, BulkWriteError):
                _name_documents(error, exchange.arguments.get(exchange.row.documents))
            raise error


def _added(command: MutableMapping[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Return what the driver put into the caller's command, in a second call anew."""
    return {
        key: value
        for key, value in command.items()
        if key not in before or (key in _DRIVERS_FIELDS and to_json(value) != before[key])
    }


_DRIVERS_FIELDS = frozenset({"$clusterTime", "$readPreference", "lsid", "readConcern", "txnNumber"})


def _options_for(exchange: Exchange) -> Any:
    """Return the codec options with which the call's replies are decoded."""
    if exchange.row.scope == "cursor":
        return exchange.arguments["operation"].codec_options
    given = exchange.arguments.get("codec_options")
    return given or _SCOPES[exchange.row.scope](exchange.instance)[1]


def _answer(exchange: Exchange, result: dict[str, Any]) -> Any:
    """Return the recorded answer, or the first batch of it, as the driver decodes it."""
    data, cursor = body_of(result), result.get("cursor")
    if cursor is not None and isinstance(data, list):
        data = data[: cursor["batches"][0]]
    given = getattr(exchange.row.reply, "options", None)
    options = _options_for(exchange) if given is None else given(exchange)
    return bson.decode(json_to_bson({"v": data}), codec_options=options)["v"]


def _client_of(exchange: Exchange) -> Any:
    return _SCOPES[exchange.row.scope](exchange.instance)[2]


def _documents(exchange: Exchange) -> list[Any]:
    """Return the caller's documents that the driver gives an `_id`."""
    given = exchange.arguments.get(exchange.row.documents) if exchange.row.documents else None
    if given is None:
        return []
    listed = [given] if exchange.row.documents == "document" else given
    if not isinstance(listed, list | tuple):
        return []
    return [
        request._doc if isinstance(request, operations.InsertOne) else request
        for request in listed
        if isinstance(request, operations.InsertOne | MutableMapping)
    ]


def _lacking_id(documents: list[Any]) -> list[Any]:
    seen: dict[int, Any] = {}
    for document in documents:
        if isinstance(document, MutableMapping) and "_id" not in document:
            seen.setdefault(id(document), document)
    return list(seen.values())


def _name_documents(error: BulkWriteError, given: Any) -> None:
    """Put the caller's own documents into the error that tells which were refused, as live."""
    for refused in (error.details or {}).get("writeErrors") or ():
        if "op" in refused and isinstance(given, list | tuple):
            request = given[refused["index"]]
            if isinstance(request, operations.InsertOne):
                refused["op"] = request._doc
            elif isinstance(request, Mapping):
                refused["op"] = request


def _inject_ids(documents: list[Any], result: dict[str, Any]) -> None:
    ids = result.get("generated_ids")
    if ids is None:
        data = (result.get("body") or {}).get("data")
        data = data if isinstance(data, dict) else {}
        ids = data.get("inserted_ids") or ([data["inserted_id"]] if "inserted_id" in data else [])
    for document, generated in zip(_lacking_id(documents), ids, strict=False):
        if generated is not None:
            document["_id"] = from_json(generated)


def _explicit_session(exchange: Exchange) -> Any:
    """Return the ClientSession that the program gave or bound; None for the driver's own."""
    if exchange.row.scope == "session":
        return exchange.instance
    if exchange.row.scope == "cursor":
        given = exchange.arguments["operation"].session
    elif exchange.row.scope == "stream":
        given = exchange.instance._session
    else:
        given = exchange.arguments.get("session")
    if given is None:
        client = _client_of(exchange) if exchange.client is None else exchange.client
        bound = getattr(type(client), "_get_bound_session", None)
        given = bound(client) if bound is not None else None
    return None if getattr(given, "_implicit", True) else given


transactions: WeakKeyDictionary[Any, list[tuple[str, Any]]] = WeakKeyDictionary()
"""Session -> the calls of the transaction that is open in it, with the number of each one's event
or the event that answered it: what tells a commit or an abort from that of another transaction."""


def _note_operation(driver_session: Any, exchange: Exchange, event: Any) -> None:
    if exchange.row.scope != "session" and driver_session.in_transaction:
        call = exchange.call
        operations = transactions.setdefault(driver_session, [])
        operations.append((f"{call.method} {call.url}", event))


def _restore(driver_session: Any, times: dict[str, Any]) -> None:
    if driver_session.in_transaction and driver_session._starting_transaction:
        states = sys.modules[type(driver_session).__module__]._TxnState
        driver_session._transaction.state = states.IN_PROGRESS
    if "cluster_time" in times:
        driver_session._advance_cluster_time(from_json(times["cluster_time"]))
    if "operation_time" in times:
        driver_session._advance_operation_time(from_json(times["operation_time"]))


# ------------------------------------------------------------------------------- cursors

PLUGIN = PyMongo()


def _query_row(flavour: str, prefix: str) -> MethodRow:
    owner = f"pymongo.{flavour}.mongo_client:{prefix}MongoClient"
    row = MethodRow(owner, "_run_operation", "FIND", cursors.Find(), scope="cursor", reads=True)
    return row.on(owner, awaits=_awaits(row))


def _cursor_guard(flavour: str, prefix: str) -> GuardRow:
    row = _query_row(flavour, prefix)
    query = wrapper_for(row, _query_parameters, PLUGIN)
    following = _more_async if row.awaits else _more

    def run_operation(wrapped: Any, client: Any, args: Any, kwargs: Any) -> Any:
        operation, method = args[0], args[1]
        cursor = method.__self__
        if cursors.is_getmore(operation):
            return following(wrapped, cursor, operation, args, kwargs)
        if hasattr(cursor, cursors.LINK):
            delattr(cursor, cursors.LINK)  # rewound: the query is a new event
        if type(current()) is not Session:
            return wrapped(*args, **kwargs)
        return query(lambda *_, **__: wrapped(*args, **kwargs), cursor, (operation,), {})

    return GuardRow(row.owner, row.name, run_operation)


def _query_parameters(cursor: Any, operation: Any) -> None:
    """The parameters of a query, as `wrapper_for` reads them."""


def _more(wrapped: Any, cursor: Any, operation: Any, args: Any, kwargs: Any) -> Any:
    link = _link(cursor)
    errand = ERRAND.get()
    if isinstance(link, cursors.Reading):
        seconds = link.cancelled_after()
        if seconds is not None and errand is not None and errand.wait(seconds) and link.at_end:
            raise asyncio.CancelledError  # in the thread; nobody waits for it any more
        for pause in link.pauses():
            if errand is None:
                sleep(pause)
            elif errand.wait(pause):
                raise asyncio.CancelledError
        return cursors.respond(link, operation, cursor)
    started = perf_counter()
    hearing = cursors.hearing_on(link, cursor)
    if errand is not None and isinstance(link, cursors.CursorOutcome):
        errand.when_cancelled(partial(cursors.cancel, link, started, hearing))
    try:
        if hearing is None:
            response = wrapped(*args, **kwargs)
        else:
            exchange = cursors.reading_on(link)
            response = hearing.during(exchange, partial(wrapped, *args, **kwargs))
    except Exception as error:
        if errand is None or errand.finish():
            _ended(link, error, operation, hearing)
        raise
    _read_on(cursor, link, operation, response, hearing)
    return response


async def _more_async(wrapped: Any, cursor: Any, operation: Any, args: Any, kwargs: Any) -> Any:
    link = _link(cursor)
    if isinstance(link, cursors.Reading):
        seconds = link.cancelled_after()
        if seconds is not None:
            await asyncio.sleep(seconds)
        for pause in link.pauses():
            await asyncio.sleep(pause)
        return cursors.respond(link, operation, cursor)
    started = perf_counter()
    hearing = cursors.hearing_on(link, cursor)
    try:
        if hearing is None:
            response = await wrapped(*args, **kwargs)
        else:
            exchange = cursors.reading_on(link)
            response = await hearing.during_async(exchange, partial(wrapped, *args, **kwargs))
    except asyncio.CancelledError:
        if isinstance(link, cursors.CursorOutcome):
            cursors.cancel(link, started, hearing)
        raise
    except Exception as error:
        _ended(link, error, operation, hearing)
        raise
    _read_on(cursor, link, operation, response, hearing)
    return response


def _link(cursor: Any) -> Any:
    link = getattr(cursor, cursors.LINK, None)
    state = current()
    if link is None and isinstance(state, Session) and offline.replaying(_cursor_lib(cursor)):
        call = Call(clients.PYMONGO, "GET_MORE", _describe_cursor_url(cursor), {}, key_of({}))
        raise state.miss(
            call,
            ReadPastRecordingError,
            "a cursor that was opened before replay began cannot be read on in replay.",
        )
    return link


def _cursor_lib(cursor: Any) -> str:
    return clients.lib_of(cursor._collection.database.client)


def _describe_cursor_url(cursor: Any) -> str:
    return str(cursor._collection.full_name)


def _ended(link: Any, error: Exception, operation: Any, hearing: Any) -> None:
    if isinstance(link, cursors.CursorOutcome):
        cursors.fail(link, error, operation.codec_options, hearing)


def _read_on(cursor: Any, link: Any, operation: Any, response: Any, hearing: Any) -> None:
    if not isinstance(link, cursors.CursorOutcome):
        return
    try:
        following = cursors.go_on(link)
        setattr(cursor, cursors.LINK, following)
        cursors.more(following, operation, response, hearing)
    except Exception as error:
        link.session.failed("read on in", error)


# ------------------------------------------------------------------------------- GridFS


def _new_file(wrapped: Any, grid_in: Any, args: Any, kwargs: Any) -> Any:
    """GridIn's constructor: the `_id` it makes is the driver's, and is given back as recorded."""
    state = current()
    root = args[0] if args else kwargs.get("root_collection")
    lib = clients.lib_of(root.database.client) if hasattr(root, "database") else ""
    if not isinstance(state, Session) or lib not in clients.enabled - state.passthrough:
        return wrapped(*args, **kwargs)
    given = {key: value for key, value in kwargs.items() if key != "session"}
    result = wrapped(*args, **kwargs)
    document = object.__getattribute__(grid_in, "_file")
    state.driver_documents[id(document)] = document
    if "_id" not in given:
        given.pop("root_collection", None)
        call = Call(lib, "GRIDFS_NEW_FILE", root.full_name, given, key_of(given))
        _make_or_give_id(state, call, document)
    return result


_FILE_ID = Python(reached_server=False)


def _make_or_give_id(session: Session, call: Call, document: dict[str, Any]) -> None:
    event = session.answer(call, reads=True)
    if event is not None:
        document["_id"] = from_json(event.body())
        return
    row = MethodRow("gridfs", "GridIn", call.method, _FILE_ID)
    outcome = _FILE_ID.keep(Exchange(row, call, None, {}), document["_id"])
    session.record(call, outcome, begin(session))


# ------------------------------------------------------------------------------- on and off


@dataclass(frozen=True, slots=True)
class Flavour:
    """One of PyMongo's two APIs, which have the same classes under other names.

    Attributes:
        name: the package below `pymongo` and `gridfs`.
        prefix: what its class names begin with.
        executor: the class of its background threads or tasks.
    """

    name: str
    prefix: str
    executor: str


FLAVOURS = (
    Flavour("synchronous", "", "PeriodicExecutor"),
    Flavour("asynchronous", "Async", "AsyncPeriodicExecutor"),
)


def method_rows() -> tuple[MethodRow, ...]:
    """Return the rows of every method that is recorded."""
    return tuple(row for flavour in FLAVOURS for row in _flavour_rows(flavour.name, flavour.prefix))


def _openers(flavour: Flavour) -> tuple[GuardRow, ...]:
    # What a program may do first: an async client opens nothing before its first call.
    name, prefix = flavour.name, flavour.prefix
    return (
        *offline.openers(name, f"{prefix}MongoClient", flavour.executor),
        _cursor_guard(name, prefix),
        GuardRow(f"gridfs.{name}.grid_file:{prefix}GridIn", "__init__", _new_file),
    )


def _installation() -> Installation:
    openers = [row for flavour in FLAVOURS for row in _openers(flavour)]
    guards = [
        row
        for flavour in FLAVOURS
        for row in offline.guards(flavour.name, f"{flavour.prefix}MongoClient")
    ]
    shared = (*offline.SHARED_GUARDS, *commands.GUARDS)
    return Installation(PLUGIN, method_rows(), openers, (*shared, *guards))


_installed: Installation | None = None

before_installing: list[Callable[[], None]] = []
after_uninstalling: list[Callable[[], None]] = []
"""What is done around it for a library that keeps copies of PyMongo's functions."""


def enable_pymongo() -> None:
    """Record and replay the calls of every PyMongo client, also of those made before.

    Which mode is in force is looked at when the first call comes. Once is enough; more than once
    does no harm.

    Raises:
        ConfigError: a setting in the environment or in pyproject.toml is unknown or bad.
    """
    switch_on(LIB)


def disable_pymongo() -> None:
    """Undo `enable_pymongo`, leaving no trace in PyMongo."""
    switch_off(LIB)


def switch_on(lib: str) -> None:
    """Have the calls of a library recorded: "pymongo", or "motor", which runs on PyMongo."""
    global _installed
    settings = check_settings()
    runs.run_id()
    clients.enabled.add(lib)
    if settings.mode != "off":
        evidence.watch()
    else:
        at_first_session(evidence.watch)
    if _installed is None:
        for prepare in before_installing:
            prepare()
        _installed = _installation()
        _installed.install()
    refresh()
    begin_script()


def switch_off(lib: str) -> None:
    """Have the calls of a library recorded no longer."""
    global _installed
    clients.enabled.discard(lib)
    if _installed is not None and not clients.enabled:
        _installed.uninstall()
        _installed = None
        evidence.unwatch()
        for restore in after_uninstalling:
            restore()
