"""The guards of the matcher, to be taken out one at a time: without any of them a twin is answered.

A row names what is replaced in the replaying process, and by what. A row that leads to no wrong
answer in the proof guards nothing, or the proof has no program for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True, slots=True)
class Guard:
    """One guard of the matcher.

    Attributes:
        name: as it is called on the command line.
        target: what is replaced, "module:name.of.attribute".
        replace: gives the replacement for what is there.
        why: what goes wrong without it.
        kinds: the kinds of difference that show it; all of them if empty.
    """

    name: str
    target: str
    replace: Callable[[Any], Any]
    why: str
    kinds: tuple[str, ...] = ()


def _anything(take: Any) -> Any:
    """Answer a call that misses with any event of its method and namespace that is not used."""

    def taken(self: Any, call: Any, **options: Any) -> Any:
        from timetracer.matching import Match

        found = take(self, call, **options)
        if found is not None:
            return found
        for event in self._order:
            if (event.method, event.url) == (call.method, call.url) and not event.used:
                event.used = True
                return Match(event, "exact")
        return None

    return taken


def _always(answer: Any) -> Callable[[Any], Any]:
    """A replacement for a function: gives the same whatever it is asked."""
    return lambda original: lambda *args, **kwargs: answer


def _free(*names: str) -> Callable[[Any], Any]:
    """A replacement for the table of places: the order of these says nothing."""
    return lambda places: {
        **places,
        **{name: dataclasses.replace(places[name], free=True) for name in names},
    }


def _outside_the_call(known: Any) -> Any:
    """What is bound by earlier calls, and not by the one that is compared."""
    return lambda self, recorded: self._bindings.live(recorded)


BOUND = (
    "a bound value for another bound one, in a filter",
    "a bound value for another bound one, in a write",
    "a fresh value for a known one, in a filter",
    "a fresh value for a known one, in a write",
    "two ids swapped after both are bound",
    "a new id from an id's second use on",
    "one id used for two",
)
LITERALS = (
    "another literal UUID, in a filter",
    "another literal ObjectId, in a filter",
    "another user's md5, in a filter",
    "a made value for a literal, in a filter",
    "a literal for a made value, in a filter",
)
DATES = (
    "a date one day off, in a filter",
    "a date one day off, in a pipeline",
    "a date one hour off, in a filter",
    "a date one minute off, in a filter or pipeline",
)

IN_BOTH: tuple[str, ...] = ()

GUARDS: tuple[Guard, ...] = (
    Guard(
        "arguments",
        "timetracer.matching:Index.take",
        _anything,
        "a call is answered by any event of its method and namespace",
    ),
    Guard(
        "one live value",
        "timetracer.bindings:Bindings.live",
        _always(None),
        "a recorded value is bound to a second live one",
        BOUND,
    ),
    Guard(
        "one recorded value",
        "timetracer.bindings:Bindings.recorded",
        _always(frozenset()),
        "a live value is bound to a second recorded one",
        BOUND,
    ),
    Guard(
        "within the call",
        "timetracer.alike:Fit._known",
        _outside_the_call,
        "one call binds a recorded value twice",
        (*BOUND, "two ids swapped from the start"),
    ),
    Guard(
        "made by both",
        "timetracer.evidence:Evidence.both_made",
        _always(True),
        "a look is taken for evidence",
        (*LITERALS, *DATES),
    ),
    Guard(
        "born in writes",
        "timetracer.alike:Fit._may_be_born",
        _always(True),
        "a binding is born in a filter, by the look of a value",
        LITERALS,
    ),
    Guard(
        "given values",
        "timetracer.bindings:Run.was_given",
        _always(False),
        "what the program was shown, or asked for itself, is bound to another value",
        (*BOUND, *LITERALS, "another returned id, in a filter"),
    ),
    Guard(
        "itself",
        "timetracer.bindings:Bindings.is_itself",
        _always(True),
        "a value is itself though another one stands for it",
        (*BOUND, "a literal for a made value, in a write"),
    ),
    Guard(
        "tolerance",
        "timetracer.evidence:TOLERANCE",
        lambda seconds: 1e9,
        "a time is bound however far it is from the clock",
        DATES,
    ),
    Guard(
        "order of lists and documents",
        "timetracer.alike:PLACES",
        _free("plain", "condition"),
        "sorts, arrays and embedded documents are alike in any order",
        (
            "a sort's keys swapped",
            "a list in another order, in a filter or pipeline",
            "an embedded document's keys in another order, in a filter or pipeline",
        ),
    ),
    Guard(
        "order of stages",
        "timetracer.alike:PLACES",
        _free("pipeline"),
        "pipelines are alike whatever the order of their stages",
        ("stages reordered",),
    ),
)


def take_out(name: str) -> None:
    """Take a guard out of this process's matcher.

    Args:
        name: the name of its row.

    Raises:
        LookupError: there is no such row, or no such attribute.
    """
    guard = next((guard for guard in GUARDS if guard.name == name), None)
    if guard is None:
        raise LookupError(f"no guard {name!r}; there are {', '.join(g.name for g in GUARDS)}")
    module, _, path = guard.target.partition(":")
    *owners, attribute = path.split(".")
    owner: Any = import_module(module)
    for step in owners:
        owner = getattr(owner, step)
    if not hasattr(owner, attribute):
        raise LookupError(f"{guard.target} is not there")
    setattr(owner, attribute, guard.replace(getattr(owner, attribute)))
