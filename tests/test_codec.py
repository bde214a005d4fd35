"""The codec loses nothing: every value and every BSON document comes back as it was."""

from __future__ import annotations

import datetime
import enum
import math
import re
import struct
import threading
import uuid
from collections import OrderedDict, UserDict, namedtuple
from typing import Any

import bson
import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from bson.son import SON
from hypothesis import given, settings
from hypothesis import strategies as st

from timetracer.codec import (
    TAGS,
    CodecError,
    Unencodable,
    bson_to_json,
    dumps,
    from_json,
    json_to_bson,
    loads,
    to_json,
)
from timetracer.errors import TimetracerError

OID = ObjectId("6560a1b2c3d4e5f60718293a")
UUID = uuid.UUID("12345678-1234-4678-9234-567812345678")
NOON = datetime.datetime(2026, 11, 21, 12, 0, 0, 123000)
BEFORE_1970 = datetime.datetime(1969, 12, 31, 23, 59, 59, 999000)
UNHURRIED = settings(deadline=None)
"""The machine may be busy: no example fails for its time."""
EAST = datetime.timezone(datetime.timedelta(hours=2))
NEUTRAL: CodecOptions[dict[str, Any]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO
)


def saved_and_loaded(value: object) -> Any:
    return from_json(loads(dumps(to_json(value))))


def assert_same(found: object, expected: object) -> None:
    """Compare types, values, key order and the bits of floats; without recursion."""
    waiting = [(found, expected)]
    while waiting:
        left, right = waiting.pop()
        assert type(left) is type(right), (left, right)
        if isinstance(left, dict) and isinstance(right, dict):
            assert len(left) == len(right)
            waiting += [*zip(left, right, strict=True)]
            waiting += [*zip(left.values(), right.values(), strict=True)]
        elif isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
            assert len(left) == len(right)
            waiting += [*zip(left, right, strict=True)]
        elif isinstance(left, float) and isinstance(right, float):
            assert struct.pack("<d", left) == struct.pack("<d", right)
        elif isinstance(left, Decimal128) and isinstance(right, Decimal128):
            assert left.bid == right.bid
        elif isinstance(left, Code) and isinstance(right, Code):
            assert str(left) == str(right)
            waiting.append((left.scope, right.scope))
        elif isinstance(left, Regex) and isinstance(right, Regex):
            assert (left.pattern, left.flags) == (right.pattern, right.flags)
        else:
            assert left == right


# -- the table, by example

KEPT = [
    # (value, as JSON): loads as the same value and type
    (None, b"null"),
    (True, b"true"),
    (5, b"5"),
    (-(2**63), b"-9223372036854775808"),
    (1.0, b"1.0"),
    (-0.0, b"-0.0"),
    ("caf\u00e9", '"caf\u00e9"'.encode()),
    ([1, {"a": []}], b'[1,{"a":[]}]'),
    ({"b": 1, "a": {"": 2, "x.y": 3}}, b'{"b":1,"a":{"":2,"x.y":3}}'),
    (OID, b'{"$oid":"6560a1b2c3d4e5f60718293a"}'),
    (NOON, b'{"$date":"2026-11-21T12:00:00.123Z"}'),
    (datetime.datetime.min, b'{"$date":"0001-01-01T00:00:00.000Z"}'),
    (DatetimeMS(253402300800000), b'{"$date":{"$numberLong":"253402300800000"}}'),
    (Int64(5), b'{"$numberLong":"5"}'),
    (math.nan, b'{"$numberDouble":"NaN"}'),
    (math.inf, b'{"$numberDouble":"Infinity"}'),
    (-math.inf, b'{"$numberDouble":"-Infinity"}'),
    (Decimal128("1.50"), b'{"$numberDecimal":"1.50"}'),
    (b"\x00\xff", b'{"$binary":{"base64":"AP8=","subType":"00"}}'),
    (Binary(b"\x01", 128), b'{"$binary":{"base64":"AQ==","subType":"80"}}'),
    (
        Binary(UUID.bytes, 4),
        b'{"$binary":{"base64":"EjRWeBI0RniSNFZ4EjRWeA==","subType":"04"}}',
    ),
    (UUID, b'{"$uuid":"12345678-1234-4678-9234-567812345678"}'),
    (
        Regex("^a", re.IGNORECASE | re.UNICODE),
        b'{"$regularExpression":{"pattern":"^a","options":"iu"}}',
    ),
    (
        Regex(b"a", "x"),
        b'{"$regularExpression":{"pattern":'
        b'{"$binary":{"base64":"YQ==","subType":"00"}},"options":"x"}}',
    ),
    (Timestamp(1, 2), b'{"$timestamp":{"t":1,"i":2}}'),
    (Code("f()"), b'{"$code":"f()"}'),
    (Code("f()", {}), b'{"$code":"f()","$scope":{}}'),
    (Code("f()", {"a": OID}), b'{"$code":"f()","$scope":{"a":{"$oid":"%b"}}}' % str(OID).encode()),
    (MinKey(), b'{"$minKey":1}'),
    (MaxKey(), b'{"$maxKey":1}'),
    ((1, (2,)), b'{"$pyTuple":[1,{"$pyTuple":[2]}]}'),
    ({"b", "a"}, b'{"$pySet":["a","b"]}'),
    (frozenset([(1,)]), b'{"$pyFrozenset":[{"$pyTuple":[1]}]}'),
    (2**63, b'{"$bigInt":"9223372036854775808"}'),
    ("\ud800", b'{"$surrogateText":"7aCA"}'),
    ({1: 2, (3,): b""}, None),
    ({1: 2}, b'{"$pairs":[[1,2]]}'),
    ({"\ud800": 2}, b'{"$pairs":[[{"$surrogateText":"7aCA"},2]]}'),
    (Unencodable("a.B"), b'{"$unencodable":"a.B"}'),
    ({"$oid": "mine"}, b'{"$escaped":{"$oid":"mine"}}'),
    ({"a": 1, "$date": NOON}, b'{"$escaped":{"a":1,"$date":{"$date":"2026-11-21T12:00:00.123Z"}}}'),
    ({"$escaped": {"$escaped": 1}}, b'{"$escaped":{"$escaped":{"$escaped":{"$escaped":1}}}}'),
    ({"$redacted": {"type": "int", "n": 2}}, None),
    ({"$code": 1, "$scope": {}}, b'{"$escaped":{"$code":1,"$scope":{}}}'),
    # filters stay readable: operators are no tags
    (
        {"$set": {"a": 1}, "b": {"$regex": "x", "$options": "i"}, "$in": [1], "$gt": 2},
        b'{"$set":{"a":1},"b":{"$regex":"x","$options":"i"},"$in":[1],"$gt":2}',
    ),
    ({"$ref": "c", "$id": 1}, b'{"$ref":"c","$id":1}'),
]


@pytest.mark.parametrize(("value", "text"), KEPT, ids=lambda row: repr(row)[:40])
def test_a_value_is_written_as_the_table_says_and_loads_as_it_was(value: Any, text: Any) -> None:
    written = dumps(to_json(value))
    assert text is None or written == text
    assert_same(from_json(loads(written)), value)


class Colour(str, enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    BIG = 3


class Fraction(float):
    pass


class Moment(datetime.datetime):
    def isoformat(self, *args: Any) -> str:
        raise RuntimeError("not this one")


class Broken(dict):  # type: ignore[type-arg]
    def __getitem__(self, key: Any) -> Any:
        raise RuntimeError("no")


class Secretive(type):
    @property
    def __module__(cls) -> str:
        raise RuntimeError("no")


class Nameless(metaclass=Secretive):
    pass


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "loaded"),
    [
        (NOON.replace(tzinfo=EAST), NOON - datetime.timedelta(hours=2)),
        (NOON.replace(microsecond=123999), NOON),
        (datetime.datetime(1969, 12, 31, 23, 59, 59, 999999), BEFORE_1970),
        (datetime.datetime.min.replace(tzinfo=EAST), DatetimeMS(-62135596800000 - 7200000)),
        (DatetimeMS(0), datetime.datetime(1970, 1, 1)),
        (Moment(2026, 11, 21), datetime.datetime(2026, 11, 21)),
        (Binary(b"a", 0), b"a"),
        (re.compile("a", re.MULTILINE), Regex("a", "mu")),
        (DBRef("c", OID, "d", extra=1), {"$ref": "c", "$id": OID, "$db": "d", "extra": 1}),
        (SON([("b", 1), ("a", 2)]), {"b": 1, "a": 2}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (UserDict(b=1), {"b": 1}),
        (RawBSONDocument(bson.encode({"a": NOON})), {"a": NOON}),
        (Point(1, 2), (1, 2)),
        (Colour.RED, "red"),
        ({Colour.RED: 1}, {"red": 1}),
        (Size.BIG, 3),
        (Fraction(1.5), 1.5),
        (Int64(2**70), 2**70),
        (object(), Unencodable("builtins.object")),
        ([bytearray(b"a")], [Unencodable("builtins.bytearray")]),
        (len, Unencodable("builtins.builtin_function_or_method")),
        (Nameless(), Unencodable("unknown")),
        (datetime.date(2026, 11, 21), Unencodable("datetime.date")),
        ({re.compile("a")}, {Unencodable("re.Pattern")}),
        ({DBRef("c", 1): 1}, {Unencodable("bson.dbref.DBRef"): 1}),
        ([Broken(a=1), 2], [Unencodable(f"{__name__}.Broken"), 2]),
    ],
)  # fmt: skip
def test_what_bson_does_not_tell_apart_loads_as_bson_would_give_it(value: Any, loaded: Any) -> None:
    assert_same(saved_and_loaded(value), loaded)


def test_an_int_of_any_length_loads_as_it_was() -> None:
    assert saved_and_loaded([10**5000, -(10**5000)]) == [10**5000, -(10**5000)]


@pytest.mark.parametrize(
    ("text", "loaded"),
    [
        ('{"$numberInt":"5"}', 5),
        ('{"$numberLong":"-5"}', Int64(-5)),
        ('{"$numberLong":5}', Int64(5)),
        ('{"$numberDouble":"1.5"}', 1.5),
        ('{"$numberDouble":"-0.0"}', -0.0),
        ('{"$numberDouble":"1E+3"}', 1000.0),
        ('{"$date":"2026-11-21T14:00:00.123+02:00"}', NOON),
        ('{"$date":"2026-11-21T14:00:00.123+0200"}', NOON),
        ('{"$date":"2026-01-22T14:00:00Z"}', datetime.datetime(2026, 1, 22, 14)),
        ('{"$date":"2026-11-21T12:00:00.123456Z"}', NOON),
        ('{"$date":"2026-11-21T12:00:00.1Z"}', NOON.replace(microsecond=100000)),
        ('{"$date":"2026-01-22"}', datetime.datetime(2026, 1, 22)),
        ('{"$date":{"$numberLong":"1000"}}', datetime.datetime(1970, 1, 1, 0, 0, 1)),
        ('{"$date":1000}', datetime.datetime(1970, 1, 1, 0, 0, 1)),
        ('{"$oid":"6560A1B2C3D4E5F60718293A"}', OID),
        ('{"$binary":{"subType":"0","base64":""}}', b""),
        ('{"$regularExpression":{"pattern":"a","options":""}}', Regex("a")),
        ('{"$symbol":"a"}', "a"),
        ('{"$undefined":true}', None),
        ('{"$dbPointer":{"$ref":"c","$id":{"$oid":"6560a1b2c3d4e5f60718293a"}}}', DBRef("c", OID)),
        ('{"$escaped":{"a":1}}', {"a": 1}),
        ('{"$bigInt":"-0xff"}', -255),
    ],
)
def test_extended_json_written_by_hand_is_read(text: str, loaded: Any) -> None:
    assert_same(from_json(loads(text.encode())), loaded)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"$oid":"xyz"}', "$oid is malformed: expected 24 hex digits"),
        ('{"$oid":"aa bb cc dd ee ff 001122"}', "$oid is malformed: "),
        ('{"$oid":5}', "$oid is malformed: "),
        ('{"$date":"yesterday"}', "$date is malformed: expected a date such as"),
        ('{"$date":"2026-13-01T00:00:00.000Z"}', "$date is malformed: month must be in 1..12"),
        ('{"$date":"20261121T120000.1+02:00Z"}', "$date is malformed: expected a date"),
        ('{"$date":"0001-01-01T00:00:00+02:00"}', "$date is malformed: date value out of range"),
        ('{"$date":true}', "$date is malformed: expected an integer, not bool"),
        ('{"$numberLong":"9223372036854775808"}', "$numberLong is malformed: beyond 64 bits"),
        ('{"$numberLong":"1_0"}', "$numberLong is malformed: expected the digits"),
        ('{"$numberInt":true}', "$numberInt is malformed: "),
        ('{"$numberDouble":"many"}', "$numberDouble is malformed: expected a number"),
        ('{"$numberDecimal":"a"}', "$numberDecimal is malformed: "),
        ('{"$binary":{"base64":"a"}}', "$binary is malformed: "),
        ('{"$binary":{"base64":""}}', "$binary is malformed: 'subType' is missing"),
        ('{"$binary":"YQ=="}', "$binary is malformed: "),
        ('{"$uuid":"1"}', "$uuid is malformed: badly formed hexadecimal UUID string"),
        ('{"$regularExpression":{"pattern":"a","options":"q"}}', "unknown option 'q'"),
        ('{"$regularExpression":{"pattern":1,"options":""}}', "$regularExpression is malformed: "),
        ('{"$dbPointer":{"$ref":"c"}}', "$dbPointer is malformed: expected"),
        ('{"$timestamp":{"t":-1,"i":1}}', "$timestamp is malformed: "),
        ('{"$timestamp":{"t":1}}', "$timestamp is malformed: expected"),
        ('{"$code":"a","$scope":1}', "$code is malformed: expected a document as $scope"),
        ('{"$code":1}', "$code is malformed: expected a string, not int"),
        ('{"$minKey":true}', "$minKey is malformed: expected 1"),
        ('{"$undefined":1}', "$undefined is malformed: expected true"),
        ('{"$pyTuple":5}', "$pyTuple is malformed: expected a list, not int"),
        ('{"$pySet":[{}]}', "$pySet is malformed: unhashable type"),
        ('{"$pairs":[[1]]}', "$pairs is malformed: expected a list of [key, value]"),
        ('{"$pairs":[[[],1]]}', "$pairs is malformed: unhashable type"),
        ('{"$escaped":[]}', "$escaped is malformed: expected a document, not list"),
        ('{"$rawBson":"AAAA"}', "$rawBson is malformed: "),
        ('{"$rawValue":"BQAAAAA="}', "$rawValue is malformed: expected the BSON"),
        ('{"$redacted":{"type":"int","n":1}}', "$redacted stands for a value that was taken out"),
        ('{"$oid":"6560a1b2c3d4e5f60718293a","a":1}', "$oid stands beside other keys"),
    ],
)  # fmt: skip
def test_a_malformed_tag_is_named_with_its_fault(text: str, message: str) -> None:
    with pytest.raises(CodecError, match=re.escape(message)):
        from_json(loads(text.encode()))


def test_an_error_names_the_place() -> None:
    with pytest.raises(CodecError, match=r"\(at data\.1\.x\.when\)$") as caught:
        from_json({"data": [1, {"x": {"$escaped": {"$oid": 1, "when": {"$date": "?"}}}}]})
    assert caught.value.place == ("data", 1, "x", "when")
    assert isinstance(caught.value, (TimetracerError, ValueError))


OPERATORS = (
    "$abs $accumulator $add $addFields $addToSet $all $allElementsTrue $and $anyElementTrue "
    "$arrayElemAt $arrayToObject $avg $binarySize $bit $bitsAllSet $box $bucket $bsonSize "
    "$center $changeStream $collStats $comment $concat $cond $convert $count $currentDate "
    "$dateAdd $dateFromString $dateToString $dateTrunc $densify $documents $each $elemMatch "
    "$eq $exists $expr $facet $fill $filter $first $function $geoIntersects $geoNear "
    "$geoWithin $geometry $getField $graphLookup $group $gt $gte $ifNull $in $inc "
    "$indexOfArray $isNumber $jsonSchema $last $let $limit $literal $lookup $lt $lte $map "
    "$match $max $merge $mergeObjects $meta $min $mod $mul $natural $ne $near $nin $nor $not "
    "$objectToArray $options $or $out $pop $position $project $pull $pullAll $push $pushAll "
    "$query $rand $range $redact $reduce $regex $regexMatch $rename $replaceRoot $replaceWith "
    "$reverseArray $sample $sampleRate $search $set $setDifference $setField $setOnInsert "
    "$setUnion $setWindowFields $size $slice $sort $sortArray $sortByCount $split $strcasecmp "
    "$sum $switch $text $toDate $toLong $toObjectId $toUUID $tsIncrement $tsSecond $type "
    "$unionWith $unset $unsetField $unwind $vectorSearch $where $zip $ref $id $db $scope"
)


def test_no_tag_has_the_name_of_a_mongodb_operator() -> None:
    assert {tag.name for tag in TAGS}.isdisjoint(OPERATORS.split())


# -- every value


utf8 = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
tag_names = st.sampled_from([tag.name for tag in TAGS] + ["$scope", "$ref", "$set", "$in"])
keys = st.one_of(utf8, tag_names, st.sampled_from(["", ".", "a.b", "$", "_id", "\u00e9"]))
bson_keys = keys.filter(lambda key: "\0" not in key)
int64s = st.integers(-(2**63), 2**63 - 1)
naive = st.datetimes().map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000, fold=0))
object_ids = st.binary(min_size=12, max_size=12).map(ObjectId)
decimals = st.builds(
    lambda high, low: Decimal128((high, low)), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)
)
flags = st.sets(st.sampled_from([re.I, re.L, re.M, re.S, re.U, re.X])).map(lambda s: int(sum(s)))
patterns = utf8.filter(lambda text: "\0" not in text)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**31), 2**31 - 1),
    int64s.map(Int64),
    st.floats(),
    st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0]),
    utf8,
    object_ids,
    naive,
    st.integers(253402300800000, 2**63 - 1).map(DatetimeMS),
    decimals,
    st.binary(max_size=20),
    # PyMongo 4.9 cannot write subtype 255, nor read subtypes 3 and 4 of other than 16 bytes.
    st.builds(Binary, st.binary(max_size=20), st.sampled_from([1, 2, *range(5, 255)])),
    st.builds(Binary, st.binary(min_size=16, max_size=16), st.sampled_from([3, 4])),
    st.builds(Regex, patterns, flags),
    st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    st.just(MinKey()),
    st.just(MaxKey()),
    patterns.map(Code),
)


def containers(children: st.SearchStrategy[Any], keys: st.SearchStrategy[str]) -> Any:
    documents = st.dictionaries(keys, children, max_size=4)
    return st.one_of(
        st.lists(children, max_size=4),
        documents,
        st.builds(Code, patterns, documents),
        tag_names.flatmap(lambda name: children.map(lambda child: {name: child})),
    )


values = st.recursive(leaves, lambda children: containers(children, keys), max_leaves=12)
bson_values = st.recursive(leaves, lambda children: containers(children, bson_keys), max_leaves=12)
documents = st.dictionaries(bson_keys, bson_values, max_size=6)
hashable = st.one_of(
    st.integers(), st.text(max_size=3), st.booleans(), object_ids, naive, st.none()
)
python_values = st.recursive(
    st.one_of(leaves, st.integers(), st.text(max_size=4), st.uuids(), st.builds(Unencodable, utf8)),
    lambda children: st.one_of(
        containers(children, keys),
        st.dictionaries(st.one_of(hashable, st.tuples(hashable)), children, max_size=3),
        st.lists(children, max_size=3).map(tuple),
        st.sets(hashable, max_size=3),
        st.frozensets(st.one_of(hashable, st.frozensets(hashable, max_size=2)), max_size=3),
    ),
    max_leaves=12,
)


@UNHURRIED
@given(values)
def test_every_bson_value_loads_as_it_was(value: Any) -> None:
    assert_same(saved_and_loaded(value), value)


@UNHURRIED
@given(python_values)
def test_every_python_value_that_is_tagged_loads_as_it_was(value: Any) -> None:
    assert_same(saved_and_loaded(value), value)


@UNHURRIED
@given(values)
def test_text_is_compact_and_the_value_is_left_alone(value: Any) -> None:
    before = repr(value)
    text = dumps(to_json(value))
    assert dumps(loads(text)) == text
    assert repr(value) == before


@UNHURRIED
@given(documents)
def test_bson_comes_back_byte_for_byte(document: dict[str, Any]) -> None:
    raw = bson.encode(document)
    json = loads(dumps(bson_to_json(raw)))
    assert json_to_bson(loads(dumps(json))) == raw
    assert_same(from_json(json), from_json(to_json(bson.decode(raw, NEUTRAL))))


@UNHURRIED
@given(documents)
def test_arguments_give_the_bytes_that_bson_writes(document: dict[str, Any]) -> None:
    document.pop("_id", None)
    assert json_to_bson(loads(dumps(to_json(document)))) == bson.encode(document)


# -- depth and cycles


def nested(depth: int, innermost: Any, wrap: Any) -> Any:
    value = innermost
    for _ in range(depth):
        value = wrap(value)
    return value


WRAPS = {
    "dict": lambda value: {"a": value},
    "list": lambda value: [value],
    "escaped": lambda value: {"$oid": value},
    "both": lambda value: {"$escaped": [value]},
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("depth", [90, 198, 199, 200, 201, 202, 300])
def test_deep_values_load_as_they_were(wrap: Any, depth: int) -> None:
    value = nested(depth, {"x": OID, "r": Regex("a", "x")}, wrap)
    cassette = {"events": [{"result": {"body": {"data": [to_json(value)]}}}]}
    loaded = from_json(loads(dumps(cassette)))["events"][0]["result"]["body"]["data"][0]
    assert_same(loaded, value)


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("depth", [90, 198, 199, 200, 201, 202, 300])
def test_deep_bson_comes_back_byte_for_byte(wrap: Any, depth: int) -> None:
    raw = bson.encode({"a": nested(depth, 1, wrap)})
    assert json_to_bson(loads(dumps(bson_to_json(raw)))) == raw


@pytest.mark.parametrize(
    "wrap",
    [
        lambda value: (value,),
        lambda value: {1: value},
        lambda value: frozenset([value]),
        lambda value: UserDict(a=value),
        lambda value: Code("", {"a": value}),
        lambda value: SON(a=value),
        *WRAPS.values(),
    ],
)
def test_any_depth_can_be_written_and_read(wrap: Any) -> None:
    for depth in (50, 66, 67, 68, 99, 100, 101, 199, 200, 201, 230, 300, 5000):
        value = nested(depth, 1, wrap)
        from_json(loads(dumps([[[[[[[[to_json(value)]]]]]]]])))


def test_a_cycle_is_written_once() -> None:
    items: list[Any] = [1]
    items += [items, {"self": items}, (items,)]
    assert to_json(items) == [
        1,
        {"$unencodable": "cycle"},
        {"self": {"$unencodable": "cycle"}},
        {"$pyTuple": [{"$unencodable": "cycle"}]},
    ]
    shared = {"a": 1}
    assert to_json([shared, shared]) == [{"a": 1}, {"a": 1}]


def test_cycles_through_mappings_and_tuples_end() -> None:
    mapping: UserDict[str, Any] = UserDict(a=1)
    mapping["b"] = mapping["c"] = (mapping, mapping)
    assert from_json(to_json(mapping))["b"] == (Unencodable("cycle"), Unencodable("cycle"))


def test_a_dict_that_threads_change_never_raises() -> None:
    shared: dict[str, Any] = {"a": [OID] * 3}
    stop = threading.Event()

    def change() -> None:
        count = 0
        while not stop.is_set():
            count += 1
            shared[str(count % 50)] = shared.pop(str((count - 7) % 50), NOON)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        for _ in range(2000):
            dumps(to_json(shared))
    finally:
        stop.set()
        changer.join()


# -- odd BSON


def element(kind: int, name: bytes, data: bytes) -> bytes:
    return bytes([kind]) + name + b"\0" + data


def document(*elements: bytes) -> bytes:
    body = b"".join(elements)
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def string(data: bytes) -> bytes:
    return struct.pack("<i", len(data) + 1) + data + b"\0"


ONE = struct.pack("<i", 1)
ODD = {
    "duplicate keys": document(element(16, b"a", ONE), element(16, b"a", ONE)),
    "duplicate keys inside": document(
        element(3, b"d", document(element(16, b"a", ONE), element(16, b"a", ONE)))
    ),
    "invalid UTF-8": document(element(2, b"a", string(b"\xff"))),
    "invalid UTF-8 key": document(element(16, b"\xff", ONE)),
    "$ref after $id": document(
        element(3, b"d", document(element(16, b"$id", ONE), element(2, b"$ref", string(b"c"))))
    ),
    "$ref that is no string": document(
        element(3, b"d", document(element(16, b"$ref", ONE), element(16, b"$id", ONE)))
    ),
    "undefined": document(element(6, b"a", b"")),
    "symbol": document(element(14, b"a", string(b"s"))),
    "pointer": document(element(12, b"a", string(b"c") + OID.binary)),
    "boolean of 2": document(element(8, b"a", b"\x02")),
    "array with odd indexes": document(element(4, b"a", document(element(16, b"7", ONE)))),
    "regex options out of order": document(element(11, b"a", b"x\0xi\0")),
    "regex option unknown": document(element(11, b"a", b"x\0q\0")),
    "binary subtype 2": document(element(5, b"a", struct.pack("<iBi", 5, 2, 1) + b"x")),
    "uuid of subtype 3": document(element(5, b"a", struct.pack("<iB", 16, 3) + UUID.bytes)),
    "uuid of subtype 4": document(element(5, b"a", struct.pack("<iB", 16, 4) + UUID.bytes)),
    "subtype 3, not of 16 bytes": document(element(5, b"a", struct.pack("<iB", 1, 3) + b"x")),
    "subtype 4, not of 16 bytes": document(element(5, b"a", struct.pack("<iB", 1, 4) + b"x")),
    "subtype 255": document(element(5, b"a", struct.pack("<iB", 1, 255) + b"x")),
    "a vector": document(element(5, b"a", struct.pack("<iB", 3, 9) + b"\x27\x00\x01")),
    "NaN with a payload": document(element(1, b"a", b"\x01\x00\x00\x00\x00\x00\xf8\x7f")),
    "NaN, negative": document(element(1, b"a", b"\x00\x00\x00\x00\x00\x00\xf8\xff")),
    "decimal NaN with a payload": document(element(19, b"a", b"\x05" + b"\0" * 14 + b"\x7c")),
    "decimal of 35 digits": document(element(19, b"a", b"\xff" * 14 + b"\x41\x30")),
    "small int64": document(element(18, b"a", struct.pack("<q", 1))),
    "_id not first": document(element(16, b"a", ONE), element(16, b"_id", ONE)),
    "_id first": document(element(16, b"_id", ONE), element(16, b"a", ONE)),
    "date far away": document(element(9, b"a", struct.pack("<q", 2**63 - 1))),
    "date far back": document(element(9, b"a", struct.pack("<q", -(2**63)))),
    "code with an empty scope": document(
        element(15, b"a", struct.pack("<i", 15) + string(b"f") + document())
    ),
    "deeper than bson decodes": nested(
        5000, document(), lambda raw: document(element(3, b"a", raw))
    ),
    "no BSON at all": b"hello",
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("raw", ODD.values(), ids=ODD)
def test_odd_bson_comes_back_byte_for_byte(raw: bytes) -> None:
    assert json_to_bson(loads(dumps(bson_to_json(raw)))) == raw


@pytest.mark.parametrize("name", ["duplicate keys", "$ref after $id", "symbol"])
def test_odd_bson_inside_an_argument_keeps_its_bytes(name: str) -> None:
    argument = {"filter": RawBSONDocument(ODD[name]), "list": [RawBSONDocument(ODD[name])]}
    assert json_to_bson(loads(dumps(to_json(argument)))) == bson.encode(argument)


def test_odd_bson_is_read_as_bson_decodes_it() -> None:
    assert bson_to_json(ODD["symbol"]) == {"$rawBson": "DgAAAA5hAAIAAABzAAA="}
    assert from_json({"$rawBson": "DgAAAA5hAAIAAABzAAA="}) == {"a": "s"}


def test_a_user_dict_like_raw_bson_is_a_document() -> None:
    raw = bson.encode({"$rawBson": "abc"})
    assert bson_to_json(raw) == {"$escaped": {"$rawBson": "abc"}}
    assert json_to_bson({"$escaped": {"$rawBson": "abc"}}) == raw


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": object()}, "BSON cannot hold this document: "),
        ({"a": 2**63}, "BSON cannot hold this document: MongoDB can only handle up to 8-byte ints"),
        ({"a": {1, 2}}, "BSON cannot hold this document: "),
        ({"a": "\ud800"}, "BSON cannot hold this document: "),
        ({1: 2}, "BSON cannot hold this document: "),
        ({"a\0": 2}, "BSON cannot hold this document: "),
        ([1], "not a BSON document but list: expected a dict"),
        (5, "not a BSON document but int: expected a dict"),
    ],
)
def test_what_bson_cannot_hold_is_an_error(value: Any, message: str) -> None:
    with pytest.raises(CodecError, match=re.escape(message)):
        json_to_bson(loads(dumps(to_json(value))))


def test_uuids_are_written_as_subtype_4() -> None:
    raw = json_to_bson({"a": {"$uuid": str(UUID)}})
    assert raw == ODD["uuid of subtype 4"]
    assert bson_to_json(raw)["a"]["$binary"]["subType"] == "04"


# -- damage

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=9),
    lambda children: st.lists(children, max_size=3)
    | st.dictionaries(st.text(max_size=3) | tag_names, children, max_size=3)
    | tag_names.flatmap(lambda name: children.map(lambda child: {name: child}))
    | children.map(lambda child: {"$binary": {"base64": child, "subType": "00"}})
    | children.map(lambda child: {"$code": "f", "$scope": child})
    | children.map(lambda child: {"$regularExpression": {"pattern": child, "options": child}})
    | st.tuples(children, children).map(lambda two: {"$timestamp": {"t": two[0], "i": two[1]}}),
    max_leaves=8,
)  # fmt: skip


@UNHURRIED
@given(json_values)
def test_any_json_gives_a_value_or_a_codec_error(json: Any) -> None:
    for read in (from_json, json_to_bson):
        try:
            read(loads(dumps(json)))
        except CodecError as error:
            assert str(error)


@UNHURRIED
@given(values, st.data())
def test_damaged_text_gives_a_value_or_a_codec_error(value: Any, data: st.DataObject) -> None:
    text = bytearray(dumps(to_json([value])))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=2))
        text = text or bytearray(b"?")
    try:
        from_json(loads(bytes(text)))
    except CodecError as error:
        assert str(error)


@UNHURRIED
@given(st.binary(max_size=60))
def test_any_bytes_are_kept_as_bson(raw: bytes) -> None:
    assert json_to_bson(loads(dumps(bson_to_json(raw)))) == raw


@pytest.mark.parametrize("depth", [900, 1000, 1024, 1025, 100_000])
@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a":', "}"), ('{"$escaped":', "}")])
def test_hostile_depth_gives_a_value_or_a_codec_error(depth: int, start: str, end: str) -> None:
    text = (start * depth + "{}" + end * depth).encode()
    for read in (from_json, json_to_bson):
        try:
            read(loads(text))
        except CodecError as error:
            assert str(error)


@pytest.mark.parametrize("text", [b"", b"{", b'"\xff"', b'{"a":1}x', b"1e999", b"nul"])
def test_damaged_json_is_named_as_such(text: bytes) -> None:
    with pytest.raises(CodecError, match=r"^not JSON: "):
        loads(text)


def test_dumps_refuses_what_did_not_come_from_to_json() -> None:
    for value in (Int64(5), NOON, {1: 2}, b"a", "\ud800"):
        with pytest.raises(CodecError, match=r"^not JSON-ready: .*use to_json first"):
            dumps(value)
