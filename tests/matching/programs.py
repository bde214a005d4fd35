"""Random programs: each is made of a seed, and of calls that use what earlier calls wrote.

A program has a few collections. What their documents hold is drawn once for each: which fields,
what their ids and references are (made or literal, in which form), how times are written. Some
hold documents before the program begins. `SCENES` is the table of what a program does next; each
row adds calls that find what is there. `worlds` tells what it is recorded and replayed under.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.matching.runner import START_UP
from tests.matching.values import MARK, Node
from tests.matching.worlds import NOISE, WORLDS, World

CALLS = 11
"""A program has at least so many calls."""

HOUR = 3600
SHIFTS = [-30 * 24, -7 * 24, -48, -24, -6, -1, 0, 1, 24, 48, 14 * 24]
NAMES = ["ada", "bob", "cleo", "dan", "eve", "finn", "gus", "hal"]
TAGS = ["red", "green", "blue", "old", "new", "large", "small"]
LABELS = ["batch-00c0ffee", "batch-00c0ffe1", "+49-5550100", "+49-5550199",
          "CustomerRelationshipManager", "CustomerRelationshipMonitor"]  # fmt: skip
"""Literals that look somewhat as if they were made: pairs of the same form."""
SECONDS_OFF = [3 / HOUR, 7 / HOUR]
FIELDS = ["name", "price", "tags", "at", "emb", "url", "by", "owner", "token", "flag",
          "label"]  # fmt: skip
STOCKED = ("name", "price", "tags", "emb", "flag", "label")
IDS = ["driver", "driver", "oid", "oid hex", "uuid", "uuid text", "uuid hex", "key", "int",
       "literal oid", "literal uuid", "literal md5"]  # fmt: skip
REFS = ["uuid", "uuid text", "uuid hex", "uuid bin3", "uuid1 text", "oid", "oid hex", "hex",
        "urlsafe", "sha1", "sha256", "digest", "url", "literal uuid", "literal uuid text",
        "literal oid", "literal md5", "literal bin3"]  # fmt: skip
TOKENS = ["hex", "urlsafe", "sha1", "sha256", "literal md5", "piece"]
TIMES = ["aware", "naive", "iso", "commas", "epoch", "seconds", "ms", "literal", "literal iso"]
DRIVERS = ["sync"] * 11 + ["threads"] * 3 + ["async"] * 3 + ["motor"] * 3
SORTABLE_IDS = {"driver", "oid", "oid hex", "int", "literal oid", "literal uuid", "literal md5"}


@dataclass(slots=True)
class Coll:
    """A collection, and what the program knows of it.

    Attributes:
        place: "coll", and "db" where it is another database than the program's.
        fields: which fields its documents have.
        docs: the documents that are there, as data; "id" is how to name their `_id`.
        stock: those that were there before the program.
        sortable: whether the order of `_id` is the same in each run.
    """

    place: dict[str, Node]
    fields: list[str]
    id_kind: str
    ref_kind: str
    token_kind: str
    time: str
    sortable: bool
    docs: list[dict[str, Node]] = field(default_factory=list)
    stock: list[dict[str, Node]] = field(default_factory=list)


class Writer:
    """Writes one program.

    Args:
        seed: the seed of the whole proof.
        number: the program's number.
        worlds: names of the worlds that it may be of; any if empty.
    """

    def __init__(self, seed: int, number: int, worlds: tuple[str, ...] = ()) -> None:
        self.rng = random.Random(f"{seed}/{number}")
        self.number = number
        self.world_name = _a_world(seed, number, worlds)
        self.world: World = WORLDS[self.world_name]
        self.values: dict[str, str] = {}
        self.early: list[str] = []
        self.calls: list[dict[str, Any]] = []
        self.sorted_keys = False
        self.started = 0
        self._id = 0
        self._held = 0
        self._n = 0
        self._literals = 0
        self.database: Node = f"matching_{number}"
        if self.chance(0.05) and not self.world.alone:
            self.database = self.text("matching_{}", self.made("uuid4", "hex"))
        self.colls = [self.new_coll(index) for index in range(self.rng.randint(1, 2))]

    def program(self) -> dict[str, Any]:
        """The program."""
        if self.world.alone:
            start_up(self)
        for coll in self.colls:
            if self.chance(0.4):
                stock(self, coll)
            for _ in range(self.rng.randint(1, 2)):
                insert_some(self, coll)
        while self._id - self._held < CALLS:
            scene = self.rng.choices(list(SCENES), weights=list(SCENES.values()))[0]
            scene(self, self.rng.choice(self.colls))
        return {
            "number": self.number,
            "world": self.world_name,
            "database": self.database,
            "stock": [[coll.place["coll"], coll.stock] for coll in self.colls if coll.stock],
            "elsewhere": elsewhere(self) if self.world.alone else [],
            "cut": self._cut(),
            "hidden": [NOISE] if self.world.noisy else [],
            "ordered": self.world.literal,
            "driver": self.rng.choice(DRIVERS),
            "values": self.values,
            "early": self.early,
            "calls": self.calls,
            "sorted_keys": self.sorted_keys,
        }

    def _cut(self) -> int:
        """The call from which on another cassette is used; 0 for none."""
        if self.world.cassettes == 1:
            return 0
        if self.world.alone:
            return int(self.calls[self.started]["id"])
        return int(self.rng.choice(self.calls[1:])["id"])

    # ---------------------------------------------------------------- values

    def chance(self, likely: float) -> bool:
        return self.rng.random() < likely

    def made(self, kind: str, form: str, shift: int | None = None) -> Node:
        """A new value of the program's own."""
        if self.world.literal:
            return self._written_down(kind, form, shift)
        name = f"v{len(self.values) + 1}"
        self.values[name] = kind
        if kind != "time" and self.chance(0.15):
            self.early.append(name)
        node = {MARK: "made", "name": name, "form": form}
        return node if shift is None else {**node, "shift": shift}

    def _written_down(self, kind: str, form: str, shift: int | None) -> Node:
        """A literal, in a world where nothing tells what a program makes anew."""
        if kind == "time":
            return {**self.time("literal", (shift or 0) / HOUR), "form": form}
        if kind == "oid":
            return {MARK: "oid", "hex": "65" + self.literal()[:22], "form": form}
        if kind.startswith("uuid"):
            return self.literal_uuid(form)
        return {MARK: "md5", "of": f"user {self.rng.randint(1, 10**6)}"}

    def text(self, text: str, *parts: Node) -> Node:
        return {MARK: "text", "text": text, "parts": list(parts)}

    def literal(self) -> str:
        """32 hex digits that no other program has."""
        self._literals += 1
        return hashlib.md5(f"literal {self.number} {self._literals}".encode()).hexdigest()

    def literal_uuid(self, form: str) -> Node:
        return {MARK: "uuid", "text": uuid_text(self.literal()), "form": form}

    def value(self, kind: str) -> Node:
        """A new value of a kind of IDS, REFS or TOKENS."""
        match kind.split():
            case ["oid", *form]:
                return self.made("oid", form[0] if form else "id")
            case ["uuid", *form]:
                return self.made("uuid4", form[0] if form else "uuid")
            case ["uuid1", form]:  # what it draws of `random` rests on the machine
                seeded = "entropy" in self.world.settings
                return self.made("uuid4" if seeded else "uuid1", form)
            case ["literal", "oid"]:
                return {MARK: "oid", "hex": "65" + self.literal()[:22]}
            case ["literal", "md5"]:
                return {MARK: "md5", "of": f"user {self.rng.randint(1, 10**6)}"}
            case ["literal", "uuid", *form]:
                return self.literal_uuid(form[0] if form else "uuid")
            case ["literal", "bin3"]:
                return self.literal_uuid("bin3")
            case ["digest"]:
                of = {"who": self.made("uuid4", "text"), "n": self.n()}
                return {MARK: "digest", "by": "sha1", "of": of}
            case ["key"]:
                return self.text("user:{}", self.made("uuid4", "text"))
            case ["url"]:
                made = self.rng.choice([("uuid4", "text"), ("uuid4", "hex"), ("oid", "hex")])
                return self.text("https://shop.example/items/{}/edit?from=a", self.made(*made))
            case ["piece"]:
                return self.text("batch-{}", self.made("uuid4", "piece"))
            case [token]:
                return self.made(token, "text")
        raise AssertionError(kind)

    def n(self) -> int:
        self._n += 1
        return self._n

    def time(self, how: str, hours: float) -> Node:
        """A time so many hours from now, or from a literal date."""
        if how.startswith("literal"):
            day, hour = divmod(int(hours), 24)
            minute = self.rng.choice(["00", "20"])
            iso = f"2024-{5 + day // 28:02}-{1 + day % 28:02}T{hour:02}:{minute}:00"
            return {MARK: "date", "iso": iso, "form": "iso" if "iso" in how else "naive"}
        return self.made("time", how, round(hours * HOUR))

    # ---------------------------------------------------------------- collections and documents

    def new_coll(self, index: int) -> Coll:
        rng = self.rng
        name: Node = ["students", "orders", "events"][index]
        if self.chance(0.12) and not self.world.alone:
            form = rng.choice(["hex", "text"])
            name = self.text("items_{}", self.made("uuid4", form))
        place: dict[str, Node] = {"coll": name}
        if self.chance(0.05) and not self.world.alone:
            place["db"] = self.text("matching_more_{}", self.made("uuid4", "hex"))
        id_kind = rng.choice(IDS)
        return Coll(
            place,
            [name for name in (*FIELDS, *self.world.fields) if self.chance(0.45)],
            id_kind,
            rng.choice(REFS),
            rng.choice(TOKENS),
            rng.choice(TIMES),
            id_kind in SORTABLE_IDS,
        )

    def document(self, coll: Coll) -> dict[str, Node]:
        """A new document of a collection."""
        n = self.n()
        document: dict[str, Node] = {}
        if coll.id_kind != "driver":
            document["_id"] = n if coll.id_kind == "int" else self.value(coll.id_kind)
        document |= {"n": n, "student": self.rng.randint(1, 30), "ref": self.value(coll.ref_kind)}
        for name in coll.fields:
            document[name] = DOCUMENT_FIELDS[name](self, coll)
        if self.chance(0.1):
            document["alias"] = document["ref"]
        return document

    def known(self, coll: Coll, document: dict[str, Node], key: Node) -> None:
        """Remember a document that was inserted."""
        coll.docs.append({**document, "id": document.get("_id", key)})

    def doc(self, coll: Coll) -> dict[str, Node]:
        return self.rng.choice(coll.docs)

    # ---------------------------------------------------------------- calls

    def call(self, op: str, coll: Coll, **args: Node) -> dict[str, Any]:
        """A call, not yet part of the program."""
        self._id += 1
        if self.world.noisy and self.chance(0.5):
            self._disturb(args)
        return {"id": self._id, "op": op, **coll.place, "args": args}

    def _disturb(self, args: dict[str, Node]) -> None:
        """Put what is ignored into a call's arguments, another one in each run."""
        for name in ("document", "replacement"):
            if name in args:
                args[name] = {**args[name], NOISE: self.noise()}
        if "documents" in args:
            args["documents"] = [{**one, NOISE: self.noise()} for one in args["documents"]]
        if type(args.get("filter")) is dict and MARK not in args["filter"]:
            args["filter"] = {**args["filter"], NOISE: {"$ne": self.noise()}}
            if self.world.settings.get("ignore") and self.chance(0.3):
                there = {NOISE: {"$exists": self.chance(0.5)}}
                args["filter"]["$and"] = [*args["filter"].get("$and", []), there]

    def noise(self) -> Node:
        """A value that looks like nothing that is made anew, and is."""
        name = f"v{len(self.values) + 1}"
        self.values[name] = "short"
        return {MARK: "made", "name": name, "form": "text"}

    def add(self, op: str, coll: Coll, **args: Node) -> int:
        """Add a call to the program and return its number."""
        self.calls.append(self.call(op, coll, **args))
        return self._id

    def hold(self, op: str, calls: list[dict[str, Any]], **more: Any) -> None:
        """Add calls that are made at once, in a session or in a transaction."""
        self._id += 1
        self._held += 1
        self.calls.append({"id": self._id, "op": op, "calls": calls, **more})


def _a_world(seed: int, number: int, worlds: tuple[str, ...]) -> str:
    names = worlds or tuple(WORLDS)
    rng = random.Random(f"{seed}/{number}/world")
    return rng.choices(names, weights=[WORLDS[name].share for name in names])[0]


def uuid_text(digits: str) -> str:
    """32 hex digits as the text of a version 4 UUID."""
    d = f"{digits[:12]}4{digits[13:16]}a{digits[17:]}"
    return f"{d[:8]}-{d[8:12]}-{d[12:16]}-{d[16:20]}-{d[20:]}"


def _at(writer: Writer, coll: Coll) -> Node:
    taken = {doc["at"].get("shift") for doc in coll.docs if "at" in doc}
    shifts = SHIFTS if writer.chance(0.5) else [0, *SECONDS_OFF]
    free = [hours for hours in shifts if round(hours * HOUR) not in taken]
    return writer.time(coll.time, writer.rng.choice(free or SHIFTS))


def _by(writer: Writer, coll: Coll) -> Node:
    return {MARK: "doc", "items": [[writer.made("uuid4", "text"), writer.rng.randint(1, 9)]]}


def _owner(writer: Writer, coll: Coll) -> Node:
    more = {"note": writer.value(writer.rng.choice(["uuid text", "literal md5", "oid"]))}
    return {MARK: "ref", "to": "users", "id": writer.value("oid"), "more": more}


DOCUMENT_FIELDS: dict[str, Callable[[Writer, Coll], Node]] = {
    "name": lambda w, c: w.rng.choice(NAMES),
    "price": lambda w, c: w.rng.choice([w.rng.randint(1, 99), w.rng.randint(1, 999) / 4]),
    "tags": lambda w, c: w.rng.sample(TAGS, w.rng.randint(1, 3)),
    "at": _at,
    "emb": lambda w, c: {"x": w.rng.randint(1, 5), "y": w.rng.randint(6, 9)},
    "url": lambda w, c: w.value("url"),
    "by": _by,
    "owner": _owner,
    "token": lambda w, c: w.value(c.token_kind),
    "flag": lambda w, c: w.chance(0.5),
    "label": lambda w, c: w.rng.choice(LABELS),
    "key": lambda w, c: w.value("uuid text"),
    "code": lambda w, c: w.value("short"),
    "number": lambda w, c: w.made("digits", "int"),
}


# ------------------------------------------------------------------------------- filters


def a_filter(writer: Writer, coll: Coll, *, one: bool = False) -> Node:
    """A filter that finds documents of the collection, most of the time.

    Args:
        writer: whose program it is for.
        coll: the collection.
        one: whether it matters which document comes first. The server goes through ids in their
            order then, which is another in each run where they are random.
    """
    if not coll.docs:
        return {}
    doc = writer.doc(coll)
    choices = [name for name in FILTERS if FILTER_NEEDS.get(name, "n") in doc]
    if one and not coll.sortable:
        choices = [name for name in choices if name not in ("ids", "id set")]
    found = FILTERS[writer.rng.choice(choices)](writer, coll, doc)
    if writer.chance(0.15):
        return {"$or": [found, {"n": writer.n() + 500}]}
    return {**found, "student": doc["student"]} if writer.chance(0.1) else found


def _ids(writer: Writer, coll: Coll, name: str) -> list[Node]:
    docs = [doc for doc in coll.docs if name in doc]
    found = [doc[name] for doc in writer.rng.sample(docs, min(len(docs), 3))]
    return [node for index, node in enumerate(found) if node not in found[:index]]


def _in_set(writer: Writer, coll: Coll, name: str, key: str) -> Node:
    return {key: {"$in": {MARK: "set", "items": _ids(writer, coll, name)}}}


def _around(writer: Writer, coll: Coll, doc: dict[str, Node]) -> Node:
    hours = writer.rng.choice(SHIFTS) + 0.5
    return {"at": {writer.rng.choice(["$gt", "$lt", "$gte"]): writer.time(coll.time, hours)}}


def _ref_range(writer: Writer, coll: Coll, doc: dict[str, Node]) -> Node:
    literal = coll.ref_kind.startswith("literal")
    return {"ref": {"$gte" if literal else "$in": doc["ref"] if literal else [doc["ref"]]}}


def _id_range(writer: Writer, coll: Coll, doc: dict[str, Node]) -> Node:
    sign = writer.rng.choice(["$gt", "$lte"])
    return {"_id": {sign: doc["id"]} if coll.sortable else doc["id"]}


Filter = Callable[[Writer, Coll, dict[str, Node]], Node]
FILTERS: dict[str, Filter] = {
    "id": lambda w, c, d: {"_id": d["id"]},
    "id again": lambda w, c, d: {"_id": d["id"]},
    "id range": _id_range,
    "ids": lambda w, c, d: {"_id": {"$in": _ids(w, c, "id")}},
    "id set": lambda w, c, d: _in_set(w, c, "id", "_id"),
    "ref": lambda w, c, d: {"ref": d["ref"]},
    "ref not": lambda w, c, d: {"ref": {"$ne": d["ref"]}},
    "ref range": _ref_range,
    "ref set": lambda w, c, d: _in_set(w, c, "ref", "ref"),
    "student": lambda w, c, d: {"student": d["student"]},
    "students": lambda w, c, d: {"student": {"$in": [d["student"], w.rng.randint(1, 30)]}},
    "n": lambda w, c, d: {"n": {"$lte": d["n"]}},
    "name": lambda w, c, d: {"name": d["name"]},
    "names": lambda w, c, d: {
        "name": {"$in": {MARK: "set", "items": sorted({d["name"], *w.rng.sample(NAMES, 3)})}}
    },
    "name like": lambda w, c, d: {"name": {"$regex": f"^{d['name'][:2]}"}},
    "price": lambda w, c, d: {"price": {w.rng.choice(["$gte", "$lt"]): d["price"]}},
    "tag": lambda w, c, d: {"tags": d["tags"][0]},
    "tags": lambda w, c, d: {"tags": d["tags"]},
    "all tags": lambda w, c, d: {"tags": {"$all": {MARK: "set", "items": d["tags"]}}},
    "at": lambda w, c, d: {"at": d["at"]},
    "around": _around,
    "emb": lambda w, c, d: {"emb": d["emb"]},
    "emb.x": lambda w, c, d: {"emb.x": d["emb"]["x"]},
    "url": lambda w, c, d: {"url": d["url"]},
    "by": lambda w, c, d: {
        MARK: "doc",
        "items": [[w.text("by.{}", d["by"]["items"][0][0]), {"$exists": True}]],
    },
    "owner": lambda w, c, d: {"owner": d["owner"]},
    "owner id": lambda w, c, d: {"owner.$id": d["owner"]["id"]},
    "token": lambda w, c, d: {"token": d["token"]},
    "flag": lambda w, c, d: {"flag": d["flag"], "student": {"$gte": d["student"]}},
    "label": lambda w, c, d: {"label": d["label"]},
    "both": lambda w, c, d: {"$and": [{"student": d["student"]}, {"ref": d["ref"]}]},
    "fresh": lambda w, c, d: {"ref": {"$ne": w.made("uuid4", "text")}},
}
FILTERS |= {name: lambda w, c, d, name=name: {name: d[name]} for name in ("code", "number")}
FILTER_NEEDS = {
    **{name: name for name in ("name", "price", "tags", "at", "emb", "url", "by", "owner")},
    **{"names": "name", "name like": "name", "tag": "tags", "all tags": "tags", "around": "at"},
    **{"code": "code", "number": "number"},
    **{"emb.x": "emb", "owner id": "owner", "token": "token", "flag": "flag"},
    "label": "label",
}


def plain(found: Node) -> Node:
    """A filter that other keys can be added to."""
    return {"$and": [found]} if MARK in found else found


def a_sort(writer: Writer, coll: Coll) -> Node:
    """A sort whose order is the same in each run."""
    ways = [[["n", 1]], [["n", -1]], [["student", 1], ["n", -1]]]
    ways += [[["price", -1], ["n", 1]]] if "price" in coll.fields else []
    ways += [[["at", 1], ["n", 1]]] if "at" in coll.fields else []
    ways += [[["_id", 1]], [["_id", -1]]] if coll.sortable else []
    ways += [[["ref", 1], ["n", 1]]] if coll.ref_kind.startswith("literal") else []
    return [list(pair) for pair in writer.rng.choice(ways)]


def a_projection(writer: Writer, coll: Coll) -> Node:
    names = writer.rng.sample(["n", "student", "ref", *coll.fields], 2)
    if writer.chance(0.5):
        return {MARK: "keys", "items": names, "value": 1}
    return dict.fromkeys(names, 1) if writer.chance(0.7) else {names[0]: 0}


# ------------------------------------------------------------------------------- scenes


def insert_some(writer: Writer, coll: Coll) -> None:
    if writer.chance(0.6):
        document = writer.document(coll)
        number = writer.add("insert_one", coll, document=document)
        key = {MARK: "result", "call": number, "path": ["inserted_id"]}
        return writer.known(coll, document, key)
    documents = [writer.document(coll) for _ in range(writer.rng.randint(2, 4))]
    number = writer.add("insert_many", coll, documents=documents)
    for index, document in enumerate(documents):
        path = ["inserted_ids", index]
        writer.known(coll, document, {MARK: "result", "call": number, "path": path})
    return None


def _find_one_args(writer: Writer, coll: Coll) -> dict[str, Node]:
    args = {"filter": a_filter(writer, coll, one=True)}
    if writer.chance(0.3):
        args["sort"] = a_sort(writer, coll)
    if writer.chance(0.25):
        args["projection"] = a_projection(writer, coll)
    return args


def _find_args(writer: Writer, coll: Coll) -> dict[str, Node]:
    ordered = writer.chance(0.6)
    args = {"filter": a_filter(writer, coll, one=not ordered)}
    if ordered:
        args["sort"] = a_sort(writer, coll)
        for name in ("limit", "skip"):
            if writer.chance(0.35):
                args[name] = writer.rng.randint(1, 3)
    if writer.chance(0.25):
        args["projection"] = a_projection(writer, coll)
    return args


def find_one(writer: Writer, coll: Coll) -> None:
    writer.add("find_one", coll, **_find_one_args(writer, coll))


def find(writer: Writer, coll: Coll) -> None:
    writer.add("find", coll, **_find_args(writer, coll))


def find_and_follow(writer: Writer, coll: Coll) -> None:
    """Find a document and use what it holds in the next call."""
    number = writer.add("find_one", coll, filter={"n": writer.doc(coll)["n"]})
    name = writer.rng.choice(["_id", "ref"])
    key = {MARK: "result", "call": number, "path": ["value", name]}
    op = writer.rng.choice(["find_one", "update_one", "count_documents"])
    more = {"update": an_update(writer, coll)} if op == "update_one" else {}
    writer.add(op, coll, filter={name: key}, **more)


def an_update(writer: Writer, coll: Coll) -> Node:
    kinds: list[Callable[[], Node]] = [
        lambda: {"$set": {"student": writer.rng.randint(1, 30)}},
        lambda: {"$set": {"price": writer.rng.randint(1, 99), "name": writer.rng.choice(NAMES)}},
        lambda: {"$inc": {"student": writer.rng.randint(1, 5)}},
        lambda: {"$push": {"log": writer.value(writer.rng.choice(REFS))}},
        lambda: {"$set": {"ref": writer.value(coll.ref_kind)}},
        lambda: {"$set": {"seen": writer.time(coll.time, writer.rng.choice(SHIFTS))}},
        lambda: {"$unset": {"name": ""}, "$set": {"left": True}},
        lambda: {"$max": {"top": writer.rng.randint(1, 99)}},
        lambda: {"$set": {"link": writer.doc(coll)["id"]}},
        lambda: {"$addToSet": {"tags": writer.rng.choice(TAGS)}},
        lambda: {"$set": {"token": writer.value(coll.token_kind)}},
    ]
    if "tags" in coll.fields:
        return writer.rng.choice(kinds)()
    return writer.rng.choice([*kinds[:9], *kinds[10:]])()


def update(writer: Writer, coll: Coll) -> None:
    op = writer.rng.choice(["update_one", "update_one", "update_many"])
    found = a_filter(writer, coll, one=op == "update_one")
    writer.add(op, coll, filter=found, update=an_update(writer, coll))


def update_keys(writer: Writer, coll: Coll) -> None:
    """Set the fields of a dict that was made by going through a set."""
    writer.sorted_keys = True
    names = [f"k{number}" for number in writer.rng.sample(range(9), 3)]
    marks = {MARK: "keys", "items": names, "value": writer.rng.randint(1, 9)}
    writer.add("update_one", coll, filter={"_id": writer.doc(coll)["id"]}, update={"$set": marks})


def replace(writer: Writer, coll: Coll) -> None:
    document = writer.document(coll)
    document.pop("_id", None)
    old = writer.doc(coll)
    writer.add("replace_one", coll, filter={"_id": old["id"]}, replacement=document)
    coll.docs[coll.docs.index(old)] = {**document, "id": old["id"]}


def delete(writer: Writer, coll: Coll) -> None:
    op = writer.rng.choice(["delete_one", "delete_many", "find_one_and_delete"])
    writer.add(op, coll, filter=a_filter(writer, coll, one=True))


def count(writer: Writer, coll: Coll) -> None:
    writer.add("count_documents", coll, filter=a_filter(writer, coll))


def distinct(writer: Writer, coll: Coll) -> None:
    key = writer.rng.choice(["student", "ref", "n", "name"])
    writer.add("distinct", coll, key=key, filter=a_filter(writer, coll))
    writer.calls[-1]["unordered"] = True


def aggregate(writer: Writer, coll: Coll) -> None:
    ordered, pipeline = writer.rng.choice(PIPELINES)(writer, coll)
    writer.add("aggregate", coll, pipeline=pipeline)
    if not ordered:
        writer.calls[-1]["unordered"] = True


def _groups(writer: Writer, coll: Coll) -> tuple[bool, Node]:
    group = {"_id": "$student", "count": {"$sum": 1}, "most": {"$max": "$n"}}
    match = {"$match": plain(a_filter(writer, coll))}
    return True, [match, {"$group": group}, {"$sort": {"_id": writer.rng.choice([1, -1])}}]


def _group_refs(writer: Writer, coll: Coll) -> tuple[bool, Node]:
    return False, [
        {"$match": plain(a_filter(writer, coll, one=True))},
        {"$group": {"_id": "$ref", "ns": {"$push": "$n"}}},
    ]


def _page(writer: Writer, coll: Coll) -> tuple[bool, Node]:
    sort = dict(a_sort(writer, coll))
    stages = [{"$match": plain(a_filter(writer, coll))}, {"$sort": sort}]
    stages += [{"$skip": 1}] if writer.chance(0.4) else []
    stages += [{"$limit": writer.rng.randint(1, 4)}] if writer.chance(0.6) else []
    return True, [*stages, {"$project": {"n": 1, "ref": 1, "student": 1}}]


def _lookup(writer: Writer, coll: Coll) -> tuple[bool, Node]:
    other = next(c for c in writer.colls if c.place.get("db") == coll.place.get("db"))
    join = {"from": other.place["coll"], "localField": "student", "foreignField": "student"}
    return True, [
        {"$match": plain(a_filter(writer, coll))},
        {"$lookup": {**join, "as": "more"}},
        {"$project": {"n": 1, "more.n": 1, "more.ref": 1}},
        {"$sort": {"n": writer.rng.choice([1, -1])}},
    ]


def _stamped(writer: Writer, coll: Coll) -> tuple[bool, Node]:
    stamp = writer.value(writer.rng.choice(["uuid text", "oid", "literal uuid"]))
    return True, [
        {"$sort": {"n": 1}},
        {"$addFields": {"run": stamp, "double": {"$multiply": ["$student", 2]}}},
        {"$project": {"run": 1, "double": 1, "n": 1}},
    ]


def _counted(writer: Writer, coll: Coll) -> tuple[bool, Node]:
    return True, [{"$match": plain(a_filter(writer, coll))}, {"$count": "found"}]


def _starts(writer: Writer, coll: Coll) -> tuple[bool, Node]:
    if coll.ref_kind not in ("literal md5", "literal uuid text"):
        return _groups(writer, coll)
    return True, [
        {"$sort": {"n": 1}},
        {"$project": {"n": 1, "start": {"$substrCP": ["$ref", 0, 4]}}},
    ]


PIPELINES = (_groups, _group_refs, _page, _page, _lookup, _stamped, _counted, _starts)


def bulk(writer: Writer, coll: Coll) -> None:
    document = writer.document(coll)
    target = {"_id": writer.doc(coll)["id"]}
    parts = [
        {"type": "InsertOne", "args": {"document": document}},
        {"type": "UpdateOne", "args": {"filter": target, "update": an_update(writer, coll)}},
        {"type": "DeleteOne", "args": {"filter": {"student": writer.rng.randint(1, 30)}}},
        {
            "type": "UpdateMany",
            "args": {"filter": a_filter(writer, coll), "update": {"$inc": {"seen_by": 1}}},
        },
    ]
    writer.add("bulk_write", coll, requests=parts[: writer.rng.randint(2, 4)])


def find_and_update(writer: Writer, coll: Coll) -> None:
    change = an_update(writer, coll)
    after = writer.chance(0.5)
    found = a_filter(writer, coll, one=True)
    writer.add("find_one_and_update", coll, filter=found, update=change, after=after)


def upsert(writer: Writer, coll: Coll) -> None:
    """Upsert a document whose id the server makes, and find it by that id."""
    coll.sortable = False
    found: Node = {"student": writer.rng.randint(31, 60)}
    if coll.ref_kind not in (*TOKENS, "digest"):  # nothing tells that a token is made, in a filter
        found["ref"] = writer.value(coll.ref_kind)
    more = {"$set": {"n": writer.n(), "name": writer.rng.choice(NAMES)}}
    number = writer.add("update_one", coll, filter=found, update=more, upsert=True)
    key = {MARK: "result", "call": number, "path": ["upserted_id"]}
    writer.add("find_one", coll, filter={"_id": key})


def upsert_own(writer: Writer, coll: Coll) -> None:
    """Upsert a document whose id the program makes."""
    coll.sortable = False
    key = writer.value(writer.rng.choice(["oid", "uuid", "key", "uuid text"]))
    change = {"$set": {"n": writer.n(), "student": writer.rng.randint(1, 30)}}
    writer.add("update_one", coll, filter={"_id": key}, update=change, upsert=True)
    writer.add("find_one", coll, filter={"_id": key})


def files(writer: Writer, coll: Coll) -> None:
    rng = writer.rng
    bucket: Node = "fs"
    if rng.random() < 0.2:
        bucket = writer.text("fs_{}", writer.made("uuid4", "hex"))
    if writer.world.noisy:
        bucket = "fs"
    place = Coll({**coll.place, "coll": bucket}, [], "", "", "", "", False)
    filename: Node = f"report-{rng.randint(1, 99)}.txt"
    if rng.random() < 0.6:
        made = rng.choice([("uuid4", "text"), ("oid", "hex")])
        filename = writer.text("report-{}.txt", writer.made(*made))
    args = {"filename": filename, "data": f"words {rng.randint(1, 9999)}"}
    if rng.random() < 0.6:
        args["metadata"] = {"owner": writer.value(rng.choice(REFS)), "level": rng.randint(1, 9)}
    if rng.random() < 0.4:
        args["file_id"] = writer.value(rng.choice(["oid", "uuid text", "literal uuid"]))
    number = writer.add("put", place, **args)
    key = {MARK: "result", "call": number, "path": ["value"]}
    writer.add("get", place, id=key)
    if rng.random() < 0.25:
        filename = writer.text("renamed-{}.txt", writer.made("uuid4", "text"))
        writer.add("rename_file", place, id=key, filename=filename)
    if rng.random() < 0.4:
        writer.add("get_by_name", place, filename=filename)
    if rng.random() < 0.2:
        writer.add("drop_file", place, id=key)
        writer.add("get", place, id=key)


def transaction(writer: Writer, coll: Coll) -> None:
    document = writer.document(coll)
    calls = [writer.call("insert_one", coll, document=document)]
    found = {"_id": writer.doc(coll)["id"]}
    calls.append(writer.call("update_one", coll, filter=found, update=an_update(writer, coll)))
    if writer.chance(0.6):
        calls.append(writer.call("find", coll, filter={"n": {"$lte": writer.n()}}))
    writer.hold("transaction", calls, end=writer.rng.choice(["commit", "commit", "abort"]))


def session(writer: Writer, coll: Coll) -> None:
    document = writer.document(coll)
    calls = [
        writer.call("insert_one", coll, document=document),
        writer.call("find_one", coll, filter={"n": document["n"]}),
    ]
    writer.hold("session", calls)


def duplicate(writer: Writer, coll: Coll) -> None:
    """Insert an id that is there already."""
    again = {"_id": writer.doc(coll)["id"], "n": writer.n()}
    writer.add("insert_one", coll, document=again)


def unique(writer: Writer, coll: Coll) -> None:
    """Make a unique index, and break it."""
    name = writer.text("one_{}", writer.made("uuid4", "hex")) if writer.chance(0.4) else "one"
    writer.add("create_index", coll, keys=[["n", 1], ["ref", 1]], unique=True, name=name)
    doc = writer.doc(coll)
    writer.add("insert_one", coll, document={"n": doc["n"], "ref": doc["ref"]})


def index(writer: Writer, coll: Coll) -> None:
    writer.add("create_index", coll, keys=[["student", writer.rng.choice([1, -1])]])


def drop(writer: Writer, coll: Coll) -> None:
    writer.add("drop", coll)
    coll.docs.clear()
    insert_some(writer, coll)


def names(writer: Writer, coll: Coll) -> None:
    if writer.world.alone:  # recorded here, it would answer the same call at the start
        return count(writer, coll)
    return writer.add("list_collection_names", coll) and None


def group(writer: Writer, coll: Coll) -> None:
    """Make calls at once that get the same answers in any order."""
    calls = []
    for _ in range(writer.rng.randint(2, 4)):
        op, make = writer.rng.choice([("find_one", _find_one_args), ("find", _find_args)])
        calls.append(writer.call(op, coll, **make(writer, coll)))
    log = Coll({**coll.place, "coll": "log"}, [], "uuid", "uuid", "hex", "aware", False)
    for _ in range(writer.rng.randint(0, 2)):
        document = {"_id": writer.value("uuid text"), "who": writer.doc(coll)["ref"]}
        calls.append(writer.call("insert_one", log, document=document))
    writer.hold("group", calls)


def look_up_first(writer: Writer, coll: Coll) -> None:
    """Look for a value that nobody saw being made, and store it afterwards."""
    if not writer.world.twice:
        return find_one(writer, coll)
    coll.sortable = False
    key = writer.made(*writer.rng.choice([("lone", "text"), ("lone", "uuid"), ("lonehex", "text")]))
    writer.add("find_one", coll, filter={"key": key})
    document = {"n": writer.n(), "student": writer.rng.randint(1, 30), "key": key}
    if writer.chance(0.3):
        more = {"$set": {"n": document["n"], "student": document["student"]}}
        writer.add("update_one", coll, filter={"key": key}, update=more, upsert=True)
    else:
        writer.add("insert_one", coll, document=document)
    op = writer.rng.choice(["find_one", "count_documents", "delete_one"])
    return writer.add(op, coll, filter={"key": key}) and None


# ------------------------------------------------------------------------------- before it


def stock(writer: Writer, coll: Coll) -> None:
    """Have a collection hold documents before the program, which it asks for by literals."""
    if "db" in coll.place or not all(
        isinstance(name, str) for name in (coll.place["coll"], writer.database)
    ):
        return
    for number in range(writer.rng.randint(2, 4)):
        document: dict[str, Node] = {"_id": _stocked_id(writer, coll, number)}
        kind = coll.ref_kind if coll.ref_kind.startswith("literal") else "literal uuid text"
        document |= {"n": 900 + number, "student": writer.rng.randint(1, 30)}
        document["ref"] = writer.value(kind)
        for name in coll.fields:
            if name in STOCKED:
                document[name] = DOCUMENT_FIELDS[name](writer, coll)
        if "key" in coll.fields:
            document["key"] = writer.literal_uuid("text")
        coll.stock.append(document)
        writer.known(coll, document, document["_id"])


def _stocked_id(writer: Writer, coll: Coll, number: int) -> Node:
    if coll.id_kind == "int":
        return 900 + number
    literal = {"driver": "literal oid", "oid": "literal oid"}.get(coll.id_kind, coll.id_kind)
    if coll.id_kind == "oid hex":
        return {**writer.value("literal oid"), "form": "hex"}
    return writer.value(literal if literal.startswith("literal") else "literal uuid")


def start_up(writer: Writer) -> None:
    """Begin with calls that another cassette holds."""
    for coll in writer.colls:
        key = [[writer.rng.choice(["student", "name", "n"]), writer.rng.choice([1, -1])]]
        more = {"name": "by_it"} if writer.chance(0.3) else {}
        if key[0][0] == "n" and writer.chance(0.5):
            more["unique"] = True
        writer.add("create_index", coll, keys=key, **more)
    coll = writer.rng.choice(writer.colls)
    for op in writer.rng.sample(START_UP[1:], writer.rng.randint(1, 3)):
        args = {"command": writer.rng.choice(["ping", "buildInfo"])} if op == "command" else {}
        writer.add(op, coll, **args)
    writer.started = len(writer.calls)


def elsewhere(writer: Writer) -> list[dict[str, Any]]:
    """What another program does, whose cassette lies beside: it sees its data change."""
    coll = writer.colls[0]
    steps: list[tuple[str, dict[str, Node]]] = [
        ("list_collection_names", {}),
        ("insert_one", {"document": {"_id": 1, "n": 0}}),
        ("list_collection_names", {}),
        ("index_information", {}),
        ("create_index", {"keys": [["elsewhere", 1]]}),
        ("index_information", {}),
    ]
    return [
        {"id": number, "op": op, **coll.place, "args": args}
        for number, (op, args) in enumerate(steps, start=1)
    ]


SCENES: dict[Callable[[Writer, Coll], None], int] = {
    insert_some: 6,
    find_one: 12,
    find: 12,
    find_and_follow: 5,
    update: 8,
    update_keys: 1,
    replace: 3,
    delete: 3,
    count: 4,
    distinct: 3,
    aggregate: 12,
    bulk: 4,
    find_and_update: 4,
    upsert: 3,
    upsert_own: 2,
    files: 4,
    transaction: 3,
    session: 1,
    duplicate: 2,
    unique: 2,
    index: 1,
    drop: 1,
    names: 1,
    group: 4,
    look_up_first: 4,
}
"""What a program does next, and how often."""
