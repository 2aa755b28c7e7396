"""Restores budgets after a restart: their buckets are charged with what was spent in the current periods,
according to the usage."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from sluice.config.types import Budget, CallLimits, Config, Issuer, KeyLimits
from sluice.errors import Unavailable
from sluice.limits import BucketStore, Claim, Limit
from sluice.policies.budgets import PERIODS, budget_claims, budget_prefix, period_of
from sluice.policies.end_users import END_USER
from sluice.policies.scopes import KEY_ALIAS, TEAM, key_alias, named_alias, teams_above
from sluice.pricing.prices import BILLION
from sluice.usage import Row, Subject, UsageFailed, UsageStore

Owner = tuple[str, str]
"""Scope and name, as `budget_prefix` takes them."""
ALL = "all"
"""The only owner of scope `overall`."""
ROUNDING = 1e-8
"""US dollars, or the share of a budget, by which a full bucket may seem less than full because of rounding
(`sluice.limits.bucket`)."""


def opening_charges(
    rows: Iterable[Row], config: Config, wall: float, others: Mapping[str, KeyLimits] | None = None
) -> list[Claim]:
    """Returns the amounts spent of each budget in the periods around `wall` (seconds since the epoch), as
    claims to settle. `others`: the limits of keys that are not in the configuration, by the key's id."""
    budgets = Budgets(config, others or {})
    spans = {span.period: span for span in (period_of(period, wall) for period in PERIODS)}
    spent: dict[Owner, dict[str, int]] = {}
    for subject, figures in rows:
        if not figures.nanos:
            continue
        periods = [
            p for p, span in spans.items() if span.first.isoformat() <= subject.day < span.after.isoformat()
        ]
        for owner in budgets.owners(subject):
            amounts = spent.setdefault(owner, {})
            for period in periods:
                amounts[period] = amounts.get(period, 0) + figures.nanos
    charges = []
    for (scope, name), amounts in spent.items():
        budget = budgets.of(scope, name)
        if budget is None:  # its owner has no budget any more
            continue
        claims = budget_claims(budget_prefix(scope, name), budget, wall, scope=scope)
        periods = [period for period in PERIODS if getattr(budget, period) is not None]
        for period, claim in zip(periods, claims, strict=True):
            if period in amounts:
                charges.append(msgspec.structs.replace(claim, amount=amounts[period] / BILLION))
    return charges


def days_to_read(wall: float) -> list[str]:
    """Returns the past and present days of the current month and week."""
    first = min(period_of(period, wall).first for period in PERIODS)
    today = datetime.fromtimestamp(wall, UTC).date()
    return [(first + timedelta(number)).isoformat() for number in range((today - first).days + 1)]


async def reopen(
    buckets: BucketStore,
    usage: UsageStore,
    config: Config,
    wall: float,
    others: Mapping[str, KeyLimits] | None = None,
) -> None:
    """Charges new buckets. Those of a store that outlives the process (shared memory, Redis) have the amounts
    already.

    Of several processes that start at once, the one that takes the only unit of an auxiliary bucket does it.
    If the usage cannot be read now, budgets stay as they are. `others`: as for `opening_charges`.
    """
    if not Budgets(config, others or {}):
        return
    try:
        rows = [row for day in days_to_read(wall) for row in await usage.of_day(day)]
        for charge in opening_charges(rows, config, wall, others):
            [level] = (await buckets.take([msgspec.structs.replace(charge, amount=0.0)])).levels
            once = msgspec.structs.replace(
                charge, key=f"{charge.key}:opened", limit=Limit(1.0, 0.0), amount=1.0
            )
            untouched = charge.limit.capacity - level.remaining <= max(
                ROUNDING, charge.limit.capacity * ROUNDING
            )
            if untouched and (await buckets.take([once])).admitted:
                await buckets.settle([charge])
    except (UsageFailed, Unavailable):
        return


class Budgets:
    """The owners with a budget; false if there are none.

    `named`: all except subjects of JWTs, whose names are not known in advance. `others`: the limits of keys
    that are not in the configuration, by the key's id.
    """

    def __init__(self, config: Config, others: Mapping[str, KeyLimits]) -> None:
        keys = {key.id: key.limits for key in config.keys} | dict(others)
        limits: dict[Owner, CallLimits] = {
            **{("key", name): of for name, of in keys.items()},
            **{
                (KEY_ALIAS, key_alias(name, alias)): one
                for name, of in keys.items()
                for alias, one in of.aliases.items()
            },
            **{("tenant", name): tenant.limits for name, tenant in config.tenants.items()},
            **{(TEAM, name): team.limits for name, team in config.teams.items()},
            **{("alias", name): alias.limits for name, alias in config.aliases.items()},
            **{("upstream", name): upstream.limits for name, upstream in config.upstreams.items()},
            ("overall", ALL): config.limits.overall,
        }
        self.named = {owner: of.budget for owner, of in limits.items() if of.budget is not None}
        self._end_users = config.limits.end_users
        self._aliases = {name: of.aliases for name, of in keys.items() if of.aliases}
        self._teams = {
            name: [*teams_above(tenant, config.teams)]
            for name, tenant in config.tenants.items()
            if tenant.team
        }
        issuers = {f"jwt:{issuer.issuer}": _Issued.of(issuer) for issuer in config.jwt}
        self._issuers = {
            name: issued for name, issued in issuers.items() if issued.budget is not None or issued.aliases
        }

    def __bool__(self) -> bool:
        return bool(self.named or self._issuers)

    def of(self, scope: str, name: str) -> Budget | None:
        """Returns the budget of this owner; None if it has none."""
        if scope == END_USER:
            return self._end_users.budget if self._end_users is not None else None
        found = self.named.get((scope, name))
        if found is None and scope in ("key", KEY_ALIAS):
            issued = next(
                (issued for key, issued in self._issuers.items() if name.startswith(f"{key}|")), None
            )
            if issued is not None:
                found = issued.budget if scope == "key" else issued.aliases.get(name.rpartition("|")[2])
        return found

    def owners(self, subject: Subject) -> Iterator[Owner]:
        """Yields the owners of all budgets that this row of usage is charged to."""
        named, tenant = self.named, subject.tenant
        found = [("key", subject.key), ("tenant", tenant), ("alias", subject.alias), ("overall", ALL)]
        found += [(TEAM, team) for team in self._teams.get(tenant, ())]
        if alias := named_alias(self._aliases.get(subject.key, ()), subject.alias):
            found.append((KEY_ALIAS, key_alias(subject.key, alias)))
        yield from (owner for owner in found if owner in named)
        yield from (
            owner for owner in named if owner[0] == "upstream" and subject.model.startswith(f"{owner[1]}/")
        )
        if (issued := self._issuers.get(subject.key)) is not None:
            bucket = f"{subject.key}|{tenant.removeprefix(issued.prefix)}"
            if issued.budget is not None:
                yield "key", bucket
            if alias := named_alias(issued.aliases, subject.alias):
                yield KEY_ALIAS, key_alias(bucket, alias)


class _Issued(msgspec.Struct, frozen=True):
    """The budgets of an issuer's subjects, and of single aliases of theirs. `prefix`: the beginning of their
    tenants' names.

    The plan of a subject is not stored, so the largest budget of any plan is used: a bucket that is then
    claimed under another limit keeps the amount that was spent.
    """

    prefix: str
    budget: Budget | None
    aliases: Mapping[str, Budget]

    @classmethod
    def of(cls, issuer: Issuer) -> "_Issued":
        plans = (issuer.limits, *issuer.plans.values())
        names = {name for limits in plans for name in limits.aliases}
        single = {
            name: _most(limits.aliases[name] for limits in plans if name in limits.aliases) for name in names
        }
        prefix = issuer.tenant_prefix if issuer.tenant_prefix is not None else f"{issuer.issuer}|"
        return cls(
            prefix, _most(plans), {name: budget for name, budget in single.items() if budget is not None}
        )


def _most(limits: Iterable[CallLimits]) -> Budget | None:
    budgets = [one.budget for one in limits if one.budget is not None]
    if not budgets:
        return None
    most = {period: max(getattr(budget, period) or 0.0 for budget in budgets) or None for period in PERIODS}
    return Budget(day=most["day"], week=most["week"], month=most["month"])
