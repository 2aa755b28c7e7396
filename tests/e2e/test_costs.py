"""What calls cost, told everywhere alike: to callers, in the log, in metrics, in the usage report; on real
sockets."""

import asyncio
import csv
import io
import json
import os
import random
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sluice.pricing.prices import nanos
from tests.e2e.answers import ask, request_of
from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.fakes.dialects import INPUT, TOKENS
from tests.fakes.faulty import Behaviour, Provider, Turn, cut, healthy, refusing, stall

FULL = os.environ.get("SLUICE_FULL") == "1"
PRICES = "{fake-1: {input: 2, output: 8}, fake-2: {input: 20, output: 80, cached_input: 5}}"
ONE = INPUT * 2000 + len(TOKENS) * 8000
"""Nano-dollars of a healthy answer of fake-1."""


def config(
    provider: Provider,
    tiers: str = "[[{upstream: up, model: fake-1}]]",
    prices: str = "",
    more: str = "",
    of: str = "",
) -> str:
    return f"""{HEAD}
upstreams: {{up: {{backend: openai, base_url: "{provider.url}/v1", api_key: x}}}}
aliases: {{chat: {{tiers: {tiers}, retry: {{same_target: 0}}{of}}}}}
prices: {{models: {PRICES}{prices}}}
{more}"""


def session(running: Running) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(running.url, headers={"x-api-key": KEY})


async def report(running: Running, query: str = "", *, url: str = "", **headers: str) -> Any:
    asked = f"{url or running.admin_url}/admin/usage{query}"
    sent = {"x-admin-api-key": KEY, **headers}
    async with aiohttp.ClientSession() as client, client.get(asked, headers=sent) as response:
        assert response.status == 200, await response.text()
        if response.content_type == "text/csv":
            return list(csv.reader(io.StringIO((await response.read()).decode(), newline="")))
        return json.loads(await response.text(), parse_float=str)


async def ended(running: Running, count: int = 1) -> list[dict[str, Any]]:
    """The log lines of so many chat calls; a client can have read an answer a little before its call is
    over."""
    while len(lines := [line for line in running.requests if "frontend" in line]) < count:
        await asyncio.sleep(0.001)
    return lines


def spent(running: Running, model: str = "fake-1") -> int:
    """Nano-dollars by the metric."""
    return nanos(running.metric(f'sluice_cost_usd_total{{model="{model}",upstream="up"}}'))


# --- told where it is asked for


@pytest.mark.parametrize("mode", ["widget whole", "openai whole"])
async def test_a_whole_answer_says_what_it_cost_in_a_header(mode: str) -> None:
    async with (
        Provider(healthy) as provider,
        gateway(config(provider, prices=", header: true")) as g,
        session(g) as client,
    ):
        path, body = request_of(mode, "chat")
        async with client.post(path, json=body) as response:
            assert response.status == 200
            assert response.headers["x-sluice-cost-usd"] == f"0.{ONE:09d}"
        [line] = await ended(g)
        assert nanos(line["cost_usd"]) == ONE
        assert spent(g) == ONE


async def test_a_stream_says_it_in_its_last_line() -> None:
    async with (
        Provider(healthy) as provider,
        gateway(config(provider, prices=", header: true")) as g,
        session(g) as client,
    ):
        path, body = request_of("widget stream", "chat")
        async with client.post(path, json=body) as response:
            last = json.loads((await response.text()).splitlines()[-1])
            assert "x-sluice-cost-usd" not in response.headers
        assert nanos(last["cost"]) == ONE


@pytest.mark.parametrize("mode", ["widget whole", "widget stream", "openai whole", "openai stream"])
async def test_callers_are_told_nothing_by_default(mode: str) -> None:
    async with Provider(healthy) as provider, gateway(config(provider)) as g, session(g) as client:
        path, body = request_of(mode, "chat")
        async with client.post(path, json=body) as response:
            text = await response.text()
            assert "x-sluice-cost-usd" not in response.headers
            assert '"cost"' not in text
        assert nanos((await ended(g))[0]["cost_usd"]) == ONE


async def test_where_the_provider_does_not_say_callers_are_told_nothing_and_the_cost_is_estimated() -> None:
    async def forgetful(turn: Turn) -> None:
        turn.begin(len(TOKENS))
        turn.write(turn.dialect.finish(0).split(b"\n\n")[0] + b"\n\n")  # without the chunk of usage
        turn.end()

    async with (
        Provider(forgetful) as provider,
        gateway(config(provider, prices=", header: true")) as g,
        session(g) as client,
    ):
        path, body = request_of("openai whole", "chat")
        async with client.post(path, json=body) as response:
            assert response.status == 200
            assert "x-sluice-cost-usd" not in response.headers
        await ended(g)
        assert (
            spent(g) == 1 * 2000 + len(TOKENS) * 8000
        )  # "Count" is one token; a token of the answer is one piece
        assert (await report(g))["total"]["estimated"] == 1


# --- what costs


async def test_a_cut_stream_costs_what_was_streamed_and_a_refused_attempt_nothing() -> None:
    def by_model(behaviours: dict[str, Behaviour]) -> Behaviour:
        async def behave(turn: Turn) -> None:
            await behaviours[turn.model](turn)

        return behave

    tiers = "[[{upstream: up, model: fake-2}], [{upstream: up, model: fake-1}]]"
    cutting, refuses = (
        by_model({"fake-2": cut(40), "fake-1": healthy}),
        by_model({"fake-2": refusing("overloaded"), "fake-1": healthy}),
    )
    async with (
        Provider(cutting) as provider,
        gateway(config(provider, tiers, of=", recovery: continue")) as g,
        session(g) as client,
    ):
        assert (await ask(client, "widget stream", "chat")).complete
        [line] = await ended(g)
        first = 1 * 20_000 + 40 * 80_000
        assert spent(g, "fake-2") == first
        assert spent(g) == ONE
        assert nanos(line["cost_usd"]) == first + ONE
        rows = (await report(g, "?by=model"))["rows"]
        assert [(row["model"], row["requests"], row["output_tokens"], row["estimated"]) for row in rows] == [
            ("up/fake-1", 1, len(TOKENS), 0),
            ("up/fake-2", 0, 40, 1),
        ]
    async with Provider(refuses) as provider, gateway(config(provider, tiers)) as g, session(g) as client:
        assert (await ask(client, "widget stream", "chat")).complete
        assert nanos((await ended(g))[0]["cost_usd"]) == ONE
        assert spent(g, "fake-2") == 0


async def test_a_stream_that_its_client_left_costs_what_was_streamed_and_is_counted_once() -> None:
    async with Provider(stall(20)) as provider, gateway(config(provider)) as g, session(g) as client:
        path, body = request_of("widget stream", "chat")
        async with client.post(path, json=body) as response:
            await response.content.readuntil(b"w19")
        await provider.all_closed()
        [line] = await ended(g)
        assert line["end"] == "client_gone"
        assert nanos(line["cost_usd"]) == 2000 + 20 * 8000
        total = (await report(g))["total"]
        assert (total["requests"], total["errors"], total["output_tokens"]) == (1, 0, 20)


async def test_a_call_that_went_on_without_its_client_is_counted_once_when_it_ends() -> None:
    gate = asyncio.Event()

    async def waits(turn: Turn) -> None:
        turn.begin(20)
        await gate.wait()
        turn.say(len(TOKENS) - 20)
        turn.finish()
        turn.end()

    async with (
        Provider(waits) as provider,
        gateway(config(provider, of=", on_disconnect: finish")) as g,
        session(g) as client,
    ):
        path, body = request_of("widget stream", "chat")
        async with client.post(path, json=body) as response:
            await response.content.readuntil(b"w19")
        await ended(g)
        assert (await report(g))["total"]["requests"] == 0
        gate.set()
        while not [line for line in g.log_lines if line["event"] == "detached"]:
            await asyncio.sleep(0.001)
        total = (await report(g))["total"]
        assert (total["requests"], total["cost_usd"]) == (1, f"0.{ONE:09d}")


async def test_the_loser_of_a_hedge_costs_what_it_had_said() -> None:
    hedged, running = asyncio.Event(), []

    def said() -> int:
        return sum(answer.relay.pieces for run in running[0].runtime.pipeline.runs for answer in run.reading)

    async def behave(turn: Turn) -> None:
        if turn.model == "fake-2":
            await hedged.wait()
            turn.begin(20)
            await turn.peer.stall()
        else:
            hedged.set()
            while said() < 20:  # a whole answer wins when it is complete, so the other one may have begun
                await asyncio.sleep(0.001)
            await healthy(turn)

    tiers = "[[{upstream: up, model: fake-2}], [{upstream: up, model: fake-1}]]"
    async with (
        Provider(behave) as provider,
        gateway(config(provider, tiers, of=", hedge: {after: 20ms}")) as g,
        session(g) as client,
    ):
        running.append(g)
        assert (await ask(client, "widget whole", "chat")).complete
        [line] = await ended(g)
        assert spent(g, "fake-2") == 1 * 20_000 + 20 * 80_000
        assert nanos(line["cost_usd"]) == ONE + spent(g, "fake-2")


# --- models without a price


UNHEARD = "[[{upstream: up, model: unheard-of}]]"


async def test_a_model_without_a_price_is_counted_and_goes_on() -> None:
    async with Provider(healthy) as provider, gateway(config(provider, UNHEARD)) as g, session(g) as client:
        assert (await ask(client, "widget stream", "chat")).complete
        [line] = await ended(g)
        assert line["cost_usd"] is None
        assert g.metric('sluice_unpriced_requests_total{model="unheard-of",upstream="up"}') == 1
        total = (await report(g))["total"]
        assert (total["output_tokens"], total["cost_usd"]) == (len(TOKENS), None)
        assert total["unpriced_tokens"] == total["input_tokens"] + len(TOKENS)


@pytest.mark.parametrize("mode", ["widget stream", "widget whole", "openai stream", "openai whole"])
async def test_it_is_refused_before_it_costs_anything(mode: str) -> None:
    async with Provider(healthy) as provider:
        text = config(provider, UNHEARD, prices=", unknown: refuse")
        async with gateway(text) as g, session(g) as client:
            answer = await ask(client, mode, "chat")
            assert (answer.status, answer.error) == (403, "price_unknown")
            assert not provider.turns
            await ended(g)
            total = (await report(g))["total"]
            assert (total["requests"], total["errors"], total["input_tokens"]) == (1, 1, 0)


async def test_targets_without_a_price_are_passed_over() -> None:
    tiers = "[[{upstream: up, model: unheard-of}], [{upstream: up, model: fake-1}]]"
    async with Provider(healthy) as provider:
        text = config(provider, tiers, prices=", unknown: refuse")
        async with gateway(text) as g, session(g) as client:
            for _ in range(3):
                assert (await ask(client, "openai stream", "chat")).complete
            assert [turn.model for turn in provider.turns] == ["fake-1"] * 3


# --- the sum


async def test_the_sums_are_those_of_what_the_provider_reported() -> None:
    calls = 5000 if FULL else 1000
    dice = random.Random(11)
    billed = {"requests": 0, "input_tokens": 0, "output_tokens": 0, "cached_input_tokens": 0, "nanos": 0}

    async def behave(turn: Turn) -> None:
        cached = dice.randrange(50)
        prompt, answer = cached + dice.randrange(1, 1000), dice.randrange(1, 3000)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": answer,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        turn.begin(1)
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "fake-2", "choices": []}
        stop = {"index": 0, "delta": {}, "finish_reason": "stop"}
        turn.write(b"data: %b\n\n" % json.dumps({**chunk, "choices": [stop]}).encode())
        turn.write(b"data: %b\n\n" % json.dumps({**chunk, "usage": usage}).encode())
        turn.end()
        billed["requests"] += 1
        billed["input_tokens"] += prompt
        billed["output_tokens"] += answer
        billed["cached_input_tokens"] += cached
        billed["nanos"] += (prompt - cached) * 20_000 + cached * 5_000 + answer * 80_000

    async with (
        Provider(behave) as provider,
        gateway(config(provider, "[[{upstream: up, model: fake-2}]]"), level="info") as g,
    ):
        async with session(g) as client:
            left = iter(range(calls))

            async def caller() -> None:
                for number in left:
                    assert (
                        await ask(client, "widget whole" if number % 2 else "openai stream", "chat")
                    ).complete

            await asyncio.gather(*(caller() for _ in range(16)))
        lines = await ended(g, calls)
        total = (await report(g))["total"]
        assert {name: total[name] for name in billed if name != "nanos"} == {
            n: v for n, v in billed.items() if n != "nanos"
        }
        assert nanos(float(total["cost_usd"])) == billed["nanos"]
        assert sum(nanos(line["cost_usd"]) for line in lines) == billed["nanos"]
        assert spent(g, "fake-2") == pytest.approx(billed["nanos"], abs=1000)  # a metric is a float


# --- the report


async def test_the_report_is_on_both_ports_and_for_operators_only() -> None:
    async with Provider(healthy) as provider, gateway(config(provider)) as g, session(g) as client:
        assert (await ask(client, "openai whole", "chat")).complete
        await ended(g)
        for url in (g.url, g.admin_url):
            assert (await report(g, url=url))["total"]["requests"] == 1
            async with client.get(f"{url}/admin/usage") as response:
                assert response.status == 401


async def test_rows_are_kept_apart_by_what_is_asked_for() -> None:
    async with Provider(healthy) as provider, gateway(config(provider)) as g, session(g) as client:
        for alias in ("chat", "chat"):
            assert (await ask(client, "openai whole", alias)).complete
        await ended(g, 2)
        found = await report(g, "?by=key,tenant,alias,model,day")
        [row] = found["rows"]
        assert found["by"] == ["day", "key", "tenant", "alias", "model"]
        assert [row[name] for name in ("key", "tenant", "alias", "model")] == [
            "test",
            "test",
            "chat",
            "up/fake-1",
        ]
        assert (row["requests"], row["cost_usd"]) == (2, f"0.{2 * ONE:09d}")
        assert (await report(g, "?by="))["rows"] == [found["total"]]
        assert [sorted(row) for row in (await report(g, "?by=alias"))["rows"]] == [
            sorted(["alias", *found["total"]])
        ]
        assert (await report(g, "?from=2020-01-01&to=2020-12-31"))["rows"] == []


async def test_the_report_as_csv_is_safe_to_open() -> None:
    text = """
upstreams: {echo: {backend: echo}}
aliases: {chat: {tiers: [[{upstream: echo, model: "=cmd|' /C calc'!A0"}]]}, "a": {tiers: [[{upstream: echo, model: '@x,"y"'}]]}}
prices: {models: {echo: {input: 1, output: 1}}}
"""
    async with gateway(HEAD + text) as g, session(g) as client:
        assert (await ask(client, "openai whole", "chat")).complete
        assert (await ask(client, "openai whole", "a")).complete
        await ended(g, 2)
        for rows in (
            await report(g, "?by=alias,model&format=csv"),
            await report(g, "?by=alias,model", accept="text/csv"),
        ):
            assert rows[0] == [
                "alias", "model", "requests", "errors", "input_tokens", "output_tokens", "cached_input_tokens",
                "reasoning_tokens", "cost_usd", "estimated", "unpriced_tokens",
            ]  # fmt: skip
            assert [row[:3] for row in rows[1:]] == [
                ["a", 'echo/@x,"y"', "1"],
                ["chat", "echo/=cmd|' /C calc'!A0", "1"],
            ]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("?from=yesterday", "from"), ("?to=2026-02-30", "to"), ("?from=2026-02-02&to=2026-02-01", "from"),
        ("?from=2020-01-01&to=2026-01-01", "from"), ("?by=colour", "by"), ("?by=day,nanos", "by"), ("?format=xml", "format"),
    ],
)  # fmt: skip
async def test_what_cannot_be_asked_is_a_400(query: str, param: str) -> None:
    text = (
        HEAD
        + "\nupstreams: {echo: {backend: echo}}\naliases: {chat: {tiers: [[{upstream: echo, model: e}]]}}"
    )
    async with gateway(text) as g, aiohttp.ClientSession(headers={"x-admin-api-key": KEY}) as client:
        async with client.get(f"{g.admin_url}/admin/usage{query}") as response:
            status, body = response.status, await response.json()
        assert (status, body["details"][0]["field"]) == (400, param)


async def test_usage_outlives_the_gateway(tmp_path: Path) -> None:
    async with Provider(healthy) as provider:
        for number in (1, 2, 3):
            async with (
                gateway(config(provider, more=f"state: sqlite:{tmp_path}/state.db")) as g,
                session(g) as client,
            ):
                assert (await report(g))["total"]["requests"] == number - 1
                assert (await ask(client, "openai whole", "chat")).complete
        async with gateway(config(provider, more=f"state: sqlite:{tmp_path}/state.db")) as g:
            assert (await report(g))["total"]["cost_usd"] == f"0.{3 * ONE:09d}"
