"""Budgets over a restart: their buckets are charged with what the usage says was spent in the periods that run."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from gateway.budgets import PERIODS, Span, budget_claims, budget_prefix, span_of
from gateway.config import Budget, CallLimits, Config, Issuer
from gateway.errors import Unavailable
from gateway.limits import BucketStore, Claim, Limit
from gateway.prices import BILLION
from gateway.usage import Row, Subject, UsageFailed
from gateway.usage.ledger import Ledger

OwnerOf = Callable[[Subject], str | None]
"""Whose budget a row of usage is charged to, as `budget_prefix` names owners; None: not this one's."""


def opening_charges(
    rows: Iterable[Row], config: Config, wall: float, others: Mapping[str, Budget] | None = None
) -> list[Claim]:
    """What was spent of each budget in the periods around `wall` (seconds since the epoch), as claims to settle.

    `others` are budgets of keys that do not stand in the configuration, by the key's id.
    """
    spans = {span.period: span for span in (span_of(period, wall) for period in PERIODS)}
    spent: dict[tuple[str, str, str], int] = {}
    for subject, figures in rows:
        for scope, owner in _owners(subject, config):
            for period, span in spans.items():
                if figures.nanos and span.first.isoformat() <= subject.day < span.after.isoformat():
                    of = (scope, owner, period)
                    spent[of] = spent.get(of, 0) + figures.nanos
    charges = []
    for scope, owner, budget in _budgets(config, others or {}, {(scope, owner) for scope, owner, _ in spent}):
        claims = budget_claims(budget_prefix(scope, owner), budget, wall, scope=scope)
        periods = [period for period in PERIODS if getattr(budget, period) is not None]
        for period, claim in zip(periods, claims, strict=True):
            if nanos := spent.get((scope, owner, period)):
                charges.append(msgspec.structs.replace(claim, amount=nanos / BILLION))
    return charges


def days_to_read(config: Config, wall: float) -> list[str]:
    """The days of the longest period that runs; none where nobody has a budget."""
    if not any(limits.budget is not None for limits in _all_limits(config)):
        return []
    spans: list[Span] = [span_of(period, wall) for period in PERIODS]
    first = min(span.first for span in spans)
    today = datetime.fromtimestamp(wall, UTC).date()
    return [(first + timedelta(number)).isoformat() for number in range((today - first).days + 1)]


async def reopen(store: BucketStore, ledger: Ledger, config: Config, wall: float) -> None:
    """Charge buckets that know nothing: those of a store that outlives the process (shared memory, Redis) know it all.

    Whoever takes the one unit of a bucket beside it charges; so of several processes that start at once, one does.
    A store that does not answer now leaves the budgets as they are.
    """
    try:
        rows = [row for day in days_to_read(config, wall) for row in await ledger.store.of_day(day)]
        for charge in opening_charges(rows, config, wall):
            untouched = (await store.take([msgspec.structs.replace(charge, amount=0.0)])).levels[0].remaining
            once = msgspec.structs.replace(charge, key=f"{charge.key}:opened", limit=Limit(1.0, 0.0), amount=1.0)
            if untouched >= charge.limit.capacity and (await store.take([once])).admitted:
                await store.settle([charge])
    except (UsageFailed, Unavailable):
        return


def _owners(subject: Subject, config: Config) -> Iterator[tuple[str, str]]:
    yield "tenant", subject.tenant
    issuer = next((issuer for issuer in config.jwt if subject.key == f"jwt:{issuer.issuer}"), None)
    if issuer is None:
        yield "key", subject.key
    else:
        yield "key", f"jwt:{issuer.issuer}|{subject.tenant.removeprefix(_tenant_prefix(issuer))}"


def _tenant_prefix(issuer: Issuer) -> str:
    return issuer.tenant_prefix if issuer.tenant_prefix is not None else f"{issuer.issuer}|"


def _budgets(
    config: Config, others: Mapping[str, Budget], spenders: Iterable[tuple[str, str]]
) -> Iterator[tuple[str, str, Budget]]:
    keys = {key.id: key.limits.budget for key in config.keys} | dict(others)
    tenants = {name: tenant.limits.budget for name, tenant in config.tenants.items()}
    for scope, owner in sorted(spenders):
        budget = keys.get(owner) if scope == "key" else tenants.get(owner)
        if scope == "key" and budget is None:
            budget = next((_of_issuer(issuer) for issuer in config.jwt if owner.startswith(f"jwt:{issuer.issuer}|")), None)
        if budget is not None:
            yield scope, owner, budget


def _of_issuer(issuer: Issuer) -> Budget | None:
    """Which plan a subject had is not known: a bucket that is then claimed under another limit keeps what was spent."""
    budgets = [limits.budget for limits in (issuer.limits, *issuer.plans.values()) if limits.budget is not None]
    if not budgets:
        return None
    most = {period: max(getattr(budget, period) or 0.0 for budget in budgets) or None for period in PERIODS}
    return Budget(day=most["day"], week=most["week"], month=most["month"])


def _all_limits(config: Config) -> Iterator[CallLimits]:
    for key in config.keys:
        yield key.limits
    for tenant in config.tenants.values():
        yield tenant.limits
    for issuer in config.jwt:
        yield issuer.limits
        yield from issuer.plans.values()
