"""Programs recorded against a server and replayed in a process that may reach nothing."""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.offline import OFFLINE, Environment, Rules, run_offline, run_program

STEPS = Path(__file__).with_name("steps.py")
DRIVERS = ("sync", "async", "motor", "tornado")
OWN_THREADS = Rules(threads="driver")
"""Motor makes its calls in threads of its own; PyMongo still may start none."""

PREAMBLE = """
import asyncio, os, sys, time
from tests.support import wire
from timetracer.plugins import enable_motor, enable_pymongo
from tests.programs_async.harness import it

URI, DATABASE = os.environ["MONGODB_URI"], os.environ["TEST_DATABASE"]
REPLAY = os.environ.get("TIMETRACER_MODE") == "replay"

def slow(milliseconds, command):
    '''Have the server take its time for a command, once; no recorder sees how.'''
    if not REPLAY:
        data = {"failCommands": [command], "blockConnection": True, "blockTimeMS": milliseconds}
        wire.command(URI, {"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": data})
"""


@dataclass(slots=True)
class Proof:
    """A server, a database and a directory in which programs are recorded and replayed."""

    uri: str
    database: str
    directory: Path

    @property
    def cassette(self) -> Path:
        """The cassette of the program at hand."""
        return self.directory / "calls.json"

    def environment(self, mode: str, cassette: Path | None = None) -> dict[str, str | None]:
        """The environment that a program runs in."""
        return {
            "MONGODB_URI": self.uri,
            "TEST_DATABASE": self.database,
            "TIMETRACER_MODE": mode,
            "TIMETRACER_CASSETTE": str(cassette or self.cassette),
            "PYTHONWARNINGS": "error::RuntimeWarning",
        }

    def record(self, program: str, *arguments: str, env: Environment | None = None) -> str:
        """Record a program; return what it says."""
        given = {**self.environment("record"), **(env or {})}
        return self._said(run_program(self._file(program), *arguments, env=given))

    def replay(
        self,
        program: str,
        *arguments: str,
        rules: Rules = OFFLINE,
        env: Environment | None = None,
        check: bool = True,
    ) -> str:
        """Replay a program with everything refused that `rules` name; return what it says."""
        given = {**self.environment("replay"), **(env or {})}
        file = self._file(program)
        return self._said(run_offline(file, *arguments, env=given, rules=rules, check=check))

    def holds(self, program: str, *arguments: str, rules: Rules = OFFLINE) -> str:
        """Record a program, replay it, and see that it says the same; return what it says."""
        said = self.record(program, *arguments)
        assert self.replay(program, *arguments, rules=rules) == said
        return said

    def events(self) -> list[dict[str, Any]]:
        """The events of the cassette."""
        loaded: list[dict[str, Any]] = json.loads(self.cassette.read_text())["events"]
        return loaded

    def methods(self) -> list[str]:
        """What was recorded."""
        return [event["signature"]["method"] for event in self.events()]

    def _file(self, program: str) -> Path:
        file = self.directory / "program.py"
        file.write_text(PREAMBLE + textwrap.dedent(program), encoding="utf-8")
        return file

    @staticmethod
    def _said(result: Any) -> str:
        for word in ("never awaited", "never retrieved", "Traceback"):
            assert word not in result.stderr, result.stderr
        return str(result.stdout)


def traces(text: str) -> dict[str, Any]:
    """What each step of a run of steps.py saw."""
    return dict(map(json.loads, text.splitlines()))


def without_times(seen: Any) -> str:
    """A step's trace without what differs from run to run: ids and times."""
    text = re.sub(r"[0-9A-Fa-f]{24,}", "<id>", json.dumps(seen))
    text = re.sub(r"Timestamp\(\d+, \d+\)", "<timestamp>", text)
    text = re.sub(r"datetime.datetime\(20[2-9][5-9][^)]*\)", "<time>", text)
    return without_names(text)


def without_names(text: str) -> str:
    """A trace without what the drivers call their own classes in messages."""
    text = re.sub(r"(?:Async)?MongoClient\(.*?\)(?=, 'timetracer)", "<client>", text)
    return re.sub(r"Async(Collection|Database)\(", r"\1(", text)
