"""ODMantic through Motor and, by its twin engine, through PyMongo."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Optional

from motor.motor_asyncio import AsyncIOMotorClient
from odmantic import AIOEngine, EmbeddedModel, Field, Index, Model, Reference, SyncEngine, query
from odmantic.exceptions import DocumentNotFoundError, DuplicateKeyError
from pydantic import ValidationError
from pymongo import MongoClient

Say = Callable[[str, Any], None]


class Publisher(Model):
    name: str = Field(unique=True)
    founded: int = Field(default=2000, ge=1440)


class Page(EmbeddedModel):
    number: int
    text: str = ""


class Book(Model):
    title: str
    price: float = 1.5
    printed: datetime = datetime(2020, 2, 3, 4, 5, 6)
    pages: list[Page] = []  # noqa: RUF012
    tags: list[str] = []  # noqa: RUF012
    note: Optional[str] = None  # noqa: UP045
    publisher: Publisher = Reference()

    model_config = {"indexes": lambda: [Index(Book.title, Book.price, name="by_title")]}  # noqa: RUF012


async def main(uri: str, database: str, say: Say) -> None:
    motor: Any = AsyncIOMotorClient(uri)
    await asynchronous(AIOEngine(client=motor, database=database), say)
    motor.close()
    with MongoClient(uri) as client:
        synchronous(SyncEngine(client=client, database=database), say)


async def asynchronous(engine: AIOEngine, say: Say) -> None:
    await engine.configure_database([Publisher, Book])
    say("configured again", await engine.configure_database([Publisher, Book]))
    old = Publisher(name="Old", founded=1800)
    books = [
        Book(title="One", publisher=old, pages=[Page(number=1, text="a")], tags=["x"]),
        Book(title="Two", publisher=old, price=3),
        Book(title="Three", publisher=Publisher(name="New"), tags=["x", "y"]),
    ]
    say("saved", [book.id for book in await engine.save_all(books)])
    one = await engine.find_one(Book, Book.title == "One")
    say("found", one.model_dump())
    one.price = 2.25
    one.pages.append(Page(number=2))
    await engine.save(one)
    dear = (Book.price > 2) & query.in_(Book.title, ["One", "Two"])
    say("sorted", [b.title async for b in engine.find(Book, dear, sort=Book.title.desc())])
    say("page", [b.title for b in await engine.find(Book, sort=Book.title, skip=1, limit=1)])
    say("none", await engine.find_one(Book, Book.title == "none"))
    say("or", await engine.count(Book, (Book.title == "One") | (Book.tags == "y")))
    say("match", [b.title async for b in engine.find(Book, Book.title.match(r"^T"))])
    say("embedded", (await engine.find_one(Book, {"pages.number": 2})).title)
    collection = engine.get_collection(Book)
    stages = [{"$group": {"_id": "$publisher", "n": {"$sum": 1}}}, {"$sort": {"n": 1}}]
    say("aggregate", [row["n"] for row in await collection.aggregate(stages).to_list(None)])
    async with engine.session() as session:
        say("in session", await session.count(Publisher))
    async with engine.transaction() as transaction:
        await transaction.save(Publisher(name="Kept"))
        await transaction.commit()
    async with engine.transaction() as transaction:
        await transaction.save(Publisher(name="Undone"))
        await transaction.abort()
    say("transactions", [p.name for p in await engine.find(Publisher, sort=Publisher.name)])
    try:
        await engine.save(Publisher(name="Old"))
    except DuplicateKeyError as error:
        say("DuplicateKeyError", str(error))
    say("removed", await engine.remove(Book, Book.title == "Two"))
    await engine.delete(one)
    try:
        await engine.delete(one)
    except DocumentNotFoundError as error:
        say("DocumentNotFoundError", type(error.instance).__name__)
    try:
        Publisher(name="Young", founded=1000)
    except ValidationError as error:
        say("ValidationError", error.error_count())


def synchronous(engine: SyncEngine, say: Say) -> None:
    engine.configure_database([Publisher, Book])
    book = Book(title="Four", publisher=engine.find_one(Publisher, Publisher.name == "New"))
    engine.save(book)
    say("sync", [(b.title, b.publisher.name) for b in engine.find(Book, sort=Book.title)])
    say("count", engine.count(Book))
    with engine.transaction() as transaction:
        transaction.save(Publisher(name="Undone"))
        transaction.abort()
    say("aborted", engine.count(Publisher, Publisher.name == "Undone"))
    try:
        engine.save(Publisher(name="New"))
    except DuplicateKeyError as error:
        say("sync DuplicateKeyError", str(error))
    engine.delete(book)
    say("left", engine.count(Book))
