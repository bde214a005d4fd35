"""Adversarial twins: a program with one real difference, which replay must not answer wrongly.

A row of `KINDS` is a kind of difference. Its `change` gets one place of a program (a `Spot`) and
gives what stands there instead, or None where the kind does not fit the place. A twin whose changed
call is another recorded call of the same program is no twin: calls are answered in any order.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from tests.matching.programs import HOUR, LABELS, uuid_text
from tests.matching.runner import HOLDERS, START_UP, Call, Program
from tests.matching.traps import TRAPS, sprung
from tests.matching.values import FAMILY, FORMS_OF, MARK, Node, canonical
from tests.matching.worlds import MOVED, NOISE

Path = tuple[Any, ...]
READ = frozenset({"filter", "pipeline", "sort", "limit", "skip", "projection", "key", "id"})
WRITE = frozenset(
    {"document", "documents", "update", "replacement", "metadata", "filename", "file_id"}
)


@dataclass(frozen=True, slots=True)
class Twin:
    """A program that differs from another in one place.

    Attributes:
        kind: the kind's name.
        program: the changed program.
        changed: the number of the first call that differs.
    """

    kind: str
    program: Program
    changed: int


@dataclass(slots=True)
class Spot:
    """One place in a program.

    Attributes:
        program: the program; a copy, to be altered.
        call: the call that the place is in.
        path: the way from the call to the place.
        node: what stands there.
        where: "filter", "pipeline", "update", ...; of a bulk write, that of the operation's part.
        rng: what chance is drawn from.
    """

    program: Program
    call: Call
    path: Path
    node: Node
    where: str
    rng: random.Random


Change = Callable[[Spot], Node]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of difference.

    Attributes:
        name: what differs.
        change: gives the new node for a spot, None if it does not fit.
        where: the arguments that it is tried in; empty for the call itself.
        limit: why answers of this kind may be wrong, as documented; empty where none may.
    """

    name: str
    change: Change
    where: frozenset[str] = frozenset()
    limit: str = ""

    @property
    def must_miss(self) -> bool:
        """Whether the difference is in what a call asks for, never in what it writes."""
        return bool(self.where) and self.where <= READ


# ------------------------------------------------------------------------------- places


def calls_of(program: Program) -> Iterator[Call]:
    """All calls, also those that others hold, in order of their numbers."""
    for call in program["calls"]:
        if call["op"] in HOLDERS:
            yield from call["calls"]
        yield call


def spots(program: Program, rng: random.Random) -> Iterator[Spot]:
    """Every place in the arguments of every call."""
    for call in calls_of(program):
        for name, value in call.get("args", {}).items():
            for path, node in _within(value, ("args", name)):
                yield Spot(program, call, path, node, _where(path), rng)


def _within(node: Node, path: Path) -> Iterator[tuple[Path, Node]]:
    if path[-1] == NOISE and "$exists" not in node:
        return  # what is ignored, or left out by the matcher
    yield path, node
    if isinstance(node, dict):
        for key, value in node.items():
            if key != MARK and not (node.get(MARK) and key not in _INSIDE):
                yield from _within(value, (*path, key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _within(value, (*path, number))


_INSIDE = {"items", "parts", "id", "more", "value"}
"""What of a marked node holds nodes itself."""


def _where(path: Path) -> str:
    names = [step for step in path if step in READ | WRITE]
    if path[1] == "requests":
        return str(names[0]) if names else "requests"
    return str(path[1])


# ------------------------------------------------------------------------------- changes


def is_made(node: Node) -> bool:
    return isinstance(node, dict) and node.get(MARK) == "made"


def family(spot: Spot, node: Node) -> str:
    return FAMILY.get(spot.program["values"][node["name"]], "token")


def is_id(spot: Spot) -> bool:
    return is_made(spot.node) and family(spot, spot.node) != "time"


def another_int(spot: Spot) -> Node:
    if type(spot.node) is not int or _is_direction(spot) or "shift" in spot.path:
        return None
    return spot.node + spot.rng.choice([1, 3, 19, -1, 100])


def _is_direction(spot: Spot) -> bool:
    return spot.where in ("sort", "projection", "keys") or "$sort" in spot.path


def another_price(spot: Spot) -> Node:
    if spot.path[-1] != "price" or type(spot.node) not in (int, float):
        return None
    return spot.node + spot.rng.choice([0.25, 1, 10])


def another_text(spot: Spot) -> Node:
    if type(spot.node) is not str or spot.node.startswith("$") or "$project" in spot.path:
        return None
    if "type" in spot.path or spot.path[-1] in ("from", "as", "localField", "foreignField", "text"):
        return None
    return spot.node + "x" if spot.rng.random() < 0.5 else f"other {spot.node}"


def another_label(spot: Spot) -> Node:
    """The other label of the same form."""
    if type(spot.node) is not str or spot.node not in LABELS:
        return None
    return LABELS[LABELS.index(spot.node) ^ 1]


def _literal(mark: str, changed: Callable[[Node, random.Random], Node]) -> Change:
    def change(spot: Spot) -> Node:
        if not isinstance(spot.node, dict) or spot.node.get(MARK) != mark:
            return None
        return {**spot.node, **changed(spot.node, spot.rng)}

    return change


def _digits(rng: random.Random, count: int = 32) -> str:
    return f"{rng.getrandbits(4 * count):0{count}x}"


another_oid = _literal("oid", lambda node, rng: {"hex": "65" + _digits(rng, 22)})
another_uuid = _literal("uuid", lambda node, rng: {"text": uuid_text(_digits(rng))})
another_md5 = _literal("md5", lambda node, rng: {"of": f"user {rng.randint(1, 10**6)}!"})


def shifted(seconds: int) -> Change:
    def change(spot: Spot) -> Node:
        node = spot.node
        if is_made(node) and family(spot, node) == "time":
            return {**node, "shift": node.get("shift", 0) + seconds * spot.rng.choice([1, -1])}
        if isinstance(node, dict) and node.get(MARK) == "date":
            moved = datetime.fromisoformat(node["iso"]) + timedelta(seconds=seconds)
            return {**node, "iso": moved.isoformat()}
        return None

    return change


def one_element_more(spot: Spot) -> Node:
    if type(spot.node) is not list or not spot.node or _is_part(spot):
        return None
    return [*spot.node, _like(spot, spot.node[0])]


def another_element(spot: Spot) -> Node:
    if type(spot.node) is not list or not spot.node or _is_part(spot):
        return None
    where = spot.rng.randrange(len(spot.node))
    changed = list(spot.node)
    changed[where] = _like(spot, changed[where])
    return changed


def _is_part(spot: Spot) -> bool:
    """Whether a list is no value of the program's: stages, documents, conditions, directions."""
    last = spot.path[-1]
    if _is_direction(spot) or len(spot.path) <= 2 or spot.path[-2] == "items":
        return True
    if last in ("$or", "$and", "parts") or (last == "items" and _marked_by(spot, "doc")):
        return True
    return any(type(item) in (dict, list) and MARK not in item for item in spot.node)


def _marked_by(spot: Spot, mark: str) -> bool:
    place: Any = spot.call
    for step in spot.path[:-1]:
        place = place[step]
    return isinstance(place, dict) and place.get(MARK) == mark


def _like(spot: Spot, node: Node) -> Node:
    """Another value of a node's own kind."""
    if type(node) is int:
        return node + 17
    if type(node) is float:
        return node + 1.5
    if type(node) is str:
        return node + "x"
    if is_made(node) and family(spot, node) != "time":
        return {**node, "name": new_value(spot.program, spot.program["values"][node["name"]])}
    if isinstance(node, dict) and node.get(MARK) in ("oid", "uuid", "md5"):
        return {"oid": another_oid, "uuid": another_uuid, "md5": another_md5}[node[MARK]](
            Spot(spot.program, spot.call, spot.path, node, spot.where, spot.rng)
        )
    return f"other {spot.rng.randint(1, 999)}"


def new_value(program: Program, kind: str) -> str:
    """The name of a value that the program makes where it first uses it."""
    name = f"w{len(program['values']) + 1}"
    program["values"][name] = kind
    return name


def array_order(spot: Spot) -> Node:
    if type(spot.node) is not list or len(spot.node) < 2 or _is_part(spot):
        return None
    if spot.path[-1] in ("$in", "$all", "items"):
        return None
    return [*spot.node[1:], spot.node[0]]


def key_order(spot: Spot) -> Node:
    if type(spot.node) is not dict or set(spot.node) != {"x", "y"}:
        return None
    return dict(reversed(spot.node.items()))


def sort_reversed(spot: Spot) -> Node:
    if spot.where == "sort" and len(spot.path) == 4 and spot.path[-1] == 1:
        return -spot.node
    if len(spot.path) > 2 and spot.path[-2] == "$sort" and type(spot.node) is int:
        return -spot.node
    return None


def sort_keys_swapped(spot: Spot) -> Node:
    if spot.where == "sort" and len(spot.path) == 2 and len(spot.node) > 1:
        return spot.node[::-1]
    if spot.path[-1] == "$sort" and len(spot.node) > 1:
        return dict(reversed(spot.node.items()))
    return None


def _count(name: str) -> Change:
    def change(spot: Spot) -> Node:
        fits = spot.path[-1] in (name, f"${name}") and type(spot.node) is int
        return spot.node + spot.rng.choice([1, 2]) if fits else None

    return change


def stage_dropped(spot: Spot) -> Node:
    if spot.path != ("args", "pipeline") or len(spot.node) < 2:
        return None
    where = spot.rng.randrange(len(spot.node))
    return spot.node[:where] + spot.node[where + 1 :]


def stages_reordered(spot: Spot) -> Node:
    if spot.path != ("args", "pipeline") or len(spot.node) < 2:
        return None
    where = spot.rng.randrange(len(spot.node) - 1)
    stages = list(spot.node)
    stages[where], stages[where + 1] = stages[where + 1], stages[where]
    return stages


def projection_less(spot: Spot) -> Node:
    if spot.path[:2] == ("args", "projection") and spot.path[-1] == "items" and spot.node:
        return spot.node[1:]
    plain = type(spot.node) is dict and MARK not in spot.node and len(spot.node) > 1
    if plain and (spot.path == ("args", "projection") or spot.path[-1] == "$project"):
        names = list(spot.node)
        names.remove(spot.rng.choice(names))
        return {name: spot.node[name] for name in names}
    return None


def token_cut(spot: Spot) -> Node:
    node = spot.node
    if not isinstance(node, dict):
        return None
    if is_id(spot) and node["form"] in ("text", "hex"):
        return {MARK: "cut", "of": node}
    return {MARK: "cut", "of": node} if node.get(MARK) in ("md5", "digest", "text") else None


def fresh_value(spot: Spot) -> Node:
    """A value made just now, in place of one that an earlier call wrote or returned."""
    if isinstance(spot.node, dict) and spot.node.get(MARK) == "result":
        return {MARK: "made", "name": new_value(spot.program, "oid"), "form": "id"}
    if not is_id(spot) or not _used_before(spot, spot.node["name"]):
        return None
    kind = spot.program["values"][spot.node["name"]]
    return {**spot.node, "name": new_value(spot.program, kind)}


def _used_before(spot: Spot, name: str) -> bool:
    return any(
        call["id"] < spot.call["id"] and f"name:'{name}'" in canonical(call)
        for call in calls_of(spot.program)
    )


def another_bound(spot: Spot) -> Node:
    """Another value of the program's, of the same kind, that was used before."""
    if not is_id(spot):
        return None
    values = spot.program["values"]
    kind = values[spot.node["name"]]
    others = [name for name in values if values[name] == kind and name != spot.node["name"]]
    others = [name for name in others if _used_before(spot, name)]
    return {**spot.node, "name": spot.rng.choice(others)} if others else None


def another_result(spot: Spot) -> Node:
    """Another returned value in place of the one that was used."""
    node = spot.node
    if not isinstance(node, dict) or node.get(MARK) != "result":
        return None
    before = [call for call in spot.program["calls"] if call["id"] < spot.call["id"]]
    others = [
        {MARK: "result", "call": call["id"], "path": ["inserted_id"]}
        for call in before
        if call["op"] == "insert_one" and call["id"] != node["call"]
    ]
    return spot.rng.choice(others) if others else None


def other_form(spot: Spot) -> Node:
    """The same value of another type: an ObjectId as text, a UUID without dashes."""
    node = spot.node
    if not (is_made(node) or (isinstance(node, dict) and node.get(MARK) in ("oid", "uuid"))):
        return None
    kind = family(spot, node) if node[MARK] == "made" else node[MARK]
    forms = [form for form in FORMS_OF[kind] if form != node.get("form", "id")]
    forms = [form for form in forms if {form, node.get("form")} != {"aware", "naive"}]
    return {**node, "form": spot.rng.choice(forms)} if forms else None


def made_for_literal(spot: Spot) -> Node:
    node = spot.node
    if not isinstance(node, dict) or node.get(MARK) not in ("oid", "uuid", "md5", "date"):
        return None
    kind = {"oid": "oid", "uuid": "uuid4", "md5": "hex", "date": "time"}[node[MARK]]
    form = node.get("form", {"oid": "id", "md5": "text", "date": "naive"}.get(node[MARK]))
    return {MARK: "made", "name": new_value(spot.program, kind), "form": form}


def literal_for_made(spot: Spot) -> Node:
    node = spot.node
    if not is_made(node):
        return None
    match family(spot, node):
        case "oid":
            return {MARK: "oid", "hex": "65" + _digits(spot.rng, 22), "form": node["form"]}
        case "uuid":
            text = str(uuid.UUID(uuid_text(_digits(spot.rng))))
            return {MARK: "uuid", "text": text, "form": node["form"]}
        case "time":
            return {MARK: "date", "iso": "2024-05-06T07:08:09", "form": node["form"]}
    return {MARK: "md5", "of": f"user {spot.rng.randint(1, 10**6)}"}


def other_type(spot: Spot) -> Node:
    node = spot.node
    if _is_direction(spot) or spot.path[-1] in ("limit", "skip", "$limit", "$skip", "type"):
        return None
    if type(node) is int:
        return spot.rng.choice([float(node), str(node), node == 1])
    if type(node) is bool and spot.path[-1] not in ("$exists",):
        return int(node)
    return str(node) if type(node) is float else None


def extra_key(spot: Spot) -> Node:
    whole = spot.path[-1] in ("filter", "$match") and type(spot.node) is dict
    if not whole or MARK in spot.node:
        return None
    return {**spot.node, "active": {"$ne": False}}


def key_dropped(spot: Spot) -> Node:
    whole = spot.path[-1] in ("filter", "$match") and type(spot.node) is dict
    if not whole or not spot.node or MARK in spot.node:
        return None
    names = list(spot.node)
    names.remove(spot.rng.choice(names))
    return {name: spot.node[name] for name in names}


def field_more(spot: Spot) -> Node:
    whole = type(spot.node) is dict and MARK not in spot.node and "n" in spot.node
    return {**spot.node, "extra": spot.rng.randint(1, 9)} if whole else None


def field_dropped(spot: Spot) -> Node:
    whole = type(spot.node) is dict and MARK not in spot.node and "n" in spot.node
    names = [name for name in spot.node if name not in ("_id", "n", NOISE)] if whole else []
    gone = spot.rng.choice(names) if names else None
    return {k: v for k, v in spot.node.items() if k != gone} if names else None


def null(spot: Spot) -> Node:
    if not isinstance(spot.node, dict) or spot.node.get(MARK) not in ("made", "oid", "uuid", "md5"):
        return None
    return {MARK: "null"}


def _swapped_names(names: dict[str, str]) -> Change:
    def change(spot: Spot) -> Node:
        if type(spot.node) is not dict:
            return None
        for old, new in names.items():
            if old in spot.node and new not in spot.node and MARK not in spot.node:
                return {new if key == old else key: value for key, value in spot.node.items()}
        return None

    return change


other_condition = _swapped_names(
    {"$gt": "$gte", "$lt": "$lte", "$gte": "$gt", "$lte": "$lt", "$in": "$nin", "$ne": "$eq",
     "$or": "$and", "$all": "$in"}
)  # fmt: skip
other_operator = _swapped_names(
    {"$inc": "$set", "$push": "$addToSet", "$max": "$min", "$addToSet": "$push", "$set": "$max"}
)
other_accumulator = _swapped_names({"$max": "$min", "$push": "$addToSet", "$multiply": "$add"})


def text_around(spot: Spot) -> Node:
    if not isinstance(spot.node, dict) or spot.node.get(MARK) != "text":
        return None
    return {**spot.node, "text": spot.rng.choice(["x{}", "{}x"]).format(spot.node["text"])}


def ref_changed(spot: Spot) -> Node:
    if not isinstance(spot.node, dict) or spot.node.get(MARK) != "ref":
        return None
    changes = [{"to": "people"}, {"more": {**spot.node["more"], "also": 1}}, {"more": {}}]
    return {**spot.node, **spot.rng.choice(changes)}


# ---------------------------------------------------------------- of one world


def beside_ignored(spot: Spot) -> Node:
    """Another value beside one that is ignored."""
    if not _is_noisy(spot) or _is_direction(spot) or NOISE in spot.path:
        return None
    if type(spot.node) is int and "shift" not in spot.path:
        return spot.node + 1
    if isinstance(spot.node, dict) and spot.node.get(MARK) in ("made", "oid", "uuid", "md5"):
        return None if is_made(spot.node) and not is_id(spot) else _like(spot, spot.node)
    return None


def _is_noisy(spot: Spot) -> bool:
    return NOISE in canonical(spot.call)


def ignored_elsewhere(spot: Spot) -> Node:
    """Another condition on the key that is ignored, at a place where it is not."""
    fits = spot.path[-2:] == (NOISE, "$exists")
    return not spot.node if fits else None


def another_stocked(spot: Spot) -> Node:
    """A document that was there before the program, and another one that was."""
    if not isinstance(spot.node, dict) or spot.node.get(MARK) not in ("oid", "uuid", "md5"):
        return None
    for _, documents in spot.program["stock"]:
        for name in ("_id", "ref", "key"):
            values = [document[name] for document in documents if name in document]
            others = [value for value in values if value != spot.node]
            if len(others) < len(values):
                return spot.rng.choice(others) if others else None
    return None


def stocked_for_made(spot: Spot) -> Node:
    """A literal that is stored, for a value that is made anew."""
    if not is_made(spot.node):
        return None
    learned = spot.program["values"][spot.node["name"]].startswith("lone")
    for _, documents in spot.program["stock"]:
        for document in documents:
            found = document.get("key" if learned else "ref")
            if isinstance(found, dict) and found.get("form") == spot.node["form"]:
                return found
    return None


def stocked_for_learned(spot: Spot) -> Node:
    return stocked_for_made(spot) if _is_lone(spot) else None


def stocked_for_seen(spot: Spot) -> Node:
    return stocked_for_made(spot) if is_made(spot.node) and not _is_lone(spot) else None


def _is_lone(spot: Spot) -> bool:
    return is_made(spot.node) and spot.program["values"][spot.node["name"]].startswith("lone")


def unseen_for_literal(spot: Spot) -> Node:
    """A value that nobody saw being made, for a literal."""
    kind = {"uuid": "lone", "md5": "lonehex"}.get(_mark(spot.node))
    if kind is None:
        return None
    name = new_value(spot.program, kind)
    return {MARK: "made", "name": name, "form": spot.node.get("form", "text")}


def unseen_for_seen(spot: Spot) -> Node:
    """A value that nobody saw being made, for one that was seen."""
    if not is_made(spot.node) or spot.program["values"][spot.node["name"]] not in ("uuid4", "hex"):
        return None
    seen = spot.program["values"][spot.node["name"]]
    return {**spot.node, "name": new_value(spot.program, {"uuid4": "lone", "hex": "lonehex"}[seen])}


def _mark(node: Node) -> str:
    return str(node.get(MARK, "")) if isinstance(node, dict) else ""


def another_index_key(spot: Spot) -> Node:
    if len(spot.path) != 4 or spot.where != "keys":
        return None
    return -spot.node if spot.path[-1] == 1 else f"{spot.node}_too"


def another_index_option(spot: Spot) -> Node:
    """An index that is unique and was not, or has another name."""
    if spot.call["op"] != "create_index":
        return None
    args = spot.call["args"]
    changes = [{"unique": not args.get("unique", False)}, {"name": "another"}]
    return {**spot.call, "args": {**args, **spot.rng.choice(changes)}}


def answers_elsewhere(spot: Spot) -> Node:
    """A start-up call to which another program's cassette has two answers."""
    first = spot.call["id"] < spot.program["cut"]
    if not (spot.program["elsewhere"] and first and spot.call["op"] in START_UP):
        return None
    op = spot.rng.choice(["list_collection_names", "index_information"])
    if any(call["op"] == op for call in spot.program["calls"]):
        return None
    return {**spot.program["elsewhere"][0], "id": spot.call["id"], "op": op}


def known_time(spot: Spot) -> Node:
    """Another time that an earlier call wrote, a few seconds off."""
    if not is_made(spot.node) or family(spot, spot.node) != "time":
        return None
    others = [
        node
        for call in calls_of(spot.program)
        if call["id"] < spot.call["id"]
        for _, node in _within(call.get("args", {}), ("args",))
        if is_made(node)
        and family(spot, node) == "time"
        and node["form"] == spot.node["form"]
        and 1 < abs(node.get("shift", 0) - spot.node.get("shift", 0)) < 9
    ]
    return spot.rng.choice(others) if others and spot.path[-1] == "at" else None


def moved_with_the_clock(spot: Spot) -> Node:
    """A written date of a whole hour, moved as far as the clock is on the day of the replay."""
    if _mark(spot.node) != "date" or spot.node["form"] != "naive":
        return None
    moment = datetime.fromisoformat(spot.node["iso"])
    return (
        {**spot.node, "iso": (moment + timedelta(seconds=MOVED)).isoformat()}
        if not moment.minute
        else None
    )


def literal_kept_once(spot: Spot) -> Node:
    """Another literal at one of two places of a document that hold the same."""
    if type(spot.node) is not dict or not isinstance(spot.node.get("alias"), dict):
        return None
    if _mark(spot.node["alias"]) not in ("oid", "uuid", "md5"):
        return None
    return {**spot.node, "alias": _like(spot, spot.node["alias"])}


def made_kept_once(spot: Spot) -> Node:
    """A new value at one of two places of a document that hold the same."""
    if type(spot.node) is not dict or not is_made(spot.node.get("alias")):
        return None
    return {**spot.node, "alias": _like(spot, spot.node["alias"])}


# ---------------------------------------------------------------- of the call itself


def _flag(name: str) -> Change:
    def change(spot: Spot) -> Node:
        args = spot.call["args"]
        return {**spot.call, "args": {**args, name: not args[name]}} if name in args else None

    return change


def upsert_for_update(spot: Spot) -> Node:
    if spot.call["op"] not in ("update_one", "replace_one") or "upsert" in spot.call["args"]:
        return None
    return {**spot.call, "args": {**spot.call["args"], "upsert": True}}


OTHER_OPERATION = {
    "update_one": "update_many", "update_many": "update_one", "delete_one": "delete_many",
    "delete_many": "delete_one", "count_documents": "find", "find_one": "find_one_and_delete",
}  # fmt: skip


def other_operation(spot: Spot) -> Node:
    op = OTHER_OPERATION.get(spot.call["op"])
    return {**spot.call, "op": op} if op else None


def other_collection(spot: Spot) -> Node:
    return {**spot.call, "coll": "elsewhere"}


def fresh_collection(spot: Spot) -> Node:
    """A newly named collection in place of one whose made name was used before."""
    coll = spot.call["coll"]
    if not isinstance(coll, dict) or not is_made(coll["parts"][0]):
        return None
    if not _used_before(spot, coll["parts"][0]["name"]):
        return None
    old = coll["parts"][0]
    new = {**old, "name": new_value(spot.program, spot.program["values"][old["name"]])}
    return {**spot.call, "coll": {**coll, "parts": [new]}}


def limit_added(spot: Spot) -> Node:
    args = spot.call["args"]
    fits = spot.call["op"] == "find" and "limit" not in args
    return {**spot.call, "args": {**args, "limit": 1}} if fits else None


def sort_dropped(spot: Spot) -> Node:
    args = spot.call["args"]
    fits = spot.call["op"] == "find" and "sort" in args and not {"limit", "skip"} & set(args)
    gone = {key: value for key, value in args.items() if key != "sort"}
    return {**spot.call, "args": gone} if fits else None


def requests_reordered(spot: Spot) -> Node:
    if spot.path != ("args", "requests"):
        return None
    return [*spot.node[1:], spot.node[0]]


def documents_reordered(spot: Spot) -> Node:
    return spot.node[::-1] if spot.path == ("args", "documents") else None


FILTER = frozenset({"filter", "id", "key"})
PIPELINE = frozenset({"pipeline"})
ASKED = FILTER | PIPELINE
SORT = frozenset({"sort", "pipeline"})
REQUESTS = frozenset({"requests"})
FILE = frozenset({"data"})


def _each(
    name: str, change: Change, *places: tuple[str, frozenset[str]], **more: Any
) -> list[Kind]:
    return [Kind(f"{name}, in {place}", change, where, **more) for place, where in places]


IN_FILTER, IN_PIPELINE = ("a filter", FILTER), ("a pipeline", PIPELINE)
IN_WRITE = ("a write", WRITE)
EVERYWHERE = (IN_FILTER, IN_PIPELINE, IN_WRITE)
SECOND = "a difference within the tolerance of the clock"
STORED = "what is stored under a literal may be stored under another"
SHOWN = "what learning has shown to change may be any value"

KINDS: list[Kind] = [
    *_each("another number", another_int, *EVERYWHERE),
    *_each("another price", another_price, IN_WRITE),
    *_each("another text", another_text, *EVERYWHERE),
    *_each("another label", another_label, *EVERYWHERE),
    *_each("another literal ObjectId", another_oid, *EVERYWHERE),
    *_each("another literal UUID", another_uuid, *EVERYWHERE),
    *_each("another user's md5", another_md5, *EVERYWHERE),
    *_each("a date one day off", shifted(24 * HOUR), *EVERYWHERE),
    *_each("a date one hour off", shifted(HOUR), *EVERYWHERE),
    *_each("a date one minute off", shifted(60), ("a filter or pipeline", ASKED), IN_WRITE),
    *_each("a date one second off", shifted(1), IN_FILTER, IN_WRITE, limit=SECOND),
    *_each("an element more in a list", one_element_more, *EVERYWHERE),
    *_each("another element in a list", another_element, *EVERYWHERE),
    *_each("a list in another order", array_order, ("a filter or pipeline", ASKED), IN_WRITE),
    *_each("an embedded document's keys in another order", key_order,
           ("a filter or pipeline", ASKED), IN_WRITE),
    Kind("a sort reversed", sort_reversed, SORT),
    Kind("a sort's keys swapped", sort_keys_swapped, SORT),
    Kind("a sort dropped", sort_dropped),
    Kind("another limit", _count("limit"), frozenset({"limit", "pipeline"})),
    Kind("another skip", _count("skip"), frozenset({"skip", "pipeline"})),
    Kind("a limit added", limit_added),
    Kind("a stage dropped", stage_dropped, PIPELINE),
    Kind("stages reordered", stages_reordered, PIPELINE),
    Kind("a field dropped from a projection", projection_less,
         frozenset({"projection", "pipeline"})),
    *_each("a token cut by a character", token_cut, *EVERYWHERE),
    *_each("a fresh value for a known one", fresh_value, *EVERYWHERE),
    *_each("a bound value for another bound one", another_bound, *EVERYWHERE),
    *_each("another returned id", another_result, IN_FILTER, IN_WRITE),
    *_each("the same value in another form", other_form, *EVERYWHERE),
    *_each("a made value for a literal", made_for_literal, *EVERYWHERE),
    *_each("a literal for a made value", literal_for_made, *EVERYWHERE),
    *_each("another type", other_type, *EVERYWHERE),
    *_each("null for a value", null, *EVERYWHERE),
    Kind("a key more in a filter", extra_key, ASKED),
    Kind("a key dropped from a filter", key_dropped, ASKED),
    *_each("another condition", other_condition, IN_FILTER, IN_PIPELINE),
    Kind("another accumulator", other_accumulator, PIPELINE),
    Kind("another update operator", other_operator, frozenset({"update"})),
    Kind("a field more, in a write", field_more, WRITE),
    Kind("a field dropped, in a write", field_dropped, WRITE),
    *_each("other text around an id", text_around, *EVERYWHERE),
    *_each("another DBRef", ref_changed, *EVERYWHERE),
    Kind("another file content", another_text, FILE),
    Kind("requests reordered", requests_reordered, REQUESTS),
    Kind("documents reordered", documents_reordered, frozenset({"documents"})),
    Kind("upsert for update", upsert_for_update),
    Kind("upsert turned over", _flag("upsert")),
    Kind("return_document turned over", _flag("after")),
    Kind("another operation", other_operation),
    Kind("a difference beside an ignored place", beside_ignored, FILTER | PIPELINE | WRITE),
    Kind("an ignored key at another place", ignored_elsewhere, FILTER),
    *_each("another stocked document's value", another_stocked, IN_FILTER, IN_PIPELINE),
    *_each("another stocked document's value", another_stocked, IN_WRITE, limit=STORED),
    *_each("a stocked literal for a made value", stocked_for_seen, IN_FILTER, IN_PIPELINE),
    *_each("a stocked literal for a made value", stocked_for_seen, IN_WRITE, limit=STORED),
    *_each("a stocked literal for a learned value", stocked_for_learned, IN_FILTER, limit=SHOWN),
    *_each("an unseen value for a literal", unseen_for_literal, *EVERYWHERE),
    *_each("an unseen value for a seen one", unseen_for_seen, *EVERYWHERE),
    Kind("another index key", another_index_key, frozenset({"keys"})),
    Kind("another index option", another_index_option),
    Kind("a start-up call that was answered in two ways", answers_elsewhere),
    *_each("another known time, seconds off", known_time, IN_FILTER),
    *_each("a written date moved with the clock", moved_with_the_clock,
           ("a filter or pipeline", ASKED)),
    Kind("another literal at one of two places, in a write", literal_kept_once, WRITE),
    Kind("a new value at one of two places, in a write", made_kept_once, WRITE),
    Kind("another collection", other_collection),
    Kind("a freshly named collection", fresh_collection),
]  # fmt: skip


# ---------------------------------------------------------------- of the whole program


def _swap(node: Node, one: str, other: str) -> Node:
    if isinstance(node, dict):
        if node.get(MARK) == "made" and node["name"] in (one, other):
            return {**node, "name": other if node["name"] == one else one}
        return {key: _swap(value, one, other) for key, value in node.items()}
    return [_swap(item, one, other) for item in node] if isinstance(node, list) else node


def _uses(program: Program, name: str) -> list[int]:
    return [
        call["id"]
        for call in calls_of(program)
        if call["op"] not in HOLDERS and f"name:'{name}'" in canonical(call)
    ]


def _compared(program: Program) -> list[str]:
    """The values that are no times and stand where they count."""
    ignored = {name for call in calls_of(program) for name in _noises(call)}
    values = program["values"]
    return [name for name in values if values[name] != "time" and name not in ignored]


def _noises(node: Node, *, inside: bool = False) -> Iterator[str]:
    if isinstance(node, dict):
        if inside and node.get(MARK) == "made":
            yield node["name"]
        for key, value in node.items():
            yield from _noises(value, inside=inside or key == NOISE)
    for item in node if isinstance(node, list) else ():
        yield from _noises(item, inside=inside)


def _pairs(program: Program, rng: random.Random) -> list[tuple[str, str]]:
    values = program["values"]
    names = _compared(program)
    pairs = [(a, b) for a in names for b in names if a < b and values[a] == values[b]]
    rng.shuffle(pairs)
    return pairs


def swapped_later(program: Program, rng: random.Random) -> int | None:
    """Swap two values in every call after both were used."""
    for one, other in _pairs(program, rng):
        uses = _uses(program, one), _uses(program, other)
        if not all(uses):
            continue
        both = max(uses[0][0], uses[1][0])
        later = [number for number in {*uses[0], *uses[1]} if number > both]
        if later:
            _rewrite(program, lambda call: _swap(call, one, other), after=both)  # noqa: B023
            return min(later)
    return None


def swapped_from_the_start(program: Program, rng: random.Random) -> int | None:
    """Swap two values in every call: what was made first is used where the second was."""
    for one, other in _pairs(program, rng):
        uses = [*_uses(program, one), *_uses(program, other)]
        if uses and _uses(program, one) != _uses(program, other):
            program["early"] = [*program["early"], one, other]
            _rewrite(program, lambda call: _swap(call, one, other), after=0)  # noqa: B023
            return min(uses)
    return None


def one_for_two(program: Program, rng: random.Random) -> int | None:
    """Use one value everywhere for two of a kind."""
    for one, other in _pairs(program, rng):
        uses = _uses(program, other)
        if uses and _uses(program, one):
            _rewrite(program, lambda call: _swap_one(call, other, one), after=0)  # noqa: B023
            return min(uses)
    return None


def two_for_one(program: Program, rng: random.Random) -> int | None:
    """Use a new value from a value's second use on."""
    names = _compared(program)
    for name in rng.sample(sorted(names), len(names)):
        uses = _uses(program, name)
        if len(uses) > 1:
            new = new_value(program, program["values"][name])
            _rewrite(program, lambda call: _swap_one(call, name, new), after=uses[0])  # noqa: B023
            return uses[1]
    return None


def _swap_one(node: Node, old: str, new: str) -> Node:
    if isinstance(node, dict):
        if node.get(MARK) == "made" and node["name"] == old:
            return {**node, "name": new}
        return {key: _swap_one(value, old, new) for key, value in node.items()}
    return [_swap_one(item, old, new) for item in node] if isinstance(node, list) else node


def _rewrite(program: Program, change: Callable[[Call], Call], after: int) -> None:
    def rewritten(calls: list[Call]) -> list[Call]:
        done = []
        for call in calls:
            if call["op"] in HOLDERS:
                done.append({**call, "calls": rewritten(call["calls"])})
            else:
                done.append(change(call) if call["id"] > after else call)
        return done

    program["calls"] = rewritten(program["calls"])


def aborted(program: Program, rng: random.Random) -> int | None:
    """Abort a transaction that was committed, or commit one that was aborted."""
    for call in program["calls"]:
        if call["op"] == "transaction":
            call["end"] = "abort" if call["end"] == "commit" else "commit"
            return int(call["id"])
    return None


def moved(program: Program, rng: random.Random) -> int | None:
    """Make two neighbouring calls the other way round."""
    calls = program["calls"]
    for where in rng.sample(range(len(calls) - 1), len(calls) - 1):
        one, other = calls[where], calls[where + 1]
        if one["op"] not in HOLDERS and other["op"] not in HOLDERS and _free(other, one):
            one, other = {**other, "id": one["id"]}, {**one, "id": other["id"]}
            if _free(calls, one) and _free(calls, other):
                calls[where], calls[where + 1] = one, other
                return int(one["id"])
    return None


def made_again(program: Program, rng: random.Random) -> int | None:
    """Make a call once more in place of the last one."""
    return _again(program, rng, lambda call: call["op"] not in (*START_UP, *_HARMLESS))


def started_again(program: Program, rng: random.Random) -> int | None:
    """Make a start-up call once more in place of the last call."""
    return _again(program, rng, lambda call: call["op"] in START_UP)


_HARMLESS = ("drop",)


def _again(program: Program, rng: random.Random, fits: Callable[[Call], bool]) -> int | None:
    *others, last = program["calls"]
    found = [call for call in others if call["op"] not in HOLDERS and fits(call)]
    found = [call for call in found if _asked(call) != _asked(last)]
    if not found or last["op"] in HOLDERS:
        return None
    program["calls"][-1] = {**rng.choice(found), "id": last["id"]}
    return int(last["id"])


def _free(call: Node, of: Call) -> bool:
    """Whether nothing in a call takes what another returned."""
    return f"call:{of['id']}," not in canonical(call)


ProgramChange = Callable[[Program, random.Random], "int | None"]
ORDER = "calls are answered in any order, as threads and gather make them"

WHOLE: list[tuple[str, ProgramChange, str]] = [
    ("two ids swapped after both are bound", swapped_later, ""),
    ("two ids swapped from the start", swapped_from_the_start, ""),
    ("one id used for two", one_for_two, ""),
    ("a new id from an id's second use on", two_for_one, ""),
    ("a transaction aborted for committed", aborted, ""),
    ("a call once more, for the last", made_again, ""),
    ("a start-up call once more, for the last", started_again, ""),
    ("two calls the other way round", moved, ORDER),
    *((trap.kind, sprung(trap.kind), "") for trap in TRAPS),
]

LIMITS = {kind.name: kind.limit for kind in KINDS if kind.limit}
LIMITS |= {name: limit for name, _, limit in WHOLE if limit}
"""Kind -> the documented limit that may make its answers wrong."""
ALL_KINDS = [*(kind.name for kind in KINDS), *(name for name, _, _ in WHOLE)]
MUST_MISS = {kind.name for kind in KINDS if kind.must_miss}


# ------------------------------------------------------------------------------- choosing


def twins(
    program: Program,
    rng: random.Random,
    count: int,
    used: dict[str, int],
    kinds: tuple[str, ...] = (),
) -> list[Twin]:
    """Up to `count` twins of a program, of those kinds that fit and were used least.

    Args:
        program: the program; it stays as it is.
        rng: what chance is drawn from.
        count: how many.
        used: kind -> how many twins there are; counted on.
        kinds: only of these kinds; of all if empty.
    """
    order = sorted(kinds or ALL_KINDS, key=lambda name: (used.get(name, 0), rng.random()))
    places = list(spots(program, rng))
    found: list[Twin] = []
    for name in order:
        twin = _twin_of(program, name, places, rng)
        if twin is not None:
            found.append(twin)
            used[name] = used.get(name, 0) + 1
        if len(found) == count:
            break
    return found


def _twin_of(program: Program, name: str, places: list[Spot], rng: random.Random) -> Twin | None:
    """A twin of one kind, None where it does not fit the program."""
    for whole, change, _ in WHOLE:
        if whole == name:
            copied = _copy(program)
            changed = change(copied, rng)
            return None if changed is None else Twin(name, copied, changed)
    kind = next(kind for kind in KINDS if kind.name == name)
    lent = {**program, "values": dict(program["values"])}  # a change may add values to it
    for spot in _fitting(lent, kind, places, rng):
        node = kind.change(spot)
        if node is not None and canonical(node) != canonical(spot.node):
            return _put(lent, name, spot, node)
    return None


def _fitting(program: Program, kind: Kind, places: list[Spot], rng: random.Random) -> list[Spot]:
    if kind.where:
        found = [replace(spot, program=program) for spot in places if spot.where in kind.where]
    else:
        calls = [call for call in calls_of(program) if call["op"] not in HOLDERS]
        found = [Spot(program, call, (), call, "", rng) for call in calls]
    rng.shuffle(found)
    return found


def _put(program: Program, name: str, spot: Spot, node: Node) -> Twin | None:
    """The program with a node in place of another; None if it makes the call one of its others."""
    asked = set(map(_asked, calls_of(program)))
    copied = _copy(program)
    call = next(call for call in calls_of(copied) if call["id"] == spot.call["id"])
    if spot.path:
        place: Any = call
        for step in spot.path[:-1]:
            place = place[step]
        place[spot.path[-1]] = None if node == {MARK: "null"} else node
    else:
        call.clear()
        call.update(node)
    return Twin(name, copied, call["id"]) if _asked(call) not in asked else None


def _copy(program: Program) -> Program:
    copied: Program = json.loads(json.dumps(program))
    return copied


def _asked(call: Call) -> str:
    return canonical({key: value for key, value in call.items() if key != "id"})
