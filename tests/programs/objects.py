"""Clients, databases and collections made before, subclassed, derived; what they tell."""

import inspect

from pymongo import MongoClient, ReadPreference, WriteConcern
from pymongo.collection import Collection
from pymongo.cursor import Cursor
from pymongo.database import Database
from pymongo.read_concern import ReadConcern

from tests.support.programs import Steps, run

kept: dict[str, object] = {}


class OwnCollection(Collection):
    """Adds to every insert, and has a method of its own."""

    def insert_one(self, document, *args, **kwargs):
        document["own"] = True
        return super().insert_one(document, *args, **kwargs)

    def first(self):
        return self.find_one({}, sort=[("_id", 1)])

    def find_one(self, *args, **kwargs):
        found = super().find_one(*args, **kwargs)
        return found and {**found, "found by": type(self).__name__}


class OwnDatabase(Database):
    """Gives OwnCollection."""

    def __getitem__(self, name):
        return OwnCollection(self, name)


class OwnClient(MongoClient):
    """Gives OwnDatabase."""

    def __getitem__(self, name):
        return OwnDatabase(self, name)


class OwnCursor(Cursor):
    """Counts what it gives."""

    given = 0

    def next(self):
        self.given += 1
        return super().next()

    __next__ = next


def before(s: Steps) -> None:
    kept["collection"] = s.database["kept"]
    kept["insert"] = s.database["kept"].insert_one
    kept["find"] = s.database["kept"].find
    kept["cursor"] = s.database["kept"].find({"_id": 1})
    kept["class"] = Collection.insert_one


def steps(s: Steps) -> None:
    made_before(s)
    subclasses(s)
    derived(s)
    looks(s)
    topology(s)
    clients(s)


def made_before(s: Steps) -> None:
    s.call(kept["collection"].insert_one, {"_id": 1})
    s.call(list, kept["cursor"])
    s.call(kept["find"]({"_id": 1}).to_list)
    s.call(kept["collection"].sub.insert_one, {"_id": 1})
    s.call(kept["collection"].count_documents, {})


def subclasses(s: Steps) -> None:
    client = OwnClient(s.uri)
    items = client[s.database.name]["own"]
    s.call(items.insert_one, {"_id": 1})
    s.call(items.find_one, {"_id": 1})
    s.call(items.first)
    s.call(lambda: type(items.with_options()).__name__)
    s.call(lambda: list(items.aggregate([])))
    cursor = OwnCursor(items, {"_id": {"$gt": 0}})
    s.call(list, cursor)
    s.show("given", cursor.given)
    s.call(client.close)


def derived(s: Steps) -> None:
    items = s.database["own"]
    majority = items.with_options(
        read_preference=ReadPreference.PRIMARY_PREFERRED,
        write_concern=WriteConcern("majority", wtimeout=5000),
        read_concern=ReadConcern("majority"),
    )
    s.call(majority.insert_one, {"_id": 2})
    s.call(majority.find_one, {"_id": 2})
    s.call(lambda: list(majority.find()))
    s.call(items.find_one, {"_id": 2})
    database = s.client.get_database(s.database.name, write_concern=WriteConcern(1, j=True))
    s.call(database.own.insert_one, {"_id": 3})
    s.call(database.own.count_documents, {})
    default = MongoClient(s.uri).get_default_database(s.database.name)
    s.call(default["own"].find_one, {"_id": 3})
    s.show("equal", default["own"] == items)
    s.show("hash", hash(s.database["own"]) == hash(items))


def looks(s: Steps) -> None:
    for owner, names in (
        (Collection, ("insert_one", "find_one", "find", "aggregate", "bulk_write", "watch")),
        (Database, ("command", "list_collection_names")),
        (MongoClient, ("server_info", "bulk_write", "close")),
    ):
        for name in names:
            method = getattr(owner, name)
            s.show(name, list(inspect.signature(method).parameters))
            s.show("callable", (callable(method), inspect.iscoroutinefunction(method)))
            s.show("named", (method.__name__, method.__qualname__, method.__module__))
            s.show("documented", bool(method.__doc__))
    s.show("bound", s.database["own"].insert_one.__self__ == s.database["own"])
    s.show("is function", inspect.isfunction(Collection.insert_one))
    s.show("is method", inspect.ismethod(s.database["own"].insert_one))


def topology(s: Steps) -> None:
    client = s.client
    s.show("address", client.address is not None)
    s.show("is primary", client.is_primary)
    s.show("is mongos", client.is_mongos)
    s.show("primary", client.primary)
    s.show("secondaries", client.secondaries)
    s.show("arbiters", client.arbiters)
    s.show("nodes", client.nodes)
    description = client.topology_description
    s.show("type", description.topology_type_name)
    s.show("readable", description.has_readable_server())
    s.show(
        "servers", [found.server_type_name for found in description.server_descriptions().values()]
    )
    s.show("limits", [found.max_bson_size for found in description.server_descriptions().values()])
    s.show("host", (client.HOST, client.PORT, client.options.retry_writes))
    s.show("repr", len(repr(client)) > 20)


def clients(s: Steps) -> None:
    first, second = MongoClient(s.uri), MongoClient(s.uri, connect=False)
    name = s.database.name
    s.call(first[name]["own"].find_one, {"_id": 1})
    s.call(second[name]["own"].find_one, {"_id": 1})
    s.show("second", (second.is_primary, len(second.nodes)))
    s.call(first.close)
    s.call(second[name]["own"].find_one, {"_id": 2})
    with MongoClient(s.uri) as third:
        s.call(third.admin.command, "ping")
        s.call(third.start_session().end_session)
    s.call(third.admin.command, "ping")
    s.call(second.close)


if __name__ == "__main__":
    run(steps, before)
