"""The calls of a database and of a client: commands, collections, databases, bulk writes."""

import datetime

from bson import DBRef, ObjectId
from bson.codec_options import CodecOptions
from bson.son import SON
from pymongo import (
    DeleteMany,
    DeleteOne,
    InsertOne,
    ReadPreference,
    ReplaceOne,
    UpdateMany,
    UpdateOne,
    WriteConcern,
)

from tests.support.programs import Steps, run

SON_OPTIONS = CodecOptions(document_class=SON, tz_aware=True)


def steps(s: Steps) -> None:
    s.database["items"].insert_many(
        [{"_id": n, "n": n % 3, "at": datetime.datetime(2020, 1, n + 1)} for n in range(7)]
    )
    commands(s)
    collections(s)
    references(s)
    databases(s)
    bulks(s)


def commands(s: Steps) -> None:
    database = s.database
    s.call(database.command, "ping")
    s.call(database.command, {"ping": 1})
    count = SON([("count", "items"), ("query", {"n": 1})])
    s.call(database.command, count)
    s.call(database.command, count)
    s.call(database.command, "count", "items", query={"n": 2})
    find = {"find": "items", "filter": {"n": 1}, "limit": 1}
    s.call(lambda: database.command(find)["cursor"]["firstBatch"])
    s.call(lambda: database.command(find, codec_options=SON_OPTIONS)["cursor"]["firstBatch"])
    s.show("the command", find)
    s.call(database.command, "no such command")
    s.call(database.command, "no such command", check=False)
    s.call(database.command, "collStats", "nothing", allowable_errors=["ns not found"])
    s.call(database.command, "ping", read_preference=ReadPreference.NEAREST)
    s.call(lambda: sorted(database.command("buildInfo"))[:3])
    with s.client.start_session() as session:
        s.call(database.command, {"distinct": "items", "key": "n"}, session=session)
        s.show("seen a time", session.operation_time is not None)
    cursor = s.call(database.cursor_command, "find", "items", filter={"n": 1}, batchSize=2)
    s.call(list, cursor)
    s.show("read", cursor)
    s.call(
        list,
        s.call(database.cursor_command, {"find": "items", "limit": 2}, codec_options=SON_OPTIONS),
    )
    s.call(database.cursor_command, "ping")
    s.call(list, s.call(database.aggregate, [{"$documents": [{"a": 1}, {"a": 2}]}]))
    s.call(list, s.call(database.aggregate, [{"$match": {}}]))
    s.call(lambda: database.validate_collection("items")["valid"])
    s.call(lambda: database.validate_collection(database["items"], full=True)["nrecords"])
    s.call(database.validate_collection, "nothing")


def collections(s: Steps) -> None:
    database = s.database
    made = s.call(database.create_collection, "made", comment="first")
    s.call(made.insert_one, {"_id": 1})
    s.call(database.create_collection, "made")
    s.call(database.create_collection, "made", check_exists=False)
    s.call(
        database.create_collection,
        "optioned",
        codec_options=SON_OPTIONS,
        write_concern=WriteConcern("majority"),
        read_preference=ReadPreference.NEAREST,
        validator={"n": {"$exists": True}},
        collation={"locale": "en", "strength": 2},
    )
    s.call(database.create_collection, "view", viewOn="items", pipeline=[{"$match": {"n": 0}}])
    s.call(list, database["view"].find())
    s.call(database["view"].options)
    s.call(database.list_collection_names)
    s.call(database.list_collection_names, filter={"name": "made"}, comment="named")
    s.call(database.list_collection_names, {"type": "no session"})
    s.call(lambda: sorted(info["name"] for info in database.list_collections()))
    s.call(list, s.call(database.list_collections, filter={"name": "optioned"}))
    with s.client.start_session() as session:
        s.call(list, database.list_collections(session, filter={"name": "made"}, batchSize=1))
    s.call(database.drop_collection, "made")
    s.call(database.drop_collection, database["optioned"], comment="by object")
    s.call(database.drop_collection, "never there")
    s.call(database.drop_collection, "")


def references(s: Steps) -> None:
    database = s.database
    s.call(database.dereference, DBRef("items", 3))
    s.call(database.dereference, DBRef("items", 3, database.name))
    s.call(database.dereference, DBRef("items", ObjectId("650000000000000000000001")))
    s.call(database.dereference, DBRef("items", 3, "another"))
    s.call(database.dereference, "no reference")


def databases(s: Steps) -> None:
    client, name = s.client, s.database.name
    s.call(lambda: type(client.server_info()["version"]))
    s.call(lambda: name in client.list_database_names())
    s.call(lambda: client.list_database_names(comment="all of them").count(name))
    s.call(client.list_database_names, filter={"name": name})
    s.call(lambda: [found["name"] for found in client.list_databases(filter={"name": name})])
    s.call(lambda: [found["name"] for found in client.list_databases(nameOnly=True)].count(name))
    s.call(client.list_databases, nonsense=1)
    other = client[f"{name}_other"]
    s.call(other["there"].insert_one, {"_id": 1})
    s.call(client.drop_database, other.name)
    s.call(client.drop_database, other, comment="again")
    s.call(client.drop_database, 5)
    s.call(other["there"].count_documents, {})


def bulks(s: Steps) -> None:
    client, space = s.client, f"{s.database.name}.bulk"
    made = {"n": "no id"}
    models = [
        InsertOne({"_id": 1, "n": 1}, namespace=space),
        InsertOne(made, namespace=f"{space}_other"),
        UpdateOne({"_id": 1}, {"$inc": {"n": 1}}, namespace=space),
        UpdateMany({"n": {"$gt": 0}}, {"$set": {"big": True}}, upsert=True, namespace=space),
        ReplaceOne({"_id": 2}, {"n": 2}, upsert=True, namespace=space),
        DeleteOne({"_id": 2}, namespace=space),
        DeleteMany({"n": 99}, namespace=space),
    ]
    s.call(client.bulk_write, models)
    more = [InsertOne({"_id": 3}, namespace=space), DeleteOne({"_id": 3}, namespace=space)]
    s.call(client.bulk_write, more, verbose_results=True, comment="verbose")
    s.call(
        client.bulk_write,
        [
            InsertOne({"n": 1}, namespace=space),
            UpdateOne({"_id": 1}, {"$set": {"m": 1}}, namespace=space),
        ],
        ordered=False,
        verbose_results=True,
        bypass_document_validation=True,
        let={"a": 1},
    )
    failing = [InsertOne({"_id": 10}, namespace=space), InsertOne({"_id": 1}, namespace=space)]
    s.call(client.bulk_write, [*failing, InsertOne({"n": "after"}, namespace=space)])
    s.call(client.bulk_write, failing[1:], ordered=False, verbose_results=True)
    s.call(client.bulk_write, [])
    s.call(client.bulk_write, [InsertOne({"_id": 5})])
    s.call(
        client.bulk_write,
        [InsertOne({"_id": 20}, namespace=space)],
        ordered=False,
        write_concern=WriteConcern(w=0),
    )
    s.call(client[s.database.name]["bulk"].find_one, {"_id": 1})


if __name__ == "__main__":
    run(steps)
