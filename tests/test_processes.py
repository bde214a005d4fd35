"""Processes end in every way: what they recorded is whole, and no other's file is touched."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.offline import environment, run_offline, run_program

START = """
    import logging, os, sys, time
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from pymongo import MongoClient
    from timetracer import use_cassette
    from timetracer.plugins import enable_pymongo
    enable_pymongo()
    client = MongoClient(os.environ["MONGODB_URI"], connect=False, serverSelectionTimeoutMS=500)
    things = client[os.environ["TEST_DATABASE"]].things
"""


class Script:
    """A program app.py in a directory of its own, recorded against a server or replayed offline."""

    def __init__(self, directory: Path, uri: str, database: str) -> None:
        self.directory = directory
        self.uri = uri
        self.database = database

    def write(self, body: str) -> None:
        text = textwrap.dedent(START) + textwrap.dedent(body)
        (self.directory / "app.py").write_text(text, encoding="utf-8")

    def environment(self, mode: str | None, uri: str) -> dict[str, str | None]:
        return {
            "MONGODB_URI": uri,
            "TEST_DATABASE": self.database,
            "TIMETRACER_MODE": mode,
            "TIMETRACER_CASSETTE_DIR": "tapes",
        }

    def record(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        env = self.environment(options.pop("mode", "record"), options.pop("uri", self.uri))
        return run_program(
            self.directory / "app.py", *arguments, cwd=self.directory, env=env, **options
        )

    def replay(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        env = self.environment(options.pop("mode", "replay"), "mongodb://fake:27017")
        return run_offline(
            self.directory / "app.py", *arguments, cwd=self.directory, env=env, **options
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "app.py", *arguments],
            cwd=self.directory,
            env=environment(self.environment("record", self.uri)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def tapes(self) -> list[str]:
        """The files, session ids blanked."""
        found = (self.directory / "tapes").glob("*")
        return sorted(re.sub(r"\b[0-9a-f]{8}\b", "ID", path.name) for path in found)

    def calls(self, name: str = "app.json") -> list[str]:
        """The operations in a cassette, with the _id of what was inserted."""
        document = json.loads((self.directory / "tapes" / name).read_bytes())
        return [_shown(event) for event in document["events"]]


def _shown(event: dict[str, Any]) -> str:
    inserted = (event.get("arguments") or {}).get("document") or {}
    return " ".join([event["signature"]["method"], *(str(v) for v in inserted.values())])


@pytest.fixture
def script(tmp_path: Path, mongodb: str, database: str) -> Script:
    return Script(tmp_path, mongodb, database)


@pytest.mark.live
@pytest.mark.parametrize("end", ["pass", "1 / 0", "sys.exit(3)"])
def test_a_script_is_recorded_however_it_ends_by_itself(script: Script, end: str) -> None:
    script.write(f"""
        things.insert_one({{"_id": 1}})
        print(things.find_one())
        {end}
    """)
    live = script.record(check=False)
    replayed = script.replay(check=False)

    assert script.tapes == ["app.json"]
    assert script.calls() == ["INSERT_ONE 1", "FIND_ONE"]
    assert (replayed.stdout, replayed.returncode) == (live.stdout, live.returncode)


WAITING = """
    for number in range(3):
        things.insert_one({"_id": number})
    cursor = things.find({}, batch_size=2)
    next(cursor)
    print("ready", flush=True)
    try:
        time.sleep(60)
    finally:
        print("left")
"""


@pytest.mark.live
def test_sigterm_finishes_the_recording_and_is_passed_on(script: Script) -> None:
    script.write(WAITING)
    process = script.start()
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.terminate()
    out, _ = process.communicate(timeout=20)

    assert process.returncode == -signal.SIGTERM
    assert out == ""  # as without Timetracer, the program's own `finally` does not run
    assert script.tapes == ["app.json"]
    assert script.calls() == ["INSERT_ONE 0", "INSERT_ONE 1", "INSERT_ONE 2", "FIND"]


@pytest.mark.live
def test_a_sigterm_handler_of_the_program_stays(script: Script) -> None:
    script.write("""
        import signal
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
        things.insert_one({"_id": 1})
        os.kill(os.getpid(), signal.SIGTERM)
    """)

    assert script.record(check=False).returncode == 5
    assert script.calls() == ["INSERT_ONE 1"]


@pytest.mark.live
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_script_replaces_no_cassette(script: Script, number: int) -> None:
    script.write("""
        print(things.count_documents({}), flush=True)
        if "--interrupt" in sys.argv:
            import signal
            signal.signal(signal.SIGINT, signal.default_int_handler)  # not so in the background
            os.kill(os.getpid(), int(sys.argv[2]))
            time.sleep(5)
        things.find_one()
    """)
    script.record()
    interrupted = script.record("--interrupt", str(int(number)), check=False)

    assert interrupted.returncode != 0
    assert script.tapes == ["app.json", "app.unaccepted-ID.json"]
    assert script.calls() == ["COUNT_DOCUMENTS", "FIND_ONE"]
    told = re.search(r"python -m (timetracer accept \S+)", interrupted.stderr)
    assert told and "was interrupted, so tapes/app.json stays as it was" in interrupted.stderr

    command = [sys.executable, "-m", *told[1].split()]
    done = subprocess.run(
        command, cwd=script.directory, env=environment(), capture_output=True, text=True
    )

    assert (done.returncode, done.stdout) == (0, "accepted: tapes/app.json\n")
    assert script.tapes == ["app.json"]
    assert script.calls() == ["COUNT_DOCUMENTS"]


@pytest.mark.live
def test_a_recording_that_reached_no_server_replaces_no_cassette(script: Script) -> None:
    script.write("""
        try:
            print(things.count_documents({}))
        except Exception as error:
            print(type(error).__name__)
    """)
    live = script.record()
    unreached = script.record(uri="mongodb://127.0.0.1:9")

    assert unreached.stdout == "ServerSelectionTimeoutError\n"
    assert "reached no server, so tapes/app.json stays as it was" in unreached.stderr
    assert script.tapes == ["app.json", "app.unaccepted-ID.json"]
    assert script.replay().stdout == live.stdout == "0\n"


@pytest.mark.live
def test_after_sigkill_the_next_load_recovers(script: Script) -> None:
    script.write("""
        things.drop()
        for number in range(3):
            things.insert_one({"_id": number})
        cursor = things.find({}, batch_size=2)
        print(next(cursor), flush=True)
        if "--die" in sys.argv:
            time.sleep(0.6)
            os.kill(os.getpid(), 9)
    """)
    script.record("--die", check=False)
    assert script.tapes == ["app.json.ID.partial"]
    (partial,) = (script.directory / "tapes").iterdir()
    assert re.fullmatch(r"app\.json\.[0-9a-f]{8}\.partial", partial.name)
    with partial.open("ab") as file:
        file.write(b'{"eid": 6, "event_type": "db.qu')

    replayed = script.replay()

    assert "tapes/app.json was made of 5 events that a killed process had recorded. Its last " in (
        replayed.stderr
    )
    assert replayed.stdout == "{'_id': 0}\n"
    assert script.tapes == ["app.json"]
    assert json.loads((script.directory / "tapes/app.json").read_bytes())["session"]["recovered"]

    script.record("--die", check=False)
    assert "tapes/app.json stays as it was" in script.replay().stderr
    assert script.tapes == ["app.json", "app.unaccepted-ID.json"]


@pytest.mark.live
def test_the_partial_file_of_a_living_process_is_left_alone(script: Script) -> None:
    script.write(WAITING)
    process = script.start()
    try:
        assert process.stdout and process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 10
        while not script.tapes and time.monotonic() < deadline:
            time.sleep(0.05)
        (script.directory / "app2.py").write_text("from app import *", encoding="utf-8")
        missed = script.replay(check=False)

        assert "there is no cassette tapes/app.json" in missed.stderr
        assert script.tapes == ["app.json.ID.partial"]
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert script.tapes == ["app.json"]


@pytest.mark.live
def test_kill_9_at_random_moments_loses_no_finished_cassette(script: Script) -> None:
    script.write("""
        for number in range(int(sys.argv[1])):
            with use_cassette(f"tapes/{number % 7}.json", mode="record"):
                things.insert_one({"block": number})
                things.find_one({"block": number})
                print(number, flush=True)
    """)
    chance = random.Random(4)
    seen: set[str] = set()
    for _ in range(24):
        process = script.start("100000")
        assert process.stdout and process.stdout.readline()
        time.sleep(chance.uniform(0, 0.12))
        process.kill()
        process.communicate(timeout=20)
        there = {path for path in script.tapes if path.endswith(".json")}
        assert seen <= there
        seen = there
        for path in (script.directory / "tapes").glob("*.json"):
            events = json.loads(path.read_bytes())["events"]
            assert [event["signature"]["method"] for event in events] == ["INSERT_ONE", "FIND_ONE"]
    assert seen


@pytest.mark.live
def test_kill_9_of_a_long_recording_recovers_a_whole_beginning(script: Script) -> None:
    script.write("""
        things.drop()
        for number in range(100000):
            things.insert_one({"_id": number})
            print(number, flush=True)
    """)
    chance = random.Random(9)
    for _ in range(5):
        process = script.start()
        assert process.stdout and process.stdout.readline()
        time.sleep(chance.uniform(0.4, 0.8))
        process.kill()
        out, _ = process.communicate(timeout=20)
        made = len(out.split())
        script.replay(check=False)

        calls = script.calls()
        assert calls == ["DROP", *(f"INSERT_ONE {number}" for number in range(len(calls) - 1))]
        assert made * 0.1 < len(calls) <= made + 2
        assert script.tapes == ["app.json"]
        (script.directory / "tapes/app.json").unlink()


# ------------------------------------------------------------------------------- several processes

FORKS = {
    "os.fork": """
        pid = os.fork()
        if not pid:
            work(2)
            os._exit(0)
        os.waitpid(pid, 0)
    """,
    "fork": """
        context = multiprocessing.get_context("fork")
        child = context.Process(target=work, args=(2,))
        child.start(); child.join()
    """,
    "spawn": """
        context = multiprocessing.get_context("spawn")
        child = context.Process(target=work, args=(2,))
        child.start(); child.join()
    """,
    "pool": """
        with multiprocessing.get_context("fork").Pool(1) as pool:
            pool.map(work, [2])
    """,
    "reloader": """
        if os.environ.get("RELOADED"):
            work(2)
        else:
            import subprocess
            subprocess.run([sys.executable, *sys.argv], env={**os.environ, "RELOADED": "yes"})
    """,
}


@pytest.mark.live
@pytest.mark.parametrize("way", FORKS)
def test_a_child_has_a_cassette_of_its_own_and_replays_alike(script: Script, way: str) -> None:
    script.write("""
        import multiprocessing, warnings
        warnings.simplefilter("ignore")

        def work(number):
            with MongoClient(os.environ["MONGODB_URI"]) as own:
                own[os.environ["TEST_DATABASE"]].things.insert_one({"_id": number})
                print(number, own[os.environ["TEST_DATABASE"]].things.find_one({"_id": number}),
                      flush=True)

        if __name__ == "__main__":
            if not os.environ.get("RELOADED"):
                work(1)
    """)
    with (script.directory / "app.py").open("a", encoding="utf-8") as file:
        file.write(textwrap.indent(textwrap.dedent(FORKS[way]), "    "))
        file.write("    if not os.environ.get('RELOADED'): work(3)\n")
    live = script.record()
    if way == "os.fork":  # os._exit runs nothing: what the child recorded is found by the next load
        assert script.tapes == ["app.2.json.ID.partial", "app.json"]
    else:
        assert script.tapes == ["app.2.json", "app.json"]
    offline = script.replay(rules=_no_network(script))

    assert offline.stdout == live.stdout
    assert sorted(live.stdout.splitlines()) == [f"{n} {{'_id': {n}}}" for n in (1, 2, 3)]
    assert script.tapes == ["app.2.json", "app.json"]
    assert script.calls() == ["INSERT_ONE 1", "FIND_ONE", "INSERT_ONE 3", "FIND_ONE"]
    assert script.calls("app.2.json") == ["INSERT_ONE 2", "FIND_ONE"]


def _no_network(script: Script) -> Any:
    from tests.support.offline import Rules

    return Rules(threads="driver")


@pytest.mark.live
def test_a_child_forked_in_a_block_writes_beside_its_parent(script: Script) -> None:
    script.write("""
        import warnings
        warnings.simplefilter("ignore")
        with use_cassette("tapes/block.json", mode=sys.argv[1]):
            print("parent", things.count_documents({}), flush=True)
            pid = os.fork()
            print("child" if not pid else "both", things.count_documents({"x": 1}), flush=True)
            if pid:
                os.waitpid(pid, 0)
        if not pid:
            os._exit(0)
    """)
    live = script.record("record", mode=None)

    assert script.tapes == ["block.2.json", "block.json"]
    assert script.calls("block.json") == ["COUNT_DOCUMENTS"] * 2
    assert script.calls("block.2.json") == ["COUNT_DOCUMENTS"]
    replayed = script.replay("replay", mode=None)
    assert sorted(replayed.stdout.splitlines()) == sorted(live.stdout.splitlines())


@pytest.mark.live
def test_pre_forked_workers_never_touch_each_others_files(script: Script) -> None:
    script.write("""
        import warnings
        warnings.simplefilter("ignore")
        print(things.count_documents({}), flush=True)
        workers = []
        for number in range(3):
            pid = os.fork()
            if not pid:
                with MongoClient(os.environ["MONGODB_URI"]) as own:
                    for turn in range(4):
                        own[os.environ["TEST_DATABASE"]].things.count_documents({"n": number})
                sys.exit(0)
            workers.append(pid)
        for pid in workers:
            os.waitpid(pid, 0)
    """)
    for _ in range(2):
        script.record()
        assert script.tapes == ["app.2.json", "app.3.json", "app.4.json", "app.json"]
        assert script.calls() == ["COUNT_DOCUMENTS"]
        asked = set()
        for take in (2, 3, 4):
            text = (script.directory / f"tapes/app.{take}.json").read_text()
            found = re.findall(r'"filter":\{"n":(\d)\}', text)
            assert len(found) == 4 and len(set(found)) == 1
            asked |= set(found)
        assert asked == {"0", "1", "2"}


@pytest.mark.live
def test_processes_of_an_earlier_run_keep_their_cassettes(script: Script) -> None:
    script.write("""
        import subprocess
        print(things.count_documents({}))
        if "--child" in sys.argv:
            subprocess.run([sys.executable, "app.py"], check=True)
    """)
    script.record("--child")
    second = (script.directory / "tapes/app.2.json").read_bytes()
    script.record()

    assert script.tapes == ["app.2.json", "app.json"]
    assert (script.directory / "tapes/app.2.json").read_bytes() == second


# ------------------------------------------------------------------------------- the seed's script

ETL = """
# etl_script.py
from pymongo import MongoClient
from timetracer.plugins import enable_pymongo
from timetracer import TraceConfig
import os

# Enable PyMongo recording
enable_pymongo()

# Configure Timetracer for script mode
os.environ['TIMETRACER_MODE'] = 'record'
os.environ['TIMETRACER_CASSETTE_DIR'] = './etl_cassettes'

client = MongoClient('mongodb://localhost:27017')
source_db = client.source
target_db = client.target

def migrate_users():
    users = list(source_db.users.find({}))
    print(f"Found {len(users)} users")
    transformed = []
    for user in users:
        transformed.append({
            "user_id": user['_id'],
            "email": user['email'],
            "migrated_at": datetime.now()
        })
    result = target_db.migrated_users.insert_many(transformed)
    print(f"Migrated {len(result.inserted_ids)} users")

if __name__ == '__main__':
    migrate_users()
"""
SEED = """
    import sys
    from pymongo import MongoClient
    with MongoClient(sys.argv[1]) as client:
        client[sys.argv[2]].users.insert_many([{"_id": n, "email": f"{n}@x"} for n in range(3)])
"""
FIXED_CLOCK = """
import datetime as _datetime
class datetime(_datetime.datetime):
    now = staticmethod(lambda: _datetime.datetime(2026, 1, 22, 14))
"""


@pytest.mark.live
def test_the_script_that_sets_its_mode_after_enabling(
    tmp_path: Path, mongodb: str, database: str
) -> None:
    run_program(SEED, mongodb, database)
    text = FIXED_CLOCK + ETL.replace("client.source", f"client.{database}")
    text = text.replace("client.target", f"client.{database}")
    file = tmp_path / "etl_script.py"
    file.write_text(text.replace("mongodb://localhost:27017", mongodb), encoding="utf-8")
    live = run_program(file, cwd=tmp_path)

    assert live.stdout == "Found 3 users\nMigrated 3 users\n"
    assert [path.name for path in (tmp_path / "etl_cassettes").iterdir()] == ["etl_script.json"]

    file.write_text(text.replace("= 'record'", "= 'replay'"), encoding="utf-8")
    assert run_offline(file, cwd=tmp_path).stdout == live.stdout

    # A time that is written down in the program is compared exactly.
    moved = text.replace("= 'record'", "= 'replay'").replace("2026, 1, 22, 14", "2026, 1, 23, 9")
    file.write_text(moved, encoding="utf-8")
    missed = run_offline(file, cwd=tmp_path, check=False)
    assert "MissError: insert_many on" in missed.stderr
    assert "documents.0.migrated_at: recorded" in missed.stderr


@pytest.mark.live
def test_recording_again_differs_in_ids_and_times_only(script: Script) -> None:
    script.write("""
        things.drop()
        things.insert_many([{"_id": n, "tags": {"b": 1, "a": {n}.pop()}} for n in range(5)])
        things.update_one({"_id": 3, "tags.a": 3}, {"$set": {"seen": True}})
        print(list(things.find({"_id": {"$in": [1, 3]}}, batch_size=1)), things.index_information())
    """)
    texts = []
    for _ in range(2):
        script.record()
        texts.append((script.directory / "tapes/app.json").read_text(encoding="utf-8"))

    assert texts[0] != texts[1]
    assert _without_ids_and_times(texts[0]) == _without_ids_and_times(texts[1])


def _without_ids_and_times(text: str) -> str:
    text = re.sub(r'"(start_offset_ms|duration_ms)": [\d.e-]+', r'"\1": 0', text)
    text = re.sub(r'"(id|recorded_at|run|object_ids|started_at)":"[^"]+"', r'"\1":""', text)
    text = re.sub(r'"\$timestamp":\{[^}]*\}', '"$timestamp":{}', text)
    return re.sub(r'"topologies":\{.*?\}\]\}', '"topologies":{}', text)


# ------------------------------------------------------------------------------- disks


@pytest.mark.live
def test_a_full_disk_is_told_once_and_the_program_goes_on(script: Script) -> None:
    pytest.importorskip("resource")
    script.write("""
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        for number in range(30):
            things.insert_one({"_id": number})
            if number in (10, 20):
                time.sleep(0.4)
        print("done")
    """)
    done = script.record()

    assert done.stdout == "done\n"
    assert done.stderr.count("cannot be written: File too large.") == 1


@pytest.mark.live
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any directory")
def test_a_read_only_directory_is_told_once(script: Script) -> None:
    script.write("print(things.count_documents({}))")
    (script.directory / "tapes").mkdir(mode=0o500)

    done = script.record()

    assert (done.stdout, done.stderr.count("cannot be written")) == ("0\n", 1)


@pytest.mark.live
def test_a_directory_that_cannot_be_made_is_told_once(script: Script) -> None:
    script.write("""
        print(things.count_documents({}))
        time.sleep(0.6)
        print(things.count_documents({}))
    """)
    (script.directory / "tapes").write_text("a file in its place")

    done = script.record()

    assert (done.stdout, done.stderr.count("cannot be")) == ("0\n0\n", 1)
