"""A head that a connection has sent before: clients that keep a connection repeat themselves to the byte.

What differs from request to request is the length of the body. Where the rest of a head is what llhttp has read before, it
would read it as the same again, and need not be asked. A head that is not exactly that is not known here, and is parsed as
ever; so both ways give the same.

The bytes of one head, a key among them, are kept for as long as the connection lives, and not longer.
"""

import re

from sluice.server.incoming import Incoming

LONGEST = 4 << 10
"""Bytes of a head that is kept. Far from any bound, so that the digits of a length cannot make it too long."""
FIELDS = 64
DIGITS = 7

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,%d})\r\n" % DIGITS, re.IGNORECASE)


class KnownHead:
    """One head of HTTP/1.1, with a Content-Length of any digits."""

    __slots__ = ("_after", "_at", "_before", "_fields", "_method", "_name", "_pairs", "_start", "_target", "_weight")

    def __init__(self, before: bytes, after: bytes, at: int, seen: Incoming) -> None:
        self._before = before
        self._after = after
        self._start = len(before)
        self._at = at
        self._name = seen.pairs[at][0]
        self._pairs = seen.pairs
        self._fields = seen.fields
        self._method = seen.method
        self._target = seen.target
        self._weight = seen.weight

    def begin(self, data: bytes) -> tuple[Incoming, int] | None:
        """The request that `data` begins with and where its body does; None where its head is another, or not complete."""
        start = self._start
        if not data.startswith(self._before):
            return None
        end = data.find(b"\r", start, start + DIGITS + 1)
        if end < 0 or not data.startswith(self._after, end):
            return None
        digits = data[start:end]
        if not digits.isdigit():
            return None
        pairs, fields = self._pairs.copy(), self._fields.copy()
        pairs[self._at] = (self._name, digits)
        fields["content-length"] = digits.decode()
        request = Incoming(self._method, self._target, (1, 1), pairs, fields, True, int(digits), self._weight)
        return request, end + len(self._after)


def known(data: bytes, request: Incoming) -> KnownHead | None:
    """The head of `request`, which `data` begins with; None where it is not to be known: it has no plain length, or is
    long, or is not of a connection that goes on as it is."""
    end = data.find(b"\r\n\r\n", 0, LONGEST) + 4
    plain = request.version == (1, 1) and request.keep_alive and "upgrade" not in request.fields
    if end < 4 or not plain or len(request.pairs) > FIELDS:
        return None
    lengths = [at for at, (name, _) in enumerate(request.pairs) if name.lower() == b"content-length"]
    places = [*_LENGTH.finditer(data, 0, end)]
    if len(lengths) != 1 or len(places) != 1:
        return None
    start, stop = places[0].span(1)
    return KnownHead(data[:start], data[stop:end], lengths[0], request)
