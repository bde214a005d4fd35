"""MongoEngine on a blog: models, references, files, queries, updates, other databases, errors."""

from __future__ import annotations

import random
import secrets
import warnings
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import mongoengine as me
from bson import DBRef, ObjectId
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


def now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)


class Device(me.EmbeddedDocument):
    serial = me.UUIDField(binary=False, default=uuid4)
    added = me.DateTimeField(default=now)


class Visit(me.Document):
    key = me.UUIDField(primary_key=True, default=uuid4)
    mark = me.ObjectIdField(default=ObjectId, unique=True)
    slug = me.StringField(default=lambda: f"visit-{ObjectId()}")
    code = me.StringField(default=lambda: secrets.token_urlsafe(64))
    token = me.StringField(default=lambda: secrets.token_hex(32))
    mail = me.EmailField(default=lambda: f"guest+{random.randrange(10**6):06d}@example.com")
    author = me.ReferenceField(Author, dbref=True)
    about = me.GenericReferenceField()
    device = me.EmbeddedDocumentField(Device, default=Device)
    started = me.DateTimeField(default=datetime.now)
    created = me.DateTimeField(default=now)
    updated = me.DateTimeField()
    seen = me.ComplexDateTimeField(default=now)
    expires = me.DateTimeField(default=lambda: now() + timedelta(days=14))
    pages = me.ListField(me.StringField())
    counts = me.DictField()
    shot = me.FileField(collection_name="shots")
    meta = {"indexes": [{"fields": ["expires"], "expireAfterSeconds": 0}]}  # noqa: RUF012


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
    made_values(say)
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


def made_values(say: Callable[[str, Any], None]) -> None:
    def touch(sender: Any, document: Any, **facts: Any) -> None:
        document.updated = now()

    signals.pre_save.connect(touch, sender=Visit)
    ann, bob = Author.objects.get(name="Ann"), Author.objects.get(name="Bob")
    one = Visit(author=ann, about=bob).save()
    two = Visit(author=bob, device=Device(added=None)).save()
    three = Visit(about=one).save(force_insert=True)
    visits = (one, two, three)
    say("visits", [(v.pk, v.mark, v.slug, v.code, v.token, v.device.serial) for v in visits])
    say("mails", [visit.mail for visit in visits])
    say("by key", Visit.objects.get(pk=two.pk).slug == two.slug)
    for name in ("mark", "slug", "code", "token", "mail"):
        found = Visit.objects(**{name: getattr(one, name)})
        say(f"by {name}", [visit.pk == one.pk for visit in found])
    say("by serial", Visit.objects(device__serial=two.device.serial).count())
    say("in", Visit.objects(pk__in={one.pk, two.pk, uuid4()}).count())
    say("not in", [v.pk == three.pk for v in Visit.objects(mark__nin=[one.mark, two.mark])])
    say("in_bulk", sorted(str(key) in {str(one.pk)} for key in Visit.objects.in_bulk([one.pk])))
    hour = timedelta(hours=1)
    say("recent", Visit.objects(created__gt=now() - hour, created__lte=now()).count())
    say("alive", Visit.objects(me.Q(expires__gt=now()) & me.Q(started__lte=datetime.now())).count())
    say("seen", (Visit.objects(seen__lte=now()).count(), Visit.objects(seen=one.seen).count()))
    ours = Visit.objects(author=ann, about=bob)
    say("references", [(v.author.name, v.about.name, type(v.to_mongo()["author"])) for v in ours])
    say("its visit", Visit.objects.get(pk=three.pk).about.slug == one.slug)
    one.pages.append(f"https://shop.example/visits/{one.pk}?by={ann.pk}&at={now().isoformat()}")
    one.counts = {str(one.mark): 1, one.pk.hex: 2}
    say("saved again", (one.save().updated >= one.created, Visit.objects.get(pk=one.pk).pages))
    again = one.reload()
    say("same", (list(again.counts) == [str(one.mark), one.pk.hex], again.device == one.device))
    new = secrets.token_urlsafe(64)
    changed = Visit.objects(code=two.code, expires__gt=now()).modify(
        set__code=new, set__expires=now() + 2 * hour, inc__counts__turns=1, new=True
    )
    say("rotated", (changed.code == new, changed.pk == two.pk))
    say("old code", Visit.objects(code=two.code).first())
    say("pushed", Visit.objects(pk=two.pk).update_one(push__pages=f"code {new}"))
    Loose(visit=DBRef("visit", one.pk, at=now(), by=two.mark), text=f"at {now()}").save()
    loose = Loose.objects(visit__exists=True).first()
    say("loose", (loose.visit.id == one.pk, loose.text))
    key = three.shot.put(b"shot", filename=f"{three.pk}.png", taken=now(), by=str(bob.pk))
    three.save()
    shot = Visit.objects.get(pk=three.pk).shot
    say("shot", (shot.grid_id == three.shot.grid_id, shot.filename == f"{three.pk}.png", key))
    say("shot by", (shot.read(), shot.by == str(bob.pk), shot.taken <= now()))
    try:
        Visit(mark=two.mark).save()
    except me.NotUniqueError as error:
        say("made mark twice", str(error))
    Visit.objects(pk=three.pk).update(push_all__pages=[str(visit.pk) for visit in visits])
    gone = {str(one.pk), str(three.pk)}
    say("pulled", Visit.objects(pages__in=gone).update(pull_all__pages=gone))
    say("not pulled", Visit.objects.get(pk=three.pk).pages == [str(two.pk)])
    stages = [{"$match": {"_id": one.pk, "expires": {"$gt": now()}}}, {"$project": {"mark": 1}}]
    say("aggregated", [row["mark"] == one.mark for row in Visit.objects.aggregate(stages)])
    say("distinct", sorted(Visit.objects.distinct("mark")) == [one.mark, two.mark, three.mark])
    say("plain", [sorted(row) for row in Visit.objects(slug=one.slug).as_pymongo()])
    old = Visit.objects(expires__lt=now() + 3 * hour).delete()
    say("gone", (old, Visit.objects(code=new).count(), Visit.objects(author=ann).delete()))


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
