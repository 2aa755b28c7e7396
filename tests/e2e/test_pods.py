"""Upstreams that are several servers: fake pods of vLLM with metrics, behind a gateway."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self

import aiohttp
import msgspec
import pytest
import yaml
from aiohttp import web

from sluice.config.loader import load_mapping
from sluice.runtime import pods as following
from tests.e2e.gateways import HEAD, KEY, OnSluice, Running, gateway
from tests.upstream.calls import until

PATH = "/v1/chat/completions"
LONG = "".join(f"sentence {number}. " for number in range(200))


class Pod:
    """A server of OpenAI's dialect on one address of the loopback network; `waiting` and `running` are what
    it reports."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host, self.port = host, port
        self.waiting = self.running = 0
        self.reports = True
        self.broken = False
        self.asked: list[dict[str, Any]] = []
        self.read = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=8 << 20)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_get("/metrics", self.metrics)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self.runner.setup()
        await web.TCPSite(self.runner, self.host, self.port).start()
        self.port = self.runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()

    async def metrics(self, request: web.Request) -> web.Response:
        self.read += 1
        if not self.reports:
            return web.Response(status=404)
        labels = '{engine="0",model_name="m"}'
        values = {
            "num_requests_waiting": self.waiting,
            "num_requests_running": self.running,
            "kv_cache_usage_perc": 0.1,
        }
        return web.Response(text="".join(f"vllm:{name}{labels} {value}\n" for name, value in values.items()))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(
            {
                "body": await request.json(),
                "host": request.headers["host"],
                "headers": {k.lower(): v for k, v in request.headers.items()},
            }
        )
        if self.broken:
            return web.json_response({"error": {"message": "out of memory"}}, status=500)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for text in ("one", " two"):
            delta = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": text}}]}
            await response.write(b"data: " + json.dumps(delta).encode() + b"\n\n")
            await self.go_on.wait()
        await response.write(
            b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
        )
        return response


@asynccontextmanager
async def pods(*made: Pod) -> AsyncIterator[list[Pod]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(pod) for pod in made]


def config(strategy: str, section: str, *, port: int = 80, alias: str = "") -> str:
    return f"""{HEAD}
upstreams:
  vllm: {{backend: openai, base_url: "http://vllm.example:{port}/v1", pods: {{{section}}}}}
aliases:
  chat:
    tiers: [{{strategy: {strategy}, targets: [{{upstream: vllm, model: m}}]}}]
    retry: {{same_target: 0}}
{alias}
"""


def listed(strategy: str, of: list[Pod], more: str = "", alias: str = "") -> str:
    addresses = ", ".join(f'"{pod.address}"' for pod in of)
    return config(strategy, f"addresses: [{addresses}], every: 50ms, header: true{more}", alias=alias)


async def fresh(g: Running, count: int) -> None:
    """Waits until so many servers have been read, and read again: what they report now is known."""
    before = g.metric('sluice_pod_polls_total{result="ok",upstream="vllm"}')
    enough = before + 2 * count
    await until(lambda: g.metric('sluice_pod_polls_total{result="ok",upstream="vllm"}') >= enough)
    assert g.metric('sluice_pods{state="fresh",upstream="vllm"}') == count


async def asked(g: Running, text: str = "Count", **more: Any) -> tuple[int, str, dict[str, str]]:
    body = {"model": "chat", "messages": [{"role": "user", "content": text}], "stream": True, **more}
    async with (
        aiohttp.ClientSession(g.url, headers={"x-api-key": KEY}) as client,
        client.post(PATH, json=body) as response,
    ):
        return response.status, await response.text(), dict(response.headers)


async def test_the_pod_with_the_shortest_queue_is_asked() -> None:
    async with (
        pods(Pod(), Pod(), Pod()) as [one, two, three],
        gateway(listed("queue_depth", [one, two, three])) as g,
    ):
        one.waiting, two.waiting, three.waiting = 5, 0, 3
        await fresh(g, 3)
        assert g.metric('sluice_pod_requests_waiting{upstream="vllm"}') == 8
        status, text, headers = await asked(g)
        assert (status, headers["x-sluice-target"], headers["x-sluice-pod"]) == (200, "vllm/m", two.address)
        assert text.endswith("data: [DONE]\n\n")
        assert two.asked[0]["host"] == "vllm.example"
        two.waiting = 9
        await fresh(g, 3)
        assert (await asked(g))[2]["x-sluice-pod"] == three.address
        await until(lambda: len(g.requests) == 2)
        line = g.requests[0]
        assert (line["target"], line["pod"], line["pod_choice"]) == ("vllm/m", two.address, "queue")
        assert line["attempts"] == [f"vllm/m ok {two.address}"]
        assert g.metric('sluice_pod_choices_total{how="queue",upstream="vllm"}') == 2
        assert two.address not in g.runtime.exposition().decode(), "addresses are no labels"


async def test_a_prompt_goes_to_the_pod_that_has_seen_it() -> None:
    async with pods(Pod(), Pod(), Pod()) as all_of, gateway(listed("prefix_cache", all_of)) as g:
        await fresh(g, 3)
        first = (await asked(g, LONG + "Who?"))[2]["x-sluice-pod"]
        assert {(await asked(g, LONG + f"What {number}?"))[2]["x-sluice-pod"] for number in range(5)} == {
            first
        }
        busy = next(pod for pod in all_of if pod.address == first)
        busy.waiting, busy.running = 9, 50
        await fresh(g, 3)
        assert (await asked(g, LONG + "Who?"))[2]["x-sluice-pod"] != first
        await until(lambda: len(g.requests) == 7)
        said = [line["pod_choice"] for line in g.requests]
        assert said[0].startswith("hash")
        assert all(choice.startswith("prefix ") for choice in said[1:6])
        assert said[6].startswith("load")


async def test_a_pod_that_fails_costs_an_attempt_at_another_and_its_breaker_is_its_own() -> None:
    alias = "  other: {tiers: [[{upstream: vllm, model: m}]]}"
    async with (
        pods(Pod(), Pod()) as [bad, good],
        gateway(listed("queue_depth", [bad, good], alias=alias)) as g,
    ):
        bad.broken, good.running = True, 20
        await fresh(g, 2)
        for _ in range(8):
            status, _, headers = await asked(g)
            assert (status, headers["x-sluice-pod"]) == (200, good.address)
        assert len(bad.asked) == 5, "then its breaker is open"
        assert g.metric('sluice_breaker_state{model="m",upstream="vllm"}') == 0, "the other one is well"
        await until(lambda: len(g.requests) == 8)
        assert g.requests[0]["attempts"] == [
            f"vllm/m server_error {bad.address}",
            f"vllm/m ok {good.address}",
        ]
        opened = [line for line in g.log_lines if line["event"] == "breaker_open"]
        assert [line["pod"] for line in opened] == [bad.address]
        assert not [line for line in g.log_lines if line["event"] == "alias_without_target"]


async def test_pods_without_metrics_are_asked_by_the_calls_in_flight() -> None:
    async with (
        pods(Pod(), Pod()) as [one, two],
        gateway(listed("queue_depth", [one, two], ", metrics: null")) as g,
    ):
        one.go_on.clear()
        two.go_on.clear()
        calls = [asyncio.create_task(asked(g)) for _ in range(6)]
        await until(lambda: len(one.asked) + len(two.asked) == 6)
        assert len(one.asked) == 3
        assert one.read == 0
        one.go_on.set()
        two.go_on.set()
        assert [status for status, *_ in await asyncio.gather(*calls)] == [200] * 6


async def test_a_pod_whose_metrics_fail_is_the_last_resort() -> None:
    section = ", stale: 3s"  # after some sixty polls that fail
    async with pods(Pod(), Pod()) as [one, two], gateway(listed("queue_depth", [one, two], section)) as g:
        two.waiting = 7
        await fresh(g, 2)
        one.reports = False
        await until(lambda: g.metric('sluice_pods{state="stale",upstream="vllm"}') == 1)
        assert (await asked(g))[2]["x-sluice-pod"] == two.address


async def test_pods_appear_and_vanish_in_dns_and_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    names = list[str]()

    async def look_up(host: str, port: int) -> list[str]:
        assert host == "vllm.example"
        if not names:
            raise OSError("no such name")
        return [*names]

    monkeypatch.setattr(following, "addresses_of", look_up)
    async with Pod("127.0.0.2") as one:
        second = Pod("127.0.0.3", one.port)
        async with second as two:
            names.append(one.host)
            section = "resolve: 100ms, every: 50ms, header: true"
            async with gateway(config("prefix_cache", section, port=one.port)) as g:
                await fresh(g, 1)
                one.go_on.clear()
                running = asyncio.create_task(asked(g))
                await until(lambda: bool(one.asked))
                names.append(two.host)
                await fresh(g, 2)
                names.remove(one.host)
                await until(lambda: g.metric('sluice_pods{state="fresh",upstream="vllm"}') == 1)
                for number in range(4):
                    assert (await asked(g, f"{number}"))[2]["x-sluice-pod"] == two.address
                assert not running.done()
                names.clear()  # the resolver fails: what is known is used on
                await until(lambda: any(line["event"] == "pods_not_resolved" for line in g.log_lines))
                assert (await asked(g))[2]["x-sluice-pod"] == two.address
                one.go_on.set()
                status, text, headers = await running
                assert (status, headers["x-sluice-pod"]) == (200, one.address)
                assert text.endswith("data: [DONE]\n\n")
                changes = [
                    (line["appeared"], line["vanished"]) for line in g.log_lines if line["event"] == "pods"
                ]
                assert changes == [([one.address], []), ([two.address], []), ([], [one.address])]
                assert one.runner.server is not None
                await until(lambda: not one.runner.server.connections)  # type: ignore[union-attr]


async def test_before_any_pod_is_known_the_upstream_is_asked_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting = asyncio.Event()

    async def never(host: str, port: int) -> list[str]:
        await waiting.wait()
        return []

    monkeypatch.setattr(following, "addresses_of", never)
    async with Pod() as one:
        text = config("prefix_cache", "header: true", port=one.port).replace("vllm.example", "127.0.0.1")
        async with gateway(text) as g:
            status, _, headers = await asked(g)
            assert (status, headers.get("x-sluice-pod")) == (200, None)


async def test_a_reload_keeps_the_pods_and_what_is_known_of_them() -> None:
    async with pods(Pod(), Pod()) as all_of, gateway(listed("prefix_cache", all_of)) as g:
        await fresh(g, 2)
        first = (await asked(g, LONG))[2]["x-sluice-pod"]
        pools = g.state.pools.named("vllm")
        before = g.runtime
        assert isinstance(g, OnSluice)
        await g.swap(before.loaded)
        assert g.runtime is not before
        assert g.state.pools.named("vllm") == pools
        assert (await asked(g, LONG))[2]["x-sluice-pod"] == first
        await until(lambda: len(g.requests) == 2)
        assert g.requests[1]["pod_choice"].startswith("prefix")


async def test_models_that_a_reload_takes_away_are_forgotten_with_their_servers() -> None:
    async with pods(Pod(), Pod()) as all_of, gateway(listed("queue_depth", all_of)) as g:
        assert (await asked(g))[0] == 200
        [pool] = g.state.pools.named("vllm")
        assert [{*pod.loads} for pod in pool.pods] == [{"m"}, {"m"}]
        assert isinstance(g, OnSluice)
        loaded = g.runtime.loaded
        other = load_mapping(yaml.safe_load(listed("queue_depth", all_of).replace("model: m", "model: n")))
        aliases = msgspec.structs.replace(loaded.config, aliases=other.config.aliases)
        await g.swap(msgspec.structs.replace(loaded, config=aliases))
        assert (await asked(g))[0] == 200
        await until(lambda: [{*pod.loads} for pod in pool.pods] == [{"n"}, {"n"}])
        assert len(pool._standings) == 2  # health and load of one model
