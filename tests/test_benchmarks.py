"""Every benchmark runs and gives its rows. How fast anything is is never asserted here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.server import Server

pytest.importorskip("mongomock")

from benchmarks import __main__ as bench
from benchmarks import calls, events, reading
from benchmarks.measure import Row

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"


@pytest.fixture(autouse=True)
def nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published package is not fetched by a test."""
    monkeypatch.setattr(events, "published_python", lambda: (None, "not asked for"))


def names(rows: list[Row]) -> list[str]:
    return [row.name for row in rows]


def test_pass_through_needs_no_server() -> None:
    assert names(calls.pass_through(5, 1)) == ["pass-through, added to a call"]


def test_pass_through_leaves_the_driver_as_it_was() -> None:
    from pymongo.collection import Collection

    before = dict(vars(Collection))
    calls.pass_through(1, 1)
    assert dict(vars(Collection)) == before


def test_recording(mongodb: str) -> None:
    assert names(calls.recording(mongodb, 3, 1)) == [
        "record find_one, elapsed",
        "record find_one, client's CPU",
        "record find_one, elapsed, with the file",
        "record insert_one, elapsed",
        "record insert_one, client's CPU",
        "record insert_one, elapsed, with the file",
    ]


def test_replayed_find_one(mongodb: str) -> None:
    rows = calls.replayed_find_one(mongodb, 12, 1)
    assert names(rows) == [
        "replayed find_one by _id",
        "replayed find_one by _id",
        "replayed find_one by _id",
        "replayed find_one by _id, repeated",
    ]


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
    tiny = [bench.Benchmark(b.group, b.run, min(b.size, 20), 1) for b in bench.BENCHMARKS]
    monkeypatch.setattr(bench, "BENCHMARKS", tiny)
    assert bench.main([]) == 0
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert "pass-through, added to a call" in printed
    assert "server: MONGODB_URI" in printed


def test_the_page_tells_of_every_row() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for what in ("pass-through", "record find_one", "record insert_one", "replayed find_one",
                 "10,000 documents", "events loaded", "recorded and written", "taken"):
        assert re.search(rf"\| [^|]*{re.escape(what)}", page), what
