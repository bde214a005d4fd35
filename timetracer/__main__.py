"""What is typed: `timetracer COMMAND` or `python -m timetracer COMMAND`.

`COMMANDS` is a table: a row is a sub-command, its arguments and the function that does it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from timetracer.config import resolve
from timetracer.errors import TimetracerError
from timetracer.learning import learn
from timetracer.lessons import tell
from timetracer.recovery import accept
from timetracer.rehearsals import keep_first, record_twice


@dataclass(frozen=True, slots=True)
class Command:
    """A sub-command.

    Attributes:
        name: as it is typed.
        help: one line for the list of commands.
        usage: how it is typed.
        description: what it does, for its own help.
        paths: name and help text of its arguments.
        run: does it, given its arguments and what followed "--"; returns the lines to print.
        count: how many arguments it takes; None for one or more.
        takes_program: whether a command line may stand behind "--" in their place.
    """

    name: str
    help: str
    usage: str
    description: str
    paths: tuple[str, str]
    run: Callable[[list[str], list[str]], list[str]]
    count: int | None = None
    takes_program: bool = False


def _accept(paths: list[str], program: list[str]) -> list[str]:
    return [f"accepted: {accept(path)}" for path in paths]


def _learn(paths: list[str], program: list[str]) -> list[str]:
    config = resolve()
    if not program:
        return list(tell(learn(paths[0], paths[1], config.ignore)))
    with tempfile.TemporaryDirectory(prefix="timetracer-learn-") as directory:
        first, second = record_twice(program, Path(directory), config)
        lines = tell(learn(first, second, config.ignore))
        told = [line.replace(os.path.join(directory, ""), "") for line in lines]
        kept = keep_first(first, config)
    for path, beside in kept:
        told.append(f"The first recording is in {beside or path}.")
        if beside is not None:
            told.append(f"To let it replace {path}: python -m timetracer accept {beside}")
    return told


COMMANDS: dict[str, Command] = {
    row.name: row
    for row in (
        Command(
            "accept",
            "let a recording that was kept beside a cassette take its place",
            "timetracer accept PATH [PATH ...]",
            "Let a recording that was kept beside a cassette take its place.",
            ("PATH", "the recording, as the log named it: x.unaccepted-1a2b3c4d.json"),
            _accept,
        ),
        Command(
            "learn",
            "find out what a program makes anew in each run, from two recordings",
            "timetracer learn FIRST SECOND | timetracer learn -- PROGRAM [ARGUMENT ...]",
            "Compare two recordings of the same program. Ids, times and tokens that differ, though "
            "nobody saw them being made, are noted in the first cassette: from then on a replay "
            "binds what stands there. Other differences are told, and values that look like "
            "nothing made up are proposed as ignore paths. With -- PROGRAM, it is run twice with "
            "TIMETRACER_MODE=record first, and its first recording is kept in the cassette "
            "directory, beside a cassette that is there.",
            ("PATH", "two cassettes, or two directories whose cassettes have the same names"),
            _learn,
            count=2,
            takes_program=True,
        ),
    )
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: the command line without the program's name; None for that of the process.

    Returns:
        The exit code: 0, or 1 for an error that was told.

    Raises:
        SystemExit: the help was asked for (0), or the command line is none (2).
    """
    typed = list(sys.argv[1:] if arguments is None else arguments)
    command, paths, program = _parsed(typed)
    try:
        sys.stdout.writelines(f"{line}\n" for line in command.run(paths, program))
    except TimetracerError as error:
        sys.stderr.write(f"timetracer: {error}\n")
        return 1
    return 0


def _parsed(typed: list[str]) -> tuple[Command, list[str], list[str]]:
    """Return a command, its arguments, and what stands behind "--" where it runs a program."""
    program: list[str] = []
    row = COMMANDS.get(typed[0]) if typed else None
    if row is not None and row.takes_program and "--" in typed:
        place = typed.index("--")
        typed, program = typed[:place], typed[place + 1 :]
    parser, parsers = _parser()
    given = parser.parse_args(typed)
    command = COMMANDS[given.command]
    paths: list[str] = given.paths
    wanted = 0 if program else command.count
    if wanted is not None and len(paths) != wanted:
        parsers[command.name].error(
            f"{len(paths)} paths and {'a' if program else 'no'} program were given"
        )
    return command, paths, program


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    typed_as = "python -m timetracer" if sys.argv[0].endswith("__main__.py") else "timetracer"
    parser = argparse.ArgumentParser(
        prog=typed_as, description="Commands for the cassettes of Timetracer."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    made = {}
    for row in COMMANDS.values():
        one = made[row.name] = commands.add_parser(
            row.name,
            help=row.help,
            usage=row.usage.replace("timetracer", typed_as),
            description=row.description,
        )
        name, told = row.paths
        one.add_argument("paths", nargs="*" if row.takes_program else "+", metavar=name, help=told)
    return parser, made


if __name__ == "__main__":
    sys.exit(main())
