"""The protocols of systemd services: inherited sockets, readiness, the watchdog.

Both protocols consist of a few environment variables and datagrams (sd_listen_fds(3), sd_notify(3)), and
other supervisors use them, too. Without the variables nothing here does anything. The variables are removed
from the environment, so that programs which the gateway starts do not use them.
"""

import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress

from sluice.process.ports import CannotListen, Inherited

FIRST = 3
"""The first descriptor that is passed (SD_LISTEN_FDS_START)."""
NAMES = ("api", "admin")


def inherited_sockets(environ: MutableMapping[str, str], first: int = FIRST) -> Inherited:
    """Returns the sockets that the process was started with (LISTEN_FDS), if they are for this process
    (LISTEN_PID). Raises CannotListen.

    Their names (`FileDescriptorName=`) are `api` and `admin`; without these names the first is the API's and
    the second, if there is one, the admin port's.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isascii() or not count.isdigit() or len(count) > 4:
        return {}
    if not any(name in NAMES for name in names):
        names = list(NAMES[: int(count)])
    if len(names) != int(count) or not set(names) <= set(NAMES) or len(set(names)) < len(names):
        named = f"{count} sockets are passed by systemd, named {', '.join(names)}"
        raise CannotListen(f"{named}: expected one named api, and one named admin or none")
    return {name: _inherited(first + at, name) for at, name in enumerate(names)}


def _inherited(descriptor: int, name: str) -> socket.socket:
    try:
        passed = socket.socket(fileno=descriptor)
        if passed.type != socket.SOCK_STREAM or not passed.getsockopt(
            socket.SOL_SOCKET, socket.SO_ACCEPTCONN
        ):
            passed.detach()
            raise CannotListen(
                f"the socket that systemd passes as {name} is no listening stream socket (ListenStream=)"
            )
    except OSError as error:
        raise CannotListen(
            f"the socket that systemd passes as {name} cannot be used: {error.strerror}"
        ) from None
    passed.set_inheritable(False)
    passed.setblocking(False)
    return passed


class ServiceManager:
    """Reports the state of this process to the service manager (sd_notify). Sending never waits, and never
    fails.

    `beat_every`: seconds between calls of `alive`, half of the manager's watchdog timeout; None: it has no
    watchdog.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        interval, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        self._address = (
            "\0" + address[1:] if address.startswith("@") else address if address.startswith("/") else ""
        )
        self._socket: socket.socket | None = None
        self.beat_every: float | None = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            if interval.isascii() and interval.isdigit() and int(interval) and pid in ("", str(os.getpid())):
                self.beat_every = int(interval) / 2e6

    def ready(self) -> None:
        """Reports that the process serves, at first or again after `reloading`."""
        self._send("READY=1\nSTATUS=serving")

    def reloading(self) -> None:
        self._send(
            f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}\nSTATUS=following another configuration"
        )

    def stopping(self, seconds: float) -> None:
        """Reports that the process ends, and how long that may take: it extends the unit's
        TimeoutStopSec=."""
        self._send(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(seconds * 1e6)}\nSTATUS=draining")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        if self._socket is not None:
            with suppress(OSError):  # the manager's queue is full, or it has ended
                self._socket.sendto(text.encode(), self._address)
