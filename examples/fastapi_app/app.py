"""A small library on FastAPI and PyMongo's AsyncMongoClient; Timetracer is two of its lines.

    TIMETRACER_MODE=record python app.py     answers from MongoDB, and writes cassettes
    TIMETRACER_MODE=replay python app.py     answers from the cassettes, without MongoDB
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import BackgroundTasks, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from pymongo import AsyncMongoClient

from timetracer.integrations.fastapi import auto_setup
from timetracer.plugins import enable_pymongo

enable_pymongo()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Connect at start-up; these calls belong to the program's own cassette."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
        os.environ.get("MONGODB_URI", "mongodb://localhost:27017")
    )
    app.state.db = client.library
    await app.state.db.books.create_index("author")
    yield
    await client.close()


app = auto_setup(FastAPI(lifespan=lifespan))


class Book(BaseModel):
    """A book as it is sent."""

    title: str
    author: str


def public(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its ObjectId as text, since JSON has none."""
    return {**document, "_id": str(document["_id"])}


@app.get("/books")
async def list_books(author: str | None = None) -> list[dict[str, Any]]:
    """List the books, an author's only with ?author=..."""
    wanted = {"author": author} if author else {}
    return [public(book) async for book in app.state.db.books.find(wanted).sort("title")]


@app.get("/books.txt")
async def export_books() -> StreamingResponse:
    """Stream all titles; the database is asked while the response is on its way."""

    async def lines() -> AsyncIterator[str]:
        async for book in app.state.db.books.find(batch_size=1).sort("title"):
            yield f"{book['title']}\n"

    return StreamingResponse(lines(), media_type="text/plain")


@app.get("/books/{title}")
async def get_book(title: str) -> dict[str, Any]:
    """Give one book by its title."""
    book = await app.state.db.books.find_one({"title": title})
    if book is None:
        raise HTTPException(404, f"no book {title}")
    return public(book)


@app.post("/books", status_code=201)
async def create_book(book: Book, tasks: BackgroundTasks) -> dict[str, str]:
    """Create a book; what is written after the response belongs to the request too."""
    result = await app.state.db.books.insert_one(book.model_dump())
    tasks.add_task(log_creation, book.title)
    return {"_id": str(result.inserted_id)}


async def log_creation(title: str) -> None:
    """Write down that a book was created."""
    await app.state.db.log.insert_one({"created": title})


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")), log_level="warning")
