"""The pytest fixtures, each run of pytest in a process of its own; replay with sockets refused."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.offline import OFFLINE, ROOT, Rules, run_offline, run_program

PLUGIN = "timetracer.integrations.pytest"
STRICT = ("-W", "error", "-p", "no:unraisableexception", "-p", "no:cacheprovider")
"""Warnings are errors, but for clients that a short test leaves open."""

PYTEST = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"

Run = Callable[..., str]


def plugin_arguments() -> list[str]:
    installed = importlib.metadata.entry_points(group="pytest11")
    there = any(entry.value == PLUGIN for entry in installed)
    return [] if there else ["-p", PLUGIN]


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Runs pytest on the files that the test made; gives what it printed."""

    def run(
        *arguments: str,
        offline: bool = False,
        rules: Rules = OFFLINE,
        fails: bool = False,
        **env: str | None,
    ) -> str:
        given = [*plugin_arguments(), *STRICT, *arguments]
        process: Callable[..., subprocess.CompletedProcess[str]]
        process = functools.partial(run_offline, rules=rules) if offline else run_program
        result = process(PYTEST, *given, cwd=pytester.path, env=env, check=False)
        assert result.returncode == int(fails), result.stdout + result.stderr
        return result.stdout

    return run


def write(pytester: pytest.Pytester, name: str, text: str, **values: str) -> Path:
    """Save a file; {name} in it stands for the value of that name."""
    text = textwrap.dedent(text)
    for key, value in values.items():
        text = text.replace("{" + key + "}", value)
    file = pytester.path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def methods(cassette: Path) -> list[str]:
    document = json.loads(cassette.read_text(encoding="utf-8"))
    return [event["signature"]["method"] for event in document["events"]]


# ------------------------------------------------------------------------------- as specified

SPECIFIED = """
    # test_users.py
    import pytest
    from pymongo import MongoClient
    from timetracer.plugins import enable_pymongo

    def test_get_user_from_cassette(timetracer_replay):
        \"\"\"Test user retrieval with replayed MongoDB.\"\"\"
        enable_pymongo()
        
        # Replay from cassette
        with timetracer_replay("GET__users_123.json"):
            client = MongoClient('mongodb://fake:27017')  # Won't actually connect
            db = client.myapp
            
            # This returns data from cassette!
            user = db.users.find_one({"_id": "123"})
            
            assert user['name'] == "Alice"
            assert user['email'] == "alice@example.com"


    def test_create_user_recorded(timetracer_record):
        \"\"\"Test user creation with recording.\"\"\"
        enable_pymongo()
        
        with timetracer_record() as cassette_path:
            client = MongoClient('mongodb://localhost:27017')
            db = client.testdb
            
            # This is recorded
            result = db.users.insert_one({
                "name": "Bob",
                "email": "bob@example.com"
            })
            
            assert result.inserted_id is not None
        
        # Cassette saved at cassette_path
        print(f"Cassette saved: {cassette_path}")
"""  # noqa: W293

SPECIFIED_CASSETTE = """
    {
      "schema_version": "1.0",
      "session": {
        "id": "abc123",
        "recorded_at": "2026-01-22T14:00:00Z",
        "service": "myapp",
        "env": "production"
      },
      "request": {
        "method": "GET",
        "path": "/users/123"
      },
      "events": [
        {
          "eid": 1,
          "event_type": "db.query",
          "start_offset_ms": 10.5,
          "duration_ms": 2.3,
          "signature": {
            "lib": "pymongo",
            "method": "FIND_ONE",
            "url": "myapp.users",
            "query": {
              "filter_keys": ["_id"]
            },
            "body_hash": "a1b2c3..."
          },
          "result": {
            "status": 0,
            "body": {
              "captured": true,
              "data": {
                "_id": "123",
                "name": "Alice",
                "email": "alice@example.com",
                "age": 30
              }
            }
          }
        }
      ]
    }
"""


def test_the_specified_tests_run_live_then_what_they_recorded_replays(
    pytester: pytest.Pytester, run: Run, mongodb: str, database: str
) -> None:
    live = SPECIFIED.replace("mongodb://localhost:27017", mongodb)
    write(pytester, "test_users.py", live.replace("client.testdb", f"client.{database}"))
    write(pytester, "cassettes/GET__users_123.json", SPECIFIED_CASSETTE)
    told = run("-s", "test_users.py")
    saved = pytester.path / "cassettes" / "test_users" / "test_create_user_recorded.json"
    assert f"Cassette saved: {saved}" in told
    assert "bob@example.com" in saved.read_text(encoding="utf-8")

    replayed = write(
        pytester,
        "test_replayed.py",
        """
        from pymongo import MongoClient

        def test_bob(timetracer_replay):
            with timetracer_replay("test_users/test_create_user_recorded", allow_unused=False):
                users = MongoClient("mongodb://fake:27017").{database}.users
                users.insert_one({"name": "Bob", "email": "bob@example.com"})
        """,
        database=database,
    )
    told = run("test_users.py::test_get_user_from_cassette", replayed.name, offline=True)
    assert "2 passed" in told


# ------------------------------------------------------------------------------- names and forms

FORMS = """
    import asyncio, os
    from pathlib import Path
    import pytest
    from pymongo import MongoClient

    client = MongoClient("{uri}", connect=False)
    things = client["{database}"].things

    @pytest.mark.parametrize("number", [1, 2])
    def test_parameter(timetracer_auto, number):
        with timetracer_auto() as tape:
            things.replace_one({"_id": number}, {"n": number}, upsert=True)
        assert [event.method for event in tape.events] == ["REPLACE_ONE"]

    class TestClass:
        def test_method(self, timetracer_auto):
            with timetracer_auto as tape:
                assert things.count_documents({"_id": -1}) == 0
            assert tape.name == "TestClass.test_method.json"

    def test_two_blocks(timetracer_auto):
        with timetracer_auto():
            assert things.count_documents({"_id": -1}) == 0
        with timetracer_auto():
            assert things.find_one({"_id": -1}) is None

    def test_decorator(timetracer_auto):
        @timetracer_auto("decorated")
        def count():
            return things.count_documents({"_id": -1})

        @timetracer_auto("awaited.json.gz")
        async def count_soon():
            return count.__wrapped__()

        assert count() == asyncio.run(count_soon()) == 0

    def test_async(timetracer_auto):
        async def body():
            async with timetracer_auto("sub/async"):
                assert await asyncio.to_thread(things.count_documents, {"_id": -1}) == 0
            async with timetracer_auto as tape:
                assert things.count_documents({"_id": -1}) == 0
            assert tape.all_played

        asyncio.run(body())

    def test_absolute_path(timetracer_auto):
        with timetracer_auto(Path(__file__).parent / "elsewhere" / "x.json"):
            assert things.count_documents({"_id": -1}) == 0

    def test_no_calls(timetracer_auto):
        with timetracer_auto() as tape:
            pass
        assert tape.events == [] and not tape.exists()
"""

RECORDED = [
    "cassettes/awaited.json.gz",
    "cassettes/decorated.json",
    "cassettes/sub/async.json",
    "cassettes/test_forms/TestClass.test_method.json",
    "cassettes/test_forms/test_async.json",
    "cassettes/test_forms/test_parameter-1--00a07c19.json",
    "cassettes/test_forms/test_parameter-2--df152314.json",
    "cassettes/test_forms/test_two_blocks.2.json",
    "cassettes/test_forms/test_two_blocks.json",
    "elsewhere/x.json",
]


def test_auto_records_in_every_form_then_replays_offline(
    pytester: pytest.Pytester, run: Run, mongodb: str, database: str
) -> None:
    write(pytester, "tests/test_forms.py", FORMS, uri=mongodb, database=database)
    assert "8 passed" in run("tests")
    here = pytester.path / "tests"
    cassettes = [one.relative_to(here).as_posix() for one in sorted(here.rglob("*.json*"))]
    assert cassettes == RECORDED
    write(pytester, "tests/test_forms.py", FORMS, uri="mongodb://fake", database=database)
    assert "8 passed" in run("tests", offline=True, rules=Rules(threads="driver"))
    alone = "tests/test_forms.py::test_parameter[2]"
    assert "1 passed" in run(alone, offline=True)


def test_what_is_yielded_is_a_path_with_events(
    pytester: pytest.Pytester, run: Run, mongodb: str, database: str
) -> None:
    write(
        pytester,
        "test_path.py",
        """
        import os
        from pathlib import Path
        from pymongo import MongoClient

        def test_record(timetracer_record, timetracer_replay):
            things = MongoClient("{uri}")["{database}"].things
            with timetracer_record("a.json") as path:
                assert path.events == [] and not path.exists()
                things.insert_one({"_id": 1, "password": "made up"})
                assert [event.method for event in path.events] == ["INSERT_ONE"]
                things.find_one({"_id": 1})
            assert [event.method for event in path.events] == ["INSERT_ONE", "FIND_ONE"]
            assert path.events[1].body() == {"_id": 1, "password": "made up"}
            expected = Path(__file__).parent / "cassettes" / "a.json"
            assert isinstance(path, os.PathLike) and os.fspath(path) == str(path) == str(expected)
            assert path == expected and hash(path) == hash(expected) and path.exists()
            assert (path / "x") == expected / "x" and path.parent / "a.json" == path.path
            assert "made up" in open(path).read() == path.read_text()

            with timetracer_replay("a.json") as tape:
                assert len(tape.events) == len(tape.unused) == 2 and not tape.all_played
                things.find_one({"_id": 1})
                assert [event.method for event in tape.unused] == ["INSERT_ONE"]
            assert tape.path == path.path and "a.json" in repr(tape)
        """,
        uri=mongodb,
        database=database,
    )
    assert "1 passed" in run()


def test_values_are_redacted_where_that_is_asked_for(
    pytester: pytest.Pytester, run: Run, mongodb: str, database: str
) -> None:
    text = """
        from pymongo import MongoClient

        def test_login(timetracer_record):
            with timetracer_record("login.json"):
                users = MongoClient("{uri}")["{database}"].users
                users.insert_one({"password": "hunter2"})
    """
    write(pytester, "test_login.py", text, uri=mongodb, database=database)
    cassette = pytester.path / "cassettes" / "login.json"
    run()
    assert "hunter2" in cassette.read_text(encoding="utf-8")
    run(TIMETRACER_REDACT="on")
    assert "hunter2" not in cassette.read_text(encoding="utf-8")


# ------------------------------------------------------------------------------- directories


def test_a_name_counts_from_the_fixture_then_from_the_setting(
    pytester: pytest.Pytester, run: Run
) -> None:
    write(
        pytester,
        "tests/conftest.py",
        """
        import pytest

        @pytest.fixture(scope="session")
        def timetracer_cassette_dir():
            return "tapes"
        """,
    )
    write(
        pytester,
        "tests/test_find.py",
        """
        import pytest
        from pymongo import MongoClient

        @pytest.mark.parametrize("name", ["first.json", "second", "both.json"])
        def test_find(timetracer_replay, name):
            with timetracer_replay(name) as tape:
                user = MongoClient("mongodb://fake").myapp.users.find_one({"_id": "123"})
            assert user["name"] == "Alice"
            assert tape.parent.name == ("common" if name == "second" else "tapes")

        def test_missing(timetracer_replay):
            with timetracer_replay("missing.json"):
                pass
        """,
    )
    for name in ("tests/tapes/first.json", "tests/tapes/both.json", "common/second.json"):
        write(pytester, name, SPECIFIED_CASSETTE)
    write(pytester, "common/both.json", "{}")
    told = run("tests", offline=True, fails=True, TIMETRACER_CASSETTE_DIR="common")
    assert "3 passed" in told and "1 failed" in told
    assert "CassetteNotFoundError: There is no cassette missing.json. Looked at:" in told
    assert f"{pytester.path}/tests/tapes/missing.json" in told
    assert f"{pytester.path}/common/missing.json" in told
    assert "TIMETRACER_MODE=record pytest tests/test_find.py::test_missing" in told


# ------------------------------------------------------------------------------- modes

MODES = """
    from pymongo import MongoClient

    def test_value(timetracer_auto):
        with timetracer_auto("value.json") as tape:
            things = MongoClient("{uri}")["{database}"].things
            things.insert_one({"at": "{at}"})
            print("mode", tape.session.mode.name, len(tape.events))
"""


def test_the_environment_turns_auto_off_to_record_or_to_replay(
    pytester: pytest.Pytester, run: Run, mongodb: str, database: str
) -> None:
    values = {"uri": mongodb, "database": database}
    write(pytester, "test_value.py", MODES, at="A", **values)
    cassette = pytester.path / "cassettes" / "value.json"
    assert "mode off 0" in run("-s", TIMETRACER_MODE="off")
    assert not cassette.exists()
    told = run("-s", TIMETRACER_MODE="replay", fails=True)
    assert "There is no cassette value.json" in told
    assert "mode once 1" in run("-s")
    first = cassette.read_bytes()
    assert "mode once 1" in run("-s", offline=True)

    write(pytester, "test_value.py", MODES, at="B", **values)
    told = run("-s", offline=True, fails=True)
    assert "insert_one on" in told and 'recorded "A", asked "B"' in told
    remedy = "TIMETRACER_MODE=record pytest test_value.py::test_value"
    assert f"To record it: with MongoDB running: {remedy}" in told
    assert cassette.read_bytes() == first
    assert "mode record 1" in run("-s", "test_value.py::test_value", TIMETRACER_MODE="record")
    assert "mode once 1" in run("-s", offline=True)


# ------------------------------------------------------------------------------- failures

FAILING = """
    import pytest
    from pymongo import MongoClient

    @pytest.fixture
    def things():
        return MongoClient("{uri}", serverSelectionTimeoutMS=100)["{database}"].things

    def test_fails(timetracer_record, things):
        with timetracer_record("kept.json"):
            things.insert_one({})
            {then}

    def test_unreachable(timetracer_auto):
        with timetracer_auto("unreachable.json"):
            MongoClient("mongodb://127.0.0.1:9", serverSelectionTimeoutMS=50).a.b.insert_one({})

    def test_a_later_test_has_a_clean_start(timetracer_record, things):
        from timetracer.plugins import clients
        assert not clients.enabled
        with timetracer_record("later.json"):
            things.insert_one({})
        assert not clients.enabled
"""


def test_a_body_that_raises_replaces_no_good_cassette(
    pytester: pytest.Pytester, run: Run, mongodb: str, database: str
) -> None:
    values = {"uri": mongodb, "database": database}
    write(pytester, "test_failing.py", FAILING, then="things.find_one({})", **values)
    told = run(fails=True)
    assert "2 passed" in told and "unreachable.json is not written" in told
    cassettes = pytester.path / "cassettes"
    assert sorted(one.name for one in cassettes.iterdir()) == ["kept.json", "later.json"]
    assert methods(cassettes / "kept.json") == ["INSERT_ONE", "FIND_ONE"]

    write(pytester, "test_failing.py", FAILING, then="assert False", **values)
    told = run("-k", "test_fails", fails=True)
    assert methods(cassettes / "kept.json") == ["INSERT_ONE", "FIND_ONE"]
    (beside,) = cassettes.glob("kept.unaccepted-*.json")
    assert f"To accept it: python -m timetracer accept cassettes/{beside.name}" in told
    assert methods(beside) == ["INSERT_ONE"]


def test_blocks_that_overlap_are_an_error_and_leave_no_trace(
    pytester: pytest.Pytester, run: Run
) -> None:
    write(
        pytester,
        "test_overlap.py",
        """
        import pytest
        from timetracer import SessionError
        from timetracer.plugins import clients, disable_pymongo, enable_pymongo

        def test_overlap(timetracer_record):
            with timetracer_record("outer"):
                with pytest.raises(SessionError), timetracer_record("inner"):
                    pass
                assert clients.enabled
            assert not clients.enabled

        def test_what_the_test_enabled_stays(timetracer_record):
            enable_pymongo()
            with timetracer_record("x"):
                pass
            assert clients.enabled
            disable_pymongo()
        """,
    )
    assert "2 passed" in run(offline=True)


# ------------------------------------------------------------------------------- unused events

UNUSED = """
    from pymongo import MongoClient

    def test_lax(timetracer_replay):
        with timetracer_replay("GET__users_123.json"):
            pass

    def test_strict(timetracer_replay):
        with timetracer_replay("GET__users_123.json", allow_unused=False):
            pass

    def test_strict_and_all_played(timetracer_replay):
        with timetracer_replay("GET__users_123.json", allow_unused=False):
            assert MongoClient("mongodb://fake").myapp.users.find_one({"_id": "123"})

    def test_the_own_error_counts_more(timetracer_replay):
        with timetracer_replay("GET__users_123.json", allow_unused=False):
            raise ValueError("my own")
"""


def test_unused_events_are_reported_on_request(pytester: pytest.Pytester, run: Run) -> None:
    write(pytester, "test_unused.py", UNUSED)
    write(pytester, "cassettes/GET__users_123.json", SPECIFIED_CASSETTE)
    told = run(offline=True, fails=True)
    assert "2 failed, 2 passed" in told and "ValueError: my own" in told
    failures = told.partition("short test summary info")[0]  # which CI=true has repeat them whole
    assert failures.count("1 of 1 events of cassettes/GET__users_123.json answered no call:") == 1
    assert "event 1: find_one on myapp.users" in told
    assert "timetracer: unused events" not in told

    told = run("--timetracer-unused", "-k", "lax or played", offline=True)
    section = told.partition("timetracer: unused events")[2]
    assert section.count("test_unused.py::test_lax: 1 of 1 events of") == 1
    assert "event 1: find_one on myapp.users" in section and "test_strict" not in section
    told = run("--timetracer-unused", "-k", "played", offline=True)
    assert "none" in told.partition("timetracer: unused events")[2]


# ------------------------------------------------------------------------------- start-up


def test_pytest_starts_without_driver_and_core_also_where_there_is_no_driver(
    pytester: pytest.Pytester, run: Run
) -> None:
    write(
        pytester,
        "test_start.py",
        """
        import sys

        OURS = {"timetracer", "timetracer.integrations"}
        OURS |= {f"timetracer.integrations.{name}" for name in ("pytest", "pytest_names")}
        HEAVY = {"pymongo", "bson", "wrapt", "orjson"}

        def test_start(timetracer_record, timetracer_replay, timetracer_auto):
            loaded = {name for name in sys.modules if name.partition(".")[0] == "timetracer"}
            assert loaded == OURS and not HEAVY & set(sys.modules)
        """,
    )
    assert "1 passed" in run(offline=True)

    for name in ("pymongo", "bson"):
        write(pytester, f"absent/{name}.py", f"raise ModuleNotFoundError({name!r})")
    absent = os.pathsep.join([str(pytester.path / "absent"), str(ROOT)])
    assert "1 passed" in run(PYTHONPATH=absent)


def test_pytest_lists_the_fixtures_with_what_they_do(run: Run) -> None:
    told = run("--fixtures", "-q")
    assert "timetracer_record -- " in told
    assert "Record a block" in told and "timetracer_cassette_dir -- " in told
    assert "--timetracer-unused" in run("--help")
