"""What cassettes hold alike lies once beside them: written, found again, missed, cleared up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.server import Server
from tests.test_suite import Project, make
from timetracer import shared_parts
from timetracer.cassette import Cassette
from timetracer.codec import dumps, loads
from timetracer.document import event_line, own_lines, parse, render, rewritten
from timetracer.errors import CassetteFormatError
from timetracer.learning import cassette_names
from timetracer.ledger import orphans
from timetracer.model import Signature
from timetracer.plugins.cursors import CursorOutcome, _texts, batch_of
from timetracer.shared_parts import Mark, Shelf, remove_unused, unused_shared_files, users_of_shared
from timetracer.stores.files import FileStore

SET_UP = (Mark(1, True),)
IDS = ("6b0201a742dc9640e6365036", "6b0201a742dc9640e6365037", "6c0201a742dc9640e6365038")


def event(
    eid: int,
    data: Any = None,
    *,
    offset: float | None = None,
    result: dict[str, Any] | None = None,
    url: str = "shop.orders",
    arguments: Any = None,
    made: list[str] | None = None,
    body_hash: str = "0123456789abcdef",
) -> bytes:
    """The line of one event, which has answered with `data`."""
    answer = {"status": 0, **(result or {}), "body": {"captured": True, "data": data}}
    return event_line(
        eid,
        eid * 2.0 if offset is None else offset,
        1.5,
        Signature("pymongo", "DELETE_MANY", url, (), body_hash),
        dumps({"filter": {}} if arguments is None else arguments),
        dumps(answer),
        made,
    )


def deleted(n: int = 0, seconds: int = 1795293607) -> dict[str, Any]:
    """The answer of a replica set to a delete."""
    clock = {"$timestamp": {"t": seconds, "i": 4}}
    return {"acknowledged": True, "raw_result": {"n": int(n), "ok": 1.0, "operationTime": clock}}


class Directory:
    """A directory of cassettes.

    Args:
        path: where it is.
        suffix: the suffix of its files.
    """

    def __init__(self, path: Path, suffix: str = ".json") -> None:
        self.path = path
        self.suffix = suffix

    def write(
        self,
        name: str,
        lines: list[bytes],
        marks: tuple[Mark, ...] = SET_UP,
        *,
        chosen: bool = False,
    ) -> list[bytes]:
        """Write a cassette of a test and return its lines; `chosen` where it is left to the shelf
        what to share."""
        replaces = self.where(name) if chosen else None
        kept = list(Shelf.of(self.path, self.suffix).put(lines, marks, replaces=replaces))
        FileStore(self.path).write(f"test_it/{name}{self.suffix}", render({}, kept))
        return kept

    def where(self, name: str) -> str:
        return str(self.path / "test_it" / f"{name}{self.suffix}")

    def read(self, name: str) -> Cassette:
        where = self.where(name)
        return Cassette(FileStore(self.path).read(f"test_it/{name}{self.suffix}"), where)

    def parts(self) -> list[str]:
        return sorted(file.name.partition("-")[0] for file in (self.path / "shared").glob("*"))


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path / "cassettes")


def told(cassette: Cassette) -> list[Any]:
    """All of a cassette's events but for their times."""
    return [
        (one.eid, one.signature, one.arguments(), one.result(), one._text.made)
        for one in cassette.events
    ]


# ------------------------------------------------------------------------- stretches


def test_the_set_ups_of_many_tests_are_one_file(directory: Directory) -> None:
    for test in range(20):
        url = "shop.orders"
        set_up = [event(n, deleted(n == test, 1795293607 + test), url=url) for n in range(1, 101)]
        own = event(101, {"_id": test}, url="shop.users")
        lines = directory.write(f"test_{test}", [*set_up, own], (*SET_UP, Mark(101, False)))
        assert len(lines) == 2
        assert lines[1] == own
        alone = Cassette(b"".join(render({}, [*set_up, own])), "alone.json")
        assert told(directory.read(f"test_{test}")) == told(alone)
    assert directory.parts() == ["events"]


def set_up_of(content: int) -> list[bytes]:
    """A set-up that stores something of its own."""
    told = {"document": {"content": content}}
    return [event(n, None, arguments=told, body_hash=f"{content:016x}") for n in range(1, 13)]


def is_shared(lines: list[bytes]) -> bool:
    return len(lines) == 1


def test_set_ups_that_never_come_again_stay_in_their_cassettes(directory: Directory) -> None:
    shared = [is_shared(directory.write(f"test_{n}", set_up_of(n), chosen=True)) for n in range(30)]
    assert shared == [True] * shared_parts.MOST_IN_VAIN + [False] * (30 - shared_parts.MOST_IN_VAIN)
    assert is_shared(directory.write("test_again", set_up_of(29), chosen=True))
    assert is_shared(directory.write("test_again_2", set_up_of(29), chosen=True))


def test_set_ups_that_come_again_are_shared_however_many_there_are(directory: Directory) -> None:
    for n in range(30):
        for test in range(2):
            lines = directory.write(f"test_{n}_{test}", set_up_of(n), chosen=True)
            assert is_shared(lines)


@pytest.mark.parametrize("order", [1, -1])
def test_what_is_recorded_again_is_shared_as_before(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, order: int
) -> None:
    before = {n: directory.write(f"test_{n}", set_up_of(n), chosen=True) for n in range(20)}
    monkeypatch.setattr(shared_parts, "_met", {})  # as another process
    for n in list(before)[::order]:
        assert directory.write(f"test_{n}", set_up_of(n), chosen=True) == before[n]
    monkeypatch.setattr(shared_parts, "_met", {})
    assert directory.write("test_19", set_up_of(19), chosen=True) == before[19]


def test_a_set_up_that_grew_is_shared_though_it_was_not_before(directory: Directory) -> None:
    for test in range(20):
        lines = [event(n, None) for n in range(1, 4)]
        assert not is_shared(directory.write(f"test_{test}", lines, chosen=True))
    for test in range(20):
        lines = [event(n, None) for n in range(1, 20)]
        assert is_shared(directory.write(f"test_{test}", lines, chosen=True))
    assert directory.parts() == ["events"]


def test_an_earlier_recording_that_cannot_be_read_is_as_none(directory: Directory) -> None:
    for n in range(10):
        directory.write(f"test_{n}", set_up_of(n), chosen=True)
    Path(directory.where("test_9")).with_suffix(".json.gz").write_bytes(b"no gzip")
    Path(directory.where("test_9")).unlink()
    lines = directory.write("test_9", set_up_of(90), chosen=True)
    assert lines == set_up_of(90)


def test_a_reference_tells_what_differs_and_the_file_is_json(directory: Directory) -> None:
    lines = directory.write("test_one", [event(n, deleted(n == 2)) for n in range(1, 11)])
    assert [json.loads(line) for line in lines] == [
        {
            "eid": 1,
            "shared": json.loads(lines[0])["shared"],
            "count": 10,
            "start_offset_ms": 2.0,
            "duration_ms": 19.5,
            "values": [
                [1, "0", "1795293607", "4"],
                [1, "1", "1795293607", "4"],
                [8, "0", "1795293607", "4"],
            ],
        }
    ]
    file = next((directory.path / "shared").iterdir())
    assert file.name == json.loads(lines[0])["shared"] + ".json"
    shared = json.loads(file.read_bytes())
    assert shared["format"] == "timetracer-mongodb-shared"
    assert shared["events"][0]["result"]["body"]["data"]["raw_result"] == {
        "n": "<?#0>",
        "ok": 1.0,
        "operationTime": {"$timestamp": {"t": "<?#1>", "i": "<?#2>"}},
    }
    assert len(file.read_text().splitlines()) == 2 + 10 + 1


@pytest.mark.parametrize("moment", ["2026-11-21T20:33:39.318Z", "2027-01-01T00:00:00.000Z"])
@pytest.mark.parametrize("value", IDS)
def test_what_is_made_anew_leaves_the_file_as_it_is(
    directory: Directory, value: str, moment: str
) -> None:
    def lines(value: str, moment: str, token: str) -> list[bytes]:
        document = {"_id": {"$oid": value}, "at": {"$date": moment}, "token": token, "epoch": 1.5}
        raw = {"inserted_id": {"$oid": value}}
        filled = {"document": document}
        return [event(n, raw, arguments=filled, made=[value]) for n in range(1, 13)]

    token = f"urn:uuid:{value[:8]}-42dc-4640-8e63-650365036503,1795293607.25"
    first = lines(
        "6a0201a742dc9640e6365036",
        "2026-01-22T14:00:00.000Z",
        "urn:uuid:00000000-42dc-4640-8e63-650365036503,1695293607.25",
    )
    directory.write("test_one", first)
    before = {file: file.read_bytes() for file in (directory.path / "shared").iterdir()}
    again = lines(value, moment, token)
    directory.write("test_one", again)
    assert {file: file.read_bytes() for file in (directory.path / "shared").iterdir()} == before
    assert len(before) == 1
    assert told(directory.read("test_one")) == told(Cassette(b"".join(render({}, again)), "x"))


SHORT = [event(n) for n in range(1, 10)]
LONG = [event(n) for n in range(1, 12)]

STAY = {
    "too few events": (SHORT, SET_UP, 9),
    "a test's own": (LONG, (Mark(1, True), Mark(1, False)), 11),
    "no marks": (LONG, (), 11),
    "two stretches, each too short": (LONG, (Mark(1, True), Mark(6, True)), 11),
    "a gap makes two": ([event(n) for n in (1, 2, 3, 4, 5, 7, 8, 9, 10, 11)], SET_UP, 10),
    "a cursor that goes on in another event": (
        [event(n, result={"cursor": {"batches": [1], "continued": 77}}) for n in range(1, 12)],
        SET_UP,
        11,
    ),
    "a change that comes after other events": (
        [event(n, result={"cursor": {"batches": [1], "after": [7]}}) for n in range(1, 12)],
        SET_UP,
        11,
    ),
    "a call that was cancelled": (
        [
            event(n, result={"error": {"class": "asyncio.exceptions.CancelledError"}})
            for n in range(1, 12)
        ],
        SET_UP,
        11,
    ),
    "text that looks like the place of a value": (
        [event(n, "<?0>") for n in range(1, 12)],
        SET_UP,
        11,
    ),
    "a value that is a number within a text": (
        [event(n, "at,1795293607,b") for n in range(1, 12)],
        SET_UP,
        11,
    ),
    "enough of them": (LONG, SET_UP, 1),
    "enough of them behind a mark": (LONG, (Mark(1, False), Mark(2, True)), 2),
    "one that is long": ([event(1, arguments={"filter": "x" * 20_000})], SET_UP, 1),
}


@pytest.mark.parametrize("name", STAY)
def test_what_stays_in_the_cassette(directory: Directory, name: str) -> None:
    given, marks, lines = STAY[name]
    kept = directory.write("test_one", given, marks)
    assert len(kept) == lines
    whole = Cassette(b"".join(render({}, given)), "x")
    assert told(directory.read("test_one")) == told(whole)
    if lines == len(given) and name != "one that is long":
        assert kept == given


def test_a_long_stretch_is_cut_in_the_same_places_each_time(directory: Directory) -> None:
    lines = directory.write("test_one", [event(n) for n in range(1, 2501)])
    assert [json.loads(line)["count"] for line in lines] == [1000, 1000, 500]
    assert [one.eid for one in directory.read("test_one").events] == list(range(1, 2501))


def test_times_are_told_as_they_are_where_they_are_uneven(directory: Directory) -> None:
    even = [event(n, offset=n * 1000.0) for n in range(1, 11)]
    uneven = [event(n, offset=n * 10.0 + (30_000 if n > 5 else 0)) for n in range(1, 11)]
    assert b"offsets_ms" not in directory.write("test_even", even)[0]
    assert b"offsets_ms" in directory.write("test_uneven", uneven)[0]
    offsets = [one._text.offset for one in directory.read("test_uneven").events]
    assert offsets == [0.01, 0.02, 0.03, 0.04, 0.05, 30.06, 30.07, 30.08, 30.09, 30.1]
    for one in directory.read("test_even").events:
        assert abs(one._text.offset - one.eid) < 1


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([{"$oid": one} for one in IDS])
    | st.builds(
        lambda t, i: {"$timestamp": {"t": t, "i": i}}, st.integers(0, 2**31), st.integers(0, 9)
    )
    | st.sampled_from(["1795293607", ":1795293607,", "n", "<?0>", '"n":5,', "2026-11-21T20:33:39Z"])
    | st.builds(
        lambda b: {"$binary": {"base64": b, "subType": "00"}},
        st.sampled_from(["AAAAAAAAAAAAAAAAAAAAAA==", "AQI=", "A" * 40 + "=="]),
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["n", "t", "i", "data", "at"]) | st.text(), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(answers=st.lists(JSON, min_size=1, max_size=4), asked=JSON, moment=st.integers(0, 2**31))
def test_every_stretch_reads_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, answers: list[Any], asked: Any, moment: int
) -> None:
    directory = Directory(tmp_path_factory.mktemp("any"))
    arguments = {"filter": {"a": asked, "at": moment}}
    lines = [
        event(n, answers[n % len(answers)], arguments=arguments, url=f"shop.{moment}")
        for n in range(1, 14)
    ]
    directory.write("test_one", lines)
    assert told(directory.read("test_one")) == told(Cassette(b"".join(render({}, lines)), "x"))


# ------------------------------------------------------------------------- long answers


def orders(number: int = 500) -> list[Any]:
    return [{"_id": n, "text": f'a "quoted",\n{n} \u00e4'} for n in range(number)]


def test_a_long_answer_is_a_file_and_is_read_when_it_is_taken(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = event(1, orders())
    for test in range(5):
        (line,) = directory.write(f"test_{test}", [whole], ())
        assert len(line) < 400
    assert directory.parts() == ["body"]
    file = next((directory.path / "shared").iterdir())
    assert len(file.read_text().splitlines()) == 500 + 3
    assert json.loads(file.read_bytes())["data"] == orders()

    with monkeypatch.context() as patch:
        patch.setattr(shared_parts, "_part", lambda *_: pytest.fail("read too early"))
        cassette = directory.read("test_3")
        assert cassette.events[0].body_hash or cassette.events[0].method == "DELETE_MANY"
    assert cassette.events[0].body() == orders()
    assert cassette.events[0].line == whole
    assert cassette.events[0].evidence().made == ()


def test_a_long_answer_is_made_once_for_all_tests(directory: Directory) -> None:
    for test in range(3):
        directory.write(f"test_{test}", [event(1, orders())], ())
    made: list[int] = []

    def make(result: dict[str, Any]) -> int:
        made.append(len(result["body"]["data"]))
        return made[-1]

    for test in range(3):
        assert directory.read(f"test_{test}").events[0].cached(make) == 500
    assert made == [500]


def test_documents_that_are_read_again_are_the_same_text() -> None:
    def read(*batches: list[Any]) -> CursorOutcome:
        outcome = CursorOutcome(SimpleNamespace(recording=None), Any)  # type: ignore[arg-type]
        for name, documents in zip(("firstBatch", "nextBatch"), batches, strict=False):
            reply = bson.encode({"cursor": {name: documents, "id": len(_texts)}, "ok": 1.0})
            outcome.add(batch_of(reply, f"cursor.{name}", [], None), more=False)
        return outcome

    many = [{"_id": bson.ObjectId(), "n": n, "at": datetime(2026, 1, 1)} for n in range(2000)]
    for batches in ((many[:3], many[3:]), (many,), ([], many[1:]), (many[:2],), ([],), ()) * 3:
        outcome = read(*batches)
        assert loads(dumps(outcome.to_written())) == outcome.to_json()


@pytest.mark.parametrize(
    "data", ["x" * 20_000, {"a": list(range(9000))}, [[1], "x" * 17_000, None]], ids=type
)
def test_any_long_answer_comes_back(directory: Directory, data: Any) -> None:
    directory.write("test_one", [event(1, data)], ())
    assert directory.parts() == ["body"]
    assert directory.read("test_one").events[0].body() == data


def test_an_answer_that_holds_such_a_name_is_its_own(directory: Directory) -> None:
    name = "body-" + "0" * 20
    data = {"body": {"captured": True, "shared": name}}
    directory.write("test_one", [event(1, data)], ())
    assert directory.read("test_one").events[0].body() == data


def test_a_stretch_may_hold_long_answers(directory: Directory) -> None:
    lines = [event(n, orders()) for n in range(1, 13)]
    assert len(directory.write("test_one", lines)) == 1
    assert directory.parts() == ["body", "events"]
    assert told(directory.read("test_one")) == told(Cassette(b"".join(render({}, lines)), "x"))
    assert unused_shared_files(directory.path) == ()


# ------------------------------------------------------------------------- other forms


def test_the_setting_compression_holds_for_them(tmp_path: Path) -> None:
    directory = Directory(tmp_path, ".json.gz")
    lines = [*LONG, event(12, orders())]
    directory.write("test_one", lines)
    assert all(file.name.endswith(".json.gz") for file in (tmp_path / "shared").iterdir())
    assert told(directory.read("test_one")) == told(Cassette(b"".join(render({}, lines)), "x"))


def test_a_part_follows_when_the_setting_changes(tmp_path: Path) -> None:
    for suffix in (".json", ".json.gz", ".json"):
        directory = Directory(tmp_path, suffix)
        directory.write("test_one", LONG)
        (file,) = (tmp_path / "shared").iterdir()
        assert file.name.endswith("json" + suffix.removeprefix(".json"))
        assert len(directory.read("test_one").events) == len(LONG)


@pytest.mark.parametrize("sort_keys", [False, True])
def test_formatted_files_load_too(directory: Directory, sort_keys: bool) -> None:
    lines = [
        *(event(n, deleted(n)) for n in range(1, 11)),
        event(11, orders(600)),
        event(12, orders()),
    ]
    directory.write("test_one", lines, (*SET_UP, Mark(12, False)))
    before = told(directory.read("test_one"))
    for file in directory.path.rglob("*.json"):
        file.write_text(json.dumps(json.loads(file.read_bytes()), indent=4, sort_keys=sort_keys))
    assert told(directory.read("test_one")) == before


def test_an_answer_may_be_edited_by_hand(directory: Directory) -> None:
    directory.write("test_one", [event(1, orders())], ())
    file = next((directory.path / "shared").iterdir())
    file.write_text(file.read_text().replace('"_id":7,', '"_id":"seven",'))
    assert directory.read("test_one").events[0].body()[7]["_id"] == "seven"


def test_a_directory_can_be_moved(directory: Directory, tmp_path: Path) -> None:
    lines = [*LONG, event(12, orders())]
    directory.write("test_one", lines)
    moved = Directory(tmp_path / "elsewhere" / "tapes")
    shutil.move(directory.path, moved.path)
    assert told(moved.read("test_one")) == told(Cassette(b"".join(render({}, lines)), "x"))


def test_a_part_that_was_damaged_is_written_again(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.write("test_one", LONG)
    file = next((directory.path / "shared").iterdir())
    good = file.read_bytes()
    file.write_bytes(good[:100])
    monkeypatch.setattr(shared_parts, "_written", set())  # as another process
    directory.write("test_one", LONG)
    assert file.read_bytes() == good


def test_what_is_rewritten_is_shared_still(directory: Directory) -> None:
    set_up = [event(n, {"_id": {"$oid": IDS[0]}}, arguments=[orders()]) for n in range(1, 12)]
    body = [{"_id": {"$oid": IDS[0]}}, *orders()]
    directory.write("test_one", [*set_up, event(12, body)], (*SET_UP, Mark(12, False)))
    data = FileStore(directory.path).read("test_it/test_one.json")

    def change(line: bytes) -> bytes:
        return line.replace(IDS[0].encode(), IDS[1].encode())

    changed = rewritten(data, directory.where("test_one"), change)
    assert len(own_lines(changed) or ()) == 2
    events = parse(changed, directory.where("test_one")).events
    assert [loads(one.line) for one in events] == [
        loads(change(one.line)) for one in parse(data, directory.where("test_one")).events
    ]
    assert directory.parts() == ["body", "body", "events"]


# ------------------------------------------------------------------------- what goes wrong


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def _foreign(file: Path) -> None:
    file.write_text('{"format": "another", "events": [], "data": []}')


def _shorter(file: Path) -> None:
    told = json.loads(file.read_bytes())
    told["events"].pop()
    file.write_text(json.dumps(told))


WRONG = {
    "it is gone": (Path.unlink, "which is not there"),
    "it is cut short": (_cut, "which is damaged"),
    "it is empty": (lambda file: file.write_bytes(b""), "which cannot be read"),
    "it is another program's": (_foreign, "its format is 'another'"),
    "it is a list": (lambda file: file.write_text("[1]"), "which is damaged"),
}
STRETCH_ONLY = {"it has too few events": (_shorter, "which holds 10 events, not 11")}


@pytest.mark.parametrize("how", [*WRONG, *STRETCH_ONLY])
def test_a_stretch_that_cannot_be_had_is_told_when_the_cassette_opens(
    directory: Directory, how: str
) -> None:
    directory.write("test_one", LONG)
    file = next((directory.path / "shared").iterdir())
    harm, why = {**WRONG, **STRETCH_ONLY}[how]
    harm(file)
    with pytest.raises(CassetteFormatError) as caught:
        directory.read("test_one")
    _is_helpful(str(caught.value), directory, file, why, "event 1")


@pytest.mark.parametrize("how", WRONG)
def test_an_answer_that_cannot_be_had_is_told(directory: Directory, how: str) -> None:
    directory.write("test_one", [event(1), event(2, orders())], ())
    file = next((directory.path / "shared").iterdir())
    harm, why = WRONG[how]
    harm(file)
    with pytest.raises(CassetteFormatError) as caught:
        directory.read("test_one").events[1].body()
    _is_helpful(str(caught.value), directory, file, why, "event 2")


def _is_helpful(said: str, directory: Directory, file: Path, why: str, place: str) -> None:
    assert said.startswith(f"{directory.where('test_one')}: {place} refers to {file}, ")
    assert why in said
    assert "Restore it from version control" in said
    assert "record this cassette again" in said


def test_an_answer_that_is_gone_is_told_before_the_program_asks(directory: Directory) -> None:
    directory.write("test_one", [event(n, orders()) for n in range(1, 12)])
    for file in (directory.path / "shared").glob("body-*"):
        file.unlink()
    with pytest.raises(CassetteFormatError, match="which is not there"):
        directory.read("test_one")


@pytest.mark.parametrize("name", ["../../secret", "events-x", 5, None, "events-" + "g" * 20])
def test_a_name_leads_nowhere_else(directory: Directory, name: Any) -> None:
    (line,) = directory.write("test_one", LONG)
    told = {**json.loads(line), "shared": name}
    data = json.dumps({"schema_version": "1.0", "events": [told]}).encode()
    with pytest.raises(CassetteFormatError, match="no name of a shared part"):
        Cassette(data, directory.where("test_one"))


@pytest.mark.parametrize("name", ["../../secret", 5, "body-x"])
def test_the_name_of_an_answer_leads_nowhere_else(directory: Directory, name: Any) -> None:
    (line,) = directory.write("test_one", [event(1, orders())], ())
    told = json.loads(line)
    told["result"]["body"]["shared"] = name
    data = json.dumps({"schema_version": "1.0", "events": [told]}).encode()
    with pytest.raises(CassetteFormatError, match="no name of a shared part"):
        Cassette(data, directory.where("test_one")).events[0].body()


@pytest.mark.parametrize("values", [[[11]], [[5, "1", "2", "3"]], "x", [["x"]], [[11, "1"]]])
def test_values_that_do_not_fit_are_damage(directory: Directory, values: Any) -> None:
    (line,) = directory.write("test_one", [event(n, deleted()) for n in range(1, 12)])
    told = {**json.loads(line), "values": values}
    data = b"".join(render({}, [json.dumps(told).encode()]))
    with pytest.raises(CassetteFormatError):
        Cassette(data, directory.where("test_one"))


# ------------------------------------------------------------------------- clearing up


def test_what_nobody_refers_to_is_unused(directory: Directory) -> None:
    directory.write("test_one", [event(n, orders()) for n in range(1, 12)])
    directory.write("test_two", [event(n, orders(700)) for n in range(1, 12)])
    assert unused_shared_files(directory.path) == ()
    two = Path(directory.where("test_two"))
    beside = two.with_name("test_two.unaccepted-1a2b3c4d.json")
    two.rename(beside)
    assert unused_shared_files(directory.path) == ()
    beside.unlink()
    unused = unused_shared_files(directory.path)
    assert [Path(path).name.partition("-")[0] for path in unused] == ["body", "events"]

    growing = Path(directory.where("test_three") + ".1a2b3c4d.partial")
    growing.write_text("")
    assert remove_unused(directory.path) == ()
    growing.unlink()
    assert remove_unused(directory.path) == unused
    assert directory.parts() == ["body", "events"]
    assert len(directory.read("test_one").events) == 11
    Path(directory.where("test_one")).unlink()
    remove_unused(directory.path)
    assert not (directory.path / "shared").exists()
    assert unused_shared_files(directory.path) == ()


def test_other_files_of_the_folder_are_nobodys_business(directory: Directory) -> None:
    directory.write("test_one", LONG)
    other = directory.path / "shared" / "notes.json"
    other.write_text("[]")
    cassette = directory.path / "shared" / "test_a.json"  # of a test file shared.py
    cassette.write_bytes(b"".join(render({}, SHORT)))
    assert unused_shared_files(directory.path) == ()
    assert other.exists()


def test_a_directory_of_that_name_is_not_taken_for_theirs(directory: Directory) -> None:
    unrelated = directory.path.parent / "shared"
    unrelated.mkdir()
    (unrelated / "empty.json").write_text("")
    assert users_of_shared(directory.path / "session.json") is None
    directory.write("test_one", LONG)
    assert users_of_shared(directory.where("test_one")) == str(directory.path)


def test_they_are_no_cassettes(directory: Directory) -> None:
    directory.write("test_one", [*LONG, event(12, orders())])
    store = FileStore(directory.path)
    assert len(store.names()) == 3
    assert cassette_names(store) == ["test_it/test_one.json"]
    assert [Path(path).name for path in orphans(directory.path)] == ["test_one.json"]


# ------------------------------------------------------------------------- a suite

CONFTEST = """
    import pytest
    from pymongo import MongoClient

    client = MongoClient("{uri}")

    @pytest.fixture(scope="session")
    def db():
        yield client["{database}"]

    @pytest.fixture(scope="session")
    def many(db):
        db.many.delete_many({})
        db.many.insert_many([{"_id": n, "text": "x" * 30} for n in range(1000)])
        yield db.many
        db.many.drop()

    @pytest.fixture
    def clean(db):
        for n in range(15):
            db[f"c{n}"].delete_many({})
        made = db.users.insert_one({"name": "Ann"}).inserted_id
        yield made
        for n in range(15):
            db[f"c{n}"].delete_many({})
"""

TESTS = """
    import os, unittest
    import pytest
    from conftest import client

    changes = os.environ.get("CHANGES", "")

    @pytest.mark.parametrize("n", range(4))
    def test_clean(db, clean, n):
        db[f"c{n}"].insert_one({"n": n, "by": clean})
        assert db[f"c{n}"].find_one({"by": clean})["n"] == n
        assert db.users.find_one({"_id": clean})["name"] == "Ann"

    @pytest.mark.parametrize("n", range(3))
    def test_many(many, n):
        wanted = {"_id": {"$lt": 900}} if changes else {}
        assert len(list(many.find(wanted))) == (900 if changes else 1000)

    def test_swallows(many):
        try:
            found = list(many.find({"_id": {"$gte": 1}}))
        except Exception:
            return
        assert len(found) == 999

    class TestCase(unittest.TestCase):
        def setUp(self):
            self.db = client["{database}"]
            for n in range(15):
                self.db[f"u{n}"].delete_many({})

        def tearDown(self):
            for n in range(15):
                self.db[f"u{n}"].delete_many({})

        def test_one(self):
            self.db.u1.insert_one({"n": 1})
            self.assertEqual(self.db.u1.count_documents({}), 1)

        def test_two(self):
            self.assertEqual(self.db.u1.count_documents({}), 0)
"""


@pytest.fixture(scope="module")
def recorded(mongodb_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = make(tmp_path_factory.mktemp("suite"), mongodb_server, "timetracer_test_shared")
    ini = "[pytest]\npythonpath = .\naddopts = --strict-markers --import-mode=importlib\n"
    project.write("pytest.ini", ini)
    project.write("conftest.py", CONFTEST)
    project.write("test_it.py", TESTS)
    ended = project.record()
    assert ended.code == 0, ended.text
    yield project
    mongodb_server.drop(project.database)


@pytest.fixture
def suite(recorded: Project, tmp_path: Path) -> Project:
    """The suite with its cassettes, in a directory of its own."""
    shutil.copytree(recorded.path, tmp_path / "suite")
    return Project(tmp_path / "suite", recorded.server, recorded.database)


def files(project: Project) -> dict[str, bytes]:
    return {name: (project.path / name).read_bytes() for name in project.cassettes()}


def test_a_suite_shares_what_its_fixtures_send_and_its_long_answers(suite: Project) -> None:
    shared = [name for name in suite.cassettes() if "/shared/" in name]
    kinds = sorted(name.split("/")[-1].partition("-")[0] for name in shared)
    # all documents, without the first, set-up, tear-down, unittest's, and of the fixture `many`
    assert kinds == ["body", "body", "events", "events", "events", "events"]
    for name, data in files(suite).items():
        if "/shared/" not in name:
            assert len(data) < 6000, name
    (one,) = (suite.path / "cassettes/test_it").glob("test_clean-1-*.json")
    clean = one.read_text().splitlines()
    assert [line.partition(", ")[2][:10] for line in clean if line.startswith('{"eid"')] == [
        '"shared": ',
        '"event_typ',
        '"event_typ',
        '"event_typ',
        '"shared": ',
    ]
    case = (suite.path / "cassettes/test_it/TestCase.test_one.json").read_text()
    assert case.count('"shared": "events-') == 2
    assert case.count('"event_type"') == 2


def test_it_replays_whole_in_another_order_in_part_and_elsewhere(suite: Project) -> None:
    assert suite.replay().code == 0
    assert suite.replay(ORDER="reversed", CI="true").code == 0
    (suite.path / "cassettes").rename(suite.path / "elsewhere")
    ended = suite.replay(
        "--timetracer-cassette-dir=elsewhere", "test_it.py::test_clean[2]", "-n", "2"
    )
    assert ended.code == 0, ended.text


def test_recorded_again_every_file_stays_as_it_was(suite: Project) -> None:
    before = files(suite)
    ended = suite.record()
    assert "0 changed in meaning" in ended.text
    assert files(suite) == before


def test_of_set_ups_that_never_come_again_a_run_shares_the_first(suite: Project) -> None:
    text = """
        import pytest

        @pytest.fixture
        def filled(db, request):
            for n in range(12):
                db.filled.replace_one({"_id": n}, {"text": request.node.name}, upsert=True)
            yield
            for n in range(12):
                db.filled.delete_one({"_id": n})

        @pytest.mark.parametrize("n", range(20))
        def test_filled(db, filled, n):
            assert db.filled.count_documents({"text": f"test_filled[{n}]"}) == 12
    """
    shutil.rmtree(suite.path / "cassettes")
    suite.write("test_it.py", text)
    assert suite.record().code == 0
    before = files(suite)
    shared = [name for name in before if "/shared/" in name]
    tear_down = 1  # which was itself new once
    assert len(shared) == tear_down + shared_parts.MOST_IN_VAIN
    for chosen in ([], ["-k", "19"]):
        assert suite.record(*chosen).code == 0
        assert files(suite) == before
    assert suite.replay().code == 0


def test_what_no_test_shares_any_more_goes_with_its_last_user(suite: Project) -> None:
    before = files(suite)
    ended = suite.record("-k", "many", CHANGES="yes")
    assert ended.code == 0 and "3 changed in meaning" in ended.text
    gone, new = before.keys() - files(suite).keys(), files(suite).keys() - before.keys()
    assert len(gone) == len(new) == 1
    assert "/shared/body-" in "".join(gone) and "/shared/body-" in "".join(new)
    assert suite.replay(CHANGES="yes").code == 0


def test_it_goes_with_the_tests_that_are_pruned(suite: Project) -> None:
    text = (suite.path / "test_it.py").read_text()
    start, end = text.index('@pytest.mark.parametrize("n", range(3))'), text.index("class Test")
    (suite.path / "test_it.py").write_text(text[:start] + text[end:])
    ended = suite.replay("--timetracer-prune")
    assert "removed: 4 orphan files" in ended.text
    assert not [name for name in suite.cassettes() if "/shared/body" in name]
    assert suite.replay().code == 0


def test_two_workers_record_the_same_file(suite: Project) -> None:
    text = """
        import pytest

        @pytest.fixture(autouse=True)
        def clean(db):
            for n in range(15):
                db[f"w{n}"].delete_many({})

        @pytest.mark.parametrize("n", range(6))
        def test_none(db, n):
            assert db.w0.count_documents({"n": n}) == 0
    """
    shutil.rmtree(suite.path / "cassettes")
    suite.write("test_none.py", text)
    ended = suite.record("-n", "2", "test_none.py")
    assert ended.code == 0, ended.text
    assert len([name for name in suite.cassettes() if "/shared/events" in name]) == 1
    assert suite.replay("-n", "2", "test_none.py").code == 0


def test_a_missing_part_fails_the_test_whatever_the_program_makes_of_it(suite: Project) -> None:
    for file in (suite.path / "cassettes" / "shared").glob("body-*"):
        file.unlink()
    ended = suite.replay("-k", "swallows or clean")
    assert list(ended.outcomes) == ["test_it.py::test_swallows"]
    assert "refers to cassettes/shared/body-" in ended.text
    assert "which is not there" in ended.text


def test_new_calls_are_added_and_nothing_else_changes(suite: Project) -> None:
    text = """
        import os
        import pytest

        @pytest.fixture
        def looked(db):
            for n in range(12):
                assert db[f"r{n}"].find_one({}) is None

        def test_reads(db, looked):
            if "CHANGES" in os.environ:
                assert db.r1.count_documents({"new": True}) == 0
    """
    suite.write("test_reads.py", text)
    assert suite.record("test_reads.py").code == 0
    before = files(suite)
    new = suite.run("--timetracer=new_episodes", "test_reads.py", CHANGES="yes")
    assert new.code == 0, new.text
    after = files(suite)
    assert [name for name in after if before.get(name) != after[name]] == [
        "cassettes/test_reads/test_reads.json"
    ]
    lines = own_lines(after["cassettes/test_reads/test_reads.json"]) or []
    assert [loads(line)["eid"] for line in lines] == [1, 13]
    assert lines[0] == (own_lines(before["cassettes/test_reads/test_reads.json"]) or [])[0]
    assert suite.replay("test_reads.py", CHANGES="yes").code == 0


def test_an_explicit_cassette_is_one_file(suite: Project) -> None:
    text = """
        import timetracer
        from conftest import client

        def test_block(db):
            with timetracer.use_cassette("block.json", mode="record"):
                for n in range(30):
                    client["{database}"][f"c{n}"].delete_many({})
    """
    shutil.rmtree(suite.path / "cassettes")
    suite.write("test_block.py", text)
    assert suite.record("test_block.py").code == 0
    assert not [name for name in suite.cassettes() if "/shared/" in name]
    assert (suite.path / "block.json").read_text().count('"event_type"') == 30
