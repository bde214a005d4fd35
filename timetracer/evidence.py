"""What shows that a value was made by the program in this run, and did not come from elsewhere.

A look proves nothing: the md5 of a user's name looks like a fresh UUID. Evidence is that a process
made the value: an ObjectId holds the process's own five random bytes, a UUID was seen to come from
`uuid.uuid1`, `uuid4`, `uuid6` or `uuid7`, a token from `secrets`, and a time lies as far from the
clock in both runs. The recording's evidence is kept in its cassette, the replaying process's here.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import sys
import time
import uuid
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property, lru_cache
from itertools import permutations, product
from typing import Any, NamedTuple

from bson import ObjectId

from timetracer import frozen_time, relatives
from timetracer.codec import dumps
from timetracer.model import Json
from timetracer.volatile import ID, SECRET, TIME, Token, is_object_id, is_piece, tokens

TOLERANCE = 10.0
"""Seconds by which a time's distance from the clock may differ between two runs."""

_MOST_KNOWN = 100_000
_PROCESS_DIGITS = slice(8, 18)
_UUID_DIGITS = 32
_PIECE = 6
"""Digits at either end by which a piece of a made value is known."""

STARTED = frozen_time.now()
"""When this process was first able to make a value, in seconds since 1970."""


# ------------------------------------------------------------------------------------- seen


class _Made:
    """The UUIDs and tokens that this process was seen to make, with their number in order."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.ends: dict[str, str] = {}
        self.count = 0

    def note(self, *keys: str) -> None:
        self.keep(*keys)
        relatives.tell(relatives.VALUE, *keys)

    def keep(self, *keys: str) -> None:
        self.count += 1
        for key in keys:
            if len(self.numbers) >= _MOST_KNOWN:
                oldest = next(iter(self.numbers))
                del self.numbers[oldest]
                for end in (oldest[:_PIECE], oldest[-_PIECE:]):
                    self.ends.pop(end, None)
            self.numbers[key] = self.count
            self.ends[key[:_PIECE]] = self.ends[key[-_PIECE:]] = key

    def number(self, token: Token) -> int | None:
        """Return the number of a value, or of the one that it is the beginning or the end of."""
        found = self.numbers.get(_standard(_made_part(token, self.numbers)))
        if found is None and is_piece(token):
            return self.numbers.get(self.whole(token))
        return found

    def whole(self, piece: Token) -> str:
        """Return the value that a piece is the beginning or the end of; "" for none."""
        key = piece.key.lower()
        ends = (self.ends.get(key[:_PIECE], ""), self.ends.get(key[-_PIECE:], ""))
        return next((one for one in ends if one.startswith(key) or one.endswith(key)), "")


_made = _Made()
_MAKERS = frozenset(
    function.__code__
    for name in ("uuid1", "uuid4", "uuid6", "uuid7")
    if (function := getattr(uuid, name, None)) is not None
)
_originals: list[tuple[Any, str, Any]] = []
"""What `watch` stands around: owner, name and the original."""


def watch() -> None:
    """See from now on which UUIDs and tokens the program makes, however it imported the makers; of
    those of `secrets`, `token_bytes` imported by name is not seen."""
    if _originals:
        return
    plain, plain_bytes = uuid.UUID.__init__, secrets.token_bytes
    _originals.append((uuid.UUID, "__init__", plain))
    _originals.append((secrets, "token_bytes", plain_bytes))

    def __init__(self: uuid.UUID, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **kwargs)
        if sys._getframe(1).f_code in _MAKERS:
            _made.note(self.hex)

    uuid.UUID.__init__ = __init__  # type: ignore[method-assign]
    def token_bytes(nbytes: int | None = None) -> bytes:
        made = plain_bytes(nbytes)
        padded = base64.b64encode(made).decode()
        _made.note(made.hex(), padded, base64.urlsafe_b64encode(made).rstrip(b"=").decode())
        return made

    secrets.token_bytes = token_bytes  # token_hex and token_urlsafe call it too
    quick = vars(uuid.UUID).get("_from_int")  # how releases from 3.14 on make them
    if quick is not None:
        _originals.append((uuid.UUID, "_from_int", quick))

        def _from_int(cls: Any, value: int) -> uuid.UUID:
            made: uuid.UUID = quick.__func__(cls, value)
            if sys._getframe(1).f_code in _MAKERS:
                _made.note(made.hex)
            return made

        uuid.UUID._from_int = classmethod(_from_int)  # type: ignore[attr-defined]


def unwatch() -> None:
    """Undo `watch`."""
    while _originals:
        setattr(*_originals.pop())


def made_values(found: Sequence[Token]) -> list[str]:
    """Return the keys of the UUIDs and tokens among some values that this process made, as it made
    them; relatives count as well, as far as `learn_of_relatives` has shown."""
    if not (_made.numbers or _relatives):
        return []
    _met.update(_relatives.intersection(map(_digits, found)) if _relatives else ())
    numbers = {}
    for token in found:
        if token.kind == TIME:
            continue
        number = _made.number(token)
        if number is not None:
            numbers[_made_part(token, _made.numbers)] = number
            if is_piece(token):
                numbers[_made.whole(token)] = number
    return sorted(numbers, key=numbers.__getitem__)


def made_token(live: Token) -> bool:
    """Tell whether this process was seen to make a token."""
    return live.kind == SECRET and _made_part(live, _made.numbers) in _made.numbers


def _made_part(token: Token, made: Container[str]) -> str:
    """Return what of a token was made: all of it, or what stands behind a prefix like "sess_"."""
    if token.kind != SECRET or token.key in made:
        return token.key
    parts = (token.key[match.end() :] for match in _SEPARATOR.finditer(token.key))
    return next((part for part in parts if part in made), token.key)


_SEPARATOR = re.compile("[-_+/]")


_HEX = frozenset("0123456789abcdef")


def _standard(key: str) -> str:
    """Return the digits of a UUID that was stored in an older byte order, where it is known."""
    if key in _made.numbers or len(key) != 32 or not _HEX.issuperset(key):
        return key
    raw = bytes.fromhex(key)
    java = raw[7::-1] + raw[:7:-1]
    csharp = uuid.UUID(bytes_le=raw).bytes
    return next((order.hex() for order in (java, csharp) if order.hex() in _made.numbers), key)


# ------------------------------------------------------------------------------------- a process


@dataclass(frozen=True, slots=True)
class Process:
    """What a cassette tells of the process that recorded it.

    Attributes:
        object_ids: the ten hex digits in every ObjectId that it made, "" where not known.
        started: when it started, in seconds since 1970.
        frozen: the time that the program saw as the recording began, 0 for the real one.
        relatives: the digits of other processes of its test, in ObjectIds that it used.
        recorded: when the recording began.
        utc_offset: by how many seconds its local time was ahead of UTC.
    """

    object_ids: str
    started: float
    recorded: float
    utc_offset: float
    frozen: float = 0.0
    relatives: tuple[str, ...] = ()

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Process:
        """Return what a cassette tells; what it does not tell is no evidence."""
        recorded = _seconds(told.get("recorded_at"))
        return cls(
            str(told.get("object_ids") or ""),
            _seconds(told.get("started_at")) or recorded,
            recorded,
            float(told.get("utc_offset") or 0),
            _seconds(told.get("frozen_at")),
            tuple(map(str, told.get("relatives") or ())),
        )


UNKNOWN = Process("", 0.0, 0.0, 0.0)


def this_process() -> dict[str, Any]:
    """Return what a cassette is to tell of this process, as JSON."""
    told = {
        "object_ids": object_id_digits(),
        "started_at": _text(STARTED),
        "utc_offset": _utc_offset(),
    }
    return {**told, "relatives": sorted(_met)} if _met else told


_own: list[str] = []
_relatives: set[str] = set()
_met: set[str] = set()


def join_relatives(path: str) -> None:
    """Have the other processes of a test know what this one makes, and know what they make.

    Args:
        path: the file that they share.

    Raises:
        OSError: it cannot be written.
    """
    relatives.join(path)
    _introduce()


def leave_relatives() -> None:
    """Undo `join_relatives`."""
    relatives.leave()
    for known in (_own, _relatives, _met):
        known.clear()


def learn_of_relatives() -> None:
    """Take note of what the other processes of a test have made by now."""
    for what, keys in relatives.news():
        if what == relatives.PROCESS:
            _relatives.update(keys)
        else:
            _made.keep(*keys)


def _introduce() -> None:
    _own.append(object_id_digits())
    relatives.tell(relatives.PROCESS, _own[-1])


def _after_fork() -> None:
    if _own:
        _relatives.update(_own)  # the parent's
        _own.clear()
        _introduce()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def object_id_digits() -> str:
    """Return the ten hex digits that every ObjectId of this process holds."""
    random: bytes = ObjectId._random()
    return random.hex()


def _utc_offset() -> float:
    offset = datetime.fromtimestamp(frozen_time.now()).astimezone().utcoffset()
    return (offset or timedelta()).total_seconds()


def _text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


def _seconds(text: Any) -> float:
    try:
        moment = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return 0.0
    return moment.replace(tzinfo=moment.tzinfo or timezone.utc).timestamp()


# ------------------------------------------------------------------------------------- the question


@dataclass(frozen=True)
class Evidence:
    """What is known of the makers of a recorded call's values and of a live call's; for one
    comparison, since it keeps the time.

    Attributes:
        process: the recording process.
        made: the keys of the UUIDs and tokens in the recorded call that its process made, in order.
        at: when the call was recorded, in seconds since 1970; 0 where not known.
        seen: the time that the recorded program saw then; 0 where that was the real one.
        learned: the places (`alike.place_name`) whose values another recording has shown to be
            made anew in each run.
    """

    process: Process
    made: tuple[str, ...]
    at: float
    seen: float = 0.0
    learned: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Take note of what relatives have made by now."""
        learn_of_relatives()

    @cached_property
    def clock(self) -> Clock:
        """The recording process's clock at the call."""
        return Clock(self.at, self.seen, self.process.started, self.process.utc_offset)

    @cached_property
    def clock_now(self) -> Clock:
        """This process's clock at the live call."""
        seen = time.time() if frozen_time.is_moved() else 0.0
        return Clock(frozen_time.now(), seen, STARTED, _utc_offset())

    def both_made(self, recorded: Token, live: Token) -> bool:
        """Tell whether each of two values was made by the process that used it, or a relative."""
        if recorded.kind == TIME:
            return same_moment(recorded, live, self.clock, self.clock_now)
        if is_object_id(recorded) and self.made_object_id(recorded):
            return _digits(live) in (object_id_digits(), *_relatives)
        one, other = _made_part(recorded, self.made), _made_part(live, _made.numbers)
        same_prefix = recorded.key.removesuffix(one) == live.key.removesuffix(other)
        if same_prefix and one in self.made and _made.number(live) is not None:
            return True
        told, tells = _time_in(recorded), _time_in(live)
        if told is None or tells is None:
            return False
        return same_moment(told, tells, self.clock, self.clock_now)

    def same_day(self, recorded: Token, live: Token) -> bool:
        """Tell whether each of two times is the midnight of its process's own day, or of the one
        before or after. A literal may be one by chance, so where nothing is stored it is none."""
        return same_day(recorded, live, self.clock, self.clock_now)

    def wholes(self, recorded: Token, live: Token) -> tuple[Token, Token] | None:
        """Return what two pieces that were made are the beginning, or the end, of.

        Returns:
            The recorded and the live value; None where they are no pieces of any, or not alike.
        """
        return self.wholes_among(recorded, live, (_made.whole(live),))

    def wholes_among(
        self, recorded: Token, live: Token, candidates: Iterable[str]
    ) -> tuple[Token, Token] | None:
        """Return the same, where the live piece is of one of some values."""
        key, other = recorded.key.lower(), live.key.lower()
        longest_first = sorted(self.made, key=len, reverse=True)  # a piece is among them, too
        for ours, theirs in product(longest_first, sorted(candidates, key=len, reverse=True)):
            for is_end in (str.startswith, str.endswith):
                if is_end(ours, key) and is_end(theirs, other):
                    return _token_of(ours), _token_of(theirs)
        return None

    def tells_its_maker(self, recorded: Token) -> bool:
        """Tell whether a value shows by itself who made it: an ObjectId that is of none of the
        recording's processes is a literal, or another program's."""
        return is_object_id(recorded) and bool(self.process.object_ids)

    def made_token(self, recorded: Token) -> bool:
        """Tell whether the recording process was seen to make a token."""
        return recorded.kind == SECRET and _made_part(recorded, self.made) in self.made

    def made_object_id(self, recorded: Token) -> bool:
        """Tell whether the recording process made an ObjectId."""
        return _digits(recorded) in (self.process.object_ids, *self.process.relatives)

    def recorded_order(self, value: Json) -> tuple[int, str]:
        """Return what orders recorded values as they were made."""
        return _order(value, lambda key: self.made.index(key) if key in self.made else -1)

    def live_order(self, value: Json) -> tuple[int, str]:
        """Return what orders live values as they were made."""
        return _order(value, lambda key: _made.numbers.get(_standard(key), -1))


def _time_in(value: Token) -> Token | None:
    """Return when a UUID says that it was made, None for one of a version that does not: whichever
    library made it, a time in it that was read from the clock shows that the process did."""
    key = value.key
    if len(key) != _UUID_DIGITS or key[_VARIANT] not in "89ab" or not _HEX.issuperset(key):
        return None
    told = _VERSIONS.get(key[_VERSION])
    text = f"{told(key):.6f}" if told is not None else ""
    return Token(TIME, text, text, "epoch") if _moment(text) is not None else None


def _gregorian(ticks: str) -> float:
    return (int(ticks, 16) - _GREGORIAN_TICKS) / 10**7


_VERSION, _VARIANT = 12, 16
_GREGORIAN_TICKS = 0x01B21DD213814000
"""From the beginning of the Gregorian calendar to 1970, in ticks of 100 nanoseconds."""
_VERSIONS: dict[str, Callable[[str], float]] = {
    "1": lambda key: _gregorian(key[13:16] + key[8:12] + key[:8]),
    "6": lambda key: _gregorian(key[:12] + key[13:16]),
    "7": lambda key: int(key[:12], 16) / 1000,
}
"""Version -> the time in the digits of such a UUID, in seconds since 1970."""


def _token_of(key: str) -> Token:
    kind = ID if len(key) == _UUID_DIGITS else SECRET
    return Token(kind, key, key, f"hex {len(key)}")


def _digits(object_id: Token) -> str:
    return object_id.key[_PROCESS_DIGITS]


class Clock(NamedTuple):
    """A process's clock as it makes a call.

    Attributes:
        at: the time, in seconds since 1970; 0 where not known.
        seen: the time that the program saw; 0 where that was the real one.
        started: when the process started.
        utc_offset: by how many seconds its local time was ahead of UTC.
    """

    at: float
    seen: float
    started: float
    utc_offset: float


def same_moment(one: Token, other: Token, clock: Clock, other_clock: Clock) -> bool:
    """Tell whether each of two processes read its clock for a time that it used in a call.

    Args:
        one: the time that the one process used.
        other: the time that the other process used.
        clock: the one's clock at its call.
        other_clock: the other's clock at its own.
    """
    then, moment = _moment(one.text), _moment(other.text)
    if then is None or moment is None or not (clock.at and other_clock.at):
        return False
    if "000" in one.form.rpartition(":")[2] and (
        _was_written(then, clock) or _was_written(moment, other_clock)
    ):
        return False
    drifts = [(moment - other_clock.at) - (then - clock.at)]
    if clock.seen or other_clock.seen:
        seen, other_seen = clock.seen or clock.at, other_clock.seen or other_clock.at
        drifts.append((moment - other_seen) - (then - seen))
    if one.form.startswith("date"):  # of local time, perhaps
        ahead = clock.utc_offset - other_clock.utc_offset
        drifts += [drift + ahead for drift in drifts]
    if any(abs(drift) <= TOLERANCE for drift in drifts):
        return True
    return (
        then % 1 != 0
        and moment % 1 != 0
        and clock.started <= then <= clock.at
        and other_clock.started <= moment <= other_clock.at
    )


def same_day(one: Token, other: Token, clock: Clock, other_clock: Clock) -> bool:
    """Tell whether two processes used the midnight of the same day, as counted from the day on
    which each of them ran; see `same_moment`."""
    then, moment = _moment(one.text), _moment(other.text)
    if then is None or moment is None or not (clock.at and other_clock.at):
        return False
    told, told_by_other = _days_from_today(then, clock), _days_from_today(moment, other_clock)
    readings = zip(told, told_by_other, strict=True)
    return any(days == others and days in _NEAR_DAYS for days, others in readings)


def _days_from_today(moment: float, clock: Clock) -> tuple[float, ...]:
    """Return how many days a time lies from the midnight with which the day began: the UTC day; the
    local one; the local one where the time is its midnight in UTC."""
    now = clock.seen or clock.at
    local = now + clock.utc_offset
    readings = ((moment, now), (moment, local), (moment + clock.utc_offset, local))
    return tuple([(time - today // _DAY * _DAY) / _DAY for time, today in readings])


_DAY = 86_400
_NEAR_DAYS = (-1, 0, 1)


def _was_written(moment: float, clock: Clock) -> bool:
    """Tell whether a time, in a form that has fractions, is a whole hour that was written down:
    just after it the clock may have been read, and cut to the second."""
    now = clock.seen or clock.at
    return moment % 3600 == 0 and not 0 <= now - moment <= TOLERANCE


def read_from_clock(time: Token) -> bool:
    """Tell whether a time looks as if it was read from a clock: one of a whole minute was written
    down."""
    moment = _moment(time.text)
    return moment is not None and moment % 60 != 0


def are_durations(
    numbers: Iterable[tuple[float, float]], times: Sequence[tuple[Token, Token]]
) -> bool:
    """Tell whether each number is how long it was between two times of its call, in seconds or
    milliseconds: between the same two in both runs.

    A number so small that the cut of a time to its last digit is as large tells nothing.

    Args:
        numbers: recorded and live number.
        times: recorded and live time.
    """
    moments = [both for pair in times[:_MOST_TIMES] if (both := _both_moments(pair)) is not None]
    between = [
        (one.then - two.then, one.now - two.now, max(one.cut, two.cut))
        for one, two in permutations(moments, 2)
    ]
    return all(
        any(
            _is_about(recorded / unit, then, cut) and _is_about(live / unit, now, cut)
            for then, now, cut in between
            for unit in (1, 1000)
        )
        for recorded, live in numbers
    )


def _is_about(number: float, seconds: float, cut: float) -> bool:
    return abs(number - seconds) <= cut < abs(number) / _LEAST_CUTS


class _Moments(NamedTuple):
    """What a recorded and a live time say in seconds, and by how much each may be cut off."""

    then: float
    now: float
    cut: float


def _both_moments(pair: tuple[Token, Token]) -> _Moments | None:
    then, now = (_moment(time.text) for time in pair)
    fractions = _fraction_digits(pair[0].text)
    if then is None or now is None or fractions < _MILLISECONDS:
        return None
    return _Moments(then, now, _MOST_CUT * 10.0 ** -min(fractions, _MICROSECONDS))


def _fraction_digits(text: str) -> int:
    """Return how many digits of a time's text tell less than a second."""
    whole, _, fraction = text.partition(".")
    if whole.isdigit() and len(whole) in _EPOCH_UNITS:
        return len(fraction) + len(whole) - 10
    return sum(character.isdigit() for character in text) - 14


_MILLISECONDS, _MICROSECONDS = 3, 6
_MOST_CUT, _LEAST_CUTS, _MOST_TIMES = 2.2, 3, 50


def _order(value: Json, number: Callable[[str], int]) -> tuple[int, str]:
    ids = [token.key for token in tokens(dumps(value).decode()) if token.kind == ID]
    return (number(ids[0]), ids[0]) if ids else (-1, "")


_EPOCH_UNITS = {10: 1, 13: 10**3, 16: 10**6, 19: 10**9}


@lru_cache(4096)
def _moment(text: str) -> float | None:
    """Return seconds since 1970 of a date or an epoch number; None for a time that is none."""
    if text[:1] == "1" and len(text.partition(".")[0]) in _EPOCH_UNITS and text[1] in "456789":
        whole = text.partition(".")[0]
        return float(text) / _EPOCH_UNITS[len(whole)]
    digits = "".join(character for character in text if character.isdigit())
    try:
        parts = [int(digits[start:end]) for start, end in _DATE_DIGITS]
        moment = datetime(*parts, tzinfo=timezone.utc)  # type: ignore[misc,arg-type]
    except ValueError:
        return None
    fraction = digits[14:]
    return moment.timestamp() + (int(fraction) / 10 ** len(fraction) if fraction else 0)


_DATE_DIGITS = ((0, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14))
