"""Traps: a few calls with a twin of their own, which is answered wrongly without one guard.

Random programs seldom show what some guards of the matcher are for. A row of `TRAPS` is a kind of
difference; its `lay` gives calls that end a program, and those of them that the twin makes
otherwise. A trap has a collection of its own, so that nothing else of the program bears on it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

from tests.matching.programs import HOUR, Writer, uuid_text
from tests.matching.runner import Call, Program
from tests.matching.values import MARK, Node
from tests.matching.worlds import MOVED, NOISE

IN_EACH = 2
"""How many traps a program ends with, of a world that has so many."""

COMMON = ("plain", "takes")
"""The worlds whose programs may have any trap that needs no other world."""


class Step(NamedTuple):
    """A call of a trap.

    Attributes:
        op: the operation.
        args: its arguments.
        coll: the collection's name, "" for the trap's own.
        inside: the calls of a transaction.
        end: how it ends, "commit" or "abort".
    """

    op: str
    args: dict[str, Node]
    coll: str = ""
    inside: tuple[Step, ...] = ()
    end: str = ""


@dataclass(frozen=True, slots=True)
class Laid:
    """A trap in one program.

    Attributes:
        calls: what the program does.
        twin: place of a call -> what the twin does there.
        stock: documents that are there before the program.
        apart: the place of the call from which on another cassette is used; 0 for none.
        early: values that the twin makes first of all, in this order.
    """

    calls: list[Step]
    twin: dict[int, Step]
    stock: tuple[dict[str, Node], ...] = ()
    apart: int = 0
    early: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Trap:
    """A kind of trap.

    Attributes:
        kind: what is different in the twin.
        lay: gives the trap for a program, None where it has no place in it.
        worlds: the worlds whose programs have it.
    """

    kind: str
    lay: Callable[[Writer], Laid | None]
    worlds: tuple[str, ...] = COMMON


# ------------------------------------------------------------------------------- calls


NOTHING = Step("nothing", {})


def _insert(key: Node, **fields: Node) -> Step:
    return Step("insert_one", {"document": {"_id": key, **fields}})


def _count(**found: Node) -> Step:
    return Step("count_documents", {"filter": found})


def _one(**found: Node) -> Step:
    return Step("find_one", {"filter": found})


def _all() -> Step:
    return Step("find", {"filter": {}, "sort": [["_id", 1]]})


# ------------------------------------------------------------------------------- values


def _id(writer: Writer) -> Node:
    return writer.made("uuid4", writer.rng.choice(["uuid", "text", "hex"]))


def _now(writer: Writer, seconds: int = 0) -> Node:
    return writer.made("time", "aware", seconds)


def _literal(writer: Writer) -> Node:
    return writer.literal_uuid("text")


def _starting(writer: Writer, digit: str) -> Node:
    """A literal UUID whose order among others its first digit tells."""
    return {MARK: "uuid", "text": uuid_text(digit * 4 + writer.literal()[4:]), "form": "text"}


def _date(iso: str) -> Node:
    return {MARK: "date", "iso": iso, "form": "naive"}


# ------------------------------------------------------------------------------- what is bound


def _one_for_two(writer: Writer) -> Laid:
    one, two = (writer.made("uuid4", "text") for _ in range(2))
    calls = [_insert(1, ref=one), _insert(2, ref=two), _count(ref=two)]
    return Laid(calls, {1: _insert(2, ref=one), 2: _count(ref=one)})


def _two_in_one_call(writer: Writer) -> Laid:
    one, two = (writer.made("uuid4", "text") for _ in range(2))
    calls = [_insert(1, ref=one, also=one), _one(_id=1)]
    return Laid(calls, {0: _insert(1, ref=one, also=two)})


def _literal_and_another(writer: Writer) -> Laid:
    one, two = _literal(writer), _literal(writer)
    calls = [_insert(1, ref=one, also=one), _one(_id=1)]
    return Laid(calls, {0: _insert(1, ref=one, also=two)})


def _literal_and_another_beside_key(writer: Writer) -> Laid:
    one, two = _literal(writer), _literal(writer)

    def keyed(beside: Node) -> Step:
        return _insert(1, refs={MARK: "doc", "items": [[one, 1], ["last", beside]]})

    return Laid([keyed(one), _one(_id=1)], {0: keyed(two)})


def _literal_and_another_grouped(writer: Writer) -> Laid:
    one, two = _literal(writer), _literal(writer)
    calls = [_insert(1, ref=one, also=one), _stages({"$group": {"_id": "$ref"}})]
    return Laid(calls, {0: _insert(1, ref=one, also=two)})


def _literal_after_another(writer: Writer) -> Laid:
    one, two = _literal(writer), _literal(writer)
    calls = [_insert(1, ref=one), _insert(2, ref=one), _count(ref=one)]
    return Laid(calls, {0: _insert(1, ref=two)})


def _literal_after_another_beside_made(writer: Writer) -> Laid:
    one, two = _literal(writer), _literal(writer)
    calls = [_insert(1, ref=one), _insert(2, ref=one, by=_id(writer)), _one(_id=2)]
    return Laid(calls, {0: _insert(1, ref=two)})


def _asked_again(writer: Writer) -> Laid:
    return Laid([_count(n=1), _insert(1, n=1), _one(_id=1)], {2: _count(n=1)})


def _secret_for_another(one: Node, other: Node) -> Callable[[Writer], Laid]:
    """A secret that is stored once, and the twin asks for one that is stored twice."""

    def lay(writer: Writer) -> Laid:
        calls = [_insert(key, password=held) for key, held in enumerate([one, one, other])]
        return Laid([*calls, _count(password=other)], {3: _count(password=one)})

    return lay


def _made_secret_for_another(writer: Writer) -> Laid:
    """A token is stored under a name of secrets; the twin stores one that is there already."""
    one, two = (writer.made("hex", "text") for _ in range(2))
    calls = [_insert(1, password=one), _update({"$set": {"password": two}}, "update_many")]
    return Laid(calls, {1: _update({"$set": {"password": one}}, "update_many")})


def _written_secret_for_another(writer: Writer) -> Laid:
    """The same with two that are written down."""
    calls = [_insert(1, password="open"), _insert(2, password="sesame"), _count(password="open")]
    return Laid(calls, {1: _insert(2, password="open")})


def _left_out(writer: Writer) -> Laid:
    made = _id(writer)
    return Laid([_insert(1, ref=made), _one(ref=made)], {0: NOTHING})


def _known_from_elsewhere(writer: Writer) -> Laid:
    one, two = _literal(writer), _literal(writer)
    calls = [_insert(1, ref=one), _insert(2, ref=one), _one(_id=2)]
    return Laid(calls, {0: _insert(2, ref=one), 1: _insert(1, ref=two)})


def _stocked_elsewhere(writer: Writer) -> Laid:
    """A literal that is stored is the id of a document that is there; the twin stores another."""
    one, other = _literal(writer), _literal(writer)
    calls = [_insert(1, link=one), writer.rng.choice([_all(), _stages({"$match": {}})])]
    return Laid(calls, {0: _insert(1, link=other)}, stock=({"_id": one, "n": 901},))


def _stocked_and_updated(writer: Writer) -> Laid:
    """The same, shown by the very call that stores it."""
    one, other = _literal(writer), _literal(writer)

    def updated(link: Node) -> Step:
        args = {"filter": {"n": 901}, "update": {"$set": {"link": link}}, "after": True}
        return Step("find_one_and_update", args)

    return Laid([updated(one)], {0: updated(other)}, stock=({"_id": one, "n": 901},))


def _ordered(writer: Writer) -> Laid:
    low, middle, high = (_starting(writer, digit) for digit in "159")
    sorted_by_it = Step("find", {"filter": {}, "sort": [["ref", 1]]})
    asked = writer.rng.choice([sorted_by_it, _count(ref={"$lt": middle})])
    return Laid([_insert(1, ref=low), _insert(2, ref=middle), asked], {0: _insert(1, ref=high)})


def _ids_ordered(writer: Writer) -> Laid:
    one, two = (writer.made("oid", "id") for _ in range(2))
    calls = [_insert(one, n=1), _insert(two, n=2), _all()]
    return Laid(calls, {0: _insert(two, n=1), 1: _insert(one, n=2)}, early=(one, two))


# ----------------------------------------------------------------------------- what rests on looks


def _by_order(calls: Callable[[Node, Node], list[Step]]) -> Callable[[Writer], Laid]:
    """A literal below another one is stored, and in the twin one above it."""

    def lay(writer: Writer) -> Laid:
        low, middle, high = (_starting(writer, digit) for digit in "159")
        one, other = calls(low, middle), calls(high, middle)
        return Laid(one, {place: step for place, step in enumerate(other) if step != one[place]})

    return lay


def _sorted(key: str, coll: str = "") -> Step:
    return Step("find", {"filter": {}, "sort": [[key, 1]]}, coll)


def _in(coll: str, key: int, **fields: Node) -> Step:
    return _insert(key, **fields)._replace(coll=coll)


def _stages(*stages: Node, coll: str = "") -> Step:
    return Step("aggregate", {"pipeline": list(stages)}, coll)


def _update(change: Node, op: str = "update_one", **more: Node) -> Step:
    return Step(op, {"filter": {"_id": 1}, "update": change, **more})


def _looked_up(one: Node, middle: Node) -> list[Step]:
    join = {"from": "looked", "localField": "n", "foreignField": "n", "as": "more"}
    return [
        _in("looked", 1, n=1, ref=one),
        _in("looked", 2, n=1, ref=middle),
        _insert(1, n=1),
        _stages(
            {"$lookup": join},
            {"$unwind": "$more"},
            {"$sort": {"more.ref": 1}},
            {"$project": {"more._id": 1}},
        ),
    ]


BY_ORDER: dict[str, Callable[[Node, Node], list[Step]]] = {
    "in another field": lambda one, middle: [
        _insert(1, ref=one), _insert(2, also=one), _insert(3, also=middle), _sorted("also")
    ],
    "in another collection": lambda one, middle: [
        _insert(1, ref=one), _in("beside", 1, ref=one), _in("beside", 2, ref=middle),
        _sorted("ref", "beside"),
    ],
    "joined": _looked_up,
    "united": lambda one, middle: [
        _in("united", 1, ref=one), _in("united", 2, ref=middle), _insert(9, n=1),
        _stages({"$unionWith": "united"}, {"$sort": {"ref": 1}}),
    ],
    "put out": lambda one, middle: [
        _insert(1, ref=one), _insert(2, ref=middle), _stages({"$match": {}}, {"$out": "out"}),
        _sorted("ref", "out"),
    ],
    "renamed": lambda one, middle: [
        _insert(1, ref=one), _insert(2, ref=middle),
        Step("update_many", {"filter": {}, "update": {"$rename": {"ref": "was"}}}), _sorted("was"),
    ],
    "embedded": lambda one, middle: [
        _insert(1, emb={"ref": one}), _insert(2, emb={"ref": middle}), _sorted("emb")
    ],
    "embedded, as a bound": lambda one, middle: [
        _insert(1, emb={"ref": one}), _count(emb={"$gt": {"ref": middle}})
    ],
    "in an expression": lambda one, middle: [
        _insert(1, ref=one), _count(**{"$expr": {"$lt": ["$ref", middle]}})
    ],
    "in a projection": lambda one, middle: [
        _insert(1, ref=one),
        Step("find", {"filter": {}, "projection": {"x": {"$substrCP": ["$ref", 0, 4]}}}),
    ],
    "in an array filter": lambda one, middle: [
        _insert(1, refs=[one]),
        _update({"$set": {"refs.$[x]": "gone"}}, array_filters=[{"x": {"$lt": middle}}]),
    ],
    "pushed and sorted": lambda one, middle: [
        _insert(1, n=1), _update({"$push": {"log": {"$each": [middle], "$sort": 1}}}),
        _update({"$push": {"log": {"$each": [one], "$sort": 1}}}), _one(_id=1),
    ],
    "as the most": lambda one, middle: [_insert(1, ref=middle), _update({"$max": {"ref": one}})],
    "as the most, given back": lambda one, middle: [
        _insert(1, ref=middle), _update({"$max": {"ref": one}}, "find_one_and_update", after=True)
    ],
}  # fmt: skip
"""How an order is asked for -> the calls, with a literal and one that is in the middle."""


# ------------------------------------------------------------------------------- what is evidence


def _literal_for_made(writer: Writer) -> Laid:
    stored, made = _literal(writer), writer.made("uuid4", "text")
    return Laid([_insert(1, ref=stored), _count(ref=made)], {1: _count(ref=stored)})


def _made_for_literal(writer: Writer) -> Laid:
    stored, made = _literal(writer), writer.made("uuid4", "text")
    return Laid([_count(ref=stored)], {0: _count(ref=made)}, stock=({"_id": 901, "ref": stored},))


def _stocked_for_made(writer: Writer) -> Laid:
    stored, made = _literal(writer), writer.made("uuid4", "text")
    return Laid([_count(ref=made)], {0: _count(ref=stored)}, stock=({"_id": 901, "ref": stored},))


def _stored_for_literal(writer: Writer) -> Laid:
    stored, other = _literal(writer), _literal(writer)
    return Laid([_insert(1, ref=stored), _count(ref=other)], {1: _count(ref=stored)})


def _literal_for_stocked(writer: Writer) -> Laid:
    stored, other = _literal(writer), _literal(writer)
    return Laid([_count(ref=stored)], {0: _count(ref=other)}, stock=({"_id": 901, "ref": stored},))


def _literal_bound(writer: Writer) -> Laid:
    low, middle, high = (_starting(writer, digit) for digit in "159")
    calls = [_insert(1, ref=middle), _count(ref={"$lt": low})]
    return Laid(calls, {1: _count(ref={"$lt": high})})


def _hours_off(writer: Writer) -> Laid:
    before, after = _now(writer, -HOUR), _now(writer, HOUR)
    calls = [_insert(1, at=_now(writer)), _count(at={"$gte": before})]
    return Laid(calls, {1: _count(at={"$gte": after})})


def _known_time(writer: Writer) -> Laid:
    one, other = _now(writer), _now(writer, 3)
    return Laid([_insert(1, at=one), _insert(2, at=other), _one(at=one)], {2: _one(at=other)})


def _moved_date(writer: Writer) -> Laid:
    day = writer.rng.randint(10, 20)
    date, next_day = (f"2024-05-{number}T10:00:00" for number in (day, day + 1))
    moved = f"2024-05-{day + 3}T11:12:02"
    calls = [_insert(1, at=_date(next_day)), _count(at={"$lt": _date(date)})]
    return Laid(calls, {1: _count(at={"$lt": _date(moved)})})


assert MOVED == 3 * 24 * HOUR + HOUR + 12 * 60 + 2


def _later_date(writer: Writer) -> Laid:
    days = (f"2024-0{month}-{writer.rng.randint(10, 20)}T00:00:00" for month in (4, 5, 6))
    day, bound, later = days
    calls = [_insert(1, at=_date(day)), _count(at={"$lt": _date(bound)})]
    return Laid(calls, {0: _insert(1, at=_date(later))})


def _next_midnight(writer: Writer) -> Laid:
    """Today's midnight, which is another one on the day of the replay."""
    day = writer.rng.choice([-24, 0])
    today, next_one = (writer.made("time", "midnight", (day + more) * HOUR) for more in (0, 24))
    calls = [_insert(1, at=today), _one(_id=1), _count(at=today)]
    return Laid(calls, {0: _insert(1, at=next_one)})


def _lasting(writer: Writer) -> Laid:
    start, end = _now(writer), _now(writer, 60)
    took = {MARK: "took", "since": start, "until": end}
    longer = {**took, "more": 7}
    calls = [_insert(1, start=start, end=end, took=took), _count(took={"$gt": 63.5})]
    return Laid(calls, {0: _insert(1, start=start, end=end, took=longer)})


# ------------------------------------------------------------------------------- what looks made


def _written(one: str, other: str) -> Callable[[Writer], Laid]:
    """A text that is there already is stored; the twin stores another one like it."""

    def lay(writer: Writer) -> Laid:
        calls = [_insert(1, code=one), _all()]
        return Laid(calls, {0: _insert(1, code=other)}, stock=({"_id": 901, "code": one},))

    return lay


def _asked(one: str, other: str) -> Callable[[Writer], Laid]:
    """A text that is there is asked for; the twin asks for another one like it."""
    return lambda writer: Laid(
        [_count(code=one)], {0: _count(code=other)}, stock=({"_id": 901, "code": one},)
    )


def _piece(writer: Writer) -> Laid:
    """The beginning of an id that the program makes, and the twin writes another literal."""
    made = writer.made("uuid4", "piece")
    calls = [_insert(1, code="batch-00c0ffee"), _count(code=writer.text("batch-{}", made))]
    return Laid(calls, {1: _count(code="batch-00c0ffee")})


def _there_twice(writer: Writer) -> Laid:
    one, other = _literal(writer), _literal(writer)
    return Laid([_insert(one, n=1)], {0: _insert(other, n=1)}, stock=({"_id": one},))


# ------------------------------------------------------------------------------- of other worlds


def _fresh_in_next(kind: str) -> Callable[[Writer], Laid]:
    """A value that one cassette stored is asked for in the next; the twin asks for a fresh one."""

    def lay(writer: Writer) -> Laid:
        one, other = (writer.made(kind, "text") for _ in range(2))
        return Laid([_insert(1, ref=one), _one(ref=one)], {1: _one(ref=other)}, apart=1)

    return lay


def _known_in_next(writer: Writer) -> Laid:
    one, other = (writer.made("hex", "text") for _ in range(2))
    return Laid([_insert(1, ref=one), _count(ref=other)], {1: _count(ref=one)}, apart=1)


def _not_ignored(writer: Writer) -> Laid:
    def asked(there: bool) -> Step:
        return _count(_id=1, **{"$and": [{NOISE: {"$exists": there}}]})

    return Laid([_insert(1, **{NOISE: writer.noise()}), asked(True)], {1: asked(False)})


def _left_to_a_matcher(writer: Writer) -> Laid:
    return Laid([_insert(1, n=1), _one(_id=1)], {1: _one(_id=2)})


def _names_anew(writer: Writer) -> Laid | None:
    if not any(call["op"] == "list_collection_names" for call in writer.calls[: writer.started]):
        return None
    return Laid([_insert(1, n=1), _count(n=1)], {1: Step("list_collection_names", {})})


def _answered_in_two_ways(writer: Writer) -> Laid | None:
    """A start-up call that is answered only elsewhere, before a write there and after it."""
    started = {call["op"] for call in writer.calls[: writer.started]}
    left = [op for op in ("list_collection_names", "index_information") if op not in started]
    if not left:
        return None
    other = Step(left[0], {}, str(writer.colls[0].place["coll"]))
    return Laid([_count(n=1), _insert(1, n=1)], {0: other})


def _another_index(writer: Writer) -> Laid | None:
    """An index like one that the program made as it started, but for its direction."""
    args, coll = (writer.calls[0][part] for part in ("args", "coll"))
    if "name" in args:
        return None
    keys = [[field, -direction] for field, direction in args["keys"]]
    other = Step("create_index", {**args, "keys": keys}, coll)
    return Laid([_insert(1, n=1), _count(n=1)], {1: other})


def _many_for_one(writer: Writer) -> Laid:
    args = {"filter": {"n": {"$gt": 0}}, "update": {"$set": {"seen": True}}}
    calls = [_insert(1, n=1), _insert(2, n=2), Step("update_many", args)]
    return Laid(calls, {2: Step("update_one", args)})


def _keys_swapped(writer: Writer) -> Laid:
    def asked(*keys: str) -> Step:
        return Step("find", {"filter": {}, "sort": [[key, 1] for key in keys]})

    calls = [_insert(1, n=1, m=2), _insert(2, n=2, m=1), asked("n", "m")]
    return Laid(calls, {2: asked("m", "n")})


def _stages_swapped(writer: Writer) -> Laid:
    stages = [{"$sort": {"n": 1}}, {"$limit": 1}]
    calls = [_insert(1, n=2), _insert(2, n=1), Step("aggregate", {"pipeline": stages})]
    return Laid(calls, {2: Step("aggregate", {"pipeline": stages[::-1]})})


def _another_piece(writer: Writer) -> Laid:
    """An id is looked for by its beginning, and in the twin the other one."""
    one, other = (writer.made("uuid4", "hex") for _ in range(2))
    pieces = [writer.text("^{}", {**made, "form": "piece"}) for made in (one, other)]
    calls = [_insert(1, ref=one), _insert(2, ref=other), _one(ref={"$regex": pieces[0]})]
    return Laid(calls, {2: _one(ref={"$regex": pieces[1]})})


def _other_transaction(writer: Writer) -> Laid:
    """Two transactions alike, of which the first is committed and the second aborted."""

    def ended(key: int, end: str) -> Step:
        return Step("transaction", {}, inside=(_insert(key, n=1),), end=end)

    calls = [_insert(1, n=1), ended(2, "commit"), _count(n=1), ended(3, "abort")]
    return Laid(calls, {1: ended(2, "abort")})


def _digest_in_next(writer: Writer) -> Laid:
    """A digest that one cassette stored is stored in the next, too; in the twin another one."""
    one, other = (writer.made("sha1", "text") for _ in range(2))
    calls = [_insert(1, ref=one), _insert(2, ref=one), _count(ref=one)]
    return Laid(calls, {1: _insert(2, ref=other), 2: _count(ref=other)}, apart=1)


TRAPS = (
    # The first, as a replay's clock is as far from the recording's as planned when both begin.
    Trap("a written date moved with the clock, as a bound", _moved_date),
    Trap("one updated for many", _many_for_one),
    Trap("a sort's keys swapped, of two that differ", _keys_swapped),
    Trap("a limit before a sort", _stages_swapped),
    Trap("one made value for two, then counted", _one_for_two),
    Trap("two made values for one, in one write", _two_in_one_call),
    Trap("another literal beside the same, in one write", _literal_and_another),
    Trap("another literal, then the same", _literal_after_another),
    Trap("another literal, then the same beside a made value", _literal_after_another_beside_made),
    Trap("a read once more, after a write", _asked_again),
    Trap("a transaction aborted, as another one was", _other_transaction),
    Trap("two ids the other way round, by whose order is asked", _ids_ordered),
    Trap("another secret that is known", _secret_for_another("open", "sesame")),
    Trap("another secret number that is known", _secret_for_another(1234, 5678)),
    Trap("a call left out, then a fresh value for the one it held", _left_out),
    Trap("another literal for one that a later call stored", _known_from_elsewhere),
    Trap("another literal, by whose order is asked", _ordered),
    *(
        Trap(f"another literal, by whose order is asked, {how}", _by_order(calls))
        for how, calls in BY_ORDER.items()
    ),
    Trap("the beginning of another id", _another_piece),
    Trap("another digest than in the cassette before", _digest_in_next, ("takes",)),
    Trap("a stored literal for a made value, counted", _literal_for_made),
    Trap("a made value for a stocked literal, counted", _made_for_literal),
    Trap("a stored literal for another one, counted", _stored_for_literal),
    Trap("another literal for a stocked one, counted", _literal_for_stocked),
    Trap("another literal as a bound, counted", _literal_bound),
    Trap("a time two hours off, as a bound", _hours_off),
    Trap("a known time for another one, asked for", _known_time),
    Trap("a longer time than there is between two", _lasting),
    Trap("another telephone number, in a write", _written("+49-5550100", "+49-5550199")),
    Trap("another telephone number, in a filter", _asked("+49-5550100", "+49-5550199")),
    Trap(
        "another long name, in a write",
        _written("CustomerRelationshipManager", "CustomerRelationshipMonitor"),
    ),
    Trap(
        "another long name, in a filter",
        _asked("CustomerRelationshipManager", "CustomerRelationshipMonitor"),
    ),
    Trap("a literal for a piece of a made id, in a filter", _piece),
    Trap("another literal for one that is there, in a write", _there_twice),
    Trap("a fresh token for one of another cassette", _fresh_in_next("hex"), ("takes",)),
    Trap("a fresh id for one of another cassette", _fresh_in_next("uuid4"), ("takes",)),
    Trap("a token of another cassette for a fresh one", _known_in_next, ("takes",)),
    Trap("a key that is ignored elsewhere", _not_ignored, ("ignored",)),
    Trap("another id, where a matcher compares", _left_to_a_matcher, ("matcher",)),
    Trap("collections asked for anew, after a write", _names_anew, ("ambient",)),
    Trap("a start-up call with two answers elsewhere", _answered_in_two_ways, ("ambient",)),
    Trap("another index than at the start", _another_index, ("ambient",)),
    Trap("another literal beside the same, then grouped", _literal_and_another_grouped),
    Trap("a stocked literal for a made value, counted", _stocked_for_made),
    Trap("a secret of this run that is stored already, for another", _made_secret_for_another),
    Trap("another literal for the id of a stocked document, then shown", _stocked_elsewhere),
    Trap("another literal beside a key that is the same", _literal_and_another_beside_key),
    Trap("a written secret that is stored already, for another", _written_secret_for_another),
    Trap("another literal for the id of a stocked document, shown at once", _stocked_and_updated),
    Trap("a date behind a bound, stored", _later_date),
    Trap("the next day's midnight, stored", _next_midnight),
)


# ------------------------------------------------------------------------------- in programs


def program(seed: int, number: int, worlds: Iterable[str] = ()) -> Program:
    """The program of that number, of one of some worlds, as JSON; no two places share a value."""
    writer = Writer(seed, number, tuple(worlds))
    written = writer.program()
    written["traps"] = []
    for trap in _chosen(writer.world_name, random.Random(f"{seed}/{number}/traps")):
        _lay(writer, written, trap)
    copied: Program = json.loads(json.dumps(written))
    return copied


FIRST_ALONE = 1_000_000
"""The number of the first program of one trap; random ones do not reach it."""


def each_alone() -> dict[int, Program]:
    """A program of each trap, by its number."""
    return {number: alone(number, trap) for number, trap in enumerate(TRAPS, start=FIRST_ALONE)}


def alone(number: int, trap: Trap) -> Program:
    """A program of one trap, after the start-up calls of its world."""
    for seed in range(100):
        writer = Writer(seed, number, trap.worlds[:1])
        written = writer.program()
        written |= {"database": f"trap_{number}", "driver": "sync", "stock": [], "early": []}
        written |= {"traps": [], "calls": writer.calls[: writer.started]}
        _lay(writer, written, trap)
        if written["traps"]:
            copied: Program = json.loads(json.dumps(written))
            return copied
    raise AssertionError(f"no program has the trap {trap.kind!r}")


def _chosen(world: str, rng: random.Random) -> list[Trap]:
    """Some traps for a program: one that only its world has, if there are any, the last."""
    fitting = [trap for trap in TRAPS if world in trap.worlds]
    own = [trap for trap in fitting if trap.worlds != COMMON]
    common = [trap for trap in fitting if trap.worlds == COMMON]
    last = rng.sample(own, min(len(own), 1))
    return rng.sample(common, min(len(common), IN_EACH - len(last))) + last


def _lay(writer: Writer, written: Program, trap: Trap) -> None:
    laid, coll = trap.lay(writer), f"trap_{len(written['traps'])}"
    if laid is None:
        return
    if laid.stock and not isinstance(written["database"], str):
        return  # nothing is there before it is named
    first = max(_numbers(written["calls"]), default=0) + 1
    numbers = list(accumulate((1 + len(step.inside) for step in laid.calls), initial=first))
    calls = [_call(numbers[place], coll, step) for place, step in enumerate(laid.calls)]
    changed = [_call(numbers[place], coll, step) for place, step in laid.twin.items()]
    early = [node["name"] for node in laid.early]
    written["calls"] += calls
    written["traps"].append({"kind": trap.kind, "calls": changed, "early": early})
    written["stock"] += [[coll, list(laid.stock)]] if laid.stock else []
    if laid.apart:
        written["cut"] = calls[laid.apart]["id"]


def _numbers(calls: list[Call]) -> list[int]:
    return [int(call["id"]) for call in calls]


def _call(number: int, coll: str, step: Step) -> dict[str, Any]:
    """A call, numbered after those that it holds, of which the first has the number."""
    inside = [_call(number + place, coll, inner) for place, inner in enumerate(step.inside)]
    called = {"id": number + len(inside), "op": step.op, "coll": step.coll or coll}
    if not inside:
        return {**called, "args": step.args}
    return {**called, "calls": inside, "end": step.end}


def sprung(kind: str) -> Callable[[Program, random.Random], int | None]:
    """What makes the twin of a trap of a program, and gives the number of its first other call."""

    def change(written: Program, rng: random.Random) -> int | None:
        for trap in written["traps"]:
            if trap["kind"] == kind:
                other = {call["id"]: call for call in trap["calls"]}
                written["early"] = [*written["early"], *trap["early"]]
                written["calls"] = [other.get(call["id"], call) for call in written["calls"]]
                return min(other)
        return None

    return change
