"""Explains which targets a call would be sent to, in which order, under which timeouts, and why. Sends
nothing.

Health and load are those of a gateway that has just started; a running one skips unhealthy targets.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from sluice.config.resources import NAMES
from sluice.config.types import (
    Alias,
    CallLimits,
    Config,
    Target,
    Tier,
    Timeouts,
    Upstream,
    covering,
    heeds_limits,
    targets_of,
)
from sluice.config.units import in_full
from sluice.files import read_file
from sluice.frontends import Head
from sluice.frontends.openai.dialect import OpenAI
from sluice.frontends.widget.dialect import Widget
from sluice.model.chat import ChatRequest
from sluice.routing.health import Health, Load
from sluice.routing.strategies import STRATEGIES, CallTraits, RoutedTier, ordered, traits_of
from sluice.wire.baseurl import base_of


class Explained(msgspec.Struct, frozen=True):
    """A target, with the properties that routing uses."""

    label: str
    spec: Target
    health: Health
    load: Load
    pod: None = None  # a gateway that has just started knows no server of an upstream


MAX_FILE_BYTES = 64 << 20
"""Maximum bytes of a file with a request's body."""


def request_in(path: Path) -> ChatRequest:
    """Parses a file that holds the body of an OpenAI request, or of the widget's. Raises BadRequest,
    OSError."""
    return request_of(read_file(path, MAX_FILE_BYTES))


def request_of(body: bytes) -> ChatRequest:
    """Parses the body of an OpenAI request, or of the widget's. Raises BadRequest."""
    parse = OpenAI().parse if b'"messages"' in body else Widget().streamed
    return parse(body, Head())


Abilities = Callable[[Target], Iterable[str]]
"""Returns the lines that describe what a target can do of this request, or (None) of any request."""


def explain(
    config: Config, name: str, chat: ChatRequest | None = None, abilities: Abilities = lambda _: ()
) -> Iterator[str]:
    """Returns the lines of the explanation. Raises KeyError for an unknown alias."""
    alias = config.aliases[name]
    traits = traits_of(chat) if chat is not None else CallTraits()
    yield f"{name}: {_needs(traits) if chat is not None else 'any request'}"
    number = 0
    for place, tier in enumerate(alias.tiers, 1):
        targets = [
            Explained(f"{t.upstream}/{t.model}", t, Health(lambda: 0.0), Load()) for t in targets_of(tier)
        ]
        yield f"tier {place}: {_order(tier)}"
        fit = [target for target in targets if not traits.unfit(target)]
        routed = (
            RoutedTier(targets, tier.strategy, tier.affinity)
            if isinstance(tier, Tier)
            else RoutedTier(targets)
        )
        for target in ordered(routed, fit, traits, lambda: 0.5):
            number += 1
            yield f"  {number}. {target.label}{_share(fit, target, traits, routed)}"
            if upstream := _dialect(config.upstreams[target.spec.upstream]):
                yield f"     {upstream}"
            yield f"     {_deadlines(target.spec.timeouts or config.upstreams[target.spec.upstream].timeouts)}"
            yield from (f"     {line}" for line in abilities(target.spec))
        for target in targets:
            if reason := traits.unfit(target):
                yield f"  -  {target.label}: left out, it {reason}"
    if not number:
        yield "no target can take this request: it would be refused (400)"
    yield from _afterwards(config, name, alias)


def _needs(traits: CallTraits) -> str:
    needs = [word for word, needed in (("vision", traits.vision), ("tools", traits.tools)) if needed]
    return f"a request of about {traits.tokens} tokens" + (
        f" that needs {' and '.join(needs)}" if needs else ""
    )


def _dialect(upstream: Upstream) -> str:
    """Returns the dialect and address of an upstream that is configured by its vendor's name; "" for any
    other."""
    address = upstream.options.get("base_url")
    at = f" at {base_of(address)[0]}" if isinstance(address, str) else ""
    return f"{upstream.vendor}: speaks {upstream.backend}{at}" if upstream.vendor else ""


def _order(tier: tuple[Target, ...] | Tier) -> str:
    strategy, kind = (tier.strategy, tier.affinity) if isinstance(tier, Tier) else ("weighted", "session")
    return "one target" if len(targets_of(tier)) == 1 else STRATEGIES[strategy].says.format(kind)


def _share(fit: list[Explained], target: Explained, traits: CallTraits, tier: RoutedTier) -> str:
    total = sum(traits.weight(other) for other in fit)
    if tier.strategy != "weighted" or len(fit) < 2 or not total:
        return ""
    return f" ({traits.weight(target) / total:.0%} of the calls first)"


def _deadlines(timeouts: Timeouts) -> str:
    phases = {name: getattr(timeouts, name) for name in timeouts.__struct_fields__}
    return ", ".join(f"{name} {in_full(value)}s" for name, value in phases.items() if value is not None)


def _afterwards(config: Config, name: str, alias: Alias) -> Iterator[str]:
    retry = alias.retry
    yield (
        f"after a server error or a reset: the same target {retry.same_target} more time(s), {in_full(retry.backoff)}s later; "
        f"a Retry-After up to {in_full(retry.retry_after_wait)}s is waited out; anything else: the next target at once"
    )
    targets = [target for tier in alias.tiers for target in targets_of(tier)]
    if len(targets) > 1 and (heeded := _heeded(config, targets)):
        yield f"passed over while answers say that nothing remains of a limit (a minute at most): {', '.join(heeded)}"
    if alias.hedge is not None:
        after = (
            f"{in_full(alias.hedge.after)}s" if alias.hedge.after is not None else "its own 95th percentile"
        )
        yield f"hedge: a second target is asked when the first has no content after {after}"
    if alias.shadow is not None:
        yield f"shadow: {alias.shadow.share:.0%} of the calls are also sent to {alias.shadow.upstream}/{alias.shadow.model}"
    cut = "is continued by the next target" if alias.continues else "ends in an in-band error"
    yield f"a stream that is cut after its first content {cut}"
    yield from _limits(config, name, alias)
    if alias.timeout is not None:
        yield f"the whole call may take {in_full(alias.timeout)}s"


def _limits(config: Config, name: str, alias: Alias) -> Iterator[str]:
    """Returns the lines about the limits of a call, except those of its key, tenant and teams."""
    sections: tuple[tuple[str, CallLimits | None], ...] = (
        (f"alias {name}", alias.limits),
        ("everybody", config.limits.overall),
        ("each end user", config.limits.end_users),
    )
    for whose, of in sections:
        if of is not None and (resources := _limited(of)):
            yield f"limits of {whose}: {resources}"
    for key in config.keys:
        for single, limits in key.limits.aliases.items():
            if (single == name or covering([single], name) or covering([name], single)) and (
                resources := _limited(limits)
            ):
                yield f"limits of key {key.id} for {single}: {resources}"


def _limited(limits: CallLimits) -> str:
    """Returns the names of the resources that are limited."""
    return ", ".join(name for name in NAMES if getattr(limits, name))


def _heeded(config: Config, targets: Sequence[Target]) -> list[str]:
    """Returns the targets that are avoided while their own answers report that their limits are used up."""
    upstreams = config.upstreams
    return [
        f"{target.upstream}/{target.model}" for target in targets if heeds_limits(upstreams[target.upstream])
    ]
