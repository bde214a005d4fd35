"""A program that is run twice, so that its two recordings can be compared.

    record_twice(program, directory, config)    run it, each time into a directory of its own
    keep_first(recorded, config)                put the first recording where cassettes are kept
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from timetracer import document
from timetracer.config import TraceConfig
from timetracer.errors import LearnError
from timetracer.learning import cassette_names
from timetracer.recovery import beside_name
from timetracer.runs import RUN_ID_VARIABLE
from timetracer.shared_parts import is_shared
from timetracer.stores import find_latest, split_suffix, write_alone
from timetracer.stores.files import FileStore


def record_twice(program: Sequence[str], directory: Path, config: TraceConfig) -> tuple[Path, Path]:
    """Run a program twice, recording.

    Args:
        program: its command line.
        directory: where the recordings go, each into a directory of its own.
        config: resolved settings; a setting `cassette` is followed inside these directories.

    Returns:
        The directories of the first and the second recording.

    Raises:
        LearnError: the program cannot be run, failed, or recorded nothing there.
    """
    first, second = directory / "first", directory / "second"
    for number, place in ((1, first), (2, second)):
        place.mkdir()
        _run(program, number, _environment(place, config))
        if not cassette_names(FileStore(place)):
            raise LearnError(
                f"`{' '.join(program)}` recorded nothing in TIMETRACER_CASSETTE_DIR. Either it "
                "makes no call of the driver, or it names its cassettes itself: record it twice, "
                "keep the first recording aside, and run `timetracer learn FIRST SECOND`."
            )
    return first, second


def _environment(place: Path, config: TraceConfig) -> dict[str, str]:
    told = {"TIMETRACER_MODE": "record", "TIMETRACER_CASSETTE_DIR": str(place)}
    if config.cassette is not None:
        told["TIMETRACER_CASSETTE"] = str(place / config.cassette.name)
    return {**{key: os.environ[key] for key in os.environ if key != RUN_ID_VARIABLE}, **told}


def _run(program: Sequence[str], number: int, environment: Mapping[str, str]) -> None:
    name = " ".join(program)
    try:
        code = subprocess.run(list(program), env=environment, check=False).returncode
    except OSError as error:
        raise LearnError(f"`{name}` cannot be run: {error}.") from None
    if code:
        raise LearnError(
            f"`{name}` ended with exit code {code} when it was run for the {_TIMES[number]} time. "
            "Nothing was learned and nothing was written."
        )


_TIMES = {1: "first", 2: "second"}


def keep_first(recorded: Path, config: TraceConfig) -> list[tuple[str, str | None]]:
    """Put the first recording where the program's cassettes are; beside those that are there.

    Args:
        recorded: its directory.
        config: resolved settings.

    Returns:
        The path of each cassette, and the path beside it where it waits to be accepted, or None.

    Raises:
        CassetteError: one cannot be written.
    """
    source, kept = FileStore(recorded), []
    for name in filter(is_shared, source.names()):
        write_alone(FileStore(config.cassette_dir), name, [source.read(name)])
    for name in cassette_names(source):
        named = config.cassette is not None and config.cassette.name == name
        store, target = (
            FileStore.for_path(config.cassette)  # type: ignore[arg-type]
            if named
            else (FileStore(config.cassette_dir), name)
        )
        kept.append(_keep(source.read(name), store, target))
    return kept


def _keep(data: bytes, store: FileStore, name: str) -> tuple[str, str | None]:
    where = store.locate(name)
    if find_latest(store, split_suffix(name)[0]) is None:
        write_alone(store, name, [data])
        return where, None
    session = document.header_of(data, where).get("session") or {}
    beside = beside_name(name, str(session.get("id") or "0" * 8))
    store.write(beside, [data])
    return where, store.locate(beside)
