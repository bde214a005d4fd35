"""Registers users and logs them in; Timetracer is the two lines that name it.

    TIMETRACER_MODE=record python app.py     answers from MongoDB, and writes cassettes
    TIMETRACER_MODE=replay python app.py     answers from the cassettes, without MongoDB

No cassette ever holds a password, its hash or a token; in replay the live ones take their place.
"""

import os
import secrets

from flask import Flask, make_response, request
from pymongo import MongoClient
from werkzeug.security import check_password_hash, generate_password_hash

from timetracer.integrations.flask import auto_setup
from timetracer.plugins import enable_pymongo

app = auto_setup(Flask(__name__))
enable_pymongo()

client = MongoClient(os.environ.get("MONGODB_URI", "mongodb://localhost:27017"))
db = client[os.environ.get("LOGIN_DATABASE", "login")]


@app.post("/register")
def register():
    """Create a user; only a salted hash of the password is stored."""
    password_hash = generate_password_hash(request.form["password"])
    db.users.insert_one({"_id": request.form["name"], "password_hash": password_hash})
    return "registered", 201


@app.post("/login")
def login():
    """Give a session's cookie for name and password."""
    user = db.users.find_one({"_id": request.form["name"]})
    if user is None or not check_password_hash(user["password_hash"], request.form["password"]):
        return "wrong name or password", 403
    token = secrets.token_urlsafe()
    db.sessions.insert_one({"_id": f"session of {user['_id']}", "token": token})
    response = make_response("welcome")
    response.set_cookie("session", token)
    return response


@app.get("/me")
def me():
    """Tell whose session the cookie is of."""
    session = db.sessions.find_one({"token": request.cookies.get("session")})
    return (session["_id"], 200) if session else ("no such session", 401)


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")))
