"""pytest --timetracer=verify: a test fails whose calls are answered otherwise than recorded.

What was found is told with the phase of the test in which it was found. That a recorded call is
made no more is known once the test is torn down; of a test that failed or was skipped it says
nothing, so there it is only told.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest

from timetracer.comparing import KINDS, Drift, tell, untold
from timetracer.integrations.children import DRIFT
from timetracer.integrations.suite import Suite

NAME = "timetracer-verifying"
_SENT = "timetracer_verified"


@dataclass(slots=True)
class Found:
    """What was found of all tests, as it is told at the end and sent by the workers of xdist.

    Attributes:
        kinds: way, a key of `comparing.KINDS` -> how many calls drifted so.
        where: for each test, fixture or file with drift, what is told of it.
    """

    kinds: dict[str, int] = field(default_factory=dict)
    where: dict[str, list[str]] = field(default_factory=dict)

    def add(self, node: str, drift: list[Drift]) -> None:
        """Take in what was found in a test."""
        for one in drift:
            self.kinds[one.kind] = self.kinds.get(one.kind, 0) + 1
            self.where.setdefault(node, []).append(str(one))

    def merge(self, other: Found) -> None:
        """Take in what a worker found."""
        for kind, count in other.kinds.items():
            self.kinds[kind] = self.kinds.get(kind, 0) + count
        for node, told in other.where.items():
            self.where.setdefault(node, []).extend(told)


class Verifying:
    """The plugin beside the suite's that tells of drift.

    Args:
        suite: the suite's plugin.
    """

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.found = Found()
        self._failed: set[str] = set()

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: Any) -> Generator[None, Any, Any]:
        """Fail a test whose calls were answered otherwise."""
        report = yield
        drift = self._news()
        if report.outcome != "passed" or hasattr(report, "wasxfail"):
            self._failed.add(item.nodeid)
        if drift:
            self._tell(report, item.nodeid, drift, fails=item.nodeid not in self._failed)
        if report.when == "teardown":
            self._failed.discard(item.nodeid)
        return report

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_make_collect_report(self, collector: Any) -> Generator[None, Any, Any]:
        """Fail a file whose calls were answered otherwise while it was imported."""
        report = yield
        drift = self._news()
        if drift:
            self._tell(report, collector.nodeid, drift, fails=report.passed)
        return report

    def _news(self) -> list[Drift]:
        for session in self.suite.sessions():
            if session.verification is not None:
                session.verification.settle()
        return [*untold(), *self.suite.children.news(DRIFT)]

    def _tell(self, report: Any, node: str, drift: list[Drift], *, fails: bool) -> None:
        self.found.add(node, drift)
        told = tell(drift)
        if fails and self.suite.config.getoption("timetracer_drift") == "fail":
            report.outcome = "failed"
            report.longrepr = told
        else:
            report.sections.append(("timetracer: drift", told))

    # ------------------------------------------------------------------------- the end

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Send a worker's part to the controller."""
        output = getattr(self.suite.config, "workeroutput", None)
        if output is not None:
            output[_SENT] = json.dumps(asdict(self.found))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: Any) -> None:
        """Take in what a worker sent."""
        sent = getattr(node, "workeroutput", {}).get(_SENT)
        if sent:
            self.found.merge(Found(**json.loads(sent)))

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Tell how many tests drifted, and in what."""
        verified = [tale for tale in self.suite.tales if tale.mode == "verify"]
        if not verified and not self.found.where:
            return
        counted = [
            f"{self.found.kinds[kind]} {told}"
            for kind, told in KINDS.items()
            if self.found.kinds.get(kind)
        ]
        drifted = ", ".join(counted) or "no drift"
        terminalreporter.write_line(f"{len(verified)} tests verified: {drifted}")
        if self.suite.config.getoption("timetracer_drift") == "report":
            for node, told in self.found.where.items():
                terminalreporter.write_line(f"{node}:")
                for one in told:
                    terminalreporter.write_line("    " + one.replace("\n", "\n    "))
