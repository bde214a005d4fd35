"""Other projects' own suites, run live, recorded, and replayed without a server.

    python -m tests.suites                        all suites in all ways, and the table
    python -m tests.suites NAME ...               some suites
    python -m tests.suites NAME --runs replay     some ways, after the others were run before
    python -m tests.suites --table                the table of what was run before
    python -m tests.suites NAME --lost            the tests that were lost, and in which ways
"""

from __future__ import annotations

import argparse
import sys

from tests.suites.engine import REPLAYS, RUNS, Proof, Run
from tests.suites.install import install
from tests.suites.table import SUITES

HEAD = ("suite", "tests", "pass live", "with calls", *(f"{run.name}" for run in REPLAYS),
        "live s", "record s", "replay s", "files", "MB")  # fmt: skip


def main(arguments: list[str]) -> int:
    """Run what is asked for; see above."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.suites",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--runs", nargs="+", choices=[run.name for run in RUNS], default=None)
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--lost", action="store_true", help="run nothing, list lost tests")
    asked = parser.parse_args(arguments)
    proofs = []
    for suite in SUITES:
        if asked.names and suite.name not in asked.names:
            continue
        proof = Proof(suite, install(suite))
        proof.load()
        proofs.append(proof)
        for run in () if asked.table or asked.lost else RUNS:
            if asked.runs is None or run.name in asked.runs:
                proof.do(run)
                say(told(proof, run.name))
    for proof in proofs:
        if asked.lost:
            tell_lost(proof)
    say(table(proofs))
    return int(any(proof.lost(run) for proof in proofs for run in done(proof)))


def told(proof: Proof, name: str) -> str:
    """One line on a run that has just ended."""
    result = proof.results[name]
    counts: dict[str, int] = {}
    for one in result.tests.values():
        counts[one.outcome] = counts.get(one.outcome, 0) + 1
    shown = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    lost = next((f", {len(proof.lost(run))} lost" for run in REPLAYS if run.name == name), "")
    sockets = f", {result.sockets} SOCKETS" if result.sockets else ""
    return f"{proof.suite.name}: {name}: {result.skipped or shown}{lost}{sockets} " \
        f"({result.seconds:.1f} s)"


def done(proof: Proof) -> list[Run]:
    """The replays that a suite has been through."""
    return [run for run in REPLAYS
            if run.name in proof.results and not proof.results[run.name].skipped]  # fmt: skip


def tell_lost(proof: Proof) -> None:
    """List lost tests with the ways they were lost in."""
    lost: dict[str, list[str]] = {}
    for run in done(proof):
        for node in proof.lost(run):
            one = proof.results[run.name].tests.get(node)
            what = f"{one.outcome}, {one.misses} misses" if one else "not run"
            lost.setdefault(node, []).append(f"{run.name} ({what})")
        for node in proof.failing_in_order(run):
            lost.setdefault(node, []).append(f"{run.name} (fails live in that order)")
    for node, ways in lost.items():
        say(f"{proof.suite.name}: {node}: {'; '.join(ways)}")


def table(proofs: list[Proof]) -> str:
    """The results as a table of Markdown."""
    rows = [HEAD, ("---",) * len(HEAD)]
    rows += [row(proof) for proof in proofs if "record" in proof.results]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def row(proof: Proof) -> tuple[str, ...]:
    """A suite's row; in the columns of replays, tests kept of those that were run."""
    results = proof.results
    files, size = proof.size()
    return (
        proof.suite.release.replace("==", " "),
        str(len(results["tried"].tests)),
        str(len(proof.passing())),
        str(len(proof.calling())),
        *(kept(proof, run) for run in REPLAYS),
        *(seconds(proof, name) for name in ("live", "record", "replay")),
        str(files),
        f"{size / 1e6:.1f}",
    )


def kept(proof: Proof, run: Run) -> str:
    """How many of the tests that pass live, in the order of a replay, are the same there."""
    if run not in done(proof):
        return "-"
    asked = len(proof.asked(run))
    return f"{asked - len(proof.lost(run))} of {asked}"


def seconds(proof: Proof, name: str) -> str:
    """How long a run took, and the processor's time that the suite itself used of it."""
    if name not in proof.results:
        return "-"
    result = proof.results[name]
    return f"{short(result.seconds)} ({short(result.processor)})"


def short(number: float) -> str:
    """A number with as many digits as tell something."""
    return f"{number:.1f}" if number < 10 else f"{number:.0f}"


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
