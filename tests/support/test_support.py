"""What the proofs rest on: the guard sees what it must refuse, the server comes and goes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.offline import Rules, attempts, environment, guarded, run_offline, run_program
from tests.support.server import Server, free_port, start_server

TRIES = {
    "socket.connect": "socket.create_connection(('127.0.0.1', 9))",
    "socket.getaddrinfo": "socket.getaddrinfo('localhost', 80)",
    "socket.gethostbyname": "socket.gethostbyname('localhost')",
    "socket.sendto": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('127.0.0.1', 53))",
    "_thread.start_": "threading.Thread(target=print).start()",
}


@pytest.mark.parametrize("event", TRIES)
@pytest.mark.parametrize("swallowed", [False, True])
def test_the_guard_refuses_and_tells_also_what_the_program_swallows(
    event: str, swallowed: bool
) -> None:
    attempt = TRIES[event]
    if swallowed:
        attempt = f"try: {attempt}\nexcept Exception: pass"
    with pytest.raises(AssertionError, match=event):
        run_offline(f"import socket, threading\n{attempt}")


def test_a_program_that_tries_nothing_passes() -> None:
    assert run_offline("import asyncio; asyncio.run(asyncio.sleep(0)); print('fine')").stdout == (
        "fine\n"
    )


def test_the_guard_reaches_child_processes() -> None:
    child = "import socket; socket.gethostbyname('localhost')"
    with pytest.raises(AssertionError, match=r"socket\.gethostbyname"):
        run_offline(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])")


def test_a_guard_that_never_ran_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="the guard never ran"):
        attempts(tmp_path / "nothing.jsonl")


def test_only_the_database_is_refused_where_only_its_port_is_named() -> None:
    program = """
        import socket, sys, threading
        listener = socket.create_server(("127.0.0.1", 0))
        socket.create_connection(listener.getsockname()).close()
        listener.close()
        threading.Thread(target=int).start()
        if len(sys.argv) > 1:
            socket.socket().connect_ex(("127.0.0.1", int(sys.argv[1])))
    """
    port = free_port()
    rules = Rules(ports=(port,), threads="driver")
    run_offline(program, rules=rules)
    with pytest.raises(AssertionError, match=rf"socket.connect .*{port}"):
        run_offline(program, str(port), rules=rules)


def test_the_drivers_threads_are_told_from_the_programs_own() -> None:
    program = """
        from pymongo import MongoClient
        MongoClient("mongodb://127.0.0.1:9")
    """
    with pytest.raises(AssertionError, match=r"_thread\.start_"):
        run_offline(program, rules=Rules(ports=(), dns=False, threads="driver"))


def test_counting_does_not_disturb(tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    rules = Rules(refuse=False)
    run_program("import socket; socket.gethostbyname('localhost')", env=guarded(report, rules))
    assert [attempt.what for attempt in attempts(report)] == ["socket.gethostbyname"]


def test_the_guard_runs_the_sitecustomize_that_it_hides(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import builtins; builtins.seen = 'seen'\n")
    path = os.pathsep.join([guarded(tmp_path / "r")["PYTHONPATH"], str(tmp_path)])
    env = {**guarded(tmp_path / "r"), "PYTHONPATH": path}
    assert run_program("print(seen)", env=env).stdout == "seen\n"


def test_a_failing_program_shows_its_output() -> None:
    with pytest.raises(AssertionError, match=r"exit code 3(?s:.)*to be seen"):
        run_program("import sys; print('to be seen'); sys.exit(3)")


def test_a_variable_given_as_none_is_taken_away() -> None:
    os.environ["TIMETRACER_MODE"] = "record"
    assert "TIMETRACER_MODE" not in environment({"TIMETRACER_MODE": None})


def test_settings_do_not_leak_from_one_test_to_the_next() -> None:
    assert "TIMETRACER_MODE" not in os.environ


PING = """
import sys
from pymongo import MongoClient
from pymongo.errors import PyMongoError
try:
    with MongoClient(sys.argv[1], serverSelectionTimeoutMS=300) as client:
        print(client.admin.command("ping")["ok"])
except PyMongoError as error:
    print("gone")
"""


def ping(uri: str) -> str:
    return run_program(PING, uri).stdout.strip()


@pytest.mark.live
@pytest.mark.parametrize("end", [Server.stop, Server.kill])
def test_a_started_server_answers_until_it_is_ended(end: object) -> None:
    server = start_server()
    if not server.ours:
        server.stop()
        pytest.skip("MONGODB_URI names a server that is not ours to end")
    assert ping(server.uri) == "1.0"
    end(server)  # type: ignore[operator]
    assert ping(server.uri) == "gone"
    server.stop()


@pytest.mark.live
def test_a_server_ends_with_the_process_that_started_it() -> None:
    program = """
        import os, sys
        from tests.support.server import start_server
        server = start_server()
        sys.stdout.write(server.uri if server.ours else "")
        sys.stdout.flush()
        os._exit(9)
    """
    uri = run_program(program, check=False).stdout
    if not uri:
        pytest.skip("MONGODB_URI names a server that is not ours to end")
    assert any(ping(uri) == "gone" for _ in range(20))


def test_the_process_that_starts_a_server_imports_neither_driver_nor_server() -> None:
    program = """
        import sys, tests.support.server
        print({"pymongo", "secantus"} & set(sys.modules))
    """
    assert run_program(program).stdout == "set()\n"


def test_no_server_is_told_with_what_is_missing() -> None:
    program = """
        import importlib.util
        from tests.support import server
        importlib.util.find_spec = lambda name: None
        server._keep()
    """
    said = run_program(program, env={"MONGODB_URI": None, "PATH": ""}).stdout
    assert said.startswith('{"missing": "no MongoDB server: MONGODB_URI is not set, there is no')


def test_a_given_server_that_does_not_answer_is_an_error_and_not_a_skip() -> None:
    program = """
        from tests.support import server
        server.START_SECONDS = 0.3
        server._keep()
    """
    env = {"MONGODB_URI": f"mongodb://127.0.0.1:{free_port()}"}
    said = run_program(textwrap.dedent(program), env=env).stdout
    assert said.startswith('{"failed": "MONGODB_URI: ServerSelectionTimeoutError')


def test_a_fresh_database_is_dropped_through_the_keeper(
    mongodb_server: Server, database: str
) -> None:
    insert = "import sys; from pymongo import MongoClient as C; c = C(sys.argv[1]); "
    names = run_program(
        insert + "c[sys.argv[2]].x.insert_one({}); print(c.list_database_names()); c.close()",
        mongodb_server.uri,
        database,
    ).stdout
    assert database in names
    mongodb_server.drop(database)
    listing = insert + "print(c.list_database_names()); c.close()"
    assert database not in run_program(listing, mongodb_server.uri).stdout


def test_dev_tells_how_to_use_it() -> None:
    command = [sys.executable, "dev.py"]
    told = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert told.returncode == 2
    assert "python dev.py demo" in told.stderr
