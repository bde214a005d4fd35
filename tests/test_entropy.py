"""Random numbers: a seed for each scope, the driver's draws apart, all left as it was found."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import os
import random
import secrets
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import faker
import numpy
import pymongo.message
import pytest
from bson import ObjectId
from pymongo.client_session import ClientSession  # noqa: F401  the driver as programs import it

from tests.support.offline import Environment, run_offline, run_program
from timetracer import TraceConfig, entropy, use_cassette
from timetracer.entropy import Scope, Seed, open_scope
from timetracer.errors import ConfigError
from timetracer.model import RequestRecord
from timetracer.opening import open_file, open_request
from timetracer.process import enter_block, leave_block

PLUGIN = "timetracer.integrations.pytest"
SEED = "0123456789abcdef0123456789abcdef"
CHILD: Environment = {"TIMETRACER_RUN_ID": None, "PYTEST_CURRENT_TEST": None}
CHILD = {**CHILD, "PYTEST_VERSION": None}
"""A program that no test started, as far as it can tell."""

DRAWS: dict[str, Callable[[], Any]] = {
    "random": lambda: [random.random(), random.choice("abcdef"), random.getrandbits(64)],
    "numpy": lambda: numpy.random.rand(3).tolist(),
    "Faker": lambda: [faker.Faker().name(), faker.Faker("de_DE").email()],
}
SYSTEM_DRAWS: dict[str, Callable[[], Any]] = {
    "os.urandom": lambda: os.urandom(8),
    "uuid4": uuid.uuid4,
    "secrets": lambda: [secrets.token_hex(8), secrets.token_urlsafe(8), secrets.choice(range(999))],
    "SystemRandom": lambda: random.SystemRandom().random(),
    "numpy's own": lambda: numpy.random.default_rng().random(),
}
by_random = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
by_system = pytest.mark.parametrize("draw", SYSTEM_DRAWS.values(), ids=SYSTEM_DRAWS)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Every test leaves everything as it was."""
    modules = {name: vars(module).copy() for name, module in _drawing_modules().items()}
    yield
    assert entropy._entered == []
    for name, module in _drawing_modules().items():
        for key, value in modules.get(name, {}).items():
            if value is not None:  # what a module imports when it first needs it
                assert vars(module).get(key) is value, f"{name}.{key}"


def _drawing_modules() -> dict[str, ModuleType]:
    places = ("random", "os", "uuid", "secrets", "pymongo", "bson", "gridfs", "motor", "dns")
    modules = sys.modules.items()
    return {name: module for name, module in modules if name.split(".")[0] in places}


class Scoped:
    """A scope in a `with` statement."""

    def __init__(self, level: str = "random", value: str = SEED) -> None:
        self.scope = Scope(Seed(level, value))

    def __enter__(self) -> None:
        self.scope.enter()

    def __exit__(self, *_: object) -> None:
        self.scope.leave()


# ------------------------------------------------------------------------------- one scope


@by_random
def test_a_seed_gives_the_same_numbers_again(draw: Callable[[], Any]) -> None:
    drawn = []
    for value in (SEED, SEED, "another"):
        with Scoped(value=value):
            drawn.append(draw())
    assert drawn[0] == drawn[1] != drawn[2]


@by_random
def test_a_scope_leaves_the_program_where_it_was(draw: Callable[[], Any]) -> None:
    with Scoped():  # what stands around the scope has a known state too
        outer = draw(), draw()
    with Scoped():
        first = draw()
        with Scoped(value="inner"):
            draw()
        assert (first, draw()) == outer


@by_random
def test_a_scope_that_is_entered_again_goes_on(draw: Callable[[], Any]) -> None:
    with Scoped():
        whole = [draw(), draw()]
    scope = Scoped()
    with scope:
        first = draw()
    draw()
    with scope:
        assert [first, draw()] == whole


def test_a_scope_may_be_left_before_one_that_was_entered_in_it() -> None:
    random.seed("program")
    expected = [random.random(), random.random()]
    with Scoped():
        whole = [random.random(), random.random()]
    random.seed("program")
    outer, inner = Scope(Seed("random", SEED)), Scope(Seed("all", "inner"))
    drawn = [random.random()]
    outer.enter()
    first = random.random()
    inner.enter()
    outer.leave()
    inner.leave()
    assert [*drawn, random.random()] == expected
    outer.enter()
    assert [first, random.random()] == whole
    outer.leave()


def test_leaving_twice_or_without_entering_does_nothing() -> None:
    state = random.getstate()
    scope = Scope(Seed("all", SEED))
    scope.leave()
    scope.enter()
    scope.leave()
    scope.leave()
    assert random.getstate() == state


# ------------------------------------------------------------------------------- the system's


@by_system
def test_all_gives_the_numbers_of_the_system_too(draw: Callable[[], Any]) -> None:
    drawn = []
    for level, value in (("all", SEED), ("all", SEED), ("all", "another"), ("random", SEED)):
        with Scoped(level, value):
            drawn.append(draw())
    assert drawn[0] == drawn[1]
    assert len({str(one) for one in drawn}) == 3


def test_a_name_that_a_module_has_imported_is_given_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("salts_before", "salts_inside"):
        (tmp_path / f"{name}.py").write_text("from os import urandom\n", encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)
    before = __import__("salts_before")
    with Scoped("all"):
        first = before.urandom(8)
        inside = __import__("salts_inside")
        second = inside.urandom(8)
    with Scoped("all"):
        assert [inside.urandom(8), before.urandom(8)] == [first, second]
    assert before.urandom is inside.urandom is os.urandom is entropy._real_urandom


def test_a_generator_that_is_made_in_a_scope_is_no_part_of_it() -> None:
    with Scoped("all"):
        one = random.Random().random()
    with Scoped("all"):
        assert random.Random().random() != one


def test_errors_and_edges_of_urandom_are_those_of_the_system() -> None:
    with Scoped("all"):
        assert os.urandom(0) == b""
        assert len(os.urandom(100_000)) == 100_000
        with pytest.raises(ValueError):
            os.urandom(-1)
        with pytest.raises(TypeError):
            os.urandom("8")  # type: ignore[arg-type]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork here")
def test_a_forked_child_draws_what_its_parent_does_not() -> None:
    program = """
        import os, random, uuid
        from pymongo import message
        from timetracer.entropy import Scope, Seed
        scope = Scope(Seed("all", "1"))
        scope.enter()
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        drawn = random.random(), uuid.uuid4()
        scope.leave()
        scope.enter()
        print(*drawn, message._randint(), flush=True)
    """
    lines = [run_program(program).stdout.splitlines() for _ in range(2)]
    numbers, names, drivers = zip(*[line.split() for run in lines for line in run], strict=True)
    assert (len(set(numbers)), len(set(names)), len(set(drivers))) == (3, 3, 4)


# ------------------------------------------------------------------------------- the driver's


def driver_draws() -> list[Any]:
    """What the driver's own functions draw, by its own ways."""
    from pymongo import auth_shared, topology_description

    found = [pymongo.message._randint(), topology_description.sample(range(10**6), 3)]
    client = pymongo.MongoClient(connect=False)
    found.append(client._topology._session_pool.get_server_session(30).session_id["id"])
    nonce, *_ = auth_shared._authenticate_scram_start(_credentials(), "SCRAM-SHA-256")
    client.close()
    return [*found, nonce]


def _credentials() -> Any:
    from pymongo.auth_shared import _build_credentials_tuple

    return _build_credentials_tuple("SCRAM-SHA-256", "admin", "user", "password", {}, "db")


def test_the_drivers_draws_do_not_advance_the_programs() -> None:
    draws = [*DRAWS.values(), *SYSTEM_DRAWS.values()]
    drawn, drivers = [], []
    for live in (True, False):
        with Scoped("all"):
            drawn.append([(draw(), live and drivers.append(driver_draws()))[0] for draw in draws])
    assert drawn[0] == drawn[1]
    assert len({str(one) for one in drivers}) == len(drivers)


def test_the_driver_draws_anew_in_every_scope() -> None:
    found = []
    for _ in range(2):
        with Scoped("all"):
            found.append(driver_draws())
    assert all(one != other for one, other in zip(*found, strict=True))


def test_no_module_of_the_driver_reaches_the_programs_generator() -> None:
    shared = random.random.__self__  # type: ignore[attr-defined]
    with Scoped("all"):
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] in entropy.APART and module is not entropy:
                for key, value in list(vars(module).items()):
                    assert value is not random, f"{name}.{key}"
                    with contextlib.suppress(RuntimeError):  # a proxy outside of its request
                        assert getattr(value, "__self__", None) is not shared, f"{name}.{key}"


def test_object_ids_are_never_foretold() -> None:
    program = """
        from timetracer.entropy import Scope, Seed
        Scope(Seed("all", "1")).enter()
        from bson import ObjectId
        print(ObjectId().binary[4:9].hex())
    """
    assert len({run_program(program).stdout for _ in range(2)}) == 2
    with Scoped("all"):
        one = ObjectId()
    with Scoped("all"):
        assert ObjectId() != one


# ------------------------------------------------------------------------------- which seed


def test_every_recording_has_a_seed_of_its_own() -> None:
    with Scoped("all"):  # also where the program's numbers are foretold
        made = [open_scope("random", None, records=True) for _ in range(2)]
    with Scoped("all"):
        made.append(open_scope("random", None, records=True))
    assert len({scope.seed.value for scope in made if scope}) == 3


@pytest.mark.parametrize(
    ("setting", "recorded", "level"),
    [
        ("random", "random", "random"),
        ("all", "all", "all"),
        ("random", "all", "random"),
        ("all", "random", "random"),
    ],
)
def test_what_was_recorded_is_given_as_far_as_it_is_asked_for(
    setting: str, recorded: str, level: str
) -> None:
    kept = Seed(recorded, SEED).dump()
    scope = open_scope(setting, kept, records=True)
    assert scope is not None
    assert scope.seed == Seed(level, SEED)
    assert scope.kept.dump() == kept


@pytest.mark.parametrize("kept", [None, {}, [], {"level": "odd", "seed": "1"}, {"level": "all"}])
def test_a_cassette_without_a_seed_is_replayed_without_one(kept: Any) -> None:
    assert open_scope("random", kept, records=False) is None


def test_off_is_off() -> None:
    assert open_scope("off", Seed("all", SEED).dump(), records=True) is None


def test_all_is_refused_outside_of_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTEST_CURRENT_TEST", "PYTEST_VERSION"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="only in tests under pytest") as refused:
        open_scope("all", None, records=True)
    assert refused.value.setting == "entropy"


@pytest.mark.parametrize(
    ("given", "kept"), [("7", 7), ("0", 0), ("random", "random"), (None, "random")]
)
def test_the_hash_seed_is_told(given: str | None, kept: int | str) -> None:
    program = "from timetracer.entropy import hash_seed\nprint(repr(hash_seed()))"
    printed = run_program(program, env={"PYTHONHASHSEED": given}).stdout
    assert printed.strip() == repr(kept)


# ------------------------------------------------------------------------------- cassettes


BLOCK = """
    import os, random, secrets, sys, uuid
    sys.modules["pymongo._cmessage"] = None  # the driver without C draws for every message
    import faker, numpy
    from pymongo import MongoClient
    from timetracer import use_cassette
    from timetracer.plugins import enable_pymongo

    enable_pymongo()
    made = faker.Faker()
    things = MongoClient(os.environ["MONGODB_URI"])[os.environ["TEST_DATABASE"]].things

    def work():
        for number in range(4):
            _id = {"_id": [random.getrandbits(64) >> 1, number, *extra()]}
            things.insert_one({**_id, "name": made.name(), "rank": float(numpy.random.rand())})
            print(things.find_one(_id), random.choice("abcdef"))
        print(sorted(random.sample(range(100), 5)), things.count_documents({}))
"""
SYSTEM = """
    def extra():
        return [str(uuid.uuid4()), uuid.uuid4().hex[:8], secrets.token_hex(4)]
"""
NOTHING = """
    def extra():
        return []
"""
SCRIPT = """
    work()
    things.drop()
"""
WITH_BLOCK = """
    state = random.getstate(), faker.generator.random.getstate()
    with use_cassette("block.json"):
        work()
        things.drop()
    assert (random.getstate(), faker.generator.random.getstate()) == state
    assert os.urandom(8) != os.urandom(8) and uuid.uuid4() != uuid.uuid4()
"""


class Program:
    """A program that is recorded live, then replayed in another process, sockets refused."""

    def __init__(self, directory: Path, uri: str, database: str) -> None:
        self.directory = directory
        self.env: Environment = {"MONGODB_URI": uri, "TEST_DATABASE": database, **CHILD}

    def write(self, *parts: str) -> None:
        text = "".join(map(textwrap.dedent, parts))
        (self.directory / "app.py").write_text(text, encoding="utf-8")

    def record(self, **env: str | None) -> str:
        return self._run(run_program, {"TIMETRACER_MODE": "record", **env})

    def replay(self, **env: str | None) -> str:
        return self._run(
            run_offline,
            {"TIMETRACER_MODE": "replay", "MONGODB_URI": "mongodb://fake:27017", **env},
        )

    def _run(self, run: Callable[..., Any], env: Environment) -> str:
        program = self.directory / "app.py"
        return str(run(program, cwd=self.directory, env={**self.env, **env}).stdout)

    def header(self, name: str) -> Any:
        file = self.directory / name
        return json.loads(file.read_text(encoding="utf-8"))["session"]


@pytest.fixture
def program(tmp_path: Path, mongodb: str, database: str) -> Program:
    return Program(tmp_path, mongodb, database)


def test_a_script_draws_in_replay_what_it_drew(program: Program) -> None:
    program.write(BLOCK, NOTHING, SCRIPT)
    live = program.record(TIMETRACER_ENTROPY="random", PYTHONHASHSEED="5")
    assert live.count("\n") == 5
    assert program.replay(TIMETRACER_ENTROPY="random") == live
    header = program.header("cassettes/app.json")
    assert header["entropy"]["level"] == "random" and len(header["entropy"]["seed"]) == 32
    assert header["hash_seed"] == 5


def test_what_a_script_draws_before_its_first_call_counts(program: Program) -> None:
    before = "enable_pymongo()\n    made = faker.Faker()\n"
    early = before + "    print(random.random(), made.name())\n"
    assert before in BLOCK
    program.write(BLOCK.replace(before, early), NOTHING, SCRIPT)
    live = program.record(TIMETRACER_ENTROPY="random")
    assert program.replay(TIMETRACER_ENTROPY="random") == live


def test_two_recordings_draw_differently(program: Program) -> None:
    program.write(BLOCK, NOTHING, SCRIPT)
    assert program.record(TIMETRACER_ENTROPY="random") != program.record(
        TIMETRACER_ENTROPY="random"
    )


def test_a_block_of_a_test_draws_in_replay_what_it_drew(program: Program) -> None:
    program.write(BLOCK, SYSTEM, WITH_BLOCK)
    test = {"TIMETRACER_ENTROPY": "all", "PYTEST_CURRENT_TEST": "test_app.py::test (call)"}
    live = program.record(**test)
    assert live.count("\n") == 5
    assert program.replay(**test) == live
    assert program.header("block.json")["entropy"]["level"] == "all"


def test_without_the_setting_a_block_is_not_seeded(program: Program) -> None:
    program.write(BLOCK, NOTHING, "with use_cassette('block.json'):\n    work(); things.drop()\n")
    program.record()
    assert "entropy" not in program.header("block.json")


def test_all_is_refused_to_a_program_that_is_no_test(program: Program) -> None:
    program.write(BLOCK, SYSTEM, WITH_BLOCK)
    run = functools.partial(run_program, program.directory / "app.py", cwd=program.directory)
    refused = run(env={**program.env, "TIMETRACER_ENTROPY": "all"}, check=False)
    assert refused.returncode == 1
    assert 'ConfigError: The setting entropy cannot be "all" here' in refused.stderr
    assert not (program.directory / "block.json").exists()


def test_a_script_that_is_refused_is_not_replayed_live(program: Program) -> None:
    program.write(BLOCK, NOTHING, SCRIPT)
    program.record()
    run = functools.partial(run_offline, program.directory / "app.py", cwd=program.directory)
    env = {**program.env, "TIMETRACER_ENTROPY": "all", "TIMETRACER_MODE": "replay"}
    refused = run(env=env, check=False)
    assert 'ConfigError: The setting entropy cannot be "all" here' in refused.stderr


def test_the_processes_of_a_run_are_not_seeded(program: Program) -> None:
    program.write(BLOCK, NOTHING, SCRIPT)
    program.record(TIMETRACER_ENTROPY="random", TIMETRACER_RUN_ID=secrets.token_hex(16))
    assert "entropy" not in program.header("cassettes/app.json")


TEST = """
    import os, random, uuid
    from pymongo import MongoClient

    things = MongoClient(os.environ["MONGODB_URI"], connect=False)[os.environ["TEST_DATABASE"]].t

    def test_names(timetracer_auto):
        with timetracer_auto():
            key = {"_id": [uuid.uuid4().hex[:8], random.random()]}
            things.insert_one(key)
            assert things.find_one(key) == key
            things.drop()
"""


def test_the_fixtures_seed_too(program: Program) -> None:
    installed = [entry.value for entry in importlib.metadata.entry_points(group="pytest11")]
    arguments = ["-q", *([] if PLUGIN in installed else ["-p", PLUGIN])]
    (program.directory / "test_names.py").write_text(textwrap.dedent(TEST), encoding="utf-8")
    program.write("import sys, pytest\n", f"sys.exit(pytest.main({arguments}))\n")
    env = {"TIMETRACER_ENTROPY": "all"}
    assert "1 passed" in program.record(**env)
    assert "1 passed" in program.replay(**env)
    header = program.header("cassettes/test_names/test_names.json")
    assert header["entropy"]["level"] == "all"


def test_a_session_that_is_entered_again_goes_on(tmp_path: Path) -> None:
    config = TraceConfig(mode="record", entropy="random").resolve()
    session = open_file(tmp_path / "fixture.json", config)
    drawn = []
    for _ in range(2):
        token = enter_block(session)
        drawn.append(random.random())
        leave_block(session, token)
    assert session.entropy is not None
    random.seed(f"{session.entropy.seed.value} random")
    assert drawn == [random.random(), random.random()]


def test_requests_are_never_seeded(tmp_path: Path) -> None:
    state = random.getstate()
    config = TraceConfig(mode="record", cassette_dir=tmp_path, entropy="all").resolve()
    session = open_request(config, RequestRecord("GET", "/users"))
    assert session is not None
    with session.entered(), use_cassette(tmp_path / "inner.json", "record", config=config) as inner:
        assert (session.entropy, inner.entropy) == (None, None)
        assert random.getstate() == state


ASKS = """
    with use_cassette("block.json"):
        for _ in range(2):
            print(random.random(), things.find_one({"n": random.random()}))
"""


def test_new_episodes_go_on_with_the_seed_that_is_there(program: Program) -> None:
    program.write(BLOCK, NOTHING, ASKS)
    live = program.record(TIMETRACER_ENTROPY="random")
    seed = program.header("block.json")["entropy"]
    program.write(BLOCK, NOTHING, ASKS.replace("range(2)", "range(3)"))
    more = program.record(TIMETRACER_ENTROPY="random", TIMETRACER_MODE="new_episodes")
    assert more.startswith(live)
    assert program.header("block.json")["entropy"] == seed
    assert program.replay(TIMETRACER_ENTROPY="random") == more


def test_new_episodes_keep_what_a_cassette_was_recorded_with(program: Program) -> None:
    program.write(BLOCK, NOTHING, ASKS)
    program.record(TIMETRACER_ENTROPY="random")
    cassette = program.directory / "block.json"
    text = cassette.read_text(encoding="utf-8").replace('"level":"random"', '"level":"all"')
    cassette.write_text(text, encoding="utf-8")
    program.write(BLOCK, NOTHING, ASKS.replace("range(2)", "range(3)"))
    program.record(TIMETRACER_ENTROPY="random", TIMETRACER_MODE="new_episodes")
    assert text.count('"eid"') < cassette.read_text(encoding="utf-8").count('"eid"')
    assert program.header("block.json")["entropy"]["level"] == "all"


# ------------------------------------------------------------------------- of a process


def test_a_process_has_a_seed_that_follows_from_that_of_its_test() -> None:
    seed = Seed("random", "00" * 16)
    assert seed.of("a.child") == seed.of("a.child") != seed.of("a.child.2")
    assert seed.of("a.child").level == "random" and seed.of("a.child") != seed
    scope = Scope(seed)
    first = scope.of_fork().seed
    scope.forks += 1
    assert first != scope.of_fork().seed


def test_what_is_recorded_again_has_its_earlier_seed_and_the_level_that_is_asked_for() -> None:
    earlier = Seed("random", "11" * 16)
    scope = open_scope("all", None, records=True, otherwise=earlier)
    assert scope is not None and scope.seed == Seed("all", earlier.value)
    recorded = Seed("random", "22" * 16).dump()
    scope = open_scope("random", recorded, records=False, otherwise=earlier)
    assert scope is not None and scope.seed.value == "22" * 16
    assert open_scope("off", None, records=True, otherwise=earlier) is None
