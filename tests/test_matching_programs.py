"""Random programs replay as they were recorded, and a twin with one real difference never does.

A fixed sample of the proof in tests/matching; `python -m tests.matching` runs the whole of it.
"""

from __future__ import annotations

import random
from pathlib import Path

from tests.matching.guards import GUARDS
from tests.matching.process import clock_moves
from tests.matching.programs import CALLS
from tests.matching.proof import Desk, Settings, Tally, run_batch, table
from tests.matching.runner import HOLDERS
from tests.matching.springs import wrong_without
from tests.matching.traps import program
from tests.matching.twins import ALL_KINDS, Twin, calls_of, twins
from tests.matching.values import Values, canonical

SEED = 1
SAMPLE = range(60)


def test_programs_replay_and_no_twin_is_answered_wrongly(mongodb: str) -> None:
    tally = run_batch(Settings(mongodb, SEED, twins=2), SAMPLE)
    found = [*tally.findings[:3], *tally.misses[:3]]
    missed = tally.missed - tally.careful
    assert not (tally.wrong or missed), "\n".join([table(tally), *map(str, found)])
    assert tally.same + tally.careful == len(SAMPLE) and tally.careful < len(SAMPLE) / 10
    assert sum(row.missed for row in tally.rows.values()) > len(SAMPLE)


def test_without_any_one_guard_of_the_matcher_answers_are_wrong(
    mongodb: str, tmp_path: Path
) -> None:
    wrong = wrong_without(Settings(mongodb, SEED), GUARDS, tmp_path)
    assert wrong.pop("all guards") == []
    assert [guard for guard, kinds in wrong.items() if not kinds] == []
    assert len(wrong) == len(GUARDS)


def test_the_server_answers_a_program_twice_the_same(mongodb: str, tmp_path: Path) -> None:
    desk = Desk(tmp_path, Settings(mongodb, SEED), Tally())
    jobs = [{"key": str(number), "program": program(SEED, number)} for number in range(20)]
    assert desk.run("live", "one", jobs) == desk.run("live", "other", jobs)


def test_the_replaying_process_is_on_another_day() -> None:
    assert clock_moves(), "time-machine is not installed: pip install time-machine"


def test_a_program_is_made_of_its_seed_and_has_ten_calls() -> None:
    for number in range(50):
        written = program(SEED, number)
        assert written == program(SEED, number)
        calls = [call for call in calls_of(written) if call["op"] not in HOLDERS]
        assert len(calls) >= CALLS > 10
        assert [call["id"] for call in calls_of(written)] == sorted(
            call["id"] for call in calls_of(written)
        )


def test_a_twin_of_every_kind_differs_first_in_the_call_that_it_names() -> None:
    used: dict[str, int] = {}
    for number in range(400):
        written = program(SEED, number)
        for twin in twins(written, random.Random(number), 3, used):
            assert _first_change(written, twin) == twin.changed, twin.kind
    assert sorted(used) == sorted(ALL_KINDS)


def _first_change(written: dict[str, object], twin: Twin) -> int:
    pairs = zip(calls_of(written), calls_of(twin.program), strict=True)
    return min(
        int(one["id"])
        for one, other in pairs
        if canonical(one) != canonical(other)
        and (one["op"] not in HOLDERS or one.get("end") != other.get("end"))
    )


def test_a_trace_calls_made_values_by_name_wherever_they_stand() -> None:
    values = Values({"v1": "oid", "v2": "uuid4", "v3": "time"})
    made = values.of({"§": "made", "name": "v1", "form": "id"})
    key = values.of({"§": "made", "name": "v2", "form": "hex"})
    now = values.of({"§": "made", "name": "v3", "form": "seconds", "shift": -60})
    other = "6" * 24
    texts = [f"{{'at/{key}': ObjectId('{made}')}}", f"{now} 1{now} {other} {other}"]
    assert values.names.blurred(texts) == [
        "{'at/«v2»': ObjectId('«v1»')}",
        f"«now-60 seconds» 1{now} «new 1» «new 1»",
    ]
