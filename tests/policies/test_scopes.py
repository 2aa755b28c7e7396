"""Whose limits a call is under, and who is charged over a restart: callers' single aliases, teams above
tenants."""

import pytest

from sluice.config.types import (
    Alias,
    Budget,
    Config,
    Issuer,
    Key,
    KeyLimits,
    Limit,
    Limits,
    Rate,
    Target,
    Team,
    Tenant,
)
from sluice.errors import RateLimited
from sluice.identity.principal import Principal
from sluice.policies.scopes import Scopes, key_alias, single_alias, teams_above
from sluice.proxy.target import Route
from sluice.routing.failover import RetryPolicy
from sluice.usage import Figures, Row, Subject
from sluice.usage.opening import Budgets, opening_charges
from tests.policies.calls import Desk
from tests.policies.test_budgets import at

NOON = at("2026-11-25T12:00:00")
TIERS = ((Target(upstream="openai", model="m"),),)


def route(name: str, called: str = "") -> Route:
    return Route(name, Alias(tiers=()), [], RetryPolicy(), None, None, called=called)


@pytest.mark.parametrize(
    ("limited", "name", "called", "single"),
    [
        ({"chat"}, "chat", "", "chat"),
        ({"chat"}, "chats", "", ""),
        ({"gpt-*", "gpt-5*"}, "gpt-5-mini", "", "gpt-5*"),
        ({"gpt-5", "gpt-5*"}, "gpt-5", "", "gpt-5"),
        ({"openai/*"}, "openai/*", "openai/gpt-5", "openai/*"),
        ({"openai/gpt-5", "openai/*"}, "openai/*", "openai/gpt-5", "openai/gpt-5"),
        ({"openai/gpt-5"}, "openai/*", "openai/gpt-4", ""),
        ({"openai/gpt-*"}, "openai/*", "openai/gpt-4", "openai/gpt-*"),
    ],
)
def test_the_nearest_name_has_the_limits(limited: set[str], name: str, called: str, single: str) -> None:
    assert single_alias(limited, route(name, called)) == single


def test_scopes_stand_from_the_narrowest_to_the_widest() -> None:
    tenants = {"acme": Tenant(team="web"), "lone": Tenant()}
    teams = {"web": Team(parent="company"), "company": Team()}
    scopes = Scopes(Limits(), tenants, teams)
    acme = Principal("k", "acme", "k", frozenset("*"), limits=KeyLimits(aliases={"chat": KeyLimits()}))
    views = [(view.scope, view.name) for view in scopes.of_call(acme, route("chat"), "chat")]
    assert views == [
        ("key_alias", "k|chat"), ("key", "k"), ("tenant", "acme"), ("team", "web"), ("team", "company"),
        ("alias", "chat"), ("overall", "all"),
    ]  # fmt: skip
    lone = Principal("k", "lone", "k", frozenset("*"))
    assert [view.scope for view in scopes.of_call(lone, route("chat"), "")] == [
        "key",
        "tenant",
        "alias",
        "overall",
    ]
    assert [*teams_above(None, teams)] == []


def window(rate: float, burst: float) -> Limit:
    return Limit(rate=Rate(rate), burst=burst)


async def test_a_callers_limit_of_one_alias_leaves_its_other_aliases_alone() -> None:
    limits = KeyLimits(requests=window(0.001, 5), aliases={"chat": KeyLimits(requests=window(0.001, 2))})
    desk = Desk()
    other = route("other")

    def elsewhere() -> None:
        call = desk.call(limits)
        call.route = other
        desk.limiter(call)

    call = desk.call(limits)
    assert desk.limiter(call) is None
    assert dict(call.headers)["x-ratelimit-limit-requests"] == "2"  # of the narrowest scope
    desk.limiter(desk.call(limits))
    with pytest.raises(RateLimited) as refused:
        desk.limiter(desk.call(limits))
    assert (refused.value.scope, refused.value.resource) == ("key_alias", "requests")
    assert "per key and alias" in str(refused.value)
    for _ in range(3):
        elsewhere()
    with pytest.raises(RateLimited) as refused:
        elsewhere()
    assert refused.value.scope == "key"


async def test_another_key_has_its_own_limit_of_the_alias() -> None:
    limits = KeyLimits(aliases={"chat": KeyLimits(requests=window(0.001, 1))})
    desk = Desk()
    desk.limiter(desk.call(limits, name="a"))
    desk.limiter(desk.call(limits, name="b"))
    with pytest.raises(RateLimited):
        desk.limiter(desk.call(limits, name="a"))


async def test_each_team_above_holds_and_a_refusal_takes_nothing_from_any_level() -> None:
    desk = Desk(
        tenants={
            "tenant": Tenant(KeyLimits(requests=window(0.001, 9)), team="web"),
            "other": Tenant(team="web"),
        },
        teams={
            "web": Team(KeyLimits(requests=window(0.001, 3)), parent="company"),
            "company": Team(KeyLimits(requests=window(0.001, 4))),
        },
    )
    for _ in range(3):
        desk.limiter(desk.call())
    with pytest.raises(RateLimited) as refused:
        desk.limiter(desk.call())
    assert (refused.value.scope, refused.value.resource) == ("team", "requests")
    level = await desk.bucket_level("tenant:tenant:requests:0", window(0.001, 9))
    assert level == 6
    assert await desk.bucket_level("team:company:requests:0", window(0.001, 4)) == 1


# over a restart


CONFIG = Config(
    upstreams={},
    aliases={"chat": Alias(tiers=TIERS), "code": Alias(tiers=TIERS)},
    keys=(
        Key(
            id="shop",
            digest="sha256:" + "0" * 64,
            tenant="acme",
            limits=KeyLimits(aliases={"chat": KeyLimits(budget=Budget(day=5))}),
        ),
    ),
    jwt=(
        Issuer(
            issuer="https://idp",
            audience="a",
            algorithms=("RS256",),
            limits=KeyLimits(aliases={"co*": KeyLimits(budget=Budget(month=3))}),
            plans={"gold": KeyLimits(aliases={"co*": KeyLimits(budget=Budget(month=9))})},
        ),
    ),
    tenants={"acme": Tenant(team="web")},
    teams={
        "web": Team(KeyLimits(budget=Budget(month=70)), parent="all"),
        "all": Team(KeyLimits(budget=Budget(month=90))),
    },
)


def row(key: str, tenant: str, alias: str, dollars: float) -> Row:
    return Subject("2026-11-25", key, tenant, alias, "openai/m"), Figures(
        requests=1, nanos=round(dollars * 1e9)
    )


def test_a_restart_charges_single_aliases_and_every_team_above() -> None:
    rows = [
        row("shop", "acme", "chat", 1),
        row("shop", "acme", "code", 2),
        row("jwt:https://idp", "https://idp|a|b", "code", 4),
        row("jwt:https://idp", "https://idp|a|b", "chat", 8),
        row("dynamic", "acme", "chat", 16),
    ]
    others = {"dynamic": KeyLimits(aliases={"ch*": KeyLimits(budget=Budget(week=32))})}
    charged = {
        claim.key: (claim.scope, claim.amount) for claim in opening_charges(rows, CONFIG, NOON, others)
    }
    assert charged == {
        "budget:key_alias:shop|chat:2026-11-25": ("key_alias", 1),
        "budget:team:web:2026-11": ("team", 19),
        "budget:team:all:2026-11": ("team", 19),
        "budget:key_alias:jwt:https://idp|a|b|co*:2026-11": ("key_alias", 4),
        "budget:key_alias:dynamic|ch*:2026-W48": ("key_alias", 16),
    }


def test_budgets_are_found_by_their_owners() -> None:
    budgets = Budgets(CONFIG, {})
    assert budgets.of("key_alias", key_alias("shop", "chat")) == Budget(day=5)
    assert budgets.of("key_alias", key_alias("jwt:https://idp|ann", "co*")) == Budget(month=9)
    assert budgets.of("key_alias", "shop|code") is None
    assert budgets.of("key", "shop") is None
    assert budgets.of("team", "web") == Budget(month=70)
