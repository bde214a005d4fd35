"""Motor: PyMongo's own rows, reached through classes that Motor froze when it was imported.

Motor runs PyMongo's methods in threads; its classes hold the functions that PyMongo had at import.
So whatever is wrapped in PyMongo afterwards has to be bound into Motor's classes anew. Futures and
latent cursors stay Motor's own work; a call is Motor's when its client was made by Motor.
"""

from __future__ import annotations

import inspect
import sys
import weakref
from threading import RLock
from typing import Any

from timetracer.call_sites import ASKED, here
from timetracer.driver import GuardRow
from timetracer.intercept import ERRAND, Errand, Installation, is_loaded
from timetracer.plugins import clients, pymongo
from timetracer.process import current
from timetracer.session import PASS, Session, at_first_session

LIB = clients.MOTOR
_METAPROGRAMMING = "motor.metaprogramming"
_FRAMEWORKS = ("motor.frameworks.asyncio", "motor.frameworks.tornado")

_as_imported: dict[type, dict[str, Any]] = {}
"""The classes that were there before PyMongo was wrapped, with what they held then."""


def enable_motor() -> None:
    """Record and replay the calls of every Motor client, on asyncio and on tornado.

    It may come before or after `import motor`. Once is enough; more than once does no harm.

    Raises:
        ConfigError: a setting in the environment or in pyproject.toml is unknown or bad.
    """
    pymongo.switch_on(LIB)
    _bind(_classes())
    _watch_executors()
    at_first_session(_watch_executors)


def disable_motor() -> None:
    """Undo `enable_motor`, leaving no trace in Motor or PyMongo."""
    pymongo.switch_off(LIB)
    _restore()
    _leave_executors()


# ------------------------------------------------------------------------------- frozen classes


def _classes() -> dict[type, type]:
    """Return Motor's classes, each with what it was made from."""
    module = sys.modules.get(_METAPROGRAMMING)
    cache = getattr(module, "_class_cache", {})
    return {made: key[0] for key, made in cache.items()}


def _attributes(source: type) -> list[tuple[str, Any]]:
    factory = sys.modules[_METAPROGRAMMING].MotorAttributeFactory
    return [
        (name, attribute)
        for base in reversed(inspect.getmro(source))
        for name, attribute in vars(base).items()
        if isinstance(attribute, factory)
    ]


def _bind(classes: dict[type, type]) -> None:
    for made, source in classes.items():
        for name, attribute in _attributes(source):
            setattr(made, name, attribute.create_attribute(made, name))


def _remember() -> None:
    for made, source in _classes().items():
        held = vars(made)
        _as_imported[made] = {name: held[name] for name, _ in _attributes(source)}


def _restore() -> None:
    for made, held in _as_imported.items():
        for name, value in held.items():
            setattr(made, name, value)


def _forget() -> None:
    """PyMongo is as it was: so are the classes that Motor made in the meantime, once bound."""
    _restore()
    _bind({made: source for made, source in _classes().items() if made not in _as_imported})
    _as_imported.clear()


pymongo.before_installing.append(_remember)
pymongo.after_uninstalling.append(_forget)


# ------------------------------------------------------------------------------- cancelled calls


_watched: dict[str, Installation] = {}
_latest: weakref.ref[Errand] | None = None
"""The errand that the next one in replay is answered after, as long as it is there."""
_asking = RLock()


def _watch_executors() -> bool:
    """Watch the leaf of every framework that is loaded; tell whether to look again at the next
    session, since Motor may be imported between two."""
    if LIB not in clients.enabled:
        return False
    for place in _FRAMEWORKS:
        if is_loaded(place) and place not in _watched:
            row = GuardRow(place, "run_on_executor", _execute)
            _watched[place] = Installation(pymongo.PLUGIN, (), (row,), ())
            _watched[place].install()
    return len(_watched) < len(_FRAMEWORKS)


def _leave_executors() -> None:
    while _watched:
        _watched.popitem()[1].uninstall()


def _execute(wrapped: Any, module: Any, args: Any, kwargs: Any) -> Any:
    """Motor's leaf: a thread makes the call, and goes on with it when the Future is cancelled."""
    state = current()
    if state is None or state is PASS:
        return wrapped(*args, **kwargs)
    session = state if isinstance(state, Session) else None
    if session is not None and LIB in session.passthrough:
        return wrapped(*args, **kwargs)
    with _asking:  # the order of errands is that in which threads will take them up
        errand = _errand(session)
        token, asked = ERRAND.set(errand), ASKED.set(here())
        try:
            if session is not None and session.replays:
                loop, function, *rest = args
                args = (loop, errand.in_turn(function), *rest)
            future = wrapped(*args, **kwargs)
        finally:
            ERRAND.reset(token)
            ASKED.reset(asked)
    future.add_done_callback(lambda done: errand.cancel() if done.cancelled() else errand.end())
    return future


def _errand(session: Session | None) -> Errand:
    global _latest
    if session is None or not session.replays:
        return Errand(session)
    errand = Errand(session, _latest() if _latest is not None else None)
    _latest = weakref.ref(errand)
    return errand
