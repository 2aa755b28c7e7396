"""Budgets over a restart: their buckets are charged with what the usage says was spent in the periods that run."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from sluice.config.types import Budget, Config, Issuer
from sluice.errors import Unavailable
from sluice.limits import BucketStore, Claim, Limit
from sluice.policies.budgets import PERIODS, budget_claims, budget_prefix, span_of
from sluice.pricing.prices import BILLION
from sluice.usage import Row, Subject, UsageFailed, UsageStore

Owner = tuple[str, str]
"""Scope and name, as `budget_prefix` takes them."""
ALL = "all"
"""The one owner of scope `overall`."""
ROUNDING = 1e-8
"""US dollars, or the share of a budget, by which a full bucket may seem less than full (`sluice.limits.bucket`)."""


def opening_charges(
    rows: Iterable[Row], config: Config, wall: float, others: Mapping[str, Budget] | None = None
) -> list[Claim]:
    """What was spent of each budget in the periods around `wall` (seconds since the epoch), as claims to settle.

    `others` are budgets of keys that do not stand in the configuration, by the key's id.
    """
    budgets = Budgets(config, others or {})
    spans = {span.period: span for span in (span_of(period, wall) for period in PERIODS)}
    spent: dict[Owner, dict[str, int]] = {}
    for subject, figures in rows:
        if not figures.nanos:
            continue
        periods = [p for p, span in spans.items() if span.first.isoformat() <= subject.day < span.after.isoformat()]
        for owner in budgets.owners(subject):
            amounts = spent.setdefault(owner, {})
            for period in periods:
                amounts[period] = amounts.get(period, 0) + figures.nanos
    charges = []
    for (scope, name), amounts in spent.items():
        budget = budgets.of(scope, name)
        if budget is None:  # its owner has none any more
            continue
        claims = budget_claims(budget_prefix(scope, name), budget, wall, scope=scope)
        periods = [period for period in PERIODS if getattr(budget, period) is not None]
        for period, claim in zip(periods, claims, strict=True):
            if period in amounts:
                charges.append(msgspec.structs.replace(claim, amount=amounts[period] / BILLION))
    return charges


def days_to_read(wall: float) -> list[str]:
    """The days so far of the month and the week."""
    first = min(span_of(period, wall).first for period in PERIODS)
    today = datetime.fromtimestamp(wall, UTC).date()
    return [(first + timedelta(number)).isoformat() for number in range((today - first).days + 1)]


async def reopen(
    buckets: BucketStore, usage: UsageStore, config: Config, wall: float, others: Mapping[str, Budget] | None = None
) -> None:
    """Charge buckets that know nothing: those of a store that outlives the process (shared memory, Redis) know it all.

    Whoever takes the one unit of a bucket beside it charges; so of several processes that start at once, one does.
    A store that does not answer now leaves the budgets as they are. `others` as for `opening_charges`.
    """
    if not Budgets(config, others or {}):
        return
    try:
        rows = [row for day in days_to_read(wall) for row in await usage.of_day(day)]
        for charge in opening_charges(rows, config, wall, others):
            [level] = (await buckets.take([msgspec.structs.replace(charge, amount=0.0)])).levels
            once = msgspec.structs.replace(charge, key=f"{charge.key}:opened", limit=Limit(1.0, 0.0), amount=1.0)
            untouched = charge.limit.capacity - level.remaining <= max(ROUNDING, charge.limit.capacity * ROUNDING)
            if untouched and (await buckets.take([once])).admitted:
                await buckets.settle([charge])
    except (UsageFailed, Unavailable):
        return


class Budgets:
    """Who has a budget. False where nobody has. `named`: all but the subjects of JWTs, whose names nobody knows."""

    def __init__(self, config: Config, others: Mapping[str, Budget]) -> None:
        limits = {
            **{("key", key.id): key.limits for key in config.keys},
            **{("tenant", name): tenant.limits for name, tenant in config.tenants.items()},
            **{("alias", name): alias.limits for name, alias in config.aliases.items()},
            **{("upstream", name): upstream.limits for name, upstream in config.upstreams.items()},
            ("overall", ALL): config.limits.overall,
        }
        self.named = {owner: of.budget for owner, of in limits.items() if of.budget is not None}
        self.named |= {("key", name): budget for name, budget in others.items()}
        self._issuers = {
            f"jwt:{issuer.issuer}": (issuer, budget) for issuer in config.jwt if (budget := _of_issuer(issuer)) is not None
        }

    def __bool__(self) -> bool:
        return bool(self.named or self._issuers)

    def of(self, scope: str, name: str) -> Budget | None:
        issuers = (budget for key, (_, budget) in self._issuers.items() if scope == "key" and name.startswith(f"{key}|"))
        return self.named.get((scope, name)) or next(issuers, None)

    def owners(self, subject: Subject) -> Iterator[Owner]:
        """All who have a budget that this row of usage is charged to."""
        for owner in (("key", subject.key), ("tenant", subject.tenant), ("alias", subject.alias), ("overall", ALL)):
            if owner in self.named:
                yield owner
        for scope, name in self.named:
            if scope == "upstream" and subject.model.startswith(f"{name}/"):
                yield scope, name
        if subject.key in self._issuers:
            issuer, _ = self._issuers[subject.key]
            prefix = issuer.tenant_prefix if issuer.tenant_prefix is not None else f"{issuer.issuer}|"
            yield "key", f"{subject.key}|{subject.tenant.removeprefix(prefix)}"


def _of_issuer(issuer: Issuer) -> Budget | None:
    """Which plan a subject had is not known: a bucket that is then claimed under another limit keeps what was spent."""
    budgets = [limits.budget for limits in (issuer.limits, *issuer.plans.values()) if limits.budget is not None]
    if not budgets:
        return None
    most = {period: max(getattr(budget, period) or 0.0 for budget in budgets) or None for period in PERIODS}
    return Budget(day=most["day"], week=most["week"], month=most["month"])
