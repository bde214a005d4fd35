"""ODMs and extensions run unchanged: live, recorded, and replayed in a process of its own.

The programs make ids, tokens and times anew in each run, as their users do, and the traces are the
same but for these. A client brings drivers and packages of its own, so each group of them has an
environment, and another with the oldest drivers; see `tests/clients/environments.py`.
"""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

import pytest

from tests.clients import environments
from tests.clients.environments import CLIENTS, ENVIRONMENTS, Client, python_of
from tests.support.offline import Rules, run_offline, run_program
from tests.support.proof import assert_equal
from tests.support.server import Server
from tests.support.traces import renamed

PROGRAMS = Path(environments.__file__).parent
NOT_PROGRAMS = {"__init__", "environments", "on_path", "run"}
NO_SERVER = Rules(threads="driver")
"""Connections and name look-ups of any kind, and the driver's threads; Motor has a pool of its
own, in which it calls the driver."""

by_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.program)


def environment_of(client: Client) -> str:
    """Return the environment that goes with the drivers of the running one."""
    if client.missing():
        pytest.skip(client.missing())
    if not metadata.version("pymongo").startswith("4.9"):
        return client.environment
    return client.oldest or pytest.skip(client.why_not_oldest)


@pytest.mark.live
@by_client
def test_a_client_runs_the_same_live_recorded_and_replayed(
    client: Client, mongodb_server: Server, database: str, tmp_path: Path
) -> None:
    python = python_of(environment_of(client))
    cassette = tmp_path / "cassette.json"
    env = {"PYTHONHASHSEED": "1"}

    def arguments(mode: str, order: str) -> tuple[str, ...]:
        target = (mongodb_server.uri, database, mode, str(cassette))
        return client.program, *target, ",".join(client.enables), order

    run = PROGRAMS / "run.py"
    live = run_program(run, *arguments("off", "first"), env=env, python=python)
    mongodb_server.drop(database)
    mongodb_server.drop(f"{database}_other")
    recorded = run_program(run, *arguments("record", "last"), env=env, python=python)
    source = (PROGRAMS / f"{client.program}.py").read_text(encoding="utf-8")
    expected = renamed(recorded.stdout, source)
    assert_equal(renamed(live.stdout, source), expected, "live", "recorded")
    assert "Traceback" not in recorded.stderr
    replayed = run_offline(
        run,
        *arguments("replay", "first"),
        env={"PYTHONHASHSEED": "2"},  # sets in another order
        rules=NO_SERVER,
        python=python,
    )
    mongodb_server.drop(f"{database}_other")
    assert_equal(expected, renamed(replayed.stdout, source), "recorded", "replayed")
    assert recorded.stdout.count("\n") > 10
    assert replayed.stdout != recorded.stdout, "the program made nothing anew"


def test_made_values_have_the_same_names_in_each_run_and_literals_their_own() -> None:
    source = "Author(id='6560a1b2c3d4e5f6a7b8c9d0', born=datetime(1990, 1, 2))"
    one = (
        "ids: ('6b01d6fc48ede061759bd79c', UUID('0d585edc-bfde-44fe-b3eb-111593614a4a'))\n"
        "path: '/0d585edcbfde44feb3eb111593614a4a?by=6b01d6fc48ede061759bd79c'\n"
        "at: '2026-11-21T17:38:07', datetime.datetime(2026, 11, 21, 17, 38)\n"
        "mail: 'guest+297374@example.com'\n"
        "literal: '6560a1b2c3d4e5f6a7b8c9d0', datetime.datetime(1990, 1, 2, 0, 0)\n"
    )
    expected = (
        "ids: ('(id 1)', UUID('(id 2)'))\n"
        "path: '/(id 2)?by=(id 1)'\n"
        "at: '(time)', datetime.datetime((time))\n"
        "mail: 'guest+(mail 3)@example.com'\n"
        "literal: '6560a1b2c3d4e5f6a7b8c9d0', datetime.datetime(1990, 1, 2, 0, 0)\n"
    )
    assert renamed(one, source) == expected
    other = one.replace("48ede0", "49ede0").replace("0d585edc", "1d585edc")
    assert renamed(other.replace("297374", "111111"), source) == expected
    assert renamed(one.replace("by=6b01d6fc", "by=6b01d6fd"), source) != expected
    assert renamed(one.replace("6560a1b2", "6560a1b3"), source) != expected


def test_every_program_has_its_row() -> None:
    programs = {file.stem for file in PROGRAMS.glob("*.py")} - NOT_PROGRAMS
    assert programs == {client.program for client in CLIENTS}
    used = {name for client in CLIENTS for name in (client.environment, client.oldest)}
    assert used - {""} == set(ENVIRONMENTS)


@by_client
def test_a_client_is_installed_unless_the_table_says_why_not(client: Client) -> None:
    for name in filter(None, (client.environment, client.oldest)):
        assert client.package in " ".join(ENVIRONMENTS[name])
    assert bool(client.why) == (client.ends_at < (4, 0))
    assert bool(client.why_not_oldest) == (not client.oldest)


def test_a_python_that_a_client_cannot_be_had_on_is_named_with_the_reason() -> None:
    beanie = next(client for client in CLIENTS if client.package == "beanie")
    assert beanie.missing((3, 13)) == ""
    assert beanie.missing((3, 14)) == "Beanie has no release for Python 3.14 and later"


def test_an_environment_that_is_there_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def make(directory: Path, requirements: tuple[str, ...]) -> None:
        directory.mkdir(parents=True)
        made.append(directory)

    monkeypatch.setattr(environments, "PLACE", tmp_path)
    monkeypatch.setattr(environments, "_make", make)
    assert python_of("common") == python_of("common")
    assert len(made) == 1
    grown = {**ENVIRONMENTS, "common": (*ENVIRONMENTS["common"], "one-more")}
    monkeypatch.setattr(environments, "ENVIRONMENTS", grown)
    python_of("common")
    assert [path.name for path in tmp_path.iterdir()] == [made[1].name]


def test_an_environment_that_cannot_be_made_leaves_nothing_and_tells_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "PLACE", tmp_path)
    monkeypatch.setattr(environments, "ENVIRONMENTS", {"none": (f"{tmp_path}{os.sep}no-such",)})
    with pytest.raises(RuntimeError, match=r"no-such"):
        python_of("none")
    assert list(tmp_path.iterdir()) == []
