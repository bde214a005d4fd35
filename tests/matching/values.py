"""Values of a program, written as data: a run makes them anew, and its trace calls them by name.

A value is JSON. A dict with the key "§" stands for what JSON has not, by its row in `FORMS`:

    {"§": "made", "name": "v3", "form": "text"}        what this run made under that name
    {"§": "oid", "hex": "65a0..."}                     a literal ObjectId; form "hex" for its text
    {"§": "uuid", "text": "0f3c...", "form": "bin3"}   a literal UUID
    {"§": "md5", "of": "user 123"}                     the digest of a literal text
    {"§": "date", "iso": "2024-03-01T10:00:00"}        a literal date
    {"§": "text", "text": "user:{}", "parts": [...]}   a string that holds other values
    {"§": "set", "items": [...]}                       a set, turned into a list
    {"§": "keys", "items": [...], "value": 1}          a dict made by going through a set
    {"§": "doc", "items": [[key, value], ...]}         a dict whose keys are values
    {"§": "digest", "by": "sha1", "of": value}         the digest of any value's text
    {"§": "cut", "of": value}                          a string without its last character
    {"§": "took", "since": value, "until": value, "more": 7}   seconds between two times, and more
    {"§": "ref", "to": "users", "id": value, "more": {}}   a DBRef with fields of its own
    {"§": "result", "call": 4, "path": ["inserted_id"]}    what an earlier call returned
"""

from __future__ import annotations

import hashlib
import random
import re
import secrets
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

from bson import Binary, DBRef, ObjectId

Node = Any
MARK = "§"


class NoSuchValueError(LookupError):
    """The program names a part of a result that the call did not return."""


# ------------------------------------------------------------------------------- making values


def _urlsafe() -> str:
    """A token that looks like one: one in two hundred has no digit, and reads as a word."""
    while True:
        token = secrets.token_urlsafe(24)
        if all(re.search(pattern, token) for pattern in ("[a-z]", "[A-Z]", "[0-9]")):
            return token


def _uuid_to_show(make: Callable[[], uuid.UUID]) -> uuid.UUID:
    """A UUID whose bytes every repr writes the same, however deep in other texts it stands."""
    for _ in range(50):
        made = make()
        if not set(made.bytes) & set(b"'\"\\"):
            break
    return made


_unseen = random.SystemRandom()

MAKERS: dict[str, Callable[[], Any]] = {
    "oid": ObjectId,
    "uuid4": lambda: _uuid_to_show(uuid.uuid4),
    "uuid1": lambda: _uuid_to_show(uuid.uuid1),
    "time": lambda: _clock.read(),
    "hex": lambda: secrets.token_hex(16),
    "urlsafe": lambda: _urlsafe(),
    "sha1": lambda: hashlib.sha1(str(time.time_ns()).encode()).hexdigest(),
    "sha256": lambda: hashlib.sha256(secrets.token_bytes(8)).hexdigest(),
    "lone": lambda: _uuid_to_show(lambda: uuid.UUID(int=_unseen.getrandbits(128), version=4)),
    "lonehex": lambda: _unseen.randbytes(16).hex(),
    "short": lambda: f"{random.getrandbits(36):09x}",
    "digits": lambda: random.randint(2 * 10**8, 9 * 10**8),
}
"""Kind of a value -> how a run makes one."""


class _Clock:
    """A clock that never gives a millisecond twice, whose times lie within a second in each run.

    BSON's dates are cut to the millisecond, so that two times of one run might be the same and
    those of another one not. Times that a program writes seconds apart might be the same second
    where the machine stalls for just as long. Each is a limit of its own.
    """

    def __init__(self) -> None:
        self._first: datetime | None = None
        self._last = datetime.min.replace(tzinfo=timezone.utc)

    def begin(self) -> None:
        """Begin a run."""
        self._first = None

    def read(self) -> datetime:
        now = datetime.now(timezone.utc)
        self._first = self._first or now
        if now - self._first >= timedelta(seconds=1):
            now = self._last
        if _milliseconds(now) == _milliseconds(self._last):
            time.sleep(0.0015)
            now += timedelta(milliseconds=1.5)
        self._last = now
        return now


def _milliseconds(value: datetime) -> str:
    return value.isoformat(timespec="milliseconds")


_clock = _Clock()


def _naive(value: datetime) -> datetime:
    return value.replace(tzinfo=None)


FORMS_OF: dict[str, dict[str, Callable[[Any], Any]]] = {
    "oid": {"id": lambda v: v, "hex": str},
    "uuid": {
        "uuid": lambda v: v,
        "bin3": lambda v: Binary(v.bytes, 3),
        "text": str,
        "hex": lambda v: v.hex,
        "piece": lambda v: v.hex[:8],
    },
    "time": {
        "aware": lambda v: v,
        "naive": _naive,
        "iso": lambda v: v.isoformat(),
        "commas": lambda v: _naive(v).strftime("%Y,%m,%d,%H,%M,%S,%f"),
        "epoch": lambda v: v.timestamp(),
        "seconds": lambda v: int(v.timestamp()),
        "ms": lambda v: int(v.timestamp() * 1000),
        "midnight": lambda v: _naive(v).replace(hour=0, minute=0, second=0, microsecond=0),
    },
    "token": {"text": lambda v: v},
    "number": {"int": lambda v: v},
}
FAMILY = {
    "oid": "oid", "uuid4": "uuid", "uuid1": "uuid", "lone": "uuid", "time": "time",
    "digits": "number",
}  # fmt: skip
"""Kind -> which forms it has; every other kind is a token."""


# ------------------------------------------------------------------------------- naming values


def texts_of(value: Any) -> list[str]:
    """All that a value may look like in a trace."""
    if isinstance(value, ObjectId):
        return [str(value)]
    if isinstance(value, uuid.UUID):
        escaped = repr(value.bytes)[2:-1]
        return [str(value), value.hex, value.hex.upper(), escaped, escaped.replace("\\", "\\\\")]
    if isinstance(value, datetime):
        return _texts_of_time(_naive(value))
    return [repr(value) if isinstance(value, float) else str(value)]


def _texts_of_time(value: datetime) -> list[str]:
    stored = value.replace(microsecond=value.microsecond // 1000 * 1000)
    since = stored.replace(tzinfo=timezone.utc).timestamp()
    shapes = [text for v in (value, stored) for text in (v.isoformat(), repr(v)[:-1])]
    return [*shapes, str(round(since * 1000))]


class Names:
    """The names of one run's values, and a trace's text with names in their place."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._new: dict[str, str] = {}

    def name(self, value: Any, name: str) -> None:
        """Call a value, in whatever shape it turns up, by a name; the first one stays."""
        for text in texts_of(value):
            self._known.setdefault(text, name)

    def keep(self, text: str) -> None:
        """Leave a literal as it is."""
        self._known.setdefault(text, text)

    def blurred(self, texts: list[str]) -> list[str]:
        """Return texts with each made value's name, and ids that nobody knows numbered."""
        known = sorted(self._known.items(), key=lambda pair: -len(pair[0]))
        return [self._blur(text, known) for text in texts]

    def sort_key(self, text: str) -> str:
        """What a text is sorted by in every run alike: names for what is known, else nothing."""
        known = sorted(self._known.items(), key=lambda pair: -len(pair[0]))
        return _UNKNOWN.sub("new", self._named(text, known))

    def _blur(self, text: str, known: list[tuple[str, str]]) -> str:
        return _UNKNOWN.sub(self._numbered, self._named(text, known))

    def _named(self, text: str, known: list[tuple[str, str]]) -> str:
        text = _TIMESTAMP.sub("Timestamp", text)
        for made, name in known:
            if made in text and made != name:
                text = _number(made).sub(name, text) if _NUMBER(made) else text.replace(made, name)
        if _SERVER_BYTES.search(text):
            text = _SERVER_BYTES.sub("dup key: {bytes}", text).replace("\\", "").replace('"', "'")
        return _QUOTES.sub(r"b'\2'", text)

    def _numbered(self, found: re.Match[str]) -> str:
        text = found.group()
        known = self._known.get(text)
        return known or self._new.setdefault(text, f"«new {len(self._new) + 1}»")


_QUOTES = re.compile(r"""b(["'])(«[^»]*»)\1""")  # which one repr takes rests on the bytes
_SERVER_BYTES = re.compile(r"dup key: \{[^{}]*?\bb(\\*['\"]).*?\1 \}")  # as SecantusDB writes them
_NUMBER = re.compile(r"[\d.]+").fullmatch
_UNKNOWN = re.compile(r"\b(?:[0-9a-f]{24}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b")
_TIMESTAMP = re.compile(r"Timestamp\(\d+, \d+\)")


@lru_cache(maxsize=64)
def _number(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\d.]){re.escape(text)}(?![\d.])")


# ------------------------------------------------------------------------------- a run's values


class Values:
    """What the values of a program are in one run.

    Args:
        kinds: name of a made value -> its kind.
        ordered: whether sets are gone through in the order in which they are written.
    """

    def __init__(self, kinds: dict[str, str], *, ordered: bool = False) -> None:
        _clock.begin()
        self.names = Names()
        self._kinds = kinds
        self._made: dict[str, Any] = {}
        self.unique: Callable[[list[Any]], Any] = dict.fromkeys if ordered else set
        self.results: dict[int, Any] = {}

    def make(self, name: str) -> Any:
        """The value of that name, made now unless it was before."""
        if name not in self._made:
            self._made[name] = MAKERS[self._kinds[name]]()
        return self._made[name]

    def of(self, node: Node) -> Any:
        """The value that a node stands for."""
        if isinstance(node, dict):
            if MARK in node:
                return FORMS[node[MARK]](self, node)
            return {key: self.of(value) for key, value in node.items()}
        return [self.of(item) for item in node] if isinstance(node, list) else node


def _made(values: Values, node: Node) -> Any:
    name, form = node["name"], node["form"]
    value = values.make(name)
    kind = values._kinds[name]
    if kind != "time":
        values.names.name(value, f"«{name}»")
        shaped = FORMS_OF[FAMILY.get(kind, "token")][form](value)
        if form == "piece":
            values.names.name(shaped, f"«{name} piece»")
        return shaped
    shift = node.get("shift", 0)
    moved = value + timedelta(seconds=shift)
    shaped = FORMS_OF["time"][form](moved)
    called = f"«now{shift:+} {'date' if form in ('aware', 'naive') else form}»"
    values.names.name(shaped, called)
    return shaped


def _oid(values: Values, node: Node) -> Any:
    values.names.keep(node["hex"])
    return ObjectId(node["hex"]) if node.get("form", "id") == "id" else node["hex"]


def _uuid(values: Values, node: Node) -> Any:
    values.names.keep(node["text"])
    return FORMS_OF["uuid"][node["form"]](uuid.UUID(node["text"]))


def _date(values: Values, node: Node) -> Any:
    value = datetime.fromisoformat(node["iso"])
    return FORMS_OF["time"][node.get("form", "naive")](value.replace(tzinfo=timezone.utc))


def _text(values: Values, node: Node) -> str:
    return str(node["text"]).format(*(values.of(part) for part in node["parts"]))


def _set(values: Values, node: Node) -> list[Any]:
    return list(values.unique([values.of(item) for item in node["items"]]))


def _keys(values: Values, node: Node) -> dict[str, Any]:
    keys = values.unique([values.of(item) for item in node["items"]])
    return {key: values.of(node["value"]) for key in keys}


def _doc(values: Values, node: Node) -> dict[str, Any]:
    return {values.of(key): values.of(value) for key, value in node["items"]}


def _digest(values: Values, node: Node) -> str:
    digest = hashlib.new(node["by"], repr(values.of(node["of"])).encode()).hexdigest()
    values.names.name(digest, f"«{node['by']} of {canonical(node['of'])}»")
    return digest


def _cut(values: Values, node: Node) -> Any:
    whole = values.of(node["of"])
    values.names.name(whole[:-1], f"«cut {canonical(node['of'])}»")
    return whole[:-1]


def _took(values: Values, node: Node) -> float:
    since, until = (values.of(node[name]) for name in ("since", "until"))
    seconds: float = (until - since).total_seconds() + node.get("more", 0)
    values.names.name(seconds, f"«took {canonical(node)}»")
    return seconds


def _ref(values: Values, node: Node) -> DBRef:
    return DBRef(node["to"], values.of(node["id"]), **values.of(node["more"]))


def _result(values: Values, node: Node) -> Any:
    found = values.results.get(node["call"])
    for step in node["path"]:
        try:
            found = found[step]
        except (LookupError, TypeError) as error:
            raise NoSuchValueError(f"call {node['call']}, {node['path']}") from error
    return found


FORMS: dict[str, Callable[[Values, Node], Any]] = {
    "made": _made,
    "oid": _oid,
    "uuid": _uuid,
    "md5": lambda values, node: hashlib.md5(node["of"].encode()).hexdigest(),
    "date": _date,
    "text": _text,
    "set": _set,
    "keys": _keys,
    "doc": _doc,
    "digest": _digest,
    "cut": _cut,
    "took": _took,
    "ref": _ref,
    "result": _result,
}


def canonical(node: Node) -> str:
    """A node as text, equal for equal nodes."""
    if isinstance(node, dict):
        return "{" + ",".join(f"{key}:{canonical(value)}" for key, value in node.items()) + "}"
    if isinstance(node, list):
        return "[" + ",".join(map(canonical, node)) + "]"
    return repr(node)
