"""What two recordings of one program show: the facts, and what a person reads of them.

`KINDS` are the ways in which two recordings differ; a `Change` is one place where they do so, a
`Lesson` all that two cassettes of the same name show, and `tell` what is printed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from timetracer.alike import has_writes
from timetracer.codec import dumps
from timetracer.errors import ABSENT

LEARNED, PROPOSED, DERIVED, UNCLEAR = "learned", "proposed", "derived", "unclear"
REORDERED, ANSWERS, FIRST_ONLY, SECOND_ONLY, ORDER = (
    "reordered",
    "answers",
    "first_only",
    "second_only",
    "order",
)

KINDS: dict[str, str] = {
    LEARNED: "Made anew in each run, as this shows; noted in the first cassette, so that a replay"
    " may bind them:",
    PROPOSED: "Differ, and look like nothing that is made anew:",
    DERIVED: "Differ just as an answer before them did; if they come from it, a replay has them as"
    " recorded:",
    UNCLEAR: "Look made anew, but stand for two values at once or were in an answer; not noted:",
    REORDERED: "Come in another order, perhaps that of a set (PYTHONHASHSEED):",
    ANSWERS: "Answers that differ by more than made-up values (does each run begin with the same"
    " data?):",
    FIRST_ONLY: "Calls of the first recording only:",
    SECOND_ONLY: "Calls of the second recording only:",
    ORDER: "Calls that come in another order:",
}
"""The ways in which two recordings differ, as they are told, in this order."""

_MOST_LINES = 10
_SHOWN_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Change:
    """One place in which two recordings differ.

    Attributes:
        kind: the way, a key of `KINDS`.
        method: the operation, such as "FIND_ONE".
        url: the namespace, without what made-up values stand for.
        path: the place: for `LEARNED` as `alike.place_name` names it, else as an ignore path.
        first: the first recording's value in the first such event, as JSON; `ABSENT` for none.
        second: the second recording's.
        events: the numbers of such events in the first recording; of `SECOND_ONLY` in the second.
    """

    kind: str
    method: str
    url: str
    path: str
    first: Any
    second: Any
    events: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Lesson:
    """What two cassettes of the same name show.

    Attributes:
        first: path of the first cassette.
        second: path of the second, "" where the first has no counterpart.
        compared: how many pairs of events were compared.
        explained: how many values differ, but were made by the program or follow from such.
        seeded: whether the first recording drew random numbers from a seed that it keeps.
        changes: everything else in which they differ.
    """

    first: str
    second: str = ""
    compared: int = 0
    explained: int = 0
    seeded: bool = False
    changes: tuple[Change, ...] = ()

    def of_kind(self, kind: str) -> tuple[Change, ...]:
        """Return the changes of one kind."""
        return tuple(change for change in self.changes if change.kind == kind)


def shown(value: Any) -> str:
    """Return a value of a `Change` as text."""
    return repr(value) if value is ABSENT else dumps(value).decode("utf-8", "replace")


# ------------------------------------------------------------------------------------- the report


def tell(lessons: Iterable[Lesson]) -> Iterator[str]:
    """Yield the lines that a person reads."""
    known = list(lessons)
    for lesson in known:
        if not lesson.second:
            yield f"{lesson.first}: no cassette of this name in the other recording."
            continue
        calls = "call" if lesson.compared == 1 else "calls"
        yield f"{lesson.first}: {lesson.compared} {calls} compared with {lesson.second}."
        if lesson.explained:
            yield f"Ids, times and tokens that differ as they must: {lesson.explained}."
        for kind, heading in KINDS.items():
            changes = lesson.of_kind(kind)
            if changes:
                yield heading
                yield from _lines(changes)
        if not lesson.changes:
            yield "Nothing else differs."
    yield from _proposal(known)


def _lines(changes: Sequence[Change]) -> Iterator[str]:
    yield from (f"    {_line(change)}" for change in changes[:_MOST_LINES])
    if len(changes) > _MOST_LINES:
        yield f"    and {len(changes) - _MOST_LINES} more"


def _line(change: Change) -> str:
    where = ", ".join(filter(None, (f"{change.method.lower()} on {change.url}", change.path)))
    numbers = ", ".join(map(str, change.events[:5])) + (", ..." if len(change.events) > 5 else "")
    events = f"event{'s' if len(change.events) > 1 else ''} {numbers}"
    if change.kind in (FIRST_ONLY, SECOND_ONLY):
        return f"{where} ({events})"
    if change.kind == ORDER:
        return f"{where} ({events}; event {change.second} of the second)"
    return f"{where}: {_short(change.first)}, then {_short(change.second)} ({events})"


def _short(value: Any) -> str:
    text = shown(value)
    return text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 3] + "..."


def _proposal(lessons: Sequence[Lesson]) -> Iterator[str]:
    """Yield what the user may accept for values that differ and look like nothing made up."""
    changes = [change for lesson in lessons for change in lesson.of_kind(PROPOSED)]
    paths = dict.fromkeys(change.path for change in changes if change.path)
    if not paths:
        return
    if any(lesson.seeded for lesson in lessons):
        yield "Each recording has a seed of its own (entropy), which a replay gives back: what"
        yield "differs by random numbers alone needs nothing."
    yield "Nothing is ignored unless you say so. To leave these places out of every comparison, add"
    yield "to pyproject.toml what holds for your program:"
    yield "    [tool.timetracer]"
    yield f"    ignore = {dumps(list(paths)).decode().replace(',', ', ')}"
    if any(not _is_stored(path) for path in paths):
        yield "An ignored place of a filter is answered whatever is asked there. Where the values"
        yield 'are random numbers, entropy = "random" gives a replay the recorded ones instead.'


def _is_stored(path: str) -> bool:
    return has_writes({path.partition(".")[0]: None}) and ".filter" not in path
