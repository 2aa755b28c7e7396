"""Builds the bytes of requests. Pure. Parts that do not change between requests are built once.

A backend's headers are a tuple that hardly ever changes, so the head for (method, URL, headers) is cached
without the length. Nothing in a head can end a line: names are tokens, values and targets have no control
characters (RFC 9110, 5.5), and the headers that frame a message are set by the client only.
"""

import re
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

import msgspec

from sluice.backends.protocol import Headers, UpstreamRequest
from sluice.wire.fields import check_fields

MAX_KEPT_HEADS = 256
"""Maximum cached heads; beyond it (with headers that differ each time) all are dropped and built again, for
some 5 µs each."""

_METHOD = re.compile(r"[A-Z]+")
_TARGET = re.compile(r"[\x21-\x7e]+")
_LABEL = re.compile(r"[0-9A-Za-z_](?:[0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?\Z").match
_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])(?:\.(?!\Z)|\Z)){4}\Z").match
MAX_NAME = 253
"""Characters of a host's name."""


class Origin(msgspec.Struct, frozen=True):
    """Scheme, host and port. `authority`: as in URLs and in Host. `name`: host:port, for people."""

    scheme: str
    host: str
    port: int
    authority: str

    @property
    def name(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def origin_of(url: str) -> Origin:
    """Returns the origin of an http or https URL. Raises ValueError, which never contains the URL, because
    that may contain a password."""
    if not url.isprintable() or " " in url:
        raise ValueError("the upstream's address has a character that must be escaped")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(
            "the upstream's address has no valid host or port (IPv6 stands in brackets)"
        ) from None
    scheme = parts.scheme
    if scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("the upstream's address must be an http:// or https:// URL")
    if "@" in parts.netloc:
        raise ValueError("the upstream's address must not hold credentials")
    host = parts.hostname if ":" in parts.hostname else _name_of(parts.hostname)
    if port == 0:
        raise ValueError("the upstream's address has the port 0: expected one from 1 to 65535")
    default = 443 if scheme == "https" else 80
    port = port or default
    shown = f"[{host}]" if ":" in host else host
    return Origin(scheme, host, port, shown if port == default else f"{shown}:{port}")


def _name_of(host: str) -> str:
    """Returns a host's name in ASCII, or its IPv4 address, for look-up (RFC 1123 2.1; RFC 3986 3.2.2)."""
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError:
        name = ""
    labels = name.removesuffix(".").split(".")
    if len(name) > MAX_NAME or not all(map(_LABEL, labels)) or (labels[-1].isdigit() and not _IPV4(name)):
        raise ValueError("the upstream's address has no valid host name")
    return name


class Heads:
    """The request heads of one origin. `credentials` replace a request's own fields of the same names. Fields
    in `signed` are left out: they come with each request's own `lines`."""

    def __init__(self, origin: Origin, credentials: Headers, agent: str, signed: Iterable[str] = ()) -> None:
        check_fields(credentials)
        self._replaced = {name.lower() for name, _ in credentials} | set(signed)
        self._origin = origin
        self._credentials = credentials
        self._agent = agent
        self._kept: dict[tuple[str, str, Headers], bytes] = {}

    def of(self, request: UpstreamRequest) -> bytes:
        """Returns the head, complete except for the length. Raises ValueError for a header or URL that cannot
        be sent.
        """
        key = (request.method, request.url, request.headers)
        head = self._kept.get(key)
        if head is None:
            head = self._build(*key)
            if len(self._kept) >= MAX_KEPT_HEADS:
                self._kept.clear()
            self._kept[key] = head
        return head

    def check(self, url: str) -> None:
        """Raises ValueError for a URL of another origin, or one that cannot be written in a request."""
        self._target(url)

    def _build(self, method: str, url: str, headers: Headers) -> bytes:
        if not _METHOD.fullmatch(method):
            raise ValueError("not a request method")
        check_fields(headers)
        lines = "".join(f"{name}: {value}\r\n" for name, value in self._all(headers))
        return f"{method} {self._target(url)} HTTP/1.1\r\n{lines}Content-Length: ".encode("latin-1")

    def _all(self, headers: Headers) -> Iterator[tuple[str, str]]:
        replaced = self._replaced
        yield "Host", self._origin.authority
        if not any(name.lower() == "user-agent" for name, _ in headers):
            yield "User-Agent", self._agent
        yield "Accept-Encoding", "identity"
        yield from (header for header in headers if header[0].lower() not in replaced)
        yield from self._credentials

    def _target(self, url: str) -> str:
        parts = urlsplit(url)
        if origin_of(url) != self._origin:
            raise ValueError(f"the request is not for {self._origin.name}")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not _TARGET.fullmatch(target):
            raise ValueError("the request's URL has a character that must be escaped")
        return target
