"""Strategies order the targets of one tier. Pure: randomness is passed in, load is measured on the target's
own calls.

Every strategy orders all targets of its tier, so that failover continues down the same list.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import msgspec

from sluice.config.types import Strategy
from sluice.config.types import Target as TargetConfig
from sluice.model.chat import ChatRequest, Image
from sluice.routing.health import Health, Load

if TYPE_CHECKING:
    from sluice.routing.pods import PodChoice


class Routable(Protocol):
    """The properties of a target that routing uses."""

    @property
    def label(self) -> str: ...
    @property
    def spec(self) -> TargetConfig: ...
    @property
    def health(self) -> Health: ...
    @property
    def load(self) -> Load: ...


T = TypeVar("T", bound=Routable)
Chance = Callable[[], float]
"""Returns a random number in [0, 1)."""


class CallTraits(msgspec.Struct, frozen=True):
    """The properties of a call that routing depends on. `tokens` estimates the prompt's length."""

    key: str = ""
    session: str = ""
    prefix: str = ""
    headers: Mapping[str, str] = {}
    vision: bool = False
    tools: bool = False
    tokens: int = 0
    chat: ChatRequest | None = None  # where the prompt decides which server of an upstream is asked
    choice: "PodChoice | None" = None  # is told why that one was chosen

    def weight(self, target: Routable) -> float:
        """Returns the target's weight for this caller."""
        canary = target.spec.canary
        if canary is None:
            return target.spec.weight
        name, _, value = (canary.header or "").partition(":")
        chosen = self.key in canary.keys or (
            bool(name) and self.headers.get(name.strip().lower(), "") == value.strip()
        )
        return canary.weight if chosen else target.spec.weight

    def lacks(self, target: Routable) -> Literal["", "vision", "tools", "context"]:
        """Returns the capability that the call needs and the target lacks; "" if the target can serve it."""
        spec = target.spec
        if self.vision and not spec.vision:
            return "vision"
        if self.tools and not spec.tools:
            return "tools"
        return "context" if spec.context is not None and self.tokens > spec.context else ""

    def unfit(self, target: Routable) -> str:
        """Returns `lacks` as a clause for messages, such as "takes no images"; "" if the target can serve the
        call."""
        match self.lacks(target):
            case "vision":
                return "takes no images"
            case "tools":
                return "calls no tools"
            case "context":
                return f"takes {target.spec.context} tokens, about {self.tokens} were sent"
            case _:
                return ""


NO_TRAITS = CallTraits()

PREFIX = 512
"""Characters of the first message that `affinity: prefix` hashes, to find calls that share a prompt cache."""


def traits_of(
    chat: ChatRequest, key: str = "", tenant: str = "", headers: Mapping[str, str] | None = None
) -> CallTraits:
    """Extracts from a call what routing depends on."""
    return CallTraits(
        key=key,
        session=f"{tenant}/{chat.session}" if chat.session else "",
        prefix=chat.messages[0].text[:PREFIX] if chat.messages else "",
        headers=headers or {},
        vision=any(isinstance(part, Image) for message in chat.messages for part in message.parts),
        tools=bool(chat.tools),
        tokens=chat.estimated_tokens(),
    )


class RoutedTier(msgspec.Struct):
    """One tier: its targets, how they are ordered, and the number of calls that `round_robin` has ordered.

    `pooled`: the upstreams of some targets have several servers; for a call each server becomes a target of
    its own (`over_pods`). `server_turn` counts those calls.
    """

    targets: Sequence[Routable]
    strategy: Strategy = "weighted"
    affinity: str = "session"
    turn: int = 0
    pooled: bool = False
    server_turn: int = 0


PODS_TRIED = 3
"""Maximum servers of one target that a call may be sent to, one after another: a request that crashes servers
must not reach all of them."""


def over_pods(tier: RoutedTier, fit: Sequence[Any], traits: CallTraits, chance: Chance) -> list[Any]:
    """Returns the targets of a pooled tier in order, with each target replaced by the servers of its
    upstream: ready ones first, at most `PODS_TRIED`.

    A strategy that uses the servers' queues orders the servers of all targets together. Any other strategy
    orders the targets first, so that each has its weight and its turn however many servers it has, and then
    the servers of each.
    """
    if tier.strategy in BY_PODS:
        servers = [server for target in fit for server in _servers(target)]
        of_label: dict[str, int] = {}
        queue = []
        for server in _ready_first(ordered(tier, servers, traits, chance)):
            of_label[server.label] = number = of_label.get(server.label, 0) + 1
            if number <= PODS_TRIED:
                queue.append(server)
        return queue
    tier.server_turn += 1
    return [
        server
        for target in ordered(tier, list(fit), traits, chance)
        for server in _ready_first(_ordered_servers(tier, target, len(fit), traits, chance))[:PODS_TRIED]
    ]


def _servers(target: Any) -> list[Any]:
    return list(target.pods(target)) if target.pods is not None else [target]


def _ready_first(servers: list[Any]) -> list[Any]:
    return sorted(servers, key=lambda server: not server.health.ready())


def _ordered_servers(
    tier: RoutedTier, target: Any, targets: int, traits: CallTraits, chance: Chance
) -> list[Any]:
    """Orders the servers of one target, which have the same weight and price."""
    servers = _servers(target)
    match tier.strategy:
        case "round_robin":
            at = (tier.server_turn - 1) // targets % len(servers)
            return servers[at:] + servers[:at]
        case "cheapest":
            return _least_in_flight(tier, servers, traits, chance)
        case _:
            return ordered(tier, servers, traits, chance)


def ordered(tier: RoutedTier, targets: list[T], traits: CallTraits, chance: Chance) -> list[T]:
    """Orders `targets` (those of the tier that can serve the call): the first is tried first."""
    if len(targets) < 2:
        return targets
    return _ORDERS[tier.strategy](tier, targets, traits, chance)


def _weighted(tier: RoutedTier, targets: list[T], traits: CallTraits, chance: Chance) -> list[T]:
    # Efraimidis and Spirakis 2006: sorting by u^(1/w) draws without replacement in proportion to the weights.
    weights = [traits.weight(target) for target in targets]
    keyed = [(chance() ** (1 / weight) if weight > 0 else -1.0, -i) for i, weight in enumerate(weights)]
    return [targets[-i] for _, i in sorted(keyed, reverse=True)]


def _wanted_first(targets: list[T], traits: CallTraits) -> list[T]:
    return sorted(targets, key=lambda target: traits.weight(target) <= 0)


def _round_robin(tier: RoutedTier, targets: list[T], traits: CallTraits, chance: Chance) -> list[T]:
    tier.turn += 1
    at = (tier.turn - 1) % len(targets)
    return _wanted_first(targets[at:] + targets[:at], traits)


def _least_in_flight(tier: RoutedTier, targets: list[T], traits: CallTraits, chance: Chance) -> list[T]:
    shuffled = _weighted(tier, targets, traits, chance)
    return _wanted_first(sorted(shuffled, key=lambda t: t.load.in_flight / (traits.weight(t) or 1)), traits)


def _lowest_ttft(tier: RoutedTier, targets: list[T], traits: CallTraits, chance: Chance) -> list[T]:
    """Draws two targets at random; the quicker one comes first (Mitzenmacher 2001). A target without
    measurements counts as the quickest."""
    drawn = _weighted(tier, targets, traits, chance)
    two = sorted(drawn[:2], key=lambda target: target.load.first_token)
    return _wanted_first([*two, *drawn[2:]], traits)


def _cheapest(tier: RoutedTier, targets: list[T], traits: CallTraits, chance: Chance) -> list[T]:
    by_price = sorted(targets, key=lambda t: math.inf if t.spec.price is None else t.spec.price)
    return _wanted_first(by_price, traits)


def _affinity(tier: RoutedTier, targets: list[T], traits: CallTraits, chance: Chance) -> list[T]:
    """Weighted rendezvous hashing: a key keeps its target when other targets are added or removed."""
    key = (
        {"session": traits.session, "key": traits.key, "prefix": traits.prefix}[tier.affinity]
        or traits.session
        or traits.prefix
    )
    if not key:
        return _weighted(tier, targets, traits, chance)

    def score(target: Any) -> float:
        name = (
            target.label if not tier.pooled or target.pod is None else f"{target.label}@{target.pod.address}"
        )
        digest = hashlib.blake2b(f"{key}\0{name}".encode("utf-8", "replace"), digest_size=8).digest()
        uniform = (int.from_bytes(digest, "big") + 1) / (2**64 + 1)
        return -traits.weight(target) / math.log(uniform)

    return sorted(targets, key=score, reverse=True)


def _queue_depth(tier: RoutedTier, targets: list[T], traits: CallTraits, chance: Chance) -> list[T]:
    from sluice.routing.pod_order import by_queue

    pooled: list[Any] = targets
    if any(target.pod is None for target in pooled):  # no server of an upstream is known yet
        return _least_in_flight(tier, targets, traits, chance)
    order = by_queue([target.pod for target in pooled], chance, traits.choice)
    return _wanted_first([targets[at] for at in order], traits)


def _prefix_cache(tier: RoutedTier, targets: list[T], traits: CallTraits, chance: Chance) -> list[T]:
    from sluice.routing.pod_order import by_prefix

    pooled: list[Any] = targets
    if traits.chat is None or not traits.chat.messages or any(target.pod is None for target in pooled):
        return _queue_depth(tier, targets, traits, chance)
    wanted, others = list[Any](), list[Any]()
    for target in pooled:
        (wanted if traits.weight(target) > 0 else others).append(target)
    if not wanted:
        wanted, others = others, wanted
    order = by_prefix(
        [target.pod for target in wanted],
        lambda at: wanted[at].health.ready(),
        traits.chat,
        model=wanted[0].model,
        session=traits.session,
        chance=chance,
        choice=traits.choice,
    )
    return [wanted[at] for at in order] + others


class _Row(msgspec.Struct, frozen=True):
    """A strategy: its function, and the clause by which `sluice explain` describes it, in which {} stands for
    the kind of affinity. `by_pods`: it needs upstreams with several servers. `by_ttft`: it compares times to
    the first token, so all answers of its targets are streamed."""

    order: Callable[[RoutedTier, list[Any], CallTraits, Chance], list[Any]]
    says: str
    by_pods: bool = False
    by_ttft: bool = False


STRATEGIES: Mapping[Strategy, _Row] = {
    "weighted": _Row(_weighted, "drawn by weight for each call"),
    "round_robin": _Row(_round_robin, "in turns"),
    "least_in_flight": _Row(_least_in_flight, "the one with the fewest calls in flight for its weight"),
    "lowest_ttft": _Row(
        _lowest_ttft, "of two drawn at random, the one with the lower time to first token", by_ttft=True
    ),
    "cheapest": _Row(_cheapest, "by price"),
    "affinity": _Row(_affinity, "by consistent hash, so that the same {} stays on the same target"),
    "queue_depth": _Row(
        _queue_depth, "of all servers of its upstreams the one with the shortest queue", by_pods=True
    ),
    "prefix_cache": _Row(
        _prefix_cache,
        "of all servers of its upstreams the one that has probably cached the prompt, unless it is busy",
        by_pods=True,
    ),
}
BY_PODS = frozenset(name for name, row in STRATEGIES.items() if row.by_pods)
"""The strategies that need upstreams of several servers."""
BY_TTFT = frozenset(name for name, row in STRATEGIES.items() if row.by_ttft)
"""The strategies that compare times to the first token."""
_ORDERS: Mapping[str, Callable[[RoutedTier, list[Any], CallTraits, Chance], list[Any]]] = {
    name: row.order for name, row in STRATEGIES.items()
}
