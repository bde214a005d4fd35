"""Blocking work put aside: the event loop goes on, nothing is left over, forks are clean."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar

import pytest

from tests.support.offline import run_program
from timetracer import aside as module
from timetracer.aside import aside

NAME: ContextVar[str] = ContextVar("name", default="")


class Begun(asyncio.Event):
    """An event that a thread tells of."""

    def __init__(self) -> None:
        super().__init__()
        self._of = asyncio.get_running_loop()

    def tell(self) -> None:
        self._of.call_soon_threadsafe(self.set)


def test_the_loop_goes_on_while_the_work_is_done() -> None:
    order: list[str] = []

    async def main() -> None:
        begun, ended = Begun(), threading.Event()

        def work() -> None:
            begun.tell()
            assert ended.wait(10)
            name, _, _ = threading.current_thread().name.rpartition("_")
            order.append(f"work in {name} for {NAME.get()}")

        async def others() -> None:
            await begun.wait()
            order.append("others")
            ended.set()

        NAME.set("a request")
        await asyncio.gather(aside(work), others())
        order.append("end")

    asyncio.run(main())
    assert order == ["others", "work in timetracer-aside for a request", "end"]


def test_an_exception_is_the_callers() -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(aside(lambda: 1 // 0))


def test_work_that_has_begun_goes_on_when_its_caller_is_cancelled() -> None:
    done = threading.Event()

    async def main() -> None:
        begun, ended = Begun(), threading.Event()

        def work() -> None:
            begun.tell()
            assert ended.wait(10)
            done.set()

        task = asyncio.ensure_future(aside(work))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        ended.set()

    asyncio.run(main())
    assert done.wait(10)


def test_on_a_loop_that_is_not_asyncios_it_is_done_at_once() -> None:
    done: list[str] = []
    with pytest.raises(StopIteration):
        aside(lambda: done.append(threading.current_thread().name)).send(None)

    assert done == [threading.current_thread().name]


def test_when_no_thread_can_be_had_it_is_done_at_once() -> None:
    module._rest()
    module._threads().shutdown()
    done: list[str] = []

    async def main() -> None:
        await aside(lambda: done.append(threading.current_thread().name))

    asyncio.run(main())
    assert done == [threading.current_thread().name]
    module._rest()


def test_a_forked_child_and_its_parent_have_threads_of_their_own() -> None:
    said = run_program(
        """
        import asyncio, os, threading, warnings
        from timetracer.aside import aside

        warnings.simplefilter("error")  # of a fork beside threads, from Python 3.12 on

        def work():
            os.write(1, threading.current_thread().name.encode() + b"\\n")  # whole, unlike print

        asyncio.run(aside(work))
        child = os.fork()
        asyncio.run(aside(work))
        if child:
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    )

    assert said.stderr == ""
    assert said.stdout.splitlines() == ["timetracer-aside_0"] * 3 + ["0"]
