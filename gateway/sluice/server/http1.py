"""HTTP/1.1 requests, sans-io: bytes in; heads, bodies and refusals out.

The grammar is llhttp's in its strict setting (Node's parser, through httptools), as on the upstream side: it
refuses a Content-Length beside a Transfer-Encoding, repeated lengths, bare CR and LF, folded headers and odd
chunk sizes. What is stricter here, so that no proxy before us can have read a request differently (RFC 9112):

    HTTP/1.0 and 1.1 only; one transfer coding, and it is `chunked`, and only in HTTP/1.1
    exactly one Host in HTTP/1.1, at most one in HTTP/1.0, which is a host (3.2); no fragment in a target; no CONNECT
    one space between the words of a request line, and HTTP as its protocol (3; llhttp takes more spaces and RTSP,
        and does not say so: of several requests in one read, the first one's line is looked at)
    no target longer than MAX_LINE, no header either; a bounded head (trailers counted in), bounded bytes that are neither a
        whole header nor content

An upgrade (h2c, WebSocket) is passed over, as RFC 9110 7.8 allows: the request is answered as it stands, with
its body.

Most requests come whole in one read, with a simple head. `_simple_request` reads those without llhttp, whose
callbacks into Python (one for each header) cost more than all else that is done for a head. It knows a small
part of the grammar, which no two parsers read differently, and leaves everything else to llhttp (DECISIONS
168). What it has read is compared with the connection's next request before that is parsed
(`sluice.server.repeated`).
"""

import re
from typing import Any

import httptools

from sluice.server.incoming import Incoming
from sluice.server.repeated import RepeatedHead, repeated_head
from sluice.wire.fields import by_name, simple_head

MAX_LINE = 8190
MAX_HEAD = 64 << 10
"""Maximum bytes of names and values, plus FIELD for each of them (so at most 255 fields; counted as in
HTTP/2, RFC 9113 6.5.2).
"""
FIELD = 256
MAX_FRUITLESS = 16 << 10
"""Maximum bytes of reads that neither complete a header nor bring a byte of body: an endless header, chunk
extensions.
"""
MAX_WAITING = 64
MAX_KEPT = 1 << 20
"""Requests of one connection that may wait for their turn (pipelining), and bytes of their heads and bodies
if there are several; more is refused, because a connection that is not read would not report that its
client has left.
"""

MAX_SIMPLE = MAX_LINE
"""Bytes of a head that `_simple_request` reads, and MAX_FIELDS lines of it: within all bounds above."""
MAX_FIELDS = 64
MAX_UNLIKE = 4
"""Heads in a row that may differ from the one before. After these, the heads of the connection are not
compared any more: the sender is probably a proxy that puts an id into each. The first head of a connection
is not kept, because it may be the only one."""
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

_VERSIONS = {"1.1": (1, 1), "1.0": (1, 0)}
is_host = re.compile(r"(?:\[[A-Za-z0-9:._~%-]+\]|[A-Za-z0-9._~!$&'()*+;=%-]*)(?::[0-9]*)?").fullmatch
"""Whether a text is a host and a port, or empty. It may have no comma, because a comma would join repeated
fields."""


class _Refused(Exception):
    """Raised in a callback of llhttp to stop the parser."""


class RequestParser:
    """Parses the requests of one connection, one after another. `limit`: bytes of one body that are kept.

    `waiting`: requests with a complete head, for the connection to take. `error`: the input is invalid, and
    nothing more is read; requests in `waiting` are still valid. `given_up`: the same for lack of memory, and
    `waiting` is empty. `begun`: an incomplete head has begun.
    """

    __slots__ = (
        "_between",
        "_body",
        "_fruitless",
        "_head",
        "_head_left",
        "_host",
        "_limit",
        "_line",
        "_llhttp",
        "_passed_over",
        "_progress",
        "_repeated",
        "_unlike",
        "_url",
        "error",
        "given_up",
        "waiting",
    )  # fmt: skip

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._llhttp: Any = httptools.HttpRequestParser(self)
        self._head: Incoming | None = None
        self._body: Incoming | None = None
        self._passed_over: Incoming | None = None
        self._line: bytes | None = None  # the part of a request line that has arrived
        self._url = b""
        self._head_left = MAX_HEAD
        self._progress = (0, 0)
        self._fruitless = 0
        self._host = ""  # the last valid one
        self._repeated: RepeatedHead | None = None
        self._unlike = 0  # heads in a row that did not repeat the last one
        self._between = True  # llhttp is between requests
        self.waiting: list[Incoming] = []
        self.error = False
        self.given_up = False

    @property
    def begun(self) -> bool:
        return self._head is not None

    @property
    def unfinished(self) -> bool:
        """Whether incomplete or waiting requests are kept."""
        return self._body is not None or bool(self.waiting)

    @property
    def kept(self) -> int:
        """The bytes of these requests; an incomplete head is not counted."""
        size = _size(self.waiting)
        body = self._body
        if body is not None and not (self.waiting and self.waiting[-1] is body):
            size += len(body.content)
        return size

    def give_up(self) -> None:
        """Drops incomplete and waiting requests, and reads no more: the memory for them is used up."""
        if self._body is not None:
            self._body.given_up = True
            self._body.content = b""
        self.waiting.clear()
        self.given_up = True
        self._stop()

    def feed(self, data: bytes) -> None:
        """Parses bytes. Never raises: see `waiting`, `error`, and the requests themselves."""
        if self.error:
            return
        if self._between and not self.waiting and (request := self._simple_request(data)) is not None:
            self.waiting.append(request)
            return
        if self._between:
            self._between, self._line = False, b""
        try:
            if self._line is not None:
                self._read_line(data)
            try:
                self._llhttp.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._pass_over(data[upgrade.args[0] :])
            if self._head is not None:
                self._count_fruitless(len(data), (self._head_left, -1))
            elif self._body is not None:
                self._count_fruitless(len(data), (self._head_left, self._body.size))
            if len(self.waiting) > 1 and _size(self.waiting) > MAX_KEPT:
                raise _Refused
        except (_Refused, httptools.HttpParserError):
            self._stop()

    def close(self) -> None:
        """Breaks the reference cycle with llhttp's callbacks, so that nothing waits for the gc."""
        self._stop()

    # --- inside

    def _simple_request(self, data: bytes) -> Incoming | None:
        """Returns the request if these bytes are exactly one request with a simple head, else None."""
        repeated = self._repeated
        if repeated is not None and (request := repeated.request(data, self._limit)) is not None:
            self._unlike = 1
            return request
        text, end, body = data.partition(b"\r\n\r\n")
        head = simple_head(text) if end and len(text) <= MAX_SIMPLE else None
        if head is None:
            return None
        line, fields = head
        words, size = line.split(" "), len(body)
        if (
            len(words) != 3
            or len(fields) > MAX_FIELDS
            or "transfer-encoding" in fields
            or "upgrade" in fields
        ):
            return None
        method, target, version = words
        if method not in _METHODS or target[:1] != "/" or "#" in target or version != "HTTP/1.1":
            return None
        if fields.get("connection", "keep-alive") != "keep-alive" or "proxy-connection" in fields:
            return None
        if fields.get("content-length", "0") != str(size) or size > self._limit:
            return None
        host = fields.get("host")
        if host is None or (host != self._host and not is_host(host)):
            return None
        self._host = host
        weight = len(text) + len(fields) * FIELD
        request = Incoming(method, target, (1, 1), [], fields, True, size, weight, body, size, True)
        self._unlike += 1
        self._repeated = repeated_head(text, request) if 1 < self._unlike <= MAX_UNLIKE else None
        return request

    def _read_line(self, data: bytes) -> None:
        line, end, _ = ((self._line or b"") + data).lstrip(b"\r\n")[: MAX_LINE + 1].partition(b"\n")
        if b"  " in line or (end and b" HTTP/" not in line):
            raise _Refused
        self._line = None if end or len(line) > MAX_LINE else line

    def _count_fruitless(self, size: int, progress: tuple[int, int]) -> None:
        """Bounds reads without progress. `progress`: the bytes left for the head, and the bytes received of
        the body.
        """
        self._fruitless = self._fruitless + size if progress == self._progress else 0
        self._progress = progress
        if self._fruitless > MAX_FRUITLESS:
            raise _Refused

    def _pass_over(self, rest: bytes) -> None:
        """Continues after the head of an upgrade, where llhttp has stopped: a new parser reads its body, if
        it has one, and what follows."""
        self._llhttp = httptools.HttpRequestParser(self)
        if self._passed_over is not None:
            length = self._passed_over.length
            framing = b"Content-Length: %d" % length if length >= 0 else b"Transfer-Encoding: chunked"
            self._llhttp.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
        if rest:
            try:
                self._llhttp.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                self._pass_over(rest[upgrade.args[0] :])  # at most MAX_WAITING deep

    def _stop(self) -> None:
        self.error = True
        self._llhttp = None
        self._head = None
        if self._body is not None:
            self._body.broken = True
            self._body = None
        if self._passed_over is not None:
            self._passed_over.broken = True
            self._passed_over = None

    # --- llhttp's callbacks

    def on_message_begin(self) -> None:
        self._between = False
        if self._passed_over is not None:
            return
        if len(self.waiting) >= MAX_WAITING:
            raise _Refused
        self._head = Incoming()
        self._url = b""
        self._head_left = MAX_HEAD
        self._progress = (0, 0)

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > MAX_LINE:
            raise _Refused

    def on_header(self, name: bytes, value: bytes) -> None:
        size = len(name) + len(value)
        self._head_left = left = self._head_left - size - FIELD
        if left < 0 or size > MAX_LINE:
            raise _Refused
        if self._head is not None:  # otherwise a trailer: bounded, and ignored
            # llhttp accepts no other white space
            self._head.pairs.append((name, value.rstrip()))

    def on_headers_complete(self) -> None:
        if self._passed_over is not None:
            self._body, self._passed_over = self._passed_over, None
            return
        head, llhttp = self._head, self._llhttp
        version = _VERSIONS.get(llhttp.get_http_version())
        if head is None or version is None:
            raise _Refused
        head.version = version
        head.method = llhttp.get_method().decode("latin-1")
        head.target = self._url.decode("latin-1")
        head.keep_alive = llhttp.should_keep_alive()
        head.fields = by_name(head.pairs)
        _check(head)
        head.weight = MAX_HEAD - self._head_left + len(self._url)
        if self.waiting and _size(self.waiting) + head.weight > MAX_KEPT:
            raise _Refused
        self._head = None
        self.waiting.append(head)
        if head.length and llhttp.should_upgrade():  # llhttp would take the body for the next request
            self._passed_over = head
        else:
            self._body = head

    def on_body(self, data: bytes) -> None:
        if self._body is None:
            raise _Refused
        self._body.add(data, self._limit)

    def on_message_complete(self) -> None:
        body = self._body
        if body is not None:
            body.over = True
            self._body = None
            self._between = body.keep_alive


def _size(requests: list[Incoming]) -> int:
    return sum([request.weight + len(request.content) for request in requests])


def _check(head: Incoming) -> None:
    """Checks what RFC 9112 leaves to the recipient, or llhttp to its caller."""
    fields = head.fields
    host = fields.get("host")
    if host is None:
        if head.version == (1, 1):
            raise _Refused
    elif not is_host(host):
        raise _Refused
    if head.method == "CONNECT" or "#" in head.target:  # what follows a CONNECT would be for a tunnel
        raise _Refused
    coding = fields.get("transfer-encoding")
    if coding is not None:
        if head.version != (1, 1) or coding.lower() != "chunked":
            raise _Refused
        head.length = -1
    elif (length := fields.get("content-length")) is not None:
        head.length = int(length)
