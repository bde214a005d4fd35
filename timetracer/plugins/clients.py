"""Whose calls they are: a library's, told by the client that it made.

Motor's clients hold a PyMongo client that carries Motor's name, so one set of wrappers in PyMongo
serves both, and each can be switched on, and passed through, by itself.
"""

from __future__ import annotations

from typing import Any

PYMONGO = "pymongo"
MOTOR = "motor"

enabled: set[str] = set()
"""The libraries whose calls are recorded and replayed."""

_MARK = "_timetracer_lib"


def lib_of(client: Any) -> str:
    """Return the library that made a client: "pymongo" or "motor"."""
    try:
        return vars(client)[_MARK]  # type: ignore[no-any-return]
    except KeyError:
        lib = driver_lib(client.options.pool_options)
        setattr(client, _MARK, lib)
        return lib


def driver_lib(pool_options: Any) -> str:
    """Return the library that a client's pool options name as the driver."""
    driver = getattr(pool_options, "driver", None)
    name = str(getattr(driver, "name", "") or "")
    return MOTOR if name.split("|")[0] == "Motor" else PYMONGO
