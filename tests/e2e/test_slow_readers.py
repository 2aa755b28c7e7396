"""Clients that stop reading: the upstream is paused, little waits for them, and after the write-idle time
they are closed."""

import pytest

from tests.e2e.gateways import HEAD, gateway
from tests.e2e.test_disconnect import callers, flood
from tests.fakes.dialects import OPENAI
from tests.fakes.faulty import Provider, Turn
from tests.upstream.calls import until

SIZE = 12 << 20
"""Characters of a whole answer that no kernel takes on its own."""


def config(url: str, write_idle: str) -> str:
    head = HEAD.replace("drain_delay: 0", f"drain_delay: 0, write_idle: {write_idle}")
    bounds = (
        "max_answer: 64MiB, max_event: 32MiB, timeouts: {connect: 60, headers: 60, first_token: 60, idle: 60}"
    )
    return f"""{head}
upstreams: {{fake: {{backend: openai, base_url: "{url}", {bounds}}}}}
aliases: {{chat: {{tiers: [[{{upstream: fake, model: m}}]], heartbeat: null}}}}
"""


@pytest.mark.usefixtures("every_server")
async def test_a_stream_that_nobody_reads_pauses_its_upstream_and_ends_after_its_time() -> None:
    async with Provider(flood) as provider, gateway(config(provider.url, "1s"), level="info") as g:
        [client] = await callers(g, 1, "openai stream", "chat", read=False)
        await until(lambda: bool(g.runtime.pipeline.runs))
        await until(lambda: not g.runtime.pipeline.runs)
        await provider.all_closed()
        await until(lambda: not g.busy)
        assert [line["end"] for line in g.requests] == ["slow_reader"]
        client.transport.abort()


@pytest.mark.usefixtures("every_server")
async def test_a_stream_that_is_read_late_goes_on_from_where_it_was() -> None:
    async with Provider(flood) as provider, gateway(config(provider.url, "60s"), level="info") as g:
        [client] = await callers(g, 1, "openai stream", "chat", read=False)
        await until(lambda: any(run.writer.blocked_since for run in g.runtime.pipeline.runs))
        client.transport.resume_reading()
        await until(lambda: len(client.received) > 8 << 20)
        body = bytes(client.received).partition(b"\r\n\r\n")[2]
        client.transport.abort()
        await until(lambda: not g.busy)
        assert body.count(b'"content":" w0"') - body.count(b'"content":" w99"') in (0, 1), (
            "nothing was lost on the way"
        )


async def large(turn: Turn) -> None:
    turn.head()
    turn.write(OPENAI.opening() + OPENAI.token("w" * SIZE))
    turn.finish()
    turn.end()


@pytest.mark.usefixtures("every_server")
async def test_a_whole_answer_that_nobody_reads_is_given_up_after_its_time() -> None:
    async with Provider(large) as provider, gateway(config(provider.url, "1s"), level="info") as g:
        [client] = await callers(g, 1, "openai whole", "chat", read=False)
        await until(lambda: g.connected)
        await until(lambda: not g.connected)
        assert [line["end"] for line in g.requests] == ["done"]
        client.transport.resume_reading()
        await until(client.transport.is_closing)
        assert len(client.received) < SIZE, "cut, not complete"
