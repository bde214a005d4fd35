"""Runs one client's program as it is, recorded or replayed, and prints its trace.

    python tests/clients/run.py PROGRAM URI DATABASE MODE CASSETTE PLUGIN,... first|last

`first` switches the plugins on before the client is imported, `last` after. MODE "off" leaves them
out. A program is a module with `main(uri, database, say)`; `say(label, value)` adds a line to the
trace. After it come the events that no call asked for and the calls that no event answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import sys
from typing import Any


def main(program: str, uri: str, database: str, mode: str, cassette: str, *how: str) -> None:
    """Run a program; see above for the arguments."""
    plugins, order = how
    if order == "first":
        switch_on(mode, plugins)
    module = importlib.import_module(program)
    if order == "last":
        switch_on(mode, plugins)
    with opened(cassette, mode) as session:
        result = module.main(uri, database, say)
        if inspect.iscoroutine(result):
            asyncio.run(result)
        told = left_over(session)
    for line in told:
        say(*line)


def switch_on(mode: str, plugins: str) -> None:
    if mode != "off":
        from timetracer import plugins as available

        for name in plugins.split(","):
            getattr(available, f"enable_{name}")()


def opened(cassette: str, mode: str) -> Any:
    if mode == "off":
        return contextlib.nullcontext()
    from timetracer import TraceConfig, use_cassette

    # What the programs draw from `random` is given again; ids, times and tokens are made anew.
    return use_cassette(cassette, mode=mode, config=TraceConfig(entropy="random"))


def left_over(session: Any) -> list[tuple[str, Any]]:
    """Return what speaks against a replay: misses, also swallowed ones, and unused events."""
    if session is None or session.cassette is None:
        return []
    unused = [event for event in session.cassette.events if not event.used]
    return [
        *(("miss", str(miss)) for miss in session.misses),
        *(("unused", f"{event.eid} {event.method} {event.url}") for event in unused),
    ]


def say(label: str, value: Any) -> None:
    """Add a line to the trace: the value with its types, on one line."""
    sys.stdout.write(f"{label}: {value!r}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
