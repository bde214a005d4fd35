"""The driver calls that MongoEngine's async API makes, made with AsyncMongoClient itself.

No release of MongoEngine has that API yet; its documents save, read, delete, hold references and
files, and run in transactions by these calls.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import io
import secrets
import warnings
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid1, uuid4

from bson import DBRef, ObjectId
from gridfs import AsyncGridFSBucket
from pymongo import AsyncMongoClient, InsertOne, ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError


async def main(uri: str, database: str, say: Callable[[str, Any], None]) -> None:
    client: Any = AsyncMongoClient(uri, uuidRepresentation="standard")
    db = client[database]
    await documents(db, say)
    await queries(db, say)
    await references(db, say)
    await files(db, say)
    await transactions(client, db, say)
    await made_values(client, db, say)
    await errors(db, say)
    await never_awaited(db, say)
    await db.user.drop()
    say("dropped", await db.list_collection_names(filter={"name": "user"}))
    await client.close()


async def documents(db: Any, say: Callable[[str, Any], None]) -> None:
    users = db.get_collection("user").with_options()
    await users.create_index([("name", 1)], unique=True, background=False)
    ann = {"_id": ObjectId(), "name": "Ann", "active": True, "logins": 0}
    say("created", (await users.insert_one(ann)).inserted_id)
    before = await users.find_one_and_replace({"_id": ann["_id"]}, {**ann, "logins": 1})
    say("replaced", before)
    result = await users.update_one({"_id": ann["_id"]}, {"$set": {"logins": 2}}, upsert=True)
    say("updatedExisting", result.raw_result["updatedExisting"])
    result = await users.update_one({"_id": ObjectId()}, {"$set": {"name": "Bob"}}, upsert=True)
    say("upserted", (result.raw_result["updatedExisting"], result.upserted_id))
    say("reloaded", await users.find_one({"_id": ann["_id"]}))
    many = [{"name": f"User{number}", "active": number % 2 == 0} for number in range(5)]
    say("inserted", len((await users.insert_many(many)).inserted_ids))
    say("given ids", [document["_id"] for document in many])


async def queries(db: Any, say: Callable[[str, Any], None]) -> None:
    users = db["user"]
    cursor = users.find({"active": True}).sort("name", 1).limit(2)
    say("limited", [document["name"] async for document in cursor])
    await cursor.close()
    cursor = users.find({}, batch_size=2).sort("name", -1)
    say("one", (await cursor.next())["name"])
    async for document in cursor:
        say("two", document["name"])
        break
    say("the rest", [document["name"] async for document in cursor])
    say("exists", await users.find_one({"name": "Ann"}, projection={"_id": 1}) is not None)
    say("count", await users.count_documents({"active": False}, skip=1))
    say("distinct", await users.distinct("active"))
    result = await users.update_many({"active": False}, {"$inc": {"logins": 1}})
    say("update", result.raw_result["n"])
    changed = await users.find_one_and_update(
        {"name": "Bob"}, {"$inc": {"logins": 5}}, return_document=ReturnDocument.AFTER
    )
    say("modified", changed["logins"])
    say("deleted", (await users.delete_many({"name": {"$in": ["User0", "User1"]}})).deleted_count)
    stages = [{"$group": {"_id": "$active", "n": {"$sum": 1}}}, {"$sort": {"n": -1, "_id": 1}}]
    say("aggregate", [row async for row in await users.aggregate(stages)])
    explained = await users.find({"name": "Ann"}).explain()
    say("explained", "queryPlanner" in explained)


async def references(db: Any, say: Callable[[str, Any], None]) -> None:
    ann = await db.user.find_one({"name": "Ann"})
    post = {"_id": ObjectId(), "author": ann["_id"], "ref": DBRef("user", ann["_id"])}
    await db.post.insert_one(post)
    say("fetched", (await db.user.find_one({"_id": post["author"]}))["name"])
    say("dereferenced", (await db.dereference(post["ref"]))["name"])
    names = await asyncio.gather(*(db.user.find_one({"name": f"User{n}"}) for n in (2, 3, 4)))
    say("together", [found["name"] for found in names])
    pulled = await db.post.update_many({"author": {"$in": [ann["_id"]]}}, {"$unset": {"author": 1}})
    say("nullified", pulled.modified_count)


async def files(db: Any, say: Callable[[str, Any], None]) -> None:
    bucket = AsyncGridFSBucket(db, bucket_name="fs")
    text = io.BytesIO(b"text " * 60_000)
    kept = await bucket.upload_from_stream("a.txt", text, metadata={"n": 1})
    stream = await bucket.open_download_stream(kept)
    say("file", (stream.length, stream.metadata, await stream.read(4)))
    say("read on", len(await stream.read()))
    async with bucket.open_upload_stream("b.txt") as out:
        await out.write(b"first ")
        await out.write(b"second")
    say("by name", await (await bucket.open_download_stream_by_name("b.txt")).read())
    say("listed", [file.filename async for file in bucket.find({}).sort("filename", 1)])
    await bucket.delete(kept)
    say("left", await db["fs.chunks"].count_documents({}))


async def transactions(client: Any, db: Any, say: Callable[[str, Any], None]) -> None:
    async with client.start_session() as session:
        await session.start_transaction()
        await db.user.update_one({"name": "Ann"}, {"$inc": {"logins": -1}}, session=session)
        await db.user.update_one({"name": "Bob"}, {"$inc": {"logins": 1}}, session=session)
        await session.commit_transaction()
        await session.start_transaction()
        await db.user.insert_one({"_id": ObjectId(), "name": "Cid"}, session=session)
        say("inside", await db.user.count_documents({"name": "Cid"}, session=session))
        await session.abort_transaction()

    async def move(session: Any) -> int:
        await db.user.update_one({"name": "Bob"}, {"$inc": {"logins": 10}}, session=session)
        return (await db.user.find_one({"name": "Bob"}, session=session))["logins"]

    async with client.start_session() as session:
        say("with_transaction", await session.with_transaction(move))
    say("aborted", await db.user.count_documents({"name": "Cid"}))


def now() -> datetime:
    return datetime.now(timezone.utc)


def visit(**more: Any) -> dict[str, Any]:
    made = {"_id": uuid4(), "mark": ObjectId(), "code": secrets.token_urlsafe(64), "at": now()}
    return {**made, "token": secrets.token_hex(16), "ends": now() + timedelta(hours=1), **more}


async def made_values(client: Any, db: Any, say: Callable[[str, Any], None]) -> None:
    visits = db["visit"]
    await visits.create_index("code", unique=True)
    one, two, three = (visit(n=n, batch=str(uuid1())) for n in (1, 2, 3))
    say("inserted", (await visits.insert_one(one)).inserted_id == one["_id"])
    writes = [InsertOne(two), InsertOne(three)]
    writes.append(UpdateOne({"_id": uuid4()}, {"$set": {"code": "none"}}, upsert=True))
    result = await visits.bulk_write(writes)
    say("upserted ids", result.upserted_ids)
    say("visits", [(v["_id"], v["mark"], v["code"], v["token"], v["batch"]) for v in (one, two)])
    for name in ("_id", "mark", "code", "token", "batch"):
        say(f"by {name}", (await visits.find_one({name: two[name]}))["n"])
    found = visits.find({"_id": {"$in": list({one["_id"], three["_id"]})}, "ends": {"$gt": now()}})
    say("in", sorted([document["n"] async for document in found]))
    say("either", await visits.count_documents({"$or": [{"mark": one["mark"]}, {"n": 3}]}))
    page = visits.find({"at": {"$lte": now()}, "mark": {"$gt": one["mark"]}}).sort("mark", 1)
    say("next page", [document["n"] async for document in page.limit(1)])
    path = f"/visits/{one['_id']}/{one['mark']}?at={now().isoformat()}"
    change = {"$set": {"path": path, f"seen.{two['mark']}": now()}, "$push": {"by": two["_id"]}}
    changed = await visits.find_one_and_update(
        {"_id": one["_id"]}, change, return_document=ReturnDocument.AFTER
    )
    say("path", (changed["path"] == path, changed["path"], list(changed["seen"])))
    etag = hashlib.md5(repr(sorted(changed)).encode() + one["mark"].binary).hexdigest()
    await visits.update_one({"_id": one["_id"]}, {"$set": {"etag": etag}})
    say("etag", (await visits.find_one({"etag": etag}, {"etag": 1}))["etag"] == etag)
    stages = [{"$match": {"mark": {"$in": [one["mark"], two["mark"]]}, "at": {"$lt": now()}}}]
    stages += [{"$project": {"code": 1, "_id": 0}}, {"$sort": {"code": 1}}]
    codes = [row["code"] async for row in await visits.aggregate(stages)]
    say("codes", sorted(codes) == sorted([one["code"], two["code"]]))
    link = DBRef("visit", one["_id"], since=one["at"], by=two["mark"])
    await db.post.insert_one({"_id": f"link-{one['mark']}", "visit": link})
    kept = (await db.post.find_one({"_id": f"link-{one['mark']}"}))["visit"]
    say("link", (kept.id == one["_id"], kept.by == two["mark"]))
    bucket = AsyncGridFSBucket(db, bucket_name="shots")
    for document in (one, two):
        facts = {"of": document["_id"], "taken": now()}
        await bucket.upload_from_stream_with_id(
            document["mark"], f"{document['code']}.png", b"shot", metadata=facts
        )
    shot = await bucket.open_download_stream(two["mark"])
    say("shot", (shot.filename == f"{two['code']}.png", shot.metadata["of"] == two["_id"]))
    say("shots", [s.metadata["of"] == one["_id"] async for s in bucket.find({"_id": one["mark"]})])
    together = await asyncio.gather(*(visits.find_one({"code": v["code"]}) for v in (three, one)))
    say("gathered", [document["n"] for document in together])
    async with client.start_session() as session, await session.start_transaction():
        order = {"_id": str(uuid4()), "visit": two["_id"], "paid": now()}
        await db.post.insert_one(order, session=session)
        change = {"$set": {"order": order["_id"]}}
        await visits.update_one({"_id": two["_id"]}, change, session=session)
    say("ordered", (await visits.find_one({"order": order["_id"]}))["n"])
    say("order", order["_id"])
    try:
        await visits.insert_one(visit(code=three["code"]))
    except DuplicateKeyError as error:
        say("made code twice", error.details["keyValue"])
    gone = await visits.delete_many({"ends": {"$gt": now()}, "mark": {"$ne": three["mark"]}})
    say("gone", (gone.deleted_count, await visits.find_one({"code": one["code"]})))


async def errors(db: Any, say: Callable[[str, Any], None]) -> None:
    try:
        await db.user.insert_one({"_id": ObjectId(), "name": "Ann"})
    except DuplicateKeyError as error:
        say("DuplicateKeyError", (error.code, error.details["keyPattern"]))
    try:
        await db.user.insert_many([{"name": "Dee"}, {"name": "Ann"}, {"name": "Eve"}])
    except BulkWriteError as error:
        say("BulkWriteError", error.details["writeErrors"])


async def never_awaited(db: Any, say: Callable[[str, Any], None]) -> None:
    warnings.simplefilter("ignore", RuntimeWarning)
    db.user.insert_one({"name": "Nobody"})
    db.user.find_one({"name": "Ann"})
    gc.collect()
    say("no effect", await db.user.count_documents({"name": "Nobody"}))
