"""Limits and budgets of callers, tenants, teams, aliases, end users, and of all callers together."""

from typing import Annotated, Literal

from msgspec import Meta

from sluice.config.types.values import AliasName, Count, Name, Section
from sluice.config.units import Rate, Seconds, Secret


class Limit(Section, frozen=True):
    """A token bucket: `rate` refills it, `burst` is its capacity (default: as much as one window of the rate,
    which is 500 for 500/min; at least 1)."""

    rate: Rate  # how fast the bucket refills, such as 10/s or 500/min
    burst: Annotated[float, Meta(gt=0, le=1 << 34)] | None = (
        None  # the capacity of the bucket; default: one window's worth
    )

    @property
    def capacity(self) -> float:
        return self.burst if self.burst is not None else max(1.0, self.rate * self.rate.window)


MAX_BUDGET = 10**9
"""The largest budget, in US dollars."""


class Budget(Section, frozen=True):
    """US dollars per calendar day, week (from Monday) and month, in UTC. From `soft` (a share) on callers are
    warned."""

    day: Annotated[float, Meta(gt=0, le=MAX_BUDGET)] | None = None  # US dollars a day
    week: Annotated[float, Meta(gt=0, le=MAX_BUDGET)] | None = None  # US dollars a week, from Monday
    month: Annotated[float, Meta(gt=0, le=MAX_BUDGET)] | None = None  # US dollars a month
    soft: Annotated[float, Meta(gt=0, le=1)] = 0.8  # the share from which on callers are warned


class CallLimits(Section, frozen=True):
    """Limits of calls: their number, tokens (input and output), US dollars, and calls at the same time. Where
    several windows are given, all of them apply.

    `weight`: the share of a key in the queue of an alias, if it has a queue.
    """

    requests: Limit | tuple[Limit, ...] = ()  # calls, in one or several windows
    tokens: (
        Limit | tuple[Limit, ...]
    ) = ()  # input and output tokens, reserved before a call and settled after it
    money: Limit | tuple[Limit, ...] = ()  # US dollars, reserved before a call and settled after it
    streams: Count | None = None  # most calls at the same time
    budget: Budget | None = None  # US dollars per calendar period
    weight: Annotated[float, Meta(gt=0, le=10**6)] = 1.0  # the share of a key in an alias's queue


class KeyLimits(CallLimits, frozen=True):
    """Limits of a caller: for all its calls, and in `aliases` for those to single aliases, which apply in
    addition.

    An entry of `aliases` applies if it is the name of the alias (for a wildcard alias: the name that the
    caller used); otherwise the longest entry that ends in * and matches that name.
    """

    aliases: dict[
        AliasName, CallLimits
    ] = {}  # limits of one alias, or of all names that match a name with * at its end


def windows_of(limit: Limit | tuple[Limit, ...]) -> tuple[Limit, ...]:
    return (limit,) if isinstance(limit, Limit) else limit


class Queue(Section, frozen=True):
    """A queue, instead of an immediate 429: at most `size` calls wait, each up to `timeout`, in an order that
    is fair by key and weight."""

    size: Count = 100  # most calls that wait
    timeout: Seconds = Seconds(10)  # the longest wait of a call


class Tenant(Section, frozen=True):
    """Limits of all keys of one tenant together."""

    limits: CallLimits = CallLimits()  # limits of all its keys together
    team: Name | None = None  # the team that it belongs to, whose limits apply as well; null: none


class Team(Section, frozen=True):
    """Limits of all tenants of one team, and of the teams below it, together."""

    limits: CallLimits = CallLimits()  # limits of all its tenants and teams together
    parent: Name | None = None  # the team above it, whose limits apply as well; null: none


EndUserSource = Annotated[
    str,
    Meta(
        pattern=r"^(?:body|token|header:[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64})\Z",
        description="body, token, or header:NAME, such as header:x-user-id",
    ),
]


class EndUsers(CallLimits, frozen=True, kw_only=True):
    """Limits of each end user of a tenant, whichever of the tenant's keys is used.

    `source`: where the end user's name is read; the first one that has a value counts. `body`: OpenAI's
    `user` or `safety_identifier`, Anthropic's `metadata.user_id`; `header:NAME`; `token`: the claim
    `jwt.claims.user`, or the session prefix of a browser token.
    """

    source: tuple[EndUserSource, ...] = (
        "body",
    )  # where the name is read: body, token, header:NAME; the first one that has a value counts
    missing: Literal["allow", "refuse"] = (
        "allow"  # calls that name nobody: only the other limits apply, or they get a 400
    )
    most: Annotated[int, Meta(ge=1, le=100_000)] = (
        10_000  # end users of a tenant with own limits, in each process; the others share those of one
    )


class Limits(Section, frozen=True):
    """Where limits are counted, and limits that do not belong to single callers.

    `store`: "memory", "shared:PATH" (workers of one host) or a URL of Redis: redis://, rediss://, unix://;
    with Sentinel redis+sentinel://host:port,host:port/service/db, for a cluster
    redis+cluster://host:port,host:port. Append ?timeout=250ms if it is far away.

    `address`: the limit of each client address, also without a valid key. Behind a proxy it needs
    `server.trusted_proxies`. `overall`: limits of all calls together. `output_tokens`: tokens reserved for an
    answer if the caller sets no maximum.

    `when_down`: while the store does not answer, `open` counts in each process, with the limits divided by
    `replicas`; `closed` refuses calls.
    """

    store: Secret = Secret("memory")  # memory, shared:PATH, or a redis:// URL
    address: Limit | None = None  # limit of each client address; null: none
    overall: CallLimits = CallLimits()  # limits of all calls together
    end_users: EndUsers | None = None  # limits of each end user of a tenant's keys; null: none
    output_tokens: Count = 1024  # tokens reserved for the answer of a call that sets no maximum
    budget_header: bool = (
        False  # whether answers have the rest of the caller's budget in x-sluice-budget-remaining
    )
    when_down: Literal["open", "closed"] = (
        "open"  # whether calls are counted in this process, or refused, while the store is down
    )
    replicas: Annotated[int, Meta(ge=1, le=10_000)] = (
        1  # by how many the limits are divided while the store is down
    )
    prefix: Name = "sluice"  # prefix of the keys in Redis
