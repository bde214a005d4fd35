"""Which session is the current one in this process: its own, an explicit one, or none.

A request has its session in a ContextVar. Everything else shares the process-wide one: a cassette
that `use_cassette` or a fixture opened, else the process's own, decided at the first driver call.
`current()` is all that a driver call asks before it goes straight through. A process ends by its
exit, a signal or a fork, and each leaves its cassette whole.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from threading import RLock
from typing import Any, cast

from timetracer import runs
from timetracer.cassette import Recording, Unreadable
from timetracer.config import MODES, TraceConfig, resolve
from timetracer.driver import Exchange
from timetracer.entropy import Scope, open_scope
from timetracer.errors import CassetteError, ConfigError, SessionError, TimetracerError
from timetracer.frozen_time import open_moment
from timetracer.naming import script_stem
from timetracer.opening import open_cassette
from timetracer.session import CURRENT, PASS, SUITE, UNDECIDED, WIDE, Pass, Session
from timetracer.stores import SUFFIXES, Store, find_latest, split_suffix
from timetracer.stores.files import FileStore

logger = logging.getLogger("timetracer")

_deciding = RLock()
_finishing = RLock()


def current() -> Session | Exchange | Pass | None:
    """Return what a driver call belongs to; a Session where it is to be looked at."""
    state = CURRENT.get()
    if state is None:
        state = WIDE.session
        if state is UNDECIDED:
            state = _decide()
    return state


def process_wide() -> Session | Pass | None:
    """Return what calls outside requests belong to, without deciding it."""
    return WIDE.session


def set_default(config: TraceConfig | None, *, serves_requests: bool = False) -> None:
    """Tell what the process's own session is to follow, unless it is decided already."""
    if WIDE.default is None:
        WIDE.default = config
    WIDE.serves_requests = WIDE.serves_requests or serves_requests
    if WIDE.serves_requests and WIDE.own is not None and not WIDE.of_a_test:
        _leave_scopes(WIDE.own, for_good=True)
    if WIDE.session is None:
        WIDE.session = UNDECIDED


def _decide() -> Session | None:
    # Looked at when the first call comes, so that a script may set the environment until then.
    # The driver's threads may ask at the same moment, and only one may open the session.
    with _deciding:
        if WIDE.session is not UNDECIDED:
            return cast("Session | None", WIDE.session)
        try:
            block = WIDE.explicit
            inherited = block.reopen if block is not None else None
            session = _for_child(inherited) if inherited else open_process(resolve(WIDE.default))
        except TimetracerError as error:
            logger.error("timetracer is off: %s", error)
            session = None
        WIDE.own = session
        if WIDE.session is UNDECIDED:
            WIDE.session = session
        return session


def open_process(config: TraceConfig) -> Session | None:
    """Return the process's own session, for calls outside any request; None where it is off."""
    mode = MODES[config.mode]
    if mode.name == "off":
        return None
    try:
        store, stem, suffix = _process_target(config)
        session = open_cassette(
            config,
            mode,
            store,
            stem,
            suffix,
            kind="process",
            claims=True,
            remedy=WIDE.remedy,
            made_up_data=WIDE.of_a_test,
        )
        if WIDE.of_a_test:
            _have_from_test(session)
        if WIDE.of_a_test or _is_script():
            _enter_scopes(session)
    except (CassetteError, ConfigError, SessionError) as error:
        if mode.reads == "never":
            raise
        logger.error("timetracer: %s", error)
        unreadable: Any = Unreadable(error)
        return Session(config, mode, where=getattr(error, "path", "(none)"), cassette=unreadable)
    return _watched(session)


def _watched(session: Session) -> Session:
    """Have what a process finds told, however it ends."""
    if session.recording is not None or session.verification is not None:
        finish_at_exit()
    if session.verification is not None:
        session.verification.at_once = WIDE.forked
    return session


def _process_target(config: TraceConfig) -> tuple[Store, str, str]:
    reads = MODES[config.mode].reads != "never"
    if config.cassette is not None and (reads or WIDE.of_a_test or not WIDE.serves_requests):
        store, name = FileStore.for_path(config.cassette)
        stem, suffix = split_suffix(name)
        return store, stem, suffix
    stem = script_stem(sys.argv[0] if sys.argv else "", sys.modules.get("__main__"))
    return FileStore(config.cassette_dir), stem, SUFFIXES[config.compression]


def finish_at_exit() -> None:
    """Have the cassette written when the process ends, also by SIGTERM."""
    _at_exit_once(os.getpid())
    with contextlib.suppress(ValueError):  # only the main thread may set a handler
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _terminated)


@functools.cache
def _at_exit_once(pid: int) -> None:
    atexit.register(finish_process)
    if _is_workers_process():  # which ends without running exit handlers
        from multiprocessing.util import Finalize

        Finalize(None, finish_process, exitpriority=0)


def _is_workers_process() -> bool:
    """Whether multiprocessing started this process."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def _terminated(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_DFL)
    session = WIDE.own
    if WIDE.finishing:
        WIDE.ending = number  # the cassette is being written: the signal is passed on after that
    elif session is not None and session.recording is not None and session.recording.busy:
        # The signal may have come in the middle of recording: the program must get out of there.
        threading.Thread(target=_finish_and_end, args=(number,), daemon=True).start()
    else:
        _finish_and_end(number)


def _finish_and_end(number: int) -> None:
    # For a server, a worker and what a test starts that is no interruption: so they are ended.
    ordinary = WIDE.serves_requests or WIDE.of_a_test or WIDE.forked or _is_workers_process()
    try:
        finish_process(interrupted=not ordinary)
    finally:
        os.kill(os.getpid(), number)


def finish_process(*, interrupted: bool = False) -> None:
    stopped = getattr(sys, "last_type", None) is KeyboardInterrupt and not WIDE.serves_requests
    with _finishing:
        WIDE.finishing = True
        try:
            session, WIDE.own = WIDE.own, None
            if session is not None:
                _leave_scopes(session, for_good=True)
                session.finish(failed=interrupted or stopped)
                if WIDE.session is session:
                    WIDE.session = PASS
        finally:
            WIDE.finishing = False
    if WIDE.ending:
        os.kill(os.getpid(), WIDE.ending)


def reset_process() -> None:
    """Finish the process's own session and decide anew at the next call."""
    finish_process()
    if WIDE.explicit is None:
        WIDE.session = UNDECIDED
    WIDE.default = None
    WIDE.serves_requests = False


def _shared_recordings() -> Iterator[Recording]:
    """The recordings that a forked child finds in its memory."""
    for session in (WIDE.own, *WIDE.blocks, CURRENT.get()):
        if isinstance(session, Session) and session.recording is not None:
            yield session.recording


def _test_scope() -> Scope | None:
    """The random numbers of this process, where it is a test's or one that a test started."""
    block = WIDE.explicit
    if WIDE.entropy is not None or block is None:
        return WIDE.entropy or (WIDE.own.entropy if WIDE.of_a_test and WIDE.own else None)
    return block.entropy if block.kind == SUITE else None


def _before_fork() -> None:
    for recording in _shared_recordings():
        recording.rest()
    scope = _test_scope()
    if scope is not None:
        scope.forks += 1


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
    scope = _test_scope()
    if scope is not None:
        WIDE.seed = WIDE.seed or scope.seed
        WIDE.entropy = scope.of_fork()
        WIDE.entropy.enter()
    if isinstance(CURRENT.get(), Session):
        CURRENT.set(None)
    WIDE.forked = True
    WIDE.finishing = False
    WIDE.own = None
    if WIDE.explicit is None or WIDE.explicit.mode.name != "off":
        WIDE.session = UNDECIDED


def _for_child(reopen: Callable[..., Session]) -> Session:
    """Return the session of a child that was forked inside a block: beside the parent's."""
    block = WIDE.explicit
    own_stem = block is not None and block.kind == SUITE  # else it is beside the parent's
    session = reopen(kind="process", claims=True, first_take=1 if own_stem else 2)
    session.node = block.node if block is not None else None
    if own_stem:
        _have_from_test(session)
        _enter_scopes(session)
    return _watched(session)


def _have_from_test(session: Session) -> None:
    """Give the session of a process that a test started what the test keeps for it."""
    stem = split_suffix(os.path.basename(session.where))[0]
    session.seed = WIDE.seed.of(stem) if WIDE.seed is not None else None
    session.entropy = WIDE.entropy
    if session.mode.name == "record":
        session.saved = WIDE.saved


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork,
    )


# ------------------------------------------------------------------------------- their scopes


def begin_script() -> None:
    """Open the process's own session before its first call, where settings ask for random numbers
    or for a time: what a script draws and reads from the clock until then counts as well."""
    with _deciding:
        if WIDE.session is UNDECIDED and WIDE.explicit is None and (WIDE.of_a_test or _is_script()):
            config = resolve(WIDE.default)
            asked = config.entropy != "off" or config.freeze_time
            known = WIDE.of_a_test or MODES[config.mode].records != "never"
            if asked and (known or _is_recorded(config)):
                _decide()


def _is_recorded(config: TraceConfig) -> bool:
    if MODES[config.mode].reads == "never":
        return False
    store, stem, _ = _process_target(config)
    return find_latest(store, stem) is not None


def _is_script() -> bool:
    """Whether all that runs here is one program of one process."""
    many = WIDE.serves_requests or WIDE.forked or _is_workers_process() or runs.is_child()
    return not many and "pytest" not in sys.modules


def _enter_scopes(session: Session) -> None:
    if session.mode.name == "off":
        return
    config, base = session.config, session.base()
    records = session.recording is not None
    if session.entropy is None:  # else it goes on: a fixture is entered again to be torn down
        session.entropy = open_scope(
            config.entropy, base.get("entropy"), records=records, otherwise=session.seed
        )
    if session.moment is None:
        session.moment = open_moment(config.freeze_time and session.only_replays, base)
    if session.moment is not None:
        session.moment.enter()
    if session.entropy is not None:
        session.entropy.enter()


def _leave_scopes(session: Session, *, for_good: bool) -> None:
    if session.entropy is not None:
        session.entropy.leave(for_good=for_good)
    if session.moment is not None:
        session.moment.leave()


# ------------------------------------------------------------------------------- explicit ones


def enter_block(session: Session) -> Any:
    """Make a session the current one: of the request inside one, else of the whole process.

    Raises:
        ConfigError: the random numbers or the time that it asks for cannot be had here.
        SessionError: another one is open.
    """
    outer = CURRENT.get()
    state: Session | Pass = PASS if session.mode.name == "off" else session
    if isinstance(outer, Session) and outer.kind not in ("request", "skipped"):
        raise _overlap(outer, session)
    if outer is not None:
        return CURRENT.set(state)
    with _deciding:
        below = WIDE.blocks[-1] if WIDE.blocks else None
        if below is not None and SUITE not in (below.kind, session.kind):
            raise _overlap(below, session)
        _enter_scopes(session)
        WIDE.blocks.append(session)
        WIDE.session = state
    return None


def leave_block(session: Session, token: Any, *, for_good: bool = False) -> None:
    """Undo `enter_block`.

    Args:
        session: the session.
        token: what `enter_block` returned.
        for_good: whether the session is not entered again.
    """
    if token is not None:
        CURRENT.reset(token)
        return
    _leave_scopes(session, for_good=for_good)
    if session.inherited:
        finish_process()
    with _deciding:
        WIDE.blocks.remove(session)
        below = WIDE.explicit
        if below is None:
            WIDE.session = WIDE.own or UNDECIDED
        else:
            WIDE.session = PASS if below.mode.name == "off" else below


def _overlap(open_one: Session, session: Session) -> SessionError:
    return SessionError(
        f"{open_one.where} is still open, so {session.where} cannot be opened: calls outside "
        "requests belong to one cassette at a time. Leave the first block before the second."
    )
