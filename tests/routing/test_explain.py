from typing import get_args

import msgspec
import pytest

from sluice.config.types import (
    Alias,
    Budget,
    Config,
    Hedge,
    Key,
    KeyLimits,
    Limit,
    Limits,
    Strategy,
    Target,
    Tier,
    Timeouts,
    Upstream,
)
from sluice.config.units import Rate, Seconds
from sluice.model.chat import ChatRequest, Image, Message, Text
from sluice.routing.explain import explain
from sluice.routing.strategies import STRATEGIES

BIG = Target(upstream="far", model="big", context=100_000)
SMALL = Target(upstream="near", model="small", weight=3, vision=False, context=1000)
EVEN = Target(upstream="far", model="even")
CONFIG = Config(
    upstreams={
        "near": Upstream(backend="echo", timeouts=Timeouts(idle=Seconds(7))),
        "far": Upstream(backend="echo"),
    },
    aliases={"chat": Alias(tiers=((SMALL, EVEN), (BIG,)), recovery="continue", hedge=Hedge())},
)


def chat(*parts: Text | Image) -> ChatRequest:
    return ChatRequest("openai", "chat", (Message("user", parts),))


def test_names_targets_in_order_with_their_deadlines_and_shares() -> None:
    text = "\n".join(explain(CONFIG, "chat"))
    assert "1. near/small (75% of the calls first)" in text
    assert "idle 7s" in text
    assert "3. far/big" in text
    assert "95th percentile" in text
    assert "continued by the next target" in text


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (chat(Image("data:,")), "takes no images"),
        (chat(Text("x" * 8000)), "takes 1000 tokens, about 2000 were sent"),
    ],
)
def test_says_why_a_target_is_left_out(asked: ChatRequest, reason: str) -> None:
    lines = list(explain(CONFIG, "chat", asked))
    assert f"  -  near/small: left out, it {reason}" in lines
    assert any(line.startswith("  1. far/") for line in lines)


def test_says_when_nobody_can_take_the_request() -> None:
    only = msgspec.structs.replace(CONFIG, aliases={"chat": Alias(tiers=((SMALL,),))})
    assert any("would be refused" in line for line in explain(only, "chat", chat(Image("data:,"))))


@pytest.mark.parametrize("strategy", get_args(Strategy))
def test_every_strategy_has_an_order_and_says_so(strategy: Strategy) -> None:
    tier = Tier(targets=(EVEN, BIG), strategy=strategy)
    config = msgspec.structs.replace(CONFIG, aliases={"chat": Alias(tiers=(tier,))})
    lines = list(explain(config, "chat"))
    assert f"tier 1: {STRATEGIES[strategy].says.format('session')}" in lines
    assert len(STRATEGIES) == len(get_args(Strategy))


def test_names_the_strategy_of_a_tier() -> None:
    tier = Tier(targets=(SMALL, EVEN), strategy="affinity", affinity="key")
    config = msgspec.structs.replace(CONFIG, aliases={"chat": Alias(tiers=(tier,))})
    assert any("the same key stays on the same target" in line for line in explain(config, "chat"))


def test_limits_of_the_alias_are_named() -> None:
    few = KeyLimits(requests=Limit(rate=Rate(1)), budget=Budget(day=1))
    config = Config(
        upstreams={"u": Upstream(backend="echo")},
        aliases={"chat": Alias(tiers=((Target(upstream="u", model="m"),),), limits=KeyLimits(streams=3))},
        keys=(
            Key(
                id="shop", digest="", limits=KeyLimits(aliases={"ch*": few, "code": few, "chat": KeyLimits()})
            ),
        ),
        limits=Limits(overall=KeyLimits(tokens=Limit(rate=Rate(1)))),
    )
    assert [line for line in explain(config, "chat") if line.startswith("limits")] == [
        "limits of alias chat: streams",
        "limits of everybody: tokens",
        "limits of key shop for ch*: requests, budget",
    ]
