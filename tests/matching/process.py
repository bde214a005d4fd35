"""A process of the proof: it records, replays or just makes the calls of a file of jobs.

    python -c "from tests.matching.process import main; main()" STAGE JOBS TRACES

STAGE is "record", "replay" or "live". A job is one line of JSON in JOBS: `key`, `program`,
`cassettes`, and `upto` where only its first calls are to be made. Its trace is a line in TRACES.

MATCHING_CLOCK moves the process's clock by so many seconds, where time-machine is installed: the
real time, or with MATCHING_FROZEN the program's alone, as a test does that freezes time.
MATCHING_GUARD takes a guard out of the matcher.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

STAGES = ("record", "replay", "live")
OPTIONS: dict[str, Any] = {"uuidRepresentation": "standard", "connect": False}


def clock_moves() -> bool:
    """Whether a process can be on another day here."""
    return importlib.util.find_spec("time_machine") is not None


def move_clock() -> None:
    """Move every clock of Python to another day, where that can be done here."""
    seconds = float(os.environ.get("MATCHING_CLOCK", "0"))
    if not seconds or not clock_moves():
        return
    import time_machine

    from timetracer import frozen_time

    if "MATCHING_FROZEN" not in os.environ:
        frozen_time.LIBRARIES = ()  # to Timetracer this is no program's doing, but the real time
    away = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    time_machine.travel(away, tick=True).start()


def main() -> None:
    """Do the jobs that the command line names."""
    move_clock()  # before anything is imported that may look at the time
    stage, jobs, traces = sys.argv[1:]
    assert stage in STAGES
    if stage != "live":
        _enable()
    if "MATCHING_GUARD" in os.environ:
        from tests.matching.guards import take_out

        take_out(os.environ["MATCHING_GUARD"])
    with open(jobs, encoding="utf-8") as source, open(traces, "w", encoding="utf-8") as target:
        for trace in _traces(stage, [json.loads(line) for line in source]):
            target.write(json.dumps(trace) + "\n")


def _enable() -> None:
    from tests.matching.worlds import register
    from timetracer.plugins import enable_motor, enable_pymongo

    enable_pymongo()
    enable_motor()
    register()


def _traces(stage: str, jobs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    from pymongo import MongoClient

    from tests.matching.runner import finish

    client: Any = MongoClient(os.environ["MONGODB_URI"], **OPTIONS)
    levels = Levels() if stage == "replay" else None
    for job in jobs:
        if job["program"]["driver"] not in LOOPS:
            yield finish(_run(stage, job, client, levels))
    client.close()
    for driver, make in LOOPS.items():
        waiting = [job for job in jobs if job["program"]["driver"] == driver]
        yield from asyncio.run(_run_async(stage, waiting, make, levels)) if waiting else ()


def _async_client() -> Any:
    from pymongo import AsyncMongoClient

    return AsyncMongoClient(os.environ["MONGODB_URI"], **OPTIONS)


def _motor_client() -> Any:
    from motor.motor_asyncio import AsyncIOMotorClient

    return AsyncIOMotorClient(os.environ["MONGODB_URI"], **OPTIONS)


LOOPS: dict[str, Callable[[], Any]] = {"async": _async_client, "motor": _motor_client}
"""Driver of a program that runs in an event loop -> what makes its client there."""


async def _run_async(
    stage: str, jobs: list[dict[str, Any]], make: Callable[[], Any], levels: Levels | None
) -> list[dict[str, Any]]:
    from tests.matching.runner import it

    client = make()
    told = [await _run(stage, job, client, levels) for job in jobs]
    await it(client.close())
    return told


async def _run(
    stage: str, job: dict[str, Any], client: Any, levels: Levels | None
) -> dict[str, Any]:
    from tests.matching.runner import it

    written = job["program"]
    if stage == "record" and written["elsewhere"]:
        other = {**written, "calls": written["elsewhere"], "stock": [], "elsewhere": [], "cut": 0}
        beside = str(Path(job["cassettes"][0]).with_name("elsewhere.json"))
        await _run(stage, {**job, "program": other, "cassettes": [beside]}, client, levels)
    run = _run_of(stage, job, client)
    if stage == "replay":
        _start(written["world"])
    else:
        await run.stock()
    trace = await run.all(functools.partial(_block, stage, job))
    if stage != "replay":
        for name in run.databases:
            await it(client.drop_database(name))
    return {
        "key": job["key"],
        "answers": trace.answers,
        "missed": trace.missed,
        "why": trace.why,
        "levels": levels.told() if levels else {},
    }


def _start(world: str) -> None:
    """Begin a program that starts up as in a process of its own: none has been bound before it."""
    from tests.matching.worlds import WORLDS
    from timetracer.bindings import RUN

    if WORLDS[world].alone:
        RUN.forget()


def _run_of(stage: str, job: dict[str, Any], client: Any) -> Any:
    from tests.matching.runner import Run
    from tests.matching.worlds import WORLDS

    parts = 1 if stage == "replay" and WORLDS[job["program"]["world"]].alone else 2
    shuffle = None if stage == "record" else job["key"]  # a twin's live run as its replay
    return Run(job["program"], client, job.get("upto"), shuffle, parts)


def _block(stage: str, job: dict[str, Any], part: int) -> contextlib.AbstractContextManager[Any]:
    if stage == "live":
        return contextlib.nullcontext()
    from tests.matching.worlds import WORLDS, block

    world, cassettes = job["program"]["world"], job["cassettes"]
    alone = stage == "replay" and WORLDS[world].alone
    cassette = cassettes[-1 if alone else part]
    if stage == "replay" and not os.path.exists(cassette):
        return contextlib.nullcontext()  # no call was recorded there; none gets out in replay
    return block(stage, world, cassette)


class Levels(logging.Handler):
    """Counts the levels at which calls are answered, as the log tells them."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: Counter[str] = Counter()
        log = logging.getLogger("timetracer")
        log.addHandler(self)
        log.setLevel(logging.DEBUG)

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg).startswith("timetracer: event %d of %s answers"):
            assert isinstance(record.args, tuple)
            self._counts[str(record.args[4])] += 1

    def told(self) -> dict[str, int]:
        """The counts since this was asked last."""
        counts, self._counts = dict(self._counts), Counter()
        return counts
