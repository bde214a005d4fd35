"""The session a call belongs to: a mode, the cassette that answers, the recording that grows.

A request has its session in a ContextVar. Everything else shares the process-wide one: a cassette
that `use_cassette` or a fixture opened, else the process's own, decided at the first driver call.
`current()` is all that a driver call asks before it goes straight through.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import inspect
import logging
import os
import platform
import random
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from itertools import chain
from threading import RLock
from typing import Any, TypeVar, cast

from timetracer import document, runs, takes
from timetracer.cassette import (
    Cassette,
    Event,
    Recording,
    Unreadable,
    write_failed,
    write_succeeded,
)
from timetracer.codec import dumps
from timetracer.config import MODES, Mode, TraceConfig, resolve
from timetracer.driver import Exchange, Outcome
from timetracer.errors import (
    CassetteError,
    CassetteNotFoundError,
    CassettePathError,
    MissError,
    SessionError,
    StrPath,
    TimetracerError,
)
from timetracer.model import Call, Json, RequestRecord, ResponseRecord
from timetracer.naming import UNIQUE_TEMPLATE, request_stem, script_stem, take_name
from timetracer.recovery import beside_name, open_spool, recover, tell_beside
from timetracer.redaction import RedactionRules, Redactor
from timetracer.stores import SUFFIXES, Store, find_latest, split_suffix, write_alone
from timetracer.stores.files import FileStore

logger = logging.getLogger("timetracer")

_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Pass:
    """Stands for "no session here": calls go straight through, such as those of a request that
    was not sampled."""


PASS = _Pass()

CURRENT: ContextVar[Session | Exchange | _Pass | None] = ContextVar("timetracer", default=None)
"""The session of the request, the driver call that is under way, or None."""


_first_session: list[Callable[[], None]] = []
_any_session = False


def at_first_session(prepare: Callable[[], None]) -> None:
    """Have something done once a session is opened, at once if one was: what a program that is
    neither recorded nor replayed need not pay for."""
    if _any_session:
        prepare()
    else:
        _first_session.append(prepare)


def _prepare_sessions() -> None:
    global _any_session
    _any_session = True
    while _first_session:
        _first_session.pop()()


class Session:
    """What driver calls are answered from and recorded to, for one request, block or process.

    Attributes:
        mode: the row of the mode in force; "once" is resolved to record or replay.
        config: the resolved settings.
        cassette: what answers calls, None where there is none.
        recording: what calls are added to, None where nothing is recorded.
        where: path of the cassette that is read or written, for messages.
        misses: every miss, also those that the application swallowed.
        recorded_late: called after each event, once the session has ended: a task that was
            started in it may go on.
    """

    def __init__(
        self,
        config: TraceConfig,
        mode: Mode,
        *,
        where: str,
        cassette: Cassette | None = None,
        recording: Recording | None = None,
        save: Callable[[Session, bool], str | None] | None = None,
        remedy: str = "run it with TIMETRACER_MODE=record",
        kind: str = "request",
    ) -> None:
        if not _any_session:
            _prepare_sessions()
        self.config = config
        self.mode = mode
        self.where = where
        self.cassette = cassette
        self.recording = recording
        self.remedy = remedy
        self.kind = kind
        self.id = uuid.uuid4().hex
        self.request: RequestRecord | None = None
        self.response: ResponseRecord | None = None
        self.misses: list[MissError] = []
        self.topologies: dict[str, Json] = {}
        self.driver_documents: dict[int, Any] = {}
        self.passthrough = frozenset(config.passthrough)
        self.recorded_at = datetime.now(timezone.utc)
        self.started = time.perf_counter()
        self.reopen: Callable[..., Session] | None = None
        self.recorded_late: Callable[[], None] | None = None
        self.replays = mode.reads == "always" or (cassette is not None)
        self.only_replays = self.replays and recording is None
        self._save = save
        self._replayed_write = False
        self._pid = os.getpid()
        self._failed: set[str] = set()

    # ---------------------------------------------------------------- one call

    def answer(self, call: Call, *, reads: bool) -> Event | None:
        """Return the recorded event that answers a call; None where it is to be made.

        Raises:
            MissError: no event answers it, and it must not be made.
        """
        if not self.replays:
            return None
        match = self.cassette.take(call, reads=reads) if self.cassette is not None else None
        if match is not None:
            logger.debug("timetracer: event %d answers (%s)", match.event.eid, match.reason)
            self._replayed_write = self._replayed_write or not reads
            return cast("Event", match.event)
        if self.recording is not None and not self._replayed_write:
            return None
        raise self.miss(call)

    def record(self, call: Call, outcome: Outcome, started: float) -> None:
        """Keep what came of a call; a failure of the recorder is logged, never raised.

        Args:
            call: the call.
            outcome: a snapshot of its answer.
            started: `time.perf_counter()` when it began, in seconds.
        """
        if self.recording is None:
            return
        now = time.perf_counter()
        try:
            self.recording.add(
                call, outcome, (started - self.started) * 1000, (now - started) * 1000
            )
            if self.recorded_late is not None:
                self.recorded_late()
        except Exception as error:
            self.failed("record", error)

    def failed(self, what: str, error: BaseException) -> None:
        """Log a failure of the recorder itself, once for each kind."""
        kind = f"{what}: {type(error).__name__}"
        if kind not in self._failed:
            self._failed.add(kind)
            logger.error("timetracer: cannot %s a call: %r", what, error, exc_info=error)

    def note_topology(self, seeds: str, servers: Json) -> None:
        """Keep what a client knows of its servers, for replay to give back."""
        self.topologies[seeds] = servers

    def topology(self, seeds: str) -> Json:
        """Return what a recorded client knew of its servers; of any client if that was the only
        one, since a replayed program may be given another URI."""
        header = self.cassette.header if self.cassette is not None else {}
        known = (header.get("session") or {}).get("topologies") or {}
        if seeds in known:
            return known[seeds]
        return next(iter(known.values())) if known else None

    # ---------------------------------------------------------------- misses

    def miss(self, call: Call, error: type[MissError] = MissError, why: str = "") -> MissError:
        """Return the error for a call that no event answers, and keep it aside."""
        found = self.cassette.nearest(call) if self.cassette is not None else None
        event, differences = found or (None, ())
        lines = [why or self._not_there(call)]
        if event is not None:
            lines.append(_nearest_line(event, differences))
        if self._replayed_write and self.recording is not None:
            lines.append(
                "It cannot be recorded now: a replayed write before it never reached the server."
            )
            lines.append("To record it: record the whole cassette again (mode record)")
        else:
            lines.append(f"To record it: {self.remedy}")
        made = error(
            "\n".join(lines),
            call=call,
            cassette=self.where,
            nearest=event,
            differences=differences,
        )
        self.misses.append(made)
        logger.error("timetracer: %s", made)
        return made

    def _not_there(self, call: Call) -> str:
        name = call.method.lower()
        if self.cassette is None:
            return (
                f"{name} on {call.url} cannot be replayed: there is no cassette {self.where} "
                f"(mode {self.mode.name})."
            )
        return f"{name} on {call.url} is not in {self.where} (mode {self.mode.name})."

    # ---------------------------------------------------------------- begin and end

    @property
    def inherited(self) -> bool:
        """Whether it was opened by the process that this one was forked from."""
        return self._pid != os.getpid()

    @contextlib.contextmanager
    def entered(self) -> Iterator[Session]:
        """Make this the session of the calls in the block, and of what the block awaits."""
        token = CURRENT.set(PASS if self.mode.name == "off" else self)
        try:
            yield self
        finally:
            CURRENT.reset(token)

    def finish(
        self, *, failed: bool = False, response: ResponseRecord | None = None
    ) -> str | None:
        """Write the cassette, where there is anything to write.

        Args:
            failed: whether the block ended for reasons of its own, so that the recording may be
                incomplete.
            response: the request's response.

        Returns:
            The path written, None where nothing was.
        """
        self.response = response
        if self.recording is None or self._save is None or self._pid != os.getpid():
            return None
        if not self.recording.count and not self.topologies:
            return None
        try:
            path = self._save(self, failed)
        except Exception as error:
            left = self.recording.release_partial()
            more = f"\nWhat was recorded is in {left}; the next run recovers it." if left else ""
            write_failed(error, more)
            return None
        write_succeeded()
        return path

    def header(self) -> dict[str, Json]:
        """Return the document's keys beside the events. Asked for after the events are rendered,
        since it tells which secrets were replaced."""
        assert self.recording is not None
        redactor = self.recording.redactor
        base = self.cassette.header if self.cassette is not None else {}
        header: dict[str, Json] = {**base, "session": self._session_json()}
        if self.request is not None:
            header["request"] = _redacted(redactor, "redact_request", _request_json(self.request))
        if self.response is not None:
            header["response"] = _redacted(
                redactor, "redact_response", _response_json(self.response)
            )
        header["session"].update(self._facts())
        return header

    def _facts(self) -> dict[str, Json]:
        """Return what the header says of the session and may change until its end."""
        assert self.recording is not None
        redactor = self.recording.redactor
        facts: dict[str, Json] = {}
        if redactor is not None and redactor.labels:
            facts["redacted"] = dict(redactor.labels)
        if self.topologies:
            facts["topologies"] = {**(self._base().get("topologies") or {}), **self.topologies}
        return facts

    def _base(self) -> dict[str, Json]:
        """Return what the cassette that is added to says of its session."""
        header = self.cassette.header if self.cassette is not None else {}
        return header.get("session") or {}

    def _session_json(self) -> dict[str, Json]:
        base = self._base()
        session: dict[str, Json] = {
            "id": self.id,
            "recorded_at": self.recorded_at.isoformat(timespec="milliseconds"),
            "service": self.config.service,
            "env": self.config.env,
            "recorder": f"timetracer {_version('timetracer')}",
            "python": platform.python_version(),
            "drivers": _drivers(),
            "run": runs.run_label(),
            "redaction": bool(base.get("redaction")) or self._redactor is not None,
        }
        return {**base, **session}

    @property
    def _redactor(self) -> Redactor | None:
        return self.recording.redactor if self.recording is not None else None

    def spill_to(self, store: Store, name: str) -> None:
        """Have the recording grow in a partial file beside the cassette `name`."""
        assert self.recording is not None
        adds_to = self.cassette is not None
        self.recording.facts = self._facts
        self.recording.spill = lambda: open_spool(
            store, name, self.id, self._session_json(), adds_to=adds_to
        )

    def chunks(self) -> Iterator[bytes]:
        """Yield the document's bytes."""
        assert self.recording is not None
        kept = self.cassette.lines if self.cassette is not None else []
        # Before the header, which tells which secrets were replaced in them.
        added = self.recording.lines()
        return document.render(self.header(), chain(kept, added))


def _redacted(redactor: Redactor | None, method: str, value: Json) -> Json:
    return value if redactor is None else getattr(redactor, method)(value)


def _request_json(request: RequestRecord) -> Json:
    return {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "route": request.route,
        "headers": [list(pair) for pair in request.headers],
        "body": request.body,
        "body_hash": request.body_hash,
    }


def _response_json(response: ResponseRecord) -> Json:
    return {
        "status": response.status,
        "headers": [list(pair) for pair in response.headers],
        "body": response.body,
        "duration_ms": round(response.duration_ms, 3),
        "error": response.error,
    }


@functools.cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "?"


def _drivers() -> dict[str, str]:
    return {name: _version(name) for name in ("pymongo", "motor") if name in sys.modules}


def _nearest_line(event: Event, differences: Any) -> str:
    if not differences:
        state = " but was already used" if event.used else ""
        return f"Nearest: event {event.eid}, {event.method.lower()} on {event.url}{state}."
    shown = ", ".join(
        f"{difference.path}: recorded {_shown(difference.recorded)}, "
        f"asked {_shown(difference.asked)}"
        for difference in differences
    )
    state = " (already used)" if event.used else ""
    return f"Nearest: event {event.eid}{state}, differs in {shown}."


def _shown(value: Json) -> str:
    text = value if value == "(absent)" else dumps(value).decode("utf-8", "replace")
    return text if len(text) <= 80 else text[:77] + "..."


# ------------------------------------------------------------------------------- the current one


@dataclass(slots=True)
class _Wide:
    """The process-wide session: `session` is what calls outside requests belong to."""

    session: Session | _Pass | None
    explicit: Session | None = None
    own: Session | None = None
    default: TraceConfig | None = None
    serves_requests: bool = False
    forked: bool = False
    finishing: bool = False
    ending: int = 0


_UNDECIDED = _Pass()
_wide = _Wide(_UNDECIDED)
_deciding = RLock()
_finishing = RLock()


def current() -> Session | Exchange | _Pass | None:
    """Return what a driver call belongs to; a Session where it is to be looked at."""
    state = CURRENT.get()
    if state is None:
        state = _wide.session
        if state is _UNDECIDED:
            state = _decide()
    return state


def process_wide() -> Session | _Pass | None:
    """Return what calls outside requests belong to, without deciding it."""
    return _wide.session


def set_default(config: TraceConfig | None, *, serves_requests: bool = False) -> None:
    """Tell what the process's own session is to follow, unless it is decided already."""
    if _wide.default is None:
        _wide.default = config
    _wide.serves_requests = _wide.serves_requests or serves_requests
    if _wide.session is None:
        _wide.session = _UNDECIDED


def _decide() -> Session | None:
    # Looked at when the first call comes, so that a script may set the environment until then.
    # The driver's threads may ask at the same moment, and only one may open the session.
    with _deciding:
        if _wide.session is not _UNDECIDED:
            return cast("Session | None", _wide.session)
        try:
            block = _wide.explicit
            inherited = block.reopen if block is not None else None
            session = _for_child(inherited) if inherited else open_process(resolve(_wide.default))
        except TimetracerError as error:
            logger.error("timetracer is off: %s", error)
            session = None
        _wide.own = session
        if _wide.session is _UNDECIDED:
            _wide.session = session
        return session


def open_process(config: TraceConfig) -> Session | None:
    """Return the process's own session, for calls outside any request; None where it is off."""
    mode = MODES[config.mode]
    if mode.name == "off":
        return None
    try:
        store, stem, suffix = _process_target(config)
        session = _open(config, mode, store, stem, suffix, kind="process", claims=True)
    except (CassetteError, SessionError) as error:
        if mode.reads == "never":
            raise
        logger.error("timetracer: %s", error)
        unreadable: Any = Unreadable(error)
        return Session(config, mode, where=getattr(error, "path", "(none)"), cassette=unreadable)
    if session.recording is not None:
        _finish_at_exit()
    return session


def _process_target(config: TraceConfig) -> tuple[Store, str, str]:
    reads = MODES[config.mode].reads != "never"
    if config.cassette is not None and (reads or not _wide.serves_requests):
        store, name = FileStore.for_path(config.cassette)
        stem, suffix = split_suffix(name)
        return store, stem, suffix
    stem = script_stem(sys.argv[0] if sys.argv else "", sys.modules.get("__main__"))
    return FileStore(config.cassette_dir), stem, SUFFIXES[config.compression]


def _finish_at_exit() -> None:
    _at_exit_once(os.getpid())
    with contextlib.suppress(ValueError):  # only the main thread may set a handler
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _terminated)


@functools.cache
def _at_exit_once(pid: int) -> None:
    atexit.register(_finish_process)
    if _is_workers_process():  # which ends without running exit handlers
        from multiprocessing.util import Finalize

        Finalize(None, _finish_process, exitpriority=0)


def _is_workers_process() -> bool:
    """Whether multiprocessing started this process."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def _terminated(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_DFL)
    session = _wide.own
    if _wide.finishing:
        _wide.ending = number  # the cassette is being written: the signal is passed on after that
    elif session is not None and session.recording is not None and session.recording.busy:
        # The signal may have come in the middle of recording: the program must get out of there.
        threading.Thread(target=_finish_and_end, args=(number,), daemon=True).start()
    else:
        _finish_and_end(number)


def _finish_and_end(number: int) -> None:
    # For a server and for a worker that is no interruption, but how they are ended.
    ordinary = _wide.serves_requests or _wide.forked or _is_workers_process()
    try:
        _finish_process(interrupted=not ordinary)
    finally:
        os.kill(os.getpid(), number)


def _finish_process(*, interrupted: bool = False) -> None:
    stopped = getattr(sys, "last_type", None) is KeyboardInterrupt and not _wide.serves_requests
    with _finishing:
        _wide.finishing = True
        try:
            session, _wide.own = _wide.own, None
            if session is not None:
                session.finish(failed=interrupted or stopped)
                if _wide.session is session:
                    _wide.session = PASS
        finally:
            _wide.finishing = False
    if _wide.ending:
        os.kill(os.getpid(), _wide.ending)


def reset_process() -> None:
    """Finish the process's own session and decide anew at the next call."""
    _finish_process()
    if _wide.explicit is None:
        _wide.session = _UNDECIDED
    _wide.default = None
    _wide.serves_requests = False


def _shared_recordings() -> Iterator[Recording]:
    """The recordings that a forked child finds in its memory."""
    for session in (_wide.own, _wide.explicit, CURRENT.get()):
        if isinstance(session, Session) and session.recording is not None:
            yield session.recording


def _before_fork() -> None:
    for recording in _shared_recordings():
        recording.rest()


def _after_fork_in_parent() -> None:
    for recording in _shared_recordings():
        recording.go_on()


def _after_fork() -> None:
    """A child's calls are its own: it opens its own session at its first call, and never writes
    what its parent recorded."""
    global _deciding, _finishing
    _deciding, _finishing = RLock(), RLock()  # another thread of the parent may have held them
    for recording in _shared_recordings():
        recording.abandon()
    if isinstance(CURRENT.get(), Session):
        CURRENT.set(None)
    _wide.forked = True
    _wide.finishing = False
    _wide.own = None
    if _wide.explicit is None or _wide.explicit.mode.name != "off":
        _wide.session = _UNDECIDED


def _for_child(reopen: Callable[..., Session]) -> Session:
    """Return the session of a child that was forked inside a block: beside the parent's."""
    session = reopen(kind="process", claims=True, first_take=2)
    if session.recording is not None:
        _finish_at_exit()
    return session


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork,
    )


# ------------------------------------------------------------------------------- opening


def open_request(config: TraceConfig, request: RequestRecord) -> Session | None:
    """Return the session of an HTTP request, None where its calls are nobody's concern.

    Args:
        config: resolved settings.
        request: the request, its body as far as it is known when the request begins.
    """
    mode = MODES[config.mode]
    if mode.name == "off" or _wide.explicit is not None:
        return None
    # The system's generator: the program's own random numbers stay as they are.
    skipped = config.excludes(request.path) or (
        random.SystemRandom().random() >= config.sample_rate
    )
    if skipped and mode.reads == "never":
        return Session(config, MODES["off"], where="(not recorded)", kind="skipped")
    named = _named_request(config, mode, request)
    session = named or _found_request(config, mode, request)
    session.request = request
    return session


def _named_request(config: TraceConfig, mode: Mode, request: RequestRecord) -> Session | None:
    if config.cassette is None:
        return None
    store, name = FileStore.for_path(config.cassette)
    stem, suffix = split_suffix(name)
    if mode.reads != "never" and (mode.reads == "always" or store.exists(name)):
        return _open(config, mode, store, stem, suffix, kind="request")
    if mode.records != "never" and runs.claim("cassette", store.locate(name)):
        return _open(config, mode, store, stem, suffix, kind="request")
    return None


def _found_request(config: TraceConfig, mode: Mode, request: RequestRecord) -> Session:
    store = FileStore(config.cassette_dir)
    suffix = SUFFIXES[config.compression]
    stem = _request_name(config, mode, request)
    cassette = found = None
    where = store.locate(stem + suffix)
    if mode.reads != "never":
        found = takes.choose_take(
            store, stem, request, earlier_runs_only=mode.records != "never"
        )
        if found is not None:
            where = store.locate(found[0])
            cassette = _load(found[1], where, config)
    recording = None
    if mode.records == "always" or (mode.records == "when_absent" and cassette is None):
        recording = _recording(config, cassette)
    partial = config.errors_only or config.sample_rate < 1
    claimed: list[str] = []

    def save(session: Session, failed: bool) -> str | None:
        if config.errors_only and not _is_error(session.response):
            return None
        if found is not None:
            return _save(session, failed, store, found[0], write_alone)
        if not claimed:  # calls made while a response is closed are written to the same take
            claimed.append(stem + suffix if partial else takes.claim_take(store, stem, suffix))
        return _save(session, failed, store, claimed[0], takes.write_take)

    return Session(
        config, mode, where=where, cassette=cassette, recording=recording, save=save
    )


def _request_name(config: TraceConfig, mode: Mode, request: RequestRecord) -> str:
    redactor = Redactor(redaction_rules(config), runs.run_secret()) if _redacts(config) else None

    def shown(text: str) -> str:
        return redactor.redact_text(text) if redactor is not None else text

    template = config.name_template
    if template is None and mode.reads == "never" and (
        config.errors_only or config.sample_rate < 1
    ):
        template = UNIQUE_TEMPLATE
    return request_stem(
        request.method,
        shown(request.path),
        shown(request.query),
        template,
        route=request.route,
        id=uuid.uuid4().hex[:8],
        service=config.service,
        env=config.env,
    )


def _is_error(response: ResponseRecord | None) -> bool:
    return response is not None and (response.status >= 400 or response.error is not None)


def open_file(
    path: StrPath,
    config: TraceConfig,
    *,
    kind: str = "block",
    remedy: str | None = None,
    made_up_data: bool = False,
) -> Session:
    """Return a session on the cassette at a path that a developer gives; it may lie anywhere.

    Args:
        path: the cassette's path.
        config: resolved settings with the mode.
        kind: what the session is for: "block" or "fixture".
        remedy: what to do about a miss.
        made_up_data: whether documents are test data, in which nothing is redacted unless asked.

    Raises:
        CassetteError: the cassette cannot be read.
    """
    store, name = FileStore.for_path(path)
    stem, suffix = split_suffix(name)
    if not suffix and store.exists(name):
        raise CassettePathError(
            f"{store.locate(name)} has no name of a cassette, which ends in "
            f"{' or '.join(SUFFIXES.values())}.\nIf it is one: rename it.",
            path=store.locate(name),
        )
    try:
        return _open(
            config,
            MODES[config.mode],
            store,
            stem,
            suffix or SUFFIXES[config.compression],
            kind=kind,
            remedy=remedy,
            made_up_data=made_up_data,
            missing_is_error=True,
        )
    except CassetteNotFoundError as error:
        if remedy is None:
            raise
        told = str(error).rpartition("\n")[0]
        raise CassetteNotFoundError(f"{told}\nTo record it: {remedy}", path=error.path) from None


def _open(
    config: TraceConfig,
    mode: Mode,
    store: Store,
    stem: str,
    suffix: str,
    *,
    kind: str,
    remedy: str | None = None,
    claims: bool = False,
    first_take: int = 1,
    made_up_data: bool = False,
    missing_is_error: bool = False,
) -> Session:
    if mode.name != "off" and (kind != "request" or find_latest(store, stem) is None):
        recover(store, stem, replace=config.accept_interrupted)
    name = _claimed_name(store, stem, suffix, mode, first_take) if claims else stem + suffix
    found = _existing(store, name, mode)
    where = store.locate(found or name)
    cassette = None
    if found is not None:
        cassette = _load(store.read(found), where, config)
    elif mode.reads == "always" and missing_is_error:
        store.read(name)  # raises the error that tells what is there instead
    recording = None
    if mode.records == "always" or (mode.records == "when_absent" and cassette is None):
        recording = _recording(config, cassette, made_up_data=made_up_data)
    target = found or name

    def save(session: Session, failed: bool) -> str | None:
        return _save(session, failed, store, target, write_alone)

    session = Session(
        config,
        mode,
        where=where,
        cassette=cassette,
        recording=recording,
        save=save,
        kind=kind,
        **({"remedy": remedy} if remedy else {}),
    )
    session.reopen = functools.partial(
        _open, config, mode, store, stem, suffix, remedy=remedy, made_up_data=made_up_data
    )
    if recording is not None and kind != "request":
        session.spill_to(store, target)
        if _wide.forked:  # os._exit is how such a process ends: nothing of it may wait
            recording.spill_events = 1
    return session


def _claimed_name(store: Store, stem: str, suffix: str, mode: Mode, take: int) -> str:
    """Return the name that this process has among those of its run: x.json, x.2.json, ..."""
    kind = "process-replay" if mode.reads == "always" else "process"
    while not runs.claim(kind, store.locate(take_name(stem, take, ""))):
        take += 1
    name = take_name(stem, take, suffix)
    if mode.reads == "always":
        while take > 1 and find_latest(store, take_name(stem, take, "")) is None:
            take -= 1  # more processes than there were: they share the last one's cassette
        name = take_name(stem, take, suffix)
    return name


def _existing(store: Store, name: str, mode: Mode) -> str | None:
    if mode.reads == "never":
        return None
    stem, suffix = split_suffix(name)
    return find_latest(store, stem) if suffix else (name if store.exists(name) else None)


def _load(data: bytes, where: str, config: TraceConfig) -> Cassette:
    return Cassette(
        data,
        where,
        allow_repeats=config.allow_repeats,
        strict_order=config.strict_order,
        match_lib=config.match_lib,
    )


def _recording(
    config: TraceConfig, cassette: Cassette | None, *, made_up_data: bool = False
) -> Recording:
    redactor = None
    if _redacts(config, made_up_data=made_up_data):
        labels = cassette.labels if cassette is not None else None
        redactor = Redactor(redaction_rules(config), runs.run_secret(), labels)
    last = max((event.eid for event in cassette.events), default=0) if cassette is not None else 0
    return Recording(
        redactor=redactor, before_record=config.before_record, first_eid=last + 1
    )


def _redacts(config: TraceConfig, *, made_up_data: bool = False) -> bool:
    return config.redact is True or (config.redact == "auto" and not made_up_data)


@functools.lru_cache(maxsize=32)
def redaction_rules(config: TraceConfig) -> RedactionRules:
    """Return the rules that the settings make."""
    return RedactionRules(
        names=frozenset(config.redact_names),
        keep_names=frozenset(config.keep_names),
        paths=tuple(config.redact_paths),
        patterns=tuple(cast("Any", config.redact_patterns)),
    )


def _save(
    session: Session,
    failed: bool,
    store: Store,
    name: str,
    write: Callable[[Store, str, Iterator[bytes]], None],
) -> str | None:
    """Write a session's cassette; beside the one that is there, if it may be worth less."""
    recording = session.recording
    assert recording is not None
    there = find_latest(store, split_suffix(name)[0]) is not None
    unreached = recording.count > 0 and not recording.reached_server
    if there and (failed or unreached) and not session.config.accept_interrupted:
        beside = beside_name(name, session.id)
        store.write(beside, session.chunks())
        recording.discard_partial()
        tell_beside(
            store, name, beside, "was interrupted" if failed else "reached no server"
        )
        return store.locate(beside)
    write(store, name, session.chunks())
    recording.discard_partial()
    logger.info("timetracer: recorded %d events in %s", recording.count, store.locate(name))
    return store.locate(name)


# ------------------------------------------------------------------------------- use_cassette


class use_cassette:
    """Record to, or replay from, one cassette: a context manager and a decorator, sync and async.

        with timetracer.use_cassette("cassettes/orders.json", mode="once"):
            ...

    Outside requests it is process-wide: calls in threads and executors belong to it too.

    Args:
        path: the cassette; it may lie anywhere.
        mode: "record", "replay", "once", "new_episodes" or "off"; by default the configured mode,
            and "once" where none is.
        config: further settings, a TraceConfig.

    Raises:
        ConfigError: a setting has a bad value.
        CassetteError: the cassette cannot be read (on entering).
        SessionError: another process-wide cassette is open (on entering).
    """

    def __init__(
        self, path: StrPath, mode: str | None = None, *, config: TraceConfig | None = None
    ) -> None:
        self._path = path
        self._given = (config, mode)
        self._open: list[tuple[Session, Any]] = []
        block_config(config, mode)  # a bad value is told here, where it is given

    def __enter__(self) -> Session:
        """Open the cassette and return its session."""
        config, mode = self._given
        fixed = mode is not None or (config is not None and "mode" in config.given)
        session = open_file(
            self._path,
            block_config(config, mode),
            remedy=f'use_cassette("{os.fspath(self._path)}", mode="record")' if fixed else None,
        )
        self._open.append((session, enter_block(session)))
        return session

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Write or close the cassette."""
        session, token = self._open.pop()
        leave_block(session, token)
        session.finish(failed=error is not None)

    async def __aenter__(self) -> Session:
        """Open the cassette and return its session."""
        return self.__enter__()

    async def __aexit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Write or close the cassette."""
        self.__exit__(kind, error, traceback)

    def __call__(self, function: _Function) -> _Function:
        """Return the function with the cassette open while it runs.

        Raises:
            SessionError: it is no function whose end is the end of the block.
        """
        _check_function(function)
        config, mode = self._given
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                with use_cassette(self._path, mode, config=config):
                    return await function(*args, **kwargs)

            return cast("_Function", awaited)

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            with use_cassette(self._path, mode, config=config):
                return function(*args, **kwargs)

        return cast("_Function", called)


def _check_function(function: Any) -> None:
    name = getattr(function, "__name__", repr(function))
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise SessionError(
            f"use_cassette cannot decorate the generator {name}: its body runs after the call. "
            "Write `with use_cassette(...)` in its body, or around the loop over it."
        )
    if inspect.isclass(function) or not callable(function) or isinstance(function, staticmethod):
        raise SessionError(
            f"use_cassette decorates functions, and {name} is none. Decorate its methods, below "
            "@classmethod and @staticmethod."
        )


def block_config(config: TraceConfig | None, mode: str | None) -> TraceConfig:
    """Return the settings of an explicit cassette; "once" where no mode is configured."""
    resolved = config.resolve() if config is not None else resolve()
    if mode is not None:
        return resolve(config, mode=mode) if config is None else config.resolve(mode=mode)
    if resolved.mode == "off" and os.environ.get("TIMETRACER_MODE", "").lower() != "off":
        return resolved.resolve(mode="once")
    return resolved


def enter_block(session: Session) -> Any:
    """Make a session the current one: of the request inside one, else of the whole process.

    Raises:
        SessionError: another one is open.
    """
    outer = CURRENT.get()
    state: Session | _Pass = PASS if session.mode.name == "off" else session
    if isinstance(outer, Session) and outer.kind not in ("request", "skipped"):
        raise _overlap(outer, session)
    if outer is not None:
        return CURRENT.set(state)
    with _deciding:
        if _wide.explicit is not None:
            raise _overlap(_wide.explicit, session)
        _wide.explicit, _wide.session = session, state
    return None


def leave_block(session: Session, token: Any) -> None:
    """Undo `enter_block`."""
    if token is not None:
        CURRENT.reset(token)
        return
    if session.inherited:
        _finish_process()
    _wide.explicit = None
    _wide.session = _wide.own or _UNDECIDED


def _overlap(open_one: Session, session: Session) -> SessionError:
    return SessionError(
        f"{open_one.where} is still open, so {session.where} cannot be opened: calls outside "
        "requests belong to one cassette at a time. Leave the first block before the second."
    )
