"""pytest: a block of a test is recorded to a cassette, or answered from one.

    def test_user(timetracer_auto):
        with timetracer_auto():  # the first run records, later ones replay
            assert find_user("123")["name"] == "Alice"

pytest imports this module at every start; the core and the driver are imported by the first block.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import inspect
import logging
import os
import shlex
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest

from timetracer.integrations.pytest_names import (
    COLLECTED,
    EXPIRE,
    KEEPING,
    KINDS,
    PRUNE,
    SENT,
    UNUSED,
    below,
    told_unused,
)

if TYPE_CHECKING:
    from timetracer.cassette import Cassette, Event
    from timetracer.config import TraceConfig
    from timetracer.errors import StrPath
    from timetracer.session import Session

logger = logging.getLogger("timetracer")

_Function = TypeVar("_Function", bound=Callable[..., Any])

@pytest.fixture
def timetracer_cassette_dir(request: pytest.FixtureRequest) -> StrPath:
    """The directory of the fixtures' cassettes: cassettes/ beside the test file.

    Override it to have another one; a relative path counts from the test file's directory.
    """
    return request.path.parent / "cassettes"


@pytest.fixture
def timetracer_record(
    request: pytest.FixtureRequest, timetracer_cassette_dir: StrPath
) -> CassetteFixture:
    """Record a block: `with timetracer_record() as cassette_path:`."""
    return CassetteFixture("timetracer_record", request.node, timetracer_cassette_dir)


@pytest.fixture
def timetracer_replay(
    request: pytest.FixtureRequest, timetracer_cassette_dir: StrPath
) -> CassetteFixture:
    """Answer a block from a cassette: `with timetracer_replay("name.json"):`."""
    return CassetteFixture("timetracer_replay", request.node, timetracer_cassette_dir)


@pytest.fixture
def timetracer_auto(
    request: pytest.FixtureRequest, timetracer_cassette_dir: StrPath
) -> CassetteFixture:
    """Replay a block that was recorded, else record it: `with timetracer_auto():`."""
    return CassetteFixture("timetracer_auto", request.node, timetracer_cassette_dir)


@pytest.fixture
def timetracer(request: pytest.FixtureRequest) -> FixtureCassette:
    """The test's cassette: events, unused, all_played, path."""
    from timetracer.integrations import suite

    plugin = request.config.pluginmanager.get_plugin(suite.NAME)
    scope = plugin.scopes.get(request.node) if plugin is not None else None
    if scope is None:
        pytest.fail(
            "The fixture timetracer needs a mode: pytest --timetracer=record, or the marker "
            "timetracer.",
            pytrace=False,
        )
    return FixtureCassette(scope.session)


# ------------------------------------------------------------------------------- the cassette


class FixtureCassette(os.PathLike[str]):
    """The cassette of a block: a path, in the block and after it, that has its events too.

    Whatever a `pathlib.Path` has, such as `exists()` and `read_text()`, this has.

    Attributes:
        path: where the cassette lies, absolute.
        session: the session of the block.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.path = Path(os.path.abspath(session.where))
        self._written: list[Event] | None = None

    @property
    def events(self) -> list[Event]:
        """The cassette's events: those recorded so far, or those that are replayed."""
        if self._written is not None:
            return self._written
        recording = self.session.recording
        if recording is not None and recording.count:
            return _events(b"".join(self.session.chunks()), self.session.where)
        return self._replayed()

    def _cassettes(self) -> list[Cassette]:
        own = self.session.cassette
        return [*([own] if own is not None else ()), *self.session.layers]

    def _replayed(self) -> list[Event]:
        return [event for cassette in self._cassettes() for event in cassette.events]

    @property
    def unused(self) -> list[Event]:
        """The replayed events that have answered no call, in recorded order."""
        return [event for cassette in self._cassettes() for event in cassette.unused]

    @property
    def used(self) -> list[Event]:
        """The replayed events that have answered a call, in recorded order."""
        left = {id(event) for event in self.unused}
        return [event for event in self._replayed() if id(event) not in left]

    @property
    def all_played(self) -> bool:
        """Whether every event that can be replayed has answered a call."""
        return not self.unused

    def close(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Write what was recorded; a block that raised replaces no cassette that is there."""
        recording = self.session.recording
        if recording is None:
            if self.session.verification is not None:
                self.session.finish()
            return
        if error is not None and not recording.reached_server and not _is_there(str(self.path)):
            self._written = []
            recording.discard_partial()
            logger.warning("timetracer: %s is not written: no call reached a server", self.path)
            return
        saved = self.session.finish(failed=error is not None)
        self._written = _events_of_file(saved) if saved is not None else []

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __truediv__(self, part: StrPath) -> Path:
        return self.path / part

    def __eq__(self, other: object) -> bool:
        return isinstance(other, os.PathLike) and self.path == Path(other)

    def __hash__(self) -> int:
        return hash(self.path)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "path":
            raise AttributeError(name)
        return getattr(self.path, name)


def _events(data: bytes, where: str) -> list[Event]:
    from timetracer.cassette import Cassette

    return Cassette(data, where).events


def _events_of_file(path: str) -> list[Event]:
    from timetracer.stores.files import FileStore

    store, name = FileStore.for_path(path)
    return _events(store.read(name), path)


# ------------------------------------------------------------------------------- the block


class CassetteBlock:
    """A block of a test with its cassette: a context manager, sync and async, and a decorator.

    Args:
        fixture: what it was made by.
        path: the cassette, None for the test's own name.
        allow_unused: whether events of the cassette may answer no call.

    Raises:
        CassetteNotFoundError: there is nothing to replay (on entering).
        CassetteError: the cassette cannot be used (on entering).
        ConfigError: a setting has a bad value (on entering).
        SessionError: the block of another cassette is open (on entering).
    """

    def __init__(
        self, fixture: CassetteFixture, path: StrPath | None, *, allow_unused: bool | None
    ) -> None:
        self._fixture = fixture
        self._path = path
        self._allow_unused = allow_unused
        self._open: list[tuple[FixtureCassette, contextlib.ExitStack]] = []

    def __enter__(self) -> FixtureCassette:
        """Open the cassette and return it."""
        from timetracer.process import enter_block, leave_block

        with contextlib.ExitStack() as undo:
            session = self._fixture.session(self._path)
            cassette = FixtureCassette(session)
            if session.mode.name != "off":
                undo.enter_context(_pymongo_enabled())
            token = enter_block(session)
            undo.push(cassette.close)
            undo.callback(leave_block, session, token, for_good=True)
            self._open.append((cassette, undo.pop_all()))
        return cassette

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Write or close the cassette."""
        cassette, undo = self._open.pop()
        undo.__exit__(kind, error, traceback)
        if cassette.unused:
            self._fixture.note_unused(cassette, self._allow_unused, raised=error is not None)

    async def __aenter__(self) -> FixtureCassette:
        """Open the cassette and return it."""
        return self.__enter__()

    async def __aexit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Write or close the cassette."""
        self.__exit__(kind, error, traceback)

    def __call__(self, function: _Function) -> _Function:
        """Return the function with the cassette open while it runs."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)

            return cast("_Function", awaited)

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return cast("_Function", called)


@contextlib.contextmanager
def _pymongo_enabled() -> Iterator[None]:
    from timetracer.plugins import clients, disable_pymongo, enable_pymongo

    before = clients.PYMONGO in clients.enabled
    enable_pymongo()
    try:
        yield
    finally:
        if not before:
            disable_pymongo()


# ------------------------------------------------------------------------------- the fixture


class CassetteFixture:
    """What the fixtures give: called, it makes a block; in a `with` statement it is one itself.

    Args:
        name: the fixture, a key of `KINDS`.
        item: the test.
        directory: where names count from first; relative, it counts from the test file's directory.
    """

    def __init__(self, name: str, item: pytest.Item, directory: StrPath) -> None:
        self._kind = KINDS[name]
        self._item = item
        given = item.config.known_args_namespace.timetracer_cassette_dir
        forced = below(item.config.rootpath, os.path.abspath(given), item.path) if given else None
        self._directory = forced or os.path.join(item.path.parent, directory)
        self._unnamed = 0
        self._blocks: list[CassetteBlock] = []

    def __call__(
        self, path: StrPath | None = None, *, allow_unused: bool | None = None
    ) -> CassetteBlock:
        """Return a block.

        Args:
            path: the cassette. A name counts from `timetracer_cassette_dir`, then from the setting
                cassette_dir; without a suffix it gets that of the setting compression. None for
                the test's own name; the test's second block without a name has another, and so on.
            allow_unused: False to fail the test if it leaves replayed events unused, True not to
                tell of them; None to do what --timetracer-unused says.
        """
        return CassetteBlock(self, path, allow_unused=allow_unused)

    def __enter__(self) -> FixtureCassette:
        """Open the test's own cassette and return it."""
        block = self()
        cassette = block.__enter__()
        self._blocks.append(block)
        return cassette

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Write or close the cassette."""
        self._blocks.pop().__exit__(kind, error, traceback)

    async def __aenter__(self) -> FixtureCassette:
        """Open the test's own cassette and return it."""
        return self.__enter__()

    async def __aexit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Write or close the cassette."""
        self.__exit__(kind, error, traceback)

    def session(self, path: StrPath | None) -> Session:
        """Return a session on a cassette; see `__call__` for its path, `CassetteBlock` for errors.
        """
        from timetracer.blocks import block_config
        from timetracer.opening import open_file

        config = block_config(None, self._kind.mode)
        name = self._own_name() if path is None else os.fspath(path)
        remedy = self._remedy(name)
        where = self._choose(name, config, remedy)
        return open_file(where, config, kind="fixture", remedy=remedy, made_up_data=True)

    def note_unused(
        self, cassette: FixtureCassette, allowed: bool | None, *, raised: bool
    ) -> None:
        """Report the events that answered no call, where that was asked for.

        Args:
            cassette: the cassette, which has some.
            allowed: what the block says of them, None for nothing.
            raised: whether the block ended before its end.
        """
        asked = self._item.config.getoption(UNUSED)
        if allowed is None:
            allowed = _marked(self._item, "allow_unused")
        if allowed:
            return
        events = [
            f"event {event.eid}: {event.method.lower()} on {event.url}"
            for event in cassette.unused
        ]
        told = told_unused(cassette.session.where, events, len(cassette.events))
        if asked:
            self._item.user_properties.append((UNUSED, told))
        if not raised and (allowed is False or asked == "fail"):
            remedy = f"If the test needs them no more, record it again: {cassette.session.remedy}"
            pytest.fail(f"{told}\n{remedy}", pytrace=False)

    def _own_name(self) -> str:
        from timetracer.naming import safe_stem, take_name

        item = self._item
        classes = [node.name for node in item.listchain() if isinstance(node, pytest.Class)]
        stem = safe_stem(".".join([*classes, item.name]))
        self._unnamed += 1
        return f"{safe_stem(item.path.stem)}/{take_name(stem, self._unnamed, '')}"

    def _remedy(self, name: str) -> str:
        here, file = self._item.config.invocation_params.dir, self._item.path
        file = file.relative_to(here) if file.is_relative_to(here) else file
        test = shlex.quote(f"{file}::{self._item.nodeid.partition('::')[2]}")
        return self._kind.remedy.format(name=name, test=test)

    def _choose(self, name: str, config: TraceConfig, remedy: str) -> str:
        """Return the path of a cassette: where it is found, or where it is to be written."""
        from timetracer.config import MODES
        from timetracer.errors import CassetteNotFoundError

        directories = (self._directory, config.cassette_dir)
        places = [os.path.abspath(os.path.join(place, name)) for place in directories]
        reads = MODES[config.mode].reads
        found = next(filter(_is_there, places), None) if reads != "never" else None
        if found is None and reads == "always":
            looked_at = "".join(f"\n  {place}" for place in dict.fromkeys(places))
            raise CassetteNotFoundError(
                f"There is no cassette {name}. Looked at:{looked_at}\nTo record it: {remedy}",
                path=places[0],
            )
        return found or places[0]


def _marked(item: pytest.Item, name: str) -> Any:
    """Return what the narrowest marker says of an argument, None for nothing."""
    given = (mark.kwargs[name] for mark in item.iter_markers("timetracer") if name in mark.kwargs)
    return next(given, None)


def _is_there(path: str) -> bool:
    from timetracer.stores import find_latest, split_suffix
    from timetracer.stores.files import FileStore

    store, name = FileStore.for_path(path)
    return find_latest(store, split_suffix(name)[0]) is not None


# ------------------------------------------------------------------------------- the command line


class _Unused(argparse.Action):
    """Keeps which of its spellings was given."""

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        setattr(namespace, self.dest, (option_string or "").partition("=")[2] or "list")


MODES = ("off", "record", "replay", "once", "new_episodes", "verify")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options and settings."""
    group = parser.getgroup("timetracer", "record and replay MongoDB")
    group.addoption(
        "--timetracer",
        choices=MODES,
        default=None,
        metavar="MODE",
        help=f"what is done with the driver calls of the whole suite: {', '.join(MODES)}",
    )
    group.addoption(
        "--timetracer-cassette-dir",
        metavar="DIR",
        help="the directory of all cassettes; cassettes/ beside each test file by default",
    )
    group.addoption(
        "--timetracer-misses",
        choices=("fail", "report"),
        default="fail",
        help="whether a test fails that missed, even where the program swallowed the error",
    )
    group.addoption(
        "--timetracer-drift",
        choices=("fail", "report"),
        default="fail",
        help="with --timetracer=verify, whether a test fails that the database answers otherwise",
    )
    group.addoption(
        "--timetracer-review",
        action="store_true",
        help="ask what to accept of recordings that are not what was recorded before",
    )
    # Spelled out, so that it does not take a file that follows it for its value.
    group.addoption(
        "--timetracer-unused",
        "--timetracer-unused=list",
        "--timetracer-unused=fail",
        action=_Unused,
        nargs=0,
        default=None,
        dest=UNUSED,
        help="list the events of replayed cassettes that answered no call, or fail their tests",
    )
    group.addoption(
        "--timetracer-prune",
        action="store_true",
        dest=PRUNE,
        help="remove cassettes of tests that are gone, once the whole suite has passed",
    )
    group.addoption(
        "--timetracer-entropy",
        choices=("off", "random", "all"),
        default=None,
        help="which random numbers have a seed in each test's cassette; random by default",
    )
    parser.addini("timetracer_entropy", "as --timetracer-entropy", default=None)
    parser.addini("timetracer", "as --timetracer", default=None)
    parser.addini("timetracer_cassette_dir", "as --timetracer-cassette-dir", default=None)
    parser.addini(
        EXPIRE,
        "age from which on a cassette is stale, and what then: 90d, 90d fail, 90d record",
        default="",
    )
    parser.addini("timetracer_ignore", "places in arguments that are not compared", type="args")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "timetracer(mode, cassettes, ignore, allow_repeats, strict_order, allow_unused, "
        "freeze_time, ...): how the test's driver calls are recorded and replayed",
    )
    if config.getini(EXPIRE):
        _check_expiry(config.getini(EXPIRE))


def _check_expiry(text: str) -> None:
    from timetracer.errors import ConfigError
    from timetracer.integrations.freshness import Expiry

    try:
        Expiry.parse(text)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Note each test before any is deselected."""
    item.config.stash.setdefault(COLLECTED, []).append(item)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Begin before any conftest or test module is imported, where a mode is given."""
    given = early_config.known_args_namespace.timetracer
    mode = (
        given
        or os.environ.get("TIMETRACER_MODE", "").strip().lower()
        or early_config.getini("timetracer")
        or _configured("mode")
    )
    if mode and mode != "off":
        _register_suite(early_config, mode, forced=given is not None)
    elif given == "off":
        from timetracer.config import force

        force(mode="off")
        early_config.add_cleanup(_unforce)


def _unforce() -> None:
    from timetracer.config import force

    force()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin for the tests alone that have a marker, where no mode is given."""
    if any(item.get_closest_marker("timetracer") for item in session.items):
        given = session.config.known_args_namespace.timetracer
        said = given or os.environ.get("TIMETRACER_MODE", "").strip().lower()
        _register_suite(session.config, said or None, forced=given is not None, within=session)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_testnodedown(node: Any, error: Any) -> None:
    """Begin where only the workers of xdist have seen that a test has a marker."""
    known = node.config.pluginmanager
    if SENT in getattr(node, "workeroutput", {}) and not known.has_plugin(KEEPING):
        _register_suite(node.config, None, forced=False)
        known.get_plugin(KEEPING).pytest_testnodedown(node, error)


def _register_suite(
    config: pytest.Config,
    mode: str | None,
    *,
    forced: bool,
    within: pytest.Session | None = None,
) -> None:
    from timetracer.errors import ConfigError
    from timetracer.integrations import housekeeping, out_of_reach, review, suite, verifying

    if config.pluginmanager.has_plugin(suite.NAME):
        return
    if mode is not None and mode not in MODES:
        raise pytest.UsageError(
            f"timetracer: the mode {mode!r} is not known. Allowed: {', '.join(MODES)}"
        )
    try:
        plugin = suite.Suite(config, mode and suite.in_ci(mode), _directory(config), forced=forced)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None
    plugin.asked_mode = mode
    config.pluginmanager.register(plugin, suite.NAME)
    config.pluginmanager.register(verifying.Verifying(plugin), verifying.NAME)
    keeping = housekeeping.Housekeeping(plugin)
    config.pluginmanager.register(keeping, KEEPING)
    config.pluginmanager.register(review.Review(plugin), review.NAME)
    config.pluginmanager.register(out_of_reach.OutOfReach(plugin), out_of_reach.NAME)
    if within is not None:  # who is registered by a hook is not called by it
        keeping.pytest_collection_finish(within)


def _directory(config: pytest.Config) -> str | None:
    """Return the directory of all cassettes, None where each test file has one beside it."""
    given = config.known_args_namespace.timetracer_cassette_dir
    if given:
        return str(given)
    names = ("TIMETRACER_CASSETTE_DIR", "TIMETRACER_DIR")
    from_file = config.getini("timetracer_cassette_dir")
    if from_file and not any(os.environ.get(name) for name in names):
        return str(config.rootpath / from_file)
    return _configured("cassette_dir")


def _configured(name: str) -> str | None:
    """Return a setting of the environment or of pyproject.toml; only where there are any is the
    core imported."""
    here = Path.cwd()
    if not any(one.startswith("TIMETRACER_") for one in os.environ) and not any(
        _has_settings(directory / "pyproject.toml") for directory in (here, *here.parents)
    ):
        return None
    from timetracer.config import configured
    from timetracer.errors import ConfigError

    try:
        value = configured().get(name)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None
    return None if value is None else str(value)


def _has_settings(file: Path) -> bool:
    try:
        return b"tool.timetracer" in file.read_bytes()
    except OSError:
        return False


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_terminal_summary(terminalreporter: Any) -> Generator[None, Any, Any]:
    """List the unused events, after all else. They come with the reports, as a worker of xdist
    sends them too."""
    result = yield
    _tell_at_the_end(terminalreporter)
    return result


def _tell_at_the_end(terminalreporter: Any) -> None:
    config = terminalreporter.config
    if config.getoption(PRUNE) and not config.pluginmanager.has_plugin(KEEPING):
        terminalreporter.write_line(
            "timetracer: nothing is removed: the suite is neither recorded nor replayed. Add "
            "--timetracer=replay."
        )
    if not config.getoption(UNUSED):
        return
    reports = [one for group in terminalreporter.stats.values() for one in group]
    unused = dict.fromkeys(
        (report.nodeid, text)
        for report in reports
        for name, text in getattr(report, "user_properties", ())
        if name == UNUSED
    )
    terminalreporter.section("timetracer: unused events")
    for test, text in unused:
        terminalreporter.write_line(f"{test}: {text}")
    if not unused:
        terminalreporter.write_line("none")
