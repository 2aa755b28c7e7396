"""A request head that a connection sends again, with nothing changed but the number in its Content-Length.

Clients that keep a connection open send the same head with each request (the head of an OpenAI SDK has 22
lines). The head is compared with the connection's last one, instead of being parsed again. Only heads that
`RequestParser` has read without llhttp are kept, and only heads that differ from them in nothing but the
digits match, so this module needs no grammar.
"""

import msgspec

from sluice.server.incoming import Incoming

MAX_REPEATED = 2048
"""Maximum bytes of a head that is kept, as long as its connection is open."""
_LENGTH = b"\r\ncontent-length: "


class RepeatedHead(msgspec.Struct, eq=False, frozen=True):
    """A head around the digits of its Content-Length: the bytes `before` them, and those `after` them up to
    the body. The other fields are the request's (`Incoming`)."""

    before: bytes
    after: bytes
    method: str
    target: str
    fields: dict[str, str]
    weight: int

    __repr__ = object.__repr__  # it holds a key

    def request(self, data: bytes, limit: int) -> Incoming | None:
        """Returns the request if `data` is exactly this head and a complete body of at most `limit` bytes."""
        before, after = self.before, self.after
        start = len(before)
        end = data.find(b"\r", start)
        body = data[end + len(after) :]
        size = len(body)
        length = str(size)
        if (
            size > limit
            or data[start:end] != length.encode()
            or data[:start] != before
            or data[end : end + len(after)] != after
        ):
            return None
        fields = {**self.fields, "content-length": length}
        return Incoming(
            self.method, self.target, (1, 1), [], fields, True, size, self.weight, body, size, True
        )


def repeated_head(head: bytes, request: Incoming) -> RepeatedHead | None:
    """Returns the head to compare the next requests with; None for a head that is long or has no length.

    `head`: the bytes up to the empty line, with at most one Content-Length. `request`: what was parsed from
    it.
    """
    at = head.lower().find(_LENGTH) + len(_LENGTH)
    digits = request.fields.get("content-length", "").encode()
    if len(head) > MAX_REPEATED or at < len(_LENGTH) or not head.startswith(digits, at):
        return None
    after = head[at + len(digits) :] + b"\r\n\r\n"
    return RepeatedHead(head[:at], after, request.method, request.target, request.fields, request.weight)
