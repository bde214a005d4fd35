"""umongo with PyMongo and, the same documents again, with Motor."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from marshmallow import ValidationError
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import MongoClient
from umongo import Document, EmbeddedDocument, fields, validate
from umongo.frameworks import MotorAsyncIOInstance, PyMongoInstance

Say = Callable[[str, Any], None]


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
    with MongoClient(uri, tz_aware=False) as client:
        synchronous(client[database], say)
    motor: Any = AsyncIOMotorClient(uri)
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
    say("deleted", post.delete().deleted_count)


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
