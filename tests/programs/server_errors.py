"""Errors that a server or the network gives: class, args, code, details, labels, message."""

from pymongo import InsertOne, MongoClient, UpdateOne, WriteConcern
from pymongo.errors import PyMongoError

from tests.support.programs import Steps, run

NOBODY = "mongodb://127.0.0.1:9/"


def steps(s: Steps) -> None:
    s.database["items"].insert_many([{"_id": n, "n": n} for n in range(10)])
    codes(s)
    write_errors(s)
    networks(s)
    cursors(s)
    selection(s)


def codes(s: Steps) -> None:
    items = s.database["items"]
    calls = (
        ("find", lambda: items.find_one({"_id": 1})),
        ("find", lambda: list(items.find({"n": 1}))),
        ("insert", lambda: items.insert_one({"n": "failing"})),
        ("update", lambda: items.update_one({"_id": 1}, {"$inc": {"n": 1}})),
        ("delete", lambda: items.delete_many({"n": -1})),
        ("aggregate", lambda: list(items.aggregate([{"$count": "n"}]))),
        ("aggregate", lambda: items.count_documents({"n": 3})),
        ("count", items.estimated_document_count),
        ("distinct", lambda: items.distinct("n")),
        ("findAndModify", lambda: items.find_one_and_delete({"_id": -1})),
        ("createIndexes", lambda: items.create_index("n")),
        ("listIndexes", items.index_information),
        ("listCollections", s.database.list_collection_names),
        ("ping", lambda: s.database.command("ping")),
    )
    for code in (1, 13, 50, 262):
        for command, function in calls:
            with s.failing(command, errorCode=code):
                s.call(function)
    with s.failing("find", errorCode=50, errorLabels=["One", "Another"]):
        s.call(items.find_one, {"_id": 2})
    for code in (10107, 91):  # not primary, or shutting down: tried twice
        with s.failing("find", times=2, errorCode=code):
            s.call(items.find_one, {"_id": code})
        with s.failing("insert", times=2, errorCode=code):
            s.call(items.insert_one, {"_id": code})
    with s.failing("find", errorCode=10107):
        s.call(items.find_one, {"_id": 3})
    with s.failing("insert", errorCode=10107, errorLabels=["RetryableWriteError"]):
        s.call(items.insert_one, {"_id": "at the second try"})


def write_errors(s: Steps) -> None:
    items = s.database["items"]
    concern = {
        "code": 64,
        "codeName": "WriteConcernFailed",
        "errmsg": "waited",
        "errInfo": {"a": 1},
    }
    with s.failing("insert", writeConcernError=concern):
        s.call(items.insert_one, {"_id": "concern"})
    with s.failing("insert", writeConcernError=concern):
        s.call(items.insert_many, [{"_id": "concerns 1"}, {"_id": "concerns 2"}])
    with s.failing("update", writeConcernError=concern):
        s.call(items.bulk_write, [UpdateOne({"_id": 1}, {"$set": {"n": 1}})])
    with s.failing("update", writeConcernError={**concern, "errInfo": {"wtimeout": True}}):
        s.call(items.update_one, {"_id": 1}, {"$set": {"n": 1}})
    s.call(items.insert_one, {"_id": 1})
    s.call(items.create_index, "n", unique=True)
    s.call(items.update_one, {"_id": 1}, {"$set": {"n": 2}})
    s.call(items.update_many, {"_id": 1}, {"$set": {"_id": 2}})
    s.call(items.find_one_and_update, {"_id": 1}, {"$set": {"n": 2}})
    s.call(items.replace_one, {"_id": 1}, {"n": 2})
    s.call(items.bulk_write, [InsertOne({"_id": 1}), InsertOne({"_id": 2})], ordered=False)
    s.database.create_collection(
        "strict",
        validator={"$jsonSchema": {"required": ["n"], "properties": {"n": {"minimum": 3}}}},
    )
    strict = s.database["strict"]
    s.call(strict.insert_one, {"n": 1})
    s.call(strict.insert_many, [{"n": 4}, {"n": 1}])
    s.call(strict.update_one, {"n": 4}, {"$set": {"n": 2}})
    majority = s.database.get_collection("items", write_concern=WriteConcern(50, wtimeout=1))
    s.call(majority.insert_one, {"_id": "fifty servers"})


def networks(s: Steps) -> None:
    items = s.database["items"]
    with s.failing("find", times=2, closeConnection=True):
        s.call(items.find_one, {"_id": "closed"})
    with s.failing("find", closeConnection=True):
        s.call(items.find_one, {"_id": 4})
    with s.failing("update", times=2, closeConnection=True):
        s.call(items.update_one, {"_id": 4}, {"$inc": {"n": 100}})
    with s.failing("insert", times=2, closeConnection=True):
        failed = {"n": "closed"}
        s.call(items.insert_one, failed)
    with s.failing("aggregate", times=2, closeConnection=True):
        s.call(items.aggregate, [{"$match": {"n": "closed"}}])
    quick = s.options(socketTimeoutMS=100, retryReads=False, retryWrites=False)["items"]
    with s.failing("find", blockConnection=True, blockTimeMS=400):
        s.call(quick.find_one, {"_id": "slow"})
    with s.failing("insert", blockConnection=True, blockTimeMS=400):
        s.call(quick.insert_one, {"_id": "slow"})
    with s.failing("find", closeConnection=True):
        s.call(lambda: list(quick.find({"_id": "closed"})))
    timed = s.options(timeoutMS=200, retryReads=False, retryWrites=False)["items"]
    with s.failing("find", blockConnection=True, blockTimeMS=600):
        s.call(timed.find_one, {"_id": "slow, timeoutMS"})


def cursors(s: Steps) -> None:
    items = s.database["items"]
    for code in (43, 50, 11601):
        cursor = items.find({"_id": {"$lt": 10 + code}}, batch_size=2)
        s.call(next, cursor)
        with s.failing("getMore", errorCode=code):
            s.call(list, cursor)
        s.show("after the error", cursor)
        s.call(list, cursor)
    cursor = items.find({"n": {"$lt": 99}}, batch_size=2)
    s.call(next, cursor)
    with s.failing("getMore", closeConnection=True):
        s.call(list, cursor)
    s.show("after the error", cursor)
    cursor = s.call(items.aggregate, [{"$sort": {"_id": 1}}], batchSize=3)
    s.call(next, cursor)
    with s.failing("getMore", errorCode=43):
        s.call(list, cursor)
    s.show("after the error", cursor)
    raw = items.find_raw_batches({}, batch_size=3)
    s.call(next, raw)
    with s.failing("getMore", errorCode=43):
        s.call(list, raw)
    raw = items.aggregate_raw_batches([{"$sort": {"_id": 1}}], batchSize=3)
    s.call(next, raw)
    with s.failing("getMore", errorCode=43):
        s.call(list, raw)


def selection(s: Steps) -> None:
    with MongoClient(NOBODY, serverSelectionTimeoutMS=200) as client:
        nobody = client["nobody"]["items"]
        for function in (
            lambda: nobody.find_one({"_id": 1}),
            lambda: nobody.insert_one({"_id": 1}),
            lambda: list(nobody.find({"_id": 2})),
            client.list_database_names,
            lambda: nobody.bulk_write([InsertOne({"_id": 1})]),
        ):
            try:
                s.show("unexpected", function())
            except PyMongoError as error:
                s.show("error", type(error))
                s.show("its timeout", error.timeout)
                s.show("its address", "127.0.0.1:9" in str(error))
        made = {"n": 1}
        try:
            nobody.insert_one(made)
        except PyMongoError:
            s.show("given an _id", "_id" in made)


if __name__ == "__main__":
    run(steps)
