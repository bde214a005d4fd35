"""A recording while it grows: in memory, in a partial file, in order, and with secrets replaced."""

from __future__ import annotations

import json
import logging
import multiprocessing
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.calls import Driver, answer, call
from timetracer import TraceConfig, use_cassette
from timetracer.cassette import Recording
from timetracer.recovery import open_spool, recover
from timetracer.redaction import Redactor
from timetracer.stores.files import FileStore


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path)


def spilling(store: FileStore, events: int = 1, **settings: Any) -> Recording:
    recording = Recording(spill_events=events, **settings)
    recording.spill = lambda: open_spool(store, "x.json", "a" * 32, {"id": "a" * 32}, adds_to=False)
    return recording


def add(recording: Recording, *numbers: Any, **options: Any) -> list[Any]:
    outcomes = [answer({"n": number}, **options) for number in numbers]
    for number, outcome in zip(numbers, outcomes, strict=True):
        recording.add(call(filter={"n": number}), outcome, 0.0, 1.0)
    return outcomes


def read(lines: Iterator[bytes]) -> list[tuple[int, Any]]:
    events = [json.loads(line) for line in lines]
    return [(event["eid"], event["arguments"]["filter"]["n"]) for event in events]


def partials(store: FileStore) -> list[str]:
    return [name for name in store.names() if name.endswith(".partial")]


def test_in_memory_it_can_be_written_more_than_once() -> None:
    recording = Recording()
    add(recording, "a", "b")
    assert read(recording.lines()) == [(1, "a"), (2, "b")]
    add(recording, "c")

    assert read(recording.lines()) == [(1, "a"), (2, "b"), (3, "c")]


def test_what_was_open_is_written_as_it_is_by_then() -> None:
    recording = Recording()
    data = {"n": 1}
    (outcome,) = add(recording, "a", open=True)
    outcome.data = lambda: dict(data)
    assert recording.may_grow
    assert b'"data":{"n":1}' in next(recording.lines())
    data["n"] = 2
    outcome.open = False

    assert b'"data":{"n":2}' in next(recording.lines())
    assert not recording.may_grow


@pytest.mark.parametrize("events", [1, 2, 3, 100])
def test_lines_are_in_order_however_they_were_spilled(store: FileStore, events: int) -> None:
    recording = spilling(store, events)
    first = add(recording, "open", open=True)
    add(recording, "a", "b")
    second = add(recording, "open too", open=True)
    add(recording, "c", "d")
    first[0].open = False
    add(recording, "e")
    second[0].open = False
    recording.flush()
    add(recording, "f")

    numbers = ["open", "a", "b", "open too", "c", "d", "e", "f"]
    assert read(recording.lines()) == list(enumerate(numbers, 1))
    recording.discard_partial()
    assert store.names() == []


def test_an_open_event_is_in_the_partial_file_and_its_later_form_counts(store: FileStore) -> None:
    recording = spilling(store)
    (outcome,) = add(recording, "early", open=True)
    add(recording, "b")
    assert b'"n":"early"' in store.read(partials(store)[0])
    outcome.data, outcome.open = (lambda: {"n": "late"}), False
    recording.flush()

    lines = list(recording.lines())
    assert len(lines) == 2
    assert b'"data":{"n":"late"}' in lines[0]
    recording.discard_partial()


def test_events_are_spilled_soon_without_another_call(store: FileStore) -> None:
    recording = spilling(store, 1000)
    add(recording, "a")
    deadline = time.monotonic() + 5
    while not partials(store) and time.monotonic() < deadline:
        time.sleep(0.02)

    assert b'"n":"a"' in store.read(partials(store)[0])
    recording.lines()
    recording.discard_partial()


def test_many_events_take_little_memory(store: FileStore) -> None:
    recording = spilling(store, 100)
    text = "x" * 2000
    tracemalloc.start()
    try:
        for number in range(5000):
            recording.add(call(filter={"n": number}), answer({"t": text + str(number)}), 0, 0)
        store.write("x.json", recording.lines())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (store.directory / "x.json").stat().st_size > 10_000_000
    assert peak < 3_000_000
    recording.discard_partial()


def test_the_partial_file_begins_with_who_writes_it(store: FileStore) -> None:
    recording = spilling(store)
    add(recording, "a")
    (name,) = partials(store)
    head = json.loads(store.read(name).split(b"\n")[0])

    assert name == "x.json.aaaaaaaa.partial"
    assert head.keys() == {"partial", "schema_version", "pid", "host", "adds_to", "session"}
    recording.discard_partial()


def test_a_failed_spill_keeps_the_events_and_is_told_once(
    store: FileStore, caplog: pytest.LogCaptureFixture
) -> None:
    (store.directory / "tapes").write_text("a file in its place")
    recording = spilling(FileStore(store.directory / "tapes"))
    add(recording, "a", "b", "c")

    assert read(recording.lines()) == [(1, "a"), (2, "b"), (3, "c")]
    assert caplog.text.count("not recorded:") == 1


def test_an_event_that_cannot_be_rendered_is_logged_and_the_others_stay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recording = Recording()
    (outcome, _) = add(recording, "a", "b")
    outcome.data = lambda: 1 / 0

    assert read(recording.lines()) == [(2, "b")]
    assert "event 1 could not be written" in caplog.text


def test_before_record_changes_and_leaves_out(store: FileStore) -> None:
    def hook(event: dict[str, Any]) -> dict[str, Any] | None:
        if event["arguments"]["filter"]["n"] == "out":
            return None
        event["arguments"]["filter"]["n"] += "!"
        return event

    for recording in (Recording(before_record=hook), spilling(store, before_record=hook)):
        add(recording, "a", "out", "b")
        assert read(recording.lines()) == [(1, "a!"), (3, "b!")]
        recording.discard_partial()


def test_secrets_reach_no_partial_file(store: FileStore) -> None:
    recording = spilling(store, redactor=Redactor(secret=b"k" * 32))
    recording.add(call(filter={"password": "hunter2"}), answer({"token": "s3cr3t-t0ken"}), 0, 0)
    (name,) = partials(store)

    assert b"hunter2" not in store.read(name)
    assert b"s3cr3t-t0ken" not in store.read(name)
    recording.discard_partial()


# ------------------------------------------------------------------------------- recovery


def left_behind(store: FileStore, *numbers: Any, name: str = "x.json", session: str = "b") -> None:
    """A partial file as a killed process leaves it."""
    spool = open_spool(store, name, session * 32, {"id": session * 32}, adds_to=False)
    recording = Recording(spill=lambda: spool, spill_events=1)
    add(recording, *numbers)
    spool.file.close()
    recording.abandon()


def recovered(store: FileStore, name: str = "x.json") -> list[tuple[int, Any]]:
    loaded = json.loads(store.read(name))
    return [(event["eid"], event["arguments"]["filter"]["n"]) for event in loaded["events"]]


def test_a_partial_file_becomes_the_cassette_where_there_is_none(
    store: FileStore, caplog: pytest.LogCaptureFixture
) -> None:
    left_behind(store, "a", "b")
    recover(store, "x")

    assert store.names() == ["x.json"]
    assert recovered(store) == [(1, "a"), (2, "b")]
    assert "was made of 2 events that a killed process had recorded" in caplog.text


def test_it_is_kept_beside_where_there_is_one(
    store: FileStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.write("x.json.gz", [b"a good one"])
    left_behind(store, "a")
    recover(store, "x")

    assert store.names() == ["x.json.gz", "x.unaccepted-bbbbbbbb.json"]
    assert store.read("x.json.gz") == b"a good one"
    assert recovered(store, "x.unaccepted-bbbbbbbb.json") == [(1, "a")]
    assert "python -m timetracer accept " in caplog.text


def test_of_two_the_newer_becomes_the_cassette(store: FileStore) -> None:
    left_behind(store, "old", session="b")
    time.sleep(0.02)
    left_behind(store, "new", session="a")
    recover(store, "x")

    assert recovered(store) == [(1, "new")]
    assert recovered(store, "x.unaccepted-bbbbbbbb.json") == [(1, "old")]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_last_line_cut_short_is_dropped_and_told(
    store: FileStore, cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    left_behind(store, "a", "b")
    path = store.directory / partials(store)[0]
    path.write_bytes(path.read_bytes()[:-cut])
    recover(store, "x")

    assert recovered(store) == [(1, "a")]
    assert "Its last event was cut off and is left out." in caplog.text


def test_one_that_holds_no_event_goes(store: FileStore) -> None:
    open_spool(store, "x.json", "c" * 32, {}, adds_to=False).file.close()
    (store.directory / "x.json.dddddddd.partial").write_bytes(b'{"part')
    recover(store, "x")

    assert store.names() == []


def test_takes_of_the_name_are_recovered_and_other_names_are_not(store: FileStore) -> None:
    for name in ("x.2.json", "xy.json", "x.y.json"):
        left_behind(store, "a", name=name)
    recover(store, "x")

    assert store.names() == ["x.2.json", "x.y.json.bbbbbbbb.partial", "xy.json.bbbbbbbb.partial"]


def test_one_that_is_being_written_is_left_alone(store: FileStore) -> None:
    recording = spilling(store)
    add(recording, "a")
    recover(store, "x")
    add(recording, "b")

    assert store.names() == ["x.json.aaaaaaaa.partial"]
    assert read(recording.lines()) == [(1, "a"), (2, "b")]
    recording.discard_partial()


def _hold(directory: Path, held: Any, done: Any) -> None:
    left_open = open_spool(FileStore(directory), "x.json", "e" * 32, {"id": "e"}, adds_to=False)
    held.set()
    done.wait(20)
    del left_open


def test_one_that_another_process_has_open_is_left_alone(store: FileStore) -> None:
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(store.directory, held, done))
    process.start()
    assert held.wait(20)
    recover(store, "x")
    assert store.names() == ["x.json.eeeeeeee.partial"]
    done.set()
    process.join()
    recover(store, "x")

    assert store.names() == []


def test_new_episodes_that_were_cut_short_keep_the_old_events(store: FileStore) -> None:
    path = store.directory / "x.json"
    with use_cassette(path, mode="record", config=TraceConfig(redact=False)):
        Driver()(filter={"n": "known"})
    block = use_cassette(path, mode="new_episodes", config=TraceConfig(redact=False))
    session = block.__enter__()
    Driver()(filter={"n": "new"})
    assert session.recording is not None
    session.recording.flush()
    session.recording.release_partial()  # as if the process had been killed
    block.__exit__(None, None, None)
    left = [name for name in store.names() if name != "x.json"]
    recover(store, "x")

    assert len(left) == 1
    (beside,) = [name for name in store.names() if "unaccepted" in name]
    assert recovered(store, beside) == [(1, "known"), (2, "new")]


def test_what_cannot_be_recovered_is_told_and_stays(
    store: FileStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(store, "a")
    (store.directory / "x.json").mkdir()
    with caplog.at_level(logging.ERROR):
        recover(store, "x")

    assert partials(store) == ["x.json.bbbbbbbb.partial"]
    assert "was not recovered:" in caplog.text
