"""What a marker or pytest's own file says of tests: places left out, order, several cassettes."""

from __future__ import annotations

from tests.support.offline import run_program
from tests.test_suite import Project, project

__all__ = ["project"]


IGNORING = """
    import os
    import pytest
    from pymongo import MongoClient

    things = MongoClient("{uri}", connect=False)["{database}"].things
    noise = os.environ.get("NOISE", "recorded")

    def test_of_file():
        assert things.count_documents({"noise": noise, "n": 1}) == 0
        things.update_one({"n": 2}, {"$set": {"seen": {"at": noise}}})

    @pytest.mark.timetracer(ignore=["filter.more"])
    def test_of_both():
        assert things.count_documents({"noise": noise, "more": noise}) == 0

    def test_of_neither():
        assert things.count_documents({"noise": noise, "other": noise}) == 0
"""


def test_places_that_the_file_of_pytest_has_ignored(project: Project) -> None:
    project.write("test_i.py", IGNORING)
    text = (project.path / "pytest.ini").read_text()
    project.write(
        "pytest.ini", text + "timetracer_ignore =\n    filter.noise\n    update.*.seen.at\n"
    )
    assert project.record().code == 0
    assert project.replay().code == 0
    ended = project.replay(NOISE="other")
    assert list(ended.outcomes) == ["test_i.py::test_of_neither"], ended.text
    assert "filter.other" in ended.text
    project.write("pytest.ini", text)
    ended = project.replay(NOISE="other")
    assert len(ended.outcomes) == 3, ended.text


ORDER = """
    import os
    import pytest
    from pymongo import MongoClient

    things = MongoClient("{uri}", connect=False)["{database}"].things
    numbers = [int(one) for one in os.environ.get("NUMBERS", "123")]

    def ask(timetracer):
        for n in numbers:
            things.find_one({"n": n})

    @pytest.mark.timetracer(strict_order=True)
    def test_strict(timetracer):
        ask(timetracer)

    @pytest.mark.timetracer(strict_order=True)
    class TestNarrower:
        def test_broad(self, timetracer):
            ask(timetracer)

        @pytest.mark.timetracer(strict_order=False)
        def test_narrow(self, timetracer):
            ask(timetracer)

    def test_plain(timetracer):
        ask(timetracer)
        print("UNUSED", len(timetracer.unused), len(timetracer.used), timetracer.all_played)
"""

STRICT = ["test_o.py::TestNarrower::test_broad", "test_o.py::test_strict"]


def test_strict_order_is_that_of_the_recording(project: Project) -> None:
    project.write("test_o.py", ORDER)
    assert project.record().code == 0
    ended = project.replay("-s")
    assert ended.code == 0 and "UNUSED 0 3 True" in ended.text, ended.text
    for numbers in ("213", "132", "321"):
        ended = project.replay(NUMBERS=numbers)
        assert sorted(ended.outcomes) == STRICT, ended.text
    assert "strict_order" in ended.text or "next" in ended.text
    ended = project.replay("-s", NUMBERS="3")
    assert "UNUSED 2 1 False" in ended.text, ended.text


LAYERS = """
    import os
    import pytest
    from pymongo import MongoClient

    things = MongoClient("{uri}", connect=False)["{database}"].things
    pytestmark = pytest.mark.timetracer(cassettes=["layers/broad.json"])

    def found(n):
        one = things.find_one({"n": n})
        return one and one["by"]

    @pytest.mark.timetracer(cassettes=["layers/first.json", "layers/second.json"])
    def test_layers(timetracer):
        told = [found(n) for n in (1, 2, 3)]
        print("TOLD", *told)
        if os.environ.get("MORE"):
            found(4)
        print("USED", len(timetracer.used), len(timetracer.events))
"""

TAPES = """
    import sys
    from pymongo import MongoClient
    import timetracer
    from timetracer.plugins import enable_pymongo

    enable_pymongo()
    things = MongoClient("{uri}")["{database}"].things
    for name, numbers in {"broad": (1, 2, 3), "first": (1,), "second": (1, 2)}.items():
        things.delete_many({})
        things.insert_many([{"n": n, "by": name} for n in range(5)])
        with timetracer.use_cassette(f"cassettes/layers/{name}.json", mode="record"):
            for n in numbers:
                things.find_one({"n": n})
    things.delete_many({})
    things.insert_many([{"n": n, "by": "own"} for n in range(5)])
"""


def test_of_several_cassettes_the_narrower_and_the_first_count_most(project: Project) -> None:
    project.write("tapes.py", TAPES)
    project.write("test_l.py", LAYERS)
    run_program(project.path / "tapes.py", cwd=project.path)
    ended = project.run("-s", offline=True)
    assert ended.code == 0, ended.text
    assert "TOLD first second broad" in ended.text and "USED 3 6" in ended.text
    ended = project.run("-s", offline=True, MORE="1")
    assert ended.code == 1 and "find_one on" in ended.text
    assert "cassettes/test_l/test_layers.json" not in project.cassettes()

    ended = project.run("--timetracer=new_episodes", "-s", MORE="1")
    assert ended.code == 0 and "TOLD first second broad" in ended.text, ended.text
    ended = project.replay("-s", MORE="1")
    assert ended.code == 0 and "TOLD first second broad" in ended.text, ended.text

    ended = project.record("-s", MORE="1")
    assert ended.code == 0 and "TOLD own own own" in ended.text, ended.text
    ended = project.replay("-s", MORE="1")
    assert ended.code == 0 and "TOLD own own own" in ended.text, ended.text
