"""The document: what is written is read; what is damaged is told; what is foreign is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.calls import call
from timetracer import CassetteError, MissError
from timetracer.cassette import Cassette
from timetracer.document import (
    SCHEMA_VERSION,
    event_line,
    header_of,
    parse,
    render,
)
from timetracer.errors import CassetteFormatError, CassetteVersionError
from timetracer.model import Signature

HEADER = {"session": {"id": "abc", "service": None}, "request": {"method": "GET", "path": "/"}}
SKUS = ("A1", 'a "quoted", "result": name', ",\nB")


def line(eid: int, sku: str) -> bytes:
    signature = Signature("pymongo", "FIND_ONE", "shop.orders", ("sku",), f"{eid:016x}")
    arguments = json.dumps({"filter": {"sku": sku}}, separators=(",", ":")).encode()
    result = b'{"status":0,"body":{"captured":true,"data":{"n":%d}}}' % eid
    return event_line(eid, 1.23456, 0.5, signature, arguments, result)


def document(skus: tuple[str, ...] = SKUS) -> bytes:
    return b"".join(render(HEADER, [line(eid, sku) for eid, sku in enumerate(skus, 1)]))


DOCUMENT = document()


def answers(data: bytes, skus: tuple[str, ...] = SKUS) -> list[Any]:
    """What a cassette answers to each of the calls that were recorded."""
    cassette = Cassette(data, "tape.json")
    return [_answer(cassette, sku) for sku in skus]


def _answer(cassette: Cassette, sku: str) -> Any:
    match = cassette.take(call(filter={"sku": sku}))
    return match.event.body() if match is not None else None


RIGHT = [{"n": 1}, {"n": 2}, {"n": 3}]


def test_one_valid_json_document_with_one_event_a_line() -> None:
    assert DOCUMENT.decode().splitlines()[:4] == [
        '{"format": "timetracer-mongodb", "schema_version": "1.0",',
        '"session": {"id":"abc","service":null},',
        '"request": {"method":"GET","path":"/"},',
        '"events": [',
    ]
    assert DOCUMENT.count(b"\n") == 4 + 3 + 1
    loaded = json.loads(DOCUMENT)
    assert [event["eid"] for event in loaded["events"]] == [1, 2, 3]
    assert loaded["events"][0]["start_offset_ms"] == 1.235


def test_what_is_written_is_read() -> None:
    parsed = parse(DOCUMENT, "tape.json")

    assert [event.eid for event in parsed.events] == [1, 2, 3]
    assert parsed.header["session"] == {"id": "abc", "service": None}
    assert parsed.events[1].signature.filter_keys == ("sku",)
    assert b"".join(render(parsed.header, [event.line for event in parsed.events])) == DOCUMENT
    assert answers(DOCUMENT) == RIGHT


def test_a_cassette_without_events() -> None:
    assert parse(document(()), "tape.json").events == []


@pytest.mark.parametrize(
    "layout",
    [
        lambda data: json.dumps(json.loads(data), indent=2).encode(),
        lambda data: json.dumps(json.loads(data), separators=(",", ":")).encode(),
        lambda data: json.dumps(json.loads(data), sort_keys=True, indent="\t").encode(),
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data + b"\n\n",
        lambda data: data.replace(b'"eid": 1,', b'"eid":1 ,'),
    ],
    ids=["indented", "compact", "sorted", "crlf", "trailing newlines", "one line edited"],
)
def test_a_formatted_or_edited_file_loads_too(layout: Any) -> None:
    assert answers(layout(DOCUMENT)) == RIGHT


def test_an_event_may_be_taken_out_by_hand() -> None:
    lines = DOCUMENT.split(b",\n{")
    edited = b",\n{".join([lines[0], *lines[2:]])

    assert answers(edited) == [{"n": 1}, None, {"n": 3}]


def test_an_edited_answer_is_given() -> None:
    assert answers(DOCUMENT.replace(b'"n":2', b'"n":20'))[1] == {"n": 20}


def test_unknown_fields_are_ignored() -> None:
    loaded = json.loads(DOCUMENT)
    loaded["added"] = {"later": [1]}
    loaded["events"][0]["added"] = True
    loaded["events"][0]["signature"]["added"] = True

    assert answers(json.dumps(loaded).encode()) == RIGHT


def test_truncated_at_every_byte_it_is_an_error() -> None:
    for length in range(len(DOCUMENT) - 2):
        with pytest.raises(CassetteFormatError, match=r"^tape\.json"):
            parse(DOCUMENT[:length], "tape.json")


def check_damaged(data: bytes) -> None:
    """A damaged cassette answers rightly, or is a CassetteError, or a miss of what it garbled."""
    try:
        given_back = answers(data)
        header_of(data, "tape.json")
    except CassetteError as error:
        assert "tape.json" in str(error)
        assert error.path == "tape.json"
        return
    except MissError:
        return
    assert len(given_back) == 3


@settings(max_examples=600, deadline=None)
@given(st.integers(0, len(DOCUMENT) - 1), st.integers(1, 255))
def test_any_damaged_byte_is_no_other_error(position: int, flip: int) -> None:
    damaged = bytearray(DOCUMENT)
    damaged[position] ^= flip
    check_damaged(bytes(damaged))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(DOCUMENT)), st.integers(0, len(DOCUMENT)))
def test_a_part_that_was_cut_out_is_no_other_error(one: int, other: int) -> None:
    check_damaged(DOCUMENT[: min(one, other)] + DOCUMENT[max(one, other) :])


@pytest.mark.parametrize("bit", [1, 2, 4, 8, 16, 32, 64, 128])
def test_a_damaged_line_break_loses_no_event_silently(bit: int) -> None:
    position = DOCUMENT.index(b",\n{", DOCUMENT.index(b'"eid": 1'))
    for offset in range(3):
        damaged = bytearray(DOCUMENT)
        damaged[position + offset] ^= bit
        try:
            events = parse(bytes(damaged), "tape.json").events
        except CassetteError:
            continue
        assert len(events) == 3


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["signature", "result", "eid", "body", "data", "query", "x"]),
        inner,
        max_size=4,
    ),
    max_leaves=8,
)
PLACES = [
    ("events",),
    ("session",),
    ("request",),
    ("schema_version",),
    ("format",),
    ("events", 0),
    ("events", 0, "eid"),
    ("events", 0, "signature"),
    ("events", 0, "signature", "query"),
    ("events", 0, "signature", "query", "filter_keys"),
    ("events", 0, "signature", "method"),
    ("events", 0, "arguments"),
    ("events", 0, "arguments", "filter"),
    ("events", 0, "start_offset_ms"),
    ("events", 0, "result"),
    ("events", 0, "result", "body"),
    ("events", 0, "result", "body", "data"),
]


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(PLACES), json_values)
def test_any_other_structure_is_no_other_error(place: tuple[Any, ...], value: Any) -> None:
    loaded = json.loads(DOCUMENT)
    inner = loaded
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    check_damaged(json.dumps(loaded).encode())


FROM_PYPI = {
    "schema_version": "1.0",
    "session": {
        "id": "a",
        "recorded_at": "2026-01-01T00:00:00Z",
        "service": "s",
        "env": "e",
        "framework": "flask",
        "timetracer_version": "1.4.0",
        "python_version": "3.12.1",
        "git_sha": "abc",
    },
    "request": {"method": "GET", "path": "/users/123"},
    "response": {"status": 200},
    "events": [{"eid": 1, "event_type": "db.query", "signature": {}, "result": {}}],
}


@pytest.mark.parametrize(
    ("document", "error", "told"),
    [
        ([], CassetteFormatError, "not a cassette"),
        ({"a": 1}, CassetteFormatError, "has no schema_version"),
        (FROM_PYPI, CassetteFormatError, "timetracer 1.4.0 from PyPI"),
        ({"format": "har", "schema_version": "1.0"}, CassetteFormatError, "another program wrote"),
        ({"schema_version": "2.0", "events": []}, CassetteVersionError, "Upgrade Timetracer"),
        ({"schema_version": "x", "events": []}, CassetteFormatError, "not a version such as 1.0"),
        ({"schema_version": "1.0"}, CassetteFormatError, "events is not there"),
        ({"schema_version": "1.0", "events": {}}, CassetteFormatError, "events is not there"),
        ({"schema_version": "1.0", "events": [1]}, CassetteFormatError, "events[0] is damaged"),
        ({"schema_version": "1.0", "events": [{}]}, CassetteFormatError, "events[0] is damaged"),
        ({"schema_version": "1.0", "session": 5, "events": []}, CassetteFormatError, "session is"),
    ],
)
def test_what_is_foreign_newer_or_damaged_is_told(
    document: Any, error: type[Exception], told: str
) -> None:
    with pytest.raises(error) as raised:
        parse(json.dumps(document).encode(), "some/tape.json")

    assert str(raised.value).startswith("some/tape.json")
    assert told in str(raised.value)


def test_a_later_minor_version_is_read() -> None:
    later = DOCUMENT.replace(b'"schema_version": "1.0"', b'"schema_version": "1.9"')

    assert SCHEMA_VERSION == "1.0"
    assert answers(later) == RIGHT


def test_the_header_is_read_without_the_events() -> None:
    assert header_of(DOCUMENT, "tape.json")["request"] == {"method": "GET", "path": "/"}
    reformatted = json.dumps(json.loads(DOCUMENT), indent=1).encode()
    assert header_of(reformatted, "tape.json")["request"] == {"method": "GET", "path": "/"}
