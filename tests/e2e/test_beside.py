"""What runs beside a call: hedges, shadows, and calls that outlive their client."""

import asyncio
import json

import aiohttp

from tests.e2e.gateways import HEAD, KEY, Running, gateway

HEADERS = {"x-api-key": KEY}
ASK = {"sessionId": "s", "message": "hi"}


def config(alias: str, **upstreams: str) -> str:
    backends = "\n".join(f"  {name}: {{backend: echo, {options}}}" for name, options in upstreams.items())
    return f"{HEAD}\nupstreams:\n{backends}\naliases:\n  chat: {{{alias}}}\n"


async def ask(g: Running) -> dict[str, object]:
    async with (
        aiohttp.ClientSession(g.url, headers=HEADERS) as client,
        client.post("/v1/chat/stream", json=ASK) as response,
    ):
        lines = (await response.text()).splitlines()
    last: dict[str, object] = json.loads(lines[-1])
    return last


def attempts(g: Running, upstream: str, outcome: str) -> float:
    return g.metric(f'sluice_upstream_attempts_total{{model="m",outcome="{outcome}",upstream="{upstream}"}}')


TWO = "tiers: [[{upstream: one, model: m}], [{upstream: two, model: m}]]"


async def test_a_hedge_answers_when_the_first_target_is_slow() -> None:
    text = config(
        f"{TWO}, hedge: {{after: 10ms}}", one="first_token_delay: 60, text: slow", two="text: quick"
    )
    async with gateway(text) as g:
        assert (await ask(g))["message"] == "quick"
        assert (attempts(g, "one", "abandoned"), attempts(g, "two", "ok")) == (1, 1)
        assert g.requests[0]["target"] == "two/m"


async def test_a_hedge_is_not_sent_when_the_first_target_is_quick() -> None:
    text = config(f"{TWO}, hedge: {{after: 60}}", one="text: first", two="text: second")
    async with gateway(text) as g:
        assert (await ask(g))["message"] == "first"
        assert attempts(g, "two", "ok") == 0


async def test_a_slow_target_still_answers_when_its_hedge_fails() -> None:
    text = config(
        f"{TWO}, hedge: {{after: 10ms}}",
        one="first_token_delay: 100ms, text: slow",
        two="fail: connect_error",
    )
    async with gateway(text) as g:
        assert (await ask(g))["message"] == "slow"


async def test_a_failing_first_target_is_failed_over_as_without_a_hedge() -> None:
    text = config(f"{TWO}, hedge: {{after: 60}}", one="fail: connect_error", two="text: second")
    async with gateway(text) as g:
        assert (await ask(g))["message"] == "second"


async def test_a_whole_answer_can_be_hedged_too() -> None:
    text = config(
        f"{TWO}, hedge: {{after: 10ms}}", one="first_token_delay: 60, text: slow", two="text: quick"
    )
    async with (
        gateway(text) as g,
        aiohttp.ClientSession(g.url, headers=HEADERS) as client,
        client.post("/v1/chat", json=ASK) as response,
    ):
        assert (await response.json())["message"] == "quick"


async def test_a_shadow_is_counted_and_never_seen() -> None:
    alias = "tiers: [[{upstream: one, model: m}]], shadow: {upstream: two, model: m, share: 1}"
    async with gateway(config(alias, one="text: answer", two="fail: truncated")) as g:
        assert (await ask(g))["message"] == "answer"
        await until(lambda: attempts(g, "two", "truncated") == 1)
        assert g.metric('sluice_time_to_first_token_seconds_count{alias="chat",frontend="widget"}') == 1


async def test_a_call_can_outlive_its_client_and_is_stored() -> None:
    alias = "tiers: [[{upstream: one, model: m}]], on_disconnect: finish"
    async with gateway(config(alias, one="tokens: 30, delay: 10ms")) as g:
        async with aiohttp.ClientSession(g.url, headers=HEADERS) as client:
            response = await client.post("/v1/chat/stream", json=ASK)
            await response.content.readline()
            response.close()
        await until(lambda: any(line["event"] == "detached" for line in g.log_lines))
        [line] = [line for line in g.log_lines if line["event"] == "detached"]
        assert (line["end"], line["tokens_out"]) == ("done", 30)
        [conversation], _ = await g.runtime.conversations.newest(10)
        assert conversation.last_message.endswith("tok29")


async def test_a_call_whose_client_left_is_cancelled_and_its_part_is_stored_as_interrupted() -> None:
    async with gateway(config("tiers: [[{upstream: one, model: m}]]", one="tokens: 3000, delay: 10ms")) as g:
        async with aiohttp.ClientSession(g.url, headers=HEADERS) as client:
            response = await client.post("/v1/chat/stream", json=ASK)
            for _ in range(3):
                await response.content.readline()
            response.close()
        await until(lambda: bool(g.requests))
        assert g.requests[0]["end"] == "client_gone"
        [conversation], _ = await g.runtime.conversations.newest(10)
        found = await g.runtime.conversations.get(conversation.id)
        assert found is not None
        assert [turn.interrupted for turn in found[1]] == [False, True]
        assert not g.runtime.pipeline.runs


async def until(condition: "object") -> None:
    """Let the loop run until `condition()` holds (the test's own timeout is the bound)."""
    while not condition():  # type: ignore[operator]
        await asyncio.sleep(0)
