"""One try at one target: what limits, usage, metrics and the log are to know of it. `sluice.proxy.reader` reads its answer."""

import asyncio
from typing import Any, Protocol

import msgspec

from sluice.backends.protocol import Operation
from sluice.backends.transport import UpstreamResponse
from sluice.model.events import Usage
from sluice.proxy.relay import Relay
from sluice.proxy.target import Target

NO_USAGE = Usage()
"""What an attempt used that generated nothing."""


class Attempt(msgspec.Struct, eq=False):
    """`outcome` is of the closed set of `upstream_attempts_total`; times on the monotonic clock.

    `ended`: when its answer was complete, or it was over; 0.0 until then.
    `usage` is what the provider reported; `used` the same, or an estimate from the text, or nothing where none came.
    `cost` is what that comes to in US dollars; None where nothing was generated, or the target has no price.
    """

    target: Target
    started: float
    ended: float = 0.0
    outcome: str = "abandoned"
    first_token: float | None = None
    usage: Usage | None = None
    used: Usage = NO_USAGE
    characters: int = 0
    model: str = ""
    finish: str = ""  # why its answer ended, as the model finished
    cost: float | None = None
    whole: Operation | None = None  # the upstream was to answer in one piece
    provider_id: str = ""  # the provider's own id of the request
    probe: int = 0  # its number among its target's, where it finds out whether the target is healthy again


class AnsweringAttempt(Protocol):
    """An attempt whose answer is coming (`sluice.proxy.reader.AnswerReader`).

    `task` is its own, where two attempts race. `complete_at`: when the answer was complete, 0.0 until it is.
    """

    attempt: Attempt
    response: UpstreamResponse
    relay: Relay
    task: "asyncio.Task[Any] | None"
    complete_at: float
