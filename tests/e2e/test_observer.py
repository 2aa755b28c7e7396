"""The metrics of a whole gateway are what its callers have seen: counts and tokens exactly, times within a
bucket, whatever becomes of its workers and of its configuration meanwhile."""

import asyncio
import json
import os
import signal
import time
from bisect import bisect_left
from collections import Counter, defaultdict

import aiohttp
import pytest

from sluice.telemetry.table import DURATION, FIRST_TOKEN
from tests.e2e.gateway_process import DIGEST, KEY, GatewayProcess, serving
from tests.e2e.test_one_truth import scraped, values
from tests.e2e.test_workers import listening, pids

CONFIG = """
server:
  {{listen: "127.0.0.1:${{API_PORT}}", admin_listen: "127.0.0.1:${{ADMIN_PORT}}", drain_delay: 0s, workers: {workers}}}
keys: [{{id: test, digest: "{digest}", aliases: ["*"]}}]
limits: {{address: null}}
upstreams:
  echo: {{backend: echo}}
  gone: {{backend: openai, base_url: "http://127.0.0.1:9/v1", breaker: {{failures: 100000, error_rate: null}}}}
aliases:
  early: {{tiers: [[{{upstream: echo, model: early}}]]}}
  late: {{tiers: [[{{upstream: echo, model: late}}]]}}
  gone: {{tiers: [[{{upstream: gone, model: m}}]], retry: {{same_target: 0}}}}
  few: {{tiers: [[{{upstream: echo, model: few}}]], limits: {{requests: {{rate: 1/day, burst: 5}}}}}}
"""
FIRST = {"early": 1.1, "late": 2.2, "few": 0.0}
"""Seconds to the first token."""
TOKENS = {"early": 5, "late": 40, "few": 2}
REQUESTS = 'sluice_requests_total{{alias="{}",code="{}",frontend="openai"}}'


class Observer:
    """A caller that keeps what it has seen, by alias."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._url = f"{gateway.api}/v1/chat/completions"
        self.statuses: Counter[tuple[str, str]] = Counter()
        self.cut = 0
        self.tokens: Counter[str] = Counter()
        self.first: dict[str, list[float]] = defaultdict(list)
        self.whole: dict[str, list[float]] = defaultdict(list)

    async def ask(self, session: aiohttp.ClientSession, alias: str, *, stream: bool) -> None:
        wish = f"tokens={TOKENS.get(alias, 1)} ttft_us={int(FIRST.get(alias, 0) * 1e6)}"
        options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        body = {"model": alias, "messages": [{"role": "user", "content": wish}], **options}
        began = time.monotonic()
        try:
            async with session.post(
                self._url, json=body, headers={"authorization": f"Bearer {KEY}"}
            ) as response:
                if response.status == 200:
                    await self._read(response, alias, began, stream=stream)
                else:
                    await response.read()
                    self.whole[alias].append(time.monotonic() - began)
                self.statuses[alias, f"{response.status // 100}xx"] += 1
        except aiohttp.ClientError:
            self.cut += 1  # its worker was killed, and counted nothing

    async def _read(
        self, response: aiohttp.ClientResponse, alias: str, began: float, *, stream: bool
    ) -> None:
        first, used, done = 0.0, 0, not stream
        if not stream:
            used = (await response.json())["usage"]["completion_tokens"]
        else:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    chunk = json.loads(line[6:])
                    if not first and chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                        first = time.monotonic() - began
                    used = (chunk.get("usage") or {}).get("completion_tokens", used)
                done = done or line.startswith(b"data: [DONE]")
            assert done
            self.first[alias].append(first)
        self.tokens[alias] += used
        self.whole[alias].append(time.monotonic() - began)


def histogram(found: dict[str, float], name: str, alias: str, bounds: tuple[float, ...]) -> list[float]:
    """The counts of its buckets."""
    ends = [*map(str, map(float, bounds)), "+Inf"]
    series = [f'sluice_{name}_bucket{{alias="{alias}",frontend="openai",le="{end}"}}' for end in ends]
    so_far = [found.get(one, 0.0) for one in series]
    return [after - before for before, after in zip([0.0, *so_far], so_far, strict=False)]


def agree(counts: list[float], seen: list[float], bounds: tuple[float, ...], least: float = 0.0) -> None:
    """As many; and when both are put in order, each is in the bucket that its caller saw it in, or before it,
    but not before the provider had answered, after `least` seconds."""
    counted = [at for at, count in enumerate(counts) for _ in range(int(count))]
    assert len(counted) == len(seen)
    pairs = zip(counted, sorted(seen), strict=True)
    first = bisect_left(bounds, least)
    off = [(at, seconds) for at, seconds in pairs if not first <= at <= bisect_left(bounds, seconds)]
    assert not off, f"bucket and what was seen: {off}, of {len(seen)}"


async def reload(gateway: GatewayProcess, text: str) -> None:
    before = len(gateway.records("config_reloaded"))
    gateway.path.write_text(text)
    os.kill(gateway.process.pid, signal.SIGHUP)
    await asyncio.to_thread(gateway.until, lambda: len(gateway.records("config_reloaded")) > before)


@pytest.mark.parametrize("workers", [1, 3])
async def test_what_callers_have_seen_is_what_the_metrics_say(workers: int) -> None:
    text = CONFIG.format(workers=workers, digest=DIGEST)
    with serving(text) as gateway:
        await asyncio.to_thread(listening, gateway, workers)
        observer = Observer(gateway)
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def round_of_calls() -> None:
                kinds = [
                    ("early", True),
                    ("early", False),
                    ("late", True),
                    ("gone", True),
                    ("gone", False),
                    ("few", True),
                ]
                await asyncio.gather(
                    *(observer.ask(session, alias, stream=stream) for alias, stream in kinds * 4)
                )

            await round_of_calls()
            calls = asyncio.create_task(round_of_calls())
            current = gateway.path.read_text()
            for change in ("late", "early"):  # other weights: other snapshots, and the same series
                current = current.replace(f"model: {change}}}", f"model: {change}, weight: 2}}")
                await reload(gateway, current)
            await calls
            if workers > 1:
                started = len(gateway.records("started"))
                calls = asyncio.create_task(round_of_calls())
                await asyncio.sleep(0)
                os.kill(pids(gateway)[2], signal.SIGKILL)
                await calls
                await asyncio.to_thread(listening, gateway, started + 1)
                await round_of_calls()
        found = values(await scraped(gateway))
        for code in ("2xx", "4xx", "5xx"):
            for alias in ("early", "late", "gone", "few"):
                assert found.get(REQUESTS.format(alias, code), 0) == observer.statuses[alias, code], (
                    alias,
                    code,
                )
        for alias in ("early", "late"):
            kinds = {"kind": "output", "model": alias, "source": "provider", "upstream": "echo"}
            labels = ",".join(f'{name}="{value}"' for name, value in kinds.items())
            assert found[f"sluice_tokens_total{{{labels}}}"] == observer.tokens[alias]
            agree(
                histogram(found, "time_to_first_token_seconds", alias, FIRST_TOKEN),
                observer.first[alias],
                FIRST_TOKEN,
                FIRST[alias],
            )
            durations = histogram(found, "request_duration_seconds", alias, DURATION)
            agree(durations, observer.whole[alias], DURATION, FIRST[alias])
        agree(
            histogram(found, "request_duration_seconds", "gone", DURATION),
            observer.whole["gone"],
            DURATION,
        )
        refused = 'sluice_rate_limited_total{alias="few",resource="requests",scope="alias"}'
        assert found[refused] == observer.statuses["few", "4xx"] > 0
        assert found['sluice_config_reloads_total{result="ok"}'] == 2
