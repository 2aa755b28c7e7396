"""Embeddings of OpenAI's, Gemini's and Ollama's clients by Cohere and by Bedrock, through the whole
gateway."""

import asyncio
import json
import struct
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest

from sluice.proxy.fan_out import MAX_CONCURRENT_REQUESTS
from tests.e2e.gateways import HEAD, KEY, gateway
from tests.e2e.test_embeddings import JSON, ask, says
from tests.fakes.rawserver import Peer, RawServer, Request, sized
from tests.upstream.calls import until

GOLDEN = Path(__file__).parents[1] / "golden" / "embeddings"
COHERES = sized((GOLDEN / "cohere_v4.json").read_bytes(), 200, JSON)
TITANS = sized((GOLDEN / "bedrock_titan.json").read_bytes(), 200, JSON)
ON_BEDROCK = sized(
    (GOLDEN / "cohere_floats.json").read_bytes(), 200, JSON, ("X-Amzn-Bedrock-Input-Token-Count", "1000")
)


def config(up: RawServer) -> str:
    return f"""{HEAD}
upstreams:
  cohere: {{backend: cohere, base_url: "{up.url}", api_key: sk-one}}
  bedrock: {{backend: bedrock, base_url: "{up.url}", api_key: sk-two}}
aliases:
  chat: {{tiers: [[{{upstream: cohere, model: embed-v4.0}}]], retry: {{same_target: 0}}}}
  titan: {{tiers: [[{{upstream: bedrock, model: "amazon.titan-embed-text-v2:0"}}]]}}
  eu: {{tiers: [[{{upstream: bedrock, model: "eu.cohere.embed-v4:0"}}]]}}
"""


async def test_openais_clients_get_openais_document() -> None:
    async with RawServer(says(COHERES)) as up, gateway(config(up)) as g:
        asked = await ask(g, {"model": "chat", "input": ["one", "two"], "dimensions": 2})
        assert asked.status == 200
        assert [item["embedding"] for item in asked.json["data"]] == [[0.25, -0.5], [0.001, 2]]
        assert (asked.json["usage"], asked.json["model"]) == ({"prompt_tokens": 4, "total_tokens": 4}, "chat")
        assert (up.requests[0].path, up.requests[0].headers["authorization"]) == (
            "/v2/embed",
            "Bearer sk-one",
        )
        assert (g.requests[-1]["tokens_in"], g.requests[-1]["end"]) == (4, "done")


async def test_vectors_in_base64() -> None:
    async with RawServer(says(TITANS)) as up, gateway(config(up)) as g:
        asked = await ask(g, {"model": "titan", "input": "one", "encoding_format": "base64"})
        assert struct.unpack("<2f", b64decode(asked.json["data"][0]["embedding"])) == (0.25, -0.5)
        assert up.requests[0].path == "/model/amazon.titan-embed-text-v2%3A0/invoke"
        assert up.requests[0].headers["authorization"] == "Bearer sk-two"


async def test_what_bedrock_counted_stands_in_a_header() -> None:
    async with RawServer(says(ON_BEDROCK)) as up, gateway(config(up)) as g:
        asked = await ask(g, {"model": "eu", "input": ["one", "two"]})
        assert asked.json["usage"]["prompt_tokens"] == 1000
        assert g.requests[-1]["tokens_in"] == 1000


async def test_geminis_and_ollamas_clients() -> None:
    async with (
        RawServer(says(COHERES)) as up,
        gateway(config(up)) as g,
        aiohttp.ClientSession(g.url) as client,
    ):
        wanted = {
            "content": {"parts": [{"text": "one"}]},
            "taskType": "RETRIEVAL_QUERY",
            "outputDimensionality": 2,
        }
        url = "/v1beta/models/chat:embedContent"
        async with client.post(url, json=wanted, headers={"x-goog-api-key": KEY}) as response:
            assert (response.status, (await response.json())["embedding"]) == (200, {"values": [0.25, -0.5]})
        sent = json.loads(up.requests[0].body)
        assert (sent["input_type"], sent["output_dimension"]) == ("search_query", 2)
        body = {"model": "chat", "input": ["one", "two"]}
        async with client.post(
            "/api/embed", json=body, headers={"authorization": f"Bearer {KEY}"}
        ) as response:
            answer = await response.json()
            assert (answer["embeddings"], answer["prompt_eval_count"]) == ([[0.25, -0.5], [0.001, 2]], 4)


@pytest.mark.parametrize(("status", "body", "told"), [
    (400, b'{"message":"invalid request: total number of texts must be at most 96"}', 400),
    (429, b'{"message":"trial key"}', 429), (401, b'{"message":"invalid api token"}', 502),
    (200, b'{"message":"odd"}', 502),
])  # fmt: skip
async def test_errors_are_openais(status: int, body: bytes, told: int) -> None:
    async with RawServer(says(sized(body, status, JSON))) as up, gateway(config(up)) as g:
        asked = await ask(g, {"model": "chat", "input": "one"})
        assert asked.status == told
        assert asked.json["error"]["message"]


class Titan:
    """Answers each text with its number, the first `MAX_CONCURRENT_REQUESTS` of them only when all of those have come.
    `refuse`: a text, and what it is answered instead."""

    def __init__(self, refuse: Mapping[str, bytes] | None = None) -> None:
        self.refuse = refuse or {}
        self.under_way = 0
        self.most = 0
        self.asked: list[str] = []
        self._all = asyncio.Event()

    async def answer(self, request: Request, peer: Peer) -> None:
        text = json.loads(request.body)["inputText"]
        self.asked.append(text)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        if len(self.asked) == MAX_CONCURRENT_REQUESTS:
            self._all.set()
        try:
            await self._all.wait()
            found = b'{"embedding":[%b],"inputTextTokenCount":2}' % text.encode()
            peer.send(self.refuse.get(text) or sized(found, 200, JSON))
        finally:
            self.under_way -= 1


MANY = [str(number) for number in range(20)]


async def test_a_model_that_takes_one_text_is_asked_several_times_for_one_call() -> None:
    titan = Titan()
    async with RawServer(titan.answer) as up, gateway(config(up)) as g:
        asked = await ask(g, {"model": "titan", "input": MANY})
        assert (asked.status, asked.json["usage"]["prompt_tokens"]) == (200, 40)
        assert [item["embedding"] for item in asked.json["data"]] == [[number] for number in range(20)]
        assert [item["index"] for item in asked.json["data"]] == list(range(20))
        assert (sorted(titan.asked), titan.most) == (sorted(MANY), MAX_CONCURRENT_REQUESTS)
        assert {one.headers["authorization"] for one in up.requests} == {"Bearer sk-two"}
        [line] = g.requests
        assert (line["tokens_in"], line["attempts"]) == (40, ["bedrock/amazon.titan-embed-text-v2:0 ok"])
        too_many = await ask(g, {"model": "titan", "input": ["x"] * 257})
        assert (too_many.status, too_many.json["error"]["param"]) == (400, "input")


LIMITED = sized(
    b'{"message":"Too many tokens, please wait before trying again."}', 429, JSON, ("Retry-After", "60")
)


@pytest.mark.parametrize(("answer", "status", "attempts"), [
    (LIMITED, 429, ["rate_limited"]), (sized(b'{"message":"It broke"}', 500, JSON), 502, ["server_error", "server_error"]),
    (sized(b'{"message":"No such field"}', 400, JSON), 400, ["client_error"]), (sized(b"{}", 200, JSON), 502, ["garbled"]),
])  # fmt: skip
async def test_the_first_failure_is_that_of_the_call(answer: bytes, status: int, attempts: list[str]) -> None:
    titan = Titan({"3": answer})
    async with RawServer(titan.answer) as up, gateway(config(up)) as g:
        asked = await ask(g, {"model": "titan", "input": MANY[:8]})
        assert asked.status == status
        assert [attempt.split()[1] for attempt in g.requests[-1]["attempts"]] == attempts


async def test_who_leaves_ends_all_requests() -> None:
    titan = Titan()
    async with (
        RawServer(titan.answer) as up,
        gateway(config(up)) as g,
        aiohttp.ClientSession(g.url, headers={"x-api-key": KEY}) as client,
    ):
        body = {"model": "titan", "input": MANY[:7]}
        leaving = asyncio.create_task(client.post("/v1/embeddings", json=body))
        await until(lambda: len(titan.asked) == 7)
        leaving.cancel()
        await until(lambda: not g.runtime.pipeline.runs)
        await until(lambda: all(peer.closed.is_set() for peer in up.peers))


async def test_all_answers_have_one_deadline() -> None:
    titan = Titan()
    async with RawServer(titan.answer) as up:
        brief = config(up).replace("api_key: sk-two", "api_key: sk-two, timeouts: {whole: 300ms}")
        async with gateway(brief) as g:
            asked = await ask(g, {"model": "titan", "input": MANY[:7]})
            assert (asked.status, asked.json["error"]["code"]) == (504, "headers_timeout")
