"""What a miss tells: what was asked, which event is nearest, what differs, and what may be done.

    find_one on shop.orders is not in cassettes/checkout.json (mode replay).
    Nearest: event 3, differs in filter.sku: recorded "A1", asked "A2".
    To record it: pytest --timetracer=new_episodes

`REMEDIES` is a table; each row looks at the circumstances and says what fits, or nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from timetracer.call_sites import site_of
from timetracer.codec import dumps
from timetracer.entropy import hash_seed
from timetracer.errors import ABSENT, CallSite, Difference, MissError, Remedy
from timetracer.model import Call, Json
from timetracer.nearest import Nearest
from timetracer.volatile import ID, TIME, Token, looks_made, skeleton, tokens

_SHOWN_PLACES = 5
_SHOWN_LENGTH = 80
_SHOWN_REMEDIES = 3


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a session knows of a call that missed.

    Attributes:
        call: the call.
        cassette: path of the cassette that was asked, or that is not there.
        header: the cassette's header, None where there is no cassette.
        mode: the mode's name.
        nearest: the nearest event, None where nothing is near.
        call_site: where the program made the call.
        reads: whether the call only reads.
        record: what records it, such as a command.
        recordable: whether it could be recorded in this run if the mode were another.
        strict_order: whether calls must come in the recorded order.
        entropy: what is drawn as it was when it was recorded: "off", "random" or "all".
        freezable: whether the program could be shown the recorded time.
    """

    call: Call
    cassette: str
    header: Mapping[str, Json] | None
    mode: str
    nearest: Nearest | None
    call_site: CallSite | None
    reads: bool
    record: str
    recordable: bool = True
    strict_order: bool = False
    entropy: str = "off"
    freezable: bool = False

    @property
    def used_by(self) -> CallSite | None:
        """Where the program made the call that the nearest event has answered."""
        if self.nearest is None or not self.nearest.event.used:
            return None
        return site_of(self.nearest.event.used_by, self.nearest.event.used_at)

    @property
    def differences(self) -> tuple[Difference, ...]:
        """All places in which the call and the nearest event differ."""
        return self.nearest.differences if self.nearest is not None else ()


def explain(known: Circumstances, error: type[MissError] = MissError, why: str = "") -> MissError:
    """Return the error for a call that no event answers.

    Args:
        known: the circumstances.
        error: the error's class.
        why: what happened, where it is another thing than that no event fits.
    """
    remedies = tuple(_remedies(known)) if not why else (_record(known),)
    *further, record = remedies
    lines = [why or _not_there(known)]
    if not why and known.nearest is not None:
        lines += _nearest_lines(known, known.nearest)
    if not known.recordable:
        lines.append(
            "It cannot be recorded now: a replayed write before it never reached the server."
        )
    lines += [remedy.text for remedy in further[:_SHOWN_REMEDIES]]
    lines.append(f"To record it: {record.text}")
    return error(
        "\n".join(lines),
        call=known.call,
        cassette=known.cassette,
        nearest=known.nearest.event if known.nearest is not None else None,
        differences=known.differences,
        call_site=known.call_site,
        used_by=known.used_by,
        remedies=remedies,
    )


def _not_there(known: Circumstances) -> str:
    asked = f"{known.call.method.lower()} on {known.call.url}"
    if known.header is None:
        return (
            f"{asked} cannot be replayed: there is no cassette {known.cassette} "
            f"(mode {known.mode})."
        )
    return f"{asked} is not in {known.cassette} (mode {known.mode})."


def _nearest_lines(known: Circumstances, nearest: Nearest) -> list[str]:
    event = nearest.event
    name = f"{event.method.lower()} on {event.url}"
    where = f" at {known.used_by}" if known.used_by is not None else ""
    if nearest.fits and event.used:
        return [f"Event {event.eid} would match but was already used by {name}{where}."]
    if not nearest.differences:
        return [f"Nearest: event {event.eid}, {name}."]
    used = f" (already used{where})" if event.used else ""
    telling = sorted(nearest.differences, key=_is_made_anew)
    places = [_place(difference) for difference in telling[:_SHOWN_PLACES]]
    if len(nearest.differences) == 1:
        return [f"Nearest: event {event.eid}{used}, differs in {places[0]}."]
    more = len(nearest.differences) - len(places)
    return [
        f"Nearest: event {event.eid}{used}, differs in {len(nearest.differences)} places:",
        *(f"    {place}" for place in places),
        *([f"    and {more} more"] if more else []),
    ]


def _place(difference: Difference) -> str:
    path = f"{difference.path} (its order)" if difference.reordered else difference.path
    recorded, asked = _shown(difference.recorded), _shown(difference.asked)
    return f"{path}: recorded {recorded}, asked {asked}".lstrip()


def _shown(value: Any) -> str:
    text = repr(value) if value is ABSENT else dumps(value).decode("utf-8", "replace")
    return text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 3] + "..."


# ------------------------------------------------------------------------------------- remedies


def _remedies(known: Circumstances) -> list[Remedy]:
    found = (suggest(known) for suggest in REMEDIES)
    return [remedy for remedy in found if remedy is not None]


def _allow_repeats(known: Circumstances) -> Remedy | None:
    nearest = known.nearest
    if nearest is None or not (nearest.fits and nearest.event.used and known.reads):
        return None
    return Remedy(
        "allow_repeats",
        "To answer such a read as often as it is asked: allow_repeats=True",
        (("allow_repeats", True),),
    )


def _strict_order(known: Circumstances) -> Remedy | None:
    nearest = known.nearest
    if not known.strict_order or nearest is None or not nearest.fits or nearest.event.used:
        return None
    return Remedy(
        "strict_order",
        f"Event {nearest.event.eid} would match, but calls must come in the recorded order. "
        "To answer it all the same: strict_order=False",
        (("strict_order", False),),
    )


def _hash_seed(known: Circumstances) -> Remedy | None:
    if not _are_all(known, _is_reordered):
        return None
    recorded = ((known.header or {}).get("session") or {}).get("hash_seed", "random")
    if recorded == hash_seed() != "random":
        return None
    seed = "0" if recorded == "random" else str(recorded)
    where = "to record and to replay" if recorded == "random" else "as when it was recorded"
    return Remedy(
        "hash_seed",
        f"If the order comes of a set, which differs in each process: PYTHONHASHSEED={seed}, "
        f"{where}",
        (("PYTHONHASHSEED", seed),),
    )


def _seed(known: Circumstances) -> Remedy | None:
    """Numbers and texts that differ as if they were drawn; ids and tokens are drawn from the
    system, whose draws can be repeated under pytest only."""
    under_pytest = "PYTEST_CURRENT_TEST" in os.environ
    rows = (
        ("random", ("random", "all"), _may_be_drawn),
        ("all", ("all",) if under_pytest else ("off", "random", "all"), _is_made_anew_id),
    )
    for setting, done, looks in rows:
        paths = [one.path for one in known.differences if looks(one)]
        if paths and known.entropy not in done and _are_all(known, looks):
            return Remedy(
                "seed",
                f"If {_listed(paths)} is drawn at random, to draw the same in replay: "
                f'entropy="{setting}", and record it again',
                (("entropy", setting),),
            )
    return None


def _may_be_drawn(difference: Difference) -> bool:
    pair = difference.recorded, difference.asked
    if all(type(value) is float for value in pair):
        return not any(map(float.is_integer, pair))
    if all(type(value) is int for value in pair):
        return bool(min(map(abs, pair)) >= 1000)
    if all(type(value) is str for value in pair) and not _is_made_anew(difference):
        return len(pair[0]) == len(pair[1]) and _unlike(*pair) >= 4
    return False


def _unlike(one: str, other: str) -> int:
    """Return how long the stretch is in which two texts of one length differ."""
    places = [place for place, pair in enumerate(zip(one, other, strict=True)) if len({*pair}) > 1]
    return places[-1] - places[0] + 1


def _freeze_time(known: Circumstances) -> Remedy | None:
    """Times that come of the clock and are cut, such as to the day."""
    if not (known.freezable and _are_all(known, _is_time)):
        return None
    paths = [one.path for one in known.differences if _is_time(one)]
    return Remedy(
        "freeze_time",
        f"If {_listed(paths)} comes of the clock, to replay at the recorded time: freeze_time=True",
        (("freeze_time", True),),
    )


def _is_time(difference: Difference) -> bool:
    return _is_new(difference, lambda token: token.kind == TIME)


def _ignore(known: Circumstances) -> Remedy | None:
    if not known.differences or not all(map(_may_be_ignored, known.differences)):
        return None
    paths = tuple(dict.fromkeys(_any_item(one.path) for one in known.differences))
    given = ", ".join(f'"{path}"' for path in paths)
    return Remedy(
        "ignore",
        f"If {_listed(paths)} may be any value, since it is new in each run: ignore=[{given}]",
        (("ignore", paths),),
    )


def _may_be_ignored(difference: Difference) -> bool:
    """Tell whether a value may be left out of account: never an id that chooses a document."""
    return _is_made_anew(difference) and (
        not _is_made_anew_id(difference) or _is_written(difference.path)
    )


def _are_all(known: Circumstances, looks: Callable[[Difference], bool]) -> bool:
    """Tell whether all differences have a look, but for what may be new in each run beside it."""
    found = [difference for difference in known.differences if not looks(difference)]
    return len(found) < len(known.differences) and all(map(_is_made_anew, found))


def _is_reordered(difference: Difference) -> bool:
    return difference.reordered


def _is_made_anew(difference: Difference) -> bool:
    """Tell whether the values differ only in what looks as if each run makes it anew."""
    if difference.reordered or ABSENT in (difference.recorded, difference.asked):
        return False
    recorded, asked = (
        dumps(value).decode("utf-8", "replace")
        for value in (difference.recorded, difference.asked)
    )
    return skeleton(recorded) == skeleton(asked) and recorded != asked


def _is_made_anew_id(difference: Difference) -> bool:
    return _is_new(difference, lambda token: token.kind == ID and looks_made(token))


def _is_new(difference: Difference, fits: Callable[[Token], bool]) -> bool:
    """Tell whether the values differ in what each run makes anew, and hold some that fits."""
    return _is_made_anew(difference) and any(
        map(fits, tokens(dumps(difference.asked).decode("utf-8", "replace")))
    )


def _is_written(path: str) -> bool:
    """Tell whether a path leads into what a call writes: there, an id chooses no other document."""
    first, *steps = path.split(".")
    return first in _WRITTEN or (first in ("requests", "models") and "doc" in steps)


_WRITTEN = ("document", "documents", "update", "replacement")


def _any_item(path: str) -> str:
    return ".".join("*" if step.isdigit() else step for step in path.split("."))


def _listed(paths: Iterable[str]) -> str:
    *others, last = dict.fromkeys(paths)
    return f"each of {', '.join(others)} and {last}" if others else last


def _record(known: Circumstances) -> Remedy:
    text = known.record if known.recordable else "record the whole cassette again (mode record)"
    return Remedy("record", text)


REMEDIES: tuple[Callable[[Circumstances], Remedy | None], ...] = (
    _allow_repeats,
    _strict_order,
    _hash_seed,
    _ignore,
    _freeze_time,
    _seed,
    _record,
)
"""What may be done, the likeliest first; `_record` always fits and is the last."""
