"""LightODM through PyMongo and, by its twin methods, through Motor; both clients log in."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

from bson import ObjectId
from lightodm import MongoBaseModel, connect, get_async_client, get_client
from pydantic import Field, ValidationError
from pymongo import MongoClient
from pymongo.errors import DuplicateKeyError, OperationFailure

PASSWORD = "lightodm-pass"


class User(MongoBaseModel):
    class Settings:
        name = "users"

    name: str
    age: int = 0


class Visit(MongoBaseModel):
    class Settings:
        name = "visits"
        composite_key = ("user", "day")

    user: str
    day: str


def now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)


class Session(MongoBaseModel):
    class Settings:
        name = "sessions"

    user: str
    token: str = Field(default_factory=lambda: secrets.token_urlsafe(64))
    csrf: str = Field(default_factory=lambda: secrets.token_hex(16))
    slug: str = Field(default_factory=lambda: f"session-{uuid4()}")
    created_at: datetime = Field(default_factory=now)
    expires_at: datetime = Field(default_factory=lambda: now() + timedelta(days=14))
    seen: list[str] = Field(default_factory=list)


async def main(uri: str, database: str, say: Callable[[str, Any], None]) -> None:
    user = f"user_of_{database}"
    with MongoClient(uri) as administrator:
        try:
            administrator.admin.command("dropUser", user)
        except OperationFailure as error:
            say("no user yet", error.code)
        administrator.admin.command("createUser", user, pwd=PASSWORD, roles=["root"])
        connect(url=uri, username=user, password=PASSWORD, db_name=database)
        sync(say)
        sessions(say)
        await asynchronous(say)
        (await get_async_client()).close()
        get_client().close()
        administrator.admin.command("dropUser", user)


def sync(say: Callable[[str, Any], None]) -> None:
    User.get_collection().create_index("name", unique=True)
    ann = User(name="Ann", age=31, extra={"kept": True})
    say("saved", (ann.save() == ann.id, type(ann.id).__name__, len(ann.id)))
    say("many", len(User.insert_many([User(name="Bob", age=20), User(name="Cid", age=40)])))
    say("get", User.get(ann.id).model_dump(exclude={"id"}))
    ann.age = 32
    ann.save()
    say("find", [(u.name, u.age) for u in User.find({"age": {"$gt": 18}}, sort=[("age", -1)])])
    say("find_iter", [u.name for u in User.find_iter({}, projection={"name": 1}, batch_size=2)])
    say("find_one", (User.find_one({"name": "Bob"}).age, User.find_one({"name": "none"})))
    say("count", (User.count(), User.count({"age": {"$lt": 30}})))
    say("update", User.update_one({"name": "Bob"}, {"$inc": {"age": 1}}))
    say("upsert", User.update_one({"name": "Dee"}, {"$set": {"age": 1}}, upsert=True))
    say("update_many", User.update_many({}, {"$set": {"seen": True}}))
    stages = [{"$group": {"_id": None, "age": {"$sum": "$age"}}}]
    say("aggregate", User.aggregate(stages))
    Visit(user="Ann", day="2026-01-02").save()
    say("composite", (Visit(user="Ann", day="2026-01-02").save(), Visit.count()))
    say("deleted", (ann.delete(), User.delete_one({"name": "none"}), User.delete_many({"age": 1})))
    try:
        User(name="Bob").save()
    except DuplicateKeyError as error:
        say("DuplicateKeyError", (error.code, error.details["keyPattern"]))
    try:
        User(age="many")
    except ValidationError as error:
        say("ValidationError", error.error_count())


def sessions(say: Callable[[str, Any], None]) -> None:
    ann, bob = User(name="Ann", age=31), User(name="Abe", age=31)
    say("made ids", (ann.save(), bob.save(), ann.id < bob.id))
    one, two = Session(user=ann.id), Session(user=bob.id)
    say("sessions", (one.save(), two.save(), one.token, two.token, one.csrf))
    say("by token", Session.find_one({"token": two.token}).user == bob.id)
    say("by slug", Session.find_one({"slug": one.slug}).id == one.id)
    say("by user", [found.token == one.token for found in Session.find({"user": ann.id})])
    in_set = Session.find({"user": {"$in": list({ann.id, bob.id, str(ObjectId())})}})
    say("in", sorted(found.user in (ann.id, bob.id) for found in in_set))
    say("alive", Session.count({"token": one.token, "expires_at": {"$gt": now()}}))
    say("expired", Session.delete_many({"expires_at": {"$lt": now() - timedelta(days=1)}}))
    new = secrets.token_urlsafe(64)
    say("rotated", Session.update_one({"_id": one.id}, {"$set": {"token": new, "at": now()}}))
    kept = Session.get(one.id)
    say("new token", (kept.token == new, kept.token, kept.csrf == one.csrf))
    say("at", kept.at > one.created_at)
    say("old token", Session.find_one({"token": one.token}))
    seen = {"$push": {"seen": f"/users/{ann.id}?at={now().isoformat()}"}}
    say("path", (Session.update_one({"_id": one.id}, seen), Session.get(one.id).seen))
    etag = hashlib.sha1(Session.get(one.id).model_dump_json().encode()).hexdigest()
    Session.update_one({"_id": one.id}, {"$set": {"etag": etag}})
    say("etag", (Session.count({"etag": etag}), Session.get(one.id).etag))
    say("gone", (Session.delete_many({"user": ann.id}), two.delete(), ann.delete(), bob.delete()))


async def asynchronous(say: Callable[[str, Any], None]) -> None:
    eve = User(name="Eve", age=50)
    say("asave", await eve.asave() == eve.id)
    say("ainsert_many", len(await User.ainsert_many([User(name="Fay"), User(name="Gus", age=5)])))
    say("aget", (await User.aget(eve.id)).name)
    eve.age = 51
    await eve.asave()
    session = Session(user=eve.id)
    say("asession", (await session.asave(), session.token))
    found = await Session.afind_one({"token": session.token, "user": eve.id})
    say("afound", (found.id == session.id, found.csrf == session.csrf))
    say("afresh", await Session.acount({"created_at": {"$lte": now()}, "user": eve.id}))
    say("afind", [u.name for u in await User.afind({}, sort=[("name", 1)], limit=3)])
    say("afind_iter", [u.name async for u in User.afind_iter({"age": {"$gte": 5}}, batch_size=1)])
    say("afind_one", (await User.afind_one({"name": "Eve"})).age)
    say("acount", (await User.acount(), await User.acount({"seen": True})))
    say("aupdate_one", await User.aupdate_one({"name": "Fay"}, {"$set": {"age": 9}}))
    say("aupdate_many", await User.aupdate_many({"age": {"$lt": 10}}, {"$inc": {"age": 1}}))
    say("aaggregate", await User.aaggregate([{"$match": {"age": {"$gt": 9}}}, {"$count": "n"}]))
    say("adelete", (await eve.adelete(), await User.adelete_one({"name": "none"})))
    say("adelete_many", await User.adelete_many({"age": {"$lt": 10}}))
    try:
        await User(name="Bob").asave()
    except DuplicateKeyError as error:
        say("DuplicateKeyError", error.details["keyValue"])
