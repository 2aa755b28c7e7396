"""The storage of conversations and responses: where, for how long, and whether it is encrypted."""

from typing import Literal

from sluice.config.types.values import Count, Section
from sluice.config.units import DataKeys, Seconds, Secret


class Responses(Section, frozen=True):
    """The store for answers of /v1/responses: those of requests with `store`, which callers may refer to in
    their next request."""

    store: Secret | None = (
        None  # memory, sqlite:PATH, a redis:// or a postgresql:// URL, also that of `state`; null: nothing is stored
    )
    keep: Seconds = Seconds(30 * 86400)  # how long an answer is stored


class Encryption(Section, frozen=True):
    """AES-256-GCM encryption of messages of conversations (`state`) and of stored responses (`responses`), in
    every store but memory.

    The first of `keys` encrypts, and all of them decrypt: put a new key before the others. Tenants, names of
    sessions, ids and times are not encrypted.
    """

    keys: DataKeys | None = None  # keys of 32 random bytes in base64, one per line; null: no encryption
    plaintext: Literal["read", "refuse"] = "read"  # whether data that was stored without encryption is read


class Retention(Section, frozen=True):
    """How long, and how many, conversations (`state`) are kept. Once a minute a background task deletes the
    rest.

    null: the bounds of the store, which are: in Redis 30 days and 1,000 messages; in memory 10,000
    conversations of 1,000 messages; in other stores none.
    """

    age: Seconds | None = None  # most time since the last turn; null: as the store
    messages: Count | None = (
        None  # most messages of a conversation, the latest are kept; a turn has two; null: as the store
    )
    conversations: Count | None = (
        None  # most conversations of a tenant, those with the latest turns are kept; null: as the store
    )
