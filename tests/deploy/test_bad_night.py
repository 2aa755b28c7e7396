"""The table of "A bad night" in docs/runbooks.md, row by row: the fault happens to a gateway that a real
Prometheus scrapes, with our rules. What the row promises has to be there: the first warnings in the log, in
their order, the alerts that fire and no others, and the line of the panel that shows the cause.

The rules are evaluated each second and their `for` is a second; how long alerts take in truth is tested by
rules_test.yaml.
"""

import asyncio
import json
import math
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.deploy.prometheus_server import (
    PATIENCE,
    PROMETHEUS,
    ask,
    filled,
    prometheus,
    quick_rules,
    wait_for,
)
from tests.e2e.gateway_process import DIGEST, KEY, GatewayProcess, serving
from tests.fakes.faulty import Provider, Turn, healthy, refusing, stall
from tests.fakes.rawserver import Peer, RawServer, Request, sized
from tests.servers import RedisServer, redis_server

OF_THE_MACHINE = {"SluiceLoopLate"}
"""What a machine that is busy with other things alerts of."""
ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
upstreams: {{ openai: {{ backend: openai, base_url: "{provider}/v1", api_key: sk-provider }} }}
aliases: {{ chat: {{ tiers: [[{{ upstream: openai, model: m }}]] }} }}
prices: {{ models: {{ m: {{ input: 0, output: 1000 }} }} }}
keys: [{{ id: shop, digest: "{digest}", limits: {{ requests: {{ rate: 1000/s }}, budget: {{ month: {budget} }} }} }}]
limits: {{ address: null, store: "{store}" }}
{more}"""
FEW_ANSWERS = 0.6
"""A budget of US dollars for ten answers."""


# --- the table


@dataclass(frozen=True)
class Line:
    """A line of the log: its event, and what its fields have (of lists: one of their items)."""

    event: str
    fields: Mapping[str, str]

    def fits(self, record: Mapping[str, Any]) -> bool:
        return record["event"] == self.event and all(
            has(record.get(name), part) for name, part in self.fields.items()
        )


@dataclass(frozen=True)
class Row:
    """`legend` is a line of the panel `title` on `dashboard`, whose value is more than `above`."""

    what: str
    lines: Sequence[Line]
    alerts: frozenset[str]
    dashboard: str
    title: str
    legend: str
    above: float


def has(value: Any, part: str) -> bool:
    return any(part in str(item).split() for item in (value if isinstance(value, list) else [value]))


def table() -> Iterator[Row]:
    section = (ROOT / "docs" / "runbooks.md").read_text().split("## A bad night")[1].split("\n## ")[0]
    for row in re.findall(r"^\| (?!what |-)(.+) \|$", section, re.MULTILINE):
        what, log, alerts, panel = row.split(" | ")
        found = re.fullmatch(r"(\w+): (.+), `(.+)`(?: above (\d+))?", panel)
        assert found is not None, panel
        dashboard, title, legend, above = found.groups()
        lines = list(log_lines(log))
        yield Row(
            what,
            lines,
            frozenset(re.findall(r"Sluice\w+", alerts)),
            dashboard.lower(),
            title,
            legend,
            float(above or 0),
        )


def log_lines(cell: str) -> Iterator[Line]:
    """`event`, followed by any number of `field: value`."""
    for event, fields in re.findall(r"`(\w+)`((?: `\w+: [^`]+`)*)", cell):
        yield Line(event, dict(re.findall(r"`(\w+): ([^`]+)`", fields)))


ROWS = {row.what: row for row in table()}


# --- what happens


@dataclass
class Night:
    """A gateway while all is well. `provider_stops` ends its provider, `receiver_stops` the receiver of its call
    records."""

    gateway: GatewayProcess
    provider: Provider
    provider_stops: Callable[[], Awaitable[None]]
    receiver_stops: Callable[[], Awaitable[None]]
    redis: RedisServer
    client: aiohttp.ClientSession

    async def call(self, leave: bool = False) -> int:
        """The status of a call, which is read to its end, or to its first piece."""
        body = {
            "model": "chat",
            "stream": True,
            "messages": [{"role": "user", "content": "Count"}],
            "max_tokens": 60,
        }
        async with self.client.post(f"{self.gateway.api}/v1/chat/completions", json=body) as response:
            await (response.content.readany() if leave else response.read())
            return response.status


async def provider_down(night: Night) -> None:
    await night.provider_stops()


async def credentials_revoked(night: Night) -> None:
    night.provider.behaviour = refusing("credentials")


async def redis_down(night: Night) -> None:
    night.redis.kill()


async def callers_leave(night: Night) -> None:
    night.provider.behaviour = stall(20)


async def budget_spent(night: Night) -> None:
    """The calls that follow do it."""


async def taking(request: Request, peer: Peer) -> None:
    peer.send(sized(b"", 200))


async def slow(turn: Turn) -> None:
    await asyncio.sleep(3.1)  # rules and panels count in buckets of real seconds; the next one begins at 3
    await healthy(turn)


async def target_slow(night: Night) -> None:
    night.provider.behaviour = slow


async def receiver_down(night: Night) -> None:
    await night.receiver_stops()


FAULTS = {
    "a provider is down": provider_down,
    "credentials are revoked": credentials_revoked,
    "Redis is down": redis_down,
    "callers leave": callers_leave,
    "a budget is spent": budget_spent,
    "a target is slow": target_slow,
    "nobody takes call records": receiver_down,
}


# --- what is seen


def panel_lines(server: str, row: Row) -> dict[str, float]:
    """What the panel draws now, by legend."""
    panels = json.loads((ROOT / "deploy" / "grafana" / f"{row.dashboard}.json").read_text())["panels"]
    [panel] = [panel for panel in panels if panel["title"] == row.title]
    drawn = {}
    for target in panel["targets"]:
        for series in ask(server, filled(target["expr"], "1m")):
            legend = re.sub(
                r"{{(\w+)}}", lambda label, of=series: of["metric"].get(label[1], ""), target["legendFormat"]
            )
            drawn[legend] = float(series["value"][1])
    return drawn


def alerts(server: str, state: str = ".*") -> set[str]:
    return {one["metric"]["alertname"] for one in ask(server, f'ALERTS{{alertstate=~"{state}"}}')}


def shown(server: str, row: Row) -> bool:
    value = panel_lines(server, row).get(row.legend, math.nan)
    return value > row.above and row.alerts <= alerts(server, "firing")


def test_each_row_of_the_table_is_tried() -> None:
    assert list(ROWS) == list(FAULTS)


@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed")
@pytest.mark.parametrize("what", FAULTS if os.environ.get("SLUICE_TEST_DEPLOY") == "1" else list(FAULTS)[:1])
async def test_a_bad_night_is_seen_as_the_runbook_says(what: str) -> None:
    row = ROWS[what]
    async with AsyncExitStack() as stack, AsyncExitStack() as up, AsyncExitStack() as receiving:
        redis = stack.enter_context(redis_server())
        provider = await up.enter_async_context(Provider(healthy))
        receiver = await receiving.enter_async_context(RawServer(taking))
        sink = f'records: [{{name: hook, interval: 100ms, webhook: {{url: "{receiver.url}/in"}}}}]'
        config = CONFIG.format(
            provider=provider.url,
            digest=DIGEST,
            budget=FEW_ANSWERS if what == "a budget is spent" else 1e6,
            store=redis.url if what == "Redis is down" else "memory",
            more=sink if what == "nobody takes call records" else "",
        )
        gateway = stack.enter_context(serving(config))
        server = stack.enter_context(prometheus(gateway.admin.removeprefix("http://"), rules=quick_rules()))
        headers = {"authorization": f"Bearer {KEY}"}
        client = await stack.enter_async_context(aiohttp.ClientSession(headers=headers))
        night = Night(gateway, provider, up.aclose, receiving.aclose, redis, client)
        assert await night.call() == 200
        await asyncio.to_thread(wait_for, server, 'sluice_requests_total{code="2xx"} == 1')
        before = len(gateway.records())

        await FAULTS[what](night)
        until = time.monotonic() + PATIENCE
        while not await asyncio.to_thread(shown, server, row):
            assert time.monotonic() < until, (panel_lines(server, row), alerts(server))
            await night.call(leave=what == "callers leave")
            await asyncio.sleep(0.1)  # another program's clock: there is nothing to wait on
        assert alerts(server) - OF_THE_MACHINE == row.alerts

        records = gateway.records()[before:]
        warnings = [record for record in records if record["level"] in ("warning", "error")]
        assert_in_order(row.lines, warnings)
        if not warnings:
            assert any(row.lines[0].fits(record) for record in records)


def assert_in_order(lines: Sequence[Line], warnings: Sequence[Mapping[str, Any]]) -> None:
    """The first warning is the first line, and behind it come the others."""
    if not warnings:
        return
    assert lines[0].fits(warnings[0]), warnings[0]
    rest = iter(warnings)
    for line in lines:
        assert any(line.fits(record) for record in rest), line
