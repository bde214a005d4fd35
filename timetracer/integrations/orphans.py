"""Which cassettes of a suite nobody asks for any more, and may go.

    test_shop/test_gone.json          the test is gone: it is collected no more
    test_shop/test_flaky.2.json       the test ran again when it was recorded before, and no more
    test_shop/__module__.old.json     the fixture is gone

A cassette is judged by what its header says it is for, and only where a test file beside it was
collected. It is kept wherever its test may only be out of sight: deselected, skipped, switched off,
of another platform, or in a file that is there and was not collected.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from timetracer import document, ledger
from timetracer.errors import CassetteError, ConfigError
from timetracer.integrations.suite import FIXTURE, OUTSIDE, WHOLE_SESSION, Suite, merged_marks
from timetracer.naming import parse_take
from timetracer.shared_parts import is_shared, remove_unused, users_of_shared
from timetracer.stores import find_latest, split_suffix
from timetracer.stores.files import FileStore

FILTERS = {
    "keyword": "-k",
    "markexpr": "-m",
    "lf": "--lf",
    "stepwise": "--stepwise",
    "deselect": "--deselect",
    "collectonly": "--collect-only",
    "setuponly": "--setup-only",
    "setupplan": "--setup-plan",
    "noconftest": "--noconftest",
}
"""pytest's options with which only some of the tests run, or some of the fixtures are known."""

_REGISTRIES = ("_arg2fixturedefs", "_arg2node2fixturedefs", "_arg2nodeid2fixturedefs")
"""Where pytest keeps the fixtures that it knows: up to 9.0, and from 9.1."""

_HIDING = {"lf", "stepwise", "noconftest"}
_CHILD = ".child"
_SCOPE = re.compile(r"__(?:class|module|package|session)__\.")
_UNACCEPTED = ".unaccepted-"
_OF_SESSION, _OF_PACKAGE = "__session__.", "__package__."


@dataclass(slots=True)
class Collected:
    """What a run has collected, as far as it says which cassettes are needed.

    Attributes:
        tests: the cassettes of tests, without take and suffix.
        nodes: ids of the tests and of what they are in.
        functions: ids of the tests without parameters.
        files: directory of cassettes -> the test files beside it.
        fixtures: name, scope and place of definition of each fixture that is known; none where
            this pytest does not tell.
        layers: cassettes that a marker names, without suffix.
        top: the directory of the session's cassettes.
        whole: whether all directories were asked for.
        hidden: why tests may be out of sight, "" where all were collected.
        partial: why only some of the tests ran, "" where all did.
    """

    tests: set[str] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)
    files: dict[str, list[str]] = field(default_factory=dict)
    fixtures: set[tuple[str, str, str]] = field(default_factory=set)
    layers: set[str] = field(default_factory=set)
    top: str = ""
    whole: bool = False
    hidden: str = ""
    partial: str = ""

    def dump(self) -> dict[str, Any]:
        """Return it as JSON."""
        told = asdict(self)
        return {name: sorted(one) if isinstance(one, set) else one for name, one in told.items()}

    @classmethod
    def load(cls, told: Mapping[str, Any]) -> Collected:
        """Return what `dump` gave."""
        given: dict[str, Any] = {**told, "fixtures": map(tuple, told["fixtures"])}
        for one in fields(cls):
            if str(one.type).startswith("set"):
                given[one.name] = set(given[one.name])
        return cls(**given)


@dataclass(frozen=True, slots=True)
class Orphan:
    """A cassette that nobody asks for.

    Attributes:
        path: its absolute path.
        node: the test or fixture that it was for.
        why: "gone", or "take" where the test runs fewer times.
    """

    path: str
    node: str
    why: str

    def __str__(self) -> str:
        again = ", which runs fewer times now" if self.why == "take" else ""
        return f"{os.path.relpath(self.path)}: of {self.node}{again}"


# ------------------------------------------------------------------------------- collecting


def collect(suite: Suite, session: pytest.Session, items: Iterable[pytest.Item]) -> Collected:
    """Return what was collected.

    Args:
        suite: the suite's plugin.
        session: pytest's session, with the tests that are to run.
        items: all tests, also those that were deselected.
    """
    config = suite.config
    found = Collected(top=suite.directory or str(config.rootpath / "cassettes"))
    for item in items:
        found.tests.add(_plain(suite.cassette_of(item)))
        found.nodes.update(node.nodeid for node in item.listchain())
        found.functions.add(item.nodeid.partition("[")[0])
        found.layers.update(_layers(suite, item))
        beside = found.files.setdefault(suite.directory_of(item.path), [])
        if str(item.path) not in beside:
            beside.append(str(item.path))
    found.fixtures = set(_fixtures(session))
    found.whole = _is_whole(config)
    by_node = "the id of a test" if any("::" in one for one in config.args) else ""
    chosen = {name: flag for name, flag in FILTERS.items() if _is_given(config, name)}
    found.hidden = by_node or ", ".join(flag for name, flag in chosen.items() if name in _HIDING)
    found.partial = found.hidden or ", ".join(chosen.values())
    if not found.partial and set(items) - set(session.items):
        found.partial = "deselected"
    return found


def _layers(suite: Suite, item: pytest.Item) -> Iterator[str]:
    with contextlib.suppress(ConfigError):  # told when the test is set up
        for path in merged_marks(item, suite.directory_of).get("cassettes", ()):
            yield split_suffix(os.path.abspath(path))[0]


def _plain(stem: str) -> str:
    """Return the stem of a test's own cassette, for that of a process or beside blocks too."""
    return stem.removesuffix(_CHILD).removesuffix(OUTSIDE)


def _fixtures(session: pytest.Session) -> Iterator[tuple[str, str, str]]:
    manager = getattr(session, "_fixturemanager", None)
    for registry in _REGISTRIES:
        for name, found in getattr(manager, registry, {}).items():
            defined = chain.from_iterable(found.values()) if isinstance(found, dict) else found
            yield from ((name, one.scope, one.baseid or "") for one in defined)


def _is_whole(config: pytest.Config) -> bool:
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        return True
    given = {(config.invocation_params.dir / arg).resolve() for arg in config.args}
    paths = {(config.rootpath / path).resolve() for path in config.getini("testpaths")}
    return config.rootpath.resolve() in given or bool(paths and paths <= given)


def _is_given(config: pytest.Config, name: str) -> bool:
    return bool(getattr(config.option, name, None))


# ------------------------------------------------------------------------------- judging


def find_orphans(collected: Collected, recorded: Iterable[str]) -> list[Orphan]:
    """Return the cassettes that nobody asks for, in order of their paths.

    Args:
        collected: what the run has collected.
        recorded: the absolute paths of the cassettes that were recorded whole in this run.
    """
    if collected.hidden:
        return []
    judge = _Judge(collected, frozenset(recorded))
    found = (judge.of(path) for path in sorted(set(_cassettes(collected))))
    return [orphan for orphan in found if orphan is not None]


def _cassettes(collected: Collected) -> Iterator[str]:
    """Yield the paths of files that may be cassettes of what was collected."""
    if collected.whole:
        yield from _named(collected.top, _OF_SESSION)
    for directory in collected.files:
        yield from _named(directory, _OF_PACKAGE)
        for entry in _entries(directory):
            if entry.is_dir():
                yield from _named(entry.path, "")


def _named(directory: str, start: str) -> Iterator[str]:
    for entry in _entries(directory):
        named = entry.name.startswith(start) and _UNACCEPTED not in entry.name
        if is_shared(f"{os.path.basename(directory)}/{entry.name}"):
            continue
        if named and parse_take(entry.name) is not None and entry.is_file():
            yield entry.path


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError:
        return []


@dataclass(frozen=True, slots=True)
class _Judge:
    collected: Collected
    recorded: frozenset[str]

    def of(self, path: str) -> Orphan | None:
        """Return the cassette as an orphan, None where it is needed, or may be."""
        directory, name = os.path.split(path)
        parts = parse_take(name)
        assert parts is not None
        stem, take, _ = parts
        needed = _plain(os.path.join(directory, stem)) in self.collected.tests
        if (needed and take == 1) or split_suffix(path)[0] in self.collected.layers:
            return None
        session = _session(path)
        node = session.get("node")
        if not node or session.get("platform", sys.platform) != sys.platform:
            return None
        if needed or self._is_needed(path, stem, str(node)):
            left = take > 1 and self._is_left_over(path, os.path.join(directory, stem), session)
            return Orphan(path, str(node), "take") if left else None
        return None if ledger.is_opened(path) else Orphan(path, str(node), "gone")

    def _is_needed(self, path: str, stem: str, node: str) -> bool:
        place, _, fixture = node.partition(FIXTURE)
        if fixture:
            return self._needs_fixture(path, stem, place, fixture)
        if "::" not in place or place in self.collected.nodes:
            return True
        plain = place.partition("[")[0]
        return plain not in self.collected.functions and self._may_be_there(path, plain)

    def _may_be_there(self, path: str, place: str) -> bool:
        """Tell whether a test or class may be out of sight: its file is there, and was not
        collected or has it."""
        file = self._file(path, place)
        if file is None:
            return False
        return file not in self._files() or _defines(file, tuple(place.split("::")[1:]))

    def _needs_fixture(self, path: str, stem: str, place: str, fixture: str) -> bool:
        if place != WHOLE_SESSION and place not in self.collected.nodes:
            return stem.startswith(_OF_PACKAGE) or self._may_be_there(path, place)
        if not self.collected.fixtures or not _SCOPE.search(stem):
            return True
        within = "" if place == WHOLE_SESSION else place
        return any(
            name == fixture
            and f"__{scope}__." in stem
            and (within.startswith(defined) or defined.startswith(within))
            for name, scope, defined in self.collected.fixtures
        )

    def _files(self) -> set[str]:
        return {file for beside in self.collected.files.values() for file in beside}

    def _file(self, path: str, place: str) -> str | None:
        """Return the test file that a cassette lies beside, None where there is none any more."""
        directory = os.path.dirname(os.path.dirname(path))
        name = os.path.basename(place.partition("::")[0])
        beside = {os.path.dirname(file) for file in self.collected.files.get(directory, ())}
        there = (os.path.join(one, name) for one in sorted(beside))
        return next((file for file in there if os.path.exists(file)), None)

    def _is_left_over(self, path: str, stem: str, session: Mapping[str, Any]) -> bool:
        """Tell whether a take is of a recording before that of the first one."""
        store, name = FileStore.for_path(stem)
        first = find_latest(store, name)
        if first is None or path in self.recorded or ledger.is_opened(path):
            return False
        where = os.path.join(store.directory, first)
        if FIXTURE in str(session.get("node")):  # it is set up as often as the tests need that run
            return where in self.recorded and not self.collected.partial
        return _is_of_before(session, _session(where))


def _session(path: str) -> dict[str, Any]:
    store, name = FileStore.for_path(path)
    try:
        return document.header_of(store.read(name), path).get("session") or {}
    except CassetteError:
        return {}


def _is_of_before(take: Mapping[str, Any], first: Mapping[str, Any]) -> bool:
    """Tell whether a take was recorded by a run before the one that recorded the first take."""
    last = [one.get("confirmed_run") or one.get("run") for one in (take, first)]
    if last[0] == last[1] or None in last or len(first.get("processes") or ()) > 1:
        return False  # a first take that was added to is no other recording
    since = str(first.get("confirmed_at") or first.get("recorded_at"))
    begun = (take.get("processes") or [take])[0].get("recorded_at")
    return str(take.get("confirmed_at") or begun) < since


@functools.lru_cache(64)
def _parsed(file: str) -> ast.AST | None:
    try:
        return ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _defines(file: str, names: tuple[str, ...]) -> bool:
    """Tell whether a file has a test in it that was not collected here, as for another Python;
    so it is taken to be where the file cannot be read as Python."""
    tree = _parsed(file)
    return tree is None or _has(tree, names)


def _has(tree: ast.AST, names: tuple[str, ...]) -> bool:
    if not names:
        return True
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    last = names[0].rpartition(".")[2]
    return any(
        isinstance(one, kinds) and one is not tree and one.name == last and _has(one, names[1:])
        for one in ast.walk(tree)
    )


# ------------------------------------------------------------------------------- removing


def remove(orphans: Iterable[Orphan]) -> int:
    """Remove cassettes, what nobody shares any more then, and directories that are empty.

    Returns:
        How many files there were.

    Raises:
        CassetteError: a file cannot be removed, or it is not known what one refers to.
    """
    count = 0
    sharing = set()
    for orphan in orphans:
        sharing.add(users_of_shared(orphan.path))
        store, name = FileStore.for_path(orphan.path)
        store.remove(name)
        count += 1
        if not _entries(str(store.directory)):
            store.directory.rmdir()
    for directory in sharing - {None}:
        remove_unused(str(directory))
    return count
