"""LightODM through PyMongo and, by its twin methods, through Motor; both clients log in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightodm import MongoBaseModel, connect, get_async_client, get_client
from pydantic import ValidationError
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


async def asynchronous(say: Callable[[str, Any], None]) -> None:
    eve = User(name="Eve", age=50)
    say("asave", await eve.asave() == eve.id)
    say("ainsert_many", len(await User.ainsert_many([User(name="Fay"), User(name="Gus", age=5)])))
    say("aget", (await User.aget(eve.id)).name)
    eve.age = 51
    await eve.asave()
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
