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
        worlds: the worlds whose programs show it; all of them if empty.
        in_both: whether the recording process goes without it, too.
    """

    name: str
    target: str
    replace: Callable[[Any], Any]
    why: str
    kinds: tuple[str, ...] = ()
    worlds: tuple[str, ...] = ()
    in_both: bool = False


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


def _used_too(take: Any) -> Any:
    """Answer a call that misses with an equal one's event that is used up."""

    def taken(self: Any, call: Any, **options: Any) -> Any:
        from timetracer.matching import Match, key_of_json

        found = take(self, call, **options)
        if found is not None:
            return found
        for event in self._order:
            alike = (event.method, event.url) == (call.method, call.url)
            if alike and key_of_json(event.arguments(), event.arguments_text) == call.key:
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


def _all_written(places: Any) -> Any:
    """The table of places: what stands anywhere is stored."""
    return {name: dataclasses.replace(place, writes=True) for name, place in places.items()}


def _match_on_without(part: str) -> Callable[[Any], Any]:
    """A replacement for how an index is made: it compares all of a call but for a part."""

    def replaced(make: Any) -> Any:
        def made(self: Any, events: Any, **options: Any) -> None:
            named = tuple(name for name in options["match_on"] if name != part)
            make(self, events, **{**options, "match_on": named})

        return made

    return replaced


def _as_if_stored(compare: Any) -> Any:
    """Compare times as where the program stores them."""
    return lambda self, recorded, live, place: compare(
        self, recorded, live, dataclasses.replace(place, writes=True)
    )


def _as_if_steady(rows: Any) -> Any:
    """Start-up calls whose answers never change."""
    return {name: dataclasses.replace(row, steady=True) for name, row in rows.items()}


def _made_by(recording: bool) -> Callable[[Any], Any]:
    """A replacement for evidence: that of one of the two processes is enough."""

    def replaced(both_made: Any) -> Any:
        def one_made(self: Any, recorded: Any, live: Any) -> bool:
            from timetracer.evidence import _made, object_id_digits

            if recorded.kind == "time":
                return bool(both_made(self, recorded, live))
            key, digits = (
                (recorded.key, self.process.object_ids)
                if recording
                else (live.key, object_id_digits())
            )
            if len(key) == 24 and recorded.kind == "id":
                return bool(key[8:18] == digits)
            return key in (self.made if recording else _made.numbers)

        return one_made

    return replaced


def _named_anywhere(is_ignored: Any) -> Any:
    """A path is ignored wherever its last step stands."""
    return lambda path, ignore: bool(path) and any(path[-1] == one[-1] for one in ignore)


class _Everything:
    """Holds whatever is asked for."""

    def __contains__(self, found: object) -> bool:
        return True


def _forgetting(may_be_born: Any) -> Any:
    """What stood for itself in a call may stand for another value in it."""

    def born(self: Any, recorded: Any, live: Any, place: Any) -> Any:
        self._kept.clear()
        return may_be_born(self, recorded, live, place)

    return born


def _if_the_same(compare: Any) -> Any:
    """Keys that are the same say nothing of the values in them."""
    return lambda self, recorded, live, place: (
        recorded == live or compare(self, recorded, live, place)
    )


def _index_without_arguments(text: Any) -> Any:
    """Start-up calls are told apart by method and namespace."""
    return lambda method, url, arguments, get: text(method, url, {}, get)


def _whole_hours_too(same_moment: Any) -> Any:
    """A time of a whole hour may have been read from the clock."""
    return lambda one, other, *clocks: same_moment(
        one._replace(form=one.form.replace("000", "")), other, *clocks
    )


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
STOCKED = (
    "a stocked literal for a made value, in a filter",
    "a stocked literal for a made value, in a pipeline",
    "another stocked document's value, in a filter",
    "another stocked document's value, in a pipeline",
)
UNSEEN = (
    "an unseen value for a literal, in a filter",
    "an unseen value for a literal, in a pipeline",
    "an unseen value for a seen one, in a filter",
    "an unseen value for a seen one, in a pipeline",
)
IN_WRITES = (
    "a literal for a made value, in a write",
    "another literal UUID, in a write",
    "another literal ObjectId, in a write",
    "another user's md5, in a write",
    "a made value for a literal, in a write",
)
DATES = (
    "a date one day off, in a filter",
    "a date one day off, in a pipeline",
    "a date one hour off, in a filter",
    "a date one minute off, in a filter or pipeline",
)

GUARDS: tuple[Guard, ...] = (
    Guard(
        "arguments",
        "timetracer.matching:Index.take",
        _anything,
        "a call is answered by any event of its method and namespace",
    ),
    Guard(
        "used up",
        "timetracer.matching:Index.take",
        _used_too,
        "an event answers as often as it is asked for",
        ("a read once more, after a write",),
    ),
    Guard(
        "method",
        "timetracer.matching:Index.__init__",
        _match_on_without("method"),
        "a call is answered by an event of another method",
        ("another operation", "one updated for many"),
    ),
    Guard(
        "namespace",
        "timetracer.matching:Index.__init__",
        _match_on_without("url"),
        "a call is answered by an event of another collection",
        ("another collection", "a freshly named collection"),
    ),
    Guard(
        "one live value",
        "timetracer.bindings:Bindings.live",
        _always(None),
        "a recorded value is bound to a second live one, in another cassette",
        (*BOUND, "a fresh id for one of another cassette"),
        ("takes",),
    ),
    Guard(
        "one recorded value",
        "timetracer.bindings:Bindings.recorded",
        _always(frozenset()),
        "a live value is bound to a second recorded one",
        (*BOUND, "one made value for two, then counted"),
    ),
    Guard(
        "is free",
        "timetracer.bindings:Bindings.is_free",
        _always(True),
        "a live id is bound to a second recorded one, as a token of another cassette may be",
        (*BOUND, "one made value for two, then counted"),
    ),
    Guard(
        "within the call",
        "timetracer.alike:Fit._known",
        _outside_the_call,
        "one call binds a recorded value twice",
        ("a new value at one of two places, in a write", "two made values for one, in one write"),
    ),
    Guard(
        "kept within the call",
        "timetracer.alike:Fit._may_be_born",
        _forgetting,
        "a value stands for itself and for another one in one call",
        (
            "another literal at one of two places, in a write",
            "another literal beside the same, then grouped",
        ),
    ),
    Guard(
        "kept in keys",
        "timetracer.alike:Fit._name",
        _if_the_same,
        "a value stands for itself in a key and for another one beside it",
        ("another literal beside a key that is the same",),
    ),
    Guard(
        "first event",
        "timetracer.cassette:Event.is_first_with",
        _always(True),
        "a binding is born by a call that comes after the one that first held the value",
        (*UNSEEN, "a call left out, then a fresh value for the one it held"),
    ),
    Guard(
        "made by both",
        "timetracer.evidence:Evidence.both_made",
        _always(True),
        "a look is taken for evidence",
        (*LITERALS, *DATES, "another literal as a bound, counted"),
    ),
    Guard(
        "made in the recording",
        "timetracer.evidence:Evidence.both_made",
        _made_by(recording=False),
        "a literal was recorded, and a value that is made stands for it",
        (
            "a made value for a literal, in a filter",
            "a made value for a literal, in a pipeline",
            "a made value for a stocked literal, counted",
        ),
    ),
    Guard(
        "made in the replay",
        "timetracer.evidence:Evidence.both_made",
        _made_by(recording=True),
        "a literal stands for a value that was made",
        (
            *STOCKED,
            "a stocked literal for a made value, counted",
            "a literal for a piece of a made id, in a filter",
        ),
    ),
    Guard(
        "makers of UUIDs",
        "timetracer.evidence:_MAKERS",
        lambda makers: _Everything(),
        "any UUID that the program writes down is taken for one that it made",
        (
            "another literal UUID, in a filter",
            "another stocked document's value, in a filter",
            "another literal for a stocked one, counted",
        ),
        in_both=True,
    ),
    Guard(
        "born in writes",
        "timetracer.alike:Fit._may_be_born",
        _always(True),
        "a binding is born in a filter, by the look of a value",
        (
            *LITERALS,
            "another literal as a bound, counted",
            "another telephone number, in a filter",
            "another long name, in a filter",
        ),
    ),
    Guard(
        "given values",
        "timetracer.bindings:Run.was_given",
        _always(False),
        "what the program was shown, or asked for itself, is bound to another value",
        ("another returned id, in a filter", "another literal for one that a later call stored"),
    ),
    Guard(
        "itself",
        "timetracer.bindings:Bindings.is_itself",
        _always(True),
        "a value is itself though another one stands for it",
        (*IN_WRITES, "another literal, then the same"),
    ),
    Guard(
        "itself, in equal calls",
        "timetracer.matching:_stands_for_itself",
        _always(True),
        "an equal call is answered though another value stands for one of its values",
        (*IN_WRITES, "another literal, then the same"),
    ),
    Guard(
        "itself, in calls that are alike",
        "timetracer.alike:Fit._is_itself",
        _always(True),
        "an equal value in a call is itself though another one stands for it",
        ("another literal, then the same beside a made value",),
    ),
    Guard(
        "looks in writes alone",
        "timetracer.alike:PLACES",
        _all_written,
        "a value is bound by its look where it is asked for",
        (*LITERALS, "another literal for a stocked one, counted"),
    ),
    Guard(
        "one text for a placeholder",
        "timetracer.alike:fits_text",
        _always(True),
        "a secret text that was redacted is any other one",
        ("another secret that is known",),
    ),
    Guard(
        "one value for a placeholder",
        "timetracer.alike:fits_placeholder",
        _always(True),
        "a secret value that was redacted is any other one",
        ("another secret number that is known",),
    ),
    Guard(
        "one placeholder for a value",
        "timetracer.alike:Fit._is_known_secret",
        _always(False),
        "a secret stands for two that the recording told apart",
        (
            "a secret of this run that is stored already, for another",
            "a written secret that is stored already, for another",
        ),
    ),
    Guard(
        "rests on looks",
        "timetracer.matching:rests_on",
        _always(False),
        "a sort, a range or a list by values that are bound by their look is answered as recorded",
        (*IN_WRITES, "another literal, by whose order is asked"),
    ),
    Guard(
        "looks that others stored",
        "timetracer.matching:Index._shows_looks_of_others",
        _always(False),
        "an answer has the live value where somebody else stored the recorded one",
        (
            "another literal for the id of a stocked document, then shown",
            "another literal for the id of a stocked document, shown at once",
        ),
    ),
    Guard(
        "ids that are ordered otherwise",
        "timetracer.alike:Fit._inverts",
        _always(False),
        "a sort by ids is answered as recorded though they were made in another order",
        ("two ids the other way round, by whose order is asked",),
    ),
    Guard(
        "the transaction that is ended",
        "timetracer.matching:_ends_its_transaction",
        _always(True),
        "a transaction is aborted as another one was, of the same operations",
        ("a transaction aborted, as another one was",),
    ),
    Guard(
        "looks that are names",
        "timetracer.alike:looks_made",
        _always(True),
        "a number of a few digits, or a long name, is bound by its look alone",
        ("another telephone number, in a write", "another long name, in a write"),
    ),
    Guard(
        "failures that name a look",
        "timetracer.matching:_failed_for",
        _always(False),
        "what is there already is told of a literal that is not",
        ("another literal for one that is there, in a write",),
    ),
    Guard(
        "durations",
        "timetracer.alike:are_durations",
        _always(True),
        "a number beside two times is alike whatever it is",
        ("a longer time than there is between two",),
    ),
    Guard(
        "one recorded token",
        "timetracer.bindings:Bindings._may_rebind",
        _always(True),
        "a token is bound to a second live one, in another cassette",
        ("a fresh token for one of another cassette",),
        ("takes",),
    ),
    Guard(
        "one live token",
        "timetracer.bindings:Bindings.is_free",
        _always(True),
        "a token is bound to a second recorded one, in another cassette",
        ("a token of another cassette for a fresh one",),
        ("takes",),
    ),
    Guard(
        "learned places",
        "timetracer.alike:Fit._is_learned",
        _always(True),
        "a value that nobody saw being made is bound anywhere",
        (*LITERALS, *UNSEEN, *STOCKED, "another literal as a bound, counted"),
    ),
    Guard(
        "ignored places",
        "timetracer.alike:is_ignored",
        _named_anywhere,
        "what has the name of an ignored place is ignored everywhere",
        ("an ignored key at another place", "a key that is ignored elsewhere"),
        ("ignored",),
    ),
    Guard(
        "the user's matcher",
        "timetracer.matching:Index._may_answer",
        _always(True),
        "any arguments answer where a matcher is to compare them",
        (),
        ("matcher",),
    ),
    Guard(
        "start-up calls' arguments",
        "timetracer.ambient:_text",
        _index_without_arguments,
        "another index is there already",
        ("another index key", "another index option", "another index than at the start"),
        ("ambient",),
    ),
    Guard(
        "steady start-up calls",
        "timetracer.ambient:AMBIENT",
        _as_if_steady,
        "what collections there are is told as it was before a write",
        (
            "a start-up call once more, for the last",
            "collections asked for anew, after a write",
        ),
        ("ambient",),
    ),
    Guard(
        "agreeing start-up calls",
        "timetracer.ambient:_agree",
        _always(True),
        "one of two answers is given",
        (
            "a start-up call that was answered in two ways",
            "a start-up call with two answers elsewhere",
        ),
        ("ambient",),
    ),
    Guard(
        "tolerance",
        "timetracer.evidence:TOLERANCE",
        lambda seconds: 1e9,
        "a time is bound however far it is from the clock",
        (*DATES, "a time two hours off, as a bound"),
    ),
    Guard(
        "pairs of times",
        "timetracer.bindings:Bindings.was_bound",
        _always(True),
        "any time stands for any other one",
        (*DATES, "a time two hours off, as a bound"),
    ),
    Guard(
        "known times",
        "timetracer.alike:Fit._moment",
        _as_if_stored,
        "a time that was stored stands for another one that was",
        (
            "another known time, seconds off, in a filter",
            "a known time for another one, asked for",
        ),
    ),
    Guard(
        "midnights of the day",
        "timetracer.evidence:same_day",
        _always(True),
        "a date that is stored is taken for the day on which the program ran",
        ("a date behind a bound, stored",),
    ),
    Guard(
        "whole hours",
        "timetracer.evidence:same_moment",
        _whole_hours_too,
        "a date that was written down is taken for one that was read from the clock",
        (
            "a written date moved with the clock, in a filter or pipeline",
            "a written date moved with the clock, as a bound",
        ),
    ),
    Guard(
        "order of lists and documents",
        "timetracer.alike:PLACES",
        _free("plain", "condition"),
        "sorts, arrays and embedded documents are alike in any order",
        (
            "a sort's keys swapped",
            "a sort's keys swapped, of two that differ",
            "a list in another order, in a filter or pipeline",
            "an embedded document's keys in another order, in a filter or pipeline",
        ),
    ),
    Guard(
        "order of stages",
        "timetracer.alike:PLACES",
        _free("pipeline"),
        "pipelines are alike whatever the order of their stages",
        ("stages reordered", "a limit before a sort"),
    ),
)

IN_BOTH = {guard.name for guard in GUARDS if guard.in_both}
"""Those that the recording process goes without, too."""


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
