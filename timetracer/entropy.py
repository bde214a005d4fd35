"""Random numbers that are the same in every replay: a seed for each scope, kept in the cassette.

A scope is a block, a fixture or a script. Each shared generator is a row of `GENERATORS`: a scope
seeds those that the program has imported, goes on where it stopped when it is entered again, and
leaves them as it found them. With "all" it also gives `os.urandom`, and so `uuid4` and `secrets`.

What the driver draws (request numbers, jitter, nonces, session ids) is drawn live only, so it must
not advance the program's sequences: while a scope is open, the modules of `APART` draw from a
generator of their own.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from threading import RLock
from types import FrameType, ModuleType
from typing import Any

from timetracer.errors import ConfigError
from timetracer.model import Json

LEVELS = ("off", "random", "all")
"""The values of the setting `entropy`, each of them with all that the one before it has."""

APART = frozenset({"bson", "dns", "gridfs", "motor", "pymongo", "timetracer"})
"""Packages whose draws are no part of the program's."""

_ON_BEHALF = frozenset({"os", "random", "secrets", "uuid", "timetracer.evidence"})
"""Modules whose draws are their callers'; the last one stands around functions of others."""

_real_urandom = os.urandom
_shared: random.Random = random.random.__self__  # type: ignore[attr-defined]
_lock = RLock()


@dataclass(frozen=True, slots=True)
class Generator:
    """A row of the table: a generator that a whole process shares.

    Attributes:
        module: where it lives; it is left alone until the program has imported its package.
        state: the generator's state, of its module.
        restore: gives it a state back.
        seed: gives it a seed, a text.
    """

    module: str
    state: Callable[[Any], Any]
    restore: Callable[[Any, Any], None]
    seed: Callable[[Any, str], None]


GENERATORS = (
    Generator(
        "random",
        lambda module: module.getstate(),
        lambda module, state: module.setstate(state),
        lambda module, text: module.seed(text),
    ),
    Generator(
        "numpy.random",
        lambda module: module.get_state(legacy=False),
        lambda module, state: module.set_state(state),
        lambda module, text: module.seed(_words(text)),
    ),
    Generator(
        "faker.generator",
        lambda module: module.random.getstate(),
        lambda module, state: module.random.setstate(state),
        lambda module, text: module.random.seed(text),
    ),
    Generator(
        "factory.random",
        lambda module: module.randgen.getstate(),
        lambda module, state: module.randgen.setstate(state),
        lambda module, text: module.randgen.seed(text),
    ),
)


def _words(text: str) -> list[int]:
    bits = random.Random(text)
    return [bits.getrandbits(32) for _ in range(8)]


def _imported() -> Iterator[tuple[Generator, Any]]:
    for row in GENERATORS:
        module = _module_of(row)
        if module is not None:
            yield row, module


def _module_of(row: Generator) -> Any:
    if _package(row.module) not in sys.modules:
        return None
    try:
        module = sys.modules.get(row.module) or import_module(row.module)
        if _usable.get(row) is not module:  # to copy a state takes as long as all the rest
            row.state(module)
            _usable[row] = module
    except (ImportError, AttributeError):  # something else has the package's name
        return None
    return module


_usable: dict[Generator, Any] = {}
"""The modules that are known to have what their rows ask for."""


def _states() -> dict[Generator, Any]:
    return {row: row.state(module) for row, module in _imported()}


def _restore(states: dict[Generator, Any]) -> None:
    for row, module in _imported():
        if row in states:
            row.restore(module, states[row])


# ------------------------------------------------------------------------------- a seed


@dataclass(frozen=True, slots=True)
class Seed:
    """What a cassette keeps.

    Attributes:
        level: "random" or "all".
        value: 32 hex digits.
    """

    level: str
    value: str

    @classmethod
    def fresh(cls, level: str) -> Seed:
        """Return a seed that nobody can foretell."""
        return cls(level, _real_urandom(16).hex())

    @classmethod
    def load(cls, data: Json) -> Seed | None:
        """Return the seed of a cassette's header, None where there is none that can be read."""
        if not isinstance(data, dict) or data.get("level") not in LEVELS[1:]:
            return None
        value = data.get("seed")
        return cls(data["level"], value) if isinstance(value, str) and value else None

    def dump(self) -> Json:
        """Return what `load` reads."""
        return {"level": self.level, "seed": self.value}

    def of(self, name: str) -> Seed:
        """Return the seed of a process that this one's program starts, under a name."""
        made = hashlib.blake2b(f"{self.value} {name}".encode(), digest_size=16)
        return Seed(self.level, made.hexdigest())


def open_scope(
    setting: str, recorded: Json, *, records: bool, otherwise: Seed | None = None
) -> Scope | None:
    """Return the scope of a session, to be entered and left; None where nothing is seeded.

    Args:
        setting: the setting `entropy`, one of `LEVELS`.
        recorded: what the header of the cassette that answers has, None where there is none.
        records: whether a new seed may be made, since the session is recorded.
        otherwise: the seed where that header has none, whoever records.

    Raises:
        ConfigError: the setting is "all", and this is no test.
    """
    if setting == "all" and not _is_test():
        raise ConfigError(
            'The setting entropy cannot be "all" here: os.urandom is foretold only in tests under '
            "pytest, since whoever has the cassette could foretell secrets.\n"
            'Allowed here: "off", "random"',
            setting="entropy",
            source="session",
        )
    if setting == "off":
        return None
    seed = Seed.load(recorded)
    if seed is None and otherwise is not None:
        return Scope(Seed(setting, otherwise.value))
    if seed is None:
        return Scope(Seed.fresh(setting)) if records else None
    return Scope(Seed(min(seed.level, setting, key=LEVELS.index), seed.value), kept=seed)


def _is_test() -> bool:
    return "PYTEST_CURRENT_TEST" in os.environ or "PYTEST_VERSION" in os.environ


def hash_seed() -> int | str:
    """Return what orders sets of text in this process: PYTHONHASHSEED, or "random"."""
    given = "" if sys.flags.ignore_environment else os.environ.get("PYTHONHASHSEED", "")
    return int(given) if given.isascii() and given.isdigit() else "random"


# ------------------------------------------------------------------------------- a scope


class Scope:
    """The random numbers of one block, fixture or script.

    Args:
        seed: what they are made of.
        kept: what the cassette has, where it was recorded with more than is asked for now.
    """

    def __init__(self, seed: Seed, *, kept: Seed | None = None) -> None:
        self.seed = seed
        self.kept = kept or seed
        self.stream = random.Random(f"{seed.value} os") if seed.level == "all" else None
        self.forks = 0
        self._own: dict[Generator, Any] = {}
        self._outer: dict[Generator, Any] = {}

    def of_fork(self) -> Scope:
        """Return the scope of the process that was forked last; `forks` counts them."""
        return Scope(self.seed.of(f"fork {self.forks}"))

    def enter(self) -> None:
        """Seed the program's generators, or go on where this scope was left."""
        with _lock:
            if self in _entered:
                return
            self._outer = _states()
            for row, module in _imported():
                if row in self._own:
                    row.restore(module, self._own[row])
                else:
                    row.seed(module, f"{self.seed.value} {row.module}")
            _entered.append(self)
            _install()

    def leave(self, *, for_good: bool = False) -> None:
        """Leave the generators as they were; no harm where it was not entered in this process.

        Args:
            for_good: whether it is not entered again, so that its own states need not be kept.
        """
        with _lock:
            if self not in _entered:
                return
            inner = _entered[_entered.index(self) + 1 :]
            if inner:  # which was entered in this one's states, and is not left yet
                self._own, inner[0]._outer = inner[0]._outer, self._outer
            else:
                self._own = {} if for_good else _states()
                _restore(self._outer)
            _entered.remove(self)
            _install()


_entered: list[Scope] = []


def refresh() -> None:
    """Have modules that were imported since draw as those before them, while a scope is open."""
    with _lock:
        _install()


# ------------------------------------------------------------------------------- what draws where


@dataclass(frozen=True, slots=True)
class _Site:
    names: dict[str, Any]
    name: str
    real: Any
    ours: Any


@dataclass(slots=True)
class _Swap:
    """What modules have of a kind, and have something else for while a scope is open.

    Attributes:
        of: whether a package's modules are concerned.
        pair: a module's value, as (real, ours); None where it is none of the kind.
    """

    of: Callable[[str], bool]
    pair: Callable[[Any], tuple[Any, Any] | None]
    _on: bool = False
    _sites: list[_Site] = field(default_factory=list)
    _seen: dict[str, int] = field(default_factory=dict)
    _looked: tuple[int, str, int] = (0, "", 0)

    def turn(self, on: bool) -> None:
        """Give modules ours, those that were imported since too, or the real one back."""
        if not on and not self._on:
            return
        self._on = on
        self._look()
        for site in self._sites:
            before, after = (site.real, site.ours) if on else (site.ours, site.real)
            if site.names.get(site.name) is before:
                site.names[site.name] = after

    def _look(self) -> None:
        latest = next(reversed(sys.modules))
        looked = (len(sys.modules), latest, id(sys.modules[latest]))
        if looked == self._looked:
            return  # nothing was imported since; a suite asks before and after each test
        self._looked = looked
        for name, module in list(sys.modules.items()):
            if self._seen.get(name) != id(module):
                self._seen[name] = id(module)
                if isinstance(module, ModuleType) and name != __name__ and self.of(_package(name)):
                    self._sites += self._sites_of(module)

    def _sites_of(self, module: ModuleType) -> Iterator[_Site]:
        names = object.__getattribute__(module, "__dict__")  # a lazy module stays unloaded
        for name, value in list(names.items()):
            pair = self.pair(value)
            if pair is not None:
                yield _Site(names, name, *pair)


def _package(module: str) -> str:
    return module.partition(".")[0]


def _apart(value: Any) -> tuple[Any, Any] | None:
    if value is random:
        return value, _own_random
    if _self_of(value) is _shared:
        return value, getattr(_own_random, value.__name__)
    return None


def _self_of(value: Any) -> Any:
    try:
        return getattr(value, "__self__", None)
    except Exception:  # a proxy, such as Flask's request, that stands for nothing now
        return None


def _system(value: Any) -> tuple[Any, Any] | None:
    return (_real_urandom, _urandom) if value is _real_urandom or value is _urandom else None


_swap_apart = _Swap(lambda package: package in APART, _apart)
_swap_system = _Swap(lambda package: package not in APART | {"posix", "nt"}, _system)
_stream: random.Random | None = None


def _install() -> None:
    """Have modules draw as the scopes that are open now ask for it."""
    global _stream
    _stream = next((one.stream for one in reversed(_entered) if one.stream is not None), None)
    _swap_apart.turn(bool(_entered))
    _swap_system.turn(_stream is not None)


def _urandom(size: int, /) -> bytes:
    """Return random bytes; `os.urandom` while a scope with "all" is open."""
    with _lock:
        stream = _stream
        if stream is None or _is_apart(sys._getframe(1)):
            return _real_urandom(size)
        return stream.randbytes(size)


def _is_apart(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_globals.get("__name__") in _ON_BEHALF:
        frame = frame.f_back
    return frame is not None and _package(frame.f_globals.get("__name__") or "") in APART


def _copy_of_random() -> ModuleType:
    """Return the module `random` with a generator of its own behind its functions."""
    copy, own = ModuleType("random"), random.Random()
    for name, value in vars(random).items():
        shared = getattr(value, "__self__", None) is _shared
        setattr(copy, name, getattr(own, value.__name__) if shared else value)
    return copy


_own_random = _copy_of_random()


def _after_fork() -> None:
    """A child draws what nobody else draws."""
    global _lock
    _lock = RLock()
    _own_random.seed()
    _entered.clear()
    _install()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
