"""Programs in processes of their own: as they are, or with network, DNS and threads refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
GUARD = Path(__file__).resolve().parent / "guard"

Environment = Mapping[str, "str | None"]
"""Variables to set; None takes one away."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the guard counts in a process and all its Python children.

    Attributes:
        ports: connections to these ports; None for connections to anything.
        dns: name look-ups.
        threads: "all", "driver" (those that PyMongo starts for itself) or "none".
        refuse: whether what is counted also fails, with a RuntimeError.
    """

    ports: tuple[int, ...] | None = None
    dns: bool = True
    threads: str = "all"
    refuse: bool = True


OFFLINE = Rules()

ALONE = "-p no:asyncio -p no:randomly -p no:django -p no:rerunfailures -p no:repeat"
"""For pytest: without the plugins that are installed for the tests that ask for them."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One thing that the guard counted.

    Attributes:
        what: the audit event, such as "socket.connect".
        detail: its arguments, as text.
        pid: the process.
        where: the calls that led there, the innermost last.
    """

    what: str
    detail: str
    pid: int
    where: tuple[str, ...]

    def __str__(self) -> str:
        return "\n    ".join([f"{self.what} {self.detail} in process {self.pid}", *self.where])


def guarded(report: Path, rules: Rules = OFFLINE) -> dict[str, str]:
    """The environment variables that switch the guard on in a Python process.

    Args:
        report: the file that attempts are written to.
        rules: what counts.

    Returns:
        GUARD_REPORT, GUARD_RULES and PYTHONPATH.
    """
    path = os.pathsep.join([str(GUARD), str(ROOT), *_inherited_path()])
    return {
        "GUARD_REPORT": str(report),
        "GUARD_RULES": json.dumps(asdict(rules)),
        "PYTHONPATH": path,
    }


def attempts(report: Path) -> list[Attempt]:
    """What the guard counted.

    Args:
        report: the file that was given to `guarded`.

    Returns:
        The attempts, in order.

    Raises:
        AssertionError: the guard never ran, so that nothing is proved.
    """
    rows: list[dict[str, Any]] = []
    if report.exists():
        rows = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    assert rows, "the guard never ran: was Python started with -I, -S or -E?"
    return [
        Attempt(row["what"], row["detail"], row["pid"], tuple(row["where"]))
        for row in rows
        if row["what"] != "guard on"
    ]


def run_program(
    program: str | Path,
    *arguments: str,
    env: Environment | None = None,
    cwd: Path | None = None,
    python: str = sys.executable,
    timeout: float = 120,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a Python program in a process of its own.

    Args:
        program: a file (Path), or source text, which may be indented.
        arguments: its command line.
        env: variables on top of this process's own; None as a value takes one away.
        cwd: the directory to run in.
        python: the interpreter.
        timeout: seconds.
        check: whether an exit code other than 0 is an AssertionError that shows the output.

    Returns:
        The finished process, with stdout and stderr as text.
    """
    result = subprocess.run(
        [python, *_program(program), *arguments],
        env=environment(env),
        cwd=cwd,
        timeout=timeout,
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    assert not check or result.returncode == 0, _failure(result)
    return result


def run_offline(
    program: str | Path,
    *arguments: str,
    env: Environment | None = None,
    rules: Rules = OFFLINE,
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """Run a Python program with what `rules` names refused, and assert that nothing was tried.

    Args:
        program: a file (Path), or source text, which may be indented.
        arguments: its command line.
        env: variables on top of this process's own.
        rules: what is refused; connections, DNS and threads unless told otherwise.
        options: as for `run_program`.

    Returns:
        The finished process.

    Raises:
        AssertionError: something was tried (it is listed with the calls that led there), the
            program failed, or the guard never ran.
    """
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "attempts.jsonl"
        check = options.pop("check", True)
        guard_on = {**(env or {}), **guarded(report, rules)}
        result = run_program(program, *arguments, env=guard_on, check=False, **options)
        tried = attempts(report)
    assert not tried, "\n".join(["tried offline:", *map(str, tried), _failure(result)])
    assert not check or result.returncode == 0, _failure(result)
    return result


def environment(changes: Environment | None = None) -> dict[str, str]:
    """This process's environment with changes, and with the checkout importable; what is started
    is no worker of pytest-xdist, even if this process is one.

    Args:
        changes: variables to set; None as a value takes one away.

    Returns:
        A whole environment for `subprocess`.
    """
    path = os.pathsep.join([str(ROOT), *_inherited_path()])
    own = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_XDIST_")}
    merged = {**own, "PYTHONPATH": path, "PYTEST_ADDOPTS": ALONE, **(changes or {})}
    return {name: value for name, value in merged.items() if value is not None}


def _inherited_path() -> list[str]:
    ours = {str(ROOT), str(GUARD)}
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [part for part in inherited if part and part not in ours]


def _program(program: str | Path) -> Sequence[str]:
    if isinstance(program, Path):
        return [str(program.resolve())]
    return ["-c", textwrap.dedent(program)]


def _failure(result: subprocess.CompletedProcess[str]) -> str:
    code, out, err = result.returncode, result.stdout, result.stderr
    return f"exit code {code}\n--- stdout\n{out}\n--- stderr\n{err}"
