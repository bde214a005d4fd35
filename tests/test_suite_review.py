"""A suite that is recorded again: what changed in meaning is told, what did not stays as it was."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.offline import environment, run_program
from tests.support.server import Server
from tests.test_pytest_plugin import PYTEST, STRICT, Run, plugin_arguments, run
from timetracer.cassette import BODY_HASH

__all__ = ["run"]

SUITE = """
    import datetime, os, uuid
    import pytest
    from pymongo import MongoClient

    db = MongoClient("{uri}")["{database}"]
    changes = os.environ.get("CHANGES", "").split()

    @pytest.fixture(scope="session")
    def ann():
        db.people.delete_many({})
        made = db.people.insert_one({"name": "Ann", "key": str(uuid.uuid4())})
        if "fixture" in changes:
            db.people.update_one({}, {"$set": {"age": 3}})
        yield made.inserted_id
        db.people.drop()

    def test_reads(ann):
        assert db.people.find_one({"_id": ann})["name"] == "Ann"

    def test_writes(ann):
        order = db.orders.insert_one({"by": ann, "at": datetime.datetime.now()}).inserted_id
        assert db.orders.find_one({"_id": order})["by"] == ann
        if "call" in changes:
            db.orders.find_one({"by": ann})
        db.orders.delete_one({"_id": order})

    def test_alone():
        db.other.delete_many({})
        db.other.insert_one({"n": len(changes)} if "alone" in changes else {"n": 0})
        assert db.other.find_one({})["n"] in (0, len(changes))
        db.other.delete_many({})

    def test_none():
        pass

    if "added" in changes:
        def test_added(ann):
            assert db.people.find_one({"_id": ann})["_id"] == ann
"""


@pytest.fixture(scope="module")
def tape(mongodb_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The suite, recorded once."""
    directory = tmp_path_factory.mktemp("recorded")
    database = f"timetracer_test_review_{os.getpid()}"
    given = {"{uri}": mongodb_server.uri, "{database}": database}
    text = textwrap.dedent(SUITE)
    for name, value in given.items():
        text = text.replace(name, value)
    (directory / "test_it.py").write_text(text, encoding="utf-8")
    arguments = [*plugin_arguments(), *STRICT, "--timetracer=record"]
    first = run_program(PYTEST, *arguments, cwd=directory).stdout
    assert "recorded again" not in first
    yield directory
    mongodb_server.drop(database)


@pytest.fixture
def recorded(tape: Path, pytester: pytest.Pytester) -> Path:
    shutil.copytree(tape, pytester.path, dirs_exist_ok=True)
    return pytester.path / "cassettes"


def content(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.rglob("*.json")}


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    """The names of the files that are others; of those that have come and gone too."""
    names = before.keys() | after.keys()
    return {name for name in names if before.get(name) != after.get(name)}


def test_what_is_the_same_in_meaning_keeps_its_file(run: Run, recorded: Path) -> None:
    before = content(recorded)
    assert len(before) == 4
    told = run("--timetracer=record")
    assert "recorded again: 0 changed in meaning, 4 unchanged (4 files stay as they were)" in told
    assert changed(before, content(recorded)) == set()


def test_what_changed_is_told_and_replays_with_what_stayed(run: Run, recorded: Path) -> None:
    older = recorded / "test_it" / "test_reads.json"
    older.write_text(older.read_text().replace(f'"body_hash":"{BODY_HASH}",', ""))
    before = content(recorded)
    told = run("--timetracer=record", CHANGES="call alone added")
    assert "recorded again: 2 changed in meaning, 2 unchanged (1 files stay as they were)" in told
    assert "test_it.py::test_writes: 1 new" in told
    assert "find_one on" in told and "is not in" in told
    assert "test_it.py::test_alone: 1 new, 1 gone, 1 changed" in told
    assert "n: recorded 0, now 3" in told
    assert changed(before, content(recorded)) == {
        "test_writes.json",
        "test_alone.json",
        "test_added.json",
        "test_reads.json",  # its form was an older one
    }
    run("--timetracer=replay", offline=True, CHANGES="call alone added")
    run("--timetracer=replay", "-k", "added", offline=True, CHANGES="call alone added")


def test_who_refers_to_ids_that_are_made_anew_is_written_too(run: Run, recorded: Path) -> None:
    before = content(recorded)
    told = run("--timetracer=record", CHANGES="fixture")
    assert "the session, fixture ann: 1 new" in told
    assert "recorded again: 2 changed in meaning, 2 unchanged (1 files stay as they were)" in told
    assert "test_alone.json" not in changed(before, content(recorded))
    run("--timetracer=replay", offline=True, CHANGES="fixture")


def test_one_test_that_is_recorded_again_leaves_the_others_valid(run: Run, recorded: Path) -> None:
    run("--timetracer=record", "test_it.py::test_writes", CHANGES="call")
    run("--timetracer=replay", offline=True, CHANGES="call")


def test_asking_needs_a_terminal(run: Run, recorded: Path) -> None:
    before = content(recorded)
    result = run_program(
        PYTEST,
        *plugin_arguments(),
        *STRICT,
        "--timetracer=record",
        "--timetracer-review",
        cwd=recorded.parent,
        check=False,
    )
    assert result.returncode == 4
    assert "there is no terminal to ask at" in result.stderr
    assert content(recorded) == before


def at_terminal(directory: Path, answers: str, **env: str) -> str:
    """Run pytest at a terminal, type answers, and return what it showed."""
    ours, theirs = pty.openpty()
    arguments = [*plugin_arguments(), *STRICT, "--timetracer=record", "--timetracer-review"]
    process = subprocess.Popen(
        [sys.executable, "-c", PYTEST, *arguments],
        cwd=directory,
        env=environment({**env, "TERM": "dumb", "COLUMNS": "200"}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    os.write(ours, answers.encode())
    shown = b""
    while select.select([ours], [], [], 100)[0]:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the terminal is closed with the process
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait(60) == 0, shown.decode()
    return shown.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_a_person_accepts_by_category(run: Run, recorded: Path) -> None:
    before = content(recorded)
    shown = at_terminal(recorded.parent, "y\nn\nn\n", CHANGES="call alone")
    assert "Accept what is new? [y/N]" in shown and "Accept what is gone? [y/N]" in shown
    assert "python -m timetracer accept" in shown
    after = content(recorded)
    assert after["test_alone.json"] == before["test_alone.json"]
    assert after["test_writes.json"] != before["test_writes.json"]
    (beside,) = changed(before, after) - {"test_writes.json"}
    assert beside.startswith("test_alone.unaccepted-")
    run("--timetracer=replay", offline=True, CHANGES="call")


def test_what_workers_record_is_compared_too(run: Run, tape: Path, pytester: Any) -> None:
    pytest.importorskip("xdist")
    text = (tape / "test_it.py").read_text()
    head = text[: text.index("@pytest.fixture")]
    alone = text[text.index("def test_alone") : text.index("def test_none")]
    (pytester.path / "test_it.py").write_text(head + alone)
    (pytester.path / "test_more.py").write_text(head + alone.replace("other", "more"))
    run("--timetracer=record", "-n", "2")
    before = content(pytester.path)
    told = run("--timetracer=record", "-n", "2")
    assert "recorded again: 0 changed in meaning, 2 unchanged (2 files stay as they were)" in told
    assert changed(before, content(pytester.path)) == set()
    told = run("--timetracer=record", "-n", "2", CHANGES="alone")
    assert "recorded again: 2 changed in meaning, 0 unchanged" in told
