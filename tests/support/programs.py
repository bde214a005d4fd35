"""Programs that use the driver and tell all that they see, and what is proved with them.

A program is a file of tests/programs. It uses nothing but PyMongo, through `Steps`, which writes
one line for each call: the call, what came of it, and what became of its arguments. It runs

    plain     against a server, the plugin off
    record    against a server, recorded
    replay    in a process where connections, DNS and threads are refused

Recorded, it must do what it does plain but for ids and times; replayed, exactly what it did when it
was recorded. `cassettes/` holds each program's cassette and trace as of the newest and of the
oldest driver, so that the replay is proved without a server, and across drivers.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from pymongo import MongoClient

from tests.support import wire
from tests.support.traces import shown


class Steps:
    """What a program runs on.

    Attributes:
        uri: the server.
        stage: "plain", "record" or "replay".
        client: a client.
        database: the program's own database, empty at the start.
    """

    def __init__(self, client: Any, uri: str, stage: str, database: str) -> None:
        self.client = client
        self.uri = uri
        self.stage = stage
        self.database = client[database]
        self._number = 0

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Make a call and tell of it; return its result, None where it raised."""
        given = _arguments(args, kwargs)
        try:
            result = function(*args, **kwargs)
            came = f"-> {shown(result)}"
        except Exception as error:
            result, came = None, f"raises {shown(error)}"
        self._say(f"{_name(function)}({given}) {came}")
        after = _arguments(args, kwargs)
        if _timeless(after) != _timeless(given):  # a server's clock may go on between two calls
            sys.stdout.write(f"    arguments: {after}\n")
        return result

    def show(self, label: str, value: Any) -> Any:
        """Tell of a value and return it."""
        self._say(f"{label}: {shown(value)}")
        return value

    def options(self, **options: Any) -> Any:
        """Return the program's database in a client with other options."""
        return MongoClient(self.uri, **options)[self.database.name]

    @contextlib.contextmanager
    def failing(self, *commands: str, times: int = 1, **data: Any) -> Iterator[None]:
        """Have the server fail commands in the block; no recorder sees how that is arranged.

        Args:
            commands: the commands that fail.
            times: how many of them.
            data: what failCommand is given, such as errorCode or closeConnection.
        """
        self._fail_point({"times": times}, {"failCommands": list(commands), **data})
        yield
        self._fail_point("off", {})

    def _fail_point(self, mode: Any, data: dict[str, Any]) -> None:
        if self.stage != "replay":
            fail = {"configureFailPoint": "failCommand", "mode": mode}
            wire.command(self.uri, {**fail, "data": data} if data else fail)

    def server(self, document: dict[str, Any], database: str = "admin") -> None:
        """Give the server a command behind the program's back; not in replay."""
        if self.stage != "replay":
            wire.command(self.uri, document, database)

    def _say(self, line: str) -> None:
        self._number += 1
        line = re.sub(r"(?<=MongoClient\(host=\[)[^]]*", "...", line)  # another one in replay
        sys.stdout.write(f"{self._number} {line}\n")
        sys.stdout.flush()


def _timeless(shown_arguments: str) -> str:
    return re.sub(r"Timestamp\(\d+, \d+\)", "Timestamp", shown_arguments)


def _arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    given = [shown(value) for value in args]
    return ", ".join([*given, *(f"{name}={shown(value)}" for name, value in kwargs.items())])


def _name(function: Any) -> str:
    owner = getattr(function, "__self__", None)
    name = getattr(function, "__name__", type(function).__name__)
    if owner is None or isinstance(owner, type(os)):
        return str(name)
    return f"{type(owner).__name__}.{name}"


def run(
    steps: Callable[[Steps], None], before: Callable[[Steps], None] | None = None
) -> None:
    """Run a program as the environment says.

    Args:
        steps: the program.
        before: what it does before the plugin is switched on.
    """
    uri, stage = os.environ["MONGODB_URI"], os.environ["PROGRAM_STAGE"]
    if stage != "plain" and before is None:
        _switch_on()
    running = Steps(
        MongoClient(uri, connect=before is None, heartbeatFrequencyMS=500),
        uri,
        stage,
        os.environ["TEST_DATABASE"],
    )
    if before is not None:
        before(running)
        if stage != "plain":
            _switch_on()
    steps(running)


def _switch_on() -> None:
    from timetracer.plugins import enable_pymongo

    enable_pymongo()
