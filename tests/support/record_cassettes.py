"""Records the committed cassettes anew: every program in tests/programs, against a real server.

    python dev.py record-cassettes [PROGRAM ...]

It is run on the newest and on the oldest driver, and each keeps its own; see
tests/support/proof.py.
"""

from __future__ import annotations

import sys

import pymongo

from tests.support import proof
from tests.support.server import Server, ServerMissing, running_server

RELEASE = "oldest" if pymongo.version_tuple[:2] == (4, 9) else "newest"


def record(program: str, server: Server) -> None:
    """Record one program, and see that its cassette replays to the same trace.

    Args:
        program: its name.
        server: the server to record against.

    Raises:
        AssertionError: it fails, replays otherwise, or tries to leave its process in replay.
    """
    cassette = proof.cassette_of(program, RELEASE)
    cassette.parent.mkdir(exist_ok=True)
    trace = proof.run_live(program, "record", server, cassette)
    proof.trace_of(program, RELEASE).write_text(trace, encoding="utf-8")
    proof.assert_equal(trace, proof.run_replay(program, cassette), "recorded", "replayed")


def main(names: list[str]) -> int:
    known = proof.programs()
    unknown = sorted(set(names) - set(known))
    if unknown:
        sys.exit(f"record-cassettes: no program {' '.join(unknown)} in {proof.PROGRAMS}")
    try:
        with running_server() as server:
            for program in names or known:
                if proof.runs_here(program):
                    sys.stdout.write(f"recording {program} on PyMongo {pymongo.version}\n")
                    record(program, server)
    except ServerMissing as missing:
        sys.exit(f"record-cassettes: {missing}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
