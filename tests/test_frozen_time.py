"""Time: a replay at the recorded moment, programs that freeze it themselves, and real measures."""

from __future__ import annotations

import functools
import json
import os
import sys
import textwrap
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import freezegun
import pytest
import time_machine

from tests.support.offline import Environment, run_offline, run_program
from timetracer import frozen_time
from timetracer.errors import ConfigError
from timetracer.frozen_time import open_moment

UTC = timezone.utc
PAST = datetime(2020, 2, 29, 12, 30, tzinfo=UTC)
RECORDED = {"recorded_at": "2020-02-29T12:30:00.000+00:00"}
FREEZERS: dict[str, Callable[[datetime], Any]] = {
    "time-machine": lambda moment: time_machine.travel(moment, tick=False),
    "time-machine, ticking": time_machine.travel,
    "freezegun": freezegun.freeze_time,
    "freezegun, ticking": functools.partial(freezegun.freeze_time, tick=True),
}
by_freezer = pytest.mark.parametrize("freezer", FREEZERS.values(), ids=FREEZERS)
SECOND = timedelta(seconds=1)


def utc_now() -> datetime:
    return datetime.now(UTC)


# ------------------------------------------------------------------------------- real time


@by_freezer
def test_the_recorder_knows_the_real_time(freezer: Callable[[datetime], Any]) -> None:
    before = time.time()
    assert not frozen_time.is_moved()
    with freezer(PAST):
        assert abs(time.time() - PAST.timestamp()) < 30
        assert frozen_time.is_moved()
        assert before <= frozen_time.now() < before + 30
    assert not frozen_time.is_moved()
    assert before <= frozen_time.now() < before + 30


@by_freezer
def test_the_recorder_measures_real_time(freezer: Callable[[datetime], Any]) -> None:
    before = frozen_time.perf_counter()
    with freezer(PAST):
        inside = frozen_time.perf_counter()
    assert before < inside < frozen_time.perf_counter() < before + 30


def test_it_does_so_when_it_is_imported_in_frozen_time() -> None:
    program = """
        import time
        real = time.perf_counter
        from freezegun import freeze_time
        with freeze_time("2020-02-29"):
            from timetracer import frozen_time
            first = frozen_time.perf_counter()
        assert first < frozen_time.perf_counter() <= real()
    """
    run_program(program)


# ------------------------------------------------------------------------------- a moment


def test_a_program_runs_at_the_recorded_moment_and_time_goes_on() -> None:
    moment = open_moment(True, RECORDED)
    assert moment is not None
    real = utc_now()
    moment.enter()
    first, second = utc_now(), datetime.fromtimestamp(time.time(), UTC)
    moment.leave()
    assert PAST <= first <= second < PAST + 30 * SECOND
    assert first < datetime.fromtimestamp(second.timestamp() + 1, UTC)
    assert real <= utc_now() < real + 30 * SECOND


def test_a_moment_that_is_entered_again_goes_on() -> None:
    moment = open_moment(True, RECORDED)
    assert moment is not None
    moment.enter()
    first = utc_now()
    moment.leave()
    moment.enter()
    second = utc_now()
    moment.leave()
    assert PAST <= first < second < PAST + 30 * SECOND


def test_moments_within_each_other_each_have_their_own() -> None:
    outer = open_moment(True, RECORDED)
    inner = open_moment(True, {"recorded_at": "2021-01-01T00:00:00Z"})
    assert outer is not None and inner is not None
    outer.enter()
    inner.enter()
    assert utc_now().year == 2021
    inner.leave()
    assert utc_now().year == 2020
    outer.leave()
    assert not frozen_time.is_moved()


def test_a_moment_may_be_left_before_one_that_was_entered_in_it() -> None:
    outer = open_moment(True, RECORDED)
    inner = open_moment(True, {"recorded_at": "2021-01-01T00:00:00Z"})
    assert outer is not None and inner is not None
    outer.enter()
    inner.enter()
    outer.leave()
    assert utc_now().year == 2021
    inner.leave()
    assert not frozen_time.is_moved()


@by_freezer
def test_a_program_that_moves_its_time_is_left_alone(freezer: Callable[[datetime], Any]) -> None:
    moment = open_moment(True, {"recorded_at": "2021-01-01T00:00:00Z"})
    assert moment is not None
    with freezer(PAST):
        moment.enter()
        assert utc_now().year == 2020
        moment.leave()
    assert not frozen_time.is_moved()


@by_freezer
def test_a_program_may_move_time_in_the_moment(freezer: Callable[[datetime], Any]) -> None:
    moment = open_moment(True, {"recorded_at": "2021-01-01T00:00:00Z"})
    assert moment is not None
    moment.enter()
    with freezer(PAST):
        assert utc_now().year == 2020
    assert utc_now().year == 2021
    moment.leave()
    assert not frozen_time.is_moved()


def test_the_time_that_the_program_had_frozen_counts_before_the_real_one() -> None:
    moment = open_moment(True, {**RECORDED, "frozen_at": "1999-12-31T00:00:00.000+00:00"})
    assert moment is not None
    moment.enter()
    assert utc_now().year == 1999
    moment.leave()


@pytest.mark.parametrize("session", [{}, {"recorded_at": None}, {"recorded_at": "yesterday"}])
def test_a_cassette_that_knows_no_time_moves_none(session: dict[str, Any]) -> None:
    assert open_moment(True, session) is None


def test_no_time_is_moved_where_it_is_not_asked_for() -> None:
    assert open_moment(False, RECORDED) is None


def test_an_error_names_the_extra_where_the_library_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "time_machine", None)
    with pytest.raises(ConfigError, match=r"pip install 'timetracer\[freeze\]'") as missing:
        open_moment(True, RECORDED)
    assert missing.value.setting == "freeze_time"


# ------------------------------------------------------------------------------- programs

START = """
    import os, time
    from datetime import datetime, timezone
    from pymongo import MongoClient
    from timetracer import use_cassette
    from timetracer.plugins import enable_pymongo

    enable_pymongo()
    client = MongoClient(os.environ["MONGODB_URI"])
    things = client[os.environ["TEST_DATABASE"]].things

    def now():
        return datetime.now(timezone.utc).replace(microsecond=0)
"""
SCRIPT = """
    print(now().date(), datetime.today().date(), time.strftime("%Y-%m-%d", time.gmtime()))
    things.insert_one({"_id": 1, "day": str(now().date())})
    print(things.find_one({"day": str(now().date())}))
    things.drop()
"""
BLOCK = """
    def work():
        things.insert_one({"_id": 1, "at": now()})
        print(things.find_one({"at": {"$gte": now()}}) is not None)
        print(things.find_one({"_id": 1}))
        things.drop()
"""
AROUND = "with FREEZE, use_cassette('tape.json'): work()\n"
WITHIN = "with use_cassette('tape.json'), FREEZE: work()\n"
FREEZES = {
    "time-machine": "__import__('time_machine').travel('2020-02-29T12:30Z', tick=False)",
    "freezegun": "__import__('freezegun').freeze_time('2020-02-29T12:30Z')",
}


class Program:
    """A program that is recorded live, and replayed a while later with sockets refused."""

    def __init__(self, directory: Path, uri: str, database: str) -> None:
        self.directory = directory
        self.env: Environment = {
            "MONGODB_URI": uri,
            "TEST_DATABASE": database,
            "TIMETRACER_RUN_ID": None,
        }

    def write(self, *parts: str) -> None:
        text = "".join(map(textwrap.dedent, parts))
        (self.directory / "app.py").write_text(text, encoding="utf-8")

    def record(self, **env: str) -> str:
        return self._run(run_program, {"TIMETRACER_MODE": "record", **env})

    def replay(self, **env: str) -> str:
        fake = {"TIMETRACER_MODE": "replay", "MONGODB_URI": "mongodb://fake:27017"}
        return self._run(run_offline, {**fake, **env})

    def _run(self, run: Callable[..., Any], env: Environment) -> str:
        program = self.directory / "app.py"
        return str(run(program, cwd=self.directory, env={**self.env, **env}).stdout)

    def move_back(self, name: str, days: int) -> None:
        """Make a cassette one that was recorded some days ago."""
        file = self.directory / name
        text = file.read_text(encoding="utf-8")
        today = utc_now()
        for day in (today, today - timedelta(days=1)):  # midnight may be between
            then = (day - timedelta(days=days)).date()
            text = text.replace(str(day.date()), str(then))
        file.write_text(text, encoding="utf-8")

    def document(self, name: str) -> Any:
        return json.loads((self.directory / name).read_text(encoding="utf-8"))


@pytest.fixture
def program(tmp_path: Path, mongodb: str, database: str) -> Program:
    return Program(tmp_path, mongodb, database)


def test_a_script_replays_at_the_day_at_which_it_was_recorded(program: Program) -> None:
    program.write(START, SCRIPT)
    live = program.record()
    program.move_back("cassettes/app.json", 400)
    recorded = program.document("cassettes/app.json")
    day = recorded["events"][0]["arguments"]["document"]["day"]
    replayed = program.replay(TIMETRACER_FREEZE_TIME="1")
    assert replayed.splitlines()[0] == f"{day} {day} {day}" != live.splitlines()[0]
    assert f"'day': '{day}'" in replayed


@pytest.mark.parametrize("mode", ["record", "new_episodes", "off"])
def test_nothing_is_frozen_live(program: Program, mode: str) -> None:
    program.write(START, SCRIPT)
    if mode == "new_episodes":
        program.record()
        program.move_back("cassettes/app.json", 400)
        program.write(START, SCRIPT.partition("\n    things")[0])
    printed = program.record(TIMETRACER_FREEZE_TIME="1", TIMETRACER_MODE=mode)
    days = {str((utc_now() - timedelta(days=back)).date()) for back in (0, 1)}
    assert set(printed.splitlines()[0].split()) <= days


@pytest.mark.parametrize("shape", [AROUND, WITHIN], ids=["around", "within"])
@pytest.mark.parametrize("freeze", FREEZES.values(), ids=FREEZES)
@pytest.mark.parametrize("frozen", ["0", "1"], ids=["", "freeze_time"])
def test_a_program_that_freezes_time_replays(
    program: Program, freeze: str, shape: str, frozen: str
) -> None:
    program.write(START, BLOCK, shape.replace("FREEZE", freeze))
    live = program.record(TIMETRACER_FREEZE_TIME=frozen)
    assert live.startswith("True\n") and "datetime.datetime(2020, 2, 29, 12, 30)" in live
    assert program.replay(TIMETRACER_FREEZE_TIME=frozen) == live


@pytest.mark.parametrize("shape", [AROUND, WITHIN], ids=["around", "within"])
@pytest.mark.parametrize("freeze", FREEZES.values(), ids=FREEZES)
def test_what_a_cassette_says_of_time_is_real(program: Program, freeze: str, shape: str) -> None:
    program.write(START, BLOCK, shape.replace("FREEZE", freeze))
    before = utc_now()
    program.record()
    document = program.document("tape.json")
    recorded = datetime.fromisoformat(document["session"]["recorded_at"])
    assert before - SECOND < recorded < utc_now()
    frozen_at = {"2020-02-29T12:30:00.000+00:00"} if shape == AROUND else {None}
    assert {document["session"].get("frozen_at")} == frozen_at
    offsets = [event["start_offset_ms"] for event in document["events"]]
    assert offsets == sorted(offsets) and offsets[0] >= 0 and offsets[-1] < 60_000
    assert all(0 < event["duration_ms"] < 60_000 for event in document["events"])


def test_the_missing_library_is_told_where_the_block_is(program: Program) -> None:
    program.write(START, BLOCK, "with use_cassette('tape.json'): work()\n")
    program.record()
    program.write(
        "import sys\nsys.modules['time_machine'] = None\n",
        START,
        BLOCK,
        "with use_cassette('tape.json'): work()\n",
    )
    file = program.directory / "app.py"
    env = {**program.env, "TIMETRACER_MODE": "replay", "TIMETRACER_FREEZE_TIME": "1"}
    missing = run_offline(file, cwd=program.directory, env=env, check=False)
    assert "ConfigError: The setting freeze_time needs the package time-machine" in missing.stderr
    assert os.path.exists(program.directory / "tape.json")
