"""`use_cassette`: one explicit cassette around a block of code or a function."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

from timetracer.config import TraceConfig, forced, resolve
from timetracer.errors import SessionError, StrPath
from timetracer.opening import open_file
from timetracer.process import enter_block, leave_block
from timetracer.session import Session

_Function = TypeVar("_Function", bound=Callable[..., Any])


class use_cassette:
    """Record to, or replay from, one cassette: a context manager and a decorator, sync and async.

        with timetracer.use_cassette("cassettes/orders.json", mode="once"):
            ...

    Outside requests it is process-wide: calls in threads and executors belong to it too.

    Args:
        path: the cassette; it may lie anywhere.
        mode: "record", "replay", "once", "new_episodes", "verify" or "off"; by default the
            configured mode, and "once" where none is.
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
            os.path.join(forced().get("cassette_dir", ""), self._path),
            block_config(config, mode),
            remedy=f'use_cassette("{os.fspath(self._path)}", mode="record")' if fixed else None,
        )
        self._open.append((session, enter_block(session)))
        return session

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Write or close the cassette."""
        session, token = self._open.pop()
        leave_block(session, token, for_good=True)
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
