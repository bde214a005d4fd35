"""Processes of tests: what they draw, what they are told, their drift, and who is out of reach."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import pytest

from tests.test_suite import Project
from tests.test_suite_plugins import project
from timetracer.config import CHILD_VARIABLE
from timetracer.integrations.children import STARTUP
from timetracer.integrations.out_of_reach import Start, python_options

__all__ = ["project"]


def header(project: Project, name: str) -> dict[str, Any]:
    text = (project.path / "cassettes" / name).read_text(encoding="utf-8")
    return dict(json.loads(text)["session"])


def in_order(project: Project, *arguments: str, **env: str | None) -> None:
    for run in (project.record, project.replay):
        ended = run(*arguments, **env)
        assert ended.code == 0, ended.text


# ------------------------------------------------------------------------- random numbers

DRAWS = """
    import random, sys, uuid

    early = random.random() if "pymongo" in sys.modules else None

    from pymongo import MongoClient

    def draw(*more):
        things = MongoClient("{uri}")["{database}"].drawn
        drawn = [random.random(), *more, random.random()]
        things.insert_one({"drawn": drawn})
        return drawn + [things.count_documents({"drawn": random.random()})]

    if __name__ == "__main__":
        print(draw(*sys.argv[1:]))
"""

DRAWING = """
    import multiprocessing, os, random, subprocess, sys, uuid, warnings
    import pytest
    from draws import draw

    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "draws.py")
    warnings.filterwarnings("ignore", "This process")

    def test_program_and_the_name_it_is_given():
        name = f"name{random.randrange(10**9)}"
        for _ in range(2):
            told = subprocess.run([sys.executable, program, name], capture_output=True, text=True)
            assert name in told.stdout, told.stderr

    def test_forks():
        for _ in range(2):
            pid = os.fork()
            if not pid:
                try:
                    before = random.random()
                    draw(before)
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert random.random() is not None

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_pool(method):
        with multiprocessing.get_context(method).Pool(1) as pool:
            first, second = pool.map(draw, [1, 2])
            assert first != second
            pool.close()
            pool.join()

    @pytest.mark.timetracer(entropy="all")
    def test_all():
        pid = os.fork()
        if not pid:
            try:
                draw(str(uuid.uuid4())[:7])
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


def test_each_process_draws_as_recorded(project: Project) -> None:
    project.write("draws.py", DRAWS)
    project.write("test_draws.py", DRAWING)
    in_order(project)
    names = [one for one in project.cassettes() if ".child" in one]
    assert len(names) == 7, names
    seeds = [header(project, one.removeprefix("cassettes/"))["entropy"] for one in names]
    assert len({seed["seed"] for seed in seeds}) == 7
    assert sorted(seed["level"] for seed in seeds) == ["all", *["random"] * 6]


def test_without_seeds_processes_draw_otherwise(project: Project) -> None:
    project.write("draws.py", DRAWS)
    project.write("test_draws.py", DRAWING)
    only = ("-k", "forks or spawn", "--timetracer-entropy=off")
    assert project.record(*only).code == 0
    ended = project.replay(*only)
    assert "pool[spawn]" in str(ended.outcomes) and "forks" in str(ended.outcomes), ended.text


def events(project: Project) -> dict[str, str]:
    """The events' text of each cassette."""
    texts = {name: (project.path / name).read_text() for name in project.cassettes()}
    return {name: text.partition('"events": ')[2] for name, text in texts.items()}


def test_what_is_recorded_again_draws_the_same(project: Project) -> None:
    project.write("draws.py", DRAWS)
    project.write("test_draws.py", DRAWING)
    project.write(
        "test_own.py",
        """
        import random
        from pymongo import MongoClient

        def test_own():
            things = MongoClient("{uri}")["{database}"].own
            things.insert_one({"drawn": random.random()})
            things.drop()
        """,
    )
    only = ("-k", "own or program or forks")
    assert project.record(*only).code == 0
    before = events(project)
    seed = header(project, "test_own/test_own.json")["entropy"]
    ended = project.record(*only)
    assert "0 changed in meaning, 4 unchanged" in ended.text, ended.text
    after = events(project)  # of which headers may tell that they were confirmed
    assert {name: after[name] for name in before} == before
    (project.path / "cassettes/test_own/test_own.json").unlink()
    assert project.record("test_own.py").code == 0
    assert header(project, "test_own/test_own.json")["entropy"] != seed


# ------------------------------------------------------------------------- a web application

APP = """
    import sys
    from flask import Flask, request
    from pymongo import MongoClient
    from timetracer import TraceConfig
    from timetracer.integrations.flask import auto_setup

    app = Flask(__name__)
    users = MongoClient("{uri}")["{database}"].users

    @app.get("/users/<name>")
    def show(name):
        users.update_one({"_id": name}, {"$inc": {"seen": 1}}, upsert=True)
        return str(users.find_one({"_id": name})["seen"])

    @app.get("/swallows")
    def swallows():
        try:
            return str(users.count_documents({"more": request.args["more"]}))
        except Exception:
            return "0"

    auto_setup(app, TraceConfig(mode="{mode}", cassette_dir="elsewhere"))
    if __name__ == "__main__":
        from werkzeug.serving import make_server
        server = make_server("127.0.0.1", 0, app, threaded=True)
        print(server.server_port, flush=True)
        server.serve_forever()
"""

ASKING = """
    import os, subprocess, sys, urllib.request
    import pytest

    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "app.py")

    @pytest.fixture(scope="session")
    def ask():
        with subprocess.Popen(
            [sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as server:
            port = server.stdout.readline().strip()
            def ask(path):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}") as answer:
                    return answer.read().decode()
            yield ask
            server.terminate()

    def test_first(ask):
        assert ask("users/alice") == "1"

    def test_second(ask):
        assert ask("users/alice") == "2"
        assert ask("users/bob") == "1"

    def test_swallows(ask):
        assert ask("swallows?more=" + os.environ.get("MORE", "1")) == "0"
"""


def test_a_web_application_is_recorded_whatever_its_own_settings_say(project: Project) -> None:
    project.write("test_app.py", ASKING)
    project.write("app.py", APP.replace("{mode}", "off"))
    ended = project.record()
    assert ended.code == 0, ended.text
    project.write("app.py", APP.replace("{mode}", "record"))
    ended = project.replay()
    assert ended.code == 0, ended.text
    assert project.cassettes() == ["cassettes/__session__.test_app.py.ask.child.json"]
    ended = project.replay(MORE="2")
    assert list(ended.outcomes) == ["test_app.py::test_swallows"], ended.text
    assert "in a process of the test: count_documents on" in ended.text
    project.server.drop(project.database)
    ended = project.record()
    assert "1 unchanged (1 files stay as they were)" in ended.text, ended.text


def test_a_process_has_the_settings_of_its_test(project: Project) -> None:
    project.write(
        "noise.py",
        """
        import os
        from pymongo import MongoClient

        things = MongoClient("{uri}")["{database}"].things
        for _ in range(2 if os.environ.get("AGAIN") else 1):
            things.find_one({"noise": os.getpid(), "n": 1})
        """,
    )
    project.write(
        "test_noise.py",
        """
        import os, subprocess, sys
        import pytest

        noise = os.path.join(os.path.dirname(os.path.abspath(__file__)), "noise.py")

        @pytest.mark.timetracer(ignore=["filter.noise"], allow_repeats=True)
        def test_marked():
            subprocess.run([sys.executable, noise], check=True)

        def test_not_marked():
            subprocess.run([sys.executable, noise], stderr=subprocess.DEVNULL)
        """,
    )
    assert project.record().code == 0
    ended = project.replay(AGAIN="1")
    assert list(ended.outcomes) == ["test_noise.py::test_not_marked"], ended.text


# ------------------------------------------------------------------------- verify and review

STORED = """
    import os, sys
    from pymongo import MongoClient

    changes = os.environ.get("CHANGES", "").split()

    def work(name):
        client = MongoClient("{uri}")
        things = client["{database}"].stored
        things.insert_one({"name": name, "at": len(changes) if "answer" in changes else 0})
        found = things.find_one({"name": name})
        if "gone" not in changes:
            things.count_documents({"name": name})
        if "new" in changes:
            things.distinct("name", {"name": name})
        client.close()
        return found["name"]

    if __name__ == "__main__":
        assert work(sys.argv[1]) == sys.argv[1]
"""

STORING = """
    import os, subprocess, sys
    from pymongo import MongoClient
    from stored import work

    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "stored.py")

    def test_program():
        with MongoClient("{uri}") as client:
            client["{database}"].keys.insert_one({"name": "program"})
        subprocess.run([sys.executable, program, "program"], check=True)

    def test_fork():
        pid = os.fork()
        if not pid:
            try:
                os._exit(0 if work("fork") == "fork" else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    def test_none():
        pass
"""


@pytest.fixture
def stored(project: Project) -> Project:
    """A project whose processes store what CHANGES says, recorded."""
    project.write("stored.py", STORED)
    project.write("test_stored.py", STORING)
    ended = project.record()
    assert ended.code == 0, ended.text
    return project


def test_what_processes_are_answered_otherwise_fails_the_test(stored: Project) -> None:
    stored.server.drop(stored.database)
    ended = stored.run("--timetracer=verify")
    assert ended.code == 0 and "no drift" in ended.text, ended.text
    before = stored.cassettes()
    stored.server.drop(stored.database)
    ended = stored.run("--timetracer=verify", CHANGES="new gone answer")
    assert sorted(ended.outcomes) == ["test_stored.py::test_fork", "test_stored.py::test_program"]
    assert "distinct on" in ended.text and "called at stored.py:" in ended.text, ended.text
    assert "was not called: event 3" in ended.text
    assert "pytest --timetracer=record test_stored.py::test_program" in ended.text
    assert stored.cassettes() == before


def test_what_processes_record_again_is_compared(stored: Project) -> None:
    before = {name: (stored.path / name).read_bytes() for name in stored.cassettes()}
    assert len(before) == 3
    stored.server.drop(stored.database)
    ended = stored.record()
    told = "0 changed in meaning, 3 unchanged (3 files stay as they were)"
    assert told in ended.text, ended.text
    assert {name: (stored.path / name).read_bytes() for name in stored.cassettes()} == before

    stored.server.drop(stored.database)
    ended = stored.record(CHANGES="new")
    assert "2 changed in meaning, 1 unchanged" in ended.text, ended.text
    assert "distinct on" in ended.text and "test_program.child.json" in ended.text
    assert sorted(stored.cassettes()) == sorted(before)
    ended = stored.replay(CHANGES="new")
    assert ended.code == 0, ended.text


# ------------------------------------------------------------------------- what they hand over

HANDED = """
    import os, subprocess, sys, uuid
    from bson import ObjectId
    from pymongo import MongoClient

    def open_database(name):
        return MongoClient("{uri}")["{database}_" + name]

    def work(name, key):
        things = open_database(name).things
        assert things.find_one({"_id": ObjectId(key)})["n"] == 1
        made = things.insert_one({"of": ObjectId(key), "token": str(uuid.uuid4())}).inserted_id
        return str(made), things.find_one({"_id": made})["token"]

    if __name__ == "__main__":
        print(*work(*sys.argv[1:]))
"""

HANDING = """
    import multiprocessing, os, subprocess, sys, uuid, warnings
    import pytest
    from bson import ObjectId
    from handed import open_database, work

    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "handed.py")
    warnings.filterwarnings("ignore", "This process")

    def by_program(*arguments):
        command = [sys.executable, program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    def by_pool(method, *arguments):
        with multiprocessing.get_context(method).Pool(1) as pool:
            made = pool.apply(work, arguments)
            pool.close()
            pool.join()
            return made

    def by_fork(*arguments):
        return by_pool("fork", *arguments)

    def by_spawn(*arguments):
        return by_pool("spawn", *arguments)

    @pytest.mark.parametrize("ask", [by_program, by_fork, by_spawn])
    def test_handed(ask):
        db = open_database(uuid.uuid4().hex)
        key = db.things.insert_one({"n": 1}).inserted_id
        made, token = ask(db.name.rpartition("_")[2], str(key))
        assert db.things.find_one({"_id": ObjectId(made), "of": key, "token": token})["of"] == key
        assert db.things.count_documents({"token": token}) == 1
        db.client.drop_database(db.name)
"""


def test_ids_go_from_a_test_to_its_processes_and_back(project: Project) -> None:
    project.write("handed.py", HANDED)
    project.write("test_handed.py", HANDING)
    in_order(project)
    ended = project.replay("-k", "spawn")
    assert ended.code == 0, ended.text


# ------------------------------------------------------------------------- out of reach

REACHED = """
    import asyncio, os, subprocess, sys
    import pytest

    here = os.path.dirname(os.path.abspath(__file__))
    quiet = [sys.executable, "-c", "pass"]
    without = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}

    def run(*words, **options):
        subprocess.run(words, check=True, **options)

    def test_isolated():
        run(sys.executable, "-X", "utf8", "-I", "-c", "pass")

    def test_no_site():
        run(sys.executable, "-SB", "-c", "pass")

    def test_environment():
        run(*quiet, env=without)

    def test_script():
        script = os.path.join(here, "script")
        with open(script, "w") as file:
            file.write(f"#!{sys.executable} -E\\npass\\n")
        os.chmod(script, 0o755)
        run(script)

    def test_shell():
        run(f"{sys.executable} -I -c pass", shell=True)

    def test_async():
        async def body():
            process = await asyncio.create_subprocess_exec(*quiet, env=without)
            await process.wait()
        asyncio.run(body())

    def test_other_installation():
        place = os.path.join(here, "other")
        run(sys.executable, "-c", "import pymongo", cwd=place, stderr=subprocess.DEVNULL)

    def test_in_reach():
        run(*quiet)
        run("true", env=without)
        run(f"{sys.executable} -c pass -I", shell=True)
        run(sys.executable, "-c", "pass", "-S")

    @pytest.mark.timetracer(mode="off")
    def test_off():
        run(*quiet, env=without)
"""

CAUSES = {
    "test_isolated": "-I has Python ignore PYTHONPATH",
    "test_no_site": "-S has Python run no startup hook",
    "test_environment": "its environment has not the PYTHONPATH of the test",
    "test_script": "-E has Python ignore PYTHONPATH",
    "test_shell": "-I has Python ignore PYTHONPATH",
    "test_async": "its environment has not the PYTHONPATH of the test",
    "test_other_installation": "ModuleNotFoundError",
}


@pytest.mark.parametrize(
    "arguments", [("--timetracer=record",), ("--timetracer=replay", "-n", "2")]
)
def test_processes_out_of_reach_are_named(project: Project, arguments: tuple[str, ...]) -> None:
    project.write("other/timetracer.py", "")
    project.write("test_reached.py", REACHED)
    ended = project.run(*arguments)
    assert ended.code == 0, ended.text
    told = ended.text.partition("7 processes were out of reach")[2].splitlines()[1:8]
    named = {line.strip().partition(": ")[0].partition("::")[2]: line for line in told}
    assert named.keys() == CAUSES.keys(), ended.text
    for name, cause in CAUSES.items():
        assert cause in named[name]


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("python x.py -I", set()),
        ("python3.12 -Wignore -I x.py", {"W", "I"}),
        ("/usr/bin/python3 -W ignore -bE x.py", {"W", "b", "E"}),
        ("pypy3 -X dev - -S", {"X"}),
        ("python -uIc pass", {"u", "I", "c"}),
        ("python -m app -S", {"m"}),
        ("python --check-hash-based-pycs=never -S x.py", {"S"}),
        ("python", set()),
        ("true -I", None),
        ("/there/is/none -I", None),
        ("", None),
    ],
)
def test_the_options_of_a_python_process(words: str, options: set[str] | None) -> None:
    assert python_options(words.split()) == options


def test_the_environment_of_a_process_may_be_bytes() -> None:
    env: dict[Any, Any] = {b"PYTHONPATH": STARTUP.encode(), CHILD_VARIABLE.encode(): b"{}"}
    words = [sys.executable, "x.py"]
    assert Start.of(words, env=env).cause() is None
    assert Start.of(["any"], executable=sys.executable, env={}).cause() is not None
    assert Start.of(os.fsencode(sys.executable), env={}).cause() is not None
