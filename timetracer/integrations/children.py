"""Processes that a test starts: they have cassettes of their own, beside the test's.

They need not know of Timetracer: a directory on PYTHONPATH has every Python process look at the
variable TIMETRACER_CHILD as it starts, which names mode and cassette. Processes started with -I, -E
or -S, or without the environment of the test, are out of reach.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from timetracer import ledger
from timetracer.config import CHILD_VARIABLE
from timetracer.plugins import enable_motor, enable_pymongo
from timetracer.recovery import recover
from timetracer.session import WIDE, Session
from timetracer.stores.files import FileStore

STARTUP = str(Path(__file__).with_name("startup"))
_PATHS = "PYTHONPATH"
_PARTIAL = re.compile(r"(.+\.child(?:\.\d+)?)\.json.*\.partial")
_WORKER = "PYTEST_XDIST_WORKER"


class Children:
    """What the processes learn that are started while a suite runs."""

    def __init__(self) -> None:
        self._before = {name: os.environ.get(name) for name in (_PATHS, CHILD_VARIABLE)}
        given = self._before[_PATHS]
        os.environ[_PATHS] = os.pathsep.join([STARTUP, *([given] if given else [])])
        number, self._misses = tempfile.mkstemp(prefix="timetracer-misses-")
        os.close(number)

    def name(self, session: Session, stem: str) -> None:
        """Have the processes that are started from now on belong to a test.

        Args:
            session: the test's session.
            stem: the path of its cassette, without take and suffix.
        """
        if session.mode.name == "off":
            os.environ.pop(CHILD_VARIABLE, None)
            return
        os.environ[CHILD_VARIABLE] = json.dumps(
            {
                "mode": "replay" if session.only_replays else session.mode.name,
                "cassette": f"{stem}.child.json",
                "misses": self._misses,
                "node": session.node,
                "remedy": session.remedy,
                "worker": os.environ.get(_WORKER),
            }
        )

    def misses(self) -> list[str]:
        """Return what misses of processes said since this was asked last."""
        path = Path(self._misses)
        told = path.read_text(encoding="utf-8")
        if told:
            path.write_text("", encoding="utf-8")
        return [json.loads(line) for line in told.splitlines()]

    def end(self, directories: Iterable[str]) -> None:
        """Leave the environment as it was, and have whole cassettes of what forked processes
        recorded: they end without writing them.

        Args:
            directories: where cassettes were recorded.
        """
        for directory in directories:
            _recover_in(directory)
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        Path(self._misses).unlink(missing_ok=True)


def _recover_in(directory: str) -> None:
    store = FileStore(Path(directory))
    found = (_PARTIAL.fullmatch(file.name) for file in Path(directory).glob("*.partial"))
    for stem in {one[1] for one in found if one is not None}:
        recover(store, stem, replace=True)


def begin() -> None:
    """In a process that a test started: record or replay it from now on."""
    told: dict[str, Any] = json.loads(os.environ[CHILD_VARIABLE])
    if os.environ.get(_WORKER) != told["worker"]:
        return  # a worker of pytest-xdist, which has tests of its own
    os.environ["TIMETRACER_MODE"] = told["mode"]
    os.environ["TIMETRACER_CASSETTE"] = told["cassette"]
    WIDE.remedy, WIDE.made_up_data, WIDE.node = told["remedy"], True, told["node"]
    enable_drivers()
    _begin_telling()


def _begin_telling() -> None:
    """Have this process tell the test of its misses; one that was forked has no other start."""
    global _tells
    if not _tells and CHILD_VARIABLE in os.environ:
        _tells = True
        ledger.listen(_tell)


def _tell(miss: ledger.Miss) -> None:
    told = json.loads(os.environ[CHILD_VARIABLE])
    site = f"\nAsked at {miss.call_site}" if miss.call_site is not None else ""
    line = json.dumps(f"in a process of the test: {miss.message}{site}") + "\n"
    with open(told["misses"], "a", encoding="utf-8") as file:
        file.write(line)


_tells = False
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_telling)


def enable_drivers() -> None:
    """Record and replay the drivers that are installed."""
    enable_pymongo()
    if importlib.util.find_spec("motor") is not None:
        enable_motor()
