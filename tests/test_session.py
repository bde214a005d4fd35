"""Sessions: which one a call belongs to, how blocks nest, and what becomes of their recordings."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.calls import Driver
from timetracer import MissError, SessionError, TraceConfig, use_cassette
from timetracer.__main__ import main
from timetracer.config import resolve
from timetracer.errors import (
    CassetteFormatError,
    CassetteNotFoundError,
    CassettePathError,
    ConfigError,
)
from timetracer.model import RequestRecord, ResponseRecord
from timetracer.opening import open_request
from timetracer.process import current, open_process


def methods(path: Path) -> list[str]:
    return [event["signature"]["method"] for event in json.loads(path.read_bytes())["events"]]


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    return tmp_path / "tape.json"


# ------------------------------------------------------------------------------- use_cassette


def test_with(tape: Path) -> None:
    with use_cassette(tape, mode="record") as session:
        assert current() is session
        Driver()("FIND_ONE")

    assert current() is None
    assert methods(tape) == ["FIND_ONE"]


def test_async_with(tape: Path) -> None:
    async def block() -> None:
        async with use_cassette(tape, mode="record"):
            await asyncio.gather(asyncio.to_thread(Driver(), "FIND_ONE"), asyncio.sleep(0))

    asyncio.run(block())

    assert methods(tape) == ["FIND_ONE"]


def test_a_decorated_function(tape: Path) -> None:
    @use_cassette(tape)
    def ask(method: str) -> Any:
        """Ask."""
        return Driver()(method)

    assert (ask.__name__, ask.__doc__) == ("ask", "Ask.")
    assert ask("FIND_ONE") == 1
    assert methods(tape) == ["FIND_ONE"]  # once: recorded by the first call, replayed by the next
    assert ask("FIND_ONE") == 1
    with pytest.raises(MissError):
        ask("DISTINCT")


def test_a_decorated_coroutine_function(tape: Path) -> None:
    @use_cassette(tape)
    async def ask() -> Any:
        await asyncio.sleep(0)
        return Driver()("FIND_ONE")

    assert asyncio.iscoroutinefunction(ask)
    assert asyncio.run(ask()) == 1
    assert methods(tape) == ["FIND_ONE"]


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("function", [generator, async_generator])
def test_a_generator_is_refused_with_what_to_write_instead(function: Any, tape: Path) -> None:
    with pytest.raises(SessionError, match=r"Write `with use_cassette\(\.\.\.\)` in its body"):
        use_cassette(tape)(function)


@pytest.mark.parametrize("thing", [Driver, classmethod(len), staticmethod(len), None])
def test_what_is_no_function_is_refused(thing: Any, tape: Path) -> None:
    with pytest.raises(SessionError, match="use_cassette decorates functions"):
        use_cassette(tape)(thing)


def test_threads_and_executors_started_inside_belong_to_it(tape: Path) -> None:
    driver = Driver()
    with use_cassette(tape, mode="record"):
        thread = threading.Thread(target=driver, args=("FIND_ONE",))
        thread.start()
        thread.join()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(driver, ["DISTINCT", "COUNT_DOCUMENTS"]))

    assert sorted(methods(tape)) == ["COUNT_DOCUMENTS", "DISTINCT", "FIND_ONE"]


def test_no_thread_of_ours_outlives_the_block(tape: Path) -> None:
    before = threading.active_count()
    with use_cassette(tape, mode="record"):
        Driver()("FIND_ONE")

    assert threading.active_count() == before


def test_two_that_overlap_are_an_error(tape: Path, tmp_path: Path) -> None:
    with use_cassette(tape, mode="record"):
        with pytest.raises(SessionError) as overlap:
            use_cassette(tmp_path / "other.json", mode="record").__enter__()
        Driver()("FIND_ONE")

    assert "tape.json is still open, so" in str(overlap.value)
    assert "Leave the first block before the second." in str(overlap.value)
    assert methods(tape) == ["FIND_ONE"]
    with use_cassette(tmp_path / "other.json", mode="record"):
        pass


def test_two_tasks_that_overlap_are_an_error(tmp_path: Path) -> None:
    async def block(name: str) -> str:
        try:
            async with use_cassette(tmp_path / name, mode="record"):
                await asyncio.sleep(0.02)
                return "open"
        except SessionError:
            return "refused"

    async def both() -> list[str]:
        return await asyncio.gather(block("a.json"), block("b.json"))

    assert asyncio.run(both()) == ["open", "refused"]


def test_one_block_after_the_other(tmp_path: Path) -> None:
    block = use_cassette(tmp_path / "again.json", mode="record")
    for method in ("FIND_ONE", "DISTINCT"):
        with block:
            Driver()(method)

    assert methods(tmp_path / "again.json") == ["DISTINCT"]


def request(path: str = "/users") -> RequestRecord:
    return RequestRecord("GET", path)


def test_inside_a_request_it_is_local_to_the_request(tmp_path: Path, tape: Path) -> None:
    config = resolve(mode="record", cassette_dir=tmp_path)
    outer = open_request(config, request())
    assert outer is not None
    seen: list[Any] = []
    with outer.entered(), use_cassette(tape, mode="record") as inner:
        Driver()("DISTINCT")
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join()
        assert current() is inner
    outer.finish(response=ResponseRecord(200))

    assert seen == [None]
    assert methods(tape) == ["DISTINCT"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tape.json"]


def test_a_request_that_is_not_sampled_may_hold_a_block(tmp_path: Path, tape: Path) -> None:
    skipped = open_request(resolve(mode="record", sample_rate=0), request())
    assert skipped is not None
    with skipped.entered():
        Driver()("FIND_ONE")
        with use_cassette(tape, mode="record"):
            Driver()("DISTINCT")

    assert methods(tape) == ["DISTINCT"]


def test_a_request_inside_a_block_belongs_to_the_block(tape: Path) -> None:
    with use_cassette(tape, mode="record"):
        assert open_request(resolve(mode="record"), request()) is None


def test_a_bad_setting_is_told_where_it_is_given(tape: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean replay"):
        use_cassette(tape, mode="repaly")
    with pytest.raises(ConfigError):
        use_cassette(tape, config=TraceConfig(mode="replay"), mode="")


# ------------------------------------------------------------------------------- never lost


def beside(path: Path) -> list[Path]:
    return sorted(path.parent.glob("*.unaccepted-*"))


@pytest.fixture
def good(tape: Path) -> Path:
    with use_cassette(tape, mode="record"):
        Driver()("FIND_ONE")
        Driver()("DISTINCT")
    return tape


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_body_that_raises_replaces_no_cassette(
    good: Path, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    before = good.read_bytes()
    with pytest.raises(error), use_cassette(good, mode="record"):
        Driver()("COUNT_DOCUMENTS")
        raise error

    assert good.read_bytes() == before
    (kept,) = beside(good)
    assert re.fullmatch(r"tape\.unaccepted-[0-9a-f]{8}\.json", kept.name)
    assert methods(kept) == ["COUNT_DOCUMENTS"]
    assert "was interrupted" in caplog.text
    assert f"To accept it: python -m timetracer accept {kept}" in caplog.text


def test_a_body_that_raises_writes_where_nothing_is(tape: Path) -> None:
    with pytest.raises(ValueError), use_cassette(tape, mode="record"):
        Driver()("FIND_ONE")
        raise ValueError

    assert methods(tape) == ["FIND_ONE"]


def test_calls_that_reached_no_server_replace_no_cassette(
    good: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with use_cassette(good, mode="record"):
        Driver(reached=False)("FIND_ONE")

    assert methods(good) == ["FIND_ONE", "DISTINCT"]
    assert len(beside(good)) == 1
    assert "reached no server" in caplog.text


def test_a_twin_with_another_suffix_is_a_cassette_too(good: Path) -> None:
    packed = good.with_name("tape.json.gz")
    with pytest.raises(ValueError), use_cassette(packed, mode="record"):
        Driver()("COUNT_DOCUMENTS")
        raise ValueError

    assert methods(good) == ["FIND_ONE", "DISTINCT"]
    (kept,) = beside(good)
    assert kept.name.endswith(".json.gz")
    assert main(["accept", str(kept)]) == 0
    assert [path.name for path in good.parent.iterdir()] == ["tape.json.gz"]


def test_accept_interrupted(good: Path) -> None:
    config = TraceConfig(accept_interrupted=True)
    with pytest.raises(ValueError), use_cassette(good, mode="record", config=config):
        Driver()("COUNT_DOCUMENTS")
        raise ValueError

    assert methods(good) == ["COUNT_DOCUMENTS"]
    assert beside(good) == []


def test_the_command_accepts_what_was_kept_beside(
    good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError), use_cassette(good, mode="record"):
        Driver()("COUNT_DOCUMENTS")
        raise ValueError
    (kept,) = beside(good)

    assert main(["accept", str(kept)]) == 0
    assert capsys.readouterr().out == f"accepted: {good}\n"
    assert methods(good) == ["COUNT_DOCUMENTS"]
    assert beside(good) == []


def test_the_command_tells_what_is_wrong(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError), use_cassette(good, mode="record"):
        Driver()("COUNT_DOCUMENTS")
        raise ValueError
    (kept,) = beside(good)

    assert main(["accept", str(good)]) == 1
    told = capsys.readouterr().err
    assert "tape.json is not a recording that was kept beside a cassette.\n" in told
    assert f"There is: {kept}" in told

    kept.write_text("{")
    assert main(["accept", str(kept)]) == 1
    assert "is not a whole cassette" in capsys.readouterr().err
    assert methods(good) == ["FIND_ONE", "DISTINCT"]

    kept.unlink()
    assert main(["accept", str(kept)]) == 1
    assert f"There is no cassette {kept}." in capsys.readouterr().err


def test_the_command_tells_how_to_use_it() -> None:
    told = subprocess.run([sys.executable, "-m", "timetracer"], capture_output=True, text=True)

    assert told.returncode == 2
    assert "usage: python -m timetracer" in told.stderr


def test_a_failed_write_is_logged_once_for_many_requests(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tapes").write_text("a file where the directory should be")
    config = resolve(mode="record", cassette_dir=tmp_path / "tapes")
    for number in range(3):
        session = open_request(config, request(f"/users/{number}"))
        assert session is not None
        with session.entered():
            Driver()("FIND_ONE")
        assert session.finish(response=ResponseRecord(200)) is None

    assert caplog.text.count("cannot be written") == 1


# ------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("name", "content", "error", "told"),
    [
        ("missing.json", None, CassetteNotFoundError, "There is no cassette"),
        ("empty.json", b"", CassetteFormatError, "is empty"),
        ("cut.json", b'{"schema_version": "1.0", "ev', CassetteFormatError, "cut short"),
        ("plain.json.gz", b'{"schema_version": "1.0"}', CassetteFormatError, "rename it to"),
        ("packed.json", b"\x1f\x8b\x08\x00", CassetteFormatError, "rename it to"),
        ("cut.json.gz", b"\x1f\x8b\x08\x00", CassetteFormatError, "cut short or damaged"),
        ("notes.txt", b"{}", CassettePathError, "which ends in .json or .json.gz"),
        ("foreign.json", b'{"a": 1}', CassetteFormatError, "has no schema_version"),
        ("list.json", b"[]", CassetteFormatError, "not a cassette"),
    ],
)
@pytest.mark.parametrize("mode", ["replay", "once", "new_episodes"])
def test_what_cannot_be_read_is_a_clear_error(
    tmp_path: Path, name: str, content: bytes | None, error: type[Exception], told: str, mode: str
) -> None:
    path = tmp_path / name
    if content is None:
        mode = "replay"
    else:
        path.write_bytes(content)
    with pytest.raises(error, match=re.escape(told)) as raised, use_cassette(path, mode=mode):
        pass

    assert name in str(raised.value)
    assert len(str(raised.value).splitlines()) > 1 or ". " in str(raised.value)
    assert current() is None
    if content is not None:
        assert path.read_bytes() == content


def test_a_directory_is_no_cassette(tmp_path: Path) -> None:
    with pytest.raises(CassettePathError, match="is a directory"):
        use_cassette(tmp_path, mode="replay").__enter__()


@pytest.mark.parametrize("mode", ["replay", "once", "new_episodes"])
def test_a_process_whose_cassette_cannot_be_read_makes_no_call(
    tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = tmp_path / "damaged.json"
    damaged.write_text('{"schema_version": "9.0", "events": []}')
    with caplog.at_level(logging.ERROR):
        session = open_process(resolve(mode=mode, cassette=damaged))

    assert session is not None
    assert "Upgrade Timetracer" in caplog.text
    from tests.support.calls import call

    for _ in range(2):
        with pytest.raises(Exception, match="Upgrade Timetracer"):
            session.answer(call(), reads=True)
