"""A pytest plugin beside a suite: which tests run, in which order, and what becomes of each.

It knows Timetracer only by its ledger. Each process of the suite appends a line of JSON for each
test to the file OBSERVER_REPORT. OBSERVER_ORDER is "reverse" or a seed to shuffle by; of the node
ids in the file OBSERVER_SKIP none is run, of those in OBSERVER_ONLY nothing else.
"""

import json
import os
import random
import sys
from pathlib import Path

import pytest

OUTCOMES = ("failed", "skipped", "passed")


def node_ids(variable):
    return frozenset(json.loads(Path(os.environ[variable]).read_text(encoding="utf-8")))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    kept = list(items)
    if "OBSERVER_SKIP" in os.environ:
        skipped = node_ids("OBSERVER_SKIP")
        kept = [item for item in kept if item.nodeid not in skipped]
    if "OBSERVER_ONLY" in os.environ:
        only = node_ids("OBSERVER_ONLY")
        kept = [item for item in kept if item.nodeid in only]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    order = os.environ.get("OBSERVER_ORDER", "")
    if order == "reverse":
        kept.reverse()
    elif order:
        random.Random(order).shuffle(kept)
    items[:] = kept


def misses():
    """How many calls of this process had no answer so far, 0 where Timetracer is not at work."""
    ledger = sys.modules.get("timetracer.ledger")
    if ledger is None:
        return 0
    report = ledger.report()
    return len(report.misses) + report.further_misses


def recorded(item):
    """How many calls of a test's own were recorded."""
    suite = item.config.pluginmanager.get_plugin("timetracer-suite")
    tales = suite.tales if suite is not None else []
    return tales[-1].recorded if tales and tales[-1].node == item.nodeid else 0


class Observer:
    """What the tests of one process came to."""

    def __init__(self):
        self.phases = {}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item):
        self.phases = {}
        before = misses()
        result = yield
        write_down(
            {
                "node": item.nodeid,
                "outcome": outcome(self.phases),
                "misses": misses() - before,
                "events": recorded(item),
            }
        )
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item):
        report = yield
        told = ("xfailed" if report.skipped else "xpassed") if hasattr(report, "wasxfail") else (
            report.outcome
        )
        self.phases[report.when] = told
        return report

    def pytest_runtest_logreport(self, report):
        if type(report) is not pytest.TestReport and report.failed:  # that of a subtest
            self.phases["call"] = "failed"


def outcome(phases):
    """One word for all phases of a test."""
    if "failed" in (phases.get("setup"), phases.get("teardown")):
        return "error"
    return phases.get("call") or phases.get("setup") or "none"


def write_down(line):
    descriptor = os.open(os.environ["OBSERVER_REPORT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, (json.dumps(line) + "\n").encode())
    finally:
        os.close(descriptor)


def pytest_configure(config):
    if "OBSERVER_REPORT" in os.environ:
        config.pluginmanager.register(Observer(), "suite-observer")
