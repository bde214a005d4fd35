"""pytest, a whole suite: each test, and each fixture of a wider scope, has a cassette of its own.

    pytest --timetracer=record      once, with MongoDB
    pytest --timetracer=replay      from then on, without

Which session a driver call belongs to is a stack: the suite's at the bottom, for imports and
collection; the test's, from its set-up to its tear-down; on top that of a wider fixture while it is
set up or torn down. Each set-up of a fixture and each run of a test is a take of its own, so that
any part of the suite replays in any order.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import gc
import os
import re
import shlex
import time
import unittest
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from timetracer import runs, surroundings
from timetracer.config import SETTINGS, TraceConfig, configured, force, resolve, variables
from timetracer.errors import ConfigError, MissError, TimetracerError
from timetracer.integrations.children import MISS, Children, enable_drivers
from timetracer.integrations.freshness import (
    Expiry,
    Stale,
    days,
    header_at,
    unreached,
)
from timetracer.integrations.pytest_names import EXPIRE, KINDS, below
from timetracer.naming import safe_stem
from timetracer.opening import open_suite
from timetracer.plugins import disable_motor, disable_pymongo
from timetracer.process import enter_block, leave_block
from timetracer.session import Session

MARKER = "timetracer"
NAME = "timetracer-suite"
_SESSION = "__session__"
_SETTLE_SECONDS = 1.0
_WHOLE_SUITE = "the suite"
WHOLE_SESSION = "the session"
FIXTURE = ", fixture "
OUTSIDE = ".outside"
_LISTS = ("cassettes", "ignore")
_RENEWS = ("once", "new_episodes")
WIDE_NAME = re.compile(r"__(?:session|package|module|class)__\.[^/\\]*$")
"""How the cassettes of wider fixtures are named."""
_RESEED = "randomly_reset_seed"
_BASETEMP, _ROOTDIR = "basetemp", "rootdir"


@dataclass(slots=True)
class Tale:
    """What became of one test or wider fixture, as it is told at the end and sent by the workers
    of xdist.

    Attributes:
        node: the test's id, or what the fixture is called in its cassette.
        mode: "replay" where nothing could be recorded, "record" where all was; else the mode.
        recorded: events that were recorded.
        events: events that there were to replay.
        played: those that answered a call.
        unused: those that did not, as text.
        misses: what its misses said.
        where: the cassette.
        live_seconds: how long the test took when it was recorded, 0 where not known.
        seconds: how long it took now.
        allow_unused: what a marker says of unused events, None for nothing.
        broken: whether it ended before its end, so that unused events say nothing.
        remedy: how it is recorded again.
    """

    node: str
    mode: str
    recorded: int = 0
    events: int = 0
    played: int = 0
    unused: list[str] = field(default_factory=list)
    misses: list[str] = field(default_factory=list)
    where: str = ""
    live_seconds: float = 0.0
    seconds: float = 0.0
    allow_unused: bool | None = None
    broken: bool = False
    remedy: str = ""


class Scope:
    """One place on the stack: a session, entered and left, perhaps more than once.

    Args:
        session: the session; a mode of "off" leaves the program alone.
        where: the path of its cassette, without take and suffix.
        stack: the scopes that are entered, the innermost last.
        children: tells the processes of a test where they belong.
        forced: settings that count more than all others while it is entered.
        node: the test or fixture.
        allow_unused: what a marker says of unused events, None for nothing.
    """

    def __init__(
        self,
        session: Session,
        where: str,
        stack: list[Scope],
        children: Children,
        forced: dict[str, Any],
        node: str,
        allow_unused: bool | None,
    ) -> None:
        self.session = session
        self.where = where
        self.node = node
        self.allow_unused = allow_unused
        self._stack = stack
        self.children = children
        self._forced = {"mode": "off"} if session.mode.name == "off" else forced
        self._forced_before: dict[str, Any] = {}
        self.began = time.monotonic()
        self.finished = False
        self.broken = False
        self.shareable = False
        self._depth = 0
        self._told = 0

    def new_misses(self) -> list[str]:
        """Return what the misses said since this was asked last."""
        missed = self.session.misses[self._told :]
        self._told += len(missed)
        return [told_miss(miss) for miss in missed]

    def enter(self) -> None:
        """Make it the one that calls belong to."""
        self._depth += 1
        if self._depth == 1:
            enter_block(self.session)
            self._stack.append(self)
            self._forced_before = force(**self._forced)
            self.children.name(self.session, self.where)

    def mark(self, *, shareable: bool) -> None:
        """Begin a stretch of calls.

        Args:
            shareable: whether other tests are likely to make them too, as those of a set-up.
        """
        self.shareable = shareable
        if self.session.recording is not None:
            self.session.recording.mark(shareable=shareable)

    def leave(self, *, for_good: bool = False) -> None:
        """Go back to the one below.

        Args:
            for_good: whether it is not entered again.
        """
        self._depth -= 1
        if self._depth == 0:
            leave_block(self.session, None, for_good=for_good)
            force(**self._forced_before)
            self._stack.remove(self)
            if self._stack:
                below = self._stack[-1]
                self.children.name(below.session, below.where)

    def finish(self, *, failed: bool = False) -> None:
        """Leave it for good and write what was recorded.

        Args:
            failed: whether it was interrupted, so that the recording may be incomplete.
        """
        if self.session.recording is not None:
            self.session.recording.settle(_SETTLE_SECONDS)
        if self._depth > 0:
            self._depth = 1
            self.leave(for_good=True)
        self.finished = True
        self.session.seconds = time.monotonic() - self.began
        self.session.finish(failed=failed)


class Suite:
    """The plugin that is at work where a mode is given for the whole suite, or by a marker.

    Args:
        config: pytest's configuration.
        mode: the mode of the command line, the environment or a file, None for none.
        directory: the directory of all cassettes, None for cassettes/ beside each test file.
        forced: whether the mode is that of the command line, which counts more than all others.
    """

    def __init__(
        self,
        config: pytest.Config,
        mode: str | None,
        directory: str | None,
        *,
        forced: bool = False,
    ) -> None:
        self.config = config
        self.mode = mode
        self.asked_mode = mode
        self._counts_more = forced or bool(os.environ.get("TIMETRACER_MODE"))
        self.directory = os.path.abspath(directory) if directory else None
        self.tales: list[Tale] = []
        self.wider: list[Tale] = []
        self.expiry = Expiry.parse(config.getini(EXPIRE))
        self.stale: dict[str, Stale] = {}
        self.renewed: set[Any] = set()
        self.scopes: dict[pytest.Item, Scope] = {}
        self._opened: list[Scope] = []
        self._recorded_in: set[str] = set()
        self.recorded: list[tuple[str, str]] = []
        self._missed: dict[pytest.Item, list[str]] = {}
        self.marked_in_ci = False
        self._suite: Scope | None = None
        self._settings = _file_settings(config)
        self._forced: dict[str, Any] = {}
        if forced and mode is not None:
            self._forced["mode"] = mode
        if self.directory and config.known_args_namespace.timetracer_cassette_dir:
            self._forced["cassette_dir"] = self.directory
        self._start = Path.cwd()
        self._resolved_before: dict[Any, TraceConfig] = {}
        self._stack: list[Scope] = []
        runs.run_id()
        if mode != "off":
            enable_drivers()
        self.children = Children()
        force(**self._forced)
        if mode not in (None, "off"):
            self._open_suite()

    # ------------------------------------------------------------------------- the bottom

    def _open_suite(self) -> None:
        root = self.config.rootpath
        directory = self.directory or str(root / "cassettes")
        where = os.path.join(directory, _SESSION)
        self._suite = self._open(where, _WHOLE_SUITE, {"mode": self.mode}, directory)
        self._suite.enter()

    def pytest_configure(self, config: pytest.Config) -> None:
        """Have other plugins leave the random numbers alone that each scope has a seed for."""
        if self._settings.get("entropy") != "off" and hasattr(config.option, _RESEED):
            setattr(config.option, _RESEED, False)
        surroundings.watch(_BASETEMP, self._basetemp)
        surroundings.watch(_ROOTDIR, lambda: str(config.rootpath))

    def _basetemp(self) -> str | None:
        """Return the directory that `tmp_path` lies in, None as long as no test has asked."""
        factory = getattr(self.config, "_tmp_path_factory", None)
        found = getattr(factory, "_basetemp", None)
        return None if found is None else str(found)

    def pytest_unconfigure(self) -> None:
        """Write what imports and collection recorded, and what was interrupted."""
        for scope in reversed(self._stack[1 if self._suite is not None else 0 :]):
            scope.finish(failed=True)
        if self._suite is not None:
            suite, self._suite = self._suite, None
            suite.finish()
        self.children.end()
        force()
        surroundings.unwatch(_BASETEMP)
        surroundings.unwatch(_ROOTDIR)
        disable_motor()
        disable_pymongo()

    def _open(
        self,
        where: str,
        node: str,
        given: dict[str, Any],
        directory: str,
        *,
        renewed: bool = False,
    ) -> Scope:
        settings = {**self._settings, **given}
        settings["ignore"] = (*self._settings.get("ignore", ()), *given.get("ignore", ()))
        if not settings["ignore"]:
            del settings["ignore"]
        layers = settings.pop("cassettes", ())
        allow_unused = settings.pop("allow_unused", None)
        if layers and settings.get("mode") == "once":
            settings["mode"] = "replay"  # there are cassettes
        settings["mode"], missing = self._renewing(where, settings["mode"], renewed=renewed)
        session = open_suite(
            where,
            self._resolved(settings),
            node=node,
            remedy=remedy_of(node),
            layers=layers,
            directory=directory,
        )
        if session.recording is not None:
            self._recorded_in.add(os.path.dirname(where))
        if session.mode.name == "record":
            session.saved = self._note_saved
        session.imported = self._suite.session.cassette if self._suite is not None else None
        self._note_age(session, node, missing)
        scope = Scope(
            session, where, self._stack, self.children, self._forced, node, allow_unused
        )
        self._opened.append(scope)
        return scope

    def _resolved(self, settings: dict[str, Any]) -> TraceConfig:
        """Decide every setting; once for all tests that ask for the same in the same environment,
        since it takes longer than many a test."""
        asked = (variables(), *[(name, type(one), one) for name, one in settings.items()])
        try:
            known = self._resolved_before.get(asked)
        except TypeError:  # a list, of which no key is made
            return self._resolve(settings)
        if known is None:
            known = self._resolved_before[asked] = self._resolve(settings)
        return known

    def _resolve(self, settings: dict[str, Any]) -> TraceConfig:
        before = force(**{**self._forced, "mode": settings["mode"]})
        try:
            return resolve(TraceConfig(**settings), start=self._start)
        finally:
            force(**before)

    # ------------------------------------------------------------------------- stale cassettes

    def is_renewed(self, header: Mapping[str, Any] | None, mode: str | None) -> bool:
        """Tell whether a cassette is to be recorded again because of its age, where that can be.

        Args:
            header: its header, None where there is no cassette.
            mode: the mode in which it is opened.
        """
        if self.expiry is None or self.expiry.action != "record" or mode not in _RENEWS:
            return False
        return header is not None and self.expiry.is_over(header)

    def renew_fixtures(self, items: Iterable[pytest.Item]) -> None:
        """Have the wider fixtures recorded again that tests use whose cassettes are: what a
        fixture prepares must be in the database then."""
        if self.expiry is None or self.expiry.action != "record":
            return
        for item in items:
            asked = self._asked(item)
            header = header_at(self.cassette_of(item)) if asked is not None else None
            if asked is not None and self.is_renewed(header, asked["mode"]):
                known = getattr(item, "_fixtureinfo", None)
                found = known.name2fixturedefs.values() if known is not None else ()
                self.renewed.update(one for defined in found for one in defined)

    def _renewing(self, where: str, mode: str, *, renewed: bool) -> tuple[str, str]:
        """Return the mode for a cassette that may be stale, and where no database was reached."""
        if self.expiry is None or mode not in _RENEWS:
            return mode, ""
        header = header_at(where)
        if header is None or not (renewed or self.is_renewed(header, mode)):
            return mode, ""
        missing = unreached(header)
        return (mode, missing) if missing else ("record", "")

    def _note_age(self, session: Session, node: str, missing: str) -> None:
        if self.expiry is None or session.cassette is None or session.verification is not None:
            return
        header = session.cassette.header
        if self.expiry.is_over(header):
            self.stale[session.where] = Stale(session.where, node, days(header), missing)

    # ------------------------------------------------------------------------- tests

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Open the test's cassette."""
        self._missed[item] = []
        try:
            given = self._asked(item)
            if given is not None:
                directory = self.directory_of(item.path)
                scope = self._open(self.cassette_of(item), item.nodeid, given, directory)
                scope.enter()
                scope.mark(shareable=True)
                self.scopes[item] = scope
        except TimetracerError as error:
            pytest.fail(f"{item.nodeid}: {error}", pytrace=False)

    def _asked(self, node: Any) -> dict[str, Any] | None:
        """Return what a test or a wider fixture is recorded and replayed with, None where it has
        no mode: the command line and the environment count more than a marker, but for its "off".
        """
        given = merged_marks(node, self.directory_of)
        mode = given.get("mode")
        if mode == "off" or (given == {} and self.mode is None):
            return {"mode": "off"} if mode == "off" else None
        if self.mode is not None and (self._counts_more or mode is None):
            return {**given, "mode": self.mode}
        allowed = in_ci(mode or "once")
        self.marked_in_ci |= allowed != (mode or "once")
        return {**given, "mode": allowed}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        """Tell the test's own calls from those of its set-up, which other tests have too."""
        scope = self.scopes.get(item)
        if scope is None or scope.session.recording is None:
            return
        test_case = getattr(item, "instance", None)
        if isinstance(test_case, unittest.TestCase):
            _tell_test_from_set_up(test_case, scope)
        else:
            scope.mark(shareable=False)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Close the test's cassette, once everything is torn down."""
        if item in self.scopes:
            self.scopes[item].mark(shareable=True)
        try:
            return (yield)
        finally:
            scope = self.scopes.pop(item, None)
            if scope is not None:
                scope.finish()
                self.tales.append(self._tale(scope, self._missed[item]))

    def _tale(self, scope: Scope, misses: list[str]) -> Tale:
        session = scope.session
        cassette, recording = session.cassette, session.recording
        tale = Tale(
            scope.node,
            _told_mode(session),
            recorded=recording.count if recording is not None else 0,
            events=len(cassette.events) if cassette is not None else 0,
            misses=misses,
            where=session.where,
            seconds=session.seconds,
            allow_unused=scope.allow_unused,
            broken=scope.broken,
            remedy=session.remedy,
        )
        if cassette is not None:
            tale.unused = [
                f"event {one.eid}: {one.method.lower()} on {one.url}" for one in cassette.unused
            ]
            tale.played = tale.events - len(tale.unused)
            header = cassette.header.get("session") or {}
            tale.live_seconds = float(header.get("seconds") or 0.0)
        return tale

    def cassette_of(self, item: pytest.Item) -> str:
        """Return the path of a test's cassette, without take and suffix."""
        classes = [node.name for node in item.listchain() if isinstance(node, pytest.Class)]
        name = safe_stem(".".join([*classes, item.name]))
        if KINDS.keys() & set(getattr(item, "fixturenames", ())):
            name += OUTSIDE
        return os.path.join(self.directory_of(item.path), safe_stem(item.path.stem), name)

    def directory_of(self, file: Path) -> str:
        """Return the directory of the cassettes of a test file."""
        return _directory_of(self.directory, self.config.rootpath, file)

    # ------------------------------------------------------------------------- wider fixtures

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Generator[None, Any, Any]:
        """Have a fixture of wider scope set up and torn down with a cassette of its own."""
        if fixturedef.scope == "function":
            return (yield from self._marked(fixturedef))
        try:
            given = self._asked(request.node)
            if given is None:
                return (yield)
            where, node, directory = self._fixture_place(fixturedef, request)
            renewed = fixturedef in self.renewed
            scope = self._open(where, node, given, directory, renewed=renewed)
        except TimetracerError as error:
            pytest.fail(str(error), pytrace=False)
        fixturedef.addfinalizer(functools.partial(self._end_fixture, scope))
        scope.enter()
        scope.mark(shareable=True)
        try:
            return (yield)
        except BaseException:
            scope.broken = True
            raise
        finally:
            scope.leave()
            fixturedef.addfinalizer(functools.partial(scope.mark, shareable=True))
            fixturedef.addfinalizer(scope.enter)

    def _end_fixture(self, scope: Scope) -> None:
        scope.finish()
        self.wider.append(self._tale(scope, [str(miss) for miss in scope.session.misses]))

    def _marked(self, fixturedef: Any) -> Generator[None, Any, Any]:
        """Mark the calls of a test's fixture, and later those of its tear-down."""
        scope = self._stack[-1] if self._stack else None
        if scope is None or scope.session.recording is None:
            return (yield)
        before = scope.shareable
        mark = functools.partial(scope.mark, shareable=True)
        fixturedef.addfinalizer(mark)
        mark()
        try:
            return (yield)
        finally:
            scope.mark(shareable=before)
            fixturedef.addfinalizer(mark)

    def _fixture_place(self, fixturedef: Any, request: Any) -> tuple[str, str, str]:
        """Return the path of a wider fixture's cassette, what it is for, and the directory that
        the cassette lies in or, as those of a module do, one below."""
        node, scope = request.node, fixturedef.scope
        defined = fixturedef.baseid or ""
        inner = not getattr(node, "nodeid", "").startswith(defined)
        name = f"__{scope}__.{f'{defined}.' if inner else ''}{fixturedef.argname}"
        name += _parameters(fixturedef, request)
        path = Path(getattr(node, "path", None) or self.config.rootpath)
        module = ""
        if scope == "session":
            directory = self.directory or str(self.config.rootpath / "cassettes")
        elif scope == "package":
            directory = self.directory_of((path if path.is_dir() else path.parent) / "_")
        else:
            module = safe_stem(path.stem)
            classes = [one.name for one in node.listchain() if isinstance(one, pytest.Class)]
            name = ".".join([*classes, name])
            directory = self.directory_of(path)
        told = f"{getattr(node, 'nodeid', '') or WHOLE_SESSION}{FIXTURE}{fixturedef.argname}"
        return os.path.join(directory, module, safe_stem(name)), told, directory

    # ------------------------------------------------------------------------- misses

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: Any) -> Generator[None, Any, Any]:
        """Fail a test that missed, whatever became of the error in the program."""
        with _nothing_collected():
            report = yield
        missed = self._new_misses()
        if missed:
            self._missed.setdefault(item, []).extend(missed)
            self._tell(report, missed)
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_make_collect_report(self, collector: Any) -> Generator[None, Any, Any]:
        """Fail a file that missed while it was imported."""
        report = yield
        missed = self._new_misses()
        if missed:
            self._tell(report, missed)
        return report

    def _note_saved(self, cassette: str, recorded: str) -> None:
        self.recorded.append((cassette, recorded))

    def finish_suite(self) -> None:
        """Write what imports and collection recorded, and learn what processes did."""
        if self._suite is not None and self._suite.session.recording is not None:
            suite, self._suite = self._suite, None
            suite.finish()
        self.recorded += self.children.recorded(self._recorded_in)

    def sessions(self) -> list[Session]:
        """Return the sessions that are entered, the innermost last."""
        return [scope.session for scope in self._stack]

    def _new_misses(self) -> list[str]:
        missed = [told for scope in self._opened for told in scope.new_misses()]
        self._opened = [scope for scope in self._opened if not scope.finished]
        return missed + self.children.news(MISS)

    def _tell(self, report: Any, missed: list[str]) -> None:
        told = "\n\n".join(missed[:3])
        if len(missed) > 3:
            told += f"\n\nand {len(missed) - 3} more misses"
        if self.config.getoption("timetracer_misses") == "report":
            report.sections.append(("timetracer: misses", told))
            return
        report.outcome = "failed"
        report.longrepr = told
        vars(report).pop("wasxfail", None)

    # ------------------------------------------------------------------------- the end

    def pytest_report_header(self) -> str | None:
        """Say what is at work."""
        if self.mode in (None, "off"):
            return None
        changed = f" (what {self.asked_mode} is in CI)" if self.asked_mode != self.mode else ""
        return f"timetracer: {self.mode}{changed}, cassettes in {self._shown_directory()}"

    def _shown_directory(self) -> str:
        return self.directory or "cassettes/ beside each test file"


@functools.lru_cache(64)  # most tests are of the same file as the one before
def _directory_of(directory: str | None, root: Path, file: Path) -> str:
    return str(file.parent / "cassettes") if directory is None else below(root, directory, file)


def remedy_of(node: str) -> str:
    """Return the command that records a test or fixture again."""
    place = node.partition(FIXTURE)[0]
    whole = place in (_WHOLE_SUITE, WHOLE_SESSION)
    return "pytest --timetracer=record" + ("" if whole else f" {shlex.quote(place)}")


def _told_mode(session: Session) -> str:
    if session.recording is None:
        return session.mode.name if session.mode.name in ("off", "verify") else "replay"
    return "record" if session.cassette is None else session.mode.name


@contextlib.contextmanager
def _nothing_collected() -> Iterator[None]:
    """Keep garbage until a failure is told. Python 3.11 cannot parse its source if garbage that it
    collects meanwhile parses too, such as a future that logs an error nobody asked for: pytest
    ended with an internal error."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _tell_test_from_set_up(test_case: Any, scope: Scope) -> None:
    """Mark the calls of a test of unittest, which has its set-up within."""
    call = getattr(test_case, "_callTestMethod", None)
    if call is None:
        scope.mark(shareable=False)
        return

    def marked(method: Any) -> Any:
        __tracebackhide__ = True
        scope.mark(shareable=False)
        try:
            return call(method)
        finally:
            scope.mark(shareable=True)

    test_case._callTestMethod = marked


def told_miss(miss: MissError) -> str:
    """Return what a miss says, and where the call was made."""
    site = getattr(miss, "call_site", None)
    return str(miss) if site is None else f"{miss}\nAsked at {site}"


def merged_marks(node: Any, directory_of: Callable[[Path], str]) -> dict[str, Any]:
    """Return what the `timetracer` markers of a node say together, the narrower counting more.

    Args:
        node: the test, class, module, package or session.
        directory_of: the directory that names of cassettes count from, for a test file.

    Returns:
        Settings and cassettes, empty where there is no marker; the mode is None where none has one.

    Raises:
        ConfigError: a marker has an argument that it cannot have.
    """
    given: dict[str, Any] = {}
    for mark in reversed(list(node.iter_markers(MARKER))):
        _check_mark(mark)
        lists = {
            name: (*mark.kwargs[name], *given.get(name, ()))
            for name in _LISTS
            if name in mark.kwargs
        }
        given = {"mode": None, **given, **mark.kwargs, **lists}
    if given.get("cassettes"):
        directory = directory_of(node.path)
        given["cassettes"] = [os.path.join(directory, one) for one in given["cassettes"]]
    return given


def _check_mark(mark: pytest.Mark) -> None:
    allowed = ("cassettes", "allow_unused", *SETTINGS)
    for name in (*mark.args, *mark.kwargs):
        if name not in allowed or mark.args:
            near = difflib.get_close_matches(str(name), allowed, 1)
            hint = f"Did you mean {near[0]}=?" if near else f"There are: {', '.join(allowed)}."
            raise ConfigError(
                f"The marker timetracer takes keywords, and {name!r} is none of them.\n{hint}",
                setting=str(name),
                source="marker",
            )
    for name in _LISTS:
        if not isinstance(mark.kwargs.get(name, ()), list | tuple):
            raise ConfigError(
                f"The marker timetracer takes a list for {name}=, as in {name}=["
                f"{mark.kwargs[name]!r}].",
                setting=name,
                source="marker",
            )


def _parameters(fixturedef: Any, request: Any) -> str:
    """Return the parameters of a wider fixture and of those that it uses, as part of a name."""
    item = getattr(request, "_pyfuncitem", None)
    given = getattr(getattr(item, "callspec", None), "params", {})
    known = getattr(request, "_arg2fixturedefs", {})
    used: dict[str, None] = {}
    ahead = [fixturedef.argname]
    while ahead:
        name = ahead.pop(0)
        if name not in used:
            used[name] = None
            ahead += [one for found in known.get(name, ()) for one in found.argnames]
    told = [_parameter(given[name]) for name in used if name in given]
    if not told and hasattr(request, "param"):
        told = [_parameter(request.param)]
    return f"[{'-'.join(told)}]" if told else ""


def _parameter(value: Any) -> str:
    if isinstance(value, str | bytes | int | float | None):
        return repr(value)
    return getattr(value, "__qualname__", None) or type(value).__qualname__


def in_ci(mode: str) -> str:
    """Return the mode that is in force: nothing is recorded in CI unless it is asked for."""
    return "replay" if mode in ("once", "new_episodes") and _is_ci() else mode


def _is_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true", "yes", "on")


def _file_settings(config: pytest.Config) -> dict[str, Any]:
    """Return the settings that the command line and pytest's own file give all tests."""
    ignore = config.getini("timetracer_ignore")
    settings: dict[str, Any] = {"ignore": tuple(ignore)} if ignore else {}
    entropy = (
        config.known_args_namespace.timetracer_entropy
        or os.environ.get("TIMETRACER_ENTROPY", "").strip()
        or config.getini("timetracer_entropy")
        or configured().get("entropy", "random")
    )
    return {**settings, "entropy": entropy}
