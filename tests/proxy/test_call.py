"""One call: its end, its cost and what its headers say."""

from types import SimpleNamespace
from typing import Any, get_args

import pytest

from sluice.errors import BadRequest, GatewayError, NoCapacity, RateLimited, UpstreamError, UpstreamErrorKind
from sluice.proxy.call import ENDS, Call, end_of
from sluice.telemetry import table


def call(*attempts: Any, answered: Any = None) -> Call:
    parts: Any = [None] * 6
    made = Call("id", 0.0, *parts[:5])
    made.attempts = [*attempts]
    made.answered = answered
    return made


def attempt(label: str = "up/m", cost: float | None = None, provider_id: str = "") -> Any:
    target = SimpleNamespace(attribution=(("x-sluice-attempts", "1"), ("x-sluice-target", label)))
    return SimpleNamespace(target=target, cost=cost, provider_id=provider_id)


@pytest.mark.parametrize("kind", get_args(UpstreamErrorKind))
def test_every_error_is_an_end_that_the_metric_knows(kind: UpstreamErrorKind) -> None:
    assert end_of(UpstreamError(kind)) in table.END_REASONS


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (RateLimited(1.0, scope="key", resource="requests"), "limit"),
        (NoCapacity(1.0, "requests"), "limit"),
        (UpstreamError("headers_timeout"), "first_token_timeout"),
        (UpstreamError("server_error"), "upstream_error"),
        (BadRequest("no"), "upstream_error"),
    ],
)
def test_ends_by_their_errors(error: GatewayError, end: str) -> None:
    assert end_of(error) == end
    assert {*ENDS.values()} <= {*table.END_REASONS}


def test_the_first_reason_for_the_end_counts() -> None:
    made = call()
    made.finish("client_gone")
    made.finish("done")
    assert made.end == "client_gone"


@pytest.mark.parametrize(
    ("costs", "cost"),
    [([], None), ([None], None), ([0.5], 0.5), ([None, 0.5, 0.25], 0.75), ([None, None], None)],
)
def test_the_cost_is_that_of_all_attempts_with_a_price(costs: list[float | None], cost: float | None) -> None:
    assert call(*[attempt(cost=one) for one in costs]).cost == cost


def test_headers_name_the_target_that_answered_and_count_all() -> None:
    assert call().attribution() == ()
    first, second = attempt("a/m"), attempt("b/m", provider_id="req_1")
    assert call(first, answered=first).attribution() == first.target.attribution
    assert [*call(first, second, answered=second).attribution()] == [
        ("x-sluice-attempts", "2"),
        ("x-sluice-target", "b/m"),
        ("x-sluice-upstream-request-id", "req_1"),
    ]
    assert dict(call(first, second).attribution())["x-sluice-target"] == "b/m"  # none answered: the last one
