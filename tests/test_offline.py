"""Replay without a server: whatever a client was given, nothing connects, waits or looks up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import proof
from tests.support.offline import run_offline, run_program
from tests.support.server import Server, start_server

READS = proof.cassette_of("reads", "newest")
DATABASE = proof.database_of("reads")

PRELUDE = f'''
import sys, time
from pymongo import MongoClient
from timetracer import MissError, use_cassette
from timetracer.plugins import disable_pymongo, enable_pymongo
CASSETTE, DATABASE = {str(READS)!r}, {DATABASE!r}
def replay(**options):
    return use_cassette(CASSETTE, mode="replay", **options)
def third(client):
    return client[DATABASE]["items"].find_one(3)["name"]
'''

URIS = (
    "mongodb://fake:27017",
    "mongodb://fake:27017/?directConnection=true",
    "mongodb://user:word@one:1,two:2,three:3/admin?replicaSet=rs&tls=true",
    "mongodb+srv://cluster0.example.mongodb.net/shop?retryWrites=true",
    "mongodb+srv://user:word@cluster0.example.mongodb.net",
    "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=1",
    "mongodb://[::1]:27017",
    "mongodb://fake:27017/?loadBalanced=true",
)


def offline(program: str, *arguments: str, **options) -> str:
    return run_offline(PRELUDE + program, *arguments, **options).stdout


@pytest.mark.parametrize("uri", URIS)
def test_a_client_of_any_uri_is_answered(uri: str) -> None:
    told = offline(
        '''
enable_pymongo()
with replay():
    client = MongoClient(sys.argv[1], connect=True)
    print(third(client))
    client.close()
''',
        uri,
    )
    assert told == "Item 3\n"


@pytest.mark.parametrize("enabled_first", [True, False])
def test_a_client_that_waits_to_connect_is_answered_whenever_it_was_made(
    enabled_first: bool,
) -> None:
    enable, later = ("enable_pymongo()", "") if enabled_first else ("", "enable_pymongo()")
    told = offline(
        f'''
{enable}
client = MongoClient("mongodb://fake:27017", connect=False)
{later}
with replay():
    print(third(client))
'''
    )
    assert told == "Item 3\n"


def test_a_module_level_client_is_made_offline_where_the_environment_says_replay() -> None:
    told = offline(
        '''
enable_pymongo()
client = MongoClient("mongodb://fake:27017")
print(third(client), client.is_primary, len(client.nodes), client.is_mongos)
''',
        env={"TIMETRACER_MODE": "replay", "TIMETRACER_CASSETTE": str(READS)},
    )
    assert told == "Item 3 True 1 False\n"


def test_several_clients_are_answered_side_by_side() -> None:
    told = offline(
        '''
enable_pymongo()
with replay():
    first, second = MongoClient("mongodb://one"), MongoClient("mongodb+srv://two.example.net")
    print(third(first))
    first.close()
    print(second[DATABASE]["items"].find_one({"_id": 4})["name"])
    print([found["_id"] for found in second[DATABASE]["items"].aggregate([])])
'''
    )
    assert told == "Item 3\nItem 4\n[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]\n"


@pytest.mark.parametrize(
    "call",
    [
        "client[DATABASE]._retryable_read_command({'ping': 1}, operation='ping')",
        "client._topology.select_servers(lambda selection: [], 'x')",
        "list(client._checkout(client._select_server(lambda s: s, None, 'x'), None).gen)",
    ],
)
def test_what_has_no_row_ends_in_a_miss_and_never_in_a_connection(call: str) -> None:
    told = offline(
        f'''
enable_pymongo()
started = time.monotonic()
with replay() as session:
    client = MongoClient("mongodb://fake:27017")
    try:
        print("unexpected:", {call})
    except MissError as miss:
        print("never connects" in str(miss), CASSETTE in str(miss), len(session.misses))
print(time.monotonic() - started < 5)
'''
    )
    assert told in ("True True 1\nTrue\n", "True False 1\nTrue\n")


def test_a_miss_is_told_at_once_and_is_no_error_of_the_drivers() -> None:
    told = offline(
        '''
from pymongo.errors import PyMongoError
from timetracer import TimetracerError
enable_pymongo()
started = time.monotonic()
with replay() as session:
    client = MongoClient("mongodb://fake:27017")
    for function in (
        lambda: client[DATABASE]["items"].find_one({"_id": "not recorded"}),
        lambda: list(client[DATABASE]["items"].find({"_id": "not recorded"})),
        lambda: client["another"]["items"].insert_one({"_id": 1}),
        lambda: client.admin.command("not recorded"),
    ):
        try:
            function()
        except TimetracerError as error:
            print(type(error).__name__, isinstance(error, PyMongoError))
    print(len(session.misses))
print(time.monotonic() - started < 5)
'''
    )
    assert told == "MissError False\n" * 4 + "4\nTrue\n"


def test_a_miss_names_the_call_the_nearest_event_and_what_differs(tmp_path: Path) -> None:
    told = offline(
        '''
enable_pymongo()
with replay():
    try:
        MongoClient("mongodb://fake")[DATABASE]["items"].find_one({"_id": 99})
    except MissError as miss:
        print(miss)
''',
        cwd=tmp_path,
    )
    call, nearest, remedy = told.splitlines()
    assert call == f"find_one on {DATABASE}.items is not in {READS} (mode replay)."
    assert nearest.startswith("Nearest: event ") and "differs in filter._id: recorded" in nearest
    assert nearest.endswith("asked 99.")
    assert remedy == f'To record it: use_cassette("{READS}", mode="record")'


WATCHED = '''
import os, signal, socket, threading
counted = []
sys.addaudithook(lambda event, args: counted.append(args[1]) if event == "socket.connect" else None)
def connections():
    seen, counted[:] = list(counted), []
    return seen
uri = sys.argv[1]
'''


@pytest.mark.parametrize("enabled_first", [True, False])
def test_the_monitors_of_a_connected_client_rest_while_replay_lasts(enabled_first: bool) -> None:
    enable, later = ("enable_pymongo()", "") if enabled_first else ("", "enable_pymongo()")
    server = start_server()
    if not server.ours:
        server.stop()
        pytest.skip("MONGODB_URI names a server that is not ours to kill")
    try:
        told = run_program(
            PRELUDE
            + WATCHED
            + f'''
{enable}
client = MongoClient(uri, heartbeatFrequencyMS=500)
client.admin.command("ping")
{later}
os.killpg(int(sys.argv[2]), signal.SIGKILL)
with replay():
    time.sleep(0.7)  # whatever a monitor had begun
    connections()
    print(third(client), client.is_primary, len(client.nodes))
    time.sleep(1.6)
    print(connections())
connections()
time.sleep(1.5)
print(len(connections()) > 0)  # they go on afterwards
os._exit(0)
''',
            server.uri,
            str(server.pid),
        ).stdout
    finally:
        server.kill()
        server.stop()
    assert told.splitlines()[0] == "Item 3 True 1"
    assert told.splitlines()[1:] == ["[]", "True"]


def test_a_client_goes_back_to_its_server_after_a_replay(
    mongodb_server: Server, database: str
) -> None:
    told = run_program(
        PRELUDE
        + WATCHED
        + '''
enable_pymongo()
live = sys.argv[2]
before = MongoClient(uri)
before[live]["items"].insert_one({"_id": 1})
late = MongoClient(uri, connect=False)
with replay():
    within = MongoClient(uri)
    connections()
    print([third(client) for client in [late]], connections())
    try:
        before[live]["items"].find_one({"_id": 1})
    except MissError:
        print("a miss within")
for client in (before, late, within):
    print(client[live]["items"].find_one({"_id": 1}), client.is_primary)
    client.close()
disable_pymongo()
print(MongoClient(uri)[live]["items"].count_documents({}))
''',
        mongodb_server.uri,
        database,
    ).stdout
    assert told == "['Item 3'] []\na miss within\n" + "{'_id': 1} True\n" * 3 + "1\n"


def test_a_cursor_opened_before_replay_is_not_read_on_in_it(
    mongodb_server: Server, database: str
) -> None:
    told = run_program(
        PRELUDE
        + '''
enable_pymongo()
items = MongoClient(sys.argv[1])[sys.argv[2]]["items"]
items.insert_many([{"_id": n} for n in range(6)])
cursor = items.find({}, batch_size=2)
next(cursor)
with replay():
    try:
        print(list(cursor))
    except MissError as miss:
        print(type(miss).__name__)
''',
        mongodb_server.uri,
        database,
    ).stdout
    assert told == "ReadPastRecordingError\n"


def test_closing_clients_and_leaving_cursors_half_read_sends_nothing() -> None:
    told = offline(
        '''
enable_pymongo()
with replay():
    client = MongoClient("mongodb://fake:27017")
    cursor = client[DATABASE]["items"].aggregate([{"$match": {"_id": {"$lt": 7}}}], batchSize=3)
    next(cursor)
    with client.start_session() as session:
        print(session.session_id is not None)
    cursor.close()
    client.close()
    client.close()
    with MongoClient("mongodb://fake:27017") as other:
        other.admin
    del other, client, cursor
print("done")
'''
    )
    assert told == "True\ndone\n"


def test_a_program_replays_alike_on_any_uri() -> None:
    cassette = proof.cassette_of("databases", "newest")
    traces = {proof.run_replay("databases", cassette, uri) for uri in ("mongodb://fake", URIS[4])}
    assert len(traces) == 1


def test_a_client_closed_after_replay_waits_for_no_server() -> None:
    told = offline(
        '''
enable_pymongo()
clients = [MongoClient("mongodb://fake:27017", connect=False)]
with replay():
    clients.append(MongoClient("mongodb://fake:27017"))
    for client in clients:
        with client.start_session() as session:
            session.session_id
        third(client) if client is clients[0] else None
started = time.monotonic()
for client in clients:
    client.close()
print(time.monotonic() - started < 2)
'''
    )
    assert told == "True\n"


def test_a_replay_ends_at_exit_without_a_thread_or_a_wait() -> None:
    told = offline(
        '''
enable_pymongo()
import atexit, threading
atexit.register(lambda: print(threading.active_count()))
with replay():
    client = MongoClient("mongodb://fake:27017")
    third(client)
'''
    )
    assert told == "1\n"
