"""Measure everything in one run and print a table of ratios.

    python -m benchmarks [--quick] [--only calls|async|matching|web|find|events]
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata

from benchmarks.calls import pass_through, recording, replayed_find_one
from benchmarks.drivers import ASYNC, MOTOR, SYNC
from benchmarks.events import many_events
from benchmarks.matching import matching
from benchmarks.measure import Row
from benchmarks.reading import replayed_find
from benchmarks.web import requests_per_second
from tests.support.server import ServerMissing, running_server


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A row of the table of benchmarks.

    Attributes:
        group: its name for --only.
        run: measures it: (server's URI, size, rounds) -> rows.
        size: calls, documents, events or requests.
        rounds: rounds that count.
    """

    group: str
    run: Callable[[str, int, int], list[Row]]
    size: int
    rounds: int


def _alone(run: Callable[[int, int], list[Row]]) -> Callable[[str, int, int], list[Row]]:
    """Return a benchmark that asks for no server as one that takes its URI."""
    return lambda uri, size, rounds: run(size, rounds)


BENCHMARKS = (
    Benchmark("calls", _alone(partial(pass_through, SYNC)), 100_000, 9),
    Benchmark("calls", partial(recording, SYNC), 200, 15),
    Benchmark("calls", partial(replayed_find_one, SYNC), 500, 15),
    Benchmark("async", _alone(partial(pass_through, ASYNC)), 100_000, 9),
    Benchmark("async", partial(recording, ASYNC), 200, 15),
    Benchmark("async", partial(replayed_find_one, ASYNC), 500, 15),
    Benchmark("async", _alone(partial(pass_through, MOTOR)), 10_000, 9),
    Benchmark("async", partial(recording, MOTOR), 200, 15),
    Benchmark("async", partial(replayed_find_one, MOTOR), 500, 15),
    Benchmark("matching", _alone(matching), 100_000, 3),
    Benchmark("web", requests_per_second, 400, 5),
    Benchmark("find", replayed_find, 10_000, 9),
    Benchmark("events", _alone(many_events), 100_000, 3),
)
_QUICK = 10
_PACKAGES = ("pymongo", "motor", "fastapi", "mongomock")
_COLUMNS = ("", "Timetracer", "compared with", "ratio", "aim", "")


def measure(uri: str, only: str, quick: bool) -> Iterator[Row]:
    """Yield the rows of the benchmarks, as they are measured."""
    for benchmark in BENCHMARKS:
        if only in ("all", benchmark.group):
            size = max(1, benchmark.size // _QUICK) if quick else benchmark.size
            yield from benchmark.run(uri, size, 3 if quick else benchmark.rounds)


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [_COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    absolute = row.aim.endswith("us")
    shown = "-" if row.figure is None or absolute else f"{row.figure:.2f}x"
    reached = {True: "reached", False: "missed", None: ""}[row.reached]
    return row.name, row.ours, row.other, shown, row.aim, reached


def environment(kind: str) -> str:
    """Return what the figures were measured on."""
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return (
        f"{python}, {packages}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores; server: {kind}.\n"
        "Times are CPU time unless they are called live or elapsed; each figure is a median, and "
        "each ratio\nthe median of the rounds' ratios."
        + (
            "\nSecantusDB is slower than mongod, so ratios against live are kinder to Timetracer "
            "than they\nwould be against mongod."
            if kind == "SecantusDB"
            else ""
        )
    )


def main(arguments: list[str]) -> int:
    """Measure and print; 1 where no server can be had."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to try it out")
    groups = sorted({benchmark.group for benchmark in BENCHMARKS})
    parser.add_argument("--only", choices=["all", *groups], default="all")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore", DeprecationWarning)
    try:
        with running_server() as server:
            rows = list(measure(server.uri, given.only, given.quick))
            kind = server.kind
    except ServerMissing as missing:
        print(f"benchmarks: {missing}", file=sys.stderr)
        return 1
    print(table(rows), environment(kind), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
