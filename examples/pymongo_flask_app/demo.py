"""Records the shop over HTTP against a real server, stops it, replays, and compares the answers.

    python dev.py demo                    from the root of the checkout
    python dev.py demo --keep DIRECTORY   keeps the cassettes there, to be looked at

The app is a real process on a real port in both runs, with the same MONGODB_URI; in the second
run nothing listens there. A guard in the app's process counts the connections that it opens to
the database.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from tests.support import offline, server  # noqa: E402

REQUESTS: list[dict[str, Any]] = json.loads((HERE / "requests.json").read_text(encoding="utf-8"))
COMPARED_HEADERS = ("content-type", "content-length", "location")
START_SECONDS = 30

SEED = """
import sys
from pymongo import MongoClient

with MongoClient(sys.argv[1]) as client:
    db = client[sys.argv[2]]
    db.products.create_index("sku", unique=True)
    fields = ("sku", "name", "price", "category", "in_stock")
    rows = [
        ("T-1", "Assam", 7.5, "tea", True),
        ("T-2", "Sencha", 9.25, "tea", True),
        ("C-1", "Yirgacheffe", 12.0, "coffee", True),
        ("C-2", "Robusta", 5.0, "coffee", False),
    ]
    db.products.insert_many([dict(zip(fields, row)) for row in rows])
    db.users.insert_one({"_id": "123", "name": "Alice", "age": 30})
"""


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP."""

    status: int
    headers: tuple[str | None, ...]
    body: bytes


@dataclass(frozen=True)
class Run:
    """One run of the app.

    Attributes:
        answers: what came back over HTTP.
        events: how many driver calls it recorded or replayed, by its own log.
        connections: how many connections to the database it opened.
    """

    answers: list[Answer]
    events: int
    connections: int


def ask(base: str, method: str, path: str, body: Any = None) -> Answer:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} if data else {}
    request = urllib.request.Request(base + path, data, headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        response = opener.open(request, timeout=60)
    except urllib.error.HTTPError as error:
        response = error
    with response:
        kept = tuple(response.headers.get(name) for name in COMPARED_HEADERS)
        return Answer(response.status, kept, response.read())


@contextlib.contextmanager
def running_app(port: int, log: Path, env: dict[str, str]) -> Iterator[str]:
    """The app as a process of its own; gives its base URL once it answers."""
    base = f"http://127.0.0.1:{port}"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "app.py")],
            env=offline.environment({**env, "PORT": str(port)}),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(process, base, log)
        yield base
    finally:
        end(process)


def wait_for(process: subprocess.Popen[bytes], base: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            ask(base, "GET", "/static/none")
            return
        time.sleep(0.05)
    sys.exit(f"The app did not start. Its output:\n{log.read_text(encoding='utf-8')}")


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run_app(mode: str, database: server.Server, name: str, cassettes: Path) -> Run:
    """Start the app in a mode, make the requests, stop it."""
    work = cassettes.parent / "demo-logs"
    work.mkdir(exist_ok=True)
    report = work / f"{mode}-connections.jsonl"
    report.unlink(missing_ok=True)
    count_only = offline.Rules(ports=database.ports, dns=False, threads="none", refuse=False)
    env = {
        "MONGODB_URI": database.uri,
        "SHOP_DATABASE": name,
        "TIMETRACER_MODE": mode,
        "TIMETRACER_CASSETTE_DIR": str(cassettes),
        "LOG_LEVEL": "INFO",
        **offline.guarded(report, count_only),
    }
    log = work / f"{mode}.log"
    with running_app(server.free_port(), log, env) as base:
        answers = [ask(base, r["method"], r["path"], r.get("json")) for r in REQUESTS]
    return Run(answers, logged_events(log), len(offline.attempts(report)))


def logged_events(log: Path) -> int:
    """The sum over log lines such as "timetracer: replayed 3 events of ..."."""
    lines = log.read_text(encoding="utf-8")
    return sum(map(int, re.findall(r"timetracer: (?:recorded|replayed) (\d+) events", lines)))


def print_table(recorded: Run, replayed: Run) -> bool:
    """Print a line for each request; return whether all answers are the same."""
    print(f"\n{'request':<34}{'recorded':>9}{'replayed':>9}  answer")
    for row, live, again in zip(REQUESTS, recorded.answers, replayed.answers, strict=True):
        verdict = "same" if live == again else f"DIFFERENT\n  {live}\n  {again}"
        print(f"{row['method']:<8}{row['path']:<26}{live.status:>9}{again.status:>9}  {verdict}")
    return recorded.answers == replayed.answers


def demo(directory: Path) -> bool:
    """Record, replay and compare; return whether it is all as it should be."""
    cassettes = directory / "cassettes"
    with server.running_server() as database:
        name = "shop" if database.ours else f"timetracer_demo_{time.time_ns()}"
        print(f"recording against {database.kind}")
        offline.run_program(SEED, database.uri, name)
        recorded = run_app("record", database, name, cassettes)
        database.drop(name)
    print("server stopped" if database.ours else "the server of MONGODB_URI is left running")
    replayed = run_app("replay", database, name, cassettes)
    same = print_table(recorded, replayed)
    print(f"\nsockets opened to a database while recording: {recorded.connections}")
    print(f"events recorded: {recorded.events}")
    print(f"events replayed: {replayed.events}")
    print(f"sockets opened to a database: {replayed.connections}")
    all_replayed = replayed.events == recorded.events > 0
    return same and all_replayed and recorded.connections > 0 and replayed.connections == 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Record the shop, stop the server, replay.")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="keep the cassettes there")
    keep = parser.parse_args().keep
    with contextlib.ExitStack() as stack:
        directory = keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.mkdir(parents=True, exist_ok=True)
        try:
            passed = demo(directory.resolve())
        except server.ServerMissing as missing:
            sys.exit(f"demo: {missing}")
    print("\nThe answers are the same." if passed else "\nNOT the same: see above.")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
