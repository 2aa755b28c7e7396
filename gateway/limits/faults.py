"""How a bucket store fails, whoever keeps the buckets."""

from typing import Literal

from gateway.errors import Unavailable

Reason = Literal["timeout", "connection", "reply"]


class StoreFailed(Unavailable):
    """The store did not decide. `reason`: no answer in time, no connection, or an answer that was an error.

    Only the first two say that the store is down; the last concerns one call and came at once.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__("The limits cannot be checked now")
        self.reason: Reason = reason
