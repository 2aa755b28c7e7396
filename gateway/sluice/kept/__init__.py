"""Responses that callers want kept (`store` of OpenAI's Responses API), behind one protocol: memory, sqlite,
redis, postgres.

Each belongs to a tenant, and nobody else can tell that it is there. They are forgotten after a time.
One test suite for all.
"""

from typing import Protocol

from sluice.model.kept import KeptResponse
from sluice.storage import Reason


class ResponsesFailed(OSError):
    """The store did not answer, or with an error, or what it has cannot be decrypted. `reason` as in
    `sluice.storage`."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class ResponseStore(Protocol):
    async def put(self, tenant: str, kept: KeptResponse) -> None:
        """Keep a response; one of the same id is replaced."""
        ...

    async def get(self, tenant: str, id: str) -> KeptResponse | None: ...

    async def holder(self, tenant: str, item: str) -> KeptResponse | None:
        """The response whose output has the item of this id."""
        ...

    async def delete(self, tenant: str, id: str) -> bool:
        """Forget a response. Returns whether it was there."""
        ...

    async def delete_of(self, tenant: str) -> int:
        """Forget all responses of a tenant: how many there were. What was done when it fails halfway stays
        done."""
        ...

    async def ids(self, tenant: str, after: str, limit: int) -> tuple[list[str], str]:
        """Some `limit` ids of a tenant's responses behind `after`; and what the next ones come behind.

        "" is what the first come behind, and what follows the last. There may be none though others follow.
        Raises ValueError where `after` is none of ours.
        """
        ...

    async def forget(self) -> bool:
        """Delete some of those that are too old: no call finds them any more. Returns whether there may be
        more. Called now and then, beside the calls."""
        ...

    async def close(self) -> None: ...
