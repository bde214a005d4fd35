"""What programs are recorded and replayed under: settings, cassettes, and values that go with them.

A row of `WORLDS` is one world. A program has its name, its own settings (for `TraceConfig`) and the
keys that its trace leaves out, since the user has said that they do not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NOISE = "noise"
"""The key of what is ignored, or left out by the matcher."""

IGNORED = tuple(
    f"{place}.{NOISE}"
    for place in ("filter", "document", "documents.*", "replacement", "update.$set",
                  "pipeline.*.$match")
)  # fmt: skip

MATCHER = "same_but_noise"

MOVED = 3 * 24 * 3600 + 4322
"""Seconds between the day of the recording and that of the replay."""


@dataclass(frozen=True, slots=True)
class World:
    """What programs are recorded and replayed under.

    Attributes:
        share: how many of them, against those of the other worlds.
        settings: for TraceConfig.
        literal: whether a program makes no value anew, since nothing would recognize it.
        noisy: whether calls hold `NOISE`, which is another in each run.
        fields: what documents may have more.
        cassettes: how many a recording has; the program goes from one to the next.
        alone: whether a replay has the last of them only, and finds the others beside it.
        twice: whether it is recorded twice, for `timetracer learn`.
    """

    share: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    literal: bool = False
    noisy: bool = False
    fields: tuple[str, ...] = ()
    cassettes: int = 1
    alone: bool = False
    twice: bool = False


WORLDS: dict[str, World] = {
    "plain": World(10),
    "takes": World(4, cassettes=2),
    "ignored": World(2, {"ignore": IGNORED}, noisy=True),
    "learned": World(2, fields=("key",), twice=True),
    "ambient": World(2, cassettes=2, alone=True),
    "matcher": World(
        1,
        {"match_on": ("method", "url", MATCHER), "redact": False},  # it sees what is recorded
        literal=True,
        noisy=True,
    ),
    "seeded": World(1, {"entropy": "random"}, fields=("code", "number")),
    "all seeded": World(1, {"entropy": "all"}, fields=("code", "number")),
}


def register() -> None:
    """Register the matcher that the world of that name uses."""
    from timetracer import register_matcher

    register_matcher(MATCHER, lambda recorded, live: _left(recorded) == _left(live))


def _left(call: Any) -> str:
    return repr(_without_noise(call.arguments))


def _without_noise(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_noise(item) for key, item in value.items() if key != NOISE}
    return [_without_noise(item) for item in value] if isinstance(value, list) else value


def block(stage: str, world: str, cassette: str) -> Any:
    """The block in which a program of a world makes its calls."""
    from timetracer import TraceConfig, use_cassette

    return use_cassette(cassette, mode=stage, config=TraceConfig(**WORLDS[world].settings))
