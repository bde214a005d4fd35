"""Queries and their cursors: every argument of find, batches, and all that can be done half-way."""

import threading

from bson import Code, Regex
from bson.son import SON
from pymongo import ASCENDING, CursorType
from pymongo.collation import Collation
from pymongo.read_concern import ReadConcern

from tests.support.programs import Steps, run

CASELESS = Collation("en", strength=2)


def steps(s: Steps) -> None:
    items = s.database["items"]
    items.insert_many(
        [{"_id": n, "n": n % 5, "name": f"Item {n}", "tags": [n, "t"]} for n in range(20)]
    )
    items.create_index("n")
    arguments(s)
    chaining(s)
    batches(s)
    slicing(s)
    again(s)
    several(s)
    half_way(s)
    raw(s)
    tailable(s)
    explained(s)
    errors(s)


def read(s: Steps, cursor: object) -> None:
    s.call(list, cursor)
    s.show("read", cursor)


def arguments(s: Steps) -> None:
    items = s.database["items"]
    read(s, s.call(items.find))
    read(s, s.call(items.find, {"n": 1}, {"name": True}))
    read(s, s.call(items.find, {"n": 1}, ["name"], 1, 2))
    read(s, s.call(items.find, {}, sort=[("n", -1), ("_id", ASCENDING)], limit=4))
    read(s, s.call(items.find, {}, sort="n", limit=2, projection={"_id": 0, "n": 1}))
    read(s, s.call(items.find, {"n": 3}, hint="n_1", comment="hinted"))
    read(s, s.call(items.find, {}, hint=[("_id", 1)], min=[("_id", 3)], max=[("_id", 6)]))
    read(s, s.call(items.find, {"name": "ITEM 2"}, collation=CASELESS))
    read(s, s.call(items.find, {"n": 2}, hint="n_1", return_key=True))
    read(s, s.call(items.find, {"n": 2}, show_record_id=True, limit=1))
    read(s, s.call(items.find, {"n": 2}, batch_size=2, max_time_ms=5000, allow_disk_use=True))
    read(s, s.call(items.find, {"n": 4}, no_cursor_timeout=True, allow_partial_results=True))
    read(s, s.call(items.find, {"$expr": {"$eq": ["$n", "$$w"]}}, let={"w": 0}))
    read(s, s.call(items.find, {"tags": {"$elemMatch": {"$gte": 18, "$lt": 99}}}))
    read(s, s.call(items.find, {"name": Regex("1$")}, {"tags": {"$slice": -1}}))
    read(s, s.call(items.find, {"_id": "none"}))
    read(s, s.call(items.find, SON([("n", 1), ("_id", {"$lt": 10})])))
    with s.client.start_session() as session:
        read(s, s.call(items.find, {"n": 0}, session=session, batch_size=2))


def chaining(s: Steps) -> None:
    items = s.database["items"]
    read(s, items.find({"n": {"$lt": 3}}).sort("_id", -1).skip(2).limit(5).batch_size(2))
    read(s, items.find().sort([("n", 1), ("_id", -1)]).limit(-3))
    read(s, items.find({"n": 1}).hint("n_1").comment("chained").max_time_ms(5000))
    read(s, items.find().hint([("_id", 1)]).min([("_id", 2)]).max([("_id", 4)]))
    read(s, items.find({"name": "item 3"}).collation(CASELESS).allow_disk_use(True))
    read(s, items.find().where("this.n == 1"))
    read(s, items.find().where(Code("this.n == 1")))
    read(s, items.with_options(read_concern=ReadConcern("local")).find({"n": 4}))
    s.call(items.find({"n": 2}).distinct, "name")
    s.call(items.find().sort("n").distinct, "n")
    s.call(items.find({"n": 2}).to_list)
    s.call(items.find({"n": 2}).to_list, 2)
    s.call(items.find({"n": 2}).to_list, length=0)


def batches(s: Steps) -> None:
    cursor = s.database["items"].find({}, {"_id": 1}, batch_size=3)
    s.show("not asked yet", cursor)
    for _ in range(4):
        s.call(next, cursor)
        s.show("after one", cursor)
    s.call(cursor.to_list, 5)
    s.show("after ten", cursor)
    s.call(lambda: [document["_id"] for document in cursor])
    s.show("at the end", cursor)
    s.call(next, cursor)
    s.call(cursor.close)


def slicing(s: Steps) -> None:
    items = s.database["items"]
    s.call(lambda: items.find().sort("_id", 1)[5])
    s.call(lambda: list(items.find().sort("_id", 1)[2:5]))
    s.call(lambda: list(items.find().sort("_id", 1)[18:]))
    s.call(lambda: items.find()[100])
    s.call(lambda: items.find()[-1])
    s.call(lambda: list(items.find()[5:5]))
    cursor = items.find()
    s.call(next, cursor)
    s.call(lambda: cursor[0])
    s.call(cursor.limit, 5)


def again(s: Steps) -> None:
    items = s.database["items"]
    cursor = items.find({"n": 3}, batch_size=2)
    read(s, cursor)
    s.call(cursor.rewind)
    read(s, cursor)
    s.call(items.insert_one, {"_id": 100, "n": 3})
    s.call(cursor.rewind)
    s.call(next, cursor)
    clone = s.call(cursor.clone)
    read(s, clone)
    read(s, cursor)
    s.call(items.delete_one, {"_id": 100})


def several(s: Steps) -> None:
    items = s.database["items"]
    first, second = (items.find({"n": {"$gte": n}}, batch_size=3).sort("_id", 1) for n in (1, 3))
    s.call(lambda: [(a["_id"], b["_id"]) for a, b in zip(first, second, strict=False)])
    equal = [items.find({"n": 1}, batch_size=2) for _ in range(2)]
    s.call(lambda: [[document["_id"] for document in cursor] for cursor in equal])
    s.call(
        lambda: [
            cursor["_id"] for pair in zip(*map(_restart, equal), strict=True) for cursor in pair
        ]
    )
    found: list[object] = []
    if s.stage == "replay":  # where no thread can be started
        found.extend(items.find({"n": 2}, batch_size=2))
    else:
        reader = items.find({"n": 2}, batch_size=2)
        thread = threading.Thread(target=lambda: found.extend(reader))
        thread.start()
        thread.join()
    s.show("read in another thread", found)


def _restart(cursor):
    return cursor.rewind()


def half_way(s: Steps) -> None:
    items = s.database["items"]
    cursor = items.find({}, batch_size=4).sort("_id", 1)
    s.call(next, cursor)
    s.call(cursor.close)
    s.show("closed", cursor)
    s.call(list, cursor)
    with items.find({"n": {"$gt": 0}}, batch_size=4) as cursor:
        s.call(next, cursor)
    s.show("left", cursor)
    read(s, items.find({}, {"_id": 1}, batch_size=4).sort("_id", 1))
    dropped = items.find({"n": {"$gt": 1}}, batch_size=2)
    s.call(next, dropped)
    del dropped
    read(s, items.find({"n": 2}))
    never = items.find({"n": 1})
    s.call(never.close)
    s.call(list, never)


def raw(s: Steps) -> None:
    items = s.database["items"]
    read(s, s.call(items.find_raw_batches, {"n": 1}))
    read(s, s.call(items.find_raw_batches, {}, {"name": 1}, batch_size=8, sort=[("_id", -1)]))
    cursor = s.call(items.find_raw_batches, {}, batch_size=7)
    s.call(next, cursor)
    s.show("after one", cursor)
    s.call(cursor.rewind)
    s.call(cursor.to_list)
    read(s, s.call(items.find_raw_batches, {"n": "none"}))
    s.call(lambda: items.find_raw_batches({"n": 1})[0])


def tailable(s: Steps) -> None:
    s.call(s.database.create_collection, "capped", capped=True, size=100_000)
    capped = s.database["capped"]
    s.call(capped.insert_many, [{"_id": n} for n in range(3)])
    cursor = s.call(capped.find, cursor_type=CursorType.TAILABLE)
    for _ in range(5):
        s.call(next, cursor)
    s.show("at the end", cursor)
    s.call(capped.insert_one, {"_id": 3})
    s.call(next, cursor)
    s.call(next, cursor)
    s.call(cursor.close)
    waiting = s.call(
        capped.find, {"_id": {"$gte": 2}}, cursor_type=CursorType.TAILABLE_AWAIT, oplog_replay=False
    )
    waiting.max_await_time_ms(50)
    for _ in range(4):
        s.call(next, waiting)
    s.call(waiting.close)
    exhaust = s.call(s.database["items"].find, cursor_type=CursorType.EXHAUST, batch_size=6)
    s.call(lambda: [document["_id"] for document in exhaust])
    s.show("exhausted", exhaust)
    exhaust = s.database["items"].find({"n": 2}, cursor_type=CursorType.EXHAUST, batch_size=2)
    s.call(next, exhaust)
    s.call(exhaust.close)


def explained(s: Steps) -> None:
    plan = s.call(lambda: sorted(s.database["items"].find({"n": 1}).explain()))
    s.show("the plan's keys", plan)
    cursor = s.database["items"].find({"n": 2}).sort("_id", 1)
    s.call(lambda: cursor.explain()["queryPlanner"]["namespace"])
    read(s, cursor)


def errors(s: Steps) -> None:
    items = s.database["items"]
    s.call(list, items.find({"$no": 1}))
    s.call(list, items.find({}, {"a": 1, "b": 0}))
    s.call(list, items.find({"n": 1}, hint="never there"))
    s.call(items.find, [1])
    s.call(items.find, {}, 5)
    s.call(items.find, nonsense=1)
    s.call(items.find().sort, "n", "up")
    s.call(items.find, {}, batch_size=-1)
    s.call(items.find, {}, cursor_type=9)


if __name__ == "__main__":
    run(steps)
