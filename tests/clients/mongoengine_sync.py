"""MongoEngine on a blog: models, references, files, queries, updates, other databases, errors."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import datetime
from typing import Any

import mongoengine as me
from mongoengine import signals
from mongoengine.context_managers import (
    no_dereference,
    query_counter,
    set_write_concern,
    switch_collection,
    switch_db,
)
from mongoengine.errors import BulkWriteError
from pymongo import ReadPreference


class Address(me.EmbeddedDocument):
    city = me.StringField(required=True)
    zip = me.StringField(max_length=5)


class Author(me.Document):
    name = me.StringField(required=True, unique=True)
    address = me.EmbeddedDocumentField(Address)
    joined = me.DateTimeField()
    logins = me.IntField(default=0)
    meta = {"indexes": [("address.city", "-joined")]}  # noqa: RUF012


class Post(me.Document):
    number = me.SequenceField()
    title = me.StringField(required=True)
    author = me.ReferenceField(Author, reverse_delete_rule=me.CASCADE)
    editors = me.ListField(me.ReferenceField(Author, reverse_delete_rule=me.PULL))
    about = me.GenericReferenceField()
    later = me.LazyReferenceField("Post")
    tags = me.ListField(me.StringField())
    scores = me.MapField(me.IntField())
    price = me.Decimal128Field()
    meta = {"allow_inheritance": True, "ordering": ["number"]}  # noqa: RUF012


class Photo(Post):
    image = me.FileField()


class Loose(me.DynamicDocument):
    pass


def main(uri: str, database: str, say: Callable[[str, Any], None]) -> None:
    warnings.simplefilter("ignore", DeprecationWarning)
    me.connect(database, host=uri, alias="default", uuidRepresentation="standard")
    me.connect(f"{database}_other", host=uri, alias="other", uuidRepresentation="standard")
    writes(say)
    queries(say)
    updates(say)
    references(say)
    files(say)
    aggregations(say)
    concerns(say)
    errors(say)
    housekeeping(say)
    me.disconnect_all()


def writes(say: Callable[[str, Any], None]) -> None:
    ann = Author(name="Ann", address=Address(city="Rome", zip="00100"), joined=datetime(2020, 1, 2))
    say("saved", ann.save().id)
    bob, cid = Author.objects.insert([Author(name="Bob"), Author(name="Cid", logins=3)])
    say("inserted", (bob.id, cid.name, cid.logins))
    created: list[str] = []

    def note(sender: Any, document: Any, **facts: Any) -> None:
        created.append(f"{document.title} {facts['created']}")

    signals.post_save.connect(note, sender=Post)
    first = Post(title="One", author=ann, editors=[bob, cid], about=cid, price="1.50").save()
    Post(title="Two", author=ann, tags=["a", "b"], scores={"x": 1}, later=first).save()
    Post(title="Three", author=bob, tags=["b"]).save()
    first.title = "One again"
    first.save()
    say("signals", created)
    ann.logins = 7
    ann.address.city = "Turin"
    ann.save()
    Loose(anything={"goes": [1, 2.5, None]}, when=datetime(2021, 2, 3)).save()
    say("dynamic", Loose.objects.first().to_mongo().to_dict())
    say("reloaded", ann.reload().to_mongo().to_dict())


def queries(say: Callable[[str, Any], None]) -> None:
    say("get", Author.objects.get(name="Ann").address.city)
    say("count", (Author.objects.count(), Post.objects(tags="b").count()))
    say("Q", [p.title for p in Post.objects(me.Q(tags="a") | me.Q(title__startswith="Th"))])
    say("regex", [a.name for a in Author.objects(name__iexact="BOB")])
    say("in", [a.name for a in Author.objects(name__in={"Ann", "Cid"}).order_by("-name")])
    say("slice", [p.title for p in Post.objects[1:3]])
    posts = Post.objects.order_by("-number").only("title").batch_size(1)
    say("only", [(p.title, p.tags) for p in posts])
    say("again", [p.title for p in posts.clone()])
    posts.rewind()
    say("rewound", next(posts).title)
    say("exclude", [p.scores for p in Post.objects.exclude("title").filter(title="Two")])
    say("scalar", list(Post.objects.scalar("number", "title")))
    say("plain", list(Author.objects.as_pymongo().order_by("name").only("name", "logins")))
    found = Author.objects.in_bulk(list(Author.objects.scalar("id")))
    say("in_bulk", sorted(author.name for author in found.values()))
    say("distinct", Post.objects.distinct("tags"))
    say("distinct references", [a.name for a in Post.objects.distinct("author")])
    say("first", (Post.objects(title="none").first(), Post.objects.first().title))
    say("numbers", (Author.objects.sum("logins"), Author.objects.average("logins")))
    say("frequencies", Post.objects.item_frequencies("tags"))
    say("json", Author.objects.order_by("name").only("name").to_json())
    say("raw", [p.title for p in Post.objects(__raw__={"number": {"$gte": 2}})])
    say("hint", [a.name for a in Author.objects.hint([("name", 1)]).comment("hinted")])
    nearby = Post.objects.read_preference(ReadPreference.PRIMARY_PREFERRED)
    say("preference", nearby.count())
    say("explained", "queryPlanner" in Author.objects(name="Ann").explain())


def updates(say: Callable[[str, Any], None]) -> None:
    say("update", Author.objects(logins__lt=5).update(inc__logins=10, full_result=False))
    say("update_one", Post.objects(title="Two").update_one(push__tags="c", set__scores__y=2))
    full = Post.objects.update(add_to_set__tags="all", full_result=True)
    say("full_result", (full.matched_count, full.modified_count))
    say("upsert_one", Author.objects(name="Dee").upsert_one(set__logins=1).name)
    say("modify", Author.objects(name="Dee").modify(inc__logins=1, new=True).logins)
    ann = Author.objects.get(name="Ann")
    say("document.modify", (ann.modify({"logins": 7}, set__logins=8), ann.logins))
    say("document.update", ann.update(unset__joined=True))
    say("removed", Author.objects(name="Dee").delete())


def references(say: Callable[[str, Any], None]) -> None:
    one, two = Post.objects.order_by("number")[:2]
    say("reference", (one.author.name, [e.name for e in one.editors], one.about.name))
    say("lazy", (two.later.pk == one.pk, two.later.fetch().title))
    related = Post.objects.select_related(max_depth=2)
    say("related", [p.author.name for p in related])
    with no_dereference(Post):
        say("no_dereference", type(Post.objects.first().author).__name__)
    with switch_collection(Loose, "archive") as archive:
        archive(kept=True).save()
        say("archive", archive.objects.count())


def files(say: Callable[[str, Any], None]) -> None:
    photo = Photo(title="Hill", author=Author.objects.get(name="Bob"))
    photo.image.put(b"picture " * 40_000, content_type="image/png", filename="hill.png")
    photo.save()
    again = Photo.objects.get(title="Hill")
    say("file", (again.image.length, again.image.content_type, again.image.read(7)))
    again.image.replace(b"small", content_type="image/gif")
    again.save()
    say("replaced", Photo.objects.get(title="Hill").image.read())
    again.image.delete()
    again.save()
    say("inherited", [type(p).__name__ for p in Post.objects])


def aggregations(say: Callable[[str, Any], None]) -> None:
    stages = [
        {"$unwind": "$tags"},
        {"$group": {"_id": "$tags", "posts": {"$sum": 1}}},
        {"$sort": {"_id": 1}},
    ]
    say("aggregate", list(Post.objects(tags__ne="none").aggregate(stages)))
    joined = [
        {"$lookup": {"from": "post", "localField": "_id", "foreignField": "author", "as": "p"}},
        {"$project": {"_id": 0, "name": 1, "posts": {"$size": "$p"}}},
        {"$sort": {"name": 1}},
    ]
    say("lookup", list(Author.objects.aggregate(joined)))


def concerns(say: Callable[[str, Any], None]) -> None:
    with set_write_concern(Author._get_collection(), {"w": 1, "j": True}) as careful:
        careful.insert_one({"name": "Eve", "logins": 0})
    with switch_db(Author, "other"):
        Author(name="Eve").save()
        say("other database", Author.objects.count())
        Author.drop_collection()
    say("this database", Author.objects.count())


def errors(say: Callable[[str, Any], None]) -> None:
    try:
        Author(name="Ann").save()
    except me.NotUniqueError as error:
        say("NotUniqueError", (type(error.__context__).__name__, str(error)))
    try:
        Author.objects.insert([Author(name="Ann"), Author(name="Gus")])
    except BulkWriteError as error:
        say("BulkWriteError", str(error))
    try:
        Author(name="Hal", address=Address(city="Rome", zip="000000")).save()
    except me.ValidationError as error:
        say("ValidationError", error.to_dict())
    try:
        Author.objects.get(name="nobody")
    except Author.DoesNotExist as error:
        say("DoesNotExist", str(error))
    try:
        Post.objects.get(tags="all")
    except Post.MultipleObjectsReturned as error:
        say("MultipleObjectsReturned", str(error))
    stale = Author.objects.get(name="Cid")
    stale.logins = 99
    try:
        stale.save(save_condition={"logins": 1})
    except me.SaveConditionError as error:
        say("SaveConditionError", str(error))


def housekeeping(say: Callable[[str, Any], None]) -> None:
    say("indexes", Author.list_indexes())
    say("compared", Author.compare_indexes())
    say("information", sorted(Author._get_collection().index_information()))
    say("cascade", (Author.objects(name="Ann").delete(), Post.objects.count()))
    Author.objects.get(name="Cid").delete()
    try:
        with query_counter() as queries:
            Author.objects.count()
            say("profiled", int(queries))
    except Exception as error:  # a server without a profiler
        say("profiled", type(error).__name__)
    Loose.drop_collection()
    say("dropped", Loose.objects.count())
