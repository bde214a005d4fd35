"""What the parts of the pytest plugin share: names of options, and the table of its fixtures.

pytest imports this module at every start, so it imports nothing of the core.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

UNUSED = "timetracer_unused"
PRUNE = "timetracer_prune"
EXPIRE = "timetracer_expire"
KEEPING = "timetracer-housekeeping"
SENT = "timetracer"
"""Under which name a worker of xdist sends what it knows."""

COLLECTED = pytest.StashKey["list[pytest.Item]"]()
"""All tests of a run, also those that are deselected."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A row of the table of fixtures.

    Attributes:
        mode: the mode of its blocks; None for the configured one, and "once" where none is.
        remedy: how a block's cassette comes to hold what is missing, with {name} and {test}.
    """

    mode: str | None
    remedy: str


_RECORD = "TIMETRACER_MODE=record pytest {test}"

KINDS = {
    "timetracer_record": Kind("record", "with MongoDB running: pytest {test}"),
    "timetracer_replay": Kind(
        "replay",
        "write timetracer_auto({name!r}) in place of timetracer_replay, and with MongoDB running: "
        + _RECORD,
    ),
    "timetracer_auto": Kind(None, f"with MongoDB running: {_RECORD}"),
}


def told_unused(where: str, unused: list[str], events: int) -> str:
    """Return what is told of a cassette with events that answered no call.

    Args:
        where: the cassette.
        unused: those events, as text.
        events: how many it holds.
    """
    head = f"{len(unused)} of {events} events of {where} answered no call:"
    return "\n  ".join([head, *unused])


def below(root: Path, directory: str, file: Path) -> str:
    """Return where the cassettes of a test file lie in the one directory of all cassettes."""
    inside = file.parent.relative_to(root) if file.is_relative_to(root) else Path()
    return os.path.join(directory, *inside.parts)
