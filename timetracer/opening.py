"""Opening a session: from settings and a name to the cassette that answers and the one to write.

A request finds its takes by its name (`open_request`), a developer gives a path (`open_file`), and
the process's own cassette is named after its script; all but a request's lead to `open_cassette`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import random
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from timetracer import document, ledger, runs, takes
from timetracer.cassette import Cassette, Recording
from timetracer.comparing import Verification
from timetracer.config import MODES, Mode, TraceConfig
from timetracer.entropy import Seed
from timetracer.errors import (
    CassetteError,
    CassetteNotFoundError,
    CassettePathError,
    StrPath,
)
from timetracer.model import RequestRecord, ResponseRecord
from timetracer.naming import UNIQUE_TEMPLATE, request_stem, take_name
from timetracer.recovery import beside_name, recover, tell_beside
from timetracer.redaction import RedactionRules, Redactor
from timetracer.session import SUITE, WIDE, Session
from timetracer.shared_parts import Shelf
from timetracer.stores import SUFFIXES, Store, find_latest, split_suffix, write_alone
from timetracer.stores.files import FileStore

logger = logging.getLogger("timetracer")


def open_request(config: TraceConfig, request: RequestRecord) -> Session | None:
    """Return the session of an HTTP request, None where its calls are nobody's concern.

    Args:
        config: resolved settings.
        request: the request, its body as far as it is known when the request begins.
    """
    mode = MODES[config.mode]
    if mode.name == "off" or WIDE.explicit is not None or WIDE.of_a_test:
        return None  # they belong to the block, or to the process as a whole
    # The system's generator: the program's own random numbers stay as they are.
    skipped = config.excludes(request.path) or (
        random.SystemRandom().random() >= config.sample_rate
    )
    if skipped and mode.reads == "never":
        return Session(config, MODES["off"], where="(not recorded)", kind="skipped")
    named = _named_request(config, mode, request)
    session = named or _found_request(config, mode, request)
    session.request = request
    return session


def _named_request(config: TraceConfig, mode: Mode, request: RequestRecord) -> Session | None:
    if config.cassette is None:
        return None
    store, name = FileStore.for_path(config.cassette)
    stem, suffix = split_suffix(name)
    if mode.reads != "never" and (mode.reads == "always" or store.exists(name)):
        return open_cassette(config, mode, store, stem, suffix, kind="request")
    if mode.records != "never" and runs.claim("cassette", store.locate(name)):
        return open_cassette(config, mode, store, stem, suffix, kind="request")
    return None


def _found_request(config: TraceConfig, mode: Mode, request: RequestRecord) -> Session:
    store = FileStore(config.cassette_dir)
    suffix = SUFFIXES[config.compression]
    stem = _request_name(config, mode, request)
    cassette = found = None
    where = store.locate(stem + suffix)
    if mode.reads != "never":
        found = takes.choose_take(
            store, stem, request, earlier_runs_only=mode.records != "never"
        )
        if found is not None:
            where = store.locate(found[0])
            cassette = _load(found[1], where, config)
    recording = None
    if mode.records == "always" or (mode.records == "when_absent" and cassette is None):
        recording = _recording(config, cassette)
    partial = config.errors_only or config.sample_rate < 1
    claimed: list[str] = []

    def save(session: Session, failed: bool) -> str | None:
        if config.errors_only and not _is_error(session.response):
            return None
        if found is not None:
            return _save(session, failed, store, found[0], write_alone)
        if not claimed:  # calls made while a response is closed are written to the same take
            claimed.append(stem + suffix if partial else takes.claim_take(store, stem, suffix))
        return _save(session, failed, store, claimed[0], takes.write_take)

    return Session(
        config,
        mode,
        where=where,
        cassette=cassette,
        recording=recording,
        save=save,
        verification=_verification(config, mode, cassette, where),
    )


def _request_name(config: TraceConfig, mode: Mode, request: RequestRecord) -> str:
    redactor = Redactor(redaction_rules(config), runs.run_secret()) if _redacts(config) else None

    def shown(text: str) -> str:
        return redactor.redact_text(text) if redactor is not None else text

    template = config.name_template
    if template is None and mode.reads == "never" and (
        config.errors_only or config.sample_rate < 1
    ):
        template = UNIQUE_TEMPLATE
    return request_stem(
        request.method,
        shown(request.path),
        shown(request.query),
        template,
        route=request.route,
        id=uuid.uuid4().hex[:8],
        service=config.service,
        env=config.env,
    )


def _is_error(response: ResponseRecord | None) -> bool:
    return response is not None and (response.status >= 400 or response.error is not None)


def open_file(
    path: StrPath,
    config: TraceConfig,
    *,
    kind: str = "block",
    remedy: str | None = None,
    made_up_data: bool = False,
) -> Session:
    """Return a session on the cassette at a path that a developer gives; it may lie anywhere.

    Args:
        path: the cassette's path.
        config: resolved settings with the mode.
        kind: what the session is for: "block" or "fixture".
        remedy: what to do about a miss.
        made_up_data: whether documents are test data, in which nothing is redacted unless asked.

    Raises:
        CassetteError: the cassette cannot be read.
    """
    store, name = FileStore.for_path(path)
    stem, suffix = split_suffix(name)
    if not suffix and store.exists(name):
        raise CassettePathError(
            f"{store.locate(name)} has no name of a cassette, which ends in "
            f"{' or '.join(SUFFIXES.values())}.\nIf it is one: rename it.",
            path=store.locate(name),
        )
    try:
        return open_cassette(
            config,
            MODES[config.mode],
            store,
            stem,
            suffix or SUFFIXES[config.compression],
            kind=kind,
            remedy=remedy,
            made_up_data=made_up_data,
            missing_is_error=True,
        )
    except CassetteNotFoundError as error:
        if remedy is None:
            raise
        told = str(error).rpartition("\n")[0]
        raise CassetteNotFoundError(f"{told}\nTo record it: {remedy}", path=error.path) from None


def open_suite(
    where: str,
    config: TraceConfig,
    *,
    node: str,
    remedy: str,
    layers: Iterable[StrPath] = (),
    directory: StrPath | None = None,
) -> Session:
    """Return a session for one run of a test, or one set-up of a fixture.

    Args:
        where: the cassette's path, without take and suffix.
        config: resolved settings with the mode.
        node: the test's id, kept in the cassette.
        remedy: what to do about a miss.
        layers: further cassettes that answer what this one does not hold.
        directory: where what its cassettes hold alike is kept once; that of the cassette or the one
            above, None for nowhere.

    Raises:
        CassetteError: a cassette cannot be read.
    """
    store, stem = FileStore.for_path(where, lasting=False)  # a test can be recorded again
    mode = MODES[config.mode]
    suffix = SUFFIXES[config.compression]
    session = open_cassette(
        config,
        mode,
        store,
        stem,
        suffix,
        kind=SUITE,
        claims=mode.name != "off",
        remedy=remedy,
        made_up_data=True,
    )
    session.node = node
    if session.cassette is None and config.entropy != "off":
        name = os.path.basename(session.where)
        session.seed = _seed_before(store, split_suffix(name)[0], f"{stem}.child")
    if directory is not None:
        session.shelf = Shelf.of(directory, suffix)
    if mode.reads != "never":
        session.layers = [_layer(path, config) for path in layers]
    if session.layers:
        session.replays = True
    session.reopen = functools.partial(
        open_cassette,
        config,
        mode,
        store,
        f"{stem}.child",
        suffix,
        remedy=remedy,
        made_up_data=True,
    )
    return session


def _seed_before(store: Store, stem: str, child: str) -> Seed | None:
    """Return the seed of an earlier recording, so that what is recorded again draws the same;
    a test without calls of its own has it in the cassette of a process that it started."""
    for name, key in ((stem, "entropy"), (child, "test_entropy")):
        found = find_latest(store, name)
        if found is not None:
            with contextlib.suppress(CassetteError):
                header = document.header_of(store.read(found), store.locate(found))
                seed = Seed.load((header.get("session") or {}).get(key))
                if seed is not None:
                    return seed
    return None


def _layer(path: StrPath, config: TraceConfig) -> Cassette:
    store, name = FileStore.for_path(path)
    return _load(store.read(name), store.locate(name), config)


def open_cassette(
    config: TraceConfig,
    mode: Mode,
    store: Store,
    stem: str,
    suffix: str,
    *,
    kind: str,
    remedy: str | None = None,
    claims: bool = False,
    first_take: int = 1,
    made_up_data: bool = False,
    missing_is_error: bool = False,
) -> Session:
    writes = mode.name != "off" and not mode.verifies
    if writes and (kind != "request" or find_latest(store, stem) is None):
        recover(store, stem, replace=config.accept_interrupted)
    name = _claimed_name(store, stem, suffix, mode, first_take) if claims else stem + suffix
    found = _existing(store, name, mode)
    where = store.locate(found or name)
    cassette = None
    if found is not None:
        cassette = _load(store.read(found), where, config)
    elif mode.reads == "always" and missing_is_error:
        store.read(name)  # raises the error that tells what is there instead
    recording = None
    if mode.records == "always" or (mode.records == "when_absent" and cassette is None):
        recording = _recording(config, cassette, made_up_data=made_up_data)
    target = found or name

    def save(session: Session, failed: bool) -> str | None:
        return _save(session, failed, store, target, write_alone)

    session = Session(
        config,
        mode,
        where=where,
        cassette=cassette,
        recording=recording,
        save=save,
        kind=kind,
        verification=_verification(
            config, mode, cassette, where, remedy=remedy or "", made_up_data=made_up_data
        ),
        **({"remedy": remedy} if remedy else {}),
    )
    session.reopen = functools.partial(
        open_cassette, config, mode, store, stem, suffix, remedy=remedy, made_up_data=made_up_data
    )
    if recording is not None and kind != "request":
        session.spill_to(store, target)
        if WIDE.forked:  # os._exit is how such a process ends: nothing of it may wait
            recording.spill_events = 1
    return session


def _verification(
    config: TraceConfig,
    mode: Mode,
    cassette: Cassette | None,
    where: str,
    *,
    remedy: str = "",
    made_up_data: bool = False,
) -> Verification | None:
    if not mode.verifies:
        return None
    redactor = None
    if _redacts(config, made_up_data=made_up_data):
        redactor = Redactor(redaction_rules(config), runs.run_secret())
    return Verification(
        cassette,
        where,
        remedy=remedy,
        redact=redactor.redact_event if redactor is not None else None,
        before_record=config.before_record,
    )


def _claimed_name(store: Store, stem: str, suffix: str, mode: Mode, first: int) -> str:
    """Return the name that this process has among those of its run: x.json, x.2.json, ..."""
    if mode.reads != "always":
        return take_name(stem, takes.claim_next("process", store, stem, first), suffix)
    take = takes.claim_next("process-replay", store, stem, first)
    return take_name(stem, _served(store, stem, take), suffix)


_served_before: dict[tuple[str, str], tuple[int, int]] = {}
"""By run and stem: the last take that this process had, and the one that served it. Some plugins
set a fixture up anew for each test, and to look from the first on would take the square of their
number."""


def _served(store: Store, stem: str, take: int) -> int:
    """Return the take whose cassette serves one: where there were fewer processes, or set-ups with
    calls, the rest share the last one's."""
    counted = (runs.run_label(), store.locate(stem))
    known, served = _served_before.get(counted, (1, 1))
    there = take
    while there > known and find_latest(store, take_name(stem, there, "")) is None:
        there -= 1
    served = there if there > known else served
    _served_before[counted] = take, served
    return served


def _existing(store: Store, name: str, mode: Mode) -> str | None:
    if mode.reads == "never":
        return None
    stem, suffix = split_suffix(name)
    return find_latest(store, stem) if suffix else (name if store.exists(name) else None)


def _load(data: bytes, where: str, config: TraceConfig) -> Cassette:
    cassette = Cassette(
        data,
        where,
        allow_repeats=config.allow_repeats,
        strict_order=config.strict_order,
        match_on=config.match_on,
        levels=config.levels,
        ignore=config.ignore,
    )
    ledger.note_opened(where, cassette)
    return cassette


def _recording(
    config: TraceConfig, cassette: Cassette | None, *, made_up_data: bool = False
) -> Recording:
    redactor = None
    if _redacts(config, made_up_data=made_up_data):
        labels = cassette.labels if cassette is not None else None
        redactor = Redactor(redaction_rules(config), runs.run_secret(), labels)
    last = max((event.eid for event in cassette.events), default=0) if cassette is not None else 0
    return Recording(
        redactor=redactor, before_record=config.before_record, first_eid=last + 1
    )


def _redacts(config: TraceConfig, *, made_up_data: bool = False) -> bool:
    return config.redact is True or (config.redact == "auto" and not made_up_data)


@functools.lru_cache(maxsize=32)
def redaction_rules(config: TraceConfig) -> RedactionRules:
    """Return the rules that the settings make."""
    return RedactionRules(
        names=frozenset(config.redact_names),
        keep_names=frozenset(config.keep_names),
        paths=tuple(config.redact_paths),
        patterns=tuple(cast("Any", config.redact_patterns)),
    )


def _save(
    session: Session,
    failed: bool,
    store: Store,
    name: str,
    write: Callable[[Store, str, Iterator[bytes]], None],
) -> str | None:
    """Write a session's cassette; beside the one that is there, if it may be worth less."""
    recording = session.recording
    assert recording is not None
    there = find_latest(store, split_suffix(name)[0]) is not None
    unreached = recording.count > 0 and not recording.reached_server
    if there and (failed or unreached) and not session.config.accept_interrupted:
        beside = beside_name(name, session.id)
        store.write(beside, session.chunks(shared=True))
        recording.discard_partial()
        tell_beside(
            store, name, beside, "was interrupted" if failed else "reached no server"
        )
        return store.locate(beside)
    if there and session.saved is not None:
        beside = beside_name(name, session.id)
        store.write(beside, session.chunks(shared=True))
        recording.discard_partial()
        session.saved(store.locate(name), store.locate(beside))
        return store.locate(beside)
    write(store, name, session.chunks(shared=True))
    if session.saved is not None:
        session.saved(store.locate(name), store.locate(name))
    ledger.note_opened(store.locate(name))
    recording.discard_partial()
    logger.info("timetracer: recorded %d events in %s", recording.count, store.locate(name))
    return store.locate(name)
