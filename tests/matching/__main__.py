"""The whole proof: `python -m tests.matching --programs 10000 --seed 1`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from tests.matching.guards import GUARDS, Guard
from tests.matching.process import clock_moves
from tests.matching.proof import Settings, Tally, again, run_batch, table, without_guards
from tests.matching.springs import NONE_OUT, wrong_without
from tests.matching.twins import ALL_KINDS, LIMITS
from tests.matching.worlds import WORLDS
from tests.support.server import running_server

FROZEN = 4
"""In one of so many batches it is the program that moves its time."""


def main() -> int:
    """Run the proof and print its table; the exit code tells whether an answer was wrong."""
    given = _arguments()
    if given.guards is not None:
        return _without_guards(given)
    if given.again:
        return _again(given)
    tally = run(given)
    _print(table(tally))
    _print("" if clock_moves() else "the clock was NOT moved: time-machine is not installed")
    for finding in tally.findings[: given.show]:
        _print(f"\nWRONG {finding}")
    for miss in tally.misses[: given.misses]:
        _print(f"\nMISSED {miss}")
    if given.keep:
        _keep(tally, Path(given.keep))
    return int(bool(tally.wrong))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.matching", description=__doc__)
    parser.add_argument("--programs", type=int, default=1000, help="how many programs")
    parser.add_argument("--first", type=int, default=0, help="the number of the first one")
    parser.add_argument("--seed", type=int, default=1, help="what the programs are made of")
    parser.add_argument("--twins", type=int, default=3, help="twins of each program")
    kinds = {"choices": ALL_KINDS, "metavar": "KIND", "default": []}
    parser.add_argument("--kind", action="append", help="only twins of this kind", **kinds)
    worlds = {"choices": WORLDS, "metavar": "WORLD", "default": []}
    parser.add_argument("--world", action="append", help="only programs of this world", **worlds)
    parser.add_argument("--batch", type=int, default=500, help="programs in one set of processes")
    parser.add_argument("--workers", type=int, default=2, help="batches at once, a server each")
    parser.add_argument("--show", type=int, default=5, help="wrong answers to print")
    parser.add_argument("--misses", type=int, default=0, help="misses of programs to print")
    parser.add_argument("--keep", help="a directory for every wrong answer and miss, as JSON")
    parser.add_argument("--again", help="try a file of --keep again, and show every call")
    parser.add_argument("--guard", help="take this guard out of the matcher")
    names = {"nargs": "*", "choices": [*(guard.name for guard in GUARDS), []], "metavar": "GUARD"}
    parser.add_argument("--guards", help="take each of these out in turn; all if empty", **names)
    return parser.parse_args()


def run(given: argparse.Namespace) -> Tally:
    """Run all batches, some at once."""
    last = given.first + given.programs
    batches = [
        range(start, min(start + given.batch, last))
        for start in range(given.first, last, given.batch)
    ]
    shares = [batches[worker :: given.workers] for worker in range(given.workers)]
    settings = Settings(
        "", given.seed, given.twins, tuple(given.kind), tuple(given.world), given.guard
    )
    total, started = Tally(), time.perf_counter()
    with ThreadPoolExecutor(given.workers) as pool:
        for tally in pool.map(lambda share: _share(settings, share), shares):
            total.add(tally)
    _print(f"{time.perf_counter() - started:.0f} s")
    return total


def _share(settings: Settings, batches: list[range]) -> Tally:
    total = Tally()
    for number, batch in enumerate(batches):
        frozen = number % FROZEN == FROZEN - 1
        with running_server() as server:  # a new one: what was stored once makes some slow
            tally = run_batch(replace(settings, uri=server.uri, frozen=frozen), batch)
        told = f"{batch.start} to {batch.stop - 1}: {tally.wrong} wrong"
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {told}\n")
        for finding in tally.findings:
            if finding.kind not in LIMITS:
                sys.stderr.write(f"WRONG {finding}\n")
        total.add(tally)
    return total


def _without_guards(given: argparse.Namespace) -> int:
    """Take out one guard after the other; each must lead to a wrong answer."""
    numbers = range(given.first, given.first + given.programs)
    named = [guard for guard in GUARDS if guard.name in (given.guards or guard.name)]
    kept = 0
    with running_server() as server:
        settings = Settings(server.uri, given.seed, given.twins)
        if not given.programs:
            return _over_traps(settings, named)
        for guard, tried, wrong in without_guards(settings, numbers, named):
            kept += not wrong
            nothing = "" if wrong else "   GUARDS NOTHING"
            _print(f"{guard.name:30} {len(wrong):>6} of {tried:>6} wrong{nothing}")
            for finding in wrong[: given.show]:
                _print(f"    {finding.kind}: program {finding.program['number']}\n{finding}")
    return int(bool(kept))


def _over_traps(settings: Settings, named: list[Guard]) -> int:
    with tempfile.TemporaryDirectory(prefix="matching") as directory:
        wrong = wrong_without(settings, named, Path(directory))
    for name, kinds in wrong.items():
        _print(f"{name:30} {', '.join(sorted(set(kinds))) or 'nothing'}")
    return int(any(bool(kinds) == (name == NONE_OUT) for name, kinds in wrong.items()))


def _again(given: argparse.Namespace) -> int:
    finding = json.loads(Path(given.again).read_text(encoding="utf-8"))
    with running_server() as server:
        _print(again(Settings(server.uri, given.seed, guard=given.guard), finding))
    return 0


def _keep(tally: Tally, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for kind, findings in (
        ("wrong", tally.findings),
        ("missed", tally.misses),
        ("noted", tally.noted),
    ):
        for number, finding in enumerate(findings):
            text = json.dumps(asdict(finding), indent=1, ensure_ascii=False)
            (directory / f"{kind}-{number}.json").write_text(text, encoding="utf-8")


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
