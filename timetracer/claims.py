"""Names that processes claim from each other: whoever is first has a name.

Claims are lines of one log, to which all processes append. A file for each would be simpler; but a
suite has thousands, and to make one takes ten times as long as a line, at times a hundred times.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from threading import RLock

try:
    import msvcrt
except ImportError:
    msvcrt = None  # type: ignore[assignment]

_LOG = "claims"
_END = "."
_GIVEN_BACK = f"nobody{_END}"
_MOST_TRIES = 3
_FLAGS = os.O_RDWR | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_LOCKED_AT = 1 << 30  # behind all that is read, since Windows lets nobody else read what is locked
_maker = secrets.token_hex(8)
_numbers = itertools.count(1)
_lock = RLock()  # reentrant: a finalizer may claim a name while another one is claimed

if hasattr(os, "register_at_fork"):  # a child must find what its parent knows whole
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )


class Claims:
    """What the processes of one run have claimed.

    Args:
        directory: where their log lies, of this user alone; made by the first claim.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._is_private = False
        self._holders: dict[str, str] = {}
        self._file = 0
        self._read_up_to = 0

    def claim(self, name: str) -> bool:
        """Claim a name.

        Args:
            name: the name, without blanks.

        Returns:
            True for the one caller that has it now, False where it was claimed before.

        Raises:
            OSError: the directory cannot be used.
        """
        with _lock, self._log() as log:
            self._read(log)
            for _ in range(_MOST_TRIES):
                if name in self._holders:
                    return False
                holder = f"{_maker}-{os.getpid()}-{next(_numbers)}{_END}"
                _append(log, f"{name} {holder}")
                self._read(log)
                if self._holders.get(name) == holder:
                    return True
        raise OSError("what is written to it is not there")

    def is_claimed(self, name: str) -> bool:
        """Tell whether a name was claimed and not given back."""
        with _lock:
            with contextlib.suppress(OSError), self._log(makes=False) as log:
                self._read(log)
            return name in self._holders

    def release(self, name: str) -> None:
        """Give a claimed name back; an unclaimed one is no error."""
        with _lock, self._log() as log:
            _append(log, f"{name} {_GIVEN_BACK}")
            self._read(log)

    @contextlib.contextmanager
    def _log(self, *, makes: bool = True) -> Iterator[int]:
        for _ in range(_MOST_TRIES):
            with contextlib.suppress(FileNotFoundError):
                if makes and not self._is_private:
                    _make_private(self.directory)
                    self._is_private = True
                flags = _FLAGS | os.O_CREAT if makes else _FLAGS
                log = os.open(self.directory / _LOG, flags, 0o600)
                break
            self._is_private = False  # something cleaned the temporary directory
        else:
            raise FileNotFoundError("it vanishes while it is used")
        try:
            yield log
        finally:
            os.close(log)

    def _read(self, log: int) -> None:
        """Learn what stands in the log behind that which was read before."""
        status = os.fstat(log)
        if status.st_ino != self._file or status.st_size < self._read_up_to:
            self._file, self._read_up_to = status.st_ino, 0
        os.lseek(log, self._read_up_to, os.SEEK_SET)
        while data := os.read(log, 1 << 16):
            whole = data[: data.rfind(b"\n") + 1]
            for line in whole.decode("ascii", "replace").splitlines():
                name, _, told = line.partition(" ")
                if told == _GIVEN_BACK:
                    self._holders.pop(name, None)
                elif told.endswith(_END):  # else a full disk left no more of it
                    self._holders.setdefault(name, told)
            self._read_up_to += len(whole)
            if not whole:
                return  # a line that is not written to its end
            os.lseek(log, self._read_up_to, os.SEEK_SET)


def _append(log: int, line: str) -> None:
    data = f"\n{line}\n".encode("ascii")  # begun anew, whatever a full disk left of another one
    with _alone(log):
        if os.write(log, data) < len(data):
            raise OSError("the disk is full")


@contextlib.contextmanager
def _alone(log: int) -> Iterator[None]:
    """Let no other process append meanwhile, where the system does not see to that itself."""
    if msvcrt is None:
        yield
        return
    os.lseek(log, _LOCKED_AT, os.SEEK_SET)
    msvcrt.locking(log, msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        os.lseek(log, _LOCKED_AT, os.SEEK_SET)
        msvcrt.locking(log, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined]


def _make_private(directory: Path) -> None:
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    status = directory.lstat()
    is_mine = stat.S_ISDIR(status.st_mode)
    if os.name != "nt":  # no owner or mode to look at; the directory is the user's own there
        is_mine = is_mine and status.st_uid == os.geteuid() and not status.st_mode & 0o077
    if not is_mine:
        raise OSError("it is not a directory of this user alone")
