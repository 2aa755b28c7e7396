"""Writers of a call's answer: the server's exchange, a whole answer, the journal of a resumable stream, or
nothing."""

from collections.abc import Sequence
from typing import Protocol

from sluice.backends.transport import UpstreamResponse


class ResponseWriter(Protocol):
    """The client's side of one call. Writing never blocks: a client that does not read pauses the attached
    upstream instead.

    `begun`: an answer has begun, so that an error can only be written within it. `last_write`: monotonic
    time.
    """

    begun: bool
    last_write: float

    @property
    def blocked_since(self) -> float:
        """Monotonic time since when the client does not read; 0.0 while it does."""
        ...

    def begin(self, content_type: str, headers: Sequence[tuple[str, str]]) -> None:
        """Sets the head of a 200. Nothing is sent before the first `write`."""
        ...

    def write(self, data: bytes, *, last: bool = False) -> None:
        """Writes a part of the body. `last` ends the body: the answer is complete."""
        ...

    def fail(self, data: bytes) -> None:
        """Writes the error that ends an answer which has begun, in the client's dialect, and ends the
        body."""
        ...

    def attach(self, upstream: UpstreamResponse | None) -> None:
        """Sets the upstream response that is paused while the client does not read."""
        ...

    def detach(self) -> None:
        """Notes that the client has left, and the call goes on without it."""
        ...

    def abort(self) -> None:
        """Closes the client's connection at once."""
        ...


class NullWriter:
    """Discards the answer: a shadow's."""

    def __init__(self) -> None:
        self.begun = False
        self.last_write = 0.0
        self.blocked_since = 0.0

    def begin(self, content_type: str, headers: Sequence[tuple[str, str]]) -> None:
        self.begun = True

    def write(self, data: bytes, *, last: bool = False) -> None:
        pass

    def fail(self, data: bytes) -> None:
        self.write(data, last=True)

    def attach(self, upstream: UpstreamResponse | None) -> None:
        pass

    def detach(self) -> None:
        pass

    def abort(self) -> None:
        pass
