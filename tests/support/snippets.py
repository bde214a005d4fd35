"""Runs the code blocks of a document as a reader would: in order, in one directory, for real.

Python blocks are saved (under the name in their first comment, `# app.py`) and run, or handed to
pytest where they hold tests; shell blocks go to bash; JSON blocks are loaded as cassettes, TOML
blocks as settings. What the reader has and the runner has not is in the tables here, and only here:
`STANDS_FOR` (addresses), `COMMANDS` (programs that bash finds first), `SUPPLIED` (what a block
lacks).
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.offline import ALONE, ROOT, environment
from tests.support.server import Server, free_port, start_server
from timetracer.cassette import Cassette
from timetracer.config import resolve

SHIMS = "tests.support.shims"
PLUGIN = "timetracer.integrations.pytest"
SECONDS = 90
RUN_LANGUAGES = ("python", "bash", "json", "toml")
"""Text is compared where it follows a shell block; elsewhere it is there to be read."""

COMMANDS = {
    "python": "an application (app.run, uvicorn.run) goes on in the background once it answers; "
    "the next one, or the document's end, interrupts it. `python dev.py` is checked by its form: "
    "the commands set up environments, and `python dev.py test` runs these tests.",
    "curl": "curl itself, or a few lines of Python where there is none; answers are kept, so that "
    "equal requests can be compared.",
    "docker": "`docker stop mongodb` ends the document's own server; the next Python block has one "
    "again.",
    "pip": "checked by its form: the checkout is a project, and has the extras that are named.",
}
"""What bash finds before the programs of these names (tests/support/shims.py)."""

STANDS_FOR = {
    "mongodb://localhost:27017": "the document's own server",
    "mongodb://remote:27017": "the same server",
    "MongoClient()": "a client of the same server",
    "localhost:5000": "a free port of this machine",
}
"""Addresses in a document, and what is there in their place when it is run."""


@dataclass(frozen=True, slots=True)
class Supplied:
    """A row of the table: what a block lacks.

    Attributes:
        document: the document, or "*" for any.
        block: a text that the block holds.
        why: what is missing and why it is not in the document.
        before: Python or shell text that is put in front.
        after: the same, at the end.
    """

    document: str
    block: str
    why: str
    before: str = ""
    after: str = ""


SERVE = "\nif __name__ == '__main__':\n    app.run()\n"
SEED = "from pymongo import MongoClient\nclient = MongoClient('mongodb://localhost:27017')\n"

SUPPLIED: tuple[Supplied, ...] = (
    Supplied(
        "README.md",
        "curl http://localhost:5000/users/123   # writes",
        "seeded data: a user",
        before=f'python -c "{SEED}'
        "client.shop.users.insert_one({'_id': '123', 'name': 'Alice'})\"\n",
    ),
    Supplied(
        "docs/odms.md",
        "import mongoengine as me",
        "an ODM, which is no package of the tests",
        before="import tests.clients.on_path\n",
    ),
    Supplied(
        "docs/configuration.md",
        "TIMETRACER_SAMPLE_RATE=0.1 python app.py",
        "the application of the reader",
        before="printf 'print(1)' > app.py\n",
    ),
    Supplied(
        "docs/configuration.md",
        "TIMETRACER_ERRORS_ONLY=true python app.py",
        "the application of the reader",
        before="printf 'print(1)' > app.py\n",
    ),
    Supplied(
        "docs/index.md",
        "TIMETRACER_CASSETTE_DIR=./etl_cassettes python etl_script.py",
        "seeded data: two users to move",
        before=f'python -c "{SEED}'
        "client.source.users.insert_many([{'_id': n, 'email': f'{n}@example.com'} "
        'for n in range(2)])"\n',
    ),
    Supplied(
        "docs/index.md",
        "python -m timetracer accept",
        "a recording that was interrupted",
        before="cp etl_cassettes/etl_script.json "
        "etl_cassettes/etl_script.unaccepted-1a2b3c4d.json\n",
    ),
)

VARIES: dict[tuple[str, str], str] = {}
"""(document, part of the URL) -> why equal requests have different answers."""


# ------------------------------------------------------------------------------- blocks


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a document.

    Attributes:
        document: the document's path in the checkout.
        line: the line of its first fence.
        language: the first word after the fence.
        title: what follows it: a file's name, or "".
        text: what stands between the fences.
    """

    document: str
    line: int
    language: str
    title: str
    text: str

    @property
    def place(self) -> str:
        """Where it is, as an editor takes it."""
        return f"{self.document}:{self.line}"

    @property
    def filename(self) -> str:
        """The file that it is saved as."""
        named = re.match(r"# ?(\S+\.(?:py|toml))\n", self.text)
        ending = {"python": "py"}.get(self.language, self.language)
        return self.title or (named[1] if named else f"block_{self.line}.{ending}")


_FENCED = re.compile(r"^```(\w*)[ ]*([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def documents() -> list[str]:
    """The documents whose blocks are run: README.md and docs/*.md."""
    return ["README.md", *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))]


def blocks_of(document: str) -> list[Block]:
    """The fenced blocks of a document, in order."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return [
        Block(
            document,
            text.count("\n", 0, match.start()) + 1,
            match[1],
            match[2],
            match[3],
        )
        for match in _FENCED.finditer(text)
    ]


def supplied_for(block: Block) -> list[Supplied]:
    """The rows of the table that a block needs."""
    return [row for row in SUPPLIED if row.document == block.document and row.block in block.text]


# ------------------------------------------------------------------------------- a story


@dataclass(slots=True)
class Story:
    """A document that is being run: a directory, a server, and what is in them by now.

    Attributes:
        document: the document's path in the checkout, for messages.
        directory: where everything runs.
        port: what localhost:5000 stands for.
    """

    document: str
    directory: Path
    port: int = field(default_factory=free_port)
    _server: Server | None = None
    _said: str = ""

    @property
    def uri(self) -> str:
        """The server's URI; the server starts when it is first asked for."""
        if self._server is None:
            self._server = start_own_server()
        return self._server.uri

    def run(self, block: Block) -> None:
        """Run one block; raises AssertionError where it does not work as written."""
        rows = supplied_for(block)
        before = "".join(row.before for row in rows)
        text = before + block.text + "".join(row.after for row in rows)
        runner = getattr(self, f"_run_{block.language}")
        runner(block, text)

    def end(self) -> None:
        """Stop what is still running."""
        self.bash("python --interrupt", "the end", check=False)
        if self._server is not None:
            self._server.kill()
            self._server.stop()

    def _forget_stopped_server(self) -> None:
        if self._server is not None and not self._server.runs:
            self._server.stop()
            self._server = None

    def answers(self) -> list[tuple[str, str]]:
        """The curl commands of the story so far, as (command, answer)."""
        file = self._private / "answers.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return [tuple(json.loads(line)) for line in lines]

    # ---------------------------------------------------------------- one language each

    def _run_python(self, block: Block, text: str) -> None:
        self._forget_stopped_server()
        file = self.write(block.filename, text)
        if re.search(r"^(async )?def test_", text, re.MULTILINE):
            self.bash(f"python -m pytest -q {file.name}", block.place)
        elif not _is_application(text):
            self.bash(f"python {file.name}", block.place)
        else:
            ast.parse(text)  # the shell block that follows starts it

    def _run_bash(self, block: Block, text: str) -> None:
        self._said = self.bash(self.in_place(text), block.place)

    def _run_text(self, block: Block, text: str) -> None:
        """What a document shows after a shell block is what that block said."""
        assert text.strip() in self._said, f"{block.place}: it says\n{self._said}"

    def _run_json(self, block: Block, text: str) -> None:
        file = self.write(block.filename, text)
        if "schema_version" in json.loads(text):
            assert Cassette(file.read_bytes(), block.place).events, f"{block.place} has no events"

    def _run_toml(self, block: Block, text: str) -> None:
        file = self.write(block.filename, text)
        if sys.version_info >= (3, 11):
            assert resolve(environ={}, start=file.parent).given, block.place
        file.unlink()

    # ---------------------------------------------------------------- how

    @property
    def _private(self) -> Path:
        private = self.directory.with_name(self.directory.name + "-runner")
        if not private.exists():
            (private / "bin").mkdir(parents=True)
            for name in COMMANDS:
                shim = private / "bin" / name
                shim.write_text(f'#!/bin/sh\nexec "$STORY_PYTHON" -m {SHIMS} {name} "$@"\n')
                shim.chmod(0o755)
        return private

    def in_place(self, text: str) -> str:
        """Return text with the addresses in it replaced by what they stand for."""
        if any(mongodb in text for mongodb in list(STANDS_FOR)[:3]):
            for address in ("mongodb://localhost:27017", "mongodb://remote:27017"):
                text = text.replace(address, self.uri)
            text = text.replace("MongoClient()", f"MongoClient({self.uri!r})")
        text = text.replace("localhost:5000", f"127.0.0.1:{self.port}")
        text = text.replace('port=int(os.environ.get("PORT", "5000"))', "")
        text = re.sub(r"(uvicorn\.run\(.*port=)5000", rf"\g<1>{self.port}", text)
        return text.replace("app.run(", f"app.run(host='127.0.0.1', port={self.port}, ")

    def write(self, name: str, text: str) -> Path:
        """Save a file, addresses in it replaced by what they stand for."""
        file = self.directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.in_place(text), encoding="utf-8")
        return file

    def bash(self, text: str, place: str, *, check: bool = True) -> str:
        """Run shell text; returns its standard output, AssertionError where it fails."""
        result = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", text],
            cwd=self.directory,
            env=self._environment(),
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=SECONDS,
        )
        log = self._private / "app.log"
        told = f"{place}: exit code {result.returncode}\n{text}\n{result.stdout}\n{result.stderr}"
        if log.exists():
            told += f"\n--- the application\n{log.read_text(encoding='utf-8', errors='replace')}"
        assert not check or result.returncode == 0, told
        return result.stdout

    def _environment(self) -> dict[str, str]:
        changes: dict[str, str | None] = {
            "PATH": os.pathsep.join(
                [
                    str(self._private / "bin"),
                    str(Path(sys.executable).parent),
                    os.environ.get("PATH", ""),
                ]
            ),
            "STORY_PYTHON": sys.executable,
            "STORY_PRIVATE": str(self._private),
            "STORY_PORT": str(self.port),
            "STORY_ROOT": str(ROOT),
            "STORY_CURL": shutil.which("curl") or "",
            "STORY_SERVER": str(self._server.pid) if self._server is not None else "",
            "PYTEST_ADDOPTS": ALONE if _plugin_is_installed() else f"{ALONE} -p {PLUGIN}",
            "MONGODB_URI": None,
            "CI": None,  # in which pytest records nothing unless it is asked to
            "PYTHONUNBUFFERED": "1",
        }
        return environment(changes)


def start_own_server() -> Server:
    """A server of the story's own: documents write to databases of real-looking names, and stop
    the server, so one that MONGODB_URI names is left alone.

    Raises:
        ServerMissing: no server can be started on this machine.
    """
    named = os.environ.pop("MONGODB_URI", None)
    try:
        return start_server()
    finally:
        if named is not None:
            os.environ["MONGODB_URI"] = named


def _is_application(text: str) -> bool:
    return ("Flask(__name__)" in text and "app.run(" in text) or "uvicorn.run(" in text


def _plugin_is_installed() -> bool:
    found = importlib.metadata.entry_points(group="pytest11")
    return any(entry.value == PLUGIN for entry in found)


def unsupplied() -> Iterator[Supplied]:
    """The rows of the table whose block is not there any more."""
    blocks = [block for document in documents() for block in blocks_of(document)]
    for row in SUPPLIED:
        if not any(row in supplied_for(block) for block in blocks):
            yield row
