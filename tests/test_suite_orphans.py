"""Cassettes that nobody asks for: which they are, and when they are removed."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.test_suite import Project
from tests.test_suite_housekeeping import (
    OTHER,
    PARTS,
    WITH_WORKERS,
    project,
    recorded,
    told_of,
    write,
)

__all__ = ["project", "recorded"]

ORPHANS = [
    "cassettes/test_other/test_other.json",
    "cassettes/test_shop/TestGone.__class__._xunit_setup_class_fixture_TestGone.json",
    "cassettes/test_shop/TestGone.test_gone.child.json",
    "cassettes/test_shop/TestGone.test_gone.json",
    "cassettes/test_shop/__module__.old.json",
    "cassettes/test_shop/test_params-2-.json",
]


def plain(names: list[str]) -> list[str]:
    return sorted(re.sub(r"-[0-9a-f]{8}\.json", ".json", name) for name in names)


def go_on(project: Project) -> None:
    """Take away what makes `ORPHANS`."""
    (project.path / "test_other.py").unlink()
    write(project, "gone", "old", params=PARTS["params"].replace("[1, 2]", "[1]"))


@WITH_WORKERS
def test_what_is_gone_makes_orphans_and_what_is_out_of_sight_does_not(
    project: Project, workers: tuple[str, ...]
) -> None:
    go_on(project)
    before = project.cassettes()
    if not workers:
        ended = project.replay(FEWER="1")
        assert ended.code == 0, ended.text
        told = told_of(ended, "orphan files: 6 (--timetracer-prune removes them)")
        assert plain(told) == ORPHANS, ended.text
        assert project.cassettes() == before

    ended = project.replay(*workers, "--timetracer-prune", FEWER="1")
    assert ended.code == 0, ended.text
    told = told_of(ended, "removed: 6 orphan files")
    assert plain(told) == ORPHANS
    left = project.cassettes()
    assert set(before) - set(left) == set(told) and not set(left) - set(before)
    assert not (project.path / "cassettes" / "test_other").exists()


def test_other_platforms_layers_and_files_that_were_not_collected_make_no_orphans(
    project: Project,
) -> None:
    go_on(project)
    project.write("test_other.py", "import pytest\npytest.skip('here', allow_module_level=True)")
    layer = "@pytest.mark.timetracer(cassettes=['test_shop/TestGone.test_gone.json'])"
    used = PARTS["used"].replace("def test_used", f"{layer}\n    def test_used")
    write(project, "gone", "old", params=PARTS["params"].replace("[1, 2]", "[1]"), used=used)
    param = next((project.path / "cassettes/test_shop").glob("test_params-2-*.json"))
    text = param.read_text()
    param.write_text(text.replace('"platform":"linux"', '"platform":"plan9"'))
    assert param.read_text() != text
    ended = project.replay()
    assert ended.code == 0, ended.text
    assert told_of(ended, "orphan files: 3") == [ORPHANS[n] for n in (1, 2, 4)], ended.text

    project.write("tests/test_more.py", OTHER)
    ended = project.record("tests")
    assert ended.code == 0 and "orphan files" not in ended.text, ended.text


def test_fixtures_of_session_and_package_are_judged_where_all_was_collected(
    project: Project,
) -> None:
    conftest = """
        import pytest
        from test_shop import db

        @pytest.fixture(scope="session", autouse=True)
        def whole():
            db.wide.find_one({"scope": "session"})

        @pytest.fixture(scope="package", autouse=True)
        def package():
            db.wide.find_one({"scope": "package"})
    """
    project.write("conftest.py", conftest)
    assert project.record("-k", "used").code == 0
    (project.path / "conftest.py").unlink()
    told = ["cassettes/__package__.package.json", "cassettes/__session__.whole.json"]
    ended = project.replay("-k", "used")
    assert told_of(ended, "orphan files: 2") == told, ended.text
    ended = project.replay("test_shop.py", "-k", "used")
    assert told_of(ended, "orphan files: 1") == told[:1], ended.text
    project.write("conftest.py", conftest.replace('"session", autouse=True', '"session"'))
    assert "orphan files" not in project.replay("-k", "used").text


REFUSED = {
    ("-k", "used"): "only some of the tests ran (-k)",
    ("-m", "not slow"): "only some of the tests ran (-m)",
    ("--lf",): "only some of the tests ran (--lf)",
    ("--deselect", "test_shop.py::test_used"): "only some of the tests ran (--deselect)",
    ("test_shop.py::test_used",): "only some of the tests ran (the id of a test)",
    ("-p", "dropping"): "only some of the tests ran (deselected)",
}


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_a_part_of_the_suite_removes_nothing(project: Project, arguments: tuple[str, ...]) -> None:
    go_on(project)
    ini = (project.path / "pytest.ini").read_text()
    project.write("pytest.ini", ini + "markers = slow: none is\n")
    project.write(
        "dropping.py",
        "def pytest_collection_modifyitems(items):\n    del items[1:]\n",
    )
    before = project.cassettes()
    ended = project.replay("--timetracer-prune", *arguments)
    assert ended.code == 0, ended.text
    assert f"--timetracer-prune has removed nothing: {REFUSED[arguments]}." in ended.text
    assert project.cassettes() == before


@pytest.mark.parametrize("error", ["AssertionError", "KeyboardInterrupt"])
@WITH_WORKERS
def test_a_run_that_fails_or_is_interrupted_removes_nothing(
    project: Project, error: str, workers: tuple[str, ...]
) -> None:
    if workers and error == "KeyboardInterrupt":
        pytest.skip("a worker that is interrupted ends the run without a summary")
    go_on(project)
    before = project.cassettes()
    project.write("test_more.py", f"def test_more():\n    raise {error}")
    ended = project.replay("--timetracer-prune", *workers)
    assert ended.code in (1, 2), ended.text
    assert "--timetracer-prune has removed nothing: the run did not pass." in ended.text
    assert project.cassettes() == before


def test_pruning_needs_a_mode(project: Project) -> None:
    go_on(project)
    before = project.cassettes()
    ended = project.run("--timetracer-prune", "-k", "params")
    assert "nothing is removed: the suite is neither recorded nor replayed" in ended.text
    assert project.cassettes() == before


def test_takes_of_a_fixture_are_left_where_fewer_workers_record(project: Project) -> None:
    project.write("conftest.py", SESSION)
    assert project.record("-n", "2").code == 0
    second = "cassettes/__session__.whole.2.json"
    assert second in project.cassettes()
    assert "orphan files" not in project.record("-k", "used").text
    ended = project.record()
    assert second in told_of(ended, "orphan files: "), ended.text
    assert "fixture whole, which runs fewer times now" in ended.text
    assert "orphan files" not in project.replay().text


SESSION = """
    import pytest
    from test_shop import db

    @pytest.fixture(scope="session", autouse=True)
    def whole():
        db.wide.find_one({"scope": "session"})
"""

FLAKY = """
    import os
    from test_shop import db

    def test_flaky():
        assert db.flaky.find_one({"only": "once"}) is None
        if not os.environ.get("FINE"):
            file = os.environ["OUTCOMES"] + ".times"
            with open(file, "a") as times:
                times.write("x")
            db.flaky.find_one({"run": os.path.getsize(file) % 2 if "{more}" else 0})
            assert os.path.getsize(file) % 2 == 0
        else:
            db.flaky.find_one({"run": int("{more}" or 0)})
"""


@pytest.mark.parametrize("more", ["", "7"], ids=["unchanged", "changed"])
def test_takes_that_are_left_of_an_earlier_recording_are_orphans(
    project: Project, more: str
) -> None:
    shutil.rmtree(project.path / "cassettes")
    for name in ("test_shop.py", "test_other.py"):
        text = (project.path / name).read_text()
        (project.path / name).write_text(text.replace("def test_", "def no_test_"))
    project.write("test_flaky.py", FLAKY.replace("{more}", more))
    ended = project.record("--reruns=1")
    assert ended.code == 0 and "orphan files" not in ended.text, ended.text
    takes = ["cassettes/test_flaky/test_flaky.2.json", "cassettes/test_flaky/test_flaky.json"]
    assert project.cassettes("cassettes/test_flaky") == takes
    assert "orphan files" not in project.replay(FINE="1").text

    ended = project.record(FINE="1")
    told = told_of(ended, "orphan files: 1 (--timetracer-prune removes them)")
    assert told == takes[:1] and "which runs fewer times now" in ended.text, ended.text
    ended = project.replay("--timetracer-prune", FINE="1")
    assert told_of(ended, "removed: 1 orphan files") == takes[:1], ended.text
    assert project.cassettes("cassettes/test_flaky") == takes[1:]


@WITH_WORKERS
def test_tests_that_only_a_marker_names_are_summed_up_too(
    project: Project, workers: tuple[str, ...]
) -> None:
    go_on(project)
    shop = project.path / "test_shop.py"
    shop.write_text(shop.read_text() + "\npytestmark = pytest.mark.timetracer(mode='replay')\n")
    ended = project.run(*workers, offline=True, FEWER="1")
    assert ended.code == 0, ended.text
    assert "0 tests recorded (0 events), 5 replayed (5 events), 0 missed" in ended.text
    assert "unused events: 2, in 2 cassettes" in ended.text
    assert plain(told_of(ended, "orphan files: 6")) == ORPHANS
