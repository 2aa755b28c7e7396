"""Accepts connections from a listening socket, a few in each turn of the event loop.

The event loops' own servers accept everything that waits, and exhaust the descriptors with it (libuv then
closes connections silently; asyncio stops for a second). This one accepts connections one by one, pauses when
there are no descriptors, and at the end empties its queue: connections that the kernel has accepted for us
are served, not reset.
"""

import asyncio
import errno
import socket
from collections.abc import Callable

CONNECTIONS_PER_TURN = 32
"""Connections per turn, so that those being served have their turns in between."""
BACKLOG = 4096
REST = 0.1
"""Seconds of a pause when there is no descriptor or no memory for another connection."""
_STARVED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """Starts accepting at once. `take` gets every connection; `starved` gets the error if none could be
    accepted. Raises OSError.

    `listening` is bound and non-blocking; it is closed by `finish`, and by `close`. `address`: host
    and port, as bound; the path of a Unix socket, and 0.
    """

    def __init__(
        self,
        listening: socket.socket,
        take: Callable[[socket.socket], None],
        starved: Callable[[OSError], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._take = take
        self._starved = starved
        self._resting: asyncio.TimerHandle | None = None
        self.listening = listening
        name = listening.getsockname()
        self.address: tuple[str, int] = name[:2] if isinstance(name, tuple) else (name, 0)
        listening.listen(BACKLOG)
        self._loop.add_reader(listening, self._accept, CONNECTIONS_PER_TURN)

    def finish(self) -> None:
        """Accepts the connections that wait, and stops."""
        if self.listening.fileno() >= 0:
            self._accept(BACKLOG)
            self.close()

    def close(self) -> None:
        """Stops at once. Idempotent."""
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        if self.listening.fileno() >= 0:
            self._loop.remove_reader(self.listening)
            self.listening.close()

    def _accept(self, most: int) -> None:
        for _ in range(most):
            try:
                accepted, _address = self.listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _STARVED:
                    self._starved(error)
                    self._rest()
                    return
                continue  # an error of this connection alone: it was closed meanwhile (accept(2))
            self._take(accepted)

    def _rest(self) -> None:
        """Pauses: the socket stays readable, so the loop would otherwise spin."""
        if self._resting is None:
            self._loop.remove_reader(self.listening)
            self._resting = self._loop.call_later(REST, self._rested)

    def _rested(self) -> None:
        self._resting = None
        self._loop.add_reader(self.listening, self._accept, CONNECTIONS_PER_TURN)
