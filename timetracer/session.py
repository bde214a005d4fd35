"""The session a call belongs to: a mode, the cassette that answers, the recording that grows.

A request has its session in the ContextVar `CURRENT`; everything else shares the one in `WIDE`.
Both are looked up, opened and ended elsewhere: see `process`, `opening` and `blocks`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import platform
import sys
import uuid
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from itertools import chain
from typing import Any, cast
from weakref import WeakValueDictionary

from timetracer import ambient, document, frozen_time, ledger, runs
from timetracer.call_sites import here, is_importing, site_of
from timetracer.cassette import (
    BODY_HASH,
    Cassette,
    Event,
    Recording,
    Ticket,
    write_failed,
    write_succeeded,
)
from timetracer.comparing import Drift, Verification
from timetracer.config import Mode, TraceConfig
from timetracer.driver import Exchange, Outcome
from timetracer.entropy import Scope, Seed, hash_seed
from timetracer.errors import MissError
from timetracer.evidence import this_process
from timetracer.frozen_time import Moment, perf_counter
from timetracer.matching import AMBIENT, Match
from timetracer.missed import Circumstances, explain
from timetracer.model import Call, Json, RequestRecord, ResponseRecord
from timetracer.recovery import open_spool
from timetracer.redaction import Redactor
from timetracer.shared_parts import Shelf
from timetracer.stores import Store

logger = logging.getLogger("timetracer")


class Pass:
    """Stands for "no session here": calls go straight through, such as those of a request that
    was not sampled."""


PASS = Pass()
_NO_TICKET: Ticket = (0, 0.0)

CURRENT: ContextVar[Session | Exchange | Pass | None] = ContextVar("timetracer", default=None)
"""The session of the request, the driver call that is under way, or None."""


@dataclass(slots=True)
class Wide:
    """The process-wide session: `session` is what calls outside requests belong to, `blocks` are
    the explicit cassettes that are open, the innermost last. In a process that a test started,
    `of_a_test`, `remedy` is what to do about a miss, `node` the test, `seed` its seed, `entropy`
    what a forked one draws from, and `saved` is told of what was recorded again."""

    session: Session | Pass | None
    blocks: list[Session] = field(default_factory=list)
    own: Session | None = None
    default: TraceConfig | None = None
    serves_requests: bool = False
    forked: bool = False
    finishing: bool = False
    ending: int = 0
    remedy: str | None = None
    of_a_test: bool = False
    node: str | None = None
    seed: Seed | None = None
    entropy: Scope | None = None
    saved: Callable[[str, str], None] | None = None

    @property
    def explicit(self) -> Session | None:
        """The explicit cassette that calls outside requests belong to, None where there is none."""
        return self.blocks[-1] if self.blocks else None


SUITE = "suite"
"""The kind of a session that a test has for itself; explicit cassettes may be opened within."""

UNDECIDED = Pass()
WIDE = Wide(UNDECIDED)
"""What this process has beside the sessions of its requests; only `process` changes it."""


_first_session: list[Callable[[], bool | None]] = []
_any_session = False


def at_first_session(prepare: Callable[[], bool | None]) -> None:
    """Have something done once a session is opened, at once if one was: what a program that is
    neither recorded nor replayed need not pay for.

    Args:
        prepare: does it; where it returns True, it is called again at the next session.
    """
    if prepare not in _first_session and (not _any_session or prepare()):
        _first_session.append(prepare)


def _prepare_sessions() -> None:
    global _any_session
    _any_session = True
    waiting = _first_session[::-1]
    _first_session[:] = [prepare for prepare in waiting if prepare()]


class Session:
    """What driver calls are answered from and recorded to, for one request, block or process.

    Attributes:
        mode: the row of the mode in force; "once" is resolved to record or replay.
        config: the resolved settings.
        cassette: what answers calls, None where there is none.
        recording: what calls are added to, None where nothing is recorded.
        where: path of the cassette that is read or written, for messages.
        misses: every miss, also those that the application swallowed.
        layers: further cassettes that answer what `cassette` does not hold.
        imported: what answers calls that a module makes while it is imported, which happens once in
            a process, wherever it is needed first; None where `cassette` alone does.
        verification: what the mode verify has found, None in any other.
        node: the test or fixture that it is for, also in a process of it; None elsewhere.
        seconds: how long it lasted, once it has ended.
        entropy: the random numbers of its program, None where they are left alone.
        seed: what they are made of where the cassette that answers has no seed.
        moment: when its program is to run, None where that is now.
        frozen_at: the time that the program saw as it began, None where that was the real one.
        saved: told the paths of a cassette and of what was recorded, which is kept beside it until
            somebody has compared the two; None where it is written at once.
        shelf: where what other cassettes are likely to hold too is written, None for nowhere.
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
        verification: Verification | None = None,
    ) -> None:
        if _first_session or not _any_session:
            _prepare_sessions()
        self.config = config
        self.mode = mode
        self.where = where
        self.cassette = cassette
        self.recording = recording
        self.remedy = remedy
        self.kind = kind
        self.verification = verification
        self.id = uuid.uuid4().hex
        self.request: RequestRecord | None = None
        self.response: ResponseRecord | None = None
        self.misses: list[MissError] = []
        self.layers: list[Cassette] = []
        self.imported: Cassette | None = None
        self.node: str | None = WIDE.node if kind == "process" else None
        self.seconds = 0.0
        self.topologies: dict[str, Json] = {}
        self.driver_documents: dict[int, Any] = {}
        self.open_cursors: WeakValueDictionary[int, Any] = WeakValueDictionary()
        self.passthrough = frozenset(config.passthrough)
        self.entropy: Scope | None = None
        self.seed: Seed | None = None
        self.moment: Moment | None = None
        self.recorded_at = datetime.fromtimestamp(frozen_time.now(), timezone.utc)
        self.frozen_at = datetime.now(timezone.utc) if frozen_time.is_moved() else None
        self.started = perf_counter()
        self.reopen: Callable[..., Session] | None = None
        self.recorded_late: Callable[[], None] | None = None
        self.saved: Callable[[str, str], None] | None = None
        self.shelf: Shelf | None = None
        self.replays = mode.reads == "always" or (cassette is not None)
        self.only_replays = self.replays and recording is None and verification is None
        self._save = save
        self._replayed_write = False
        self._pid = os.getpid()
        self._failed: set[str] = set()

    # ---------------------------------------------------------------- one call

    def answer(self, call: Call, *, reads: bool, up: int = 1) -> Event | None:
        """Return the recorded event that answers a call; None where it is to be made.

        Args:
            call: the call.
            reads: whether it only reads.
            up: how many frames from here on upwards are known not to be the program's.

        Raises:
            MissError: no event answers it, and it must not be made.
        """
        if not self.replays:
            return None
        if self.verification is not None:
            self._expect(self.verification, call, reads)
            return None
        match = self._find(call, reads)
        if match is not None:
            self._note(match, call, reads)
            match.event.used_by, match.event.used_at = here(up)
            return cast("Event", match.event)
        if self.recording is not None and not self._replayed_write:
            return None
        raise self.miss(call, reads=reads)

    def _find(self, call: Call, reads: bool) -> Match | None:
        match = self.cassette.take(call, reads=reads) if self.cassette is not None else None
        for layer in self.layers if match is None else ():
            match = match or layer.take(call, reads=reads)
        if match is None and self.recording is None:
            match = self._find_elsewhere(call, reads)
        return match

    def _find_elsewhere(self, call: Call, reads: bool) -> Match | None:
        match = None
        if self.imported is not None and is_importing():
            match = self.imported.take(call, reads=reads)
        if match is None and AMBIENT in self.config.levels:
            match = ambient.find(call, self.cassette, self.where)
        return match

    def _expect(self, verification: Verification, call: Call, reads: bool) -> None:
        """Note which event a call is that is made now, once those before it are compared."""
        try:
            verification.settle()
            match = self._find(call, reads)
            if match is not None:
                self._note(match, call, reads)
            event = cast("Event | None", match.event if match is not None else None)
            verification.expect(call, event, here())
        except Exception as error:
            self.failed("look up", error)

    def _note(self, match: Match, call: Call, reads: bool) -> None:
        self._replayed_write = self._replayed_write or not reads
        ambient.note(call, reads)
        match.event.reason, match.event.bound_values = match.reason, match.bound
        if logger.isEnabledFor(logging.DEBUG):
            shown = ", ".join(f"{one} is now {two}" for one, two in match.bound)
            logger.debug(
                "timetracer: event %d of %s answers %s on %s (%s)%s",
                match.event.eid,
                match.event.cassette.path,
                call.method.lower(),
                call.url,
                match.reason,
                f": {shown}" if shown else "",
            )

    def begin(self) -> Ticket:
        """Return the ticket of a call that is made now: its event's place among the others."""
        return _NO_TICKET if self.recording is None else self.recording.ticket()

    def leave_out(self, ticket: Ticket) -> None:
        """Give back the ticket of a call that is no event."""
        if self.recording is not None:
            self.recording.give_back(ticket)

    def record(self, call: Call, outcome: Outcome, ticket: Ticket) -> None:
        """Keep what came of a call; a failure of the recorder is logged, never raised.

        Args:
            call: the call.
            outcome: a snapshot of its answer.
            ticket: what `begin` gave just before the call was made.
        """
        if self.verification is not None:
            self.verification.answered(call, outcome)
        if self.recording is None:
            return
        now = perf_counter()
        eid, began = ticket
        try:
            self.recording.add(
                call, outcome, (began - self.started) * 1000, (now - began) * 1000, eid
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

    def miss(
        self,
        call: Call,
        error: type[MissError] = MissError,
        why: str = "",
        *,
        reads: bool = False,
    ) -> MissError:
        """Return the error for a call that no event answers, and keep it aside.

        Args:
            call: the call.
            error: the error's class.
            why: what happened, where it is another thing than that no event fits.
            reads: whether the call only reads.
        """
        if not why and self.cassette is not None and self.cassette.rests_on_looks(call):
            why = (
                f"{call.method.lower()} on {call.url} rests on values that are known to be made "
                "anew by their look alone: it orders by them or computes with them, or its answer "
                "has them where the program stored none. The answer may be another. "
                "`timetracer learn` shows which values are."
            )
        known = Circumstances(
            call,
            self.where,
            self.cassette.header if self.cassette is not None else None,
            self.mode.name,
            self.cassette.nearest(call) if self.cassette is not None else None,
            site_of(*here()),
            reads,
            self.remedy,
            recordable=not (self._replayed_write and self.recording is not None),
            strict_order=self.config.strict_order,
            entropy=self.config.entropy,
            freezable=self.kind not in ("request", "skipped") and not self.config.freeze_time,
        )
        return self.keep_miss(explain(known, error, why))

    def keep_miss(self, miss: MissError) -> MissError:
        """Keep a miss aside, also for an application that swallows it; once."""
        if any(miss is kept for kept in self.misses):
            return miss
        self.misses.append(miss)
        asked_at = f"\nAsked at {miss.call_site}" if miss.call_site is not None else ""
        # As text: a handler that keeps its records would keep the program's frames alive.
        logger.error("timetracer: %s%s", str(miss), asked_at)
        request = self.request
        ledger.keep_miss(miss, f"{request.method} {request.path}" if request is not None else None)
        return miss

    # ---------------------------------------------------------------- begin and end

    @property
    def drift(self) -> list[Drift]:
        """What the mode verify has found so far: the calls that are not as they were recorded."""
        if self.verification is None:
            return []
        self.verification.settle()
        return list(self.verification.drift)

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
        if self.verification is not None:
            self._tell_drift(self.verification)
        if self.cassette is not None:
            ledger.note_finished(self.cassette)
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

    def _tell_drift(self, verification: Verification) -> None:
        verification.settle(ended=True)
        news = verification.news()
        if self.kind != SUITE:  # a test tells of its own
            for drift in news:
                logger.error("timetracer: %s", drift)

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
            facts["topologies"] = {**(self.base().get("topologies") or {}), **self.topologies}
        return facts

    def base(self) -> dict[str, Json]:
        """Return what the cassette that is added to says of its session."""
        header = self.cassette.header if self.cassette is not None else {}
        return header.get("session") or {}

    def _session_json(self) -> dict[str, Json]:
        base = self.base()
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
            "hash_seed": hash_seed(),
        }
        if self.node is not None:
            session["node"] = self.node
            session["seconds"] = round(self.seconds, 3)
            session["platform"] = sys.platform
        if self.recording is not None and self.recording.surroundings:
            told = base.get("surroundings") or {}
            session["surroundings"] = {**self.recording.surroundings, **told}
        session["processes"] = [*(base.get("processes") or ()), self._process_json()]
        if not base or base.get("body_hash") == BODY_HASH:
            session["body_hash"] = BODY_HASH
        if self.entropy is not None:
            session["entropy"] = self.entropy.kept.dump()
        if self.kind == "process" and WIDE.seed is not None:
            session["test_entropy"] = WIDE.seed.dump()  # the test itself may have no cassette
        if self.frozen_at is not None:
            session["frozen_at"] = self.frozen_at.isoformat(timespec="milliseconds")
        return {**base, **session}

    @property
    def _redactor(self) -> Redactor | None:
        return self.recording.redactor if self.recording is not None else None

    def _process_json(self) -> dict[str, Json]:
        assert self.recording is not None
        told: dict[str, Json] = {
            "from_event": self.recording.first_eid,
            "recorded_at": self.recorded_at.isoformat(timespec="milliseconds"),
            **this_process(),
        }
        if self.frozen_at is not None:
            told["frozen_at"] = self.frozen_at.isoformat(timespec="milliseconds")
        return told

    def spill_to(self, store: Store, name: str) -> None:
        """Have the recording grow in a partial file beside the cassette `name`."""
        assert self.recording is not None
        adds_to = self.cassette is not None
        self.recording.facts = self._facts
        self.recording.spill = lambda: open_spool(
            store, name, self.id, self._session_json(), adds_to=adds_to
        )

    def chunks(self, *, shared: bool = False) -> Iterator[bytes]:
        """Yield the document's bytes.

        Args:
            shared: whether what other cassettes are likely to hold too goes to the `shelf`.
        """
        assert self.recording is not None
        kept = self.cassette.lines if self.cassette is not None else []
        # Before the header, which tells which secrets were replaced in them.
        added = self.recording.lines()
        header, lines = self.header(), chain(kept, added)
        if shared and self.shelf is not None:
            kept_once = self.shelf.put(lines, self.recording.marks, replaces=self.where)
            return document.render(header, kept_once)
        return document.render(header, lines)


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
