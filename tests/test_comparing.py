"""The mode verify: every call is made, and what its answer has in common with the recorded one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import flask
import pytest
from pymongo import MongoClient

from tests.support.offline import run_program
from timetracer import TraceConfig, use_cassette
from timetracer.bindings import Bindings, Run
from timetracer.comparing import Drift, Known, _Answers, compare_tapes, count_kinds, tell, untold
from timetracer.errors import ABSENT, CallSite, Difference
from timetracer.evidence import UNKNOWN, Evidence
from timetracer.integrations.flask import auto_setup
from timetracer.opening import open_file
from timetracer.plugins import disable_pymongo, enable_pymongo

A, B, C, D = (letter * 24 for letter in "abcd")


def oid(digits: str) -> dict[str, str]:
    return {"$oid": digits}


def date(text: str) -> dict[str, str]:
    return {"$date": text}


def drift(recorded: Any, live: Any, method: str = "FIND") -> list[str]:
    """The places in which two answers differ."""
    return [one.path for one in walked(recorded, live, method).found]


def walked(recorded: Any, live: Any, method: str = "FIND") -> _Answers:
    walk = _Answers(Bindings("x.json", Run()), Evidence(UNKNOWN, (), 0.0), {}, set(), method)
    walk.compare({"data": recorded}, {"data": live})
    return walk


# ------------------------------------------------------------------------------- two answers

ALIKE = {
    "the same": ({"name": "Ann", "age": 3}, {"name": "Ann", "age": 3}),
    "ids made anew": ([{"_id": oid(A), "by": oid(B)}], [{"_id": oid(C), "by": oid(D)}]),
    "one id in two places": ([oid(A), {"of": oid(A)}], [oid(B), {"of": oid(B)}]),
    "an id in a text": (f"user {A} has come", f"user {B} has come"),
    "times read from a clock": (
        {"at": date("2026-01-02T03:04:05.678Z")},
        {"at": date("2027-02-03T04:05:06.789Z")},
    ),
    "the server's own clock": (
        {"at": {"$timestamp": {"t": 1, "i": 2}}},
        {"at": {"$timestamp": {"t": 3, "i": 4}}},
    ),
    "a server's remarks on a write": (
        {"raw_result": {"n": 1, "electionId": oid(A), "opTime": {"t": 1}, "ok": 1.0}},
        {"raw_result": {"n": 1, "ok": 1.0}},
    ),
}


@pytest.mark.parametrize("recorded, live", ALIKE.values(), ids=ALIKE)
def test_answers_that_are_the_same_but_for_what_each_run_makes(recorded: Any, live: Any) -> None:
    assert drift(recorded, live) == []


CHANGED = {
    "a value": ({"name": "Ann"}, {"name": "Bob"}, ["name"]),
    "a type": ({"n": 1}, {"n": 1.0}, ["n"]),
    "a bool for a number": ({"n": 1}, {"n": True}, ["n"]),
    "a count": (3, 4, [""]),
    "nothing found any more": ({"_id": 1}, None, [""]),
    "a field more": ([{"a": 1}], [{"a": 1, "b": 2}], ["0.b"]),
    "a field less": ([{"a": 1, "b": 2}], [{"a": 1}], ["0.b"]),
    "a document more, in between": (
        [{"n": 1, "_id": oid(A)}, {"n": 3, "_id": oid(B)}],
        [{"n": 1, "_id": oid(C)}, {"n": 2}, {"n": 3, "_id": oid(D)}],
        ["1"],
    ),
    "a document less": ([{"n": 1}, {"n": 2}], [{"n": 1}], ["1"]),
    "another order of documents": ([{"n": 1}, {"n": 2}], [{"n": 2}, {"n": 1}], [""]),
    "another order of fields": ({"a": {"x": 1, "y": 2}}, {"a": {"y": 2, "x": 1}}, ["a"]),
    "one id for two": ([oid(A), oid(A)], [oid(B), oid(C)], ["1"]),
    "two ids for one": ([oid(A), oid(B)], [oid(C), oid(C)], ["1"]),
    "an id that was itself": ([oid(A), {"of": oid(A)}], [oid(A), {"of": oid(B)}], ["1.of"]),
    "an id that has become a text": ({"by": oid(A)}, {"by": A}, ["by"]),
    "a date that has become an id": ({"at": date("2026-01-02T00:00:00Z")}, {"at": oid(A)}, ["at"]),
    "a day that was written down": (
        {"born": date("2000-01-02T00:00:00Z")},
        {"born": date("2001-01-02T00:00:00Z")},
        ["born"],
    ),
    "what a write did": ({"raw_result": {"n": 1}}, {"raw_result": {"n": 2}}, ["raw_result.n"]),
    "a document's own opTime": ([{"opTime": 1}], [{"opTime": 2}], ["0.opTime"]),
}


@pytest.mark.parametrize("recorded, live, places", CHANGED.values(), ids=CHANGED)
def test_answers_that_drift(recorded: Any, live: Any, places: list[str]) -> None:
    assert drift(recorded, live) == places


def test_a_reply_to_a_command_is_compared_without_what_is_of_the_server() -> None:
    recorded = {"n": 1, "operationTime": 5, "$clusterTime": {"clusterTime": 6}, "ok": 1.0}
    assert drift(recorded, {"n": 2, "ok": 1.0}, "COMMAND") == ["n"]


def test_documents_that_have_come_in_between_show_nothing_of_what_is_made_up() -> None:
    walk = walked(
        [{"n": 1, "_id": oid(A)}, {"n": 2}, {"n": 9}],
        [{"n": 1, "_id": oid(B)}, {"n": 3, "x": oid(C)}],
    )
    assert [(one.key, other.key) for one, other in walk.born] == [(A, B)]


# ------------------------------------------------------------------------------- a live run

PROGRAM = """
    import datetime, sys, uuid
    from pymongo import MongoClient
    from timetracer import TraceConfig, use_cassette
    from timetracer.plugins import enable_pymongo

    uri, name, cassette, mode, *changes = sys.argv[1:]
    enable_pymongo()
    before = MongoClient(uri)
    before.drop_database(name)
    before[name].people.insert_one({
        "name": "Ann", "age": 4 if "older" in changes else 3, "password": str(len(changes)),
    })
    before[name].many.insert_many([{"n": n} for n in range(300)])
    db = MongoClient(uri)[name]
    redact = TraceConfig(redact="redact" in changes)
    with use_cassette(cassette, mode=mode, config=redact) as session:
        order = db.orders.insert_one({"at": datetime.datetime.now(), "key": str(uuid.uuid4())})
        assert db.orders.find_one({"_id": order.inserted_id})["key"]
        ann = db.people.find_one({"name": "Ann"})
        db.orders.update_one({"of": ann["_id"]}, {"$set": {"paid": 1}}, upsert=True)
        for one in db.many.find(batch_size=100).sort("n"):  # read on while others are asked
            if one["n"] % 50 == 0:
                db.many.update_one({"_id": one["_id"]}, {"$set": {"seen": 1}})
        try:
            db.command("nonsense")
        except Exception as error:
            assert error.code == 59
        if "more" in changes:
            db.people.count_documents({})
        if "less" not in changes:
            db.people.distinct("name")
    for one in session.drift:
        print(one)
"""


@pytest.fixture
def program(mongodb: str, database: str, tmp_path: Path) -> Any:
    def run(*arguments: str) -> str:
        given = (mongodb, database, str(tmp_path / "tape.json"), *arguments)
        return run_program(PROGRAM, *given, cwd=tmp_path).stdout

    return run


def test_a_run_that_is_as_it_was_has_no_drift_and_writes_nothing(
    program: Any, tmp_path: Path
) -> None:
    program("record")
    before = (tmp_path / "tape.json").read_bytes()
    assert program("verify") == ""
    assert (tmp_path / "tape.json").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["tape.json"]


def test_each_call_that_drifts_is_told(program: Any) -> None:
    program("record")
    told = program("verify", "older", "more", "less")
    assert "find_one on" in told and "age: recorded 3, now 4" in told
    assert 'password: recorded "0", now "3"' in told
    assert "count_documents on" in told and "is not in tape.json, called at" in told
    assert "distinct on" in told and "was not called: event" in told
    assert told.count("tape.json") == 3


def test_secrets_are_not_told(program: Any, tmp_path: Path) -> None:
    program("record", "redact")
    assert program("verify", "redact") == ""
    told = program("verify", "redact", "older", "more")
    assert "age: recorded 3, now 4" in told
    assert "password" not in told  # a placeholder stands for any value of its type


@pytest.fixture
def enabled() -> Any:
    enable_pymongo()
    untold()
    yield
    disable_pymongo()


@pytest.mark.usefixtures("enabled")
def test_the_first_five_places_are_told(mongodb: str, database: str, tmp_path: Path) -> None:
    client: MongoClient[dict[str, Any]] = MongoClient(mongodb)
    people = client[database].people
    for mode, add in (("record", 0), ("verify", 1)):
        people.delete_many({})
        people.insert_one({"_id": 1, **dict.fromkeys("abcdefg", add)})
        with use_cassette(tmp_path / "x.json", mode=mode) as session:
            people.find_one({"_id": 1})
    (one,) = session.drift
    assert [place.path for place in one.differences] == ["a", "b", "c", "d", "e"]
    assert str(one).endswith("and 2 more differences")
    assert count_kinds(session.drift) == "1 changed"
    assert [other.eid for other in untold()] == [1]
    assert untold() == []
    client.close()


@pytest.mark.usefixtures("enabled")
def test_a_call_that_is_not_recorded_is_told_with_the_nearest_one(
    mongodb: str, database: str, tmp_path: Path
) -> None:
    client: MongoClient[dict[str, Any]] = MongoClient(mongodb)
    for mode, name in (("record", "Ann"), ("verify", "Bob")):
        with use_cassette(tmp_path / "x.json", mode=mode, config=TraceConfig(redact=False)) as it:
            client[database].people.find_one({"name": name})
    client.close()
    new, gone = it.drift
    assert (new.kind, new.eid, gone.kind, gone.eid) == ("new", 1, "gone", 1)
    assert 'nearest is event 1:\n    filter.name: recorded "Ann", now "Bob"' in str(new)


@pytest.mark.usefixtures("enabled")
def test_an_http_request_is_verified_too(mongodb: str, database: str, tmp_path: Path) -> None:
    client: MongoClient[dict[str, Any]] = MongoClient(mongodb)
    for mode, age in (("record", 3), ("verify", 4)):
        app = flask.Flask("people")
        auto_setup(app, TraceConfig(mode=mode, cassette_dir=tmp_path))
        app.get("/ann")(lambda: client[database].people.find_one({"_id": 1}))
        os.environ["TIMETRACER_MODE"] = "off"  # of all but the request
        client[database].people.replace_one({"_id": 1}, {"age": age}, upsert=True)
        del os.environ["TIMETRACER_MODE"]
        with app.test_client().get("/ann") as response:
            assert response.json == {"_id": 1, "age": age}
    client.close()
    assert [(one.kind, one.method) for one in untold()] == [("changed", "FIND_ONE")]


@pytest.mark.usefixtures("enabled")
@pytest.mark.parametrize("recorded, live", [(10, 3), (3, 10)])
def test_a_cursor_is_compared_as_far_as_it_was_read_in_both(
    recorded: int, live: int, mongodb: str, database: str, tmp_path: Path
) -> None:
    client: MongoClient[dict[str, Any]] = MongoClient(mongodb)
    many = client[database].many
    many.insert_many([{"_id": n} for n in range(10)])
    for mode, read in (("record", recorded), ("verify", live)):
        with use_cassette(tmp_path / "x.json", mode=mode, config=TraceConfig(redact=False)) as it:
            cursor = many.find(batch_size=2).sort("_id")
            assert [next(cursor)["_id"] for _ in range(read)] == list(range(read))
            del cursor
    client.close()
    assert it.drift == []


@pytest.mark.usefixtures("enabled")
def test_a_secret_that_has_come_since_is_not_told(
    mongodb: str, database: str, tmp_path: Path
) -> None:
    client: MongoClient[dict[str, Any]] = MongoClient(mongodb)
    notes = client[database].notes
    for mode, note in (("record", "milk"), ("verify", "mongodb://ann:hunter2@db/x")):
        notes.replace_one({"_id": 1}, {"note": note}, upsert=True)
        with use_cassette(tmp_path / "x.json", mode=mode, config=TraceConfig(redact=True)) as it:
            notes.find_one({"_id": 1})
    client.close()
    (one,) = it.drift
    assert "@db/x" in str(one) and "hunter2" not in str(one)


@pytest.mark.usefixtures("enabled")
def test_what_a_killed_run_left_is_not_touched(
    mongodb: str, database: str, tmp_path: Path
) -> None:
    client: MongoClient[dict[str, Any]] = MongoClient(mongodb)
    left = tmp_path / "x.json.1a2b3c4d.partial"
    for mode in ("record", "verify"):
        with use_cassette(tmp_path / "x.json", mode=mode):
            client[database].people.find_one({})
        left.write_bytes(b"")
    client.close()
    with use_cassette(tmp_path / "x.json", mode="verify"):
        assert left.exists()


@pytest.mark.usefixtures("enabled")
def test_the_users_hook_changes_live_answers_too(
    mongodb: str, database: str, tmp_path: Path
) -> None:
    def shorten(event: dict[str, Any]) -> dict[str, Any]:
        body = event["result"]["body"]
        body["data"] = str(body["data"])[:3]
        return event

    client: MongoClient[dict[str, Any]] = MongoClient(mongodb)
    config = TraceConfig(before_record=shorten)
    for mode in ("record", "verify"):
        with use_cassette(tmp_path / "x.json", mode=mode, config=config) as session:
            client[database].people.estimated_document_count()
    client.close()
    assert session.drift == []


def test_verify_needs_a_cassette(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"x\.json"):
        use_cassette(tmp_path / "x.json", mode="verify").__enter__()


# ------------------------------------------------------------------------------- two recordings


def tape(file: Path, *events: tuple[str, Any, Any]) -> Any:
    rows = [
        {
            "eid": number,
            "event_type": "db.query",
            "start_offset_ms": number,
            "duration_ms": 1,
            "signature": {"lib": "pymongo", "method": method, "url": "shop.orders", "query": {}},
            "arguments": arguments,
            "result": {"status": 0, "body": {"captured": True, "data": data}},
        }
        for number, (method, arguments, data) in enumerate(events, 1)
    ]
    file.write_text(json.dumps({"schema_version": "1.0", "session": {}, "events": rows}))
    session = open_file(file, TraceConfig(mode="replay").resolve())
    return session.cassette


def test_two_recordings_are_compared_in_the_same_way(tmp_path: Path) -> None:
    old = tape(
        tmp_path / "old.json",
        ("INSERT_ONE", {"document": {"x": 1}}, {"inserted_id": oid(A)}),
        ("FIND_ONE", {"filter": {"_id": oid(A)}}, {"_id": oid(A), "x": 1}),
        ("FIND_ONE", {"filter": {"n": 1}}, {"n": 1, "v": "old"}),
        ("DELETE_MANY", {"filter": {"n": 1}}, {"acknowledged": True}),
    )
    new = tape(
        tmp_path / "new.json",
        ("INSERT_ONE", {"document": {"x": 1}}, {"inserted_id": oid(B)}),
        ("FIND_ONE", {"filter": {"_id": oid(B)}}, {"_id": oid(B), "x": 1}),
        ("FIND_ONE", {"filter": {"n": 1}}, {"n": 1, "v": "new"}),
        ("COUNT_DOCUMENTS", {"filter": {"n": 1}}, 1),
    )
    found = compare_tapes(old, new, Known())
    assert count_kinds(found) == "1 new, 1 gone, 1 changed"
    assert 'v: recorded "old", now "new"' in tell(found)
    assert compare_tapes(old, old, Known()) == []


def test_drift_is_told_from_process_to_process_as_json() -> None:
    differences = (Difference("n", 1, ABSENT), Difference("at", ABSENT, {"$date": "x"}, True))
    site = CallSite("a.py", 1, "f")
    drift = Drift("changed", "x.json", 3, "FIND_ONE", "shop.a", differences, 2, site)

    assert Drift.load(json.loads(json.dumps(drift.dump()))) == drift
    gone = Drift("gone", "x.json", None, "FIND_ONE", "shop.a", remedy="record it")
    assert Drift.load(json.loads(json.dumps(gone.dump()))) == gone
