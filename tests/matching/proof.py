"""The proof: programs are recorded, replayed elsewhere, and their twins held against a live server.

A batch of programs takes a few processes, one after the other:

    record    makes every program's calls on the server, each with a cassette of its own
    replay    (once for the programs, once for each round of twins) another process, with another
              hash seed, on another day, where connections, DNS and the driver's threads are refused
    live      makes the calls that a twin's replay answered, on a clean server, with no Timetracer

A program must replay as it was recorded. A twin's replay must miss, or answer as live did.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.matching.guards import IN_BOTH, Guard
from tests.matching.runner import HOLDERS, Program
from tests.matching.traps import each_alone, program
from tests.matching.twins import LIMITS, MUST_MISS, Twin, calls_of, twins
from tests.matching.worlds import MOVED, WORLDS
from tests.support.offline import Rules, run_offline, run_program

PROCESS = "from tests.matching.process import main; main()"
CLOCK = MOVED - 0.012346
"""Seconds between a recording process's start and that of the replaying one, by their clocks."""

OFFLINE = Rules(threads="driver")
"""Programs start threads of their own; the driver may start none."""

LIVE_AGAIN = 2
"""How often a wrong answer's live run is made again, to see that the server says the same."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is proved.

    Attributes:
        uri: the server.
        seed: what all programs are made of.
        twins: how many twins each program has.
        kinds: only twins of these kinds; all of them if empty.
        worlds: only programs of these worlds; all of them if empty.
        guard: the guard that is taken out of the matcher, None for none.
        frozen: whether the replaying program moves its time itself, rather than run on another day.
    """

    uri: str
    seed: int = 1
    twins: int = 3
    kinds: tuple[str, ...] = ()
    worlds: tuple[str, ...] = ()
    guard: str | None = None
    frozen: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """A wrong answer, or a program that did not replay.

    Attributes:
        kind: the kind of difference; "" for the program itself.
        program: the program that was replayed.
        call: the number of the call that was answered wrongly, or missed.
        expected: what it gave on the server.
        got: what the replay gave.
        recorded: the program that was recorded.
    """

    kind: str
    program: Program
    call: int
    expected: str
    got: str
    recorded: Program

    def __str__(self) -> str:
        call = next(call for call in calls_of(self.program) if call["id"] == self.call)
        name = f"program {self.program['number']}, call {self.call}"
        lines = [f"{name}: {self.kind or 'as recorded'}", f"  asked     {_short(call)}"]
        old = next(call for call in calls_of(self.recorded) if call["id"] == self.call)
        lines += [f"  recorded  {_short(old)}"] if old != call else []
        return "\n".join([*lines, f"  expected  {self.expected}", f"  got       {self.got}"])


def _short(call: dict[str, Any]) -> str:
    if call["op"] in HOLDERS:
        return f"{call['op']} {call.get('end', '')}"
    return f"{call['op']} {json.dumps(call['coll'])} {json.dumps(call['args'])}"


@dataclass(slots=True)
class Row:
    """What became of one kind of difference.

    Attributes:
        programs: twins that were replayed.
        early: of these, missed before the call that differs, or wrong where the program itself is
            already, so that nothing was tried.
        missed: missed at that call or a later one.
        right: answered, every call as live.
        let_through: where the call that differs was itself answered, rightly or wrongly.
        wrong: answered other than live.
    """

    programs: int = 0
    early: int = 0
    missed: int = 0
    right: int = 0
    let_through: int = 0
    wrong: int = 0

    def add(self, other: Row) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class Tally:
    """What was found.

    Attributes:
        programs, calls, same, missed, differ: of the programs as recorded: how many, their calls,
            replayed the same, with a miss, with another answer.
        missed_at: operation -> programs that first missed there.
        careful: of those that missed, programs that order by values, or compute with them, that
            were bound by their look alone: the matcher refuses, as the answer may be another.
        levels: level -> calls of the programs that it answered.
        worlds: world -> programs that replayed the same, and all of it.
        rows: kind of difference -> what became of it.
        undetermined: twins that even the server does not answer twice the same.
        findings: wrong answers.
        misses: programs that missed.
        noted: twins that were rightly let through though they only ask for something else, and
            undetermined ones.
        seconds: stage -> time taken.
    """

    programs: int = 0
    calls: int = 0
    same: int = 0
    missed: int = 0
    differ: int = 0
    careful: int = 0
    undetermined: int = 0
    missed_at: Counter[str] = field(default_factory=Counter)
    levels: Counter[str] = field(default_factory=Counter)
    worlds: Counter[tuple[str, bool]] = field(default_factory=Counter)
    rows: dict[str, Row] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    misses: list[Finding] = field(default_factory=list)
    noted: list[Finding] = field(default_factory=list)
    seconds: Counter[str] = field(default_factory=Counter)

    def row(self, kind: str) -> Row:
        return self.rows.setdefault(kind, Row())

    def add(self, other: Tally) -> None:
        """Count another tally in."""
        for name in (
            "programs", "calls", "same", "missed", "differ", "careful", "undetermined"
        ):  # fmt: skip
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.missed_at.update(other.missed_at)
        self.levels.update(other.levels)
        self.worlds.update(other.worlds)
        self.seconds.update(other.seconds)
        self.findings += other.findings
        self.misses += other.misses
        self.noted += other.noted
        for kind, row in other.rows.items():
            self.row(kind).add(row)

    @property
    def wrong(self) -> int:
        """Wrong answers, but for those within a documented limit."""
        return self.differ + sum(r.wrong for kind, r in self.rows.items() if kind not in LIMITS)


# ------------------------------------------------------------------------------- processes


@dataclass(frozen=True, slots=True)
class Desk:
    """Where a batch's jobs, traces and cassettes lie, and when its recording began."""

    directory: Path
    settings: Settings
    tally: Tally
    flawed: set[tuple[int, int]] = field(default_factory=set)
    recorded: dict[str, float] = field(default_factory=dict)

    def with_guard(self, name: str | None, kinds: tuple[str, ...] = ()) -> Desk:
        """The same recordings, to be replayed without a guard; a tally of its own."""
        bare = replace(self.settings, guard=name, kinds=kinds)
        return replace(self, settings=bare, tally=Tally(), flawed=set())

    def cassettes(self, written: Program, recording: str = "first") -> list[str]:
        """Where a program's cassettes lie: in a directory of their own if others there answer."""
        world = WORLDS[written["world"]]
        place = self.directory / (recording if world.twice else "")
        if world.alone:
            place /= str(written["number"])
        place.mkdir(parents=True, exist_ok=True)
        names = [f"{written['number']}.{number}.json" for number in range(world.cassettes)]
        return [str(place / name) for name in names]

    def job(self, key: str, written: Program, **more: Any) -> dict[str, Any]:
        """What a process is to do with a program."""
        return {"key": key, "program": written, "cassettes": self.cassettes(written), **more}

    def run(self, stage: str, name: str, jobs: list[dict[str, Any]]) -> dict[str, Any]:
        """Do jobs in a process of their own and return their traces by key."""
        if not jobs:
            return {}
        started = time.perf_counter()
        if stage == "record":
            self.recorded["at"] = time.time()
        source, target = (self.directory / f"{name}.{kind}.jsonl" for kind in ("jobs", "traces"))
        source.write_text("".join(json.dumps(job) + "\n" for job in jobs), encoding="utf-8")
        run = run_offline if stage == "replay" else run_program
        more = {"rules": OFFLINE} if stage == "replay" else {}
        env = self._environment(stage, name)
        arguments = (stage, str(source), str(target))
        result = run(PROCESS, *arguments, env=env, timeout=1800, **more)  # type: ignore[operator]
        assert stage != "record" or "timetracer:" not in result.stderr, result.stderr[-4000:]
        self.tally.seconds[stage] += time.perf_counter() - started
        lines = target.read_text(encoding="utf-8").splitlines()
        return {trace["key"]: trace for trace in map(json.loads, lines)}

    def learn(self) -> None:
        """Run `timetracer learn` on the two recordings."""
        command = "import sys; from timetracer.__main__ import main; sys.exit(main(sys.argv[1:]))"
        directories = [str(self.directory / name) for name in ("first", "second")]
        run_program(command, "learn", *directories, timeout=600)

    def _environment(self, stage: str, name: str) -> dict[str, str | None]:
        seed = random.Random(f"{self.settings.seed} {name}").randint(1, 4_000_000_000)
        env: dict[str, str | None] = {
            "MONGODB_URI": self.settings.uri,
            "PYTHONHASHSEED": str(seed),
            "TIMETRACER_MODE": None,
            "PYTEST_VERSION": pytest.__version__,  # only tests may seed os.urandom
        }
        if stage == "record" and self.settings.guard in IN_BOTH:
            env["MATCHING_GUARD"] = self.settings.guard
        if stage == "replay":
            env["MATCHING_CLOCK"] = str(CLOCK - (time.time() - self.recorded["at"]))
            env["MATCHING_GUARD"] = self.settings.guard
            env["MATCHING_FROZEN"] = "1" if self.settings.frozen else None
        return env


def again(settings: Settings, finding: dict[str, Any]) -> str:
    """Try one finding again, and tell what every call gave on the server and in replay.

    Args:
        settings: what is proved.
        finding: a `Finding`, as JSON.
    """
    with tempfile.TemporaryDirectory(prefix="matching") as directory:
        desk = Desk(Path(directory), settings, Tally())
        _record(desk, {"it": finding["recorded"]})
        jobs = [desk.job("it", finding["program"])]
        replayed = desk.run("replay", "replay", jobs)["it"]
        live = desk.run("live", "live", jobs)["it"] if finding["kind"] else None
        cassettes = desk.cassettes(finding["recorded"])
        lines = [Path(cassette).read_text(encoding="utf-8") for cassette in cassettes]
    recorded = {call["id"]: call for call in calls_of(finding["recorded"])}
    lines += [f"stock {json.dumps(finding['recorded']['stock'])}"]
    for call in calls_of(finding["program"]):
        number = str(call["id"])
        changed = "  CHANGED" if call != recorded[call["id"]] else ""
        lines += [f"{number} {_short(call)}{changed}"]
        lines += [f"  live   {live['answers'].get(number)}"] if live else []
        lines += [f"  replay {replayed['answers'].get(number)}"]
    return "\n".join([*lines, f"missed at {replayed['missed']}: {replayed['why']}"])


# ------------------------------------------------------------------------------- a batch


def run_batch(settings: Settings, numbers: Iterable[int]) -> Tally:
    """Prove what is to be proved of some programs.

    Args:
        settings: what is proved.
        numbers: the programs' numbers.

    Returns:
        What was found.
    """
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="matching") as directory:
        desk = Desk(Path(directory), settings, tally)
        programs = {number: program(settings.seed, number, settings.worlds) for number in numbers}
        recorded = _record(desk, {str(n): written for n, written in programs.items()})
        jobs = [desk.job(str(n), written) for n, written in programs.items()]
        replayed = desk.run("replay", "replay", jobs)
        for number, written in programs.items():
            _judge_program(tally, written, recorded[str(number)], replayed[str(number)])
        desk.flawed.update((f.program["number"], f.call) for f in tally.findings)
        for number, rounds in enumerate(_rounds(settings, programs)):
            _run_twins(desk, programs, rounds, number)
    return tally


def _record(desk: Desk, programs: dict[str, Program]) -> dict[str, Any]:
    """Record programs; some of them twice, with what that shows noted in the first cassette."""
    traces = desk.run("record", "record", [desk.job(*one) for one in programs.items()])
    twice = [
        {"key": key, "program": written, "cassettes": desk.cassettes(written, "second")}
        for key, written in programs.items()
        if WORLDS[written["world"]].twice
    ]
    if twice:
        desk.run("record", "record again", twice)
        desk.learn()
    return traces


def _rounds(settings: Settings, programs: dict[int, Program]) -> Iterator[dict[str, Twin]]:
    """The first twin of each program, the second of each, and so on: a process replays a cassette
    once, as a run of a test suite does."""
    used: dict[str, int] = {}
    found = {}
    for number, written in programs.items():
        rng = random.Random(f"{settings.seed} twins of {number}")
        found[number] = twins(written, rng, settings.twins, used, settings.kinds)
    for index in range(settings.twins):
        yield {str(n): some[index] for n, some in found.items() if index < len(some)}


def _run_twins(
    desk: Desk, programs: dict[int, Program], some: dict[str, Twin], index: int | str
) -> None:
    jobs = [desk.job(key, twin.program) for key, twin in some.items()]
    replayed = desk.run("replay", f"twins{index}", jobs)
    answered = {key: _answered(twin, replayed[key]) for key, twin in some.items()}
    reruns = [desk.job(key, some[key].program, upto=upto) for key, upto in answered.items() if upto]
    live = desk.run("live", f"live{index}", reruns)
    wrong = {key for key in live if first_difference(live[key], replayed[key]) is not None}
    unsure = _unsure(desk, [job for job in reruns if job["key"] in wrong], live, index)
    desk.tally.undetermined += len(unsure)
    for key, twin in some.items():
        written = programs[int(key)]
        if key in unsure:
            call = first_difference(live[key], replayed[key]) or twin.changed
            kind = f"undetermined: {twin.kind}"
            found = _finding(kind, twin, written, call, live[key], replayed[key])
            desk.tally.noted.append(found)
        else:
            _judge_twin(desk, twin, written, replayed[key], live.get(key))


def _answered(twin: Twin, trace: dict[str, Any]) -> int:
    """The last call that the replay answered, if it is one that could differ; else 0."""
    last = max(map(int, trace["answers"]), default=0)
    return last if last >= twin.changed else 0


def _unsure(
    desk: Desk, jobs: list[dict[str, Any]], live: dict[str, Any], index: int | str
) -> set[str]:
    """Those that the server answers otherwise when asked again."""
    unsure: set[str] = set()
    for time_again in range(LIVE_AGAIN):
        again = desk.run("live", f"again{index}.{time_again}", jobs)
        unsure |= {key for key in again if again[key]["answers"] != live[key]["answers"]}
    return unsure


def first_difference(live: dict[str, Any], replayed: dict[str, Any]) -> int | None:
    """The first call that both answered, each in its own way."""
    both = live["answers"].keys() & replayed["answers"].keys()
    differ = [int(n) for n in both if live["answers"][n] != replayed["answers"][n]]
    return min(differ, default=None)


# ------------------------------------------------------------------------------- the guards


def without_guards(
    settings: Settings, numbers: Iterable[int], guards: Iterable[Guard]
) -> Iterator[tuple[Guard, int, list[Finding]]]:
    """Take guards out, one after the other, of the processes that replay the same recordings.

    Args:
        settings: what is proved; its kinds, worlds and guard are those of each guard.
        numbers: the programs' numbers; those of one trap each come on top.
        guards: the guards.

    Yields:
        A guard, the number of twins, and the wrong answers that are there without it alone.
    """
    programs = {number: program(settings.seed, number) for number in numbers} | each_alone()
    with tempfile.TemporaryDirectory(prefix="matching") as directory:
        desk = _recorded(settings, programs, Path(directory) / "all")
        for guard in guards:
            some = desk
            if guard.in_both:
                bare = replace(settings, guard=guard.name)
                some = _recorded(bare, programs, Path(directory) / guard.name)
            yield guard, *_wrong_without(guard, some, programs)


def _recorded(settings: Settings, programs: dict[int, Program], directory: Path) -> Desk:
    directory.mkdir()
    desk = Desk(directory, settings, Tally())
    _record(desk, {str(number): written for number, written in programs.items()})
    return desk


def _wrong_without(
    guard: Guard, desk: Desk, programs: dict[int, Program]
) -> tuple[int, list[Finding]]:
    bare = desk.with_guard(guard.name, kinds=guard.kinds)
    some = {n: one for n, one in programs.items() if one["world"] in (guard.worlds or WORLDS)}
    for index, twins_of in enumerate(_rounds(bare.settings, some)):
        _run_twins(bare, some, twins_of, f" {guard.name} {index}")
    tried = sum(row.programs for row in bare.tally.rows.values())
    wrong = {str(found.program["number"]): found for found in bare.tally.findings}
    twins_of = {key: Twin(one.kind, one.program, one.call) for key, one in wrong.items()}
    with_it = desk.with_guard(None)
    _run_twins(with_it, some, twins_of, f" {guard.name} in")
    for found in with_it.tally.findings:
        wrong.pop(str(found.program["number"]))
    return tried, list(wrong.values())


# ------------------------------------------------------------------------------- verdicts


_CAREFUL = "made anew by their look alone"


def _judge_program(
    tally: Tally, written: Program, recorded: dict[str, Any], replayed: dict[str, Any]
) -> None:
    tally.programs += 1
    tally.calls += len(recorded["answers"])
    tally.levels.update(replayed["levels"])
    call = first_difference(recorded, replayed)
    tally.worlds[written["world"], call is None and replayed["missed"] is None] += 1
    if call is not None:
        tally.differ += 1
        expected, got = (t["answers"][str(call)] for t in (recorded, replayed))
        tally.findings.append(Finding("", written, call, expected, got, written))
    elif replayed["missed"] is not None:
        tally.missed += 1
        tally.careful += _CAREFUL in replayed["why"]
        call = replayed["missed"]
        tally.missed_at[_operation(written, call)] += 1
        expected = recorded["answers"].get(str(call), "")
        tally.misses.append(Finding("", written, call, expected, replayed["why"], written))
    else:
        assert recorded["answers"].keys() == replayed["answers"].keys(), written["number"]
        tally.same += 1


def _operation(written: Program, call: int) -> str:
    return next(str(found["op"]) for found in calls_of(written) if found["id"] == call)


def _judge_twin(
    desk: Desk,
    twin: Twin,
    written: Program,
    replayed: dict[str, Any],
    live: dict[str, Any] | None,
) -> None:
    tally, row = desk.tally, desk.tally.row(twin.kind)
    row.programs += 1
    row.let_through += str(twin.changed) in replayed["answers"]
    call = first_difference(live, replayed) if live else None
    if call is not None and (written["number"], call) in desk.flawed:
        row.early += 1
    elif call is not None:
        assert live
        row.wrong += 1
        tally.findings.append(_finding(twin.kind, twin, written, call, live, replayed))
    elif replayed["missed"] is None:
        row.right += 1
    elif replayed["missed"] < twin.changed:
        row.early += 1
    else:
        row.missed += 1

    let_through = live and call is None and str(twin.changed) in replayed["answers"]
    if live and let_through and twin.kind in MUST_MISS:
        found = _finding(f"let through: {twin.kind}", twin, written, twin.changed, live, replayed)
        tally.noted.append(found)


def _finding(
    kind: str,
    twin: Twin,
    written: Program,
    call: int,
    live: dict[str, Any],
    replayed: dict[str, Any],
) -> Finding:
    expected, got = (trace["answers"].get(str(call), "") for trace in (live, replayed))
    return Finding(kind, twin.program, call, expected, got, written)


# ------------------------------------------------------------------------------- the table


def table(tally: Tally) -> str:
    """What was found, as a table of text."""
    columns = ("tried", "not reached", "missed", "right", "let through", "WRONG")
    lines = [
        f"{tally.programs} programs, {tally.calls} calls: {tally.same} replayed the same, "
        f"{tally.missed} missed, {tally.differ} differed",
        f"    {tally.careful} missed since they rest on values bound by their look alone",
        *(f"    first miss in {op}: {count}" for op, count in tally.missed_at.most_common()),
        "    " + ", ".join(f"{level} {count}" for level, count in tally.levels.most_common()),
        "    " + ", ".join(f"{name} {_of_world(tally, name)}" for name in WORLDS),
        "",
        f"{'kind of difference':62}" + "".join(f"{name:>12}" for name in columns),
    ]
    kinds = sorted(tally.rows, key=lambda kind: (kind in LIMITS, kind))
    total = Row()
    for kind in kinds:
        row = tally.rows[kind]
        if kind not in LIMITS:
            total.add(row)
        lines.append(_line(f"{kind}{' (limit)' if kind in LIMITS else ''}", row, kind in MUST_MISS))
    lines.append(_line("all, without those with a limit", total))
    lines += [f"(limit) {kind}: {LIMITS[kind]}" for kind in kinds if kind in LIMITS]
    lines.append("* is only in what a call asks for: let through where another call is the same")
    lines.append(f"{tally.undetermined} twins that the server itself answers otherwise each time")
    spent = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in tally.seconds.items())
    return "\n".join([*lines, f"time in processes: {spent}"])


def _of_world(tally: Tally, name: str) -> str:
    same, not_same = (tally.worlds[name, whether] for whether in (True, False))
    return f"{same} of {same + not_same}"


def _line(name: str, row: Row, must_miss: bool = False) -> str:
    numbers = (row.programs, row.early, row.missed, row.right, row.let_through, row.wrong)
    return f"{name + (' *' if must_miss else ''):62}" + "".join(f"{n:>12}" for n in numbers)
