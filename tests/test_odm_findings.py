"""What programs with ODMs brought to light, each as the smallest pair of calls that shows it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from bson import Binary, ObjectId

from tests.support.calls import Driver
from tests.support.offline import run_offline, run_program
from timetracer import MissError, TraceConfig, use_cassette

Calls = list[tuple[str, dict[str, Any]]]
MILLISECOND = timedelta(milliseconds=1)


pytestmark = pytest.mark.usefixtures("uuids_are_watched")


def replayed(tape: Path, recorded: Calls, live: Calls, **settings: Any) -> list[Any]:
    """Record calls, and replay others: the number of the recorded call that answered each."""
    config = TraceConfig(**{"redact": False, **settings})
    driver = Driver()
    with use_cassette(tape, mode="record", config=config):
        for method, arguments in recorded:
            driver(method, **arguments)
    with use_cassette(tape, mode="replay", config=config):
        return [_asked(method, arguments) for method, arguments in live]


def _asked(method: str, arguments: dict[str, Any]) -> Any:
    try:
        return Driver()(method, **arguments)
    except MissError:
        return "miss"


# ------------------------------------------------------------------------------- redaction


def test_a_secret_that_is_asked_for_is_the_one_that_was_written(tmp_path: Path) -> None:
    def program(mode: str, *, other: bool = False) -> Any:
        token = uuid.uuid4().hex
        with use_cassette(tmp_path / "before.json", mode=mode):
            _asked("INSERT_ONE", {"document": {"token": token}})
        with use_cassette(tmp_path / "after.json", mode=mode):
            wanted = {"token": uuid.uuid4().hex if other else token}
            update = {"$set": {"token": uuid.uuid4().hex, "n": 1}}
            return _asked("UPDATE_MANY", {"filter": wanted, "update": update})

    assert program("record") == 1
    assert program("replay") == 1
    assert program("replay", other=True) == "miss"


def test_an_ignored_place_may_lie_beside_a_redacted_one(tape: Path) -> None:
    def calls() -> Calls:
        made = uuid.uuid4()
        noise = {"noise": str(made)[:6], "token": str(made), "n": 1}
        return [("INSERT_ONE", {"document": noise}), ("INSERT_ONE", {"document": noise | {"n": 2}})]

    settings: dict[str, Any] = {"redact": True, "ignore": ["document.noise"]}
    assert replayed(tape, calls(), calls(), **settings) == [1, 2]
    assert replayed(tape, calls(), calls()[1:], **settings) == [2]


KEYS = [Binary.from_uuid(uuid.uuid4()), ObjectId(), datetime(2020, 2, 3), {"a": {"b": 1}}]


@pytest.mark.parametrize("key", KEYS, ids=lambda key: type(key).__name__)
def test_a_field_called_key_may_hold_anything(tape: Path, key: Any) -> None:
    calls: Calls = [("INSERT_ONE", {"document": {"key": key}})]

    assert replayed(tape, calls, calls, redact=True) == [1]


# ------------------------------------------------------------------------------- clock readings


def now() -> datetime:
    return datetime.now(timezone.utc)


def earlier() -> datetime:
    """A time that no live one is equal to, and that the clock's tolerance allows."""
    return now() - timedelta(seconds=3)


def written(moment: datetime) -> tuple[str, dict[str, Any]]:
    return "INSERT_ONE", {"document": {"at": moment}}


COMPARING: dict[str, Callable[[datetime], tuple[str, dict[str, Any]]]] = {
    "a filter": lambda at: ("FIND_ONE", {"filter": {"at": {"$lte": at}}}),
    "a range": lambda at: ("FIND_ONE", {"filter": {"at": {"$gt": at, "$lt": datetime.max}}}),
    "not": lambda at: ("FIND_ONE", {"filter": {"at": {"$not": {"$gte": at}}}}),
    "an expression": lambda at: ("FIND_ONE", {"filter": {"$expr": {"$lt": ["$at", at]}}}),
    "$match": lambda at: ("AGGREGATE", {"pipeline": [{"$match": {"at": {"$lt": at}}}]}),
    "a stage": lambda at: ("AGGREGATE", {"pipeline": [{"$set": {"old": {"$lt": ["$at", at]}}}]}),
    "$pull": lambda at: (
        "UPDATE_ONE",
        {"filter": {}, "update": {"$pull": {"sessions": {"ends": {"$lt": at}}}}},
    ),
}
by_place = pytest.mark.parametrize("ask", COMPARING.values(), ids=COMPARING)


@by_place
@pytest.mark.parametrize(
    ("recorded", "live"),
    [((0, 40, 90), (0, 0, 0)), ((0, 0, 0), (0, 1, 2)), ((0, 0, 9), (0, 1, 1))],
    ids=["one reading live", "one reading recorded", "either"],
)
def test_a_bound_is_a_new_reading_even_in_the_same_millisecond(
    tape: Path,
    ask: Callable[[datetime], tuple[str, dict[str, Any]]],
    recorded: tuple[int, ...],
    live: tuple[int, ...],
) -> None:
    def calls(started: datetime, milliseconds: tuple[int, ...]) -> Calls:
        first, second, third = (started + MILLISECOND * number for number in milliseconds)
        return [written(first), ask(second), ask(third)]

    assert replayed(tape, calls(earlier(), recorded), calls(now(), live)) == [1, 2, 3]


@by_place
def test_a_known_time_is_no_other_known_time_as_a_bound(
    tape: Path, ask: Callable[[datetime], tuple[str, dict[str, Any]]]
) -> None:
    def calls(started: datetime, asked: int) -> Calls:
        times = [started, started + MILLISECOND * 40]
        return [*map(written, times), ask(times[asked])]

    assert replayed(tape, calls(earlier(), 0), calls(now(), 1)) == [1, 2, "miss"]


@pytest.mark.parametrize("live", ["known", "new"])
def test_a_time_that_is_asked_for_itself_is_the_one_that_was_written(tape: Path, live: str) -> None:
    def calls(known: datetime, asked: str) -> Calls:
        moment = known if asked == "known" else known + MILLISECOND
        return [written(known), ("FIND_ONE", {"filter": {"at": moment}})]

    recorded = "new" if live == "known" else "known"
    assert replayed(tape, calls(earlier(), recorded), calls(now(), live)) == [1, "miss"]


# ------------------------------------------------------------------------------- sets to pull


PULLED: dict[str, Callable[[list[str]], dict[str, Any]]] = {
    "$in": lambda members: {"$pull": {"tags": {"$in": members}}},
    "$nin": lambda members: {"$pull": {"tags": {"$nin": members}}},
    "$in of a field": lambda members: {"$pull": {"tags": {"by": {"$in": members}}}},
    "$pullAll": lambda members: {"$pullAll": {"tags": members}},
}


@pytest.mark.parametrize("pulled", PULLED.values(), ids=PULLED)
def test_made_values_in_a_set_that_is_pulled_are_found_in_any_order(
    tape: Path, pulled: Callable[[list[str]], dict[str, Any]]
) -> None:
    def calls(order: int) -> Calls:
        made = [uuid.uuid4().hex for _ in range(3)]
        return [
            ("INSERT_ONE", {"document": {"made": made}}),
            ("UPDATE_ONE", {"filter": {}, "update": pulled(made[::order])}),
        ]

    assert replayed(tape, calls(1), calls(-1)) == [1, 2]


def test_a_list_that_is_pulled_as_a_whole_keeps_its_order(tape: Path) -> None:
    def calls(order: int) -> Calls:
        made = [uuid.uuid4().hex for _ in range(3)]
        return [
            ("INSERT_ONE", {"document": {"made": made}}),
            ("UPDATE_ONE", {"filter": {}, "update": {"$pull": {"tags": made[::order]}}}),
        ]

    assert replayed(tape, calls(1), calls(-1)) == [1, "miss"]


# ------------------------------------------------------------------------------- failures

CLASHES = """
import os, secrets, sys, uuid
from pymongo import MongoClient
from pymongo.errors import BulkWriteError, DuplicateKeyError
from timetracer import MissError, use_cassette
from timetracer.plugins import enable_pymongo
enable_pymongo()
uri, database, directory, mode, changed = sys.argv[1:]
things = MongoClient(uri, connect=False)[database]["things"]
literal = uuid.UUID("6f1c2d3e-4b5a-4c6d-8e9f-0a1b2c3d4e5f").hex

def told(document):
    try:
        return things.insert_one(document).acknowledged
    except (DuplicateKeyError, MissError) as error:
        return type(error).__name__

def told_of_several(document):
    try:
        return things.insert_many([{}, document]).acknowledged
    except (BulkWriteError, MissError) as error:
        return type(error).__name__

with use_cassette(directory + "/before.json", mode=mode):
    made = secrets.token_urlsafe(24)
    print(told({"_id": literal}), told({"_id": made}), told({"_id": "name"}))
with use_cassette(directory + "/after.json", mode=mode):
    digest, other = literal, made
    if changed == "changed":
        digest, other = uuid.uuid4().hex, secrets.token_urlsafe(24)
    print(told({"_id": digest}), told({"_id": other}))
    print(told({"_id": "name", "password": os.urandom(32).hex()}))
    print(told_of_several({"_id": digest, "password": os.urandom(32).hex()}))
    print(told_of_several({"_id": "name", "password": os.urandom(32).hex()}))
"""


def test_a_clash_is_of_the_value_that_clashed(
    mongodb: str, database: str, tmp_path: Path
) -> None:
    arguments = (mongodb, database, str(tmp_path))
    clash = "DuplicateKeyError"
    several = "BulkWriteError"
    same = f"True True True\n{clash} {clash}\n{clash}\n{several}\n{several}\n"
    assert run_program(CLASHES, *arguments, "record", "-").stdout == same
    assert run_offline(CLASHES, *arguments, "replay", "-").stdout == same
    changed = run_offline(CLASHES, *arguments, "replay", "changed").stdout
    missed = f"True True True\nMissError MissError\n{clash}\nMissError\n{several}\n"
    assert changed == missed


SECONDS = """
import sys
from pymongo import MongoClient
from timetracer import MissError, use_cassette
from timetracer.plugins import enable_pymongo
enable_pymongo()
uri, database, cassette, mode, ids, now, *later = sys.argv[1:]
things = MongoClient(uri, connect=False)[database]["things"]
with use_cassette(cassette, mode=mode):
    stored = {}
    for number, seconds in enumerate(map(int, later)):
        document = {"at": int(now) + seconds, "n": number}
        if ids == "own":
            document["_id"] = "abc"[number]
        stored[things.insert_one(document).inserted_id] = document["at"]
    found = {one["_id"]: one["at"] for one in things.find({}, sort=[("n", 1)])}
    one = things.find_one({"n": 1})
    print(found == stored, one["at"] == stored[one["_id"]])
    print(things.count_documents({"at": {"$gte": one["at"]}}))
    try:
        print(things.count_documents({"at": one["at"]}))
    except MissError:
        print("miss")
"""


@pytest.mark.parametrize("ids", ["made", "own"])
@pytest.mark.parametrize("later", ["013", "001", "123", "000"])
def test_times_of_one_second_may_be_those_of_several(
    mongodb: str, database: str, tmp_path: Path, ids: str, later: str
) -> None:
    arguments = (mongodb, database, str(tmp_path / "x.json"))
    now = str(int(time.time()) + 8)  # two programs start until it is used for the last time
    recorded = run_program(SECONDS, *arguments, "record", ids, now, *"000")
    replayed = run_offline(SECONDS, *arguments, "replay", ids, now, *later)
    asked = "3\n" if len(set(later)) == 1 else "miss\n"  # it would be fewer than three
    assert recorded.stdout == "True True\n3\n3\n"
    assert replayed.stdout == "True True\n3\n" + asked
