"""The method table through every driver; a cassette of any driver replays through any other."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest

from tests.programs_async.proof import (
    DRIVERS,
    OWN_THREADS,
    STEPS,
    Proof,
    traces,
    without_names,
    without_times,
)
from tests.support.offline import OFFLINE, ROOT, run_offline, run_program
from tests.support.server import Server
from tests.support.snippets import blocks_of
from timetracer.plugins.pymongo import method_rows

pytestmark = pytest.mark.skipif(
    not (importlib.util.find_spec("motor") and importlib.util.find_spec("tornado")),
    reason="needs motor and tornado",
)
DATABASE = f"timetracer_cross_driver_{os.getpid()}"
OTHER_NAMES = {"TRANSACTION": {"COMMIT", "ABORT"}}


@pytest.fixture(scope="module")
def recordings(
    mongodb_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, str]]:
    """The steps recorded through each driver: cassette and trace."""
    directory = tmp_path_factory.mktemp("recordings")
    made = {}
    for driver in DRIVERS:
        mongodb_server.drop(DATABASE)
        proof = Proof(mongodb_server.uri, DATABASE, directory)
        cassette = directory / f"{driver}.json"
        env = proof.environment("record", cassette)
        made[driver] = (cassette, run_program(STEPS, driver, env=env).stdout)
    mongodb_server.drop(DATABASE)
    return made


@pytest.mark.parametrize("driver", DRIVERS)
def test_recording_changes_nothing(
    driver: str, recordings: dict[str, tuple[Path, str]], mongodb_server: Server
) -> None:
    env = {"MONGODB_URI": mongodb_server.uri, "TEST_DATABASE": DATABASE, "ENABLE": ""}
    mongodb_server.drop(DATABASE)
    plain = traces(run_program(STEPS, driver, env=env).stdout)
    mongodb_server.drop(DATABASE)
    recorded = traces(recordings[driver][1])

    assert recorded.keys() == plain.keys()
    for step, seen in plain.items():
        assert without_times(recorded[step]) == without_times(seen), step


@pytest.mark.parametrize("replayed", DRIVERS)
@pytest.mark.parametrize("recorded", DRIVERS)
def test_a_cassette_of_any_driver_replays_through_any(
    recorded: str, replayed: str, recordings: dict[str, tuple[Path, str]], mongodb_server: Server
) -> None:
    cassette, text = recordings[recorded]
    proof = Proof(mongodb_server.uri, DATABASE, cassette.parent)
    env = proof.environment("replay", cassette)
    rules = OWN_THREADS if replayed in ("motor", "tornado") else OFFLINE
    result = run_offline(STEPS, replayed, env=env, rules=rules)
    live, now = traces(text), traces(result.stdout)

    assert now.keys() == live.keys()
    for step, seen in live.items():
        if None in (seen, now[step]):  # a method that this driver does not have
            continue
        assert without_names(json.dumps(now[step])) == without_names(json.dumps(seen)), step


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_row_of_the_method_table_has_a_step(
    driver: str, recordings: dict[str, tuple[Path, str]]
) -> None:
    events = json.loads(recordings[driver][0].read_text())["events"]
    recorded = {event["signature"]["method"] for event in events}
    flavour = "asynchronous" if driver == "async" else "synchronous"
    rows = {row.method for row in method_rows() if f".{flavour}." in row.owner}
    wanted = {name for row in rows for name in OTHER_NAMES.get(row, {row})} | {"FIND", "EXPLAIN"}
    lacking = {"CLIENT_BULK_WRITE"} if not _has_client_bulk_write(driver) else set()

    assert wanted - recorded <= lacking


def _has_client_bulk_write(driver: str) -> bool:
    if driver not in ("motor", "tornado"):
        return True
    from motor.core import AgnosticClient

    return hasattr(AgnosticClient, "bulk_write")


def test_the_library_is_kept_but_compared_only_if_asked(
    recordings: dict[str, tuple[Path, str]], mongodb_server: Server
) -> None:
    cassette, text = recordings["motor"]
    events = json.loads(cassette.read_text())["events"]
    assert {event["signature"]["lib"] for event in events} == {"motor"}

    proof = Proof(mongodb_server.uri, DATABASE, cassette.parent)
    env = proof.environment("replay", cassette)
    env["TIMETRACER_MATCH_ON"] = "lib,method,url,arguments"
    same = run_offline(STEPS, "motor", "insert", env=env, rules=OWN_THREADS).stdout
    other = run_offline(STEPS, "async", "insert", env=env).stdout

    assert traces(same)["insert"] == traces(text)["insert"]
    assert "MissError" in other


MOVING = ROOT / "examples" / "moving_from_motor"


def test_the_example_of_moving_from_motor(mongodb_server: Server, tmp_path: Path) -> None:
    for name in ("with_motor.py", "with_pymongo.py"):
        text = (MOVING / name).read_text(encoding="utf-8")
        here = text.replace("mongodb://localhost:27017", mongodb_server.uri)
        (tmp_path / name).write_text(here.replace(".moving.", f".{DATABASE}."), encoding="utf-8")
    env = {"TIMETRACER_CASSETTE": str(tmp_path / "moving.json")}
    record, replay = ({**env, "TIMETRACER_MODE": mode} for mode in ("record", "replay"))
    live = run_program(tmp_path / "with_motor.py", env=record).stdout

    assert run_offline(tmp_path / "with_pymongo.py", env=replay).stdout == live
    assert live.startswith("{'_id': 1, 'sku': 'S1', 'quantity': 1}\n")
    mongodb_server.drop(DATABASE)


def test_the_page_on_moving_from_motor_shows_the_example() -> None:
    blocks = [block.text for block in blocks_of("docs/moving-from-motor.md")]

    for name in ("with_motor.py", "with_pymongo.py"):
        assert (MOVING / name).read_text(encoding="utf-8") in blocks, name
