"""Records the committed cassettes anew: every program in tests/programs, against a real server.

    python dev.py record-cassettes [PROGRAM ...]

A program finds its server in MONGODB_URI and its database, which is empty, in TEST_DATABASE; the
name is the same in every recording. Its cassette is cassettes/{program}.json.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.offline import ROOT, run_offline, run_program
from tests.support.server import Server, ServerMissing, running_server

PROGRAMS = ROOT / "tests" / "programs"
CASSETTES = ROOT / "cassettes"


def database_of(program: Path) -> str:
    """The name of a program's database."""
    return f"timetracer_{program.stem}"


def settings(program: Path, mode: str, uri: str) -> dict[str, str | None]:
    """The environment that a program is recorded or replayed in.

    Args:
        program: its file.
        mode: "record" or "replay".
        uri: the server; in replay any URI will do.

    Returns:
        The variables to set.
    """
    return {
        "MONGODB_URI": uri,
        "TEST_DATABASE": database_of(program),
        "TIMETRACER_MODE": mode,
        "TIMETRACER_CASSETTE": str(CASSETTES / f"{program.stem}.json"),
    }


def record(program: Path, server: Server) -> None:
    """Record one program, and see that its cassette replays to the same output.

    Args:
        program: its file.
        server: the server to record against.

    Raises:
        AssertionError: it fails, replays otherwise, or tries to leave its process in replay.
    """
    server.drop(database_of(program))
    live = run_program(program, env=settings(program, "record", server.uri))
    server.drop(database_of(program))
    replayed = run_offline(program, env=settings(program, "replay", "mongodb://fake:27017"))
    assert replayed.stdout == live.stdout, f"{live.stdout}\n--- replayed\n{replayed.stdout}"


def main(names: list[str]) -> int:
    programs = sorted(PROGRAMS.glob("*.py"))
    wanted = [program for program in programs if not names or program.stem in names]
    if not wanted:
        sys.exit(f"record-cassettes: no program {' '.join(names)} in {PROGRAMS}")
    try:
        with running_server() as server:
            for program in wanted:
                sys.stdout.write(f"recording {program.stem}\n")
                record(program, server)
    except ServerMissing as missing:
        sys.exit(f"record-cassettes: {missing}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
