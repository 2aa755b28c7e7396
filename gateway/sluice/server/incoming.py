"""One request, with the part of its body that has arrived."""

import msgspec


class Incoming(msgspec.Struct, eq=False):
    """One request.

    `fields`: by lower-case name, repeated ones joined by ", ". `pairs`: the fields as they came; empty if the
    head was simple, because `fields` is complete then. `over`: the body is complete. `broken`: it never will
    be. `size`: bytes of the body so far; beyond the parser's limit they are counted and discarded. `length`:
    the Content-Length, -1 for a chunked body. `weight`: bytes of the head, counted as for MAX_HEAD, or a few
    more. `given_up`: the body was dropped to free memory for others. `limit`: bytes of the body that are kept
    while it is read in pieces; 0: the parser's limit. `whole`: it is needed whole, so reading continues.
    """

    method: str = ""
    target: str = ""
    version: tuple[int, int] = (1, 1)
    pairs: list[tuple[bytes, bytes]] = []
    fields: dict[str, str] = {}
    keep_alive: bool = False
    length: int = 0
    weight: int = 0
    content: bytes | bytearray = b""
    size: int = 0
    over: bool = False
    broken: bool = False
    given_up: bool = False
    limit: int = 0
    whole: bool = False

    __repr__ = object.__repr__  # it holds a key

    def add(self, data: bytes, limit: int) -> None:
        """Keeps more bytes of the body. If the request's own limit (or else `limit`) is exceeded, none of the
        body is kept."""
        self.size += len(data)
        if self.size > (self.limit or limit):
            self.content = b""
        elif not self.content:
            self.content = data
        else:
            if isinstance(self.content, bytes):
                self.content = bytearray(self.content)
            self.content += data

    def taken(self) -> bytes:
        """Returns the bytes of the body that have arrived since the last call."""
        content, self.content = bytes(self.content), b""
        return content

    def body(self) -> bytes:
        """The body. It is always the same object, so that the text of a call is in memory once."""
        content = self.content
        if type(content) is not bytes:
            content = self.content = bytes(content)
        return content
