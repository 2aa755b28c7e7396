"""Whose request it is, by network address: the connection's own, or what trusted proxies say of it.

`X-Forwarded-For` is read from the right: each hop is believed only if the one before it is a configured proxy, so
that no caller can choose its own address. IPv6 callers are one per /64, the smallest network that one of them has.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

MAX_HOPS = 32


def client_addresses(trusted_proxies: Sequence[str]) -> Callable[[str, Mapping[str, str]], str]:
    """A function (peer, headers) -> the client's address as text; "unknown" where there is none."""
    networks = [ip_network(network) for network in trusted_proxies]

    @lru_cache(maxsize=4096)
    def known(text: str) -> tuple[str, bool]:
        address = _parse(text)
        if address is None:
            return "unknown", False
        trusted = any(address in network for network in networks if network.version == address.version)
        return _bucket(address), trusted

    def address_of(peer: str, headers: Mapping[str, str]) -> str:
        address, trusted = known(peer) if peer else ("unknown", bool(networks))
        if not trusted:
            return address
        for hop in reversed(headers.get("x-forwarded-for", "").split(",")[-MAX_HOPS:]):
            found, trusted = known(hop.strip())
            if found == "unknown":
                return address
            address = found
            if not trusted:
                return address
        return address

    return address_of


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    text = text.strip("[]") if text.startswith("[") and text.endswith("]") else text
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _bucket(address: IPv4Address | IPv6Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return str(ip_network((int(address) >> 64 << 64, 64)))
