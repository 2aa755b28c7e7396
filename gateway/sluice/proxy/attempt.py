"""One attempt: a request to one target, as limits, usage, metrics and the log record it.

`sluice.proxy.reader` reads its response.
"""

import asyncio
from typing import Any, Protocol

import msgspec

from sluice.backends.protocol import Operation
from sluice.backends.transport import UpstreamResponse
from sluice.model.events import Usage
from sluice.proxy.relay import Relay
from sluice.proxy.target import Target

NO_USAGE = Usage()
"""The usage of an attempt that generated nothing."""


class Attempt(msgspec.Struct, eq=False):
    """`outcome` is of the closed set of `upstream_attempts_total`; times on the monotonic clock.

    `ended`: when the answer was complete, or else when the attempt was over; 0.0 until then. `usage` is what
    the provider reported; `used` the same, or an estimate from the text, or nothing where none came. `cost`:
    the price of `used` in US dollars; None if nothing was generated, or the target has no price.
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
    finish: str = ""  # the reason that the model finished for
    cost: float | None = None
    whole: Operation | None = (
        None  # the operation, if the upstream was asked for one document instead of a stream
    )
    provider_id: str = ""  # the provider's own id of the request
    picked: str = ""  # the endpoint that served it, if a picker chose that
    probe: int = 0  # the number of the health probe that this attempt is; 0: it is none

    @property
    def server(self) -> str:
        """The address of the server that was asked, if its upstream has several; else ""."""
        return self.target.pod.address if self.target.pod is not None else self.picked


class AnsweringAttempt(Protocol):
    """An attempt whose answer is being read (`sluice.proxy.reader.AnswerReader`).

    `task`: the attempt's own task, if two attempts race. `complete_at`: when the answer was complete, 0.0
    until it is.
    """

    attempt: Attempt
    response: UpstreamResponse
    relay: Relay
    task: "asyncio.Task[Any] | None"
    complete_at: float
