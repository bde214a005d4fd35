"""Driver calls without a driver: what a plugin would hand to a session, and answers for them."""

from __future__ import annotations

from typing import Any

from timetracer.codec import to_json
from timetracer.matching import key_of
from timetracer.model import Call
from timetracer.plugins.replies import Kept
from timetracer.process import current
from timetracer.session import PASS, Session

READS = frozenset({"FIND_ONE", "COUNT_DOCUMENTS"})


def call(method: str = "FIND_ONE", url: str = "shop.orders", **arguments: Any) -> Call:
    """The facts of a call, as a plugin describes it."""
    return Call("pymongo", method, url, arguments, key_of(arguments))


def answer(data: Any = None, *, reached: bool = True, open: bool = False) -> Kept:
    """What came of a call that returned `data`."""
    return Kept(lambda: to_json(data), reached_server=reached, open=open)


class Driver:
    """Calls "the server", which answers with the number of the call, through the session."""

    def __init__(self, *, reached: bool = True) -> None:
        self.made: list[str] = []
        self._reached = reached

    def __call__(self, method: str = "FIND_ONE", **arguments: Any) -> Any:
        """Make a call as the interceptor does; the recorded answer, or that of the server."""
        session = current()
        if not isinstance(session, Session):
            assert session is None or session is PASS
            return self._live(method)
        asked = call(method, **arguments)
        event = session.answer(asked, reads=method in READS)
        if event is not None:
            return event.body()
        ticket = session.begin()
        result = self._live(method)
        session.record(asked, answer(result, reached=self._reached), ticket)
        return result

    def _live(self, method: str) -> int:
        self.made.append(method)
        return len(self.made)
