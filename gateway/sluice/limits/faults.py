"""How a bucket store fails, whoever keeps the buckets."""

from sluice.errors import Unavailable
from sluice.storage import Reason


class StoreFailed(Unavailable):
    """The store did not decide, or nobody knows whether it did. `reason` says why (`sluice.storage`)."""

    def __init__(self, reason: Reason) -> None:
        super().__init__("The limits cannot be checked now")
        self.reason: Reason = reason
