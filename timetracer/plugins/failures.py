"""Exceptions that left a driver method: kept as JSON, rebuilt as the driver built them.

`cls(*args)` would lose code, details and labels of nearly all, so each family has a row that tells
how its members are built; then args, message and labels are set to what was recorded. Nothing is
imported for it: a class is looked up in the modules that the program has loaded.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import bson
from bson.son import SON
from pymongo import errors, results
from pymongo.helpers_shared import _check_command_response
from pymongo.message import _OpMsg

from timetracer.codec import (
    CodecError,
    Unencodable,
    dumps,
    from_json,
    json_to_bson,
    loads,
    to_json,
)
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


def keep(error: BaseException, options: Any = None) -> Failed:
    """Take a snapshot of an exception.

    Args:
        error: the exception.
        options: the codec options with which the call's replies are decoded; None for none.
    """
    return Failed(error_to_json(error, options), _came_from_server(error))


def _came_from_server(error: BaseException) -> bool:
    if isinstance(error, errors.ServerSelectionTimeoutError):
        return False
    if isinstance(error, errors.OperationFailure | errors.NotPrimaryError):
        return True
    return isinstance(error, errors.AutoReconnect)


def error_to_json(error: BaseException, options: Any = None) -> dict[str, Json]:
    """Return an exception as the JSON that cassettes hold; for the arguments see `keep`."""
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
    if "details" in kept:
        form = _form_of(error.details, kept["details"], options)  # type: ignore[attr-defined]
        if form != "plain":
            kept["details_as"] = form
    if _is_programs_own(kind) and vars(error):
        kept["attributes"] = {name: to_json(value) for name, value in vars(error).items()}
    return kept


def _is_programs_own(kind: type[BaseException]) -> bool:
    return kind.__module__.partition(".")[0] not in _DRIVERS


_DRIVERS = frozenset({"builtins", "bson", "pymongo", "gridfs"})
"""Packages whose exceptions the families build whole; others keep what their objects hold."""


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


# ------------------------------------------------------------------------------- details


def _form_of(details: Any, kept: Json, options: Any) -> str:
    """Return how details are made again type for type: the name of a form, "plain" for want of
    one that is better."""
    told = repr(details)
    for name in _FORMS:
        try:
            if repr(_formed(_copy(kept), name, options)) == told:
                return name
        except Exception:
            continue
    return "plain"


def _copy(kept: Json) -> Json:
    """Return JSON that `from_json` may use up."""
    return loads(dumps(kept))


def _formed(kept: Json, form: str, options: Any) -> Any:
    change = _FORMS[form]
    if change is None:
        return detail_from_json(kept)
    if form == "batch":
        return _OpMsg(0, json_to_bson(kept)).unpack_response(
            codec_options=options, user_fields={"cursor": {"firstBatch": 1, "nextBatch": 1}}
        )[0]
    registry = bson.DEFAULT_CODEC_OPTIONS.type_registry  # decoders are not for replies of errors
    wanted = (options or bson.DEFAULT_CODEC_OPTIONS)._replace(type_registry=registry)
    return bson.decode(json_to_bson(kept), codec_options=wanted._replace(**change))


_FORMS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "own": {},
    "dict": {"document_class": dict},
    "son": {"document_class": SON},
    "batch": {},
}
"""Form -> what it changes of the call's codec options, None where the JSON tells all."""


def _value(value: Json) -> Any:
    try:
        return from_json(value)
    except CodecError:
        return None  # an object of the program's own, of which only the class was kept


# ------------------------------------------------------------------------------- cancelled calls

_CANCELLED = "asyncio.exceptions.CancelledError"
_PATIENCE = 2.0
"""Seconds that replay waits for a cancellation beyond the time that it took when recorded."""


def cancelled_after(event: Any) -> float | None:
    """Return for how many seconds a call that was cancelled waits to be cancelled again.

    Args:
        event: the event of a call that failed.

    Returns:
        Seconds, None where the call was not cancelled.
    """
    if event.result()["error"].get("class") != _CANCELLED:
        return None
    return patience(loads(event.line).get("duration_ms") or 0)


def patience(milliseconds: float) -> float:
    """Return how many seconds to wait for what took so long when it was recorded."""
    return milliseconds / 1000 + _PATIENCE


# ------------------------------------------------------------------------------- rebuilding


def rebuild(
    kept: dict[str, Json], options: Any = None, given: Iterable[Any] = ()
) -> BaseException:
    """Return the exception that was kept.

    Args:
        kept: the exception as JSON.
        options: the codec options with which the call's replies are decoded; None for none.
        given: the call's arguments: where the exception held one of them, or an object in one
            that no cassette can hold, it holds the live one.

    Raises:
        UnreplayableError: its class is not loaded in this process, or is no exception.
    """
    if kept["class"] == _CANCELLED:
        raise UnreplayableError(
            "this call was cancelled when it was recorded, and nothing cancels it now.\n"
            "Record it again, or cancel it as it was."
        )
    kind = _find(kept["class"])
    message = str(_value(kept["message"]))
    if kind is None:
        raise UnreplayableError(
            f"the recorded call raised {kept['class']}: {message}\n"
            "That class is not known in this process. Import its module before the call."
        )
    kept = _copy(kept)
    if "details" in kept:
        form = kept.get("details_as")
        details = _formed(kept["details"], form if form in _FORMS else "plain", options)
        kept = {**kept, "details": details}
    build = _bare if _is_programs_own(kind) else _family_of(kind).build
    error = build(kind, kept, message)
    error.args = tuple(_value(value) for value in kept["args"])
    for name, value in (kept.get("attributes") or {}).items():
        setattr(error, name, _value(value))
    _put_live(error, given)
    if isinstance(error, errors.PyMongoError):
        error._message = message
        error._error_labels = set(kept.get("labels") or ())
        _come_from_reply(error)
    return error


def _come_from_reply(error: errors.PyMongoError) -> None:
    """Have the traceback of a server's error end where it does live: in the driver's look at a
    reply. Tools that report errors group them by it."""
    details = getattr(error, "details", None)
    if isinstance(details, dict) and "errmsg" in details and details.get("ok") == 0:
        try:
            _check_command_response(details, None)
        except errors.PyMongoError as live:
            if type(live) is type(error) and live.__traceback__ is not None:
                error.__traceback__ = live.__traceback__.tb_next


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


def _family_of(kind: type[BaseException]) -> _Family:
    return next(family for family in _FAMILIES if issubclass(kind, family.base))


def _details(kept: dict[str, Json]) -> Any:
    return kept.get("details")


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


# ------------------------------------------------------------------------------- live objects


def _put_live(error: BaseException, given: Iterable[Any]) -> None:
    """Put the call's own arguments where the recorded exception held those of its call."""
    places = [name for name in vars(error) if name == "_document" or _has_gap(vars(error)[name])]
    if not places and not _has_gap(error.args):
        return
    live = [(to_json(value), value) for value in _held(list(given), set())]
    error.args = tuple(_live(value, live) for value in error.args)
    for name in places:
        setattr(error, name, _live(vars(error)[name], live))


def _has_gap(value: Any) -> bool:
    """Tell whether a value that was loaded has a place where a cassette could hold nothing."""
    if isinstance(value, dict):
        return any(_has_gap(item) for pair in value.items() for item in pair)
    if isinstance(value, list | tuple):
        return any(_has_gap(item) for item in value)
    return isinstance(value, Unencodable)


def _held(value: Any, seen: set[int]) -> Iterator[Any]:
    """Yield a value and what it holds: documents, lists, and objects of any other kind."""
    if isinstance(value, str | bytes | int | float | None) or id(value) in seen:
        return
    seen.add(id(value))
    yield value
    if isinstance(value, dict):
        inner: Any = value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        inner = value
    else:
        names = [name for base in type(value).__mro__ for name in getattr(base, "__slots__", ())]
        inner = [getattr(value, name, None) for name in names]
    for item in list(inner):
        yield from _held(item, seen)


def _live(value: Any, live: list[tuple[Json, Any]]) -> Any:
    if not isinstance(value, dict | list | Unencodable) or value in ({}, []):
        return value
    kept = to_json(value)
    for known, found in live:
        if known == kept:
            return found
    if isinstance(value, dict):
        return {key: _live(item, live) for key, item in value.items()}
    return [_live(item, live) for item in value] if isinstance(value, list) else value
