"""Usage: calls, tokens and cost by day, key, tenant, alias and model. `ledger` counts; a store keeps the
sums.

Beside the rows of days there are rows of *dimensions*: the same sums, divided by one thing more, the hour of
the day (dimension "hour") or the value of a tag (dimension "tag:NAME"). Each dimension by itself adds up to
the rows of the day. A process counts in memory and sends a batch per second to its store, so a kill -9 loses
at most the last second. Each batch has a number, so that it is counted once even if it is sent again after an
unclear failure.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from sluice.storage import Reason

KEPT_DAYS = 400
HOUR = "hour"
"""The dimension whose values are the hours of a day in UTC, from "00" to "23"."""
TAG = "tag:"
"""The prefix of the dimensions of tags."""
BATCH = 500
"""Maximum rows in one batch, all of one day and one dimension."""


class Subject(NamedTuple):
    """The key of usage. `day` is 2026-11-25 (UTC). `model` is "upstream/model", empty if no target was tried.
    `value`: the dimension's value; "" in rows of days, and for calls without the tag."""

    day: str
    key: str
    tenant: str
    alias: str
    model: str
    value: str = ""


SUBJECT = Subject._fields[:-1]
"""The fields of rows of days. The value of a dimension may come from a caller, so it is never logged."""


class Figures(msgspec.Struct, gc=False):
    """Calls and those that ended in an error, under the target that answered; tokens and nano-dollars where
    they arose.

    `cached_input` is part of `input`, `reasoning` of `output`. `estimated`: attempts without tokens reported
    by the provider.
    """

    requests: int = 0
    errors: int = 0
    input: int = 0
    output: int = 0
    cached_input: int = 0
    reasoning: int = 0
    nanos: int = 0
    estimated: int = 0

    def add(self, other: "Figures") -> None:
        self.requests += other.requests
        self.errors += other.errors
        self.input += other.input
        self.output += other.output
        self.cached_input += other.cached_input
        self.reasoning += other.reasoning
        self.nanos += other.nanos
        self.estimated += other.estimated


Row = tuple[Subject, Figures]

MAX_EXACT = 1 << 53
"""The largest figure of a row: readers of JSON, Lua and SQLite's sums represent it exactly."""


def sound(row: Row) -> bool:
    """Returns whether a store can be expected to keep the row: its figures are whole numbers from 0 to
    MAX_EXACT, and its texts valid Unicode."""
    subject, figures = row
    if not all(type(value) is int and 0 <= value <= MAX_EXACT for value in msgspec.structs.astuple(figures)):
        return False
    try:
        "".join(subject).encode()
    except (UnicodeEncodeError, TypeError):
        return False
    return True


def legible(row: Row) -> bool:
    """Returns whether a row in a store is one of the gateway's; another program may have written it. Reports
    leave out other rows."""
    subject, figures = row
    return all(type(text) is str for text in subject) and all(
        type(value) is int for value in msgspec.structs.astuple(figures)
    )


class UsageBatch(msgspec.Struct, frozen=True):
    """Rows of one day, to be added.

    The batches of a `writer` are numbered upwards and arrive in that order. `dimension`: the rows' dimension;
    "": rows of the day. `days`: for how long a store with expiry keeps them.
    """

    writer: str
    number: int
    day: str
    rows: Sequence[Row]
    dimension: str = ""
    days: int = KEPT_DAYS


class UsageFailed(Exception):
    """The store failed, or it is unknown whether it did. `reason` is one of `sluice.storage.Reason`."""

    def __init__(self, text: str, reason: Reason = "reply") -> None:
        super().__init__(text)
        self.reason: Reason = reason


class RowRefused(UsageFailed):
    """The store works, but can never keep one of the batch's rows. Nothing of the batch was added."""


class UsageStore(Protocol):
    """Stores usage. One test suite covers all implementations. Every method raises UsageFailed."""

    async def add(self, batch: UsageBatch) -> None:
        """Adds the batch once, however often it is sent. Raises RowRefused if sending it again cannot
        help."""
        ...

    async def of_day(self, day: str, dimension: str = "") -> Sequence[Row]:
        """Returns the rows of one day, or of one of its dimensions."""
        ...

    async def prune(self, before: str, dimension: str = "") -> None:
        """Deletes the days before that one with all their dimensions, or only one dimension of them."""
        ...

    async def close(self) -> None: ...
