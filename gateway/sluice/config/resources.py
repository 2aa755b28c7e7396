"""The resources that token buckets limit: one row for each option of `CallLimits` whose value is a rate.

All code about limits (claims, headers, /v1/limits, metrics, checks, commands) uses this table. To add a
resource, add an option of `CallLimits`, a row here and, if it is metered, a field of
`policies.claims.Amounts` and its amount in the three functions there that make one. Calls at a time
(`streams`) and money per calendar period (`budget`) are not rates, so they are not here.
"""

from collections.abc import Iterator
from typing import Literal

import msgspec

from sluice.config.types import CallLimits, Limit, windows_of
from sluice.config.units import in_full


class Resource(msgspec.Struct, frozen=True):
    """`name`: the option in `CallLimits`, and the value of `resource` in metrics, errors and /v1/limits.

    `metered`: the maximum that a call may use is reserved before it and settled after it, as the field of the
    same name in `Amounts`; of any other resource each call takes one. `shown`: responses tell what is left in
    `x-ratelimit-*-NAME`. `whole`: callers see whole units. `example`: a rate, for help texts.
    """

    name: str
    unit: Literal["calls", "tokens", "US dollars"]
    example: str
    metered: bool = False
    shown: bool = False
    whole: bool = False

    def text(self, amount: float) -> str:
        """Returns an amount with its unit: "500 tokens", "$0.25"."""
        number = in_full(amount, 6 if amount < 1e6 else 15)
        return f"${number}" if self.unit == "US dollars" else f"{number} {self.unit}"


RESOURCES = (
    Resource("requests", "calls", "60/min", shown=True, whole=True),
    Resource("tokens", "tokens", "200000/day", metered=True, shown=True, whole=True),
    Resource("money", "US dollars", "5/day", metered=True),
)
PER_CALL = tuple(resource for resource in RESOURCES if not resource.metered)
METERED = tuple(resource for resource in RESOURCES if resource.metered)
SHOWN = tuple(resource.name for resource in RESOURCES if resource.shown)
NAMES = (*(resource.name for resource in RESOURCES), "streams", "budget")
"""All resources that can be limited: the values of `resource`."""


def windows_by_resource(limits: CallLimits) -> Iterator[tuple[Resource, tuple[Limit, ...]]]:
    """Yields the windows of each resource that is limited."""
    for resource in RESOURCES:
        if windows := windows_in(limits, resource):
            yield resource, windows


def windows_in(limits: CallLimits, resource: Resource) -> tuple[Limit, ...]:
    """Returns the windows of one resource; none if it is not limited."""
    return windows_of(getattr(limits, resource.name))
