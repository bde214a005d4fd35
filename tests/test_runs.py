"""Runs: all processes of a program share one id, and no name is claimed twice among them."""

from __future__ import annotations

import multiprocessing
import os
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from timetracer import runs
from timetracer.errors import SessionError

PROCESSES = 8
NAMES = 200

CLAIM_ALL = """
import sys
from timetracer.runs import claim
sys.stdin.readline()
print("\\n".join(name for name in map(str, range(int(sys.argv[1]))) if claim("take", name)))
"""


@pytest.fixture(autouse=True)
def own_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMETRACER_RUN_ID", "the secret of this run")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    runs._claims.cache_clear()


def python(program: str, *arguments: str, without_id: bool = False) -> str:
    environ = {name: text for name, text in os.environ.items() if name != "TIMETRACER_RUN_ID"}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environ if without_id else None,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def claim_all(names: int) -> list[str]:
    return [name for name in map(str, range(names)) if runs.claim("take", name)]


def test_a_relative_path_is_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for directory in ("one", "other"):
        (tmp_path / directory).mkdir()
        monkeypatch.chdir(tmp_path / directory)
        assert runs.claim("take", "cassettes/x.json")
        assert not runs.claim("take", str(tmp_path / directory / "cassettes/x.json"))


def test_the_id_comes_from_the_environment() -> None:
    assert runs.run_id() == "the secret of this run"
    assert runs.run_label() == "f2592d8474a00cd8"
    assert len(runs.run_secret()) == 32
    assert python("from timetracer.runs import *; print(run_label())") == "f2592d8474a00cd8\n"


def test_the_first_who_asks_makes_the_id_and_hands_it_on() -> None:
    program = (
        "import os, subprocess, sys\n"
        "from timetracer import runs\n"
        "assert 'TIMETRACER_RUN_ID' not in os.environ\n"
        "print(runs.run_id(), os.environ['TIMETRACER_RUN_ID'], flush=True)\n"
        "ask = 'from timetracer import runs; print(runs.run_id())'\n"
        "subprocess.run([sys.executable, '-c', ask], check=True)\n"
    )

    first, second, third = python(program, without_id=True).split()

    assert len(first) == 32
    assert first == second == third
    assert python(program, without_id=True).split()[0] != first


def test_label_and_secret_do_not_tell_the_id() -> None:
    shown = runs.run_label() + runs.run_secret().hex()

    assert runs.run_id().encode().hex() not in shown
    assert runs.run_label() not in runs.run_secret().hex()


def test_a_name_is_claimed_once_until_it_is_released() -> None:
    assert runs.claim("take", "a.json") is True
    assert runs.claim("take", "a.json") is False
    assert runs.claim("process", "a.json") is True
    assert runs.claim("take", "sub/\u00fc\ud800\0.json") is True

    runs.release("take", "a.json")
    runs.release("take", "never claimed")

    assert runs.claim("take", "a.json") is True


def test_another_run_has_claims_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert runs.claim("take", "a.json") is True
    monkeypatch.setenv("TIMETRACER_RUN_ID", "another")

    assert runs.claim("take", "a.json") is True


def test_processes_that_race_claim_each_name_once() -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM_ALL, str(NAMES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    claimed = [name for child in children for name in child.communicate(timeout=60)[0].split()]

    assert sorted(claimed, key=int) == [str(number) for number in range(NAMES)]


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_workers_of_a_pool_claim_each_name_once(method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"{method} is missing on this system")
    with multiprocessing.get_context(method).Pool(2) as pool:
        claimed = [name for part in pool.map(claim_all, [NAMES] * 4) for name in part]

    assert sorted(claimed, key=int) == [str(number) for number in range(NAMES)]


def test_threads_that_race_claim_each_name_once() -> None:
    claimed: list[str] = []
    threads = [
        threading.Thread(target=lambda: claimed.extend(claim_all(NAMES))) for _ in range(PROCESSES)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(claimed, key=int) == [str(number) for number in range(NAMES)]


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no os.fork on this system")


@needs_fork
def test_children_forked_before_anyone_asked_share_the_id_and_do_not_clean_up() -> None:
    program = (
        "import os, sys\n"
        "from timetracer import runs\n"
        "for name in 'ab':\n"
        "    if os.fork() == 0:\n"
        "        print(runs.run_id(), runs.claim('take', name), runs.claim('take', 'both'))\n"
        "        sys.exit()\n"
        "    os.wait()\n"
        "print(runs.run_id(), runs.claim('take', 'a'), runs.claim('take', 'b'))\n"
    )

    lines = [line.split() for line in python(program, without_id=True).splitlines()]

    assert len({line[0] for line in lines}) == 1
    assert [line[1:] for line in lines] == [["True", "True"], ["True", "False"], ["False", "False"]]


def test_the_maker_of_the_id_removes_the_claims_at_exit_after_all_else(tmp_path: Path) -> None:
    program = (
        "import atexit\n"
        "from timetracer import runs\n"
        "atexit.register(runs.claim, 'take', 'at exit')\n"
        "print(runs.claim('take', 'x'))\n"
    )

    assert python(program, without_id=True) == "True\n"
    assert list(tmp_path.iterdir()) == []

    assert python(program) == "True\n"
    assert [path.name for path in tmp_path.iterdir()] == ["timetracer-f2592d8474a00cd8"]


def test_who_shares_nothing_leaves_nothing(tmp_path: Path) -> None:
    program = "import os\nfrom timetracer import runs\nprint(runs.RUN_ID_VARIABLE in os.environ)"

    assert python(program, without_id=True) == "False\n"
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_was_cleaned_away_is_made_again(tmp_path: Path) -> None:
    assert runs.claim("take", "a") is True
    for path in tmp_path.glob("timetracer-*/*"):
        path.unlink()
    (tmp_path / "timetracer-f2592d8474a00cd8").rmdir()

    assert runs.claim("take", "b") is True


@pytest.mark.skipif(os.name == "nt", reason="no permission bits on this system")
def test_claims_are_private(tmp_path: Path) -> None:
    runs.claim("take", "a secret name")

    directory = tmp_path / "timetracer-f2592d8474a00cd8"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    (log,) = directory.iterdir()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert "secret" not in log.name and b"secret" not in log.read_bytes()


@pytest.mark.parametrize("cut", [2, 20])
def test_a_line_that_a_full_disk_cut_off_claims_nothing(tmp_path: Path, cut: int) -> None:
    assert runs.claim("take", "a") is True
    log = tmp_path / "timetracer-f2592d8474a00cd8" / "claims"
    line = log.read_bytes()
    log.write_bytes(line[:-cut])
    runs._claims.cache_clear()  # as another process, which knows no more than the log

    assert runs.is_claimed("take", "a") is False
    assert runs.claim("take", "b") is True
    assert runs.claim("take", "a") is True
    assert runs.claim("take", "a") is False


def test_what_a_process_claimed_stays_its_own_in_a_log_that_is_new(tmp_path: Path) -> None:
    assert runs.claim("take", "a") is True
    log = tmp_path / "timetracer-f2592d8474a00cd8" / "claims"
    log.unlink()
    assert python("from timetracer.runs import *; print(claim('take', 'b'))") == "True\n"

    assert [runs.claim("take", name) for name in "abc"] == [False, False, True]


@pytest.mark.skipif(os.name == "nt", reason="no permission bits on this system")
@pytest.mark.parametrize("trap", ["open directory", "link", "file", "parent is a file"])
def test_a_directory_that_others_can_touch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: str
) -> None:
    directory = tmp_path / "timetracer-f2592d8474a00cd8"
    if trap == "open directory":
        directory.mkdir()
        directory.chmod(0o770)
    elif trap == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        directory.symlink_to(tmp_path / "elsewhere")
    elif trap == "file":
        directory.touch(mode=0o600)
    else:
        directory.touch()
        monkeypatch.setattr(tempfile, "tempdir", str(directory))

    with pytest.raises(SessionError, match="Remove it, or set TMPDIR"):
        runs.claim("take", "a")
