"""Every row of the method table: live, recorded, and replayed in another process without a server.

The programs are in tests/programs, what is proved with them in tests/support/proof.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import proof
from tests.support.server import Server
from timetracer.intercept import parameters_of, resolve
from timetracer.plugins.pymongo import FLAVOURS, method_rows

PROGRAMS = ("writes", "reads", "arguments", "databases", "bson_types", "objects", "newer")
NOT_COMPARED = {"session", "codec_options"}
"""What changes how a call is made, or how its answer is decoded, and not what it asks for."""


def rows(flavour: str):
    return [row for row in method_rows() if f".{flavour}." in row.owner]


def recorded_arguments() -> dict[tuple[str, str], set[str]]:
    """The arguments that the committed cassettes hold, by method and scope."""
    found: dict[tuple[str, str], set[str]] = {}
    for program in proof.programs():
        for signature, arguments in proof.events_of(proof.cassette_of(program, "newest")):
            scope = "collection" if "." in signature.url else "database"
            scope = "client" if signature.url == "*" else scope
            found.setdefault((signature.method, scope), set()).update(arguments)
    return found


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_is_recorded_unharmed_and_replayed_exactly(
    program: str, mongodb_server: Server, tmp_path: Path
) -> None:
    if not proof.runs_here(program):
        pytest.skip(f"{program} needs PyMongo {proof.since(program)}")
    proof.prove_live(program, mongodb_server, tmp_path)


@pytest.mark.parametrize("release", proof.RECORDINGS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_committed_recording_replays_on_this_driver(program: str, release: str) -> None:
    if not proof.runs_here(program) or not proof.cassette_of(program, release).exists():
        pytest.skip(f"{program} needs PyMongo {proof.since(program)}")
    proof.prove_committed(program, release)


def test_every_row_has_a_step_in_some_program() -> None:
    stream_scopes = ("collection", "database", "client")
    wanted = {
        "session": lambda row: [("COMMIT", "client"), ("ABORT", "client")],
        "stream": lambda row: [("WATCH", scope) for scope in stream_scopes],
    }
    found = recorded_arguments()
    missing = [
        f"{row.owner}.{row.name} as {asked}"
        for row in rows("synchronous")
        for asked in wanted.get(row.scope, lambda row: [(row.method, row.scope)])(row)
        if asked not in found
    ]
    assert missing == []


def test_every_argument_of_every_row_is_given_in_some_program() -> None:
    found = recorded_arguments()
    missing = []
    for row in rows("synchronous"):
        if row.scope in ("session", "stream"):
            continue
        parameters = parameters_of(getattr(resolve(row.owner), row.name), row.rest)
        names = {*parameters.names, *(parameters.known or ())}
        left = names - found[row.method, row.scope] - NOT_COMPARED
        missing += [f"{row.owner}.{row.name}({name})" for name in sorted(left)]
    assert missing == []


def test_the_async_rows_are_the_same_rows() -> None:
    def facts(flavour: str) -> list[tuple[object, ...]]:
        return [(row.name, row.method, row.scope, row.reads) for row in rows(flavour)]

    assert [flavour.name for flavour in FLAVOURS] == ["synchronous", "asynchronous"]
    assert facts("asynchronous") == facts("synchronous")


def test_every_program_is_proved_by_some_test() -> None:
    here = Path(__file__).parent
    text = "".join(path.read_text(encoding="utf-8") for path in here.glob("test_*.py"))
    assert [name for name in proof.programs() if f'"{name}"' not in text] == []


def test_every_driver_change_is_still_seen() -> None:
    for change in proof.DRIVER_CHANGES:
        traces = [
            path.read_text(encoding="utf-8")
            for release in proof.RECORDINGS
            if (path := proof.trace_of(change.program, release)).exists()
        ]
        whole = [proof.common(change.program, trace) for trace in traces]
        assert len(traces) == 2 and traces[0] != traces[1], change
        assert any(one != other for one, other in zip(traces, whole, strict=True)), change
