"""The errors that Timetracer raises; each carries its objects and says what to do next.

    TimetracerError
    ├── ConfigError              a setting is unknown or has a bad value (also a ValueError)
    ├── SessionError             a session cannot be opened here, such as one that overlaps another
    ├── LearnError               there are no two recordings to learn from
    ├── CassetteError            a cassette cannot be used; `.path` names it
    │   ├── CassetteNotFoundError    (also a FileNotFoundError)
    │   ├── CassetteFormatError      unreadable, truncated, damaged, foreign
    │   ├── CassetteVersionError     written by a newer Timetracer
    │   ├── CassettePathError        a name that leaves its directory, or is a directory
    │   └── CassetteWriteError       could not be written
    └── MissError                replay has no answer for a call
        ├── ReadPastRecordingError   a cursor is read further than it was when recorded
        ├── NotCapturedError         the event is there, its result is not (`captured: false`)
        └── UnreplayableError        the recorded answer cannot be given back in this process

None derives from `pymongo.errors.PyMongoError`: `except PyMongoError` in an application must not
swallow a miss.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from os import PathLike
from typing import Any

StrPath = str | PathLike[str]


class TimetracerError(Exception):
    """Base of every error that Timetracer raises on its own account."""


class ConfigError(TimetracerError, ValueError):
    """A setting is unknown, mistyped or has a value that it cannot have.

    Attributes:
        setting: the setting's name, such as "sample_rate", or the unknown name as given.
        source: where it came from: "argument", "environment", "pyproject.toml", ...
    """

    def __init__(self, message: str, *, setting: str, source: str) -> None:
        super().__init__(message)
        self.setting = setting
        self.source = source


class SessionError(TimetracerError):
    """A session cannot be opened, such as two process-wide cassettes that overlap."""


class LearnError(TimetracerError):
    """There are no two recordings of one program to learn from."""


class CassetteError(TimetracerError):
    """A cassette cannot be used.

    Attributes:
        path: the cassette's path or name, as text.
    """

    def __init__(self, message: str, *, path: StrPath) -> None:
        super().__init__(message)
        self.path = str(path)


class CassetteNotFoundError(CassetteError, FileNotFoundError):
    """There is no cassette at the path."""

    def __str__(self) -> str:
        # FileNotFoundError.__str__ would render errno fields that are not set.
        return str(self.args[0])


class CassetteFormatError(CassetteError):
    """The file is not a cassette, or is a damaged one; the message names the place."""


class CassetteVersionError(CassetteError):
    """The cassette was written by a newer Timetracer than this one reads."""


class CassettePathError(CassetteError):
    """The name leaves the cassette directory, or names something that is no file."""


class CassetteWriteError(CassetteError):
    """The cassette could not be written: full disk, read-only directory, ..."""


class Absent(Enum):
    """Stands where one side of a `Difference` has no value."""

    ABSENT = "(absent)"

    def __repr__(self) -> str:
        return str(self.value)


ABSENT = Absent.ABSENT


@dataclass(frozen=True, slots=True)
class Difference:
    """One place in which a call differs from a recorded event.

    Attributes:
        path: dotted path into the arguments, such as "filter.sku".
        recorded: the recorded value as JSON, or `ABSENT`.
        asked: the value of the call as JSON, or `ABSENT`.
        reordered: whether only the order differs: of a document's keys, which are given then, or
            of a list's items.
    """

    path: str
    recorded: Any
    asked: Any
    reordered: bool = False


@dataclass(frozen=True, slots=True)
class CallSite:
    """Where in the program a call was made.

    Attributes:
        file: path of the source file, as Python names it.
        line: line number, from 1.
        function: the function's name.
    """

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Remedy:
    """One thing that may be done about a miss.

    Attributes:
        name: which one: "record", "ignore", "seed", "hash_seed", "allow_repeats",
            "strict_order".
        text: one line that says it.
        settings: the settings that do it: pairs of name and value, such as
            ("ignore", ("documents.*.at",)).
    """

    name: str
    text: str
    settings: tuple[tuple[str, Any], ...] = ()


class MissError(TimetracerError):
    """Replay has no recorded answer for a call.

    Attributes:
        call: the call that was made (`timetracer.model.Call`), None outside driver calls.
        cassette: path of the cassette that was asked, None where no cassette was found.
        nearest: the recorded event nearest to the call, None if there is none.
        differences: all places in which call and nearest event differ.
        call_site: where the program made the call, None where that is not known.
        used_by: where the program made the call that the nearest event has answered already,
            None if it has answered none, or that is not known.
        remedies: what may be done, the likeliest first.
    """

    def __init__(
        self,
        message: str,
        *,
        call: Any = None,
        cassette: str | None = None,
        nearest: Any = None,
        differences: tuple[Difference, ...] = (),
        call_site: CallSite | None = None,
        used_by: CallSite | None = None,
        remedies: tuple[Remedy, ...] = (),
    ) -> None:
        super().__init__(message)
        self.call = call
        self.cassette = cassette
        self.nearest = nearest
        self.differences = differences
        self.call_site = call_site
        self.used_by = used_by
        self.remedies = remedies


class ReadPastRecordingError(MissError):
    """A cursor or change stream is read further than it was read when it was recorded."""


class NotCapturedError(MissError):
    """The event that answers the call was kept without its result (`captured: false`)."""


class UnreplayableError(MissError):
    """The recorded answer cannot be rebuilt here, such as an exception of an unknown class."""
