"""One form for arguments that ask for the same: what has no order gets one.

Python orders sets anew in each process, and clients make filters, projections, updates and groups
of sets; one form lets the recording of one process answer the next. What has an order for the
server keeps it: documents that are stored or compared whole, sorts, the stages of a pipeline, and
every mapping that is no plain dict.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from operator import attrgetter
from typing import Any
from uuid import UUID

from bson import DBRef, ObjectId
from bson.regex import Regex

_Form = Callable[[Any], Any]


def make_canonical(arguments: dict[str, Any]) -> None:
    """Give each of a call's arguments its one form.

    Args:
        arguments: the arguments by name; values are replaced, never altered.
    """
    for name, form in FORMS.items():
        if name in arguments:
            arguments[name] = form(arguments[name])


def canonical(name: str, value: Any) -> Any:
    """Return the one form of an argument, or of an operation's part, of that name."""
    form = FORMS.get(name)
    return value if form is None else form(value)


def _filter(given: Any) -> Any:
    """Return a filter with the values of `$in`, `$nin` and `$all` in order, and `{"$eq": value}` as
    the plain value.

    Some releases of GridFS write one, some the other. A regular expression or a document means
    something else when it is plain, and stays.
    """
    if type(given) is not dict:
        return given
    for value in given.values():
        if type(value) is dict and not _HAS_ONE_FORM.isdisjoint(value):
            return {key: _condition(value) for key, value in given.items()}
    return given


def _condition(value: Any) -> Any:
    if type(value) is not dict:
        return value
    if len(value) == 1 and "$eq" in value:
        plain = value["$eq"]
        return value if isinstance(plain, Mapping | Regex | re.Pattern) else plain
    return {key: _in_order(item) if key in _UNORDERED else item for key, item in value.items()}


def _in_order(values: Any) -> Any:
    """Return values in order, where each of them is written the same in every process."""
    if type(values) not in (list, tuple):
        return values
    kinds = set(map(type, values))
    if not _ORDER.keys() >= kinds:
        return values
    return sorted(values, key=_ORDER[kinds.pop()] if len(kinds) == 1 else repr)


def _projection(given: Any) -> Any:
    """Return a projection that only takes fields, or leaves them out, with its names in order."""
    if type(given) is dict and all(type(value) in (int, bool) for value in given.values()):
        return _by_name(given)
    return _in_order(given)


def _update(given: Any) -> Any:
    """Return an update with its operators, and the fields each is for, in order of their names."""
    if type(given) is not dict:
        return given
    for operator, fields in given.items():
        if type(fields) is not dict or not operator.startswith("$"):
            return given
    return _by_name({operator: _by_name(fields) for operator, fields in given.items()})


def _pipeline(given: Any) -> Any:
    """Return a pipeline with the fields that a stage computes in order of their names.

    Only the names of computed fields: below them lie expressions, and in those a document may be
    compared whole, so that its order tells two calls apart.
    """
    return [_stage(stage) for stage in given] if type(given) in (list, tuple) else given


def _stage(stage: Any) -> Any:
    if type(stage) is not dict:
        return stage
    return {
        operator: _STAGES[operator](value) if operator in _STAGES else value
        for operator, value in stage.items()
    }


def _computed(fields: Any) -> Any:
    return _by_name(fields) if type(fields) is dict else fields


def _grouped(fields: Any) -> Any:
    if type(fields) is not dict:
        return fields
    by = fields.get("_id")
    if type(by) is dict and not any(str(name).startswith("$") for name in by):
        fields = {**fields, "_id": _by_name(by)}
    return _by_name(fields)


def _facets(facets: Any) -> Any:
    if type(facets) is not dict:
        return facets
    return _by_name({name: _pipeline(pipeline) for name, pipeline in facets.items()})


def _joined(value: Any) -> Any:
    if type(value) is not dict:
        return value
    form = {**value, "pipeline": _pipeline(value["pipeline"])} if "pipeline" in value else value
    return _by_name(form)


def _by_name(mapping: dict[str, Any]) -> dict[str, Any]:
    if len(mapping) < 2:
        return mapping
    return dict(sorted(mapping.items(), key=lambda pair: str(pair[0])))


FORMS: dict[str, _Form] = {
    "filter": _filter,
    "projection": _projection,
    "update": _update,
    "doc": _update,
    "pipeline": _pipeline,
}
"""Argument, or part of a bulk write's operation -> what gives it its one form."""

_STAGES: dict[str, _Form] = {
    "$match": _filter,
    "$group": _grouped,
    **dict.fromkeys(("$project", "$addFields", "$set"), _computed),
    **dict.fromkeys(("$lookup", "$unionWith"), _joined),
    "$facet": _facets,
}
"""Stage of a pipeline -> what gives its one form; the others keep theirs."""

_UNORDERED = frozenset({"$in", "$nin", "$all"})
_HAS_ONE_FORM = _UNORDERED | {"$eq"}
_ORDER: dict[type, Callable[[Any], Any] | None] = {
    str: None,
    int: None,
    bytes: None,
    float: repr,
    ObjectId: attrgetter("binary"),
    UUID: attrgetter("bytes"),
    DBRef: repr,
    datetime: repr,
}
"""Type whose values are written the same in every process -> what orders them."""
