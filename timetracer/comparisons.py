"""Calls whose answer rests on more of a stored value than whether it equals another one.

A value that was bound only because the program stores it may be another one than was recorded, such
as another literal id. Renaming it in answers is right as long as the server does no more than look
for equal values: under a sort, a range or an expression that computes, the recorded answer would be
that of the recorded value. `rests_on` finds such calls by the names of the fields; `holds_beside`
finds answers that show the recorded value where the program stored none, and it stands for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from timetracer.codec import dumps
from timetracer.model import Json
from timetracer.volatile import split, tokens

_ORDERED_ARGUMENTS = ("sort", "hint", "min", "max")
_RANGES = frozenset({"$gt", "$gte", "$lt", "$lte", "$regex", "$regularExpression", "$mod"})
_BESIDE, _INTO = ("$lookup", "$unionWith", "$graphLookup"), ("$out", "$merge")
_UPDATES = ("update", "requests", "models", "array_filters")
_COMPARING = frozenset({"$min", "$max", "$rename", "$bit", "$inc", "$mul"})
_LISTS = frozenset({"$in", "$nin", "$all"})
_SORTS = frozenset({"$sort", "$sortByCount", "$bucket", "$bucketAuto", "$min", "$max"})
_ASKS_MORE, _CHANGES_MORE = (
    re.compile("|".join(re.escape(f'"{name}"') for name in sorted(names)))
    for names in (_RANGES | _LISTS | {"$expr"}, _COMPARING | _RANGES | {"$sort"})
)
"""What stands in arguments that have to be walked: most have none of it."""
_PASSES_ON = frozenset(
    {"$project", "$addFields", "$set", "$group", "$replaceRoot", "$replaceWith", "$push"}
    | {"$addToSet", "$first", "$last", "$concat", "$ifNull", "$cond", "$eq", "$ne", "$in"}
    | {"$match", "$expr", "$and", "$or", "$not", "$lookup", "$unwind", "$facet", "$literal"}
    | {"$arrayElemAt", "$size", "$sum", "$count", "$mergeObjects", "$map", "$filter", "$let"}
    | {"$concatArrays", "$setUnion", "$reduce", "$toString", "$type", "$unionWith", "$each"}
)
"""Operators of pipelines that do no more with values than look for equal ones, or give them on."""


def rests_on(arguments: Json, names: Iterable[str], values: Iterable[str] = ()) -> bool:
    """Tell whether a call orders, cuts or computes with the values of fields.

    Args:
        arguments: its arguments as JSON.
        names: names of the fields, one step each, such as "_id".
        values: keys of the values in them, of which a list may hold one but not several, since an
            index gives them in their order.
    """
    fields, held = set(names), frozenset(values)
    for name in _ORDERED_ARGUMENTS:
        if _mentions(arguments.get(name), fields):
            return True
    text = _text(arguments)
    if _ASKS_MORE.search(text) is not None and any(
        _conditions(item, fields, held) for item in arguments.values()
    ):
        return True
    if _CHANGES_MORE.search(text) is not None and _updates(
        {name: arguments.get(name) for name in _UPDATES}, fields, held
    ):
        return True
    if _stage({"$project": arguments.get("projection")}, fields):
        return True
    pipeline = arguments.get("pipeline", arguments.get("update"))
    if fields and any(f'"{name}"' in _text(pipeline) for name in _INTO):
        return True  # where they are from then on is not followed
    return type(pipeline) is list and any(_stage(stage, fields) for stage in pipeline)


def keeps_names(pipeline: Json) -> bool:
    """Tell whether a pipeline gives documents as they are stored, or parts of them."""
    return type(pipeline) is list and all(
        operator in _GIVES_ON or (operator == "$project" and _only_names(value))
        for stage in pipeline
        if type(stage) is dict
        for operator, value in stage.items()
    )


_GIVES_ON = frozenset({"$match", "$sort", "$limit", "$skip", "$sample", "$unwind", "$unset"})


def _only_names(projection: Json) -> bool:
    return type(projection) is dict and all(
        type(value) in (int, bool) for value in projection.values()
    )


def holds_beside(answer: Json, fields: set[str], values: set[str]) -> bool:
    """Tell whether documents hold one of some values in another field than some.

    Args:
        answer: the documents, as JSON.
        fields: names of the fields, one step each.
        values: keys of the values.
    """
    if type(answer) is dict:
        return any(
            _holds(name, values) or _holds_below(name, item, fields, values)
            for name, item in answer.items()
            if name not in fields
        )
    if type(answer) is list:
        return any(holds_beside(item, fields, values) for item in answer)
    return type(answer) is str and _holds(answer, values)


def _holds_below(name: str, item: Json, fields: set[str], values: set[str]) -> bool:
    if name == "base64" and type(item) is str:
        return _holds(item, values, is_base64=True)
    return holds_beside(item, fields, values)


def _holds(text: str, values: set[str], *, is_base64: bool = False) -> bool:
    if len(text) < _SHORTEST_LOOK:
        return False
    return any(token.key in values for token in split(text, is_base64=is_base64)[1])


_SHORTEST_LOOK = 22


def reads_beside(arguments: Json) -> bool:
    """Tell whether a pipeline reads other collections than its own."""
    text = _text(arguments.get("pipeline"))
    return any(f'"{name}"' in text for name in _BESIDE)


def _conditions(value: Json, fields: set[str], held: frozenset[str]) -> bool:
    """Tell whether some field's condition asks for more than equality."""
    if type(value) is list:
        return any(_conditions(item, fields, held) for item in value)
    if type(value) is not dict:
        return False
    for key, item in value.items():
        if _is_named(key, fields) and _compares(item, held):
            return True
        if key == "$expr" and _computes("", item, fields):
            return True
        if _conditions(item, fields, held):
            return True
    return False


def _compares(condition: Json, held: frozenset[str]) -> bool:
    if type(condition) is not dict:
        return False
    for operator, value in condition.items():
        if operator in _RANGES or (operator == "$not" and _compares(value, held)):
            return True
        members = value if operator in _LISTS and type(value) is list else []
        if sum(not held.isdisjoint(_keys(item)) for item in members) > 1:
            return True
    return False


def _updates(value: Json, fields: set[str], held: frozenset[str]) -> bool:
    """Tell whether an update compares, orders or renames stored values."""
    if type(value) is list:
        return any(_updates(item, fields, held) for item in value)
    if type(value) is not dict:
        return False
    if _has_range(value.get("array_filters")) and _mentions(value, fields):
        return True
    for key, item in value.items():
        orders = key in _COMPARING or (key == "$push" and '"$sort"' in _text(item))
        if orders and (_mentions(item, fields) or not held.isdisjoint(_keys(item))):
            return True
        if _updates(item, fields, held):
            return True
    return False


def _has_range(value: Json) -> bool:
    return any(f'"{name}"' in _text(value) for name in _RANGES)


def _text(value: Json) -> str:
    return value if type(value) is str else dumps(value).decode("utf-8", "replace")


def _keys(value: Json) -> list[str]:
    return [token.key for token in tokens(_text(value))]


def _stage(stage: Json, fields: set[str]) -> bool:
    """Tell whether a stage orders by fields or computes with them; note to which fields it gives
    their values on."""
    if type(stage) is not dict:
        return False
    for operator, value in stage.items():
        if operator in _SORTS and _mentions(value, fields):
            return True
        if _computes(operator, value, fields):
            return True
        if type(value) is dict:
            given = {name for name, item in value.items() if _reads(item, fields)}
            fields |= {name for name in given if not name.startswith("$")}
    return False


def _computes(operator: str, value: Json, fields: set[str]) -> bool:
    """Tell whether an operator does more with the fields' values than to give them on."""
    if operator.startswith("$") and operator not in _PASSES_ON and _reads(value, fields):
        return True
    if type(value) is list:
        return any(_computes("", item, fields) for item in value)
    if type(value) is not dict:
        return False
    return any(_computes(key, item, fields) for key, item in value.items())


def _reads(value: Json, fields: set[str]) -> bool:
    """Tell whether an expression reads one of the fields, as "$field"."""
    if type(value) is list:
        return any(_reads(item, fields) for item in value)
    if type(value) is dict:
        return any(_reads(item, fields) for item in value.values())
    return type(value) is str and value.startswith("$") and _is_named(value, fields)


def _mentions(value: Json, fields: set[str]) -> bool:
    if type(value) is list:
        return any(_mentions(item, fields) for item in value)
    if type(value) is dict:
        return any(_is_named(key, fields) or _mentions(item, fields) for key, item in value.items())
    return type(value) is str and _is_named(value, fields)


def _is_named(path: str, fields: set[str]) -> bool:
    return not fields.isdisjoint(path.lstrip("$").split("."))
