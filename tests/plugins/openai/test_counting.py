"""Counts of tokens by vLLM's and llama.cpp's /tokenize: what is sent, what is told, and through the whole
gateway."""

import json
from typing import Any

import aiohttp
import pytest

from sluice.errors import UpstreamError
from sluice.frontends.anthropic.counting import counted
from sluice.frontends.gemini.operations import count
from sluice.model.events import Finished, Usage, Verbatim
from sluice_plugins.openai.backend import OpenAI
from tests.e2e.gateways import HEAD, KEY, gateway
from tests.e2e.test_embeddings import JSON, says
from tests.fakes.rawserver import RawServer, sized
from tests.plugins.gemini.test_passing import head

VLLM = OpenAI(base_url="http://v:8000/v1", count_tokens="vllm")
LLAMA = OpenAI(base_url="http://l:8080/v1/chat/completions", count_tokens="llama.cpp")
TOOL = {"name": "f", "description": "Does it", "input_schema": {"type": "object", "properties": {}}}
FUNCTION = {"name": "f", "description": "Does it", "parameters": TOOL["input_schema"]}
ASK = {
    "model": "chat",
    "system": "Be short",
    "messages": [{"role": "user", "content": "Hi"}],
    "tools": [TOOL],
}
GEMINIS = {
    "generateContentRequest": {
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}], "systemInstruction": {"parts": [{"text": "Be short"}]}
    }
}  # fmt: skip


def of_anthropic() -> Any:
    return counted(json.dumps(ASK).encode(), head())


def of_gemini() -> Any:
    return count(json.dumps(GEMINIS).encode(), head())


def sent(backend: OpenAI, dialect: str, chat: Any) -> tuple[str, Any]:
    operation = backend.operation("count_tokens", dialect)
    assert operation is not None
    request = operation.whole_request(chat, "m")
    return request.url, json.loads(request.body)


def test_vllm_counts_the_chat() -> None:
    url, body = sent(VLLM, "anthropic", of_anthropic())
    assert url == "http://v:8000/tokenize"
    assert body == {
        "model": "m", "messages": [{"role": "system", "content": "Be short"}, {"role": "user", "content": "Hi"}],
        "tools": [{"type": "function", "function": FUNCTION}],
        "add_generation_prompt": True,
    }  # fmt: skip
    assert "tools" not in sent(VLLM, "gemini", of_gemini())[1]


def test_llama_counts_a_text() -> None:
    url, body = sent(LLAMA, "gemini", of_gemini())
    assert (url, body) == (
        "http://l:8080/tokenize",
        {"content": "system\nBe short\nuser\nHi", "add_special": True},
    )
    assert "Does it" in sent(LLAMA, "anthropic", of_anthropic())[1]["content"]


@pytest.mark.parametrize(
    "base_url", ["http://v:8000", "http://v:8000/", "http://v:8000/v1/", "http://v:8000/v1/chat/completions"]
)
def test_it_stands_beside_v1(base_url: str) -> None:
    assert (
        sent(OpenAI(base_url=base_url, count_tokens="vllm"), "gemini", of_gemini())[0]
        == "http://v:8000/tokenize"
    )


def test_others_do_not_count() -> None:
    assert OpenAI().operation("count_tokens", "anthropic") is None
    assert VLLM.operation("count_tokens", "openai") is None


def told(dialect: str, body: bytes) -> tuple[Any, Usage | None]:
    operation = VLLM.operation("count_tokens", dialect)
    assert operation is not None
    decoder = operation.whole_decoder()
    events = [event for byte in body for event in decoder.feed(bytes([byte]))]
    *_, finished, passed = [*events, *decoder.close()]
    assert isinstance(finished, Finished)
    assert isinstance(passed, Verbatim)
    return json.loads(passed.data), finished.usage


@pytest.mark.parametrize(
    "body", [b'{"count":3,"max_model_len":9,"tokens":[1,2,3]}', b'{"tokens":[1,2,3]}', b'{"count":3}']
)
def test_counts_are_told_in_the_callers_dialect(body: bytes) -> None:
    assert told("anthropic", body) == ({"input_tokens": 3}, Usage())
    document, _ = told("gemini", body)
    assert (document["totalTokens"], document["promptTokensDetails"]) == (
        3,
        [{"modality": "TEXT", "tokenCount": 3}],
    )


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"<p>", b'{"count":-1}', b'{"count":""}', b'{"error":{"message":"x"}}']
)
def test_what_is_no_count_is_an_error(body: bytes) -> None:
    with pytest.raises(UpstreamError):
        told("anthropic", body)


def config(up: RawServer) -> str:
    return f"""{HEAD}
upstreams:
  one: {{backend: vllm, base_url: "{up.url}/v1", api_key: sk-one}}
aliases:
  chat: {{tiers: [[{{upstream: one, model: m}}]], report_model: alias}}
"""


async def test_clients_of_two_dialects_get_their_counts() -> None:
    answer = sized(b'{"count":41,"max_model_len":4096,"tokens":[1]}', 200, JSON)
    async with (
        RawServer(says(answer)) as up,
        gateway(config(up)) as g,
        aiohttp.ClientSession(g.url) as client,
    ):
        headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
        async with client.post("/v1/messages/count_tokens", json=ASK, headers=headers) as response:
            assert (response.status, await response.json()) == (200, {"input_tokens": 41})
        url = "/v1beta/models/chat:countTokens"
        async with client.post(url, json=GEMINIS, headers={"x-goog-api-key": KEY}) as response:
            assert (response.status, (await response.json())["totalTokens"]) == (200, 41)
        assert [request.path for request in up.requests] == ["/tokenize", "/tokenize"]
        assert up.requests[0].headers["authorization"] == "Bearer sk-one"
        assert g.requests[-1]["tokens_out"] == 0
