"""pytest --timetracer=record over cassettes that are there: what a new recording says otherwise.

A test that is recorded again is kept beside its cassette until the run ends. Then all are compared:

    the same in meaning    the cassette stays as it was, and what is recorded anew refers to its ids
    another one            the new recording takes its place, and the summary tells what changed
    refused by a person    (--timetracer-review) the cassette stays, the recording is kept beside it

A cassette that stays holds the ids of its own time. So a new recording is written with those ids
where another cassette made them, such as that of a fixture; and a cassette that refers to ids which
a changed one makes anew is written too, the same in meaning or not.

Each worker of pytest-xdist sets a wider fixture up for itself, and a replay may have fewer workers,
or others. So the takes of such a fixture are made to say the same: all that a run recorded refers
to the ids of the first take.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations, zip_longest
from typing import Any

import pytest

from timetracer.bindings import Run
from timetracer.cassette import Cassette
from timetracer.comparing import KINDS, Drift, Known, compare_tapes, count_kinds
from timetracer.document import rewritten
from timetracer.errors import CassetteError
from timetracer.integrations.freshness import Expiry, confirmed
from timetracer.integrations.suite import FIXTURE, WIDE_NAME, Suite
from timetracer.naming import parse_take, take_name
from timetracer.shared_parts import remove_unused, users_of_shared
from timetracer.stores import write_alone
from timetracer.stores.files import FileStore
from timetracer.volatile import TIME, Token, replace, tokens

logger = logging.getLogger("timetracer")

NAME = "timetracer-review"
OPTION = "--timetracer-review"
_SENT = "timetracer_recorded"
_MOST_TOLD = 10


@dataclass(slots=True)
class Case:
    """One cassette that was recorded in this run.

    Attributes:
        target: the cassette's path.
        beside: the path of the new recording; the cassette's own where there was none before.
        node: the test or fixture.
        began: when its first call was made, in seconds since 1970: a fixture that a test sets up
            comes before the test.
        old: what was there, None where nothing was, or nothing that can be read.
        new: the new recording.
        drift: in what it is another one.
        accepted: whether it is to be in force.
        refused: whether a person has refused it.
        confirmed: whether the cassette stays, and its header is to say that it still holds.
    """

    target: str
    beside: str
    node: str
    began: float
    old: Cassette | None
    new: Cassette
    drift: list[Drift] = field(default_factory=list)
    accepted: bool = False
    refused: bool = False
    confirmed: bool = False

    @classmethod
    def read(cls, target: str, beside: str) -> Case:
        """Read both recordings.

        Raises:
            CassetteError: the new one cannot be read.
        """
        new = _read(beside)
        session = new.header.get("session") or {}
        old = None
        if beside != target:
            try:
                old = _read(target)
            except CassetteError:
                old = None  # damaged, or of another format: there is nothing to keep
        began = new.events[0].evidence().at if new.events else 0.0
        return cls(target, beside, str(session.get("node") or target), began, old, new)


def _case(target: str, beside: str) -> Case | None:
    try:
        return Case.read(target, beside)
    except CassetteError as error:
        logger.error("timetracer: not compared, and left beside %s: %s", target, error)
        return None


def _read(path: str) -> Cassette:
    store, name = FileStore.for_path(path)
    return Cassette(store.read(name), path)


def _form(cassette: Cassette) -> tuple[Any, ...]:
    """Return what a cassette is beside its events; if that is new, so is the file."""
    session = cassette.header.get("session") or {}
    return (
        cassette.header.get("format"),
        cassette.header.get("schema_version"),
        session.get("body_hash"),
        bool(session.get("entropy")),
        bool(session.get("redaction")),
    )


# ------------------------------------------------------------------------------- the workers


def unify(recorded: Iterable[tuple[str, str]]) -> None:
    """Have all that workers recorded refer to the ids of the first that set a wider fixture up.

    Args:
        recorded: the paths of cassettes and of what was recorded.
    """
    paths = list(recorded)
    known: defaultdict[tuple[str, str], Known] = defaultdict(Known)  # of each two workers
    for takes in sorted(_same_setups(paths), key=lambda takes: takes[0].began):
        for one, other in combinations(takes, 2):
            compare_tapes(one.new, other.new, known[_worker(one), _worker(other)])
    earlier = {
        live: min(keys)
        for pair in known.values()
        for live, keys in pair.run.pairs.recorded.items()
        if live not in keys
    }

    def first_one(token: Token) -> str | None:
        key = earlier.get(token.key) if _tells_apart(token) else None
        for _ in range(len(known)):
            key = earlier.get(key, key) if key is not None else None
        return key

    for _, path in paths if earlier else ():
        store, name = FileStore.for_path(path)
        data = store.read(name)
        told = _replaced(data, path, first_one)
        if told != data:
            store.write(name, [told])


def _same_setups(paths: Iterable[tuple[str, str]]) -> Iterator[list[Case]]:
    """Yield the takes of a wider fixture that several workers recorded, each its first one, then
    each its second one; the workers in one order."""
    takes: dict[str, list[tuple[int, str, str]]] = {}
    for target, path in paths:
        base, number, _ = parse_take(target) or (target, 1, "")
        if WIDE_NAME.search(target):
            takes.setdefault(base, []).append((number, target, path))
    for numbered in takes.values():
        cases = [_case(*paths) for _, *paths in sorted(numbered)] if len(numbered) > 1 else []
        workers: dict[str, list[Case]] = {}
        for case in filter(None, cases):
            workers.setdefault(_worker(case), []).append(case)
        for same in zip_longest(*(workers[one] for one in sorted(workers))):
            yield [case for case in same if case is not None]


def _worker(case: Case) -> str:
    """Return what tells the process that recorded a cassette from others."""
    session = case.new.header.get("session") or {}
    return str((session.get("processes") or [{}])[0].get("object_ids"))


# ------------------------------------------------------------------------------- the judgement


def judge(cases: list[Case], known: Known, *, alone_too: bool = False) -> None:
    """Find out in what each recording is another one, and which are to be in force.

    Args:
        cases: the recordings; put in the order in which they were made.
        known: filled with the values of the new recordings that stand for old ones.
        alone_too: whether a recording is the same that is so alone: each worker has fixtures of
            its own, and a test may have been another worker's before.
    """
    cases.sort(key=lambda case: case.began)
    for case in cases:
        if case.old is None:
            case.accepted = True
            continue
        case.drift = compare_tapes(case.old, case.new, known)
        if alone_too and case.drift and not compare_tapes(case.old, case.new, Known()):
            case.drift, case.accepted = [], True
        case.accepted |= bool(case.drift) or _form(case.old) != _form(case.new)


def spread(cases: list[Case], run: Run) -> None:
    """Have those accepted too that refer to ids which an accepted one makes anew."""
    while True:
        anew = {case.target for case in cases if case.accepted and case.old is not None}
        if not anew:
            return
        more = [
            case
            for case in cases
            if not (case.accepted or case.refused)
            and any(run.owners.get(key) in anew - {case.target} for key in _ids(case.old))
        ]
        if not more:
            return
        for case in more:
            case.accepted = True


def confirm(cases: list[Case], expiry: Expiry | None) -> None:
    """Find out which of the cassettes that stay are to say in their headers that they were recorded
    again: those that age, and those whose takes would else seem to be of two recordings.

    Args:
        cases: the recordings, judged.
        expiry: when a cassette is too old, None for never.
    """
    staying = {case.target for case in cases if not case.accepted}
    for case in cases:
        if case.accepted or case.refused or case.old is None:
            continue
        ages = expiry is not None and expiry.is_half_over(case.old.header)
        takes = _takes(case.target) if FIXTURE not in case.node else set()
        case.confirmed = ages or (len(takes) > 1 and not takes <= staying)


def _ids(cassette: Cassette | None) -> set[str]:
    events = cassette.events if cassette is not None else ()
    return {token.key for event in events for token in _tokens(event.line)}


def settle(cases: list[Case], run: Run) -> None:
    """Write what is in force, and remove what is not needed, also of what cassettes share.

    Args:
        cases: the recordings, judged.
        run: which of their values stands for which old one.
    """
    kept = {case.target for case in cases if not case.accepted}
    for case in cases:
        store, name = FileStore.for_path(case.beside)
        if case.accepted:
            data = _with_old_ids(store.read(name), case, run, kept)
            target = FileStore.for_path(case.target)[1]
            if data is not None or name != target:
                write_alone(store, target, [data if data is not None else store.read(name)])
            if name != target:
                store.remove(name)
        elif not case.refused:
            store.remove(name)
            if case.confirmed:
                _write_confirmed(case)
    for directory in {users_of_shared(case.target) for case in cases} - {None}:
        try:
            remove_unused(str(directory))
        except CassetteError as error:
            logger.error("timetracer: what no cassette shares any more is left there: %s", error)


def _takes(path: str) -> set[str]:
    """Return the paths of all takes of a cassette."""
    store, name = FileStore.for_path(path)
    parts = parse_take(name)
    beside = map(parse_take, store.names(parts[0])) if parts is not None else ()
    found = {take_name(*one) for one in beside if one is not None and parts and one[0] == parts[0]}
    return {store.locate(one) for one in found}


def _write_confirmed(case: Case) -> None:
    store, name = FileStore.for_path(case.target)
    by = case.new.header.get("session") or {}
    write_alone(store, name, [confirmed(store.read(name), case.target, by)])


def _with_old_ids(data: bytes, case: Case, run: Run, kept: set[str]) -> bytes | None:
    """Return a recording that refers to the ids of the cassettes that are kept; None for as it is.
    """

    def old(token: Token) -> str | None:
        if not _tells_apart(token):
            return None
        for key in run.pairs.recorded.get(token.key, ()):
            if key != token.key and run.owners.get(key) in kept - {case.target}:
                return key
        return None

    if not any(old(token) for event in case.new.events for token in _tokens(event.line)):
        return None
    return _replaced(data, case.beside, old)


def _replaced(data: bytes, path: str, other: Callable[[Token], str | None]) -> bytes:
    def changed(line: bytes) -> bytes:
        return replace(line.decode(errors="surrogateescape"), other).encode(
            errors="surrogateescape"
        )

    return rewritten(data, path, changed)


def _tokens(line: bytes) -> list[Token]:
    found = tokens(line.decode("utf-8", "replace"))
    return [token for token in found if _tells_apart(token)]


def _tells_apart(token: Token) -> bool:
    """Tell whether a value is hardly the same by chance: many things happen in the same second."""
    return token.kind != TIME or token.form.startswith("date")


# ------------------------------------------------------------------------------- the plugin


class Review:
    """The plugin beside the suite's that looks after recordings of what was recorded before.

    Args:
        suite: the suite's plugin.
    """

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self._workers = False

    def pytest_configure(self, config: pytest.Config) -> None:
        """Refuse to ask where nobody can answer."""
        if config.getoption(OPTION) and not self._is_at_terminal():
            raise pytest.UsageError(
                f"{OPTION} asks what to accept, and there is no terminal to ask at.\n"
                "Run it at a terminal, or leave the option out: then every new recording is "
                "accepted, and the summary tells what changed."
            )

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Send a worker's part to the controller."""
        self.suite.finish_suite()
        output = getattr(self.suite.config, "workeroutput", None)
        if output is not None:
            output[_SENT] = json.dumps(self.suite.recorded)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: Any) -> None:
        """Take in what a worker sent."""
        sent = json.loads(getattr(node, "workeroutput", {}).get(_SENT) or "[]")
        self.suite.recorded += [(target, beside) for target, beside in sent]
        self._workers = True

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> Generator[None, Any, Any]:
        """Judge, ask where that was asked for, and tell what changed."""
        yield
        cases, run = self._judged()
        if any(case.old is not None for case in cases):
            if self.suite.config.getoption(OPTION):
                self._ask(cases, terminalreporter)
            spread(cases, run)
            confirm(cases, self.suite.expiry)
            for line in told(cases):
                terminalreporter.write_line(line)
        settle(cases, run)

    def pytest_unconfigure(self) -> None:
        """Settle it where there was no summary."""
        cases, run = self._judged()
        spread(cases, run)
        confirm(cases, self.suite.expiry)
        settle(cases, run)

    def _judged(self) -> tuple[list[Case], Run]:
        if hasattr(self.suite.config, "workeroutput"):
            return [], Run()
        recorded, self.suite.recorded = self.suite.recorded, []
        if self._workers:
            unify(recorded)
        if all(target == beside for target, beside in recorded):
            return [], Run()  # nothing was there before
        cases = [case for paths in recorded if (case := _case(*paths)) is not None]
        known = Known()
        judge(cases, known, alone_too=self._workers)
        return cases, known.run

    # ------------------------------------------------------------------------- asking

    def _is_at_terminal(self) -> bool:
        with _uncaptured(self.suite.config):
            return sys.stdin is not None and sys.stdin.isatty()

    def _ask(self, cases: Iterable[Case], reporter: Any) -> None:
        """Ask for each way in which recordings are others; who is refused in one is refused."""
        changed = [case for case in cases if case.drift]
        for kind, heading in KINDS.items():
            found = [one for case in changed for one in case.drift if one.kind == kind]
            if not found:
                continue
            reporter.write_line(f"{len(found)} {heading}:")
            for one in found[:_MOST_TOLD]:
                reporter.write_line(_indented(str(one)))
            with _uncaptured(self.suite.config):
                answer = input(f"Accept what is {kind}? [y/N] ")
            if answer.strip().lower() not in ("y", "yes"):
                for case in changed:
                    if any(one.kind == kind for one in case.drift):
                        case.accepted, case.refused = False, True


def told(cases: Iterable[Case]) -> Generator[str, None, None]:
    """Yield what changed, as it is told at the end of the run."""
    again = [case for case in cases if case.old is not None]
    changed = [case for case in again if case.drift]
    same = [case for case in again if not case.drift]
    kept = sum(not (case.accepted or case.confirmed) for case in same)
    confirmed = sum(case.confirmed for case in same)
    more = f", {confirmed} say that they still hold" if confirmed else ""
    yield (
        f"recorded again: {len(changed)} changed in meaning, {len(same)} unchanged "
        f"({kept} files stay as they were{more})"
    )
    for case in changed:
        yield f"{case.node}: {count_kinds(case.drift)}"
        for one in case.drift[:_MOST_TOLD]:
            yield _indented(str(one))
        if len(case.drift) > _MOST_TOLD:
            yield f"    and {len(case.drift) - _MOST_TOLD} more calls"
        if case.refused:
            yield f"    not accepted. To accept it: python -m timetracer accept {case.beside}"


def _indented(text: str) -> str:
    return "    " + text.replace("\n", "\n    ")


class _uncaptured:
    """Gives the terminal back for the length of a `with` block."""

    def __init__(self, config: pytest.Config) -> None:
        self._capture: Any = config.pluginmanager.get_plugin("capturemanager")

    def __enter__(self) -> None:
        if self._capture is not None:
            self._capture.suspend_global_capture(in_=True)

    def __exit__(self, *_: Any) -> None:
        if self._capture is not None:
            self._capture.resume_global_capture()
