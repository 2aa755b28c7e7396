"""The storage of conversations and responses: where, for how long, and whether it is encrypted."""

from typing import Literal

from sluice.config.types.values import Count, Section
from sluice.config.units import DataKeys, Seconds, Secret


class Responses(Section, frozen=True):
    """The store of answers of /v1/responses that callers want kept (`store`), and may refer to in their next
    request."""

    store: Secret | None = (
        None  # memory, sqlite:PATH, a redis:// or a postgresql:// URL, also that of `state`; null: no
    )
    keep: Seconds = Seconds(30 * 86400)  # how long one is kept


class Encryption(Section, frozen=True):
    """AES-256-GCM of the messages of conversations (`state`) and of kept responses (`responses`), in every
    store but memory.

    The first of `keys` encrypts, all decrypt: a new one is put before the others. Tenants, names of sessions,
    ids and times are not encrypted.
    """

    keys: DataKeys | None = None  # 32 random bytes each, in base64, one a line; null: no encryption
    plaintext: Literal["read", "refuse"] = "read"  # whether what was stored without encryption is read


class Retention(Section, frozen=True):
    """The time for which conversations (`state`) are kept. What is older or more is deleted once a minute,
    beside the calls.

    null: as the store keeps them: for ever; in Redis for 30 days, and 1,000 messages; in memory 10,000 of
    1,000 messages.
    """

    age: Seconds | None = None  # since the last turn; null: as the store
    messages: Count | None = None  # of a conversation, the latest: a turn has two; null: as the store
    conversations: Count | None = None  # of a tenant, those with the latest turns; null: as many as there are
