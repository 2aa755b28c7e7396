from sluice.errors import UpstreamError
from sluice.routing.health import MAX_COOL_DOWN, BreakerPolicy, BreakerState, Health, NoWatcher

POLICY = BreakerPolicy(failures=3, open_for=5, open_max=15)
BROKEN = UpstreamError("server_error")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class States(NoWatcher):
    """The states that a breaker has had."""

    def __init__(self, states: list[BreakerState]) -> None:
        self._states = states

    def changed(self, state: BreakerState, why: UpstreamError | None) -> None:
        self._states.append(state)


def opened() -> tuple[Health, Clock, list[BreakerState]]:
    clock, states = Clock(), list[BreakerState]()
    health = Health(clock, POLICY, States(states))
    for _ in range(3):
        health.begin()
        health.failed(BROKEN)
    return health, clock, states


def test_opens_after_failures_in_a_row_only() -> None:
    health = Health(Clock(), POLICY)
    for error in (BROKEN, BROKEN, None, BROKEN, BROKEN):
        health.begin()
        health.failed(error) if error else health.succeeded()
    assert health.ready()
    assert health.state is BreakerState.CLOSED
    health.failed(BROKEN)
    assert not health.ready()
    assert health.state is BreakerState.OPEN


def test_lets_one_probe_through_when_its_time_is_over() -> None:
    health, clock, states = opened()
    clock.now += 4.9
    assert not health.ready()
    clock.now += 0.1
    assert health.ready()
    health.begin()
    assert not health.ready(), "one probe at a time"
    assert states == [BreakerState.OPEN, BreakerState.HALF_OPEN]


def test_a_probe_that_succeeds_closes_it_at_once() -> None:
    health, clock, states = opened()
    clock.now += 5
    health.begin()
    health.succeeded()
    assert health.ready()
    assert states[-1] is BreakerState.CLOSED


def test_each_failed_probe_doubles_the_wait_up_to_the_bound() -> None:
    health, clock, _ = opened()
    waits = []
    for _ in range(4):
        start = clock.now
        while not health.ready():
            clock.now += 0.5
        waits.append(clock.now - start)
        health.begin()
        health.failed(BROKEN)
    assert waits == [5, 10, 15, 15]


def test_a_target_down_for_a_minute_serves_again_within_sixteen_seconds() -> None:
    clock = Clock()
    health = Health(clock)
    down_until = clock.now + 60
    while True:
        clock.now += 0.25  # a call four times a second
        if health.ready():
            health.begin()
            if clock.now < down_until:
                health.failed(BROKEN)
            else:
                health.succeeded()
                break
    assert clock.now - down_until <= 16


def test_an_abandoned_probe_lets_another_go() -> None:
    health, clock, _ = opened()
    clock.now += 5
    probe = health.begin()
    health.abandoned(probe)
    assert health.ready()


def test_a_rate_limit_cools_down_without_counting_as_a_failure() -> None:
    clock = Clock()
    health = Health(clock, POLICY)
    for _ in range(10):
        health.begin()
        health.failed(UpstreamError("rate_limited", retry_after=7))
    assert health.state is BreakerState.CLOSED
    assert not health.ready()
    clock.now += 7
    assert health.ready()


def test_errors_of_the_request_say_nothing_about_the_target() -> None:
    health = Health(Clock(), POLICY)
    for kind in ("bad_request", "context_length", "content_policy", "unknown_id"):
        for _ in range(5):
            health.failed(UpstreamError(kind))  # type: ignore[arg-type]
    assert health.ready()


def test_a_target_that_hung_serves_again_within_sixteen_seconds_of_its_recovery() -> None:
    """It accepts and never answers: whatever is sent to it fails by its deadline only, half a minute
    later."""
    for down_for in range(60, 91):
        clock = Clock()
        health = Health(clock)
        down_until = clock.now + down_for
        failing: list[float] = []
        while True:
            clock.now += 0.25
            while failing and failing[0] <= clock.now:
                failing.pop(0)
                health.failed(UpstreamError("headers_timeout"))
            if health.ready():
                health.begin()
                if clock.now >= down_until:
                    break
                failing.append(clock.now + 30)
        assert clock.now - down_until <= 16


def test_calls_from_before_the_breaker_opened_do_not_keep_it_open() -> None:
    health, clock, states = opened()
    clock.now += 5
    health.begin()
    health.failed(BROKEN)  # one of those
    health.succeeded()
    assert health.ready()
    assert states[-1] is BreakerState.CLOSED


def test_any_error_with_a_retry_after_cools_down() -> None:
    clock = Clock()
    health = Health(clock, POLICY)
    health.begin()
    health.failed(UpstreamError("overloaded", retry_after=20))
    assert not health.ready()
    clock.now += 20
    assert health.ready()


def test_no_wait_that_an_upstream_asks_for_keeps_it_away_for_longer_than_our_patience() -> None:
    clock = Clock()
    health = Health(clock, POLICY)
    health.begin()
    health.failed(UpstreamError("rate_limited", retry_after=86_400.0))
    clock.now += MAX_COOL_DOWN - 1
    assert not health.ready()
    clock.now += 1
    assert health.ready()


def test_an_account_without_money_cools_down_and_counts_as_a_failure() -> None:
    clock = Clock()
    health = Health(clock, POLICY)
    for _ in range(POLICY.failures):
        health.begin()
        health.failed(UpstreamError("billing"))
    assert not health.ready()
    assert health.state is BreakerState.OPEN


def test_the_error_rate_opens_a_breaker_that_never_sees_failures_in_a_row() -> None:
    health = Health(lambda: 0.0, BreakerPolicy(failures=5, error_rate=0.5))
    for _ in range(11):
        health.failed(UpstreamError("server_error"))
        if health.ready():
            health.succeeded()
    assert not health.ready()
