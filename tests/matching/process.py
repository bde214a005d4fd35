"""A process of the proof: it records, replays or just makes the calls of a file of jobs.

    python -c "from tests.matching.process import main; main()" STAGE JOBS TRACES

STAGE is "record", "replay" or "live". A job is one line of JSON in JOBS: `key`, `program`,
`cassette`, and `upto` where only its first calls are to be made. Its trace is a line in TRACES.

MATCHING_CLOCK moves the process's clock by so many seconds, where time-machine is installed: the
real time, or with MATCHING_FROZEN the program's alone, as a test does that freezes time.
MATCHING_GUARD takes a guard out of the matcher.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
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
        from timetracer.plugins import enable_pymongo

        enable_pymongo()
    if "MATCHING_GUARD" in os.environ:
        from tests.matching.guards import take_out

        take_out(os.environ["MATCHING_GUARD"])
    with open(jobs, encoding="utf-8") as source, open(traces, "w", encoding="utf-8") as target:
        for trace in _traces(stage, [json.loads(line) for line in source]):
            target.write(json.dumps(trace) + "\n")


def _traces(stage: str, jobs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    from pymongo import MongoClient

    client: Any = MongoClient(os.environ["MONGODB_URI"], **OPTIONS)
    waiting = [job for job in jobs if job["program"]["driver"] == "async"]
    for job in jobs:
        if job["program"]["driver"] != "async":
            yield _run(stage, job, client)
    yield from asyncio.run(_run_async(stage, waiting)) if waiting else ()
    client.close()


def _run(stage: str, job: dict[str, Any], client: Any) -> dict[str, Any]:
    from tests.matching.runner import finish

    run = _run_of(stage, job, client)
    with _block(stage, job):
        trace = finish(run.all())
    if stage != "replay":
        for name in run.databases:
            client.drop_database(name)
    return _told(job, trace)


async def _run_async(stage: str, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from pymongo import AsyncMongoClient

    client: Any = AsyncMongoClient(os.environ["MONGODB_URI"], **OPTIONS)
    told = []
    for job in jobs:
        run = _run_of(stage, job, client)
        with _block(stage, job):
            trace = await run.all()
        if stage != "replay":
            for name in run.databases:
                await client.drop_database(name)
        told.append(_told(job, trace))
    await client.close()
    return told


def _run_of(stage: str, job: dict[str, Any], client: Any) -> Any:
    from tests.matching.runner import Run

    shuffle = None if stage == "record" else job["key"]  # a twin's live run as its replay
    return Run(job["program"], client, job.get("upto"), shuffle)


def _block(stage: str, job: dict[str, Any]) -> contextlib.AbstractContextManager[Any]:
    if stage == "live":
        return contextlib.nullcontext()
    from timetracer import use_cassette

    return use_cassette(job["cassette"], mode=stage)


def _told(job: dict[str, Any], trace: Any) -> dict[str, Any]:
    return {
        "key": job["key"],
        "answers": trace.answers,
        "missed": trace.missed,
        "why": trace.why,
    }
