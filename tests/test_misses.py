"""Misses explain themselves: the nearest event, who used it, what to do; and none gets lost."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import os
import re
import textwrap
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import timetracer
from tests.support.calls import Driver, answer, call
from tests.support.offline import Environment, Rules, run_offline, run_program
from timetracer import MissError, TraceConfig, ledger, use_cassette
from timetracer.cassette import Cassette
from timetracer.errors import ABSENT, CallSite, Difference, Remedy
from timetracer.missed import Circumstances, explain

START = """
    import logging, os, sys
    import timetracer
    from pymongo import MongoClient
    from timetracer import MissError, TraceConfig, use_cassette
    from timetracer.plugins import enable_pymongo
    logging.getLogger("timetracer").addHandler(logging.NullHandler())
    enable_pymongo()
    client = MongoClient(os.environ["MONGODB_URI"], connect=False, serverSelectionTimeoutMS=500)
    things = client[os.environ["TEST_DATABASE"]].things
"""


class Program:
    """A program app.py, recorded against a server and replayed offline in another process."""

    def __init__(self, directory: Path, uri: str, database: str) -> None:
        self.directory = directory
        self.given: Environment = {
            "MONGODB_URI": uri,
            "TEST_DATABASE": database,
            "TIMETRACER_CASSETTE": "tape.json",
            "TIMETRACER_RUN_ID": None,
            "PYTEST_CURRENT_TEST": None,
        }

    def write(self, body: str, name: str = "app.py") -> None:
        """Write a program; app.py begins with a client and its collection `things`."""
        text = textwrap.dedent(START) if name == "app.py" else ""
        file = self.directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + textwrap.dedent(body), encoding="utf-8")

    def record(self, *arguments: str, **env: str | None) -> str:
        """Run it against the server and return what it prints."""
        return self._run(run_program, "record", arguments, env)

    def replay(self, *arguments: str, **env: str | None) -> str:
        """Run it without any server and return what it prints."""
        env = {"MONGODB_URI": "mongodb://fake:27017", **env}
        offline = functools.partial(run_offline, rules=Rules(threads="driver"))
        return self._run(offline, "replay", arguments, env)

    def _run(self, run: Any, mode: str, arguments: Sequence[str], env: Environment) -> str:
        env = {**self.given, "TIMETRACER_MODE": mode, **env}
        ran = run(self.directory / "app.py", *arguments, cwd=self.directory, env=env)
        return str(ran.stdout)

    def line_of(self, text: str, name: str = "app.py") -> int:
        """The number of the one line of a file that holds a text."""
        lines = (self.directory / name).read_text(encoding="utf-8").splitlines(keepends=True)
        (number,) = (number for number, line in enumerate(lines, 1) if text in line)
        return number


@pytest.fixture
def program(tmp_path: Path, mongodb: str, database: str) -> Program:
    """A program on a database of its own."""
    return Program(tmp_path, mongodb, database)


@pytest.fixture
def no_misses() -> Iterator[None]:
    """An empty ledger of the process, before and after."""
    ledger._forget()
    yield
    ledger._forget()


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    """Where a cassette may lie."""
    return tmp_path / "tape.json"


def record(tape: Path, *calls: dict[str, Any], method: str = "FIND_ONE") -> None:
    with use_cassette(tape, mode="record"):
        for arguments in calls:
            Driver()(method, **arguments)


def miss_of(
    tape: Path, arguments: dict[str, Any], method: str = "FIND_ONE", **settings: Any
) -> MissError:
    config = TraceConfig(**settings)
    with (
        use_cassette(tape, mode="replay", config=config),
        pytest.raises(MissError) as missed,
    ):
        Driver()(method, **arguments)
    return missed.value


def names(miss: MissError) -> list[str]:
    return [remedy.name for remedy in miss.remedies]


# ------------------------------------------------------------------------------- the nearest event


def test_the_event_with_the_fewest_differing_places_is_the_nearest(tape: Path) -> None:
    record(
        tape,
        {"filter": {"sku": "A1", "size": 1, "at": "noon"}},
        {"filter": {"sku": "B7", "size": 3, "at": "night"}},
        {"filter": {"sku": "A1", "size": 2, "at": "night"}},
    )
    miss = miss_of(tape, {"filter": {"sku": "B7", "size": 2, "at": "night"}})
    assert miss.nearest.eid == 2
    assert miss.differences == (Difference("filter.size", 3, 2),)


def test_a_value_that_differs_is_nearer_than_one_that_is_not_there(tape: Path) -> None:
    record(tape, {"filter": {"size": 1}}, {"filter": {"size": 1, "sku": "B7"}})
    miss = miss_of(tape, {"filter": {"size": 1, "sku": "A1"}})
    assert miss.nearest.eid == 2


def test_of_equally_near_events_the_first_that_is_unused_is_the_nearest(tape: Path) -> None:
    record(tape, *({"filter": {"_id": number}} for number in range(1, 101)))
    with use_cassette(tape, mode="replay"), pytest.raises(MissError) as missed:
        for number in range(1, 81):
            Driver()(filter={"_id": number})
        Driver()(filter={"_id": 999})
    assert missed.value.nearest.eid == 81


HIDING = ['a, b, c, d, e, f, g, "h", i', "{x}, {y}, [z], [q]", 'ends in a comma,"', "\\, \\"]


@pytest.mark.parametrize("text", HIDING)
def test_no_number_of_events_hides_the_nearest(tape: Path, text: str) -> None:
    # One long text differs from the asked one in many characters, three short ones in few.
    others = [
        {"filter": {"text": f"{text} asked", "a": f"{n}", "b": f"{n}", "c": f"{n}"}}
        for n in range(400)
    ]
    record(tape, *others, {"filter": {"text": text * 9, "a": "x", "b": "y", "c": "z"}}, *others)
    miss = miss_of(tape, {"filter": {"text": f"{text} asked", "a": "x", "b": "y", "c": "z"}})
    assert miss.nearest.eid == 401
    assert [difference.path for difference in miss.differences] == ["filter.text"]


def test_places_are_counted_and_not_stretches_of_text(tape: Path) -> None:
    record(
        tape,
        {"filter": {"numbers": [1, 2, 3, 4], "sku": "A1", "size": 1}},
        {"filter": {"numbers": [5, 6, 7, 8], "sku": "B7", "size": 2}},
    )
    miss = miss_of(tape, {"filter": {"numbers": [5, 6, 7, 8], "sku": "A1", "size": 1}})
    assert miss.nearest.eid == 2


@pytest.mark.parametrize("number", [1, 200, 399])
def test_keys_in_another_order_are_found_among_many(tape: Path, number: int) -> None:
    record(tape, *({"filter": {"at": {"_id": n, "sku": "A1"}}} for n in range(400)))
    miss = miss_of(tape, {"filter": {"at": {"sku": "A1", "_id": number}}})
    assert miss.nearest.eid == number + 1
    assert miss.differences == (
        Difference("filter.at", ["_id", "sku"], ["sku", "_id"], reordered=True),
    )


def test_the_nearest_of_a_cassette_that_was_written_by_hand(tape: Path) -> None:
    others = [{"filter": {"_id": number, "size": 8}} for number in range(100)]
    record(tape, *others, {"filter": {"_id": 2, "size": 7}}, *others)
    text = tape.read_text(encoding="utf-8")
    spaced = text.replace('{"_id":2,"size":7}', '{ "_id": 2, "size": 7 }')
    assert spaced != text
    tape.write_text(spaced, encoding="utf-8")
    assert miss_of(tape, {"filter": {"_id": 999, "size": 7}}).nearest.eid == 101


def test_the_same_arguments_elsewhere_are_nearer_than_others_there(tape: Path) -> None:
    with use_cassette(tape, mode="record") as session:
        for asked in (
            call("DISTINCT", "shop.orders", key="size"),
            call("FIND_ONE", "shop.archive", filter={"_id": 1}),
        ):
            session.record(asked, answer(1), session.begin())
    cassette = Cassette(tape.read_bytes(), "tape.json")
    near = cassette.nearest(call("FIND_ONE", "shop.orders", filter={"_id": 1}))
    assert near is not None and (near.event.eid, near.same_call, near.differences) == (2, False, ())
    assert cassette.nearest(call("COMMAND", "shop.nothing")) is None


LISTS = [
    ([1, 2, 3], [1, 2, 3, 4], [Difference("pipeline.3", ABSENT, 4)]),
    ([1, 2, 3], [1, 3], [Difference("pipeline.1", 2, ABSENT)]),
    ([1, 2, 3], [9, 2, 3], [Difference("pipeline.0", 1, 9)]),
    ([1, 2, 3], [3, 2, 1], [Difference("pipeline", [1, 2, 3], [3, 2, 1], reordered=True)]),
    ([[1], [2]], [[2], [1]], [Difference("pipeline", [[1], [2]], [[2], [1]], reordered=True)]),
    ([1, 1, 2], [1, 2, 2], [Difference("pipeline.1", 1, 2)]),
    ([True], [1], [Difference("pipeline.0", True, 1)]),
    ([1.0], [1], [Difference("pipeline.0", 1.0, 1)]),
    (["(absent)"], [], [Difference("pipeline.0", "(absent)", ABSENT)]),
    ([{"a": None}], [{}], [Difference("pipeline.0.a", None, ABSENT)]),
]


@pytest.mark.parametrize(("recorded", "asked", "told"), LISTS)
def test_lists_are_compared_item_by_item(
    tape: Path, recorded: list[Any], asked: list[Any], told: list[Difference]
) -> None:
    record(tape, {"pipeline": recorded}, method="AGGREGATE")
    assert list(miss_of(tape, {"pipeline": asked}, "AGGREGATE").differences) == told


def test_an_order_that_says_nothing_is_not_what_differs(tape: Path) -> None:
    record(tape, {"filter": {"size": {"$in": ["a", "b", "c"]}, "sku": "A1"}})
    miss = miss_of(tape, {"filter": {"sku": "B7", "size": {"$in": ["c", "b", "a"]}}})
    assert miss.differences == (Difference("filter.sku", "A1", "B7"),)


def test_a_placeholder_differs_from_no_value_of_its_type(tape: Path) -> None:
    with use_cassette(tape, mode="record", config=TraceConfig(redact=True)):
        Driver()(filter={"password": "planted", "size": 1})
    assert b"planted" not in tape.read_bytes()
    miss = miss_of(tape, {"filter": {"password": "another", "size": 2}})
    assert [difference.path for difference in miss.differences] == ["filter.size"]


# ------------------------------------------------------------------------------- what it says


def test_the_first_five_places_are_shown_one_a_line(tape: Path) -> None:
    record(tape, {"filter": {f"field{n}": n for n in range(7)}})
    miss = miss_of(tape, {"filter": {f"field{n}": -n - 1 for n in range(7)}})
    assert str(miss).splitlines()[1:-1] == [
        "Nearest: event 1, differs in 7 places:",
        "    filter.field0: recorded 0, asked -1",
        "    filter.field1: recorded 1, asked -2",
        "    filter.field2: recorded 2, asked -3",
        "    filter.field3: recorded 3, asked -4",
        "    filter.field4: recorded 4, asked -5",
        "    and 2 more",
    ]
    assert len(miss.differences) == 7


def test_what_is_no_value_of_each_run_is_shown_first(tape: Path) -> None:
    record(tape, {"filter": {"at": "2026-01-22T14:00:00.000Z", "student": 1}})
    miss = miss_of(tape, {"filter": {"at": "2026-01-23T08:12:41.310Z", "student": 20}})
    assert str(miss).splitlines()[2] == "    filter.student: recorded 1, asked 20"
    assert names(miss) == ["record"]


def test_a_long_value_is_cut_short(tape: Path) -> None:
    record(tape, {"filter": {"text": "x" * 5000}})
    assert max(map(len, str(miss_of(tape, {"filter": {"text": "y"}})).splitlines()[1:])) < 200


def test_the_error_carries_facts_that_cannot_change(tape: Path) -> None:
    record(tape, {"filter": {"size": 1}})
    miss = miss_of(tape, {"filter": {"size": 2}})
    assert miss.call.method == "FIND_ONE" and miss.cassette == str(tape)
    assert miss.call_site is not None and miss.call_site.file == "tests/support/calls.py"
    for fact in (miss.call_site, *miss.differences, *miss.remedies):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(fact, dataclasses.fields(fact)[0].name, None)


@pytest.mark.live
def test_an_event_that_was_used_names_the_line_that_used_it(program: Program) -> None:
    program.write(
        """
        def first():
            return things.find_one({"_id": 1})  # the first

        def again():
            return things.find_one({"_id": 1})  # once more

        with use_cassette("tape.json"):
            first()
            if "again" in sys.argv:
                try:
                    again()
                except MissError as miss:
                    print(miss)
                    print(repr(miss.used_by), repr(miss.call_site), miss.nearest.eid)
        """
    )
    program.record()
    told = program.replay("again").splitlines()
    first, again = program.line_of("# the first"), program.line_of("# once more")
    assert told[1:] == [
        f"Event 1 would match but was already used by find_one on {program.given['TEST_DATABASE']}"
        f".things at app.py:{first}.",
        "To answer such a read as often as it is asked: allow_repeats=True",
        "To record it: run it with TIMETRACER_MODE=record",
        f"{CallSite('app.py', first, 'first')!r} {CallSite('app.py', again, 'again')!r} 1",
    ]


CALLERS = """
    import _thread, asyncio, time
    from concurrent.futures import ThreadPoolExecutor
    from motor.motor_asyncio import AsyncIOMotorClient
    from pymongo import AsyncMongoClient
    from timetracer.call_sites import site_of
    from timetracer.plugins import enable_motor

    sys.path.insert(0, "site-packages")
    import mapper
    enable_motor()
    sys.unraisablehook = lambda failed: print(failed.exc_value)

    def things_of(client):
        return client[os.environ["TEST_DATABASE"]].things

    def library():
        mapper.load(things)  # a library is passed over

    def load():
        things.find_one({"_id": 2})  # an executor's thread

    def executor():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(load).result()

    def cursor():
        list(things.find({"_id": 3}))  # a cursor

    async def coroutine():
        client = AsyncMongoClient(os.environ["MONGODB_URI"])
        await asyncio.gather(wait(things_of(client)))
        await client.close()

    async def wait(things):
        await things.find_one({"_id": 4})  # a coroutine

    async def motor():
        things = things_of(AsyncIOMotorClient(os.environ["MONGODB_URI"]))
        await things.find_one({"_id": 5})  # a coroutine of Motor's
        async for _ in things.find({"_id": 6}):  # a cursor of Motor's
            pass

    with use_cassette("tape.json") as session:
        library()
        executor()
        cursor()
        asyncio.run(coroutine())
        asyncio.run(motor())
        exec(compile("things.find_one({'_id': 7})", "<shell>", "exec"))
        _thread.start_new_thread(things.find_one, ({"_id": 8},))
        time.sleep(0.3)
        _thread.start_new_thread(mapper.outer, (things,))
        time.sleep(0.3)
        for event in session.cassette.events if session.cassette else ():
            print(site_of(event.used_by, event.used_at))
"""


@pytest.mark.live
def test_whoever_makes_the_call_its_line_in_the_program_is_named(program: Program) -> None:
    program.write(
        """
        def load(things, number=1): things.find_one({'_id': number})
        def outer(things): load(things, 9)
        """,
        "site-packages/mapper.py",
    )
    program.write(CALLERS)
    program.record()
    lines = (
        "# a library is passed over",
        "# an executor's thread",
        "# a cursor\n",
        "# a coroutine\n",
        "# a coroutine of Motor's",
        "# a cursor of Motor's",
    )
    assert program.replay().splitlines() == [
        *(f"app.py:{program.line_of(line)}" for line in lines),
        "<shell>:1",
        "None",  # a thread that begins with the call
        "site-packages/mapper.py:2",  # a thread that a library began
    ]


# ------------------------------------------------------------------------------- remedies

ANY = {"_id": 1}
REMEDIES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "another student": ({"filter": {"_id": 1}}, {"filter": {"_id": 20}}, []),
    "another price": ({"filter": {"price": 9.5}}, {"filter": {"price": 10.0}}, []),
    "another name": ({"filter": {"name": "Ada"}}, {"filter": {"name": "Bob"}}, []),
    "another UUID in a filter": (
        {"filter": {"_id": "0b9f4f5e-6d1c-4f0c-9d6e-3a1f5a8e1c11"}},
        {"filter": {"_id": "9c3a4f5e-6d1c-4f0c-9d6e-3a1f5a8e1c22"}},
        ["seed"],
    ),
    "a time": (
        {"filter": {"at": "2026-01-22T14:00:00.000Z"}},
        {"filter": {"at": "2026-01-23T08:12:41.310Z"}},
        ["ignore", "freeze_time"],
    ),
    "a time and a student": (
        {"filter": {"at": "2026-01-22T14:00:00.000Z", "_id": 1}},
        {"filter": {"at": "2026-01-23T08:12:41.310Z", "_id": 20}},
        [],
    ),
    "a drawn number": ({"filter": {"n": 0.13436424}}, {"filter": {"n": 0.84743373}}, ["seed"]),
    "a drawn code": ({"filter": {"code": "ID-4821"}}, {"filter": {"code": "ID-9377"}}, ["seed"]),
    "a drawn number, and a student": (
        {"filter": {"n": 0.13436424, "_id": 1}},
        {"filter": {"n": 0.84743373, "_id": 20}},
        [],
    ),
    "the order of keys": (
        {"filter": {"size": {"a": 1, "b": 2}}},
        {"filter": {"size": {"b": 2, "a": 1}}},
        ["hash_seed"],
    ),
    "the order of a list": (
        {"filter": {"tags": ["a", "b", "c"]}},
        {"filter": {"tags": ["c", "a", "b"]}},
        ["hash_seed"],
    ),
    "the order of a list, and a student": (
        {"filter": {"tags": ["a", "b", "c"], "_id": 1}},
        {"filter": {"tags": ["c", "a", "b"], "_id": 20}},
        [],
    ),
}


@pytest.mark.parametrize("what", REMEDIES)
def test_a_remedy_is_told_only_where_it_fits(tape: Path, what: str) -> None:
    recorded, asked, told = REMEDIES[what]
    record(tape, recorded)
    miss = miss_of(tape, asked)
    assert names(miss) == [*told, "record"]
    assert all(remedy.text in str(miss) for remedy in miss.remedies)


def test_a_used_up_write_is_not_told_to_repeat(tape: Path) -> None:
    record(tape, {"filter": ANY, "update": {"$set": {"a": 1}}}, method="UPDATE_ONE")
    with use_cassette(tape, mode="replay"), pytest.raises(MissError) as missed:
        for _ in range(2):
            Driver()("UPDATE_ONE", filter=ANY, update={"$set": {"a": 1}})
    assert names(missed.value) == ["record"]
    assert "would match but was already used" in str(missed.value)


def test_calls_out_of_order_are_told_of_strict_order(tape: Path) -> None:
    record(tape, {"filter": {"_id": 1}}, {"filter": {"_id": 2}})
    miss = miss_of(tape, {"filter": {"_id": 2}}, strict_order=True)
    assert miss.remedies[0] == Remedy(
        "strict_order",
        "Event 2 would match, but calls must come in the recorded order. To answer it all the "
        "same: strict_order=False",
        (("strict_order", False),),
    )


def test_an_event_that_fits_and_was_not_taken_is_no_matter_of_order_by_itself(tape: Path) -> None:
    record(tape, {"filter": ANY})
    near = Cassette(tape.read_bytes(), "tape.json").nearest(call(filter=ANY))
    assert near is not None and near.fits
    known = Circumstances(call(filter=ANY), "tape.json", {}, "replay", near, None, True, "type it")
    assert names(explain(known)) == ["record"]
    assert names(explain(dataclasses.replace(known, strict_order=True))) == [
        "strict_order",
        "record",
    ]


def test_the_same_hash_seed_is_no_remedy(tape: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded, asked, _ = REMEDIES["the order of a list"]
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    record(tape, recorded)
    assert names(miss_of(tape, asked)) == ["record"]
    monkeypatch.setenv("PYTHONHASHSEED", "8")
    assert names(miss_of(tape, asked)) == ["hash_seed", "record"]


@pytest.mark.live
def test_the_settings_of_a_remedy_make_the_program_replay(program: Program) -> None:
    program.write(
        """
        import json
        from datetime import datetime
        settings = json.loads(os.environ.get("SETTINGS", "{}"))
        try:
            with use_cassette("tape.json", config=TraceConfig(**settings)):
                for _ in range(int(os.environ.get("TIMES", 1))):
                    print(things.count_documents({"at": os.environ["AT"]}))
        except MissError as miss:
            print(json.dumps(dict(miss.remedies[0].settings)))
        """
    )
    recorded = program.record(AT="2026-01-22T14:00:00.000Z")
    assert recorded == "0\n"
    later = {"AT": "2027-03-23T08:12:41.310Z"}
    settings = program.replay(**later)
    assert settings == '{"ignore": ["filter.at"]}\n'
    assert program.replay(**later, SETTINGS=settings) == recorded
    twice = {"AT": "2026-01-22T14:00:00.000Z", "TIMES": "2"}
    printed, settings = program.replay(**twice).splitlines()
    assert (printed, settings) == ("0", '{"allow_repeats": true}')
    assert program.replay(**twice, SETTINGS=settings) == recorded * 2


@pytest.mark.live
def test_the_hash_seed_that_orders_a_set_is_named(program: Program) -> None:
    program.write(
        """
        tags = {f"tag {n}" for n in range(20)}
        with use_cassette("tape.json"):
            try:
                print(things.insert_one({"tags": list(tags)}).acknowledged)
            except MissError as miss:
                print(miss)
                print(dict(miss.remedies[0].settings))
        """
    )
    program.record(PYTHONHASHSEED="7")
    told = program.replay(PYTHONHASHSEED="8").splitlines()
    assert "differs in document.tags (its order): recorded [" in told[1]
    assert told[2].endswith("PYTHONHASHSEED=7, as when it was recorded")
    assert told[-1] == "{'PYTHONHASHSEED': '7'}"
    assert program.replay(PYTHONHASHSEED="7") == "True\n"

    program.record(PYTHONHASHSEED=None)
    told = program.replay(PYTHONHASHSEED="8").splitlines()
    assert told[2].endswith("PYTHONHASHSEED=0, to record and to replay")


# ------------------------------------------------------------------------------- none gets lost


@pytest.mark.usefixtures("no_misses")
def test_a_swallowed_miss_is_kept_as_facts(tape: Path) -> None:
    record(tape, {"filter": {"size": 1}})
    with use_cassette(tape, mode="replay") as session:
        with contextlib.suppress(Exception):
            Driver()(filter={"size": 2})
        session.keep_miss(*session.misses)  # it is met again on its way out
    (kept,) = timetracer.misses()
    assert (kept.error, kept.method, kept.url) == ("MissError", "FIND_ONE", "shop.orders")
    assert (kept.cassette, kept.nearest) == (str(tape), 1)
    assert kept.differences == (Difference("filter.size", 1, 2),)
    assert kept.call_site is not None and str(kept.call_site).startswith("tests/support/calls.py:")
    assert kept.request is None and kept.message.endswith(kept.remedies[-1].text)
    timetracer.clear_misses()
    assert timetracer.misses() == ()


@pytest.mark.usefixtures("no_misses")
def test_misses_of_all_threads_are_kept_in_bounded_memory(
    tape: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tape, {"filter": {"size": 1}})
    monkeypatch.setattr(ledger, "_MOST_MISSES", 100)

    def ask(thread: int) -> None:
        for number in range(30):
            with pytest.raises(MissError):
                Driver()(filter={"size": f"{thread} {number}"})

    with use_cassette(tape, mode="replay"):
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(timetracer.misses()) == 100
    assert timetracer.report().further_misses == 50


@pytest.mark.usefixtures("no_misses")
def test_a_kept_miss_keeps_nothing_of_the_program_alive(tape: Path) -> None:
    class Local:
        pass

    def work() -> weakref.ref[Local]:
        local = Local()
        with use_cassette(tape, mode="replay"):
            try:
                Driver()(filter={"size": 2})
            except MissError as miss:
                kept = weakref.ref(local)
                del miss
        return kept

    record(tape, {"filter": {"size": 1}})
    local = work()
    gc.collect()
    assert local() is None and len(timetracer.misses()) == 1


@pytest.mark.live
def test_every_kind_of_miss_is_kept_once(program: Program) -> None:
    program.write(
        """
        import contextlib
        with use_cassette("tape.json"):
            things.insert_many([{"_id": n} for n in range(5)])
            cursor = things.find({}, batch_size=2)
            next(cursor)
            if "more" in sys.argv:
                with contextlib.suppress(MissError):
                    list(cursor)
                with contextlib.suppress(MissError):
                    things.find_one({"_id": 7})
                with contextlib.suppress(MissError):
                    client.admin.command("ping")
        for miss in timetracer.misses():
            print(miss.error, miss.method, miss.call_site.line, file=sys.stderr)
        """
    )
    program.record()
    assert _misses_of(program) == [
        f"ReadPastRecordingError FIND {program.line_of('list(cursor)')}",
        f"MissError FIND_ONE {program.line_of('find_one({')}",
        f"MissError COMMAND {program.line_of('ping')}",
    ]


@pytest.mark.live
@pytest.mark.parametrize("asked", ["find_one(1)", "find({}).next()", "distinct('a')"])
def test_a_result_that_was_not_kept_is_a_miss(program: Program, asked: str) -> None:
    program.write(
        f"""
        with use_cassette("tape.json"):
            things.insert_one({{"_id": 1, "a": 1}})
            try:
                things.{asked}
            except MissError as miss:
                pass
        for miss in timetracer.misses():
            print(miss.error, file=sys.stderr)
        """
    )
    program.record()
    tape = program.directory / "tape.json"
    *others, last, end = tape.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = re.sub(r'"captured":true,"data":.*', '"captured":false}}}', last)
    assert kept != last
    tape.write_text("".join([*others, kept, end]), encoding="utf-8")
    assert _misses_of(program) == ["NotCapturedError"]


def _misses_of(program: Program) -> list[str]:
    env = {**program.given, "TIMETRACER_MODE": "replay", "MONGODB_URI": "mongodb://fake:27017"}
    ran = run_offline(program.directory / "app.py", "more", cwd=program.directory, env=env)
    return str(ran.stderr).splitlines()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.usefixtures("no_misses")
def test_a_forked_childs_misses_are_its_own(tape: Path) -> None:
    record(tape, {"filter": {"size": 1}})
    miss_of(tape, {"filter": {"size": 2}})
    child = os.fork()
    if not child:
        os._exit(len(timetracer.misses()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(timetracer.misses()) == 1


# ------------------------------------------------------------------------------- unused, orphans


@pytest.mark.usefixtures("no_misses")
def test_an_event_is_unused_if_no_opening_of_its_cassette_used_it(
    tape: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    record(tape, *({"filter": {"_id": number}} for number in range(1, 5)))
    record(other, {"filter": ANY})
    assert timetracer.report().cassettes == ()
    with use_cassette(tape, mode="replay"):
        Driver()(filter={"_id": 1})
    with use_cassette(tape, mode="replay"):
        Driver()(filter={"_id": 3})
    with use_cassette(other, mode="replay"):
        open_now = timetracer.report()
        Driver()(filter=ANY)
    uses = [(use.path, use.events) for use in open_now.cassettes]
    assert uses == [(str(tape), 4), (str(other), 1)]
    assert [(one.cassette, one.eid) for one in open_now.unused] == [
        (str(tape), 2),
        (str(tape), 4),
        (str(other), 1),
    ]
    assert [(one.eid, one.method, one.url) for one in timetracer.report().unused] == [
        (2, "FIND_ONE", "shop.orders"),
        (4, "FIND_ONE", "shop.orders"),
    ]


TOUCH = """
    import sys
    from timetracer import use_cassette
    from tests.support.calls import Driver
    for name in sys.argv[2:]:
        with use_cassette(f"cassettes/{name}", mode=sys.argv[1]):
            Driver()(filter={"_id": 1})
"""


def test_orphans_are_the_cassettes_that_no_process_of_the_run_opened(tmp_path: Path) -> None:
    folder = tmp_path / "cassettes"
    (folder / "deep").mkdir(parents=True)
    (tmp_path / "touch.py").write_text(textwrap.dedent(TOUCH), encoding="utf-8")
    names = ("read.json", "written.json", "packed.json.gz", "one.json", "deep/two.json.gz")
    outside = {"TIMETRACER_RUN_ID": None}
    run_program(tmp_path / "touch.py", "record", *names, cwd=tmp_path, env=outside)
    (folder / "package.json").write_text("{}", encoding="utf-8")
    (folder / "notes.txt").write_text("", encoding="utf-8")
    (folder / "read.unaccepted-0123abcd.json").write_bytes((folder / "read.json").read_bytes())
    told = run_program(
        """
        import os, subprocess, sys, timetracer
        for name, mode in (("read.json", "replay"), ("written.json", "record")):
            program = [sys.executable, "touch.py", mode, name]
            subprocess.run(program, check=True, env={**os.environ, "TIMETRACER_RUN_ID": "0" * 32})
        os.environ["TIMETRACER_RUN_ID"] = "0" * 32
        from tests.support.calls import Driver
        os.chdir("cassettes")
        with timetracer.use_cassette("packed.json.gz", mode="replay"):
            pass
        os.chdir("..")
        print(*timetracer.orphans("cassettes"), sep="\\n")
        print(*timetracer.orphans("nowhere"), sep="\\n")
        """,
        cwd=tmp_path,
        env=outside,
    )
    assert told.stdout.split() == ["cassettes/deep/two.json.gz", "cassettes/one.json"]
