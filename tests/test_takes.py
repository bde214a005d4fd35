"""Takes: the same request again is another file, and only a new recording removes old ones."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.calls import Driver
from timetracer import opening, runs
from timetracer.config import resolve
from timetracer.errors import CassetteFormatError
from timetracer.model import RequestRecord, ResponseRecord
from timetracer.opening import open_request, open_suite
from timetracer.runs import RUN_ID_VARIABLE
from timetracer.stores.files import FileStore
from timetracer.takes import choose_take, claim_take

USERS = RequestRecord("GET", "/users")


@pytest.fixture(autouse=True)
def run() -> None:
    new_run()


def new_run() -> None:
    os.environ[RUN_ID_VARIABLE] = os.urandom(16).hex()


def serve(directory: Path, mode: str, request: RequestRecord = USERS, **settings: Any) -> Any:
    """One request whose handler asks once; the answer."""
    driver = Driver()
    driver.made = ["before"] * settings.pop("data", 0)
    config = resolve(mode=mode, cassette_dir=directory, **settings)
    session = open_request(config, request)
    assert session is not None
    with session.entered():
        answer = driver("FIND_ONE", filter={})
    session.finish(response=ResponseRecord(200))
    return answer


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_the_same_request_again_is_another_take_served_in_order(tmp_path: Path) -> None:
    for data in (0, 10, 20):
        serve(tmp_path, "record", data=data)

    assert names(tmp_path) == ["GET__users.2.json", "GET__users.3.json", "GET__users.json"]
    new_run()
    assert [serve(tmp_path, "replay") for _ in range(5)] == [1, 11, 21, 21, 21]


def test_takes_of_an_earlier_run_go_once_their_request_is_recorded_again(tmp_path: Path) -> None:
    other = replace(USERS, path="/other")
    for _ in range(3):
        serve(tmp_path, "record")
        serve(tmp_path, "record", other)
    new_run()
    serve(tmp_path, "replay")
    assert len(names(tmp_path)) == 6
    serve(tmp_path, "record", data=7)

    assert names(tmp_path) == [
        "GET__other.2.json",
        "GET__other.3.json",
        "GET__other.json",
        "GET__users.json",
    ]
    new_run()
    assert serve(tmp_path, "replay") == 8


def test_another_suffix_is_the_same_take(tmp_path: Path) -> None:
    serve(tmp_path, "record")
    new_run()
    serve(tmp_path, "record", compression="gzip", data=4)
    assert names(tmp_path) == ["GET__users.json.gz"]
    new_run()

    assert serve(tmp_path, "replay") == 5


@pytest.mark.parametrize("settings", [{"sample_rate": 0.999999}, {"errors_only": False}])
def test_sampled_recordings_replace_nothing(tmp_path: Path, settings: dict[str, Any]) -> None:
    for _ in range(2):
        new_run()
        serve(tmp_path, "record", **settings)

    assert len(names(tmp_path)) == (2 if "sample_rate" in settings else 1)


def test_an_equal_body_comes_first(tmp_path: Path) -> None:
    for number, digest in enumerate(("aa", "bb", "aa")):
        serve(tmp_path, "record", replace(USERS, body_hash=digest), data=10 * number)
    new_run()

    bodies = ("bb", "aa", "bb", "aa", "aa", "zz")
    asked = [serve(tmp_path, "replay", replace(USERS, body_hash=digest)) for digest in bodies]
    assert asked == [11, 1, 11, 21, 21, 21]


def test_an_interrupted_request_replaces_no_take(tmp_path: Path) -> None:
    serve(tmp_path, "record")
    new_run()
    session = open_request(resolve(mode="record", cassette_dir=tmp_path), USERS)
    assert session is not None
    with session.entered():
        Driver()("DISTINCT")
    session.finish(failed=True)

    kept = [name for name in names(tmp_path) if "unaccepted" in name]
    assert len(kept) == 1
    assert names(tmp_path) == sorted(["GET__users.json", *kept])
    new_run()
    assert serve(tmp_path, "replay") == 1


def test_a_cassette_of_another_request_is_refused(tmp_path: Path) -> None:
    serve(tmp_path, "record", replace(USERS, path="/other"))
    (tmp_path / "GET__other.json").rename(tmp_path / "GET__users.json")
    store = FileStore(tmp_path)

    with pytest.raises(CassetteFormatError, match="holds the request GET /other, not GET /users"):
        choose_take(store, "GET__users", USERS)


def test_a_request_that_leads_out_of_the_directory_stays_inside(tmp_path: Path) -> None:
    inside = tmp_path / "a" / "b"
    for path in ("/../../etc/passwd", "/..", "/a/../../../x", "//x", "/%2e%2e/x", "/C:\\x", "/\0"):
        serve(inside, "record", replace(USERS, path=path))

    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["b"]
    assert len(names(inside)) == 7


def test_claims_go_on_behind_those_of_other_processes(tmp_path: Path) -> None:
    store = FileStore(tmp_path)

    assert [claim_take(store, "x", ".json") for _ in range(3)] == ["x.json", "x.2.json", "x.3.json"]
    assert claim_take(store, "y", ".json") == "y.json"
    new_run()
    assert claim_take(store, "x", ".json") == "x.json"


# ------------------------------------------------------------------------- fixtures set up anew


def set_up(directory: Path, mode: str, *, calls: bool = False) -> Any:
    """A wider fixture's cassette, as one that a plugin sets up for each test; its answer."""
    driver = Driver()
    config = resolve(mode=mode, cassette_dir=directory, entropy="off")
    session = open_suite(str(directory / "fixture"), config, node="fixture", remedy="record it")
    with session.entered():
        answer = driver("FIND_ONE", filter={}) if calls else None
    session.finish()
    return answer


@pytest.mark.parametrize("mode", ["record", "replay"])
def test_a_fixture_that_is_set_up_for_each_test_looks_for_its_name_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    looked: list[str] = []
    claim, find_latest = runs.claim, opening.find_latest

    def noting_claim(kind: str, name: str) -> bool:
        looked.append(name)
        return claim(kind, name)

    def noting_find(store: Any, name: str) -> str | None:
        looked.append(name)
        return find_latest(store, name)

    monkeypatch.setattr(runs, "claim", noting_claim)
    monkeypatch.setattr(opening, "find_latest", noting_find)
    counts = []
    for _ in range(40):
        looked.clear()
        set_up(tmp_path, mode)
        counts.append(len(looked))
    assert max(counts[1:]) == min(counts[1:])


def test_set_ups_beyond_those_recorded_share_the_last_ones_cassette(tmp_path: Path) -> None:
    for _ in range(3):
        set_up(tmp_path, "record", calls=True)
    assert names(tmp_path) == ["fixture.2.json", "fixture.3.json", "fixture.json"]
    (tmp_path / "fixture.2.json").unlink()  # a set-up that made no calls
    new_run()
    served = []
    for _ in range(6):
        config = resolve(mode="replay", cassette_dir=tmp_path, entropy="off")
        where = str(tmp_path / "fixture")
        served.append(Path(open_suite(where, config, node="fixture", remedy="").where).name)
    first, third = "fixture.json", "fixture.3.json"
    assert served == [first, first, third, third, third, third]
