"""What it costs to find the event that answers a call, by level, among few events and among many.

A driver's cost is left out: the index is asked directly, with calls as a plugin describes them.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from bson import ObjectId

from benchmarks.measure import Row, micro, milli
from tests.support.calls import call
from timetracer import ambient, bindings
from timetracer.cassette import Cassette
from timetracer.config import TraceConfig
from timetracer.errors import MissError
from timetracer.missed import Circumstances, explain
from timetracer.model import Call
from timetracer.opening import open_file
from timetracer.plugins.replies import Kept

_MOST_ASKED = 200


def one_id() -> ObjectId:
    """An id that no call before had."""
    return ObjectId()


@dataclass(frozen=True, slots=True)
class Level:
    """A row of the table.

    Attributes:
        name: the level.
        recorded: gives the call of a number as it was recorded.
        asked: gives it as it is asked for in replay.
    """

    name: str
    recorded: Callable[[int], Call]
    asked: Callable[[int], Call]


def _inserted(number: int) -> Call:
    return call("INSERT_ONE", document={"_id": one_id(), "name": "same in all"})


LEVELS = (
    Level(
        "exact",
        lambda number: call(filter={"number": number, "name": "x"}),
        lambda number: call(filter={"number": number, "name": "x"}),
    ),
    Level(
        "order",
        lambda number: call(filter={"number": number, "name": "x"}),
        lambda number: call(filter={"name": "x", "number": number}),
    ),
    Level("unified, bound by the call", _inserted, _inserted),
)


def matching(events: int, rounds: int) -> list[Row]:
    """Return what a call costs at each level among few and among many events.

    Args:
        events: how many are many.
        rounds: rounds that count.
    """
    rows = [_row(level, events, rounds) for level in LEVELS]
    return [*rows, _bound_row(events, rounds), _ambient_row(rounds), _miss_row(events)]


def _sizes(events: int) -> tuple[int, int]:
    return max(4, min(_MOST_ASKED, events // 2)), max(8, events)


def _row(level: Level, events: int, rounds: int) -> Row:
    few, many = _sizes(events)
    costs = {size: _cost(level, size, few, rounds) for size in (few, many)}
    return _flat(level.name, costs)


def _flat(name: str, costs: dict[int, float]) -> Row:
    (few, cost_of_few), (many, cost_of_many) = sorted(costs.items())
    return Row(
        f"a call found: {name}, among {many:,} events",
        micro(cost_of_many),
        f"among {few:,}: {micro(cost_of_few)}",
        cost_of_many / cost_of_few,
        "<= 1.5x",
    )


def _cost(level: Level, size: int, asked: int, rounds: int) -> float:
    recorded = _recorded(level.recorded, size)
    return median(_round(recorded, level.asked, asked) for _ in range(rounds))


def _recorded(make: Callable[[int], Call], size: int) -> bytes:
    session = open_file("matching.json", TraceConfig(mode="record", redact=False).resolve())
    assert session.recording is not None
    session.recording.spill = None
    for number in range(size):
        session.record(make(number), Kept(lambda: 1), session.begin())
    return b"".join(session.chunks())


def _round(recorded: bytes, make: Callable[[int], Call], count: int) -> float:
    bindings.RUN.forget()
    cassette = Cassette(recorded, "matching.json")
    asked = [make(number) for number in range(count)]
    cassette.take(asked[0])  # what is indexed at the first call is no part of the others
    gc.collect()  # nor is what that left behind
    began = time.process_time()
    for one in asked[1:]:
        match = cassette.take(one)
        assert match is not None
    return (time.process_time() - began) / (count - 1)


def _bound_row(events: int, rounds: int) -> Row:
    """Ids that were bound before: each live call is looked up by the recorded id."""
    costs = {}
    few, many = _sizes(events)
    for size in (few, many):
        recorded = _recorded_twice(size // 2)
        costs[size] = median(_bound(recorded, few // 2) for _ in range(rounds))
    return _flat("unified, bound before", costs)


def _recorded_twice(size: int) -> bytes:
    ids = [one_id() for _ in range(size)]
    made = [call("INSERT_ONE", document={"_id": one, "name": "same in all"}) for one in ids]
    made += [call(filter={"_id": one}) for one in ids]
    return _recorded(made.__getitem__, len(made))


def _bound(recorded: bytes, count: int) -> float:
    bindings.RUN.forget()
    cassette = Cassette(recorded, "matching.json")
    live = [one_id() for _ in range(count)]
    for one in live:
        cassette.take(call("INSERT_ONE", document={"_id": one, "name": "same in all"}))
    asked = [call(filter={"_id": one}) for one in live]
    cassette.take(asked[0], reads=True)
    gc.collect()
    began = time.process_time()
    for one_call in asked[1:]:
        assert cassette.take(one_call, reads=True) is not None
    return (time.process_time() - began) / (len(asked) - 1)


def _ambient_row(rounds: int) -> Row:
    cassette = Cassette(
        _recorded(lambda number: call("CREATE_INDEX", keys=[[f"field{number}", 1]]), _MOST_ASKED),
        "matching.json",
    )
    asked = [call("CREATE_INDEX", keys=[[f"field{number}", 1]]) for number in range(_MOST_ASKED)]
    ambient.find(asked[0], cassette, "matching.json")

    def once() -> float:
        began = time.process_time()
        for one in asked:
            assert ambient.find(one, cassette, "matching.json") is not None
        return (time.process_time() - began) / len(asked)

    return Row("a call found: ambient", micro(median(once() for _ in range(rounds))), "")


def _miss_row(events: int) -> Row:
    recorded = _recorded(lambda number: call(filter={"number": number, "name": "x"}), events)
    cassette = Cassette(recorded, "matching.json")
    asked = call(filter={"number": events // 2, "name": "y"})
    began = time.process_time()
    nearest = cassette.nearest(asked)
    error = explain(
        Circumstances(asked, "matching.json", cassette.header, "replay", nearest, None, True, "")
    )
    took = time.process_time() - began
    assert isinstance(error, MissError) and nearest is not None
    name = f"the report of a miss, among {events:,} events"
    return Row(name, milli(took), "", took * 1e6, "<= 1000000 us")
