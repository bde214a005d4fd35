"""The command line: one table of commands, each told in its help, each error in one line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.calls import Driver
from tests.support.offline import ROOT, environment
from timetracer import TraceConfig, use_cassette
from timetracer.__main__ import COMMANDS, main

PROGRAM = """
    import os, random, sys, uuid
    from tests.support.calls import Driver

    driver = Driver()
    driver("FIND_ONE", filter={"key": str(uuid.UUID(int=random.getrandbits(128), version=4))})
    driver("FIND_ONE", filter={"kind": sys.argv[1]})
    print("argument:", *sys.argv[1:])
    ran_before = os.path.exists("ran")
    open("ran", "w").close()
    sys.exit(int(ran_before and sys.argv[1] == "fail"))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to work in, with a program that makes a random key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    monkeypatch.setenv("TIMETRACER_RUN_ID", "that of the process which types the command")
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    return tmp_path


def recorded(path: Path, *keys: str) -> None:
    with use_cassette(path, mode="record", config=TraceConfig(redact=False)):
        for key in keys:
            Driver()("FIND_ONE", filter={"key": key})


def learned_in(path: Path) -> list[str]:
    return [row["path"] for row in json.loads(path.read_bytes())["session"].get("learned", [])]


def program(*arguments: str) -> list[str]:
    return ["learn", "--", sys.executable, "program.py", *arguments]


# ------------------------------------------------------------------------------- learn


def test_two_cassettes_are_compared(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recorded(here / "a.json", "8a9f0b1c-2d3e-4f50-8a7b-6c5d4e3f2a1b", "plain")
    recorded(here / "b.json", "1b2c3d4e-5f60-4718-8293-a4b5c6d7e8f9", "other")

    assert main(["learn", "a.json", "b.json"]) == 0

    assert capfd.readouterr().out == textwrap.dedent("""\
        a.json: 2 calls compared with b.json.
        Made anew in each run, as this shows; noted in the first cassette, so that a replay may bind them:
            find_one on shop.orders, filter.key: "8a9f0b1c-2d3e-4f50-8a7b-6c5d4e3f2a1b", then "1b2c3d4e-5f60-4718-8293-a4b5c6d7e8f9" (event 1)
        Differ, and look like nothing that is made anew:
            find_one on shop.orders, filter.key: "plain", then "other" (event 2)
        Nothing is ignored unless you say so. To leave these places out of every comparison, add
        to pyproject.toml what holds for your program:
            [tool.timetracer]
            ignore = ["filter.key"]
        An ignored place of a filter is answered whatever is asked there. Where the values
        are random numbers, entropy = "random" gives a replay the recorded ones instead.
        """)  # noqa: E501
    assert learned_in(here / "a.json") == ["filter.key"]


def test_what_the_settings_ignore_is_not_proposed_again(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "pyproject.toml").write_text('[tool.timetracer]\nignore = ["filter.key"]\n')
    recorded(here / "a.json", "plain")
    recorded(here / "b.json", "other")

    assert main(["learn", "a.json", "b.json"]) == 0

    assert capfd.readouterr().out == (
        "a.json: 1 call compared with b.json.\nNothing else differs.\n"
    )


def test_a_program_is_run_twice_and_its_first_recording_kept(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(program("--own option", "--")) == 0

    out = capfd.readouterr().out
    assert out.count("argument: --own option --\n") == 2
    assert "\nfirst/program.json: 2 calls compared with second/program.json.\n" in out
    assert "The first recording is in cassettes/program.json.\n" in out
    assert learned_in(here / "cassettes" / "program.json") == ["filter.key"]
    assert os.listdir(here / "cassettes") == ["program.json"]


def test_a_cassette_that_is_there_stays_until_the_recording_is_accepted(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cassette = here / "cassettes" / "program.json"
    recorded(cassette, "as it was")
    before = cassette.read_bytes()

    assert main(program("x")) == 0

    assert cassette.read_bytes() == before
    out = capfd.readouterr().out
    typed = re.search(r"replace cassettes/program\.json: python -m timetracer (.*)\n", out)
    assert typed is not None
    assert main(typed[1].split()) == 0
    assert learned_in(cassette) == ["filter.key"]
    assert os.listdir(cassette.parent) == ["program.json"]


def test_a_cassette_that_the_settings_name_is_the_one(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIMETRACER_CASSETTE", "tapes/mine.json.gz")

    assert main(program("x")) == 0

    assert [str(path.relative_to(here)) for path in here.rglob("*.json*")] == ["tapes/mine.json.gz"]


def test_each_run_is_one_of_its_own(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIMETRACER_ENTROPY", "random")  # for scripts that no run started
    text = (here / "program.py").read_text()
    text = text.replace("sys.exit(", "driver('FIND_ONE', filter={'n': random.random()})\nsys.exit(")
    (here / "program.py").write_text(text)

    assert main(program("x")) == 0

    out = capfd.readouterr().out
    assert "Each recording has a seed of its own (entropy)" in out
    assert 'ignore = ["filter.n"]' in out


FAILING = {
    "a program that fails": (["learn", "--", sys.executable, "-c", "exit(3)"], "exit code 3"),
    "a program that is not there": (["learn", "--", "./nowhere"], "`./nowhere` cannot be run"),
    "a program without a call": (["learn", "--", sys.executable, "-c", ""], "recorded nothing"),
    "a cassette that is not there": (["learn", "a.json", "b.json"], "a.json"),
    "a directory and a file": (["learn", ".", "b.json"], "are a directory and a file"),
    "a path to accept that is none": (["accept", "a.json"], "not a recording that was kept"),
}


@pytest.mark.parametrize(("typed", "said"), FAILING.values(), ids=FAILING)
def test_an_error_is_told_and_nothing_is_written(
    here: Path, capfd: pytest.CaptureFixture[str], typed: list[str], said: str
) -> None:
    assert main(typed) == 1

    out, err = capfd.readouterr()
    assert out == "" and err.startswith("timetracer: ") and said in err
    assert os.listdir(here) == ["program.py"]


def test_a_program_that_fails_in_its_second_run_teaches_nothing(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(program("fail")) == 1

    assert "exit code 1 when it was run for the second time" in capfd.readouterr().err
    assert not (here / "cassettes").exists()


# ------------------------------------------------------------------------------- the line

NO_COMMAND = {
    "nothing": [],
    "no such command": ["forget"],
    "one path to learn from": ["learn", "a.json"],
    "three": ["learn", "a.json", "b.json", "c.json"],
    "paths and a program": ["learn", "a.json", "b.json", "--", "true"],
    "an empty program": ["learn", "--"],
    "nothing to accept": ["accept"],
    "an option of its own": ["learn", "--fast", "--", "true"],
}


@pytest.mark.parametrize("typed", NO_COMMAND.values(), ids=NO_COMMAND)
def test_what_is_no_command_is_refused_with_its_usage(
    here: Path, capfd: pytest.CaptureFixture[str], typed: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(typed)

    assert ended.value.code == 2
    assert capfd.readouterr().err.startswith("usage: ")


def test_the_help_has_every_command(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])

    said = " ".join(capfd.readouterr().out.split())
    for row in COMMANDS.values():
        assert f"{row.name} {row.help}" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_tells_what_it_does(
    command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "-h"])

    said = " ".join(capfd.readouterr().out.split())
    assert COMMANDS[command].usage in said.replace("python -m timetracer", "timetracer")
    assert COMMANDS[command].description.split(".")[0] in said


def test_it_runs_as_a_module_and_is_installed_as_a_script() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "timetracer", "learn", "-h"],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.startswith("usage: python -m timetracer learn FIRST SECOND | python -m")
    scripts = (ROOT / "pyproject.toml").read_text().partition("[project.scripts]\n")[2]
    assert scripts.startswith('timetracer = "timetracer.__main__:main"\n')
