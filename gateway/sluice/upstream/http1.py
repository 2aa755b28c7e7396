"""HTTP/1.1 responses, sans-io: bytes in; head, body bytes, end or refusal out.

The grammar is llhttp's in its strict setting (Node's parser, through httptools), which refuses a
Content-Length beside a Transfer-Encoding, repeated lengths, bare CR and LF, folded headers and odd chunk
sizes. What is stricter here than there, because an upstream that does it is broken or is smuggling:

    one transfer coding, and it is `chunked`, and only in HTTP/1.1; no HTTP/0.9, RTSP or ICE; no 101
    a bounded head (interim heads counted in), a bounded number of headers, bounded framing bytes between two pieces of
        body (chunk extensions, trailers)

llhttp judges every byte of a head, but has no callback for its headers: they are read from the bytes once it
has accepted them all (`sluice.upstream.head_fields`).

Bytes behind a complete response belong to no request: the answer stays valid, `reusable` becomes false.
Interim heads (100, 102, 103) are skipped. A response without a length ends with the connection (RFC 9112,
6.3).
"""

from collections.abc import Mapping
from typing import NoReturn

import httptools

from sluice.errors import UpstreamError, UpstreamGarbled, UpstreamTruncated
from sluice.upstream.head_fields import HeadFields

MAX_HEAD = 64 << 10
MAX_HEADERS = 200

_VERSIONS = ("1.1", "1.0")
_BODILESS = (204, 304)


class _Refused(Exception):
    """Raised in a callback to stop llhttp. The reason is in `error`, unless the response was complete."""


class ResponseParser:
    """Parses the responses of one connection, one after another; call `expect` before each.

    `status` is 0 and `headers` empty until the final head is complete; names are lower case, repeated ones
    joined by ", ". `over`: complete. `error`: refused or cut, and nothing more will come. `head_fields`:
    reads the headers; connections of one upstream share it.
    """

    __slots__ = (
        "_chunks",
        "_delimited",
        "_fruitless",
        "_head",
        "_head_fields",
        "_head_left",
        "_llhttp",
        "_max_head",
        "_max_headers",
        "_method",
        "_peer",
        "error",
        "headers",
        "on_body",
        "over",
        "reusable",
        "status",
    )  # fmt: skip

    def __init__(
        self, peer: str, head_fields: HeadFields, *, max_head: int = MAX_HEAD, max_headers: int = MAX_HEADERS
    ) -> None:
        self._peer = peer
        self._head_fields = head_fields
        self._max_head = max_head
        self._max_headers = max_headers
        self._chunks: list[bytes] = []
        self.on_body = self._chunks.append  # llhttp's callback: no Python frame per chunk
        self._llhttp = httptools.HttpResponseParser(self)
        self.expect("POST")

    def expect(self, method: str) -> None:
        """Prepares for the response to a request of this method."""
        self._method = method
        self.headers: Mapping[str, str] = {}
        self._head: list[bytes] = []  # what has come until the final head is complete
        self._head_left = self._max_head
        self._fruitless = 0
        self._delimited = False
        self.status = 0
        self.over = False
        self.reusable = False
        self.error: UpstreamError | None = None

    def feed(self, data: bytes) -> bytes:
        """Returns the body bytes in `data`, chunks of one read joined. Never raises: see `error`, `over`,
        `status`."""
        try:
            if self.status:
                self._llhttp.feed_data(data)
            else:
                self._feed_head(data)
        except (_Refused, httptools.HttpParserError, httptools.HttpParserUpgrade) as refusal:
            self._stopped(refusal)
        chunks = self._chunks
        if not chunks:
            self._count_fruitless(len(data))
            return b""
        self._fruitless = 0
        if len(chunks) == 1:
            return chunks.pop()
        body = b"".join(chunks)
        chunks.clear()
        return body

    def eof(self) -> None:
        """Handles an orderly end of the connection. Sets `over` if that is the end of the body, else
        `error`."""
        if self.over or self.error is not None:
            return
        if not self.status:
            self.error = UpstreamError(
                "reset", f"{self._peer} closed the connection before its answer's head"
            )
        elif self._delimited:
            self.error = UpstreamTruncated("The upstream closed the connection in the middle of its answer")
        else:
            self.over = True

    def close(self) -> None:
        """Ends parsing. Breaks the reference cycle with llhttp's callbacks, so that nothing is left for the
        garbage collector.
        """
        del self._llhttp

    # --- llhttp's callbacks

    def on_message_begin(self) -> None:
        if self.over:
            raise _Refused

    def on_headers_complete(self) -> None:
        status: int = self._llhttp.get_status_code()
        head = b"".join(self._head)
        # llhttp formats a text of two numbers each time
        version = "1.1" if head[:9] == b"HTTP/1.1 " else self._llhttp.get_http_version()
        if version not in _VERSIONS:
            self._refuse("an unknown HTTP version")
        if status < 200:
            if status < 100 or status == 101:
                self._refuse("an impossible status")
            _, _, behind = head.partition(b"\r\n\r\n")
            self._head = [behind]
            return
        fields = self._head_fields.read(head, self._max_headers)
        if fields is None:
            self._refuse(f"more than {self._max_headers} headers")
        self._head.clear()  # what came with it may be long, and a stream too
        self._delimited = self._has_length(version, fields)
        self.headers = fields
        self.status = status
        if self._method == "HEAD":
            self.over = True
            raise _Refused  # llhttp would wait for the body that the head promises; the connection is not used again
        if status in _BODILESS:
            self._delimited = True

    def on_message_complete(self) -> None:
        if self.status:
            self.over = True
            self.reusable = self._llhttp.should_keep_alive()  # not before: a trailer may clear it

    # --- bounds and refusals

    def _feed_head(self, data: bytes) -> None:
        left = self._head_left
        if left == self._max_head and data[:1] != b"H":
            self._refuse("no HTTP response")  # llhttp also knows RTSP and ICE, and skips empty lines
        if len(data) <= left:
            self._head_left = left - len(data)
            self._head.append(data)
            self._llhttp.feed_data(data)
            return
        while data and not self.status:
            left = self._head_left
            if not left:
                self._refuse(f"a head of more than {self._max_head} bytes")
            piece, data = (data, b"") if len(data) <= left else (data[:left], data[left:])
            self._head_left = left - len(piece)
            self._head.append(piece)
            self._llhttp.feed_data(piece)
        if data:
            self._llhttp.feed_data(data)

    def _has_length(self, version: str, fields: Mapping[str, str]) -> bool:
        coding = fields.get("transfer-encoding")
        if coding is None:
            return "content-length" in fields
        if (coding != "chunked" and coding.lower() != "chunked") or version == "1.0":
            self._refuse("an unknown transfer coding")
        if "content-length" in fields:
            self._refuse("two lengths of the same body")
        return True

    def _count_fruitless(self, size: int) -> None:
        self._fruitless += size
        if self.status and self._fruitless > self._max_head and not self.over and self.error is None:
            self.error = self._garbled("framing without content")

    def _refuse(self, what: str) -> NoReturn:
        self.error = self._garbled(what)
        raise _Refused

    def _stopped(self, refusal: Exception) -> None:
        self.reusable = False
        if not self.over and self.error is None:
            # llhttp's reasons are fixed words: nothing of what the upstream sent
            known = isinstance(refusal, httptools.HttpParserError)
            self.error = self._garbled(str(refusal) if known else "a change of protocol")

    def _garbled(self, what: str) -> UpstreamGarbled:
        return UpstreamGarbled(f"The upstream sent what is not HTTP/1.1 as it should be: {what}")
