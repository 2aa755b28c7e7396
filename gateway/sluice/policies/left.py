"""Reads what remains of a caller's limits, without taking anything.

A store takes all claims of a call or none. So a call that can never be admitted reads the levels of all
buckets and places and takes nothing of them. Its claims on budgets name a holder, as those of any call, so
that the store gives back what calls of dead processes have reserved; otherwise those amounts would be shown
as used until the next call.
"""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from sluice.config.resources import windows_by_resource
from sluice.limits import BucketStore, Claim, Limit, Slot
from sluice.policies.budgets import MARGIN, budget_claims, budget_prefix, periods
from sluice.policies.claims import View, bucket_of, window_key
from sluice.policies.end_users import END_USER
from sluice.policies.scopes import KEY_ALIAS

NEVER = Claim("never", Limit(1.0, 1.0), 2.0)
"""A claim that exceeds its bucket: a call with it is never admitted, so nothing is taken."""


READER = "limits"
"""The holder of reservations that are never made."""


class OwnLimit(msgspec.Struct, frozen=True):
    """One bucket, or the concurrency slots of one key, and its JSON object for the owner, still without
    `remaining`.

    `whole`: what remains is shown in whole units.
    """

    wire: dict[str, Any]
    at: Claim | Slot
    whole: bool = False


async def left(store: BucketStore, views: Sequence[View], wall: float) -> list[dict[str, Any]]:
    """The remaining amount of each limit of these `views` at the time `wall` (seconds since the epoch).
    Raises Unavailable.

    Units of `remaining` are those of `limit`, whole ones where the resource is counted in such; below zero it
    is debt. What running calls have reserved is not left.
    """
    limits = [one for view in views for one in _limits_of(view, wall)]
    claims = [one.at for one in limits if isinstance(one.at, Claim)]
    rates = [claim for claim in claims if claim.limit.rate]
    budgets = [msgspec.structs.replace(claim, holder=READER) for claim in claims if not claim.limit.rate]
    slots = [one.at for one in limits if isinstance(one.at, Slot)]
    if not limits:
        return []
    levels = (await store.take([NEVER, *rates, *budgets], slots)).levels[1:]
    of_rates, of_budgets = iter(levels), iter(levels[len(rates) :])
    of_slots = iter(levels[len(claims) :])
    found = []
    for one in limits:
        at = one.at
        level = next(of_slots if isinstance(at, Slot) else of_rates if at.limit.rate else of_budgets)
        entry = {
            **one.wire,
            "remaining": math.floor(level.remaining) if one.whole else _rounded(level.remaining),
        }
        if "rate" in entry:
            entry["reset_seconds"] = round(level.reset, 3)
        found.append(entry)
    return found


def _limits_of(view: View, wall: float) -> Iterator[OwnLimit]:
    owner, limits = _owner(view), view.limits
    for resource, windows in windows_by_resource(limits):
        name = resource.name
        for number, window in enumerate(windows):
            wire = {**owner, "resource": name, "rate": window.rate.text, "limit": _rounded(window.capacity)}
            claim = Claim(window_key(view, name, number), bucket_of(window), 0.0, view.scope, name)
            yield OwnLimit(wire, claim, resource.whole)
    if limits.streams is not None:
        slot = Slot(f"{view.scope}:{view.name}:streams", limits.streams, "", view.scope)
        yield OwnLimit({**owner, "resource": "streams", "limit": limits.streams}, slot)
    if (budget := limits.budget) is not None:
        claims = budget_claims(budget_prefix(view.scope, view.name), budget, wall, scope=view.scope)
        for period, claim in zip(periods(budget), claims, strict=True):
            ends = datetime.fromtimestamp(claim.expires - MARGIN, UTC).isoformat().replace("+00:00", "Z")
            limit = _rounded(claim.limit.capacity)
            yield OwnLimit(
                {**owner, "resource": "budget", "period": period, "ends": ends, "limit": limit}, claim
            )


def _owner(view: View) -> dict[str, str]:
    owner, _, part = view.name.rpartition("|")
    if view.scope == KEY_ALIAS:
        return {"scope": view.scope, "owner": owner, "alias": part}
    if view.scope == END_USER:
        return {"scope": view.scope, "owner": owner}
    return {"scope": view.scope, "owner": view.name}


def _rounded(amount: float) -> float | int:
    """Rounds to the billionth, as costs are stored; whole numbers have no fraction."""
    rounded = round(amount, 9)
    return int(rounded) if rounded == int(rounded) else rounded
