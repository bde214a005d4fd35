"""Transactions and sessions: commits, aborts, retries, causal times."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import proof
from tests.support.server import Server

PROGRAMS = ("transactions",)


@pytest.mark.parametrize("program", PROGRAMS)
def test_transactions_are_recorded_unharmed_and_replayed_exactly(
    program: str, mongodb_server: Server, tmp_path: Path
) -> None:
    proof.prove_live(program, mongodb_server, tmp_path)


@pytest.mark.parametrize("release", proof.RECORDINGS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_transactions_are_replayed_from_a_committed_recording(program: str, release: str) -> None:
    proof.prove_committed(program, release)
