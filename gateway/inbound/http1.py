"""HTTP/1.1 requests, sans-io: bytes in; heads, bodies and refusals out.

The grammar is llhttp's in its strict setting (Node's parser, through httptools), as on the upstream side: it refuses a
Content-Length beside a Transfer-Encoding, repeated lengths, bare CR and LF, folded headers and odd chunk sizes. What is
stricter here, so that no proxy before us can have read a request differently (RFC 9112):

    HTTP/1.0 and 1.1 only; one transfer coding, and it is `chunked`, and only in HTTP/1.1
    exactly one Host in HTTP/1.1, which is a host (3.2); no target longer than MAX_LINE, no header either
    a bounded head, a bounded number of headers (trailers counted in), bounded framing bytes between two pieces of body

An upgrade (h2c, WebSocket) is passed over, as RFC 9110 7.8 allows: the request is answered as it stands.
"""

import re
from typing import Any

import httptools

from gateway.wire.fields import NAMES

MAX_LINE = 8190
MAX_HEAD = 32 << 10
MAX_HEADERS = 128
MAX_BARREN = 16 << 10
"""Bytes of framing (chunk sizes, extensions, trailers) without a byte of body among them."""
MAX_WAITING = 64
"""Requests of one connection that wait for their turn (pipelining); what comes behind them is not read."""

_VERSIONS = {"1.1": (1, 1), "1.0": (1, 0)}
_HOST = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:%\[\]-]*").fullmatch


class _Refused(Exception):
    """Stops llhttp from within a callback."""


class Incoming:
    """One request. `fields`: by lower-case name, repeated ones joined by ", "; `pairs`: as they came.

    `over`: its body is complete. `broken`: it never will be. `size`: bytes of body so far; beyond the parser's limit they
    are counted and thrown away. `length` is what the head promises, -1 for chunks.
    """

    __slots__ = ("broken", "fields", "keep_alive", "length", "method", "over", "pairs", "pieces", "size", "target", "version")

    def __init__(self) -> None:
        self.method = ""
        self.target = ""
        self.version = (1, 1)
        self.pairs: list[tuple[bytes, bytes]] = []
        self.fields: dict[str, str] = {}
        self.keep_alive = False
        self.length = 0
        self.pieces: list[bytes] = []
        self.size = 0
        self.over = False
        self.broken = False

    def body(self) -> bytes:
        return self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)


class RequestParser:
    """The requests of one connection, one behind the other. `limit`: bytes of one body that are kept.

    `waiting`: those whose head is complete, for the connection to take. `error`: what came is not HTTP, and nothing more
    will be read; requests in `waiting` are good all the same. `begun`: a head has begun that is not complete.
    """

    __slots__ = ("_barren", "_body", "_count", "_head", "_limit", "_llhttp", "_room", "_url", "begun", "error", "waiting")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._llhttp: Any = httptools.HttpRequestParser(self)
        self._head = Incoming()
        self._body: Incoming | None = None
        self._url = b""
        self._count = 0
        self._room = MAX_HEAD
        self._barren = 0
        self.waiting: list[Incoming] = []
        self.begun = False
        self.error = False

    def feed(self, data: bytes) -> None:
        """Never raises: see `waiting`, `error`, and the requests themselves."""
        try:
            self._feed(data)
        except (_Refused, httptools.HttpParserError):
            self._stop()

    def close(self) -> None:
        """Breaks the reference cycle with llhttp's callbacks, so that nothing waits for the gc."""
        self._stop()

    # --- inside

    def _feed(self, data: bytes) -> None:
        while data and not self.error:
            body, size = self._body, self._body.size if self._body is not None else 0
            try:
                self._llhttp.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._llhttp = httptools.HttpRequestParser(self)  # the old one reads nothing any more
                continue
            self._count_bytes(body, size, len(data))
            return

    def _count_bytes(self, body: Incoming | None, size: int, fed: int) -> None:
        """Bounds for what brings neither a complete head nor a byte of body."""
        if self.begun:
            self._room -= fed
            if self._room < 0:
                raise _Refused
        elif body is not None and body is self._body:
            self._barren = self._barren + fed if body.size == size else 0
            if self._barren > MAX_BARREN:
                raise _Refused

    def _stop(self) -> None:
        self.error = True
        self.begun = False
        self._llhttp = None
        if self._body is not None:
            self._body.broken = True
            self._body = None

    # --- llhttp's callbacks

    def on_message_begin(self) -> None:
        if len(self.waiting) >= MAX_WAITING:
            raise _Refused
        self.begun = True
        self._head = Incoming()
        self._url = b""
        self._count = 0
        self._room = MAX_HEAD

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > MAX_LINE:
            raise _Refused

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count += 1
        if self._count > MAX_HEADERS or len(value) + len(name) > MAX_LINE:
            raise _Refused
        if not self.begun:
            return  # a trailer: bounded, of no use
        head = self._head
        head.pairs.append((name, value))
        key = NAMES.get(name) or name.lower().decode("latin-1")
        fields = head.fields
        text = value.decode("latin-1")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text

    def on_headers_complete(self) -> None:
        head, llhttp = self._head, self._llhttp
        version = _VERSIONS.get(llhttp.get_http_version())
        if version is None:
            raise _Refused
        head.version = version
        head.method = llhttp.get_method().decode("latin-1")
        head.target = self._url.decode("latin-1")
        head.keep_alive = llhttp.should_keep_alive()
        _check(head)
        self.begun = False
        self._barren = 0
        self._body = head
        self.waiting.append(head)

    def on_body(self, data: bytes) -> None:
        body = self._body
        if body is None:
            raise _Refused
        body.size += len(data)
        if body.size <= self._limit:
            body.pieces.append(data)
        else:
            body.pieces.clear()

    def on_message_complete(self) -> None:
        body = self._body
        if body is not None:
            body.over = True
            self._body = None


def _check(head: Incoming) -> None:
    """What RFC 9112 leaves to the recipient's choice, or llhttp to its caller."""
    fields = head.fields
    if head.version == (1, 1) and (host := fields.get("host")) is not None:
        if not _HOST(host):  # two of them are joined by a space, which no host has
            raise _Refused
    elif head.version == (1, 1):
        raise _Refused
    coding = fields.get("transfer-encoding")
    if coding is not None:
        if head.version != (1, 1) or coding.lower() != "chunked":
            raise _Refused
        head.length = -1
    elif (length := fields.get("content-length")) is not None:
        head.length = int(length)
