"""One request, as far as it has come."""


class Incoming:
    """One request. `fields`: by lower-case name, repeated ones joined by ", "; `pairs`: as they came.

    `over`: its body is complete. `broken`: it never will be. `size`: bytes of body so far; beyond the parser's limit they
    are counted and thrown away. `length` is what the head promises, -1 for chunks.
    """

    __slots__ = ("broken", "content", "fields", "keep_alive", "length", "method", "over", "pairs", "size", "target", "version")

    def __init__(self) -> None:
        self.method = ""
        self.target = ""
        self.version = (1, 1)
        self.pairs: list[tuple[bytes, bytes]] = []
        self.fields: dict[str, str] = {}
        self.keep_alive = False
        self.length = 0
        self.content: bytes | bytearray = b""
        self.size = 0
        self.over = False
        self.broken = False

    def body(self) -> bytes:
        return bytes(self.content)
