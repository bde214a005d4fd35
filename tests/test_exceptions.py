"""Exceptions of every family: class, args, code, details, labels, message, type for type."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import proof
from tests.support.offline import run_offline, run_program
from tests.support.server import Server, free_port

PROGRAMS = ("server_errors", "driver_errors")


@pytest.mark.parametrize("program", PROGRAMS)
def test_errors_are_recorded_unharmed_and_replayed_exactly(
    program: str, mongodb_server: Server, tmp_path: Path
) -> None:
    proof.prove_live(program, mongodb_server, tmp_path)


@pytest.mark.parametrize("release", proof.RECORDINGS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_errors_are_replayed_from_a_committed_recording(program: str, release: str) -> None:
    proof.prove_committed(program, release)


# ------------------------------------------------------------------------------- one by one

PRELUDE = """
import sys, time
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from timetracer import MissError, TimetracerError, use_cassette
from timetracer.plugins import enable_pymongo
enable_pymongo()
uri, database, cassette, mode = sys.argv[1:]
items = MongoClient(uri, connect=False)[database]["items"]
"""


def both(program: str, uri: str, database: str, cassette: Path) -> tuple[str, str]:
    """What a program prints when it is recorded, and when it is replayed."""
    arguments = (uri, database, str(cassette))
    recorded = run_program(PRELUDE + program, *arguments, "record").stdout
    return recorded, run_offline(PRELUDE + program, *arguments, "replay").stdout


def test_a_server_that_cannot_be_found_is_told_at_once_in_replay(tmp_path: Path) -> None:
    program = """
from pymongo.errors import ServerSelectionTimeoutError
slow = MongoClient(uri, serverSelectionTimeoutMS=1500, connect=False)[database]["items"]
document = {"n": 1}
with use_cassette(cassette, mode=mode):
    for function in (lambda: slow.insert_one(document), lambda: list(slow.find())):
        started = time.monotonic()
        try:
            function()
        except ServerSelectionTimeoutError as error:
            print(error, error.args == (str(error),), error.timeout, "_id" in document)
        print("it took", "long" if time.monotonic() - started > 1 else "no time", file=sys.stderr)
"""
    uri = f"mongodb://127.0.0.1:{free_port()}"
    arguments = (uri, "shop", str(tmp_path / "x.json"))
    recorded = run_program(PRELUDE + program, *arguments, "record")
    replayed = run_offline(PRELUDE + program, *arguments, "replay")
    assert recorded.stderr == "it took long\n" * 2 and replayed.stderr == "it took no time\n" * 2
    assert replayed.stdout == recorded.stdout
    assert recorded.stdout.count("True True True") == 2


def test_a_document_that_is_too_large_is_refused_as_it_was(
    mongodb: str, database: str, tmp_path: Path
) -> None:
    program = """
blob = b"x" * (17 * 1024 * 1024)
with use_cassette(cassette, mode=mode):
    for function in (
        lambda: items.insert_one({"_id": 3, "blob": blob}),
        lambda: items.insert_many([{"_id": 4, "blob": blob}]),
        lambda: items.update_one({"_id": 5}, {"$set": {"blob": blob}}),
        lambda: items.count_documents({}),
    ):
        try:
            print(function())
        except Exception as error:
            print(type(error), str(error)[:200], len(error.args))
"""
    recorded, replayed = both(program, mongodb, database, tmp_path / "x.json")
    assert replayed == recorded and recorded.count("DocumentTooLarge") >= 2


def test_an_exception_of_a_class_that_is_not_loaded_is_a_clear_miss(tmp_path: Path) -> None:
    program = """
class Gone(Exception):
    pass
def refuse(*args, **kwargs):
    raise Gone("by the program's own patch")
if mode == "record":
    from pymongo.synchronous.collection import Collection
    from timetracer.plugins import disable_pymongo
    disable_pymongo()
    Collection.count_documents = refuse
    enable_pymongo()
else:
    del Gone
with use_cassette(cassette, mode=mode):
    try:
        items.count_documents(filter={})
    except Exception as error:
        print(type(error).__name__, error)
"""
    recorded, replayed = both(program, "mongodb://fake", "shop", tmp_path / "x.json")
    assert recorded == "Gone by the program's own patch\n"
    assert replayed == (
        "UnreplayableError the recorded call raised __main__.Gone: by the program's own patch\n"
        "That class is not known in this process. Import its module before the call.\n"
    )


def test_what_an_exception_of_the_programs_own_holds_is_given_back(
    mongodb: str, database: str, tmp_path: Path
) -> None:
    program = """
import datetime, decimal
from bson.codec_options import CodecOptions, TypeEncoder, TypeRegistry
class Money:
    pass
class Refused(PyMongoError):
    def __init__(self, amount, *, at, money):
        super().__init__(f"refused: {amount}", {"Label"})
        self.amount, self.at, self.money = amount, at, money
class Encoder(TypeEncoder):
    python_type = Money
    def transform_python(self, value):
        error = Refused(5, at=datetime.datetime(2020, 1, 1), money=value)
        getattr(error, "add_note", lambda note: None)("a note")
        raise error
purse = items.with_options(codec_options=CodecOptions(type_registry=TypeRegistry([Encoder()])))
money = Money()
with use_cassette(cassette, mode=mode):
    for function in (
        lambda: purse.insert_one({"money": money}),
        lambda: purse.find_one({"money": money}),
        lambda: list(purse.find({"money": money})),
    ):
        try:
            function()
        except Refused as error:
            print(error, error.args, error.amount, error.at, error.money is money, error.timeout)
            print(error.has_error_label("Label"), getattr(error, "__notes__", ["a note"]))
"""
    recorded, replayed = both(program, mongodb, database, tmp_path / "x.json")
    assert replayed == recorded
    assert recorded.count("refused: 5") == 6 and "True None" not in recorded


def test_the_traceback_of_a_servers_error_ends_where_it_does_live(
    mongodb_server: Server, database: str, tmp_path: Path
) -> None:
    program = """
import traceback
with use_cassette(cassette, mode=mode):
    for function in (
        lambda: items.database.command("no such command"),
        lambda: list(items.find({"$where": 1, "$nothing": 1})),
    ):
        try:
            function()
        except PyMongoError as error:
            frames = traceback.extract_tb(error.__traceback__)
            print(frames[0].name, frames[-1].name, type(error).__name__)
"""
    recorded, replayed = both(program, mongodb_server.uri, database, tmp_path / "x.json")
    assert recorded == "<module> _check_command_response OperationFailure\n" * 2
    assert replayed == recorded
