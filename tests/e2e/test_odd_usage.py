"""Usage that no provider means: no count, however odd, locks a key, stops the report, or is charged as it
stands.

In every dialect, streamed and whole; the caller has one place and a budget, so that what is not settled would
refuse the next call.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.answers import request_of
from tests.e2e.buckets import left, taken
from tests.e2e.gateways import HEAD, Running, gateway
from tests.e2e.test_costs import ended, report, session
from tests.fakes.dialects import DIALECTS, INPUT, TOKENS
from tests.fakes.faulty import Behaviour, Provider, Turn
from tests.fakes.rawserver import sized
from tests.upstream.calls import until

HUGE = [
    "1" + "0" * 400,
    "9" * 4000,
    str(2**63),
    str(2**63 - 1),
    str(2**64),
    "1000000001",
    "-1",
    "-5",
    "-" + "9" * 400,
]
"""Whole numbers that are not believed."""
ODD = [
    *HUGE,
    "1e308",
    "-1e308",
    "12.5",
    '"12"',
    '"' + "9" * 400 + '"',
    '"many"',
    "true",
    "[]",
    "{}",
    "null",
    "0",
    "60.0",
]
OUTPUT = re.compile(rb'("(?:completion_tokens|output_tokens|eval_count)":)\d+')
BURST = 1_000_000
PLACES = 1


def says(text: str) -> Behaviour:
    """A provider that writes `text` where its count of the answer's tokens stands."""

    async def behave(turn: Turn) -> None:
        wrong = rb"\g<1>" + text.encode()
        if b'"stream":true' in turn.request.body.replace(b" ", b"") or turn.dialect.name != "openai":
            turn.begin(len(TOKENS))
            turn.write(OUTPUT.sub(wrong, turn.dialect.finish(len(TOKENS))))
            turn.end()
        else:
            words = "".join(TOKENS)
            body = (
                '{"id":"c","object":"chat.completion","created":1,"model":"fake-1","choices":[{"index":0,"message":'
                f'{{"role":"assistant","content":"{words}"}},"finish_reason":"stop"}}],'
                f'"usage":{{"prompt_tokens":{INPUT},"completion_tokens":{text},"total_tokens":67}}}}'
            )
            turn.peer.send(sized(body.encode(), 200, ("Content-Type", "application/json")))

    return behave


PATIENT = "timeouts: {connect: 60s, headers: 60s, first_token: 60s, idle: 60s, whole: 60s}"


def config(provider: Provider, dialect: str, state: Path) -> str:
    limits = f"{{streams: {PLACES}, tokens: {{rate: 87/day, burst: {BURST}}}, money: {{rate: 87/day, burst: 1000}}}}"
    head = HEAD.replace("default_alias: chat}", f"default_alias: chat, limits: {limits}}}")
    base = f"{provider.url}/v1" if dialect == "openai" else provider.url
    key = "" if dialect == "ollama" else ", api_key: x"
    return f"""{head}
state: sqlite:{state}
upstreams: {{up: {{backend: {dialect}, base_url: "{base}"{key}, limits: {{streams: 1}}, {PATIENT}}}}}
aliases: {{chat: {{tiers: [[{{upstream: up, model: fake-1}}]], retry: {{same_target: 0}}}}}}
prices: {{models: {{fake-1: {{input: 2, output: 8}}}}, header: true}}
"""


@asynccontextmanager
async def serving(
    text: str, dialect: str, state: Path
) -> AsyncIterator[tuple[Running, aiohttp.ClientSession]]:
    async with (
        Provider(says(text)) as provider,
        gateway(config(provider, dialect, state)) as g,
        session(g) as client,
    ):
        yield g, client


async def ask(client: aiohttp.ClientSession, mode: str) -> tuple[int, str]:
    path, body = request_of(mode, "chat")
    async with client.post(path, json=body) as response:
        return response.status, await response.text()


async def settled(g: Running) -> None:
    await until(lambda: not g.runtime.pipeline.runs and not g.runtime.limits.settlements.settling)
    assert await taken(g, "key", "test") == 0
    assert await taken(g, "upstream", "up") == 0


def named(text: str) -> str:
    return text if len(text) < 24 else f"{text[:4]}…{len(text)}"


@pytest.mark.parametrize("mode", ["widget stream", "widget whole", "openai stream", "openai whole"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_no_usage_locks_a_key_or_stops_the_report(dialect: str, mode: str, tmp_path: Path) -> None:
    for number, text in enumerate(ODD):
        async with serving(text, dialect, tmp_path / f"{number}.db") as (g, client):
            for _ in range(PLACES + 1):
                status, _ = await ask(client, mode)
                assert status in (200, 500, 502), named(text)
                await settled(g)
            assert await g.runtime.usage.flush(), named(text)
            rows = (await report(g, "?by=key"))["rows"]
            assert [row["requests"] for row in rows] == [PLACES + 1], named(text)
            assert 0 <= rows[0]["output_tokens"] <= 2 * 10**9
            assert g.metric("sluice_usage_put_aside_total") == 0
            assert not [line for line in g.log_lines if line["event"] == "crash"], named(text)


@pytest.mark.parametrize("mode", ["widget stream", "openai stream", "openai whole"])
@pytest.mark.parametrize("text", HUGE, ids=named)
async def test_a_count_that_is_not_believed_is_estimated_and_counted(
    text: str, mode: str, tmp_path: Path
) -> None:
    async with serving(text, "openai", tmp_path / "state.db") as (g, client):
        status, body = await ask(client, mode)
        assert status == 200
        assert "w59" in body
        if mode == "openai stream":
            assert f'_tokens":{text}' not in body
        await settled(g)
        [line] = await ended(g)
        assert line["end"] == "done"
        labels = 'model="fake-1",upstream="up"'
        assert g.metric(f"sluice_usage_refused_total{{{labels}}}") == 1
        estimate = g.metric(
            'sluice_tokens_total{kind="output",model="fake-1",source="estimate",upstream="up"}'
        )
        assert 0 < estimate <= 200
        assert line["tokens_out"] == estimate
        used = BURST - await left(g, "key", "test", "tokens")
        assert 0 < used < 300
        [row] = (await report(g, "?by=model"))["rows"]
        assert (row["output_tokens"], row["estimated"]) == (estimate, 1)


@pytest.mark.parametrize("mode", ["widget stream", "openai whole"])
@pytest.mark.parametrize(("text", "count"), [("60", 60), ("60.0", 60), ("0", 0), ("1000000000", 10**9)])
async def test_a_whole_number_in_bounds_is_believed(text: str, count: int, mode: str, tmp_path: Path) -> None:
    async with serving(text, "openai", tmp_path / "state.db") as (g, client):
        assert (await ask(client, mode))[0] == 200
        await settled(g)
        [row] = (await report(g, "?by=model"))["rows"]
        assert (row["output_tokens"], row["estimated"]) == (count, 0)
        assert g.metric('sluice_usage_refused_total{model="fake-1",upstream="up"}') == 0


async def test_a_row_that_cannot_be_kept_is_put_aside_and_the_others_are_reported(tmp_path: Path) -> None:
    """However it came to be: a figure is put into the ledger that no store can keep."""
    async with serving("60", "openai", tmp_path / "state.db") as (g, client):
        await ask(client, "openai whole")
        await ended(g)
        rows: dict[Any, Any] = g.runtime.usage._rows
        [(subject, figures)] = rows.items()
        rows[subject._replace(tenant="another")] = type(figures)(requests=1, output=2**63)
        assert await g.runtime.usage.flush()
        [row] = (await report(g, "?by=tenant"))["rows"]
        assert (row["tenant"], row["requests"]) == (subject.tenant, 1)
        aside = [line for line in g.log_lines if line["event"] == "usage_put_aside"]
        assert len(aside) == 2, "one of the day, one of the hour"
        for line in aside:
            assert (line["tenant"], line["figures"]) == ("another", {"requests": "1", "output": str(2**63)})
        assert g.metric("sluice_usage_put_aside_total") == 2
