"""What a configuration allows is shown, and what it allows no more is not."""

from sluice.runtime.maxima import show_maxima
from sluice.telemetry.metrics import Metrics
from tests.e2e.gateways import HEAD
from tests.runtime.held import loaded

UPSTREAM = "upstreams: {one: {backend: echo, max_connections: 7, limits: {streams: 3}}}\n"
LIMITED = (
    HEAD.replace("limits: {address: null}", "")
    + UPSTREAM
    + """
limits: {address: {rate: 5/s}, overall: {requests: [{rate: 10/s}, {rate: 120/min, burst: 30}], budget: {day: 5}}}
tenants: {acme: {limits: {tokens: {rate: 60000/min}}}}
aliases: {chat: {tiers: [[{upstream: one, model: echo}]], queue: {size: 9}}}
"""
)
PLAIN = HEAD + UPSTREAM + "aliases: {chat: {tiers: [[{upstream: one, model: echo}]]}}\n"


def shown(metrics: Metrics) -> dict[str, float]:
    lines = metrics.exposition().decode().splitlines()
    found = [line.removeprefix("sluice_").rpartition(" ") for line in lines if not line.startswith("#")]
    return {name: float(value) for name, _, value in found if name.startswith("limit_") or "_max{" in name}


def test_limits_queues_and_connections_are_shown_as_they_are_configured() -> None:
    metrics = Metrics("1")
    show_maxima(metrics, loaded(LIMITED).config)
    found = shown(metrics)

    def limit(name: str, scope: str, owner: str, resource: str, window: str) -> float | None:
        return found.get(
            f'limit_{name}{{name="{owner}",resource="{resource}",scope="{scope}",window="{window}"}}'
        )

    assert (
        limit("rate", "overall", "", "requests", "1"),
        limit("capacity", "overall", "", "requests", "1"),
    ) == (10, 10)
    assert (
        limit("rate", "overall", "", "requests", "60"),
        limit("capacity", "overall", "", "requests", "60"),
    ) == (2, 30)
    assert limit("capacity", "overall", "", "budget", "day") == 5
    assert limit("rate", "address", "", "requests", "1") == 5
    assert limit("rate", "tenant", "acme", "tokens", "60") == 1000
    assert limit("capacity", "upstream", "one", "streams", "") == 3
    assert found['queue_length_max{alias="chat"}'] == 9
    assert found['upstream_connections_max{upstream="one"}'] == 7


def test_a_keys_limits_are_shown_only_where_keys_may_be_labels() -> None:
    text = LIMITED.replace("default_alias: chat", "default_alias: chat, limits: {requests: {rate: 3/s}}")
    series = 'limit_rate{name="test",resource="requests",scope="key",window="1"}'
    for more, value in (("", None), ("metrics: {key_label: true}\n", 3)):
        metrics = Metrics("1")
        show_maxima(metrics, loaded(text + more).config)
        assert shown(metrics).get(series) == value


def test_what_a_later_configuration_does_not_name_is_gone() -> None:
    metrics, before, after = Metrics("1"), loaded(LIMITED).config, loaded(PLAIN).config
    show_maxima(metrics, before)
    show_maxima(metrics, after, before)
    assert shown(metrics).keys() == {
        'upstream_connections_max{upstream="one"}',
        'limit_capacity{name="one",resource="streams",scope="upstream",window=""}',
    }
