"""An upstream whose servers an endpoint picker chooses: a real gRPC server of the official protos, fake pods
behind it."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.e2e.test_pods import PATH, Pod, pods
from tests.upstream.calls import until

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("SLUICE_TEST_EPP_PYTHON", ROOT / ".cache/epp-venv/bin/python"))
pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="xds-protos and grpcio are not there (scripts/test_tools.sh)"
)


class Picker:
    """The program, and what it has printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.port = 0

    def told(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(json.loads(line))


@asynccontextmanager
async def running(port: int = 0) -> AsyncIterator[Picker]:
    program = str(ROOT / "tests/fakes/epp.py")
    process = await asyncio.create_subprocess_exec(
        str(PYTHON), program, str(port), stdout=asyncio.subprocess.PIPE
    )
    picker = Picker(process)
    reading = asyncio.create_task(picker.read())
    try:
        await until(lambda: bool(picker.told("started")) or reading.done())
        picker.port = picker.told("started")[0]["port"]
        yield picker
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


def config(port: int, more: str = "", base: str = "http://pool.example/v1") -> str:
    return f"""{HEAD}
upstreams:
  pool: {{backend: inference_pool, base_url: "{base}", picker: {{address: "127.0.0.1:{port}"{more}}}}}
aliases: {{chat: {{tiers: [[{{upstream: pool, model: m}}]], retry: {{same_target: 0}}}}}}
"""


async def asked(g: Running, padding: str = "", **wanted: Any) -> tuple[int, str, dict[str, str]]:
    messages = [{"role": "user", "content": padding}, {"role": "user", "content": json.dumps(wanted)}]
    body = {"model": "chat", "messages": messages, "stream": True}
    async with (
        aiohttp.ClientSession(g.url, headers={"x-api-key": KEY}) as client,
        client.post(PATH, json=body) as response,
    ):
        return response.status, await response.text(), {k.lower(): v for k, v in response.headers.items()}


async def test_the_endpoint_that_is_picked_is_asked_and_the_picker_is_told() -> None:
    async with running() as picker, pods(Pod(), Pod()) as [one, two], gateway(config(picker.port)) as g:
        for pod, other in ((one, two), (two, one)):
            status, text, _ = await asked(g, pick=f"{pod.address},{other.address}")
            assert (status, text[-14:]) == (200, "data: [DONE]\n\n")
            await until(lambda: len(picker.told("ended")) == len(one.asked) + len(two.asked))
            assert picker.told("served")[-1]["told"] == {"x-gateway-destination-endpoint-served": pod.address}
            assert pod.asked[0]["host"] == "pool.example"
        sent = picker.told("headers")[0]
        assert sent["mode"] == 4
        assert sent["headers"][":path"] == "/v1/chat/completions"
        assert "authorization" not in sent["headers"]
        await until(lambda: len(g.requests) == 2)
        assert g.requests[0]["pod"] == one.address
        assert g.requests[0]["attempts"] == [f"pool/m ok {one.address}"]
        assert g.metric('sluice_picks_total{result="picked",upstream="pool"}') == 2


async def test_endpoints_are_tried_in_order() -> None:
    async with running() as picker, pods(Pod(), Pod()) as [gone, good], gateway(config(picker.port)) as g:
        await gone.runner.cleanup()
        status, _, _ = await asked(g, pick=f"{gone.address},{good.address}", metadata=True)
        assert status == 200
        await until(lambda: bool(picker.told("ended")))
        assert picker.told("served")[0]["told"] == {"x-gateway-destination-endpoint-served": good.address}
        status, _, _ = await asked(g, pick=gone.address)
        assert status in (502, 503)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_refusal_is_the_callers_answer(status: int) -> None:
    async with running() as picker, gateway(config(picker.port)) as g:
        answered, _, headers = await asked(g, status=status, text="no capacity")
        assert (answered, headers["retry-after"]) == (status, "7")
        assert g.metric('sluice_picks_total{result="refused",upstream="pool"}') == 1


async def test_what_the_picker_changes_reaches_the_endpoint() -> None:
    async with running() as picker, pods(Pod()) as [pod], gateway(config(picker.port)) as g:
        padding = "x" * 900_000
        status, *_ = await asked(
            g, padding, pick=pod.address, model="m-canary", header={"x-prefiller-host-port": "10.0.0.1:8000"}
        )
        assert status == 200
        assert pod.asked[0]["body"]["model"] == "m-canary"
        assert pod.asked[0]["body"]["messages"][0]["content"] == padding
        assert pod.asked[0]["headers"]["x-prefiller-host-port"] == "10.0.0.1:8000"
        status, *_ = await asked(g, pick=pod.address, bare=True)
        assert (status, pod.asked[1]["body"]["model"]) == (200, "m")


async def test_a_picker_that_names_nobody_or_does_not_answer_fails_within_its_time() -> None:
    async with running() as picker, gateway(config(picker.port, ", timeout: 300ms")) as g:
        began = time.monotonic()
        for wanted in ({"silent": True}, {"nothing": True}, {"pick": "not-an-address"}):
            status, text, _ = await asked(g, **wanted)
            assert status in (502, 503), text
        assert time.monotonic() - began < 60
        assert g.metric('sluice_picks_total{result="failed",upstream="pool"}') == 3
        assert [line["event"] for line in g.log_lines if line["event"] == "picker_failed"] == [
            "picker_failed"
        ]


async def test_without_a_picker_the_service_is_asked_where_that_is_wanted() -> None:
    async with pods(Pod()) as [pod]:
        more = ", timeout: 2s, when_down: service"
        async with gateway(config(1, more, base=f"http://{pod.address}/v1")) as g:
            assert (await asked(g, pick="127.0.0.1:1"))[0] == 200
            assert g.metric('sluice_picks_total{result="bypassed",upstream="pool"}') == 1


async def test_a_picker_that_restarts_is_found_again() -> None:
    async with pods(Pod()) as [pod], running() as picker:
        port = picker.port
        async with gateway(config(port)) as g:
            assert (await asked(g, pick=pod.address))[0] == 200
            picker.process.kill()
            await picker.process.wait()
            assert (await asked(g, pick=pod.address))[0] in (502, 503)
            async with running(port):
                assert (await asked(g, pick=pod.address))[0] == 200


async def test_a_client_that_leaves_ends_the_picks_stream_and_the_answer() -> None:
    async with running() as picker, pods(Pod()) as [pod], gateway(config(picker.port)) as g:
        pod.go_on.clear()
        call = asyncio.create_task(asked(g, pick=pod.address))
        await until(lambda: bool(picker.told("served")))
        call.cancel()
        await until(lambda: bool(picker.told("ended")))
        pod.go_on.set()
