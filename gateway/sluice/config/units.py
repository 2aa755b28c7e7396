"""The scalars of the configuration: durations, sizes, rates and secrets, each with the text that it was
written as.

`parse` takes the value in the file (a number or text) and raises ValueError with a sentence that says what is
expected and never repeats the value, which may be a secret in the wrong place.
"""

import base64
import re
from decimal import Decimal
from typing import ClassVar, Self

MAX_SECONDS = 36_500 * 86_400
"""Maximum seconds of a duration: a hundred years, which every clock and timer can still add to the present
time."""
MAX_BYTES = 1 << 50
"""Maximum bytes of a size."""
MAX_RATE = 1e15
"""Maximum units per second."""
MAX_SECONDS_WITHOUT_UNIT = 3600
"""Seconds from which on a duration needs a unit."""
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "KB": 1000, "KiB": 1 << 10, "MB": 10**6, "MiB": 1 << 20, "GB": 10**9, "GiB": 1 << 30}
_RATES = {
    "s": 1.0,
    "sec": 1.0,
    "min": 60.0,
    "m": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "day": 86400.0,
    "d": 86400.0,
}
QUOTED = frozenset(("\"\"", "''", "``", "\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}",
    "\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}"))  # fmt: skip
"""The first and last characters of a quoted text."""
_WINDOWS = {1.0: "s", 60.0: "min", 3600.0: "h", 86400.0: "day"}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"


def in_full(number: float, digits: int = 15) -> str:
    """Returns a number without an exponent, as these types' `parse` reads it: "1000000". At most `digits`
    digits are significant."""
    return f"{Decimal(f'{number:.{digits}g}'):f}"


def _split(text: str, pattern: str) -> tuple[float, str] | None:
    match = re.fullmatch(pattern, text, re.ASCII)
    return (float(match[1]), match[2]) if match else None


def _at_most(value: float, bound: float, words: str) -> float:
    if not value <= bound:
        raise ValueError(f"must be at most {words}")
    return value


class Seconds(float):
    """A duration: seconds as a number, or text with a unit (ms, s, m, h, d)."""

    pattern: ClassVar[str] = rf"({_NUMBER}) ?({'|'.join(_SECONDS)})"
    expected: ClassVar[str] = "a duration such as 500ms, 2s, 1m or a number of seconds"

    @classmethod
    def parse(cls, value: object) -> Self:
        match value:
            case str() if parts := _split(value, cls.pattern):
                return cls(_at_most(parts[0] * _SECONDS[parts[1]], MAX_SECONDS, "36500d"))
            case int() | float() if not isinstance(value, bool) and value >= 0:
                return cls(_at_most(value, MAX_SECONDS, "36500d"))
        raise ValueError(f"expected {cls.expected}")

    @classmethod
    def check_written(cls, value: object) -> None:
        """Raises ValueError for a bare number that is most likely meant in milliseconds."""
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and MAX_SECONDS_WITHOUT_UNIT <= value <= MAX_SECONDS * 1000
        ):
            raise ValueError(
                f"a number without a unit is seconds: write {in_full(value)}ms or {in_full(value)}s"
            )


class Bytes(int):
    """A size: bytes as a number, or text with a unit (B, KB, KiB, MB, MiB, GB, GiB)."""

    pattern: ClassVar[str] = rf"({_NUMBER}) ?({'|'.join(_BYTES)})"
    expected: ClassVar[str] = "a size such as 64KiB, 4MiB or a number of bytes"

    @classmethod
    def parse(cls, value: object) -> Self:
        match value:
            case str() if parts := _split(value, cls.pattern):
                return cls(round(_at_most(parts[0] * _BYTES[parts[1]], MAX_BYTES, "1048576GiB")))
            case int() if not isinstance(value, bool) and value >= 0:
                return cls(_at_most(value, MAX_BYTES, "1048576GiB"))
        raise ValueError(f"expected {cls.expected}")


class Rate(float):
    """Units per second, written as "10/s", "500/min", "20000/h" or "1000000/day"; a bare number is per
    second.

    `window`: the seconds of the unit it was written in.
    """

    window = 1.0

    pattern: ClassVar[str] = rf"({_NUMBER}) ?/ ?({'|'.join(_RATES)})"
    expected: ClassVar[str] = "a rate above zero such as 10/s, 500/min, 20000/h or 1000000/day"

    @classmethod
    def parse(cls, value: object) -> Self:
        match value:
            case str() if (parts := _split(value, cls.pattern)) and parts[0] > 0:
                rate = cls(_at_most(parts[0] / _RATES[parts[1]], MAX_RATE, "1000000000000000/s"))
                rate.window = _RATES[parts[1]]
                return rate
            case int() | float() if not isinstance(value, bool) and value > 0:
                return cls(_at_most(value, MAX_RATE, "1000000000000000/s"))
        meant = (
            re.fullmatch(
                rf"({_NUMBER}) ?(?:per|an?|each) ?(s|sec|second|m|min|minute|h|hour|d|day)s?",
                value.strip(),
                re.ASCII,
            )
            if isinstance(value, str)
            else None
        )
        if meant:
            unit = {"second": "s", "sec": "s", "m": "min", "minute": "min", "hour": "h", "d": "day"}.get(
                meant[2], meant[2]
            )
            raise ValueError(f"expected {cls.expected}: write {meant[1]}/{unit}")
        raise ValueError(f"expected {cls.expected}")

    @property
    def text(self) -> str:
        """Returns the text of the rate, which `parse` reads back."""
        return f"{in_full(self * self.window)}/{_WINDOWS[self.window]}"


class Secret(str):
    """A text that is never shown: `repr` and `str()` hide it; `reveal()` returns it."""

    __slots__ = ()
    alone: ClassVar[bool] = True
    """It is the secret alone: "Bearer" before it is a mistake."""

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"

    def reveal(self) -> str:
        return "".join(self)

    @classmethod
    def parse(cls, value: object) -> Self:
        if not isinstance(value, str) or not value:
            raise ValueError("expected text that is not empty")
        if any(ord(character) < 32 or ord(character) == 127 for character in value):
            raise ValueError("holds a line break or another control character")
        if value.startswith("\ufeff"):
            raise ValueError("begins with a byte order mark: save it without one")
        if value != value.strip():
            raise ValueError("has white space around it")
        if len(value) > 1 and value[0] + value[-1] in QUOTED:
            raise ValueError("is in quotes itself: take them off where it is set")
        if not value.isprintable():
            raise ValueError(
                "holds a character that cannot be seen, such as one from a page that it was copied from"
            )
        if re.fullmatch(r"\$[A-Z_][A-Z0-9_]*|\{\{.*\}\}|<[^<>]*>", value):
            raise ValueError(
                'is a placeholder: write "${NAME}" for a variable of the environment (and $$ for a dollar sign)'
            )
        if cls.alone and re.match(r"bearer ", value, re.IGNORECASE):
            raise ValueError('begins with "Bearer": write what follows it')
        return cls(value)


class DataKeys(Secret):
    """Keys of 32 bytes each, in base64 or in hexadecimal digits, separated by white space or commas."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        if not isinstance(value, str) or not value.strip():
            raise ValueError("expected at least one key")
        texts = value.replace(",", " ").split()
        if len(texts) > MAX_DATA_KEYS:
            raise ValueError(f"holds {len(texts)} keys; {MAX_DATA_KEYS} are the most")
        for number, text in enumerate(texts, 1):
            key = _key_of(Secret.parse(text))
            if len(key) != KEY_BYTES or len(set(key)) == 1:
                expected = f"{KEY_BYTES} random bytes in base64, as `openssl rand -base64 32` prints them"
                raise ValueError(f"key {number} of {len(texts)}: expected {expected}")
        if len({_key_of(text) for text in texts}) < len(texts):
            raise ValueError("names the same key twice")
        return cls(value)

    def keys(self) -> tuple[bytes, ...]:
        """Returns the keys in their order."""
        return tuple([_key_of(text) for text in self.reveal().replace(",", " ").split()])


class SessionKey(DataKeys):
    """One key of 32 bytes, in base64 or in hexadecimal digits."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        found = super().parse(value)
        if len(found.keys()) > 1:
            raise ValueError(f"holds {len(found.keys())} keys; expected one")
        return found


KEY_BYTES = 32
MAX_DATA_KEYS = 64


def _key_of(text: str) -> bytes:
    """Returns the key's bytes; b"" for an invalid key."""
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    try:
        return base64.b64decode(
            text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True
        )
    except ValueError:
        return b""


class HeaderValue(Secret):
    """The whole value of a header, which may contain a secret: "Bearer ${TOKEN}"."""

    __slots__ = ()
    alone = False


UNITS: tuple[type[Seconds] | type[Bytes] | type[Rate], ...] = (Seconds, Bytes, Rate)
