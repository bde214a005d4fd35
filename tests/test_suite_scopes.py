"""Which cassette a call belongs to, and that none is lost: packages, takes, imports, interrupts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from tests.support.offline import environment
from tests.test_pytest_plugin import plugin_arguments
from tests.test_suite import AT_IMPORT, MISSES, PYTEST, Project, project

__all__ = ["project"]


def events(project: Project, name: str) -> list[str]:
    text = (project.path / name).read_text(encoding="utf-8")
    return [event["signature"]["method"] for event in json.loads(text)["events"]]


# ------------------------------------------------------------------------- packages and takes

IN_PACKAGE = """
    import pytest
    from pymongo import MongoClient

    @pytest.fixture(scope="package")
    def wide():
        things = MongoClient("{uri}")["{database}"].wide
        key = things.insert_one({"n": 1}).inserted_id
        yield key
        assert things.delete_one({"_id": key}).deleted_count == 1
"""

OF_PACKAGE = """
    from pymongo import MongoClient

    def test_{name}(wide):
        things = MongoClient("{uri}")["{database}"].wide
        assert things.find_one({"_id": wide})["n"] == 1
        assert things.count_documents({}) == {count}
"""


def test_a_fixture_of_a_package_has_its_cassette_there(project: Project) -> None:
    for package, names in {"one": "ab", "one/inner": "c", "two": "d"}.items():
        project.write(f"{package}/__init__.py", "")
        for name in names:
            count = "2" if package == "one/inner" else "1"
            text = OF_PACKAGE.replace("{name}", name).replace("{count}", count)
            project.write(f"{package}/test_{name}.py", text)
    project.write("one/conftest.py", IN_PACKAGE)
    project.write("one/inner/conftest.py", IN_PACKAGE)
    project.write("two/conftest.py", IN_PACKAGE.replace('"n": 1', '"n": 1, "two": True'))
    for name in "c":  # its package is inside the other one, whose fixture is set up only there
        text = OF_PACKAGE.replace("{name}", name).replace("{count}", "1")
        project.write(f"one/inner/test_{name}.py", text)
    ended = project.record()
    assert ended.outcomes == {}, ended.text
    found = [name for name in project.cassettes() if "__package__" in name]
    assert found == [
        "one/cassettes/__package__.wide.json",
        "one/inner/cassettes/__package__.wide.json",
        "two/cassettes/__package__.wide.json",
    ]
    assert events(project, found[0]) == ["INSERT_ONE", "DELETE_ONE"]
    for arguments, env in (
        ((), {"ORDER": "reversed"}),
        (("one/test_b.py",), {}),
        (("two",), {}),
    ):
        ended = project.replay(*arguments, **env)
        assert ended.outcomes == {} and ended.tests > 0, ended.text


TAKES = """
    import pytest
    from pymongo import MongoClient

    things = MongoClient("{uri}", connect=False)["{database}"].things

    @pytest.fixture(scope="class", params=["x", "y"])
    def letter(request):
        return request.param

    @pytest.fixture(scope="class")
    def counted(letter):
        things.insert_one({"letter": letter})
        yield things.count_documents({})
        things.count_documents({"letter": letter})

    class TestCounted:
        def test_one(self, counted, letter):
            assert counted in (1, 2)

        def test_two(self, letter):
            pass

    @pytest.fixture(scope="session")
    def again(request):
        return things.insert_one({"again": 1}).inserted_id

    def test_again(again):
        assert things.find_one({"_id": again})["again"] == 1
"""


def test_each_time_that_a_fixture_is_set_up_has_a_take(project: Project) -> None:
    project.write("test_takes.py", TAKES)
    project.write(
        "conftest.py",
        """
        import pytest

        def pytest_runtest_teardown(item, nextitem):
            # As a plugin that shuffles tests does: classes are left, and entered again.
            if nextitem is not None:
                item.session._setupstate.teardown_exact(None)
        """,
    )
    ended = project.record()
    assert ended.outcomes == {}, ended.text
    for env in ({}, {"ORDER": "reversed"}):
        ended = project.replay(**env)
        assert ended.outcomes == {}, ended.text
    ended = project.replay("-k", "again")
    assert ended.outcomes == {} and ended.tests == 1, ended.text


# ------------------------------------------------------------------------- imports


def test_a_miss_while_a_file_is_imported_fails_the_file(project: Project) -> None:
    project.write("pytest.ini", "[pytest]\npythonpath = .\n")
    project.write("test_misses.py", MISSES)
    project.write("test_import.py", AT_IMPORT)
    assert project.record().code == 0
    ended = project.replay("test_import.py", "-W", "ignore", MORE="1")
    assert ended.code == 2, ended.text
    assert ended.outcomes == {"test_import.py": "collect failed"}
    assert "find_one on" in ended.text and "there is no cassette" in ended.text, ended.text
    assert "To record it: pytest --timetracer=record\n" in ended.text
    assert "Asked at test_misses.py:" in ended.text
    ended = project.replay("test_import.py", "-W", "ignore", "--timetracer-misses=report", MORE="1")
    assert ended.code == 0, ended.text


def test_a_miss_at_collection_fails_the_run(project: Project) -> None:
    project.write(
        "conftest.py",
        """
        import os
        from pymongo import MongoClient

        things = MongoClient("{uri}", connect=False)["{database}"].things

        def pytest_collection_modifyitems(items):
            things.find_one({"seen": 1})
            if os.environ.get("MORE"):
                try:
                    things.find_one({"more": 1})
                except Exception:
                    pass
        """,
    )
    project.write("test_any.py", "def test_any(): pass\n")
    assert project.record().code == 0
    assert project.replay().code == 0
    ended = project.replay(MORE="1")
    assert ended.code == 1, ended.text
    assert "find_one on" in ended.text and "Asked at conftest.py:" in ended.text, ended.text


# ------------------------------------------------------------------------- interrupts

SLOW = """
    import os, pathlib, time
    import pytest
    from pymongo import MongoClient

    things = MongoClient("{uri}")["{database}"].things

    @pytest.fixture(scope="module")
    def wide():
        things.insert_one({"_id": "wide"})
        yield
        things.delete_one({"_id": "wide"})

    def test_first(wide):
        assert things.count_documents({"_id": "wide"}) == 1

    def test_waits(wide):
        things.insert_one({"_id": "waits"})
        try:
            if os.environ.get("WAIT"):
                pathlib.Path("waiting").touch()
                time.sleep(60)
        finally:
            things.delete_one({"_id": "waits"})

    def test_last(wide):
        assert things.find_one({"_id": "wide"}) is not None
"""


LISTENING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
"""A process that is started in the background ignores SIGINT."""


def interrupted(project: Project, how: signal.Signals, *arguments: str) -> str:
    """Record until the second test waits, end the process, and return what it printed."""
    (project.path / "waiting").unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENING + PYTEST, *plugin_arguments(), *arguments],
        cwd=project.path,
        env=environment({"WAIT": "1", "PYTEST_ADDOPTS": None, "CI": None}),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    while not (project.path / "waiting").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(how)
    told, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    return told


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_is_interrupted_is_lost_at_no_place(project: Project, how: signal.Signals) -> None:
    project.write("test_slow.py", SLOW)
    interrupted(project, how, "-p", "no:randomly", "--timetracer=record")
    names = project.cassettes()
    assert "cassettes/test_slow/test_first.json" in names
    assert "cassettes/test_slow/test_last.json" not in names
    ended = project.replay("-k", "first")
    if how == signal.SIGINT:
        assert ended.outcomes == {}, ended.text
        assert events(project, "cassettes/test_slow/test_waits.json")[0] == "INSERT_ONE"
    project.server.drop(project.database)
    ended = project.record()
    assert ended.outcomes == {}, ended.text
    ended = project.replay()
    assert ended.outcomes == {} and ended.tests == 3, ended.text


def test_an_interrupt_keeps_what_was_recorded_before(project: Project) -> None:
    project.write("test_slow.py", SLOW)
    assert project.record().outcomes == {}
    before = {name: (project.path / name).read_bytes() for name in project.cassettes()}
    project.write("test_slow.py", SLOW.replace("things.count", "things.find_one({}); things.count"))
    told = interrupted(project, signal.SIGINT, "-p", "no:randomly", "--timetracer=record")
    assert "KeyboardInterrupt" in told
    assert "recorded again: 1 changed in meaning" in told, told
    after = {name: (project.path / name).read_bytes() for name in project.cassettes()}
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"cassettes/test_slow/test_first.json"}
    kept = sorted(after.keys() - before.keys())
    assert all(".unaccepted-" in name for name in kept), kept
    assert any("test_waits" in name for name in kept), kept
    ended = project.replay("-k", "not waits")
    assert ended.outcomes == {}, ended.text
