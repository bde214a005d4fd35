"""pytest --timetracer=verify: a suite runs live, and a test fails that is answered otherwise."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.offline import run_program
from tests.support.server import Server
from tests.test_pytest_plugin import PYTEST, STRICT, Run, plugin_arguments, run, write

__all__ = ["run"]

SUITE = """
    import os
    import pytest
    from pymongo import MongoClient

    db = MongoClient("{uri}")["{database}"]
    changes = os.environ.get("CHANGES", "").split()

    @pytest.fixture(scope="module", autouse=True)
    def prepared():
        db.people.delete_many({})
        db.people.insert_many([{"name": "Ann"}, {"name": "Bob"}])
        yield
        db.people.drop()
        if "fixture" not in changes:
            db.people.count_documents({})

    def test_same():
        made = db.people.insert_one({"name": "Cy"})
        assert db.people.find_one({"_id": made.inserted_id})["name"] == "Cy"
        db.people.delete_one({"_id": made.inserted_id})

    def test_answer():
        if "answer" in changes:
            db.people.update_one({"name": "Ann"}, {"$set": {"age": 3}})
        ann = db.people.find_one({"name": "Ann"})
        assert ann["name"] == "Ann"

    def test_gone():
        db.people.find_one({"name": "Bob"})
        if "gone" not in changes:
            db.people.distinct("name")

    def test_fails():
        assert db.people.count_documents({}) == 2 and "fail" not in changes
        db.people.find_one({"name": "Bob"})

    def test_skips():
        if "fail" in changes:
            pytest.skip("today")
        db.people.find_one({"name": "Bob"})

    def test_swallows():
        if "new" in changes:
            try:
                db.people.find_one({"name": "Dan"})
            except Exception:
                pass

    def test_none():
        pass
"""


@pytest.fixture(scope="module")
def tape(mongodb_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The suite, recorded once."""
    directory = tmp_path_factory.mktemp("recorded")
    database = f"timetracer_test_verify_{os.getpid()}"
    given = {"{uri}": mongodb_server.uri, "{database}": database}
    text = textwrap.dedent(SUITE)
    for name, value in given.items():
        text = text.replace(name, value)
    (directory / "test_it.py").write_text(text, encoding="utf-8")
    arguments = [*plugin_arguments(), *STRICT, "--timetracer=record"]
    run_program(PYTEST, *arguments, cwd=directory)
    yield directory
    mongodb_server.drop(database)


@pytest.fixture
def recorded(tape: Path, pytester: pytest.Pytester) -> Path:
    shutil.copytree(tape, pytester.path, dirs_exist_ok=True)
    return pytester.path / "cassettes"


def content(directory: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def test_a_suite_that_is_answered_as_recorded_passes_and_nothing_is_written(
    run: Run, recorded: Path
) -> None:
    before = content(recorded.parent)
    told = run("--timetracer=verify")
    assert "7 passed" in told and "7 tests verified: no drift" in told
    after = content(recorded.parent)
    assert {name for name in after if "__pycache__" not in name} == {
        name for name in before if "__pycache__" not in name
    }
    assert all(after[name] == data for name, data in before.items() if name.endswith(".json"))


def test_every_kind_of_drift_fails_the_test_in_which_it_is(run: Run, recorded: Path) -> None:
    told = run("--timetracer=verify", fails=True, CHANGES="answer gone new fixture")
    assert "2 failed, 5 passed, 2 errors" in told
    assert "age: recorded (absent), now 3" in told
    assert "called at test_it.py:" in told
    assert "ERROR at teardown of test_gone" in told
    assert "distinct on" in told and "was not called: event 2" in told
    assert "pytest --timetracer=record test_it.py::test_gone" in told
    assert "ERROR at teardown of test_none" in told  # the last test tears the fixture down
    assert "7 tests verified: 2 calls that are not recorded, " in told
    assert "2 recorded calls that are made no more, 1 calls that are answered otherwise" in told


def test_what_a_failing_or_skipped_test_calls_no_more_is_only_told(
    run: Run, recorded: Path
) -> None:
    told = run("--timetracer=verify", "-rA", fails=True, CHANGES="fail")
    assert "1 failed, 5 passed, 1 skipped" in told and "error" not in told.splitlines()[-1]
    assert "2 recorded calls that are made no more" in told


def test_drift_may_be_a_report_only(run: Run, recorded: Path) -> None:
    told = run("--timetracer=verify", "--timetracer-drift=report", CHANGES="answer gone")
    assert "7 passed" in told
    assert "test_it.py::test_answer:" in told and "age: recorded (absent), now 3" in told


def test_workers_send_what_they_found(
    run: Run, pytester: pytest.Pytester, mongodb: str, database: str
) -> None:
    pytest.importorskip("xdist")
    write(
        pytester,
        "test_it.py",
        """
        import os
        from pymongo import MongoClient

        db = MongoClient("{uri}")["{database}"]
        changes = os.environ.get("CHANGES", "").split()

        def test_answer():
            db.a.update_one({}, {"$set": {"n": len(changes)}}, upsert=True)
            db.a.find_one({})
            db.a.drop()

        def test_gone():
            if not changes:
                db.b.find_one({})
        """,
        uri=mongodb,
        database=database,
    )
    run("--timetracer=record", "-n", "2")
    told = run("--timetracer=verify", "-n", "2", fails=True, CHANGES="answer")
    assert "1 failed, 1 passed, 2 errors" in told
    assert "2 tests verified: 1 calls that are not recorded, " in told
    assert "2 recorded calls that are made no more, 1 calls that are answered" in told


def test_a_test_without_a_cassette_is_all_new(run: Run, recorded: Path) -> None:
    (recorded / "test_it" / "test_gone.json").unlink()
    told = run("--timetracer=verify", fails=True)
    assert "1 failed, 6 passed" in told
    failures = told.partition("short test summary info")[0]  # which CI=true has repeat them whole
    assert failures.count("is not in") == 2


def test_the_marker_asks_for_it_too(run: Run, recorded: Path, pytester: pytest.Pytester) -> None:
    file = pytester.path / "test_it.py"
    marked = file.read_text().replace(
        "def test_answer", "@pytest.mark.timetracer(mode='verify')\ndef test_answer"
    )
    file.write_text(marked)
    told = run(fails=True, CHANGES="answer")
    assert "1 failed, 6 passed" in told and "1 tests verified" in told


def test_a_block_within_a_test_counts(
    run: Run, pytester: pytest.Pytester, mongodb: str, database: str
) -> None:
    write(
        pytester,
        "test_it.py",
        """
        import os
        from pymongo import MongoClient
        from timetracer import use_cassette

        def test_block():
            people = MongoClient("{uri}")["{database}"].people
            people.insert_one({})
            with use_cassette("people.json", mode="once"):
                people.count_documents({})
        """,
        uri=mongodb,
        database=database,
    )
    run("--timetracer=record")
    told = run("--timetracer=verify", fails=True)
    assert "count_documents on" in told and "recorded 1, now 2" in told
