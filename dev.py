"""The front door for a developer's commands; needs Python 3.10 or later and nothing else.

    python dev.py demo                 record the example app, stop the server, replay, compare
    python dev.py test [pytest args]   ruff, mypy, all tests on the newest and the oldest drivers
    python dev.py lint                 ruff
    python dev.py types                mypy --strict
    python dev.py bench [args]         the benchmarks, a table of ratios
    python dev.py suites [NAME ...]    other projects' own suites, recorded and replayed
    python dev.py record-cassettes     record the committed cassettes anew (needs a server)
    python dev.py env                  the environments, and what is installed in them

The first call makes virtual environments, .venv (newest packages) and .venv-oldest (the lower
bounds of pyproject.toml); they are made anew only when pyproject.toml or Python has changed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PYPROJECT = ROOT / "pyproject.toml"
OLDEST_OF = (
    "pymongo", "wrapt", "orjson", "motor", "flask", "starlette", "fastapi", "django"
)  # fmt: skip


class DevError(Exception):
    """Something on this machine stands in the way; the message says what to do."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment of the checkout.

    Attributes:
        directory: its directory, relative to the checkout.
        oldest: whether it has the lower bounds of the dependencies in place of the newest.
    """

    directory: str
    oldest: bool = False

    @property
    def path(self) -> Path:
        return ROOT / self.directory

    @property
    def python(self) -> str:
        places = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
        return str(self.path.joinpath(*places))

    @property
    def stamp(self) -> Path:
        return self.path / "dev-stamp.json"


NEWEST = Environment(".venv")
OLDEST = Environment(".venv-oldest", oldest=True)


def lower_bounds() -> list[str]:
    """The dependencies at their lower bounds, such as "pymongo==4.9"."""
    text = PYPROJECT.read_text(encoding="utf-8")
    bounds = [(name, re.search(rf'"{name}>=([\d.]+)', text)) for name in OLDEST_OF]
    return [f"{name}=={bound.group(1)}" for name, bound in bounds if bound]


def fingerprint() -> str:
    """What an installation rests on: pyproject.toml, this file's pins, Python, the place."""
    facts = (sys.version, sys.base_prefix, str(ROOT), *OLDEST_OF)
    return hashlib.sha256(PYPROJECT.read_bytes() + repr(facts).encode()).hexdigest()


def installed_extras(environment: Environment) -> list[str]:
    """The extras that are installed as pyproject.toml stands now."""
    try:
        stamp = json.loads(environment.stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return stamp["extras"] if stamp["fingerprint"] == fingerprint() else []


def prepare(environment: Environment, extra: str) -> str:
    """Make the environment with the extra, unless it is there.

    Returns:
        The path of its Python.

    Raises:
        DevError: it could not be made.
    """
    extras = installed_extras(environment)
    if extra in extras:
        return environment.python
    if not extras:
        make_venv(environment)
    install(environment, extra)
    stamp = {"fingerprint": fingerprint(), "extras": sorted({*extras, extra})}
    environment.stamp.write_text(json.dumps(stamp), encoding="utf-8")
    return environment.python


def make_venv(environment: Environment) -> None:
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        version = "{}.{}".format(*sys.version_info)
        raise DevError(
            f"{sys.executable} cannot make virtual environments: its venv or ensurepip module is "
            f"missing. On Debian and Ubuntu: apt install python{version}-venv (or python3-venv)"
        )
    announce(f"making {environment.directory}")
    if environment.path.exists():
        shutil.rmtree(environment.path)
    if run(sys.executable, "-m", "venv", str(environment.path)):
        raise DevError(f"could not make {environment.path}; the reason stands above")


def install(environment: Environment, extra: str) -> None:
    announce(f"installing into {environment.directory}: timetracer[{extra}]")
    pins = lower_bounds() if environment.oldest else []
    wanted = ["--editable", f"{ROOT}[{extra}]", *pins]
    if run(environment.python, "-m", "pip", "install", "--quiet", *wanted):
        raise DevError(
            "pip could not install the packages; the reason stands above. Without direct access "
            "to PyPI set pip's own PIP_INDEX_URL or PIP_PROXY"
        )


def run(*command: str) -> int:
    """Run a command in the checkout and return its exit code. It may keep bytecode, as Python does
    for users: the tests start hundreds of processes, and each would compile everything anew."""
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


def announce(text: str) -> None:
    print(f"== {text}", flush=True)


def demo(arguments: list[str]) -> int:
    python = prepare(NEWEST, "demo")
    return run(python, "examples/pymongo_flask_app/demo.py", *arguments)


def lint(arguments: list[str]) -> int:
    return run(prepare(NEWEST, "test"), "-m", "ruff", "check", *(arguments or ["."]))


def types(arguments: list[str]) -> int:
    return run(prepare(NEWEST, "test"), "-m", "mypy", *arguments)


def tests_newest(arguments: list[str]) -> int:
    python = prepare(NEWEST, "test")
    run(python, "-m", "coverage", "erase")
    failed = run(python, "-m", "coverage", "run", "-m", "pytest", *arguments)
    run(python, "-m", "coverage", "combine", "--quiet")
    return failed or run(python, "-m", "coverage", "report")


def tests_oldest(arguments: list[str]) -> int:
    return run(prepare(OLDEST, "test"), "-m", "pytest", *arguments)


STEPS = (
    ("ruff", lambda arguments: lint([])),
    ("mypy --strict", lambda arguments: types([])),
    ("tests, newest drivers", tests_newest),
    ("tests, oldest drivers", tests_oldest),
)


def test(arguments: list[str]) -> int:
    """Run every step, also after one that failed, and tell at the end which failed."""
    results = []
    for name, step in STEPS:
        announce(name)
        results.append((name, step(arguments)))
    for name, code in results:
        announce(f"{name}: {f'FAILED (exit code {code})' if code else 'passed'}")
    return int(any(code for _, code in results))


def bench(arguments: list[str]) -> int:
    return run(prepare(NEWEST, "bench"), "-m", "benchmarks", *arguments)


def suites(arguments: list[str]) -> int:
    return run(prepare(NEWEST, "test"), "-m", "tests.suites", *arguments)


def record_cassettes(arguments: list[str]) -> int:
    pythons = [prepare(environment, "test") for environment in (NEWEST, OLDEST)]
    return max(
        run(python, "-m", "tests.support.record_cassettes", *arguments) for python in pythons
    )


def env(arguments: list[str]) -> int:
    for environment in (NEWEST, OLDEST):
        python = prepare(environment, "test")
        announce(f"{python} (Python {sys.version.split()[0]})")
        run(python, "-m", "pip", "list", "--disable-pip-version-check")
    return 0


COMMANDS = {
    "demo": demo,
    "test": test,
    "lint": lint,
    "types": types,
    "bench": bench,
    "suites": suites,
    "record-cassettes": record_cassettes,
    "env": env,
}


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in COMMANDS:
        print(__doc__, file=sys.stderr)
        return 0 if arguments[:1] in (["-h"], ["--help"], ["help"]) else 2
    try:
        return COMMANDS[arguments[0]](arguments[1:])
    except DevError as error:
        print(f"dev.py: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("dev.py: interrupted", file=sys.stderr)
    return 1


if __name__ == "__main__":
    if sys.version_info < (3, 10):
        sys.exit("dev.py: Python 3.10 or later is needed; this is " + sys.version.split()[0])
    sys.exit(main(sys.argv[1:]))
