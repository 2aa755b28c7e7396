"""Responses that callers want kept (`store` of OpenAI's Responses API), behind one protocol: memory, SQLite,
Redis, PostgreSQL. One test suite covers all stores.

Each response belongs to a tenant; other tenants cannot find out that it exists. Responses are deleted after a
time.
"""

from typing import Protocol

from sluice.model.kept import KeptResponse
from sluice.storage import Reason


class ResponsesFailed(OSError):
    """The store did not answer, or answered with an error, or an entry cannot be decrypted. `reason` is one
    of `sluice.storage.Reason`."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class ResponseStore(Protocol):
    async def put(self, tenant: str, kept: KeptResponse) -> None:
        """Stores a response; one with the same id is replaced."""
        ...

    async def get(self, tenant: str, id: str) -> KeptResponse | None: ...

    async def holder(self, tenant: str, item: str) -> KeptResponse | None:
        """Returns the response whose output has the item with this id."""
        ...

    async def delete(self, tenant: str, id: str) -> bool:
        """Deletes a response. Returns whether it was there."""
        ...

    async def delete_of(self, tenant: str) -> int:
        """Deletes all responses of a tenant. Returns how many there were. If it fails halfway, the part that
        was done stays done."""
        ...

    async def ids(self, tenant: str, after: str, limit: int) -> tuple[list[str], str]:
        """Returns about `limit` ids of a tenant's responses after `after`, and the position after which the
        next page begins.

        The position of the first page is "", and so is the one after the last page. A page may be empty
        although others follow. Raises ValueError for an `after` that no page returned.
        """
        ...

    async def forget(self) -> bool:
        """Deletes some responses that are too old; calls do not find them any more. Returns whether there may
        be more. To be called now and then, beside the calls."""
        ...

    async def close(self) -> None: ...
