"""Change streams: polls, resume tokens, resuming after errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.programs_async.proof import OWN_THREADS
from tests.support import proof
from tests.support.offline import run_offline, run_program
from tests.support.server import Server

PROGRAMS = ("change_streams",)


@pytest.mark.parametrize("program", PROGRAMS)
def test_streams_are_recorded_unharmed_and_replayed_exactly(
    program: str, mongodb_server: Server, tmp_path: Path
) -> None:
    proof.prove_live(program, mongodb_server, tmp_path)


@pytest.mark.parametrize("release", proof.RECORDINGS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_streams_are_replayed_from_a_committed_recording(program: str, release: str) -> None:
    proof.prove_committed(program, release)


PRELUDE = """
import sys
from pymongo import MongoClient
from timetracer import MissError, use_cassette
from timetracer.plugins import enable_pymongo
enable_pymongo()
uri, database, cassette, mode, polls = sys.argv[1:]
items = MongoClient(uri, connect=False)[database]["items"]
"""


def test_a_stream_may_be_polled_more_often_than_it_was_and_gives_nothing_new(
    mongodb: str, database: str, tmp_path: Path
) -> None:
    program = """
with use_cassette(cassette, mode=mode):
    items.insert_one({"_id": 0})
    with items.watch(max_await_time_ms=50) as stream:
        items.insert_one({"_id": 1})
        tokens = []
        for _ in range(int(polls)):
            change = stream.try_next()
            print(change and change["documentKey"]["_id"], end=" ")
            tokens.append(stream.resume_token)
        print(stream.alive, tokens[1] == tokens[-1])
"""
    arguments = (mongodb, database, str(tmp_path / "x.json"))
    assert run_program(PRELUDE + program, *arguments, "record", "3").stdout == (
        "1 None None True True\n"
    )
    assert run_offline(PRELUDE + program, *arguments, "replay", "3").stdout == (
        "1 None None True True\n"
    )
    assert run_offline(PRELUDE + program, *arguments, "replay", "6").stdout == (
        "1 None None None None None True True\n"
    )


def test_a_stream_that_was_left_with_changes_to_come_is_read_on_no_further(
    mongodb: str, database: str, tmp_path: Path
) -> None:
    program = """
with use_cassette(cassette, mode=mode):
    items.insert_one({"_id": 0})
    with items.watch(max_await_time_ms=50, batch_size=1) as stream:
        items.insert_many([{"_id": n} for n in range(1, 5)])
        try:
            for _ in range(int(polls)):
                print(stream.next()["documentKey"]["_id"], end=" ")
        except MissError as miss:
            print(type(miss).__name__)
"""
    arguments = (mongodb, database, str(tmp_path / "x.json"))
    assert run_program(PRELUDE + program, *arguments, "record", "2").stdout == "1 2 "
    assert run_offline(PRELUDE + program, *arguments, "replay", "2").stdout == "1 2 "
    assert run_offline(PRELUDE + program, *arguments, "replay", "4").stdout == (
        "1 2 ReadPastRecordingError\n"
    )


THREADS = """
import threading, time

def write(number):
    time.sleep(0.2)
    told.append(f"writes {number}")
    items.insert_one({"_id": number})

told = []
with use_cassette(cassette, mode=mode):
    items.insert_one({"_id": 0})
    with items.watch() as stream:
        for number in (1, 2):
            threading.Thread(target=write, args=(number,)).start()
            told.append(f"reads {stream.next()['documentKey']['_id']}")
print(*told, sep=", ")
"""

TASKS = """
import asyncio
from pymongo import AsyncMongoClient

async def write(items, number):
    await asyncio.sleep(0.2)
    told.append(f"writes {number}")
    await items.insert_one({"_id": number})

async def main():
    items = AsyncMongoClient(uri, connect=False)[database]["items"]
    with use_cassette(cassette, mode=mode):
        await items.insert_one({"_id": 0})
        async with await items.watch() as stream:
            for number in (1, 2):
                task = asyncio.create_task(write(items, number))
                told.append(f"reads {(await stream.next())['documentKey']['_id']}")
                await task

told = []
asyncio.run(main())
print(*told, sep=", ")
"""

MOTOR = """
from motor.motor_asyncio import AsyncIOMotorClient
from timetracer.plugins import enable_motor
enable_motor()
""" + TASKS.replace("AsyncMongoClient(uri, connect=False)", "AsyncIOMotorClient(uri)").replace(
    "async with await", "async with"
)


@pytest.mark.parametrize("program", [THREADS, TASKS, MOTOR], ids=["threads", "tasks", "motor"])
def test_a_change_comes_once_what_it_tells_of_is_written(
    program: str, mongodb: str, database: str, tmp_path: Path
) -> None:
    arguments = (mongodb, database, str(tmp_path / "x.json"))
    told = "writes 1, reads 1, writes 2, reads 2\n"
    assert run_program(PRELUDE + program, *arguments, "record", "-").stdout == told
    replayed = run_offline(PRELUDE + program, *arguments, "replay", "-", rules=OWN_THREADS)
    assert replayed.stdout == told


def test_a_change_comes_though_what_it_tells_of_is_not_written_any_more(
    mongodb: str, database: str, tmp_path: Path
) -> None:
    program = """
with use_cassette(cassette, mode=mode):
    items.insert_one({"_id": 0})
    with items.watch() as stream:
        if mode == "record":
            items.insert_one({"_id": 1})
        print(stream.next()["documentKey"])
"""
    arguments = (mongodb, database, str(tmp_path / "x.json"))
    assert run_program(PRELUDE + program, *arguments, "record", "-").stdout == "{'_id': 1}\n"
    assert run_offline(PRELUDE + program, *arguments, "replay", "-").stdout == "{'_id': 1}\n"


def test_an_error_comes_once_what_brought_it_about_is_done(
    mongodb: str, database: str, tmp_path: Path
) -> None:
    program = """
import threading, time
from pymongo.errors import PyMongoError

def write():
    time.sleep(0.2)
    told.append("writes")
    items.insert_one({"_id": 1})

told = []
with use_cassette(cassette, mode=mode):
    items.insert_one({"_id": 0})
    with items.watch([{"$project": {"_id": 0}}]) as stream:
        threading.Thread(target=write).start()
        try:
            next(stream)
        except PyMongoError as error:
            told.append(type(error).__name__)
print(*told, sep=", ")
"""
    arguments = (mongodb, database, str(tmp_path / "x.json"))
    recorded = run_program(PRELUDE + program, *arguments, "record", "-").stdout
    assert recorded.startswith("writes, "), recorded
    replayed = run_offline(PRELUDE + program, *arguments, "replay", "-", rules=OWN_THREADS)
    assert replayed.stdout == recorded
