"""Values that a program makes anew in each run, found by their looks in JSON text.

A look is no evidence that a value was made up; it says where to ask for evidence. `FORMS` are the
looks: ObjectIds, UUIDs, times, digests and tokens, as values of their own or within a longer text.

    tokens('{"_id":{"$oid":"6560a1…"}}')     what looks made up, in its order
    skeleton(text)                           the same text in every run of the same program
    replace(text, get)                       the text with some of them exchanged
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

ID, TIME, SECRET = "id", "time", "token"
"""Kinds: an ObjectId or UUID; a moment; a digest or an opaque token."""


class Token(NamedTuple):
    """A value that looks made up.

    Attributes:
        kind: ID, TIME or SECRET.
        key: the value itself, the same however it is written: an id's hex digits.
        text: as it is written.
        form: how it is written; two tokens of unlike form are never the same value.
    """

    kind: str
    key: str
    text: str
    form: str


Found = tuple[int, int, Token]
"""Where a value that looks made up begins and ends, and the value."""


@dataclass(frozen=True, slots=True)
class Form:
    """One look of a volatile value.

    Attributes:
        name: a group of the pattern.
        kind: what it may be.
        pattern: a regular expression.
        key: gives the value of a text, the same in every form.
        shape: gives what texts of the same form share.
    """

    name: str
    kind: str
    pattern: str
    key: Callable[[str], str]
    shape: Callable[[str], str]


def _hex_key(text: str) -> str:
    return text.replace("-", "").lower()


def _cased(text: str, like: str) -> str:
    return text.upper() if like.isupper() else text


def _dashed(key: str) -> str:
    return f"{key[:8]}-{key[8:12]}-{key[12:16]}-{key[16:20]}-{key[20:]}"


def _itself(text: str) -> str:
    return text


_ZEROS = str.maketrans("123456789", "000000000")


def _date_shape(text: str) -> str:
    return "date " + text.translate(_ZEROS)


def _epoch_shape(text: str) -> str:
    whole, dot, _ = text.partition(".")
    return f"epoch {len(whole)}{dot}"


def _piece_shape(text: str) -> str:
    return f"piece {len(text)}"


def _hex_shape(text: str) -> str:
    return f"hex {len(text)}"


_H = "[0-9a-fA-F]"
_END = "(?![0-9A-Za-z])"
_UUID = f"{_H}{{8}}-{_H}{{4}}-{_H}{{4}}-{_H}{{4}}-{_H}{{12}}{_END}"
_OBJECT_ID = f"(?:[0-9a-f]{{24}}|[0-9A-F]{{24}}){_END}"
_DIGEST = f"(?:[0-9a-f]{{32,}}|[0-9A-F]{{32,}}){_END}"
_PIECE = f"(?:[0-9a-f]{{6,31}}|[0-9A-F]{{6,31}}){_END}"
_DAY = r"(?:19|20)\d\d(?P<between>[-_/]?)\d\d(?P=between)\d\d[T_-]?\d\d"
_CHARACTER = "[0-9A-Za-z+/_-]"
_OPAQUE = (
    f"(?!(?:{_CHARACTER}*[+/_-])?(?:{_UUID}|{_OBJECT_ID}|{_DIGEST}|{_DAY}))"
    "(?=[0-9a-z+/_-]*[A-Z])(?=[0-9A-Z+/_-]*[a-z])"
    f"{_CHARACTER}{{22,}}={{0,2}}"
)

FORMS = (
    Form("uuid", ID, _UUID, _hex_key, lambda text: "uuid"),
    Form("object_id", ID, _OBJECT_ID, _hex_key, _hex_shape),
    Form("digest", SECRET, _DIGEST, _hex_key, _hex_shape),
    Form(
        "date",
        TIME,
        r"(?:19|20)\d\d(?P<gap>[-/.,: _]?)\d\d(?P=gap)\d\d[T ,_.:-]?\d\d[:,._-]?\d\d[:,._-]?\d\d"
        r"(?:[.,]\d{1,9}|[-_:]\d{6}|\d{1,9})?(?!\d)",
        _itself,
        _date_shape,
    ),
    Form(
        "epoch",
        TIME,
        rf"1[4-9]\d{{8}}(?:\d{{9}}|\d{{6}}|\d{{3}})?(?:\.\d+)?{_END}",
        _itself,
        _epoch_shape,
    ),
    Form("opaque", SECRET, _OPAQUE, _itself, lambda text: f"token {len(text)}"),
    Form("piece", ID, _PIECE, _itself, _piece_shape),
)
"""The looks, the more telling first: where two fit at the same place, the first is taken."""

_GLUED = Form("glued", ID, _PIECE, _itself, _piece_shape)
_BY_NAME = {form.name: form for form in (*FORMS, _GLUED)}
_UUID_BYTES = Form(
    "binary",
    ID,
    "",
    lambda text: base64.b64decode(text).hex(),
    lambda text: "binary 16",
)
_BYTES = Form("bytes", SECRET, "", _itself, lambda text: f"bytes {len(text)}")

SHORTEST = 8
"""No text of fewer characters holds anything that looks made up."""

# A stretch that may hold some: scanning for it costs a fifth of trying all looks everywhere.
_RUN = rf"[0-9A-Za-z+/_.:,=\\-]{{{SHORTEST},}}(?: \d[0-9:.,]{{7,}})?"
_ANY_LOOK = "|".join(f"(?P<{form.name}>{form.pattern})" for form in FORMS)
_run = re.compile(_RUN)
_looks = re.compile(
    rf"(?:(?<![0-9A-Za-z])|(?<=\\[bfnrt]))(?:{_ANY_LOOK})|(?<=[g-z])(?P<glued>{_PIECE})"
)
_object_id = re.compile("[0-9a-f]{24}")
_may_look = re.compile("[0-9A-Z]|[a-f]{6}")
"""What every look has some of; to ask for it costs a tenth of trying them all."""
_plain = re.compile(r"[g-z+/_.:,=\\-]+")
"""What no look has alone; to ask for it costs a tenth of that, such as in filling of megabytes."""
_SHORT_LOOK = r"[0-9a-f]{6}|[0-9A-F]{6}|(?:19|20)\d\d[-/.,: _]\d\d"
_short_look = re.compile(_SHORT_LOOK)
"""What every look of fewer than 22 characters has some of: a piece, a date or an epoch."""
_any_look = re.compile(f"{_SHORT_LOOK}|[0-9A-Za-z+/_-]{{22}}")
_LONG_RUN = 1024
_MOST_KNOWN, _LONGEST_KNOWN = 2048, 128
"""So many texts, of so many characters, are not looked through again: a program's names and ids
come in many of its calls. More would cost the garbage collector more than it saves."""
_bytes_repr = re.compile(r"""\bb(?:'(?:[^'"\\]|\\[^u])*'|\\"(?:[^"\\]|\\[^"u])*\\")""")
_BASE64, _LEAST_BASE64 = '"base64":"', 22


def is_piece(token: Token) -> bool:
    """Tell whether a value is a few hex digits, which may be a piece of an id."""
    return token.form.startswith("piece")


def is_object_id(token: Token) -> bool:
    """Tell whether a value looks like an ObjectId, or its hex digits."""
    return token.kind == ID and len(token.key) == _OBJECT_ID_DIGITS and not is_piece(token)


_OBJECT_ID_DIGITS = 24


def looks_made(token: Token) -> bool:
    """Tell whether a value's look alone suggests that it was made up: a word of capital and small
    letters may be a name as well, and a few hex digits a number."""
    if is_piece(token):
        return False
    return not token.form.startswith("token") or any(map(str.isdigit, token.key))


def tokens(text: str) -> list[Token]:
    """Return what looks made up in JSON text, in its order.

    Args:
        text: JSON without whitespace between its tokens.
    """
    return [token for _, _, token in find(text)]


class InLine(NamedTuple):
    """What looks made up in the line of an event.

    Attributes:
        keys: the values.
        texts: as they are written.
        ids: the keys of ObjectIds and UUIDs.
    """

    keys: tuple[str, ...]
    texts: tuple[str, ...]
    ids: tuple[str, ...]


def found_in_line(line: bytes) -> InLine:
    """Return what looks made up in the line of an event, which is asked for several times.

    Args:
        line: its bytes.
    """
    known = _in_line if len(line) <= _LONGEST_LINE else _in_line.__wrapped__
    return known(line)


@lru_cache(128)
def _in_line(line: bytes) -> InLine:
    found = tokens(line.decode("utf-8", "replace"))
    return InLine(
        tuple([token.key for token in found]),
        tuple([token.text for token in found]),
        tuple([token.key for token in found if token.kind == ID]),
    )


_LONGEST_LINE = 64 * 1024


def skeleton(text: str, *, pieces: bool = False) -> str:
    """Return JSON text with what looks made up blanked; no JSON any more.

    Args:
        text: JSON without whitespace between its tokens.
        pieces: whether that goes for a few hex digits, too, which may be the beginning of an id.
    """
    found = find(text)
    return blanked(text, found if pieces else (one for one in found if not is_piece(one[2])))


def blanked(text: str, found: Iterable[Found]) -> str:
    """Return JSON text with some of what was found in it blanked; no JSON any more."""
    pieces: list[str] = []
    at = 0
    for start, end, token in found:
        pieces += [text[at:start], f"<{token.form}>"]
        at = end
    return "".join([*pieces, text[at:]])


def replace(text: str, get: Callable[[Token], str | None]) -> str:
    """Return JSON text with tokens exchanged.

    Args:
        text: JSON without whitespace between its tokens.
        get: gives the key of the value to put in a token's place, None to leave it.
    """

    def changed(token: Token) -> str | None:
        key = get(token)
        return None if key is None else write(key, token)

    return _exchange(text, changed)


def replace_in_reprs(text: str, get: Callable[[Token], str | None]) -> str:
    """Return JSON text with the UUIDs exchanged that stand in it as Python writes bytes, such as in
    the server's message about a key that is there twice.

    Args:
        text: JSON without whitespace between its tokens.
        get: gives the key of the value to put in a token's place, None to leave it.
    """

    def changed(match: re.Match[str]) -> str:
        try:
            inner = json.loads(f'"{match[0]}"')[2:-1]
            held = inner.encode("ascii").decode("unicode_escape").encode("latin-1")
        except ValueError:
            return match[0]
        if len(held) != 16:
            return match[0]
        key = get(Token(ID, held.hex(), match[0], _UUID_BYTES.shape("")))
        return match[0] if key is None else json.dumps(repr(bytes.fromhex(key)))[1:-1]

    return _bytes_repr.sub(changed, text)


def write(key: str, like: Token) -> str:
    """Return a value as text, in the form of a token."""
    written = _WRITERS.get(like.form.partition(" ")[0])
    return key if written is None else written(key, like.text)


_WRITERS: dict[str, Callable[[str, str], str]] = {
    "uuid": lambda key, like: _cased(_dashed(key), like),
    "hex": _cased,
    "binary": lambda key, like: base64.b64encode(bytes.fromhex(key)).decode(),
}
"""First word of a form -> what writes a value's key like a text of that form; others are written as
they are."""


_Parts = tuple[tuple[str, ...], tuple[Token, ...]]


def split(text: str, *, is_base64: bool = False) -> _Parts:
    """Return one string's plain stretches and the tokens between them.

    Args:
        text: a string, a number's digits, or a key of a dict.
        is_base64: whether it is the text of a Binary.
    """
    if is_base64:
        token = _binary(text)
        return ((text,), ()) if token is None else (("", ""), (token,))
    return _split(text) if len(text) <= _LONGEST_KNOWN else _split.__wrapped__(text)


@lru_cache(_MOST_KNOWN)
def _split(text: str) -> _Parts:
    plain: list[str] = []
    found: list[Token] = []
    start = 0
    for run in _run.finditer(text):
        for match in _looks.finditer(text, run.start(), run.end()):
            plain.append(text[start : match.start()])
            found.append(_token(match))
            start = match.end()
    plain.append(text[start:])
    return tuple(plain), tuple(found)


def _exchange(text: str, change: Callable[[Token], str | None]) -> str:
    pieces: list[str] = []
    at = 0
    for start, end, token in find(text):
        changed = change(token)
        if changed is not None:
            pieces += [text[at:start], changed]
            at = end
    return "".join([*pieces, text[at:]]) if pieces else text


def find(text: str) -> Iterator[Found]:
    """Yield what looks made up in JSON text, with where it begins and ends.

    Args:
        text: JSON without whitespace between its tokens.
    """
    for run in _run.finditer(text):
        start, end = run.span()
        is_short = end - start < _LEAST_BASE64
        if is_short and _short_look.search(text, start, end) is None:
            continue  # as the names of most fields are
        stretch = run[0]
        if text.endswith(_BASE64, 0, start):
            token = None if is_short else _binary(stretch)
            if token is not None:
                yield start, end, token
            continue
        looks = _looks_in(stretch) if len(stretch) <= _LONGEST_KNOWN else _looks_in_long(stretch)
        for first, last, token in looks:
            if not (is_piece(token) and _is_number(text, start + first, last - first)):
                yield start + first, start + last, token


def may_hold_made(text: str) -> bool:
    """Tell whether a text may hold anything that looks made up; quickly, since most hold nothing.

    Args:
        text: a string, a number's digits, or a key of a dict.
    """
    return len(text) >= SHORTEST and _any_look.search(text) is not None


@lru_cache(_MOST_KNOWN)
def _looks_in(stretch: str) -> tuple[Found, ...]:
    if _object_id.fullmatch(stretch) is not None:  # most are, and the other looks take long to try
        return ((0, len(stretch), _token_of(_BY_NAME["object_id"], stretch)),)
    return tuple([(*match.span(), _token(match)) for match in _looks.finditer(stretch)])


def _looks_in_long(stretch: str) -> tuple[Found, ...]:
    if len(stretch) > _LONG_RUN and (
        _plain.fullmatch(stretch) is not None or _may_look.search(stretch) is None
    ):
        return ()
    return _looks_in.__wrapped__(stretch)


def _is_number(text: str, start: int, length: int) -> bool:
    """Tell whether digits in JSON text are, or may be, part of a number and of no string."""
    before, after = text[start - 1 : start], text[start + length : start + length + 1]
    return before in _BEFORE_NUMBERS and after in _AFTER_NUMBERS


_BEFORE_NUMBERS = frozenset(":,[-.")
_AFTER_NUMBERS = frozenset(",}].eE")


def _token(match: re.Match[str]) -> Token:
    return _token_of(_BY_NAME[match.lastgroup or ""], match[0])


def _token_of(form: Form, text: str) -> Token:
    return Token(form.kind, form.key(text), text, form.shape(text))


def _binary(text: str) -> Token | None:
    if len(text) < _LEAST_BASE64:
        return None
    form = _UUID_BYTES if len(text) == 24 and text.endswith("==") else _BYTES
    try:
        return _token_of(form, text)
    except ValueError:
        return None
