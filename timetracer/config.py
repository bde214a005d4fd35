"""The settings: one table, from which resolution, errors and documentation are all derived.

An argument counts more than the environment, that more than `[tool.timetracer]` in pyproject.toml,
that more than the default. `TIMETRACER_MODE=off` turns off whatever else is said.
"""

from __future__ import annotations

import difflib
import enum
import fnmatch
import functools
import importlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, overload

from timetracer.entropy import LEVELS
from timetracer.errors import ConfigError, StrPath
from timetracer.matchers import DEFAULT
from timetracer.matching import OPTIONAL_LEVELS
from timetracer.naming import check_template
from timetracer.runs import RUN_ID_VARIABLE
from timetracer.stores import SUFFIXES


@dataclass(frozen=True, slots=True)
class Mode:
    """What a session does with its cassette.

    Attributes:
        name: as the setting `mode` has it.
        reads: when the cassette is read, to answer calls; "when_present": if it is there.
        records: when calls that were not answered are recorded; "when_absent": if it was not there.
        description: one line for the documentation.
        verifies: whether every call is made, and its answer only compared with the cassette's.
    """

    name: str
    reads: Literal["never", "when_present", "always"]
    records: Literal["never", "when_absent", "always"]
    description: str
    verifies: bool = False


MODES: dict[str, Mode] = {
    row.name: row
    for row in (
        Mode("off", "never", "never", "straight through to the driver"),
        Mode("record", "never", "always", "every call is made, and recorded"),
        Mode("replay", "always", "never", "every call is answered from the cassette"),
        Mode("once", "when_present", "when_absent", "replay if there is a cassette, else record"),
        Mode("new_episodes", "when_present", "always", "replay what is known, record the rest"),
        Mode(
            "verify",
            "always",
            "never",
            "every call is made, and its answer compared with the cassette's",
            verifies=True,
        ),
    )
}

DRIVERS = ("pymongo", "motor")
PREFIX = "TIMETRACER_"
CHILD_VARIABLE = "TIMETRACER_CHILD"
INTERNAL_ENVIRONMENT = {
    RUN_ID_VARIABLE: "the id that the processes of one run share",
    CHILD_VARIABLE: "what a process that a test starts belongs to",
}
"""Variables with our prefix that are no settings: processes tell each other by them."""

PLACES = (
    "Settings are arguments of TraceConfig, TIMETRACER_<NAME> in the environment,"
    " or keys of [tool.timetracer] in pyproject.toml."
)


class _Unset(enum.Enum):
    UNSET = "not given"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Any = _Unset.UNSET
"""Stands for an argument that was not given; None is a value of some settings."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of setting.

    Attributes:
        allowed: what values there are, for messages and documentation.
        check: the value to keep for a Python value; raises ValueError or TypeError.
        read: the Python value for an environment variable's text; `check` comes after it.
    """

    allowed: str
    check: Callable[[Any], Any]
    read: Callable[[str], Any] = str


def _refuse(why: str = "") -> Any:
    raise ValueError(why)


_WORDS = {"1": True, "true": True, "yes": True, "on": True}
_WORDS |= {"0": False, "false": False, "no": False, "off": False}


def _word(text: str) -> bool | str:
    return _WORDS.get(text.lower(), text.lower())


def _commas(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _pattern_commas(text: str) -> tuple[str, ...]:
    # A comma of a pattern is in braces or brackets, or has a backslash before it.
    parts = re.findall(r"(?:\\.|\{[^}]*\}|\[[^\]]*\]|[^,])+", text)
    return tuple(part.strip() for part in parts if part.strip())


def _number_of(text: str, kind: type[int] | type[float]) -> int | float | str:
    try:
        return kind(text)
    except ValueError:
        return text


def _choice(*names: str) -> Kind:
    def check(value: Any) -> str:
        word = value.strip().lower() if isinstance(value, str) else value
        return str(word) if word in names else _refuse(_suggestion(str(value), names))

    return Kind(", ".join(f'"{name}"' for name in names), check)


def _number(low: float, high: float) -> Kind:
    def check(value: Any) -> float:
        real = isinstance(value, (int, float)) and not isinstance(value, bool)
        return float(value) if real and low <= value <= high else _refuse()

    return Kind(
        f"a number from {low:g} to {high:g}", check, functools.partial(_number_of, kind=float)
    )


def _whole(value: Any) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return int(value) if whole and value >= 0 else _refuse()


def _boolean(value: Any) -> bool:
    return value if isinstance(value, bool) else _refuse()


def _redact(value: Any) -> bool | str:
    if isinstance(value, str) and value.strip().lower() == "auto":
        return "auto"
    return _boolean(value)


def _path(value: Any) -> Path:
    text = os.fspath(value)
    return Path(text) if isinstance(text, str) and text and "\0" not in text else _refuse()


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value.strip() else _refuse()


def _template(value: Any) -> str:
    return check_template(_text(value))


def _function(value: Any) -> Any:
    return value if callable(value) else _refuse()


def _optional(kind: Kind) -> Kind:
    def check(value: Any) -> Any:
        return None if value is None else kind.check(value)

    return Kind(f"{kind.allowed}, or None", check, kind.read)


def _list_of(
    allowed: str, check_item: Callable[[Any], Any], read: Callable[[str], Any] = _commas
) -> Kind:
    def check(value: Any) -> tuple[Any, ...]:
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
            _refuse("Write one name as a list too, such as ('name',)")
        items = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
        return tuple(check_item(item) for item in items)

    return Kind(allowed, check, read)


def _prefix(value: Any) -> str:
    text = _text(value)
    return text if text.startswith(("/", "*")) else str(_refuse(f"{value!r} has no / in front"))


def _driver(value: Any) -> str:
    return str(_choice(*DRIVERS).check(value))


def _levels(value: Any) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else value
    checked = _list_of("", _choice("exact", *OPTIONAL_LEVELS).check).check(names)
    return tuple(name for name in OPTIONAL_LEVELS if name in checked)


def _dotted(value: Any) -> str:
    text = _text(value)
    return text if all(text.split(".")) else str(_refuse(f"{value!r} has an empty part"))


def _pattern(value: Any) -> re.Pattern[str]:
    if isinstance(value, re.Pattern):
        pattern = value if isinstance(value.pattern, str) else _refuse(f"{value!r} is for bytes")
    else:
        try:
            pattern = re.compile(_text(value))
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from error
    return pattern if not pattern.search("") else _refuse(f"{value!r} matches the empty text")


BOOLEAN = Kind("True or False (1/0, yes/no, on/off in the environment)", _boolean, _word)
SIZE = Kind("a whole number of bytes, 0 or more", _whole, functools.partial(_number_of, kind=int))
PATH = Kind("a path", _path)
TEXT = Kind("a text", _text)
TEMPLATE = Kind("a name with fields in braces", _template)
FUNCTION = Kind("a function of one event", _function)
REDACT = Kind('"auto", True or False (on, off in the environment)', _redact, _word)
NAMES = _list_of("a list of names", _text)
PATH_PREFIXES = _list_of("a list of path prefixes, or globs such as /static/*", _prefix)
DRIVER_NAMES = _list_of('a list of "pymongo", "motor"', _driver)
LEVEL_NAMES = Kind(f'"exact", or a list of {", ".join(OPTIONAL_LEVELS)}', _levels, _commas)
DOTTED_PATHS = _list_of("a list of dotted paths, * for any part", _dotted)
PATTERNS = _list_of("a list of regular expressions", _pattern, _pattern_commas)


@dataclass(frozen=True, slots=True)
class Setting:
    """A row of the table of settings.

    Attributes:
        name: name of the argument and of the key in pyproject.toml.
        kind: its values.
        default: as `kind.check` takes it.
        doc: one line for the documentation.
        aliases: further environment names, asked after TIMETRACER_<NAME>.
        argument_only: whether it can be given as an argument only.
    """

    name: str
    kind: Kind
    default: Any
    doc: str
    aliases: tuple[str, ...] = ()
    argument_only: bool = False

    @property
    def environment(self) -> tuple[str, ...]:
        """The environment variables that give it, the first that is set counts."""
        return () if self.argument_only else (PREFIX + self.name.upper(), *self.aliases)


SETTINGS: dict[str, Setting] = {
    row.name: row
    for row in (
        Setting("mode", _choice(*MODES), "off", "What is done with driver calls."),
        Setting("cassette", _optional(PATH), None, "The one cassette to use for every request."),
        Setting(
            "cassette_dir",
            PATH,
            "./cassettes",
            "The directory in which cassettes are written and looked up.",
            aliases=("TIMETRACER_DIR",),
        ),
        Setting("compression", _choice(*SUFFIXES), "none", "How new cassettes are compressed."),
        Setting("sample_rate", _number(0, 1), 1.0, "The share of requests that is recorded."),
        Setting(
            "errors_only",
            BOOLEAN,
            False,
            "Keep only requests with status 400 and above, or an uncaught exception.",
        ),
        Setting("service", _optional(TEXT), None, "The service's name, kept in the cassette."),
        Setting("env", _optional(TEXT), None, "The environment's name, kept in the cassette."),
        Setting("exclude_paths", PATH_PREFIXES, (), "Requests that are left alone."),
        Setting("strict_order", BOOLEAN, False, "Replay answers only in the recorded order."),
        Setting("allow_repeats", BOOLEAN, False, "Replay answers a used-up read again."),
        Setting(
            "match_on",
            NAMES,
            DEFAULT,
            'What of a call must be as recorded: "method", "url", "arguments", "lib", matchers.',
        ),
        Setting(
            "levels",
            LEVEL_NAMES,
            OPTIONAL_LEVELS,
            'How much looser than "exact" a call may match.',
        ),
        Setting("ignore", DOTTED_PATHS, (), "Places in a call's arguments that are not compared."),
        Setting("passthrough", DRIVER_NAMES, (), "Drivers whose calls go to the server."),
        Setting(
            "name_template",
            _optional(TEMPLATE),
            None,
            "Names of request cassettes, from {method} {path} {date} {time} {route} {id}"
            " {service} {env}.",
        ),
        Setting("max_request_body", SIZE, 65536, "How much of a request's body is kept."),
        Setting("max_response_body", SIZE, 65536, "How much of a response's body is kept."),
        Setting(
            "redact",
            REDACT,
            "auto",
            'Whether secrets become placeholders. "auto": yes, except in document values'
            " recorded by the pytest fixtures.",
        ),
        Setting("redact_names", NAMES, (), "More names whose values are secret."),
        Setting("redact_paths", DOTTED_PATHS, (), "Places in an event that are secret."),
        Setting("redact_patterns", PATTERNS, (), "Texts that are secret wherever they stand."),
        Setting("keep_names", NAMES, (), "Names whose values are never secret."),
        Setting(
            "before_record",
            _optional(FUNCTION),
            None,
            "Called with each event before it is written; returns what is written.",
            argument_only=True,
        ),
        Setting(
            "accept_interrupted",
            BOOLEAN,
            False,
            "A recording that was interrupted may replace the cassette.",
        ),
        Setting(
            "entropy",
            _choice(*LEVELS),
            "off",
            "Which random numbers of blocks, fixtures and scripts have a seed in the cassette.",
        ),
        Setting(
            "freeze_time",
            BOOLEAN,
            False,
            "Replayed blocks, fixtures and scripts run at the time at which they were recorded.",
        ),
    )
}


Given = TypeVar("Given")
Held = TypeVar("Held", covariant=True)


class Field(Generic[Given, Held]):
    """For type checkers alone: an attribute that is given as one type and held as another."""

    @overload
    def __get__(self, owner: None, kind: type[Any]) -> Any: ...
    @overload
    def __get__(self, owner: object, kind: type[Any]) -> Held: ...
    def __get__(self, owner: object, kind: type[Any]) -> Any: ...
    def __set__(self, owner: object, value: Given) -> None: ...


Names = Field[Iterable[str], tuple[str, ...]]
Patterns = Field[Iterable[str | re.Pattern[str]], tuple[re.Pattern[str], ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceConfig:
    """How to record and replay. Every argument may be left out.

    A new TraceConfig checks what it is given and reads nothing else: an attribute is the given
    value, or the default. `resolve()` gives one that has looked into the environment and
    pyproject.toml for whatever was not given; its paths are absolute.

    Raises:
        ConfigError: an argument is unknown or has a value that it cannot have.
    """

    mode: str = UNSET
    cassette: Field[StrPath | None, Path | None] = UNSET
    cassette_dir: Field[StrPath, Path] = UNSET
    compression: str = UNSET
    sample_rate: float = UNSET
    errors_only: bool = UNSET
    service: str | None = UNSET
    env: str | None = UNSET
    exclude_paths: Names = UNSET
    strict_order: bool = UNSET
    allow_repeats: bool = UNSET
    match_on: Names = UNSET
    levels: str | Names = UNSET
    ignore: Names = UNSET
    passthrough: Names = UNSET
    name_template: str | None = UNSET
    max_request_body: int = UNSET
    max_response_body: int = UNSET
    redact: bool | Literal["auto"] = UNSET
    redact_names: Names = UNSET
    redact_paths: Names = UNSET
    redact_patterns: Patterns = UNSET
    keep_names: Names = UNSET
    before_record: Callable[[Any], Any] | None = UNSET
    accept_interrupted: bool = UNSET
    entropy: str = UNSET
    freeze_time: bool = UNSET
    given: frozenset[str] = field(init=False, repr=False)

    def __new__(cls, *_: object, **settings: object) -> TraceConfig:
        """Refuse unknown arguments with a suggestion; dataclass would raise a bare TypeError."""
        _refuse_unknown(settings, "argument")
        return object.__new__(cls)

    def __post_init__(self) -> None:
        given = {name for name in SETTINGS if getattr(self, name) is not UNSET}
        for name, setting in SETTINGS.items():
            value = getattr(self, name) if name in given else _DEFAULTS[name]
            if value is not _DEFAULTS[name]:
                value = _checked(setting, value, "argument", f"{name}=")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "given", frozenset(given))

    @property
    def resolved(self) -> bool:
        """Whether every setting is decided; such a config is never looked up again."""
        return len(self.given) == len(SETTINGS)

    def resolve(self, **overrides: Any) -> TraceConfig:
        """The same with everything decided; see the function `resolve`."""
        return resolve(self, **overrides)

    def excludes(self, path: str) -> bool:
        """Whether `exclude_paths` has the request path, such as "/health/live" by "/health"."""
        return any(_covers(pattern, path) for pattern in self.exclude_paths)


def resolve(
    given: TraceConfig | Mapping[str, Any] | None = None,
    /,
    *,
    environ: Mapping[str, str] = os.environ,
    start: Path | None = None,
    **overrides: Any,
) -> TraceConfig:
    """Decide every setting.

    Args:
        given: settings that were given as arguments; a resolved TraceConfig is looked up no more.
        environ: the environment; an empty variable counts as not set.
        start: the directory from which relative paths count and pyproject.toml is searched
            upwards; None for the working directory.
        overrides: settings that count more than those of `given`, UNSET for none.

    Returns:
        A TraceConfig that has everything decided and absolute paths.

    Raises:
        ConfigError: a setting is unknown or has a bad value, wherever it came from.
    """
    base = (start or Path.cwd()).absolute()
    arguments = _arguments(given) | _arguments(overrides)
    settings = _anchored(arguments, base)
    from_environment = _from_environment(environ)
    if not (isinstance(given, TraceConfig) and given.resolved):
        settings = _from_project(base) | _anchored(from_environment, base) | settings
    if from_environment.get("mode") == "off":
        settings["mode"] = "off"
    return TraceConfig(**_anchored(_DEFAULTS, base) | settings | _forced)


_forced: dict[str, Any] = {}


def force(**settings: Any) -> dict[str, Any]:
    """Have settings count more than all others in this process, such as those of a command line.

    Args:
        settings: the settings; those of an earlier call count no longer.

    Returns:
        Those of the earlier call.

    Raises:
        ConfigError: a setting is unknown or has a bad value.
    """
    before = dict(_forced)
    checked = _arguments(settings)
    if not all(checked[name].is_absolute() for name in _PATH_SETTINGS if checked.get(name)):
        checked = _anchored(checked, Path.cwd())
    _forced.clear()
    _forced.update(checked)
    return before


def forced() -> dict[str, Any]:
    """Return the settings that count more than all others, see `force`."""
    return dict(_forced)


def configured() -> dict[str, Any]:
    """Return the settings that the environment and pyproject.toml give, for the working directory.

    Raises:
        ConfigError: a setting is unknown or has a bad value.
    """
    base = Path.cwd()
    return _from_project(base) | _anchored(_from_environment(os.environ), base)


def settings_table() -> str:
    """All settings as a Markdown table for the documentation."""
    head = ("Setting", "Values", "Default", "Environment", "What it does")
    return "\n".join(_row(cells) for cells in (head, ("---",) * 5, *map(_cells, SETTINGS.values())))


def _checked(setting: Setting, value: Any, source: str, place: str) -> Any:
    try:
        return setting.kind.check(value)
    except (ValueError, TypeError) as error:
        why = f"\n{error}" if isinstance(error, ValueError) and str(error) else ""
        raise ConfigError(
            f"The setting {setting.name} ({source}, {place}) cannot be {value!r}.{why}\n"
            f"Allowed: {setting.kind.allowed}",
            setting=setting.name,
            source=source,
        ) from None


_DEFAULTS = {
    name: _checked(setting, setting.default, "default", f"{name}=")
    for name, setting in SETTINGS.items()
}


def _refuse_unknown(names: Iterable[str], source: str, place: str = "") -> None:
    for name in names:
        if name not in SETTINGS:
            raise _unknown(name, list(SETTINGS), source, place)


def _unknown(name: str, known: list[str], source: str, place: str = "") -> ConfigError:
    where = f"{source}, {place}" if place else source
    hint = _suggestion(name, known) or f"There are: {', '.join(known)}."
    return ConfigError(
        f"There is no setting {name} ({where}).\n{hint}\n{PLACES}", setting=name, source=source
    )


def _suggestion(name: str, known: Iterable[str]) -> str:
    near = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), near, 1, 0.6)
    return f"Did you mean {near[close[0]]}?" if close else ""


def _arguments(given: TraceConfig | Mapping[str, Any] | None) -> dict[str, Any]:
    if isinstance(given, TraceConfig):
        return {name: getattr(given, name) for name in given.given}
    values = {name: value for name, value in (given or {}).items() if value is not UNSET}
    _refuse_unknown(values, "argument")
    return {
        name: _checked(SETTINGS[name], value, "argument", f"{name}=")
        for name, value in values.items()
    }


def variables(environ: Mapping[str, str] = os.environ) -> tuple[tuple[str, str], ...]:
    """Return name and value of the environment's variables that are meant as settings."""
    ours = [name for name in environ if name.startswith(PREFIX)]
    return tuple(
        [(name, environ[name].strip()) for name in ours if name not in INTERNAL_ENVIRONMENT]
    )


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    ours = dict(variables(environ))
    for name in ours:
        if name not in _VARIABLES:
            raise _unknown(name, list(_VARIABLES), "environment")
    return {
        setting.name: _checked(setting, setting.kind.read(ours[name]), "environment", name)
        for setting in SETTINGS.values()
        if (name := next((name for name in setting.environment if ours.get(name)), ""))
    }


_VARIABLES = tuple(name for setting in SETTINGS.values() for name in setting.environment)


def _from_project(start: Path) -> dict[str, Any]:
    """The settings of the nearest pyproject.toml that has our table; paths count from the file."""
    for directory in (start, *start.parents):
        file = directory / "pyproject.toml"
        table = _tool_table(file)
        if table is not None:
            _refuse_unknown(table, "pyproject.toml", str(file))
            settings = {
                name: _checked(SETTINGS[name], value, "pyproject.toml", str(file))
                for name, value in table.items()
            }
            return _anchored(settings, directory)
    return {}


_TABLE_SEEMS_THERE = re.compile(
    rb"""^[ \t]*\[?[ \t]*["']?tool["']?[ \t]*\.[ \t]*["']?timetracer\b"""
    rb"""|^[ \t]*["']?timetracer["']?[ \t]*(?:=[ \t]*\{|\.)""",
    re.MULTILINE,
)


def _tool_table(file: Path) -> dict[str, Any] | None:
    """Our table in a pyproject.toml; None where it is absent, or the file not ours to read."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    if b"timetracer" not in data:
        return None
    table = _parsed(file, data).get("tool", {}).get("timetracer")
    if table is None or isinstance(table, dict):
        return table
    raise _bad_project(file, f"tool.timetracer is {table!r} and not a table")


@functools.lru_cache(maxsize=8)  # each test of a suite asks
def _parsed(file: Path, data: bytes) -> dict[str, Any]:
    """The file's content; a file that cannot be read is nothing to us unless it has our table."""
    loads = _toml_reader()
    try:
        if loads is not None:
            return loads(data.decode())
        problem = "reading it takes Python 3.11, or `pip install tomli`"
    except ValueError as error:
        problem = f"it is no TOML: {error}"
    if _TABLE_SEEMS_THERE.search(data):
        raise _bad_project(file, problem)
    return {}


def _toml_reader() -> Callable[[str], dict[str, Any]] | None:
    for name in ("tomllib", "tomli"):
        try:
            loads: Callable[[str], dict[str, Any]] = importlib.import_module(name).loads
            return loads
        except ImportError:
            continue
    return None


def _bad_project(file: Path, problem: str) -> ConfigError:
    return ConfigError(
        f"The settings in {file} cannot be read: {problem}.\n{PLACES}",
        setting="tool.timetracer",
        source="pyproject.toml",
    )


_PATH_SETTINGS = ("cassette", "cassette_dir")


def _anchored(settings: dict[str, Any], base: Path) -> dict[str, Any]:
    """The same settings; relative paths count from `base`."""
    paths = {name: settings[name] for name in _PATH_SETTINGS if settings.get(name) is not None}
    return settings | {name: Path(os.path.abspath(base / path)) for name, path in paths.items()}


def _covers(pattern: str, path: str) -> bool:
    if set("*?[") & set(pattern):
        return fnmatch.fnmatchcase(path, pattern)
    return path == pattern or path.startswith(pattern.rstrip("/") + "/")


def _cells(setting: Setting) -> tuple[str, ...]:
    given = setting.default
    listed = ", ".join(given) if isinstance(given, tuple) else given
    default = "none" if given in (None, ()) else f"`{listed}`"
    names = ", ".join(f"`{name}`" for name in setting.environment) or "argument only"
    return f"`{setting.name}`", setting.kind.allowed, default, names, setting.doc


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
