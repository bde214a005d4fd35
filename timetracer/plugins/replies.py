"""How answers are kept and given back: one class for each shape an answer has.

Within the program's call an answer is only copied: the server's reply as it came where one value of
it is the answer, else the result as BSON. JSON is made of it when the cassette is written. Given
back, it is decoded with the caller's own codec options, so that every type is as it was live.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import bson
from bson.codec_options import DEFAULT_CODEC_OPTIONS
from bson.raw_bson import RawBSONDocument
from bson.son import SON
from pymongo import results

from timetracer.codec import bson_to_json, from_json, json_to_bson, to_json
from timetracer.driver import Exchange, RecordedResult
from timetracer.model import Json
from timetracer.plugins.failures import detail_from_json, detail_to_json

_RAW = DEFAULT_CODEC_OPTIONS.with_options(document_class=RawBSONDocument)
_ABSENT = object()


@dataclass(slots=True)
class Kept:
    """The outcome of a call that returned; rendered to JSON when it is written.

    Attributes:
        data: makes the JSON of `result.body.data`.
        reached_server: whether a server took part.
        extras: what the plugin keeps beside the answer.
    """

    data: Callable[[], Json]
    reached_server: bool = True
    open: bool = False
    extras: dict[str, Json] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        """Return the event's `result`."""
        return {"status": 0, **self.extras, "body": {"captured": True, "data": self.data()}}


def body_of(result: dict[str, Any]) -> Json:
    """Return what `result.body.data` holds."""
    return (result.get("body") or {}).get("data")


# ------------------------------------------------------------------------------- raw replies


def raw_part(payload: bytes, path: str) -> Any:
    """Return one value of a server's reply, documents in it as RawBSONDocument.

    Args:
        payload: the reply, as BSON bytes.
        path: dotted path, such as "cursor.firstBatch.0".

    Returns:
        The value, or `ABSENT`'s stand-in where the reply has none.
    """
    value: Any = RawBSONDocument(payload, _RAW)
    for step in path.split("."):
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (LookupError, TypeError):
            return _ABSENT
    return value


def embedded_document(payload: bytes, path: str) -> bytes | None:
    """Return the bytes of a document in a reply; several times as fast as `raw_part`.

    Args:
        payload: the reply, as BSON bytes.
        path: dotted path, such as "cursor.firstBatch.0".

    Returns:
        Its bytes; None where there is something else, or what `raw_part` must look at.
    """
    return _embedded(payload, path, _DOCUMENT)


def embedded_array(payload: bytes, path: str) -> bytes | None:
    """Return the bytes of an array in a reply, as `embedded_document` does those of a document."""
    return _embedded(payload, path, _ARRAY)


def _embedded(payload: bytes, path: str, wanted: int) -> bytes | None:
    kind, start = _DOCUMENT, 0
    for step in path.encode().split(b"."):
        if kind not in (_DOCUMENT, _ARRAY):
            return None
        found = _element(payload, start, step)
        if found is None:
            return None
        kind, start = found
    return payload[start : start + _int32(payload, start)] if kind == wanted else None


def _element(payload: bytes, start: int, name: bytes) -> tuple[int, int] | None:
    """Return type and start of a value of the document that starts at `start`."""
    at = start + 4
    while payload[at]:
        kind, end = payload[at], payload.index(0, at)
        if payload[at + 1 : end] == name:
            return kind, end + 1
        size = _SIZES.get(kind)
        if size is None:
            return None
        at = end + 1 + size + (_int32(payload, end + 1) if kind in _COUNTED else 0)
    return None


def _int32(payload: bytes, at: int) -> int:
    return int.from_bytes(payload[at : at + 4], "little")


_DOCUMENT, _ARRAY = 3, 4
_SIZES = {1: 8, 2: 4, 3: 0, 4: 0, 5: 5, 7: 12, 8: 1, 9: 8, 10: 0, 16: 4, 17: 8, 18: 8, 19: 16}
"""BSON type -> bytes of a value, beside those that it counts itself."""
_COUNTED = frozenset({2, 3, 4, 5})


def is_absent(value: Any) -> bool:
    """Tell whether `raw_part` found nothing."""
    return value is _ABSENT


def raw_to_json(value: Any) -> Json:
    """Return a value of `raw_part` as JSON, lossless."""
    if isinstance(value, RawBSONDocument):
        return bson_to_json(bytes(value.raw))
    kept = bson_to_json(bson.encode({"v": value}, codec_options=_RAW))
    return kept.get("v", kept)


def instance_options(exchange: Exchange) -> Any:
    """Return the codec options of the object whose method was called."""
    return exchange.instance.codec_options


def argument_options(exchange: Exchange) -> Any:
    """Return the codec options that were an argument of the call."""
    return exchange.arguments.get("codec_options") or DEFAULT_CODEC_OPTIONS


def command_options(exchange: Exchange) -> Any:
    """Return the codec options with which PyMongo decodes a whole reply, and not the documents of
    a program in it: type decoders are for those."""
    return without_decoders(argument_options(exchange))


def without_decoders(options: Any) -> Any:
    """Return codec options as PyMongo uses them for what is no document of the program's."""
    return options._replace(type_registry=DEFAULT_CODEC_OPTIONS.type_registry)


def write_options(exchange: Exchange) -> Any:
    """Return the codec options with which PyMongo decodes the replies to writes."""
    options = getattr(exchange.instance, "codec_options", DEFAULT_CODEC_OPTIONS)
    return without_decoders(options)._replace(
        document_class=dict, unicode_decode_error_handler="replace"
    )


def encode_value(value: Any, options: Any) -> Callable[[], Json]:
    """Return what makes JSON of a snapshot of a value that was decoded with `options`."""
    try:
        snapshot = bson.encode({"v": value}, codec_options=options)
    except Exception:
        kept = to_json(value)  # no BSON: keep what can be kept
        return lambda: kept
    return lambda: _unwrapped(bson_to_json(snapshot))


def _unwrapped(kept: Json) -> Json:
    return kept["v"] if isinstance(kept, dict) and "v" in kept else kept


# ------------------------------------------------------------------------------- the replies


@dataclass(frozen=True, slots=True)
class Document:
    """A document, a list of values, or None, decoded with codec options of the caller's.

    Attributes:
        options: which codec options decode it.
    """

    options: Callable[[Exchange], Any] = instance_options

    def keep(self, exchange: Exchange, result: Any) -> Kept:
        """Take a snapshot."""
        payload, path = exchange.payload, exchange.row.raw
        if payload is None or not path:
            return Kept(encode_value(result, self.options(exchange)))
        return Kept(_none if result is None else _PartOfReply(payload, path))

    def give(self, exchange: Exchange, event: RecordedResult) -> Any:
        """Decode the recorded answer."""
        raw, is_document = event.cached(_document_bytes)
        decoded = bson.decode(raw, codec_options=self.options(exchange))
        return decoded if is_document else decoded["v"]


def _none() -> None:
    return None


@dataclass(slots=True)
class _PartOfReply:
    """Makes the JSON of one value of a server's reply; see `raw_part`, "." for the whole."""

    payload: bytes
    path: str

    def __call__(self) -> Json:
        payload = bytes(self.payload)
        document = payload if self.path == "." else embedded_document(payload, self.path)
        if document is not None:
            return bson_to_json(document)
        value = raw_part(payload, self.path)
        return raw_to_json(None if value is _ABSENT else value)


def _document_bytes(result: dict[str, Any]) -> tuple[bytes, bool]:
    data = body_of(result)
    if isinstance(data, dict) and not (len(data) == 1 and _is_scalar_tag(data)):
        return json_to_bson(data), True
    return json_to_bson({"v": data}), False


def _is_scalar_tag(data: dict[str, Json]) -> bool:
    key = next(iter(data))
    return key.startswith("$") and key not in ("$escaped", "$rawBson")


@dataclass(frozen=True, slots=True)
class Python:
    """A value of plain Python types: a count, names, a dict that the driver made.

    Attributes:
        revive: makes the result of the decoded value.
        reached_server: whether the call reaches a server at all.
    """

    revive: Callable[[Any], Any] = lambda value: value
    reached_server: bool = True

    def keep(self, exchange: Exchange, result: Any) -> Kept:
        """Take a snapshot."""
        kept = to_json(result)
        return Kept(lambda: kept, reached_server=self.reached_server)

    def give(self, exchange: Exchange, event: RecordedResult) -> Any:
        """Return a fresh copy."""
        return self.revive(from_json(body_of(event.result())))


def index_information(value: dict[str, Any]) -> dict[str, Any]:
    """Return what `index_information` gives: what lies inside an index's options is SON."""
    return {
        name: {key: _as_son(item) for key, item in index.items()} for name, index in value.items()
    }


def _as_son(value: Any) -> Any:
    if type(value) is not dict:
        return value
    return SON((key, _as_son(item)) for key, item in value.items())


@dataclass(frozen=True, slots=True)
class Nothing:
    """No answer that anyone sees, such as a commit's."""

    def keep(self, exchange: Exchange, result: Any) -> Kept:
        """Keep that it happened."""
        return Kept(_none)

    def give(self, exchange: Exchange, event: RecordedResult) -> Any:
        """Return what is not looked at."""
        return {"ok": 1.0}


@dataclass(frozen=True, slots=True)
class Result:
    """A result object that holds a dict of the server's.

    Attributes:
        kind: the class.
        attribute: where it holds the dict.
    """

    kind: Any
    attribute: str

    def keep(self, exchange: Exchange, result: Any) -> Kept:
        """Take a snapshot."""
        data = encode_value(getattr(result, self.attribute), write_options(exchange))
        acknowledged = result.acknowledged
        return Kept(lambda: {"acknowledged": acknowledged, self.attribute: data()})

    def give(self, exchange: Exchange, event: RecordedResult) -> Any:
        """Build the result."""
        raw, acknowledged = event.cached(self._bytes)
        value = bson.decode(raw, codec_options=write_options(exchange))["v"]
        return self.kind(value, acknowledged)

    def _bytes(self, result: dict[str, Any]) -> tuple[bytes, bool]:
        data = body_of(result)
        if self.attribute not in data:  # written by hand: the counts alone
            acknowledged = data.pop("acknowledged", True)
            return json_to_bson({"v": _counts(data)}), acknowledged
        return json_to_bson({"v": data[self.attribute]}), data.get("acknowledged", True)


_COUNTS = {
    "matched_count": "n",
    "deleted_count": "n",
    "modified_count": "nModified",
    "upserted_id": "upserted",
}


def _counts(data: dict[str, Json]) -> dict[str, Json]:
    return {_COUNTS.get(key, key): value for key, value in data.items()}


@dataclass(frozen=True, slots=True)
class Inserted:
    """The result of insert_one or insert_many: ids that the caller's documents hold by then.

    Attributes:
        kind: the class.
        attribute: "inserted_id" or "inserted_ids".
    """

    kind: Any
    attribute: str

    def keep(self, exchange: Exchange, result: Any) -> Kept:
        """Take a snapshot."""
        data = encode_value(getattr(result, self.attribute), instance_options(exchange))
        acknowledged = result.acknowledged
        return Kept(lambda: {self.attribute: data(), "acknowledged": acknowledged})

    def give(self, exchange: Exchange, event: RecordedResult) -> Any:
        """Build the result from the caller's documents, which have their ids again."""
        data = body_of(event.result())
        given = exchange.arguments[exchange.row.documents]
        ids = [
            document.get("_id")
            for document in ([given] if self.attribute == "inserted_id" else given)
            if not isinstance(document, RawBSONDocument)
        ]
        acknowledged = data.get("acknowledged", True)
        if self.attribute == "inserted_id":
            return self.kind(ids[0] if ids else None, acknowledged)
        return self.kind(ids, acknowledged)


@dataclass(frozen=True, slots=True)
class ClientBulk:
    """The result of MongoClient.bulk_write, which may hold a result for each operation."""

    def keep(self, exchange: Exchange, result: Any) -> Kept:
        """Take a snapshot."""
        kept = {
            "acknowledged": result.acknowledged,
            "verbose": result.has_verbose_results,
            "bulk_api_result": detail_to_json(result.bulk_api_result),
        }
        return Kept(lambda: kept)

    def give(self, exchange: Exchange, event: RecordedResult) -> Any:
        """Build the result."""
        data = body_of(event.result())
        return results.ClientBulkWriteResult(
            detail_from_json(data["bulk_api_result"]), data["acknowledged"], data["verbose"]
        )


@dataclass(frozen=True, slots=True)
class NewCollection:
    """The Collection that create_collection returns."""

    def keep(self, exchange: Exchange, result: Any) -> Kept:
        """Keep its name."""
        name = result.name
        return Kept(lambda: name)

    def give(self, exchange: Exchange, event: RecordedResult) -> Any:
        """Return the collection, with the options of the call."""
        given = exchange.arguments
        return exchange.instance.get_collection(
            given["name"],
            given.get("codec_options"),
            given.get("read_preference"),
            given.get("write_concern"),
            given.get("read_concern"),
        )
