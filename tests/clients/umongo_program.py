"""umongo with PyMongo and, the same documents again, with Motor."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

from bson import DBRef, ObjectId
from marshmallow import ValidationError
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import MongoClient
from umongo import Document, EmbeddedDocument, fields, validate
from umongo.frameworks import MotorAsyncIOInstance, PyMongoInstance

Say = Callable[[str, Any], None]


def now() -> datetime:
    return datetime.now(timezone.utc)


def visit_of(instance: Any) -> Any:
    @instance.register
    class Visit(Document):
        id = fields.ObjectIdField(attribute="_id", load_default=ObjectId)
        key = fields.UUIDField(load_default=uuid4, unique=True)
        code = fields.StrField(load_default=lambda: secrets.token_urlsafe(64))
        started = fields.DateTimeField(load_default=now)
        ends = fields.DateTimeField(load_default=lambda: now() + timedelta(hours=2))
        author = fields.GenericReferenceField()
        pages = fields.ListField(fields.StrField(), load_default=list)
        marks = fields.DictField()

        class Meta:
            collection_name = "visit"

    return Visit


def models(instance: Any) -> tuple[Any, Any, Any]:
    @instance.register
    class Author(Document):
        name = fields.StrField(required=True, unique=True, validate=validate.Length(max=10))
        logins = fields.IntField(load_default=0)
        born = fields.DateTimeField()

        class Meta:
            collection_name = "author"
            indexes = ("-born",)

    @instance.register
    class Note(EmbeddedDocument):
        text = fields.StrField(attribute="t")

    @instance.register
    class Post(Document):
        title = fields.StrField(required=True)
        author = fields.ReferenceField("Author")
        notes = fields.ListField(fields.EmbeddedField(Note))
        tags = fields.ListField(fields.StrField())

        class Meta:
            collection_name = "post"

    return Author, Post, Note


async def main(uri: str, database: str, say: Say) -> None:
    with MongoClient(uri, tz_aware=False, uuidRepresentation="standard") as client:
        synchronous(client[database], say)
    motor: Any = AsyncIOMotorClient(uri, uuidRepresentation="standard")
    await asynchronous(motor, database, say)
    motor.close()


def synchronous(db: Any, say: Say) -> None:
    author_class, post_class, note_class = models(PyMongoInstance(db))
    author_class.ensure_indexes()
    ann = author_class(name="Ann", born=datetime(1990, 1, 2))
    ann.commit()
    say("committed", ann.dump())
    post = post_class(title="One", author=ann, notes=[note_class(text="n")], tags=["b"])
    post.commit()
    post.tags.append("a")
    post.notes[0].text = "changed"
    say("update", post.commit().raw_result["nModified"])
    say("stored", db.post.find_one({"title": "One"}))
    found = post_class.find_one({"notes.text": "changed"})
    say("reference", found.author.fetch().name)
    found.reload()
    say("reloaded", found.to_mongo())
    cursor = author_class.find({"name": {"$gte": "A"}}).sort("name").limit(5)
    say("find", [author.name for author in cursor])
    say("count", (author_class.count_documents(), post_class.find({"tags": "a"})[0].title))
    errors = []
    for change in ({"name": "Ann"}, {}, {"name": "n" * 11}):
        try:
            author_class(**change).commit()
        except ValidationError as error:
            errors.append(error.messages)
    say("errors", errors)
    post.author = "0" * 24
    try:
        post.commit()
    except ValidationError as error:
        say("no such reference", error.messages)
    visits(db, visit_of(author_class.opts.instance), ann, say)
    say("deleted", post.delete().deleted_count)


def visits(db: Any, visit_class: Any, author: Any, say: Say) -> None:
    visit_class.ensure_indexes()
    one, two = visit_class(author=author), visit_class()
    one.commit()
    two.commit()
    say("visits", [(visit.pk, visit.key, visit.code) for visit in (one, two)])
    say("by key", visit_class.find_one({"key": two.key}).pk == two.pk)
    say("by code", visit_class.find_one({"code": one.code}).key == one.key)
    say("in", visit_class.count_documents({"_id": {"$in": list({one.pk, two.pk, ObjectId()})}}))
    running = {"started": {"$lte": now()}, "ends": {"$gt": now()}}
    say("running", visit_class.count_documents(running))
    one.pages.append(f"/visits/{one.pk}/{one.key.hex}?at={now():%Y-%m-%dT%H:%M:%S}")
    one.marks = {str(one.key): {"by": str(author.pk), "at": now()}}
    say("changed", one.commit().modified_count)
    kept = visit_class.find_one(one.pk)
    say("kept", (kept.pages, kept.author.pk == author.pk, list(kept.marks)))
    say("same pages", (kept.pages == one.pages, str(one.key) in kept.marks))
    link = {"_id": uuid4().hex, "visit": DBRef("visit", one.pk, since=one.started)}
    db.link.insert_one(link)
    say("linked", db.dereference(db.link.find_one({"_id": link["_id"]})["visit"])["_id"] == one.pk)
    try:
        visit_class(key=two.key).commit()
    except ValidationError as error:
        say("key twice", error.messages)
    say("gone", (two.delete().deleted_count, visit_class.find_one({"key": two.key})))


async def asynchronous(motor: Any, database: str, say: Say) -> None:
    instance = MotorAsyncIOInstance(motor[database])
    author_class, post_class, _ = models(instance)
    await author_class.ensure_indexes()
    bob = author_class(name="Bob", logins=2)
    await bob.commit()
    bob.logins += 1
    await bob.commit()
    await bob.reload()
    say("committed by Motor", bob.dump())
    for number in range(4):
        await post_class(title=f"Post {number}", author=bob, tags=["m"]).commit()
    posts = post_class.find({"tags": "m"}).sort("title", -1)
    say("to_list", [post.title for post in await posts.to_list(length=3)])
    say("iterated", [post.title async for post in post_class.find().sort("title").batch_size(1)])
    visit_class = visit_of(instance)
    visit = visit_class(author=bob, pages=[f"post {bob.pk}"])
    await visit.commit()
    say("visit", (visit.pk, visit.key, visit.code))
    visit.ends += timedelta(hours=1)
    await visit.commit()
    again = await visit_class.find_one({"key": visit.key, "ends": {"$gt": now()}})
    say("visit again", (again.pk == visit.pk, again.pages == visit.pages, again.code))
    say("its author", again.author.pk == bob.pk)
    found = await post_class.find_one({"title": "Post 1"})
    say("fetched", (await found.author.fetch()).name)
    say("count", await post_class.count_documents({"author": bob.pk}))
    try:
        await author_class(name="Bob").commit()
    except ValidationError as error:
        say("not unique", error.messages)
    async with instance.session() as session:
        async with session.start_transaction():
            await author_class(name="Cid").commit()
        say("committed", await author_class.count_documents())
        try:
            async with session.start_transaction():
                await author_class(name="Dee").commit()
                raise LookupError("undo")
        except LookupError:
            say("aborted", await author_class.count_documents({"name": "Dee"}))
    say("deleted", (await found.delete()).deleted_count)
