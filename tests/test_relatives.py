"""What one process makes, another knows, as far as the two share a file."""

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from bson import ObjectId

from tests.support.offline import run_program
from timetracer import evidence, relatives
from timetracer.evidence import Evidence, Process
from timetracer.volatile import tokens

OTHER = """
    import sys, uuid
    from bson import ObjectId
    from timetracer import evidence

    evidence.watch()
    evidence.join_relatives(sys.argv[1])
    print(ObjectId(), uuid.uuid4())
"""


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A file that this process shares."""
    file = tmp_path / "made"
    file.touch()
    evidence.join_relatives(str(file))
    yield file
    evidence.leave_relatives()


def made_by_another(file: Path) -> list[str]:
    return run_program(OTHER, str(file)).stdout.split()


def both_made(recorded: str, live: str, process: Process, made: tuple[str, ...] = ()) -> bool:
    (one,), (other,) = tokens(recorded), tokens(live)
    return Evidence(process, made, 0.0).both_made(one, other)


def test_what_another_process_made_is_known(shared: Path) -> None:
    process = Process("0123456789", 0.0, 0.0, 0.0)
    recorded = "00000000" + "0123456789" + "000001"
    object_id, token = made_by_another(shared)
    assert both_made(recorded, object_id, process)
    assert both_made(str(uuid.UUID(int=5)), token, process, (uuid.UUID(int=5).hex,))
    assert not both_made(recorded, "0" * 8 + "f" * 10 + "000001", process)
    assert not both_made(str(uuid.UUID(int=5)), str(uuid.UUID(int=6)), process, ("0" * 31 + "5",))


def test_a_cassette_tells_of_those_whose_ids_it_holds(shared: Path) -> None:
    object_id, _ = made_by_another(shared)
    assert "relatives" not in evidence.this_process()
    evidence.learn_of_relatives()
    evidence.made_values(tokens(f'{{"_id": "{object_id}"}}'))
    assert evidence.this_process()["relatives"] == [object_id[8:18]]
    process = Process.of(evidence.this_process())
    assert both_made(object_id, str(ObjectId()), process)


def test_nothing_is_known_that_is_not_shared(tmp_path: Path) -> None:
    file = tmp_path / "made"
    file.touch()
    object_id, _ = made_by_another(file)
    assert list(relatives.news()) == []
    assert not both_made(object_id, object_id, Process("0123456789", 0.0, 0.0, 0.0))


def test_own_lines_and_half_lines_are_no_news(shared: Path) -> None:
    relatives.tell(relatives.VALUE, secrets.token_hex(16))
    with shared.open("a") as file:
        file.write("1 value a b\n1 value c")
        file.flush()
        assert list(relatives.news()) == [("value", ["a", "b"])]
        file.write("\n")
    assert list(relatives.news()) == [("value", ["c"])]
    shared.unlink()
    assert list(relatives.news()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_forked_process_and_its_parent_know_each_other(shared: Path) -> None:
    parent = str(ObjectId())
    process = Process(parent[8:18], 0.0, 0.0, 0.0)
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            knows = both_made(parent, parent, process)
            os.write(writer, f"{ObjectId()} {knows}".encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    child, knows = os.read(reader, 100).decode().split()
    os.close(reader)
    os.close(writer)
    assert knows == "True" and child[8:18] != parent[8:18]
    assert both_made(parent, child, process)
