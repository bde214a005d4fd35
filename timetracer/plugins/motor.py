"""Motor: PyMongo's own rows, reached through classes that Motor froze when it was imported.

Motor runs PyMongo's methods in threads; its classes hold the functions that PyMongo had at import.
So whatever is wrapped in PyMongo afterwards has to be bound into Motor's classes anew. Futures and
latent cursors stay Motor's own work; a call is Motor's when its client was made by Motor.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

from timetracer.plugins import pymongo

LIB = "motor"
_METAPROGRAMMING = "motor.metaprogramming"

_originals: dict[type, dict[str, Any]] = {}


def enable_motor() -> None:
    """Record and replay the calls of every Motor client, on asyncio and on tornado.

    It may come before or after `import motor`. Once is enough; more than once does no harm.

    Raises:
        ConfigError: a setting in the environment or in pyproject.toml is unknown or bad.
    """
    pymongo.switch_on(LIB)
    _bind()


def disable_motor() -> None:
    """Undo `enable_motor`, leaving no trace in Motor or PyMongo."""
    pymongo.switch_off(LIB)
    _unbind()


def _classes() -> list[tuple[type, type]]:
    """Return Motor's classes: what each was made from, and the class itself."""
    module = sys.modules.get(_METAPROGRAMMING)
    cache = getattr(module, "_class_cache", {})
    return [(key[0], made) for key, made in cache.items()]


def _bind() -> None:
    for source, made in _classes():
        kept = _originals.setdefault(made, {})
        for name, attribute in _attributes(source):
            if name in vars(made):
                kept.setdefault(name, vars(made)[name])
            setattr(made, name, attribute.create_attribute(made, name))


def _unbind() -> None:
    for source, made in _classes():
        kept = _originals.pop(made, None)
        if kept is None:  # imported while the plugin was on: it froze our wrappers
            for name, attribute in _attributes(source):
                setattr(made, name, attribute.create_attribute(made, name))
            continue
        for name, value in kept.items():
            setattr(made, name, value)


def _attributes(source: type) -> list[tuple[str, Any]]:
    factory = sys.modules[_METAPROGRAMMING].MotorAttributeFactory
    return [
        (name, attribute)
        for base in reversed(inspect.getmro(source))
        for name, attribute in vars(base).items()
        if isinstance(attribute, factory)
    ]
