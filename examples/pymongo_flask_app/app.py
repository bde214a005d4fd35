"""A small shop on Flask and PyMongo; Timetracer is the two lines that name it.

    TIMETRACER_MODE=record python app.py     answers from MongoDB, and writes cassettes
    TIMETRACER_MODE=replay python app.py     answers from the cassettes, without MongoDB
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

from bson import ObjectId
from flask import Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue
from pymongo import ASCENDING, MongoClient
from pymongo.errors import DuplicateKeyError

from timetracer.integrations.flask import auto_setup
from timetracer.plugins import enable_pymongo

logging.basicConfig(level=os.environ.get("LOG_LEVEL", "WARNING"))

app = auto_setup(Flask(__name__))
enable_pymongo()

client: MongoClient[dict[str, Any]] = MongoClient(
    os.environ.get("MONGODB_URI", "mongodb://localhost:27017")
)
db = client[os.environ.get("SHOP_DATABASE", "shop")]


def public(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its ObjectId as text, since JSON has none."""
    return {**document, "_id": str(document["_id"])}


@app.get("/products")
def list_products() -> ResponseReturnValue:
    """List the products that are in stock, a category's only with ?category=..."""
    wanted: dict[str, Any] = {"in_stock": True}
    if category := request.args.get("category"):
        wanted["category"] = category
    products = db.products.find(wanted).sort("name", ASCENDING)
    return jsonify(products=[public(product) for product in products])


@app.get("/products/<sku>")
def get_product(sku: str) -> ResponseReturnValue:
    """Give one product by its article number."""
    product = db.products.find_one({"sku": sku})
    if product is None:
        return jsonify(error=f"no product {sku}"), 404
    return jsonify(public(product))


@app.post("/products")
def create_product() -> ResponseReturnValue:
    """Create a product; article numbers are unique."""
    data = request.get_json()
    product = {"sku": data["sku"], "name": data["name"], "price": data["price"]}
    product |= {"category": data.get("category", "other"), "in_stock": True}
    try:
        result = db.products.insert_one(product)
    except DuplicateKeyError as error:
        return jsonify(error="sku is taken", key=(error.details or {}).get("keyValue")), 409
    return jsonify(product_id=str(result.inserted_id), created=True), 201


@app.delete("/products/<sku>")
def delete_product(sku: str) -> ResponseReturnValue:
    """Delete a product."""
    deleted = db.products.delete_one({"sku": sku}).deleted_count
    return ("", 204) if deleted else (jsonify(error=f"no product {sku}"), 404)


@app.get("/products/summary")
def summarize_products() -> ResponseReturnValue:
    """Count the products of each category, with their mean price."""
    pipeline: list[dict[str, Any]] = [
        {"$group": {"_id": "$category", "count": {"$sum": 1}, "price": {"$avg": "$price"}}},
        {"$sort": {"_id": 1}},
    ]
    return jsonify(categories=list(db.products.aggregate(pipeline)))


@app.get("/products.csv")
def export_products() -> Response:
    """Stream all products; the database is asked while the response is on its way."""

    def lines() -> Iterator[str]:
        yield "sku,name\n"
        for product in db.products.find(batch_size=2).sort("sku", ASCENDING):
            yield f"{product['sku']},{product['name']}\n"

    return Response(lines(), mimetype="text/csv")


@app.get("/users/<user_id>")
def get_user(user_id: str) -> ResponseReturnValue:
    """Give one user."""
    user = db.users.find_one({"_id": user_id})
    return jsonify(user) if user else (jsonify(error=f"no user {user_id}"), 404)


@app.post("/users")
def create_user() -> ResponseReturnValue:
    """Create a user, and read it back by the id that the driver gave it."""
    user_id = db.users.insert_one({"name": request.get_json()["name"], "visits": 0}).inserted_id
    db.users.update_one({"_id": user_id}, {"$inc": {"visits": 1}})
    user = db.users.find_one({"_id": ObjectId(user_id)})
    assert user is not None
    return jsonify(public(user)), 201


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")))
