"""Binds the two addresses that a process listens on, before it serves; or takes sockets that are bound
already.

Bound ports refuse connections; code that accepts from them calls `listen`. They may be passed to other
processes: the supervisor binds a pair for each worker and keeps it (see `supervisor.py`).

The file of a Unix socket remains when its process ends, and refuses connections like a closed port does; a
file that refuses connections is replaced. It is not removed at the end, because it may be a successor's by
then. To keep the socket of a starting process from being taken for an abandoned one, it listens as soon as it
is bound (connections wait until they are accepted), and a lock on a file beside it is held from the check of
the old one until then.

Workers whose supervisor was killed release their ports as soon as they notice, and end their streams. A
gateway that is started meanwhile waits for that, and only for that. It recognizes such workers by two marks,
which are names of Unix sockets in Linux's abstract namespace: one is held by every process of a gateway with
workers, the other by its supervisor only.
"""

import contextlib
import errno
import fcntl
import os
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256

import msgspec

from sluice.config.listening import address, unix_path
from sluice.config.types import Server
from sluice.server.acceptor import BACKLOG

_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL)
LOOK_AGAIN = 0.05
PORT_RELEASE_SECONDS = 30.0
"""Seconds that workers of a killed supervisor have to release a port."""
Inherited = Mapping[str, socket.socket]
"""Sockets that another process has bound for this one, `api` and `admin`; they replace the configured
addresses."""


class CannotListen(Exception):
    """An address is in use (`in_use`), or not one of this machine."""

    def __init__(self, text: str, *, in_use: bool = False) -> None:
        super().__init__(text)
        self.in_use = in_use


class Ports(msgspec.Struct, frozen=True):
    """The sockets of `server.listen` and `server.admin_listen`."""

    api: socket.socket
    admin: socket.socket

    def close(self) -> None:
        self.api.close()
        self.admin.close()


class Marks(msgspec.Struct, frozen=True):
    """The descriptors of the two marks; -1: another process has the mark. A mark is held until its descriptor
    is closed."""

    everybody: int
    supervisor: int


def mark_ports(server: Server) -> Marks:
    """Marks the ports as a supervisor's; its workers inherit `everybody`."""
    where = _where(server)
    return Marks(_mark(f"everybody/{where}"), _mark(f"supervisor/{where}"))


def _where(server: Server) -> str:
    """Returns the port or, because names are short, a digest of the Unix socket's path."""
    path = unix_path(server.listen)
    return (
        str(address(server.listen)[1])
        if path is None
        else sha256(os.path.abspath(path).encode()).hexdigest()[:32]
    )


def _mark(name: str) -> int:
    """Returns a descriptor that holds the name, or -1 if another process holds it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mark:
        try:
            mark.bind(f"\0sluice/{name}")
        except OSError:
            return -1
        return mark.detach()


def _is_marked(name: str) -> bool:
    if (found := _mark(name)) >= 0:
        os.close(found)
    return found < 0


def is_left_over(server: Server) -> bool:
    """Returns whether the processes on the port are workers without a supervisor."""
    where = _where(server)
    return (
        sys.platform == "linux" and _is_marked(f"everybody/{where}") and not _is_marked(f"supervisor/{where}")
    )


def take_ports(
    server: Server, inherited: Inherited | None = None, *, left_over: Callable[[Server], bool] = is_left_over
) -> Ports:
    """Binds both addresses, which must be free, except those of `inherited` sockets. Raises CannotListen.

    Waits up to PORT_RELEASE_SECONDS while `left_over` returns that the processes which listen there are about to
    stop.
    """
    deadline = time.monotonic() + PORT_RELEASE_SECONDS
    while True:
        try:
            return _take_both(server, inherited or {}, shared=False)
        except CannotListen as error:
            if not error.in_use or not left_over(server) or time.monotonic() > deadline:
                raise
        time.sleep(LOOK_AGAIN)


def share_ports(server: Server, inherited: Inherited | None = None) -> Ports:
    """Binds both addresses beside other processes that have bound them by this function. Raises
    CannotListen."""
    return _take_both(server, inherited or {}, shared=True)


def share_port(server: Server) -> socket.socket:
    """Binds the API's address alone, like `share_ports`. Raises CannotListen."""
    return _take(server, "listen", shared=True)


def shares(bound: socket.socket) -> bool:
    """Returns whether more sockets can be bound to its address, so that the kernel distributes connections
    among them.

    A Unix socket, and an inherited one without SO_REUSEPORT, is shared by all workers: the next free one
    accepts.
    """
    return bound.family != socket.AF_UNIX and bound.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) != 0


def _take_both(server: Server, inherited: Inherited, *, shared: bool) -> Ports:
    admin = inherited["admin"].dup() if "admin" in inherited else _take(server, "admin_listen", shared=shared)
    try:
        api = inherited["api"].dup() if "api" in inherited else _take(server, "listen", shared=shared)
        return Ports(api, admin)
    except CannotListen:
        admin.close()
        raise


def _take(server: Server, option: str, *, shared: bool) -> socket.socket:
    given: str = getattr(server, option)
    path = unix_path(given)
    try:
        if path is not None:
            return _bound_at(path, int(server.socket_mode, 8))
        return _bound(*address(given), shared=shared)
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        other = "port" if path is None else "path"
        hint = (
            f": another process listens there; stop it, or give server.{option} another {other}"
            if in_use
            else ""
        )
        place = f": {error.filename}" if error.filename else ""
        text = f"cannot listen on {given} (server.{option}): {error.strerror or error}{place}{hint}"
        raise CannotListen(text, in_use=in_use) from None


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    """Binds an address. Raises OSError. An empty host is every interface, by IPv6 and IPv4; by IPv4 alone if
    the system has no IPv6.
    """
    if host:
        return _bound_as(socket.AF_INET6 if ":" in host else socket.AF_INET, host, port, shared=shared)
    try:
        return _bound_as(socket.AF_INET6, "", port, shared=shared)
    except OSError as error:
        if error.errno not in _NO_IPV6:
            raise
    return _bound_as(socket.AF_INET, "", port, shared=shared)


def _bound_as(family: socket.AddressFamily, host: str, port: int, *, shared: bool) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6 and not host:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


def _bound_at(path: str, mode: int) -> socket.socket:
    """Binds a Unix socket, and replaces one that nobody listens on. Raises OSError."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _locked(f"{path}.lock"):
            try:
                bound.bind(path)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                if not stat.S_ISSOCK(os.lstat(path).st_mode):
                    raise OSError(errno.EEXIST, "what stands there is no socket, and is left alone") from None
                if not _is_abandoned(path):
                    raise
                os.unlink(path)
                bound.bind(path)
            os.chmod(path, mode)  # nobody can connect before it listens
            bound.listen(BACKLOG)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Holds the lock of this file, which exists only meanwhile. Raises OSError: EADDRINUSE if another process
    holds it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, file):  # otherwise its previous holder has removed it since it was opened
                try:
                    yield
                finally:
                    os.unlink(path)
                return
        except BlockingIOError:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)) from None
        finally:
            os.close(file)


def _is_at(path: str, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


def _is_abandoned(path: str) -> bool:
    """Returns whether nobody listens on this Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # so that a full queue does not block the probe
        return probe.connect_ex(path) == errno.ECONNREFUSED
