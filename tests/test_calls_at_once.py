"""Equal calls at once: in replay the k-th that begins has the answer of the k-th that began."""

from __future__ import annotations

import gc
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pymongo
import pytest

from tests.programs_async.proof import OWN_THREADS, Proof
from tests.support.calls import Driver, answer, call
from timetracer import TraceConfig, intercept, use_cassette
from timetracer.cassette import Recording
from timetracer.intercept import Errand
from timetracer.recovery import open_spool, recover
from timetracer.stores.files import FileStore

COUNTER = """
    async def count(c):
        found = await c.find_one_and_update(
            {"_id": "counter"}, {"$inc": {"n": 1}}, upsert=True, return_document=True
        )
        return found["n"]
"""
ASYNC = (
    COUNTER
    + """
    enable_pymongo()
    from pymongo import AsyncMongoClient

    async def closed(client):
        await client.close()
"""
)
MOTOR = (
    COUNTER
    + """
    enable_motor()
    from motor.motor_asyncio import AsyncIOMotorClient as AsyncMongoClient

    async def closed(client):
        client.close()
"""
)
FLAVOURS = {"async": ASYNC, "motor": MOTOR}
AT_ONCE = {"async": pymongo.version_tuple >= (4, 11), "motor": True}
"""Whether a call overtakes a slow one; earlier releases of AsyncMongoClient wait for the answer."""
by_flavour = pytest.mark.parametrize("flavour", FLAVOURS)


@pytest.fixture
def proof(mongodb: str, database: str, tmp_path: Path) -> Proof:
    return Proof(mongodb, database, tmp_path)


def in_order(proof: Proof) -> bool:
    """Whether numbers and beginnings rise from line to line."""
    events = proof.events()
    numbers = [event["eid"] for event in events]
    begun = [event["start_offset_ms"] for event in events]
    return numbers == sorted(set(numbers)) and begun == sorted(begun)


@by_flavour
def test_a_slow_first_call_keeps_its_place(flavour: str, proof: Proof) -> None:
    said = proof.holds(
        FLAVOURS[flavour]
        + """
    async def main():
        client = AsyncMongoClient(URI)
        c = client[DATABASE].c
        print(await count(c))
        slow(600, "findAndModify")
        first = asyncio.ensure_future(count(c))
        await asyncio.sleep(0.2)
        print(await asyncio.gather(first, *[count(c) for _ in range(3)]))
        print(await count(c))
        await closed(client)

    asyncio.run(main())
    """,
        rules=OWN_THREADS,
    )

    first, rest = said.splitlines()[1].strip("[]").split(", ", 1)
    slow, others = ("5", ["2", "3", "4"]) if AT_ONCE[flavour] else ("2", ["3", "4", "5"])
    assert (said.splitlines()[0], first, said.splitlines()[2]) == ("1", slow, "6")
    assert sorted(rest.split(", ")) == others
    assert in_order(proof)
    assert [event["eid"] for event in proof.events()] == list(range(1, 7))


@by_flavour
def test_a_hundred_equal_calls_at_once(flavour: str, proof: Proof) -> None:
    said = proof.holds(
        FLAVOURS[flavour]
        + """
    sys.setswitchinterval(1e-6)

    async def main():
        client = AsyncMongoClient(URI, maxPoolSize=10)
        c = client[DATABASE].c
        print(await count(c))
        for _ in range(3):
            slow(100, "findAndModify")
            print(await asyncio.gather(*[count(c) for _ in range(100)]))
        await closed(client)

    asyncio.run(main())
    """,
        rules=OWN_THREADS,
    )

    first = json.loads(said.splitlines()[1])
    assert sorted(first) == list(range(2, 102))
    assert first != sorted(first) or not AT_ONCE[flavour]
    assert in_order(proof)


@by_flavour
def test_cursors_read_side_by_side(flavour: str, proof: Proof) -> None:
    proof.holds(
        FLAVOURS[flavour]
        + """
    async def read(c):
        found = [document["_id"] async for document in c.find({}, batch_size=2).sort("_id", 1)]
        return found

    async def main():
        client = AsyncMongoClient(URI)
        c = client[DATABASE].c
        await c.insert_many([{"_id": n} for n in range(5)])
        slow(400, "find")
        first = asyncio.ensure_future(read(c))
        await asyncio.sleep(0.1)
        second = await asyncio.gather(read(c), c.insert_one({"_id": 5}), count(client[DATABASE].d))
        print(second[0], await first, await read(c))
        await closed(client)

    asyncio.run(main())
    """,
        rules=OWN_THREADS,
    )

    assert in_order(proof)


@by_flavour
def test_errands_of_a_motor_program_leave_no_gaps(flavour: str, proof: Proof) -> None:
    proof.holds(
        FLAVOURS[flavour]
        + """
    async def main():
        client = AsyncMongoClient(URI)
        c = client[DATABASE].c
        await c.insert_many([{"_id": n} for n in range(9)])
        print(len(await c.find({}, batch_size=2).to_list(None)))
        print(await c.count_documents({}))
        await closed(client)

    asyncio.run(main())
    """,
        rules=OWN_THREADS,
    )

    assert [event["eid"] for event in proof.events()] == [1, 2, 3]


def test_a_cancelled_motor_call_that_no_thread_took_up_holds_up_no_other(proof: Proof) -> None:
    pytest.importorskip("motor")
    said = proof.holds(
        MOTOR
        + """
    async def main():
        client = AsyncMongoClient(URI)
        c = client[DATABASE].c
        print(await count(c))
        calls = [asyncio.ensure_future(count(c)) for _ in range(3)]
        await asyncio.sleep(0)
        again = client[DATABASE].d.find_one({"_id": "counter"})
        again.cancel()
        print(await asyncio.gather(again, return_exceptions=True) != [])
        print(sum(await asyncio.gather(*calls)))
        started = time.monotonic()
        print(await count(c), time.monotonic() - started < 4)
        await closed(client)

    asyncio.run(main())
    """,
        rules=OWN_THREADS,
    )

    assert said.splitlines()[-1] == "5 True"


def test_threads(proof: Proof) -> None:
    said = proof.holds(
        """
    enable_pymongo()
    from concurrent.futures import ThreadPoolExecutor
    from pymongo import MongoClient

    def count(c):
        found = c.find_one_and_update(
            {"_id": "counter"}, {"$inc": {"n": 1}}, upsert=True, return_document=True
        )
        return found["n"]

    with MongoClient(URI) as client, ThreadPoolExecutor(4) as pool:
        c = client[DATABASE].c
        print(count(c))
        slow(800, "findAndModify")
        calls = []
        for _ in range(4):
            calls.append(pool.submit(count, c))
            time.sleep(0.15)
        print([one.result() for one in calls])
    """,
        rules=OWN_THREADS,
    )

    assert said == "1\n[5, 2, 3, 4]\n"
    assert in_order(proof)


def test_strict_order_asks_for_calls_as_they_began(proof: Proof) -> None:
    program = (
        ASYNC
        + """
    async def main():
        client = AsyncMongoClient(URI)
        c = client[DATABASE].c
        await c.insert_one({"_id": 1})
        slow(400, "count")
        slow(400, "aggregate")
        first = asyncio.ensure_future(c.count_documents({}))
        await asyncio.sleep(0.1)
        print(await c.find_one({}), await first)
        await closed(client)

    asyncio.run(main())
    """
    )
    said = proof.record(program)

    assert proof.methods() == ["INSERT_ONE", "COUNT_DOCUMENTS", "FIND_ONE"]
    assert proof.replay(program, env={"TIMETRACER_STRICT_ORDER": "true"}) == said


# ------------------------------------------------------------------------------- errands


@pytest.mark.parametrize("how", ["answered", "made live", "cancelled", "about to be cancelled"])
def test_an_errand_in_replay_waits_until_the_one_before_it_is(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intercept, "_LONGEST_TURN", 60.0)
    first = Errand()
    second = Errand(before=first)
    told: list[str] = []
    other = threading.Thread(target=second.in_turn(told.append), args=("second",), daemon=True)
    other.start()
    other.join(0.2)
    assert told == []

    if how == "answered":
        first.in_turn(told.append)("first")
    elif how == "made live":
        first.when_cancelled(lambda: None)
    elif how == "cancelled":
        first.cancel()
    else:
        first.wait(0)
    other.join(10)
    assert told[-1:] == ["second"]


def test_an_errand_whose_forerunner_never_comes_goes_on_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intercept, "_LONGEST_TURN", 0.01)

    assert Errand(before=Errand()).in_turn(len)("abc") == 3


@pytest.mark.parametrize("early", [True, False])
def test_a_call_that_is_cancelled_is_kept_once_however_far_its_thread_has_come(early: bool) -> None:
    kept: list[str] = []
    errand = Errand()
    if early:
        errand.cancel()
    errand.when_cancelled(lambda: kept.append("cancelled"))
    if not early:
        errand.cancel()
    assert (kept, errand.finish()) == (["cancelled"], False)


# ------------------------------------------------------------------------------- the recording


def finish(recording: Recording, name: str, ticket: tuple[int, float] | None) -> None:
    eid = ticket[0] if ticket is not None else None
    recording.add(call(filter={"n": name}), answer(name), 0.0, 1.0, eid)


def read(recording: Recording) -> list[tuple[int, Any]]:
    events = [json.loads(line) for line in recording.lines()]
    return [(event["eid"], event["arguments"]["filter"]["n"]) for event in events]


def spilling(store: FileStore, events: int) -> Recording:
    recording = Recording(spill_events=events)
    recording.spill = lambda: open_spool(store, "x.json", "a" * 32, {"id": "a" * 32}, adds_to=False)
    return recording


@pytest.mark.parametrize("events", [0, 1, 2, 3, 100])
def test_lines_are_in_the_order_in_which_calls_began(events: int, tmp_path: Path) -> None:
    recording = spilling(FileStore(tmp_path), events) if events else Recording()
    first, second = recording.ticket(), recording.ticket()
    finish(recording, "third", None)
    finish(recording, "second", second)
    fourth = recording.ticket()
    finish(recording, "fifth", None)
    finish(recording, "first", first)
    finish(recording, "fourth", fourth)

    assert read(recording) == [
        (1, "first"), (2, "second"), (3, "third"), (4, "fourth"), (5, "fifth")
    ]  # fmt: skip
    recording.discard_partial()


def test_a_call_that_is_no_event_leaves_a_gap_only_if_another_has_begun() -> None:
    recording = Recording(first_eid=7)
    first = recording.ticket()
    recording.give_back(first)
    second, third = recording.ticket(), recording.ticket()
    recording.give_back(second)
    finish(recording, "third", third)
    finish(recording, "fourth", None)

    assert (first[0], second[0]) == (7, 7)
    assert read(recording) == [(8, "third"), (9, "fourth")]


def test_tickets_are_all_different_and_rise_with_time() -> None:
    recording = Recording()
    drawn: list[list[tuple[int, float]]] = [[] for _ in range(8)]
    together = threading.Barrier(8)

    def draw(mine: list[tuple[int, float]]) -> None:
        together.wait()
        mine.extend(recording.ticket() for _ in range(3000))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(draw, drawn))
    finally:
        sys.setswitchinterval(before)
    tickets = sorted(ticket for mine in drawn for ticket in mine)

    assert [eid for eid, _ in tickets] == list(range(1, 24_001))
    assert [when for _, when in tickets] == sorted(when for _, when in tickets)


def test_a_call_made_by_a_finalizer_in_the_middle_of_another_has_its_own_number() -> None:
    recording = Recording()
    drawn: list[int] = []

    class Leaving:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            drawn.append(recording.ticket()[0])

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(200):
            Leaving()
            drawn.append(recording.ticket()[0])
    finally:
        gc.set_threshold(*before)
    gc.collect()

    assert sorted(drawn) == list(range(1, 401))


def test_a_recovered_recording_is_in_order_and_told_with_its_size(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = FileStore(tmp_path)
    spool = open_spool(store, "x.json", "b" * 32, {"id": "b" * 32}, adds_to=False)
    recording = Recording(spill=lambda: spool, spill_events=1)
    first = recording.ticket()
    finish(recording, "second", None)
    finish(recording, "first", first)
    spool.file.close()

    recover(store, "x")

    events = json.loads(store.read("x.json"))["events"]
    assert [event["result"]["body"]["data"] for event in events] == ["first", "second"]
    assert "x.json was made of 2 events that a killed process had recorded." in caplog.text


def test_new_episodes_go_on_numbering_where_the_cassette_ends(tmp_path: Path) -> None:
    path, server = tmp_path / "x.json", Driver()
    for mode, names in (("record", "ab"), ("new_episodes", "abcd"), ("replay", "abcd")):
        with use_cassette(path, mode=mode, config=TraceConfig()):
            for name in names:
                server(filter={"_id": name})

    events = json.loads(path.read_text())["events"]
    assert [event["eid"] for event in events] == [1, 2, 3, 4]
    assert len(server.made) == 4
