"""The one place that knows wrapt: a call of a wrapped driver method goes in and out here.

    current session? no  -> straight through
                     yes -> describe the call -> answered by the cassette? -> give the reply back
                                                 else make it, keep what came of it

Sync and async share every decision; only the leaf that makes the call awaits.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import wrapt

from timetracer.cassette import Ticket
from timetracer.driver import Exchange, GuardRow, MethodRow, Outcome
from timetracer.errors import MissError, TimetracerError
from timetracer.model import Call
from timetracer.process import current
from timetracer.session import CURRENT, Session, at_first_session

_EMPTY = inspect.Parameter.empty


class Plugin(Protocol):
    """What a driver's plugin does around a call; its tables say which."""

    def describe(
        self, row: MethodRow, instance: Any, arguments: dict[str, Any], session: Session
    ) -> Call | None:
        """Return the facts that identify a call, a snapshot taken before the driver sees it;
        None for a call that is none of the plugin's."""

    def before(self, exchange: Exchange, session: Session) -> None:
        """Look at the caller's documents before a call that is made."""

    def replaying(self, exchange: Exchange, event: Any) -> None:
        """Do what the driver would do beside giving an answer."""

    def telling(self, exchange: Exchange, session: Session, event: Any) -> None:
        """Tell the program's listeners what they were told when the event was recorded."""

    def recorded(self, exchange: Exchange, session: Session, outcome: Outcome) -> None:
        """Add to the outcome what the plugin keeps beside the answer."""

    def keep_error(self, exchange: Exchange, error: BaseException) -> Outcome:
        """Take a snapshot of an exception."""

    def cancelled_after(self, event: Any) -> float | None:
        """Return how many seconds to wait for a call that was cancelled to be cancelled again;
        None for any other event."""

    def raise_recorded(self, exchange: Exchange, event: Any) -> None:
        """Raise the exception that the event recorded, if it did."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """How a method's arguments are named; worked out once, when it is wrapped.

    Attributes:
        names: the parameters that can be given by position, in order.
        defaults: parameter -> default value.
        known: all parameter names; None where any keyword is taken.
        order: parameter -> its place. Motor gives by keyword what a program gave by position.
    """

    names: tuple[str, ...]
    defaults: dict[str, Any]
    known: frozenset[str] | None
    order: dict[str, int]

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """Return the arguments by name; None where the driver will refuse them."""
        if not args:
            bound = kwargs.copy()
        elif len(args) > len(self.names):
            return None
        else:
            bound = dict(zip(self.names, args, strict=False))
            if kwargs:
                if not bound.keys().isdisjoint(kwargs):
                    return None
                bound.update(kwargs)
        if self.known is not None and not bound.keys() <= self.known:
            return None
        if kwargs and len(bound) > 1:
            last = len(self.order)
            names = sorted(bound, key=lambda name: self.order.get(name, last))
            return {name: bound[name] for name in names}
        return bound


def parameters_of(function: Any, rest: str = "") -> Parameters:
    """Return how the arguments of a method are named.

    Args:
        function: the method, unbound.
        rest: "module:Class" whose constructor takes the method's further arguments, or "".
    """
    parameters = list(inspect.signature(function).parameters.values())[1:]
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    if rest:
        further = list(inspect.signature(resolve(rest).__init__).parameters.values())[2:]
        have = {parameter.name for parameter in parameters}
        parameters += [parameter for parameter in further if parameter.name not in have]
        open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in further)
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return Parameters(
        tuple(p.name for p in named if p.kind is not p.KEYWORD_ONLY),
        {p.name: p.default for p in named if p.default is not _EMPTY},
        None if open_ended else frozenset(p.name for p in named),
        {p.name: place for place, p in enumerate(named)},
    )


# ------------------------------------------------------------------------------- the call


def wrapper_for(row: MethodRow, function: Any, plugin: Plugin) -> Callable[..., Any]:
    """Return the wrapper of one driver method.

    Args:
        row: the method's row.
        function: the method itself, unbound.
        plugin: what is done around a call.
    """
    parameters = parameters_of(function, row.rest)
    name, qualified = function.__name__, function.__qualname__

    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        session = current()
        if type(session) is not Session:
            return wrapped(*args, **kwargs)
        return _call(row, parameters, plugin, session, wrapped, instance, args, kwargs)

    def wrapper_async(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        # Nothing is done before it is awaited, and it is told from the driver's own by nobody.
        made: Any = _call_async(row, parameters, plugin, wrapped, instance, args, kwargs)
        made.__name__, made.__qualname__ = name, qualified
        return made

    return wrapper_async if row.awaits else wrapper


_UP_FROM_CALL = 4  # `here`, `answer`, `_call` and the wrapper


def _call(
    row: MethodRow,
    parameters: Parameters,
    plugin: Plugin,
    session: Session,
    wrapped: Any,
    instance: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    errand = ERRAND.get()
    if errand is not None:
        session = errand.session or session  # a thread may get to it when the next test has begun
    exchange, args, kwargs = _begin(row, parameters, plugin, session, instance, args, kwargs)
    if exchange is None:
        return wrapped(*args, **kwargs)
    event = session.answer(exchange.call, reads=row.reads, up=_UP_FROM_CALL)
    while (seconds := _cancelled_after(plugin, event)) is not None:
        plugin.replaying(exchange, event)
        plugin.telling(exchange, session, event)
        if errand is not None and errand.wait(seconds):
            raise asyncio.CancelledError  # in the thread; nobody waits for it any more
        event = session.answer(exchange.call, reads=row.reads)
    if event is not None:
        return _give(exchange, plugin, session, event)
    token = _enter(exchange, plugin, session)
    ticket = session.begin() if errand is None else errand.begin(session)
    exchange.eid, _ = ticket
    if errand is not None:
        errand.when_cancelled(
            lambda: _keep_error(
                exchange, plugin, session, asyncio.CancelledError(), ticket
            )
        )
    try:
        result = wrapped(*args, **kwargs)
    except Exception as error:
        if errand is None or errand.finish():
            _keep_error(exchange, plugin, session, error, ticket)
        raise
    finally:
        CURRENT.reset(token)
    if errand is None or errand.finish():
        _keep(exchange, plugin, session, result, ticket)
    return result


class Errand:
    """A call that a thread makes for a program that may cancel it; the thread's work goes on.

    Calls begin in the order in which the program asked for them, and not in that in which threads
    get to them: while recording an errand has its ticket from the start, and in replay it waits
    for its turn.

    Args:
        session: what it belongs to.
        before: the errand that was made before this one and is to be answered before it.
    """

    def __init__(self, session: Session | None = None, before: Errand | None = None) -> None:
        self.session = session
        self._ticket = session.begin() if session is not None else None
        self._before = before
        self._answered = threading.Event()
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._keep: Callable[[], None] | None = None

    def in_turn(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function that a thread calls for it, as one that waits for its turn."""

        def called(*args: Any, **kwargs: Any) -> Any:
            before, self._before = self._before, None
            if before is not None:
                before._answered.wait(_LONGEST_TURN)
            try:
                return function(*args, **kwargs)
            finally:
                self._answered.set()

        return called

    def begin(self, session: Session) -> Ticket:
        """Return the ticket of a call that it makes now."""
        ticket, self._ticket = self._ticket, None
        return session.begin() if ticket is None or session is not self.session else ticket

    def end(self) -> None:
        """Give the ticket back if no call was made, such as by reading on in a cursor."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None and self.session is not None:
            self.session.leave_out(ticket)

    @property
    def cancelled(self) -> bool:
        """Whether the program waits for it no longer."""
        return self._cancelled.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait until it is cancelled; tell whether it was."""
        self._answered.set()
        return self._cancelled.wait(seconds)

    def when_cancelled(self, keep: Callable[[], None]) -> None:
        """Have something done if it is cancelled before `finish`, at once if it was before the
        thread came this far; the server is asked now."""
        self._answered.set()
        with self._lock:
            late = self.cancelled
            self._keep = None if late else keep
        if late:
            keep()

    def finish(self) -> bool:
        """Tell whether the call's own outcome is the one to keep."""
        with self._lock:
            self._keep = None
            return not self.cancelled

    def cancel(self) -> None:
        """Note that the program cancelled it."""
        with self._lock:
            keep, self._keep = self._keep, None
            self._cancelled.set()
        self._answered.set()
        if keep is not None:
            keep()


ERRAND: ContextVar[Errand | None] = ContextVar("timetracer_errand", default=None)
"""What the thread that makes this call makes it for."""

_LONGEST_TURN = 5.0
"""Seconds after which an errand is made out of turn, if the one before it never was."""


def begin(session: Session) -> Ticket:
    """Return the ticket of a call that is made now."""
    errand = ERRAND.get()
    return session.begin() if errand is None else errand.begin(session)


async def _call_async(
    row: MethodRow,
    parameters: Parameters,
    plugin: Plugin,
    wrapped: Any,
    instance: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    session = current()
    if type(session) is not Session:
        return await wrapped(*args, **kwargs)
    exchange, args, kwargs = _begin(row, parameters, plugin, session, instance, args, kwargs)
    if exchange is None:
        return await wrapped(*args, **kwargs)
    event = session.answer(exchange.call, reads=row.reads)
    while (seconds := _cancelled_after(plugin, event)) is not None:
        plugin.replaying(exchange, event)
        plugin.telling(exchange, session, event)
        await asyncio.sleep(seconds)
        event = session.answer(exchange.call, reads=row.reads)  # nobody cancelled this one
    if event is not None:
        return _give(exchange, plugin, session, event)
    token = _enter(exchange, plugin, session)
    ticket = session.begin()
    exchange.eid, _ = ticket
    try:
        result = await wrapped(*args, **kwargs)
    except (Exception, asyncio.CancelledError) as error:
        _keep_error(exchange, plugin, session, error, ticket)
        raise
    finally:
        CURRENT.reset(token)
    _keep(exchange, plugin, session, result, ticket)
    return result


def _begin(
    row: MethodRow,
    parameters: Parameters,
    plugin: Plugin,
    session: Session,
    instance: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[Exchange | None, tuple[Any, ...], dict[str, Any]]:
    """Return the exchange, and the arguments to call with; no exchange for a call to let through.

    The caller's iterators are read once: here, and the driver gets an iterator over the same.
    """
    bound = parameters.bind(args, kwargs)
    if bound is None:
        return None, args, kwargs
    name = row.documents
    if name in bound and _is_listed_by_driver(bound[name]):
        kept = list(bound[name])
        if not hasattr(bound[name], "__len__"):
            args, kwargs = (), {**bound, name: iter(kept)}
        bound[name] = kept
    try:
        defaults = parameters.defaults
        given = {
            key: value
            for key, value in bound.items()
            if key != "session" and value is not None and value is not defaults.get(key, _EMPTY)
        }
        call = plugin.describe(row, instance, given, session)
    except TimetracerError:
        raise
    except Exception as error:
        session.failed("describe", error)
        return None, args, kwargs
    exchange = Exchange(row, call, instance, bound) if call is not None else None
    return exchange, args, kwargs


def _is_listed_by_driver(value: Any) -> bool:
    if type(value) in _READ_AS_THEY_ARE:
        return False
    return isinstance(value, Iterable) and not isinstance(value, list | tuple | Mapping | str)


_READ_AS_THEY_ARE = frozenset({dict, list, tuple})


def _cancelled_after(plugin: Plugin, event: Any) -> float | None:
    return plugin.cancelled_after(event) if event is not None and event.failed else None


def _give(exchange: Exchange, plugin: Plugin, session: Session, event: Any) -> Any:
    try:
        return _given(exchange, plugin, session, event)
    except MissError as miss:  # such as a result that was not kept
        raise session.keep_miss(miss) from miss.__cause__


def _given(exchange: Exchange, plugin: Plugin, session: Session, event: Any) -> Any:
    plugin.replaying(exchange, event)
    plugin.telling(exchange, session, event)
    plugin.raise_recorded(exchange, event)
    return exchange.row.reply.give(exchange, event)


def _enter(exchange: Exchange, plugin: Plugin, session: Session) -> Any:
    try:
        plugin.before(exchange, session)
    except Exception as error:
        session.failed("look at", error)
    return CURRENT.set(exchange)


def _keep(
    exchange: Exchange, plugin: Plugin, session: Session, result: Any, ticket: Ticket
) -> None:
    try:
        outcome = exchange.row.reply.keep(exchange, result)
        plugin.recorded(exchange, session, outcome)
        session.record(exchange.call, outcome, ticket)
    except Exception as error:
        session.failed("keep the result of", error)


def _keep_error(
    exchange: Exchange, plugin: Plugin, session: Session, error: BaseException, ticket: Ticket
) -> None:
    try:
        outcome = plugin.keep_error(exchange, error)
        plugin.recorded(exchange, session, outcome)
        session.record(exchange.call, outcome, ticket)
    except Exception as failure:
        session.failed("keep the error of", failure)


# ------------------------------------------------------------------------------- the tables


@dataclass(frozen=True, slots=True)
class _Patch:
    owner: Any
    name: str
    original: Any
    inherited: bool


class Installation:
    """The wrappers that one plugin has put in place.

    Args:
        plugin: what is done around a call.
        methods: the driver methods to wrap.
        openers: the driver internals that open a client, guarded from the start.
        guards: the driver internals to replace or watch once there is a session; until then a
            program pays for its methods alone.
    """

    def __init__(
        self,
        plugin: Plugin,
        methods: Iterable[MethodRow],
        openers: Iterable[GuardRow],
        guards: Iterable[GuardRow],
    ) -> None:
        self._plugin = plugin
        self._methods = tuple(methods)
        self._openers = tuple(openers)
        self._guards = tuple(guards)
        self._patches: list[_Patch] = []

    def install(self) -> None:
        """Put the wrappers in place; once, however often it is called."""
        if self._patches:
            return
        for row in self._methods:
            owner = _owner(row.owner, row.optional)
            function = _attribute(owner, row.name, row.optional)
            if function is not None:
                self._put(owner, row.name, wrapper_for(row, function, self._plugin))
        self._guard(self._openers)
        at_first_session(self._guard_sessions)

    def _guard_sessions(self) -> None:
        if self._patches:  # else it was uninstalled before any session
            self._guard(self._guards)

    def _guard(self, guards: Iterable[GuardRow]) -> None:
        for guard in guards:
            owner = _owner(guard.owner, guard.optional)
            if _attribute(owner, guard.name, guard.optional) is not None:
                self._put(owner, guard.name, guard.wrapper)

    def uninstall(self) -> None:
        """Take the wrappers away, so that no trace is left."""
        while self._patches:
            patch = self._patches.pop()
            if patch.inherited:
                delattr(patch.owner, patch.name)
            else:
                setattr(patch.owner, patch.name, patch.original)

    def _put(self, owner: Any, name: str, wrapper: Any) -> None:
        inherited = isinstance(owner, type) and name not in vars(owner)
        original = vars(owner).get(name, getattr(owner, name))
        wrapped = (
            property(
                _getter(original.fget, wrapper), original.fset, original.fdel, original.__doc__
            )
            if isinstance(original, property)
            else wrapt.FunctionWrapper(original, wrapper)
        )
        setattr(owner, name, wrapped)
        self._patches.append(_Patch(owner, name, original, inherited))


def _getter(function: Any, wrapper: Any) -> Any:
    def get(instance: Any) -> Any:
        return wrapper(lambda: function(instance), instance, (), {})

    return get


def resolve(place: str) -> Any:
    """Return the class or module that "module:Class" or "module" names."""
    module, _, name = place.partition(":")
    loaded = importlib.import_module(module)
    return getattr(loaded, name) if name else loaded


def is_loaded(place: str) -> bool:
    """Tell whether the module of "module:Class" was imported already."""
    return place.partition(":")[0] in sys.modules


def _owner(place: str, optional: bool) -> Any:
    try:
        return resolve(place)
    except (ImportError, AttributeError):
        if optional:
            return None
        raise


def _attribute(owner: Any, name: str, optional: bool) -> Any:
    found = getattr(owner, name, None)
    if found is None and not optional:
        raise AttributeError(f"{owner!r} has no {name!r}; this release of the driver is unknown")
    return found
