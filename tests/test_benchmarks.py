"""Every benchmark runs and gives its rows. How fast anything is is never asserted here."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.support.server import Server

pytest.importorskip("mongomock")
pytest.importorskip("motor")
pytest.importorskip("fastapi")

from benchmarks import __main__ as bench
from benchmarks import calls, events, reading, web
from benchmarks.drivers import ASYNC, MOTOR, NOWHERE, SYNC, Driver, opened
from benchmarks.measure import ROOT, Row, printed_by

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"


@pytest.fixture(autouse=True)
def nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published package is not fetched by a test."""
    monkeypatch.setattr(events, "published_python", lambda: (None, "not asked for"))


def names(rows: list[Row]) -> list[str]:
    return [row.name for row in rows]


DRIVERS = pytest.mark.parametrize(
    "driver", [SYNC, ASYNC, MOTOR], ids=["MongoClient", "AsyncMongoClient", "Motor"]
)


@DRIVERS
def test_pass_through_needs_no_server(driver: Driver) -> None:
    assert names(calls.pass_through(driver, 5, 1)) == [
        f"{driver.label}pass-through, added to a call"
    ]


@DRIVERS
def test_pass_through_leaves_the_driver_as_it_was(driver: Driver) -> None:
    from motor.motor_asyncio import AsyncIOMotorCollection
    from pymongo.asynchronous.collection import AsyncCollection
    from pymongo.collection import Collection

    touched = (Collection, AsyncCollection, AsyncIOMotorCollection)
    before = [dict(vars(owner)) for owner in touched]
    calls.pass_through(driver, 1, 1)
    assert [dict(vars(owner)) for owner in touched] == before


@DRIVERS
def test_find_one_is_idle_with_and_without_the_wrapper(driver: Driver) -> None:
    with driver.idle(), opened(driver, NOWHERE) as orders:
        orders.each("find_one", [{"_id": 1}])()  # no server is asked
        with driver.enabled():
            orders.each("find_one", [{"_id": 1}])()


@DRIVERS
def test_recording(mongodb: str, driver: Driver) -> None:
    assert names(calls.recording(driver, mongodb, 3, 1)) == [
        f"{driver.label}record {method}, {what}"
        for method in ("find_one", "insert_one")
        for what in ("elapsed", "client's CPU", "elapsed, with the file")
    ]


@DRIVERS
def test_replayed_find_one(mongodb: str, driver: Driver) -> None:
    rows = calls.replayed_find_one(driver, mongodb, 12, 1)
    repeated = ["", "", ", repeated", ", repeated"] if driver.mock else ["", ", repeated"]
    assert names(rows) == [
        f"{driver.label}replayed find_one by _id{what}" for what in (", elapsed", *repeated)
    ]


def test_requests_per_second(mongodb: str) -> None:
    rows = web.requests_per_second(mongodb, 20, 1)
    assert names(rows) == [
        f"FastAPI, 16 at once, {state}{what}"
        for state in ("off", "recording", "replaying")
        for what in ("", ", CPU of a request")
    ]


def test_a_request_that_fails_is_no_figure(mongodb: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.web", "replaying", "1", str(tmp_path), mongodb]
    with pytest.raises(RuntimeError, match="there is no cassette"):
        printed_by(command, ROOT)


def test_replayed_find(mongodb: str) -> None:
    assert names(reading.replayed_find(mongodb, 250, 1)) == [
        "replayed find of 250 documents, warm",
        "replayed find of 250 documents, cold, from the file",
    ]


def test_many_events_without_the_published_package_say_why() -> None:
    rows = events.many_events(20, 1)
    assert names(rows) == [
        "20 events recorded, CPU",
        "20 events written, CPU",
        "20 events recorded and written, CPU",
        "20 events recorded and written, peak memory",
        "20 events loaded, CPU",
        "20 events loaded, peak memory",
        "taken, each of 1 events",
        "taken, each of 2 events",
        "taken, each of 20 events",
    ]
    assert {row.other for row in rows[:6]} == {"not asked for"}
    assert {row.figure for row in rows[:6]} == {None}


@pytest.mark.parametrize(
    ("figure", "aim", "reached"),
    [
        (1.05, "<= 1.05x", True),
        (1.06, "<= 1.05x", False),
        (10.0, ">= 10x faster", True),
        (9.9, ">= 10x faster", False),
        (None, ">= 10x faster", None),
        (1.0, "", None),
    ],
)
def test_an_aim_is_reached_or_not(figure: float | None, aim: str, reached: bool | None) -> None:
    assert Row("row", "1 us", "2 us", figure, aim).reached is reached


def test_the_command_prints_one_table(
    mongodb_server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MONGODB_URI", mongodb_server.uri)
    here = [b for b in bench.BENCHMARKS if b.group not in ("web", "events")]  # no more processes
    tiny = [bench.Benchmark(b.group, b.run, min(b.size, 20), 1) for b in here]
    monkeypatch.setattr(bench, "BENCHMARKS", tiny)
    assert bench.main([]) == 0
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert "pass-through, added to a call" in printed
    assert "server: MONGODB_URI" in printed


def test_the_page_tells_of_every_row() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for what in (
        "pass-through",
        "record find_one",
        "record insert_one",
        "replayed find_one",
        "AsyncMongoClient: record find_one",
        "Motor: replayed find_one",
        "FastAPI, 16 at once, recording",
        "FastAPI, 16 at once, replaying",
        "10,000 documents",
        "events loaded",
        "recorded and written",
        "taken",
    ):
        assert re.search(rf"\| [^|]*{re.escape(what)}", page), what
