"""Health and load of a target whose upstream has several servers."""

from sluice.errors import UpstreamError
from sluice.routing.health import BreakerPolicy, BreakerState
from sluice.routing.pooled import PooledHealth, PooledLoad


def test_the_whole_is_as_healthy_as_its_healthiest_server() -> None:
    gone = list[str]()
    health = PooledHealth(lambda: 0.0, BreakerPolicy(failures=1), server_gone=gone.append)
    assert (health.closed, health.state, health.ready()) == (True, BreakerState.CLOSED, True)
    one, other = health.of("a"), health.of("b")
    assert health.of("a") is one
    one.failed(UpstreamError("server_error"))
    assert (health.closed, health.state, health.last_error) == (True, BreakerState.CLOSED, "server_error")
    other.failed(UpstreamError("reset"))
    assert (health.closed, health.state, health.ready(), health.last_error) == (
        False,
        BreakerState.OPEN,
        False,
        "reset",
    )
    health.keep(["b"])
    assert gone == ["a"]
    other.succeeded()
    assert health.closed


def test_the_load_of_the_whole_is_that_of_all() -> None:
    load = PooledLoad()
    load.in_flight += 1
    one, other = load.of("a"), load.of("b")
    one.in_flight += 2
    other.in_flight += 3
    load.in_flight += 1
    assert load.in_flight == 7
    load.in_flight -= 2
    assert (load.in_flight, one.in_flight) == (5, 2)
    for _ in range(20):
        one.observe(0.5)
    assert (load.first_token, other.p95()) == (0.5, 0.5)
    load.keep([])
    assert load.in_flight == 0
