"""BSON values as JSON that a person can read and that loses nothing: one table of tags.

What JSON holds exactly stays plain; the rest is a dict with one "$" key, as in MongoDB Extended
JSON v2. A user's dict that has a tag's name among its keys is wrapped in `$escaped`, so that
`from_json(loads(dumps(to_json(value)))) == value`, types included, for every BSON value:

    ObjectId          {"$oid": "6560a1..."}               int64     {"$numberLong": "5"}
    date              {"$date": "2026-11-21T12:00:00.123Z"}          (UTC, milliseconds)
    bytes, Binary     {"$binary": {"base64": "...", "subType": "00"}}
    tuple, set        {"$pyTuple": [...]}, {"$pySet": [...]}          (BSON has no such types)

Like BSON itself this keeps no subclasses, no DBRef apart from its dict, and of a date neither time
zone nor microseconds. MongoDB's operators (`$set`, `$in`, `$regex`, ...) are no tags.
"""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import NoneType
from typing import Any, TypeAlias
from uuid import UUID

import bson
import orjson
from bson.binary import Binary, UuidRepresentation
from bson.code import Code
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.dbref import DBRef
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from bson.regex import Regex
from bson.son import SON
from bson.timestamp import Timestamp

from timetracer.errors import TimetracerError
from timetracer.model import Json

Path: TypeAlias = set[int]
"""The ids of the containers that are being written, outermost to innermost: finds cycles."""
Dump: TypeAlias = Callable[[Any, Path, int], Json]
"""(value, path, depth in JSON levels) -> its JSON."""
Loaders: TypeAlias = dict[str, "Load"]
Load: TypeAlias = Callable[[Any, Loaders], Any]
"""(what the tag holds, the loaders by tag) -> the value."""

DEEPEST_LEVEL = 200
"""orjson writes 254 levels; the rest is for the tags of a leaf and for the cassette around it."""

_LEAST, _MOST = -(2**63), 2**63 - 1
_EPOCH = datetime(1970, 1, 1)
_MILLISECOND = timedelta(milliseconds=1)
_FIRST_DATE = (datetime.min - _EPOCH) // _MILLISECOND
_LAST_DATE = (datetime.max - _EPOCH) // _MILLISECOND
_CANONICAL_NAN = struct.pack("<d", math.nan)
_REGEX_FLAGS = {
    "i": re.IGNORECASE.value,
    "l": re.LOCALE.value,
    "m": re.MULTILINE.value,
    "s": re.DOTALL.value,
    "u": re.UNICODE.value,
    "x": re.VERBOSE.value,
}
_DATE = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ]([0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(?:[.,]([0-9]+))?)?"
    r"(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2})?)?"
)
_DECODING: CodecOptions[dict[str, Any]] = CodecOptions(
    document_class=dict,
    tz_aware=False,
    uuid_representation=UuidRepresentation.UNSPECIFIED,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)
_ENCODING: CodecOptions[dict[str, Any]] = CodecOptions(
    uuid_representation=UuidRepresentation.STANDARD
)
_DUMPS_STRICTLY = (
    orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_DATACLASS
)


class CodecError(TimetracerError, ValueError):
    """A JSON value is no value, or no BSON: the message names the tag, the place and the fault.

    Attributes:
        place: keys and indexes that lead from the value given to the one at fault.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.place: tuple[str | int, ...] = ()

    def __str__(self) -> str:
        where = f" (at {'.'.join(map(str, self.place))})" if self.place else ""
        return f"{self.args[0]}{where}"


@dataclass(frozen=True, slots=True)
class Unencodable:
    """Stands for a value that neither BSON nor JSON can hold, in arguments that were recorded.

    Attributes:
        kind: its class ("module.Class"), or "cycle" or "too deep" for a container.
    """

    kind: str


@dataclass(frozen=True, slots=True)
class Tag:
    """A row of the table: how the values of some types are written, how a tag is read.

    Attributes:
        name: the tag's key, with its "$".
        load: makes the value from what the tag holds; any exception means malformed.
        types: the types that `dump` writes, with their subclasses.
        dump: makes the whole JSON of a value; for types that JSON knows it may be plain.
    """

    name: str
    load: Load
    types: tuple[type, ...] = ()
    dump: Dump | None = None


def to_json(value: object) -> Json:
    """Turn any Python value into JSON; what cannot be held becomes {"$unencodable": its class}.

    Below `DEEPEST_LEVEL` levels a value is kept as BSON, with the types that BSON gives back.

    Args:
        value: anything; it is not changed.

    Returns:
        dict, list, str, int, float, bool or None that `dumps` accepts, sharing nothing mutable
        with `value`. Never raises.
    """
    try:
        return _DUMPERS.get(type(value), _dump_other)(value, set(), 0)
    except Exception:  # a container changed meanwhile by a thread, or a stack nearly used up
        return _raw_value(value)


def from_json(value: Json) -> Any:
    """Turn JSON into the value it was made of: the inverse of `to_json`.

    Args:
        value: JSON as of `to_json`, or Extended JSON v2 (canonical, relaxed) written by hand. It is
            used up: dicts and lists are changed in place and become part of the result.

    Returns:
        The value; dates are naive UTC datetimes.

    Raises:
        CodecError: a tag is malformed, or stands for what has no value ($redacted).
    """
    return _load_whole(value, _LOADERS)


def bson_to_json(raw: bytes) -> Json:
    """Turn a BSON document into JSON that `json_to_bson` turns into the same bytes.

    Args:
        raw: the document's bytes.

    Returns:
        The JSON of its values; {"$rawBson": base64} where they would not give the same bytes
        (duplicate keys, invalid UTF-8, deprecated types, ...). Never raises.
    """
    return _dump_bson(raw, set(), 0)


def json_to_bson(value: Json) -> bytes:
    """Turn JSON into the BSON document it stands for, its keys in the order given.

    Args:
        value: JSON of a document, as of `bson_to_json` or `to_json`. It is used up, as by
            `from_json`.

    Returns:
        The document's bytes. UUIDs are of subtype 4.

    Raises:
        CodecError: malformed, no document, or it holds what BSON cannot ($unencodable, ...).
    """
    if type(value) is dict and len(value) == 1 and "$rawBson" in value:
        return _load_tag(value, _RAW_BYTES)  # type: ignore[no-any-return]
    document = _load_whole(value, _LOADERS_FOR_BSON)
    if not isinstance(document, (dict, RawBSONDocument)):
        raise CodecError(f"not a BSON document but {type(document).__name__}: expected a dict")
    try:
        return _encode(document)
    except Exception as error:
        raise CodecError(f"BSON cannot hold this document: {_reason(error)}") from error


def dumps(value: Json) -> bytes:
    """Write JSON as compact UTF-8 text, without whitespace between tokens.

    Raises:
        CodecError: `value` is not JSON-ready: it did not come from `to_json`.
    """
    try:
        return orjson.dumps(value, option=_DUMPS_STRICTLY)
    except TypeError as error:
        raise CodecError(f"not JSON-ready: {error}; use to_json first") from error


def loads(data: bytes) -> Json:
    """Read JSON text.

    Raises:
        CodecError: damaged, or nested deeper than 1024 levels; the message names the place.
    """
    try:
        return orjson.loads(data)
    except ValueError as error:
        raise CodecError(f"not JSON: {error}") from error


# -- values to JSON


def _dump_dict(value: dict[Any, Any], path: Path, depth: int) -> Json:
    escaped = not TAG_NAMES.isdisjoint(value)
    inner = depth + (2 if escaped else 1)
    key = id(value)
    if key in path:
        return {"$unencodable": "cycle"}
    if inner > DEEPEST_LEVEL:
        return _raw_value(value)
    path.add(key)
    result = {}
    for name, item in value.items():
        if type(name) is not str or not (name.isascii() or _is_utf8(name)):
            path.discard(key)
            return _dump_mapping(value, path, depth)
        kind = type(item)
        if (
            (kind is str and item.isascii())
            or (kind is int and _LEAST <= item <= _MOST)
            or kind is bool
            or item is None
        ):
            result[name] = item
        else:
            result[name] = _DUMPERS.get(kind, _dump_other)(item, path, inner)
    path.discard(key)
    return {"$escaped": result} if escaped else result


def _dump_mapping(value: Mapping[Any, Any], path: Path, depth: int) -> Json:
    key = id(value)
    if key in path:
        return {"$unencodable": "cycle"}
    path.add(key)
    plain = {_base_text(name): value[name] for name in value}
    if all(type(name) is str and _is_utf8(name) for name in plain):
        result = _dump_dict(plain, path, depth)
    elif depth + 3 > DEEPEST_LEVEL:
        result = _raw_value(value)
    else:
        result = {"$pairs": [_dump_pair(*pair, path, depth + 3) for pair in plain.items()]}
    path.discard(key)
    return result


def _dump_pair(name: object, item: object, path: Path, depth: int) -> Json:
    return [_dump_hashable(name, path, depth), _dump(item, path, depth)]


def _dump_list(value: Iterable[Any], path: Path, depth: int) -> Json:
    key = id(value)
    if key in path:
        return {"$unencodable": "cycle"}
    if depth >= DEEPEST_LEVEL:
        return _raw_value(value)
    path.add(key)
    inner = depth + 1
    result = [
        item
        if type(item) is str and item.isascii()
        else _DUMPERS.get(type(item), _dump_other)(item, path, inner)
        for item in value
    ]
    path.discard(key)
    return result


def _dump_tuple(value: tuple[Any, ...], path: Path, depth: int) -> Json:
    # At the depth limit the list is a tag of its own, or the cycle's: neither is a tuple's items.
    items = _dump_list(value, path, depth + 1)
    return {"$pyTuple": items} if type(items) is list else items


def _dump_members(tag: str, value: Iterable[Any], path: Path, depth: int) -> Json:
    if depth + 2 > DEEPEST_LEVEL:
        return _unencodable(value)
    # Sorted, because the order of a set changes from one process to the next.
    members = [_dump_hashable(item, path, depth + 2) for item in value]
    return {tag: sorted(members, key=orjson.dumps)}


def _dump_hashable(value: object, path: Path, depth: int) -> Json:
    # Some values are hashable and what is loaded for them is not, such as re.Pattern and DBRef.
    result = _dump(value, path, depth)
    try:
        hash(from_json(loads(dumps(result))))
    except Exception:
        return _unencodable(value)
    return result


def _dump(value: object, path: Path, depth: int) -> Json:
    return _DUMPERS.get(type(value), _dump_other)(value, path, depth)


def _dump_other(value: object, path: Path, depth: int) -> Json:
    # A copy of the path, because a subclass may raise half-way and leave its ids in it.
    try:
        if isinstance(value, Mapping):
            return _dump_mapping(value, path.copy(), depth)
        for base in type(value).__mro__[1:]:
            if base in _DUMPERS:
                return _DUMPERS[base](value, path.copy(), depth)
    except Exception:
        pass
    return _unencodable(value)


def _dump_text(value: str, path: Path, depth: int) -> Json:
    text = str.__str__(value)
    if text.isascii() or _is_utf8(text):
        return text
    return {"$surrogateText": _base64(text.encode("utf-8", "surrogatepass"))}


def _dump_int(value: int, path: Path, depth: int) -> Json:
    number = int.__int__(value)
    return number if _LEAST <= number <= _MOST else {"$bigInt": _digits(number)}


def _dump_int64(value: Int64, path: Path, depth: int) -> Json:
    number = int.__int__(value)
    return {"$numberLong" if _LEAST <= number <= _MOST else "$bigInt": _digits(number)}


def _dump_float(value: float, path: Path, depth: int) -> Json:
    number = float.__float__(value)
    if math.isfinite(number):
        return number
    if math.isinf(number):
        return {"$numberDouble": "Infinity" if number > 0 else "-Infinity"}
    if struct.pack("<d", number) != _CANONICAL_NAN:
        return _raw_value(number)
    return {"$numberDouble": "NaN"}


def _dump_decimal(value: Decimal128, path: Path, depth: int) -> Json:
    # Bits outside the standard's canonical forms do not survive as text.
    try:
        text = str(value)
        if Decimal128(text).bid == value.bid:
            return {"$numberDecimal": text}
    except ArithmeticError:
        pass
    return _raw_value(value)


def _dump_datetime(value: datetime, path: Path, depth: int) -> Json:
    if value.tzinfo is None:
        return {"$date": datetime.isoformat(value, "T", "milliseconds") + "Z"}
    offset = value.utcoffset() or timedelta()
    return _dump_milliseconds((value.replace(tzinfo=None) - _EPOCH - offset) // _MILLISECOND)


def _dump_milliseconds(milliseconds: int) -> Json:
    if not _FIRST_DATE <= milliseconds <= _LAST_DATE:
        return {"$date": {"$numberLong": str(milliseconds)}}
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return {"$date": moment.isoformat("T", "milliseconds") + "Z"}


def _dump_binary(value: bytes, path: Path, depth: int) -> Json:
    subtype = value.subtype if isinstance(value, Binary) else 0
    return {"$binary": {"base64": _base64(value), "subType": f"{subtype:02x}"}}


def _dump_regex(value: Regex[Any] | re.Pattern[Any], path: Path, depth: int) -> Json:
    options = "".join(letter for letter, flag in _REGEX_FLAGS.items() if value.flags & flag)
    pattern = _dump(value.pattern, path, depth + 2)
    return {"$regularExpression": {"pattern": pattern, "options": options}}


def _dump_code(value: Code, path: Path, depth: int) -> Json:
    code = _dump_text(value, path, depth)
    if value.scope is None:
        return {"$code": code}
    scope = _dump(value.scope, path, depth + 1)
    return scope if scope.keys() == {"$unencodable"} else {"$code": code, "$scope": scope}


def _dump_bson(raw: bytes, path: Path, depth: int) -> Json:
    try:
        document = bson.decode(raw, _DECODING)
        if _encode(document) == raw:
            return _tag_dict(document, path, depth)
    except Exception:
        pass
    return {"$rawBson": _base64(raw)}


def _tag_dict(document: dict[str, Any], path: Path, depth: int) -> Json:
    # As _dump_dict, in place: what bson decoded is ours, has no cycles and only UTF-8 text.
    escaped = not TAG_NAMES.isdisjoint(document)
    inner = depth + (2 if escaped else 1)
    if inner > DEEPEST_LEVEL:
        return _raw_value(document)
    for name, item in document.items():
        dump = _TAGGERS.get(type(item))
        if dump is not None:
            document[name] = dump(item, path, inner)
    return {"$escaped": document} if escaped else document


def _tag_list(items: list[Any], path: Path, depth: int) -> Json:
    if depth >= DEEPEST_LEVEL:
        return _raw_value(items)
    for index, item in enumerate(items):
        dump = _TAGGERS.get(type(item))
        if dump is not None:
            items[index] = dump(item, path, depth + 1)
    return items


def _raw_value(value: object) -> Json:
    try:
        return {"$rawValue": _base64(bson.encode({"": value}, codec_options=_ENCODING))}
    except RecursionError:
        return {"$unencodable": "too deep"}
    except Exception:
        return _unencodable(value)


def _unencodable(value: object) -> Json:
    try:
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        return {"$unencodable": name.encode("ascii", "backslashreplace").decode("ascii")}
    except Exception:
        return {"$unencodable": "unknown"}


def _encode(document: Any) -> bytes:
    # At the top bson moves "_id" to the front; inside another document it keeps the order.
    if type(document) is dict and "_id" in document and next(iter(document)) != "_id":
        return bson.encode({"": document}, codec_options=_ENCODING)[6:-1]
    return bson.encode(document, codec_options=_ENCODING)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _base_text(value: object) -> object:
    return str.__str__(value) if isinstance(value, str) else value


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _digits(number: int) -> str:
    # Python refuses to write more than some thousand decimal digits.
    return str(number) if number.bit_length() < 2000 else hex(number)


# -- JSON to values


def _load_whole(value: Json, loaders: Loaders) -> Any:
    try:
        return _load(value, loaders)
    except RecursionError as error:
        raise CodecError("nested too deeply to be read here") from error


def _load(value: Json, loaders: Loaders) -> Any:
    kind = type(value)
    if kind is dict:
        return _load_dict(value, loaders)
    return _load_list(value, loaders) if kind is list else value


def _load_dict(value: dict[str, Any], loaders: Loaders) -> Any:
    if not TAG_NAMES.isdisjoint(value):
        return _load_tag(value, loaders)
    return _load_fields(value, loaders)


def _load_fields(value: dict[str, Any], loaders: Loaders) -> dict[str, Any]:
    name = ""
    try:
        for name, item in value.items():
            kind = type(item)
            if kind is dict:
                value[name] = _load_dict(item, loaders)
            elif kind is list:
                _load_list(item, loaders)
    except CodecError as error:
        error.place = (name, *error.place)
        raise
    return value


def _load_list(value: list[Any], loaders: Loaders) -> list[Any]:
    index = 0
    try:
        for index, item in enumerate(value):
            kind = type(item)
            if kind is dict:
                value[index] = _load_dict(item, loaders)
            elif kind is list:
                _load_list(item, loaders)
    except CodecError as error:
        error.place = (index, *error.place)
        raise
    return value


def _load_tag(value: dict[str, Any], loaders: Loaders) -> Any:
    held: Any
    if len(value) == 1:
        [(name, held)] = value.items()
    elif value.keys() == {"$code", "$scope"}:
        name, held = "$code", (value["$code"], value["$scope"])
    else:
        name = next(key for key in value if key in TAG_NAMES)
        raise CodecError(
            f"{name} stands beside other keys; a document that has a field of this name is"
            ' written {"$escaped": {...}}'
        )
    try:
        return loaders[name](held, loaders)
    except CodecError:
        raise
    except Exception as error:
        raise CodecError(f"{name} is malformed: {_reason(error)}") from error


def _load_object_id(held: Any, loaders: Loaders) -> ObjectId:
    # bytes.fromhex skips spaces: 24 characters with spaces among them are less than 12 bytes.
    if len(held) != 24:
        raise ValueError("expected 24 hex digits")
    return ObjectId(bytes.fromhex(held))


def _load_date(held: Any, loaders: Loaders) -> datetime | DatetimeMS:
    if type(held) is str:
        if len(held) == 24 and held[10] == "T" and held[19] == "." and held[23] == "Z":
            moment = datetime.fromisoformat(held[:23])
            if moment.tzinfo is None:
                return moment
        return _load_date_text(held)
    milliseconds = _int64(_load(held, loaders))
    if not _FIRST_DATE <= milliseconds <= _LAST_DATE:
        return DatetimeMS(milliseconds)
    return _EPOCH + timedelta(milliseconds=milliseconds)


def _load_date_text(text: str) -> datetime:
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError('expected a date such as "2026-11-21T12:00:00.123Z"')
    day, time, fraction, sign, hours, minutes = match.groups()
    moment = datetime.fromisoformat(f"{day}T{time or '00:00'}")
    moment += timedelta(milliseconds=int((fraction or "")[:3].ljust(3, "0")))
    if sign is None:
        return moment
    offset = timedelta(hours=int(hours), minutes=int(minutes or 0))
    return moment - offset if sign == "+" else moment + offset


def _load_integer(held: Any, loaders: Loaders) -> int:
    if type(held) is int:
        return held
    if not re.fullmatch(r"[+-]?(0x[0-9a-f]+|[0-9]+)", held):
        raise ValueError("expected the digits of an integer, as a string")
    return int(held, 16 if "x" in held else 10)


def _int64(number: Any) -> int:
    if not isinstance(number, int) or isinstance(number, bool):
        raise ValueError(f"expected an integer, not {type(number).__name__}")
    if not _LEAST <= number <= _MOST:
        raise ValueError("beyond 64 bits")
    return int.__int__(number)


def _load_double(held: Any, loaders: Loaders) -> float:
    if type(held) in (int, float):
        return float(held)
    if not re.fullmatch(r"NaN|[+-]?(Infinity|[0-9.]+([eE][+-]?[0-9]+)?)", held):
        raise ValueError('expected a number as a string, "NaN", "Infinity" or "-Infinity"')
    return float(held)


def _load_binary(held: Any, loaders: Loaders) -> bytes:
    data, subtype = _bytes(held["base64"]), _text(held["subType"])
    if len(held) != 2 or not re.fullmatch("[0-9a-fA-F]{1,2}", subtype):
        raise ValueError('expected {"base64": "...", "subType": two hex digits}')
    return Binary(data, int(subtype, 16)) if int(subtype, 16) else data


def _load_regex(held: Any, loaders: Loaders) -> Regex[Any]:
    pattern, options = _load(held["pattern"], loaders), _text(held["options"])
    if len(held) != 2 or not isinstance(pattern, (str, bytes)):
        raise ValueError('expected {"pattern": "...", "options": "..."}')
    flags = 0
    for letter in options:
        if letter not in _REGEX_FLAGS:
            raise ValueError(f'unknown option {letter!r}, expected some of "ilmsux"')
        flags |= _REGEX_FLAGS[letter]
    return Regex(pattern, flags)


def _load_timestamp(held: Any, loaders: Loaders) -> Timestamp:
    if held.keys() != {"t", "i"}:
        raise ValueError('expected {"t": seconds, "i": counter}')
    return Timestamp(_int64(held["t"]), _int64(held["i"]))


def _load_code(held: Any, loaders: Loaders) -> Code:
    if type(held) is not tuple:
        return Code(_text(_load(held, loaders)))  # type: ignore[no-any-return]
    scope = _load(held[1], loaders)
    if not isinstance(scope, Mapping):
        raise ValueError("expected a document as $scope")
    return Code(_text(_load(held[0], loaders)), scope)  # type: ignore[no-any-return]


def _load_pointer(held: Any, loaders: Loaders) -> DBRef:
    if len(held) != 2:
        raise ValueError('expected {"$ref": collection, "$id": ObjectId}')
    return DBRef(_text(held["$ref"]), _load(held["$id"], loaders))


def _load_items(held: Any, loaders: Loaders) -> list[Any]:
    if type(held) is not list:
        raise ValueError(f"expected a list, not {type(held).__name__}")
    return _load_list(held, loaders)


def _load_pairs(held: Any, loaders: Loaders) -> dict[Any, Any]:
    return dict(map(_pair, _load_items(held, loaders)))


def _pair(pair: Any) -> Any:
    if type(pair) is not list or len(pair) != 2:
        raise ValueError("expected a list of [key, value]")
    return pair


def _load_escaped(held: Any, loaders: Loaders) -> dict[str, Any]:
    if type(held) is not dict:
        raise ValueError(f"expected a document, not {type(held).__name__}")
    return _load_fields(held, loaders)


def _load_raw_value(held: Any, loaders: Loaders) -> Any:
    document = bson.decode(_bytes(held), _DECODING)
    if document.keys() != {""}:
        raise ValueError("expected the BSON of a document with the one key ''")
    return document[""]


def _refuse_redacted(held: Any, loaders: Loaders) -> Any:
    raise CodecError("$redacted stands for a value that was taken out: substitute it first")


def _constant(expected: Any, value: Any) -> Load:
    def load(held: Any, loaders: Loaders) -> Any:
        if type(held) is not type(expected) or held != expected:
            raise ValueError(f"expected {dumps(expected).decode()}")
        return value

    return load


def _text(held: Any) -> str:
    if not isinstance(held, str):
        raise ValueError(f"expected a string, not {type(held).__name__}")
    return held


def _bytes(held: Any) -> bytes:
    return base64.b64decode(_text(held), validate=True)


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return str(error) or type(error).__name__


TAGS = (
    # MongoDB Extended JSON v2
    Tag("$oid", _load_object_id, (ObjectId,), lambda value, path, depth: {"$oid": str(value)}),
    Tag("$date", _load_date, (datetime,), _dump_datetime),
    Tag(
        "$numberLong",
        lambda held, loaders: Int64(_int64(_load_integer(held, loaders))),
        (Int64,),
        _dump_int64,
    ),
    Tag("$numberInt", lambda held, loaders: _int64(_load_integer(held, loaders))),
    Tag("$numberDouble", _load_double, (float,), _dump_float),
    Tag(
        "$numberDecimal",
        lambda held, loaders: Decimal128(_text(held)),
        (Decimal128,),
        _dump_decimal,
    ),
    Tag("$binary", _load_binary, (bytes, Binary), _dump_binary),
    Tag(
        "$uuid",
        lambda held, loaders: UUID(_text(held)),
        (UUID,),
        lambda value, path, depth: {"$uuid": str(value)},
    ),
    Tag("$regularExpression", _load_regex, (Regex, re.Pattern), _dump_regex),
    Tag(
        "$timestamp",
        _load_timestamp,
        (Timestamp,),
        lambda value, path, depth: {"$timestamp": {"t": value.time, "i": value.inc}},
    ),
    Tag("$code", _load_code, (Code,), _dump_code),
    Tag("$minKey", _constant(1, MinKey()), (MinKey,), lambda value, path, depth: {"$minKey": 1}),
    Tag("$maxKey", _constant(1, MaxKey()), (MaxKey,), lambda value, path, depth: {"$maxKey": 1}),
    Tag("$symbol", lambda held, loaders: _text(held)),
    Tag("$undefined", _constant(True, None)),
    Tag("$dbPointer", _load_pointer),
    # Ours: a user's document with a tag's name in it, and what BSON has no type for.
    Tag("$escaped", _load_escaped, (dict,), _dump_dict),
    Tag("$pairs", _load_pairs),
    Tag("$pyTuple", lambda held, loaders: tuple(_load_items(held, loaders)), (tuple,), _dump_tuple),
    Tag(
        "$pySet",
        lambda held, loaders: set(_load_items(held, loaders)),
        (set,),
        lambda value, path, depth: _dump_members("$pySet", value, path, depth),
    ),
    Tag(
        "$pyFrozenset",
        lambda held, loaders: frozenset(_load_items(held, loaders)),
        (frozenset,),
        lambda value, path, depth: _dump_members("$pyFrozenset", value, path, depth),
    ),
    Tag("$bigInt", _load_integer, (int,), _dump_int),
    Tag(
        "$surrogateText",
        lambda held, loaders: _bytes(held).decode("utf-8", "surrogatepass"),
        (str,),
        _dump_text,
    ),
    Tag(
        "$unencodable",
        lambda held, loaders: Unencodable(_text(held)),
        (Unencodable,),
        lambda value, path, depth: {"$unencodable": value.kind},
    ),
    # Ours: bytes that the other tags would not give back exactly.
    Tag(
        "$rawBson",
        lambda held, loaders: bson.decode(_bytes(held), _DECODING),
        (RawBSONDocument,),
        lambda value, path, depth: _dump_bson(value.raw, path, depth),
    ),
    Tag("$rawValue", _load_raw_value),
    # Made and filled in by redaction.
    Tag("$redacted", _refuse_redacted),
)

TAG_NAMES = frozenset(tag.name for tag in TAGS)
_LOADERS: Loaders = {tag.name: tag.load for tag in TAGS}
_LOADERS_FOR_BSON: Loaders = {
    **_LOADERS,
    "$rawBson": lambda held, loaders: RawBSONDocument(_bytes(held)),
}
_RAW_BYTES: Loaders = {"$rawBson": lambda held, loaders: _bytes(held)}
_DUMPERS: dict[type, Dump] = {
    **{kind: tag.dump for tag in TAGS if tag.dump for kind in tag.types},
    bool: lambda value, path, depth: value,
    NoneType: lambda value, path, depth: value,
    list: _dump_list,
    SON: _dump_mapping,
    DBRef: lambda value, path, depth: _dump_mapping(value.as_doc(), path, depth),
    DatetimeMS: lambda value, path, depth: _dump_milliseconds(int(value)),
}
_TAGGERS: dict[type, Dump] = {
    **{kind: dump for kind, dump in _DUMPERS.items() if kind not in (str, int, bool, NoneType)},
    dict: _tag_dict,
    list: _tag_list,
}
