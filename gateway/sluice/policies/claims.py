"""Computes which buckets and slots a call claims, and how much of each. Pure.

A `ClaimPlan` holds what all calls of one caller on one route have in common, and is cached. A call's tokens
and money are estimated before it (`reserved`) and known after it (`used`).

In the claims of a call its address comes first, then what each call takes one of (requests), then what is
metered (tokens, money), then the budgets.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from sluice.backends.protocol import default_output
from sluice.config.resources import METERED, PER_CALL, SHOWN, Resource, windows_in
from sluice.config.types import Budget, CallLimits, Price
from sluice.config.types import Limit as LimitConfig
from sluice.limits import Claim, Level, Limit, Slot, Verdict
from sluice.limits.bucket import rule_of
from sluice.model.chat import ChatRequest
from sluice.model.events import Usage
from sluice.policies.budgets import SoftMark, budget_claims, budget_prefix, periods, soft_marks
from sluice.pricing.prices import cost, price_at

if TYPE_CHECKING:  # `sluice check` needs what stands here, but nothing that calls are made of
    from sluice.proxy.attempt import Attempt
    from sluice.proxy.target import Target

Header = tuple[str, str]
Counter = Callable[[str, str, str], Any]
"""Returns the series of (scope, resource, decision)."""


class View(msgspec.Struct, frozen=True):
    """Limits and their owner: `name` within `scope`."""

    scope: str
    name: str
    limits: CallLimits


class Amounts(msgspec.Struct, frozen=True, gc=False):
    """A call's use of each metered resource: tokens (input and output) and US dollars."""

    tokens: float = 0
    money: float = 0.0

    def of(self, claim: Claim) -> float:
        """Returns the amount to charge for this claim. Raises KeyError for a resource that is not metered."""
        amount: float = _FIELDS[claim.resource](self)
        return amount


_FIELDS = {resource.name: attrgetter(resource.name) for resource in METERED} | {"budget": attrgetter("money")}
"""By resource: the field of `Amounts` that it is charged by."""


def amounts_of(usage: Usage, price: Price | None) -> Amounts:
    """The amounts of one call with this usage, at this price (none: it costs nothing)."""
    return Amounts(usage.input + usage.output, cost(price, usage) if price is not None else 0.0)


def most_of(amounts: Iterable[Amounts]) -> Amounts:
    """The highest amount of each resource."""
    return Amounts(*map(max, zip(*map(msgspec.structs.astuple, amounts), strict=True)))


def least_of(amounts: Iterable[Amounts]) -> Amounts:
    """The lowest amount of each resource."""
    return Amounts(*map(min, zip(*map(msgspec.structs.astuple, amounts), strict=True)))


class Shown(msgspec.Struct, frozen=True):
    """A bucket shown in response headers: its index among the claims, the header of its limit, the names of
    the others."""

    index: int
    resource: str
    capacity: float
    limit: Header
    remaining: str
    reset: str


class ClaimPlan(msgspec.Struct, frozen=True, eq=False):
    """`fixed` claims take one each; `metered` and `budgets` what a call uses; `slots` get its holder.

    `shown`, for each resource that headers tell of: the windows of the narrowest scope that limits them (key,
    tenant, alias, overall); an address's are shown only when they refuse. `admitted` counts an admitted call.
    `requests_only`: it has nothing to settle.
    """

    fixed: tuple[Claim, ...]
    metered: tuple[Claim, ...]
    budgets: tuple[tuple[View, Budget], ...]
    slots: tuple[Slot, ...]
    shown: tuple[tuple[Shown, ...], ...]
    admitted: tuple[Any, ...]
    metering: bool
    requests_only: bool

    def amounts(self, amounts: Amounts, wall: float, holder: str = "") -> list[Claim]:
        """Returns the claims of `holder` with varying amounts; those on budgets at the time `wall` (seconds
        since the epoch) come last.
        """
        claims = [amounted(claim, amounts.of(claim)) for claim in self.metered]
        for view, budget in self.budgets:
            prefix = budget_prefix(view.scope, view.name)
            claims += budget_claims(prefix, budget, wall, amounts.money, scope=view.scope, holder=holder)
        return claims

    def budgets_left(self, levels: Sequence[Level]) -> str:
        """Returns the rest of the narrowest scope's budget, in US dollars: "day 4.2, month 103". `levels` as
        for `marks`.
        """
        _, budget = self.budgets[0]
        pairs = zip(periods(budget), levels, strict=False)
        return ", ".join(f"{period} {_dollars(level.remaining)}" for period, level in pairs)

    def marks(self, levels: Sequence[Level]) -> list[tuple[str, list[SoftMark]]]:
        """Returns the scopes whose soft marks are passed, with these marks, the narrowest first. `levels` are
        those of the budgets.
        """
        found = []
        for view, budget in self.budgets:
            count = sum(dollars is not None for dollars in (budget.day, budget.week, budget.month))
            if marks := soft_marks(budget, levels[:count]):
                found.append((view.scope, marks))
            levels = levels[count:]
        return found


def plan_of(views: Sequence[View], address: Limit | None, count: Counter) -> ClaimPlan:
    """Returns the plan of calls under all these `views`, the narrowest first. With `address` an address's
    claim comes first.
    """
    fixed = [claim for resource in PER_CALL for view in views for claim in _windows(view, resource)]
    metered = [claim for resource in METERED for view in views for claim in _windows(view, resource)]
    budgets = [(view, view.limits.budget) for view in views if view.limits.budget is not None]
    slots = [_slot(view, view.limits.streams) for view in views if view.limits.streams is not None]
    known = [*([claim_of_address("", address)] if address is not None else []), *fixed, *metered]
    series = {(claim.scope, claim.resource) for claim in known}
    series |= {(slot.scope, slot.resource) for slot in slots} | {
        (view.scope, "budget") for view, _ in budgets
    }
    metering = bool(metered or budgets)
    return ClaimPlan(
        fixed=tuple(fixed),
        metered=tuple(metered),
        budgets=tuple(budgets),
        slots=tuple(slots),
        shown=tuple(windows for resource in SHOWN if (windows := _narrowest(known, resource))),
        admitted=tuple(count(scope, resource, "admitted") for scope, resource in sorted(series)),
        metering=metering,
        requests_only=not metering and not slots,
    )


def bucket_of(limit: LimitConfig) -> Limit:
    """Returns the token bucket for a configured limit. Equal ones are one object, so that a store need not
    compare them.
    """
    return rule_of(Limit(limit.capacity, float(limit.rate))).limit


def claim_of_address(address: str, limit: Limit) -> Claim:
    return Claim(f"address:{address}", limit, 1.0, "address")


def denied_of(claims: Sequence[Claim], slots: Sequence[Slot], verdict: Verdict) -> Claim | Slot:
    """Returns the claim or slot that was refused."""
    index = verdict.denied
    return claims[index] if index < len(claims) else slots[index - len(claims)]


def amounted(claim: Claim, amount: float) -> Claim:
    """A copy of the claim with another amount."""
    return Claim(claim.key, claim.limit, amount, claim.scope, claim.resource, claim.expires)


def held(slot: Slot, holder: str) -> Slot:
    return Slot(slot.key, slot.capacity, holder, slot.scope, slot.resource)


def _windows(view: View, resource: Resource) -> Iterator[Claim]:
    name = resource.name
    for number, limit in enumerate(windows_in(view.limits, resource)):
        yield Claim(window_key(view, name, number), bucket_of(limit), 1.0, view.scope, name)


def window_key(view: View, resource: str, number: int) -> str:
    """The key of the bucket of one window of a resource."""
    return f"{view.scope}:{view.name}:{resource}:{number}"


def _dollars(amount: float) -> str:
    """Returns the amount to the millionth, without zeros at the end."""
    return f"{amount:.6f}".rstrip("0").rstrip(".")


def _slot(view: View, capacity: int) -> Slot:
    return Slot(f"{view.scope}:{view.name}:streams", capacity, "", view.scope)


# --- how much


MAX_RESERVED_TOKENS = 10**9
"""The most output tokens that are reserved for one call, whatever maximum it sets."""


def reserved(chat: ChatRequest, targets: "Iterable[Target]", output: int, wall: float) -> Amounts:
    """Returns the maximum that a call may use: its prompt and the longest answer of any of its targets, at
    the highest price.

    The longest answer is the caller's maximum. Without one (a maximum of zero or less counts as none:
    providers refuse or ignore it) it is `output` tokens, or the maximum that the target's backend then sends,
    if that is more.
    """
    prompt = chat.estimated_tokens()
    maximum = max_output(chat)
    output = output if chat.generates else 0
    tokens, money = prompt + (maximum or output), 0.0
    for target in targets:
        usage = Usage(prompt, maximum or default_output(output, target.backend))
        tokens = max(tokens, usage.input + usage.output)
        price = price_at(target.prices, wall)
        if price is not None:
            money = max(money, cost(price, usage))
    return Amounts(tokens, money)


def max_output(chat: ChatRequest) -> int:
    """Returns the request's maximum of output tokens; 0: none. Of several fields the highest, because an
    upstream may read any of them.
    """
    maximum = chat.sampling.max_tokens or 0
    if chat.wire is not None:
        maximum = max(
            maximum, *(_whole(chat.wire.get(name)) for name in ("max_tokens", "max_completion_tokens"))
        )
    return min(max(maximum, 0), MAX_RESERVED_TOKENS)


def _whole(value: object) -> int:
    return value if type(value) is int else 0


def used(attempts: "Iterable[Attempt]") -> Amounts:
    """Returns the sum of what the attempts were billed or, without a report, the estimate for their text; 0
    if they generated none.
    """
    tokens, money = 0, 0.0
    for attempt in attempts:
        tokens += attempt.used.input + attempt.used.output
        money += attempt.cost or 0.0
    return Amounts(tokens, money)


def differences(claims: Iterable[Claim], amounts: Amounts) -> list[Claim]:
    """Returns the settlement of claims by the amounts used: every reservation, and others whose amount
    differs."""
    found = []
    for claim in claims:
        used = amounts.of(claim)
        if claim.holder:
            found.append(ended(claim, used))
        elif used != claim.amount:
            found.append(amounted(claim, used - claim.amount))
    return found


def ended(claim: Claim, used: float) -> Claim:
    """Returns the settlement of a reservation of which `used` was used."""
    return msgspec.structs.replace(claim, amount=used, held=claim.amount)


# --- response headers


def shown_of(claim: Claim, index: int) -> Shown:
    resource, capacity = claim.resource, claim.limit.capacity
    limit = (f"x-ratelimit-limit-{resource}", str(int(capacity)))
    return Shown(
        index, resource, capacity, limit, f"x-ratelimit-remaining-{resource}", f"x-ratelimit-reset-{resource}"
    )


def _narrowest(claims: Sequence[Claim], resource: str) -> tuple[Shown, ...]:
    of_callers = [
        (index, claim)
        for index, claim in enumerate(claims)
        if claim.resource == resource and claim.scope != "address"
    ]
    return tuple(
        shown_of(claim, index) for index, claim in of_callers if claim.scope == of_callers[0][1].scope
    )


def headers_of(shown: Iterable[Sequence[Shown]], levels: Sequence[Level]) -> list[Header]:
    """Returns `x-ratelimit-*` in OpenAI's names, of the window with the least share left; reset in seconds
    until it is full.
    """
    headers: list[Header] = []
    for windows in shown:
        window = (
            windows[0]
            if len(windows) == 1
            else min(windows, key=lambda w: levels[w.index].remaining / w.capacity)
        )
        level = levels[window.index]
        remaining = int(level.remaining) if level.remaining > 0 else 0
        headers += (window.limit, (window.remaining, f"{remaining}"), (window.reset, f"{level.reset:.3f}s"))
    return headers
