"""What of a call must be the same as recorded: the parts of it, and comparisons of the user's own.

    def same_tenant(recorded, live):
        return recorded.arguments["filter"]["tenant"] == live.arguments["filter"]["tenant"]

    timetracer.register_matcher("same_tenant", same_tenant)
    TraceConfig(match_on=("method", "url", "same_tenant"))

The setting `match_on` names them; all that it names must hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from timetracer.errors import ConfigError

PARTS = ("method", "url", "arguments", "lib")
"""The parts of a call that can be compared; the last is left out unless it is asked for."""

DEFAULT = PARTS[:3]


@dataclass(frozen=True, slots=True)
class ComparedCall:
    """One of the two calls that a matcher compares.

    Attributes:
        lib: "pymongo" or "motor".
        method: the operation, such as "FIND_ONE".
        url: the namespace.
        arguments: the arguments by name, as Python values; {} where none were recorded.
    """

    lib: str
    method: str
    url: str
    arguments: dict[str, Any]


Matcher = Callable[[ComparedCall, ComparedCall], bool]

_registered: dict[str, Matcher] = {}


def register_matcher(name: str, matcher: Matcher) -> None:
    """Give a comparison a name that the setting `match_on` may use.

    Args:
        name: the name; the same name again replaces the comparison.
        matcher: given the recorded call and the live one, returns whether the one answers the
            other. What it raises reaches the program.

    Raises:
        ConfigError: the name is that of a part of a call, or the matcher cannot be called.
    """
    if name in PARTS or not name.isidentifier() or not callable(matcher):
        raise ConfigError(
            f"{name!r} cannot be registered as a matcher: it takes a name of its own, such as "
            '"same_tenant", and a function of two calls.',
            setting="match_on",
            source="register_matcher",
        )
    _registered[name] = matcher


def registered(names: Iterable[str]) -> tuple[Matcher, ...]:
    """Return the user's comparisons among the names of `match_on`.

    Raises:
        ConfigError: a name is neither a part of a call nor registered.
    """
    own = [name for name in names if name not in PARTS]
    unknown = [name for name in own if name not in _registered]
    if unknown:
        known = ", ".join((*PARTS, *sorted(_registered)))
        raise ConfigError(
            f"match_on names {unknown[0]!r}, which is not known here. There are: {known}. "
            f"Register it first: timetracer.register_matcher({unknown[0]!r}, function)",
            setting="match_on",
            source="session",
        )
    return tuple(_registered[name] for name in own)
