"""The command that runs other projects' suites, tried on a small suite of this checkout."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from tests.suites.__main__ import done, table, tell_lost
from tests.suites.engine import RUNS, Outcome, Proof, Result
from tests.suites.install import Installed
from tests.suites.table import SUITES, Suite
from tests.support.offline import ALONE, ROOT
from tests.support.server import Server, free_port

SAMPLE = ROOT / "tests" / "suites" / "sample"
BY_NAME = {run.name: run for run in RUNS}


def sample(place: Path, *tests: str) -> Proof:
    """The suite `sample` as if it had been installed below a directory."""
    source = place / "source"
    shutil.copytree(SAMPLE, source, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "pytest.ini").write_text("[pytest]\n")
    port = free_port()
    suite = Suite(
        "sample",
        "a sample",
        "sample==1.0",
        tests=tests,
        options=tuple(ALONE.split()),
        environment={"SAMPLE_PORT": str(port)},
    )
    return Proof(suite, Installed(place, source, sys.executable, (str(ROOT),)), port=port)


@pytest.fixture
def own_server(mongodb_server: Server) -> None:
    if not mongodb_server.ours:
        pytest.skip("MONGODB_URI names the server, and these tests start and stop their own")


@pytest.mark.usefixtures("own_server")
def test_a_suite_live_recorded_and_replayed_in_every_way(tmp_path: Path) -> None:
    proof = sample(tmp_path, "kept.py", "lost.py")
    for run in RUNS:
        if run.name != "xdist" or importlib.util.find_spec("xdist") is not None:
            proof.do(run)
    lost = ["lost.py::test_that_asks_for_the_process", "lost.py::test_that_swallows_the_miss"]
    assert proof.failing() == ["lost.py::test_that_fails"]
    assert (len(proof.passing()), len(proof.calling())) == (14, 13)
    for run in done(proof):
        result = proof.results[run.name]
        asked = [node for node in lost if not run.every or node in result.tests]
        assert (run.name, proof.lost(run), result.sockets) == (run.name, asked, 0)
        assert len(result.tests) == (2 if run.every else 14)
    assert "| sample 1.0 | 15 | 14 | 13 | 12 of 14 |" in table([proof])


def proof_of(place: Path, live: dict[str, Outcome], replay: dict[str, Outcome]) -> Proof:
    proof = Proof(SUITES[0], Installed(place, place, "python"))
    proof.results = {"tried": Result(live), "live": Result(live), "replay": Result(replay)}
    return proof


@pytest.mark.parametrize(
    ("replayed", "lost"),
    [
        ({"a": Outcome("passed")}, []),
        ({"a": Outcome("passed", misses=1)}, ["a"]),
        ({"a": Outcome("failed")}, ["a"]),
        ({"a": Outcome("skipped")}, ["a"]),
        ({}, ["a"]),
    ],
)
def test_a_test_is_lost_that_ends_in_another_way_or_misses(
    tmp_path: Path, replayed: dict[str, Outcome], lost: list[str]
) -> None:
    live = {"a": Outcome("passed"), "b": Outcome("failed"), "c": Outcome("skipped")}
    proof = proof_of(tmp_path, live, replayed)
    assert proof.failing() == ["b"]
    assert proof.lost(BY_NAME["replay"]) == lost


def test_of_tests_that_ran_alone_the_others_are_not_lost(tmp_path: Path) -> None:
    live = {name: Outcome("passed") for name in "abcdefgh"}
    proof = proof_of(tmp_path, live, {})
    proof.results["alone"] = Result({"a": Outcome("passed"), "h": Outcome("none")})
    assert proof.lost(BY_NAME["alone"]) == ["h"]


def test_a_test_that_fails_live_in_an_order_is_not_lost_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live = {name: Outcome("passed") for name in "abc"}
    proof = proof_of(tmp_path, live, live)
    proof.results["record"] = Result(live)
    proof.results["reversed"] = Result({**live, "a": Outcome("failed"), "b": Outcome("failed")})
    assert proof.lost(BY_NAME["reversed"]) == ["a", "b"]

    proof.results["live reversed"] = Result({**live, "b": Outcome("failed")})
    assert proof.lost(BY_NAME["reversed"]) == ["a"]
    assert "| 3 of 3 | 1 of 2 |" in table([proof])
    tell_lost(proof)
    told = capsys.readouterr().out
    assert "a: reversed (failed, 0 misses)" in told
    assert "b: reversed (fails live in that order)" in told


def test_results_are_kept(tmp_path: Path) -> None:
    live = {"a": Outcome("passed", 0, 3)}
    proof = proof_of(tmp_path, live, live)
    proof.keep()
    again = Proof(SUITES[0], proof.installed)
    again.load()
    assert again.results == proof.results


def test_the_page_has_a_row_for_every_suite() -> None:
    page = (ROOT / "docs" / "proof.md").read_text(encoding="utf-8")
    missing = [suite.name for suite in SUITES
               if f"| {suite.release.replace('==', ' ')} |" not in page]  # fmt: skip
    assert missing == []
