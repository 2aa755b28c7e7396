"""The addresses of one name: looked up once for all waiting callers, cached for `ttl` seconds, and used in
turns.

The system's resolver does not tell how long its answer is valid, so the name is looked up again after `ttl`
seconds, and at once if no address could be connected to. An address that failed, or was slower than the one
that won the race, is tried last for `penalty` seconds, so new connections begin with addresses that work.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from sluice.errors import UpstreamError

DNS_TTL = 60.0
PENALTY = 60.0
"""Seconds for which a failed address is tried last."""

ResolvedAddress = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]


class Addresses:
    """The addresses of one host and port. `name`: how errors call it. `clock` and `ttl` in seconds."""

    def __init__(
        self,
        host: str,
        port: int,
        name: str,
        clock: Callable[[], float],
        *,
        ttl: float = DNS_TTL,
        penalty: float = PENALTY,
    ) -> None:
        self._host, self._port, self._name = host, port, name
        self._clock = clock
        self._ttl = ttl
        self._penalty = penalty
        self._known: list[ResolvedAddress] = []
        self._expires = 0.0
        self._late: dict[ResolvedAddress, float] = {}
        self._lookup: asyncio.Task[list[ResolvedAddress]] | None = None

    async def ordered(self) -> list[ResolvedAddress]:
        """Returns all addresses, beginning with another one each time; those that have failed come last.
        Raises UpstreamError("dns_error").
        """
        addresses = self._known
        if not addresses or self._clock() >= self._expires:
            if self._lookup is None:
                self._lookup = asyncio.get_running_loop().create_task(self._look_up())
                self._lookup.add_done_callback(self._looked_up)
            addresses = await asyncio.shield(self._lookup)
        if self._known:  # another connection attempt may have failed meanwhile, and cleared them
            self._known = addresses[1:] + addresses[:1]
        return alternated(addresses) if not self._late else self._penalized(addresses)

    def failed(self, addresses: Iterable[ResolvedAddress]) -> None:
        """Notes that these lost the race: they come last for a while."""
        until = self._clock() + self._penalty
        for address in addresses:
            self._late[address] = until

    def forget(self) -> None:
        """Clears the addresses: none could be connected to, so the name is looked up again."""
        self._known = []

    def _penalized(self, addresses: list[ResolvedAddress]) -> list[ResolvedAddress]:
        now = self._clock()
        self._late = {
            address: until for address, until in self._late.items() if until > now and address in addresses
        }
        late = self._late
        good = [address for address in addresses if address not in late]
        return alternated(good) + sorted(
            (address for address in addresses if address in late), key=late.__getitem__
        )

    async def _look_up(self) -> list[ResolvedAddress]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                self._host, self._port, type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError) as error:
            raise UpstreamError("dns_error", f"The name of {self._name} could not be resolved") from error
        if not found:
            raise UpstreamError("dns_error", f"The name of {self._name} has no address")
        return list(found)

    def _looked_up(self, lookup: "asyncio.Task[list[ResolvedAddress]]") -> None:
        self._lookup = None
        if not lookup.cancelled() and lookup.exception() is None:
            self._known = lookup.result()
            self._expires = self._clock() + self._ttl


def host_and_port(text: str, port: int) -> tuple[str, int]:
    """Parses "host:port" or "host" into host and port (`port` if it has none); IPv6 addresses are in
    brackets. Raises ValueError."""
    expected = "expected host:port, such as 10.0.0.7:8000 or [fd00::7]:8000"
    try:
        url = urlsplit(f"//{text}")
        own = url.port
    except ValueError:
        raise ValueError(expected) from None
    host = url.hostname
    if not host or url.netloc != text or "@" in text or own == 0 or not text.isprintable() or " " in text:
        raise ValueError(expected)
    return host, own or port


def joined(host: str, port: int) -> str:
    """Returns host:port as it is shown to people."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def alternated(addresses: list[ResolvedAddress]) -> list[ResolvedAddress]:
    """Returns the addresses with alternating families, beginning with the first one's (RFC 8305, 4)."""
    families: dict[int, list[ResolvedAddress]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    if len(families) < 2:
        return addresses
    longest = max(map(len, families.values()))
    return [family[at] for at in range(longest) for family in families.values() if at < len(family)]
