"""Names of cassettes: a readable stem, and a short hash whenever the stem lost something.

A request's stem is a template filled with safe values. In it "_" stands for "/" and for nothing
else, so two requests have one stem only where they are equal, or the hash tells them apart.
"""

from __future__ import annotations

import hashlib
import os
import re
import string
from types import ModuleType

from timetracer.stores import SUFFIXES

TEMPLATE_FIELDS = {
    "method": "the request's method, GET",
    "path": "the request's path, with / as _",
    "route": "the framework's route, /users/<id>",
    "date": "the recording's date, 2026-11-21",
    "time": "the recording's time of day, 133728",
    "id": "the session's id",
    "service": "the setting service",
    "env": "the setting env",
}
"""What a name template may hold in braces, and what stands there."""

VOLATILE_FIELDS = frozenset({"date", "time", "id"})
"""Fields that differ with every recording: with them, a request does not lead to its file."""

DEFAULT_TEMPLATE = "{method}__{path}"
UNIQUE_TEMPLATE = "{method}__{path}__{date}_{time}_{id}"
"""For recordings of which none may replace another: errors_only, and sample_rate below 1."""

MAX_STEM = 120
HASH_DIGITS = 8

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_TEMPLATE_TEXT = re.compile(r"[A-Za-z0-9._/-]*")
_WINDOWS_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
# What reads as a take's number or as our own hash is not the stem's own any more.
_AMBIGUOUS_END = re.compile(rf"\.[0-9]+$|-[0-9a-f]{{{HASH_DIGITS}}}$")
_SUFFIX = "|".join(re.escape(one) for one in sorted(SUFFIXES.values(), key=len, reverse=True))
_TAKE = re.compile(rf"(.*?)(?:\.([2-9]|[1-9][0-9]{{1,8}}))?({_SUFFIX})", re.DOTALL)
_PROGRAM_SUFFIX = re.compile(r"(?:-script)?\.(?:pyw?|py[cz]|exe)$", re.IGNORECASE)


def request_stem(
    method: str,
    path: str,
    query: str = "",
    template: str | None = None,
    **fields: str | None,
) -> str:
    """The name of a request's cassette, without take and suffix.

    Args:
        method: "GET", ...
        path: the request's path with its leading slash.
        query: the raw query string, without "?"; it shows in the hash only.
        template: such as "{service}/{method}__{path}", checked by `check_template`; "/" in it
            makes directories. None for "{method}__{path}".
        fields: values of the template's other fields (see TEMPLATE_FIELDS), None where unknown.

    Returns:
        "GET__users_123" for GET /users/123; "GET__users-5bd1c4ff" where a hash is needed. It never
        leads out of the directory; each part has at most 120 characters.
    """
    template = DEFAULT_TEMPLATE if template is None else template
    values = {name: _field(name, fields.get(name)) for name in TEMPLATE_FIELDS}
    values |= {"method": _safe(method.upper()), "path": _safe(path.removeprefix("/"))}
    plain = template.format_map(values).split("/")
    parts = [_portable(part) for part in plain]
    exact = (
        not query
        and parts == plain
        and template_fields(template) >= {"method", "path"}
        and _is_exact(method, path)
        and not _AMBIGUOUS_END.search(parts[-1])
    )
    if not exact:
        parts[-1] = _with_hash(parts[-1], ascii((method, path, query)))
    return "/".join(parts)


def safe_stem(text: str) -> str:
    """A file name's stem for any text, such as a test's id; hashed where something was lost.

    Args:
        text: the name wanted; "/" in it becomes "_".

    Returns:
        `text` itself where it can be a file's name on every system, at most 120 characters.
    """
    plain = _portable(_safe(text))
    return plain if plain == text and not _AMBIGUOUS_END.search(text) else _with_hash(plain, text)


def script_stem(argv0: str, main_module: ModuleType | None) -> str:
    """The name of a program's own cassette, without suffix.

    Args:
        argv0: `sys.argv[0]`.
        main_module: `sys.modules["__main__"]`, None where there is none.

    Returns:
        "etl_script" for etl_script.py, "package" for `python -m package`, "python" for an
        interactive session, `python -c` and `python -`.
    """
    spec = getattr(main_module, "__spec__", None)
    module = str(spec.name).removesuffix(".__main__") if spec is not None else "__main__"
    if module != "__main__":
        return safe_stem(module)
    folder, name = os.path.split(os.path.abspath(argv0))
    name = _PROGRAM_SUFFIX.sub("", name)
    name = os.path.basename(folder) if name == "__main__" else name
    return safe_stem(name) if argv0 not in ("", "-", "-c", "-m") and name else "python"


def take_name(stem: str, take: int, suffix: str) -> str:
    """The name of a take: "x.json" for the first, "x.2.json" for the second, ...

    Args:
        stem: the name without take and suffix.
        take: number of the take, from 1.
        suffix: ".json" or ".json.gz".

    Raises:
        ValueError: `take` is below 1.
    """
    if take < 1:
        raise ValueError(f"takes are counted from 1, not {take}")
    return f"{stem}{suffix}" if take == 1 else f"{stem}.{take}{suffix}"


def parse_take(name: str) -> tuple[str, int, str] | None:
    """The stem, take and suffix of a name that `take_name` made; None for any other name."""
    match = _TAKE.fullmatch(name)
    return (match[1], int(match[2] or 1), match[3]) if match and match[1] else None


def template_fields(template: str) -> frozenset[str]:
    """The fields that a template holds, such as {"method", "path"}."""
    return frozenset(field for _, field, _, _ in string.Formatter().parse(template) if field)


def check_template(template: str) -> str:
    """The template itself where it can be used.

    Raises:
        ValueError: it holds an unknown field, a format, an unsafe character, leads out of the
            directory, or is unbalanced; the message says which.
    """
    for text, field, form, conversion in string.Formatter().parse(template):
        if not _TEMPLATE_TEXT.fullmatch(text):
            raise ValueError(f"{text!r} holds more than letters, digits and . _ - /")
        if field is not None and (field not in TEMPLATE_FIELDS or form or conversion):
            known = " ".join(f"{{{name}}}" for name in TEMPLATE_FIELDS)
            raise ValueError(f"{{{field}}} is not one of {known}, in braces and without a format")
    if {"", ".", ".."} & set(template.split("/")):
        raise ValueError("it has an empty part, or one that leads out of the directory")
    if template.endswith(tuple(SUFFIXES.values())):
        raise ValueError("the suffix is added to it: leave it out")
    return template


def _field(name: str, value: str | None) -> str:
    return _safe(value) if value else f"no-{name}"


def _safe(text: str) -> str:
    return _UNSAFE.sub("-", text.replace("/", "_"))


def _is_exact(method: str, path: str) -> bool:
    """Whether method and path can be told from their safe forms, on any file system."""
    return (
        path.startswith("/")
        and (path == "/" or not path.endswith("/"))
        and path == path.lower()
        and method == method.upper()
        and not re.search(r"[^A-Za-z0-9./-]", method + path)
        and "/" not in method
    )


def _portable(part: str) -> str:
    """A part that is a file's name on Windows too, and no longer than a name may be."""
    part = part[:MAX_STEM].rstrip(".") or "_"
    return f"_{part}"[:MAX_STEM] if _WINDOWS_DEVICE.fullmatch(part) else part


def _with_hash(stem: str, source: str) -> str:
    raw = source.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(raw, digest_size=HASH_DIGITS // 2).hexdigest()
    return f"{stem[: MAX_STEM - HASH_DIGITS - 1]}-{digest}"
