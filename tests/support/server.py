"""A MongoDB server for tests, demo and benchmarks, found or started in a process of its own.

In this order: `MONGODB_URI`, a `mongod` on PATH, SecantusDB. The process that uses the server
imports neither a driver nor a server: a keeper (`python -m tests.support.server`) does, prints one
line of JSON that tells the URI, and then answers lines of text on its standard input:

    drop NAME       drops the database NAME and prints "ok"
    (end of file)   stops the server, unless MONGODB_URI named it, and exits

So a server ends with the process that asked for it, however that ends.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30
STOP_SECONDS = 10


class ServerMissing(RuntimeError):
    """No server can be had on this machine; the message names what is missing."""


class Server:
    """A running server, and the keeper process that looks after it.

    Attributes:
        uri: the connection string.
        kind: "MONGODB_URI", "mongod" or "SecantusDB".
        ours: whether `stop` and `kill` end the server; one named by MONGODB_URI runs on.
    """

    def __init__(self, keeper: subprocess.Popen[str], uri: str, kind: str) -> None:
        self._keeper = keeper
        self.uri = uri
        self.kind = kind
        self.ours = kind != "MONGODB_URI"

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports of its members; those of mongodb+srv:// are taken to be 27017."""
        hosts = self.uri.split("://", 1)[1].split("/", 1)[0].rpartition("@")[2].split(",")
        ports = [host.rpartition(":")[2] for host in hosts]
        return tuple(int(port) if port.isdigit() else 27017 for port in ports)

    @property
    def pid(self) -> int:
        """The keeper's process id and group: SIGTERM ends the server with it."""
        return self._keeper.pid

    @property
    def runs(self) -> bool:
        """Whether the keeper, and so a server of ours, has not ended."""
        return self._keeper.poll() is None

    def drop(self, database: str) -> None:
        """Drop a database without a driver in this process.

        Args:
            database: its name.

        Raises:
            RuntimeError: the server refused, or is gone.
        """
        assert self._keeper.stdin and self._keeper.stdout
        self._keeper.stdin.write(f"drop {database}\n")
        self._keeper.stdin.flush()
        answer = self._keeper.stdout.readline().strip()
        if answer != "ok":
            raise RuntimeError(f"could not drop {database}: {answer or 'the server is gone'}")

    def stop(self) -> None:
        """End the server: politely, then SIGTERM, then SIGKILL. Twice does no harm."""
        with contextlib.suppress(OSError):
            self._keeper.stdin.close()  # type: ignore[union-attr]
        for end in (lambda: None, self._keeper.terminate, self.kill):
            end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._keeper.wait(STOP_SECONDS)
                break
        self._keeper.stdout.close()  # type: ignore[union-attr]

    def kill(self) -> None:
        """End keeper and server at once, as a crash would."""
        if self._keeper.poll() is None:
            os.killpg(self._keeper.pid, signal.SIGKILL)
            self._keeper.wait()


def start_server(port: int = 0, *, text_indexes: bool = False) -> Server:
    """Find a server, or start one that the caller stops.

    Args:
        port: where a server that is started listens; 0 for any port.
        text_indexes: whether SecantusDB, which has none, makes a plain index where one is asked
            for; what searches in it fails all the same.

    Returns:
        The server, which accepts writes.

    Raises:
        ServerMissing: there is none; the message names what is missing.
        RuntimeError: there is one, but it does not answer.
    """
    keeper = subprocess.Popen(
        [sys.executable, "-m", "tests.support.server", str(port), str(int(text_indexes))],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert keeper.stdin and keeper.stdout
    said = json.loads(keeper.stdout.readline() or '{"failed": "the keeper process ended early"}')
    if "uri" in said:
        return Server(keeper, said["uri"], said["kind"])
    keeper.stdin.close()
    keeper.stdout.close()
    keeper.wait()
    if "missing" in said:
        raise ServerMissing(said["missing"])
    raise RuntimeError(f"The MongoDB server cannot be used: {said['failed']}")


@contextlib.contextmanager
def running_server(port: int = 0, *, text_indexes: bool = False) -> Iterator[Server]:
    """Give a server for the length of a `with` block; see `start_server` for arguments and what
    it raises."""
    server = start_server(port, text_indexes=text_indexes)
    try:
        yield server
    finally:
        server.stop()


# What follows runs in the keeper process only.


@contextlib.contextmanager
def _given(port: int) -> Iterator[str]:
    yield os.environ["MONGODB_URI"]


@contextlib.contextmanager
def _mongod(port: int) -> Iterator[str]:
    """A replica set of one member: transactions and change streams need a replica set."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        port = port or free_port()
        command = [shutil.which("mongod") or "mongod", "--dbpath", directory, "--port", str(port)]
        command += ["--bind_ip", "127.0.0.1", "--replSet", "tests", "--logpath"]
        command += [f"{directory}/log", "--setParameter", "enableTestCommands=1"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            _initiate(port)
            yield f"mongodb://127.0.0.1:{port}/?replicaSet=tests"
        finally:
            process.terminate()
            process.wait()


def _initiate(port: int) -> None:
    member = {"_id": 0, "host": f"127.0.0.1:{port}"}
    with _client(f"mongodb://127.0.0.1:{port}/?directConnection=true") as client:
        client.admin.command("replSetInitiate", {"_id": "tests", "members": [member]})


@contextlib.contextmanager
def _secantus(port: int) -> Iterator[str]:
    from secantus import SecantusDBServer

    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory,
        SecantusDBServer(storage_path=directory, port=port) as server,
    ):
        yield server.uri


KINDS = (
    ("MONGODB_URI", lambda: bool(os.environ.get("MONGODB_URI")), _given),
    ("mongod", lambda: shutil.which("mongod") is not None, _mongod),
    ("SecantusDB", lambda: importlib.util.find_spec("secantus") is not None, _secantus),
)


def _missing() -> str:
    why = "it has no release for Python 3.14 and later" if sys.version_info >= (3, 14) else (
        'pip install "SecantusDB>=0.7.0b3"'
    )
    return (
        "no MongoDB server: MONGODB_URI is not set, there is no mongod on PATH, and SecantusDB is "
        f"not installed ({why})"
    )


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _client(uri: str) -> Any:
    from pymongo import MongoClient

    return MongoClient(uri, serverSelectionTimeoutMS=START_SECONDS * 1000)


def _wait_for_primary(client: Any) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not (hello := client.admin.command("hello")).get("isWritablePrimary"):
        if time.monotonic() > deadline:
            raise RuntimeError(f"no member takes writes after {START_SECONDS} s: {hello}")
        time.sleep(0.05)


def _answer(client: Any, line: str) -> str:
    _, _, name = line.strip().partition(" ")
    try:
        client.drop_database(name)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "ok"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _take_text_indexes() -> None:
    from secantus.storage import Storage

    create = Storage.create_index

    def create_index(
        self: Any, db: str, coll: str, name: str, key_spec: Any, options: Any = None
    ) -> Any:
        if "text" in key_spec.values():
            key_spec = {key: 1 if kind == "text" else kind for key, kind in key_spec.items()}
            options = {key: one for key, one in (options or {}).items() if key not in _OF_TEXT}
        return create(self, db, coll, name, key_spec, options)

    Storage.create_index = create_index


_OF_TEXT = ("weights", "default_language", "language_override", "textIndexVersion")


def _keep(port: int = 0, text_indexes: int = 0) -> None:
    found = next(((kind, start) for kind, there, start in KINDS if there()), None)
    if found is None:
        return _say(json.dumps({"missing": _missing()}))
    kind, start = found
    if text_indexes and kind == "SecantusDB":
        _take_text_indexes()
    try:
        with start(port) as uri, _client(uri) as client:
            _wait_for_primary(client)
            _say(json.dumps({"uri": uri, "kind": kind}))
            for line in sys.stdin:
                _say(_answer(client, line))
    except Exception as error:
        return _say(json.dumps({"failed": f"{kind}: {type(error).__name__}: {error}"}))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _keep(*map(int, sys.argv[1:]))
