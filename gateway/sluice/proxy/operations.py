"""An alias's route as another operation than chat follows it: the same targets, health and limits, as far as they carry it.

The pipeline knows nothing of operations: a target is asked for the answer to one as for a chat's answer in one piece.
"""

import msgspec

from sluice.backends.protocol import Backend, CarriesOperations
from sluice.proxy.target import Route, Target
from sluice.routing.strategies import RoutedTier


def route_for(route: Route, operation: str, dialect: str) -> Route | None:
    """The route of callers of this dialect; None where no target carries the operation."""
    tiers = []
    for tier in route.tiers:
        carrying = [_carrying(target, operation, dialect) for target in tier.targets]  # type: ignore[arg-type]
        targets = [found for found in carrying if found is not None]
        if targets:
            tiers.append(RoutedTier(targets, tier.strategy, tier.affinity))
    if not tiers:
        return None
    shadow = _carrying(route.shadow, operation, dialect) if route.shadow is not None else None
    only = tiers[0].targets[0] if len(tiers) == len(tiers[0].targets) == 1 else None
    single_target = only is not None and only.spec.context is None
    return msgspec.structs.replace(route, tiers=tiers, shadow=shadow, single_target=single_target, operation=operation)


def _carrying(target: Target, operation: str, dialect: str) -> Target | None:
    """The target as it is asked; its rules are about chats."""
    backend = target.backend
    carried = backend.operation(operation, dialect) if isinstance(backend, CarriesOperations) else None
    if carried is None:
        return None
    if isinstance(carried, Backend) and target.decoder != target.backend.decoder:
        return None  # the alias has stages, which have to see its texts: it is asked for as a chat
    target = msgspec.structs.replace(target, whole=carried, passes_on=dialect, fit=None, capable=None)
    if isinstance(carried, Backend):  # its answers may be streamed, too
        target = msgspec.structs.replace(target, backend=carried, decoder=carried.decoder)
    return target
