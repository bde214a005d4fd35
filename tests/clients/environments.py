"""The clients that must record and replay unchanged: a program each, and the packages it needs.

Clients whose requirements agree share an environment. One is made from PyPI when it is first asked
for, below `.venv-clients/`, by the interpreter that runs the tests; its name tells what it was made
of, so that it is there at once from then on and made anew when this table or Python changes.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / ".venv-clients"


@dataclass(frozen=True, slots=True)
class Client:
    """One client and the program that uses it.

    Attributes:
        program: the module beside this one that has its `main`.
        package: what it is called on PyPI; "" for calls that no released client makes.
        environment: where it is installed, a key of ENVIRONMENTS.
        oldest: where it is with the oldest drivers; "" where it needs newer ones.
        enables: the plugins it needs, "pymongo" and "motor".
        ends_at: the first Python it cannot be had on.
        why: the reason for that.
        why_not_oldest: the reason why `oldest` is "".
    """

    program: str
    package: str
    environment: str
    oldest: str
    enables: tuple[str, ...]
    ends_at: tuple[int, int] = (4, 0)
    why: str = ""
    why_not_oldest: str = ""

    def missing(self, python: tuple[int, ...] = sys.version_info[:2]) -> str:
        """Return why the client cannot be had on a Python, "" where it can."""
        return self.why if python >= self.ends_at else ""


DRIVER = ("wrapt>=1.17.0", "orjson>=3.10.7")
"""What the recorder needs beside PyMongo, which each client brings."""

OLDEST_DRIVER = ("wrapt==1.17.*", "orjson>=3.10.7", "pymongo==4.9.*")
"""The same with the oldest driver."""

ENVIRONMENTS: Mapping[str, tuple[str, ...]] = {
    "common": (
        *DRIVER,
        "beanie>=2.0; python_version < '3.14'",
        "django-mongodb-backend>=5.2",
        "flask-pymongo>=3.0",
        "lightodm>=0.2",
        "mongoengine>=0.29",
        "motor>=3.6",
        "odmantic>=1.0.2",
        "umongo>=4.0",
    ),
    "oldest": (
        *OLDEST_DRIVER,
        "django-mongodb-backend>=5.2",
        "flask-pymongo>=3.0",
        "lightodm>=0.2",
        "mongoengine>=0.29",
        "motor==3.6.*",
        "odmantic>=1.0.2",
        "umongo>=4.0",
    ),
    # It imports what blinker 1.8 has no more, and uses one client from several event loops, which
    # PyMongo refuses from 4.12 on.
    "mongomotor": (*DRIVER, "mongomotor>=0.17", "blinker==1.7.0", "pymongo>=4.9,<4.12"),
    "mongomotor-oldest": (*OLDEST_DRIVER, "mongomotor>=0.17", "blinker==1.7.0"),
}

CLIENTS = (
    Client("mongoengine_sync", "mongoengine", "common", "oldest", ("pymongo",)),
    # No release of MongoEngine has the async API yet: the driver calls that it makes.
    Client("mongoengine_async_calls", "", "common", "oldest", ("pymongo",)),
    Client("lightodm_sync_async", "lightodm", "common", "oldest", ("pymongo", "motor")),
    Client("mongomotor_program", "mongomotor", "mongomotor", "mongomotor-oldest", ("pymongo",)),
    Client(
        "beanie_program",
        "beanie",
        "common",
        "",
        ("pymongo",),
        ends_at=(3, 14),
        why="Beanie has no release for Python 3.14 and later",
        why_not_oldest="Beanie 2 needs PyMongo 4.11",
    ),
    Client("odmantic_program", "odmantic", "common", "oldest", ("pymongo", "motor")),
    Client("umongo_program", "umongo", "common", "oldest", ("pymongo", "motor")),
    Client("flask_pymongo_program", "flask-pymongo", "common", "oldest", ("pymongo",)),
    Client(
        "django_mongodb_backend_program",
        "django-mongodb-backend",
        "common",
        "oldest",
        ("pymongo",),
    ),
)


def python_of(name: str) -> str:
    """Return the Python of an environment, made if it is not there.

    Args:
        name: a key of ENVIRONMENTS.

    Raises:
        RuntimeError: it could not be made; the message holds what the tool said.
    """
    directory = _directory(name)
    if not directory.exists():
        _make(directory, ENVIRONMENTS[name])
        _remove_older(name, directory)
    return _python_in(directory)


def _directory(name: str) -> Path:
    facts = (sys.version, sys.base_prefix, ENVIRONMENTS[name])
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
    return PLACE / f"{name}-{_python_tag()}-{digest}"


def _python_tag() -> str:
    return f"{platform.python_implementation().lower()}{sys.version_info[0]}.{sys.version_info[1]}"


def _python_in(directory: Path) -> str:
    places = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
    return str(directory.joinpath(*places))


def _make(directory: Path, requirements: tuple[str, ...]) -> None:
    """Make it beside its place and move it there whole, so that a half one is never found."""
    growing = directory.with_name(f"{directory.name}.{os.getpid()}")
    try:
        _run("-m", "venv", "--without-pip", str(growing))
        into = _python_in(growing)
        _run("-m", "pip", "--python", into, "install", "--quiet", *requirements)
        if not directory.exists():
            growing.rename(directory)
    finally:
        shutil.rmtree(growing, ignore_errors=True)


def _run(*arguments: str) -> None:
    result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(
            f"python {' '.join(arguments)} ended with {result.returncode}. Without direct access "
            f"to PyPI set pip's own PIP_INDEX_URL or PIP_PROXY.\n{result.stdout}{result.stderr}"
        )


def _remove_older(name: str, directory: Path) -> None:
    """Remove what was made of an older table for this Python; not what another process grows."""
    ours = re.compile(rf"{re.escape(f'{name}-{_python_tag()}')}-[0-9a-f]{{12}}")
    for other in PLACE.iterdir():
        if other != directory and ours.fullmatch(other.name):
            shutil.rmtree(other, ignore_errors=True)
