"""What is typed: `python -m timetracer accept PATH`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from timetracer.errors import TimetracerError
from timetracer.recovery import accept


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: the command line without the program's name; None for that of the process.

    Returns:
        The exit code: 0, or 1 for an error that was told.
    """
    given = _parser().parse_args(arguments)
    try:
        for path in given.paths:
            sys.stdout.write(f"accepted: {accept(path)}\n")
    except TimetracerError as error:
        sys.stderr.write(f"timetracer: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m timetracer")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    accepting = commands.add_parser(
        "accept", help="let a recording that was kept beside a cassette take its place"
    )
    accepting.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="the recording, as the log named it: x.unaccepted-1a2b3c4d.json",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
