"""Header fields: which of them may be set on an upstream request, which characters they may have (RFC 9110
5.1, 5.5), and how they are parsed."""

import re
from collections.abc import Iterable, Mapping, Sequence

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
FRAMING_FIELDS = frozenset((
    "host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect",
    "accept-encoding",
))  # fmt: skip
"""Fields that frame the message or manage the connection: only the HTTP client sets them."""


def check_fields(headers: Iterable[tuple[str, str]]) -> None:
    """Raises ValueError, with a sentence that names the field but not its value, for a field that may not be
    set."""
    for name, value in headers:
        if not _TOKEN.fullmatch(name):
            raise ValueError("not a header name")
        if name.lower() in FRAMING_FIELDS:
            raise ValueError(f"the header {name} is not for others to set")
        if not _VALUE.fullmatch(value):
            placeholder = " (…): put the real value in place of the placeholder" if "…" in value else ""
            raise ValueError(f"the header {name} has a character that cannot be sent{placeholder}")


_USUAL = (
    "Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Cache-Control", "Connection", "Content-Length",
    "Content-Type", "Date", "Host", "Origin", "Referer", "Server", "Strict-Transport-Security", "Traceparent",
    "Transfer-Encoding", "User-Agent", "Vary", "X-Api-Key", "X-Forwarded-For", "X-Request-Id",
    "X-Stainless-Arch", "X-Stainless-Async", "X-Stainless-Lang", "X-Stainless-OS", "X-Stainless-Package-Version",
    "X-Stainless-Read-Timeout", "X-Stainless-Retry-Count", "X-Stainless-Runtime", "X-Stainless-Runtime-Version",
)  # fmt: skip
_NAMES: Mapping[bytes, str] = {
    spelt: name.lower() for name in _USUAL for spelt in (name.encode(), name.lower().encode())
}
"""The names of the most common fields, in lower case: looking one up is cheaper than lower-casing it."""
_NAMES_BY_TEXT: Mapping[str, str] = {spelt.decode(): name for spelt, name in _NAMES.items()}
_WITHOUT_CONTROLS = bytes(char if 0x20 <= char < 0x7F or char in b"\r\n" else 0x3F for char in range(256))
"""For `bytes.translate`: leaves a text of visible ASCII, CR and LF unchanged, and changes any other."""


def simple_head(head: bytes) -> tuple[str, dict[str, str]] | None:
    """Returns the first line of a message's head, and its fields by lower-case name. `head`: the bytes up to
    the empty line.

    None for a head that two parsers might read differently, or that is too rare to be handled here: a
    repeated field, a name that is no token (RFC 9110 5.1), a tab or other characters beyond visible ASCII, a
    single CR or LF. It takes half the time of callbacks for each field (DECISIONS 168).
    """
    text = head.decode("latin-1")
    lines = text.splitlines()
    if not lines or head.translate(_WITHOUT_CONTROLS) != head or "\r\n".join(lines) != text:
        return None
    known = _NAMES_BY_TEXT.get
    first = lines.pop(0)
    fields = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not (key := known(name) or _lower(name)):
            return None
        fields[key] = value.strip()
    return (first, fields) if len(fields) == len(lines) else None


def as_text(value: str) -> str:
    """Returns a field's value as a text: as UTF-8 where it is (RFC 9110 5.5 leaves it open), for parsers read bytes
    beyond ASCII as Latin-1."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def _lower(name: str) -> str:
    """Returns the name in lower case; "" if it is not a valid name."""
    return name.lower() if _TOKEN.fullmatch(name) else ""


def by_name(pairs: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Returns fields by their lower-case names, repeated ones joined by ", " (RFC 9110 5.3)."""
    return joined(
        [
            (_NAMES.get(name) or name.lower().decode("latin-1"), value.decode("latin-1"))
            for name, value in pairs
        ]
    )


def joined(fields: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Returns fields by their names, repeated ones joined by ", " (RFC 9110 5.3)."""
    found: dict[str, str] = {}
    for name, value in fields:
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found
