"""Flask-PyMongo in a small application: its wrapped classes, files, 404s and URL converter."""

from __future__ import annotations

import hashlib
import io
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

from bson import ObjectId
from flask import Flask, jsonify, request
from flask_pymongo import ASCENDING, PyMongo
from flask_pymongo.wrappers import Collection, Database
from pymongo.errors import DuplicateKeyError

Say = Callable[[str, Any], None]


def application(uri: str, database: str) -> tuple[Flask, PyMongo]:
    app = Flask(__name__)
    address, _, query = uri.partition("?")
    app.config["MONGO_URI"] = f"{address.rstrip('/')}/{database}" + (f"?{query}" if query else "")
    mongo = PyMongo(app)

    @app.post("/users")
    def add() -> Any:
        given = request.get_json()
        try:
            made = mongo.db.users.insert_one({"_id": ObjectId(), **given})
        except DuplicateKeyError as error:
            return jsonify(taken=error.details["keyValue"]), 409
        return jsonify(id=str(made.inserted_id)), 201

    @app.post("/login/<ObjectId:user>")
    def login(user: ObjectId) -> Any:
        made = datetime.now(timezone.utc)
        session = {
            "_id": str(uuid4()),
            "user": user,
            "code": secrets.token_urlsafe(64),
            "csrf_token": secrets.token_hex(16),
            "created_at": made,
            "expires_at": made + timedelta(hours=1),
            "agents": {str(user): request.headers["User-Agent"]},
        }
        mongo.db.sessions.insert_one(session)
        response = jsonify(session=session["_id"], csrf=session["csrf_token"])
        response.set_cookie("code", session["code"])
        return response

    @app.get("/me")
    def me() -> Any:
        now = datetime.now(timezone.utc)
        wanted = {"code": request.cookies.get("code", ""), "expires_at": {"$gt": now}}
        line = f"{request.path} at {now.isoformat()}"
        change = {"$set": {"seen_at": now}, "$push": {"log": line}}
        session = mongo.db.sessions.find_one_and_update(wanted, change)
        if session is None:
            return jsonify(error="no session"), 401
        user = mongo.db.users.find_one_or_404(session["user"])
        etag = hashlib.sha1(f"{user['_id']}{session['_id']}".encode()).hexdigest()
        mongo.db.etags.update_one({"_id": session["_id"]}, {"$set": {"etag": etag}}, upsert=True)
        known = mongo.db.etags.count_documents({"etag": etag})
        return jsonify(name=user["name"], since=session["created_at"], etag=etag, known=known)

    @app.delete("/login/<uuid:session>")
    def logout(session: Any) -> Any:
        wanted = {"_id": str(session), "csrf_token": request.get_json()["csrf"]}
        return jsonify(deleted=mongo.db.sessions.delete_one(wanted).deleted_count)

    @app.get("/users")
    def listed() -> Any:
        found = mongo.db.users.find({}, {"_id": 0}).sort("name", ASCENDING)
        return jsonify(list(found.skip(int(request.args.get("skip", 0))).limit(2)))

    @app.get("/users/<ObjectId:user>")
    def one(user: ObjectId) -> Any:
        return jsonify(mongo.db.users.find_one_or_404(user))

    @app.put("/users/<ObjectId:user>")
    def change(user: ObjectId) -> Any:
        result = mongo.db.users.update_one({"_id": user}, {"$set": request.get_json()})
        return jsonify(matched=result.matched_count, modified=result.modified_count)

    @app.get("/ages")
    def ages() -> Any:
        stages = [{"$group": {"_id": None, "sum": {"$sum": "$age"}, "n": {"$sum": 1}}}]
        return jsonify(list(mongo.db.users.aggregate(stages)))

    @app.post("/files/<name>")
    def save(name: str) -> Any:
        mongo.save_file(name, io.BytesIO(request.get_data()))
        return "", 201

    @app.get("/files/<name>")
    def send(name: str) -> Any:
        return mongo.send_file(name)

    @app.delete("/users")
    def clear() -> Any:
        with mongo.cx.start_session() as session, session.start_transaction():
            gone = mongo.db.users.delete_many({}, session=session).deleted_count
        return jsonify(deleted=gone)

    return app, mongo


def main(uri: str, database: str, say: Say) -> None:
    app, mongo = application(uri, database)
    say("classes", (type(mongo.db) is Database, type(mongo.db.users) is Collection))
    mongo.db.users.create_index("name", unique=True)
    web = app.test_client()

    def ask(method: str, path: str, **how: Any) -> Any:
        response = web.open(path, method=method, **how)
        body = response.get_json() if response.is_json else response.get_data()
        length = len(body) if isinstance(body, bytes) else None
        if isinstance(body, dict) and "since" in body:
            now = datetime.now(timezone.utc).replace(tzinfo=None)
            passed = now - body.pop("since")
            say("since", abs(passed) < timedelta(minutes=1))
        say(f"{method} {path}", (response.status_code, body if not length else (length, body[:9])))
        return body

    ann = ask("POST", "/users", json={"name": "Ann", "age": 31})["id"]
    for name in ("Bob", "Cid", "Ann"):
        ask("POST", "/users", json={"name": name, "age": 20})
    ask("GET", "/users")
    ask("GET", "/users?skip=2")
    ask("GET", f"/users/{ann}")
    ask("GET", "/me")
    login = ask("POST", f"/login/{ann}")
    ask("GET", "/me")
    other = ask("POST", f"/login/{ann}")
    ask("GET", "/me")
    ask("DELETE", f"/login/{login['session']}", json={"csrf": other["csrf"]})
    ask("DELETE", f"/login/{other['session']}", json={"csrf": other["csrf"]})
    ask("GET", "/me")
    ask("PUT", f"/users/{ann}", json={"age": 32})
    ask("GET", f"/users/{'0' * 24}")
    ask("GET", "/users/no-id")
    ask("GET", "/ages")
    ask("POST", "/files/a.txt", data=b"contents " * 40_000)
    ask("GET", "/files/a.txt")
    ask("GET", "/files/none.txt")
    ask("DELETE", "/users")
    say("left", mongo.db.users.count_documents({}))
    mongo.cx.close()
