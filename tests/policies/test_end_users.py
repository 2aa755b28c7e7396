"""End users: where their names are read, how many are told apart, and that their limits are theirs alone."""

from typing import Any

import msgspec
import pytest

from sluice.config.types import Budget, EndUsers, KeyLimits, Limit, Limits, Rate
from sluice.errors import BadRequest, Forbidden, NotFound, RateLimited
from sluice.identity.principal import Principal
from sluice.model.chat import ChatRequest
from sluice.model.events import Usage
from sluice.policies.end_users import OTHERS, EndUserNames, TrackedUsers, digest_of_user, longest_refill
from sluice.proxy.attempt import Attempt
from tests.policies.calls import Desk
from tests.proxy.scripts import Scene

ANN, BOB = digest_of_user("ann"), digest_of_user("bob")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def principal(tenant: str = "acme", **fields: Any) -> Principal:
    return Principal("k", tenant, "k", frozenset("*"), **fields)


def chat(user: str = "", **wire: Any) -> ChatRequest:
    return ChatRequest("openai", "chat", (), user=user, wire=wire or None)


def names(tracked: TrackedUsers | None = None, folded: Any = lambda: None, **config: Any) -> EndUserNames:
    return EndUserNames(EndUsers(**config), tracked if tracked is not None else TrackedUsers(Clock()), folded)


@pytest.mark.parametrize(
    ("source", "given", "caller", "headers", "name"),
    [
        (("body",), chat("ann"), principal(), {}, "ann"),
        (("body",), chat(user=" ann "), principal(), {}, "ann"),
        (("body",), chat(**{"user": "ann"}), principal(), {}, "ann"),
        (("body",), ChatRequest("openai", "m", (), wire={"user": "ann"}), principal(), {}, "ann"),
        (
            ("body",),
            ChatRequest("openai", "m", (), wire={"user": 3, "safety_identifier": "x"}),
            principal(),
            {},
            "",
        ),
        (
            ("body",),
            ChatRequest("openai", "m", (), wire={"safety_identifier": "ann"}),
            principal(),
            {},
            "ann",
        ),
        (("header:X-User-Id",), chat("bob"), principal(), {"x-user-id": "ann"}, "ann"),
        (("header:x-user-id", "body"), chat("bob"), principal(), {"x-user-id": " "}, "bob"),
        (
            ("header:x-user-id",),
            chat(),
            principal(),
            {"x-user-id": "jörg".encode().decode("latin-1")},
            "jörg",
        ),
        (("token",), chat("bob"), principal(user="ann", kind="jwt"), {}, "ann"),
        (("token",), chat("bob"), principal(session_prefix="ann", kind="browser"), {}, "ann"),
        (("token",), chat("bob"), principal(), {}, ""),
        (("token", "body"), chat("bob"), principal(), {}, "bob"),
    ],
)
def test_the_first_source_that_has_a_name_decides(
    source: tuple[str, ...], given: ChatRequest, caller: Principal, headers: dict[str, str], name: str
) -> None:
    found = names(source=source).owner(caller, given, headers)
    assert found == (f"acme|{digest_of_user(name)}" if name else "")


def test_a_call_that_names_nobody_is_refused_where_it_has_to() -> None:
    with pytest.raises(BadRequest) as refused:
        names(missing="refuse", source=("header:x-user", "body")).owner(principal(), chat(), {})
    assert "header:x-user, body" in refused.value.message


def test_only_so_many_of_a_tenant_are_told_apart_and_the_others_share() -> None:
    clock, folded = Clock(), []
    tracked = TrackedUsers(clock)
    of = names(tracked, lambda: folded.append(1), most=2)
    found = [of.owner(principal(), chat(name), {}) for name in ("ann", "bob", "eve", "mallory", "ann")]
    assert found == [f"acme|{ANN}", f"acme|{BOB}", f"acme|{OTHERS}", f"acme|{OTHERS}", f"acme|{ANN}"]
    assert len(folded) == 2
    assert of.owner(principal("beta"), chat("eve"), {}) == f"beta|{digest_of_user('eve')}"
    clock.now += 3600.0
    assert of.owner(principal(), chat("eve"), {}) == f"acme|{OTHERS}"
    clock.now += 0.5  # everything that bob and ann took has been refilled
    assert of.owner(principal(), chat("eve"), {}) == f"acme|{digest_of_user('eve')}"
    assert len(tracked) == 1


def test_all_tenants_together_have_a_bound_too() -> None:
    tracked = TrackedUsers(Clock(), total=3)
    assert [tracked.admit(f"t{number}", "u", 10, 3600.0) for number in range(5)] == [True] * 3 + [False] * 2


def test_a_name_that_is_too_long_or_no_unicode_harms_nobody() -> None:
    of = names()
    assert of.owner(principal(), chat("x" * 100_000), {}) == f"acme|{OTHERS}"
    assert of.owner(principal(), chat("\ud800"), {}) != f"acme|{OTHERS}"


def test_a_key_may_query_each_end_user_of_its_tenant() -> None:
    of = names(source=("header:x-user", "body"))
    assert of.known(principal(), " ann ", {"x-user": "bob"}) == f"acme|{ANN}"
    assert of.known(principal(), "", {"x-user": "bob"}) == f"acme|{BOB}"
    assert of.known(principal("beta"), "ann", {}) == f"beta|{ANN}"
    assert of.known(principal(), "", {}) == ""


def test_a_token_may_query_the_end_user_that_it_names_and_no_other() -> None:
    of, caller = names(source=("header:x-user", "token", "body")), principal(kind="jwt", user="ann")
    for name, headers in (("ann", {}), ("", {}), ("", {"x-user": "bob"})):
        assert of.known(caller, name, headers) == f"acme|{ANN}"
    with pytest.raises(Forbidden):
        of.known(caller, "bob", {})
    with pytest.raises(Forbidden):
        of.known(principal(kind="jwt"), "ann", {"x-user": "ann"})
    elsewhere = names(source=("header:x-user", "body"))
    assert elsewhere.known(caller, "", {"x-user": "bob"}) == ""
    with pytest.raises(Forbidden):
        elsewhere.known(caller, "ann", {"x-user": "ann"})


def test_who_shares_the_limits_of_one_is_not_told_them_as_its_own() -> None:
    clock = Clock()
    tracked = TrackedUsers(clock)
    of = names(tracked, most=2, source=("header:x-user", "body"))
    assert of.known(principal(), "ann", {}) == f"acme|{ANN}"  # who has not asked yet would be tracked
    for name in ("ann", "bob", "eve"):
        of.owner(principal(), chat(name), {})
    assert of.known(principal(), "bob", {}) == f"acme|{BOB}"
    for name in ("eve", "mallory", "x" * 2000):
        with pytest.raises(NotFound):
            of.known(principal(), name, {})
        assert of.known(principal(), "", {"x-user": name}) == ""
    assert of.known(principal("beta"), "eve", {}) == f"beta|{digest_of_user('eve')}"
    clock.now += 3601.0
    assert of.known(principal(), "eve", {}) == f"acme|{digest_of_user('eve')}"


def test_who_has_a_budget_keeps_its_place_for_the_period() -> None:
    assert longest_refill(EndUsers()) == 3600.0
    assert longest_refill(EndUsers(requests=Limit(rate=Rate.parse("5/day")))) == pytest.approx(86400)
    assert longest_refill(EndUsers(budget=Budget(day=1, month=3))) == 31 * 86400


def window(rate: float, burst: float) -> Limit:
    return Limit(rate=Rate(rate), burst=burst)


async def test_each_end_user_has_limits_of_its_own_and_the_callers_hold_beside_them() -> None:
    desk = Desk(limits=Limits(address=None, end_users=EndUsers(requests=window(0.001, 2))))
    key = KeyLimits(requests=window(0.001, 5))

    def ask(user: str) -> Any:
        call = desk.call(key)
        call.end_user = user
        desk.limiter(call)
        return dict(call.headers)

    assert ask("acme|ann")["x-ratelimit-remaining-requests"] == "1"
    ask("acme|ann")
    with pytest.raises(RateLimited) as refused:
        ask("acme|ann")
    assert (refused.value.scope, refused.value.final) == ("end_user", False)
    assert "per end user" in str(refused.value)
    ask("acme|bob")
    assert ask("")["x-ratelimit-remaining-requests"] == "1"  # the key's own
    ask("acme|eve")
    with pytest.raises(RateLimited) as refused:
        ask("acme|bob")
    assert refused.value.scope == "key"


async def test_what_an_end_user_used_is_settled_with_its_call() -> None:
    users = EndUsers(tokens=window(1, 100), streams=1)
    desk = Desk(limits=Limits(address=None, end_users=users))
    call = desk.call(tokens=20)
    call.end_user = "acme|ann"
    admission = await desk.enter(call)
    again = msgspec.structs.replace(call, headers=[])
    with pytest.raises(RateLimited) as refused:
        await desk.enter(again)
    assert (refused.value.scope, refused.value.resource) == ("end_user", "streams")
    call.attempts.append(Attempt(Scene([]).targets[0], 0.0, used=Usage(3, 4)))
    await desk.leave(admission)
    assert await desk.bucket_level("end_user:acme|ann:tokens:0", window(1, 100)) == pytest.approx(93)
    await desk.leave(await desk.enter(again))
