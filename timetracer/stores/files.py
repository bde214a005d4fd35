"""Cassettes as files of one directory: replaced at once, gzip by suffix, never outside of it."""

from __future__ import annotations

import bisect
import contextlib
import difflib
import errno
import functools
import gzip
import io
import itertools
import os
import re
import stat
import sys
import weakref
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from timetracer.errors import (
    CassetteFormatError,
    CassetteNotFoundError,
    CassettePathError,
    CassetteWriteError,
    StrPath,
)
from timetracer.frozen_time import now
from timetracer.stores import SUFFIXES, PartialFile, split_suffix

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be renamed instead
    fcntl = None  # type: ignore[assignment]

GZIP_MAGIC = b"\x1f\x8b"
GZIP_SUFFIX = SUFFIXES["gzip"]
GZIP_LEVEL = 6
RECORD_AGAIN = "Record it again, or restore it from version control."
STALE_SECONDS = 3600.0

REMEDIES = {
    errno.ENOSPC: "Free some space on the disk, or set cassette_dir to another one.",
    errno.EDQUOT: "The disk quota is used up: free some space, or set cassette_dir elsewhere.",
    errno.EFBIG: "The limit of a file's size is reached: raise it (ulimit -f), or record less.",
    errno.EROFS: "The file system is read-only: set cassette_dir to a directory you can write to.",
    errno.EACCES: "Make the directory writable, or set cassette_dir to one you can write to.",
    errno.EPERM: "Make the directory writable, or set cassette_dir to one you can write to.",
    errno.ENOTDIR: "A parent of it is a file: remove that file, or set cassette_dir elsewhere.",
    errno.EEXIST: "A parent of it is a file: remove that file, or set cassette_dir elsewhere.",
    errno.ENAMETOOLONG: "Choose a shorter name or directory.",
    errno.EMFILE: "The process has too many open files: raise the limit (ulimit -n).",
}
OTHER_REMEDY = "Set cassette_dir (TIMETRACER_CASSETTE_DIR) to a directory that can be written to."

_LAST_CHARACTER = chr(sys.maxunicode)
_SETTLED_SECONDS = 2.0  # the coarsest time of change that a file system keeps
_TEMPORARY = re.compile(r"\.timetracer-\d+-\d+\.tmp")
_numbers = itertools.count(1)
_swept: set[Path] = set()
_listings: dict[Path, tuple[tuple[int, int, int], list[tuple[str, bool]]]] = {}
_open_partials: weakref.WeakSet[AppendedFile] = weakref.WeakSet()


@dataclass(frozen=True, slots=True)
class FileStore:
    """A store whose names are files below `directory`.

    Args:
        directory: the directory; made, with its parents, by the first write.
        lasting: whether a file that is written is there even if the machine loses its power: to
            wait for the disk takes longer than many a test.
    """

    directory: Path
    lasting: bool = True

    @classmethod
    def for_path(cls, path: StrPath, *, lasting: bool = True) -> tuple[FileStore, str]:
        """The store and the name for a path that a developer gives, which may lie anywhere.

        A symbolic link is followed, so that a write replaces what it points to and not the link.

        Args:
            path: path of a cassette, absolute or from the working directory.
            lasting: as of the store.

        Returns:
            The store of the path's directory, and the file's name in it.

        Raises:
            CassettePathError: the path cannot name a file.
        """
        text = os.fspath(path)
        target = os.path.realpath(text) if _checked(text) and os.path.islink(text) else text
        head, name = os.path.split(os.path.abspath(target))
        if not name or text.endswith(("/", os.sep)) or os.path.isdir(target):
            raise _directory_error(text)
        return _store(head, lasting), name

    def locate(self, name: str) -> str:
        """The file's path: from the working directory where it lies below, else absolute."""
        path = os.path.abspath(self._path(name))
        with contextlib.suppress(OSError, ValueError):
            here = os.path.join(os.getcwd(), "")
            return path[len(here) :] if path.startswith(here) else path
        return path

    def read(self, name: str) -> bytes:
        """All bytes of `name`, uncompressed.

        Raises:
            CassetteNotFoundError: there is no such file.
            CassettePathError: the name leaves the directory, or names no regular file.
            CassetteFormatError: it may not be read, is empty, or is not what its suffix says.
        """
        path = self._path(name)
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise _directory_error(self.locate(name))
            data = path.read_bytes()
        except OSError as error:
            raise self._read_error(name, error) from error
        return _uncompressed(data, self.locate(name))

    def write(self, name: str, chunks: Iterable[bytes]) -> None:
        """Replace `name` by the joined chunks: wholly, or not at all.

        An error of `chunks` passes through, unless it is an OSError; the old file stays as it was.

        Raises:
            CassettePathError: the name leaves the directory, or is a directory.
            CassetteWriteError: the file cannot be written; the message says why and what to do.
        """
        path = self._path(name)
        try:
            if path.is_dir():
                raise _directory_error(self.locate(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            _sweep(path.parent)
            _replace(path, chunks, lasting=self.lasting)
        except OSError as error:
            raise _write_error(self.locate(name), error) from error

    def exists(self, name: str) -> bool:
        """Whether `name` is a file."""
        return os.path.isfile(self._path(name))

    def remove(self, name: str) -> None:
        """Remove `name`; one that is not there is no error.

        Raises:
            CassetteWriteError: the file cannot be removed.
        """
        try:
            self._path(name).unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except OSError as error:
            raise _write_error(self.locate(name), error, "removed") from error

    def names(self, prefix: str = "") -> list[str]:
        """The names of all files below the directory that begin with `prefix`, sorted.

        Symbolic links to directories are not followed; files being written are left out.
        """
        folder, _, start = prefix.rpartition("/")
        if folder:
            self._path(folder)
        return sorted(_files(self.directory, folder, start))

    def modified(self, name: str) -> float:
        """When `name` was last written, in seconds since the epoch.

        Raises:
            CassetteNotFoundError: there is no such file.
        """
        try:
            return self._path(name).stat().st_mtime
        except OSError as error:
            raise self._read_error(name, error) from error

    def open_partial(self, name: str) -> PartialFile:
        """Open `name` for appending, made where it is not there.

        Raises:
            CassettePathError: the name leaves the directory.
            CassetteWriteError: the file cannot be opened.
        """
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return AppendedFile(self.locate(name), open(path, "ab", buffering=0))
        except OSError as error:
            raise _write_error(self.locate(name), error) from error

    def adopt_partial(self, name: str) -> PartialFile | None:
        """Open a partial file that a process left which has ended.

        The lock that its writer holds ends with the writer, however that ends.

        Returns:
            The file; None while a process has it open, or where there is none.

        Raises:
            CassettePathError: the name leaves the directory.
            CassetteWriteError: the file cannot be opened.
        """
        path = self._path(name)
        try:
            if fcntl is None:
                os.rename(path, path)
            file = open(path, "r+b", buffering=0)  # noqa: SIM115
        except FileNotFoundError:
            return None
        except OSError as error:
            if fcntl is None:
                return None
            raise _write_error(self.locate(name), error, "recovered") from error
        if not _lock(file) or not _is_same(file, path):
            file.close()
            return None
        file.seek(0, os.SEEK_END)
        return AppendedFile(self.locate(name), file)

    def _path(self, name: str) -> Path:
        path = _joined(self.directory, name)
        if path is None or ("/" in name and not _is_below(path.parent, self.directory)):
            raise CassettePathError(
                f"The cassette name {name!r} leads out of {self.directory}.\n"
                "Use a name below that directory, without '..', a drive letter or a backslash.",
                path=name,
            )
        return path

    def _read_error(self, name: str, error: OSError) -> Exception:
        where = self.locate(name)
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            return CassetteNotFoundError(_missing(where, self._nearest(name)), path=where)
        if isinstance(error, PermissionError):
            return CassetteFormatError(
                f"{where} may not be read ({error.strerror}).\n"
                "Give this user the right to read it, and its directories the right to enter.",
                path=where,
            )
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL):
            return CassettePathError(
                f"{where} cannot be a cassette's path ({error.strerror}).\n"
                "Choose a shorter name, and no symbolic links that lead to themselves.",
                path=where,
            )
        return CassetteFormatError(f"{where} cannot be read ({error}).\n{RECORD_AGAIN}", path=where)

    def _nearest(self, name: str) -> str | None:
        stem, _ = split_suffix(name)
        twins = [stem + suffix for suffix in SUFFIXES.values() if self.exists(stem + suffix)]
        folder = name.rpartition("/")[0]
        beside = itertools.islice(_entries(self.directory / folder), 500)
        found = [f"{folder}/{item.name}" if folder else item.name for item in beside]
        close = difflib.get_close_matches(name, [one for one in found if split_suffix(one)[1]], 1)
        return next(iter(twins + close), None)


class AppendedFile:
    """The partial file of a FileStore: unbuffered, so that what was written survives SIGKILL."""

    def __init__(self, path: str, file: io.FileIO) -> None:
        self._path = path
        self._full_path = os.path.abspath(path)
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        _lock(file)
        _open_partials.add(self)

    @property
    def path(self) -> str:
        """Where it lies, for messages."""
        return self._path

    @property
    def size(self) -> int:
        """How many bytes it holds."""
        return self._size

    def write(self, data: bytes) -> None:
        """Append `data` whole, or nothing of it.

        Raises:
            CassetteWriteError: the disk is full, ...
        """
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
            raise _write_error(self._path, error) from error
        self._size += len(data)

    def lines(self, offset: int = 0) -> Iterator[bytes]:
        """Yield the whole lines from `offset` on, without their ends.

        Raises:
            CassetteWriteError: the file cannot be read.
        """
        left = self._size - offset
        try:
            with open(self._full_path, "rb") as file:
                file.seek(offset)
                for line in file:
                    left -= len(line)
                    if left < 0 or not line.endswith(b"\n"):
                        return
                    yield line[:-1]
        except OSError as error:
            raise _write_error(self._path, error, "read") from error

    def close(self) -> None:
        """Close the file and leave it where it is."""
        self._file.close()

    def discard(self) -> None:
        """Close the file and remove it."""
        # Removed before the lock on it ends, so that nobody takes it for an abandoned one.
        if fcntl is None:
            self.close()
        try:
            Path(self._full_path).unlink(missing_ok=True)
        except OSError as error:
            raise _write_error(self._path, error, "removed") from error
        finally:
            self.close()


def _lock(file: io.FileIO) -> bool:
    """Take the lock that tells that a process has the file open; False where another has it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_same(file: io.FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


def _close_partials() -> None:
    """In a forked child: let go of the parent's files, so that their locks end with the parent."""
    for partial in list(_open_partials):
        partial.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_partials)


def _checked(text: str) -> str:
    try:
        usable = bool(text) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        usable = False
    if usable:
        return text
    raise CassettePathError(
        f"{text!r} cannot name a cassette: it is empty, or holds characters that no file name has.",
        path=text,
    )


@functools.lru_cache(64)  # a suite has many cassettes in each of its directories
def _store(directory: str, lasting: bool) -> FileStore:
    return FileStore(Path(directory), lasting)


@functools.lru_cache(64)
def _joined(directory: Path, name: str) -> Path | None:
    """The path of a name, None for a name that is written so as to lead elsewhere."""
    parts = _checked(name).split("/")
    hostile = "\\" in name or re.match(r"[A-Za-z]:", name) or {"", ".", ".."} & set(parts)
    return None if hostile else directory.joinpath(*parts)


def _is_below(path: Path, directory: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory))


def _replace(path: Path, chunks: Iterable[bytes], *, lasting: bool) -> None:
    """Write a file beside `path`, safely on the disk where it is to last, and move it there."""
    file, temporary = _temporary_beside(path)
    try:
        with file:
            _fill(file, chunks, compressed=path.name.endswith(GZIP_SUFFIX))
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if lasting:
        _sync_directory(path.parent)


def _temporary_beside(path: Path) -> tuple[BinaryIO, Path]:
    # Numbered, not random: a program may have seeded the random numbers of two processes alike.
    while True:
        temporary = path.parent / f".timetracer-{os.getpid()}-{next(_numbers)}.tmp"
        with contextlib.suppress(FileExistsError):
            return open(temporary, "xb"), temporary


def _fill(file: BinaryIO, chunks: Iterable[bytes], *, compressed: bool) -> None:
    if not compressed:
        file.writelines(chunks)
        return
    # No name and no time in the header: the same cassette has the same bytes.
    with gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as packed:
        packed.writelines(chunks)


def _sync_directory(directory: Path) -> None:
    with contextlib.suppress(OSError):
        number = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _sweep(directory: Path) -> None:
    """Once per process and directory: remove what killed processes left half written."""
    if directory in _swept:
        return
    _swept.add(directory)
    for entry in _entries(directory):
        if _TEMPORARY.fullmatch(entry.name):
            with contextlib.suppress(OSError):
                if now() - entry.stat().st_mtime > STALE_SECONDS:
                    os.unlink(entry)


def _entries(directory: Path) -> Iterator[os.DirEntry[str]]:
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        yield from entries


def _files(directory: Path, folder: str, start: str = "") -> Iterator[str]:
    for entry, is_folder in _listed(directory / folder, start):
        name = f"{folder}/{entry}" if folder else entry
        if is_folder:
            yield from _files(directory, name)
        else:
            yield name


def _listed(directory: Path, start: str) -> Iterable[tuple[str, bool]]:
    """The entries of a directory that begin with `start`, and whether they are folders.

    Every replayed request asks for them, so they are kept as long as the directory's times of
    change stay the same; not where it changed just now, since the next change may have that time.
    """
    try:
        status = os.stat(directory)
    except OSError:
        return ()
    changed = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
    known = _listings.get(directory)
    if known is None or known[0] != changed:
        if now() - max(status.st_mtime, status.st_ctime) < _SETTLED_SECONDS:
            return _kinds(entry for entry in _entries(directory) if entry.name.startswith(start))
        known = _listings[directory] = (changed, sorted(_kinds(_entries(directory))))
    ends = (start,), (start + _LAST_CHARACTER,)
    return known[1][slice(*(bisect.bisect_left(known[1], end) for end in ends))]


def _kinds(entries: Iterable[os.DirEntry[str]]) -> Iterator[tuple[str, bool]]:
    for entry in entries:
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder or (entry.is_file() and not _TEMPORARY.fullmatch(entry.name)):
            yield entry.name, is_folder


def _uncompressed(data: bytes, where: str) -> bytes:
    if not data:
        raise CassetteFormatError(f"{where} is empty.\n{RECORD_AGAIN}", path=where)
    named, packed = where.endswith(GZIP_SUFFIX), data.startswith(GZIP_MAGIC)
    if named and not packed:
        right = where.removesuffix(GZIP_SUFFIX) + SUFFIXES["none"]
        raise _suffix_error(where, "is not compressed, though its name ends in .gz", right)
    if packed and not named:
        right = split_suffix(where)[0] + GZIP_SUFFIX
        raise _suffix_error(where, "is gzip, though its name does not say so", right)
    return _unzipped(data, where) if packed else data


def _unzipped(data: bytes, where: str) -> bytes:
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        raise CassetteFormatError(
            f"{where} is cut short or damaged: {error}.\n{RECORD_AGAIN}", path=where
        ) from error


def _suffix_error(where: str, what: str, right: str) -> CassetteFormatError:
    return CassetteFormatError(
        f"{where} {what}.\nIf it is a cassette: rename it to {right}", path=where
    )


def _directory_error(where: str) -> CassettePathError:
    return CassettePathError(
        f"{where} is a directory or a special file, not a cassette.\n"
        f"Give the path of a file, such as {os.path.join(where, 'cassette.json')}",
        path=where,
    )


def _missing(where: str, nearest: str | None) -> str:
    hint = f"Nearest: {nearest}\n" if nearest else ""
    return f"There is no cassette {where}.\n{hint}To record it, run with TIMETRACER_MODE=record"


def _write_error(where: str, error: OSError, deed: str = "written") -> CassetteWriteError:
    remedy = REMEDIES.get(error.errno or 0, OTHER_REMEDY)
    return CassetteWriteError(
        f"{where} cannot be {deed}: {error.strerror or error}.\n{remedy}", path=where
    )
