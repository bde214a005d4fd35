"""Arguments that ask for the same have one form; what has an order for the server keeps it."""

from __future__ import annotations

import copy
import re
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from bson import DBRef, ObjectId
from bson.son import SON
from pymongo import UpdateOne

from timetracer.plugins.canonical import canonical, make_canonical
from timetracer.plugins.pymongo import _operation

OIDS = [ObjectId(f"{digit}" * 24) for digit in "213"]

ONE, TWO = UUID(int=1), UUID(int=2)
EARLY, LATE = datetime(2020, 1, 1), datetime(2021, 1, 1)

SAME: dict[str, tuple[str, Any, Any]] = {
    "$in": ("filter", {"a": {"$in": ["y", "x"]}}, {"a": {"$in": ["x", "y"]}}),
    "a tuple": ("filter", {"a": {"$in": (2, 1)}}, {"a": {"$in": [1, 2]}}),
    "$nin": ("filter", {"a": {"$nin": [3, 1]}}, {"a": {"$nin": [1, 3]}}),
    "$all": ("filter", {"a": {"$all": OIDS}}, {"a": {"$all": OIDS[::-1]}}),
    "mixed types": ("filter", {"a": {"$in": ["x", 1]}}, {"a": {"$in": [1, "x"]}}),
    "UUIDs": ("filter", {"a": {"$in": [TWO, ONE]}}, {"a": {"$in": [ONE, TWO]}}),
    "references": (
        "filter",
        {"a": {"$in": [DBRef("b", 1), DBRef("a", 2)]}},
        {"a": {"$in": [DBRef("a", 2), DBRef("b", 1)]}},
    ),
    "dates": ("filter", {"a": {"$in": [LATE, EARLY]}}, {"a": {"$in": [EARLY, LATE]}}),
    "$eq": ("filter", {"a": {"$eq": 1}}, {"a": 1}),
    "names": ("projection", ["b", "a"], ["a", "b"]),
    "fields": ("projection", {"b": 1, "a": True}, {"a": True, "b": 1}),
    "operators": (
        "update",
        {"$set": {"b": 1, "a": {"z": 1, "y": 2}}, "$inc": {"n": 1}},
        {"$inc": {"n": 1}, "$set": {"a": {"z": 1, "y": 2}, "b": 1}},
    ),
    "a group": (
        "pipeline",
        [{"$group": {"_id": {"b": "$b", "a": "$a"}, "n": {"$sum": 1}}}],
        [{"$group": {"n": {"$sum": 1}, "_id": {"a": "$a", "b": "$b"}}}],
    ),
    "a match": (
        "pipeline",
        [{"$match": {"a": {"$in": ["y", "x"]}}}],
        [{"$match": {"a": {"$in": ["x", "y"]}}}],
    ),
    "a pipeline within": (
        "pipeline",
        [{"$lookup": {"pipeline": [{"$project": {"b": 1, "a": 1}}], "from": "c"}}],
        [{"$lookup": {"from": "c", "pipeline": [{"$project": {"a": 1, "b": 1}}]}}],
    ),
}


@pytest.mark.parametrize(("name", "one", "other"), SAME.values(), ids=SAME)
def test_what_asks_for_the_same_has_one_form(name: str, one: Any, other: Any) -> None:
    before = copy.deepcopy(one)
    assert written(canonical(name, one)) == written(canonical(name, other))
    assert written(one) == written(before), "the caller's own argument is never altered"


KEPT = {
    "documents compared whole": ("filter", {"a": {"y": 1, "x": 2}}),
    "a document as $eq": ("filter", {"a": {"$eq": {"y": 1, "x": 2}}}),
    "a pattern as $eq": ("filter", {"a": {"$eq": re.compile("x")}}),
    "documents in $in": ("filter", {"a": {"$in": [{"y": 1}, {"x": 1}]}}),
    "a list compared whole": ("filter", {"a": ["y", "x"]}),
    "an ordered mapping": ("filter", SON([("a", {"$in": [2, 1]})])),
    "computed fields": ("projection", {"b": {"$slice": 1}, "a": 1}),
    "a replacement": ("doc", {"b": {"y": 1, "x": 1}, "a": {}}),
    "an update's pipeline": ("update", [{"$set": {"b": 1, "a": 2}}]),
    "a sort": ("pipeline", [{"$sort": {"b": 1, "a": -1}}]),
    "a document in an expression": (
        "pipeline",
        [{"$project": {"x": {"$eq": ["$address", {"zip": 1, "city": 2}]}}}],
    ),
    "the order of stages": ("pipeline", [{"$skip": 1}, {"$limit": 2}]),
    "the operands of $in": ("pipeline", [{"$project": {"x": {"$in": ["$y", "$x"]}}}]),
    "literals": ("pipeline", [{"$set": {"x": {"$literal": {"b": 1, "a": 2}}}}]),
    "a stage that is ordered": ("pipeline", [SON([("$group", SON([("b", 1), ("a", 2)]))])]),
    "an argument of another name": ("sort", {"b": 1, "a": 1}),
}


@pytest.mark.parametrize(("name", "given"), KEPT.values(), ids=KEPT)
def test_what_has_an_order_for_the_server_keeps_it(name: str, given: Any) -> None:
    arguments = {name: given}
    make_canonical(arguments)
    assert written(arguments[name]) == written(given)


def test_the_operations_of_a_bulk_write_have_one_form_too() -> None:
    one = UpdateOne({"a": {"$in": [2, 1]}}, {"$set": {"b": 1, "a": 2}})
    two = UpdateOne({"a": {"$in": [1, 2]}}, {"$set": {"a": 2, "b": 1}})
    assert written(_operation(one)) == written(_operation(two))


def written(value: Any) -> str:
    """The value with its types and order."""
    return repr(value)
