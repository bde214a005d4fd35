"""The reads of a collection, its indexes, and the collection as a whole."""

from bson import ObjectId, Regex
from bson.son import SON
from pymongo import ASCENDING, DESCENDING, IndexModel, ReadPreference
from pymongo.collation import Collation
from pymongo.operations import SearchIndexModel
from pymongo.read_concern import ReadConcern

from tests.support.programs import Steps, run

CASELESS = Collation("en", strength=2)


def steps(s: Steps) -> None:
    s.database["items"].insert_many(
        [
            {"_id": n, "n": n % 5, "name": f"Item {n}", "tags": ["a", "b", n], "sub": {"k": n}}
            for n in range(12)
        ]
    )
    find_one(s)
    counts(s)
    distincts(s)
    indexes(s)
    aggregates(s)
    whole(s)
    search_indexes(s)


def find_one(s: Steps) -> None:
    items = s.database["items"]
    s.call(items.find_one)
    s.call(items.find_one, 3)
    s.call(items.find_one, ObjectId("650000000000000000000001"))
    s.call(items.find_one, {"_id": 4})
    s.call(items.find_one, {"_id": 4.0})
    s.call(items.find_one, {"_id": {"$eq": 4}})
    s.call(items.find_one, {"_id": 404})
    s.call(items.find_one, {"n": 2}, {"name": 1, "_id": 0})
    s.call(items.find_one, {"n": 2}, ["name"], 1)
    s.call(items.find_one, filter={"n": {"$gte": 2}}, sort=[("n", -1), ("_id", 1)], skip=1)
    s.call(items.find_one, {"name": Regex("^item 7", "i")})
    s.call(items.find_one, {"name": "ITEM 8"}, collation=CASELESS, hint="_id_", comment="one")
    s.call(items.find_one, {"_id": {"$gt": 3}}, max_time_ms=5000, allow_disk_use=True)
    s.call(items.find_one, {"_id": 1}, return_key=True, hint="_id_")
    s.call(items.find_one, {"_id": 1}, projection={"tags": {"$slice": 1}})
    s.call(items.find_one, SON([("n", 1), ("_id", 6)]))
    s.call(items.find_one, {"_id": {"$in": [5, 6]}}, batch_size=1)
    s.call(items.find_one, {"$expr": {"$eq": ["$n", "$$wanted"]}}, let={"wanted": 3})
    s.call(items.find_one, {"_id": 4}, nonsense=True)
    s.call(items.find_one, {"$nonsense": 1})
    s.call(items.find_one, [1, 2])
    with s.client.start_session() as session:
        s.call(items.find_one, {"_id": 5}, session=session)
    with s.client.start_session(causal_consistency=False) as session:
        s.call(items.find_one, {"_id": 5}, session=session)


def counts(s: Steps) -> None:
    items = s.database["items"]
    s.call(items.count_documents, {})
    s.call(items.count_documents, {"n": 1}, skip=1, limit=1)
    s.call(items.count_documents, filter={"name": "ITEM 1"}, collation=CASELESS, hint="_id_")
    s.call(items.count_documents, {"n": {"$gt": 1}}, maxTimeMS=5000, comment="counted")
    s.call(items.count_documents, {"$no": 1})
    s.call(items.count_documents, None)
    s.call(items.estimated_document_count)
    s.call(items.estimated_document_count, maxTimeMS=5000, comment="estimated")
    s.call(s.database["nothing"].estimated_document_count)


def distincts(s: Steps) -> None:
    items = s.database["items"]
    s.call(items.distinct, "n")
    s.call(items.distinct, "tags", {"_id": {"$lt": 2}})
    s.call(items.distinct, key="sub", filter={"_id": 3}, comment="sub", maxTimeMS=5000)
    s.call(items.distinct, "name", {"name": "ITEM 3"}, collation=CASELESS)
    s.call(items.distinct, "nothing")
    s.call(items.distinct, 5)


def indexes(s: Steps) -> None:
    items = s.database["items"]
    s.call(items.index_information)
    s.call(items.create_index, "n")
    s.call(items.create_index, [("n", ASCENDING), ("name", DESCENDING)], name="both", unique=True)
    s.call(
        items.create_index,
        [("name", 1)],
        collation=CASELESS,
        partialFilterExpression={"n": {"$gt": 2}},
        sparse=False,
        comment="partial",
    )
    s.call(items.create_index, "n", unique=True)
    s.call(items.create_index, [])
    s.call(
        items.create_indexes,
        [IndexModel([("sub.k", DESCENDING)], expireAfterSeconds=3600), IndexModel("tags")],
    )
    s.call(items.create_indexes, "no models")
    s.call(items.index_information)
    s.call(list, s.call(items.list_indexes))
    with s.client.start_session() as session:
        s.call(list, s.call(items.list_indexes, session=session, comment="in a session"))
    s.call(items.drop_index, "n_1")
    s.call(items.drop_index, [("sub.k", DESCENDING)])
    s.call(items.drop_index, "never there")
    s.call(items.drop_indexes, comment="all")
    s.call(items.index_information)
    s.call(list, s.call(s.database["nothing"].list_indexes))
    s.call(s.database["nothing"].index_information)


def aggregates(s: Steps) -> None:
    items = s.database["items"]
    grouped = [{"$group": {"_id": "$n", "sum": {"$sum": "$_id"}}}, {"$sort": SON([("_id", 1)])}]
    s.call(list, s.call(items.aggregate, grouped))
    s.call(list, s.call(items.aggregate, pipeline=grouped, batchSize=2, allowDiskUse=True))
    cursor = s.call(items.aggregate, [{"$match": {"_id": {"$lt": 7}}}], batchSize=3)
    s.call(next, cursor)
    s.call(cursor.try_next)
    s.show("after two", cursor)
    s.call(cursor.to_list, 3)
    s.call(cursor.to_list)
    s.show("at the end", cursor)
    s.call(next, cursor)
    s.call(
        list,
        s.call(
            items.aggregate,
            [{"$match": {"$expr": {"$eq": ["$n", "$$wanted"]}}}, {"$project": {"name": 1}}],
            let={"wanted": 1},
            hint="_id_",
            collation=CASELESS,
            comment="let",
            maxTimeMS=5000,
        ),
    )
    s.call(list, s.call(items.aggregate, []))
    s.call(items.aggregate, [{"$no": 1}])
    s.call(items.aggregate, "no list")
    s.call(list, s.call(items.aggregate, grouped, explain=True))
    s.call(list, s.call(items.aggregate, [{"$match": {"n": 1}}, {"$out": "out"}]))
    s.call(s.database["out"].count_documents, {})
    s.call(list, s.call(items.aggregate, [{"$match": {"n": 2}}, {"$merge": {"into": "out"}}]))
    s.call(s.database["out"].count_documents, {})
    s.call(list, s.call(items.aggregate_raw_batches, grouped))
    batches = s.call(items.aggregate_raw_batches, [{"$sort": {"_id": 1}}], batchSize=5)
    s.show("raw cursor", batches)
    s.call(list, batches)
    s.show("raw cursor read", batches)
    s.call(list, s.call(items.aggregate_raw_batches, [{"$match": {"_id": "none"}}]))
    with s.client.start_session() as session:
        s.call(list, s.call(items.aggregate, grouped, session=session))
    half = s.call(items.aggregate, [{"$sort": {"_id": -1}}], batchSize=2)
    s.call(next, half)
    s.call(half.close)
    s.show("closed", half)
    s.call(list, half)


def whole(s: Steps) -> None:
    items = s.database["items"]
    s.call(items.options)
    s.database.create_collection("made", validator={"n": {"$type": "int"}})
    s.call(s.database["made"].options)
    s.call(s.database["made"].insert_one, {"n": "no int"})
    s.call(s.database["made"].insert_one, {"n": "no int"}, True)
    s.call(s.database["nothing"].options)
    s.call(s.database["out"].rename, "renamed")
    s.call(s.database["renamed"].rename, "items", dropTarget=False)
    s.call(s.database["renamed"].rename, "renamed")
    s.call(s.database["nothing"].rename, "anything", comment="not there")
    s.call(s.database["renamed"].rename, "")
    s.call(s.database["renamed"].drop)
    s.call(s.database["renamed"].drop, comment="again")
    other = items.with_options(
        read_preference=ReadPreference.SECONDARY_PREFERRED, read_concern=ReadConcern("local")
    )
    s.call(other.find_one, {"_id": 2})
    s.call(other.count_documents, {"n": 3})


def search_indexes(s: Steps) -> None:
    items = s.database["items"]
    definition = {"mappings": {"dynamic": True}}
    s.call(items.create_search_index, definition)
    s.call(items.create_search_index, SearchIndexModel(definition, name="named"))
    s.call(items.create_search_indexes, [SearchIndexModel(definition, name="another")])
    s.call(items.update_search_index, "named", definition)
    s.call(items.drop_search_index, "named")
    s.call(items.list_search_indexes)
    s.call(items.list_search_indexes, "named", comment="one")


if __name__ == "__main__":
    run(steps)
