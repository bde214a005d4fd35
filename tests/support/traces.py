"""What a program sees of the driver, as text: values with their types, errors, cursors' states.

Two traces are equal where a program could not tell the two runs apart. `blurred` takes away what
differs from one run to the next in any case: ids, times, cursor numbers.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping
from typing import Any

from bson import Binary, DBRef, ObjectId, Regex
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from pymongo import IndexModel, WriteConcern, operations, results
from pymongo.errors import PyMongoError
from pymongo.operations import SearchIndexModel

_PLAIN = (str, int, float, bool, bytes, type(None))


def shown(value: Any) -> str:
    """Return a value as text that tells its type and those of all that it holds."""
    kind = type(value)
    if kind in _PLAIN:
        return repr(value)
    if kind is dict:
        return _mapping(value)
    if kind in (list, tuple, set, frozenset):
        return _sequence(value)
    for known, show in _SHOWN:
        if isinstance(value, known):
            return show(value)
    named = _BY_NAME.get(kind.__name__.removeprefix("Async"))
    if named is not None:
        return f"{kind.__name__}({_attributes(value, named)})"
    for base in kind.__mro__[1:]:
        named = _BY_NAME.get(base.__name__.removeprefix("Async"))
        if named is not None:
            return f"{kind.__name__}({_attributes(value, named)})"
    return f"{kind.__name__}: {_without_place(repr(value))}"


def _mapping(value: Mapping[Any, Any]) -> str:
    return "{" + ", ".join(f"{shown(key)}: {shown(item)}" for key, item in value.items()) + "}"


def _sequence(value: Any) -> str:
    items = [shown(item) for item in value]
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}({', '.join(sorted(items))})"
    opening, closing = "[]" if isinstance(value, list) else "()"
    return opening + ", ".join(items) + closing


def _without_place(text: str) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _attributes(value: Any, names: tuple[str, ...]) -> str:
    return ", ".join(f"{name}={_attribute(value, name)}" for name in names)


def _attribute(value: Any, name: str) -> str:
    try:
        found = _DERIVED[name](value) if name in _DERIVED else getattr(value, name)
    except Exception as error:
        return f"<{type(error).__name__}: {error}>"
    return shown(found)


_DERIVED: dict[str, Callable[[Any], Any]] = {
    "has_address": lambda cursor: bool(cursor.address),
    "open_on_server": lambda cursor: cursor.cursor_id and type(cursor.cursor_id),
    "has_session": lambda cursor: cursor.session is not None,
    "read": lambda cursor: cursor._retrieved if hasattr(cursor, "_retrieved") else None,
    "concerns": lambda owner: [owner.write_concern.document, owner.read_concern.document],
    "preference": lambda owner: owner.read_preference.document,
    "full": lambda collection: collection.full_name,
}

_CURSOR = ("alive", "retrieved", "has_address", "open_on_server", "has_session")
_BY_NAME: dict[str, tuple[str, ...]] = {
    "Collection": ("full", "codec_options", "preference", "concerns"),
    "Database": ("name", "codec_options", "preference", "concerns"),
    "MongoClient": (),
    "ClientSession": ("in_transaction", "has_ended"),
    "Cursor": _CURSOR,
    "CommandCursor": ("alive", "has_address", "open_on_server", "has_session"),
    "ChangeStream": ("alive", "resume_token"),
    "GridOut": (
        "_id", "filename", "name", "content_type", "length", "chunk_size", "upload_date",
        "aliases", "metadata", "md5",
    ),
    "GridIn": ("_id", "filename", "closed", "chunk_size"),
    "InsertOneResult": ("inserted_id", "acknowledged"),
    "InsertManyResult": ("inserted_ids", "acknowledged"),
    "UpdateResult": (
        "matched_count", "modified_count", "upserted_id", "did_upsert", "acknowledged",
        "raw_result",
    ),
    "DeleteResult": ("deleted_count", "acknowledged", "raw_result"),
    "BulkWriteResult": (
        "inserted_count", "matched_count", "modified_count", "deleted_count", "upserted_count",
        "upserted_ids", "acknowledged", "bulk_api_result",
    ),
    "ClientBulkWriteResult": (
        "inserted_count", "upserted_count", "matched_count", "modified_count", "deleted_count",
        "insert_results", "update_results", "delete_results", "has_verbose_results",
        "acknowledged", "bulk_api_result",
    ),
}  # fmt: skip


def _datetime(value: datetime.datetime) -> str:
    zone = value.tzinfo
    told = "" if zone is None else f" {type(zone).__name__}({value.utcoffset()})"
    return f"{type(value).__name__}({value.isoformat().removesuffix('+00:00')}{told})"


def _error(error: BaseException) -> str:
    kind = type(error)
    facts = [f"{kind.__module__}.{kind.__qualname__}", f"args={shown(error.args)}"]
    facts.append(f"str={str(error)!r}")
    for name in _ERROR_FACTS:
        if hasattr(error, name):
            facts.append(f"{name}={_attribute(error, name)}")
    if isinstance(error, PyMongoError):
        facts.append(f"labels={sorted(error._error_labels)}")
    return f"<{', '.join(facts)}>"


_ERROR_FACTS = (
    "code", "details", "timeout", "errors", "_max_wire_version", "verbose", "document",
    "write_errors", "write_concern_errors", "error", "partial_result", "encoding", "object",
    "start", "end", "reason",
)  # fmt: skip


def _operation(value: Any) -> str:
    """Show what an operation of a bulk write holds; its repr is another in each release."""
    names = sorted(
        {name for base in type(value).__mro__ for name in getattr(base, "__slots__", ())}
    )
    held = {name.lstrip("_"): getattr(value, name) for name in names if hasattr(value, name)}
    told = ", ".join(f"{name}={shown(item)}" for name, item in held.items() if item)
    return f"{type(value).__name__}({told})"


_OPERATIONS = (
    operations.InsertOne,
    operations.UpdateOne,
    operations.UpdateMany,
    operations.ReplaceOne,
    operations.DeleteOne,
    operations.DeleteMany,
)

_SHOWN: tuple[tuple[Any, Callable[[Any], str]], ...] = (
    (_OPERATIONS, _operation),
    ((IndexModel, SearchIndexModel, WriteConcern), lambda value: _with(value, value.document)),
    (BaseException, _error),
    (RawBSONDocument, lambda value: f"{type(value).__name__}({bytes(value.raw).hex()})"),
    (datetime.datetime, _datetime),
    (DatetimeMS, lambda value: f"DatetimeMS({int(value)})"),
    (Binary, lambda value: f"Binary(subtype={value.subtype}, {bytes(value)!r})"),
    (ObjectId, repr),
    (Regex, lambda value: f"Regex({value.pattern!r}, {value.flags})"),
    (re.Pattern, lambda value: f"re.Pattern({value.pattern!r}, {value.flags})"),
    (DBRef, repr),
    (Mapping, lambda value: f"{type(value).__name__}{_mapping(value)}"),
    (list, lambda value: f"{type(value).__name__}{_sequence(value)}"),
    (int, lambda value: f"{type(value).__name__}({int(value)})"),
    (str, lambda value: f"{type(value).__name__}({str.__str__(value)!r})"),
    (bytes, lambda value: f"{type(value).__name__}({bytes(value)!r})"),
    (results._WriteResult, lambda value: _result(value)),
)


def _with(value: Any, document: Any) -> str:
    return f"{type(value).__name__}({shown(document)})"


def _result(value: Any) -> str:
    for base in type(value).__mro__:
        if base.__name__ in _BY_NAME:
            return f"{type(value).__name__}({_attributes(value, _BY_NAME[base.__name__])})"
    return repr(value)


# ------------------------------------------------------------------------------- two live runs

_BLURRED = (
    (r"RawBSONDocument\(b\\*['\"]X\\+x00.*?(?=, codec_options)", "raw"),
    (r"RawBSONDocument\(5800000011636c757374657254696d6500[0-9a-f]*", "raw"),
    (r"\b[0-9a-f]{24}\b", "id"),
    (r"(?<=datetime\()20(2[4-9]|[3-9]\d)-[^)+ ]*", "time"),
    (r"(?<=Timestamp\()[0-9]{9,}, [0-9]+", "time"),
    (r"(?<='_data': ')[0-9A-Fa-f]+", "token"),
    (r"(?<=id': )Binary\(subtype=4, b(['\"])(?:\\.|(?!\1).)*\1\)", "uuid"),
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "uuid"),
    (r"(?<=[Cc]ursor id )\d+", "number"),
)


def blurred(trace: str) -> str:
    """Return a trace without what differs between two live runs of a program.

    The same ObjectId has the same number wherever it stands, in order of appearance.
    """
    for pattern, word in _BLURRED:
        numbers: dict[str, str] = {}

        def numbered(found: re.Match[str], word: str = word, numbers: Any = numbers) -> str:
            number = len(numbers) + 1 if word == "id" else ""
            return numbers.setdefault(found.group(), f"{word}{number}")

        trace = re.sub(pattern, numbered, trace)
    return trace


# ------------------------------------------------------------------------------- two processes

_MADE = re.compile(
    r"(?P<time>(?<=Timestamp\()\d+, \d+"
    r"|(?<=datetime\()20(?:2[6-9]|[3-9]\d), [^()]*|(?<![0-9])20(?:2[6-9]|[3-9]\d)"
    r"(?:-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?|(?:,\d\d){5},\d{6})"
    r"|(?<![0-9A-Za-z.])1[7-9]\d{8}(?:\d{3}(?:\d{3})?)?(?:\.\d+)?(?![0-9A-Za-z]))"
    r"|(?<![0-9A-Za-z])(?:"
    r"(?P<id>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{32}"
    r"|[0-9a-f]{24})"
    r"|(?P<token>(?=[\w-]*[A-Z])(?=[\w-]*[a-z])(?=[\w-]*\d)[\w-]{86})"
    r")(?![0-9A-Za-z])"
    r"|(?P<mail>(?<=\+)\d{6}(?=@))"
)


def renamed(trace: str, source: str = "") -> str:
    """Return a trace with a name for each value that a run makes anew.

    The n-th distinct id or token has the name n wherever it stands, also within a longer text and
    with or without the dashes of a UUID. All times have one name: two of them may be the same
    millisecond in one run and not in another.

    Args:
        trace: the trace.
        source: the program's text; what stands there is no made value and is left as it is.
    """
    names: dict[str, str] = {}
    literal = {found.group() for found in _MADE.finditer(source)}

    def name(found: re.Match[str]) -> str:
        if found.group() in literal:
            return found.group()
        if found["time"]:
            return "(time)"
        key = found.group().replace("-", "") if found["id"] else found.group()
        return names.setdefault(key, f"({found.lastgroup} {len(names) + 1})")

    return _MADE.sub(name, trace)
