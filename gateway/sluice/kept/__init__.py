"""Responses that callers want kept (`store` of OpenAI's Responses API), behind one protocol: memory, sqlite.

Each belongs to a tenant, and nobody else can tell that it is there. They are forgotten after a time.
One test suite for both.
"""

from typing import Protocol

from sluice.model.kept import KeptResponse


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

    async def close(self) -> None: ...
