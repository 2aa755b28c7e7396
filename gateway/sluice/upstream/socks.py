"""SOCKS 5 (RFC 1928), with a user and password where they are asked for (RFC 1929). Sans-io.

`conversation` is a generator: each step yields the bytes to send and the number of bytes to read, and is sent
those. It ends when the connection leads to the target; no byte beyond that is read.
"""

import socket
from collections.abc import Generator

MAX_CREDENTIAL = 255
"""Maximum bytes of a user or a password (RFC 1929, 2)."""
REPLIES = {
    1: "general failure", 2: "not allowed by its rules", 3: "the network is unreachable", 4: "the host is unreachable",
    5: "connection refused", 6: "the connection took too long", 7: "CONNECT is not supported",
    8: "this type of address is not supported",
}  # fmt: skip
"""The replies of RFC 1928, 6."""
_OPEN, _PASSWORD = 0, 2

Steps = Generator[tuple[bytes, int], bytes, None]


class SocksRefused(Exception):
    """The proxy refused; the text says why. `target`: it tried, and could not reach the target."""

    def __init__(self, text: str, *, target: bool = False) -> None:
        super().__init__(text)
        self.target = target


def conversation(host: str, port: int, user: str = "", password: str = "") -> Steps:
    """Yields the steps of a CONNECT to `host` (a name that the proxy looks up, or an address). Raises
    SocksRefused; ValueError for a name that is too long.
    """
    methods = bytes([_OPEN, _PASSWORD] if user else [_OPEN])
    version, method = yield bytes([5, len(methods)]) + methods, 2
    if version != 5:
        raise SocksRefused("does not speak SOCKS 5")
    if method == _PASSWORD and user:
        _, status = yield b"\x01" + _counted(user) + _counted(password), 2
        if status:
            raise SocksRefused("refused the user or the password")
    elif method != _OPEN:
        raise SocksRefused("takes none of our credentials" if user else "wants a user and a password")
    version, reply, _, kind = yield b"\x05\x01\x00" + _address(host) + port.to_bytes(2, "big"), 4
    if version != 5:
        raise SocksRefused("does not speak SOCKS 5")
    if reply:
        raise SocksRefused(f"refused: {REPLIES.get(reply, f'reply {reply}')}", target=reply in (3, 4, 5, 6))
    match kind:
        case 1:
            yield b"", 4 + 2
        case 4:
            yield b"", 16 + 2
        case 3:
            (length,) = yield b"", 1
            yield b"", length + 2
        case _:
            raise SocksRefused("answered with an unknown type of address")


def _counted(text: str) -> bytes:
    data = text.encode()
    return bytes([len(data)]) + data


def _address(host: str) -> bytes:
    for family, kind in ((socket.AF_INET, b"\x01"), (socket.AF_INET6, b"\x04")):
        try:
            return kind + socket.inet_pton(family, host.partition("%")[0])
        except OSError:
            pass
    name = host.encode("ascii")
    if len(name) > 255:
        raise ValueError("the name is too long for SOCKS 5")
    return b"\x03" + bytes([len(name)]) + name
