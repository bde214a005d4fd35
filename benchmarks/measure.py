"""How the benchmarks measure: CPU time, rounds of the things compared in turn, medians.

Machines are shared and clocks drift, so a figure means little alone: what is compared runs in
alternation within one run, and a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

ROOT = Path(__file__).resolve().parents[1]

Block: TypeAlias = Callable[[], object]
"""What is timed."""
Contender: TypeAlias = Callable[[], AbstractContextManager[Block]]
"""Sets up what a block needs, gives the block, and clears up; only the block is timed."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        name: what is measured.
        ours: Timetracer's figure, with its unit.
        other: what it is compared with, with its figure.
        figure: the ratio or the figure that the aim is about; None where nothing was measured.
        aim: such as "<= 1.05x", ">= 10x" or "<= 1 us"; "" for a row that only informs.
    """

    name: str
    ours: str
    other: str
    figure: float | None = None
    aim: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the aim is reached; None where there is none, or nothing was measured."""
        match = re.match(r"(<=|>=) ([\d.]+)", self.aim)
        if match is None or self.figure is None:
            return None
        limit = float(match[2])
        return self.figure <= limit if match[1] == "<=" else self.figure >= limit


@dataclass(frozen=True, slots=True)
class Costs:
    """What one contender took, a number for each round.

    Attributes:
        cpu: CPU time of this process, in seconds.
        wall: elapsed time, in seconds.
    """

    cpu: tuple[float, ...]
    wall: tuple[float, ...]


def in_turn(contenders: Sequence[Contender], rounds: int) -> list[Costs]:
    """Run the contenders in alternation.

    Args:
        contenders: the things to compare.
        rounds: how often each runs; one more round before them warms up and does not count.

    Returns:
        The costs of each contender.
    """
    measured = [[_cost(contender) for contender in contenders] for _ in range(rounds + 1)][1:]
    return [
        Costs(tuple(cpu for cpu, _ in column), tuple(wall for _, wall in column))
        for column in zip(*measured, strict=True)
    ]


def _cost(contender: Contender) -> tuple[float, float]:
    with contender() as block:
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        block()
        return time.process_time() - cpu, time.perf_counter() - wall


def ratio(ones: Sequence[float], others: Sequence[float]) -> float:
    """Return the median of the rounds' ratios."""
    pairs = zip(ones, others, strict=True)
    return median(one / other if other else float("inf") for one, other in pairs)


def printed_by(command: Sequence[str], directory: Path) -> Any:
    """Return the JSON that a process prints as its last line.

    Args:
        command: the program and its arguments.
        directory: where it runs.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def peak_memory() -> float:
    """Return the most memory that this process has had resident so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux ru_maxrss of a child starts at its parent's
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def micro(seconds: float) -> str:
    """Return a duration in microseconds, as text."""
    return f"{seconds * 1e6:.{2 if seconds < 1e-5 else 1}f} us"


def milli(seconds: float) -> str:
    """Return a duration in milliseconds, as text."""
    return f"{seconds * 1e3:.1f} ms"
