"""Blocking work of a coroutine, done in a thread, so that its event loop serves others meanwhile.

    await aside(write)

A file that is to be safe on the disk takes milliseconds, of which the processor needs few.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from threading import Lock

_THREADS = 4

_pool: ThreadPoolExecutor | None = None
_making = Lock()


async def aside(work: Callable[[], object]) -> None:
    """Do some work, and return once it is done.

    It is done in a thread where the event loop is asyncio's, else at once. When the caller is
    cancelled, work that has begun goes on, and other work is never done.

    Args:
        work: what is to be done, in the caller's context; it may run beside the event loop.
    """
    try:
        loop = asyncio.get_running_loop()
        done = loop.run_in_executor(_threads(), copy_context().run, work)
    except RuntimeError:  # Trio's loop, the end of the program, a fork at this moment
        work()
        return
    await done


def _threads() -> ThreadPoolExecutor:
    # Not the loop's own threads: a program may keep all of them waiting for this work.
    global _pool
    with _making:
        if _pool is None:
            _pool = ThreadPoolExecutor(_THREADS, "timetracer-aside")
        return _pool


def _rest() -> None:
    """Have no threads while the process is forked, or Python warns of them."""
    global _pool
    with _making:
        pool, _pool = _pool, None
    if pool is not None:
        pool.shutdown()


def _forked() -> None:
    global _making
    _making = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_rest, after_in_child=_forked)
