"""A store maps a name to bytes; what the bytes mean is no concern of it.

A name is relative text with "/" between its parts, such as "GET__users.json" or "sub/x.json.gz".
Its suffix says whether the bytes lie compressed; callers always see them uncompressed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

SUFFIXES = {"none": ".json", "gzip": ".json.gz"}
"""The suffix of a cassette, by the setting `compression`."""


class PartialFile(Protocol):
    """An append-only file that grows while a recording lasts; each write survives SIGKILL."""

    @property
    def path(self) -> str:
        """Where it lies, for messages."""

    @property
    def size(self) -> int:
        """How many bytes it holds: the offset of what is written next."""

    def write(self, data: bytes) -> None:
        """Append `data` whole; raises CassetteWriteError."""

    def lines(self, offset: int = 0) -> Iterator[bytes]:
        """Its whole lines from `offset` on, without their ends."""

    def close(self) -> None:
        """Close it and leave it where it is; more than once does no harm."""

    def discard(self) -> None:
        """Close it and remove it."""


class Store(Protocol):
    """Where cassettes lie. Any method may raise a CassetteError, and no other error."""

    def locate(self, name: str) -> str:
        """Where `name` lies, as text for messages; it need not exist."""

    def read(self, name: str) -> bytes:
        """All bytes of `name`, uncompressed."""

    def write(self, name: str, chunks: Iterable[bytes]) -> None:
        """Replace `name` by the joined chunks at once: wholly, or not at all."""

    def exists(self, name: str) -> bool:
        """Whether `name` can be asked for."""

    def remove(self, name: str) -> None:
        """Remove `name`; one that is not there is no error."""

    def names(self, prefix: str = "") -> list[str]:
        """The names that begin with `prefix`, sorted."""

    def modified(self, name: str) -> float:
        """When `name` was last written, in seconds since the epoch."""

    def open_partial(self, name: str) -> PartialFile:
        """Open `name` for appending; its bytes are kept as they come, never compressed."""

    def adopt_partial(self, name: str) -> PartialFile | None:
        """Open a partial file that a process left which has ended; None while one has it open."""


def split_suffix(name: str) -> tuple[str, str]:
    """The stem and the cassette suffix of `name`; "" for a suffix that is not a cassette's."""
    for suffix in sorted(SUFFIXES.values(), key=len, reverse=True):
        if name.endswith(suffix):
            return name[: -len(suffix)], suffix
    return name, ""


def find_latest(store: Store, stem: str) -> str | None:
    """The newest of the names that `stem` has with any suffix, or None where there is none."""
    present = [stem + suffix for suffix in SUFFIXES.values() if store.exists(stem + suffix)]
    return max(present, key=store.modified, default=None)


def write_alone(store: Store, name: str, chunks: Iterable[bytes]) -> None:
    """Write `name`; once it is there, remove its twins with another suffix (x.json, x.json.gz)."""
    store.write(name, chunks)
    stem, suffix = split_suffix(name)
    for twin in SUFFIXES.values() if suffix else ():
        if twin != suffix:
            store.remove(stem + twin)
