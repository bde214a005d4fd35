"""Many requests at once: every event is in its own request's cassette, none lost, none doubled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support import offline
from tests.support.offline import run_offline, run_program
from tests.support.server import Server

THREADS, ROUNDS = 64, 3
TASKS = 1000
EQUALS = 60

WSGI = """
    import json, os, sys, threading
    from concurrent.futures import ThreadPoolExecutor
    from pymongo import MongoClient
    from tests.support.http import plain, serve
    from timetracer.integrations.wsgi import TimeTracerMiddleware
    from timetracer.plugins import enable_pymongo

    enable_pymongo()
    threads, rounds = int(sys.argv[3]), int(sys.argv[4])
    notes = MongoClient(sys.argv[1])[sys.argv[2]].notes
    together = threading.Barrier(threads)

    def handle(environ):
        number = int(environ["PATH_INFO"].rpartition("/")[2])
        together.wait(60)
        notes.insert_many([{"_id": f"{number}-{part}", "number": number} for part in range(3)])
        together.wait(60)
        found = [note["_id"] for note in notes.find({"number": number}, batch_size=2).sort("_id")]
        together.wait(60)
        return json.dumps([found, notes.count_documents({"number": number})])

    app = TimeTracerMiddleware(plain(handle))
    answers = []
    with ThreadPoolExecutor(threads) as pool:
        for n in range(rounds):
            paths = [f"/notes/{n * threads + thread}" for thread in range(threads)]
            answers += pool.map(lambda path: serve(app, "GET", path).body.decode(), paths)
    json.dump(answers, sys.stdout)
"""

ASGI = """
    import asyncio, json, sys
    from pymongo import AsyncMongoClient
    from tests.support.asgi import respond, serve
    from timetracer.integrations.asgi import TimeTracerMiddleware
    from timetracer.plugins import enable_pymongo

    enable_pymongo()
    tasks = int(sys.argv[3])
    started = 0

    async def main():
        client = AsyncMongoClient(sys.argv[1])
        notes = client[sys.argv[2]].notes
        all_there = asyncio.Event()

        async def handle(scope, receive, send):
            global started
            number = int(scope["path"].rpartition("/")[2])
            started += 1
            if started == tasks:
                all_there.set()
            await all_there.wait()
            await notes.insert_one({"_id": number, "number": number})
            found, listed = await asyncio.gather(
                notes.find_one({"_id": number}), notes.find({"_id": number}).to_list()
            )
            await respond(send, json.dumps([found["number"], len(listed)]).encode())
            if number % 10 == 0:
                await asyncio.sleep(0)
                await notes.update_one({"_id": number}, {"$set": {"seen": True}})

        app = TimeTracerMiddleware(handle)
        served = await asyncio.gather(*(serve(app, "GET", f"/notes/{n}") for n in range(tasks)))
        json.dump([each.body.decode() for each in served], sys.stdout)
        await client.close()

    asyncio.run(main())
"""


EQUAL = """
    import asyncio, json, sys
    from pymongo import AsyncMongoClient
    from tests.support.asgi import respond, serve
    from timetracer.integrations.asgi import TimeTracerMiddleware
    from timetracer.plugins import enable_pymongo

    enable_pymongo()

    async def main():
        client = AsyncMongoClient(sys.argv[1])
        counters = client[sys.argv[2]].counters
        await counters.insert_one({"_id": 1, "n": 0})

        async def handle(scope, receive, send):
            counter = await counters.find_one_and_update(
                {"_id": 1}, {"$inc": {"n": 1}}, return_document=True
            )
            await respond(send, str(counter["n"]).encode())

        app = TimeTracerMiddleware(handle)
        requests = (serve(app, "GET", "/next") for n in range(int(sys.argv[3])))
        served = await asyncio.gather(*requests)
        json.dump(sorted(each.body.decode() for each in served), sys.stdout)
        await client.close()

    asyncio.run(main())
"""


def record_and_replay(
    program: str, tmp_path: Path, server: Server, database: str, *numbers: int
) -> list[Any]:
    arguments = [server.uri, database, *map(str, numbers)]
    env = {"TIMETRACER_MODE": "record", "TIMETRACER_CASSETTE_DIR": str(tmp_path / "cassettes")}
    live = run_program(program, *arguments, env=env).stdout
    env["TIMETRACER_MODE"] = "replay"
    rules = offline.Rules(threads="driver")
    assert run_offline(program, *arguments, env=env, rules=rules).stdout == live
    return [json.loads(answer) for answer in json.loads(live)]


def events_by_number(cassettes: Path) -> dict[int, list[Any]]:
    """The events of each request's cassette, by the number in its path."""
    documents = [json.loads(file.read_bytes()) for file in cassettes.iterdir()]
    numbered = {
        int(document["request"]["path"].rpartition("/")[2]): document["events"]
        for document in documents
    }
    assert len(numbered) == len(documents)
    return numbered


def methods(events: list[Any]) -> list[str]:
    return sorted(event["signature"]["method"] for event in events)


def test_64_threads(tmp_path: Path, mongodb_server: Server, database: str) -> None:
    answers = record_and_replay(WSGI, tmp_path, mongodb_server, database, THREADS, ROUNDS)
    numbers = range(THREADS * ROUNDS)
    assert answers == [[[f"{n}-0", f"{n}-1", f"{n}-2"], 3] for n in numbers]
    recorded = events_by_number(tmp_path / "cassettes")
    assert sorted(recorded) == list(numbers)
    for number, events in recorded.items():
        assert methods(events) == ["COUNT_DOCUMENTS", "FIND", "INSERT_MANY"], number
        for event in events:
            assert f'"number":{number}' in compact(event), (number, event)


def test_1000_tasks(tmp_path: Path, mongodb_server: Server, database: str) -> None:
    answers = record_and_replay(ASGI, tmp_path, mongodb_server, database, TASKS)
    assert answers == [[number, 1] for number in range(TASKS)]
    recorded = events_by_number(tmp_path / "cassettes")
    assert sorted(recorded) == list(range(TASKS))
    for number, events in recorded.items():
        later = ["UPDATE_ONE"] if number % 10 == 0 else []
        assert methods(events) == ["FIND", "FIND_ONE", "INSERT_ONE", *later]
        for event in events:
            assert f":{number}" in compact(event), (number, event)


def compact(event: Any) -> str:
    return json.dumps(event["arguments"], separators=(",", ":"))


def test_equal_requests_at_once_are_takes(
    tmp_path: Path, mongodb_server: Server, database: str
) -> None:
    answers = record_and_replay(EQUAL, tmp_path, mongodb_server, database, EQUALS)
    assert sorted(answers) == list(range(1, EQUALS + 1))
