"""Cursors of find and of commands: what a program sees of them, and what replay refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import proof
from tests.support.offline import Rules, run_offline, run_program
from tests.support.server import Server

PROGRAMS = ("queries",)


@pytest.mark.parametrize("program", PROGRAMS)
def test_cursors_are_recorded_unharmed_and_replayed_exactly(
    program: str, mongodb_server: Server, tmp_path: Path
) -> None:
    proof.prove_live(program, mongodb_server, tmp_path)


@pytest.mark.parametrize("release", proof.RECORDINGS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_cursors_are_replayed_from_a_committed_recording(program: str, release: str) -> None:
    proof.prove_committed(program, release)


# ------------------------------------------------------------------------------- otherwise read

OPEN = """
import sys, threading
from pymongo import CursorType, MongoClient
from timetracer import MissError, use_cassette
from timetracer.plugins import enable_pymongo
enable_pymongo()
uri, database, cassette, mode, count = sys.argv[1:]
client = MongoClient(uri, connect=False)
items = client[database]["items"]
def read(cursor, count=int(count)):
    try:
        return [document["_id"] for _, document in zip(range(count), cursor)]
    except MissError as miss:
        return type(miss).__name__, str(miss).splitlines()[0].replace(cassette, "x.json")
"""


class Runs:
    """One program, recorded and replayed, with a number that may differ."""

    def __init__(self, uri: str, database: str, cassette: Path) -> None:
        self._arguments = (uri, database, str(cassette))

    def record(self, program: str, count: int) -> str:
        return run_program(OPEN + program, *self._arguments, "record", str(count)).stdout

    def replay(self, program: str, count: int, rules: Rules = Rules()) -> str:  # noqa: B008
        return run_offline(
            OPEN + program, *self._arguments, "replay", str(count), rules=rules
        ).stdout


@pytest.fixture
def runs(mongodb_server: Server, database: str, tmp_path: Path) -> Runs:
    made = Runs(mongodb_server.uri, database, tmp_path / "x.json")
    fill = "items.insert_many([{'_id': n} for n in range(10)])"
    run_program(OPEN + fill, *made._arguments, "off", "0")
    return made


CURSORS = {
    "find": "items.find({}, batch_size=3).sort('_id', 1)",
    "aggregate": "items.aggregate([{'$sort': {'_id': 1}}], batchSize=3)",
    "cursor_command": "client[database]"
    ".cursor_command('find', 'items', sort={'_id': 1}, batchSize=3).batch_size(3)",
}


@pytest.mark.parametrize("method", CURSORS)
def test_reading_past_what_was_read_is_a_miss_and_no_silent_end(method: str, runs: Runs) -> None:
    program = f"""
with use_cassette(cassette, mode=mode):
    print(read({CURSORS[method]}))
"""
    assert runs.record(program, 4) == "[0, 1, 2, 3]\n"
    assert runs.replay(program, 2) == "[0, 1]\n"
    assert runs.replay(program, 6) == "[0, 1, 2, 3, 4, 5]\n"  # the second batch was recorded whole
    told = runs.replay(program, 7)
    assert told.startswith("('ReadPastRecordingError', ")
    assert "event 1 of x.json holds 6 documents in 2 batches, and the cursor was not read" in told


def test_raw_batches_are_read_past_their_recording_no_further(runs: Runs) -> None:
    program = """
with use_cassette(cassette, mode=mode):
    for cursor in (
        items.find_raw_batches({}, batch_size=3),
        items.aggregate_raw_batches([], batchSize=3),
    ):
        try:
            print(len([batch for _, batch in zip(range(int(count)), cursor)]))
        except MissError as miss:
            print(type(miss).__name__)
"""
    assert runs.record(program, 2) == "2\n2\n"
    assert runs.replay(program, 2) == "2\n2\n"
    assert runs.replay(program, 5) == "ReadPastRecordingError\n" * 2


def test_a_polled_cursor_may_be_polled_more_often_than_it_was(runs: Runs) -> None:
    program = """
client[database].create_collection("capped", capped=True, size=10000) if mode == "record" else None
capped = client[database]["capped"]
with use_cassette(cassette, mode=mode):
    capped.insert_many([{"_id": 1}, {"_id": 2}])
    cursor = capped.find(cursor_type=CursorType.TAILABLE)
    print([next(cursor, {}).get("_id") for _ in range(int(count))], cursor.alive)
"""
    assert runs.record(program, 4) == "[1, 2, None, None] True\n"
    assert runs.replay(program, 9) == f"{[1, 2, *[None] * 7]} True\n"


def test_a_cursor_may_be_read_on_after_its_block_no_further_than_in_it(runs: Runs) -> None:
    program = """
with use_cassette(cassette, mode=mode):
    cursor = items.find({}, batch_size=3).sort("_id", 1)
    first = next(cursor)["_id"]
print(first, read(cursor))
"""
    assert runs.record(program, 2) == "0 [1, 2]\n"
    assert runs.replay(program, 2) == "0 [1, 2]\n"
    assert runs.replay(program, 5).startswith("0 ('ReadPastRecordingError', ")


def test_a_cursor_read_on_live_after_its_block_is_read_from_the_server(runs: Runs) -> None:
    program = """
with use_cassette(cassette, mode=mode):
    cursor = items.find({}, batch_size=3).sort("_id", 1)
    next(cursor)
print(read(cursor))
with use_cassette(cassette, mode=mode):
    print(read(items.find({}, batch_size=3).sort("_id", 1), 3))
"""
    assert runs.record(program, 20) == "[1, 2, 3, 4, 5, 6, 7, 8, 9]\n[0, 1, 2]\n"


def test_a_cursor_is_read_on_in_other_threads(runs: Runs) -> None:
    program = """
def in_a_thread(function):
    kept = []
    thread = threading.Thread(target=lambda: kept.append(function()))
    thread.start()
    thread.join()
    return kept[0]

with use_cassette(cassette, mode=mode):
    cursor = items.find({}, batch_size=3).sort("_id", 1)
    print(next(cursor)["_id"], in_a_thread(lambda: read(cursor, 4)), read(cursor, 2))
    print(in_a_thread(lambda: read(items.find({"_id": {"$lt": 2}}), 5)))
    print(in_a_thread(lambda: items.count_documents({})))
"""
    recorded = runs.record(program, 9)
    assert recorded == "0 [1, 2, 3, 4] [5, 6]\n[0, 1]\n10\n"
    assert runs.replay(program, 9, Rules(threads="driver")) == recorded


def test_a_replayed_cursor_dropped_after_its_block_is_killed_on_no_server(runs: Runs) -> None:
    program = """
from pymongo import monitoring
class Listener(monitoring.CommandListener):
    sent = []
    def started(self, event):
        self.sent.append(event.command_name)
    def succeeded(self, event): pass
    def failed(self, event): pass

live = MongoClient(uri, event_listeners=[Listener()])
items = live[database]["items"]
with use_cassette(cassette, mode="record"):
    next(items.find({}, batch_size=3))
    next(items.aggregate([], batchSize=3))
live._process_kill_cursors()
for _ in range(2):
    with use_cassette(cassette, mode="replay"):
        with live.start_session() as session:
            cursors = [items.find({}, batch_size=3), items.aggregate([], batchSize=3)]
        for cursor in cursors:
            next(cursor)
    Listener.sent.clear()
    cursors.pop().close()
    del cursors, cursor
    live._process_kill_cursors()
    print(Listener.sent)
open_one = items.find({}, batch_size=3)
next(open_one)
open_one.close()
print(Listener.sent)
"""
    assert runs.record(program, 0) == "[]\n[]\n['find', 'killCursors']\n"


def test_a_very_long_cursor_goes_on_in_events_of_its_own(runs: Runs) -> None:
    program = """
from timetracer.plugins import cursors
cursors._LONG_BATCHES = 2
with use_cassette(cassette, mode=mode) as session:
    print(read(items.find({}, batch_size=2).sort("_id", 1), 99))
    print(read(items.aggregate([{"$sort": {"_id": -1}}], batchSize=2), 99))
    print(session.recording.count if mode == "record" else len(session.cassette.unused))
"""
    up, down = list(range(10)), list(range(9, -1, -1))
    recorded = runs.record(program, 9)
    assert recorded.startswith(f"{up}\n{down}\n") and int(recorded.split()[-1]) > 4
    assert runs.replay(program, 9) == f"{up}\n{down}\n0\n"


def test_repeats_are_allowed_of_cursors_too(runs: Runs) -> None:
    program = """
from timetracer import TraceConfig
with use_cassette(cassette, mode=mode, config=TraceConfig(allow_repeats=True)):
    for _ in range(int(count)):
        print(read(items.find({"_id": {"$lt": 4}}, batch_size=2).sort("_id", 1), 9))
"""
    assert runs.record(program, 1) == "[0, 1, 2, 3]\n"
    assert runs.replay(program, 3) == "[0, 1, 2, 3]\n" * 3


def test_a_decoder_that_fails_fails_again_where_it_did(runs: Runs) -> None:
    program = """
from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from bson.decimal128 import Decimal128
class Fails(TypeDecoder):
    bson_type = Decimal128
    def transform_bson(self, value):
        if mode == "record":
            raise ValueError(f"no {value}, please")
        raise AssertionError("the recorded error comes first")
options = CodecOptions(type_registry=TypeRegistry([Fails()]))
if mode == "record":
    items.insert_one({"_id": 5.5, "long": Decimal128("7")})
picky = items.with_options(codec_options=options)
with use_cassette(cassette, mode=mode):
    cursors = [
        lambda: picky.find({"_id": 5.5}),
        lambda: picky.find({}, batch_size=3).sort("_id", 1),
        lambda: picky.aggregate([{"$sort": {"_id": 1}}]),
        lambda: picky.aggregate([{"$sort": {"_id": 1}}], batchSize=3),
        lambda: [picky.find_one({"_id": 5.5})],
        lambda: [picky.find_one_and_update({"_id": 5.5}, {"$set": {"a": 1}})],
        lambda: picky.distinct("long"),
    ]
    for made in cursors:
        seen = []
        try:
            for document in made():
                seen.append(document["_id"])
        except Exception as error:
            print(seen, type(error).__name__, error.args)
"""
    recorded = runs.record(program, 9)
    assert recorded.count("no 7, please") == 7
    assert runs.replay(program, 9) == recorded
