"""Processes that tests start have cassettes of their own, also of programs that know nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.server import Server
from tests.test_suite import Project, make

CHILD = """
    import os, subprocess, sys
    from bson import ObjectId
    from pymongo import MongoClient

    def work(name):
        things = MongoClient("{uri}")["{database}"].children
        key = things.insert_one({"name": name, "other": ObjectId()}).inserted_id
        things.insert_one({"password": "made up"})
        assert things.find_one({"password": "made up"})["password"] == "made up"
        if os.environ.get("MORE"):
            try:
                things.find_one({"more": name})
            except Exception:
                pass
        return things.find_one({"_id": key})["name"]

    if __name__ == "__main__":
        name, *more = sys.argv[1:]
        print(work(name))
        sys.stdout.flush()
        if more:
            subprocess.run([sys.executable, __file__, *more], check=True)
"""

SERVER = """
    # A program that runs until it is told to end: each line is a name, answered by another.
    import sys
    from child import work

    for line in sys.stdin:
        print(work(line.strip()), flush=True)
"""

TESTS = """
    import concurrent.futures, multiprocessing, os, subprocess, sys, warnings
    import pytest
    from pymongo import MongoClient
    from child import work

    here = os.path.dirname(os.path.abspath(__file__))
    child = os.path.join(here, "child.py")
    warnings.filterwarnings("ignore", "This process")

    def started(*names, **options):
        command = [sys.executable, child, *names]
        ended = subprocess.run(command, capture_output=True, text=True, check=True, **options)
        return ended.stdout.split()

    @pytest.fixture
    def things():
        return MongoClient("{uri}")["{database}"].things

    def test_subprocess(things):
        assert things.count_documents({}) == 0
        assert started("a") == ["a"]
        assert started("b", env=dict(os.environ)) == ["b"]

    def test_child_of_a_child():
        assert started("a", "b", "c") == ["a", "b", "c"]

    def test_out_of_reach():
        assert started("a", env={}) == ["a"]

    @pytest.mark.timetracer(mode="off")
    def test_off():
        assert started("a") == ["a"]

    def test_fork(things):
        assert things.count_documents({}) == 0
        pid = os.fork()
        if not pid:
            try:
                os._exit(0 if work("forked") == "forked" else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert things.count_documents({"after": 1}) == 0

    @pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
    def test_multiprocessing(method):
        context = multiprocessing.get_context(method)
        with context.Pool(1) as pool:
            assert pool.map(work, ["x", "y"]) == ["x", "y"]
            pool.close()
            pool.join()

    def test_executor():
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
            assert list(executor.map(work, ["x", "y"])) == ["x", "y"]

    @pytest.fixture(scope="session")
    def server():
        with subprocess.Popen(
            [sys.executable, os.path.join(here, "server.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as process:
            yield process
            process.terminate()

    @pytest.mark.parametrize("name", ["a", "b"])
    def test_server(server, name):
        server.stdin.write(f"{name}\\n")
        server.stdin.flush()
        assert server.stdout.readline() == f"{name}\\n"
"""

CASSETTES = [
    "cassettes/__session__.test_children.py.server.child.json",
    "cassettes/test_children/test_child_of_a_child.child.2.json",
    "cassettes/test_children/test_child_of_a_child.child.3.json",
    "cassettes/test_children/test_child_of_a_child.child.json",
    "cassettes/test_children/test_executor.child.json",
    "cassettes/test_children/test_fork.child.json",
    "cassettes/test_children/test_fork.json",
    "cassettes/test_children/test_multiprocessing-fork--",
    "cassettes/test_children/test_multiprocessing-forkserver--",
    "cassettes/test_children/test_multiprocessing-spawn--",
    "cassettes/test_children/test_subprocess.child.2.json",
    "cassettes/test_children/test_subprocess.child.json",
    "cassettes/test_children/test_subprocess.json",
]
REACHED = ("-k", "not out_of_reach and not off")


@pytest.fixture
def children(tmp_path: Path, mongodb_server: Server, database: str) -> Project:
    """A project whose tests start processes."""
    directory = tmp_path / "project"
    directory.mkdir()
    project = make(directory, mongodb_server, database)
    project.write("pytest.ini", "[pytest]\npythonpath = .\n")
    project.write("child.py", CHILD)
    project.write("server.py", SERVER)
    project.write("test_children.py", TESTS)
    return project


def test_processes_of_tests_are_recorded_and_replayed(children: Project) -> None:
    ended = children.record()
    assert ended.outcomes == {}, ended.text
    found = children.cassettes()
    assert len(found) == len(CASSETTES), found
    for name, expected in zip(found, CASSETTES, strict=True):
        assert name.startswith(expected), found

    ended = children.replay(*REACHED)
    assert ended.outcomes == {} and ended.tests == 9, ended.text
    assert children.cassettes() == found

    ended = children.replay(*REACHED, MORE="1")
    assert set(ended.outcomes) == {
        f"test_children.py::test_{name}"
        for name in (
            "subprocess",
            "child_of_a_child",
            "fork",
            "executor",
            "multiprocessing[fork]",
            "multiprocessing[spawn]",
            "multiprocessing[forkserver]",
            "server[a]",
            "server[b]",
        )
    }, ended.text
    assert "in a process of the test: find_one on" in ended.text
    assert "pytest --timetracer=record test_children.py::test_subprocess" in ended.text
    assert "Asked at child.py:13" in ended.text
