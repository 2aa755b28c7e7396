"""One request, as far as it has arrived."""

import msgspec


class Incoming(msgspec.Struct, eq=False):
    """One request. `fields`: by lower-case name, repeated ones joined by ", "; `pairs`: as they came; none
    where the head was plain, for then `fields` says it all.

    `over`: its body is complete. `broken`: it never will be. `size`: bytes of body so far; beyond the
    parser's limit they are counted and thrown away. `length` is what the head promises, -1 for chunks.
    `weight`: bytes of the head, counted as MAX_HEAD is, or a few more. `given_up`: we dropped the body, to
    free memory for others. `limit`: bytes of body that are taken, where it is taken in pieces; 0: the
    parser's limit. `whole`: it is to be taken whole, so that reading goes on.
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
        """Keeps more bytes of the body; beyond the request's own limit, or else `limit`, none of it."""
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
        """The body, always the same object, so that the text of a call is in memory once."""
        content = self.content
        if type(content) is not bytes:
            content = self.content = bytes(content)
        return content
