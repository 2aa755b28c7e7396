"""Divides the file descriptors that this process may open among clients, upstreams and operators.

A client's connection needs one and its upstream's another. Where more clients are let in than there are descriptors for,
none of them is served: each waits for an upstream connection that cannot be opened. So the number of clients is bounded by
what there is, and some descriptors are kept for the rest: stores, the admin port, and clients that are being refused.
"""

import resource
from contextlib import suppress

import msgspec


class ConnectionLimits(msgspec.Struct, frozen=True):
    """Connections at a time: `clients` of the API, `operators` of the admin port, `refused` that are told so.

    `idle`: connections to all upstreams that are kept for later calls.
    """

    clients: int
    operators: int
    refused: int
    idle: int


def raise_limit() -> None:
    """Raise the soft limit of open files to the hard one, as far as the system lets us."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS: the hard limit is infinite, and cannot be had
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def limit_of_files() -> int:
    """The soft limit of open files as it is."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 30


def places(limit: int, max_connections: int) -> ConnectionLimits:
    """Divides `limit` descriptors.

    A quarter of them, 1024 at most, is kept for what is not a client's or an upstream's. Of the rest each client takes two,
    its own and its upstream's, and at least a ninth is for idle connections: to any upstream, while calls go to another.
    """
    kept = min(limit // 4, 1024)
    beside = max(1, kept // 4)
    clients = max(1, min(max_connections, (limit - kept) * 4 // 9))
    return ConnectionLimits(clients, min(max_connections, beside), beside, max(1, limit - kept - 2 * clients))
