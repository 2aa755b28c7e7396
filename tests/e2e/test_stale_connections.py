"""A request on a connection that the upstream closes: sent again only where the alias asks twice, and never
unseen."""

import json
from collections.abc import Callable

import aiohttp
import pytest

from tests.e2e.answers import Answer, ask
from tests.e2e.gateways import HEAD, Running, gateway
from tests.fakes.rawserver import CHUNKED, LAST_CHUNK, Peer, RawServer, Request, chunk
from tests.upstream.calls import until


def frame(**choice: object) -> bytes:
    return (
        b"data: "
        + json.dumps({"id": "1", "model": "m", "choices": [{"index": 0, **choice}]}).encode()
        + b"\n\n"
    )


SAID = (
    CHUNKED
    + chunk(
        frame(delta={"content": "ok"}, finish_reason=None)
        + frame(delta={}, finish_reason="stop")
        + b"data: [DONE]\n\n"
    )
    + LAST_CHUNK
)


class Closing:
    """A provider that answers the first request of each connection, takes the second one whole, says
    `before`, and closes."""

    def __init__(self, before: bytes = b"") -> None:
        self.before = before
        self.answers = True

    def give_up(self) -> None:
        """Close on every request from now on."""
        self.answers = False

    async def __call__(self, request: Request, peer: Peer) -> None:
        if len(peer.requests) == 1 and self.answers:
            peer.send(SAID)
        else:
            peer.send(self.before)
            peer.close()


def config(
    url: str, *, retry: str = "{}", tiers: str = "[{upstream: one, model: m}]", extra: str = ""
) -> str:
    return (
        f"{HEAD}\nupstreams:\n"
        f"  one: {{backend: openai, base_url: '{url}', breaker: {{failures: 1, error_rate: null}}}}\n{extra}"
        f"aliases: {{chat: {{tiers: [{tiers}], heartbeat: null, retry: {retry}}}}}\n"
    )


async def asked(g: Running, client: aiohttp.ClientSession) -> Answer:
    """The answer to one call, when the call is over and its connection at rest."""
    before = len(g.requests)
    answer = await ask(client, "openai stream", "chat")
    await until(lambda: len(g.requests) > before)
    return answer


async def asked_twice(g: Running, between: Callable[[], None] = lambda: None) -> tuple[Answer, list[str]]:
    """The answer to the second of two calls, and the outcomes of its attempts, as the log has them."""
    async with aiohttp.ClientSession(g.url) as client:
        assert (await asked(g, client)).complete
        between()
        return await asked(g, client), g.requests[1]["attempts"]


def counted(g: Running, outcome: str) -> float:
    return g.metric(f'sluice_upstream_attempts_total{{model="m",outcome="{outcome}",upstream="one"}}')


REFUSED = Answer(502, "", "reset")


async def test_a_request_that_is_sent_again_is_two_attempts_in_log_and_metrics() -> None:
    async with RawServer(Closing()) as provider, gateway(config(provider.url)) as g:
        assert await asked_twice(g) == (Answer(200, "ok"), ["one/m stale_connection", "one/m ok"])
        assert len(provider.requests) == 3
        assert (counted(g, "stale_connection"), counted(g, "ok")) == (1, 2)
        assert g.metric('sluice_breaker_state{model="m",upstream="one"}') == 0, (
            "it says nothing about the target's health"
        )


async def test_a_request_is_not_sent_again_where_the_same_target_is_not_to_be_asked_twice() -> None:
    async with RawServer(Closing()) as provider, gateway(config(provider.url, retry="{same_target: 0}")) as g:
        assert await asked_twice(g) == (REFUSED, ["one/m stale_connection"])
        assert len(provider.requests) == 2


async def test_another_target_is_asked_where_the_same_one_is_not_to_be_asked_twice() -> None:
    async with RawServer(Closing()) as provider, RawServer(Closing()) as other:
        two = f"  two: {{backend: openai, base_url: '{other.url}'}}\n"
        tiers = "[{upstream: one, model: m}], [{upstream: two, model: m}]"
        async with gateway(config(provider.url, retry="{same_target: 0}", tiers=tiers, extra=two)) as g:
            assert await asked_twice(g) == (Answer(200, "ok"), ["one/m stale_connection", "two/m ok"])
            assert (len(provider.requests), len(other.requests)) == (2, 1)


async def test_a_request_is_sent_again_as_often_as_the_alias_says_and_not_once_more() -> None:
    provider = Closing()
    async with RawServer(provider) as server, gateway(config(server.url)) as g:
        assert await asked_twice(g, provider.give_up) == (
            REFUSED,
            ["one/m stale_connection", "one/m connect_error"],
        )
        assert len(server.requests) == 3


@pytest.mark.parametrize("before", [b"H", b"HTTP/1.1 200 OK\r\n"])
async def test_a_request_whose_answer_had_begun_is_no_stale_one(before: bytes) -> None:
    async with (
        RawServer(Closing(before)) as provider,
        gateway(config(provider.url, retry="{same_target: 0}")) as g,
    ):
        assert await asked_twice(g) == (REFUSED, ["one/m connect_error"])
        assert len(provider.requests) == 2
