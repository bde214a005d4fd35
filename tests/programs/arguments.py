"""The arguments that no other program gives."""

from bson import DBRef
from pymongo import CursorType, IndexModel, ReadPreference
from pymongo.collation import Collation
from pymongo.operations import SearchIndexModel
from pymongo.read_concern import ReadConcern

from tests.support.programs import Steps, run

CASELESS = Collation("en", strength=2)
BY_ID = [("_id", 1)]


def steps(s: Steps) -> None:
    items = s.database["items"]
    s.call(
        items.insert_many,
        [{"_id": n, "n": n % 3, "tags": ["a"]} for n in range(9)],
        bypass_document_validation=True,
    )
    reads(s)
    writes(s)
    indexes(s)
    wider(s)


def reads(s: Steps) -> None:
    items = s.database["items"]
    s.call(items.find_one, {"n": 1}, min=[("_id", 0)], max=[("_id", 5)], hint=BY_ID)
    s.call(items.find_one, {"n": 1}, show_record_id=True)
    s.call(items.find_one, {"n": 1}, limit=5, cursor_type=CursorType.NON_TAILABLE)
    s.call(items.find_one, {"n": 1}, allow_partial_results=True, oplog_replay=True)
    s.call(items.find_one, {"n": 1}, cursor_type=CursorType.EXHAUST)
    s.call(items.find_one, {"n": 1}, max_scan=5)
    s.call(items.find_one, {"n": 1}, snapshot=True)
    with s.client.start_session() as session:
        s.call(items.find_one, {"n": 1}, no_cursor_timeout=True, session=session)
    s.call(list, s.call(items.find, {"n": 1}, max_scan=5))
    s.call(list, s.call(items.find, {"n": 1}, None, 1, 1, False, 0, [("_id", -1)], False, False, 2))
    s.call(items.distinct, "n", hint="_id_")
    s.call(list, s.call(items.aggregate_raw_batches, [{"$sort": {"_id": 1}}], comment="raw"))
    s.call(items.options, comment="options")


def writes(s: Steps) -> None:
    items = s.database["items"]
    s.call(items.replace_one, {"_id": 0}, {"n": 5}, bypass_document_validation=True)
    s.call(
        items.update_many,
        {"n": 1},
        {"$set": {"tags.$[t]": "b"}},
        array_filters=[{"t": "a"}],
        bypass_document_validation=True,
    )
    s.call(items.update_many, {"n": 1}, [{"$set": {"m": "$$m"}}], let={"m": 5})
    s.call(items.delete_many, {"$expr": {"$eq": ["$_id", "$$id"]}}, hint=BY_ID, let={"id": 8})
    s.call(items.find_one_and_delete, {"_id": 7}, comment="gone", let={"a": 1})
    s.call(
        items.find_one_and_replace, {"_id": 6}, {"n": 6}, hint="_id_", comment="new", let={"a": 1}
    )


def indexes(s: Steps) -> None:
    items = s.database["items"]
    s.call(items.create_indexes, [IndexModel("n", name="by n")], comment="made")
    s.call(items.index_information, comment="told")
    s.call(items.drop_index, "by n", comment="gone")
    model = SearchIndexModel({"mappings": {"dynamic": True}}, name="search")
    s.call(items.create_search_index, model, comment="search")
    s.call(items.create_search_indexes, [model], comment="search")
    s.call(items.update_search_index, "search", {"mappings": {}}, comment="search")
    s.call(items.drop_search_index, "search", comment="search")


def wider(s: Steps) -> None:
    database = s.database
    s.call(database.command, "ping", comment="command")
    cursor = s.call(
        database.cursor_command,
        "find",
        "items",
        comment="cursor",
        max_await_time_ms=100,
        read_preference=ReadPreference.SECONDARY_PREFERRED,
        batchSize=2,
        sort={"_id": 1},
    )
    s.call(list, cursor)
    s.call(database.create_collection, "concerned", read_concern=ReadConcern("majority"))
    s.call(
        lambda: [found["name"] for found in database.list_collections(comment="listed")].count(
            "items"
        )
    )
    s.call(database.drop_collection, "concerned", encrypted_fields={"fields": []})
    s.call(database["items"].drop, encrypted_fields={"fields": []})
    s.call(lambda: database.validate_collection("other", scandata=True))
    database["other"].insert_one({"_id": 1})
    s.call(lambda: database.validate_collection("other", background=True, comment="ok")["nrecords"])
    s.call(lambda: database.validate_collection("other", scandata=True)["nrecords"])
    s.call(database.dereference, DBRef("other", 1), comment="followed")
    s.call(lambda: len(list(s.client.list_databases(comment="listed"))) > 0)


if __name__ == "__main__":
    run(steps)
