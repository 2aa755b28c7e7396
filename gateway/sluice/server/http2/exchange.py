"""One request on an HTTP/2 stream, and its response: the same as over HTTP/1.1 except for how it is
written."""

import time
from collections.abc import Sequence
from typing import Protocol

from sluice.server.exchange import (
    NO_STORE_FIELDS,
    NOT_FOR_PAGES,
    ClientConnection,
    HttpExchange,
    Pairs,
    Terms,
    path_of,
)
from sluice.server.incoming import Incoming

Head = list[tuple[bytes, bytes]]


class Answering(ClientConnection, Protocol):
    """The interface of the stream that an answer is written to."""

    def go_on(self) -> None: ...
    def send(self, head: Head | None, data: bytes, *, last: bool) -> None: ...
    def reset(self) -> None: ...


class Http2Exchange(HttpExchange, eq=False):
    """One request on an HTTP/2 stream, and its response. `stream` is None after the client has left while the
    call goes on."""

    stream: Answering | None = None
    held: Head | None = None
    """The head of a streamed answer, until its first bytes are written."""

    def _go_ahead(self, request: Incoming) -> None:
        expected = not request.over and request.fields.get("expect", "").lower() == "100-continue"
        if expected and self.stream is not None:
            self.stream.go_on()

    def reply(
        self,
        status: int,
        body: bytes,
        headers: Sequence[tuple[str, str]] = (),
        content_type: str = "application/json",
    ) -> None:
        fields: list[tuple[str, str]] = []
        if status not in (204, 304):
            fields += (("Content-Type", content_type), ("Content-Length", str(len(body))))
        if not headers or headers[0][0] != "Cache-Control":
            fields.append(("Cache-Control", "no-store"))
        head = self._head_of(status, (*fields, *NOT_FOR_PAGES, *self.extra, *self._renamed(headers)))
        self.status = status
        self.begun = self.complete = True
        self._send(head, b"" if self.method == "HEAD" or status in (204, 304) else body, last=True)

    def begin(self, content_type: str, headers: Pairs = ()) -> None:
        self.held = self._head_of(
            200, (("Content-Type", content_type), *self.extra, *self._renamed(headers), *NO_STORE_FIELDS)
        )
        self.status = 200
        self.begun = True

    def write(self, data: bytes, *, last: bool = False) -> None:
        head, self.held = self.held, None
        self.complete = self.complete or last
        self._send(head, data, last=last)

    def detach(self) -> None:
        self.stream = None
        self.unblocked()

    def abort(self) -> None:
        if self.stream is not None:
            self.stream.reset()

    def _renamed(self, headers: Pairs) -> Pairs:
        return headers if self.rename is None else self.rename(headers)

    def _head_of(self, status: int, fields: Pairs) -> Head:
        """Encodes a head. Raises UnicodeEncodeError before anything is sent, so that the error can still be
        answered 500.
        """
        pairs = ((":status", str(status)), ("date", self._listener.date()), *fields)
        return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs]

    def _send(self, head: Head | None, data: bytes, *, last: bool) -> None:
        self.bytes_out += len(data)
        self.last_write = time.monotonic()
        if self.stream is not None:
            self.stream.send(head, data, last=last)


def http2_exchange(request: Incoming, stream: Answering, listener: Terms) -> Http2Exchange:
    """Makes the exchange of a request."""
    exchange = Http2Exchange(
        request=request,
        method=request.method,
        headers=request.fields,
        path=path_of(request.target),
        peer=stream.peer,
        received=time.monotonic(),
        close_after=False,
        _connection=stream,
        _listener=listener,
        _transport=None,
    )
    exchange.stream = stream
    return exchange
