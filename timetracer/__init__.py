"""Timetracer: record a program on MongoDB once, run it without from then on."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timetracer.blocks import use_cassette
    from timetracer.config import TraceConfig
    from timetracer.errors import (
        CassetteError,
        ConfigError,
        MissError,
        SessionError,
        TimetracerError,
    )
    from timetracer.ledger import clear_misses, misses, orphans, report
    from timetracer.matchers import register_matcher

__all__ = [
    "CassetteError",
    "ConfigError",
    "MissError",
    "SessionError",
    "TimetracerError",
    "TraceConfig",
    "clear_misses",
    "misses",
    "orphans",
    "register_matcher",
    "report",
    "use_cassette",
]

_HOMES = {
    "TraceConfig": "config",
    "clear_misses": "ledger",
    "misses": "ledger",
    "orphans": "ledger",
    "register_matcher": "matchers",
    "report": "ledger",
    "use_cassette": "blocks",
}
"""Where a public name is defined; any other is in errors."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: every start of pytest imports this package."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f"{__name__}.{_HOMES.get(name, 'errors')}")
    return globals().setdefault(name, getattr(home, name))
