"""Makes an alias's route for an operation other than chat: its targets that carry the operation, with the
same health and limits.

The pipeline does not know about operations: the request is sent like a chat's for a whole answer.
"""

import msgspec

from sluice.backends.protocol import Backend, CarriesOperations, FansOut
from sluice.proxy.fan_out import FanOutTransport
from sluice.proxy.target import Route, Target
from sluice.routing.strategies import RoutedTier


def route_for(route: Route, operation: str, dialect: str) -> Route | None:
    """Returns the route for callers of this dialect; None if no target carries the operation."""
    tiers = []
    for tier in route.tiers:
        carrying = [_carrying(target, operation, dialect) for target in tier.targets]  # type: ignore[arg-type]
        targets = [found for found in carrying if found is not None]
        if targets:
            tiers.append(RoutedTier(targets, tier.strategy, tier.affinity, pooled=tier.pooled))
    if not tiers:
        return None
    shadow = _carrying(route.shadow, operation, dialect) if route.shadow is not None else None
    only = tiers[0].targets[0] if len(tiers) == len(tiers[0].targets) == 1 else None
    single_target = only is not None and only.spec.context is None and only.pods is None  # type: ignore[attr-defined]
    return msgspec.structs.replace(
        route, tiers=tiers, shadow=shadow, single_target=single_target, operation=operation
    )


def _carrying(target: Target, operation: str, dialect: str) -> Target | None:
    """Returns the target for this operation, without its rules, which are about chats."""
    backend = target.backend
    carried = backend.operation(operation, dialect) if isinstance(backend, CarriesOperations) else None
    if carried is None:
        return None
    if isinstance(carried, Backend) and target.decoder != target.backend.decoder:
        return None  # the alias has stages, which have to see its texts: it is asked for as a chat
    target = msgspec.structs.replace(target, whole=carried, passes_on=dialect, fit=None, capable=None)
    if isinstance(carried, FansOut):
        target = msgspec.structs.replace(target, transport=FanOutTransport(target.transport, carried))
    if isinstance(carried, Backend):  # its answers may be streamed, too
        target = msgspec.structs.replace(target, backend=carried, decoder=carried.decoder)
    return target
