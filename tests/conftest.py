"""Fixtures of the whole suite: a MongoDB server, a fresh database, a clean environment."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import Server, ServerMissing, running_server

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that asks for the server is marked `live`, so that `-m "not live"` leaves it out."""
    for item in items:
        if "mongodb_server" in getattr(item, "fixturenames", ()):
            item.add_marker("live")


@pytest.fixture(autouse=True)
def clean_environment() -> Iterator[None]:
    """No TIMETRACER_ variable comes into a test from outside or from the test before."""
    before = _take_settings()
    yield
    _take_settings()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def nothing_bound() -> None:
    """No value of a test before stands for another one, as in a process of its own."""
    from timetracer import ambient, bindings

    bindings.RUN.forget()
    ambient.forget()


@pytest.fixture
def uuids_are_watched() -> Iterator[None]:
    """UUIDs and tokens are seen as the test makes them."""
    from timetracer import evidence

    evidence.watch()
    yield
    evidence.unwatch()


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    """The path of a cassette."""
    return tmp_path / "tape.json"


def _take_settings() -> dict[str, str]:
    names = [name for name in os.environ if name.startswith("TIMETRACER_")]
    return {name: os.environ.pop(name) for name in names}


@pytest.fixture(autouse=True)
def live_tests_need_a_server(request: pytest.FixtureRequest) -> None:
    """A test marked `live` is skipped where no server can be had, with what is missing."""
    if request.node.get_closest_marker("live"):
        request.getfixturevalue("mongodb_server")


@pytest.fixture(scope="session")
def mongodb_server() -> Iterator[Server]:
    """A running MongoDB server."""
    try:
        with running_server() as server:
            yield server
    except ServerMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def mongodb(mongodb_server: Server) -> str:
    """The URI of a running MongoDB server."""
    return mongodb_server.uri


@pytest.fixture
def database(mongodb_server: Server) -> Iterator[str]:
    """The name of a database that does not exist yet; dropped after the test."""
    name = f"timetracer_test_{os.getpid()}_{next(_numbers)}"
    yield name
    mongodb_server.drop(name)


@pytest.fixture
def own_process_session() -> Iterator[None]:
    """A process session that no test before has decided, and none after inherits."""
    from timetracer import process

    process.reset_process()
    yield
    process.reset_process()


@pytest.fixture
def cassettes(tmp_path: Path) -> Path:
    """A cassette directory of the test's own, not made yet."""
    return tmp_path / "cassettes"
