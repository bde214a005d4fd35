"""Whether a server answers as it did: each answer of a live run beside the recorded one.

    Verification     the mode verify: calls are made, looked up as in a replay, and compared
    compare_tapes    two recordings of one program, compared in the same way

`KINDS` are the ways in which answers drift. Values that are made anew in each run may be others as
long as each stands for the same one everywhere; what tells of the server and not of the data is
left out (`_of_the_server`).
"""

from __future__ import annotations

import logging
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from threading import RLock
from typing import Any

from timetracer import document
from timetracer.alike import PLACES, Fit, Place, has_writes, steps_to_value
from timetracer.bindings import RUN, Bindings, Run
from timetracer.call_sites import site_of
from timetracer.cassette import Cassette, Event
from timetracer.codec import TAG_NAMES, dumps, loads
from timetracer.driver import Outcome
from timetracer.errors import ABSENT, CallSite, Difference
from timetracer.evidence import Evidence, read_from_clock
from timetracer.learning import SERVERS_OWN, RecordedTwice
from timetracer.matching import key_to_json
from timetracer.model import Call, Json
from timetracer.pairing import pair_events
from timetracer.redaction import has_placeholders
from timetracer.volatile import TIME, Token, looks_made, skeleton, split, tokens

logger = logging.getLogger("timetracer")

NEW, GONE, CHANGED = "new", "gone", "changed"

KINDS = {
    NEW: "calls that are not recorded",
    GONE: "recorded calls that are made no more",
    CHANGED: "calls that are answered otherwise",
}
"""The ways in which a run drifts from its recording, as they are told, in this order."""

_MOST_SHOWN = 5
_LONGEST_VALUE = 80


@dataclass(frozen=True, slots=True)
class Drift:
    """One call in which a run is no longer what was recorded.

    Attributes:
        kind: the way, a key of `KINDS`.
        cassette: path of the cassette.
        eid: number of the recorded event; of a call that is not recorded that of the nearest one
            that was not called, None where nothing is near.
        method: the operation, such as "FIND_ONE".
        url: the namespace.
        differences: the first places in which the answers differ; of a call that is not recorded
            those in which it differs from the nearest one.
        further: how many more there are.
        call_site: where the program made the call, None where that is not known.
        remedy: how the cassette is recorded again, "" where that is not known.
    """

    kind: str
    cassette: str
    eid: int | None
    method: str
    url: str
    differences: tuple[Difference, ...] = ()
    further: int = 0
    call_site: CallSite | None = None
    remedy: str = ""

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def dump(self) -> dict[str, Json]:
        """Return it as JSON; what is absent is left out."""
        told = asdict(self)
        for difference in told["differences"]:
            for side in _SIDES:
                if difference[side] is ABSENT:
                    del difference[side]
        return told

    @classmethod
    def load(cls, told: dict[str, Any]) -> Drift:
        """Return what `dump` gave."""
        absent = dict.fromkeys(_SIDES, ABSENT)
        found = tuple(Difference(**{**absent, **one}) for one in told["differences"])
        site = told["call_site"] and CallSite(**told["call_site"])
        return cls(**{**told, "differences": found, "call_site": site})


_SIDES = ("recorded", "asked")


def _lines(drift: Drift) -> Iterator[str]:
    call = f"{drift.method.lower()} on {drift.url}"
    site = f", called at {drift.call_site}" if drift.call_site is not None else ""
    if drift.kind == NEW:
        yield f"{call} is not in {drift.cassette}{site}"
        if drift.differences:
            yield f"    nearest is event {drift.eid}:"
    elif drift.kind == GONE:
        yield f"{call} was not called: event {drift.eid} of {drift.cassette}"
    else:
        yield f"{call} is answered otherwise: event {drift.eid} of {drift.cassette}{site}"
    yield from (f"    {_difference(one)}" for one in drift.differences)
    if drift.further:
        yield f"    and {drift.further} more differences"


def _difference(one: Difference) -> str:
    where = one.path or "the answer"
    if one.reordered:
        where += " (its order)"
    return f"{where}: recorded {_shown(one.recorded)}, now {_shown(one.asked)}"


def _shown(value: Any) -> str:
    text = repr(value) if type(value) is not str else dumps(value).decode("utf-8", "replace")
    if isinstance(value, dict | list):
        text = dumps(value).decode("utf-8", "replace")
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def tell(drifts: Iterable[Drift], most: int = 10) -> str:
    """Return what a person reads: the calls, and what may be done.

    Args:
        drifts: the calls, in their order.
        most: how many of them are told.
    """
    known = list(drifts)
    lines = ["The database no longer answers as it did when this was recorded:"]
    lines += [str(one) for one in known[:most]]
    if len(known) > most:
        lines.append(f"and {len(known) - most} more calls")
    remedies = dict.fromkeys(one.remedy for one in known if one.remedy)
    lines += [f"If that is right, record it again: {remedy}" for remedy in remedies]
    return "\n".join(lines)


def count_kinds(drifts: Iterable[Drift]) -> str:
    """Return how many calls drifted in which way, such as "1 new, 2 changed"; "" for none."""
    counted = Counter(one.kind for one in drifts)
    return ", ".join(f"{counted[kind]} {kind}" for kind in KINDS if counted[kind])


# ------------------------------------------------------------------------------------- answers


def result_of(event: Event) -> dict[str, Json]:
    """Return an event's result as it was recorded."""
    return document.result_of(event.result_text, event.cassette.path, event.eid)


def data_of(result: dict[str, Json]) -> Json:
    """Return what `result.body.data` holds."""
    return (result.get("body") or {}).get("data")


def _answer(result: dict[str, Json], data: Json) -> dict[str, Json]:
    """Return what the program was told, without what is of the server alone."""
    error = result.get("error") or (result.get("cursor") or {}).get("error")
    return {"data": data, **({"error": _error(error)} if error else {})}


def _error(error: dict[str, Json]) -> dict[str, Json]:
    known: dict[str, Json] = {key: error[key] for key in _TOLD_OF_ERRORS if key in error}
    if "details" not in known:
        message = _ELSEWHERE.sub("", str(error.get("message")))
        known["message"] = _ADDRESS.sub("(address)", message)
    return known


_TOLD_OF_ERRORS = ("class", "code", "labels", "details")
_ELSEWHERE = re.compile(r", (?:full error|Topology Description|Timeout): ?.*", re.DOTALL)
_ADDRESS = re.compile(r"[\w.\[\]-]+:\d{2,5}\b")

_COMMANDS_OWN = SERVERS_OWN | {"executionTimeMillis", "executionTimeMillisEstimate", "serverInfo"}
_AROUND_DATA = frozenset(("raw_result", "details", "writeResult", "reply"))


def _of_the_server(path: list[str], method: str) -> frozenset[str]:
    """Return the keys at a place that tell of the server: in replies as they came, and never in a
    document, where they are the program's own."""
    if method == "COMMAND" and path == ["data"]:
        return _COMMANDS_OWN
    return SERVERS_OWN if path and path[-1] in _AROUND_DATA else frozenset()


def _has_all(result: dict[str, Json]) -> bool:
    """Tell whether an answer is whole, and not that of a cursor that may have more."""
    cursor = result.get("cursor")
    return cursor is None or bool(cursor.get("exhausted", True))


class _Answers(Fit):
    """A walk through two answers that notes what differs and goes on.

    Args:
        bindings: what is bound by now.
        evidence: who made the recorded values.
        placeholders: what placeholders stand for.
        unchanged: values that are known to be the same in both runs; added to.
        method: the operation.
    """

    _notes_places = True

    def __init__(
        self,
        bindings: Bindings,
        evidence: Evidence,
        placeholders: dict[str, Json],
        unchanged: set[str],
        method: str,
    ) -> None:
        super().__init__(bindings, evidence, placeholders, lambda key: key in unchanged)
        self.found: list[Difference] = []
        self._unchanged = unchanged
        self._method = method
        self._bears = True

    def compare(self, recorded: Json, live: Json) -> tuple[Difference, ...]:
        """Return the places in which two answers differ."""
        self._value(recorded, live, PLACES["stored"])
        return tuple(self.found)

    def _note(self, recorded: Any, live: Any, *, reordered: bool = False) -> None:
        steps = steps_to_value(self._path)
        path = ".".join(steps[1:] if steps[:1] == ["data"] else steps)
        if has_placeholders(dumps(None if recorded is ABSENT else recorded)):
            live = "(another value)"
        self.found.append(Difference(path, recorded, live, reordered))

    # ------------------------------------------------------------------------- the walk

    def _value(self, recorded: Json, live: Json, place: Place, key: str = "") -> bool:
        both_dicts = type(recorded) is dict and type(live) is dict
        if both_dicts and "$timestamp" in recorded and "$timestamp" in live:
            return True  # of the oplog: the server makes it
        if _same_secret(recorded, live):
            return True
        leaves = both_dicts and recorded.keys() != live.keys() and _are_leaves(recorded, live)
        if ABSENT in (recorded, live) or leaves or not super()._value(recorded, live, place, key):
            self._note(recorded, live)
        return True

    def _mapping(self, recorded: dict[str, Json], live: dict[str, Json], place: Place) -> bool:
        left_out = _of_the_server(self._path, self._method)
        if left_out:
            recorded = {key: item for key, item in recorded.items() if key not in left_out}
            live = {key: item for key, item in live.items() if key not in left_out}
        lacking = [key for key in recorded if key not in live]
        further = [key for key in live if key not in recorded]
        if sorted(map(skeleton, lacking)) != sorted(map(skeleton, further)):
            for key in (*lacking, *further):
                self._step(key, recorded.get(key, ABSENT), live.get(key, ABSENT), place)
            recorded = {key: item for key, item in recorded.items() if key in live}
            live = {key: item for key, item in live.items() if key in recorded}
        if recorded.keys() == live.keys() and list(recorded) != list(live):
            self._note(list(recorded), list(live), reordered=True)
            live = {key: live[key] for key in recorded}
        return super()._mapping(recorded, live, place)

    def _items(self, recorded: list[Json], live: list[Json], place: Place) -> bool:
        found, born = len(self.found), len(self.born)
        if len(recorded) == len(live):
            super()._items(recorded, live, place)
            if len(self.found) > found and self._same_members(recorded, live):
                del self.found[found:]
                self.born.cut(born)
                self._note(recorded, live, reordered=True)
            return True
        start, end = _same_ends(recorded, live)
        super()._items(recorded[:start], live[:start], place)
        # What has come between shifts the rest: side by side, it shows nothing of what is made up.
        bears, self._bears = self._bears, False
        for number in range(start, max(len(recorded), len(live)) - end):
            one, other = (
                items[number] if number < len(items) - end else ABSENT
                for items in (recorded, live)
            )
            self._step(str(number), one, other, place)
        self._bears = bears
        for place_from_end in range(end, 0, -1):
            number = len(recorded) - place_from_end
            self._step(str(number), recorded[-place_from_end], live[-place_from_end], place)
        return True

    def _step(self, key: str, recorded: Any, live: Any, place: Place) -> None:
        self._path.append(key)
        self._value(recorded, live, PLACES[place.other])
        self._path.pop()

    def _same_members(self, recorded: list[Json], live: list[Json]) -> bool:
        known = loads(self._bindings.with_live_values_in(dumps(recorded)))
        return len(live) > 1 and Counter(map(dumps, known)) == Counter(map(dumps, live))

    # ------------------------------------------------------------------------- made-up values

    def _text(
        self, recorded: str, live: str, place: Place, *, is_base64: bool = False
    ) -> bool:
        if not super()._text(recorded, live, place, is_base64=is_base64):
            return False
        if recorded == live:
            found = split(live, is_base64=is_base64)[1]
            self._unchanged.update(token.key for token in found if token.kind != TIME)
        return True

    def _may_be_born(self, recorded: Token, live: Token, place: Place) -> bool:
        if not (looks_made(recorded) and looks_made(live)):
            return self._evidence.both_made(recorded, live)
        return self._bears and self._unchanged.isdisjoint((recorded.key, live.key))

    def _moment(self, recorded: Token, live: Token, place: Place) -> bool:
        """Tell whether both times may have been read from a clock: that is when answers tell of
        another time, since what was there before the run has a time of its own."""
        known = self._bindings.was_bound(recorded, live)
        made = self._evidence.both_made(recorded, live) or self._evidence.same_day(recorded, live)
        if known or made or (read_from_clock(recorded) and read_from_clock(live)):
            if self._bears:
                self.born.add(recorded, live)
            return True
        return False


def _same_secret(recorded: Json, live: Json) -> bool:
    """Tell whether both are secrets of the same type, of which neither is known."""
    if type(recorded) is str and type(live) is str:
        return "[redacted:" in recorded and "[redacted:" in live
    held = [one.get("$redacted") for one in (recorded, live) if type(one) is dict]
    secrets = [one for one in held if type(one) is dict]
    return len(secrets) == 2 and secrets[0].get("type") == secrets[1].get("type")


def _are_leaves(recorded: dict[str, Json], live: dict[str, Json]) -> bool:
    """Tell whether two unlike objects are no documents, but values of other types."""
    return "$redacted" not in recorded and any(
        not TAG_NAMES.isdisjoint(value) for value in (recorded, live)
    )


def _same_ends(recorded: list[Json], live: list[Json]) -> tuple[int, int]:
    """Return how many items two lists share but for made-up values, at their beginning and, behind
    those, at their end."""
    ours = [skeleton(dumps(item).decode()) for item in recorded]
    theirs = [skeleton(dumps(item).decode()) for item in live]
    most = min(len(ours), len(theirs))
    start = 0
    while start < most and ours[start] == theirs[start]:
        start += 1
    end = 0
    while end < most - start and ours[-1 - end] == theirs[-1 - end]:
        end += 1
    return start, end


# ------------------------------------------------------------------------------------- a live run


@dataclass(slots=True)
class _Asked:
    """A call that is under way or made, and the event that it is."""

    call: Call
    event: Event | None
    site: tuple[Any, int]
    outcome: Any = None
    seen: int = -1
    drift: Drift | None = None


class Verification:
    """What a session in the mode verify has found so far. Nothing of it is ever written.

    Args:
        cassette: what was recorded, None where nothing was.
        where: the path of the cassette.
        remedy: how it is recorded again.
        redact: replaces what is secret in an event, where that is not to be told.
        before_record: the user's hook, given each event's arguments and result as JSON.

    Attributes:
        drift: every call that is not as it was recorded.
        at_once: whether an answer is compared as it comes, since the process may end any moment.
    """

    def __init__(
        self,
        cassette: Cassette | None,
        where: str,
        *,
        remedy: str = "",
        redact: Callable[[dict[str, Json]], dict[str, Json]] | None = None,
        before_record: Callable[[dict[str, Json]], dict[str, Json] | None] | None = None,
    ) -> None:
        self.drift: list[Drift] = []
        self.at_once = False
        self._cassette = cassette
        self._where = where
        self._remedy = remedy
        self._redact = redact
        self._before_record = before_record
        self._asked: dict[int, _Asked] = {}
        self._pending: list[_Asked] = []
        self._ended = False
        self._told = 0
        self._lock = RLock()

    def expect(self, call: Call, event: Event | None, site: tuple[Any, int]) -> None:
        """Note which event a call is, just before it is made.

        Args:
            call: the call.
            event: the event that would answer it in replay, None where none would.
            site: where the program makes it, as `call_sites.here` notes it.
        """
        with self._lock:
            self._asked[id(call)] = _Asked(call, event, site)
            if event is not None:
                _note_unchanged(event)

    def answered(self, call: Call, outcome: Outcome) -> None:
        """Note what came of a call; it is compared before the next one is made."""
        with self._lock:
            asked = self._asked.pop(id(call), None)
            if asked is not None:
                asked.outcome = outcome
                self._pending.append(asked)
            if self.at_once:
                self.settle()

    def settle(self, *, ended: bool = False) -> None:
        """Compare what has been answered by now.

        Args:
            ended: whether nothing more is to come, so that what was not called is gone.
        """
        with self._lock:
            waiting, self._pending = self._pending, []
            for asked in waiting:
                self._compare(asked)
                if asked.outcome.open and not ended:
                    self._pending.append(asked)
                elif asked.drift is not None:
                    self._keep(asked.drift)
            if ended and not self._ended and self._cassette is not None:
                self._ended = True
                for event in self._cassette.unused:
                    self._keep(self._drift(GONE, event, event))

    def news(self) -> list[Drift]:
        """Return the drift since this was asked last."""
        with self._lock:
            told, self._told = self._told, len(self.drift)
            return self.drift[told:]

    def _keep(self, drift: Drift) -> None:
        self.drift.append(drift)
        _untold.append(drift)
        for listener in _listeners:
            listener(drift)

    def _compare(self, asked: _Asked) -> None:
        read = len(getattr(asked.outcome, "batches", ()))
        if read == asked.seen and asked.outcome.open:
            return
        asked.seen = read
        try:
            asked.drift = self._compared(asked)
        except Exception as error:
            logger.error("timetracer: cannot compare an answer: %r", error, exc_info=error)

    def _compared(self, asked: _Asked) -> Drift | None:
        event, call, site = asked.event, asked.call, site_of(*asked.site)
        result = _changed_by(self._before_record, call, asked.outcome.to_json())
        if result is None:
            return None  # the user's hook leaves it out
        if event is None:
            return self._drift(NEW, *self._nearest(call), site=site)
        if (result_of(event).get("body") or {}).get("captured") is False:
            return None
        found = self._differences(event, result)
        if found and self._redact is not None:
            places = [one.path for one in found]
            shown = _changed_by(self._redact, call, result)
            found = tuple(
                one for one in self._differences(event, shown or {}) if one.path in places
            )
        return self._drift(CHANGED, event, call, found, site) if found else None

    def _nearest(self, call: Call) -> tuple[Event | None, Call, tuple[Difference, ...]]:
        if self._cassette is None or self._redact is not None:
            return None, call, ()
        near = self._cassette.nearest(call)
        if near is None or not near.same_call or near.event.used:
            return None, call, ()
        return near.event, call, near.differences

    def _differences(self, event: Event, live: dict[str, Json]) -> tuple[Difference, ...]:
        walk = _Answers(
            event.cassette.bindings,
            event.evidence(),
            event.bound(shared=True),
            RUN.unchanged,
            event.method,
        )
        found = walk.compare(*_answers(event, live))
        event.cassette.bindings.bear(walk.born)
        event.keep_bound(walk.placeholders)
        return found

    def _drift(
        self,
        kind: str,
        event: Event | None,
        call: Any,
        found: tuple[Difference, ...] = (),
        site: CallSite | None = None,
    ) -> Drift:
        return Drift(
            kind,
            event.cassette.path if event is not None else self._where,
            event.eid if event is not None else None,
            call.method,
            call.url,
            found[:_MOST_SHOWN],
            max(0, len(found) - _MOST_SHOWN),
            site,
            self._remedy,
        )


def _changed_by(
    change: Callable[[dict[str, Json]], dict[str, Json] | None] | None,
    call: Call,
    result: dict[str, Json],
) -> dict[str, Json] | None:
    """Return an answer as a hook or the redaction makes it, None where it is left out."""
    copied: dict[str, Json] = loads(dumps(result))
    if change is None:
        return copied
    arguments = key_to_json(call.key)
    shown = change(
        {"arguments": arguments, "result": copied, "method": call.method, "url": call.url}
    )
    return None if shown is None else shown["result"]


def _note_unchanged(event: Event) -> None:
    """Note the values of a call that stand for themselves in this run."""
    bindings = event.cassette.bindings
    for token in tokens((event.arguments_text or b"").decode("utf-8", "replace")):
        if token.kind != TIME and bindings.live(token) is None:
            RUN.unchanged.add(token.key)


def _whole(event: Event) -> tuple[dict[str, Json], Json]:
    """Return an event's result, and its data with what later events hold of the same cursor."""
    result = result_of(event)
    data = data_of(result)
    following = result
    while mark := (following.get("cursor") or {}).get("continued"):
        other = next((one for one in event.cassette.events if one.eid == mark), None)
        if other is None:
            break
        other.used = True
        following = result_of(other)
        data = [*data, *(data_of(following) or ())]
        result["cursor"] = following.get("cursor") or {}
    return result, data


def _answers(event: Event, live: dict[str, Json]) -> tuple[Json, Json]:
    """Return the recorded and the live answer as far as both were read, where one is that of a
    cursor that may have more."""
    recorded, ours = _whole(event)
    theirs = data_of(live)
    if type(ours) is list and type(theirs) is list:
        if len(ours) > len(theirs) and not _has_all(live):
            ours = ours[: len(theirs)]
        elif len(theirs) > len(ours) and not _has_all(recorded):
            theirs = theirs[: len(ours)]
    return _answer(recorded, ours), _answer(live, theirs)


_untold: deque[Drift] = deque(maxlen=10_000)


_listeners: list[Callable[[Drift], None]] = []


def listen(listener: Callable[[Drift], None]) -> None:
    """Have each drift told as it is found.

    Args:
        listener: given the drift.
    """
    _listeners.append(listener)


def untold() -> list[Drift]:
    """Return what sessions of this process found since this was asked last."""
    told = []
    while _untold:
        told.append(_untold.popleft())
    return told


# ------------------------------------------------------------------------------------- two tapes


@dataclass(slots=True)
class Known:
    """What the comparisons of one re-recording have shown so far: the values of fixtures turn up
    in tests.

    Attributes:
        run: which value of a new recording stands for which of an old one.
        unchanged: the values that are the same in both.
    """

    run: Run = field(default_factory=Run)
    unchanged: set[str] = field(default_factory=set)


def compare_tapes(recorded: Cassette, again: Cassette, known: Known) -> list[Drift]:
    """Return the calls in which a new recording of a program is another one than the old.

    Args:
        recorded: the old recording.
        again: the new one.
        known: what earlier comparisons have shown; added to.
    """
    of_test = recorded.bindings.of_test
    bindings = Bindings(recorded.path, known.run, of_test=of_test)
    pairing = pair_events(recorded.events, again.events)
    drift = []
    gone, new = list(pairing.left), list(pairing.right)
    for one, other in pairing.pairs:
        if _plainly_the_same(one, other):
            continue
        if not _same_call(one, other, bindings, known):
            gone.append(one)
            new.append(other)
            continue
        walk = _Answers(bindings, RecordedTwice.of(one, other), {}, known.unchanged, one.method)
        sides = [result_of(event) for event in (one, other)]
        found = walk.compare(*(_answer(side, data_of(side)) for side in sides))
        bindings.bear(walk.born)
        if found:
            drift.append(_changed(one, found))
    drift += [Drift(GONE, one.cassette.path, one.eid, one.method, one.url) for one in gone]
    drift += [Drift(NEW, recorded.path, None, one.method, one.url) for one in new]
    return drift


def _plainly_the_same(one: Event, other: Event) -> bool:
    """Tell whether two events say the same and hold nothing that looks made up: most of those that
    prepare and clear a database, which are many."""
    if one.url != other.url or one.arguments_text != other.arguments_text:
        return False
    ours, theirs = _without_clocks(one.result_text), _without_clocks(other.result_text)
    text = (one.arguments_text or b"") + ours
    return ours == theirs and not tokens(text.decode("utf-8", "replace"))


def _without_clocks(result: bytes) -> bytes:
    """Return a result without the server's clocks, where it holds no documents."""
    return _CLOCKS.sub(b"", result) if b'"raw_result":' in result else result


def _nested(depth: int) -> bytes:
    inner = rb"[^{}]*" + (rb"(?:" + _nested(depth - 1) + rb"[^{}]*)*" if depth else b"")
    return rb"\{" + inner + rb"\}"


_CLOCKS = re.compile(rb'"(?:\$clusterTime|operationTime)":' + _nested(4))


def _changed(event: Event, found: tuple[Difference, ...]) -> Drift:
    return Drift(
        CHANGED,
        event.cassette.path,
        event.eid,
        event.method,
        event.url,
        found[:_MOST_SHOWN],
        max(0, len(found) - _MOST_SHOWN),
    )


def _same_call(one: Event, other: Event, bindings: Bindings, known: Known) -> bool:
    recorded, asked = one.arguments(), other.arguments()
    if recorded is None or asked is None:
        return one.filter_keys == other.filter_keys
    if has_placeholders(one.arguments_text or b""):
        return one.body_hash == other.body_hash
    fit = Fit(
        bindings,
        RecordedTwice.of(one, other),
        {},
        lambda key: key in known.unchanged,
        writes=has_writes(recorded),
    )
    fits = fit.fits(recorded, asked, one.url, other.url)
    if fits:
        bindings.bear(fit.born)
    return fits
