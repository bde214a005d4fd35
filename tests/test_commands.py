"""Command listeners: in replay they are told what they were told live, in the same order.

`STEPS` is a table of what a program may do, written for the async drivers; without `await` it is
the same for the sync one. Each runs live, recorded, and in another process where connections are
refused; all that the listeners of its client were told is compared.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.offline import Rules, run_offline, run_program
from tests.support.server import Server

pytest.importorskip("pymongo")

STEPS = {
    "insert": "await items.insert_one({'_id': 1, 'price': 2.5})",
    "insert with an id of the driver's": "await items.insert_one({'name': 'a'})",
    "insert many": "await items.insert_many([{'_id': n, 'n': n} for n in range(10, 30)])",
    "find one": "await items.find_one({'_id': 1})",
    "find none": "await items.find_one({'_id': 'nowhere'})",
    "find and getMore": "[one async for one in items.find({'n': {'$gt': 0}}, batch_size=6)]",
    "find, closed early": """
cursor = items.find({'n': {'$gt': 0}}, batch_size=6)
async for one in cursor:
    break
await cursor.close()
""",
    "rewind": """
cursor = items.find({'n': {'$gt': 0}}, batch_size=6)
[one async for one in cursor]
await rewound(cursor)
[one async for one in cursor]
""",
    "raw batches": "[one async for one in items.find_raw_batches({'n': 11}, batch_size=6)]",
    "aggregate and getMore": """
cursor = await aggregated(items, [{'$match': {'n': {'$gt': 0}}}], batchSize=6)
[one async for one in cursor]
""",
    "update": """
await items.update_one({'_id': 1}, {'$set': {'price': 3}})
await items.update_many({'n': {'$gt': 20}}, {'$inc': {'n': 100}})
await items.replace_one({'_id': 'new'}, {'_id': 'new', 'price': 1}, upsert=True)
""",
    "delete": "await items.delete_one({'n': 11}); await items.delete_many({'n': 12})",
    "find and modify": """
await items.find_one_and_update({'_id': 1}, {'$inc': {'price': 1}})
await items.find_one_and_delete({'_id': 'nowhere'})
""",
    "bulk": """
await items.bulk_write([InsertOne({'_id': 'b'}), UpdateOne({'_id': 'b'}, {'$set': {'x': 1}}),
    DeleteOne({'_id': 'b'}), InsertOne({'_id': 'c'})])
""",
    "bulk without order": """
await items.bulk_write(
    [InsertOne({'_id': 'd'}), DeleteOne({'_id': 'd'}), InsertOne({'_id': 'e'})], ordered=False)
""",
    "count and distinct": "await items.count_documents({}); await items.distinct('n')",
    "indexes": """
await items.create_index([('n', 1)])
await items.index_information()
await items.drop_index('n_1')
""",
    "a command": "await database.command('ping')",
    "a command's cursor": "await database.command('find', 'items', filter={'n': 13}, batchSize=0)",
    "collections": """
await database.create_collection('more')
await database.drop_collection('more')
""",
    "unacknowledged": """
await items.with_options(write_concern=WriteConcern(w=0)).insert_one({'_id': 'w0'})
""",
    "a refused insert": """
try:
    await items.insert_one({'_id': 1})
except DuplicateKeyError:
    pass
""",
    "an error": """
try:
    await database.command('no such command')
except OperationFailure:
    pass
""",
    "an error of a cursor": """
fail('getMore', errorCode=96)
try:
    [one async for one in items.find({'n': {'$gt': 0}}, batch_size=3)]
except OperationFailure:
    pass
""",
    "a retried write": "fail('insert', closeConnection=True); await items.insert_one({'_id': 'r'})",
    "a retried read": "fail('find', errorCode=11600); await items.find_one({'_id': 'r'})",
    "a transaction": """
async with await session_of(client) as session:
    async with await transaction_of(session):
        await items.insert_one({'_id': 't'}, session=session)
        [one async for one in items.find({'n': {'$gt': 0}}, batch_size=9, session=session)]
    own = [event.command['lsid'] == session.session_id for event in listener.started_events[-4:]]
    say('of the session', own)
    number = session.session_id
await items.find_one({'_id': 't'})
say('of the session', listener.started_events[-1].command['lsid'] == number)
async with await session_of(client) as session:
    await transaction_of(session)
    await items.delete_one({'_id': 't'}, session=session)
    await session.abort_transaction()
""",
    "a change stream": """
async with await watched(items) as stream:
    await items.insert_one({'_id': 'seen'})
    await stream.next()
""",
    "GridFS": """
number = await bucket.upload_from_stream('x.txt', b'abc' * 90, chunk_size_bytes=100)
stream = await bucket.open_download_stream(number)
await stream.read()
await bucket.delete(number)
""",
    "values made in each run": """
token = uuid4().hex
await items.insert_one({'_id': token, 'at': datetime.now()})
say('its own', listener.started_events[-1].command['documents'][0]['_id'] == token)
found = await items.find_one({'_id': token})
say('its own', listener.replies[-1]['cursor']['firstBatch'][0] == found)
""",
    "a number of the cursor's own": """
cursor = items.find({'n': {'$gt': 0}}, batch_size=3)
async for one in cursor:
    opened = listener.replies[-1]['cursor']['id']
    break
say('of the cursor', opened == cursor.cursor_id and opened != 0)
[one async for one in cursor]
say('of the cursor', listener.started_events[-1].command['getMore'] == opened)
""",
}

PROGRAM = """
import asyncio, re, sys
from datetime import datetime
from uuid import UUID, uuid4
from pymongo import DeleteOne, InsertOne, UpdateOne, WriteConcern, monitoring
from pymongo.errors import DuplicateKeyError, OperationFailure
from tests.support import wire
from tests.support.traces import shown
from timetracer import use_cassette
from timetracer.plugins import enable_motor, enable_pymongo

mode, uri, name, cassette = sys.argv[1:]
numbers = {}

def numbered(value, key=""):
    if key in ("lsid", "$clusterTime"):
        return key
    if isinstance(value, dict):
        return {key: numbered(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [numbered(item, key) for item in value]
    if key in ("id", "getMore", "cursors", "cursorsKilled") and isinstance(value, int) and value:
        return f"cursor {numbers.setdefault(value, len(numbers))}"
    if key in ("_id", "files_id", "at", "uploadDate"):
        return type(value).__name__ if not isinstance(value, int) else value
    return value

def say(what, told):
    print(what, told, flush=True)

class Listener(monitoring.CommandListener):
    def __init__(self):
        self.started_events, self.replies = [], []
    def tell(self, kind, event, body):
        say(kind, [event.command_name, event.database_name, event.request_id, event.operation_id,
            event.connection_id, event.server_connection_id, event.service_id,
            getattr(event, "duration_micros", None), type(event).__name__, shown(numbered(body))])
    def started(self, event):
        self.started_events.append(event)
        self.tell("started", event, event.command)
    def succeeded(self, event):
        self.replies.append(event.reply)
        self.tell("succeeded", event, event.reply)
    def failed(self, event):
        self.tell("failed", event, event.failure)

def fail(command, **data):
    if mode != "replay":
        data = {"failCommands": [command], **data}
        wire.command(uri, {"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": data})

listener = Listener()
loop = asyncio.new_event_loop()
"""

FLAVOURS = {
    "sync": """
from gridfs import GridFSBucket
from pymongo import MongoClient
enable_pymongo()
client = MongoClient(uri, connect=False, heartbeatFrequencyMS=500, event_listeners=[listener])
bucket = GridFSBucket(client[name])
def watched(items): return items.watch()
def session_of(client): return client.start_session()
def transaction_of(session): return session.start_transaction()
def rewound(cursor): cursor.rewind()
def aggregated(items, *args, **kwargs): return items.aggregate(*args, **kwargs)
""",
    "async": """
from gridfs import AsyncGridFSBucket
from pymongo import AsyncMongoClient
enable_pymongo()
client = AsyncMongoClient(uri, heartbeatFrequencyMS=500, event_listeners=[listener])
bucket = AsyncGridFSBucket(client[name])
async def watched(items): return await items.watch()
async def session_of(client): return client.start_session()
async def transaction_of(session): return await session.start_transaction()
async def rewound(cursor): await cursor.rewind()
async def aggregated(items, *args, **kwargs): return await items.aggregate(*args, **kwargs)
""",
    "motor": """
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorGridFSBucket
enable_motor()
client = AsyncIOMotorClient(uri, heartbeatFrequencyMS=500, event_listeners=[listener], io_loop=loop)
bucket = AsyncIOMotorGridFSBucket(client[name])
async def watched(items): return items.watch()
async def session_of(client): return await client.start_session()
async def transaction_of(session): return session.start_transaction()
async def rewound(cursor): cursor.rewind()
async def aggregated(items, *args, **kwargs): return items.aggregate(*args, **kwargs)
""",
}

RUN = """
async def program():
    database, items = client[name], client[name]["items"]
    with use_cassette(cassette, mode=mode):
        for step, run in steps.items():
            say("---", step)
            await run(database, items)
"""


def source(flavour: str, steps: dict[str, str]) -> str:
    """The program of all steps."""
    functions = ["steps = {}"]
    for number, (step, code) in enumerate(steps.items()):
        body = "\n    ".join(code.strip().splitlines())
        functions.append(f"async def step_{number}(database, items):\n    {body}")
        functions.append(f"steps[{step!r}] = step_{number}")
    text = PROGRAM + FLAVOURS[flavour] + "\n".join(functions) + RUN
    if flavour == "sync":
        return re.sub(r"\b(await|async) ", "", text) + "\nprogram()\n"
    return text + "\nloop.run_until_complete(program())\n"


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    """A driver's API."""
    if request.param == "motor":
        pytest.importorskip("motor")
    return str(request.param)


def test_the_steps_are_told_again_in_replay_as_they_were_live(
    flavour: str, mongodb_server: Server, database: str, tape: Path
) -> None:
    program = source(flavour, STEPS)
    live = run_program(program, "record", mongodb_server.uri, database, str(tape)).stdout
    again = told_again(program, database, tape)

    assert again.splitlines() == live.splitlines()
    for step in live.split("--- ")[1:]:
        assert "started" in step, f"nothing was told of {step}"
    said = [line for line in live.splitlines() if line.startswith(("its own", "of the"))]
    assert len(said) == 6 and not any("False" in line for line in said)


def test_a_recording_of_one_driver_is_told_to_the_listeners_of_another(
    mongodb_server: Server, database: str, tape: Path
) -> None:
    pytest.importorskip("motor")
    program = source("sync", STEPS)
    live = run_program(program, "record", mongodb_server.uri, database, str(tape)).stdout

    for other in ("async", "motor"):
        assert told_again(source(other, STEPS), database, tape).splitlines() == live.splitlines()


def told_again(program: str, database: str, tape: Path) -> str:
    """What a program says in replay."""
    uri = "mongodb://fake:27017"
    rules = Rules(threads="driver")  # Motor's own run the calls
    return run_offline(program, "replay", uri, database, str(tape), rules=rules).stdout


# ------------------------------------------------------------------------------- one program each

ONE = """
import sys
import timetracer
from pymongo import MongoClient, monitoring
from timetracer import TraceConfig, use_cassette
from timetracer.plugins import enable_pymongo
enable_pymongo()
mode, uri, name, cassette = sys.argv[1:]
told = []
class Listener(monitoring.CommandListener):
    def started(self, event): told.append(f"started {event.command_name}")
    def succeeded(self, event): told.append(f"succeeded {event.command_name}")
    def failed(self, event): told.append(f"failed {event.command_name}")
"""


class Both:
    """A program that runs live, recorded, and in replay."""

    def __init__(self, uri: str, database: str, tape: Path) -> None:
        self._uri, self._database, self._tape = uri, database, tape

    def record(self, program: str) -> list[str]:
        return self._told(run_program(ONE + program, "record", self._uri, *self._rest))

    def replay(self, program: str) -> list[str]:
        return self._told(run_offline(ONE + program, "replay", "mongodb://fake:1", *self._rest))

    @property
    def text(self) -> str:
        return self._tape.read_text(encoding="utf-8")

    @property
    def _rest(self) -> tuple[str, str]:
        return self._database, str(self._tape)

    def _told(self, ended: Any) -> list[str]:
        self.complaints = ended.stderr
        return ended.stdout.splitlines()


@pytest.fixture
def both(mongodb_server: Server, database: str, tape: Path) -> Both:
    return Both(mongodb_server.uri, database, tape)


LISTENING = """
client = MongoClient(uri, connect=False, event_listeners=[Listener()])
with use_cassette(cassette, mode=mode):
    client[name].items.insert_one({"_id": 1})
print(*told, sep="\\n")
"""
SILENT = LISTENING.replace(", event_listeners=[Listener()]", "")


def test_a_listener_of_the_whole_process_is_told_too(both: Both) -> None:
    program = "monitoring.register(Listener())\n" + SILENT

    assert both.record(program) == both.replay(program) == ["started insert", "succeeded insert"]


def test_a_program_without_listeners_has_no_commands_in_its_cassette(both: Both) -> None:
    both.record(SILENT)

    assert '"commands"' not in both.text


def test_a_listener_of_the_replay_alone_hears_nothing_that_is_not_known(both: Both) -> None:
    both.record(SILENT)

    assert both.replay(LISTENING) == [""]


def test_commands_that_nobody_listens_to_in_replay_are_no_hindrance(both: Both) -> None:
    both.record(LISTENING)

    assert both.replay(SILENT) == [""]


def test_a_listener_that_raises_harms_no_call_and_complains_as_live(both: Both) -> None:
    program = LISTENING.replace("Listener()", "Bad()")
    program = "class Bad(Listener):\n    def started(self, event): raise ValueError(1)\n" + program

    assert both.record(program) == ["succeeded insert"]
    assert "ValueError: 1" in both.complaints
    assert both.replay(program) == ["succeeded insert"]
    assert "ValueError: 1" in both.complaints


def test_calls_that_a_listener_makes_are_recorded_and_replayed(both: Both) -> None:
    program = """
other = MongoClient(uri, connect=False)
class Auditor(Listener):
    def started(self, event):
        other[name].audit.insert_one({"command": event.command_name})
        told.append(other[name].audit.count_documents({}))
client = MongoClient(uri, connect=False, event_listeners=[Auditor()])
with use_cassette(cassette, mode=mode) as session:
    client[name].items.insert_one({"_id": 1})
    client[name].items.find_one({"_id": 1})
print(*told, session.misses, session.cassette and session.cassette.unused)
"""
    assert both.record(program) == ["1 succeeded insert 2 succeeded find [] None"]
    assert both.replay(program) == ["1 succeeded insert 2 succeeded find [] []"]


def test_what_an_answer_holds_is_not_kept_twice(both: Both) -> None:
    both.record("""
client = MongoClient(uri, connect=False, event_listeners=[Listener()])
items = client[name].items
items.insert_many([{"_id": n, "text": "a long text"} for n in range(6)])
with use_cassette(cassette, mode=mode):
    list(items.find({}, batch_size=4))
    items.find_one({"_id": 1})
    list(items.aggregate([], batchSize=4))
    items.distinct("text")
    items.find_one_and_update({"_id": 1}, {"$set": {"more": 1}})
""")

    assert both.text.count("a long text") == 6 + 1 + 6 + 1 + 1


def test_a_log_in_is_told_by_its_name_alone(both: Both) -> None:
    program = LISTENING.replace("connect=False", "connect=False, username='a', password='pw'")
    program = program.replace("    client", "    try:\n        client").replace(
        "\nprint", "\n    except Exception as error:\n        told.append(type(error))\nprint"
    )
    live = both.record(program)

    assert live[0] == "started saslContinue"
    assert both.replay(program) == live
    assert '"command":{"saslContinue":1}' in both.text and '"payload"' not in both.text


# ------------------------------------------------------------------------------- secrets

SECRETS = """
client = MongoClient(uri, connect=False, event_listeners=[Listener()])
people = client[name].people
with use_cassette(cassette, config=TraceConfig(mode=mode, **RULES)):
    people.insert_one({"_id": 1, "password": "hunter2", "home": {"street": "Elm Street"}})
    people.insert_many([{"_id": 2, "home": {"street": "Oak Street"}}])
    people.find_one({"home.street": "Elm Street"})
    list(people.find({}))
    list(people.aggregate([{"$project": {"shown": "$password"}}]))
    people.distinct("password")
    people.find_one_and_update({"_id": 1}, {"$set": {"password": "hunter3"}})
print(*told, sep="\\n")
"""
WORDS = ("hunter2", "hunter3")
STREETS = (*WORDS, "Elm Street", "Oak Street")
RULES = {
    "{}": WORDS,
    "{'redact_paths': ['arguments.*.home.street', 'arguments.filter.home.street', "
    "'arguments.*.*.home.street', 'result.body.data.*.home.street', "
    "'result.body.data.home.street']}": STREETS,
    "{'redact_paths': ['arguments', 'result.body.data']}": STREETS,
}


@pytest.mark.parametrize("rules", RULES)
def test_what_is_secret_in_a_call_is_secret_in_its_commands(rules: str, both: Both) -> None:
    live = both.record(f"RULES = {rules}\n{SECRETS}")

    assert len(live) == 14
    assert [word for word in RULES[rules] if word in both.text] == []
    told = live if '"commands"' in both.text else [""]
    assert both.replay(f"RULES = {rules}\n{SECRETS}") == told


HOOKS = {
    "event['arguments']['document']['a'] = 'x'": [],
    "pass": ["commands", "to be hidden"],
    "event['result'].pop('commands')": ["to be hidden"],
    "event['result']['commands'][0]['command']['documents'] = []": ["commands", "to be hidden"],
}
"""What a hook does, and what of the call is in the cassette then."""


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_hides_something_hides_it_in_commands_too(hook: str, both: Both) -> None:
    both.record(f"""
def hook(event):
    {hook}
    return event
client = MongoClient(uri, connect=False, event_listeners=[Listener()])
with use_cassette(cassette, config=TraceConfig(mode=mode, before_record=hook)):
    client[name].items.insert_one({{"a": "to be hidden"}})
""")

    found = [word for word in ("commands", "to be hidden") if f'"{word}"' in both.text]
    assert found == HOOKS[hook]
