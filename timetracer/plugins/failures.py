"""Exceptions that left a driver method: kept as JSON, rebuilt as the driver built them.

`cls(*args)` would lose code, details and labels of nearly all, so each family has a row that tells
how its members are built; then args, message and labels are set to what was recorded. Nothing is
imported for it: a class is looked up in the modules that the program has loaded.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pymongo import errors, results

from timetracer.codec import CodecError, from_json, to_json
from timetracer.errors import UnreplayableError
from timetracer.model import Json


@dataclass(slots=True)
class Failed:
    """The outcome of a call that raised, already as JSON.

    Attributes:
        error: the exception as JSON.
        reached_server: whether a server gave the error.
    """

    error: dict[str, Json]
    reached_server: bool
    open: bool = False
    extras: dict[str, Json] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        """Return the event's `result`."""
        return {
            "status": -1,
            "error": self.error,
            **self.extras,
            "body": {"captured": True, "data": None},
        }


def keep(error: BaseException) -> Failed:
    """Take a snapshot of an exception."""
    return Failed(error_to_json(error), _came_from_server(error))


def _came_from_server(error: BaseException) -> bool:
    if isinstance(error, errors.ServerSelectionTimeoutError):
        return False
    if isinstance(error, errors.OperationFailure | errors.NotPrimaryError):
        return True
    return isinstance(error, errors.AutoReconnect)


def error_to_json(error: BaseException) -> dict[str, Json]:
    """Return an exception as the JSON that cassettes hold."""
    kind = type(error)
    kept: dict[str, Json] = {
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "message": to_json(str(error)),
        "args": [to_json(value) for value in error.args],
    }
    for key, attribute in _ATTRIBUTES.items():
        value = getattr(error, attribute, None)
        if value is not None:
            kept[key] = detail_to_json(value)
    if isinstance(error, errors.PyMongoError):
        kept["labels"] = sorted(error._error_labels)
    return kept


_ATTRIBUTES = {
    "code": "code",
    "details": "details",
    "max_wire_version": "_max_wire_version",
    "verbose": "verbose",
    "cause": "cause",
    "encrypted_fields": "encrypted_fields",
    "document": "document",
}


def detail_to_json(value: Any) -> Json:
    """Return a detail as JSON; details of a client's bulk write hold results and exceptions."""
    if isinstance(value, BaseException):
        return {"$escaped": {"exception": error_to_json(value)}}
    if isinstance(value, _RESULTS):
        return {"$escaped": {"result": result_to_json(value)}}
    if isinstance(value, dict) and any(_holds_objects(item) for item in value.values()):
        return {
            "$escaped": {
                "pairs": [[to_json(key), detail_to_json(item)] for key, item in value.items()]
            }
        }
    return to_json(value)


def _holds_objects(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds_objects(item) for item in value.values())
    return isinstance(value, (BaseException, *_RESULTS))


_RESULTS = (
    results.InsertOneResult,
    results.UpdateResult,
    results.DeleteResult,
)


def result_to_json(result: Any) -> Json:
    """Return a single write's result as JSON."""
    value = (
        result.inserted_id if isinstance(result, results.InsertOneResult) else result.raw_result
    )
    return {
        "class": type(result).__name__,
        "value": to_json(value),
        "acknowledged": result.acknowledged,
    }


def detail_from_json(value: Json) -> Any:
    """Return the detail that `detail_to_json` kept."""
    if isinstance(value, dict) and len(value) == 1 and isinstance(value.get("$escaped"), dict):
        kept = value["$escaped"]
        if "exception" in kept:
            return rebuild(kept["exception"])
        if "result" in kept:
            return result_from_json(kept["result"])
        if "pairs" in kept:
            return {from_json(key): detail_from_json(item) for key, item in kept["pairs"]}
    return _value(value)


def result_from_json(kept: dict[str, Json]) -> Any:
    """Return the single write's result that `result_to_json` kept."""
    kind = {row.__name__: row for row in _RESULTS}[kept["class"]]
    return kind(from_json(kept["value"]), kept["acknowledged"])


def _value(value: Json) -> Any:
    try:
        return from_json(value)
    except CodecError:
        return None  # an object of the program's own, of which only the class was kept


# ------------------------------------------------------------------------------- rebuilding


def rebuild(kept: dict[str, Json]) -> BaseException:
    """Return the exception that was kept.

    Raises:
        UnreplayableError: its class is not loaded in this process, or is no exception.
    """
    kind = _find(kept["class"])
    message = str(_value(kept["message"]))
    if kind is None:
        raise UnreplayableError(
            f"the recorded call raised {kept['class']}: {message}\n"
            "That class is not known in this process. Import its module before the call."
        )
    family = next(family for family in _FAMILIES if issubclass(kind, family.base))
    error = family.build(kind, kept, message)
    error.args = tuple(_value(value) for value in kept["args"])
    if isinstance(error, errors.PyMongoError):
        error._message = message
        error._error_labels = set(kept.get("labels") or ())
    return error


def _find(name: str) -> type[BaseException] | None:
    module, _, qualified = name.rpartition(".")
    found: Any = builtins if module == "builtins" else None
    while module and found is None:
        found = sys.modules.get(module)
        if found is None:
            module, _, outer = module.rpartition(".")
            qualified = f"{outer}.{qualified}"
    for part in qualified.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


@dataclass(frozen=True, slots=True)
class _Family:
    base: type[BaseException]
    build: Callable[[Any, dict[str, Json], str], BaseException]


def _details(kept: dict[str, Json]) -> Any:
    return detail_from_json(kept.get("details"))


def _operation_failure(kind: Any, kept: dict[str, Json], message: str) -> BaseException:
    made: BaseException = kind(
        message, _value(kept.get("code")), _details(kept), kept.get("max_wire_version")
    )
    return made


def _encryption_error(kind: Any, kept: dict[str, Json], message: str) -> BaseException:
    cause = detail_from_json(kept.get("cause")) or errors.PyMongoError(message)
    fields = [_value(kept["encrypted_fields"])] if "encrypted_fields" in kept else []
    made: BaseException = kind(cause, *fields)
    return made


def _bare(kind: Any, kept: dict[str, Json], message: str) -> BaseException:
    # Without the constructor, whose parameters only the class's author knows. What a builtin
    # takes from its arguments, such as UnicodeEncodeError's, it takes in __new__ or __init__.
    args = tuple(_value(value) for value in kept["args"])
    made: BaseException = kind.__new__(kind, *args)
    if kind.__module__ in ("builtins", "bson.errors"):
        made.__init__(*args)  # type: ignore[misc]
    if "document" in kept and hasattr(type(made), "document"):
        made._document = _value(kept["document"])  # type: ignore[attr-defined]
    return made


_FAMILIES = (
    _Family(errors.BulkWriteError, lambda kind, kept, message: kind(_details(kept))),
    _Family(
        errors.ClientBulkWriteException,
        lambda kind, kept, message: kind(_details(kept), bool(kept.get("verbose"))),
    ),
    _Family(errors.OperationFailure, _operation_failure),
    _Family(errors.AutoReconnect, lambda kind, kept, message: kind(message, _details(kept))),
    _Family(errors.EncryptionError, _encryption_error),
    _Family(errors.PyMongoError, lambda kind, kept, message: kind(message, kept.get("labels"))),
    _Family(BaseException, _bare),
)
