"""The table of modes: what each does where the cassette is there, and where it is not."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path

import pytest

from tests.support.calls import Driver
from timetracer import MissError, TraceConfig, use_cassette
from timetracer.config import MODES
from timetracer.errors import CassetteNotFoundError


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A cassette of two calls: a FIND_ONE for "A1", answered 1, and an INSERT_ONE, answered 2."""
    path = tmp_path / "there.json"
    with use_cassette(path, mode="record"):
        driver = Driver()
        driver("FIND_ONE", filter={"sku": "A1"})
        driver("INSERT_ONE", document={"_id": 1})
    return path


def eids(path: Path) -> list[int]:
    return [event["eid"] for event in json.loads(path.read_bytes())["events"]]


@pytest.mark.parametrize(
    ("mode", "known", "unknown", "kept"),
    [
        ("off", "made", "made", [1, 2]),
        ("record", "made", "made", [1, 2]),
        ("replay", "replayed", "missed", [1, 2]),
        ("once", "replayed", "missed", [1, 2]),
        ("new_episodes", "replayed", "made", [1, 2, 3]),
        ("verify", "made", "made", [1, 2]),
    ],
)
def test_a_cassette_that_is_there(
    recorded: Path, mode: str, known: str, unknown: str, kept: list[int]
) -> None:
    before = recorded.read_bytes()
    driver = Driver()
    done = []
    with use_cassette(recorded, mode=mode):
        for sku in ("A1", "B2"):
            count = len(driver.made)
            try:
                driver("FIND_ONE", filter={"sku": sku})
                done.append("made" if len(driver.made) > count else "replayed")
            except MissError:
                done.append("missed")

    assert done == [known, unknown]
    assert eids(recorded) == kept
    assert (recorded.read_bytes() == before) == (mode in ("off", "replay", "once", "verify"))


@pytest.mark.parametrize(
    ("mode", "made", "written"),
    [
        ("off", 1, False),
        ("record", 1, True),
        ("replay", 0, False),
        ("once", 1, True),
        ("new_episodes", 1, True),
        ("verify", 0, False),
    ],
)
def test_a_cassette_that_is_not_there(tmp_path: Path, mode: str, made: int, written: bool) -> None:
    driver = Driver()
    path = tmp_path / "new.json"
    try:
        with use_cassette(path, mode=mode):
            driver("FIND_ONE")
    except CassetteNotFoundError as error:
        assert mode in ("replay", "verify")
        assert f'To record it: use_cassette("{path}", mode="record")' in str(error)

    assert (len(driver.made), path.exists()) == (made, written)


def test_every_mode_has_its_rows() -> None:
    assert set(MODES) == {"off", "record", "replay", "once", "new_episodes", "verify"}


@pytest.mark.parametrize("mode", ["record", "replay", "once", "new_episodes", None])
def test_off_in_the_environment_turns_off_whatever_else_is_said(
    recorded: Path, mode: str | None
) -> None:
    before = recorded.read_bytes()
    block = use_cassette(recorded, mode=mode, config=TraceConfig(mode="record"))
    os.environ["TIMETRACER_MODE"] = "off"
    driver = Driver()
    with block:
        driver("FIND_ONE", filter={"sku": "A1"})

    assert (driver.made, recorded.read_bytes()) == (["FIND_ONE"], before)


def test_new_episodes_leaves_the_old_lines_as_they_are(recorded: Path) -> None:
    before = [line.rstrip(",") for line in recorded.read_text().splitlines() if "eid" in line]
    for sku in ("B2", "C3"):
        with use_cassette(recorded, mode="new_episodes"):
            Driver()("FIND_ONE", filter={"sku": sku})

    after = [line.rstrip(",") for line in recorded.read_text().splitlines() if "eid" in line]
    assert after[:2] == before
    assert eids(recorded) == [1, 2, 3, 4]
    with use_cassette(recorded, mode="replay"):
        answers = [Driver()("FIND_ONE", filter={"sku": sku}) for sku in ("C3", "A1", "B2")]
    assert answers == [1, 1, 1]


def test_new_episodes_that_met_nothing_new_writes_nothing(recorded: Path) -> None:
    before = recorded.stat().st_mtime_ns
    with use_cassette(recorded, mode="new_episodes"):
        Driver()("FIND_ONE", filter={"sku": "A1"})

    assert recorded.stat().st_mtime_ns == before
    assert list(recorded.parent.iterdir()) == [recorded]


def test_new_episodes_keeps_what_it_does_not_know(recorded: Path) -> None:
    edited = json.loads(recorded.read_bytes())
    edited["note"] = "by hand"
    edited["session"]["reviewer"] = "Ada"
    edited["session"]["redaction"] = True
    recorded.write_text(json.dumps(edited, indent=2))
    with use_cassette(recorded, mode="new_episodes", config=TraceConfig(redact=False)):
        Driver()("FIND_ONE", filter={"sku": "B2"})

    written = json.loads(recorded.read_bytes())
    assert written["note"] == "by hand"
    assert written["session"]["reviewer"] == "Ada"
    assert written["session"]["redaction"] is True  # its placeholders are still to be filled in
    assert [event["eid"] for event in written["events"]] == [1, 2, 3]


def test_after_a_replayed_write_an_unknown_call_is_a_miss_that_says_to_record_anew(
    recorded: Path, caplog: pytest.LogCaptureFixture
) -> None:
    driver = Driver()
    with use_cassette(recorded, mode="new_episodes"):
        driver("INSERT_ONE", document={"_id": 1})
        with pytest.raises(MissError) as missed:
            driver("FIND_ONE", filter={"sku": "B2"})

    assert driver.made == []
    assert str(missed.value).splitlines()[-2:] == [
        "It cannot be recorded now: a replayed write before it never reached the server.",
        "To record it: record the whole cassette again (mode record)",
    ]
    assert eids(recorded) == [1, 2]


def test_a_swallowed_miss_is_logged_and_kept(
    recorded: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.ERROR),
        use_cassette(recorded, mode="replay") as session,
        contextlib.suppress(Exception),
    ):
        Driver()("FIND_ONE", filter={"sku": "B2"})

    assert [miss.call.method for miss in session.misses] == ["FIND_ONE"]
    assert "is not in" in caplog.text


def test_passthrough_by_driver_reaches_every_session(tmp_path: Path) -> None:
    os.environ["TIMETRACER_PASSTHROUGH"] = "motor"
    with use_cassette(tmp_path / "x.json", mode="record") as session:
        assert session.passthrough == {"motor"}
