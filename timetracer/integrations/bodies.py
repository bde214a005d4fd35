"""What a cassette shows of a request's or response's body, from a copy made as it streams past."""

from __future__ import annotations

import email.parser
import email.policy
import hashlib
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from timetracer.codec import to_json
from timetracer.model import Json
from timetracer.redaction import Redactor

_MAX_DEPTH = 64


@dataclass(slots=True)
class BodyCopy:
    """The copy of a body that streams past.

    Attributes:
        limit: how many bytes are kept at most.
        content_type: the header, "" where there is none.
        encoding: the Content-Encoding header, "" where there is none.
        length: how many bytes have passed.
        ended: whether the whole body has passed.
        spoilt: whether bytes may have passed unseen, or twice.
    """

    limit: int = 0
    content_type: str = ""
    encoding: str = ""
    length: int = 0
    ended: bool = False
    spoilt: bool = False
    _kept: bytearray = field(default_factory=bytearray)

    def add(self, data: bytes) -> None:
        """Note bytes on their way."""
        room = self.limit - self.length
        if room > 0:
            self._kept += data[:room]
        self.length += len(data)

    @property
    def whole(self) -> bool:
        """Whether the copy has all of the body."""
        return self.ended and not self.spoilt and self.length <= self.limit

    def value(self) -> Json:
        """Return what a cassette shows of the body.

        Returns:
            None for no body; the value of JSON; a form's fields by name; text as text. For other
            bodies, and for those that were not kept whole, {"$body": {...}} with the length, what
            is missing, and of text the part that was kept.
        """
        if not self.length:
            return None
        kept = bytes(self._kept)
        if self.spoilt:
            return self._described(omitted="not seen as a whole")
        if self.encoding not in ("", "identity"):
            return self._described(truncated=True, omitted=self.encoding)
        if self.length > len(kept):
            return self._beginning(kept)
        value = _parsed(kept, self.content_type)
        return self._described(omitted="binary") if value is None else value

    def _beginning(self, kept: bytes) -> Json:
        # Half of a JSON document cannot be searched for secrets by name.
        text = _text(kept, self.content_type, cut=True)
        structured = kept.lstrip()[:1] in (b"{", b"[") or "multipart" in self.content_type
        if not text or structured or "json" in self.content_type:
            return self._described(truncated=True)
        end = max(text.rfind(character) for character in "\n>&;,")
        return self._described(truncated=True, text=text[: end + 1])

    def _described(self, **facts: Json) -> Json:
        return {"$body": {"length": self.length, "content_type": self.content_type, **facts}}

    def digest(self, redactor: Redactor | None) -> str:
        """Return the hash that tells the bodies of two requests apart.

        Args:
            redactor: takes the secrets out first, since a short one could be guessed from a hash.

        Returns:
            Hex digits; "" for no body and for one that was not kept whole.
        """
        if not self.length or not self.whole:
            return ""
        value = self.value()
        if isinstance(value, dict) and "$body" in value:
            data = bytes(self._kept)
        else:
            shown = redactor.redact_request({"body": value}) if redactor is not None else value
            data = orjson.dumps(shown, option=orjson.OPT_SORT_KEYS)
        return hashlib.blake2b(data, digest_size=16).hexdigest()


# ------------------------------------------------------------------------------- its value


def _parsed(data: bytes, content_type: str) -> Json:
    """The body as JSON-ready value; None for bytes that are no text."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return _multipart(data, content_type)
    if data.lstrip()[:1] in (b"{", b"[") or kind.endswith("json"):
        try:
            value = orjson.loads(data)
            # As a value of the codec's, so that a body cannot pass for one of its tags.
            return to_json(value) if _is_shallow(value, _MAX_DEPTH) else None
        except ValueError:
            pass
    text = _text(data, content_type)
    if text is not None and kind == "application/x-www-form-urlencoded":
        return _by_name(urllib.parse.parse_qsl(text, keep_blank_values=True)) or text
    return text


def _is_shallow(value: Json, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    below = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_shallow(item, levels - 1) for item in below)


def _text(data: bytes, content_type: str, cut: bool = False) -> str | None:
    charset = _parameter(content_type, "charset") or "utf-8"
    for drop in range(4 if cut else 1):  # a cut may go through the bytes of one character
        try:
            text = data[: len(data) - drop].decode(charset)
            orjson.dumps(text)  # refuses the surrogates that utf-7 and the like let through
            return None if "\0" in text else text
        except (ValueError, TypeError, LookupError):
            continue
    return None


def _parameter(content_type: str, name: str) -> str:
    for part in content_type.split(";")[1:]:
        key, _, value = part.partition("=")
        if key.strip().lower() == name:
            return value.strip().strip('"')
    return ""


def _multipart(data: bytes, content_type: str) -> Json:
    """The fields of a form with files; of a file its name, type, length and hash."""
    head = b"Content-Type: " + content_type.encode("latin-1", "replace") + b"\r\n\r\n"
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + data)
    if not message.is_multipart():
        return None
    return _by_name(_form_field(part) for part in message.iter_parts())


def _form_field(part: Any) -> tuple[str, Json]:
    name = str(part.get_param("name", "", header="content-disposition"))
    data = part.get_payload(decode=True) or b""
    filename = part.get_filename()
    text = None if filename is not None else _text(data, str(part.get("content-type", "")))
    if text is not None:
        return name, text
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    content_type = part.get_content_type()
    return name, {
        "filename": filename,
        "content_type": content_type,
        "length": len(data),
        "hash": digest,
    }


def _by_name(pairs: Iterable[tuple[str, Json]]) -> dict[str, Json]:
    values: dict[str, list[Json]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: found[0] if len(found) == 1 else found for name, found in values.items()}
