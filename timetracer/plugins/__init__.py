"""The drivers that can be recorded: one module each, switched on and off here."""

from __future__ import annotations

from timetracer.plugins.motor import disable_motor, enable_motor
from timetracer.plugins.pymongo import disable_pymongo, enable_pymongo

__all__ = ["disable_motor", "disable_pymongo", "enable_motor", "enable_pymongo"]
