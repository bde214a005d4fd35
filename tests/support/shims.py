"""What bash finds first when a document's shell blocks run: `python`, `curl`, `docker` and `pip`.

Each does what the reader's own would do, as far as a document needs it; see COMMANDS in
snippets.py. Run as `python -m tests.support.shims NAME ARGUMENTS...`, with what it needs to know
in STORY_ variables.
"""

from __future__ import annotations

import contextlib
import http.cookiejar
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

SECONDS = 30
PRIVATE = Path(os.environ["STORY_PRIVATE"])
PORT = int(os.environ["STORY_PORT"])
ROOT = Path(os.environ["STORY_ROOT"])


def python(arguments: list[str]) -> int:
    """Run a program; an application goes on in the background once it answers."""
    if arguments == ["--interrupt"]:
        return interrupt()
    if arguments[:1] == ["dev.py"]:
        return known_command(" ".join(["python", *arguments]))
    if arguments and is_application(Path(arguments[0])):
        return serve(arguments)
    os.execv(os.environ["STORY_PYTHON"], [os.environ["STORY_PYTHON"], *arguments])


def known_command(command: str) -> int:
    text = (ROOT / "dev.py").read_text(encoding="utf-8")
    return 0 if command in text else fail(f"dev.py does not know {command!r}")


def is_application(file: Path) -> bool:
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return "app.run(" in text or "uvicorn.run(" in text


def serve(arguments: list[str]) -> int:
    interrupt()
    with (PRIVATE / "app.log").open("w") as log:
        process = subprocess.Popen(
            [os.environ["STORY_PYTHON"], *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    (PRIVATE / "app.pid").write_text(str(process.pid))
    deadline = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if listens(PORT):
            return 0
        time.sleep(0.02)
    return fail(f"the application did not start:\n{(PRIVATE / 'app.log').read_text()}")


def interrupt() -> int:
    """End the application as Ctrl-C would, and wait until it has. A process whose main thread has
    ended may have others that hold its port until they get their turn to end."""
    file = PRIVATE / "app.pid"
    if file.exists():
        end(int(file.read_text()), signal.SIGINT)
        file.unlink()
        deadline = time.monotonic() + SECONDS
        while listens(PORT) and time.monotonic() < deadline:
            time.sleep(0.02)
    return 0


def docker(arguments: list[str]) -> int:
    """`docker stop mongodb`: end the document's server, and wait until it has."""
    if arguments != ["stop", "mongodb"]:
        return fail(f"no such container command: {arguments}")
    if os.environ["STORY_SERVER"]:
        end(int(os.environ["STORY_SERVER"]), signal.SIGTERM)
    return 0


def end(group: int, number: int) -> None:
    for last in (number, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, last)
        deadline = time.monotonic() + SECONDS / 3
        while time.monotonic() < deadline:
            if not is_alive(group):
                return
            time.sleep(0.02)


def is_alive(group: int) -> bool:
    """Whether a process of the group runs; a zombie's files and sockets are closed."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{group}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def listens(port: int) -> bool:
    """Whether a program listens there: a try that happens to come from that very port is connected
    to itself."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) != 0:
            return False
        return bool(probe.getsockname() != probe.getpeername())


def pip(arguments: list[str]) -> int:
    """`pip install .` or `pip install ".[extra]"`: the checkout is a project with that extra."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    if arguments[:1] != ["install"] or len(arguments) < 2:
        return fail(f"no installation: {arguments}")
    for wanted in arguments[1:]:
        name, _, extras = wanted.rstrip("]").partition("[")
        named = [extra for extra in extras.split(",") if extra]
        missing = [extra for extra in named if f"\n{extra} = [" not in project]
        if missing or name not in (".", "-e", "tomli"):
            return fail(f"pip install {wanted}: only the checkout can be installed, {missing}")
    return 0


def curl(arguments: list[str]) -> int:
    """Ask, print the answer, and keep it."""
    real = os.environ["STORY_CURL"]
    if real:
        command = [real, "-sS", "--noproxy", "*", "--max-time", str(SECONDS), *arguments]
        answer = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.decode()
    else:
        answer = ask(arguments)
    with (PRIVATE / "answers.jsonl").open("a", encoding="utf-8") as kept:
        kept.write(json.dumps([" ".join(arguments), answer]) + "\n")
    sys.stdout.write(answer)
    return 0


def ask(arguments: list[str]) -> str:
    """What curl does, with -X, -H, -d, -c and -b only."""
    method, headers, fields, url = None, {}, [], ""
    cookies, save_as = http.cookiejar.MozillaCookieJar(), ""
    rest = iter(arguments)
    for argument in rest:
        if argument == "-X":
            method = next(rest)
        elif argument == "-H":
            name, _, value = next(rest).partition(":")
            headers[name] = value.strip()
        elif argument == "-d":
            fields.append(next(rest))
        elif argument == "-b":
            cookies.load(next(rest), ignore_discard=True)
        elif argument == "-c":
            save_as = next(rest)
        else:
            url = argument
    data = "&".join(fields).encode() if fields else None
    request = urllib.request.Request(url, data, headers, method=method)
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(cookies)
    )
    try:
        response = opener.open(request, timeout=SECONDS)
    except urllib.error.HTTPError as error:
        response = error
    if save_as:
        cookies.save(save_as, ignore_discard=True)
    with response:
        return str(response.read().decode())


def fail(why: str) -> int:
    sys.stderr.write(why + "\n")
    return 1


if __name__ == "__main__":
    commands = {"python": python, "curl": curl, "docker": docker, "pip": pip}
    sys.exit(commands[sys.argv[1]](sys.argv[2:]))
