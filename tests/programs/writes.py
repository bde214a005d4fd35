"""Every write of a collection, with its options, and what becomes of its arguments."""

from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from bson.son import SON
from pymongo import (
    DeleteMany,
    DeleteOne,
    InsertOne,
    ReplaceOne,
    ReturnDocument,
    UpdateMany,
    UpdateOne,
    WriteConcern,
)
from pymongo.collation import Collation
from pymongo.read_concern import ReadConcern

from tests.support.programs import Steps, run

CASELESS = Collation("en", strength=2)
FIXED = ObjectId("650000000000000000000001")


def steps(s: Steps) -> None:
    inserts(s)
    updates(s)
    replaces(s)
    deletes(s)
    finds_and_changes(s)
    bulks(s)
    unacknowledged(s)


def inserts(s: Steps) -> None:
    people = s.database["people"]
    s.call(people.insert_one, {"_id": 1, "name": "Ada"})
    s.call(people.insert_one, document={"_id": FIXED, "name": "Grace"}, comment="by keyword")
    made = {"name": "Linus"}
    s.call(people.insert_one, made)
    s.call(people.find_one, {"_id": made["_id"]})
    s.call(people.insert_one, {"name": "twice", "n": 1})
    s.call(people.insert_one, {"name": "twice", "n": 1})
    s.call(people.insert_one, SON([("name", "son"), ("n", 2)]))
    s.call(people.insert_one, {"_id": None, "name": "an _id that is None"})
    s.call(people.insert_one, RawBSONDocument(b"\x0e\x00\x00\x00\x10_id\x00\x07\x00\x00\x00\x00"))
    s.call(people.insert_one, {"_id": 1, "name": "duplicate"})
    s.call(people.insert_one, {"_id": 50}, bypass_document_validation=True)
    s.call(people.insert_many, [{"_id": 2, "n": 1}, {"_id": 3, "n": 2}])
    s.call(people.insert_many, [{"n": 3}, {"_id": 4}, {"n": 4}])
    s.call(people.insert_many, ({"n": n} for n in (5, 6)))
    s.call(people.insert_many, ({"n": 7}, {"n": 8}), ordered=False, comment={"by": "tuple"})
    s.call(people.insert_many, [{"n": 9}, {"_id": 2}, {"n": 10}])
    s.call(people.insert_many, [{"n": 11}, {"_id": 2}, {"n": 12}], ordered=False)
    once = iter([{"_id": 60}, {"_id": 61}])
    s.call(people.insert_many, once)
    s.show("left in the iterator", list(once))
    same = {"n": 13}
    s.call(people.insert_many, [same, same])
    s.call(people.count_documents, {})


def updates(s: Steps) -> None:
    items = s.database["items"]
    items.insert_many([{"_id": n, "n": n, "tags": ["a", "b"], "sku": f"S{n}"} for n in range(6)])
    s.call(items.create_index, "n")
    s.call(items.update_one, {"_id": 0}, {"$set": {"n": 10}})
    s.call(items.update_one, {"_id": 0}, {"$set": {"n": 10}})
    s.call(items.update_one, {"_id": 99}, {"$set": {"n": 1}})
    s.call(items.update_one, {"_id": 100}, {"$set": {"n": 1}}, upsert=True)
    s.call(items.update_one, {"sku": "new"}, {"$set": {"n": 2}}, True)
    s.call(
        items.update_one, filter={"_id": 1}, update=[{"$set": {"double": {"$add": ["$n", "$n"]}}}]
    )
    s.call(items.update_one, {"sku": "s2"}, {"$inc": {"n": 1}}, collation=CASELESS)
    s.call(items.update_one, {"n": {"$gte": 3}}, {"$inc": {"n": 1}}, hint="n_1")
    s.call(items.update_one, {"n": {"$gte": 3}}, {"$inc": {"n": 1}}, hint=[("n", 1)])
    s.call(
        items.update_one,
        {"_id": 1},
        {"$set": {"tags.$[tag]": "A"}},
        array_filters=[{"tag": "a"}],
        comment="array filters",
        bypass_document_validation=True,
    )
    s.call(items.update_one, {"_id": 2}, [{"$set": {"n": "$$new"}}], let={"new": 42})
    s.call(items.update_one, {"_id": 2}, {"n": 1})
    s.call(items.update_one, {"_id": 2}, {"$no": 1})
    s.call(items.update_many, {}, {"$inc": {"n": 1}})
    s.call(items.update_many, {"sku": "another"}, {"$set": {"n": 2}}, upsert=True)
    s.call(items.update_many, {"_id": {"$in": [1, 2]}}, {"$set": {"many": True}}, comment="many")
    s.call(items.update_many, {"sku": "s3"}, {"$set": {"c": 1}}, collation=CASELESS, hint="n_1")
    s.call(items.find_one, {"_id": 1})


def replaces(s: Steps) -> None:
    items = s.database["replaced"]
    items.insert_one({"_id": 1, "v": 1})
    s.call(items.replace_one, {"_id": 1}, {"v": 2})
    s.call(items.replace_one, {"_id": 9}, {"v": 3})
    s.call(items.replace_one, {"_id": 9}, {"v": 3}, upsert=True, comment="upsert")
    made = {"v": 4}
    s.call(items.replace_one, filter={"v": 4}, replacement=made, upsert=True)
    s.call(items.replace_one, {"v": 4}, SON([("v", 5), ("w", 1)]), hint="_id_")
    s.call(items.replace_one, {"_id": 1}, {"$set": {"v": 1}})
    s.call(items.replace_one, {"_id": 1}, {"v": 1, "_id": 1}, collation=CASELESS, let={"a": 1})
    s.call(items.find_one, {"_id": 1})


def deletes(s: Steps) -> None:
    items = s.database["deleted"]
    items.insert_many([{"_id": n, "k": "abcde"[n % 5]} for n in range(10)])
    s.call(items.delete_one, {"_id": 0})
    s.call(items.delete_one, {"_id": 0})
    s.call(items.delete_one, filter={"k": "B"}, collation=CASELESS)
    s.call(items.delete_one, {"k": "c"}, hint="_id_", comment="hint", let={"a": 1})
    s.call(items.delete_many, {"k": {"$in": ["a", "d"]}})
    s.call(items.delete_many, {"k": "C"}, CASELESS)
    s.call(items.delete_many, {}, comment=1)
    s.call(items.delete_many, {})


def finds_and_changes(s: Steps) -> None:
    items = s.database["changed"]
    items.insert_many([{"_id": n, "n": n, "tags": ["a", "b"], "k": "K"} for n in range(8)])
    s.call(items.find_one_and_update, {"_id": 0}, {"$inc": {"n": 1}})
    s.call(items.find_one_and_update, {"_id": 0}, {"$inc": {"n": 1}}, {"n": 1, "_id": 0})
    s.call(
        items.find_one_and_update,
        {"k": "k"},
        {"$inc": {"n": 1}},
        sort=[("n", -1)],
        return_document=ReturnDocument.AFTER,
        collation=CASELESS,
    )
    s.call(items.find_one_and_update, {"_id": 77}, {"$inc": {"n": 1}})
    s.call(
        items.find_one_and_update,
        {"_id": 77},
        {"$inc": {"n": 1}},
        upsert=True,
        return_document=ReturnDocument.AFTER,
        projection=["n"],
    )
    s.call(
        items.find_one_and_update,
        {"_id": 1},
        {"$set": {"tags.$[t]": "z"}},
        array_filters=[{"t": "a"}],
        hint="_id_",
        let={"a": 1},
        comment="all",
        maxTimeMS=5000,
    )
    s.call(items.find_one_and_update, {"_id": 1}, {"n": 1})
    s.call(items.find_one_and_replace, {"_id": 2}, {"n": "replaced"})
    s.call(items.find_one_and_replace, {"_id": 2}, {"n": 0}, {"_id": 1}, [("n", 1)], False, True)
    s.call(items.find_one_and_replace, {"_id": 78}, {"n": 0}, upsert=True)
    s.call(items.find_one_and_delete, {"_id": 2})
    s.call(items.find_one_and_delete, {"_id": 2})
    s.call(items.find_one_and_delete, {"n": {"$lt": 6}}, sort=[("n", -1)], projection={"n": 1})
    s.call(items.find_one_and_delete, filter={"k": "k"}, collation=CASELESS, hint=[("_id", 1)])


def bulks(s: Steps) -> None:
    items = s.database["bulk"]
    made = {"n": "no id"}
    requests = [
        InsertOne({"_id": 1, "n": 1}),
        InsertOne(made),
        InsertOne({"_id": 2, "n": 2, "tags": ["a"]}),
        UpdateOne({"_id": 1}, {"$inc": {"n": 5}}, upsert=True),
        UpdateOne({"_id": 3}, {"$set": {"n": 3}}, upsert=True),
        UpdateMany({"n": {"$gt": 2}}, {"$set": {"big": True}}, collation=CASELESS),
        UpdateOne({"_id": 2}, {"$set": {"tags.$[t]": "A"}}, array_filters=[{"t": "a"}]),
        ReplaceOne({"_id": 3}, {"n": 33}, hint="_id_"),
        ReplaceOne({"_id": 4}, {"n": 44}, upsert=True),
        DeleteOne({"_id": 4}, collation=CASELESS),
        DeleteMany({"n": 999}, hint=[("_id", 1)]),
    ]
    s.call(items.bulk_write, requests)
    s.call(items.bulk_write, iter([InsertOne({"_id": 10}), DeleteOne({"_id": 10})]), ordered=False)
    s.call(
        items.bulk_write,
        requests=[UpdateOne({"_id": 1}, [{"$set": {"n": "$$n"}}])],
        let={"n": 7},
        comment="let",
        bypass_document_validation=True,
    )
    broken = [InsertOne({"_id": 20}), InsertOne({"_id": 1}), InsertOne({"n": "after"})]
    s.call(items.bulk_write, broken)
    s.call(items.bulk_write, [InsertOne({"_id": 1}), InsertOne({"_id": 21})], ordered=False)
    s.call(items.bulk_write, [])
    s.call(items.bulk_write, [{"_id": 5}])
    s.call(items.bulk_write, [UpdateOne({"_id": 1}, {"$no": 1})])
    s.call(items.find_one, {"_id": 1})
    with s.client.start_session() as session:
        s.call(items.bulk_write, [DeleteOne({"_id": 1})], session=session)
        s.call(items.insert_one, {"_id": "in a session"}, session=session)


def unacknowledged(s: Steps) -> None:
    items = s.database.get_collection("w0", write_concern=WriteConcern(w=0))
    s.call(items.insert_one, {"_id": 1})
    s.call(items.insert_one, {"n": 1})
    s.call(items.insert_many, [{"n": 2}, {"n": 3}])
    result = s.call(items.update_one, {"_id": 1}, {"$set": {"n": 1}})
    s.call(getattr, result, "matched_count")
    s.call(items.delete_one, {"_id": 1})
    s.call(items.replace_one, {"_id": 1}, {"n": 1})
    s.call(items.bulk_write, [InsertOne({"_id": 5}), DeleteOne({"_id": 5})])
    s.call(items.find_one_and_delete, {"_id": "none"})
    majority = s.database.get_collection(
        "w0", write_concern=WriteConcern("majority"), read_concern=ReadConcern("majority")
    )
    s.call(majority.count_documents, {"_id": "none"})


if __name__ == "__main__":
    run(steps)
