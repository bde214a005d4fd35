"""ODMantic through Motor and, by its twin engine, through PyMongo."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Optional
from uuid import UUID, uuid4

from bson import ObjectId
from motor.motor_asyncio import AsyncIOMotorClient
from odmantic import AIOEngine, EmbeddedModel, Field, Index, Model, Reference, SyncEngine, query
from odmantic.exceptions import DocumentNotFoundError, DuplicateKeyError
from pydantic import ValidationError
from pymongo import MongoClient

Say = Callable[[str, Any], None]


class Publisher(Model):
    name: str = Field(unique=True)
    founded: int = Field(default=2000, ge=1440)


def now() -> datetime:
    return datetime.utcnow()


class Loan(Model):
    key: UUID = Field(default_factory=uuid4, unique=True)
    code: str = Field(default_factory=lambda: secrets.token_urlsafe(64))
    reader: ObjectId = Field(default_factory=ObjectId)
    lent_at: datetime = Field(default_factory=now)
    due_at: datetime = Field(default_factory=lambda: now() + timedelta(days=30))
    history: list[str] = []  # noqa: RUF012
    by_reader: dict[str, int] = {}  # noqa: RUF012
    digest: Optional[str] = None  # noqa: UP045


class Receipt(Model):
    number: UUID = Field(primary_field=True, default_factory=uuid4)
    loan: Loan = Reference()


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
    motor: Any = AsyncIOMotorClient(uri, uuidRepresentation="standard")
    engine = AIOEngine(client=motor, database=database)
    await asynchronous(engine, say)
    await loans(engine, say)
    motor.close()
    with MongoClient(uri, uuidRepresentation="standard") as client:
        sync_engine = SyncEngine(client=client, database=database)
        synchronous(sync_engine, say)
        receipts(sync_engine, say)


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


async def loans(engine: AIOEngine, say: Say) -> None:
    await engine.configure_database([Loan])
    one, two, three = await engine.save_all([Loan(), Loan(), Loan()])
    say("loans", [(loan.id, loan.key, loan.code, loan.reader, loan.due_at) for loan in (one, two)])
    say("by id", (await engine.find_one(Loan, Loan.id == two.id)).key == two.key)
    say("by key", (await engine.find_one(Loan, Loan.key == one.key)).id == one.id)
    say("by code", (await engine.find_one(Loan, Loan.code == three.code)).id == three.id)
    keys = list({one.key, three.key, uuid4()})
    say("in", await engine.count(Loan, Loan.key.in_(keys)))
    say("not in", (await engine.find_one(Loan, Loan.id.not_in([one.id, three.id]))).id == two.id)
    day = timedelta(days=1)
    say("lent", await engine.count(Loan, (Loan.lent_at > now() - day) & (Loan.lent_at <= now())))
    say("late", await engine.count(Loan, Loan.due_at < now()))
    one.history.append(f"{now().isoformat()} lent to {one.reader}, see /loans/{one.key}")
    one.by_reader = {str(one.reader): 1, str(ObjectId()): 2}
    one.digest = hashlib.sha256(f"{one.id}{one.key}".encode()).hexdigest()
    await engine.save(one)
    kept = await engine.find_one(Loan, Loan.digest == one.digest)
    say("kept", (kept.history == one.history, kept.by_reader == one.by_reader, kept.digest))
    say("new object", await engine.find_one(Loan, Loan.id == ObjectId()))
    two.due_at += timedelta(days=7)
    two.code = secrets.token_urlsafe(64)
    await engine.save(two)
    kept = await engine.find_one(Loan, Loan.code == two.code)
    say("rotated", (kept.code == two.code, kept.due_at - kept.lent_at > timedelta(days=36)))
    try:
        await engine.save(Loan(key=two.key))
    except DuplicateKeyError as error:
        say("made key twice", str(error).count(str(two.key)))
    say("removed", await engine.remove(Loan, Loan.reader == three.reader))


def receipts(engine: SyncEngine, say: Say) -> None:
    loan = engine.find_one(Loan, sort=Loan.lent_at)
    paper = engine.save(Receipt(loan=loan))
    say("receipt", (paper.number, paper.loan.id == loan.id))
    found = engine.find_one(Receipt, Receipt.number == paper.number)
    say("found", (found.number == paper.number, found.loan.code == loan.code))
    say("by loan", engine.count(Receipt, Receipt.loan == loan.id))
    collection = engine.get_collection(Receipt)
    stages = [{"$match": {"_id": paper.number, "loan": loan.id}}, {"$project": {"loan": 1}}]
    say("aggregated", [row["_id"] == paper.number for row in collection.aggregate(stages)])
    engine.delete(paper)
    say("no receipt", engine.find_one(Receipt, Receipt.number == paper.number))


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
