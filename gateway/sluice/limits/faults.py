"""The error of every bucket store."""

from sluice.errors import Unavailable
from sluice.storage import Reason


class BucketStoreFailed(Unavailable):
    """The store did not decide, or it is unknown whether it did. `reason` is one of `sluice.storage.Reason`."""

    def __init__(self, reason: Reason) -> None:
        super().__init__("The limits cannot be checked now")
        self.reason: Reason = reason
