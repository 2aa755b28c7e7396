"""Moderations, images and reranking through the whole gateway, in the forms of OpenAI's SDK, Cohere's and
Jina's clients."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateways import HEAD, KEY, gateway
from tests.e2e.test_embeddings import JSON, ask, says
from tests.fakes.rawserver import Peer, RawServer, Request, sized
from tests.sdks.running import need, printed

RANKED = (
    b'{"id":"r-1","results":[{"index":1,"relevance_score":0.98}], "model":"rr","usage":{"total_tokens":1000}}'
)
JUDGED = b'{"id":"modr-1","model":"omni","results":[{"flagged":false,"categories":{},"category_scores":{}}]}'
PAINTED = b'{"created":7,"data":[{"b64_json":"AAAA"}],"usage":{"input_tokens":10,"output_tokens":90,"total_tokens":100}}'
ASKS: dict[str, tuple[str, dict[str, Any], bytes]] = {
    "rerank": ("/v1/rerank", {"query": "q", "documents": ["a", "b"], "top_n": 1}, RANKED),
    "moderations": ("/v1/moderations", {"input": ["a", "b"]}, JUDGED),
    "images": ("/v1/images/generations", {"prompt": "A sluice", "size": "auto"}, PAINTED),
}
AT = {"rerank": "/v1/rerank", "moderations": "/v1/moderations", "images": "/v1/images/generations"}
BUSY = sized(b'{"error":{"message":"busy"}}', 500, JSON)


def config(one: RawServer, two: RawServer | None = None, more: str = "") -> str:
    second = two.url if two is not None else "http://127.0.0.1:1"
    return f"""{HEAD}
upstreams:
  one: {{backend: openai, base_url: "{one.url}/v1", api_key: sk-one}}
  two: {{backend: openai, base_url: "{second}/v1"}}
  ranks: {{backend: cohere, base_url: "{second}", api_key: sk-two}}
  other: {{backend: anthropic, base_url: "{second}"}}
prices: {{models: {{m: {{input: 1, output: 10}}}}, header: true}}
aliases:
  chat:
    tiers: [[{{upstream: one, model: m}}], [{{upstream: other, model: m}}], [{{upstream: two, model: m}}]]
    retry: {{same_target: 0}}
  cohere: {{tiers: [[{{upstream: ranks, model: m}}]]}}
  none: {{tiers: [[{{upstream: other, model: m}}]]}}
  few: {{tiers: [[{{upstream: one, model: m}}]], limits: {{requests: {{rate: 1/min, burst: 1}}}}}}
"""


@pytest.mark.parametrize("name", ASKS)
async def test_request_and_answer_pass_but_for_the_model(name: str) -> None:
    path, fields, answer = ASKS[name]
    async with RawServer(says(sized(answer, 200, JSON))) as up, gateway(config(up)) as g:
        for at in (path, path.removeprefix("/v1"), *(["/v2/rerank"] if name == "rerank" else [])):
            asked = await ask(g, {"model": "chat", **fields}, at)
            assert (asked.status, asked.body) == (200, answer)
            sent = up.requests[-1]
            assert (sent.path, json.loads(sent.body)) == (AT[name], {"model": "m", **fields})
            assert sent.headers["authorization"] == "Bearer sk-one"
        assert g.metric(
            f'sluice_operation_requests_total{{code="2xx",frontend="openai",operation="{name}"}}'
        ) == len(up.requests)


async def test_what_was_billed_is_logged_counted_and_told() -> None:
    async with RawServer(says(sized(PAINTED, 200, JSON))) as up, gateway(config(up)) as g:
        asked = await ask(g, {"model": "chat", "prompt": "A"}, "/v1/images/generations")
        assert asked.headers["x-sluice-cost-usd"] == "0.000910000"
        line = g.requests[-1]
        assert (line["tokens_in"], line["tokens_out"], line["end"]) == (10, 90, "done")


@pytest.mark.parametrize("name", ASKS)
async def test_another_target_is_asked_where_one_fails(name: str) -> None:
    path, fields, answer = ASKS[name]
    async with (
        RawServer(says(BUSY)) as one,
        RawServer(says(sized(answer, 200, JSON))) as two,
        gateway(config(one, two)) as g,
    ):
        asked = await ask(g, {"model": "chat", **fields}, path)
        assert (asked.status, asked.headers["x-sluice-target"]) == (200, "two/m")
        assert g.requests[-1]["attempts"] == ["one/m server_error", "two/m ok"]


@pytest.mark.parametrize("name", ASKS)
async def test_keys_limits_and_models_hold(name: str) -> None:
    path, fields, answer = ASKS[name]
    async with RawServer(says(sized(answer, 200, JSON))) as up, gateway(config(up)) as g:
        assert (await ask(g, {"model": "few", **fields}, path, key="sk-no")).status == 401
        assert [(await ask(g, {"model": "few", **fields}, path)).status for _ in range(2)] == [200, 429]
        refused = await ask(g, {"model": "none", **fields}, path)
        assert (refused.status, refused.json["error"]["code"]) == (400, "unsupported_operation")
        assert (await ask(g, {"model": "nobody", **fields}, path)).status == 404
        assert len(up.requests) == 1


async def test_cohere_is_asked_at_its_own_place() -> None:
    answer = (
        b'{"results":[{"index":0,"relevance_score":0.5}],"id":"x","meta":{"billed_units":{"search_units":1}}}'
    )
    async with (
        RawServer(says(BUSY)) as one,
        RawServer(says(sized(answer, 200, JSON))) as two,
        gateway(config(one, two)) as g,
    ):
        asked = await ask(g, {"model": "cohere", "query": "q", "documents": ["a"]}, "/v2/rerank")
        assert (asked.status, asked.body) == (200, answer)
        assert (two.requests[0].path, two.requests[0].headers["authorization"]) == (
            "/v2/rerank",
            "Bearer sk-two",
        )


async def test_the_openai_sdk() -> None:
    need("py_openai")
    script = (
        "import json, sys, openai; url, key = json.loads(sys.stdin.read());"
        "c = openai.OpenAI(base_url=url, api_key=key, max_retries=0);"
        "m = c.moderations.create(model='chat', input='a');"
        "i = c.images.generate(model='chat', prompt='a');"
        "print(json.dumps([m.results[0].flagged, i.data[0].b64_json, i.usage.output_tokens]))"
    )
    answers = says(sized(JUDGED, 200, JSON), sized(PAINTED, 200, JSON))
    async with RawServer(answers) as up, gateway(config(up)) as g:
        assert await printed(script, f"{g.url}/v1", KEY) == [False, "AAAA", 90]


SOUND = bytes(range(256)) * 400
SAY = {"model": "chat", "input": "Hello", "voice": "alloy"}


@pytest.mark.parametrize(("fields", "media_type"), [
    ({}, "audio/mpeg"), ({"response_format": "wav"}, "audio/wav"), ({"response_format": "odd"}, "application/octet-stream"),
    ({"stream_format": "sse"}, "text/event-stream"),
])  # fmt: skip
async def test_speech_is_passed_on(fields: dict[str, Any], media_type: str) -> None:
    async with RawServer(says(sized(SOUND, 200))) as up, gateway(config(up)) as g:
        asked = await ask(g, {**SAY, **fields}, "/v1/audio/speech")
        assert (asked.status, asked.body, asked.headers["content-type"]) == (200, SOUND, media_type)
        assert json.loads(up.requests[0].body) == {**SAY, **fields, "model": "m"}
        assert up.requests[0].path == "/v1/audio/speech"
        assert (g.requests[-1]["end"], g.requests[-1]["tokens_out"]) == ("done", 0)
        assert (
            g.metric('sluice_operation_requests_total{code="2xx",frontend="openai",operation="speech"}') == 1
        )


async def test_speech_is_sent_on_before_it_has_come_to_its_end() -> None:
    more = asyncio.Event()

    async def speaks(request: Request, peer: Peer) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
        await more.wait()
        peer.send(b"again")

    async with (
        RawServer(speaks) as up,
        gateway(config(up)) as g,
        aiohttp.ClientSession(g.url) as client,
        client.post("/v1/audio/speech", json=SAY, headers={"x-api-key": KEY}) as response,
    ):
        assert await response.content.readany() == b"first"
        more.set()
        assert await response.content.read() == b"again"


@pytest.mark.parametrize("answer", [
    BUSY, sized(b'{"error":{"message":"busy","type":"server_error"}}', 200, JSON), sized(b"", 200), sized(b"<html>", 200),
])  # fmt: skip
async def test_what_is_no_sound_leads_to_the_next_target(answer: bytes) -> None:
    async with (
        RawServer(says(answer)) as one,
        RawServer(says(sized(SOUND, 200))) as two,
        gateway(config(one, two)) as g,
    ):
        asked = await ask(g, SAY, "/audio/speech")
        assert (asked.status, asked.body, asked.headers["x-sluice-target"]) == (200, SOUND, "two/m")


async def test_sound_that_is_cut_is_cut_for_the_client_and_not_begun_again() -> None:
    async def cut(request: Request, peer: Peer) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nfirst")
        peer.close()

    async with (
        RawServer(cut) as one,
        RawServer(says(sized(SOUND, 200))) as two,
        gateway(config(one, two)) as g,
    ):
        with pytest.raises(aiohttp.ClientError):
            await ask(g, SAY, "/v1/audio/speech")
        assert not two.requests
        assert g.requests[-1]["end"] not in ("done", "internal_error", "client_gone")


async def test_the_openai_sdk_speaks() -> None:
    need("py_openai")
    script = (
        "import json, sys, openai; url, key = json.loads(sys.stdin.read());"
        "c = openai.OpenAI(base_url=url, api_key=key, max_retries=0);"
        "print(len(c.audio.speech.create(model='chat', input='Hello', voice='alloy').read()))"
    )
    async with RawServer(says(sized(SOUND, 200))) as up, gateway(config(up)) as g:
        assert await printed(script, f"{g.url}/v1", KEY) == len(SOUND)
