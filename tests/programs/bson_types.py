"""Types: codec options, type registries, document classes, UUIDs, dates, every BSON type."""

import datetime
import decimal
import re
import uuid
from collections import OrderedDict

from bson import (
    Binary,
    Code,
    DatetimeMS,
    DBRef,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
)
from bson.binary import UuidRepresentation
from bson.codec_options import (
    CodecOptions,
    DatetimeConversion,
    TypeCodec,
    TypeDecoder,
    TypeRegistry,
)
from bson.raw_bson import RawBSONDocument
from bson.son import SON
from pymongo import ReturnDocument
from pymongo.errors import OperationFailure

from tests.support.programs import Steps, run

FIXED = uuid.UUID("12345678-1234-5678-1234-567812345678")


class DecimalCodec(TypeCodec):
    """decimal.Decimal in the program, Decimal128 in BSON."""

    python_type = decimal.Decimal
    bson_type = Decimal128

    def transform_python(self, value):
        return Decimal128(value)

    def transform_bson(self, value):
        return value.to_decimal()


class Shout(str):
    """What every string becomes when it is read."""


class ShoutDecoder(TypeDecoder):
    """Decodes only, so that what was read cannot be encoded as it was."""

    bson_type = str

    def transform_bson(self, value):
        return Shout(value.upper())


def steps(s: Steps) -> None:
    every_type(s)
    lookalikes(s)
    document_classes(s)
    registries(s)
    uuids(s)
    dates(s)
    errors(s)


VALUES = {
    "double": 1.5,
    "whole": 2.0,
    "negative zero": -0.0,
    "infinite": float("inf"),
    "string": "text \u00e9 \u4e2d \U0001f600 \x00 end",
    "empty": "",
    "document": {"b": 1, "a": {"deep": [1, {"er": None}]}},
    "no document": {},
    "array": [1, "two", [3, [4]], {}],
    "bytes": b"\x00\xff",
    "binary": Binary(b"\x01\x02", 128),
    "subtype 0": Binary(b"zero", 0),
    "subtype 5": Binary(b"0123456789abcdef", 5),
    "uuid bytes": Binary(b"0123456789abcdef", 4),
    "object id": ObjectId("650000000000000000000001"),
    "true": True,
    "date": datetime.datetime(2020, 2, 3, 4, 5, 6, 789000),
    "old date": datetime.datetime(1901, 1, 1),
    "null": None,
    "regex": Regex("^a.*b$", "imsx"),
    "pattern": re.compile("a|b", re.IGNORECASE),
    "code": Code("return 1"),
    "code with scope": Code("return x", {"x": 1}),
    "int": 5,
    "int 32 limit": 2**31 - 1,
    "over int 32": 2**31,
    "int 64": 2**63 - 1,
    "Int64": Int64(7),
    "timestamp": Timestamp(1577836800, 5),
    "decimal": Decimal128("1.10"),
    "decimal nan": Decimal128("NaN"),
    "min": MinKey(),
    "max": MaxKey(),
    "reference": DBRef("other", 1, "elsewhere", extra=[1]),
    "tuple": (1, 2),
    "": "an empty key",
    "dotted.key": 1,
    "$dollar": 1,
}


def every_type(s: Steps) -> None:
    items = s.database["every"]
    s.call(items.insert_one, {"_id": 1, **VALUES})
    s.call(items.find_one, {"_id": 1})
    s.call(lambda: list(items.find()))
    s.call(lambda: list(items.aggregate([{"$project": {"reference": 0}}])))
    s.call(items.find_one_and_update, {"_id": 1}, {"$set": {"x": 1}})
    s.call(lambda: list(items.find_raw_batches()))
    for name in ("double", "int", "Int64", "decimal", "date", "uuid bytes", "regex", "timestamp"):
        s.call(items.count_documents, {name: VALUES[name]})
    s.call(items.distinct, "array")
    s.call(items.distinct, "document")
    s.call(items.find_one, {"int": 5}, {"int": 1})
    s.call(items.find_one, {"int": 5.0}, {"int": 1})
    s.call(items.find_one, {"int": Int64(5)}, {"int": 1})
    s.call(items.find_one, {"int": True}, {"int": 1})
    s.call(items.insert_one, {"_id": 2, "nan": float("nan")})
    s.call(lambda: str(items.find_one({"_id": 2})))


def lookalikes(s: Steps) -> None:
    items = s.database["lookalikes"]
    documents = [
        {"$oid": "650000000000000000000001"},
        {"$date": "2020-01-01T00:00:00Z"},
        {"$numberLong": "5"},
        {"$escaped": {"$oid": "x"}},
        {"$redacted": "name:1"},
        {"$uuid": "12345678-1234-5678-1234-567812345678"},
        {"$binary": {"base64": "AA==", "subType": "00"}},
        {"$ref": "a", "$id": 1},
        {"$regularExpression": {"pattern": "a", "options": ""}},
        {"$pyTuple": [1]},
    ]
    for number, document in enumerate(documents):
        s.call(items.insert_one, {"_id": number, "value": document})
    s.call(lambda: list(items.find().sort("_id", 1)))
    s.call(items.find_one, {"value": {"$eq": documents[0]}})
    s.call(items.find_one, {"value": {"$regex": "a", "$options": "i"}})


def document_classes(s: Steps) -> None:
    s.database["classes"].insert_many(
        [
            {"_id": n, "sub": {"b": n, "a": [{"c": 1}]}, "at": datetime.datetime(2020, 1, 2)}
            for n in (1, 2)
        ]
    )
    for kind in (SON, OrderedDict, RawBSONDocument):
        items = s.database.get_collection("classes", codec_options=CodecOptions(kind))
        s.call(items.find_one, {"_id": 1})
        s.call(lambda items=items: list(items.find().sort("_id", 1)))
        s.call(lambda items=items: list(items.aggregate([{"$sort": {"_id": -1}}])))
        s.call(items.find_one_and_update, {"_id": 1}, {"$set": {"seen": 1}})
        s.call(items.distinct, "sub")
        s.call(items.update_one, {"_id": 1}, {"$set": {"seen": 2}})
        s.call(items.insert_one, {"_id": 1})
        try:
            items.find_one({"$no": 1})
        except OperationFailure as error:
            s.show("details", (type(error.details), error.details["code"]))
        s.call(lambda items=items: list(items.list_indexes()))
        s.call(items.index_information)
        s.call(items.options)
    raw = s.database.get_collection("classes", codec_options=CodecOptions(RawBSONDocument))
    read = raw.find_one({"_id": 2})
    s.call(lambda: read["sub"]["a"][0])
    s.call(s.database["copies"].insert_one, read)
    s.call(s.database["copies"].find_one, {"_id": 2})
    database = s.client.get_database(
        s.database.name, codec_options=CodecOptions(SON, tz_aware=True)
    )
    s.call(database["classes"].find_one, {"_id": 2})
    s.call(database.command, "find", "classes", filter={"_id": 2})
    s.call(database.aggregate, [{"$no": 1}])


def registries(s: Steps) -> None:
    both = CodecOptions(type_registry=TypeRegistry([DecimalCodec()]))
    prices = s.database.get_collection("prices", codec_options=both)
    s.call(prices.insert_one, {"_id": 1, "price": decimal.Decimal("9.99")})
    s.call(prices.insert_many, [{"_id": n, "price": decimal.Decimal(n)} for n in (2, 3)])
    s.call(prices.find_one, {"price": decimal.Decimal("9.99")})
    s.call(lambda: list(prices.find({"price": {"$gt": decimal.Decimal(1)}}).sort("_id", 1)))
    s.call(prices.update_one, {"_id": 2}, {"$set": {"price": decimal.Decimal("2.50")}})
    s.call(
        prices.find_one_and_update,
        {"_id": 2},
        {"$inc": {"price": decimal.Decimal("0.5")}},
        return_document=ReturnDocument.AFTER,
    )
    s.call(prices.distinct, "price")
    s.call(lambda: list(prices.aggregate([{"$match": {"price": decimal.Decimal(3)}}])))
    s.call(s.database["prices"].find_one, {"_id": 1})
    reading = CodecOptions(type_registry=TypeRegistry([ShoutDecoder()]))
    names = s.database.get_collection("names", codec_options=reading)
    s.call(names.insert_one, {"_id": "key", "name": "ada"})
    s.call(names.find_one, {"_id": "key"})
    s.call(lambda: list(names.find()))
    s.call(names.distinct, "name")
    s.call(names.find_one_and_update, {"_id": "key"}, {"$set": {"name": "bob"}})
    s.call(names.insert_one, {"_id": "key"})
    s.call(lambda: list(names.find({"$no": 1})))
    s.call(lambda: list(names.list_indexes()))
    s.call(s.database.command, {"find": "names", "limit": 1}, codec_options=reading)
    s.call(lambda: list(s.database.cursor_command("find", "names", codec_options=reading)))
    s.call(names.update_one, {"_id": "new"}, {"$set": {"n": 1}}, upsert=True)

    def fallback(value):
        return str(value)

    lenient = CodecOptions(type_registry=TypeRegistry(fallback_encoder=fallback))
    odd = s.database.get_collection("odd", codec_options=lenient)
    s.call(odd.insert_one, {"_id": 1, "value": complex(1, 2)})
    s.call(odd.find_one, {"value": complex(1, 2)})


def uuids(s: Steps) -> None:
    for name in ("STANDARD", "PYTHON_LEGACY", "JAVA_LEGACY", "CSHARP_LEGACY", "UNSPECIFIED"):
        options = CodecOptions(uuid_representation=getattr(UuidRepresentation, name))
        items = s.database.get_collection("uuids", codec_options=options)
        s.call(items.insert_one, {"_id": name, "value": FIXED})
        s.call(items.find_one, {"value": FIXED})
        s.call(lambda items=items: list(items.find().sort("_id", 1)))
        s.call(items.distinct, "value")
    named = s.options(uuidRepresentation="standard")["uuids"]
    s.call(named.find_one, {"value": FIXED})
    s.call(named.insert_one, {"_id": FIXED})
    s.call(named.insert_one, {"_id": FIXED})


def dates(s: Steps) -> None:
    items = s.database["dates"]
    zone = datetime.timezone(datetime.timedelta(hours=2))
    s.call(items.insert_one, {"_id": 1, "at": datetime.datetime(2020, 1, 1, 12, tzinfo=zone)})
    s.call(items.insert_one, {"_id": 2, "at": datetime.datetime(2020, 1, 1, 10, 0, 0, 999999)})
    s.call(items.insert_one, {"_id": 3, "at": DatetimeMS(2**62)})
    s.call(items.find_one, {"_id": 1})
    s.call(items.find_one, {"at": datetime.datetime(2020, 1, 1, 12, tzinfo=zone)})
    s.call(items.find_one, {"_id": 3})
    for options in (
        CodecOptions(tz_aware=True),
        CodecOptions(tz_aware=True, tzinfo=zone),
        CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_AUTO),
        CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_CLAMP),
        CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS),
    ):
        read = items.with_options(codec_options=options)
        s.call(lambda read=read: list(read.find({"_id": {"$lt": 3}}).sort("_id", 1)))
        s.call(read.find_one, {"_id": 3})
    aware = s.options(tz_aware=True)["dates"]
    s.call(aware.find_one, {"_id": 1})
    s.call(aware.create_index, "at", unique=True)
    s.call(aware.insert_one, {"at": datetime.datetime(2020, 1, 1, 10)})


def errors(s: Steps) -> None:
    items = s.database.get_collection("bad", codec_options=CodecOptions(tz_aware=True))
    broken = bytes.fromhex("17000000105f696400010000000273000200000 0ff0000".replace(" ", ""))
    s.call(items.insert_one, RawBSONDocument(broken))
    s.call(items.find_one, {"_id": 1})
    s.call(lambda: list(items.find()))
    s.call(lambda: list(items.aggregate([])))
    lenient = CodecOptions(unicode_decode_error_handler="replace")
    s.call(items.with_options(codec_options=lenient).find_one, {"_id": 1})


if __name__ == "__main__":
    run(steps)
