"""What is around a run is another thing in the next one: directories, the host, xdist's workers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.offline import run_offline, run_program
from tests.test_suite import Project, project
from timetracer.surroundings import bare_name

__all__ = ["project"]


def test_paths_below_the_temporary_directory_of_a_run(project: Project) -> None:
    project.write(
        "test_paths.py",
        """
        from pymongo import MongoClient

        things = MongoClient("{uri}")["{database}"].things

        def test_stored(tmp_path):
            path = tmp_path / "straße.txt"
            path.write_text("there")
            things.insert_one({"path": str(path), "url": path.as_uri()})
            found = things.find_one({"path": str(path)})
            assert open(found["path"]).read() == "there"
            assert found["url"] == path.as_uri()
            assert things.count_documents({"path": {"$in": [str(path), "elsewhere"]}}) == 1
        """,
    )
    recorded = project.record("--basetemp", str(project.path / "one"))
    assert (recorded.code, recorded.tests) == (0, 1), recorded.text
    replayed = project.replay("--basetemp", str(project.path / "other"))
    assert (replayed.code, replayed.tests, replayed.outcomes) == (0, 1, {}), replayed.text


def test_a_checkout_may_lie_elsewhere(project: Project) -> None:
    project.write(
        "test_files.py",
        """
        import os
        from pathlib import Path
        from pymongo import MongoClient

        things = MongoClient("{uri}")["{database}"].things
        HERE = Path(__file__).parent

        def test_import():
            things.insert_one({"path": str(HERE / "data.csv"), "cwd": os.getcwd()})
            found = things.find_one({"path": os.path.abspath("data.csv")})
            assert (found["path"], found["cwd"]) == (str(HERE / "data.csv"), os.getcwd())
        """,
    )
    recorded = project.record()
    assert (recorded.code, recorded.tests) == (0, 1), recorded.text
    moved = project.path.parent / "elsewhere" / "checkout"
    moved.parent.mkdir()
    shutil.move(project.path, moved)
    replayed = replace(project, path=moved).replay()
    assert (replayed.code, replayed.tests, replayed.outcomes) == (0, 1, {}), replayed.text


HOST = """
import os, socket, sys
uri, database, cassette, mode, host, literal = sys.argv[1:]
socket.gethostname = lambda: host
from pymongo import MongoClient
from timetracer import MissError, use_cassette
from timetracer.plugins import enable_pymongo

enable_pymongo()
locks = MongoClient(uri, connect=False)[database].locks
with use_cassette(cassette, mode=mode):
    locks.insert_one({"_id": "job", "owner": f"{host}:7", "home": os.path.expanduser("~/cache")})
    locks.insert_one({"_id": "note", "text": "on build-host-1 at night"})
    found = locks.find_one({"owner": f"{host}:7"})
    print(found["owner"] == f"{host}:7", found["home"] == os.path.expanduser("~/cache"))
    try:
        print(locks.count_documents({"text": literal}))
    except MissError:
        print("miss")
"""


def test_a_host_and_a_home_may_be_others(mongodb: str, database: str, tmp_path: Path) -> None:
    arguments = (mongodb, database, str(tmp_path / "locks.json"))
    text = "on build-host-1 at night"
    recorded = run_program(HOST, *arguments, "record", "annas-laptop", text)
    assert recorded.stdout == "True True\n1\n"
    for host, home in (("annas-laptop", "/home/anna"), ("runner-2", "/home/runner")):
        replayed = run_offline(HOST, *arguments, "replay", host, text, env={"HOME": home})
        assert replayed.stdout == "True True\n1\n"
    other = run_offline(HOST, *arguments, "replay", "runner-2", "on build-host-2 at night")
    assert other.stdout == "True True\nmiss\n"


def test_what_no_call_holds_is_not_told(mongodb: str, database: str, tmp_path: Path) -> None:
    program = HOST.replace("{host}:7", "somebody").replace("~/cache", "/tmp")
    cassette = tmp_path / "locks.json"
    run_program(program, mongodb, database, str(cassette), "record", "annas-laptop", "x")
    assert "annas-laptop" not in cassette.read_text()
    assert "surroundings" not in json.loads(cassette.read_text())["session"]


LITERAL = """
import os, sys
from pymongo import MongoClient
from timetracer import use_cassette
from timetracer.plugins import enable_pymongo

enable_pymongo()
uri, database, cassette, mode, recorded = sys.argv[1:]
places = MongoClient(uri, connect=False)[database].places
with use_cassette(cassette, mode=mode):
    places.insert_one({"_id": 1, "path": f"{recorded}/literal"})
    places.insert_one({"_id": 2, "path": os.path.join(os.getcwd(), "own")})
    print(places.find_one({"_id": 1})["path"] == f"{recorded}/literal")
"""


def test_a_directory_that_the_program_names_itself_stays(
    mongodb: str, database: str, tmp_path: Path
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    arguments = (mongodb, database, str(tmp_path / "places.json"))
    for directory, run, mode in ((one, run_program, "record"), (other, run_offline, "replay")):
        directory.mkdir()
        ended = run(LITERAL, *arguments, mode, str(one), cwd=directory)
        assert ended.stdout == "True\n", ended


# ------------------------------------------------------------------------- workers of xdist

WORKERS = """
    import os, pytest
    from pymongo import MongoClient
    from pymongo.errors import DuplicateKeyError

    client = MongoClient("{uri}")

    @pytest.fixture(scope="session")
    def db(worker_id, testrun_uid):
        name = {name}
        client.drop_database(name)
        client[name].things.create_index("n", unique=True)
        client[name].runs.insert_one({"_id": testrun_uid})
        yield client[name]
        client.drop_database(name)

    @pytest.mark.parametrize("n", range(6))
    def test_one(db, n, testrun_uid):
        db.things.insert_one({"n": n})
        with pytest.raises(DuplicateKeyError, match=db.name + r"\\.things"):
            db.things.insert_one({"n": n})
        assert db.things.find_one({"n": n})["n"] == n
        assert db.runs.find_one({})["_id"] == testrun_uid
        assert db.name in client.list_database_names()
"""

SUFFIX = '"{database}_" + worker_id'
ABSENT = '"{database}" + ("" if worker_id == "master" else "_" + worker_id)'
PREFIX = 'worker_id + "-{database}"'
ONE, TWO, THREE = (), ("-n", "2"), ("-n", "3", "--dist", "loadgroup")


@pytest.mark.parametrize(
    ("name", "recording", "replaying"),
    [(SUFFIX, ONE, TWO), (ABSENT, ONE, TWO), (ABSENT, TWO, ONE), (PREFIX, TWO, THREE)],
)
def test_databases_may_be_named_after_workers(
    project: Project, name: str, recording: tuple[str, ...], replaying: tuple[str, ...]
) -> None:
    project.write("test_workers.py", WORKERS.replace("{name}", name))
    recorded = project.record(*recording)
    assert (recorded.code, recorded.tests) == (0, 6), recorded.text
    replayed = project.replay(*replaying)
    assert (replayed.code, replayed.tests, replayed.outcomes) == (0, 6, {}), replayed.text


@pytest.mark.parametrize(
    ("name", "worker", "bare"),
    [
        ("test_gw0", "gw0", "test"),
        ("gw0_test", "gw0", "test"),
        ("test-gw1-x", "gw1", "test-x"),
        ("test_gw10", "gw1", "test_gw10"),
        ("gw0", "gw0", "gw0"),
        ("test_gw0.users", "gw0", "test.users"),
    ],
)
def test_the_name_without_the_worker(name: str, worker: str, bare: str) -> None:
    assert bare_name(name, worker) == bare
