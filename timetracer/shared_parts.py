"""What the cassettes of a directory hold alike lies there once, in files named by what is in them.

    cassettes/shared/events-5f0c....json    a stretch of events, such as those of a set-up
    cassettes/shared/body-91ab....json      the answer of one call, where it is long
    cassettes/test_users/test_one.json      names them in its lines:

    {"eid": 3, "shared": "events-5f0c...", "count": 100, "start_offset_ms": 1.2, ...}
    {"eid": 103, ..., "result": {"status":0,"body":{"captured":true,"shared":"body-91ab..."}}}

Numbers and times of events, and values that look made anew in each run, stay in the cassette: its
"values" fill the places of a stretch that `<?0>` holds. So what happens alike in hundreds of tests
has one file, and a new recording of it is the same file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from timetracer.codec import dumps
from timetracer.errors import CassetteError, CassetteFormatError, CassetteNotFoundError, StrPath
from timetracer.model import EVENT_TYPE, Json
from timetracer.stores import find_latest, split_suffix, write_alone
from timetracer.stores.files import FileStore
from timetracer.volatile import find

FOLDER = "shared"
FORMAT = "timetracer-mongodb-shared"

LEAST_EVENTS = 10
"""A stretch of so many events is shared, and a shorter one of as many bytes as a long answer."""
LEAST_BYTES = 16 * 1024
"""An answer of so many bytes of JSON is shared."""
MOST_IN_VAIN = 8
"""So many stretches are shared at first sight that have not come again so far."""
MOST_EVENTS = 1000
_MOST_KEPT = 64 * 1024 * 1024
_UNEVEN_MS = 1000.0

_LINE = re.compile(
    rb'\{"eid": (\d+), "event_type": "%b", "start_offset_ms": ([\d.eE+-]+), '
    rb'"duration_ms": ([\d.eE+-]+), ' % re.escape(EVENT_TYPE.encode())
)
_RESULT = b', "result": '
_BODY = b'"body":{"captured":true,"data":'
_BODY_ENDS = b"}}}"
_REFERENCE = re.compile(rb'\{"eid": (\d+), "shared": "(events-[0-9a-f]{20})"')
_BODY_REFERENCE = re.compile(rb'"body":\{"captured":true,"shared":"(body-[0-9a-f]{20})"\}\}\Z')
_NAMED = re.compile(rb'"shared": ?"((?:events|body)-[0-9a-f]{20})"')
_NAME = re.compile(r"(?:events|body)-[0-9a-f]{20}")
_LONGEST_REFERENCE = 80

_ITS_OWN = (
    *(b'"continued":', b'"after":[', b'"ends":[', b'"cancelled":'),
    *(b"CancelledError", b"<?"),
)
"""What an event that is never shared holds: it names other events' numbers or rests on its own
duration; or it has what would be taken for the place of a value."""

_COUNTERS = re.compile(rb'"(t|i|n|nModified|data)":(\d+)(?=[,}])')
"""Numbers of answers that are another in each run: a server's clock, and how many were met."""
_BODY_HASH = re.compile(rb'"body_hash": ?"([0-9a-f]*)"')
_NAMES = '"body_hash":"', '"shared":"body-'
"""What stands before hashes that are the same in each run."""
_HOLE = re.compile(rb'"<\?#(\d+)>"|<\?(\d+)>')

Values = tuple[str, ...]


def references(data: bytes) -> frozenset[str]:
    """Return the names of the shared parts that a file refers to.

    Args:
        data: a cassette or a shared part, uncompressed.
    """
    return frozenset(name.decode() for name in _NAMED.findall(data))


# ------------------------------------------------------------------------------------- templates


class _Template(NamedTuple):
    """An event without what differs from run to run."""

    text: bytes
    values: Values


def _template(line: bytes, start: int) -> _Template:
    """Return the template of an event's line whose own part ends at `start`."""
    at_result = line.index(_RESULT, start)
    values: dict[tuple[bytes, bytes], int] = {}

    def counted(match: re.Match[bytes]) -> bytes:
        number = values.setdefault((match[1], match[2]), len(values))
        return b'"%b":"<?#%d>"' % (match[1], number)

    text = b"{" + line[start:at_result] + _COUNTERS.sub(counted, line[at_result:])
    counters = tuple(value.decode() for _, value in values)
    make = _without_tokens if len(text) < LEAST_BYTES else _without_tokens.__wrapped__
    template, more = make(text, len(counters))
    return _Template(template, counters + more)


@lru_cache(512)
def _without_tokens(line: bytes, known: int) -> _Template:
    """Return a line without the values that look made up.

    Args:
        line: the line.
        known: how many values it has already.
    """
    text = line.decode("utf-8", "surrogateescape")
    values: dict[str, int] = {}
    pieces, at = [], 0
    for start, end, _ in find(text):
        if text.endswith(_NAMES, 0, start):
            continue
        number = known + values.setdefault(text[start:end], len(values))
        # A number has to become a string, so that the file stays JSON.
        is_number = (
            text[start - 1] in ":,["
            and text[end] in ",]}"
            and text[start:end].replace(".", "").isdecimal()
        )
        pieces += [text[at:start], f'"<?#{number}>"' if is_number else f"<?{number}>"]
        at = end
    if not values:
        return _Template(line, ())
    template = "".join([*pieces, text[at:]]).encode("utf-8", "surrogateescape")
    return _Template(template, tuple(values))


def _filled(template: bytes, values: Sequence[str]) -> bytes:
    def value(match: re.Match[bytes]) -> bytes:
        return values[int(match[1] or match[2])].encode("utf-8", "surrogateescape")

    return _HOLE.sub(value, template) if b"<?" in template else template


# ------------------------------------------------------------------------------------- writing


class Mark(NamedTuple):
    """Where a stretch begins.

    Attributes:
        eid: the number of its first event, if it has any.
        shareable: whether other cassettes are likely to hold it too: that of a set-up, not that of
            a test's own calls.
    """

    eid: int
    shareable: bool


class _Line(NamedTuple):
    eid: int
    offset: float
    duration: float
    start: int
    text: bytes


@dataclass(slots=True)
class Shelf:
    """Where the cassettes of a directory keep what they share.

    Attributes:
        store: the files; its directory is named `FOLDER` and lies in that of the cassettes, or
            in the one above.
        suffix: the suffix of new files.
    """

    store: FileStore
    suffix: str

    @classmethod
    def of(cls, directory: StrPath, suffix: str) -> Shelf:
        """Return the one of a suite's directory of cassettes."""
        return cls(FileStore(Path(directory, FOLDER), lasting=False), suffix)

    @classmethod
    def beside(cls, path: StrPath) -> Shelf:
        """Return the one that a cassette refers to."""
        _, suffix = split_suffix(os.path.basename(path))
        stores = _stores_of(path)
        return cls(next((one for one in stores if one.directory.is_dir()), stores[-1]), suffix)

    def put(
        self,
        lines: Iterable[bytes],
        marks: Iterable[Mark] = (),
        *,
        replaces: StrPath | None = None,
    ) -> Iterator[bytes]:
        """Write what is to be shared, and yield the lines of the cassette.

        Args:
            lines: the whole lines of events, in order of their numbers.
            marks: where stretches begin, in the order in which they were set.
            replaces: the path of a recording that may be there from before, which tells whether a
                stretch that is new in this run is likely to come again; None to share every one.
        """
        for shareable, stretch in _stretches(lines, sorted(marks, key=lambda mark: mark.eid)):
            short = [self._without_body(line) for line in stretch]
            shareable = shareable and _is_worth_it(short)
            if shareable and replaces is not None:
                shareable = self._comes_again(short, replaces)
            reference = self._stretch(short) if shareable else None
            yield from short if reference is None else [reference]

    def _comes_again(self, lines: list[bytes], replaces: StrPath) -> bool:
        """Tell whether other cassettes are likely to hold a stretch, too. In some suites none does,
        such as where each test fills its database with random text: there a file for each stretch
        would be of no use."""
        met = _met.setdefault(os.path.abspath(self.store.directory), _Met())
        hashes = b",".join(_BODY_HASH.findall(b"".join(lines)))
        if met.again(hashes):
            return True
        earlier = _earlier(replaces)
        if hashes in b",".join(_BODY_HASH.findall(earlier)):
            return False  # a recording of the same stays the same
        return met.may_come() or any(name.startswith("events") for name in references(earlier))

    def _stretch(self, lines: list[bytes]) -> bytes | None:
        """Write a stretch; return the line that refers to it, None where it cannot be shared."""
        known = [line for line in map(_parsed, lines) if line is not None]
        if len(known) < len(lines):
            return None
        templates = [_template(line.text, line.start) for line in known]
        name = self._write("events", b",\n".join(one.text for one in templates))
        return None if name is None else _reference(name, known, [one.values for one in templates])

    def _without_body(self, line: bytes) -> bytes:
        """Write the answer of an event that is long; return the line that refers to it."""
        if len(line) < LEAST_BYTES or not line.endswith(_BODY_ENDS):
            return line
        start = line.find(_BODY, line.find(_RESULT))
        data = line[start + len(_BODY) : -len(_BODY_ENDS)]
        if start < 0 or len(data) < LEAST_BYTES:
            return line
        name = self._write("body", data)
        if name is None:
            return line
        told = b'"body":{"captured":true,"shared":"%b"' % name.encode()
        return line[:start] + told + _BODY_ENDS

    def _write(self, kind: str, content: bytes) -> str | None:
        """Write a part, unless it is there; None where it would be no JSON."""
        name = _name_of(kind, content)
        file = name + self.suffix
        there, known = find_latest(self.store, name), os.path.abspath(self.store.locate(file))
        if there == file and known in _written:
            return name
        text = _KINDS[kind](content)
        if text is None:
            return None
        if there != file or not self._holds(file, text):
            write_alone(self.store, file, [text])
        _written.add(known)
        return name

    def _holds(self, name: str, text: bytes) -> bool:
        try:
            return self.store.read(name) == text
        except CassetteError:
            return False


_written: set[str] = set()
"""The parts that this process wrote, or has found there as they would be written."""


@dataclass(slots=True)
class _Met:
    """The stretches of a directory that this process has met.

    Attributes:
        once: hashes of those that it met once.
        repeated: hashes of those that it met more often.
    """

    once: set[bytes] = field(default_factory=set)
    repeated: set[bytes] = field(default_factory=set)

    def again(self, stretch: bytes) -> bool:
        """Note one; tell whether it was met before."""
        key = hashlib.blake2b(stretch, digest_size=16).digest()
        if key in self.once:
            self.once.remove(key)
            self.repeated.add(key)
        elif key not in self.repeated:
            self.once.add(key)
            return False
        return True

    def may_come(self) -> bool:
        """Tell whether one that is new is likely to come again."""
        return len(self.once) <= MOST_IN_VAIN


_met: dict[str, _Met] = {}
"""Directory of parts -> what this process has met there."""


def _earlier(path: StrPath) -> bytes:
    """Return the recording at a path, empty where there is none that can be read."""
    store, name = FileStore.for_path(path)
    found = find_latest(store, split_suffix(name)[0])
    with contextlib.suppress(CassetteError):
        return store.read(found) if found is not None else b""
    return b""


def _stretches(lines: Iterable[bytes], marks: list[Mark]) -> Iterator[tuple[bool, list[bytes]]]:
    """Yield the lines between the marks, and whether they are shareable; no more than one of the
    others at once."""
    waiting: list[bytes] = []
    last, at = 0, 0
    for line in lines:
        eid = int(line[8 : line.index(b",")]) if line.startswith(b'{"eid": ') else 0
        before = at
        while at < len(marks) and marks[at].eid <= eid:
            at += 1
        alone = not (at and marks[at - 1].shareable) or _is_its_own(line)
        if waiting and (at > before or eid != last + 1 or alone or len(waiting) >= MOST_EVENTS):
            yield True, waiting
            waiting = []
        last = eid
        if alone:
            yield False, [line]
        else:
            waiting.append(line)
    if waiting:
        yield True, waiting


def _is_worth_it(lines: list[bytes]) -> bool:
    return len(lines) >= LEAST_EVENTS or sum(map(len, lines)) >= LEAST_BYTES


def _is_its_own(line: bytes) -> bool:
    return any(one in line for one in _ITS_OWN)


def _parsed(line: bytes) -> _Line | None:
    match = _LINE.match(line)
    if match is None:
        return None
    return _Line(int(match[1]), float(match[2]), float(match[3]), match.end(), line)


def _reference(name: str, lines: list[_Line], values: list[Values]) -> bytes:
    first, last = lines[0], lines[-1]
    length = max(round(last.offset + last.duration - first.offset, 3), 0.0)
    told: dict[str, Json] = {
        "eid": first.eid,
        "shared": name,
        "count": len(lines),
        "start_offset_ms": first.offset,
        "duration_ms": length,
    }
    even = [first.offset + length * number / len(lines) for number in range(len(lines))]
    if any(abs(line.offset - at) > _UNEVEN_MS for line, at in zip(lines, even, strict=True)):
        told["offsets_ms"] = [round(line.offset) for line in lines]
    if any(values):
        told["values"] = [[len([*same]), *one] for one, same in groupby(values)]
    return b"{" + b", ".join(b'"%b": %b' % (k.encode(), dumps(v)) for k, v in told.items()) + b"}"


def _rendered_events(content: bytes) -> bytes | None:
    return _checked(_head("events") + b"[\n" + content + b"\n]}\n")


def _rendered_body(content: bytes) -> bytes | None:
    try:
        data = orjson.loads(content)
    except ValueError:
        return None
    if isinstance(data, list):
        spread = b"[\n" + b",\n".join(map(dumps, data)) + b"\n]"
        content = spread if spread.replace(b"\n", b"") == content else content
    return _head("data") + content + b"}\n"


_KINDS = {"events": _rendered_events, "body": _rendered_body}
"""Kind of a part -> what makes its file of its content; None for content that is no JSON."""


def _head(key: str) -> bytes:
    return b'{"format": "%b",\n"%b": ' % (FORMAT.encode(), key.encode())


def _checked(text: bytes) -> bytes | None:
    try:
        orjson.loads(text)
    except ValueError:
        return None
    return text


# ------------------------------------------------------------------------------------- reading


def is_reference(data: bytes, start: int) -> bool:
    """Tell whether the line at a place of a cassette stands for a stretch of events."""
    return _REFERENCE.match(data, start) is not None


def marks_of(line: bytes) -> tuple[Mark, ...]:
    """Return the marks that make a cassette's line stand for a stretch, none where it does not."""
    if not is_reference(line, 0):
        return ()
    told = orjson.loads(line)
    return Mark(told["eid"], True), Mark(told["eid"] + told["count"], False)


def stretch(line: bytes, path: str) -> list[bytes]:
    """Return the whole lines of the events that a line stands for.

    Args:
        line: the line, as `Shelf.put` made it, or in another layout.
        path: the cassette's path.

    Raises:
        CassetteFormatError: the shared part is missing or damaged, or does not belong to the line.
    """
    told = orjson.loads(line)
    name, first = told["shared"], int(told["eid"])
    place = f"{path}: event {first}"
    templates = _part(name, path, place).events
    count = len(templates)
    runs = told.get("values") or [[count]]
    values = [run[1:] for run in runs for _ in range(run[0])]
    if told["count"] != count or len(values) != count:
        raise _unfit(name, path, place, f"holds {count} events, not {told['count']}")
    begun, length = float(told["start_offset_ms"]), float(told["duration_ms"])
    offsets = told.get("offsets_ms") or [begun + length * n / count for n in range(count)]
    try:
        return [
            b'{"eid": %d, "event_type": "%b", "start_offset_ms": %b, "duration_ms": %b, %b'
            % (first + n, EVENT_TYPE.encode(), _number(at), _number(length / count), rest)
            for n, (at, rest) in enumerate(
                zip(offsets, map(_own_part, templates, values), strict=True)
            )
        ]
    except (IndexError, ValueError, TypeError):
        raise _unfit(name, path, place, "has other places for values") from None


def _own_part(template: bytes, values: Sequence[str]) -> bytes:
    return _filled(template, values)[1:]


def _number(milliseconds: float) -> bytes:
    return orjson.dumps(round(milliseconds, 3))


def body_reference(data: bytes, start: int, end: int) -> str | None:
    """Return the name of the shared answer of an event's line, None where it has its own.

    Args:
        data: the cassette.
        start: where the line's result begins.
        end: where it ends.
    """
    if not data.endswith(b'"}}', start, end):
        return None
    found = _BODY_REFERENCE.search(data[max(start, end - _LONGEST_REFERENCE) : end])
    return found[1].decode() if found is not None else None


def with_body(result: bytes, name: str, path: str, eid: int) -> bytes:
    """Return a result with the shared answer that it refers to.

    Args:
        result: the result's JSON text.
        name: the answer's name.
        path: the cassette's path.
        eid: the event's number.

    Raises:
        CassetteFormatError: the shared part is missing or damaged.
    """
    body = _part(name, path, f"{path}: event {eid}").data
    return result[: result.rindex(b'"shared":')] + b'"data":' + body + b"}}"


def check_there(name: str, path: str, eid: int) -> None:
    """Find the file of a shared answer, so that it is missed before the program asks for it.

    Raises:
        CassetteFormatError: it is not there.
    """
    _found(name, path, f"{path}: event {eid}")


def texts(data: bytes, path: str) -> Iterator[bytes]:
    """Yield a cassette's text, and that of each stretch of events that it refers to.

    Args:
        data: the cassette.
        path: its path.

    Raises:
        CassetteFormatError: a shared part is missing or damaged.
    """
    yield data
    for name in references(data):
        if name.startswith("events"):
            yield from _part(name, path, path).events


@dataclass(frozen=True, slots=True)
class _Part:
    """A shared part: `events` of a stretch, without what is each cassette's own, or `data`."""

    events: tuple[bytes, ...] = ()
    data: bytes = b""


@dataclass(slots=True)
class _Kept:
    """The parts that were read, the one used last at the end, up to some bytes of them."""

    parts: OrderedDict[tuple[str, int, int], tuple[_Part, int]] = field(default_factory=OrderedDict)
    size: int = 0

    def get(self, key: tuple[str, int, int]) -> _Part | None:
        found = self.parts.get(key)
        if found is None:
            return None
        with contextlib.suppress(KeyError):  # another thread may have made room
            self.parts.move_to_end(key)
        return found[0]

    def keep(self, key: tuple[str, int, int], part: _Part, size: int) -> None:
        self.parts[key] = part, size
        self.size += size
        while self.size > _MOST_KEPT and len(self.parts) > 1:
            self.size -= self.parts.popitem(last=False)[1][1]


_kept = _Kept()


def _part(name: str, path: str, place: str) -> _Part:
    """Return a shared part, read once as long as its file stays the same."""
    store, file = _found(name, path, place)
    where = store.locate(file)
    try:
        status = os.stat(store.directory / file)
        key = (str(store.directory / file), status.st_mtime_ns, status.st_size)
        part = _kept.get(key)
        if part is None:
            data = store.read(file)
            part = _parse(name, data)
            _kept.keep(key, part, len(data))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _broken(place, where, f"is damaged ({type(error).__name__}: {error})", path) from None
    except (CassetteError, OSError) as error:
        told = str(error).partition("\n")[0].removeprefix(where).strip()
        raise _broken(place, where, f"cannot be read ({told})", path) from None
    return part


def _found(name: str, path: str, place: str) -> tuple[FileStore, str]:
    """Return where a part lies: in the folder beside its cassette, or in the one above."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise _broken(place, repr(name), "is no name of a shared part", path)
    stores = _stores_of(path)
    for store in stores:
        found = find_latest(store, name)
        if found is not None:
            return store, found
    near = next((one for one in stores if one.directory.is_dir()), stores[-1])
    raise _broken(place, near.locate(f"{name}.json"), "is not there", path)


def _stores_of(path: StrPath) -> list[FileStore]:
    folder = Path(os.path.abspath(path)).parent
    return [FileStore(one / FOLDER) for one in (folder, folder.parent)]


def _parse(name: str, data: bytes) -> _Part:
    key = "events" if name.startswith("events") else "data"
    start = data.find(_head(key))
    if start == 0 and data.endswith(b"}\n"):
        text = data[len(_head(key)) : -2]
        if key == "data":
            content = text.replace(b"\n", b"")
            _check_content(name, content, data)
            return _Part(data=content)
        if text.startswith(b"[\n") and text.endswith(b"\n]"):
            content = text[2:-2]
            _check_content(name, content, data)
            return _Part(events=tuple(content.split(b",\n")))
    return _parse_whole(orjson.loads(data), key)


def _check_content(name: str, content: bytes, data: bytes) -> None:
    """Raise ValueError where a part is damaged: one that is what its name tells of was JSON when it
    was written, and an edited one has to be read."""
    if name != _name_of(name.partition("-")[0], content):
        orjson.loads(data)


def _name_of(kind: str, content: bytes) -> str:
    return f"{kind}-{hashlib.blake2b(content, digest_size=10).hexdigest()}"


def _parse_whole(told: Any, key: str) -> _Part:
    """Return the part of a file in another layout, such as one that was formatted."""
    if told["format"] != FORMAT:
        raise ValueError(f"its format is {told['format']!r}")
    if key == "data":
        return _Part(data=dumps(told[key]))
    return _Part(events=tuple(map(_event_text, told[key])))


_SIGNATURE_KEYS = ("lib", "method", "url", "query", "body_hash")


def _event_text(event: dict[str, Json]) -> bytes:
    told: dict[str, Json] = {
        "signature": {key: event["signature"][key] for key in _SIGNATURE_KEYS},
        **{key: event[key] for key in ("arguments", "made") if key in event},
        "result": in_order(event["result"]),
    }
    return b"{" + b", ".join(b'"%b": %b' % (k.encode(), dumps(v)) for k, v in told.items()) + b"}"


def in_order(result: Json) -> Json:
    """Return a result whose reference to a shared answer, if it has one, stands where `Shelf` puts
    it, whatever a tool has made of the order."""
    body = result.get("body") if isinstance(result, dict) else None
    if not isinstance(body, dict) or "shared" not in body:
        return result
    rest = {key: value for key, value in result.items() if key != "body"}
    return {**rest, "body": {"captured": True, "shared": body["shared"]}}


def _broken(place: str, where: str, what: str, path: str) -> CassetteFormatError:
    return CassetteFormatError(
        f"{place} refers to {where}, which {what}.\nRestore it from version control: the directory "
        f"{FOLDER}/ belongs to the cassettes beside it. Or record this cassette again.",
        path=path,
    )


def _unfit(name: str, path: str, place: str, what: str) -> CassetteFormatError:
    store, file = _found(name, path, place)
    return _broken(place, store.locate(file), what, path)


# ------------------------------------------------------------------------------------- clearing up


def users_of_shared(path: StrPath) -> str | None:
    """Return the directory whose cassettes share parts with one, None where there are no parts.

    Args:
        path: the cassette's path.
    """
    for store in _stores_of(path):
        if any(_NAME.fullmatch(_stem(name)) for name in store.names() if "/" not in name):
            return str(store.directory.parent)
    return None


def is_shared(name: str) -> bool:
    """Tell whether a name in a store, such as "shared/body-91ab....json", is that of a part."""
    folder, _, file = name.rpartition("/")
    stem, suffix = split_suffix(file)
    return (
        bool(suffix) and folder.rpartition("/")[2] == FOLDER and _NAME.fullmatch(stem) is not None
    )


def unused_shared_files(directory: StrPath) -> tuple[str, ...]:
    """Return the paths of the shared parts that no cassette refers to.

    Recordings that were kept beside their cassette count as users too.

    Args:
        directory: where to look; the directories below it too. Those of the cassettes that use a
            part must be below it as well: that is so of any directory that has the folder of
            the parts in it, or of one above.

    Raises:
        CassetteError: a file cannot be read, so that it is not known what it refers to.
    """
    store = FileStore(Path(directory))
    names = [name for name in store.names() if split_suffix(name)[1]]
    parts = {name for name in names if is_shared(name)}
    if not parts:
        return ()
    used = _named_in(store, (name for name in names if name not in parts))
    ahead = used
    while ahead:  # an answer may be that of an event in a stretch
        more = _named_in(store, (part for part in parts if _stem(part) in ahead))
        ahead, used = more - used, used | more
    return tuple(store.locate(part) for part in sorted(parts) if _stem(part) not in used)


def _named_in(store: FileStore, names: Iterable[str]) -> frozenset[str]:
    found: set[str] = set()
    for name in names:
        with contextlib.suppress(CassetteNotFoundError):  # another process has removed it
            found |= references(store.read(name))
    return frozenset(found)


def _stem(name: str) -> str:
    return split_suffix(name.rpartition("/")[2])[0]


def remove_unused(directory: StrPath) -> tuple[str, ...]:
    """Remove the shared parts that no cassette refers to, and return their paths. None is removed
    while something is recorded there, which may be about to refer to it.

    Args:
        directory: as for `unused_shared_files`.

    Raises:
        CassetteError: a file cannot be read or removed.
    """
    if any(name.endswith(".partial") for name in FileStore(Path(directory)).names()):
        return ()
    unused = unused_shared_files(directory)
    for path in unused:
        store, name = FileStore.for_path(path)
        store.remove(name)
        with contextlib.suppress(OSError):
            store.directory.rmdir()  # goes with its last file
    return unused
