"""What other projects' own suites have shown, each in the smallest suite that shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.server import Server
from tests.test_suite import Project, make


@pytest.fixture
def project(tmp_path: Path, mongodb_server: Server, database: str) -> Project:
    """An empty project."""
    return make(tmp_path, mongodb_server, database)


def assert_replays(project: Project, *arguments: str, count: int) -> None:
    recorded = project.record(*arguments)
    assert (recorded.code, recorded.tests, recorded.outcomes) == (0, count, {}), recorded.text
    replayed = project.replay(*arguments)
    assert (replayed.code, replayed.tests, replayed.outcomes) == (0, count, {}), replayed.text


def test_a_call_that_a_test_begins_and_does_not_wait_for_is_in_its_cassette(
    project: Project,
) -> None:
    project.write(
        "test_left.py",
        """
        import threading, time
        from pymongo import MongoClient, monitoring

        class Slow(monitoring.CommandListener):
            def started(self, event):
                begun.set()
                time.sleep(0.3)

            def succeeded(self, event):
                pass

            def failed(self, event):
                pass

        begun = threading.Event()
        things = MongoClient("{uri}", event_listeners=[Slow()])["{database}"].things

        def test_left_to_a_thread():
            def insert():
                things.insert_one({"_id": 1})
                begun.set()

            threading.Thread(target=insert).start()
            assert begun.wait(10)
        """,
    )
    assert_replays(project, count=1)
    assert '"method":"INSERT_ONE"' in (project.path / project.cassettes()[0]).read_text()


@pytest.mark.parametrize("alike_in", ["record", "replay"])
def test_digests_that_tests_have_in_common_in_one_run_only(
    project: Project, alike_in: str
) -> None:
    # An ETag of a document and of the second at which it is stored: two tests that store the same
    # have the same one if both run within a second.
    project.write(
        "test_etags.py",
        """
        import hashlib, os
        import pytest
        from pymongo import MongoClient

        things = MongoClient("{uri}")["{database}"].things

        @pytest.mark.parametrize("second", ["1", "2"])
        def test_stored(second):
            if os.environ["MODE"] == os.environ["ALIKE"]:
                second = "0"
            etag = hashlib.sha1((os.environ["MODE"] + second).encode()).hexdigest()
            things.delete_many({})
            things.insert_one({"_id": 1, "etag": etag})
            assert things.find_one({"etag": etag})["etag"] == etag
            assert things.update_one({"etag": etag}, {"$set": {"n": 1}}).modified_count == 1
        """,
    )
    recorded = project.record(MODE="record", ALIKE=alike_in)
    assert (recorded.code, recorded.tests, recorded.outcomes) == (0, 2, {}), recorded.text
    for order in ("", "reversed"):
        replayed = project.replay(MODE="replay", ALIKE=alike_in, ORDER=order)
        assert (replayed.code, replayed.tests, replayed.outcomes) == (0, 2, {}), replayed.text


def test_a_digest_of_the_whole_run_that_several_tests_store(project: Project) -> None:
    # Whichever test stores it: an answer may show it where it is stored, none may be ordered by it.
    project.write(
        "test_digests.py",
        """
        import hashlib, os
        import pytest
        from pymongo import MongoClient

        database = MongoClient("{uri}")["{database}"]
        etags = [
            "5" + hashlib.sha1(b"literal").hexdigest()[1:],
            os.environ["FIRST"] + hashlib.sha1(os.environ["MODE"].encode()).hexdigest()[1:],
        ]

        def store(name):
            stored = [{"_id": number, "etag": etag} for number, etag in enumerate(etags)]
            database[name].insert_many(stored)

        @pytest.mark.parametrize("name", ["ones", "twos"])
        def test_shown(name):
            store(name)
            assert database[name].find_one({"_id": 1})["etag"] == etags[1]

        @pytest.mark.parametrize("name", ["threes", "fours"])
        def test_ordered(name):
            store(name)
            first = database[name].find_one({}, sort=[("etag", 1)])
            assert first["etag"] == min(etags)
        """,
    )
    recorded = project.record(MODE="record", FIRST="1")
    assert (recorded.code, recorded.tests, recorded.outcomes) == (0, 4, {}), recorded.text
    for order in ("", "reversed"):
        replayed = project.replay(MODE="replay", FIRST="9", ORDER=order)
        assert replayed.tests == 4, replayed.text
        assert sorted(replayed.outcomes) == [
            f"test_digests.py::test_ordered[{name}]" for name in ("fours", "threes")
        ], replayed.text
        assert "AssertionError" not in replayed.text and "rests on values" in replayed.text


def test_a_date_that_a_test_stores_is_todays(project: Project) -> None:
    # BSON has no date without a time: mappers store its midnight. Asked for as a condition, it may
    # be a literal as well, and with it another day's documents.
    project.write(
        "test_dates.py",
        """
        from datetime import datetime, timedelta, timezone
        import pytest
        from pymongo import MongoClient

        database = MongoClient("{uri}")["{database}"]
        utc = datetime.now(timezone.utc)

        @pytest.mark.parametrize("today", [datetime(utc.year, utc.month, utc.day)], ids=[""])
        def test_asked(today):
            assert database.asked.count_documents({"due": today}) == 0

        @pytest.mark.parametrize("days", [-1, 0, 1])
        @pytest.mark.parametrize("today", [datetime(utc.year, utc.month, utc.day)], ids=[""])
        def test_stored(today, days):
            due = today + timedelta(days=days)
            database.due.delete_many({})
            database.due.insert_one({"_id": 1, "due": due})
            assert database.due.find_one({"_id": 1})["due"] == due
            assert database.due.find_one({"due": due})["_id"] == 1
            assert database.due.find_one({"due": {"$lt": due}}) is None

        @pytest.mark.parametrize("today", [datetime(utc.year, utc.month, utc.day)], ids=[""])
        def test_far(today):
            database.far.insert_one({"_id": 1, "due": today + timedelta(days=9)})
        """,
    )
    recorded = project.record()
    assert (recorded.code, recorded.tests, recorded.outcomes) == (0, 5, {}), recorded.text
    for days in ("1", "2", "40"):
        replayed = project.replay(DAYS=days)
        assert replayed.tests == 5, replayed.text
        assert {node.partition("[")[0] for node in replayed.outcomes} == {
            "test_dates.py::test_asked", "test_dates.py::test_far"
        }, replayed.text
        assert "the clock, to replay at the recorded time: freeze_time=True" in replayed.text


def test_what_motor_is_left_with_belongs_to_the_test_that_asked_for_it(project: Project) -> None:
    # Motor is imported after the plugin is at work. Its one thread is busy until the next test has
    # begun, and only then gets to a call that nobody waits for.
    pytest.importorskip("motor")
    project.write(
        "test_queued.py",
        """
        import asyncio, os, time
        os.environ["MOTOR_MAX_WORKERS"] = "1"
        from motor.frameworks.asyncio import _EXECUTOR
        from motor.motor_asyncio import AsyncIOMotorClient

        def test_queued():
            async def ask():
                client = AsyncIOMotorClient("{uri}", io_loop=asyncio.get_running_loop())
                _EXECUTOR.submit(time.sleep, 0.4)
                client["{database}"].things.insert_one({"_id": 1})

            loop = asyncio.new_event_loop()
            loop.run_until_complete(ask())
            loop.close()

        def test_next():
            _EXECUTOR.submit(int).result(10)
        """,
    )
    assert_replays(project, count=2)
    (queued,) = [name for name in project.cassettes() if name.endswith("test_queued.json")]
    assert '"method":"INSERT_ONE"' in (project.path / queued).read_text()


def test_a_failure_is_told_though_garbage_tells_its_own_meanwhile(project: Project) -> None:
    # A future whose exception nobody asked for logs a traceback when it is collected.
    project.write(
        "test_garbage.py",
        """
        import ast, gc

        class Left:
            def __init__(self):
                self.itself = self

            def __del__(self):
                ast.parse("a + (b + (c + d))")
                Left()

        def test_fails():
            gc.set_threshold(20)
            Left()
            raise AssertionError("on purpose")
        """
        + "\n" + "\n".join(f"        def unused_{number}(): return ({number}, 1, 2)"
                           for number in range(300)),
    )
    ended = project.record()
    assert ended.outcomes == {
        "test_garbage.py::test_fails": "setup passed, call failed, teardown passed"
    }, ended.text
    assert "on purpose" in ended.text
    assert "INTERNALERROR" not in ended.text


def test_a_module_that_another_test_imports_first(project: Project) -> None:
    project.write(
        "shop.py",
        """
        from pymongo import MongoClient

        items = MongoClient("{uri}")["{database}"].items
        items.insert_many([{"_id": number} for number in range(3)])
        size = items.count_documents({})
        """,
    )
    project.write(
        "test_early.py",
        """
        import shop

        def test_early():
            assert shop.size == 3
        """,
    )
    project.write(
        "test_late.py",
        """
        import pytest

        @pytest.fixture(scope="session")
        def shop():
            import shop
            return shop

        def test_late(shop):
            assert shop.items.find_one({"_id": 1}) == {"_id": 1}
            assert shop.size == 3
        """,
    )
    assert_replays(project, count=2)
    alone = project.replay("test_late.py")
    assert (alone.code, alone.tests) == (0, 1), alone.text
