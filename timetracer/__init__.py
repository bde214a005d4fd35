"""Timetracer: record a program on MongoDB once, run it without from then on."""

from __future__ import annotations

from timetracer.config import TraceConfig
from timetracer.errors import (
    CassetteError,
    ConfigError,
    MissError,
    SessionError,
    TimetracerError,
)
from timetracer.session import use_cassette

__all__ = [
    "CassetteError",
    "ConfigError",
    "MissError",
    "SessionError",
    "TimetracerError",
    "TraceConfig",
    "use_cassette",
]
