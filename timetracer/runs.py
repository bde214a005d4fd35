"""One run of a program is all its processes; they share an id and claim names from each other.

The id goes from a process to its children through the environment. Processes that are forked
before anyone asked for it share it too, since it is made when this module is imported. It is a
secret: cassettes hold only `run_label()`, and redaction derives its key from `run_secret()`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from timetracer.claims import Claims
from timetracer.errors import SessionError

RUN_ID_VARIABLE = "TIMETRACER_RUN_ID"

_new_id = secrets.token_hex(16)
_maker = os.getpid()
_publishers: set[int] = set()
_inherited = RUN_ID_VARIABLE in os.environ


def run_id() -> str:
    """The id that all processes of this run share; never to be written to a file."""
    return os.environ.get(RUN_ID_VARIABLE) or _publish()


def run_label() -> str:
    """The run's public name: 16 hex digits from which the id cannot be told."""
    return _label(run_id())


def run_secret() -> bytes:
    """A key of 32 bytes for the labels of redacted values, the same in the whole run."""
    return hashlib.blake2b(os.fsencode(run_id()), digest_size=32, person=b"redaction").digest()


def is_child() -> bool:
    """Whether a process of this run started the program."""
    return _inherited


def claim(kind: str, name: str) -> bool:
    """Claim a file for the caller, among all threads and processes of this run.

    Args:
        kind: what the name is of, such as "take"; names of two kinds do not meet.
        name: its path; a relative one counts from the working directory, which the processes of a
            run need not share.

    Returns:
        True for the one caller that has it now, False where it was claimed before.

    Raises:
        SessionError: the directory for claims cannot be used.
    """
    with _claims_to_change() as claims:
        return claims.claim(_claim_name(kind, name))


def is_claimed(kind: str, name: str) -> bool:
    """Tell whether some thread or process of this run has claimed a name and not given it back."""
    return _claims(run_label(), tempfile.gettempdir()).is_claimed(_claim_name(kind, name))


def release(kind: str, name: str) -> None:
    """Give a claimed name back, so that the next claim has it; an unclaimed one is no error.

    Raises:
        SessionError: the directory for claims cannot be used.
    """
    with _claims_to_change() as claims:
        claims.release(_claim_name(kind, name))


def _publish() -> str:
    _publishers.add(os.getpid())
    os.environ[RUN_ID_VARIABLE] = _new_id
    return _new_id


def _label(identity: str) -> str:
    return hashlib.blake2b(os.fsencode(identity), digest_size=8, person=b"label").hexdigest()


def _claim_name(kind: str, name: str) -> str:
    told = ascii((kind, os.path.abspath(name))).encode()
    return hashlib.blake2b(told, digest_size=16).hexdigest()


@functools.lru_cache(8)
def _claims(label: str, temporary: str) -> Claims:
    return Claims(Path(temporary) / f"timetracer-{label}")


@contextlib.contextmanager
def _claims_to_change() -> Iterator[Claims]:
    claims = _claims(run_label(), tempfile.gettempdir())
    try:
        yield claims
    except OSError as error:
        raise SessionError(
            f"The processes of this run cannot agree on cassettes through {claims.directory}: "
            f"{error}.\nRemove it, or set TMPDIR to a directory that this user can write to."
        ) from error


def _remove_claims() -> None:
    # A forked child ends while the others go on; a run that shared nothing has nothing to remove.
    if os.getpid() == _maker and _maker in _publishers:
        directory = _claims(_label(_new_id), tempfile.gettempdir()).directory
        shutil.rmtree(directory, ignore_errors=True)


# Registered here and not by the first claim: exit handlers run last in, first out, and a session
# that claims a name while it closes at exit must still find the directory.
atexit.register(_remove_claims)
