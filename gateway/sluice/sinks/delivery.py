"""The interface between a spool and the sender of its batches."""

from types import TracebackType
from typing import Literal, Protocol, Self

import msgspec

Outcome = Literal["delivered", "refused", "again"]
"""refused: it was understood, and will always be refused. again: it may be accepted later."""


class Delivered(msgspec.Struct, frozen=True):
    """The result of sending a batch. `reason`: why it was not accepted (a status, an error's name).
    `refused`: how many records of a delivered batch were not accepted. `wait`: seconds for which the sink
    wants no requests."""

    outcome: Outcome
    reason: str = ""
    refused: int = 0
    wait: float = 0.0


class RecordBatch(msgspec.Struct, frozen=True):
    """Records as JSON lines. `name` is unique and stays the same when it is sent again; `at`: seconds since
    the epoch."""

    name: str
    at: float
    lines: list[bytes]

    __repr__ = object.__repr__

    @property
    def body(self) -> bytes:
        return b"\n".join(self.lines) + b"\n"


class Delivery(Protocol):
    """Sends batches to a sink. `deliver` raises nothing."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    async def deliver(self, batch: RecordBatch) -> Delivered: ...
