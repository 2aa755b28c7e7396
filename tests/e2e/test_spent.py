"""What providers say about their limits moves calls to other targets, before anything is refused."""

import aiohttp
import pytest

from sluice.config.loader import load_mapping
from sluice.routing.explain import explain
from tests.e2e.answers import ask
from tests.e2e.gateways import HEAD, gateway
from tests.fakes.faulty import Provider, Turn, healthy
from tests.fakes.rawserver import sized

SPENT = (("X-RateLimit-Remaining-Requests", "0"), ("X-RateLimit-Reset-Requests", "30s"))
BODY = (
    b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}'
)


async def last_one(turn: Turn) -> None:
    if turn.model == "one":
        turn.peer.send(sized(BODY, 200, *SPENT))
    else:
        await healthy(turn)


@pytest.mark.parametrize(("options", "asked"), [("", 1), (", rate_headers: false", 3)])
async def test_a_target_whose_window_is_used_up_is_passed_over(options: str, asked: int) -> None:
    async with Provider(last_one) as provider:
        upstream = f'backend: openai, api_key: k, base_url: "{provider.url}/v1"'
        text = f"""{HEAD}
upstreams:
  a: {{{upstream}{options}}}
  b: {{{upstream}}}
aliases:
  chat: {{tiers: [[{{upstream: a, model: one}}], [{{upstream: b, model: two}}]], heartbeat: null}}
  alone: {{tiers: [[{{upstream: a, model: one}}]], heartbeat: null}}
"""
        async with gateway(text) as g, aiohttp.ClientSession(g.url) as client:
            for _ in range(3):
                assert (await ask(client, "openai whole", "chat")).error == ""
            assert [turn.model for turn in provider.turns].count("one") == asked
            passed = 'sluice_failovers_total{alias="chat",cause="rate_limited",from="a/one",to="b/two"}'
            assert g.metric(passed) == 3 - asked
            assert (await ask(client, "openai whole", "alone")).error == ""  # there is no other


def test_explain_names_the_targets_that_are_heeded() -> None:
    section = {"backend": "openai", "api_key": "k"}
    accounts = {"backend": "openai", "credentials": [{"api_key": "one"}, {"api_key": "two"}]}
    config = load_mapping(
        {
            "upstreams": {"a": section, "b": {**section, "rate_headers": False}, "c": accounts},
            "aliases": {
                "chat": {"tiers": [[{"upstream": name, "model": "m"} for name in "abc"]]},
                "alone": {"tiers": [[{"upstream": "a", "model": "m"}]]},
            },
        }
    ).config
    lines = [line for line in explain(config, "chat") if "remains" in line]
    assert lines == ["passed over while answers say that nothing remains of a limit (a minute at most): a/m"]
    assert not [line for line in explain(config, "alone") if "remains" in line]
