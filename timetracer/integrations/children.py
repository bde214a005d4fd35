"""Processes that a test starts: they have cassettes of their own, beside the test's.

They need not know of Timetracer: a directory on PYTHONPATH has every Python process look at the
variable TIMETRACER_CHILD as it starts, which names the cassette and the test's settings. What a
process finds, it writes as a line to a file of the suite's, a row of `NEWS` for each kind.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from timetracer import comparing, evidence, ledger
from timetracer.comparing import Drift
from timetracer.config import CHILD_VARIABLE, SETTINGS, TraceConfig, force, forced, resolve
from timetracer.entropy import Seed
from timetracer.matchers import DEFAULT
from timetracer.plugins import enable_motor, enable_pymongo
from timetracer.process import finish_at_exit
from timetracer.recovery import accept, recover
from timetracer.session import WIDE, Session
from timetracer.stores.files import FileStore

STARTUP = str(Path(__file__).with_name("startup"))
PATHS = "PYTHONPATH"
_PARTIAL = re.compile(r"(.+\.child(?:\.\d+)?)\.json.*\.partial")
_WORKER = "PYTEST_XDIST_WORKER"
_OWN = frozenset({"mode", "cassette", "cassette_dir"})

MISS, DRIFT, RECORDED, OUT_OF_REACH = "miss", "drift", "recorded", "out of reach"

NEWS: dict[str, Callable[[Any], Any]] = {
    MISS: str,
    DRIFT: Drift.load,
    RECORDED: tuple,
    OUT_OF_REACH: str,
}
"""What processes tell, and how it is read."""


class Children:
    """What the processes learn that are started while a suite runs, and what they tell."""

    def __init__(self) -> None:
        self._before = {name: os.environ.get(name) for name in (PATHS, CHILD_VARIABLE)}
        given = self._before[PATHS]
        os.environ[PATHS] = os.pathsep.join([STARTUP, *([given] if given else [])])
        self._number, self._file = tempfile.mkstemp(prefix="timetracer-news-")
        number, self._relatives = tempfile.mkstemp(prefix="timetracer-made-")
        os.close(number)
        evidence.join_relatives(self._relatives)
        self._read = 0
        self._news: dict[str, list[Any]] = {kind: [] for kind in NEWS}

    def name(self, session: Session, stem: str) -> None:
        """Have the processes that are started from now on belong to a test.

        Args:
            session: the test's session.
            stem: the path of its cassette, without take and suffix.
        """
        if session.mode.name == "off":
            os.environ.pop(CHILD_VARIABLE, None)
            return
        mode = "replay" if session.only_replays else session.mode.name
        os.environ[CHILD_VARIABLE] = json.dumps(
            {
                "settings": {
                    **_settings(session.config),
                    "mode": mode,
                    "cassette": f"{stem}.child.json",
                },
                "forced": {name: _plain(value) for name, value in forced().items()},
                "seed": session.entropy.seed.dump() if session.entropy is not None else None,
                "news": self._file,
                "relatives": self._relatives,
                "node": session.node,
                "remedy": session.remedy,
                "worker": os.environ.get(_WORKER),
            }
        )

    def news(self, kind: str) -> list[Any]:
        """Return what processes told since this was asked last.

        Args:
            kind: a key of `NEWS`: messages of misses, drift, paths as `Session.saved` is told
                them, or why a process is out of reach.
        """
        if os.lseek(self._number, 0, os.SEEK_END) > self._read:  # each phase of each test asks
            self._read_on()
        news, self._news[kind] = self._news[kind], []
        return news

    def _read_on(self) -> None:
        data = Path(self._file).read_bytes()[self._read :]
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            for about, told in json.loads(line).items():
                self._news[about].append(NEWS[about](told))

    def recorded(self, directories: Iterable[str]) -> list[tuple[str, str]]:
        """Return the paths of what processes have recorded, also of those that ended without
        writing it, as forked ones do.

        Args:
            directories: where cassettes were recorded.
        """
        recovered: list[tuple[str, str]] = []
        for directory in directories:
            _recover_in(directory, lambda *paths: recovered.append(paths))
        return [*self.news(RECORDED), *recovered]

    def end(self) -> None:
        """Leave the environment as it was."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        evidence.leave_relatives()
        os.close(self._number)
        for file in (self._file, self._relatives):
            Path(file).unlink(missing_ok=True)


@functools.lru_cache(32)  # each test names them, and most have the same
def _settings(config: TraceConfig) -> dict[str, Any]:
    """Return what a process is to have of a test's settings, as JSON."""
    names = [name for name, one in SETTINGS.items() if not one.argument_only and name not in _OWN]
    if not set(config.match_on) <= set(DEFAULT):
        names.remove("match_on")  # a comparison that only the test's process knows
    return {name: _plain(getattr(config, name)) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, re.Pattern):
        letters = "".join(one for one in "imsx" if value.flags & re.RegexFlag[one.upper()])
        return f"(?{letters}){value.pattern}" if letters else value.pattern
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _recover_in(directory: str, beside: Callable[[str, str], None]) -> None:
    store = FileStore(Path(directory))
    found = (_PARTIAL.fullmatch(file.name) for file in Path(directory).glob("*.partial"))
    for stem in {one[1] for one in found if one is not None}:
        recover(store, stem, saved=beside)


# ------------------------------------------------------------------------------- in the process


def begin() -> None:
    """In a process that a test started: record or replay it from now on."""
    told: dict[str, Any] = json.loads(os.environ[CHILD_VARIABLE])
    if os.environ.get(_WORKER) != told["worker"]:
        return  # a worker of pytest-xdist, which has tests of its own
    force(**told["forced"])
    WIDE.default = resolve(TraceConfig(**told["settings"]))
    WIDE.of_a_test, WIDE.remedy, WIDE.seed = True, told["remedy"], Seed.load(told["seed"])
    WIDE.node = told["node"]
    _begin_telling()
    with contextlib.suppress(OSError):
        evidence.join_relatives(told["relatives"])
    finish_at_exit()
    enable_drivers()
    evidence.watch()


def _begin_telling() -> None:
    """Have this process tell what it finds; one that was forked has no other start."""
    global _tells
    if not _tells and CHILD_VARIABLE in os.environ:
        _tells = True
        ledger.listen(_tell_miss)
        comparing.listen(_tell_drift)
        WIDE.saved = _tell_saved


def _tell(kind: str, told: Any) -> None:
    """Append a line to the suite's file.

    Raises:
        KeyError, OSError: the suite no longer runs, or cannot be found.
    """
    file = json.loads(os.environ[CHILD_VARIABLE])["news"]
    number = os.open(file, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(number, json.dumps({kind: told}).encode() + b"\n")
    finally:
        os.close(number)


def _tell_miss(miss: ledger.Miss) -> None:
    site = f"\nAsked at {miss.call_site}" if miss.call_site is not None else ""
    with contextlib.suppress(KeyError, OSError):
        _tell(MISS, f"in a process of the test: {miss.message}{site}")


def _tell_drift(drift: Drift) -> None:
    with contextlib.suppress(KeyError, OSError):
        _tell(DRIFT, drift.dump())


def _tell_saved(cassette: str, recorded: str) -> None:
    try:
        _tell(RECORDED, [cassette, recorded])
    except (KeyError, OSError):
        if recorded != cassette:  # nobody is left to compare the two
            accept(recorded)


_tells = False
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_telling)


def enable_drivers() -> None:
    """Record and replay the drivers that are installed."""
    enable_pymongo()
    if importlib.util.find_spec("motor") is not None:
        enable_motor()
