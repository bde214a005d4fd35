"""GridFS and GridFSBucket: every method, with ids of the driver's and of the program's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import proof
from tests.support.server import Server

PROGRAMS = ("gridfs_files",)


@pytest.mark.parametrize("program", PROGRAMS)
def test_files_are_recorded_unharmed_and_replayed_exactly(
    program: str, mongodb_server: Server, tmp_path: Path
) -> None:
    proof.prove_live(program, mongodb_server, tmp_path)


@pytest.mark.parametrize("release", proof.RECORDINGS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_files_are_replayed_from_a_committed_recording(program: str, release: str) -> None:
    proof.prove_committed(program, release)
