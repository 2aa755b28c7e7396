"""Odd answers through the running gateway: what is counted, which target is asked next, and what callers are
told it used."""

import json
from collections.abc import Sequence
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.fakes.rawserver import CHUNKED, LAST_CHUNK, Peer, RawServer, Request, chunk
from tests.plugins import lanes
from tests.plugins.lanes import DONE, USAGE, Heard, of_chunks, of_lines, sse
from tests.upstream.calls import until

HI = lanes.chunk({"content": "Hi"})
GOOD = sse(lanes.chunk({"content": "Hello"}), lanes.chunk({}, "stop"), USAGE, DONE)
ASKED = {"messages": [{"role": "user", "content": "Countdown to ten"}]}
STREAMED = {**ASKED, "stream": True, "stream_options": {"include_usage": True}}


def answers(*bodies: bytes) -> Any:
    """A provider that answers /NUMBER/… with that body."""

    async def handler(request: Request, peer: Peer) -> None:
        peer.send(CHUNKED)
        peer.send(chunk(bodies[int(request.path.split("/")[1])]))
        peer.send(LAST_CHUNK)

    return handler


def config(provider: RawServer, targets: Sequence[str], alias: str = "", of: str = "") -> str:
    upstreams = "".join(
        f"  u{n}: {{backend: openai, base_url: '{provider.url}/{n}'{of}}}\n" for n in range(len(targets))
    )
    tiers = ", ".join(f"[{{upstream: u{n}, model: {name}}}]" for n, name in enumerate(targets))
    return (
        f"{HEAD}\nupstreams:\n{upstreams}aliases: {{chat: {{tiers: [{tiers}], retry: {{same_target: 0}}{alias}}}}}\n"
        "prices: {models: {m: {input: 1, output: 2}}}\n"
    )


async def asked(g: Running, path: str = "/v1/chat/completions", **body: Any) -> tuple[int, bytes]:
    headers = {"x-api-key": KEY, "accept": "application/x-ndjson; profile=full"}
    async with (
        aiohttp.ClientSession(g.url, headers=headers) as client,
        client.post(path, json=body or STREAMED) as response,
    ):
        return response.status, await response.read()


async def line(g: Running) -> dict[str, Any]:
    await until(lambda: bool(g.requests))
    return g.requests[-1]


def metric(g: Running, name: str) -> float:
    return g.metric(f'sluice_{name}_total{{model="m",upstream="u0"}}')


async def test_what_had_to_be_overlooked_is_counted() -> None:
    body = sse(lanes.chunk({"content": "Hi"}, id=7, usage=[]), DONE)
    async with RawServer(answers(body)) as up, gateway(config(up, ["m"])) as g:
        assert (metric(g, "skipped_fields"), metric(g, "finish_missing")) == (0, 0)
        status, out = await asked(g)
        assert (status, of_chunks(out).said) == (200, ("Hi", "", [], "stop", ""))
        await line(g)
        assert (metric(g, "skipped_fields"), metric(g, "finish_missing"), metric(g, "skipped_events")) == (
            2,
            1,
            0,
        )


@pytest.mark.parametrize("word", ["network_error", "insufficient_system_resource", "abort", "error"])
async def test_a_failure_before_content_goes_to_the_next_target(word: str) -> None:
    async with (
        RawServer(answers(sse(lanes.chunk({}, word), DONE), GOOD)) as up,
        gateway(config(up, ["m", "m"])) as g,
    ):
        for body in (STREAMED, ASKED):
            status, out = await asked(g, **body)
            assert status == 200
            assert b"Hello" in out
            assert word.encode() not in out


def heard(path: str, out: bytes) -> Heard:
    return of_chunks(out) if path.endswith("completions") else of_lines(out)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/chat/stream"])
async def test_a_failure_behind_content_is_recovered_from_and_the_usage_is_the_sum(path: str) -> None:
    cut = sse(lanes.chunk({"content": "Hel"}), lanes.chunk({}, "network_error"), DONE)
    async with (
        RawServer(answers(cut, GOOD)) as up,
        gateway(config(up, ["m", "m"], alias=", recovery: continue")) as g,
    ):
        status, out = await asked(g, path, **STREAMED)
        found = heard(path, out)
        assert (status, found.text, found.finish) == (200, "Hello", "stop")
        [usage] = found.usages
        input_ = usage.get("prompt_tokens", usage.get("inputTokens"))
        output = usage.get("completion_tokens", usage.get("outputTokens"))
        assert input_ == 5 + 4, "what the second reports, and what the first is thought to have used"
        assert output == 7 + 1
        told = await line(g)
        assert (told["tokens_in"], told["tokens_out"]) == (input_, output)
        assert told["attempt_costs"] == [pytest.approx(6e-6), pytest.approx(19e-6)]
        assert told["cost_usd"] == pytest.approx(sum(told["attempt_costs"]))


async def test_an_event_may_have_as_many_bytes_as_its_upstream_is_allowed() -> None:
    body = sse(
        HI, lanes.chunk({"images": [{"image_url": {"url": "A" * 3_000_000}}]}), lanes.chunk({}, "stop"), DONE
    )
    async with RawServer(answers(body, body)) as up:
        async with gateway(config(up, ["m"])) as g:
            assert of_chunks((await asked(g))[1]).said == ("Hi", "", [], "stop", "")
        async with gateway(config(up, ["m"], of=", max_event: 1MiB")) as g:
            assert b'"code":"garbled"' in (await asked(g))[1]


async def test_an_upstream_may_be_known_to_end_behind_its_usage_and_to_mean_its_stop() -> None:
    called = lanes.chunk(lanes.call("{}", name="f", index=0, id="a"))
    body = sse(called, USAGE)
    async with RawServer(answers(body, sse(called, lanes.chunk({}, "stop"), DONE))) as up:
        async with gateway(config(up, ["m"], of=", usage_is_end: true")) as g:
            assert of_chunks((await asked(g))[1]).said == ("", "", [("f", "{}")], "tool_calls", "")
        async with gateway(config(up, ["m"])) as g:
            assert b'"code":"truncated"' in (await asked(g))[1]


async def test_where_the_models_name_is_hidden_nothing_else_changes() -> None:
    logprobs = {"content": [{"token": "Hi", "logprob": -0.5}]}
    first = lanes.chunk({"content": 'say "model":"m"'}, vendor={"model": "m", "x": [1]})
    first["choices"][0]["logprobs"] = logprobs
    chunks = [first, HI, HI, HI, lanes.chunk({}, "stop")]
    async with (
        RawServer(answers(sse(*chunks, DONE))) as up,
        gateway(config(up, ["m"], alias=", report_model: alias")) as g,
    ):
        _, out = await asked(g)
        frames = out.decode().split("\n\n")
        assert [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]] == [
            {**c, "model": "chat"} for c in chunks
        ]
        assert frames[-2:] == ["data: [DONE]", ""]
