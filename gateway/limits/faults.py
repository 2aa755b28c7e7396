"""How a bucket store fails, whoever keeps the buckets."""

from gateway.errors import Unavailable
from gateway.storage import Reason


class StoreFailed(Unavailable):
    """The store did not decide, or nobody knows whether it did. `reason` says why (`gateway.storage`)."""

    def __init__(self, reason: Reason) -> None:
        super().__init__("The limits cannot be checked now")
        self.reason: Reason = reason
