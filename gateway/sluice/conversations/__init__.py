"""History of each (tenant, sessionId), behind one protocol: memory, sqlite. One test suite for both."""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec


class Turn(msgspec.Struct, frozen=True, gc=False):
    """One message as history holds it. `created` in seconds since the epoch.

    `thoughts`: what the provider of an assistant's message wants to have back of its reasoning; JSON, "" where there is none.
    """

    role: Literal["user", "assistant"]
    content: str
    created: float
    interrupted: bool = False
    thoughts: str = ""


class Conversation(msgspec.Struct, frozen=True, gc=False):
    """`id` is opaque, unguessable and stable for its (tenant, session). Times in seconds since the epoch."""

    id: str
    tenant: str
    session: str
    created: float
    updated: float
    last_message: str = ""


class ConversationStore(Protocol):
    async def open(self, tenant: str, session: str) -> str:
        """The conversation's id: the one it has, or a new one (kept only once a turn is stored; until then
        the same id is given to every `open` of the same process)."""
        ...

    async def recent(self, id: str, limit: int) -> list[Turn]:
        """The last `limit` messages, oldest first."""
        ...

    async def append(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> None:
        """Store the messages of one turn together: all or none."""
        ...

    def append_now(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> bool:
        """`append` without a coroutine. False where the store would have to wait: then nothing was stored."""
        ...

    async def newest(self, limit: int) -> tuple[list[Conversation], int]:
        """The newest `limit` (by `updated`), and how many there are in all."""
        ...

    async def get(self, id: str) -> tuple[Conversation, list[Turn]] | None: ...

    async def close(self) -> None: ...
