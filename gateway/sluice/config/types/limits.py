"""Limits and budgets: of callers, tenants, teams, aliases, end users, and of everybody together."""

from typing import Annotated, Literal

from msgspec import Meta

from sluice.config.types.values import AliasName, Count, Name, Section
from sluice.config.units import Rate, Seconds, Secret


class Limit(Section, frozen=True):
    """A token bucket: `rate` refills it, `burst` is its capacity (default: one window's worth: 500 of
    500/min, at least 1)."""

    rate: Rate  # how fast the bucket refills, such as 10/s or 500/min
    burst: Annotated[float, Meta(gt=0, le=1 << 34)] | None = (
        None  # how much it holds; default: one window's worth
    )

    @property
    def capacity(self) -> float:
        return self.burst if self.burst is not None else max(1.0, self.rate * self.rate.window)


MAX_BUDGET = 10**9
"""US dollars. A budget of more is none."""


class Budget(Section, frozen=True):
    """US dollars per calendar day, week (from Monday) and month, in UTC. From `soft` (a share) on callers are
    warned."""

    day: Annotated[float, Meta(gt=0, le=MAX_BUDGET)] | None = None  # US dollars a day
    week: Annotated[float, Meta(gt=0, le=MAX_BUDGET)] | None = None  # US dollars a week, from Monday
    month: Annotated[float, Meta(gt=0, le=MAX_BUDGET)] | None = None  # US dollars a month
    soft: Annotated[float, Meta(gt=0, le=1)] = 0.8  # the share from which on callers are warned


class CallLimits(Section, frozen=True):
    """Limits of calls: their number, tokens (input and output), US dollars, streams at a time. Several
    windows each, all hold.

    `weight`: the share of a key in the queue of an alias that has one.
    """

    requests: Limit | tuple[Limit, ...] = ()  # calls, in one or several windows
    tokens: Limit | tuple[Limit, ...] = ()  # input and output, reserved before and settled after
    money: Limit | tuple[Limit, ...] = ()  # US dollars, reserved before and settled after
    streams: Count | None = None  # calls at a time
    budget: Budget | None = None  # US dollars by the calendar
    weight: Annotated[float, Meta(gt=0, le=10**6)] = 1.0  # the share in an alias's queue


class KeyLimits(CallLimits, frozen=True):
    """Limits of a caller: of everything, and in `aliases` of single ones, whose limits hold beside those of
    everything.

    The alias's own name decides, or the name that the caller gave where a wildcard answers it; else the
    longest name here that ends in * and covers it.
    """

    aliases: dict[
        AliasName, CallLimits
    ] = {}  # of one alias, or of all names that one with * at its end covers


def windows_of(limit: Limit | tuple[Limit, ...]) -> tuple[Limit, ...]:
    return (limit,) if isinstance(limit, Limit) else limit


class Queue(Section, frozen=True):
    """A queue in place of an immediate 429: calls wait for up to `timeout`, with at most `size` others,
    fairly by key and its weight."""

    size: Count = 100  # calls that wait at most
    timeout: Seconds = Seconds(10)  # how long one waits at most


class Tenant(Section, frozen=True):
    """Limits of all keys of one tenant together."""

    limits: CallLimits = CallLimits()  # what all its keys may take together
    team: Name | None = None  # the team that it belongs to, whose limits hold beside its own; null: none


class Team(Section, frozen=True):
    """Limits of all tenants of one team, and of the teams below it, together."""

    limits: CallLimits = CallLimits()  # what all of them may take together
    parent: Name | None = None  # the team above it, whose limits hold, too; null: none


EndUserSource = Annotated[
    str,
    Meta(
        pattern=r"^(?:body|token|header:[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64})\Z",
        description="body, token, or header:NAME, such as header:x-user-id",
    ),
]


class EndUsers(CallLimits, frozen=True, kw_only=True):
    """Limits of each person that a tenant's keys act for, by all keys of the tenant together.

    `source`: where its name is, the first one that has any. `body`: OpenAI's `user` or `safety_identifier`,
    Anthropic's `metadata.user_id`; `header:NAME`; `token`: the claim `jwt.claims.user`, or the session prefix
    of a page's token.
    """

    source: tuple[EndUserSource, ...] = (
        "body",
    )  # where the name is read: body, token, header:NAME; the first decides
    missing: Literal["allow", "refuse"] = (
        "allow"  # a call that names nobody: only the other limits hold, or 400
    )
    most: Annotated[int, Meta(ge=1, le=100_000)] = (
        10_000  # of one tenant, in each process; further ones share one's limits
    )


class Limits(Section, frozen=True):
    """`store`: "memory", "shared:PATH" (workers of one host) or a URL of Redis: redis://, rediss://, unix://,
    where Sentinel chooses the server redis+sentinel://host:port,host:port/service/db, of a cluster
    redis+cluster://host:port,host:port; with ?timeout=250ms where it is far away.

    `address`: per client address, strangers included; null: none. Behind a proxy it needs
    `server.trusted_proxies`. `overall`: all calls together. `output_tokens`: what is reserved for an answer
    where the caller sets no maximum.

    When the store does not answer: `open` counts in this process, with the limits divided by `replicas`;
    `closed` refuses.
    """

    store: Secret = Secret("memory")  # memory, shared:PATH, or a redis:// URL
    address: Limit | None = None  # of one client address; null: none
    overall: CallLimits = CallLimits()  # of everybody together
    end_users: EndUsers | None = None  # of each person that a tenant's keys act for; null: none
    output_tokens: Count = 1024  # tokens reserved for a call that sets no maximum
    budget_header: bool = False  # answers say what is left of the caller's budget: x-sluice-budget-remaining
    when_down: Literal["open", "closed"] = "open"  # count in this process, or refuse, while the store is down
    replicas: Annotated[int, Meta(ge=1, le=10_000)] = (
        1  # gateways that share the limits while the store is down
    )
    prefix: Name = "sluice"  # of the keys in Redis
