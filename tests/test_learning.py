"""Two recordings of a program show what it makes anew in each run; nothing is ignored for it."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import secrets
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId, Timestamp

from tests.support.calls import Driver
from tests.support.offline import Rules, run_offline, run_program
from timetracer import MissError, TraceConfig, evidence, use_cassette
from timetracer.bindings import RUN
from timetracer.cassette import Cassette
from timetracer.codec import to_json
from timetracer.errors import CassetteFormatError, CassetteNotFoundError, LearnError
from timetracer.learned import LearnedPlace, with_learned
from timetracer.learning import learn
from timetracer.lessons import (
    ANSWERS,
    DERIVED,
    FIRST_ONLY,
    KINDS,
    LEARNED,
    ORDER,
    PROPOSED,
    REORDERED,
    SECOND_ONLY,
    UNCLEAR,
    Lesson,
    tell,
)

ASKED, WRITTEN = "FIND_ONE", "INSERT_ONE"

ORDERS = '''
    import os, random, string, sys, uuid
    from datetime import datetime, timezone
    from pathlib import Path

    from bson import ObjectId
    from pymongo import MongoClient

    from timetracer.plugins import enable_pymongo

    enable_pymongo()
    client = MongoClient(os.environ["MONGODB_URI"], uuidRepresentation="standard")
    shop = client[os.environ["TEST_DATABASE"]]

    counter = Path(__file__).with_name("counter.txt")
    number = int(counter.read_text()) + 1 if counter.exists() else 41
    counter.write_text(str(number))
    reference = "".join(random.choices(string.ascii_uppercase, k=8))
    lock = uuid.UUID(int=random.getrandbits(128), version=4)
    order = ObjectId()

    print(shop.locks.find_one({"_id": lock}))
    shop.orders.insert_one({
        "_id": order,
        "reference": reference,
        "number": number,
        "lock": lock,
        "at": datetime.now(timezone.utc),
    })
    found = shop.orders.find_one({"reference": reference})
    print(found["_id"] == order, found["lock"] == lock)
    print(shop.orders.count_documents({"_id": order, "lock": lock}))
    print(shop.orders.count_documents({"kind": uuid.UUID(sys.argv[1])}))
    print(list(shop.orders.find({"at": {"$gt": datetime.now(timezone.utc)}})))
'''
KIND = "8a9f0b1c-2d3e-4f50-8a7b-6c5d4e3f2a1b"


class Program:
    """A program, recorded against a server and replayed offline in another process."""

    def __init__(self, directory: Path, uri: str, database: str) -> None:
        self.directory = directory
        self.file = directory / "orders.py"
        self.env = {"MONGODB_URI": uri, "TEST_DATABASE": database, "TIMETRACER_RUN_ID": None}
        self.env |= {"PYTEST_CURRENT_TEST": None}
        self.write(ORDERS)

    def write(self, text: str) -> None:
        """Write the program."""
        lines = text.splitlines()
        self.file.write_text("\n".join(line.removeprefix("    ") for line in lines))

    def record(self, name: str, *arguments: str) -> Path:
        """Record it; the cassette's path."""
        cassette = self.directory / name
        told = {"TIMETRACER_MODE": "record", "TIMETRACER_CASSETTE": str(cassette)}
        run_program(self.file, *(arguments or (KIND,)), env={**self.env, **told})
        return cassette

    def replay(self, cassette: Path, *arguments: str, ignore: str = "") -> str:
        """Replay it; what it says."""
        told = {"TIMETRACER_MODE": "replay", "TIMETRACER_CASSETTE": str(cassette)}
        told |= {"TIMETRACER_IGNORE": ignore, "MONGODB_URI": "mongodb://fake:27017"}
        ran = run_offline(
            self.file,
            *(arguments or (KIND,)),
            env={**self.env, **told},
            rules=Rules(threads="driver"),
            check=False,
        )
        return ran.stdout + ran.stderr


@pytest.fixture
def program(tmp_path: Path, mongodb: str, database: str) -> Program:
    return Program(tmp_path, mongodb, database)


def changes(lesson: Lesson, kind: str) -> list[tuple[str, str]]:
    return [(change.method, change.path) for change in lesson.of_kind(kind)]


def learned_in(cassette: Path) -> list[dict[str, Any]]:
    learned: list[dict[str, Any]] = json.loads(cassette.read_bytes())["session"].get("learned", [])
    return learned


# ------------------------------------------------------------------------------- a real program


def test_what_two_recordings_of_a_program_show(program: Program) -> None:
    first, second = program.record("first.json"), program.record("second.json")

    (lesson,) = learn(first, second)

    assert lesson.compared == 6
    assert lesson.explained == 3, "the order's _id, its time, and now"
    assert changes(lesson, LEARNED) == [("FIND_ONE", "filter._id")]
    assert changes(lesson, PROPOSED) == [
        ("INSERT_ONE", "document.reference"),
        ("INSERT_ONE", "document.number"),
        ("FIND_ONE", "filter.reference"),
    ]
    assert [(one.first, one.second) for one in lesson.changes if one.path == "document.number"] == [
        (41, 42)
    ]
    assert len(lesson.changes) == 4


def test_a_learned_value_replays_and_an_ignored_one_only_where_the_user_says_so(
    program: Program,
) -> None:
    first, second = program.record("first.json"), program.record("second.json")
    ignore = "document.reference,document.number,filter.reference"

    assert "MissError: find_one" in program.replay(first, ignore=ignore)
    learn(first, second)
    assert "document.number: recorded 41, asked" in program.replay(first)
    assert program.replay(first, ignore=ignore) == "None\nTrue True\n1\n0\n[]\n"


def test_another_literal_value_still_misses_after_learning(program: Program) -> None:
    first, second = program.record("first.json"), program.record("second.json")
    learn(first, second)

    said = program.replay(
        first,
        "7b9f0b1c-2d3e-4f50-8a7b-6c5d4e3f2a1b",
        ignore="document.reference,document.number,filter.reference",
    )

    assert said.startswith("None\nTrue True\n1\n")
    assert "MissError: count_documents" in said and "differs in filter.kind" in said


# ------------------------------------------------------------------------------- the file


@pytest.fixture
def two(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Records a program twice, without a server."""

    def record(
        program: Callable[[Server], Any], *, suffix: str = ".json", **settings: Any
    ) -> tuple[Path, Path]:
        paths = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
        for number, path in enumerate(paths, 1):
            config = TraceConfig(**{"redact": False, **settings})
            with use_cassette(path, mode="record", config=config):
                program(Server(number))
        return paths

    return record


class Server(Driver):
    """A server that answers what the test says.

    Attributes:
        run: 1 in the first recording, 2 in the second.
    """

    def __init__(self, run: int = 0) -> None:
        super().__init__()
        self.run = run
        self.says: Any = None

    def ask(self, says: Any = None, method: str = ASKED, **arguments: Any) -> Any:
        """Make a call that is answered so."""
        self.says = says
        return self(method, **arguments)

    def _live(self, method: str) -> Any:
        return self.says


@pytest.fixture(autouse=True)
def a_process_that_bound_nothing() -> Iterator[None]:
    RUN.forget()
    evidence.watch()
    yield
    evidence.unwatch()


@contextlib.contextmanager
def replaying(cassette: Path, **settings: Any) -> Iterator[Any]:
    """Replay in what stands for a process of its own."""
    RUN.forget()
    with use_cassette(cassette, mode="replay", config=TraceConfig(**settings)) as session:
        yield session


def random_uuid() -> str:
    return str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))


def ask_for_a_random_key(server: Server) -> Any:
    return server.ask({"n": 1}, filter={"key": random_uuid(), "n": 1})


PLACE = b'[{"method":"FIND_ONE","url":"shop.orders","path":"filter.key","events":[1]}]'

LAYOUTS: dict[str, Callable[[bytes], bytes]] = {
    "as written": lambda data: data,
    "indented": lambda data: json.dumps(json.loads(data), indent=2).encode(),
    "session last": lambda data: json.dumps(
        dict(sorted(json.loads(data).items(), key=lambda pair: pair[0] == "session"))
    ).encode(),
    "an empty session": lambda data: json.dumps({**json.loads(data), "session": {}}).encode(),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_other_byte_of_the_cassette_stays(
    two: Callable[..., tuple[Path, Path]], layout: Callable[[bytes], bytes]
) -> None:
    first, second = two(ask_for_a_random_key)
    first.write_bytes(layout(first.read_bytes()))
    before, of_second = first.read_bytes(), second.read_bytes()

    learn(first, second)

    after = first.read_bytes()
    assert after.count(PLACE) == 1
    assert after.replace(b',"learned":' + PLACE, b"").replace(b'"learned":' + PLACE, b"") == before
    assert second.read_bytes() == of_second


def test_a_compressed_cassette_stays_compressed(two: Callable[..., tuple[Path, Path]]) -> None:
    first, second = two(ask_for_a_random_key, suffix=".json.gz")

    learn(first, second)

    assert PLACE in gzip.decompress(first.read_bytes())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"session": null, "events": []}', b'{"session": {"learned":[]}, "events": []}'),
        (b'{"a": 1,\n"events": []}', b'{"a": 1,\n"session": {"learned":[]},\n"events": []}'),
        (b'{ "session" : { } }', b'{ "session" : {"learned":[] } }'),
        (b'{"session":{"learned":[{}],"b":"}"}}', b'{"session":{"learned":[],"b":"}"}}'),
    ],
)
def test_where_it_is_put(before: bytes, after: bytes) -> None:
    assert with_learned(before, []) == after


def test_learning_again_adds_and_forgets_nothing(two: Callable[..., tuple[Path, Path]]) -> None:
    def program(server: Server) -> None:
        server.ask(filter={"key": random_uuid()})
        server.ask(filter={"other": random_uuid()}, method="COUNT_DOCUMENTS")

    first, second = two(program)
    learn(first, second)
    before = first.read_bytes(), first.stat().st_mtime_ns, first.stat().st_ino

    learn(first, second)

    assert (first.read_bytes(), first.stat().st_mtime_ns, first.stat().st_ino) == before
    known = Cassette(first.read_bytes(), "first").events[0].arguments()
    with use_cassette(second, mode="record", config=TraceConfig(redact=False)):
        Server().ask(**known)
        Server().ask(filter={"other": random_uuid()}, method="COUNT_DOCUMENTS")
    learn(first, second)
    assert [row["path"] for row in learned_in(first)] == ["filter.key", "filter.other"]


def test_what_was_learned_stays_when_events_are_added(
    two: Callable[..., tuple[Path, Path]]
) -> None:
    first, second = two(ask_for_a_random_key)
    learn(first, second)

    with use_cassette(first, mode="new_episodes", config=TraceConfig(redact=False)):
        ask_for_a_random_key(Server())
        Server().ask(filter={"key": "new"})

    assert [row["events"] for row in learned_in(first)] == [[1]]
    assert len(Cassette(first.read_bytes(), "x").events) == 2


def test_a_damaged_row_is_told(two: Callable[..., tuple[Path, Path]]) -> None:
    first, second = two(ask_for_a_random_key)
    first.write_bytes(first.read_bytes().replace(b'"learned"', b'"-"'))
    broken = first.read_bytes().replace(b'"session": {', b'"session": {"learned":[{"path":1}],', 1)
    first.write_bytes(broken)

    with pytest.raises(CassetteFormatError, match=r"first\.json: session\.learned is damaged"):
        learn(first, second)


# ------------------------------------------------------------------------------- in a replay

GIVEN = "4f0e9d8c-7b6a-4958-8776-655443322110"

MADE_UP: dict[str, Callable[[], Any]] = {
    "UUID": random_uuid,
    "ObjectId of nobody": lambda: ObjectId(os.urandom(12)),
    "token": lambda: "aA1" + secrets.token_urlsafe(24),
    "digest": lambda: os.urandom(20).hex(),
    "time": lambda: datetime(2001, 2, 3, 4, tzinfo=timezone.utc)
    + timedelta(milliseconds=secrets.randbelow(10**11)),
    "in a text": lambda: f"/jobs/{random_uuid()}/log",
}


@pytest.mark.parametrize("make", MADE_UP.values(), ids=MADE_UP)
@pytest.mark.parametrize(
    ("shape", "path"),
    [
        (lambda value: {"filter": {"a": {"$in": ["x", value]}}}, "filter.a.$in"),
        (lambda value: {"pipeline": [{"$sort": {"a": 1}}, {"$match": {"a.b": value}}]},
         "pipeline.*.$match.a.b"),
    ],
    ids=["filter", "pipeline"],
)
def test_a_learned_place_binds_what_the_program_makes(
    two: Callable[..., tuple[Path, Path]], make: Callable[[], Any], shape: Any, path: str
) -> None:
    def program(server: Server) -> Any:
        return server.ask("found", **shape(make()))

    first, second = two(program)
    with replaying(first), pytest.raises(MissError):
        program(Server())
    learn(first, second)

    assert [row["path"] for row in learned_in(first)] == [path]
    with replaying(first) as session:
        assert program(Server()) == "found"
    assert session.cassette is not None
    assert session.cassette.events[0].reason == "unified"


WRONG: dict[str, Callable[[str], dict[str, Any]]] = {
    "another place of the same call": lambda key: {"filter": {"key": key, "n": random_uuid()}},
    "a value of another form": lambda key: {"filter": {"key": secrets.token_hex(12), "n": KIND}},
    "a value cut short": lambda key: {"filter": {"key": random_uuid()[:-1], "n": KIND}},
    "a plain value": lambda key: {"filter": {"key": "mine", "n": KIND}},
    "a value that an answer gave": lambda key: {"filter": {"key": GIVEN, "n": KIND}},
}


@pytest.mark.parametrize("asked", WRONG.values(), ids=WRONG)
def test_a_real_difference_misses_at_a_learned_place(
    two: Callable[..., tuple[Path, Path]], asked: Callable[[str], dict[str, Any]]
) -> None:
    def program(server: Server, asked: Callable[[str], dict[str, Any]]) -> None:
        server.ask({"_id": GIVEN}, filter={"first": True})
        server.ask(**asked(random_uuid()))

    first, second = two(lambda server: program(server, usual))
    learn(first, second)
    with replaying(first):
        program(Server(), usual)

    with replaying(first), pytest.raises(MissError):
        program(Server(), asked)


def usual(key: str) -> dict[str, Any]:
    return {"filter": {"key": key, "n": KIND}}


def test_one_call_learns_nothing_for_another_of_the_same_shape(
    two: Callable[..., tuple[Path, Path]]
) -> None:
    def program(server: Server, literal: str = KIND) -> list[Any]:
        return [
            server.ask("a literal user", filter={"key": literal}),
            server.ask("made anew", filter={"key": random_uuid()}),
        ]

    first, second = two(program)
    learn(first, second)
    assert [row["events"] for row in learned_in(first)] == [[2]]

    with replaying(first):
        assert program(Server()) == ["a literal user", "made anew"]
    with replaying(first):
        assert Server().ask(filter={"key": random_uuid()}) == "made anew"
        with pytest.raises(MissError):
            Server().ask(filter={"key": random_uuid()})


def test_two_live_values_never_stand_for_one_learned_value(
    two: Callable[..., tuple[Path, Path]]
) -> None:
    def program(server: Server, again: bool = True) -> None:
        key = random_uuid()
        server.ask(filter={"key": key})
        server.ask(filter={"key": key if again else random_uuid()}, method="COUNT_DOCUMENTS")

    first, second = two(program)
    (lesson,) = learn(first, second)
    assert changes(lesson, LEARNED) == [(ASKED, "filter.key")]
    assert lesson.explained == 0

    with replaying(first):
        program(Server())
    with replaying(first), pytest.raises(MissError):
        program(Server(), again=False)


# ------------------------------------------------------------------------------- what is told


def told(two: Any, program: Callable[[Server], Any], **settings: Any) -> dict[str, list[str]]:
    """The paths of each kind of change between two recordings."""
    (lesson,) = learn(*two(program, **settings))
    kinds = {change.kind for change in lesson.changes}
    return {kind: [path for _, path in changes(lesson, kind)] for kind in KINDS if kind in kinds}


TOLD: dict[str, tuple[Callable[[Server], Any], dict[str, list[str]]]] = {
    "nothing": (lambda s: s.ask(1, filter={"a": KIND}), {}),
    "what was seen being made": (
        lambda s: s.ask(1, filter={"a": ObjectId(), "b": str(uuid.uuid4()), "c": datetime.now()}),
        {},
    ),
    "a token that is stored": (
        lambda s: s.ask(1, WRITTEN, document={"a": secrets.token_hex(20)}), {}
    ),
    "a number": (lambda s: s.ask(1, filter={"a": s.run}), {PROPOSED: ["filter.a"]}),
    "a number that is stored in a list": (
        lambda s: s.ask(1, "INSERT_MANY", documents=[{"n": 5}, {"n": s.run, "tags": [s.run]}]),
        {PROPOSED: ["documents.*.n", "documents.*.tags"]},
    ),
    "a type": (lambda s: s.ask(1, filter={"a": (1, "1")[s.run - 1]}), {PROPOSED: ["filter.a"]}),
    "a key": (
        lambda s: s.ask(1, filter={"a": 1, **({"b.c": 2} if s.run == 1 else {})}),
        {PROPOSED: ["filter.b.c"]},
    ),
    "a made-up key": (
        lambda s: s.ask(1, "UPDATE_ONE", filter={}, update={"$set": {f"t.{uuid.uuid4()}": s.run}}),
        {PROPOSED: ["update.$set.t.*"]},
    ),
    "a list's length": (
        lambda s: s.ask(1, filter={"a": {"$in": [1, 2, 3][: s.run]}}),
        {PROPOSED: ["filter.a.$in"]},
    ),
    "a list's order": (
        lambda s: s.ask(1, WRITTEN, document={"a": [1, 2, 3][:: (1, -1)[s.run - 1]]}),
        {REORDERED: ["document.a"]},
    ),
    "the order of a set": (
        lambda s: s.ask(1, filter={"a": {"$in": [1, 2, 3][:: (1, -1)[s.run - 1]]}}), {}
    ),
    "the order of a sort": (
        lambda s: s.ask(1, sort=dict([("a", 1), ("b", 1)][:: (1, -1)[s.run - 1]])),
        {REORDERED: ["sort"]},
    ),
    "an answer": (lambda s: s.ask({"n": s.run}, filter={}), {ANSWERS: ["body.data.n"]}),
    "a made-up answer": (lambda s: s.ask({"a": random_uuid(), "t": datetime.now()}, filter={}), {}),
    "an answer with what was asked": (
        lambda s: s.ask({"n": s.run * 100}, WRITTEN, document={"n": s.run * 100}),
        {PROPOSED: ["document.n"]},
    ),
    "what an answer gave": (
        lambda s: s.ask(1, WRITTEN, document=s.ask({"n": s.run * 100}, filter={})),
        {DERIVED: ["document.n"], ANSWERS: ["body.data.n"]},
    ),
    "an id that an answer gave": (
        lambda s: s.ask(1, filter=s.ask({"a": random_uuid()}, filter={})), {}
    ),
    "one call more": (
        lambda s: [s.ask(1, filter={"n": n}) for n in range(s.run)],
        {SECOND_ONLY: [""]},
    ),
    "one call less": (
        lambda s: [s.ask(1, "COUNT_DOCUMENTS", filter={"n": n}) for n in range(3 - s.run)],
        {FIRST_ONLY: [""]},
    ),
    "the order of calls": (
        lambda s: [s.ask(1, filter={"n": n}) for n in [1, 2, 3, 4, 5][:: (1, -1)[s.run - 1]]],
        {ORDER: [""]},
    ),
    "an id that an answer gave in one recording": (
        lambda s: [
            s.ask({"a": GIVEN}, filter={}),
            s.ask(1, filter={"x": GIVEN if s.run == 1 else random_uuid()}),
        ],
        {UNCLEAR: ["filter.x"]},
    ),
    "ids of two users in another order": (
        lambda s: [s.ask(1, filter={"a": one}) for one in [KIND, GIVEN][:: (1, -1)[s.run - 1]]],
        {ORDER: [""]},
    ),
    "many calls in another order": (
        lambda s: [
            s.ask(1, WRITTEN, document={"n": n, "key": random_uuid()})
            for n in range(80)[:: (1, -1)[s.run - 1]]
        ],
        {ORDER: [""]},
    ),
    "what the server tells of itself": (
        lambda s: s.ask({"connectionId": s.run, "operationTime": Timestamp(s.run, 1)}, filter={}),
        {},
    ),
    "an id that stands for another one": (
        lambda s: [
            s.ask(1, WRITTEN, document={"a": (KIND, GIVEN)[s.run - 1]}),
            s.ask(1, filter={"x": KIND}),
        ],
        {UNCLEAR: ["filter.x"]},
    ),
    "ids that change places": (
        lambda s: [
            s.ask(1, WRITTEN, document={"a": (one := random_uuid()), "b": (two := random_uuid())}),
            s.ask(1, filter={"x": (one, two)[s.run - 1]}),
        ],
        {UNCLEAR: ["filter.x"]},
    ),
}


@pytest.mark.parametrize(("program", "kinds"), TOLD.values(), ids=TOLD)
def test_every_way_of_differing_is_told_as_what_it_is(
    two: Any, program: Callable[[Server], Any], kinds: dict[str, list[str]]
) -> None:
    assert told(two, program) == kinds


def test_what_is_proposed_is_what_ignore_takes(two: Any) -> None:
    def program(server: Server) -> Any:
        noise = {"n": secrets.randbits(20), "b.c": secrets.token_hex(3), f"k.{uuid.uuid4()}": 5.5}
        server.ask(1, "INSERT_MANY", documents=[{"a": [secrets.randbits(20)], "x": {"y": noise}}])
        return server.ask(2, filter={"a.b": secrets.token_hex(3), "c": 1})

    first, second = two(program)
    (lesson,) = learn(first, second)
    (line,) = (line for line in tell([lesson]) if line.startswith("    ignore = "))
    paths = json.loads(line.partition(" = ")[2])

    assert paths == ["documents.*.a", "documents.*.x.y.n", "documents.*.x.y.b.c", "filter.a.b"]
    with replaying(first, ignore=paths):
        assert program(Server()) == 2
    assert learn(first, second, paths)[0].changes == ()


def test_a_key_that_is_ignored_may_be_missing(two: Any) -> None:
    first, second = two(lambda s: s.ask(1, filter={"a": 1, **({"b": 2} if s.run == 1 else {})}))

    assert changes(learn(first, second)[0], PROPOSED) == [(ASKED, "filter.b")]
    assert learn(first, second, ["filter.b"])[0].changes == ()


def test_calls_are_paired_by_what_they_have_in_common(two: Any) -> None:
    def program(server: Server) -> None:
        items = [("pen", 1), ("ink", 2), ("pad", 3)]
        for name, number in items if server.run == 1 else items[::-1]:
            document = {"name": name, "number": number, "code": secrets.randbits(40)}
            server.ask(1, WRITTEN, document=document)

    (lesson,) = learn(*two(program))

    assert changes(lesson, PROPOSED) == [(WRITTEN, "document.code")]
    assert changes(lesson, ORDER) == [(WRITTEN, "")]


def test_secrets_are_no_difference(two: Any) -> None:
    def program(server: Server) -> None:
        server.ask(1, filter={"password": secrets.token_hex(4), "pin": {"n": 1}})
        server.ask(1, filter={"password": secrets.randbits(40), "pin": {"n": 1}})

    first, second = two(program, redact=True)

    assert b'"$redacted"' in first.read_bytes() and b'"[redacted:' in first.read_bytes()
    assert learn(first, second)[0].changes == ()


def test_a_seed_is_told_beside_a_proposal(two: Any) -> None:
    import random

    def program(server: Server) -> None:
        server.ask(1, filter={"n": random.randrange(10**6)})

    lessons = learn(*two(program, entropy="random"))

    assert "Each recording has a seed of its own (entropy)" in "\n".join(tell(lessons))


def test_ten_lines_of_a_kind_are_shown(two: Any) -> None:
    def program(server: Server) -> None:
        server.ask(1, filter={f"key{number}": server.run for number in range(12)})

    lines = list(tell(learn(*two(program))))

    assert "    and 2 more" in lines
    assert sum("find_one on shop.orders, filter.key" in line for line in lines) == 10


# ------------------------------------------------------------------------------- directories


def test_cassettes_of_directories_are_paired_by_name(tmp_path: Path) -> None:
    asked_for = {}
    for run, directory in ((1, "one"), (2, "two")):
        config = TraceConfig(redact=False)
        with use_cassette(tmp_path / directory / "post.json", mode="record", config=config):
            asked_for[run] = random_uuid()
            Server().ask(1, WRITTEN, document={"key": asked_for[run]})
        suffix = ".json" if run == 1 else ".json.gz"
        with use_cassette(tmp_path / directory / f"get{suffix}", mode="record", config=config):
            Server().ask(1, filter={"key": asked_for[run]})
            Server().ask(1, filter={"other": random_uuid()})
        (tmp_path / directory / "notes.txt").write_text("no cassette")
        (tmp_path / directory / "get.unaccepted-12345678.json").write_text("none to compare")
    (tmp_path / "two" / "more.json").write_bytes((tmp_path / "two" / "post.json").read_bytes())

    post, get, alone = learn(tmp_path / "one", tmp_path / "two")

    assert (Path(post.first).name, Path(get.first).name) == ("post.json", "get.json")
    assert changes(get, LEARNED) == [(ASKED, "filter.other")], "the key was made in post.json"
    assert list(tell([alone])) == [
        f"{alone.first}: no cassette of this name in the other recording."
    ]
    assert alone.first.endswith("more.json")


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with pytest.raises(LearnError, match=r"No cassette of .*one has the name of one of .*two"):
        learn(tmp_path / "one", tmp_path / "two")
    with pytest.raises(LearnError, match="are a directory and a file"):
        learn(tmp_path / "one", tmp_path / "two.json")
    with pytest.raises(CassetteNotFoundError):
        learn(tmp_path / "one.json", tmp_path / "two.json")


def test_a_row_is_written_as_it_is_read() -> None:
    row = LearnedPlace("FIND_ONE", "shop.orders", "filter.key", (1, 2))

    data = with_learned(b'{"session": {}, "events": []}', [row])

    assert json.loads(data)["session"]["learned"] == [to_json(row.to_json())]
