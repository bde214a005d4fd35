"""Exceptions of every family: class, args, code, details, labels, message, type for type."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import proof
from tests.support.server import Server

PROGRAMS = ("server_errors", "driver_errors")


@pytest.mark.parametrize("program", PROGRAMS)
def test_errors_are_recorded_unharmed_and_replayed_exactly(
    program: str, mongodb_server: Server, tmp_path: Path
) -> None:
    proof.prove_live(program, mongodb_server, tmp_path)


@pytest.mark.parametrize("release", proof.RECORDINGS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_errors_are_replayed_from_a_committed_recording(program: str, release: str) -> None:
    proof.prove_committed(program, release)
