"""Divides the file descriptors that this process may open among clients, upstreams and operators.

A client's connection needs one, and its upstream's another. With more clients than there are descriptors for,
none of them is served: each waits for an upstream connection that cannot be opened. So the number of clients
is bounded, and some descriptors are kept for stores, the admin port, and clients that are being refused.
"""

import resource
from contextlib import suppress

import msgspec


class ConnectionLimits(msgspec.Struct, frozen=True):
    """Maximum numbers of connections at a time.

    `clients`: of the API. `operators`: of the admin port. `refused`: clients that are being told that there
    are too many. `idle`: connections to all upstreams that are kept for later calls.
    """

    clients: int
    operators: int
    refused: int
    idle: int


def raise_limit() -> None:
    """Raises the soft limit of open files to the hard one, as far as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS: the hard limit is infinite, and cannot be set
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def limit_of_files() -> int:
    """Returns the soft limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 30


def places(limit: int, max_connections: int) -> ConnectionLimits:
    """Divides `limit` file descriptors among the kinds of connections.

    A quarter of them, 1024 at most, is reserved for everything but clients and upstreams. Of the rest, each
    client needs two (its own connection and its upstream's), and at least a ninth is for idle connections to
    upstreams that have no call at the moment.
    """
    kept = min(limit // 4, 1024)
    beside = max(1, kept // 4)
    clients = max(1, min(max_connections, (limit - kept) * 4 // 9))
    return ConnectionLimits(clients, min(max_connections, beside), beside, max(1, limit - kept - 2 * clients))
