"""What is proved with a program of tests/programs, live and from its committed cassettes.

Two releases of the driver recorded every program: `cassettes/` holds what the newest recorded,
`cassettes/oldest/` what the oldest that is supported did; each cassette lies beside its trace. Each
replays on both. Where the traces differ then, it is because the driver itself was changed: every
such place is a row of `DRIVER_CHANGES`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymongo

from tests.support.offline import ROOT, run_offline, run_program
from tests.support.server import Server
from tests.support.traces import blurred
from timetracer import document
from timetracer.codec import loads

PROGRAMS = ROOT / "tests" / "programs"
RECORDINGS = {"newest": ROOT / "cassettes", "oldest": ROOT / "cassettes" / "oldest"}
NOWHERE = "mongodb://fake:27017"
_SINCE = re.compile(r"^SINCE = \((\d+), (\d+)\)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class DriverChange:
    """A place where a newer driver does otherwise than an older one.

    Attributes:
        program: whose trace shows it.
        why: what was changed in the driver.
        pattern: what stands there in either trace; taken away before they are compared.
    """

    program: str
    why: str
    pattern: str


DRIVER_CHANGES = (
    DriverChange(
        "driver_errors",
        "InvalidDocument has the attribute `document` since 4.12",
        r", document=.*?(?=>$)",
    ),
    *(
        DriverChange(
            program,
            "Cursor.__init__, which refuses a keyword, is in a base class since 4.14",
            r"(_Agnostic)?Cursor(?=\.__init__\(\) got an unexpected keyword)",
        )
        for program in ("queries", "reads")
    ),
    DriverChange(
        "writes",
        "did_upsert takes the length of the id in 4.9.0, which fails; mended in 4.9.1",
        r"did_upsert=(True|<TypeError: object of type '\w+' has no len\(\)>)",
    ),
    DriverChange(
        "change_streams",
        "the message names the wrong type since 4.10",
        r"(?<=TypeError, args=\().pipeline must be a list.*",
    ),
    DriverChange(
        "gridfs_files",
        "the message names the wrong type since 4.10",
        r"(?<=TypeError, args=\().database must be an instance of Database.*",
    ),
    DriverChange(
        "gridfs_files",
        "the message of rename is made of any id, and no longer of numbers alone, since 4.12",
        r"(?<=rename\('never there', 'x'\) raises ).*",
    ),
)


# ------------------------------------------------------------------------------- the programs


def programs() -> list[str]:
    """The names of all programs."""
    return sorted(path.stem for path in PROGRAMS.glob("*.py"))


def since(program: str) -> tuple[int, int]:
    """The first release of the driver that a program runs on."""
    found = _SINCE.search(file_of(program).read_text(encoding="utf-8"))
    return (int(found[1]), int(found[2])) if found else (4, 9)


def runs_here(program: str) -> bool:
    """Whether this process's driver is recent enough for a program."""
    return pymongo.version_tuple[:2] >= since(program)


def file_of(program: str) -> Path:
    """The file of a program."""
    return PROGRAMS / f"{program}.py"


def database_of(program: str) -> str:
    """The name of a program's database."""
    return f"timetracer_{program}"


def cassette_of(program: str, release: str) -> Path:
    """The committed cassette of a program, recorded on the "newest" or the "oldest" driver."""
    return RECORDINGS[release] / f"{program}.json"


def trace_of(program: str, release: str) -> Path:
    """The trace that belongs to a committed cassette."""
    return cassette_of(program, release).with_suffix(".trace")


def recorded_on(cassette: Path) -> str:
    """The release of the driver that recorded a cassette."""
    header = document.header_of(cassette.read_bytes(), str(cassette))
    return str(header["session"]["drivers"]["pymongo"])


def events_of(cassette: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The signatures and arguments of a cassette's events."""
    for event in document.parse(cassette.read_bytes(), str(cassette)).events:
        text = event.arguments
        yield event.signature, loads(text) if text else {}


# ------------------------------------------------------------------------------- running


def environment(program: str, stage: str, uri: str, cassette: Path) -> dict[str, str | None]:
    """The variables that a program runs with.

    Args:
        program: its name.
        stage: "plain", "record" or "replay".
        uri: the server; in replay any will do.
        cassette: the cassette; not there when it runs plain.
    """
    return {
        "MONGODB_URI": uri,
        "TEST_DATABASE": database_of(program),
        "PROGRAM_STAGE": stage,
        "PYTHONHASHSEED": "random",
        "TIMETRACER_MODE": None if stage == "plain" else stage,
        "TIMETRACER_CASSETTE": None if stage == "plain" else str(cassette),
    }


def run_live(program: str, stage: str, server: Server, cassette: Path) -> str:
    """Run a program against a server, its database empty, and return its trace."""
    server.drop(database_of(program))
    variables = environment(program, stage, server.uri, cassette)
    result = run_program(file_of(program), env=variables)
    server.drop(database_of(program))
    assert "timetracer:" not in result.stderr, result.stderr
    return result.stdout


def run_replay(program: str, cassette: Path, uri: str = NOWHERE) -> str:
    """Run a program in a process where connections, DNS and threads are refused; return its
    trace."""
    return run_offline(
        file_of(program), env=environment(program, "replay", uri, cassette)
    ).stdout


# ------------------------------------------------------------------------------- the proofs


def prove_live(program: str, server: Server, directory: Path) -> None:
    """Prove that recording changes nothing that a program sees, and that replay gives it all.

    Raises:
        AssertionError: the traces differ; the lines that do are shown.
    """
    cassette = directory / f"{program}.json"
    plain = run_live(program, "plain", server, cassette)
    recorded = run_live(program, "record", server, cassette)
    assert_equal(blurred(plain), blurred(recorded), "plain", "recorded")
    assert_equal(recorded, run_replay(program, cassette, server.uri), "recorded", "replayed")


def prove_committed(program: str, release: str) -> None:
    """Prove that a committed cassette replays on this process's driver as it was recorded.

    Raises:
        AssertionError: the traces differ by more than `DRIVER_CHANGES` tells.
    """
    expected = trace_of(program, release).read_text(encoding="utf-8")
    replayed = run_replay(program, cassette_of(program, release))
    if recorded_on(cassette_of(program, release)) != pymongo.version:
        expected, replayed = (common(program, trace) for trace in (expected, replayed))
    assert_equal(expected, replayed, f"recorded, {release} driver", f"PyMongo {pymongo.version}")


def common(program: str, trace: str) -> str:
    """Return a trace without what the driver's releases do differently."""
    for change in DRIVER_CHANGES:
        if change.program == program:
            trace = re.sub(change.pattern, "", trace, flags=re.MULTILINE)
    return trace


def assert_equal(one: str, other: str, name: str, other_name: str) -> None:
    """Assert that two traces are equal, and show the lines that are not."""
    if one != other:
        lines: Sequence[str] = list(
            difflib.unified_diff(
                one.splitlines(), other.splitlines(), name, other_name, lineterm="", n=0
            )
        )
        raise AssertionError("\n".join(line[:2000] for line in lines[:60]))
