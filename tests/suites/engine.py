"""A suite live, recorded, and replayed in each of several ways, its outcomes told test by test.

`RUNS` is the table of the ways. What fails when it is tried live is left out from then on. Live and
recorded runs have a fresh server on port 27017, where suites look for one; replays have none there,
and no socket is opened to it. Tests of some suites leave things to each other: what is replayed in
another order is compared with a live run in that order, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.suites.install import Installed, plain_environment
from tests.suites.table import Suite
from tests.support.offline import GUARD, Rules, attempts, guarded
from tests.support.server import running_server

PORT = 27017
OBSERVER = Path(__file__).resolve().parent / "observer"
LATER = Path(__file__).resolve().parent / "later.c"
LONGEST_SECONDS = 3600
PASSES = ("passed", "xfailed")
FAILS = ("failed", "error", "none")


@dataclass(frozen=True, slots=True)
class Run:
    """A row of the table: one way to run a suite.

    Attributes:
        name: what it is called.
        mode: the mode of Timetracer; "" for none.
        order: what the observer orders tests by; "" for the suite's own order.
        every: 7 to run each seventh test alone, in a process of its own; 0 for all in one.
        options: further options of pytest.
        environment: further variables.
        later: whether it takes place a day later.
        beside: the live run in the same order, if it is not the suite's own.
    """

    name: str
    mode: str = "replay"
    order: str = ""
    every: int = 0
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    later: bool = False
    beside: str = ""


RUNS = (
    Run("tried", mode=""),
    Run("live", mode=""),
    Run("record", mode="record"),
    Run("replay"),
    Run("live reversed", mode="", order="reverse"),
    Run("reversed", order="reverse", beside="live reversed"),
    Run("live shuffled", mode="", order="a shuffle"),
    Run("shuffled", order="a shuffle", beside="live shuffled"),
    Run("alone", every=7),
    Run("hash seed", environment={"PYTHONHASHSEED": "7"}),
    Run("a day later", later=True),
    Run("xdist", options=("-n", "4")),
)
REPLAYS = tuple(run for run in RUNS if run.mode == "replay")


@dataclass(slots=True)
class Outcome:
    """What became of a test.

    Attributes:
        outcome: "passed", "failed", "error", "skipped", "xfailed" or "xpassed".
        misses: calls that were not answered, also where the test passed.
        events: calls that were recorded.
    """

    outcome: str
    misses: int = 0
    events: int = 0


@dataclass(slots=True)
class Result:
    """What became of one run.

    Attributes:
        tests: node id -> what became of the test.
        seconds: how long it took, all in all.
        processor: the processor's time of the suite's processes, in seconds, the server apart.
        sockets: connections to the server's port that were tried in a replay.
        skipped: why it was not run; "" if it was.
    """

    tests: dict[str, Outcome] = field(default_factory=dict)
    seconds: float = 0.0
    processor: float = 0.0
    sockets: int = 0
    skipped: str = ""


class Proof:
    """One suite and what its runs came to.

    Args:
        suite: the row.
        installed: where it is.
        port: where the suite looks for a server.
    """

    def __init__(self, suite: Suite, installed: Installed, *, port: int = PORT) -> None:
        self.suite = suite
        self.installed = installed
        self.port = port
        self.work = self.installed.place / "work"
        self.work.mkdir(exist_ok=True)
        self.cassettes = self.work / "cassettes"
        self.results: dict[str, Result] = {}

    def load(self) -> None:
        """Read what earlier runs came to."""
        with contextlib.suppress(FileNotFoundError):
            told = json.loads((self.work / "results.json").read_text(encoding="utf-8"))
            for name, result in told.items():
                tests = {node: Outcome(**one) for node, one in result.pop("tests").items()}
                self.results[name] = Result(tests, **result)

    def keep(self) -> None:
        """Write what the runs came to, for `load`."""
        told = {name: asdict(result) for name, result in self.results.items()}
        (self.work / "results.json").write_text(json.dumps(told, indent=1), encoding="utf-8")

    def do(self, run: Run) -> Result:
        """Run the suite in one way."""
        if run.mode == "record":
            shutil.rmtree(self.cassettes, ignore_errors=True)
        replays = run.mode == "replay"
        live = running_server(self.port, text_indexes=self.suite.text_indexes)
        with contextlib.nullcontext() if replays else live as server:
            assert server is None or server.ours, "unset MONGODB_URI: suites look on localhost"
            result = self._alone(run) if run.every else self._whole(run)
        self.results[run.name] = result
        self.keep()
        return result

    def _whole(self, run: Run) -> Result:
        return self._pytest(run, run.name.replace(" ", "-"), self.suite.tests, {})

    def _alone(self, run: Run) -> Result:
        """Run some tests, each in a process of its own."""
        chosen = self.passing()[:: run.every]

        def one(number: int) -> Result:
            node = chosen[number]
            name = f"{run.name}/{number}"
            only = self._file(f"{name}.only.json", [node])
            return self._pytest(run, name, self._file_of(node), {"OBSERVER_ONLY": only})

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            began = time.monotonic()
            parts = list(pool.map(one, range(len(chosen))))
        whole = Result(seconds=time.monotonic() - began)
        for part in parts:
            whole.tests.update(part.tests)
            whole.sockets += part.sockets
        for node in chosen:
            whole.tests.setdefault(node, Outcome("none"))
        return whole

    def _file_of(self, node: str) -> tuple[str, ...]:
        """The file of a test; all where the suite calls its tests otherwise."""
        file = node.partition("::")[0]
        return (file,) if (self.installed.source / file).exists() else self.suite.tests

    def _pytest(
        self, run: Run, name: str, tests: tuple[str, ...], environment: dict[str, str]
    ) -> Result:
        report = self.work / f"{name}.report.jsonl"
        report.parent.mkdir(parents=True, exist_ok=True)
        report.unlink(missing_ok=True)
        command = [self.installed.python, "-m", "pytest", "--rootdir=.", "-q", "--maxfail=0"]
        command += ["--continue-on-collection-errors"]
        command += ["-p", "suite_observer", "-p", "no:cacheprovider", *self.suite.options, *tests]
        if run.mode:
            command += [f"--timetracer={run.mode}", f"--timetracer-cassette-dir={self.cassettes}"]
        environment = {
            **plain_environment(),
            **self.suite.environment,
            **run.environment,
            **environment,
            "OBSERVER_REPORT": str(report),
        }
        if run.order:
            environment["OBSERVER_ORDER"] = run.order
        if run.name != "tried":
            environment["OBSERVER_SKIP"] = self._file(f"{name}.skip.json", self.failing())
        if run.later:
            if shutil.which("cc") is None:
                return Result(skipped="there is no C compiler")
            environment["LD_PRELOAD"] = _later(self.work)
        path = [str(OBSERVER), *self.installed.path]
        guard = self.work / f"{name}.guard.jsonl"
        guard.unlink(missing_ok=True)
        if run.mode == "replay":
            rules = Rules(ports=(self.port,), dns=False, threads="none")
            environment.update(guarded(guard, rules))
            path.insert(0, str(GUARD))
        environment["PYTHONPATH"] = os.pathsep.join(path)
        began, used = time.monotonic(), _processor_seconds()
        with open(self.work / f"{name}.log", "w", encoding="utf-8") as log:
            ended = _run([*command, *run.options], self.installed.source, environment, log)
        result = Result(
            _read(report), time.monotonic() - began, processor=_processor_seconds() - used
        )
        if ended < 0 or not (result.tests or run.every):
            raise RuntimeError(
                f"{self.suite.name}: {run.name} ended with {ended} after {len(result.tests)} "
                f"tests: see {self.work / name}.log"
            )
        if run.mode == "replay":
            result.sockets = len(attempts(guard))
        return result

    def _file(self, name: str, told: Any) -> str:
        path = self.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(told), encoding="utf-8")
        return str(path)

    # ------------------------------------------------------------------------- what they tell

    def passing(self) -> list[str]:
        """The tests that passed live, both times."""
        return [node for node, one in self.results["live"].tests.items() if one.outcome in PASSES]

    def failing(self) -> list[str]:
        """The tests that failed when they were tried live."""
        return [node for node, one in self.results["tried"].tests.items() if one.outcome in FAILS]

    def calling(self) -> list[str]:
        """The tests that passed live and make database calls."""
        recorded = self.results["record"].tests
        return [node for node in self.passing() if node in recorded and recorded[node].events]

    def asked(self, run: Run) -> list[str]:
        """The tests that a replay made, or should have, and that pass live in its order, too."""
        tests, beside = self.results[run.name].tests, self.failing_in_order(run)
        return [
            node
            for node in self.passing()
            if node not in beside and (not run.every or node in tests)
        ]

    def failing_in_order(self, run: Run) -> list[str]:
        """The tests that pass live in the suite's own order and not in that of a replay."""
        if run.beside not in self.results:
            return []
        live = self.results[run.beside].tests
        return [node for node in self.passing()
                if node not in live or live[node].outcome not in PASSES]  # fmt: skip

    def lost(self, run: Run) -> list[str]:
        """The tests that passed live and did not in a run, or had a miss there."""
        live, tests = self.results["live"].tests, self.results[run.name].tests
        return [
            node
            for node in self.asked(run)
            if node not in tests
            or tests[node].outcome != live[node].outcome
            or tests[node].misses
        ]

    def size(self) -> tuple[int, int]:
        """How many files the cassettes are, and their bytes."""
        files = [path for path in self.cassettes.rglob("*") if path.is_file()]
        return len(files), sum(path.stat().st_size for path in files)


def _later(place: Path) -> str:
    library = place / "later.so"
    command = ["cc", "-shared", "-fPIC", "-o", str(library), str(LATER), "-ldl"]
    subprocess.run(command, check=True)
    return str(library)


def _run(command: list[str], place: Path, environment: dict[str, str], log: Any) -> int:
    """Run a command to its end and return its exit code."""
    process = subprocess.Popen(
        command,
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return process.wait(LONGEST_SECONDS)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def _processor_seconds() -> float:
    """Return the time of the processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _read(report: Path) -> dict[str, Outcome]:
    if not report.exists():
        return {}
    return dict(_lines(report))


def _lines(report: Path) -> Iterator[tuple[str, Outcome]]:
    for line in report.read_text(encoding="utf-8").splitlines():
        told = json.loads(line)
        yield told.pop("node"), Outcome(**told)
