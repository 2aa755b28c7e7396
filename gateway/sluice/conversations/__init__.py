"""History of each (tenant, sessionId), behind one protocol: memory, sqlite, redis. One test suite for all.

Stores that several hosts share also put the turns of a session in order (`SharedConversations`): a turn has a
*lease* of its session from before its history is read until its messages are stored. A lease that runs out
may be taken by another turn; then the first one's messages are refused (its *holder* is checked by whatever
stores them), so that no turn is stored behind one that did not know it.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from sluice.storage import Reason


class ConversationsFailed(OSError):
    """The store did not answer, or with an error: nobody knows whether it was done. `reason` as in
    `sluice.storage`."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class TurnSuperseded(Exception):
    """The lease had run out and another turn has begun since: nothing was stored."""


class Turn(msgspec.Struct, frozen=True, gc=False):
    """One message as history holds it. `created` in seconds since the epoch.

    `thoughts`: what the provider of an assistant's message wants to have back of its reasoning; JSON, ""
    where there is none.
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


class Retention(msgspec.Struct, frozen=True):
    """The bounds of what is kept. `age`: seconds since the last turn; `messages`: the latest of a
    conversation; `conversations`: of a tenant, those whose last turn is newest. None: no such bound."""

    age: float | None = None
    messages: int | None = None
    conversations: int | None = None


class Swept(msgspec.Struct, frozen=True):
    """The numbers that one step of a sweep has deleted; `more`: there may be more to delete or to look at
    now."""

    conversations: int = 0
    messages: int = 0
    more: bool = False


class Resealed(msgspec.Struct, frozen=True):
    """Messages that were encrypted anew; those that could not be decrypted and are as they were; and those that
    are left as they were for another reason: they, or their places, changed meanwhile."""

    messages: int = 0
    unreadable: int = 0
    left: int = 0


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

    async def delete(self, id: str) -> bool:
        """Forget a conversation with all its messages. False where there is none."""
        ...

    async def delete_of(self, tenant: str, prefix: str = "") -> int:
        """Forget all conversations of a tenant whose sessions begin with `prefix`: how many there were.

        What was done when it fails halfway stays done.
        """
        ...

    async def page(self, after: str, limit: int, tenant: str = "") -> tuple[list[Conversation], str]:
        """Some `limit` conversations, of one tenant or ("") of all, behind `after`; and what the next page
        comes behind.

        "" is what the first page comes behind, and what follows the last one. A page may be empty though
        others follow. A conversation that is there from the first page to the last is in one of them, or in
        two. Raises ValueError where `after` is none of ours.
        """
        ...

    async def messages(self, id: str, start: int, limit: int) -> list[Turn]:
        """At most `limit` messages in their order, without the `start` oldest."""
        ...

    async def reseal(self, id: str) -> Resealed:
        """Encrypt what is stored of a conversation by the first key, where it is not. Nothing where there are
        no keys."""
        ...

    async def sweep(self, retention: Retention, now: float) -> Swept:
        """One bounded step of deleting what is not to be kept. `now` in seconds since the epoch."""
        ...

    async def close(self) -> None: ...


class Lease(msgspec.Struct, frozen=True, gc=False):
    """The right to add the next turn to a session. `holder` is random, and no two turns have the same."""

    tenant: str
    session: str
    holder: str


class Begun(msgspec.Struct, frozen=True, gc=False):
    """Begins a turn. Returns the conversation's id and its last messages, oldest first."""

    id: str
    turns: list[Turn]


class SharedConversations(ConversationStore, Protocol):
    """A store that the gateways of several hosts share. Every call is bounded in time and may raise
    ConversationsFailed."""

    async def begin(self, lease: Lease, limit: int) -> Begun | None:
        """Take the lease, and read the last `limit` messages.

        None while another turn has it, or waits for it since longer. Asking has a place in the queue then,
        which is kept for WAITING seconds after each asking.
        """
        ...

    async def renew(self, lease: Lease) -> bool:
        """Hold it for LEASE seconds more. False where another turn has it by now."""
        ...

    async def finish(self, lease: Lease, id: str, turns: Sequence[Turn]) -> None:
        """Store the messages, all or none, and give the lease back.

        May be sent again until it is answered: they are stored once. Raises TurnSuperseded.
        """
        ...

    async def leave(self, lease: Lease) -> None:
        """Give the lease back, or the place in the queue for it. Harmless where it has neither."""
        ...

    async def prune(self) -> None:
        """Forget leases that ended long ago. Called once in a while."""
        ...


LEASE = 10.0
"""Seconds for which a lease is held without being renewed: so long a session waits for a gateway that was
killed."""
WAITING = 3.0
"""Seconds after which who no longer asks has lost its place in the queue for a lease."""
