"""Many small events: written, loaded and taken, beside the published timetracer 1.6.0.

Both record the same calls of a `find_one` that answers at no cost. Each phase runs in a process of
its own, for its peak of memory:

    python -m benchmarks.events write EVENTS DIRECTORY
    python -m benchmarks.events load EVENTS DIRECTORY
    python -m benchmarks.events take EVENTS DIRECTORY
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import ROOT, Row, peak_memory, printed_by, ratio

PUBLISHED = ROOT / ".venv-published"
PACKAGES = ("timetracer==1.6.0", "pymongo", "requests", "httpx", "flask")
_URI = "mongodb://nowhere.invalid"


# ------------------------------------------------------------------------------- the rows


def many_events(events: int, rounds: int) -> list[Row]:
    """Return what many events cost.

    Args:
        events: how many.
        rounds: rounds that count.
    """
    python, missing = published_python()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        measured = [
            _round(place / str(number), events, python) for number in range(rounds)
        ]
        taken = [_take(place / str(size), size) for size in _sizes(events)]
    compared = [_compared(figure, events, measured, missing) for figure in _FIGURES]
    return [*compared, *_taken(taken)]


def _sizes(events: int) -> list[int]:
    return sorted({max(1, events // 1000), max(1, events // 10), events})


def _round(place: Path, events: int, python: str | None) -> dict[tuple[str, str], Any]:
    ours, theirs = str(place / "ours"), str(place / "published")
    measured = {}
    for work in ("write", "load"):
        measured["ours", work] = _run_ours(work, events, ours)
        if python is not None:
            script = str(ROOT / "benchmarks" / "published.py")
            measured["published", work] = printed_by(
                [python, "-I", script, work, str(events), theirs], ROOT
            )
    return measured


@dataclass(frozen=True, slots=True)
class _Figure:
    """One figure that both are compared by: `key` of what the process of `work` printed."""

    name: str
    work: str
    key: str
    unit: str
    aim: str = ""

    def shown(self, values: list[float]) -> str:
        return f"{median(values):.{2 if self.unit == 's' else 0}f} {self.unit}"


_FIGURES = (
    _Figure("recorded, CPU", "write", "recorded", "s"),
    _Figure("written, CPU", "write", "written", "s", ">= 5x faster"),
    _Figure("recorded and written, CPU", "write", "cpu", "s", ">= 5x faster"),
    _Figure("recorded and written, peak memory", "write", "memory", "MB", ">= 3x less"),
    _Figure("loaded, CPU", "load", "cpu", "s", ">= 5x faster"),
    _Figure("loaded, peak memory", "load", "memory", "MB", ">= 3x less"),
)


def _compared(
    figure: _Figure, events: int, measured: list[dict[tuple[str, str], Any]], missing: str
) -> Row:
    name = f"{events:,} events {figure.name}"
    ours = [found["ours", figure.work][figure.key] for found in measured]
    if missing:
        return Row(name, figure.shown(ours), missing, None, figure.aim)
    theirs = [found["published", figure.work][figure.key] for found in measured]
    other = f"timetracer 1.6.0 {figure.shown(theirs)}"
    return Row(name, figure.shown(ours), other, ratio(theirs, ours), figure.aim)


def _take(place: Path, events: int) -> dict[str, Any]:
    _run_ours("write", events, str(place))
    found = _run_ours("take", events, str(place))
    return {"events": events, **found}


def _taken(taken: list[dict[str, Any]]) -> list[Row]:
    first, last = taken[0], taken[-1]
    rows = [
        Row(
            f"taken, each of {found['events']:,} events",
            f"{found['each'] * 1e6:.1f} us",
            f"the first, with the index {found['first'] * 1e3:.1f} ms",
        )
        for found in taken[:-1]
    ]
    rows.append(
        Row(
            f"taken, each of {last['events']:,} events",
            f"{last['each'] * 1e6:.1f} us",
            f"each of {first['events']:,} events {first['each'] * 1e6:.1f} us",
            last["each"] / first["each"],
            "<= 1.5x",
        )
    )
    return rows


def published_python() -> tuple[str | None, str]:
    """Return the Python of an environment with the published package, made where there is none.

    Returns:
        Its path and "", or None and why it cannot be had.
    """
    places = ("Scripts", "python.exe") if sys.platform == "win32" else ("bin", "python")
    python = PUBLISHED.joinpath(*places)
    check = [str(python), "-I", "-c", "import timetracer.cassette.io, timetracer.plugins, pymongo"]
    if python.exists() and subprocess.run(check, capture_output=True).returncode == 0:
        return str(python), ""
    steps = (
        [sys.executable, "-m", "venv", "--clear", str(PUBLISHED)],
        [str(python), "-m", "pip", "install", "--quiet", *PACKAGES],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            return None, f"timetracer 1.6.0 cannot be installed: {' '.join(last)[:100]}"
    return str(python), ""


def _run_ours(work: str, events: int, directory: str) -> Any:
    command = [sys.executable, "-m", "benchmarks.events", work, str(events), directory]
    return printed_by(command, ROOT)


# ------------------------------------------------------------------------------- the processes


def write(collection: Any, events: int, path: Path) -> dict[str, float]:
    """Record the calls as those of one request, and write its cassette."""
    from timetracer import TraceConfig
    from timetracer.model import RequestRecord
    from timetracer.opening import open_request

    config = TraceConfig(mode="record", cassette=str(path)).resolve()
    session = open_request(config, RequestRecord("GET", "/users"))
    assert session is not None
    started = time.process_time()
    with session.entered():
        for number in range(events):
            collection.find_one({"_id": number})
    recorded = time.process_time()
    assert session.finish() is not None
    return {"recorded": recorded - started, "written": time.process_time() - recorded}


def load(collection: Any, events: int, path: Path) -> dict[str, float]:
    """Read the cassette."""
    from timetracer import use_cassette

    with use_cassette(path, mode="replay") as session:
        assert session.cassette is not None
        assert len(session.cassette.events) == events
    return {}


def take(collection: Any, events: int, path: Path) -> dict[str, float]:
    """Replay the calls, in the recorded order."""
    from timetracer import use_cassette

    with use_cassette(path, mode="replay"):
        started = time.process_time()
        collection.find_one({"_id": 0})
        first = time.process_time() - started
        started = time.process_time()
        for number in range(1, events):
            collection.find_one({"_id": number})
        rest = time.process_time() - started
    return {"first": first, "each": rest / max(1, events - 1)}


def _stand_in() -> Any:
    """Return a collection whose `find_one` answers at no cost, as a server would."""
    import bson
    from pymongo import MongoClient
    from pymongo.collection import Collection

    from timetracer.session import CURRENT

    def find_one(self: Any, filter: Any = None, *args: Any, **kwargs: Any) -> Any:
        found = {"_id": filter["_id"], "name": f"name {filter['_id']}", "seen": True}
        reply = {"cursor": {"firstBatch": [found], "id": 0, "ns": "shop.users"}, "ok": 1.0}
        CURRENT.get().payload = bson.encode(reply)  # type: ignore[union-attr]
        return found

    Collection.find_one = find_one  # type: ignore[assignment, method-assign]
    return MongoClient(_URI, connect=False).shop.users


def main(work: str, events: str, directory: str) -> None:
    """Do one phase and print what it took, as one line of JSON."""
    from timetracer.plugins import enable_pymongo

    collection = _stand_in()
    enable_pymongo()
    path = Path(directory, "users.json")
    gc.collect()
    before, started = peak_memory(), time.process_time()
    found = {"write": write, "load": load, "take": take}[work](collection, int(events), path)
    cpu = time.process_time() - started
    print(json.dumps({"cpu": cpu, "memory": peak_memory() - before, **found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
