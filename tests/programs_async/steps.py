"""Every method of the table, by the same steps through every driver."""

from __future__ import annotations

import datetime
import decimal
import io
import sys
import uuid
from pathlib import Path
from typing import Any

import bson
from bson import SON, Binary, CodecOptions, DBRef, Decimal128, Int64, ObjectId
from bson.codec_options import TypeCodec, TypeRegistry
from bson.raw_bson import RawBSONDocument
from pymongo import (
    CursorType,
    DeleteMany,
    DeleteOne,
    IndexModel,
    InsertOne,
    ReplaceOne,
    ReturnDocument,
    UpdateMany,
    UpdateOne,
    WriteConcern,
)
from pymongo.operations import SearchIndexModel

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.programs_async.harness import Driver, it, main, raised, step

A = ObjectId("65f000000000000000000001")


def numbered(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"_id": number, "n": number % 3, **more} for number in range(count)]


@step
async def insert(t: Driver) -> Any:
    c = t.db.insert
    document = {"name": "Ann", "at": datetime.datetime(2024, 2, 29), "big": Int64(1)}
    one = await it(c.insert_one(document))
    many = [{"i": 1}, {"i": 2, "_id": A}]
    result = await it(c.insert_many(iter(many)))
    return [
        one.inserted_id == document["_id"],
        list(document),
        one.acknowledged,
        [list(d) for d in many],
        result.inserted_ids[1] == A,
        await it(c.find_one({"name": "Ann"}, {"_id": 0})),
        await it(c.find_one(A)),
        await it(c.find_one({"name": "nobody"})),
        await it(c.find_one()) is not None,
        await it(c.count_documents({"i": {"$gt": 0}})),
        await it(c.estimated_document_count()),
    ]


@step
async def bulk(t: Driver) -> Any:
    c = t.db.bulk
    requests = [
        InsertOne({"_id": 1, "x": 1}),
        InsertOne({"_id": 2, "x": 2}),
        UpdateOne({"_id": 1}, {"$inc": {"x": 5}}),
        UpdateMany({}, {"$set": {"y": 1}}),
        ReplaceOne({"_id": 3}, {"z": 1}, upsert=True),
        DeleteOne({"_id": 2}),
        DeleteMany({"_id": 99}),
    ]
    return [
        await it(c.bulk_write(requests)),
        await raised(lambda: c.bulk_write([InsertOne({"_id": 1}), InsertOne({"_id": 5})])),
        await raised(lambda: c.insert_many([{"_id": 1}, {"_id": 6}], ordered=False)),
        await t.read(c.find().sort("_id", 1)),
    ]


@step
async def change(t: Driver) -> Any:
    c = t.db.change
    await it(c.insert_many(numbered(9)))
    return [
        await it(c.update_one({"_id": 1}, {"$set": {"a": 1}})),
        await it(c.update_one({"_id": 77}, {"$set": {"a": 1}}, upsert=True)),
        await it(c.update_many({"n": 2}, [{"$set": {"b": "$n"}}])),
        await it(c.replace_one({"_id": 3}, {"c": [1, {"d": 2.5}]})),
        await it(c.delete_one({"_id": 0})),
        await it(c.delete_many({"n": 2})),
        await it(c.find_one_and_update({"_id": 1}, {"$inc": {"a": 1}})),
        await it(
            c.find_one_and_update(
                {"_id": 1}, {"$inc": {"a": 1}}, return_document=ReturnDocument.AFTER
            )
        ),
        await it(c.find_one_and_replace({"_id": 3}, {"c": 2})),
        await it(c.find_one_and_delete({"_id": 3}, projection={"_id": 0})),
        await it(c.find_one_and_delete({"_id": "none"})),
        await it(c.distinct("n", {"_id": {"$gt": 1}})),
        await raised(lambda: c.update_one({"_id": 1}, {"a": 1})),
        await raised(lambda: c.insert_one({"_id": 1})),
        type(await raised(lambda: c.insert_one({"x": object()}))).__name__,
        await raised(lambda: c.insert_one({"x": 2**65})),
        await raised(lambda: c.update_one({"_id": 1}, {"$nope": 1})),
    ]


@step
async def cursors(t: Driver) -> Any:
    c = t.db.cursors
    await it(c.insert_many(numbered(10)))
    found = c.find({"_id": {"$gte": 0}}, {"n": 0}, batch_size=3).sort("_id", -1)
    first = await t.read(found, 4)
    more = await t.read(found, 3)
    alive = found.alive
    rest = await t.read(found)
    done = [found.alive, bool(found.cursor_id)]
    await it(found.rewind())
    again = await t.read(found, 2)
    await t.close(found)
    copy = found.clone()
    listed = await it(copy.to_list(length=5))
    tail = await it(copy.to_list(length=None))
    return [
        first,
        more,
        alive,
        rest,
        done,
        again,
        found.alive,
        listed,
        tail,
        await t.read(c.find().sort([("n", 1), ("_id", -1)]).skip(2).limit(3)),
        await t.read(c.find({"_id": {"$in": [1, 2]}}).hint("_id_").comment("why")),
        await t.read(c.find().min([("_id", 2)]).max([("_id", 4)]).hint([("_id", 1)])),
        await it(c.find().sort("_id", 1).distinct("n")),
        await raised(lambda: t.read(c.find({"_id": {"$nope": 1}}))),
        sorted((await it(c.find({"_id": 1}).explain())).keys()) != [],
    ]


@step
async def abandoned_cursors(t: Driver) -> Any:
    c = t.db.abandoned
    await it(c.insert_many(numbered(10)))
    one = c.find(batch_size=2).sort("_id", 1)
    other = c.find(batch_size=2).sort("_id", 1)
    mixed = []
    for _ in range(3):
        mixed += await t.read(one, 1)
        mixed += await t.read(other, 1)
    await t.close(one)
    return [mixed, await t.read(other), await t.read(c.find(batch_size=2).sort("_id", 1))]


@step
async def aggregate(t: Driver) -> Any:
    c = t.db.aggregate_
    await it(c.insert_many(numbered(7)))
    pipeline = [{"$match": {"_id": {"$gt": 0}}}, {"$sort": {"_id": 1}}]
    cursor = await it(c.aggregate(pipeline, batchSize=2))
    head = await t.read(cursor, 3)
    rest = await t.read(cursor)
    return [
        head,
        rest,
        cursor.alive,
        await it((await it(c.aggregate(pipeline))).to_list(None)),
        await t.read(c.aggregate([*pipeline, {"$out": "aggregated"}])),
        await it(t.db.aggregated.count_documents({})),
        await raised(lambda: t.read(c.aggregate([{"$nope": 1}]))),
        await raised(lambda: t.read(t.db.aggregate([{"$nope": {}}]))),
    ]


@step
async def raw_batches(t: Driver) -> Any:
    c = t.db.raw
    await it(c.insert_many(numbered(5)))
    found = await t.read(c.find_raw_batches({}, batch_size=2).sort("_id", 1))
    made = await t.read(c.aggregate_raw_batches([{"$sort": {"_id": 1}}], batchSize=2))
    return [[bson.decode_all(batch) for batch in batches] for batches in (found, made)] + [
        [type(batch).__name__ for batch in found + made]
    ]


@step
async def types(t: Driver) -> Any:
    key = uuid.UUID(int=5)
    options = CodecOptions(tz_aware=True, uuid_representation=4, document_class=SON)
    c = t.db.get_collection("types", codec_options=options)
    plain = t.db.types
    document = {"_id": 1, "u": key, "b": Binary(b"x", 5), "t": datetime.datetime(2024, 1, 1)}
    await it(c.insert_one(document))
    return [
        await it(c.find_one()),
        await it(plain.find_one({}, {"u": 0})),
        await t.read(c.find()),
        bson.decode((await it(
            plain.with_options(CodecOptions(document_class=RawBSONDocument)).find_one({}, {"u": 0})
        )).raw),
    ]


@step
async def unacknowledged(t: Driver) -> Any:
    c = t.db.get_collection("unacknowledged", write_concern=WriteConcern(w=0))
    result = await it(c.insert_one({"_id": 1}))
    return [result.acknowledged, result.inserted_id, await it(c.delete_one({"_id": 2}))]


@step
async def indexes(t: Driver) -> Any:
    c = t.db.indexes
    await it(c.insert_one({"_id": 1, "a": 1}))
    made = [
        await it(c.create_index([("a", 1)], unique=True)),
        await it(c.create_indexes([IndexModel("b"), IndexModel([("c", -1)], name="sea")])),
        await it(c.index_information()),
        await t.read(c.list_indexes()),
        await raised(lambda: c.insert_one({"a": 1})),
        await it(c.drop_index("sea")),
        await it(c.drop_indexes()),
        await raised(lambda: c.drop_index("nope")),
        await it(c.options()),
    ]
    return made


@step
async def search_indexes(t: Driver) -> Any:
    c = t.db.search
    model = SearchIndexModel({"mappings": {"dynamic": True}}, name="s")
    tried = []
    for call in (
        lambda: c.create_search_index(model),
        lambda: c.create_search_indexes([model]),
        lambda: c.update_search_index("s", {"mappings": {"dynamic": False}}),
        lambda: c.drop_search_index("s"),
        lambda: t.read(c.list_search_indexes()),
    ):
        try:
            tried.append(await it(call()))
        except Exception as error:
            tried.append(error)
    return tried


@step
async def collections(t: Driver) -> Any:
    db = t.db
    made = await it(db.create_collection("made", capped=True, size=4096))
    await it(made.insert_one({"_id": 1}))
    return [
        made.name,
        await raised(lambda: db.create_collection("made")),
        await it(made.options()),
        await it(made.rename("moved")),
        await it(db.validate_collection("moved")) is not None,
        [c["name"] for c in await t.read(db.list_collections(filter={"name": "moved"}))],
        await it(db.list_collection_names(filter={"name": "moved"})),
        await it(db.drop_collection("moved")) is not None,
        await it(db.drops.drop()),
        await it(db.list_collection_names(filter={"name": "moved"})),
    ]


@step
async def commands(t: Driver) -> Any:
    db = t.db
    await it(db.commands.insert_many(numbered(4)))
    cursor = await it(
        db.cursor_command("find", "commands", filter={}, sort={"_id": 1}, batchSize=2)
    )
    return [
        await it(db.command("ping")),
        await it(db.command("count", "commands", query={"_id": {"$gt": 0}})),
        await raised(lambda: db.command("nope")),
        await t.read(cursor),
        await it(db.dereference(DBRef("commands", 2))),
        await it(db.command({"ping": 1})),
    ]


@step
async def client(t: Driver) -> Any:
    c = t.client
    name = t.db.name
    names = await it(c.list_database_names())
    listed = [d["name"] for d in await t.read(c.list_databases())]
    return [
        sorted((await it(c.server_info())).keys()) != [],
        name in names and name in listed,
        await it(c.drop_database(name + "_other")),
        await it(c.address),
        await it(c.is_primary),
        await it(c.is_mongos),
        await it(c.primary),
        sorted(await it(c.secondaries)),
        sorted(await it(c.nodes)),
        c.topology_description.topology_type_name,
    ]


@step
async def client_bulk_write(t: Driver) -> Any:
    if t.is_motor and not hasattr(type(t.client), "bulk_write"):
        return None
    space = f"{t.db.name}.client_bulk"
    models = [
        InsertOne({"_id": 1}, namespace=space),
        UpdateOne({"_id": 1}, {"$set": {"a": 1}}, namespace=space),
    ]
    return await it(t.client.bulk_write(models, verbose_results=True))


@step
async def transactions(t: Driver) -> Any:
    c = t.db.transactions
    await it(c.insert_one({"_id": 0}))
    told: list[Any] = []
    async with t.session() as session:
        async with t.transaction(session):
            await it(c.insert_one({"_id": 1}, session=session))
            told.append(await it(c.count_documents({}, session=session)))
        told.append(session.in_transaction)
    try:
        async with t.session() as session, t.transaction(session):
            await it(c.insert_one({"_id": 2}, session=session))
            raise KeyError("out")
    except KeyError as error:
        told.append(repr(error))
    async with t.session() as session:
        await it(session.start_transaction())
        await it(c.insert_one({"_id": 3}, session=session))
        await it(session.abort_transaction())
        await it(session.start_transaction())
        await it(c.insert_one({"_id": 4}, session=session))
        await it(session.commit_transaction())
        told.append([session.operation_time is None, session.has_ended])
    told.append(sorted(d["_id"] for d in await t.read(c.find())))
    return told


@step
async def with_transaction(t: Driver) -> Any:
    c = t.db.with_transaction
    await it(c.insert_one({"_id": 0}))

    async def work(session: Any) -> str:
        await it(c.insert_one({"_id": 1}, session=session))
        return "done"

    async with t.session() as session:
        told = await it(session.with_transaction(t.callback(work)))
    return [told, await it(c.count_documents({}))]


@step
async def change_streams(t: Driver) -> Any:
    c = t.db.streams
    await it(c.insert_one({"_id": "first"}))
    told: list[Any] = []
    for target in (c, t.db, t.client):
        stream = await it(
            target.watch(
                [{"$match": {"operationType": "insert", "ns.db": t.db.name}}],
                max_await_time_ms=50,
            )
        )
        told.append(await it(stream.try_next()))
        told.append(await it(stream.try_next()))
        for number in range(3):
            await it(c.insert_one({"_id": f"{len(told)}-{number}"}))
        told.append((await it(stream.next()))["fullDocument"])
        if t.name == "sync":
            for event in stream:
                told.append(event["fullDocument"])
                break
        else:
            async for event in stream:
                told.append(event["fullDocument"])
                break
        told.append((await it(stream.try_next()))["fullDocument"])
        told.append([stream.alive, stream.resume_token is not None])
        await t.close(stream)
        told.append(stream.alive)
    return told


@step
async def raw_change_streams(t: Driver) -> Any:
    raw = CodecOptions(document_class=RawBSONDocument)
    c = t.db.get_collection("raw_streams", codec_options=raw)
    told: list[Any] = []
    stream = await it(
        c.watch([{"$match": {"operationType": {"$ne": "drop"}}}], max_await_time_ms=50)
    )
    told.append(await it(stream.try_next()))
    for number in range(3):
        await it(t.db.raw_streams.insert_one({"_id": number, "u": {"x": [number, 2.5]}}))
    seen = [await it(stream.next()), await it(stream.try_next())]
    if t.name == "sync":
        seen.append(next(stream))
    else:
        async for event in stream:
            seen.append(event)
            break
    told.append([type(event).__name__ for event in seen])
    told.append([bson.decode(event["fullDocument"].raw) for event in seen])
    token = stream.resume_token
    told.append([seen[-1]["_id"] == token, type(token).__name__])
    await t.close(stream)
    await it(t.db.raw_streams.insert_one({"_id": "after"}))
    resumed = await it(c.watch(resume_after=token, max_await_time_ms=50))
    told.append(bson.decode((await it(resumed.next()))["fullDocument"].raw))
    await t.close(resumed)
    return told


class Money(TypeCodec):  # type: ignore[misc]
    python_type = decimal.Decimal
    bson_type = Decimal128

    def transform_python(self, value: Any) -> Any:
        return Decimal128(value)

    def transform_bson(self, value: Any) -> Any:
        return value.to_decimal()


@step
async def change_streams_of_own_types(t: Driver) -> Any:
    options: Any = CodecOptions(type_registry=TypeRegistry([Money()]), tz_aware=True)
    c = t.db.get_collection("typed_streams", codec_options=options)
    stream = await it(c.watch(full_document="updateLookup", max_await_time_ms=50))
    told: list[Any] = [await it(stream.try_next())]
    await it(c.insert_one({"_id": 1, "price": decimal.Decimal("1.50")}))
    await it(c.insert_one({"_id": 2, "price": [decimal.Decimal("2.50")]}))
    for _ in range(2):
        told.append((await it(stream.next()))["fullDocument"])
    await t.close(stream)
    return told


@step
async def gridfs(t: Driver) -> Any:
    try:
        bucket = t.bucket(bucket_name="files", chunk_size_bytes=7)
    except ImportError:
        return None
    fixed = await it(bucket.upload_from_stream_with_id("id1", "a.txt", b"hello world " * 3))
    made = await it(bucket.upload_from_stream("b.txt", io.BytesIO(b"b" * 20), metadata={"m": 1}))
    writer = bucket.open_upload_stream("c.txt", metadata={"k": "v"})
    await it(writer.write(b"line one\n"))
    await it(writer.write(b"line two\n"))
    await it(writer.close())
    with_id = bucket.open_upload_stream_with_id("id2", "a.txt")
    await it(with_id.write(b"second"))
    await it(with_id.close())
    target = io.BytesIO()
    await it(bucket.download_to_stream(made, target))
    named = io.BytesIO()
    await it(bucket.download_to_stream_by_name("a.txt", named))
    reader = await it(bucket.open_download_stream("id1"))
    start = await it(reader.read(5))
    reader_two = await it(bucket.open_download_stream_by_name("c.txt", revision=-1))
    lines = [await it(reader_two.readline()), await it(reader_two.readchunk())]
    seek = await it(reader.seek(6)) if hasattr(reader, "seek") else None
    after = await it(reader.read())
    chunks = await t.read(await it(bucket.open_download_stream("id2")))
    await it(bucket.rename("id2", "d.txt"))
    found = [grid_out.filename for grid_out in await t.read(bucket.find({}).sort("filename", 1))]
    await it(bucket.delete(made))
    aborted = bucket.open_upload_stream("e.txt")
    await it(aborted.write(b"x" * 10))
    await it(aborted.abort())
    return [
        fixed,
        target.getvalue(),
        named.getvalue(),
        [reader.filename, reader.length, reader.metadata, reader_two.metadata],
        start,
        lines,
        seek is not None,
        after,
        b"".join(chunks),
        found,
        await raised(lambda: bucket.open_download_stream(made)),
        await raised(lambda: bucket.delete("nope")),
        await it(t.db.files.files.count_documents({})),
        await it(t.db.files.chunks.count_documents({})),
    ]


@step
async def tailable(t: Driver) -> Any:
    c = await it(t.db.create_collection("tail", capped=True, size=4096))
    await it(c.insert_many(numbered(3)))
    cursor = c.find(cursor_type=CursorType.TAILABLE)
    told = [await t.read(cursor, 3), cursor.alive]
    await it(c.insert_one({"_id": "late"}))
    told.append(await t.read(cursor, 1))
    await t.close(cursor)
    return told


@step
async def exhaust(t: Driver) -> Any:
    c = t.db.exhaust
    await it(c.insert_many(numbered(7)))
    return await t.read(c.find({}, cursor_type=CursorType.EXHAUST, batch_size=3).sort("_id", 1))


@step
async def unreachable(t: Driver) -> Any:
    other = t.make("mongodb://127.0.0.1:1/", serverSelectionTimeoutMS=50)
    error = await raised(lambda: other.shop.orders.find_one({"_id": 1}))
    cursor_error = await raised(lambda: t.read(other.shop.orders.find({"_id": 2})))
    await t.close(other)
    return [type(error).__name__, type(cursor_error).__name__]


@step
async def at_once(t: Driver) -> Any:
    import asyncio

    c = t.db.at_once
    if t.name == "sync":
        await it(c.insert_many(numbered(20)))
        return [[c.find_one({"_id": n}) for n in range(20)]]
    await it(c.insert_many(numbered(20)))
    return [list(await asyncio.gather(*[c.find_one({"_id": n}) for n in range(20)]))]


if __name__ == "__main__":
    main()
