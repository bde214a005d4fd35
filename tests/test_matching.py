"""Which event answers a call: exactly, in order per key, and never one that says otherwise."""

from __future__ import annotations

import datetime
import json
import random
from pathlib import Path
from typing import Any

import pytest
from bson import Decimal128, Int64, ObjectId, Regex
from bson.binary import Binary
from bson.son import SON

from tests.support.calls import Driver, call
from timetracer import MissError, TraceConfig, use_cassette
from timetracer.cassette import Cassette
from timetracer.errors import CassetteFormatError
from timetracer.volatile import tokens

NOON = datetime.datetime(2026, 1, 22, 12)


def record(path: Path, *filters: Any, method: str = "FIND_ONE") -> Path:
    """A cassette with one event for each filter, answered 1, 2, 3, ..."""
    driver = Driver()
    with use_cassette(path, mode="record", config=TraceConfig(redact=False)):
        for wanted in filters:
            driver(method, filter=wanted)
    return path


def replay(path: Path, *filters: Any, **settings: Any) -> list[Any]:
    with use_cassette(path, mode="replay", config=TraceConfig(**settings)):
        return [_asked(wanted) for wanted in filters]


def _asked(wanted: Any, method: str = "FIND_ONE") -> Any:
    try:
        return Driver()(method, filter=wanted)
    except MissError:
        return "miss"


DISTINCT = [
    1,
    Int64(1),
    1.0,
    True,
    "1",
    b"1",
    Binary(b"1", 128),
    Decimal128("1"),
    Decimal128("1.0"),
    None,
    [1],
    {"$gt": 1},
    {"$gt": 1.0},
    Regex("1"),
    Regex("1", "i"),
    ObjectId("0" * 24),
    "0" * 24,
    NOON,
    NOON.isoformat(),
    NOON + datetime.timedelta(milliseconds=1),
    {"a": 1, "b": 2},
    SON([("b", 2), ("a", 1)]),
    float("inf"),
    0.0,
    -0.0,
    {"$oid": "0" * 24},
    2**40,
]


def test_types_are_told_apart(tape: Path) -> None:
    order = list(range(len(DISTINCT)))
    record(tape, *({"x": value} for value in DISTINCT))
    random.Random(1).shuffle(order)

    assert replay(tape, *({"x": DISTINCT[n]} for n in order)) == [n + 1 for n in order]


@pytest.mark.parametrize("number", range(len(DISTINCT)))
def test_no_value_is_answered_by_another(tape: Path, number: int) -> None:
    others = [value for n, value in enumerate(DISTINCT) if n != number]
    record(tape, *({"x": value} for value in others))

    assert replay(tape, {"x": DISTINCT[number]}) == ["miss"]


@pytest.mark.parametrize(
    ("argument", "recorded", "asked"),
    [
        ("projection", {"a": 1}, {"a": 0}),
        ("sort", [["a", 1]], [["a", -1]]),
        ("skip", 1, 2),
        ("limit", 1, None),
        ("collation", {"locale": "de"}, {"locale": "fr"}),
        ("upsert", True, None),
    ],
)
def test_all_that_changes_the_answer_counts(
    tape: Path, argument: str, recorded: Any, asked: Any
) -> None:
    with use_cassette(tape, mode="record"):
        Driver()("FIND_ONE", filter={}, **{argument: recorded})

    with use_cassette(tape, mode="replay"):
        with pytest.raises(MissError) as missed:
            Driver()("FIND_ONE", filter={}, **({argument: asked} if asked is not None else {}))
        assert f"differs in {argument}" in str(missed.value)
        assert Driver()("FIND_ONE", filter={}, **{argument: recorded}) == 1


def test_equal_calls_are_answered_in_order_and_others_in_any(tape: Path) -> None:
    record(tape, {"a": 1}, {"a": 2}, {"a": 1}, {"a": 2})

    assert replay(tape, {"a": 2}, {"a": 2}, {"a": 1}, {"a": 1}, {"a": 1}) == [2, 4, 1, 3, "miss"]


def test_strict_order(tape: Path) -> None:
    record(tape, {"a": 1}, {"a": 2}, {"a": 1})

    asked = ({"a": 2}, {"a": 1}, {"a": 1}, {"a": 2}, {"a": 1})
    assert replay(tape, *asked, strict_order=True) == ["miss", 1, "miss", 2, 3]


def test_allow_repeats_answers_a_used_up_read_with_its_last_answer(tape: Path) -> None:
    record(tape, {"a": 1}, {"a": 1})

    asked = [{"a": 1}] * 4
    assert replay(tape, *asked, allow_repeats=True) == [1, 2, 2, 2]
    assert replay(tape, *asked) == [1, 2, "miss", "miss"]


def test_allow_repeats_repeats_no_write(tape: Path) -> None:
    record(tape, {"a": 1}, method="DELETE_ONE")

    with use_cassette(tape, mode="replay", config=TraceConfig(allow_repeats=True)):
        done = [_asked({"a": 1}, "DELETE_ONE") for _ in range(2)]
    assert done == [1, "miss"]


def test_arguments_that_bson_cannot_hold_have_a_key_too(tape: Path) -> None:
    record(tape, {"x": 2**70}, {"x": {1: 2}})

    assert replay(tape, {"x": {1: 2}}, {"x": 2**70}, {"x": 2**71}) == [2, 1, "miss"]


# ------------------------------------------------------------------------------- no arguments kept

SEED = {
    "schema_version": "1.0",
    "session": {
        "id": "abc123",
        "recorded_at": "2026-01-22T14:00:00Z",
        "service": "myapp",
        "env": "production",
    },
    "request": {"method": "GET", "path": "/users/123"},
    "events": [
        {
            "eid": 1,
            "event_type": "db.query",
            "start_offset_ms": 10.5,
            "duration_ms": 2.3,
            "signature": {
                "lib": "pymongo",
                "method": "FIND_ONE",
                "url": "myapp.users",
                "query": {"filter_keys": ["_id"]},
                "body_hash": "a1b2c3...",
            },
            "result": {
                "status": 0,
                "body": {
                    "captured": True,
                    "data": {
                        "_id": "123",
                        "name": "Alice",
                        "email": "alice@example.com",
                        "age": 30,
                    },
                },
            },
        }
    ],
}


def seed() -> Cassette:
    return Cassette(json.dumps(SEED, indent=2).encode(), "seed.json")


def find_user(wanted: Any) -> Any:
    return call("FIND_ONE", "myapp.users", filter=wanted)


@pytest.mark.parametrize("wanted", [{"_id": "123"}, "123", {"_id": {"$gt": "1"}}])
def test_an_event_without_arguments_answers_by_its_filter_keys(wanted: Any) -> None:
    match = seed().take(find_user(wanted), reads=True)

    assert match is not None
    assert match.reason == "signature"
    assert match.event.body()["name"] == "Alice"


@pytest.mark.parametrize("wanted", [{"_id": "124"}, {"_id": 123}, {"name": "Alice"}, {}, None])
def test_it_never_answers_what_it_contradicts_or_was_not_asked(wanted: Any) -> None:
    assert seed().take(find_user(wanted), reads=True) is None


def test_it_answers_once() -> None:
    cassette = seed()

    assert cassette.take(find_user({"_id": "123"})) is not None
    assert cassette.take(find_user({"_id": "123"})) is None
    assert cassette.unused == []


# ------------------------------------------------------------------------------- misses


def test_a_miss_names_call_cassette_nearest_event_difference_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    record(Path("checkout.json"), {"sku": "B7", "n": 2}, {"sku": "A1"})
    with use_cassette("checkout.json", mode="replay"), pytest.raises(MissError) as missed:
        Driver()("FIND_ONE", filter={"sku": "A2"})

    assert str(missed.value) == (
        "find_one on shop.orders is not in checkout.json (mode replay).\n"
        'Nearest: event 2, differs in filter.sku: recorded "A1", asked "A2".\n'
        'To record it: use_cassette("checkout.json", mode="record")'
    )
    assert missed.value.nearest.eid == 2
    assert missed.value.cassette == "checkout.json"


@pytest.mark.parametrize(
    ("recorded", "asked", "told"),
    [
        ({"a": 1}, {"a": Int64(1)}, 'filter.a: recorded 1, asked {"$numberLong":"1"}'),
        ({"a": 1}, {}, "filter.a: recorded 1, asked (absent)"),
        ({"a": {"$in": [1, 2]}}, {"a": {"$in": [1, 3]}}, "filter.a.$in.1: recorded 2, asked 3"),
        (
            {"a": {"b": 1, "c": 2}},
            {"a": {"c": 2, "b": 1}},
            'filter.a (its order): recorded ["b","c"]',
        ),
        ({"a": "x" * 200}, {"a": "y"}, 'x..., asked "y"'),
    ],
)
def test_a_miss_shows_the_first_fields_that_differ(
    tape: Path, recorded: Any, asked: Any, told: str
) -> None:
    record(tape, recorded)
    with use_cassette(tape, mode="replay"), pytest.raises(MissError) as missed:
        Driver()("FIND_ONE", filter=asked)

    assert told in str(missed.value)


def test_a_miss_tells_that_the_event_was_used(tape: Path) -> None:
    record(tape, {"a": 1})
    with use_cassette(tape, mode="replay"), pytest.raises(MissError) as missed:
        for _ in range(2):
            Driver()("FIND_ONE", filter={"a": 1})

    assert "Event 1 would match but was already used by find_one on shop.orders at " in str(
        missed.value
    )


def test_a_miss_of_another_method_names_what_the_collection_has(tape: Path) -> None:
    record(tape, {"a": 1})
    with use_cassette(tape, mode="replay"), pytest.raises(MissError) as missed:
        Driver()("DISTINCT", key="a")

    assert "Nearest: event 1, find_one on shop.orders." in str(missed.value)


def test_a_damaged_event_is_an_error_and_not_a_miss(tape: Path) -> None:
    record(tape, {"a": 1})
    tape.write_bytes(tape.read_bytes().replace(b'"filter":{"a":1}', b'"filter":{"a"!1}'))

    with pytest.raises(CassetteFormatError, match=r"tape\.json"):
        replay(tape, {"a": 1})


def test_events_are_taken_in_any_order_across_keys(tape: Path) -> None:
    record(tape, *({"n": n} for n in range(2000)))
    cassette = Cassette(tape.read_bytes(), "tape.json")
    for n in reversed(range(2000)):
        match = cassette.take(call(filter={"n": n}))
        assert match is not None and match.event.eid == n + 1
    assert cassette.unused == []


@pytest.mark.parametrize(
    "made",
    [
        "6560a1c2d3e4f5a6b7c8d9e0",
        "abcdefabcdefabcdefabcdef",
        "12345678-1234-1234-1234-123456789abc",
        "abcdefab-cdef-abcd-efab-cdefabcdefab",
        "ABCDEFabcdefghijklmnopqrstuv",
        "2026-01-22T14:00:00",
        "1769090400",
        "abcdef",
    ],
)
def test_what_looks_made_up_is_found_in_a_long_text(made: str) -> None:
    assert [token.text for token in tokens(f'{{"a":"{"s" * 5000}.{made}"}}')] == [made]
    assert tokens(f'{{"a":"{"s" * 5000}"}}') == []
