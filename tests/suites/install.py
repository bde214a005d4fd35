"""A suite in an environment of its own: its release unpacked, installed, and Timetracer beside it.

All is made below `.suites/`, by the interpreter that runs this, when it is first asked for. The
directory's name tells what it was made of: it is made anew when the table or Python changes.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tests.suites.table import Suite

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / ".suites"


class NotInstalled(RuntimeError):
    """A suite could not be had; the message tells why."""


@dataclass(frozen=True, slots=True)
class Installed:
    """Where a suite is.

    Attributes:
        place: the directory of all that concerns it.
        source: the unpacked release, where its tests are run.
        python: the interpreter of its environment.
        path: further directories of modules, where Timetracer is not in the environment.
    """

    place: Path
    source: Path
    python: str
    path: tuple[str, ...] = ()


def install(suite: Suite) -> Installed:
    """Return where a suite is, installed if it is not there.

    Raises:
        NotInstalled: it could not be installed; the message holds what the tool said.
    """
    place = PLACE / f"{suite.name}-{_digest(suite)}"
    if not (place / "ready").exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        (PLACE / "pytest.ini").write_text("[pytest]\n")  # or pytest would find the checkout's own
        _unpack(suite, place)
        _make_environment(suite, place)
        (place / "ready").touch()
    python = str(place / "environment" / "bin" / "python")
    _run("-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--force-reinstall",
         _wheel())  # fmt: skip
    load_once(python, place, plain_environment())
    return Installed(place, place / "source", python)


def load_once(python: str, place: Path, environment: dict[str, str]) -> None:
    """Load the plugin, so that no run but this one rewrites its modules, as pytest does once."""
    empty = place / "empty"
    empty.mkdir(exist_ok=True)
    command = [python, "-m", "pytest", "-p", "no:cacheprovider", "--timetracer=replay", "empty"]
    subprocess.run(command, cwd=place, env=environment, capture_output=True)


def plain_environment() -> dict[str, str]:
    """Return this process's variables without those that say how tests are run."""
    left_out = ("TIMETRACER_", "OBSERVER_", "PYTEST_", "GUARD_", "PYTHON", "MONGODB_URI")
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)}


@functools.cache
def _wheel() -> str:
    """Return Timetracer as it is now: an editable one would put the whole checkout on the path."""
    place = PLACE / "wheel"
    shutil.rmtree(place, ignore_errors=True)
    _run("-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(place), str(ROOT))
    (wheel,) = place.glob("*.whl")
    return str(wheel)


def _digest(suite: Suite) -> str:
    facts = (suite.release, suite.requirements, suite.extras, sys.version, str(ROOT))
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:8]


def _unpack(suite: Suite, place: Path) -> None:
    name = suite.release.partition("==")[0]
    _run("-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", name,
         "--dest", str(place), suite.release)  # fmt: skip
    (archive,) = place.glob("*.tar.gz")
    with tarfile.open(archive) as unpacked:
        unpacked.extractall(place, filter="data")
    (directory,) = (one for one in place.iterdir() if one.is_dir())
    directory.rename(place / "source")


def _make_environment(suite: Suite, place: Path) -> None:
    environment = place / "environment"
    python = str(environment / "bin" / "python")
    project = str(place / "source") + (f"[{suite.extras}]" if suite.extras else "")
    _run("-m", "venv", "--without-pip", str(environment))
    _run("-m", "pip", "--python", python, "install", "--quiet", project, "pytest>=8.2",
         "pytest-xdist", *suite.requirements, _wheel())  # fmt: skip


def _run(*arguments: str) -> None:
    result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if result.returncode:
        raise NotInstalled(
            f"{platform.python_implementation()} {' '.join(arguments)} ended with "
            f"{result.returncode}. Without direct access to PyPI set pip's own PIP_INDEX_URL or "
            f"PIP_PROXY.\n{result.stdout}{result.stderr}"
        )
