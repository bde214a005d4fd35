"""Every guard of the matcher is taken out over small programs, of one trap each.

What `proof.without_guards` does with random programs is done here with few processes: programs are
recorded once, their twins are made once on the server, and each guard takes one replay.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.matching.guards import IN_BOTH, Guard
from tests.matching.proof import Desk, Settings, Tally, first_difference
from tests.matching.runner import Program
from tests.matching.traps import TRAPS, each_alone
from tests.matching.twins import Twin, twins

NONE_OUT = "all guards"
KINDS = tuple(trap.kind for trap in TRAPS)


def wrong_without(
    settings: Settings, guards: Iterable[Guard], directory: Path
) -> dict[str, list[str]]:
    """Take out guards, one after the other.

    Args:
        settings: what is proved.
        guards: the guards.
        directory: where recordings may lie.

    Returns:
        Name of a guard -> the kinds whose twins are answered wrongly without it; `NONE_OUT` ->
        those that are with all of them.
    """
    programs = list(each_alone().values())
    asked = {guard.name: list(_twins_for(guard, programs)) for guard in guards}
    asked[NONE_OUT] = [(one, _twin(one, one["traps"][0]["kind"])) for one in programs]
    desk = _recorded(settings, programs, directory / "all")
    jobs = {_key(*pair): _job(desk, *pair) for pairs in asked.values() for pair in pairs}
    live = desk.run("live", "live", list(jobs.values()))
    return {
        name: _wrong(_without(settings, desk, name, programs, directory), pairs, live)
        for name, pairs in asked.items()
    }


def _twins_for(guard: Guard, programs: list[Program]) -> Iterator[tuple[Program, Twin]]:
    """A twin of each program that may show a guard: of a trap, if the guard has any."""
    kinds = [kind for kind in guard.kinds or KINDS if kind in KINDS] or list(guard.kinds)
    for one in programs:
        found = _twin(one, *kinds) if one["world"] in (guard.worlds or (one["world"],)) else None
        if found is not None:
            yield one, found


def _twin(one: Program, *kinds: str) -> Twin | None:
    found = twins(one, random.Random(one["number"]), 1, {}, kinds)
    return found[0] if found else None


def _recorded(settings: Settings, programs: list[Program], directory: Path) -> Desk:
    directory.mkdir()
    desk = Desk(directory, settings, Tally())
    desk.run("record", "record", [desk.job(str(one["number"]), one) for one in programs])
    return desk


def _without(
    settings: Settings, desk: Desk, name: str, programs: list[Program], directory: Path
) -> Desk:
    if name in IN_BOTH:
        return _recorded(replace(settings, guard=name), programs, directory / name)
    return desk.with_guard(None if name == NONE_OUT else name)


def _wrong(desk: Desk, pairs: list[tuple[Program, Twin]], live: dict[str, Any]) -> list[str]:
    jobs = [_job(desk, *pair) for pair in pairs]
    replayed = desk.run("replay", f"replay {desk.settings.guard}", jobs)
    return [
        twin.kind
        for one, twin in pairs
        if first_difference(live[_key(one, twin)], replayed[_key(one, twin)]) is not None
    ]


def _job(desk: Desk, one: Program, twin: Twin) -> dict[str, Any]:
    return desk.job(_key(one, twin), twin.program)


def _key(one: Program, twin: Twin) -> str:
    return f"{one['number']} {twin.kind}"
