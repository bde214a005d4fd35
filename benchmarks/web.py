"""Requests per second of a FastAPI application: without Timetracer, off, recording, replaying.

Each is a process of its own, as it would be in use:

    python -m benchmarks.web STATE REQUESTS DIRECTORY URI

A request makes three calls of AsyncMongoClient: find_one, update_one and a find. It is an ASGI call
made in the process itself, so that neither an HTTP server nor a client hides what Timetracer
costs; some are under way at once.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import ROOT, Row, micro, printed_by, ratio

AT_ONCE = 16
WARM_UP = 2 * AT_ONCE

STATES = {"without Timetracer": None, "off": "off", "recording": "record", "replaying": "replay"}
"""What is measured, in this order, with its mode; None where Timetracer is not set up at all."""


def requests_per_second(uri: str, requests: int, rounds: int) -> list[Row]:
    """Return how many requests the application serves in each state.

    Args:
        uri: the server.
        requests: requests in a round.
        rounds: rounds that count; in each, every state has a process.
    """
    from pymongo import MongoClient

    from benchmarks.drivers import DATABASE, fill

    with MongoClient(uri) as keeper, tempfile.TemporaryDirectory() as directory:
        fill(keeper)
        measured = [_round(Path(directory, str(n)), requests, uri) for n in range(rounds)]
        keeper.drop_database(DATABASE)
    return [row for state in list(STATES)[1:] for row in _rows(state, requests, measured)]


def _round(place: Path, requests: int, uri: str) -> dict[str, dict[str, float]]:
    command = [sys.executable, "-m", "benchmarks.web"]
    return {
        state: printed_by([*command, state, str(requests), str(place), uri], ROOT)
        for state in STATES
    }


def _rows(state: str, requests: int, measured: list[dict[str, dict[str, float]]]) -> list[Row]:
    without = next(iter(STATES))
    ours, other = ([found[name] for found in measured] for name in (state, without))
    walls, others = ([found["wall"] for found in costs] for costs in (ours, other))
    cpus, other_cpus = ([found["cpu"] for found in costs] for costs in (ours, other))
    name = f"FastAPI, {AT_ONCE} at once, {state}"
    return [
        Row(
            name,
            _per_second(walls, requests),
            f"{without} {_per_second(others, requests)}",
            ratio(others, walls),
        ),
        Row(
            f"{name}, CPU of a request",
            micro(median(cpus) / requests),
            f"{without} {micro(median(other_cpus) / requests)}",
            ratio(cpus, other_cpus),
        ),
    ]


def _per_second(walls: list[float], requests: int) -> str:
    return f"{requests / median(walls):,.0f} requests/s"


# ------------------------------------------------------------------------------- the process


def application(uri: str) -> Any:
    """Return the application; its client belongs to the event loop that runs."""
    from fastapi import FastAPI
    from pymongo import AsyncMongoClient

    from benchmarks.data import order
    from benchmarks.drivers import DATABASE, DOCUMENTS

    app = FastAPI()
    client: Any = AsyncMongoClient(uri)
    orders = client[DATABASE].orders

    @app.get("/orders/{number}")
    async def show(number: int) -> dict[str, Any]:
        wanted = {"_id": order(number % DOCUMENTS)["_id"]}
        found = await orders.find_one(wanted)
        await orders.update_one(wanted, {"$set": {"seen": True}})
        others = await orders.find({"number": {"$gt": found["number"]}}, limit=3).to_list()
        return {"customer": found["customer"], "others": [one["number"] for one in others]}

    return app


async def serve(app: Any, numbers: range) -> None:
    """Request orders, some at once.

    Args:
        app: the application.
        numbers: the orders.
    """
    from tests.support.asgi import serve

    waiting = iter(numbers)

    async def client() -> None:
        for number in waiting:
            served = await serve(app, "GET", f"/orders/{number}")
            assert served.error is None, served.error
            assert served.status == 200, served.body

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))


async def measured(state: str, requests: int, directory: str, uri: str) -> dict[str, float]:
    """Return what the requests took, in seconds: CPU time of this process, and elapsed time."""
    from benchmarks.drivers import NOWHERE

    mode = STATES[state]
    app = application(NOWHERE if mode == "replay" else uri)
    if mode is not None:
        from timetracer import TraceConfig
        from timetracer.integrations.fastapi import auto_setup
        from timetracer.plugins import enable_pymongo

        enable_pymongo()
        auto_setup(app, TraceConfig(mode=mode, cassette_dir=directory))
    await serve(app, range(WARM_UP))
    wall, cpu = time.perf_counter(), time.process_time()
    await serve(app, range(WARM_UP, WARM_UP + requests))
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def main(state: str, requests: str, directory: str, uri: str) -> None:
    """Serve the requests in one state and print what they took, as one line of JSON."""
    print(json.dumps(asyncio.run(measured(state, int(requests), directory, uri))))


if __name__ == "__main__":
    main(*sys.argv[1:])
