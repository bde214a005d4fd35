"""What the program makes anew is bound, what is alike but for order is found, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import re
import secrets
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from bson import DBRef, ObjectId
from bson.binary import Binary

from tests.support.calls import Driver
from timetracer import MissError, TraceConfig, register_matcher, use_cassette
from timetracer.bindings import RUN
from timetracer.errors import ConfigError
from timetracer.evidence import Clock, same_day, same_moment
from timetracer.session import Session
from timetracer.volatile import Token, replace, tokens

WRITTEN, ASKED = "INSERT_ONE", "FIND_ONE"
Program = Callable[[Driver], Any]


pytestmark = pytest.mark.usefixtures("uuids_are_watched")


def both(tape: Path, program: Program, other: Program | None = None, **settings: Any) -> Any:
    """Record a program, then replay it, or another one; the replay's result."""
    config = TraceConfig(redact=False)
    with use_cassette(tape, mode="record", config=config):
        program(Driver())
    with use_cassette(tape, mode="replay", config=TraceConfig(**settings)):
        return (other or program)(Driver())


def reasons(session: Session) -> list[str]:
    assert session.cassette is not None
    return [event.reason for event in session.cassette.events]


def in_hours(hours: float) -> datetime:
    return datetime.now(timezone.utc) + timedelta(hours=hours)


def digits_with_commas(moment: datetime) -> str:
    return f"{moment:%Y,%m,%d,%H,%M,%S,%f}"


def made_token(*, digits: bool) -> str:
    """A token of `secrets` with digits, or as it makes one in forty: without any."""
    while any(map(str.isdigit, token := secrets.token_urlsafe(16))) is not digits:
        pass
    return token


def made_piece(*, digits: bool) -> str:
    """The first digits of a UUID: decimal ones alone, as in one of forty, or others too."""
    while (piece := uuid.uuid4().hex[:8]).isdigit() is not digits:
        pass
    return piece


def timed_uuid(version: int, seconds: float) -> str:
    """A UUID that tells when it was made, as a library makes it that nobody watches."""
    if version == 7:
        digits = f"{int(seconds * 1000):012x}7"
    else:
        ticks = f"{int(seconds * 10**7) + 0x01B21DD213814000:015x}"
        digits = f"{ticks[:12]}6{ticks[12:]}"
    digits = (digits + os.urandom(10).hex())[:32]
    return str(uuid.UUID(f"{digits[:16]}8{digits[17:]}"))


by_turns = itertools.cycle([True, False])


MADE: dict[str, Callable[[], Any]] = {
    "ObjectId": ObjectId,
    "ObjectId as text": lambda: str(ObjectId()),
    "ObjectId in a text": lambda: f"user:{ObjectId()}/inbox",
    "ObjectId as a key": lambda: {str(ObjectId()): 1},
    "DBRef": lambda: DBRef("users", ObjectId(), by=str(uuid.uuid4())),
    "UUID as text": lambda: str(uuid.uuid4()),
    "UUID in capitals": lambda: str(uuid.uuid4()).upper(),
    "UUID as digits": lambda: uuid.uuid4().hex,
    "UUID as Binary": lambda: Binary.from_uuid(uuid.uuid4()),
    "UUID as Java wrote it": lambda: Binary.from_uuid(uuid.uuid4(), 5),
    "UUID as C# wrote it": lambda: Binary.from_uuid(uuid.uuid4(), 6),
    "UUID as bytes": lambda: uuid.uuid4().bytes,
    "UUID of version 1": lambda: str(uuid.uuid1()),
    "UUID of version 6 by a library": lambda: timed_uuid(6, time.time()),
    "UUID of version 7 by a library": lambda: timed_uuid(7, time.time()),
    "digits of one": lambda: timed_uuid(7, time.time()).replace("-", ""),
    "UUID in an address": lambda: f"https://example.com/orders/{uuid.uuid4()}?page=1",
    "now": lambda: in_hours(0),
    "in a week": lambda: in_hours(7 * 24),
    "now as text": lambda: in_hours(0).isoformat(),
    "now of local time": lambda: datetime.now().isoformat(sep=" "),
    "now with commas": lambda: digits_with_commas(in_hours(0)),
    "seconds": time.time,
    "whole seconds": lambda: int(time.time()),
    "milliseconds": lambda: int(time.time() * 1000),
    "nanoseconds": time.time_ns,
    "seconds as text": lambda: str(time.time()),
    "token of hex digits": lambda: secrets.token_hex(16),
    "opaque token": lambda: secrets.token_urlsafe(60),
    "token of bytes": lambda: secrets.token_bytes(32),
    "token with or without a digit": lambda: made_token(digits=next(by_turns)),
    "token behind a prefix": lambda: "sess_" + secrets.token_urlsafe(24),
    "beginning of a UUID": lambda: made_piece(digits=next(by_turns)),
    "end of a UUID": lambda: f"test_{uuid.uuid4().hex[-12:]}",
    "beginning of a UUID behind letters": lambda: f"user{uuid.uuid4().hex[:6]}@example.com",
    "beginning of a UUID in capitals": lambda: f"ORD-{uuid.uuid4().hex[:9].upper()}",
    "short token": lambda: secrets.token_hex(4),
    "token as long as an ObjectId": lambda: secrets.token_hex(12),
    "now in a name": lambda: f"launcher_{in_hours(0):%Y-%m-%d-%H-%M-%S-%f}",
    "now in a name with capitals": lambda: f"Backup-of-Sales_{in_hours(0):%Y-%m-%dT%H-%M-%S}",
}
"""What programs make in each run anew, and the makers leave evidence of."""

TOKENS: dict[str, Callable[[], Any]] = {
    "digest": lambda: hashlib.sha256(secrets.token_bytes(9)).hexdigest(),
    "token of hex digits": lambda: os.urandom(16).hex(),
    "opaque token": lambda: "aA1" + base64.b64encode(os.urandom(24)).decode(),
    "random UUID": lambda: str(uuid.UUID(bytes=os.urandom(16), version=4)),
    "bytes": lambda: os.urandom(32),
}
"""What has the looks alone."""

by_maker = pytest.mark.parametrize("make", MADE.values(), ids=MADE)
by_token = pytest.mark.parametrize("make", TOKENS.values(), ids=TOKENS)


# ------------------------------------------------------------------------------- bound


@by_maker
@pytest.mark.parametrize(
    ("method", "argument"), [(WRITTEN, "document"), (ASKED, "filter")], ids=["written", "asked"]
)
def test_what_both_runs_made_stands_for_each_other(
    tape: Path, make: Callable[[], Any], method: str, argument: str
) -> None:
    answer = both(tape, lambda driver: driver(method, **{argument: {"a": [make()], "n": 1}}))

    assert answer == 1


@by_token
def test_a_look_is_enough_where_the_program_writes(tape: Path, make: Callable[[], Any]) -> None:
    def program(driver: Driver) -> list[Any]:
        value = make()
        return [
            driver(WRITTEN, document={"a": value}),
            driver("UPDATE_ONE", filter={"n": 1}, update={"$set": {"a": value}}),
            driver(ASKED, filter={"a": value}),
        ]

    assert both(tape, program) == [1, 2, 3]


@by_token
@pytest.mark.parametrize(
    "call",
    [
        lambda value: (ASKED, {"filter": {"a": value}}),
        lambda value: (ASKED, {"filter": {"$or": [{"a": {"$in": [value]}}]}}),
        lambda value: ("AGGREGATE", {"pipeline": [{"$match": {"a": value}}]}),
        lambda value: ("UPDATE_ONE", {"filter": {"a": value}, "update": {"$set": {"b": 1}}}),
        lambda value: ("UPDATE_ONE", {"filter": {}, "update": {"$pull": {"a": value}}}),
        lambda value: ("DELETE_ONE", {"filter": {"a": value}}),
    ],
    ids=["filter", "$in", "pipeline", "filter of an update", "$pull", "filter of a delete"],
)
def test_a_look_is_never_enough_where_the_program_asks(
    tape: Path, make: Callable[[], Any], call: Callable[[Any], tuple[str, Any]]
) -> None:
    def program(driver: Driver) -> Any:
        method, arguments = call(make())
        return driver(method, **arguments)

    with pytest.raises(MissError):
        both(tape, program)


def test_answers_have_the_live_values(tape: Path) -> None:
    def program(driver: Driver) -> Any:
        one, other = ObjectId(), uuid.uuid4()
        driver(WRITTEN, document={"_id": one, "key": str(other)})
        return one, other

    with use_cassette(tape, mode="record"):
        recorded = program(Driver())
    text = tape.read_text(encoding="utf-8")
    data = f'{{"$oid":"{recorded[0]}"}},"on {recorded[1].hex} at {recorded[0]}"'
    tape.write_text(text.replace('"data":1', f'"data":[{data}]'), encoding="utf-8")
    with use_cassette(tape, mode="replay") as session:
        one, other = program(Driver())
        assert session.cassette is not None
        answer = session.cassette.events[0].body()

    assert answer == [{"$oid": str(one)}, f"on {other.hex} at {one}"]
    assert reasons(session) == ["unified"]
    assert session.cassette.events[0].bound_values == (
        (str(recorded[0]), str(one)),
        (str(recorded[1]), str(other)),
    )


def test_a_number_is_no_piece_of_an_id() -> None:
    text = (
        '{"a":["55501000",55501000],"b":-55501000,"c":[55501000],"d":55501000.5,"e":"tel-55501000"}'
    )
    told = replace(text, lambda token: "0badf00d" if token.key == "55501000" else None)

    assert told == (
        '{"a":["0badf00d",55501000],"b":-55501000,"c":[55501000],"d":55501000.5,"e":"tel-0badf00d"}'
    )


def test_equal_sets_of_made_values_are_found_in_any_order(tape: Path) -> None:
    def program(driver: Driver) -> Any:
        ids = [uuid.uuid4() for _ in range(6)]
        driver(WRITTEN, document={"all": [str(one) for one in ids[:2]]})
        wanted = sorted(ids, key=lambda one: one.int)
        answer = driver(ASKED, filter={"a": {"$in": [str(one) for one in wanted]}})
        return [answer, *(driver(ASKED, filter={"a": str(one)}) for one in ids)]

    assert both(tape, program) == [2, 3, 4, 5, 6, 7, 8]


# ------------------------------------------------------------------------------- not bound


def two_ids(driver: Driver) -> tuple[ObjectId, ObjectId]:
    one, other = ObjectId(), ObjectId()
    driver(WRITTEN, document={"_id": one, "n": 1})
    driver(WRITTEN, document={"_id": other, "n": 2})
    return one, other


DIFFERENT: dict[str, tuple[Program, Program]] = {
    "another bound id": (
        lambda driver: driver(ASKED, filter={"_id": two_ids(driver)[0]}),
        lambda driver: driver(ASKED, filter={"_id": two_ids(driver)[1]}),
    ),
    "a fresh id for a bound one": (
        lambda driver: driver(ASKED, filter={"_id": two_ids(driver)[0]}),
        lambda driver: (two_ids(driver), driver(ASKED, filter={"_id": ObjectId()})),
    ),
    "one id for two": (
        lambda driver: driver(ASKED, filter={"a": ObjectId(), "b": ObjectId()}),
        lambda driver: driver(ASKED, filter=dict.fromkeys("ab", ObjectId())),
    ),
    "two ids for one": (
        lambda driver: driver(ASKED, filter=dict.fromkeys("ab", ObjectId())),
        lambda driver: driver(ASKED, filter={"a": ObjectId(), "b": ObjectId()}),
    ),
    "a literal for a fresh id": (
        lambda driver: driver(ASKED, filter={"_id": ObjectId()}),
        lambda driver: driver(ASKED, filter={"_id": ObjectId("5" * 24)}),
    ),
    "a UUID of yesterday for one of now": (
        lambda driver: driver(ASKED, filter={"_id": timed_uuid(7, time.time())}),
        lambda driver: driver(ASKED, filter={"_id": timed_uuid(7, time.time() - 86_400)}),
    ),
    "another UUID that tells no time": (
        lambda driver: driver(ASKED, filter={"_id": f"{'0' * 8}-0000-7000-8000-{'1' * 12}"}),
        lambda driver: driver(ASKED, filter={"_id": f"{'0' * 8}-0000-7000-8000-{'2' * 12}"}),
    ),
    "text for an id": (
        lambda driver: driver(WRITTEN, document={"_id": ObjectId()}),
        lambda driver: driver(WRITTEN, document={"_id": str(ObjectId())}),
    ),
    "other digits": (
        lambda driver: driver(WRITTEN, document={"_id": secrets.token_hex(16)}),
        lambda driver: driver(WRITTEN, document={"_id": secrets.token_hex(16).upper() + "A"}),
    ),
    "a token cut": (
        lambda driver: driver(WRITTEN, document={"_id": secrets.token_hex(20)}),
        lambda driver: driver(WRITTEN, document={"_id": secrets.token_hex(20)[1:]}),
    ),
    "a later day": (
        lambda driver: driver(ASKED, filter={"at": {"$lt": in_hours(0)}}),
        lambda driver: driver(ASKED, filter={"at": {"$lt": in_hours(24)}}),
    ),
    "another name as long": (
        lambda driver: driver(WRITTEN, document={"_id": "CustomerRegistrationEvent"}),
        lambda driver: driver(WRITTEN, document={"_id": "CustomerRemovalAnnounced_"}),
    ),
    "another literal ObjectId": (
        lambda driver: driver(WRITTEN, document={"owner": ObjectId("5" * 24)}),
        lambda driver: driver(WRITTEN, document={"owner": ObjectId("6" * 24)}),
    ),
    "a literal for a made ObjectId": (
        lambda driver: driver(WRITTEN, document={"owner": ObjectId()}),
        lambda driver: driver(WRITTEN, document={"owner": ObjectId("6" * 24)}),
    ),
    "another short literal": (
        lambda driver: driver(WRITTEN, document={"_id": "batch-00c0ffee"}),
        lambda driver: driver(WRITTEN, document={"_id": "batch-0badf00d"}),
    ),
    "another telephone number": (
        lambda driver: driver(WRITTEN, document={"_id": "5550100"}),
        lambda driver: driver(WRITTEN, document={"_id": "5550199"}),
    ),
    "a literal for a beginning of a UUID": (
        lambda driver: driver(WRITTEN, document={"_id": uuid.uuid4().hex[:8]}),
        lambda driver: driver(WRITTEN, document={"_id": "0badf00d"}),
    ),
    "a token behind another prefix": (
        lambda driver: driver(ASKED, filter={"_id": "sess_" + secrets.token_urlsafe(24)}),
        lambda driver: driver(ASKED, filter={"_id": "user_" + secrets.token_urlsafe(24)}),
    ),
    "another whole hour": (
        lambda driver: driver(ASKED, filter={"at": datetime(2026, 1, 1, 12)}),
        lambda driver: driver(ASKED, filter={"at": datetime(2026, 1, 1, 12, 0, 0, 1000)}),
    ),
    "another price": (
        lambda driver: driver(WRITTEN, document={"_id": ObjectId(), "price": 10}),
        lambda driver: driver(WRITTEN, document={"_id": ObjectId(), "price": 11}),
    ),
    "another type": (
        lambda driver: driver(WRITTEN, document={"_id": ObjectId(), "price": 10}),
        lambda driver: driver(WRITTEN, document={"_id": ObjectId(), "price": 10.0}),
    ),
    "embedded keys in another order": (
        lambda driver: driver(ASKED, filter={"a": {"b": 1, "c": 2}}),
        lambda driver: driver(ASKED, filter={"a": {"c": 2, "b": 1}}),
    ),
    "a sort in another order": (
        lambda driver: driver(ASKED, filter={}, sort=[["a", 1], ["b", 1]]),
        lambda driver: driver(ASKED, filter={}, sort=[["b", 1], ["a", 1]]),
    ),
    "stages in another order": (
        lambda driver: driver("AGGREGATE", pipeline=[{"$skip": 1}, {"$limit": 2}]),
        lambda driver: driver("AGGREGATE", pipeline=[{"$limit": 2}, {"$skip": 1}]),
    ),
    "a list in another order": (
        lambda driver: driver(WRITTEN, document={"a": [1, 2]}),
        lambda driver: driver(WRITTEN, document={"a": [2, 1]}),
    ),
}


@pytest.mark.parametrize(
    "twice",
    [
        lambda one, other: {"a": one, "b": other},
        lambda one, other: {"a": other, "b": one},
        lambda one, other: {str(one): 1, "b": other},
        lambda one, other: {"a": other, str(one): 1},
        lambda one, other: {"a": f"user:{one}", "b": [other]},
    ],
    ids=["then another", "after another", "as a key", "as a key after", "in a text"],
)
def test_what_stands_for_itself_in_a_call_stands_for_nothing_else_in_it(
    tape: Path, twice: Callable[[Any, Any], Any]
) -> None:
    """Not even in a program's first call, before which nothing is bound."""
    one = uuid.uuid4()

    def program(driver: Driver, other: Any = one) -> Any:
        return driver(WRITTEN, document={"_id": 1, **twice(str(one), str(other))})

    assert both(tape, program) == 1
    RUN.forget()
    with pytest.raises(MissError):
        both(tape, program, lambda driver: program(driver, uuid.uuid4()))


def test_a_secret_that_stands_for_one_stands_for_no_other(tape: Path) -> None:
    def program(driver: Driver, second: str = "sesame") -> Any:
        for password in ("open", second):
            driver(WRITTEN, document={"password": password})
        return driver(ASKED, filter={"password": "open"})

    with use_cassette(tape, mode="record"):
        assert program(Driver()) == 3
    with use_cassette(tape, mode="replay"):
        assert program(Driver()) == 3
    with use_cassette(tape, mode="replay"), pytest.raises(MissError):
        program(Driver(), "open")


@pytest.mark.parametrize(("program", "other"), DIFFERENT.values(), ids=DIFFERENT)
def test_a_real_difference_is_a_miss(tape: Path, program: Program, other: Program) -> None:
    assert both(tape, program)
    with pytest.raises(MissError):
        both(tape, program, other)


SHAPES: dict[str, Callable[[datetime], Any]] = {
    "datetimes": lambda moment: moment,
    "texts": lambda moment: moment.isoformat(timespec="microseconds"),
    "seconds": lambda moment: f"{moment.timestamp():.6f}",
    "milliseconds": lambda moment: int(moment.timestamp() * 1000),
}
"""How programs write times."""


def stores(shape: str, took: float, number: float | None = None) -> Program:
    """A program that stores when something began and ended, and a number."""

    def program(driver: Driver) -> Any:
        began = in_hours(0)
        ended = began + timedelta(seconds=took)
        times = {"began": SHAPES[shape](began), "ended": SHAPES[shape](ended)}
        run = times | {"took": took if number is None else number}
        return driver("UPDATE_ONE", filter={"n": 1}, update={"$set": {"run": [run]}})

    return program


@pytest.mark.parametrize("unit", [1, 1000])
@pytest.mark.parametrize("shape", SHAPES)
def test_how_long_something_took_may_be_stored_beside_its_times(
    tape: Path, shape: str, unit: int
) -> None:
    one, other = 0.127, 0.3125
    assert both(tape, stores(shape, one, one * unit), stores(shape, other, other * unit)) == 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("number", "other", "apart"),
    [(0.127, 7.5, 0.3), (7.5, 0.3, 0.3), (7.5, 8.5, 0.127), (0.5, 1.0, 0.0), (1e-4, 1e-3, 0.0)],
    ids=["recorded alone", "live alone", "neither", "a small price", "a rate"],
)
def test_a_number_that_is_not_how_long_it_was_is_a_real_difference(
    tape: Path, shape: str, number: float, other: float, apart: float
) -> None:
    with pytest.raises(MissError):
        both(tape, stores(shape, min(apart, 0.127), number), stores(shape, apart, other))


def test_a_number_that_is_asked_for_is_not_how_long_something_took(tape: Path) -> None:
    def program(driver: Driver, took: float = 0.127) -> Any:
        began = in_hours(0)
        wanted = {"began": began, "ended": began + timedelta(seconds=took), "took": took}
        return driver("DELETE_ONE", filter=wanted)

    with pytest.raises(MissError):
        both(tape, program, lambda driver: program(driver, 0.3125))


def test_an_id_that_an_answer_gave_is_no_fresh_one(tape: Path) -> None:
    def program(driver: Driver) -> Any:
        driver(ASKED, filter={"n": 1})
        return driver(ASKED, filter={"_id": ObjectId()})

    with use_cassette(tape, mode="record"):
        program(Driver())
    text = tape.read_text(encoding="utf-8")
    asked = text.rpartition('"filter":{"_id":')[2].partition("}")[0] + "}"
    tape.write_text(text.replace('"data":1', f'"data":{asked}'), encoding="utf-8")
    with use_cassette(tape, mode="replay"), pytest.raises(MissError):
        program(Driver())


def test_a_literal_that_was_asked_for_stands_for_itself(tape: Path) -> None:
    literal = ObjectId("5" * 24)

    def program(driver: Driver, written: ObjectId = literal) -> Any:
        driver(ASKED, filter={"_id": literal})
        return driver(WRITTEN, document={"_id": written})

    with pytest.raises(MissError):
        both(tape, program, lambda driver: program(driver, ObjectId("6" * 24)))


RESTS: dict[str, dict[str, Any]] = {
    "sort": {"filter": {}, "sort": [["_id", 1]]},
    "range": {"filter": {"_id": {"$gt": "5"}}},
    "expression": {"filter": {"$expr": {"$gt": [{"$strLenCP": "$_id"}, 3]}}},
    "several": {"filter": {"_id": {"$in": ["5", "6"]}}},
}


@pytest.mark.parametrize("asked", RESTS.values(), ids=RESTS)
def test_what_rests_on_a_value_bound_by_its_look_is_a_miss(tape: Path, asked: Any) -> None:
    def program(driver: Driver, user: str = "20", **more: Any) -> Any:
        key = hashlib.md5(user.encode()).hexdigest()
        driver(WRITTEN, document={"_id": key})
        return driver(ASKED, **asked)

    assert both(tape, program) == 2
    with pytest.raises(MissError):
        both(tape, program, lambda driver: program(driver, "1"))


def test_a_value_is_bound_by_the_first_call_that_holds_it(tape: Path) -> None:
    def program(driver: Driver) -> Any:
        driver(ASKED, filter={"_id": ObjectId()})
        made = ObjectId()
        driver(WRITTEN, document={"_id": made})
        return driver(ASKED, filter={"_id": made})

    def other(driver: Driver) -> Any:
        driver(ASKED, filter={"_id": ObjectId()})
        return driver(ASKED, filter={"_id": ObjectId()})

    assert both(tape, program) == 3
    with pytest.raises(MissError):
        both(tape, program, other)


@pytest.mark.parametrize(
    ("duration", "given"),
    [("9000", ""), ("0.001", ""), ("9000", "given")],
    ids=["at the same time", "before", "that gave it"],
)
def test_calls_that_began_at_the_same_time_may_bear_a_value_in_any_order(
    tape: Path, duration: str, given: str
) -> None:
    def one(driver: Driver, made: ObjectId) -> Any:
        return driver(ASKED, filter={"_id": made})

    def other(driver: Driver, made: ObjectId) -> Any:
        return driver(WRITTEN, document={"_id": made})

    made = ObjectId()
    with use_cassette(tape, mode="record"):
        one(Driver(), made)
        time.sleep(0.01)
        other(Driver(), made)
    text = re.sub(r'"duration_ms": [0-9.]+', f'"duration_ms": {duration}', tape.read_text())
    tape.write_text(text.replace('"data":1', f'"data":"{made}"') if given else text)
    with use_cassette(tape, mode="replay"):
        made = ObjectId()
        if duration == "9000" and not given:
            assert (other(Driver(), made), one(Driver(), made)) == (1, 1)
        else:
            with pytest.raises(MissError):
                other(Driver(), made)


UPSERTS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "an update": (
        "UPDATE_ONE",
        lambda key: {"filter": {"_id": key}, "update": {"$set": {"n": 1}}, "upsert": True},
        '{"raw_result":{"n":1,"nModified":0,"upserted":{"$oid":"6560a1b2c3d4e5f60718293a"}}}',
    ),
    "one of several": (
        "BULK_WRITE",
        lambda key: {
            "requests": [
                {
                    "UpdateOne": {
                        "filter": {"key": key, "n": 0},
                        "doc": {"$setOnInsert": {"n": 1}},
                        "upsert": True,
                    }
                }
            ]
        },
        '{"bulk_api_result":{"nUpserted":1,"upserted":[{"index":0,"_id":1}]}}',
    ),
}
"""What an upsert does, and its answer where it found no document."""


@by_token
@pytest.mark.parametrize(("method", "arguments", "inserted"), UPSERTS.values(), ids=UPSERTS)
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "found"])
def test_an_upsert_that_found_no_document_stores_what_its_filter_asks_for(
    tape: Path,
    make: Callable[[], Any],
    method: str,
    arguments: Callable[[Any], Any],
    inserted: str,
    stored: bool,
) -> None:
    with use_cassette(tape, mode="record", config=TraceConfig(redact=False)):
        Driver()(method, **arguments(make()))
    text = tape.read_text(encoding="utf-8")
    if stored:
        tape.write_text(text.replace('"data":1', f'"data":{inserted}'), encoding="utf-8")
    with use_cassette(tape, mode="replay"):
        if stored:
            assert Driver()(method, **arguments(make()))
        else:
            with pytest.raises(MissError):
                Driver()(method, **arguments(make()))


@pytest.mark.parametrize(
    ("recorded", "asked", "fits"),
    [
        (["a", "b", "c"], ["c", "a", "b"], True),
        ({"a": 1, "b": True}, {"b": True, "a": 1}, True),
        ({"a": 1, "b": "$c", "d": 1}, {"b": "$c", "d": 1, "a": 1}, True),
        ({"a": "$b", "c": "$d"}, {"c": "$d", "a": "$b"}, False),
        (["a", "b"], ["a", "c"], False),
        (["a", "b"], ["a"], False),
    ],
)
def test_the_names_of_a_projection_may_come_in_another_order(
    tape: Path, recorded: Any, asked: Any, fits: bool
) -> None:
    def program(projection: Any) -> Program:
        return lambda driver: [
            driver(ASKED, filter={}, projection=projection),
            *(
                [driver("AGGREGATE", pipeline=[{"$project": projection}])]
                if isinstance(projection, dict)
                else []
            ),
        ]

    if fits:
        assert both(tape, program(recorded), program(asked))
    else:
        with pytest.raises(MissError):
            both(tape, program(recorded), program(asked))


def test_bytes_in_a_message_are_the_live_ones(tape: Path) -> None:
    def program(driver: Driver) -> uuid.UUID:
        made = uuid.uuid4()
        driver(WRITTEN, document={"_id": Binary.from_uuid(made)})
        return made

    with use_cassette(tape, mode="record"):
        recorded = program(Driver())
    text = tape.read_text(encoding="utf-8")
    told = json.dumps(f"dup key: {{ _id: Binary({recorded.bytes!r}, 4) }}")
    tape.write_text(text.replace('"data":1', f'"data":{told}'), encoding="utf-8")
    with use_cassette(tape, mode="replay") as session:
        made = program(Driver())
        assert session.cassette is not None
        answer = session.cassette.events[0].body()
    assert answer == f"dup key: {{ _id: Binary({made.bytes!r}, 4) }}"


# ------------------------------------------------------------------------------- order and levels

REORDERED = (
    lambda driver: driver(ASKED, filter={"a": 1, "b": {"$gt": 1, "$lt": 5}}),
    lambda driver: driver(ASKED, filter={"b": {"$lt": 5, "$gt": 1}, "a": 1}),
)


def test_what_has_no_order_for_the_server_is_found_in_another(tape: Path) -> None:
    assert both(tape, *REORDERED) == 1
    documents = [{"a": 1, "b": {"c": 1}}, {"b": {"c": 1}, "a": 1}]
    assert both(tape, *(lambda driver, d=d: driver(WRITTEN, document=d) for d in documents)) == 1


@pytest.mark.parametrize(
    ("levels", "program", "other"),
    [
        ("exact", *REORDERED),
        (("unified",), *REORDERED),
        (("order",), *[lambda driver: driver(ASKED, filter={"_id": ObjectId()})] * 2),
    ],
)
def test_a_level_that_is_not_allowed_finds_nothing(
    tape: Path, levels: Any, program: Program, other: Program
) -> None:
    with pytest.raises(MissError):
        both(tape, program, other, levels=levels)


def test_ignored_paths_are_not_compared(tape: Path) -> None:
    def program(driver: Driver) -> Any:
        number = secrets.randbelow(10**9)
        documents = [{"n": n, "code": f"c{number + n}"} for n in range(2)]
        return [
            driver("INSERT_MANY", documents=documents),
            driver(ASKED, filter={"request": f"r{number}", "n": 1}),
        ]

    ignore = ["documents.*.code", "filter.request"]
    assert both(tape, program, ignore=ignore) == [1, 2]
    with pytest.raises(MissError):
        both(tape, program, ignore=ignore[:1])
    with pytest.raises(MissError):
        both(tape, program, ignore=ignore, levels=("order", "unified"))


def test_an_ignored_path_may_be_absent_and_the_rest_counts(tape: Path) -> None:
    def program(driver: Driver, **more: Any) -> Any:
        return driver(ASKED, filter={"a": 1, **more})

    asked = lambda driver: program(driver, request="r1")  # noqa: E731
    assert both(tape, program, asked, ignore=["filter.request"]) == 1
    with pytest.raises(MissError):
        both(tape, asked, lambda driver: program(driver, other=1), ignore=["filter.request"])


# ------------------------------------------------------------------------------- matchers


def test_a_matcher_of_the_users_decides_with_or_without_the_arguments(tape: Path) -> None:
    def same_tenant(recorded: Any, live: Any) -> bool:
        return bool(recorded.arguments["filter"]["tenant"] == live.arguments["filter"]["tenant"])

    register_matcher("same_tenant", same_tenant)

    def program(driver: Driver, tenant: str = "b", more: int = 1) -> Any:
        driver(ASKED, filter={"tenant": "a", "x": more})
        return driver(ASKED, filter={"tenant": tenant, "x": more})

    match_on = ("method", "url", "same_tenant")
    assert both(tape, program, lambda d: program(d, more=9), match_on=match_on) == 2
    with pytest.raises(MissError):
        both(tape, program, lambda d: program(d, "c"), match_on=match_on)
    with pytest.raises(MissError):
        both(tape, program, lambda d: program(d, more=9), match_on=(*match_on, "arguments"))


def test_an_unknown_matcher_is_named_with_those_there_are(tape: Path) -> None:
    with pytest.raises(ConfigError, match=r"'same_moon'.*method, url, arguments, lib") as refused:
        both(tape, lambda driver: driver(ASKED, filter={}), match_on=["method", "same_moon"])
    assert refused.value.setting == "match_on"
    with pytest.raises(ConfigError, match="a name of its own"):
        register_matcher("url", lambda recorded, live: True)


# ------------------------------------------------------------------------------- repeated replays


def test_a_cassette_is_replayed_again_with_new_values(tape: Path) -> None:
    def program(driver: Driver) -> Any:
        made, token = ObjectId(), secrets.token_hex(16)
        driver(WRITTEN, document={"_id": made, "token": token})
        return driver(ASKED, filter={"_id": made}), driver(ASKED, filter={"token": token})

    assert both(tape, program) == (2, 3)
    for _ in range(3):
        with use_cassette(tape, mode="replay"):
            assert program(Driver()) == (2, 3)


def test_ids_of_one_cassette_are_known_in_the_next(tmp_path: Path) -> None:
    paths = tmp_path / "one.json", tmp_path / "two.json"

    def program(mode: str) -> Any:
        made = ObjectId()
        with use_cassette(paths[0], mode=mode):
            Driver()(WRITTEN, document={"_id": made})
        with use_cassette(paths[1], mode=mode):
            return Driver()(ASKED, filter={"_id": made})

    assert [program("record"), program("replay")] == [1, 1]
    with use_cassette(paths[1], mode="replay"), pytest.raises(MissError):
        Driver()(ASKED, filter={"_id": ObjectId()})


def test_a_time_is_shown_as_the_cassette_at_hand_stored_it(tmp_path: Path) -> None:
    """Two cassettes hold one recorded time, which stood for two live ones in the first."""
    paths = tmp_path / "one.json", tmp_path / "two.json"
    now = in_hours(0).replace(microsecond=0)

    def program(mode: str, *seconds: float) -> list[int]:
        moments = [now + timedelta(seconds=one) for one in seconds]
        with use_cassette(paths[0], mode=mode):
            for number, moment in enumerate(moments):
                Driver()(WRITTEN, document={"n": number, "at": moment})
        with use_cassette(paths[1], mode=mode) as session:
            Driver()(WRITTEN, document={"n": 3, "at": moments[0], "until": moments[0]})
        shown = json.dumps({"$date": f"{moments[0]:%Y-%m-%dT%H:%M:%S}.000Z"}).encode()
        bindings = getattr(session.cassette, "bindings", None)
        recorded = json.dumps({"$date": f"{now:%Y-%m-%dT%H:%M:%S}.000Z"}).encode()
        return [bindings is None or bindings.with_live_values_in(recorded) == shown]

    assert program("record", 0, 0) == [True]
    assert program("replay", 1, 2) == [True]


def test_base64_of_sixteen_bytes_is_told_from_its_text(tape: Path) -> None:
    made = base64.b64encode(uuid.uuid4().bytes).decode()
    with pytest.raises(MissError):
        both(
            tape,
            lambda driver: driver(WRITTEN, document={"a": base64.b64decode(made)}),
            lambda driver: driver(WRITTEN, document={"a": made}),
        )


def time_of(seconds: float) -> Token:
    """The token of a date in a cassette, so many seconds since 1970."""
    text = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
    return next(iter(tokens(f'["{text[:-6]}Z"]')))


HOUR = 1_796_025_600.0
"""A whole hour, in seconds since 1970."""


@pytest.mark.parametrize(
    ("recorded", "at", "fits"),
    [(HOUR, HOUR + 1, True), (HOUR, HOUR + 60, False), (HOUR + 1, HOUR + 1, True)],
    ids=["read and cut to the second", "written down", "no whole hour"],
)
def test_a_whole_hour_was_read_if_the_clock_was_there(
    recorded: float, at: float, fits: bool
) -> None:
    later = 2460
    then, now = Clock(at, 0, HOUR - 60, 0), Clock(at + later, 0, HOUR, 0)
    assert same_moment(time_of(recorded), time_of(recorded + later), then, now) is fits
    assert same_moment(time_of(recorded + later), time_of(recorded), now, then) is fits


DAY = 1_796_083_200.0
"""A midnight of UTC, in seconds since 1970."""


@pytest.mark.parametrize(
    ("recorded", "live", "ahead", "fits"),
    [
        (0, 0, 0, True),
        (24, 24, 0, True),
        (-24, -24, 0, True),
        (0, 24, 0, False),
        (24, 0, 0, False),
        (48, 48, 0, False),  # as a literal of a date may be
        (1, 1, 0, False),
        (0, 0, 5, True),
        (-5, -5, 5, True),  # local midnight, told in UTC
        (-5, 0, 5, False),
        (-4, -4, 5, False),
    ],
)
def test_a_midnight_is_of_the_day_on_which_a_process_runs(
    recorded: int, live: int, ahead: int, fits: bool
) -> None:
    later = 3 * 86_400
    then = Clock(DAY + 36_000, 0, DAY, ahead * 3600)
    now = Clock(DAY + later + 9_000, 0, DAY + later, ahead * 3600)
    one, other = time_of(DAY + recorded * 3600), time_of(DAY + later + live * 3600)
    assert same_day(one, other, then, now) is fits
    assert same_day(other, one, now, then) is fits
