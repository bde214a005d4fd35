"""A whole suite under one flag: recorded with a server, replayed in other processes without."""

from __future__ import annotations

import functools
import json
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.offline import Rules, run_offline, run_program
from tests.support.server import Server
from tests.test_pytest_plugin import plugin_arguments

PYTEST = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"

WATCH = """
    # Writes down how each phase of each test ended, and turns the order round where asked.
    import json, os
    outcomes = {}

    def pytest_runtest_logreport(report):
        kind = "xfailed" if hasattr(report, "wasxfail") and report.skipped else report.outcome
        outcomes.setdefault(report.nodeid, []).append(f"{report.when} {kind}")

    def pytest_collectreport(report):
        if report.failed:
            outcomes.setdefault(report.nodeid, []).append("collect failed")

    def pytest_collection_modifyitems(items):
        if os.environ.get("ORDER") == "reversed":
            items.reverse()

    def pytest_sessionstart(session):
        if os.environ.get("DAYS"):
            import datetime, time_machine
            later = datetime.datetime.now() + datetime.timedelta(days=int(os.environ["DAYS"]))
            time_machine.travel(later, tick=True).start()

    def pytest_sessionfinish(session):
        if not hasattr(session.config, "workerinput"):
            with open(os.environ["OUTCOMES"], "w") as file:
                json.dump(outcomes, file)
"""


OTHERS = {
    "--lf": "cacheprovider",
    "hypothesis": "hypothesispytest",
    "faker": "faker",
    "randomly": "randomly",
    "asyncio": "asyncio",
    "django": "django",
    "reruns": "rerunfailures",
    "count": "repeat",
    "anyio": "anyio",
    "time_machine": "time_machine",
}
"""Plugins that a run has only where an argument names them, since each takes time to import."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How one run of pytest ended.

    Attributes:
        code: the exit code.
        text: what it printed.
        outcomes: what did not go as "setup passed, call passed, teardown passed", by test.
        tests: how many tests there were.
    """

    code: int
    text: str
    outcomes: dict[str, str]
    tests: int


@dataclass(frozen=True, slots=True)
class Project:
    """A directory with tests.

    Attributes:
        path: the directory.
        server: the server that they use.
        database: the database that they use.
    """

    path: Path
    server: Server
    database: str

    def write(self, name: str, text: str) -> None:
        text = textwrap.dedent(text).replace("{uri}", self.server.uri)
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("{database}", self.database), encoding="utf-8")

    def run(self, *arguments: str, offline: bool = False, **env: str | None) -> Ended:
        """Run pytest; offline, any connection to the database's ports fails this test."""
        rules = Rules(ports=self.server.ports, threads="driver")
        process: Callable[..., object] = run_program
        if offline:
            process = functools.partial(run_offline, rules=rules)
        given = [*plugin_arguments(), "-p", "watch", "-p", "no:unraisableexception"]
        for word, plugin in OTHERS.items():
            if not any(word in argument for argument in arguments):
                given += ["-p", f"no:{plugin}"]
        outcomes = self.path / "outcomes.json"
        outcomes.unlink(missing_ok=True)
        settings = {
            "OUTCOMES": str(outcomes),
            "PYTHONDONTWRITEBYTECODE": "1",
            "CI": None,
            "PYTEST_ADDOPTS": None,
            "COLUMNS": "200",
            **env,
        }
        result = process(
            PYTEST, *given, "-W", "error", *arguments, cwd=self.path, env=settings, check=False
        )
        told = json.loads(outcomes.read_text(encoding="utf-8")) if outcomes.exists() else {}
        fine = ["setup passed", "call passed", "teardown passed"]
        return Ended(
            result.returncode,
            result.stdout + result.stderr,
            {node: ", ".join(phases) for node, phases in told.items() if phases != fine},
            len(told),
        )

    def record(self, *arguments: str, **env: str | None) -> Ended:
        return self.run("--timetracer=record", *arguments, **env)

    def replay(self, *arguments: str, **env: str | None) -> Ended:
        return self.run("--timetracer=replay", *arguments, offline=True, **env)

    def cassettes(self, under: str = "") -> list[str]:
        found = (self.path / under).rglob("*.json")
        names = [one.relative_to(self.path).as_posix() for one in found if one.is_file()]
        return sorted(name for name in names if name != "outcomes.json")


def make(directory: Path, server: Server, name: str) -> Project:
    project = Project(directory, server, name)
    project.write("watch.py", WATCH)
    project.write("pytest.ini", "[pytest]\naddopts = --strict-markers --import-mode=importlib\n")
    return project


@pytest.fixture
def project(tmp_path: Path, mongodb_server: Server, database: str) -> Project:
    """An empty project."""
    directory = tmp_path / "project"
    directory.mkdir()
    return make(directory, mongodb_server, database)


# ------------------------------------------------------------------------- a suite of all kinds

CONFTEST = """
    import pytest
    from pymongo import MongoClient

    client = MongoClient("{uri}")
    client["{database}"].imports.insert_one({"when": "conftest is imported"})

    def pytest_collection_finish(session):
        client["{database}"].imports.count_documents({})

    @pytest.fixture(scope="session")
    def db():
        yield client["{database}"]
        assert client["{database}"].things.count_documents({"left over": True}) == 0

    @pytest.fixture(scope="package")
    def package(db):
        return db.wide.insert_one({"scope": "package"}).inserted_id

    @pytest.fixture(scope="module")
    def module(db, package):
        import uuid
        key = str(uuid.uuid4())
        db.wide.insert_one({"_id": key, "scope": "module", "of": package})
        yield key
        assert db.wide.delete_one({"_id": key}).deleted_count == 1

    @pytest.fixture(scope="class", params=["a", "b"])
    def letter(db, request):
        db.wide.replace_one({"_id": request.param}, {"_id": request.param, "n": 1}, upsert=True)
        return request.param

    @pytest.fixture
    def things(db):
        db.things.delete_many({})
        yield db.things
        db.things.delete_many({})
"""

KINDS = """
    import asyncio, contextlib, random, threading, unittest, uuid
    import pytest
    from bson import ObjectId
    from pymongo import AsyncMongoClient, MongoClient
    from tornado.testing import AsyncTestCase, gen_test

    seen_at_import = MongoClient("{uri}")["{database}"].imports.count_documents({})

    def test_plain(things, module):
        key = ObjectId()
        things.insert_one({"_id": key, "of": module, "n": random.random()})
        assert things.find_one({"of": module})["_id"] == key

    def test_imports():
        assert seen_at_import >= 1

    @pytest.mark.parametrize("text", ["", "a/b", "../../x", "\\x00\\n", "ü" * 90, "CON", "a" * 300])
    def test_hostile(things, text):
        things.insert_one({"text": text})
        assert things.find_one({})["text"] == text

    def test_no_calls():
        pass

    def test_fails(things):
        things.insert_one({"n": 1})
        assert things.count_documents({}) == 2

    @pytest.mark.xfail(strict=True)
    def test_expected_to_fail(things):
        assert things.count_documents({}) == 1

    @pytest.fixture(scope="class")
    def prepared(db):
        db.wide.update_one({"_id": "prepared"}, {"$inc": {"times": 1}}, upsert=True)
        yield
        db.wide.delete_one({"_id": "prepared"})

    @pytest.mark.usefixtures("prepared")
    class TestLetters:
        def test_letter(self, db, letter):
            assert db.wide.find_one({"_id": letter})["n"] == 1

        def test_prepared(self, db):
            assert db.wide.find_one({"_id": "prepared"})["times"] == 1

    class TestCases(unittest.TestCase):
        @classmethod
        def setUpClass(cls):
            cls.cases = MongoClient("{uri}")["{database}"].cases
            cls.cases.insert_one({"_id": "class"})
            cls.addClassCleanup(cls.cases.delete_one, {"_id": "class"})

        @classmethod
        def tearDownClass(cls):
            assert cls.cases.count_documents({"_id": "class"}) == 1

        def setUp(self):
            self.key = self.cases.insert_one({}).inserted_id
            self.addCleanup(self.cases.delete_one, {"_id": self.key})

        def test_two(self):
            self.assertEqual(self.cases.count_documents({}), 2)

        def test_sub(self):
            for n in range(2):
                with self.subTest(n=n):
                    self.assertIsNone(self.cases.find_one({"n": n}))

    class TestAwaited(unittest.IsolatedAsyncioTestCase):
        async def asyncSetUp(self):
            self.client = AsyncMongoClient("{uri}")
            self.addAsyncCleanup(self.client.close)

        async def test_awaited(self):
            things = self.client["{database}"].awaited
            key = (await things.insert_one({"n": 1})).inserted_id
            assert (await things.find_one({"_id": key}))["n"] == 1

    class TestTornado(AsyncTestCase):
        @gen_test
        async def test_motor(self):
            from motor.motor_tornado import MotorClient
            things = MotorClient("{uri}", io_loop=self.io_loop)["{database}"].motor
            await things.insert_one({"n": 1})
            assert (await things.find_one({}))["n"] == 1

    def test_motor_with_its_own_loop():
        from motor.motor_asyncio import AsyncIOMotorClient
        async def body():
            things = AsyncIOMotorClient("{uri}")["{database}"].motor
            await things.insert_one({"n": 2})
            return await things.count_documents({"n": 2})
        assert asyncio.run(body()) >= 1

    def test_thread(things):
        thread = threading.Thread(target=things.insert_one, args=({"n": 3},))
        thread.start()
        thread.join()
        assert things.count_documents({"n": 3}) == 1

    def test_flask(things):
        from flask import Flask
        from timetracer import TraceConfig
        from timetracer.integrations.flask import auto_setup
        app = Flask(__name__)

        @app.get("/<name>")
        def show(name):
            things.insert_one({"name": name})
            return things.find_one({"name": name})["name"]

        auto_setup(app, TraceConfig(mode="record", cassette_dir="elsewhere"))
        assert app.test_client().get("/alice").text == "alice"

    def count():
        \"\"\"
        >>> MongoClient("{uri}")["{database}"].doctests.count_documents({})
        0
        \"\"\"
"""

ASYNC = """
    import anyio, pytest, pytest_asyncio
    from pymongo import AsyncMongoClient

    @pytest_asyncio.fixture(scope="module", loop_scope="module")
    async def client():
        async with AsyncMongoClient("{uri}") as client:
            await client["{database}"].aio.insert_one({"_id": "module"})
            yield client
            await client["{database}"].aio.delete_one({"_id": "module"})

    @pytest_asyncio.fixture(loop_scope="module")
    async def key(client):
        found = await client["{database}"].aio.insert_one({"n": 1})
        yield found.inserted_id
        await client["{database}"].aio.delete_one({"_id": found.inserted_id})

    @pytest.mark.asyncio(loop_scope="module")
    @pytest.mark.parametrize("n", [1, 2])
    async def test_asyncio(client, key, n):
        assert (await client["{database}"].aio.find_one({"_id": key}))["n"] == 1
        assert await client["{database}"].aio.count_documents({"_id": "module"}) == 1

    @pytest.mark.asyncio
    async def test_own_loop():
        async with AsyncMongoClient("{uri}") as client:
            assert await client["{database}"].own.count_documents({}) == 0

    @pytest.fixture
    def anyio_backend():
        return "asyncio"

    @pytest.fixture
    async def prepared(anyio_backend):
        async with AsyncMongoClient("{uri}") as client:
            yield (await client["{database}"].any.insert_one({"n": 5})).inserted_id

    @pytest.mark.anyio
    async def test_anyio(prepared):
        async with AsyncMongoClient("{uri}") as client, anyio.create_task_group() as group:
            group.start_soon(client["{database}"].any.find_one, {"_id": prepared})
            assert (await client["{database}"].any.find_one({"_id": prepared}))["n"] == 5
"""

EXPECTED = {
    "test_kinds.py::test_fails": "setup passed, call failed, teardown passed",
    "test_kinds.py::test_expected_to_fail": "setup passed, call xfailed, teardown passed",
    "test_kinds.py::TestCases::test_sub": (
        "setup passed, call passed, call passed, call passed, teardown passed"
    ),
}
ALL = ("--doctest-modules", "--ignore=watch.py", "-p", "asyncio", "-p", "anyio")


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory, mongodb_server: Server) -> Iterator[Project]:
    """A project of many kinds of tests, recorded once."""
    project = make(tmp_path_factory.mktemp("kinds"), mongodb_server, "timetracer_kinds")
    ini = (project.path / "pytest.ini").read_text()
    project.write("pytest.ini", ini + "asyncio_default_fixture_loop_scope = function\n")
    project.write("conftest.py", CONFTEST)
    project.write("test_kinds.py", KINDS)
    project.write("test_async.py", ASYNC)
    mongodb_server.drop(project.database)
    ended = project.record(*ALL)
    assert ended.outcomes == EXPECTED, ended.text
    yield project
    mongodb_server.drop(project.database)


def same(ended: Ended, *left_out: str) -> None:
    expected = {node: told for node, told in EXPECTED.items() if node not in left_out}
    assert ended.outcomes == expected, ended.text
    assert " 0 missed" in ended.text, ended.text


def test_all_kinds_of_tests_replay_without_a_server(kinds: Project) -> None:
    ended = kinds.replay(*ALL)
    same(ended)
    assert ended.tests == 27


def test_any_order_replays(kinds: Project) -> None:
    same(kinds.replay(*ALL, ORDER="reversed"))
    ended = kinds.replay(*ALL, "-p", "randomly")
    assert "Using --randomly-seed=" in ended.text
    same(ended)


def test_any_part_replays_a_day_later_with_other_hashes(kinds: Project) -> None:
    alone = [
        "test_kinds.py::test_plain",
        "test_kinds.py::TestLetters::test_letter[b]",
        "test_kinds.py::TestCases::test_two",
        "test_kinds.py::TestTornado::test_motor",
    ]
    for node in alone:
        ended = kinds.replay(*ALL, node, DAYS="1", PYTHONHASHSEED="7")
        same(ended, *EXPECTED)
        assert ended.tests == 1
    same(kinds.replay(*ALL, "-k", "asyncio or anyio"), *EXPECTED)


def test_workers_of_xdist_replay_what_one_process_recorded(kinds: Project) -> None:
    ended = kinds.replay(*ALL, "-n", "4")
    same(ended)
    assert " 0 replayed" not in ended.text, ended.text


def test_the_tests_that_failed_last_replay(kinds: Project) -> None:
    same(kinds.replay(*ALL, "--lfnf=all"))
    ended = kinds.replay(*ALL, "--lf")
    assert ended.outcomes == {"test_kinds.py::test_fails": EXPECTED["test_kinds.py::test_fails"]}
    assert ended.tests == 1 and "assert 1 == 2" in ended.text


def test_each_test_and_each_wider_fixture_has_a_cassette(kinds: Project) -> None:
    names = kinds.cassettes()
    for name in (
        "cassettes/__session__.json",
        "cassettes/test_async/__module__.client.json",
        "cassettes/test_kinds/__module__.module.json",
        "cassettes/test_kinds/test_plain.json",
        "cassettes/test_kinds/test_fails.json",
        "cassettes/test_kinds/TestCases.test_two.json",
    ):
        assert name in names, names
    assert not [name for name in names if "no_calls" in name or "elsewhere" in name]
    header = json.loads((kinds.path / "cassettes/test_kinds/test_plain.json").read_text())
    assert header["session"]["node"] == "test_kinds.py::test_plain"
    assert header["session"]["entropy"]["level"] == "random"


# ------------------------------------------------------------------------- modes


MODES = """
    import os
    import pytest, timetracer
    from pymongo import MongoClient
    from timetracer import TraceConfig

    things = MongoClient("{uri}", serverSelectionTimeoutMS=300)["{database}"].things

    def test_mode(request):
        things.count_documents({})
        plugin = request.config.pluginmanager.get_plugin("timetracer-suite")
        mine = plugin and plugin.scopes.get(request.node)
        print("MODE", mine.session.mode.name if mine else "none")

    @pytest.mark.timetracer(mode="{mode}")
    def test_marked(timetracer):
        things.count_documents({})
        print("MARKED", timetracer.session.mode.name)

    @pytest.mark.timetracer(mode="off")
    def test_off():
        with timetracer.use_cassette("off.json", mode="record"):
            things.count_documents({})
        print("OFF", os.path.exists("off.json"))
"""


def test_the_mode_comes_from_flag_environment_marker_file_and_project(project: Project) -> None:
    def modes(*arguments: str, **env: str) -> tuple[str, ...]:
        ended = project.run("-s", "-k", "not off", *arguments, **env)
        assert ended.code == 0, ended.text
        words = ended.text.replace(".", " ").split()
        return words[words.index("MODE") + 1], words[words.index("MARKED") + 1]

    project.write("test_modes.py", MODES.replace("{mode}", "once"))
    assert modes() == ("none", "once")
    project.write("pyproject.toml", "[tool.timetracer]\nmode = 'new_episodes'\n")
    assert modes() == ("new_episodes", "once")
    ini = (project.path / "pytest.ini").read_text()
    project.write("pytest.ini", ini + "timetracer = once\n")
    project.write("test_modes.py", MODES.replace("{mode}", "record"))
    assert modes() == ("once", "record")
    assert modes(TIMETRACER_MODE="replay") == ("replay", "replay")
    assert modes("--timetracer=once", TIMETRACER_MODE="replay") == ("once", "once")
    ended = project.run("--timetracer=off", "-s", TIMETRACER_MODE="replay")
    assert "MODE off" in ended.text and "MARKED off" in ended.text
    for arguments, env in (
        (("--timetracer=record",), {}),
        ((), {"TIMETRACER_MODE": "record"}),
    ):
        ended = project.run("-s", "-k", "off", *arguments, **env)
        assert "OFF False" in ended.text, ended.text


def test_an_unknown_mode_is_a_clear_error(project: Project) -> None:
    project.write("test_x.py", "def test_x(): pass")
    ended = project.run(TIMETRACER_MODE="replya")
    assert ended.code == 4 and "the mode 'replya' is not known. Allowed: off, record" in ended.text


def test_in_ci_nothing_is_recorded_unless_it_is_asked_for(project: Project) -> None:
    project.write(
        "test_ci.py",
        """
        import pytest
        from pymongo import MongoClient

        def test_a():
            MongoClient("{uri}")["{database}"].things.count_documents({})

        @pytest.mark.timetracer
        def test_b():
            MongoClient("{uri}")["{database}"].things.count_documents({})
        """,
    )
    ended = project.run("--timetracer=once", CI="true", offline=True)
    assert "timetracer: replay (what once is in CI)" in ended.text
    assert set(ended.outcomes) == {"test_ci.py::test_a", "test_ci.py::test_b"}
    ended = project.run("-k", "test_b", CI="true", offline=True)
    assert ended.code == 1 and "tests marked once or new_episodes replay" in ended.text
    assert project.cassettes() == []
    assert project.record(CI="true").code == 0
    assert project.run("--timetracer=new_episodes", CI="true", offline=True).code == 0


DIRECTORIES = """
    import timetracer
    from pymongo import MongoClient
    from timetracer import TraceConfig

    things = MongoClient("{uri}", connect=False)["{database}"].things

    def test_own():
        assert things.count_documents({}) == 0

    def test_blocks(timetracer_auto):
        things.find_one({"outside": 1})
        with timetracer_auto():
            things.find_one({"own": 1})
        with timetracer_auto("named.json"):
            things.find_one({"named": 1})
        with timetracer.use_cassette("used.json", mode="record"):
            things.find_one({"used": 1})
        config = TraceConfig(mode="record", cassette_dir="configured")
        with timetracer.use_cassette("sub/configured.json", config=config):
            things.find_one({"used": 2})
"""

IN_TAPES = [
    "tapes/sub/configured.json",
    "tapes/tests/deep/named.json",
    "tapes/tests/deep/test_d/test_blocks.json",
    "tapes/tests/deep/test_d/test_blocks.outside.json",
    "tapes/tests/deep/test_d/test_own.json",
    "tapes/used.json",
]


def test_the_flags_count_more_than_blocks_and_their_settings(project: Project) -> None:
    project.write("tests/deep/test_d.py", DIRECTORIES)
    given = "--timetracer-cassette-dir=tapes"
    ended = project.record(given)
    assert ended.code == 0, ended.text
    assert project.cassettes() == IN_TAPES
    ended = project.replay(given)
    assert ended.code == 0, ended.text
    assert project.cassettes() == IN_TAPES


def test_a_directory_comes_from_flag_environment_and_file(project: Project) -> None:
    project.write(
        "test_d.py",
        """
        from pymongo import MongoClient

        def test_own():
            assert MongoClient("{uri}")["{database}"].things.count_documents({}) == 0
        """,
    )

    def where(*arguments: str, **env: str) -> list[str]:
        ended = project.record(*arguments, **env)
        assert ended.code == 0, ended.text
        found = project.cassettes()
        for name in found:
            (project.path / name).unlink()
        return found

    assert where() == ["cassettes/test_d/test_own.json"]
    project.write("pyproject.toml", "[tool.timetracer]\ncassette_dir = 'one'\n")
    assert where() == ["one/test_d/test_own.json"]
    ini = (project.path / "pytest.ini").read_text()
    project.write("pytest.ini", ini + "timetracer_cassette_dir = two\n")
    assert where() == ["two/test_d/test_own.json"]
    assert where(TIMETRACER_CASSETTE_DIR="three") == ["three/test_d/test_own.json"]
    four = "--timetracer-cassette-dir=four"
    assert where(four, TIMETRACER_CASSETTE_DIR="three") == ["four/test_d/test_own.json"]


# ------------------------------------------------------------------------- markers


MARKERS = """
    import datetime, random
    import pytest
    from pymongo import MongoClient

    things = MongoClient("{uri}", connect=False)["{database}"].things
    pytestmark = pytest.mark.timetracer(ignore=["filter.noise"])

    @pytest.fixture(scope="module")
    def noise():
        return __import__("os").environ.get("NOISE", "recorded")

    def test_base(timetracer):
        assert things.find_one({"base": 1}) is None

    def test_ignored(noise, timetracer):
        assert things.count_documents({"noise": noise, "n": 1}) == 0
        assert [event.method for event in timetracer.events] == ["COUNT_DOCUMENTS"]

    @pytest.mark.timetracer(ignore=["filter.more"])
    class TestMerged:
        @pytest.mark.timetracer(allow_repeats=True)
        def test_merged(self, noise, timetracer):
            for _ in range(1 if noise == "recorded" else 3):
                things.count_documents({"noise": noise, "more": noise})

    @pytest.mark.timetracer(strict_order=True)
    def test_strict(noise):
        calls = [lambda: things.find_one({"a": 1}), lambda: things.find_one({"b": 1})]
        for call in calls if noise != "swapped" else reversed(calls):
            call()

    @pytest.mark.timetracer(freeze_time=True)
    def test_time():
        things.insert_one({"at": datetime.datetime.now().isoformat()})
        assert things.count_documents({"at": datetime.datetime.now().isoformat()[:4]}) == 0
        print("YEAR", datetime.datetime.now().year)

    @pytest.mark.timetracer(cassettes=["test_m/test_base.json", "test_m/test_strict.json"])
    def test_layered(timetracer):
        assert things.find_one({"base": 1}) is None
        assert things.find_one({"a": 1}) is None
        assert [event.method for event in timetracer.used] == ["FIND_ONE", "FIND_ONE"]
        assert len(timetracer.unused) == 1 and not timetracer.all_played
        assert timetracer.path.name == "test_layered.json"
"""


def test_markers_merge_from_broad_to_narrow(project: Project) -> None:
    project.write("test_m.py", MARKERS)
    ended = project.run("-k", "not layered")
    assert ended.code == 0, ended.text
    ended = project.run("-s", offline=True)
    assert ended.code == 0, ended.text
    assert "cassettes/test_m/test_layered.json" not in project.cassettes()
    ended = project.run("-s", offline=True, NOISE="other")
    assert ended.code == 0, ended.text
    ended = project.run("-s", offline=True, NOISE="swapped")
    assert list(ended.outcomes) == ["test_m.py::test_strict"], ended.text


WRONG = {
    "mdoe='once'": "'mdoe' is none of them.\nDid you mean mode=?",
    "'replay'": "The marker timetracer takes keywords, and 'replay' is none of them.",
    "mode='replya'": "The setting mode (argument, mode=) cannot be 'replya'",
    "ignore='filter.a'": "takes a list for ignore=, as in ignore=['filter.a']",
    "mode='replay', cassettes=['gone.json']": "cassettes/gone.json",
}


def test_a_marker_that_cannot_be_is_a_clear_error(project: Project) -> None:
    tests = [
        f"@pytest.mark.timetracer({marker})\ndef test_{n}():\n    pass\n"
        for n, marker in enumerate(WRONG)
    ]
    project.write("test_w.py", "import pytest\n\n" + "\n".join(tests))
    ended = project.run()
    for n, told in enumerate(WRONG.values()):
        assert ended.outcomes[f"test_w.py::test_{n}"] == "setup failed, teardown passed"
        assert told in ended.text, ended.text


def test_the_fixture_needs_a_mode(project: Project) -> None:
    project.write("test_f.py", "def test_f(timetracer): pass")
    assert "The fixture timetracer needs a mode" in project.run().text


# ------------------------------------------------------------------------- misses

MISSES = """
    import os, threading
    import pytest
    from pymongo import MongoClient

    MORE = bool(os.environ.get("MORE"))
    things = MongoClient("{uri}", connect=False)["{database}"].things

    def more(swallow=True):
        if MORE:
            try:
                things.find_one({"more": 1})
            except Exception:
                if not swallow:
                    raise

    def test_raised():
        things.find_one({})
        more(swallow=False)

    def test_swallowed():
        things.find_one({})
        more()

    @pytest.mark.xfail
    def test_expected():
        things.find_one({})
        more()
        raise ValueError

    def test_skipped():
        things.find_one({})
        if MORE:
            try:
                things.find_one({"more": 1})
            except Exception:
                pytest.skip("there is no server")

    @pytest.fixture
    def prepared():
        more()
        yield

    def test_set_up(prepared):
        things.find_one({})

    @pytest.fixture
    def torn_down():
        yield
        more()

    def test_tear_down(torn_down):
        things.find_one({})

    @pytest.fixture(scope="module")
    def wide():
        things.find_one({"wide": 1})
        more()

    def test_wide(wide):
        things.find_one({})

    def test_thread():
        things.find_one({})
        thread = threading.Thread(target=more)
        thread.start()
        thread.join()

    def test_request():
        from flask import Flask
        app = Flask(__name__)

        @app.get("/")
        def show():
            things.find_one({})
            more(swallow=False)
            return "fine"

        app.test_client().get("/")

    def test_sub(subtests):
        for n in range(2):
            with subtests.test(n=n):
                things.find_one({"n": n})
                more()

    def test_unrecorded_way_out():
        things.find_one({})
        if MORE:
            topology = things.database.client._get_topology()
            with pytest.raises(Exception):
                topology.select_server(lambda known: known, "find").pool

    def test_fine():
        things.find_one({})
"""

AT_IMPORT = """
    import test_misses
    test_misses.more()

    def test_import():
        pass
"""

MISSED = {
    "test_raised": "setup passed, call failed, teardown passed",
    "test_swallowed": "setup passed, call failed, teardown passed",
    "test_expected": "setup passed, call failed, teardown passed",
    "test_skipped": "setup passed, call failed, teardown passed",
    "test_set_up": "setup failed, teardown passed",
    "test_tear_down": "setup passed, call passed, teardown failed",
    "test_wide": "setup failed, teardown passed",
    "test_thread": "setup passed, call failed, teardown passed",
    "test_unrecorded_way_out": "setup passed, call failed, teardown passed",
    "test_request": "setup passed, call failed, teardown passed",
}


def test_a_miss_fails_its_test_also_when_it_was_swallowed(project: Project) -> None:
    project.write("test_misses.py", MISSES)
    ended = project.record()
    assert ended.code == 0, ended.text
    ended = project.replay(MORE="1")
    failed = {node.partition("::")[2]: told for node, told in ended.outcomes.items()}
    assert failed.pop("test_sub").count("failed") >= 2
    assert failed == MISSED, ended.text
    assert "find_one on" in ended.text and "Asked at " in ended.text
    assert "pytest --timetracer=record test_misses.py::test_swallowed" in ended.text
    assert "test_misses.py:1" in ended.text.partition("Asked at ")[2][:300]
    assert "11 missed" in ended.text
    assert "a connection is needed, and replay never connects" in ended.text
    assert "longrepr" not in ended.text and "raise session.keep_miss" not in ended.text

    ended = project.replay("--timetracer-misses=report", MORE="1")
    failed = {node.partition("::")[2] for node in ended.outcomes}
    assert failed - {"test_sub"} == {"test_raised", "test_expected", "test_skipped"}, ended.text
    assert "11 missed" in ended.text


# ------------------------------------------------------------------------- runs again, and others

AGAIN = """
    import os, random, socket, uuid
    import factory, factory.fuzzy
    import pytest
    from pymongo import MongoClient

    @pytest.fixture(scope="session")
    def db():
        return MongoClient("{uri}")["{database}"]

    @pytest.fixture
    def mine(db):
        things = db[f"things_{uuid.uuid4()}"]
        yield things
        things.drop()

    @pytest.mark.parametrize("n", range(6))
    def test_own(mine, n):
        mine.insert_one({"n": n})
        assert mine.find_one({})["n"] == n

    def test_flaky(db):
        found = db.flaky.find_one_and_update({}, {"$inc": {"n": 1}}, upsert=True)
        assert found is not None

    def test_numbers(db):
        drawn = [random.random(), factory.fuzzy.FuzzyInteger(10**9).fuzz()]
        db.numbers.insert_one({"drawn": drawn})
        print("DRAWN", drawn)

    def test_others():
        with socket.create_server(("127.0.0.1", 0)) as server:
            with socket.create_connection(server.getsockname()):
                pass
"""


def test_what_runs_again_and_in_workers_is_recorded_and_replays(project: Project) -> None:
    project.write("test_again.py", AGAIN)
    few = ("-k", "not numbers", "--reruns=1")
    ended = project.record("-n", "2", *few)
    assert ended.code == 0, ended.text
    assert "cassettes/test_again/test_flaky.2.json" in project.cassettes()
    ended = project.replay(*few)
    assert ended.code == 0 and "1 rerun" in ended.text, ended.text
    ended = project.replay("-n", "2", *few)
    assert ended.code == 0, ended.text

    counted = ("-k", "own and 3", "--count=2")
    assert project.record(*counted).code == 0
    assert project.replay(*counted).code == 0


def test_what_a_test_draws_is_as_recorded_unless_that_is_off(project: Project) -> None:
    project.write("test_again.py", AGAIN)

    def drawn(ended: Ended) -> str:
        assert ended.code == 0, ended.text
        return ended.text.partition("DRAWN ")[2].splitlines()[0]

    only = ("-s", "-k", "numbers", "-p", "randomly")
    first = drawn(project.record(*only, "--randomly-seed=1"))
    assert drawn(project.replay(*only, "--randomly-seed=2")) == first
    off = (*only, "--timetracer-entropy=off")
    again = [drawn(project.record(*off, f"--randomly-seed={seed}")) for seed in (1, 2)]
    assert first not in again and again[0] != again[1]
    ini = (project.path / "pytest.ini").read_text()
    project.write("pytest.ini", ini + "timetracer_entropy = off\n")
    assert drawn(project.record(*only, "--randomly-seed=1")) == again[0]
