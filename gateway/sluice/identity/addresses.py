"""Determines the client's network address: the connection's own, or the one that trusted proxies report.

`X-Forwarded-For`, or `Forwarded` (RFC 7239), is read from the right: each hop is believed only if the one
before it is a configured proxy, so that no caller can choose its own address. A hop may have a port, brackets
and an IPv6 zone. If a header cannot be parsed, or the two differ (one of them is the caller's then), the
connection's own address counts. IPv6 addresses count per /64, the smallest network that a caller has.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

MAX_HOPS = 32
MAX_HOP_LENGTH = 128
UNKNOWN = "unknown"
X_FORWARDED_FOR, FORWARDED = "x-forwarded-for", "forwarded"
HEADERS = (X_FORWARDED_FOR, FORWARDED, "both")
"""The possible values of `unreadable`: the header, or "both" if they differ."""

_PORT = r"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
_ZONE = r"(?:%[A-Za-z0-9._~%-]+)?"
_NODE = re.compile(rf"\[([0-9A-Fa-f:.]+){_ZONE}\]{_PORT}|([0-9.]+){_PORT}|([0-9A-Fa-f:.]+){_ZONE}")
_PAIR = re.compile(r'[ \t]*([A-Za-z0-9!#$%&\'*+.^_`|~-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]+))[ \t]*')
_BETWEEN = re.compile(r"[ \t]*([;,]|\Z)")


def client_addresses(
    trusted_proxies: Sequence[str],
    unreadable: Callable[[str], object] = lambda header: None,
    unheeded: Callable[[str], object] = lambda header: None,
) -> Callable[[str, Mapping[str, str]], str]:
    """Returns a function (peer, headers) -> the client's address as text; "unknown" if there is none.

    `unreadable` gets one of HEADERS for each request whose header could not be parsed. `unheeded` gets, once,
    the header that was received although no proxies are configured: all callers behind a proxy then share one
    address.
    """
    networks = [ip_network(network) for network in trusted_proxies]
    watched = not networks

    @lru_cache(maxsize=4096)
    def known(text: str) -> tuple[str, bool]:
        address = _parse(text)
        if address is None:
            return UNKNOWN, False
        trusted = any(address in network for network in networks if network.version == address.version)
        return _bucket(address), trusted

    def client_of(peer: str, hops: Sequence[str]) -> str:
        """Returns the first hop from the right that is not a trusted proxy, or the leftmost one; UNKNOWN if
        one cannot be parsed."""
        address = peer
        for hop in reversed(hops[-MAX_HOPS:]):
            address, trusted = known(hop) if len(hop) <= MAX_HOP_LENGTH else (UNKNOWN, False)
            if not trusted:
                break
        return address

    def address_of(peer: str, headers: Mapping[str, str]) -> str:
        nonlocal watched
        address, trusted = known(peer) if peer else (UNKNOWN, bool(networks))
        if not trusted:
            if watched and (X_FORWARDED_FOR in headers or FORWARDED in headers):
                watched = False
                unheeded(X_FORWARDED_FOR if X_FORWARDED_FOR in headers else FORWARDED)
            return address
        found = {}
        if X_FORWARDED_FOR in headers:
            found[X_FORWARDED_FOR] = client_of(address, _listed(headers[X_FORWARDED_FOR]))
        if FORWARDED in headers:
            found[FORWARDED] = client_of(address, forwarded_for(headers[FORWARDED]))
        if not found:
            return address
        header, client = next(iter(found.items()))
        if len(set(found.values())) > 1:
            header, client = "both", UNKNOWN
        if client == UNKNOWN and address != UNKNOWN:
            unreadable(header)
            return address
        return client

    return address_of


def _listed(text: str) -> list[str]:
    return [hop for part in text.split(",") if (hop := part.strip(" \t"))]


def forwarded_for(text: str) -> list[str]:
    """Returns the `for` of each element of a Forwarded header (RFC 7239 4), "" for an element without one;
    [""] if the header is invalid."""
    hops: list[str] = []
    named: str | None = None
    at = pairs = 0
    while True:
        if pair := _PAIR.match(text, at):
            at = pair.end()
            pairs += 1
            if pair[1].lower() == "for":
                if named is not None:
                    return [""]
                named = pair[3] if pair[3] is not None else re.sub(r"\\(.)", r"\1", pair[2])
        between = _BETWEEN.match(text, at)
        if between is None:
            return [""]
        at = between.end()
        if between[1] != ";":
            if pairs:
                hops.append(named or "")
            named, pairs = None, 0
            if not between[1]:
                return hops


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    node = _NODE.fullmatch(text)
    if node is None:
        return None
    try:
        address = ip_address(node[1] or node[2] or node[3])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _bucket(address: IPv4Address | IPv6Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return str(ip_network((int(address) >> 64 << 64, 64)))
