"""What a suite's run says of its cassettes: how they were used, which are stale, which may go."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from tests.support.server import Server
from tests.test_suite import Ended, Project, make
from timetracer import document
from timetracer.errors import ConfigError
from timetracer.integrations.freshness import Expiry, age, confirmed, days

HEAD = """
    import os, subprocess, sys
    import pytest
    from pymongo import MongoClient

    db = MongoClient("{uri}", serverSelectionTimeoutMS=500, connect=False)["{database}"]
    fewer = bool(os.environ.get("FEWER"))
"""

PARTS = {
    "old": """
    @pytest.fixture(scope="module", autouse=True)
    def old():
        db.wide.find_one({"old": 1})
    """,
    "wide": """
    @pytest.fixture(scope="module")
    def wide():
        db.wide.find_one({"wide": 1})
        if not fewer:
            db.wide.find_one({"wide": 2})

    def test_wide(wide):
        db.things.find_one({"wide": 1})
    """,
    "used": """
    def test_used():
        db.things.find_one({"used": 1})
        if not fewer:
            db.things.find_one({"used": 2})
    """,
    "allowed": """
    @pytest.mark.timetracer(allow_unused=True)
    def test_allowed():
        db.things.find_one({"allowed": 1})
        if not fewer:
            db.things.find_one({"allowed": 2})
    """,
    "params": """
    @pytest.mark.parametrize("n", [1, 2])
    def test_params(n):
        db.things.find_one({"n": n})
    """,
    "gone": """
    class TestGone:
        @classmethod
        def setup_class(cls):
            db.things.find_one({"class": 1})

        def test_gone(self):
            db.things.find_one({"gone": 1})
            code = "import test_shop; test_shop.db.things.find_one({'child': 1})"
            subprocess.run([sys.executable, "-c", code], check=True)
    """,
    "skipped": """
    @pytest.mark.skipif(fewer, reason="sometimes")
    def test_skipped():
        db.things.find_one({"skipped": 1})
    """,
    "expected": """
    @pytest.mark.xfail
    def test_expected():
        db.things.find_one({"expected": 1})
        if not fewer:
            db.things.find_one({"expected": 2})
        assert False
    """,
    "off": """
    @pytest.mark.timetracer(**({"mode": "off"} if fewer else {}))
    def test_off():
        if not fewer:
            db.things.find_one({"off": 1})
    """,
    "elsewhere": """
    if not fewer:  # as for another Python
        def test_elsewhere():
            db.things.find_one({"elsewhere": 1})
    """,
    "block": """
    def test_block(timetracer_auto):
        with timetracer_auto("test_shop/mine.json"):
            db.things.find_one({"block": 1})
            if not fewer:
                db.things.find_one({"block": 2})
    """,
}
OTHER = """
    from test_shop import db

    def test_other():
        db.things.find_one({"other": 1})
"""
WITH_WORKERS = pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "workers"])


def write(project: Project, *left_out: str, **changed: str) -> None:
    parts = {**PARTS, **changed}
    text = "".join(part for name, part in parts.items() if name not in left_out)
    project.write("test_shop.py", HEAD + text)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, mongodb_server: Server) -> Iterator[Project]:
    """A suite, recorded once."""
    name = "timetracer_housekeeping"
    project = make(tmp_path_factory.mktemp("housekeeping"), mongodb_server, name)
    ini = "[pytest]\naddopts = --strict-markers\npythonpath = .\n"
    project.write("pytest.ini", ini)
    write(project)
    project.write("test_other.py", OTHER)
    ended = project.record()
    assert ended.code == 0, ended.text
    assert "11 tests recorded (14 events), 0 replayed (0 events), 0 missed" in ended.text
    assert "orphan files" not in ended.text and "stale cassettes" not in ended.text
    yield project
    mongodb_server.drop(name)


@pytest.fixture
def project(recorded: Project, tmp_path: Path) -> Project:
    """The suite with its cassettes, to be changed."""
    shutil.copytree(recorded.path, tmp_path / "project")
    return Project(tmp_path / "project", recorded.server, recorded.database)


def told_of(ended: Ended, heading: str) -> list[str]:
    """The lines below a heading of the summary, without what follows a colon."""
    lines = iter(ended.text.splitlines())
    assert any(line.startswith(heading) for line in lines), ended.text
    found = []
    for line in lines:
        if not line.startswith("    "):
            break
        found.append(line.strip().partition(": ")[0])
    return found


# ------------------------------------------------------------------------- how they were used


def test_the_summary_counts_and_compares_with_the_live_run(project: Project) -> None:
    ended = project.replay()
    assert ended.code == 0, ended.text
    assert "0 tests recorded (0 events), 11 replayed (14 events), 0 missed" in ended.text
    live = sum(
        header(file)["seconds"]
        for file in (project.path / "cassettes").rglob("*test_*.json")
        if header(file).get("node", "").find(", fixture") < 0 and "child" not in file.name
    )
    told = re.search(r"replayed in (\d+\.\d\d) s what took (\d+\.\d\d) s live", ended.text)
    assert told is not None and abs(float(told[2]) - live) < 0.02, (ended.text, live)
    assert "unused events" not in ended.text and "orphan files" not in ended.text


def header(file: Path) -> dict[str, object]:
    session: dict[str, object] = json.loads(file.read_text())["session"]
    return session


UNUSED_TOLD = [
    "1 of 2 events of cassettes/test_shop/test_used.json answered no call:",
    "1 of 2 events of cassettes/test_shop/__module__.wide.json answered no call:",
]


EXPECTED = "test_shop.py::test_expected"


@WITH_WORKERS
def test_unused_events_are_counted_listed_and_fail(
    project: Project, workers: tuple[str, ...]
) -> None:
    listed = project.replay(*workers, "--timetracer-unused", "test_shop.py", FEWER="1")
    assert listed.code == 0 and "unused events: 2, in 2 cassettes" in listed.text, listed.text
    section = listed.text.partition("timetracer: unused events")[2]
    for told in (*UNUSED_TOLD, "1 of 2 events of cassettes/test_shop/mine.json answered no call:"):
        assert section.count(told) == 1, listed.text
    assert "event 2: find_one on" in section
    assert "test_allowed.json" not in section and "test_expected.json" not in section

    failed = project.replay(*workers, "--timetracer-unused=fail", FEWER="1")
    assert failed.code == 1
    again = "If the test needs them no more, record it again: pytest --timetracer=record test_shop"
    assert again in failed.text
    in_tear_down = [node for node, told in failed.outcomes.items() if "teardown failed" in told]
    assert "test_shop.py::test_used" in in_tear_down, failed.text
    assert len(in_tear_down) in (1, 2)  # the fixture's may be told with the test that ends it
    assert failed.outcomes["test_shop.py::test_block"].startswith("setup passed, call failed")
    assert all(told in failed.text for told in UNUSED_TOLD)
    ends_the_fixture = workers and EXPECTED in in_tear_down
    expected = f"setup passed, call xfailed, teardown {'failed' if ends_the_fixture else 'passed'}"
    assert failed.outcomes[EXPECTED] == expected


def test_a_marker_forbids_or_allows_unused_events_whatever_the_flag(project: Project) -> None:
    mark = "    @pytest.mark.timetracer(allow_unused={})\n    def test_{}"
    forbids = PARTS["used"].replace("    def test_used", mark.format(False, "used"))
    allows = PARTS["block"].replace("    def test_block", mark.format(True, "block"))
    write(project, used=forbids, block=allows)
    ended = project.replay(FEWER="1")
    assert [node for node, told in ended.outcomes.items() if "failed" in told and "x" not in told]
    assert ended.outcomes["test_shop.py::test_used"].endswith("teardown failed"), ended.text
    ended = project.replay("--timetracer-unused=fail", "-k", "block", FEWER="1")
    assert ended.code == 0, ended.text
    assert "mine.json" not in ended.text


# ------------------------------------------------------------------------- stale ones


def expire(project: Project, text: str) -> None:
    ini = (project.path / "pytest.ini").read_text().partition("timetracer_expire")[0]
    project.write("pytest.ini", f"{ini}timetracer_expire = {text}\n")


def grow_old(project: Project, *names: str, old: int = 100) -> None:
    """Have cassettes say that they were recorded that many days ago."""
    then = datetime.now(timezone.utc) - timedelta(days=old, hours=1)
    for name in names:
        file = project.path / "cassettes" / "test_shop" / f"{name}.json"
        told = rf'"\1_at":"{then.isoformat(timespec="milliseconds")}"'
        text = re.sub(r'"(recorded|confirmed)_at":"[^"]*"', told, file.read_text())
        file.write_text(text)


STALE = ["cassettes/test_shop/__module__.wide.json", "cassettes/test_shop/test_used.json"]


@WITH_WORKERS
def test_stale_cassettes_are_told_or_fail_their_tests(
    project: Project, workers: tuple[str, ...]
) -> None:
    grow_old(project, "__module__.wide", "test_used")
    for text, told in (("101d", False), ("14 w warn", True)):
        expire(project, text)
        ended = project.replay(*workers)
        assert ended.code == 0, ended.text
        assert ("stale cassettes" in ended.text) == told, ended.text
    assert sorted(told_of(ended, "stale cassettes: 2, older than 14 weeks")) == STALE
    assert "test_used.json: 100 days old, of test_shop.py::test_used" in ended.text
    assert "To record them again, with MongoDB running: pytest --timetracer=record" in ended.text

    expire(project, "90d fail")
    ended = project.replay(*workers)
    failed = "setup passed, call failed, teardown passed"
    assert ended.outcomes["test_shop.py::test_used"] == failed, ended.text
    assert ended.outcomes["test_shop.py::test_wide"] == failed, ended.text
    assert "older than 90 days (timetracer_expire):" in ended.text
    again = "To record it again: pytest --timetracer=record test_shop.py::test_used"
    assert again in ended.text
    assert len(ended.outcomes) == 3  # and the one that is expected to fail


@WITH_WORKERS
def test_stale_cassettes_are_recorded_again_where_that_can_be(
    project: Project, workers: tuple[str, ...]
) -> None:
    expire(project, "90d record")
    grow_old(project, "test_wide", "test_used")
    if not workers:
        for arguments, ci in (("--timetracer=replay", None), ("--timetracer=once", "true")):
            ended = project.run(arguments, offline=True, CI=ci)
            assert ended.code == 0 and "stale cassettes: 2" in ended.text, ended.text

    before = events(project)
    ended = project.run(*workers, "--timetracer=once")
    assert ended.code == 0 and "stale cassettes" not in ended.text, ended.text
    assert "2 tests recorded (3 events), 9 replayed (11 events)" in ended.text
    told = "0 changed in meaning, 4 unchanged (2 files stay as they were, 2 say that they still"
    assert workers or told in ended.text  # their fixtures are recorded too
    now = {name: text for name, text in events(project).items() if ".2." not in name}
    assert now == before  # a second worker has a second take of a fixture
    grow_old(project, "test_used")
    ended = project.replay()
    assert ended.code == 0 and "stale cassettes: 1" in ended.text, ended.text


def events(project: Project) -> dict[str, bytes]:
    """What the cassettes hold but for their headers."""
    return {
        file.name: file.read_bytes().partition(b'"events"')[2]
        for file in (project.path / "cassettes").rglob("*.json")
    }


def test_nothing_is_recorded_again_where_no_database_answers(
    project: Project, unused_tcp_port: int
) -> None:
    expire(project, "90d record")
    grow_old(project, "test_used")
    file = project.path / "cassettes/test_shop/test_used.json"
    port = project.server.uri.rstrip("/").rpartition(":")[2]
    file.write_text(file.read_text().replace(port, str(unused_tcp_port)))
    ended = project.run("--timetracer=once")
    assert "0 tests recorded" in ended.text
    assert ended.code == 0 and "stale cassettes: 1" in ended.text, ended.text
    assert "They are not recorded again: no database answers at " in ended.text
    assert f":{unused_tcp_port}" in ended.text


@pytest.fixture
def unused_tcp_port() -> int:
    """A port at which nothing listens."""
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_recording_that_says_the_same_makes_an_ageing_cassette_young(project: Project) -> None:
    expire(project, "90d")
    grow_old(project, "test_used", old=50)
    grow_old(project, "test_wide", old=40)
    before = events(project)
    ended = project.record("-k", "used or wide")
    told = "4 unchanged (3 files stay as they were, 1 say that they still hold)"
    assert told in ended.text, ended.text
    assert events(project) == before
    used = header(project.path / "cassettes/test_shop/test_used.json")
    assert days({"session": used}) == 0 and "confirmed_at" in used
    assert "confirmed_at" not in header(project.path / "cassettes/test_shop/test_wide.json")
    assert project.replay().code == 0


def test_a_cassette_is_as_old_as_its_oldest_events() -> None:
    def ago(hours: float) -> str:
        return (datetime.now(timezone.utc) - timedelta(hours=hours)).isoformat()

    told: Callable[..., dict[str, object]] = lambda **session: {"session": session}  # noqa: E731
    added_to = [{"recorded_at": ago(50)}, {"recorded_at": ago(1)}]
    assert days(told(recorded_at=ago(1), processes=added_to)) == 2
    assert days(told(recorded_at=ago(50))) == 2
    assert days(told(recorded_at=ago(50), confirmed_at=ago(1))) == 0
    assert age(told()) == age({}) == age(told(recorded_at="some day")) == 0


def test_to_confirm_changes_the_header_alone_in_any_layout(recorded: Project) -> None:
    data = (recorded.path / "cassettes/test_shop/test_used.json").read_bytes()
    by = {"recorded_at": "2026-01-22T14:00:00.000+00:00", "run": "abc"}
    for given in (data, json.dumps(json.loads(data), indent=2).encode()):
        after = json.loads(confirmed(given, "x.json", by))
        assert after["session"].pop("confirmed_at") == by["recorded_at"]
        assert after["session"].pop("confirmed_run") == "abc"
        assert after == json.loads(data)
    assert document.parse(confirmed(data, "x.json", by), "x.json").events


# ------------------------------------------------------------------------- what cannot be

EXPIRE = {
    "": None,
    "90d": Expiry(90 * 86400, "warn", "90 days"),
    "36h fail": Expiry(36 * 3600, "fail", "36 hours"),
    " 2 W, Record ": Expiry(14 * 86400, "record", "2 weeks"),
}


@pytest.mark.parametrize("text", EXPIRE)
def test_an_age_is_a_number_and_a_unit_and_perhaps_what_to_do(text: str) -> None:
    assert Expiry.parse(text) == EXPIRE[text]


@pytest.mark.parametrize("text", ["90", "d", "0d", "90 days", "90d faill", "-1d", "90d fail warn"])
def test_any_other_age_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"timetracer_expire cannot be .*: 90d, 90d fail"):
        Expiry.parse(text)


WRONG = {
    ("--timetracer=replay", "--timetracer-unused=fial"): "--timetracer-unused=fail: ignored",
    ("--timetracer=replay", "-o", "timetracer_expire=90 days"): "cannot be '90 days'",
    ("-o", "timetracer_expire=90 days"): "cannot be '90 days'",
    ("-n", "2", "-o", "timetracer_expire=soon"): "cannot be 'soon'",
}


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_a_bad_value_is_a_clear_error(project: Project, arguments: tuple[str, ...]) -> None:
    ended = project.run(*arguments, offline=True)
    assert ended.code == 4 and WRONG[arguments] in ended.text, ended.text
    assert "Traceback" not in ended.text
