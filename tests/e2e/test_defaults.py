"""Two upstreams, one alias and nothing else set: what the defaults alone make of a provider that fails.

The kinds are those of the published failover benchmark (field notes, 1.4), each played by the faulty
provider; those that a deadline ends get a short one, since the default is 30 s. The slow first token needs
such a deadline: it is the caller's patience that decides, so the default does not fail over where a model
merely thinks.
"""

import aiohttp
import pytest

from tests.e2e.answers import Answer, ask
from tests.e2e.gateways import HEAD, gateway
from tests.fakes.dialects import ANSWER
from tests.fakes.faulty import BEHAVIOURS, Behaviour, Provider, Turn, healthy
from tests.fakes.rawserver import sized

BRIEF = ", timeouts: {headers: 0.4, first_token: 0.4, idle: 0.4, whole: 0.4}"


async def refuse_the_key(turn: Turn) -> None:
    body = b'{"error": {"message": "Incorrect API key provided", "type": "invalid_request_error", "code": "invalid_api_key"}}'
    turn.peer.send(sized(body, 401, ("Content-Type", "application/json")))


KINDS: dict[str, tuple[Behaviour, str]] = {
    "server error": (BEHAVIOURS["500 always"], ""),
    "unavailable": (BEHAVIOURS["503 always"], ""),
    "rate limited": (BEHAVIOURS["429 with a long Retry-After"], ""),
    "bad credentials": (refuse_the_key, ""),
    "context length": (BEHAVIOURS["context length"], ""),
    "reset before the head": (BEHAVIOURS["reset before headers"], ""),
    "closed before the head": (BEHAVIOURS["closed before headers"], ""),
    "never answers": (BEHAVIOURS["never answers"], BRIEF),
    "headers, then nothing": (BEHAVIOURS["headers, then nothing"], BRIEF),
    "error in a 200": (BEHAVIOURS["error in the stream"], ""),
    "HTML in a 200": (BEHAVIOURS["HTML 200"], ""),
    "empty answer": (BEHAVIOURS["empty answer"], ""),
    "cut before a token": (BEHAVIOURS["cut before a token"], ""),
    "cut in the middle": (BEHAVIOURS["cut after 40 tokens"], ""),
    "ends without its end": (BEHAVIOURS["ends after 40 tokens"], ""),
    "stalls in the middle": (BEHAVIOURS["stall after 20 tokens"], BRIEF),
    "error in the middle": (BEHAVIOURS["error after 20 tokens"], ""),
}


@pytest.mark.parametrize("mode", ["openai stream", "openai whole", "widget stream"])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_caller_gets_the_whole_answer(kind: str, mode: str) -> None:
    behaviour, timeouts = KINDS[kind]
    async with Provider(behaviour) as faulty, Provider(healthy) as well:
        config = f"""{HEAD.replace(", default_alias: chat", "")}
upstreams:
  faulty: {{backend: openai, base_url: "{faulty.url}/v1", api_key: sk-1{timeouts}}}
  well: {{backend: openai, base_url: "{well.url}/v1", api_key: sk-2}}
aliases:
  chat: {{tiers: [[{{upstream: faulty, model: chat}}], [{{upstream: well, model: chat}}]]}}
"""
        async with gateway(config) as g, aiohttp.ClientSession(g.url) as client:
            assert await ask(client, mode, "chat", {}) == Answer(200, ANSWER)
