"""A suite that repeats itself: its files and its time, live, recorded and replayed.

    python -m benchmarks.suite [--quick] [--rounds N] [--only find|clean|idle]

Three suites are generated: one whose tests each read many documents, one whose fixture deletes what
is in many collections before and after each test, and one whose tests make no calls. Each run is a
pytest process of its own, as it would be in use, and has a server of its own, since one that has
stored much is slower. A round runs live, recording and replaying in turn, once as it is and once
with nothing shared between cassettes, and each ratio is the median of the rounds' ratios to live.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median

from benchmarks.measure import ROOT, ratio
from tests.suites.install import load_once, plain_environment
from tests.support.server import ServerMissing, running_server

DATABASE = "timetracer_benchmark_suite"
NO_SERVER = "mongodb://localhost:1"

CONFTEST = f"""
    import os
    import pytest
    from pymongo import MongoClient

    if os.environ["BENCHMARK_SHARES"] == "no":
        from timetracer import shared_parts
        shared_parts.LEAST_EVENTS = shared_parts.LEAST_BYTES = 10**12

    @pytest.fixture(scope="session")
    def db():
        with MongoClient(os.environ["BENCHMARK_URI"]) as client:
            client.drop_database("{DATABASE}")
            yield client["{DATABASE}"]
            client.drop_database("{DATABASE}")
"""

FIND = """
    import pytest

    @pytest.fixture(scope="session")
    def orders(db):
        made = [
            {{"_id": n, "customer": f"customer {{n % 97}}", "total": n * 1.25, "open": n % 3 == 0,
              "lines": [{{"sku": f"A-{{n % 13}}", "count": n % 5}}, {{"sku": "B-1", "count": 1}}]}}
            for n in range({size})
        ]
        db.orders.insert_many(made)
        return db.orders

    @pytest.mark.parametrize("number", range({tests}))
    def test_report(orders, number):
        found = list(orders.find({{}}))
        assert sum(one["_id"] == number for one in found) == 1
        assert orders.count_documents({{"customer": f"customer {{number}}"}}) > 0
"""

CLEAN = """
    import pytest

    @pytest.fixture(autouse=True)
    def clean(db):
        for number in range({size}):
            db[f"collection_{{number}}"].delete_many({{}})
        yield
        for number in range({size}):
            db[f"collection_{{number}}"].delete_many({{}})

    @pytest.mark.parametrize("number", range({tests}))
    def test_order(db, number):
        orders = db[f"collection_{{number % {size}}}"]
        made = orders.insert_one({{"number": number, "state": "new"}}).inserted_id
        orders.update_one({{"_id": made}}, {{"$set": {{"state": "paid"}}}})
        assert orders.find_one({{"_id": made}})["state"] == "paid"
"""


IDLE = """
    import pytest

    @pytest.mark.parametrize("number", range({tests}))
    def test_sum(number):
        assert sum(range(number)) == number * (number - 1) // 2
"""


@dataclass(frozen=True, slots=True)
class Generated:
    """A suite that is generated.

    Attributes:
        name: its name for --only.
        text: the test file.
        tests: how many tests it has.
        size: how much each test repeats.
        told: what that is.
    """

    name: str
    text: str
    tests: int
    size: int
    told: str


SUITES = (
    Generated("find", FIND, 50, 10_000, "{tests} tests that each find {size} documents"),
    Generated("clean", CLEAN, 600, 100, "{tests} tests with {size} deletes before and after each"),
    Generated("idle", IDLE, 3_000, 0, "{tests} tests without calls"),
)
_QUICK = 10
_PASSED = re.compile(r"(\d+) passed")


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of pytest: elapsed and CPU time in seconds, and the files and bytes it left."""

    wall: float
    cpu: float
    files: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Round:
    """The runs of one round: recording and replaying, by whether cassettes share."""

    live: Ran
    recorded: dict[bool, Ran]
    replayed: dict[bool, Ran]


def measure(suite: Generated, rounds: int, quick: bool) -> list[Round]:
    """Run a suite in all ways, in turn.

    Args:
        suite: the suite.
        rounds: rounds that count.
        quick: whether it has a tenth of its tests.

    Raises:
        RuntimeError: a test failed.
        ServerMissing: no server can be had.
    """
    tests = suite.tests // _QUICK if quick else suite.tests
    with tempfile.TemporaryDirectory() as place:
        text = textwrap.dedent(suite.text).format(tests=tests, size=suite.size)
        Path(place, "test_it.py").write_text(text, encoding="utf-8")
        Path(place, "conftest.py").write_text(textwrap.dedent(CONFTEST), encoding="utf-8")
        Path(place, "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        load_once(sys.executable, Path(place), _environment())
        return [_round(Path(place), tests) for _ in range(rounds)]


def _round(place: Path, tests: int) -> Round:
    live = _run(place, "off", tests)
    recorded, replayed = {}, {}
    for shares in (False, True):
        shutil.rmtree(place / "cassettes", ignore_errors=True)
        recorded[shares] = _run(place, "record", tests, shares=shares)
        replayed[shares] = _run(place, "replay", tests, shares=shares)
    return Round(live, recorded, replayed)


def _environment(**more: str) -> dict[str, str]:
    return {**plain_environment(), "PYTHONPATH": str(ROOT), **more}


def _run(place: Path, mode: str, tests: int, *, shares: bool = True) -> Ran:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    with contextlib.nullcontext() if mode == "replay" else running_server() as server:
        environment = _environment(
            BENCHMARK_URI=NO_SERVER if server is None else server.uri,
            BENCHMARK_SHARES="yes" if shares else "no",
        )
        cpu, wall = _children_cpu(), time.perf_counter()
        done = subprocess.run(
            [*command, f"--timetracer={mode}", "."],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
        )
        wall, cpu = time.perf_counter() - wall, _children_cpu() - cpu
    passed = _PASSED.search(done.stdout)
    if done.returncode or passed is None or int(passed[1]) != tests:
        raise RuntimeError(f"--timetracer={mode} did not pass:\n{done.stdout}{done.stderr}")
    files = [file for file in Path(place, "cassettes").rglob("*") if file.is_file()]
    return Ran(wall, cpu, len(files), sum(file.stat().st_size for file in files))


def _children_cpu() -> float:
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(suite: Generated, rounds: list[Round], quick: bool) -> Iterator[str]:
    """Yield the lines of a suite's table."""
    tests = suite.tests // _QUICK if quick else suite.tests
    live = [one.live for one in rounds]
    yield suite.told.format(tests=tests, size=f"{suite.size:,}")
    yield f"live: {median(run.wall for run in live):.1f} s, CPU {median(r.cpu for r in live):.1f} s"
    yield "| | files | MB | record / live | replay / live | record CPU | replay CPU |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for shares, name in ((False, "nothing shared"), (True, "shared")):
        recorded = [one.recorded[shares] for one in rounds]
        replayed = [one.replayed[shares] for one in rounds]
        cells = (
            name,
            f"{recorded[-1].files:,}",
            f"{recorded[-1].size / 1e6:.2f}",
            _against(recorded, live),
            _against(replayed, live),
            f"{median(run.cpu for run in recorded):.1f} s",
            f"{median(run.cpu for run in replayed):.1f} s",
        )
        yield f"| {' | '.join(cells)} |"


def _against(runs: list[Ran], live: list[Ran]) -> str:
    walls = [run.wall for run in runs]
    return f"{ratio(walls, [run.wall for run in live]):.2f}x ({median(walls):.1f} s)"


def main(arguments: list[str]) -> int:
    """Measure and print; 1 where no server can be had."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suite", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the tests")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=[suite.name for suite in SUITES])
    given = parser.parse_args(arguments)
    try:
        for suite in SUITES:
            if given.only in (None, suite.name):
                rounds = measure(suite, given.rounds, given.quick)
                print("\n".join(table(suite, rounds, given.quick)), end="\n\n", flush=True)
    except ServerMissing as missing:
        print(f"benchmarks: {missing}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
