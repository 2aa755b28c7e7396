"""Streams that can be resumed: what was said is kept in a journal, whoever lost its connection reads on from there.

A stream's lines or frames are numbered from 0. One process writes a journal (`Journal`, opened by `Journals.open`); any
process may read it, any number of times at once, each reader at its own pace: it holds no more than one `Batch`.
Stores: `memory` (one process) and `redis` (all). One test suite for both.

A stream that grows beyond the store's bound, or whose store fails, goes on for its client but is `lost` to resumers.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

import msgspec

MAX_STREAM = 8 << 20
"""Bytes of one stream that are kept."""
BATCH = 64 << 10
"""Bytes that a reader is given at once, unless one frame alone is longer."""


class Head(msgspec.Struct, frozen=True):
    """`owner` may read it, `frontend` is its dialect; `heartbeat` in seconds (0: none), `window` in seconds after its end."""

    owner: str
    frontend: str
    heartbeat: float
    window: float


class Found(msgspec.Struct, frozen=True):
    """How a stream stands: the number of its newest frame (-1: none yet), and whether more can come."""

    head: Head
    newest: int = -1
    ended: bool = False
    lost: bool = False


class Batch(msgspec.Struct, frozen=True):
    """Whole frames, in order; none where nothing came in time. `last`: nothing follows."""

    data: bytes
    last: bool = False


class Journal(Protocol):
    """The writer's side of one stream. Nothing here waits or raises."""

    lost: bool  # it cannot be resumed any more; appending has no effect

    def append(self, frames: Sequence[bytes], *, last: bool = False) -> None:
        """The next frames. `last` ends the stream; it can be read for `window` seconds from then on."""
        ...

    def close(self) -> None:
        """Nothing more will come. Readers of a stream that has not ended are told that it was cut."""
        ...

    @property
    def unread(self) -> float:
        """Seconds since somebody was reading; 0.0 while somebody is, infinite where nobody ever was."""
        ...


class Journals(Protocol):
    async def open(self, stream: str, head: Head) -> Journal:
        """A new stream, which can be found from now on. Where the store fails, the journal is `lost` from the start."""
        ...

    async def find(self, stream: str) -> Found | None:
        """None: there is none, or no more. Raises Unavailable where the store fails."""
        ...

    def read(self, stream: str, after: int, patience: float | None) -> AsyncGenerator[Batch, None]:
        """What follows frame `after` (-1: everything), waiting for more until the last batch.

        An empty batch after each `patience` seconds without news. Raises NotResumable
        where the rest cannot be had. To be closed by who reads (`contextlib.aclosing`).
        """
        ...

    async def close(self) -> None: ...
