"""Resumable streams: a journal keeps what was sent, and a client that unresumable its connection continues
from there.

A stream's lines or frames are numbered from 0. One process writes a journal (`Journal`, opened by
`Journals.open`); any process may read it, any number of times at once, each reader at its own pace: it holds
no more than one `FrameBatch`. Stores: `memory` (one process) and `redis` (all). One test suite for both.

A stream that exceeds the store's bound, or whose store fails, continues for its client, but is `unresumable`.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

import msgspec

MAX_STREAM = 8 << 20
"""Bytes of one stream that are kept."""
BATCH = 64 << 10
"""Bytes of a batch, unless a single frame is longer."""


class StreamHead(msgspec.Struct, frozen=True):
    """`owner` may read it, `frontend` is its dialect; `heartbeat` in seconds (0: none), `window` in seconds
    after its end."""

    owner: str
    frontend: str
    heartbeat: float
    window: float


class Found(msgspec.Struct, frozen=True):
    """A stream's state: the number of its newest frame (-1: none yet), whether it ended, and whether it is
    not resumable."""

    head: StreamHead
    newest: int = -1
    ended: bool = False
    unresumable: bool = False


class FrameBatch(msgspec.Struct, frozen=True):
    """Complete frames, in order; empty if none came in time. `last`: nothing follows."""

    data: bytes
    last: bool = False


class Journal(Protocol):
    """The writer's side of one stream. Nothing here waits or raises."""

    unresumable: bool  # it cannot be resumed any more; appending has no effect

    def append(self, frames: Sequence[bytes], *, last: bool = False) -> None:
        """The next frames. `last` ends the stream; it can be read for `window` seconds from then on."""
        ...

    def close(self) -> None:
        """End writing. Readers of a stream that has not ended get an error: it was cut."""
        ...

    @property
    def unread(self) -> float:
        """Seconds since the last reader left; 0.0 while there is one, infinite if there never was."""
        ...


class Journals(Protocol):
    async def open(self, stream: str, head: StreamHead) -> Journal:
        """Create a stream, which can be found from now on. If the store fails, the journal is `unresumable`
        from the start."""
        ...

    async def find(self, stream: str) -> Found | None:
        """The stream's state; None if it does not exist or has expired. Raises Unavailable if the store
        fails."""
        ...

    def read(self, stream: str, after: int, patience: float | None) -> AsyncGenerator[FrameBatch, None]:
        """The frames after number `after` (-1: all), waiting for more until the last batch.

        Yields an empty batch after each `patience` seconds without a frame. Raises NotResumable if the rest
        is not available. The caller must close it (`contextlib.aclosing`).
        """
        ...

    async def close(self) -> None: ...
