"""What a run of a suite says of its cassettes at the end: how they were used, and which may go.

    recorded, replayed, missed    how many tests, how many events, and how long it took live
    unused events                 --timetracer-unused lists them, --timetracer-unused=fail fails
    stale cassettes               those older than `timetracer_expire`
    orphan files                  those that nobody asks for; --timetracer-prune removes them

A worker of xdist tells its tests itself and sends what it knows; who has the terminal sums up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from dataclasses import asdict
from typing import Any

import pytest

from timetracer.errors import CassetteError
from timetracer.integrations.freshness import Stale
from timetracer.integrations.orphans import Collected, Orphan, collect, find_orphans, remove
from timetracer.integrations.pytest_names import COLLECTED, PRUNE, SENT, UNUSED, told_unused
from timetracer.integrations.suite import Suite, Tale, remedy_of

_PRUNE = "--timetracer-prune"
_MOST_TOLD = 20


class Housekeeping:
    """The plugin beside the suite's that looks after its cassettes.

    Args:
        suite: the suite's plugin.
    """

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.collected: Collected | None = None
        self._unfit: set[str] = set()
        self._wider_told = 0
        self._stale_told: set[str] = set()
        self._stale_ahead: list[str] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note which tests and fixtures there are."""
        if self.collected is None:
            items = session.config.stash.get(COLLECTED, session.items)
            self.collected = collect(self.suite, session, items)
            self.suite.renew_fixtures(session.items)

    # ------------------------------------------------------------------------- in a test

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: Any) -> Generator[None, Any, Any]:
        """Fail a test whose cassette is stale, or has events that it does not use, if asked to."""
        report = yield
        self._tell_stale(report)
        if report.outcome != "passed" or hasattr(report, "wasxfail"):
            self._unfit.add(item.nodeid)
        if report.when == "teardown":
            self._tell_unused(report, item)
            self._unfit.discard(item.nodeid)
        return report

    def _tell_stale(self, report: Any) -> None:
        expiry = self.suite.expiry
        if expiry is None or expiry.action != "fail":
            return
        news = [one for where, one in self.suite.stale.items() if where not in self._stale_told]
        self._stale_told.update(one.where for one in news)
        self._stale_ahead += [f"{one}\nTo record it again: {remedy_of(one.node)}" for one in news]
        if not self._stale_ahead or (report.when == "setup" and report.passed):
            return
        told = f"older than {expiry.text} (timetracer_expire):\n" + "\n".join(self._stale_ahead)
        self._stale_ahead = []
        _fail(report, "timetracer: stale cassettes", told)

    def _tell_unused(self, report: Any, item: pytest.Item) -> None:
        own = [tale for tale in self.suite.tales[-1:] if tale.node == item.nodeid]
        wider = self.suite.wider[self._wider_told :]
        self._wider_told = len(self.suite.wider)
        for tale in (*own, *wider):
            broken = tale in own and item.nodeid in self._unfit
            if broken or _says_nothing_of_unused(tale):
                tale.unused = []
            if tale.unused:
                self._note_unused(report, tale)

    def _note_unused(self, report: Any, tale: Tale) -> None:
        told = told_unused(tale.where, tale.unused, tale.events)
        asked = self.suite.config.getoption(UNUSED)
        if asked:
            report.user_properties.append((UNUSED, told))
        if asked == "fail" or tale.allow_unused is False:
            remedy = f"If the test needs them no more, record it again: {tale.remedy}"
            _fail(report, "timetracer: unused events", f"{told}\n{remedy}")

    # ------------------------------------------------------------------------- the end

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Send a worker's part to the controller."""
        output = getattr(self.suite.config, "workeroutput", None)
        if output is not None:
            told = {
                "tales": [asdict(tale) for tale in self.suite.tales],
                "wider": [asdict(tale) for tale in self.suite.wider],
                "stale": [asdict(one) for one in self.suite.stale.values()],
                "collected": self.collected and self.collected.dump(),
                "marked_in_ci": self.suite.marked_in_ci,
            }
            output[SENT] = json.dumps(told)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: Any) -> None:
        """Take in what a worker sent."""
        sent = getattr(node, "workeroutput", {}).get(SENT)
        if not sent:
            return
        told = json.loads(sent)
        suite = self.suite
        suite.tales += [Tale(**tale) for tale in told["tales"]]
        suite.wider += [Tale(**tale) for tale in told["wider"]]
        suite.stale.update({one["where"]: Stale(**one) for one in told["stale"]})
        suite.marked_in_ci |= told["marked_in_ci"]
        if told["collected"] is not None:  # each worker collects all
            self.collected = Collected.load(told["collected"])

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_terminal_summary(
        self, terminalreporter: Any, exitstatus: int
    ) -> Generator[None, Any, Any]:
        """Tell what was recorded and replayed; then, once recordings are settled, what is left."""
        if hasattr(self.suite.config, "workerinput"):
            return (yield)  # a worker knows neither what the others did nor how the run ended
        recorded = {os.path.abspath(target) for target, _ in self.suite.recorded}
        told = [tale for tale in self.suite.tales if tale.mode != "off"]
        if told or self.suite.config.getoption(PRUNE):
            terminalreporter.section("timetracer")
        if told:
            for line in self._counted(told):
                terminalreporter.write_line(line)
        result = yield
        orphans = find_orphans(self.collected, recorded) if self.collected is not None else []
        for line in (*self._told_stale(), *self._told_orphans(orphans, exitstatus)):
            terminalreporter.write_line(line)
        return result

    def _counted(self, told: list[Tale]) -> Iterator[str]:
        recorded = [tale for tale in told if tale.recorded]
        replayed = [tale for tale in told if tale.played and tale.mode != "verify"]
        missed = [tale for tale in told if tale.misses]
        yield (
            f"{len(recorded)} tests recorded ({sum(tale.recorded for tale in recorded)} events), "
            f"{len(replayed)} replayed ({sum(tale.played for tale in replayed)} events), "
            f"{len(missed)} missed"
        )
        timed = [tale for tale in replayed if tale.mode == "replay" and tale.live_seconds]
        if timed:
            yield (
                f"replayed in {sum(tale.seconds for tale in timed):.2f} s what took "
                f"{sum(tale.live_seconds for tale in timed):.2f} s live"
            )
        unused = [tale for tale in (*told, *self.suite.wider) if tale.unused]
        if unused:
            listed = (
                "" if self.suite.config.getoption(UNUSED) else " (--timetracer-unused lists them)"
            )
            count = sum(len(tale.unused) for tale in unused)
            yield f"unused events: {count}, in {len(unused)} cassettes{listed}"
        if self.suite.marked_in_ci:
            yield (
                "In CI (CI is set), tests marked once or new_episodes replay and record nothing."
            )

    def _told_stale(self) -> Iterator[str]:
        expiry, stale = self.suite.expiry, list(self.suite.stale.values())
        if expiry is None or not stale:
            return
        yield f"stale cassettes: {len(stale)}, older than {expiry.text} (timetracer_expire)"
        yield from _indented(stale)
        away = sorted({one.unreached for one in stale if one.unreached})
        if away:
            yield f"They are not recorded again: no database answers at {', '.join(away)}."
        else:
            yield "To record them again, with MongoDB running: pytest --timetracer=record"

    def _told_orphans(self, orphans: list[Orphan], exitstatus: int) -> Iterator[str]:
        asked = self.suite.config.getoption(PRUNE)
        refused = self._why_not_to_prune(exitstatus) if asked else ""
        if asked and not refused:
            yield self._pruned(orphans)
        elif orphans:
            yield f"orphan files: {len(orphans)}" + ("" if asked else f" ({_PRUNE} removes them)")
        yield from _indented(orphans)
        if refused:
            yield f"{_PRUNE} has removed nothing: {refused}."

    def _pruned(self, orphans: list[Orphan]) -> str:
        try:
            return f"removed: {remove(orphans)} orphan files"
        except CassetteError as error:
            return str(error)

    def _why_not_to_prune(self, exitstatus: int) -> str:
        if self.collected is None:
            return "no tests were collected"
        if self.collected.partial:
            return f"only some of the tests ran ({self.collected.partial})"
        if exitstatus != pytest.ExitCode.OK:
            return "the run did not pass"
        return ""


def _says_nothing_of_unused(tale: Tale) -> bool:
    allowed = tale.allow_unused or tale.mode == "verify"
    return bool(allowed or tale.broken or tale.misses)


def _fail(report: Any, title: str, told: str) -> None:
    """Fail a phase of a test that passed; else only tell."""
    if report.outcome == "passed":
        report.outcome, report.longrepr = "failed", told
    else:
        report.sections.append((title, told))


def _indented(facts: list[Any]) -> Iterator[str]:
    yield from (f"    {one}" for one in facts[:_MOST_TOLD])
    if len(facts) > _MOST_TOLD:
        yield f"    and {len(facts) - _MOST_TOLD} more"
