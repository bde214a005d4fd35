"""The published timetracer 1.6.0 at the same work; run by its own environment's Python.

    python published.py write EVENTS DIRECTORY
    python published.py load EVENTS DIRECTORY

Prints one line of JSON: CPU seconds, and what the peak of memory grew by, in MB.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.collection import Collection


def peak_memory() -> float:
    """Return the most memory that this process has had resident so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def answer(self: Any, filter: Any = None, *args: Any, **kwargs: Any) -> Any:
    """Stand for a live `find_one`, at no cost."""
    number = filter["_id"]
    return {"_id": number, "name": f"name {number}", "seen": True}


def write(events: int, directory: str) -> dict[str, float]:
    """Record the calls and write the cassette."""
    from timetracer.cassette.io import write_cassette
    from timetracer.config import TraceConfig
    from timetracer.context import set_session
    from timetracer.session import TraceSession

    config = TraceConfig(mode="record", cassette_dir=directory)
    session = TraceSession(config=config)
    set_session(session)
    collection = MongoClient("mongodb://nowhere.invalid", connect=False).shop.users
    started = time.process_time()
    for number in range(events):
        collection.find_one({"_id": number})
    recorded = time.process_time()
    write_cassette(session, config)
    return {"recorded": recorded - started, "written": time.process_time() - recorded}


def load(events: int, directory: str) -> dict[str, float]:
    """Read the cassette."""
    from timetracer.cassette.io import read_cassette

    cassette = read_cassette(str(next(Path(directory).rglob("*.json"))))
    assert len(cassette.events) == events
    return {}


def main(work: str, events: str, directory: str) -> None:
    from timetracer.plugins.pymongo_plugin import enable_pymongo

    Collection.find_one = answer  # type: ignore[assignment, method-assign]
    enable_pymongo()
    gc.collect()
    before, started = peak_memory(), time.process_time()
    found = {"write": write, "load": load}[work](int(events), directory)
    cpu = time.process_time() - started
    print(json.dumps({"cpu": cpu, "memory": peak_memory() - before, **found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
