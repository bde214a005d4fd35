"""ODMs and extensions run unchanged: live, recorded, and replayed in a process of its own.

A client brings drivers and packages of its own, so each group of them has an environment; see
`tests/clients/environments.py`.
"""

from __future__ import annotations

import os
import re
from importlib import metadata
from pathlib import Path

import pytest

from tests.clients import environments
from tests.clients.environments import CLIENTS, ENVIRONMENTS, Client, python_of
from tests.support.offline import Rules, run_offline, run_program
from tests.support.server import Server

PROGRAMS = Path(environments.__file__).parent
NOT_PROGRAMS = {"__init__", "environments", "fixed_ids", "on_path", "run"}
NO_SERVER = Rules(threads="driver")
"""Connections and name look-ups of any kind, and the driver's threads; Motor has a pool of its
own, in which it calls the driver."""

by_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.program)


def needed(client: Client) -> None:
    if metadata.version("pymongo").startswith("4.9"):
        pytest.skip("clients bring drivers of their own; they run beside the newest ones")
    if client.missing():
        pytest.skip(client.missing())


@pytest.mark.live
@by_client
def test_a_client_runs_the_same_live_recorded_and_replayed(
    client: Client, mongodb_server: Server, database: str, tmp_path: Path
) -> None:
    needed(client)
    python = python_of(client.environment)
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
    assert without_driver_ids(recorded.stdout) == without_driver_ids(live.stdout)
    assert "Traceback" not in recorded.stderr
    replayed = run_offline(
        run,
        *arguments("replay", "first"),
        env={"PYTHONHASHSEED": "2"},  # sets in another order
        rules=NO_SERVER,
        python=python,
    )
    mongodb_server.drop(f"{database}_other")
    assert replayed.stdout == recorded.stdout
    assert recorded.stdout.count("\n") > 10


def without_driver_ids(trace: str) -> str:
    """A trace without what a driver or the server makes anew in each run: ids and times."""
    trace = re.sub(r"\b[0-9a-f]{24}\b", "(id)", trace)
    return re.sub(r"Timestamp\(\d+, \d+\)", "(timestamp)", trace)


def test_every_program_has_its_row() -> None:
    programs = {file.stem for file in PROGRAMS.glob("*.py")} - NOT_PROGRAMS
    assert programs == {client.program for client in CLIENTS}
    assert {client.environment for client in CLIENTS} == set(ENVIRONMENTS)


@by_client
def test_a_client_is_installed_unless_the_table_says_why_not(client: Client) -> None:
    requirements = " ".join(ENVIRONMENTS[client.environment])
    assert client.package in requirements
    assert bool(client.why) == (client.ends_at < (4, 0))


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
