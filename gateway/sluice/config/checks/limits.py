"""Finds limits that no ordinary call fits in: the reservation for a call that sets no maximum is more than
the bucket can hold. Such a limit refuses every call for ever, so it is an error."""

from collections.abc import Iterator, Mapping

from sluice.backends.protocol import Backend, default_output
from sluice.config.problems import Path, Report
from sluice.config.resources import METERED, Resource, windows_in
from sluice.config.types import Alias, CallLimits, Config, KeyLimits, covering, targets_of
from sluice.config.types import Target as TargetConfig
from sluice.config.units import in_full
from sluice.model.events import Usage
from sluice.policies.claims import Amounts, amounts_of, least_of, most_of
from sluice.pricing.prices import PriceTable


def check_reservations(
    config: Config, backends: Mapping[str, Backend], prices: PriceTable, report: Report, wall: float
) -> None:
    """Reports each limit of a metered resource whose burst is below the default reservation, at its own
    position in the file."""

    def of_target(target: TargetConfig, *, priced: bool) -> Amounts:
        """Returns the reservation of a call without a maximum and with an empty prompt. Prices are only
        looked up if a limit of money needs them, because reading their table takes time."""
        output = default_output(config.limits.output_tokens, backends.get(target.upstream))
        price = prices.price_of(target.upstream, target.model, wall) if priced else None
        return amounts_of(Usage(0, output), price)

    def of_alias(alias: Alias, *, priced: bool) -> Amounts:
        """Returns the reservation of a call to an alias: that of the most expensive of its targets."""
        return most_of(
            of_target(target, priced=priced) for tier in alias.tiers for target in targets_of(tier)
        )

    for path, limits, aliases, upstream in _limited(config):
        for resource in METERED:
            windows = windows_in(limits, resource)
            if not windows:
                continue
            priced = resource.unit == "US dollars"
            if upstream:
                tiers = [tier for alias in config.aliases.values() for tier in alias.tiers]
                targets = [
                    target for tier in tiers for target in targets_of(tier) if target.upstream == upstream
                ]
                least = [of_target(target, priced=priced) for target in targets]
            else:
                least = [
                    of_alias(config.aliases[name], priced=priced)
                    for name in aliases
                    if name in config.aliases
                ]
            if not least:
                continue
            needed = getattr(least_of(least), resource.name)
            several = isinstance(getattr(limits, resource.name), tuple)
            for index, window in enumerate(windows):
                if window.capacity < needed:
                    at = (*path, resource.name, index) if several else (*path, resource.name)
                    report.problem(at, _message(resource, window.capacity, needed))


def _message(resource: Resource, capacity: float, needed: float) -> str:
    return (
        f"its burst of {in_full(capacity)} can never admit a call that sets no maximum: {resource.text(needed)} are reserved "
        "for it (limits.output_tokens); raise burst, or lower output_tokens"
    )


def _limited(config: Config) -> Iterator[tuple[Path, CallLimits, list[str], str]]:
    """Yields every section of limits: its path, the aliases that it applies to, and the upstream if it
    belongs to one."""
    every = list(config.aliases)

    def of(names: tuple[str, ...]) -> list[str]:
        return every if "*" in names else list(names)

    yield ("limits", "overall"), config.limits.overall, every, ""
    if config.limits.end_users is not None:
        yield ("limits", "end_users"), config.limits.end_users, every, ""
    for index, key in enumerate(config.keys):
        yield from _of_caller(("keys", index, "limits"), key.limits, of(key.aliases), every)
    for index, issuer in enumerate(config.jwt):
        yield from _of_caller(("jwt", index, "limits"), issuer.limits, of(issuer.aliases), every)
        for name, limits in issuer.plans.items():
            yield from _of_caller(("jwt", index, "plans", name), limits, of(issuer.aliases), every)
    for name, tenant in config.tenants.items():
        yield ("tenants", name, "limits"), tenant.limits, every, ""
    for name, team in config.teams.items():
        yield ("teams", name, "limits"), team.limits, every, ""
    for name, alias in config.aliases.items():
        yield ("aliases", name, "limits"), alias.limits, [name], ""
    for name, upstream in config.upstreams.items():
        yield ("upstreams", name, "limits"), upstream.limits, [], name


def _of_caller(
    path: Path, limits: KeyLimits, aliases: list[str], every: list[str]
) -> Iterator[tuple[Path, CallLimits, list[str], str]]:
    yield path, limits, aliases, ""
    for name, single in limits.aliases.items():
        covered = [
            alias for alias in every if alias == name or covering([name], alias) or covering([alias], name)
        ]
        yield (*path, "aliases", name), single, covered, ""
