"""Gives a program the same ObjectIds and UUIDs in every run, until matching can tell them apart.

A client that makes ids itself (LightODM's str(ObjectId()), Beanie's uuid4 revision ids, ODMantic's
and MongoEngine's ObjectIds) asks with new ones in each run, and a replay with exact matching then
misses. `fix` counts them instead. Only the drivers' own ids stay as they are: the recorder already
gives those back as recorded, so they must not move the clients' count.

To remove it: delete this file, its one use in run.py, and see the programs replay all the same.
Times need no such thing: the programs use literal ones.
"""

from __future__ import annotations

import itertools
import sys
import uuid

from bson import ObjectId

_DRIVERS = ("bson", "pymongo", "gridfs", "motor", "timetracer")
_EPOCH = 0x65000000


def fix() -> None:
    """Count ObjectIds and version 4 UUIDs from now on; to be called before a client is imported."""
    _fix_object_ids()
    _fix_uuids()


def _fix_object_ids() -> None:
    numbers = itertools.count(1)
    make = ObjectId.__init__

    def counted(self: ObjectId, oid: str | ObjectId | bytes | None = None) -> None:
        if oid is None and not _asked_by_driver():
            oid = bytes.fromhex(f"{_EPOCH:08x}{next(numbers):016x}")
        make(self, oid)

    ObjectId.__init__ = counted


def _fix_uuids() -> None:
    numbers = itertools.count(1)
    generate = uuid.uuid4

    def uuid4() -> uuid.UUID:
        if _asked_by_driver():
            return generate()
        return uuid.UUID(int=next(numbers), version=4)

    uuid.uuid4 = uuid4


def _asked_by_driver() -> bool:
    return sys._getframe(2).f_globals.get("__name__", "").split(".")[0] in _DRIVERS
