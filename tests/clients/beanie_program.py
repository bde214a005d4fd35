"""Beanie on a shop: links, indexes, revisions, bulk writes, a transaction, aggregation, errors."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID, uuid4

from beanie import (
    BackLink,
    BulkWriter,
    DecimalAnnotation,
    DeleteRules,
    Document,
    DocumentWithSoftDelete,
    Indexed,
    Insert,
    Link,
    PydanticObjectId,
    Replace,
    SaveChanges,
    WriteRules,
    before_event,
    init_beanie,
)
from beanie.exceptions import RevisionIdWasChanged
from beanie.operators import In, Inc, Or, Push, RegEx, Set
from pydantic import BaseModel, Field, ValidationError
from pymongo import ASCENDING, AsyncMongoClient, IndexModel
from pymongo.errors import DuplicateKeyError

Say = Callable[[str, Any], None]


class Maker(Document):
    name: Annotated[str, Indexed(unique=True)]
    founded: datetime = datetime(1990, 5, 6)

    class Settings:
        name = "makers"


class Part(BaseModel):
    label: str
    weight: float = 1.5


class Product(Document):
    name: str
    price: DecimalAnnotation = Decimal("1.10")
    tags: list[str] = Field(default_factory=list)
    parts: list[Part] = Field(default_factory=list)
    maker: Link[Maker] | None = None
    others: list[Link[Maker]] = Field(default_factory=list)
    touched: int = 0

    @before_event([Insert, Replace])
    def touch(self) -> None:
        self.touched += 1

    class Settings:
        name = "products"
        use_revision = True
        use_state_management = True
        indexes = [IndexModel([("name", ASCENDING), ("price", ASCENDING)], name="by_name")]  # noqa: RUF012


class Shop(Document):
    city: str
    products: list[Link[Product]] = Field(default_factory=list)


class Vehicle(Document):
    wheels: int

    class Settings:
        is_root = True


class Bike(Vehicle):
    gears: int = 1


class Owner(Document):
    name: str
    houses: list[BackLink[House]] = Field(
        default_factory=list, json_schema_extra={"original_field": "owner"}
    )


class House(Document):
    street: str
    owner: Link[Owner]


def now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)


class Visit(Document):
    id: UUID = Field(default_factory=uuid4)
    mark: Annotated[PydanticObjectId, Indexed(unique=True)] = Field(
        default_factory=PydanticObjectId
    )
    code: str = Field(default_factory=lambda: secrets.token_urlsafe(64))
    slug: str = Field(default_factory=lambda: f"visit-{uuid4().hex}")
    token: str = Field(default_factory=lambda: secrets.token_hex(16))
    mail: str = Field(default_factory=lambda: f"guest+{random.randrange(10**6):06d}@example.com")
    maker: Link[Maker] | None = None
    created_at: datetime = Field(default_factory=now)
    updated_at: datetime | None = None
    expires_at: datetime = Field(default_factory=lambda: now() + timedelta(days=14))
    pages: list[str] = Field(default_factory=list)
    marks: dict[str, UUID] = Field(default_factory=dict)

    @before_event([Insert, Replace, SaveChanges])
    def touch(self) -> None:
        self.updated_at = now()

    class Settings:
        name = "visits"
        use_state_management = True
        use_revision = True


class Note(DocumentWithSoftDelete):
    of: UUID
    at: datetime = Field(default_factory=now)


class Named(BaseModel):
    name: str


async def main(uri: str, database: str, say: Say) -> None:
    client: Any = AsyncMongoClient(uri, uuidRepresentation="standard")
    models = [Maker, Product, Shop, Vehicle, Bike, Owner, House, Visit, Note]
    await init_beanie(database=client[database], document_models=models)
    await writes(say)
    await queries(say)
    await updates(say)
    await links(say)
    await inheritance(say)
    await transactions(client, say)
    await made_values(client, say)
    await errors(say)
    say("indexes", sorted(await Product.get_pymongo_collection().index_information()))
    await Shop.delete_all()
    say("deleted", await Shop.count())
    await client.close()


async def writes(say: Say) -> None:
    acme = await Maker(name="Acme").insert()
    bolt = Maker(name="Bolt")
    await bolt.save()
    say("ids", (acme.id, bolt.id))
    lamp = Product(name="Lamp", price=Decimal("9.90"), tags=["light"], maker=acme, others=[bolt])
    await lamp.insert()
    say("revision", lamp.revision_id)
    await Product.insert_many([Product(name=name, tags=["iron"]) for name in ("Nail", "Nut")])
    desk = Product(name="Desk", parts=[Part(label="leg"), Part(label="top", weight=9)])
    await desk.create()
    desk.price = Decimal("20")
    await desk.replace()
    say("replaced", (desk.revision_id, desk.touched))
    desk.tags.append("wood")
    say("changes", desk.get_changes())
    await desk.save_changes()
    say("saved", (await Product.get(desk.id)).model_dump(exclude={"id"}))


async def queries(say: Say) -> None:
    say("find", [p.name for p in await Product.find(Product.price < 5).sort("-name").to_list()])
    say("find_one", (await Product.find_one(Product.name == "Lamp")).price)
    say("none", await Product.find_one({"name": "none"}))
    either = Product.find(Or(In(Product.name, ["Nut"]), RegEx(Product.name, "^L")))
    say("or", [p.name async for p in either.sort(+Product.name)])
    say("page", [p.name for p in await Product.find_all(skip=1, limit=2, sort="name").to_list()])
    say("projected", await Product.find({"tags": "iron"}).project(Named).to_list())
    say("count", (await Product.count(), await Product.find({"tags": "iron"}).count()))
    say("exists", await Product.find({"name": "Nut"}).exists())
    say("distinct", sorted(await Product.distinct("tags")))
    say("average", await Product.find({"name": "Desk"}).avg(Product.touched))
    say("first", (await Product.find({}).sort("name").first_or_none()).name)
    stages = [{"$unwind": "$tags"}, {"$group": {"_id": "$tags", "n": {"$sum": 1}}}]
    say("aggregate", await Product.aggregate([*stages, {"$sort": {"_id": 1}}]).to_list())
    say("nested", [p.name for p in await Product.find({"parts.label": "leg"}).to_list()])


async def updates(say: Say) -> None:
    lamp = await Product.find_one({"name": "Lamp"})
    await lamp.update(Set({Product.price: Decimal("8.80")}), Push({Product.tags: "sale"}))
    say("updated", (lamp.price, lamp.tags))
    result = await Product.find({"tags": "iron"}).update(Inc({Product.touched: 10}))
    say("update_many", result.raw_result["n"])
    upserted = await Maker.find_one(Maker.name == "Crux").upsert(
        Set({Maker.founded: datetime(2001, 1, 1)}), on_insert=Maker(name="Crux")
    )
    say("upsert", upserted)
    async with BulkWriter() as writer:
        nut = Product.find_one({"name": "Nut"})
        await nut.update(Set({Product.touched: 1}), bulk_writer=writer)
        await Product.insert_one(Product(name="Bulk"), bulk_writer=writer)
        await Product.find_one({"name": "Nail"}).delete(bulk_writer=writer)
    say("bulk", [(p.name, p.touched) for p in await Product.find_all().sort("name").to_list()])
    say("removed", (await Product.find({"name": "Bulk"}).delete()).deleted_count)


async def links(say: Say) -> None:
    lamp = await Product.find_one({"name": "Lamp"})
    await lamp.fetch_all_links()
    say("fetched", (lamp.maker.name, [maker.name for maker in lamp.others]))
    eager = await Product.find_one({"name": "Lamp"}, fetch_links=True)
    say("looked up", [type(link).__name__ for link in (eager.maker, *eager.others)])
    of_acme = Product.find({"maker.name": "Acme"}, fetch_links=True)
    say("by link", [product.name for product in await of_acme.to_list()])
    shop = Shop(city="Rome", products=[Product(name="New", maker=Maker(name="Dyno")), lamp])
    await shop.save(link_rule=WriteRules.WRITE)
    kept = await Shop.find_one({"city": "Rome"}, fetch_links=True)
    say("written", [type(product).__name__ for product in kept.products])
    ann = await Owner(name="Ann").insert()
    await House.insert_many([House(street="High", owner=ann), House(street="Low", owner=ann)])
    back = await Owner.find_one({"name": "Ann"}, fetch_links=True)
    say("back", [type(house).__name__ for house in back.houses])
    await back.delete(link_rule=DeleteRules.DELETE_LINKS)
    say("cascade", await House.count())


async def inheritance(say: Say) -> None:
    await Vehicle(wheels=4).insert()
    await Bike(wheels=2, gears=7).insert()
    vehicles = await Vehicle.find(with_children=True).to_list()
    say("inherited", [type(vehicle).__name__ for vehicle in vehicles])
    say("child", (await Bike.find_one({"wheels": 2})).gears)


async def transactions(client: Any, say: Say) -> None:
    async with client.start_session() as session:
        async with await session.start_transaction():
            await Maker(name="Eon").insert(session=session)
            bolt = Maker.find_one({"name": "Bolt"}, session=session)
            await bolt.update({"$set": {"name": "Volt"}})
        new = {"name": {"$in": ["Eon", "Volt"]}}
        say("committed", await Maker.find(new, session=session).count())
        try:
            async with await session.start_transaction():
                await Maker(name="Flux").insert(session=session)
                raise LookupError("undo")
        except LookupError:
            say("aborted", await Maker.find({"name": "Flux"}).count())


async def made_values(client: Any, say: Say) -> None:
    acme = await Maker.find_one(Maker.name == "Acme")
    one = await Visit(maker=acme).insert()
    two = await Visit(pages=[f"/makers/{acme.id}"]).save()
    three = Visit()
    await Visit.insert_many([three, Visit()])
    visits = (one, two, three)
    say("visits", [(v.id, v.mark, v.code, v.slug, v.token, v.mail, v.revision_id) for v in visits])
    say("get", (await Visit.get(two.id)).pages == two.pages)
    for name in ("mark", "code", "slug", "token", "mail"):
        found = await Visit.find_one({name: getattr(two, name)})
        say(f"by {name}", (found.id == two.id, getattr(found, name) == getattr(two, name)))
    ids = list({one.id, three.id, uuid4()})
    say("in", await Visit.find(In(Visit.id, ids)).count())
    say("recent", await Visit.find(Visit.created_at <= now(), Visit.expires_at > now()).count())
    say("link", (await Visit.get(one.id)).maker.ref.id == acme.id)
    say("of maker", [v.id == one.id for v in await Visit.find(Visit.maker.id == acme.id).to_list()])
    one.pages.append(f"/visits/{one.id}?mark={one.mark}&at={now().isoformat()}")
    one.marks = {str(two.mark): two.id}
    await one.save_changes()
    kept = await Visit.get(one.id)
    say("kept", (kept.pages == one.pages, kept.marks == one.marks))
    say("updated", kept.updated_at > kept.created_at)
    new = secrets.token_urlsafe(64)
    query = Visit.find_one(Visit.code == two.code, Visit.expires_at > now())
    await query.update(Set({Visit.code: new, Visit.expires_at: now() + timedelta(hours=1)}))
    rotated = await Visit.find_one(Visit.code == new)
    say("rotated", (rotated.id == two.id, await Visit.find_one(Visit.code == two.code)))
    fresh = Visit(mark=PydanticObjectId())
    query = Visit.find_one(Visit.mark == fresh.mark)
    await query.upsert(Set({Visit.updated_at: now()}), on_insert=fresh)
    await query.upsert(Set({Visit.updated_at: now()}), on_insert=fresh)
    say("upserted", (await Visit.get(fresh.id)).code == fresh.code)
    async with BulkWriter() as writer:
        await Visit.find_one(Visit.id == three.id).update(
            Set({Visit.pages: [str(one.id)]}), bulk_writer=writer
        )
        await Visit.find_one(Visit.code == fresh.code).delete(bulk_writer=writer)
    say("bulk", ((await Visit.get(three.id)).pages == [str(one.id)], await Visit.get(fresh.id)))
    note = await Note(of=one.id).insert()
    await note.delete()
    deleted = await Note.find_many_in_all({"of": one.id}).to_list()
    say("soft", (await Note.find({"of": one.id}).count(), [n.deleted_at >= n.at for n in deleted]))
    async with client.start_session() as session, await session.start_transaction():
        await Visit(slug=f"in-{acme.id}").insert(session=session)
    say("committed", await Visit.find(Visit.slug == f"in-{acme.id}").count())
    try:
        await Visit(mark=one.mark).insert()
    except DuplicateKeyError as error:
        say("made mark twice", (error.details["keyValue"], error.details["keyPattern"]))
    stale = await Visit.get(three.id)
    await three.set({Visit.slug: "other"})
    stale.slug = "stale"
    try:
        await stale.replace()
    except RevisionIdWasChanged as error:
        say("stale", str(error))
    await Visit.find(Visit.expires_at < now() + timedelta(days=1)).delete()
    say("left", [v.id == two.id for v in await Visit.find(In(Visit.id, [two.id])).to_list()])


async def errors(say: Say) -> None:
    try:
        await Maker(name="Acme").insert()
    except DuplicateKeyError as error:
        say("DuplicateKeyError", (error.code, error.details["keyPattern"]))
    one, two = [await Product.find_one({"name": "Desk"}) for _ in range(2)]
    one.touched = 5
    await one.save()
    two.touched = 6
    try:
        await two.save()
    except RevisionIdWasChanged as error:
        say("RevisionIdWasChanged", str(error))
    try:
        Product(price="dear")
    except ValidationError as error:
        say("ValidationError", error.error_count())
    try:
        await Maker(id=PydanticObjectId("0" * 24), name="none").replace()
    except Exception as error:
        say(type(error).__name__, str(error))
