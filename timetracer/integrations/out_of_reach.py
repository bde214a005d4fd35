"""Processes of tests that cannot be recorded are named, since nobody else would notice them.

A Python process is out of reach if it is started so that it does not find the startup hook: by an
option of `OPTIONS`, or without a variable of `NEEDED`. Programs that are not in Python are nobody's
concern. The summary names each, with the test and the cause.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from timetracer.config import CHILD_VARIABLE
from timetracer.integrations.children import OUT_OF_REACH, PATHS, STARTUP
from timetracer.integrations.suite import Suite

NAME = "timetracer-out-of-reach"
_SENT = "timetracer_out_of_reach"

OPTIONS = {
    "I": "-I has Python ignore PYTHONPATH",
    "E": "-E has Python ignore PYTHONPATH",
    "S": "-S has Python run no startup hook",
}
"""Options of Python, and what they do."""

NEEDED: dict[str, Callable[[str], bool]] = {
    PATHS: lambda value: STARTUP in value.split(os.pathsep),
    CHILD_VARIABLE: bool,
}
"""Variables, and whether a value will do."""

_PYTHON = re.compile(r"(python|pypy)[\d.]*(\.exe)?", re.IGNORECASE)
_TAKE_ARGUMENTS = "WX"
_END_OPTIONS = "cm"
_MOST_TOLD = 10


# ------------------------------------------------------------------------------- one process


@dataclass(frozen=True, slots=True)
class Start:
    """How a process is started.

    Attributes:
        words: the command line, of which the first word is the program.
        environ: its environment.
    """

    words: tuple[str, ...]
    environ: Mapping[str, str]

    @classmethod
    def of(
        cls,
        args: Any,
        *_: Any,
        shell: bool = False,
        env: Mapping[Any, Any] | None = None,
        executable: Any = None,
        **__: Any,
    ) -> Start:
        """Return what the arguments of `subprocess.Popen` say."""
        one = isinstance(args, str | bytes | os.PathLike)
        words = [os.fsdecode(word) for word in ([args] if one else args)]
        if shell:
            words = shlex.split(words[0])
        if executable is not None and not shell:
            words[0] = os.fsdecode(executable)
        given = os.environ if env is None else env
        return cls(tuple(words), {os.fsdecode(key): os.fsdecode(given[key]) for key in given})

    def cause(self) -> str | None:
        """Return why the process is out of reach, None where it is not, or no Python process."""
        options = python_options(self.words)
        if options is None:
            return None
        for option, told in OPTIONS.items():
            if option in options:
                return told
        for name, will_do in NEEDED.items():
            if not will_do(self.environ.get(name, "")):
                return f"its environment has not the {name} of the test"
        return None


def python_options(words: Sequence[str]) -> set[str] | None:
    """Return the letters of the options that Python gets, None for another program.

    Args:
        words: the command line; a script's first line counts too.
    """
    if not words:
        return None
    if _PYTHON.fullmatch(os.path.basename(words[0])):
        return set(_letters(words[1:]))
    first = _first_line(words[0])
    if not first.startswith("#!"):
        return None
    told = first[2:].split()
    while told and not _PYTHON.fullmatch(os.path.basename(told[0])):
        told.pop(0)  # env, and its own options
    return set(_letters(told[1:])) if told else None


def _letters(words: Sequence[str]) -> Iterator[str]:
    ahead = iter(words)
    for word in ahead:
        if word in ("-", "--") or not word.startswith("-"):
            return
        for place, letter in enumerate(word[1:] if word[1] != "-" else "", 2):
            yield letter
            if letter in _END_OPTIONS:
                return
            if letter in _TAKE_ARGUMENTS:
                if place == len(word):
                    next(ahead, None)
                break


def _first_line(program: str) -> str:
    path = shutil.which(program)
    try:
        with open(path or program, "rb") as file:
            return file.readline(200).decode("utf-8", "replace")
    except OSError:
        return ""


# ------------------------------------------------------------------------------- the plugin


class OutOfReach:
    """The plugin beside the suite's that names the processes which are out of reach.

    Args:
        suite: the suite's plugin.
    """

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.found: dict[str, None] = {}
        self._plain = subprocess.Popen.__init__
        self._ours = self._watching()
        subprocess.Popen.__init__ = self._ours  # type: ignore[method-assign]

    def pytest_unconfigure(self) -> None:
        """Leave no trace."""
        if subprocess.Popen.__init__ is self._ours:
            subprocess.Popen.__init__ = self._plain  # type: ignore[method-assign]

    def _watching(self) -> Any:
        @functools.wraps(self._plain)
        def __init__(popen: Any, *given: Any, **named: Any) -> None:
            with contextlib.suppress(Exception):  # arguments that are none are refused there
                self._look(Start.of(*given, **named))
            self._plain(popen, *given, **named)

        return __init__

    def _look(self, start: Start) -> None:
        sessions = self.suite.sessions()
        if not sessions or sessions[-1].mode.name == "off":
            return
        cause = start.cause()
        if cause is not None:
            self._note(f"{shlex.join(start.words)}: {cause}")

    def _note(self, told: str) -> None:
        sessions = self.suite.sessions()
        node = sessions[-1].node if sessions else None
        self.found[f"{node}: {told}" if node else told] = None

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        """Learn of those that found the hook, and no Timetracer."""
        for told in self.suite.children.news(OUT_OF_REACH):
            self._note(told)

    # ------------------------------------------------------------------------- the end

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Send a worker's part to the controller."""
        output = getattr(self.suite.config, "workeroutput", None)
        if output is not None:
            output[_SENT] = json.dumps(list(self.found))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: Any) -> None:
        """Take in what a worker sent."""
        sent = json.loads(getattr(node, "workeroutput", {}).get(_SENT) or "[]")
        self.found.update(dict.fromkeys(sent))

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Name them."""
        if not self.found:
            return
        count = len(self.found)
        terminalreporter.write_line(
            f"{count} processes were out of reach: their driver calls are not recorded, and not "
            "replayed either:"
        )
        for told in list(self.found)[:_MOST_TOLD]:
            terminalreporter.write_line(f"    {told}")
        if count > _MOST_TOLD:
            terminalreporter.write_line(f"    and {count - _MOST_TOLD} more")
