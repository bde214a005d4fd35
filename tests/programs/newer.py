"""What PyMongo has had since 4.17, and the oldest supported release lacks."""

from bson.errors import InvalidDocument
from gridfs import GridFSBucket
from pymongo import ReplaceOne, UpdateOne

from tests.support.programs import Steps, run

SINCE = (4, 17)


class Opaque:
    """A type that BSON cannot hold."""


def steps(s: Steps) -> None:
    bound_sessions(s)
    sorted_updates(s)
    file_names(s)
    refused_documents(s)


def bound_sessions(s: Steps) -> None:
    accounts = s.database["accounts"]
    s.call(accounts.insert_many, [{"_id": n, "balance": 100} for n in range(3)])
    session = s.client.start_session()
    with session.bind():
        s.call(accounts.find_one, {"_id": 1})
        s.show("times", (session.cluster_time, session.operation_time))
        with session.start_transaction():
            s.call(accounts.update_one, {"_id": 1}, {"$inc": {"balance": 3}})
            s.call(list, accounts.find({"_id": 1}))
        s.call(accounts.insert_one, {"_id": 1})
    s.show("ended", session)
    with s.client.start_session().bind() as session, session.start_transaction():
        s.call(accounts.delete_one, {"_id": 2})
        s.call(session.abort_transaction)
    s.call(lambda: [found["balance"] for found in accounts.find().sort("_id", 1)])


def sorted_updates(s: Steps) -> None:
    items = s.database["items"]
    items.insert_many([{"_id": n, "k": 1, "n": n} for n in range(4)])
    s.call(items.update_one, {"k": 1}, {"$set": {"hit": 1}}, sort={"n": -1})
    s.call(items.replace_one, {"k": 1}, {"replaced": True}, sort={"n": 1})
    requests = [
        UpdateOne({"k": 1}, {"$set": {"hit": 2}}, sort={"n": -1}),
        ReplaceOne({"k": 1}, {"replaced": True}, sort={"n": -1}),
    ]
    s.call(items.bulk_write, requests)
    s.call(list, items.find().sort("_id", 1))


def file_names(s: Steps) -> None:
    files = GridFSBucket(s.database)
    s.call(files.upload_from_stream, "one", b"1")
    s.call(files.upload_from_stream, "one", b"2")
    s.call(files.rename_by_name, "one", "two")
    s.call(files.delete_by_name, "two")
    s.call(files.delete_by_name, "two")


def refused_documents(s: Steps) -> None:
    held = {"value": Opaque()}
    for function in (
        lambda: s.database["items"].insert_one(held),
        lambda: s.database["items"].insert_many([{"n": 1}, held]),
        lambda: s.database["items"].find_one(held),
    ):
        try:
            function()
        except InvalidDocument as error:
            s.show("the caller's own object", _within(error.document) is held["value"])
            s.show("the caller's own document", error.document is held)


def _within(document):
    return document.get("value") or document["filter"]["value"]


if __name__ == "__main__":
    run(steps)
