"""Secrets become numbered placeholders before they reach the disk, and live values in replay.

A value is secret by the name that it stands under (`DEFAULT_NAMES`), by the user's dotted paths, or
by its look (`DEFAULT_PATTERNS`). All of it works on JSON as the codec makes it:

    {"user": "ada", "password": "hunter2"}   ->   {"user": "ada", "password": "[redacted:1]"}
    "mongodb://ada:hunter2@db"               ->   "mongodb://ada:[redacted:1]@db"
    {"pin": {"$numberLong": "4711"}}         ->   {"pin": {"$redacted": {"type": "long", "n": 2}}}

Equal values of one type share a number. null, true, false, -1, 0, 1 and "" stay: projections, sort
orders and index directions are made of them, and they tell nothing. A text that holds something
like "[redacted:7]" of its own is written "[redacted::7]", and one colon is taken off in replay.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import operator
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import orjson

from timetracer.model import Json

# -- the tables

DEFAULT_NAMES: tuple[str, ...] = (
    # A space is where a name may be glued or have one separator: "api key" is also apikey, apiKey,
    # API-KEY and api_key. A name counts when it is or ends with one of these.
    *("pass word", "pass words", "pass wd", "pwd", "pass phrase", "pass code"),
    *("password confirmation", "password confirm", "password repeat", "password again"),
    *("user password", "new password", "old password", "current password", "db password"),
    *("secret", "secrets", "secret key", "secret access key", "secret value"),
    # No bare "tokens": max_tokens and the tokens of a text are no secrets.
    *("token", "token value", "access tokens", "refresh tokens", "api tokens", "auth tokens"),
    *("login tokens", "access token", "refresh token", "auth token", "id token"),
    *("csrf token", "xsrf token", "csrf middleware token", "csrf", "xsrf", "jwt"),
    *("api key", "api keys", "private key", "private keys", "access key", "session key"),
    *("signing key", "encryption key", "master key", "account key", "auth key"),
    *("authorization", "credential", "credentials", "client assertion", "saml response"),
    *("cookie", "cookies", "cookie value"),
    *("session id", "session ids", "sess id", "php sess id", "j session id"),
    *("otp", "totp", "one time password", "one time code", "otp code", "mfa code"),
    *("verification code", "recovery code", "recovery codes", "backup code", "backup codes"),
    # Signed URLs: who has the signature has the object.
    *("amz signature", "goog signature"),
    *("ssn", "social security number", "passport number", "iban", "bank account number"),
    *("card number", "credit card", "cvv", "cvc", "security code"),
)
"""Phrases that make a name sensitive; "hash", "salt" and the like may follow (`_ENDINGS`)."""

_WHOLE_NAMES = ("sid", "pin")
"""Sensitive only as the whole name: account_sid is an identifier, map_pin a place."""

_ENDINGS = ("hash", "hashed", "digest", "salt", "encrypted")

_HARMLESS_NAMES = (
    # Positions in a stream or a list of pages, which an application must give back unchanged.
    *("resume token", "page token", "next token", "continuation token", "cancellation token"),
)

_PLAIN_OPERATORS = frozenset(
    # Below these stand names of types and fields, never the values of the field they belong to.
    ("$jsonSchema", "$rename", "$type", "$options", "$meta", "$ref", "$db", "$unencodable")
)
_INDEX_KINDS = frozenset(("text", "hashed", "2d", "2dsphere", "geoHaystack"))
_NAMES_OF_INDEX_KEYS = frozenset(("key", "keys", "key_or_list"))


@dataclass(frozen=True, slots=True)
class ValuePattern:
    """A row of `DEFAULT_PATTERNS`: text that is secret wherever it stands.

    Attributes:
        name: what it finds.
        pattern: the secret is its group 1, or the whole match where it has no group.
        check: says of the secret whether it is one.
    """

    name: str
    pattern: re.Pattern[str]
    check: Callable[[str], bool] = bool


def _is_basic(text: str) -> bool:
    try:
        return b":" in base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return False


def _is_bearer(text: str) -> bool:
    # "Bearer token", "bearer bonds", `Bearer realm=...` are words of a sentence or a challenge.
    return not _BEARER_WORDS.match(text)


_BEARER_WORDS = re.compile(
    r"(?i)(?:tokens?|authentication|authorization|auth|schemes?|bonds?|shares?|format|is|was|of|or"
    r"|and|must|shall|not)[.:,;]?\Z|(?:realm|scope|error\w*)=?\Z"
)

DEFAULT_PATTERNS: tuple[ValuePattern, ...] = (
    # A change here needs a look at `_TRIGGERS`, which must find all that these find.
    ValuePattern("password in a URI", re.compile(r'://[^\s/?#:@"]*:([^\s/?#"]+)@')),
    ValuePattern(
        "bearer token", re.compile(r"(?i)\bbearer[ \t\r\n]+([a-z0-9._~+/=-]+)", re.A), _is_bearer
    ),
    ValuePattern(
        "basic authentication",
        re.compile(r"(?i)\bbasic[ \t\r\n]+([a-z0-9+/]+={0,2})", re.A),
        _is_basic,
    ),
    ValuePattern(
        "JSON web token",
        re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*){2,4}"),
    ),
    ValuePattern("AWS access key", re.compile(r"(?<![A-Z0-9])A[KS]IA[A-Z0-9]{16}(?![A-Z0-9])")),
    ValuePattern(
        "private key in PEM",
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?"
            r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z)",
            re.S,
        ),
    ),
    ValuePattern(
        "token of GitHub, Stripe, Slack",
        re.compile(
            r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}"
            r"|[rs]k_live_[A-Za-z0-9]{10,}|xox[abprs]-[A-Za-z0-9-]{10,})"
        ),
    ),
)

_STRETCH, _TRIGGER = 256 * 1024, 1024
"""Bytes that are looked through at once, and more than any other trigger or sensitive name has."""

_IN_URI = r'/(?<=:/)/[^/?#"]*@'
_in_uri = re.compile(_IN_URI.encode()).search

_TRIGGERS: tuple[str, ...] = (
    # For each pattern what must stand in JSON text for it to match, from a rare character on.
    _IN_URI,
    r"b(?:[eE][aA][rR][eE][rR]|[aA][sS][iI][cC])[ \\]",
    r"B(?:[eE][aA][rR][eE][rR]|[aA][sS][iI][cC])[ \\]",
    r"J(?<=eyJ)",
    r"I(?<=A[KS]I)A",
    r"Y(?<=PRIVATE KEY)-",
    r"_(?:(?<=gh[pousr]_)|(?<=b_)pat_|(?<=[rs]k_)live_)",
    r"x(?<=xox)[abprs]-",
    # A user's own text that looks like a placeholder, and bytes that only decoding could show.
    r"\[redacted:",
    r"\$(?:rawBson|rawValue|surrogateText)",
)


@dataclass(frozen=True, slots=True)
class RedactionRules:
    """What the user adds to the tables.

    Attributes:
        names: more sensitive names; a longer name that ends with one counts too.
        keep_names: names whose values stay; only paths and patterns reach below them.
        paths: dotted paths into an event, or from "request" or "response"; "*" is any one key or
            index, as in "result.body.data.*.iban". Other than by "*", lists are stepped over.
        patterns: more secrets by their look: group 1, or the whole match where it has no group.
    """

    names: frozenset[str] = frozenset()
    keep_names: frozenset[str] = frozenset()
    paths: tuple[str, ...] = ()
    patterns: tuple[re.Pattern[str], ...] = ()


DEFAULT_RULES = RedactionRules()


@dataclass(frozen=True, slots=True)
class _Type:
    """A row of the type table: a BSON type that is no string, in a placeholder.

    Attributes:
        name: the placeholder's "type".
        tag: the codec's tag, "" for a plain JSON number.
        stand_in: makes a valid JSON value of the type from a placeholder's number.
    """

    name: str
    tag: str
    stand_in: Callable[[int], Json]


_EPOCH = datetime(1970, 1, 1)


def _date(number: int) -> str:
    moment = _EPOCH + timedelta(seconds=number)
    return moment.isoformat(timespec="milliseconds") + "Z"


def _base64(number: int) -> str:
    return base64.b64encode(number.to_bytes(16, "big")).decode()


_TYPES: tuple[_Type, ...] = (
    _Type("int", "", lambda n: n),
    _Type("int", "$numberInt", lambda n: n),
    _Type("long", "$numberLong", lambda n: {"$numberLong": str(n)}),
    _Type("double", "", float),
    _Type("double", "$numberDouble", float),
    _Type("decimal", "$numberDecimal", lambda n: {"$numberDecimal": str(n)}),
    _Type("bigInt", "$bigInt", lambda n: {"$bigInt": str(2**64 + n)}),
    _Type("objectId", "$oid", lambda n: {"$oid": f"{n:024x}"}),
    _Type("date", "$date", lambda n: {"$date": _date(n)}),
    _Type("binary", "$binary", lambda n: {"$binary": {"base64": _base64(n), "subType": "00"}}),
    _Type("uuid", "$uuid", lambda n: {"$uuid": str(uuid.UUID(int=n))}),
    _Type("timestamp", "$timestamp", lambda n: {"$timestamp": {"t": n, "i": 1}}),
    _Type(
        "regex",
        "$regularExpression",
        lambda n: {"$regularExpression": {"pattern": f"redacted{n}", "options": ""}},
    ),
    _Type("code", "$code", lambda n: {"$code": f"redacted{n}"}),
    _Type("symbol", "$symbol", lambda n: {"$symbol": f"redacted{n}"}),
    # Bytes are taken as a whole; their stand-ins are an empty document, null and a text.
    _Type("rawBson", "$rawBson", lambda n: {"$rawBson": "BQAAAAA="}),
    _Type("rawValue", "$rawValue", lambda n: {"$rawValue": "BwAAAAoAAA=="}),
    _Type("surrogateText", "$surrogateText", lambda n: f"redacted{n}"),
)
_TYPE_OF_TAG = {row.tag: row.name for row in _TYPES if row.tag}
_STAND_INS = {row.name: row.stand_in for row in _TYPES}
_TAGS_WITH_TEXT = frozenset(("$regularExpression", "$code", "$symbol"))
_TAGS_OF_BYTES = frozenset(("$rawBson", "$rawValue", "$surrogateText"))
_TAGS_OF_LISTS = frozenset(("$pyTuple", "$pySet", "$pyFrozenset"))

# -- names

# One separator is one character; %5B and the like are how form names stand in a query string.
_SEPARATOR_SET = r"[ !#-/:-@\[\]-`{-~]"
_SEPARATOR = re.compile(r"%[0-9A-Fa-f]{2}|" + _SEPARATOR_SET)
_CAMEL = re.compile(
    r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[0-9])(?=[A-Za-z])|(?<=[A-Za-z])(?=[0-9])"
)
_POSITION = re.compile(r"(?:[0-9]+|\$\[?\w*\]?)?\Z")


def _spaced(name: str) -> str:
    return _CAMEL.sub(" ", _SEPARATOR.sub(" ", name))


def _normal(name: str) -> str:
    return _spaced(name).replace(" ", "").lower()


def _phrases(names: Iterable[str]) -> list[str]:
    return sorted(words for name in names if (words := " ".join(_spaced(name).lower().split())))


def _ends_with(phrases: Iterable[str], whole: Iterable[str] = ()) -> re.Pattern[str]:
    def any_of(alternatives: Iterable[str]) -> str:
        return "|".join(re.escape(phrase).replace(r"\ ", " ?") for phrase in alternatives)

    start = rf"(?:(?<![^ ])(?:{any_of(phrases)})|\A *(?:{any_of(whole) or '(?!)'}))"
    # ASCII only: `needs_redaction` could not find the Kelvin sign in "to\u212Aen".
    return re.compile(rf"{start}(?: ?(?:{any_of(_ENDINGS)}))*[ 0-9]*\Z", re.I | re.A)


_SENSITIVE = _ends_with(DEFAULT_NAMES, _WHOLE_NAMES)
_HARMLESS = _ends_with(_HARMLESS_NAMES)

NameTest: TypeAlias = Callable[[str], bool]
Verdict: TypeAlias = Callable[[str], "bool | None"]


@lru_cache(32)
def _verdict(names: frozenset[str], keep_names: frozenset[str]) -> Verdict:
    """Return what tells of a name: True sensitive, False kept by the user, None neither."""
    phrases = _phrases(names)
    more = _ends_with(phrases) if phrases else None
    kept = {_normal(name) for name in keep_names}

    def of_part(part: str) -> bool | None:
        if kept and _normal(part) in kept:
            return False
        separated = _SEPARATOR.sub(" ", part)
        forms = (_CAMEL.sub(" ", separated), separated)
        if more and any(map(more.search, forms)):
            return True
        found = any(map(_SENSITIVE.search, forms)) and not any(map(_HARMLESS.search, forms))
        return True if found else None

    @lru_cache(4096)
    def of_name(name: str) -> bool | None:
        # {"password.hash": 1} is the same place as {"password": {"hash": 1}}: the last part that
        # is known decides.
        parts = [part for part in name.split(".") if not _POSITION.match(part)]
        verdicts = map(of_part, dict.fromkeys((name, *reversed(parts))))
        return next((known for known in verdicts if known is not None), None)

    return of_name


def is_sensitive_name(name: str, rules: RedactionRules = DEFAULT_RULES) -> bool:
    """Say whether values under a name are secret: a field, a dotted key, a header, a parameter."""
    return _verdict(rules.names, rules.keep_names)(name) is True


# -- is there anything to do? One search over an event's text

_ANCHORS = "jvkgpmudns"
"""Letters, rarest first, of which every name has one: only where they stand is a name tried."""


def _any_case(character: str) -> str:
    if character == " ":
        return rf"(?:%[0-9A-Fa-f]{{2}}|{_SEPARATOR_SET})?"
    if character.isascii() and character.isalpha():
        return f"[{character.lower()}{character.upper()}]"
    return re.escape(character)


# A lower-case letter goes on with the word, other than that of an ending.
_END = f"(?:(?![a-z])|{'|'.join(''.join(map(_any_case, ending)) for ending in _ENDINGS)})"


def _any_of(words: Iterable[str]) -> str:
    tails: dict[str, list[str]] = {}
    for word in words:
        tails.setdefault(word[:1], []).append(word[1:])
    branches = [_any_case(head) + _any_of(rest) if head else _END for head, rest in tails.items()]
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"


def _anchor(phrase: str) -> int:
    """Return the place of the letter from which a name is looked for: in its first word."""
    word = phrase.split()[0]
    rank = {letter: place for place, letter in enumerate(_ANCHORS)}
    return min(range(len(word)), key=lambda i: rank.get(word[i], len(rank)))


@lru_cache(32)
def _needs_pattern(names: frozenset[str]) -> re.Pattern[bytes]:
    """Find whatever `redact_event` could change: too much at worst, never too little."""
    phrases = {*DEFAULT_NAMES, *_WHOLE_NAMES, *_phrases(names)}
    # What goes before a name does not matter here, so "new password" is found by "password".
    cores = [p for p in sorted(phrases) if not any(p.endswith(f" {other}") for other in phrases)]
    by_letter: dict[str, dict[str, list[str]]] = {}
    for phrase in cores:
        at = _anchor(phrase)
        tails = by_letter.setdefault(phrase[at], {})
        tails.setdefault(phrase[:at], []).append(phrase[at + 1 :])
    branches = []
    for letter, by_start in by_letter.items():
        tries = [
            f"(?<={''.join(map(_any_case, start))}{_any_case(letter)}){_any_of(tails)}"
            for start, tails in by_start.items()
        ]
        # Each branch begins with one literal: then `re` skips to where any of them can begin.
        cases = sorted({letter, letter.upper()}) if letter.isascii() else [letter]
        branches += [f"{re.escape(case)}(?:{'|'.join(tries)})" for case in cases]
    return re.compile("|".join((*branches, *_TRIGGERS)).encode())


# -- secrets in text

_WORD = r"[\w.$\[\]%-]"
_ASSIGNMENT = re.compile(
    rf"(?<!\w)((?:{_WORD}{{1,40}} ){{0,4}}{_WORD}{{1,80}})[\"'\\]*"
    r"[ \t\r\n]*(?:(=)[=>]*|:=?(?!//))[ \t\r\n]*"
)
_GROUPED = (
    r"(?:new )?[A-Za-z][\w.]*\([^()]*\)|\{(?:[^{}]|\{[^{}]*\})*\}|\[(?:[^\[\]]|\[[^\[\]]*\])*\]"
)


def _assigned(stop: str) -> re.Pattern[str]:
    return re.compile(
        # A quote ends the text only where something follows that can follow a value.
        r"\"((?:\\.|.)*?)(?:\"(?=[\s,;:&)}\]>]|\Z)|\Z)"
        r"|'((?:\\.|.)*?)(?:'(?=[\s,;:&)}\]>]|\Z)|\Z)"
        rf"|((?:(?:Bearer|Basic|Digest|Token) +)?(?:(?:{_GROUPED})[^\s{stop}]*?|[^\s{stop}]+?))"
        rf"(?=[,;)}}\]\"'>]{{0,8}}(?:[\s{stop}]|\Z))",
        re.S,
    )


_AFTER_EQUALS, _AFTER_COLON = _assigned("&"), _assigned("")
_REST_OF_LINE = re.compile(r"[\"']?([^\r\n]+)")
_LINE_NAMES = re.compile(r"(?i)(?:cookie|authorization)\Z")
_HARMLESS_WORDS = frozenset(("", "null", "None", "true", "false", "True", "False", "-1", "0", "1"))

_HTML_FIELD = re.compile(r"<(?:input|meta)\b[^<>]*>", re.I)
_HTML_ATTRIBUTE = re.compile(r"([\w-]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))")

Span: TypeAlias = tuple[int, int]


def _assignments(text: str, is_sensitive: NameTest) -> Iterator[Span]:
    """Find `name: "value"`, `name=value` and the like, in error messages and query strings."""
    position = 0
    while match := _ASSIGNMENT.search(text, position):
        position = match.end()
        words = match[1]
        if is_sensitive(words) or is_sensitive(words.rpartition(" ")[2]):
            value = _value_after(match, text)
            if value is not None and value[value.lastindex or 0] not in _HARMLESS_WORDS:
                yield value.span(value.lastindex or 0)
                position = max(position, value.end())


def _value_after(match: re.Match[str], text: str) -> re.Match[str] | None:
    if _LINE_NAMES.search(match[1]) and not text.startswith(('"', "'"), match.end()):
        return _REST_OF_LINE.match(text, match.end())
    return (_AFTER_EQUALS if match[2] else _AFTER_COLON).match(text, match.end())


def _html_fields(text: str, is_sensitive: NameTest) -> Iterator[Span]:
    """Find the value of <input name="csrf_token" value="..."> and of <meta> likewise."""
    for field in _HTML_FIELD.finditer(text):
        attributes = list(_HTML_ATTRIBUTE.finditer(text, field.start(), field.end()))
        found = {match[1].lower(): match for match in attributes}
        names = (found[key][found[key].lastindex or 0] for key in ("name", "id") if key in found)
        if any(map(is_sensitive, names)):
            values = (found[key] for key in ("value", "content") if key in found)
            yield from (match.span(match.lastindex or 0) for match in values)


def _matches(text: str, row: ValuePattern) -> Iterator[Span]:
    group = 1 if row.pattern.groups else 0
    for match in row.pattern.finditer(text):
        if match[group] and row.check(match[group]):
            yield match.span(group)


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        # Touching ones too: between two placeholders without text nothing could be told apart.
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif end > start:
            merged.append((start, end))
    return merged


# -- placeholders

_PLACEHOLDER = re.compile(r"\[redacted:([0-9]+)\]", re.A)
_LOOKS_LIKE_ONE = re.compile(r"\[redacted:(?=:*[0-9]+\])", re.A)
_ESCAPED = re.compile(r"\[redacted::(?=:*[0-9]+\])", re.A)


def _escape(text: str) -> str:
    return _LOOKS_LIKE_ONE.sub("[redacted::", text) if "[redacted:" in text else text


def _unescape(text: str) -> str:
    return _ESCAPED.sub("[redacted:", text) if "[redacted::" in text else text


def _type_of(value: Json) -> str | None:
    """Return the type of a leaf that can be redacted, None of all else."""
    kind = type(value)
    if kind is str:
        return "string"
    if kind is int:
        return "int"
    if kind is float:
        return "double"
    return _TYPE_OF_TAG.get(next(iter(value), "")) if kind is dict else None


def _tells_nothing(value: Json) -> bool:
    if type(value) is dict:
        (tag, inner), *rest = value.items()
        is_number = not rest and tag in ("$numberLong", "$numberInt", "$numberDouble")
        return is_number and inner in ("-1", "0", "1", "-1.0", "0.0", "1.0")
    return value in ("", -1, 0, 1)


class _Where(NamedTuple):
    """What counts below a place: the rest of the user's paths, names that results have, and paths
    that begin anywhere."""

    paths: tuple[tuple[str, ...], ...] = ()
    aliases: frozenset[str] = frozenset()
    anywhere: tuple[tuple[str, ...], ...] = ()

    def step(self, key: str, *, index: bool = False) -> tuple[_Where, bool]:
        """Return what counts below the key, and whether a path ends there."""
        if not self.paths:
            return self, False
        parts = [key] if index else key.split(".")
        below: list[tuple[str, ...]] = []
        for path in self.paths:
            steps, rest = path[: len(parts)], path[len(parts) :]
            if all(step in ("*", part) for step, part in zip(steps, parts, strict=False)):
                below.append(rest)
            elif index:
                below.append(path)
        further = [path for path in below if path]
        paths = dict.fromkeys((*further, *self.anywhere)) if self.anywhere else further
        return self._replace(paths=tuple(paths)), () in below


_FIELD = re.compile(r"\$\$?([A-Za-z_][\w.]*)\Z")
_IN_REPLIES = ("commands", "reply")
_DISTINCT_VALUES = (("result", "body", "data"), ("result", *_IN_REPLIES, "values"))
_NO_ALIASES = frozenset(("", "input", "path"))


class Redactor:
    """Makes the placeholders of one cassette; only their numbering changes.

    Args:
        rules: what the user adds.
        secret: key of the labels; the same in all processes of a run, and never written.
        labels: those of a cassette that is added to, so that its numbers go on.

    Attributes:
        labels: a placeholder's number -> 16 hex digits, the same for the same value in every
            cassette of the run; made with HMAC, so that nobody can try out values.
    """

    def __init__(
        self,
        rules: RedactionRules = DEFAULT_RULES,
        secret: bytes = b"",
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self.labels: dict[str, str] = dict(labels or {})
        self._numbers = {label: number for number, label in self.labels.items()}
        self._last = max((int(n) for n in self.labels if n.isdecimal()), default=0)
        self._secret = secret
        self._verdict = _verdict(rules.names, rules.keep_names)
        self._patterns = (*DEFAULT_PATTERNS, *(ValuePattern("", p) for p in rules.patterns))
        self._paths = tuple(tuple(path.split(".")) for path in rules.paths)
        self._needs = _needs_pattern(rules.names).search
        plain = all(c.isalnum() or c == " " for words in _phrases(rules.names) for c in words)
        # Paths and patterns are about decoded values: only a walk can tell.
        self._always = bool(rules.paths or rules.patterns) or not plain

    # What is written

    def needs_redaction(self, text: bytes) -> bool:
        """Say whether `redact_event` could change an event; quick, and true too often at worst.

        Args:
            text: the event's JSON as `codec.dumps` writes it.
        """
        if self._always or len(text) <= _STRETCH:
            return self._always or self._needs(text) is not None
        # One look at a long text would keep all other threads waiting.
        starts = range(0, len(text), _STRETCH)
        found = (self._needs(text, at, at + _STRETCH + _TRIGGER) for at in starts)
        return _in_uri(text) is not None or any(match is not None for match in found)

    def redact_event(self, event: Json) -> Json:
        """Return an event's JSON ("arguments", "result", ...) without secrets.

        Args:
            event: the JSON; it is not changed.

        Returns:
            A new value where something was secret, else the same object.
        """
        arguments = event.get("arguments") if type(event) is dict else None
        if type(arguments) is not dict:
            return self._walk(event, False, _Where(self._paths))
        paths = self._paths
        key = arguments.get("key")
        if type(key) is str and self._is_sensitive(key) and "DISTINCT" in _method(event):
            paths = (*paths, *_DISTINCT_VALUES)
        aliases = {alias for item in arguments.values() for alias in self._aliases(item, "")}
        below_result = _Where(paths, frozenset(aliases))
        new = {}
        for name, item in event.items():
            where = below_result if name == "result" else _Where(paths)
            hidden, below = self._enter(name, item, False, where)
            if name == "result" and type(item) is dict and "commands" in item:
                new[name] = self._result_with_commands(item, below)
            else:
                new[name] = self._walk(item, hidden, below)
        return event if all(new[name] is event[name] for name in event) else new

    def _result_with_commands(self, result: dict[str, Json], where: _Where) -> Json:
        """Redact a result with commands: what the user's paths name in arguments and answers
        stands elsewhere in a command and in its reply, and is secret there, too."""
        new = {name: item for name, item in result.items() if name != "commands"}
        new = self._walk(new, False, where)
        ends = [path_in_commands(path) for path in self._paths]
        ends += [path[2:] for path in where.paths if path[:2] == _IN_REPLIES]
        if () in ends:
            return new
        anywhere = tuple(end for end in ends if end)
        below = _Where(anywhere, frozenset(), anywhere)
        replies = below._replace(aliases=where.aliases)
        commands = [
            {
                name: self._walk(item, False, below if name == "command" else replies)
                for name, item in entry.items()
            }
            for entry in result["commands"]
        ]
        return {name: commands if name == "commands" else new[name] for name in result}

    def redact_request(self, request: Json) -> Json:
        """Return a request's JSON without secrets; see `redact_event`."""
        return self._message("request", request)

    def redact_response(self, response: Json) -> Json:
        """Return a response's JSON without secrets; see `redact_event`."""
        return self._message("response", response)

    def redact_text(self, text: str) -> str:
        """Return text, such as a path or a query string, without the secrets in it."""
        finders: list[Iterable[Span]] = [_matches(text, row) for row in self._patterns]
        if "=" in text or ":" in text:
            finders.append(_assignments(text, self._is_sensitive))
            finders.append(_html_fields(text, self._is_sensitive))
        spans = _merged(span for finder in finders for span in finder)
        if not spans:
            return _escape(text)
        pieces: list[str] = []
        position = 0
        for start, end in spans:
            pieces += (_escape(text[position:start]), self._placeholder("string", text[start:end]))
            position = end
        return "".join((*pieces, _escape(text[position:])))

    # The walk: two frames a level, since documents may be nested 200 levels deep

    def _walk(self, value: Json, secret: bool, where: _Where) -> Json:
        kind = type(value)
        if kind is str:
            return self._placeholder("string", value) if secret and value else self._text(value)
        if kind is list:
            return self._list(value, secret, where)
        if kind is not dict:
            return self._leaf(value) if secret else value
        tag = next(iter(value), "")
        if tag in _TAGS_OF_BYTES and not secret:
            return self._bytes(value, tag)
        if tag in _TYPE_OF_TAG and (secret or tag not in _TAGS_WITH_TEXT):
            return self._leaf(value) if secret else value
        if tag == "$redacted":
            return value
        if tag == "$pairs" and type(value[tag]) is list:
            return _with(value, tag, self._pairs(value[tag], secret, where))
        if tag in _TAGS_OF_LISTS and type(value[tag]) is list:
            return _with(value, tag, self._list(value[tag], secret, where))
        if tag == "$escaped" and type(value[tag]) is dict:
            return _with(value, tag, self._items(value[tag], secret, where))
        return self._items(value, secret, where)

    def _items(self, value: dict[str, Json], secret: bool, where: _Where) -> Json:
        changed = None
        beside_field = self._is_field(value.get("input"))
        for name, item in value.items():
            hidden, below = self._enter(name, item, secret or beside_field, where)
            if _is_plain(name, item) or (beside_field and name == "input"):
                new = self._plain(item)
            else:
                new = self._walk(item, hidden, below)
            if new is not item:
                changed = changed or dict(value)
                changed[name] = new
        return changed or value

    def _list(self, value: list[Json], secret: bool, where: _Where) -> Json:
        changed = None
        # In {"$eq": ["$password", "abc"]} the name stands beside the value, not above it.
        beside_field = not secret and any(map(self._is_field, value))
        for index, item in enumerate(value):
            below, hit = where.step(str(index), index=True)
            hidden = secret or hit or (beside_field and not _is_field_path(item))
            new = self._walk(item, hidden, below)
            if new is not item:
                changed = changed or list(value)
                changed[index] = new
        return changed or value

    def _pairs(self, pairs: list[Json], secret: bool, where: _Where) -> list[Json]:
        """Redact [[name, value], ...] of headers, and of dicts with keys that are no text."""
        new = [self._pair(pair, secret, where) for pair in pairs]
        return pairs if all(map(operator.is_, new, pairs)) else new

    def _pair(self, pair: Json, secret: bool, where: _Where) -> Json:
        if type(pair) is not list or len(pair) != 2:
            return self._walk(pair, secret, where)
        name, item = pair
        if type(name) is str:
            secret, where = self._enter(name, item, secret, where)
        new = self._walk(item, secret, where)
        return pair if new is item else [name, new]

    def _plain(self, value: Json) -> Json:
        """Redact by pattern alone: the names below are no names of values."""
        if type(value) is str:
            return self._text(value)
        items = list(enumerate(value)) if type(value) is list else None
        items = list(value.items()) if type(value) is dict else items
        changed = None
        for key, item in items or ():
            new = self._plain(item)
            if new is not item:
                changed = changed or value.copy()
                changed[key] = new
        return changed or value

    def _message(self, root: str, message: Json) -> Json:
        where, _ = _Where(tuple(map(_lower_headers, self._paths))).step(root)
        headers = message.get("headers") if type(message) is dict else None
        if not isinstance(headers, (list, tuple)):
            return self._walk(message, False, where)
        hidden, below = self._enter("headers", headers, False, where)
        pairs = [list(pair) for pair in headers]
        new_pairs = self._pairs(pairs, hidden, below)
        new = self._walk({**message, "headers": None}, False, where)
        new["headers"] = headers if new_pairs is pairs else new_pairs
        return message if all(new[key] is message[key] for key in message) else new

    # Its leaves

    def _text(self, text: str) -> str:
        new = self.redact_text(text)
        return text if new == text else new

    def _leaf(self, value: Json) -> Json:
        name = _type_of(value)
        if name is None or _tells_nothing(value):
            return value
        if name == "string":
            return self._placeholder(name, value)
        tag: dict[str, Json] = {"type": name, "n": int(self._number(name, value))}
        if name == "binary" and type(value["$binary"]) is dict:
            tag["subType"] = value["$binary"].get("subType", "00")
        return {"$redacted": tag}

    def _bytes(self, value: dict[str, Json], tag: str) -> Json:
        """Redact what JSON cannot show as a whole, if anything in it may be secret."""
        try:
            raw = base64.b64decode(value[tag], validate=True)
        except (ValueError, TypeError):
            return self._leaf(value)
        return self._leaf(value) if self.needs_redaction(raw) else value

    def _placeholder(self, type_name: str, value: Json) -> str:
        return f"[redacted:{self._number(type_name, value)}]"

    def _number(self, type_name: str, value: Json) -> str:
        data = type_name.encode() + b"\0" + orjson.dumps(value)
        label = hmac.new(self._secret, data, "sha256").hexdigest()[:16]
        if label not in self._numbers:
            self._last += 1
            self._numbers[label] = str(self._last)
            self.labels[str(self._last)] = label
        return self._numbers[label]

    # Names

    def _enter(self, name: str, item: Json, secret: bool, where: _Where) -> tuple[bool, _Where]:
        """Return whether what stands under a name is secret, and what counts below it."""
        if where.paths:
            where, hit = where.step(name)
            if hit:
                return True, where
        if name in where.aliases:
            return True, where
        known = self._verdict(name)
        if known and type(item) is dict and {"v", "key"} <= item.keys():
            known = None  # the index "token_1" in index_information(): described, not valued
        return (secret if known is None else known), where

    def _is_sensitive(self, name: str) -> bool:
        return self._verdict(name) is True

    def _is_field(self, value: Json) -> bool:
        match = _FIELD.match(value) if type(value) is str else None
        return match is not None and self._is_sensitive(match[1])

    def _aliases(self, value: Json, name: str) -> Iterator[str]:
        """Find the names under which an aggregation or projection gives back a secret field."""
        if type(value) is dict:
            for key, item in value.items():
                below = "_id" if key == "$sortByCount" else name if key.startswith("$") else key
                yield from self._aliases(item, below)
        elif type(value) is list:
            for item in value:
                yield from self._aliases(item, name)
        elif name not in _NO_ALIASES and self._is_field(value):
            yield name


def path_in_commands(path: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return what of a user's path may begin anywhere in a command or its reply; () for a path
    that ends above that, None for one that names another part of a cassette."""
    if path[0] in ("request", "response"):
        return None
    above = 3 if path[0] != "arguments" and path[1:2] != ("commands",) else 2
    rest = list(path[above:])
    while rest[:1] == ["*"]:
        del rest[0]
    return tuple(rest)


def _method(event: dict[str, Json]) -> str:
    signature = event.get("signature") or {}
    return str(event.get("method") or signature.get("method") or "").upper()


def _with(value: dict[str, Json], tag: str, inner: Json) -> Json:
    return value if inner is value[tag] else {**value, tag: inner}


def _is_field_path(value: Json) -> bool:
    return type(value) is str and _FIELD.match(value) is not None


def _is_plain(name: str, item: Json) -> bool:
    if name in _PLAIN_OPERATORS:
        return True
    return name in _NAMES_OF_INDEX_KEYS and type(item) is dict and _is_index_key(item)


def _is_index_key(item: dict[str, Json]) -> bool:
    return all(
        type(kind) in (int, float) or (type(kind) is str and kind in _INDEX_KINDS)
        for kind in item.values()
    )


def _lower_headers(path: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.lower() for part in path) if path[1:2] == ("headers",) else path


# -- replay

Path: TypeAlias = tuple[str | int, ...]


def has_placeholders(text: bytes) -> bool:
    """Say whether JSON text may hold placeholders, or text that was escaped because of them."""
    return b"[redacted:" in text or b'"$redacted"' in text


def find_placeholders(json: Json) -> list[tuple[Path, Json]]:
    """Find the leaves that are placeholders or have some in their text.

    Args:
        json: recorded JSON.

    Returns:
        Pairs of the keys and indexes that lead to a leaf (tags such as "$escaped" count), and the
        leaf: a {"$redacted": ...} or a string.
    """
    return list(_placeholders(json, ()))


def _placeholders(json: Json, path: Path, users: bool = False) -> Iterator[tuple[Path, Json]]:
    if type(json) is str:
        if _PLACEHOLDER.search(json):
            yield path, json
    elif type(json) is list:
        for index, item in enumerate(json):
            yield from _placeholders(item, (*path, index))
    elif type(json) is dict and "$redacted" in json and not users:
        yield path, json
    elif type(json) is dict:
        for key, item in json.items():
            yield from _placeholders(item, (*path, key), key == "$escaped" and not users)


def bind(recorded: Json, live: Json, bindings: dict[str, Json]) -> bool:
    """Say whether live JSON fits recorded JSON, and learn what its placeholders stand for.

    Args:
        recorded: JSON with placeholders, of any depth.
        live: JSON of the call that is made now, without any.
        bindings: placeholder numbers with their live values; new ones are added on success only.

    Returns:
        True if all but the placeholders is equal, and each placeholder stands for one value of its
        type, the same one wherever its number stands.
    """
    found = dict(bindings)
    fits = _fits(recorded, live, found)
    if fits:
        bindings.update(found)
    return fits


def _fits(recorded: Json, live: Json, found: dict[str, Json], users: bool = False) -> bool:
    kind = type(recorded)
    if kind is dict and "$redacted" in recorded and not users:
        return fits_placeholder(recorded, live, found)
    if kind is not type(live):
        return False
    if kind is str:
        return fits_text(recorded, live, found)
    if kind is list:
        if len(recorded) != len(live):
            return False
        pairs = zip(recorded, live, strict=True)
        return all(_fits(one, other, found) for one, other in pairs)
    if kind is not dict:
        return bool(recorded == live)
    if list(recorded) != list(live):
        return False
    return all(
        _fits(item, live[key], found, key == "$escaped" and not users)
        for key, item in recorded.items()
    )


def placeholder_numbers(recorded: Json) -> list[str]:
    """Return the numbers of the placeholders in a value that is one, or in a text with some."""
    if type(recorded) is str:
        return _PLACEHOLDER.findall(recorded)
    held, _ = _held(recorded)
    return [str(held["n"])]


def fits_placeholder(recorded: Json, live: Json, found: dict[str, Json]) -> bool:
    """Say whether a live value may be what a placeholder stands for, and learn that it is.

    Args:
        recorded: {"$redacted": {...}}.
        live: JSON of the call that is made now.
        found: placeholder numbers with their live values; added to.
    """
    held, stand_in = _held(recorded)
    if _type_of(live) != held["type"]:
        return False
    if held["type"] == "binary" and stand_in["$binary"]["subType"] != _subtype(live):
        return False
    return _same(found.setdefault(str(held["n"]), live), live)


def _subtype(binary: Json) -> Json:
    inner = binary["$binary"]
    return inner.get("subType", "00") if type(inner) is dict else binary.get("$type", "00")


def _same(one: Json, other: Json) -> bool:
    return type(one) is type(other) and bool(one == other)


def fits_text(recorded: str, live: str, found: dict[str, Json]) -> bool:
    """Say whether live text fits recorded text with placeholders, and learn what they stand for.

    Args:
        recorded: text with "[redacted:1]" and the like in it.
        live: text of the call that is made now.
        found: placeholder numbers with their live values; added to.
    """
    if "[redacted:" not in recorded:
        return recorded == live
    # Text, number, text, number, ..., text: each part is looked for after the one before, and
    # what is between them is what the placeholder stands for.
    first, *rest = _PLACEHOLDER.split(recorded)
    texts = [_unescape(text) for text in rest[1::2]]
    position = len(_unescape(first))
    if not live.startswith(_unescape(first)):
        return False
    for index, (number, text) in enumerate(zip(rest[::2], texts, strict=True)):
        bound = found.get(number)
        if type(bound) is str:
            end = position + len(bound)
        elif index == len(texts) - 1:
            end = len(live) - len(text)
        else:
            end = live.find(text, position + 1)
        if end <= position or not live.startswith(text, end):
            return False
        if not _same(found.setdefault(number, live[position:end]), live[position:end]):
            return False
        position = end + len(text)
    return position == len(live)


def substitute(json: Json, bindings: Mapping[str, Json]) -> Json:
    """Put live values where placeholders stand.

    Args:
        json: recorded JSON; it is not changed.
        bindings: placeholder numbers with their live values.

    Returns:
        JSON without placeholders, but for texts that nothing is bound to: they stay as they are.
        Other types get `placeholder_value`. The same object if there was nothing to do.
    """
    return _substitute(json, bindings, False)


def _substitute(json: Json, bindings: Mapping[str, Json], users: bool) -> Json:
    kind = type(json)
    if kind is str:
        return _substitute_text(json, bindings) if "[redacted:" in json else json
    if kind is list:
        items: Iterable[tuple[Any, Json]] = enumerate(json)
    elif kind is not dict:
        return json
    elif "$redacted" in json and not users:
        held, stand_in = _held(json)
        return bindings.get(str(held["n"]), stand_in)
    else:
        items = json.items()
    changed = None
    for key, item in items:
        new = _substitute(item, bindings, key == "$escaped" and not users)
        if new is not item:
            changed = changed or json.copy()
            changed[key] = new
    return changed or json


def _substitute_text(text: str, bindings: Mapping[str, Json]) -> str:
    pieces = _PLACEHOLDER.split(text)
    for index, piece in enumerate(pieces):
        bound = bindings.get(piece) if index % 2 else None
        if index % 2 == 0:
            pieces[index] = _unescape(piece)
        else:
            pieces[index] = bound if type(bound) is str else f"[redacted:{piece}]"
    return "".join(pieces)


def placeholder_value(tag: Json) -> Json:
    """Return a valid value of a placeholder's type, for one that nothing is bound to.

    Args:
        tag: {"$redacted": {"type": ..., "n": ...}}.

    Returns:
        JSON of that type, another for each number: 7, {"$oid": "000000000000000000000007"}, ...

    Raises:
        ValueError: the tag is malformed; the message names what is wrong.
    """
    return _held(tag)[1]


def _held(tag: Json) -> tuple[dict[str, Json], Json]:
    held = tag["$redacted"] if type(tag) is dict else None
    if type(held) is not dict or type(held.get("n")) is not int or not 0 < held["n"] < 2**31:
        raise ValueError(f'malformed placeholder {tag}: expected {{"$redacted": {{"type", "n"}}}}')
    if held.get("type") not in _STAND_INS:
        known = ", ".join(_STAND_INS)
        raise ValueError(f"malformed placeholder {tag}: its type is none of {known}")
    stand_in = _STAND_INS[held["type"]](held["n"])
    if held["type"] == "binary":
        stand_in["$binary"]["subType"] = held.get("subType", "00")
    return held, stand_in
