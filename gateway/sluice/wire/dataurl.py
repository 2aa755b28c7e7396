"""Normalizes data: URLs (RFC 2397), in whatever spelling they come."""

import re
from urllib.parse import unquote

import msgspec

_HEAD = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)(?:;[^;,]*)*;base64", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_URL_SAFE = str.maketrans("-_", "+/")
HEAD = 1024
"""Maximum characters before the comma of a data: URL."""
SPELLINGS = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "application/x-pdf": "application/pdf",
}
"""Common names of media types, and their registered names (https://www.iana.org/assignments/media-types)."""


class Inline(msgspec.Struct, frozen=True):
    """Content that is in the request itself. `data` is base64, in one line and padded. `media_type` is in
    lower case."""

    media_type: str
    data: str


def is_http(url: str) -> bool:
    return url[:8].lower().startswith(("https://", "http://"))


def inline_data(url: str) -> Inline | None:
    """Returns the content of a data: URL; None if it is not one in base64.

    Media types ignore case (RFC 9110, 8.3.1). Parameters may precede ";base64" (RFC 2397). The base64 may
    have line ends (RFC 2045, 6.8), be URL-safe or lack its padding (RFC 4648, 5 and 3.2), and everything may
    be percent-encoded.
    """
    comma = url.find(",", 0, HEAD)
    head = _HEAD.fullmatch(url, 0, comma) if comma > 0 else None
    if head is None:
        return None
    data = standard_base64(url[comma + 1 :])
    media_type = head["type"].lower()
    return Inline(SPELLINGS.get(media_type, media_type), data) if data else None


def standard_base64(data: str) -> str:
    """Returns base64 in one line, in the standard alphabet and padded; "" if the text is not base64."""
    if _BASE64.fullmatch(data) is None:
        data = "".join((unquote(data) if "%" in data else data).split()).translate(_URL_SAFE)
        if _BASE64.fullmatch(data) is None:
            return ""
    missing = -len(data.rstrip("=")) % 4
    return data if missing == data.count("=") else data.rstrip("=") + "=" * missing


def normalized_url(url: str) -> str:
    """Returns a data: URL in base64 in its normal form; any other URL is returned unchanged."""
    if is_http(url):
        return url
    inline = inline_data(url)
    return url if inline is None else f"data:{inline.media_type};base64,{inline.data}"
