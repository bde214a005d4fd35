"""MongoMotor: MongoEngine's documents over AsyncMongoClient, used from two event loops."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

from bson import ObjectId
from mongoengine import NotUniqueError, ValidationError
from mongomotor import Document, EmbeddedDocument, connect, disconnect
from mongomotor.fields import (
    ComplexDateTimeField,
    DateTimeField,
    EmbeddedDocumentField,
    FileField,
    IntField,
    ListField,
    ObjectIdField,
    ReferenceField,
    StringField,
    UUIDField,
)

Say = Callable[[str, Any], None]


def now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)


class Place(EmbeddedDocument):
    city = StringField()


class Author(Document):
    name = StringField(required=True, unique=True)
    place = EmbeddedDocumentField(Place)
    born = DateTimeField()
    logins = IntField(default=0)


class Post(Document):
    title = StringField(required=True)
    author = ReferenceField(Author)
    readers = ListField(ReferenceField(Author))
    tags = ListField(StringField())
    paper = FileField()


class Ticket(Document):
    key = UUIDField(default=uuid4)
    mark = ObjectIdField(default=ObjectId, unique=True)
    code = StringField(default=lambda: secrets.token_urlsafe(64))
    author = ReferenceField(Author)
    created = DateTimeField(default=now)
    seen = ComplexDateTimeField(default=now)
    expires = DateTimeField(default=lambda: now() + timedelta(days=1))
    pages = ListField(StringField())


def main(uri: str, database: str, say: Say) -> None:
    connect(database, host=uri, uuidRepresentation="standard")
    asyncio.run(first(say))
    asyncio.run(second(say))
    asyncio.run(tickets(say))
    disconnect()


async def first(say: Say) -> None:
    await Author.ensure_indexes()
    ann = Author(name="Ann", place=Place(city="Rome"), born=datetime(1990, 1, 2))
    await ann.save()
    bob = await Author.objects.create(name="Bob", logins=4)
    post = Post(title="One", author=ann, readers=[ann, bob], tags=["a", "b"])
    await post.save()
    await Post.objects.insert([Post(title="Two", author=bob), Post(title="Three", tags=["b"])])
    say("saved", [document.id for document in (ann, bob, post)])
    found = await Post.objects.get(title="One")
    say("reference", (await found.author).name)
    say("references", [author.name for author in await found.readers])
    say("count", (await Post.objects.count(), await Post.objects(tags="b").count()))
    say("iterated", [p.title async for p in Post.objects.order_by("-title")])
    say("list", [p.title for p in await Post.objects(tags="b").to_list()])
    say("first", (await Author.objects.order_by("-name").first()).name)
    say("limited", [p.title async for p in Post.objects.order_by("title").skip(1).limit(1)])
    say("distinct", sorted(await Post.objects.distinct("tags")))
    say("average", (await Author.objects.average("logins"), await Author.objects.sum("logins")))
    say("frequencies", await Post.objects.item_frequencies("tags"))
    stages = [{"$unwind": "$tags"}, {"$group": {"_id": "$tags", "n": {"$sum": 1}}}]
    stages.append({"$sort": {"_id": 1}})
    say("aggregate", [row async for row in await Post.objects.aggregate(stages)])
    say("in_bulk", sorted(a.name for a in (await Author.objects.in_bulk([ann.id])).values()))


async def second(say: Say) -> None:
    ann = await Author.objects.get(name="Ann")
    ann.logins = 2
    ann.place.city = "Turin"
    await ann.save()
    await Author.objects(name="Ann").update(inc__logins=1)
    await ann.reload()
    say("reloaded", ann.to_mongo().to_dict())
    say("updated", await Post.objects(tags="b").update(push__tags="c"))
    say("modified", (await Author.objects(name="Bob").modify(inc__logins=1, new=True)).logins)
    say("upserted", (await Author.objects(name="Cid").upsert_one(set__logins=9)).logins)
    post = await Post.objects.get(title="Two")
    await post.paper.put(b"paper " * 50_000, content_type="text/plain")
    await post.save()
    again = await Post.objects.get(title="Two")
    say("file", (len(await again.paper.read()), again.paper.grid_id))
    await again.paper.delete()
    names = await asyncio.gather(*(Author.objects.get(name=n) for n in ("Ann", "Bob", "Cid")))
    say("together", [author.logins for author in names])
    await errors(say)
    await ann.delete()
    say("deleted", (await Author.objects(name="Cid").delete(), await Author.objects.count()))
    await Post.drop_collection()
    say("dropped", await Post.objects.count())


async def tickets(say: Say) -> None:
    bob = await Author.objects.get(name="Bob")
    await Ticket.ensure_indexes()
    one, two = Ticket(author=bob), Ticket(pages=[f"/authors/{bob.pk}"])
    await one.save()
    await two.save()
    say("tickets", [(ticket.pk, ticket.key, ticket.mark, ticket.code) for ticket in (one, two)])
    for name in ("pk", "key", "mark", "code"):
        found = await Ticket.objects.get(**{name: getattr(two, name)})
        say(f"by {name}", (found.pk == two.pk, found.pages == two.pages))
    say("in", await Ticket.objects(key__in={one.key, two.key, uuid4()}).count())
    valid = Ticket.objects(created__lte=now(), expires__gt=now())
    say("valid", [ticket.pk in (one.pk, two.pk) async for ticket in valid])
    one.pages.append(f"{one.key.hex} at {now().isoformat()}")
    await one.save()
    await one.reload()
    say("pages", (one.pages, (await one.author).pk == bob.pk))
    code = secrets.token_urlsafe(64)
    changed = await Ticket.objects(code=two.code).modify(set__code=code, set__seen=now(), new=True)
    say("rotated", (changed.pk == two.pk, changed.code == code))
    try:
        await Ticket(mark=one.mark).save()
    except NotUniqueError as error:
        say("mark twice", str(error))
    say("left", (await Ticket.objects(code=two.code).count(), await Ticket.objects.count()))


async def errors(say: Say) -> None:
    try:
        await Author(name="Ann").save()
    except NotUniqueError as error:
        say("NotUniqueError", str(error))
    try:
        await Author().save()
    except ValidationError as error:
        say("ValidationError", error.to_dict())
    try:
        await Author.objects.get(name="nobody")
    except Author.DoesNotExist as error:
        say("DoesNotExist", str(error))
