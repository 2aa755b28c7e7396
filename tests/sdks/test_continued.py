"""The vendors' own accumulators read what the gateway alone makes: an answer that another target has
continued, one that ends in an error within the stream, and a refusal of another dialect."""

import json
from typing import Any

import pytest

from tests.e2e.gateways import HEAD, KEY, gateway
from tests.fakes.rawserver import CHUNKED, LAST_CHUNK, Peer, RawServer, Request, chunk
from tests.sdks.running import Ask, answers, need

pytestmark = pytest.mark.timeout(240)

CONFIG = f"""{HEAD.replace(", default_alias: chat", "")}
upstreams:
  cut: {{backend: openai, base_url: "URL/cut", api_key: k}}
  whole: {{backend: openai, base_url: "URL/whole", api_key: k}}
  refuses: {{backend: openai, base_url: "URL/refuses", api_key: k}}
aliases:
  continued:
    {{tiers: [[{{upstream: cut, model: m}}], [{{upstream: whole, model: n}}]], retry: {{same_target: 0}}, recovery: continue}}
  broken: {{tiers: [[{{upstream: cut, model: m}}]], retry: {{same_target: 0}}, recovery: error}}
  refused: {{tiers: [[{{upstream: refuses, model: m}}]]}}
"""
MESSAGES = [{"role": "user", "content": "?"}]
SDKS: dict[
    str, tuple[str, dict[str, Any], object]
] = {  # the rest of the address, what is sent, how a refusal ends
    "py_openai_helper": ("/v1", {"messages": MESSAGES}, "stop"),
    "js_openai_helper": ("/v1", {"messages": MESSAGES}, "stop"),
    "py_openai_responses": ("/v1", {"input": "?"}, "completed"),
    "js_openai_responses": ("/v1", {"input": "?"}, "completed"),
    "js_anthropic": ("", {"messages": MESSAGES}, "refusal"),
    "py_anthropic": ("", {"messages": MESSAGES}, "refusal"),
    "py_genai": ("", {}, "SAFETY"),
    "py_ollama": ("", {}, "stop"),
}
WITH_REFUSALS = ("py_openai_helper", "js_openai_helper", "py_openai_responses", "js_openai_responses")
"""Those that show a refusal as one."""


def frame(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    value = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    return chunk(b"data: %b\n\n" % json.dumps(value).encode())


async def provider(request: Request, peer: Peer) -> None:
    opening = CHUNKED + frame({"role": "assistant", "content": ""})
    end = frame({}, "stop") + chunk(b"data: [DONE]\n\n") + LAST_CHUNK
    if request.path.startswith("/cut/"):
        peer.send(opening + frame({"content": "Hal"}) + frame({"content": "lo"}) + LAST_CHUNK)
    elif request.path.startswith("/refuses/"):
        peer.send(opening + frame({"refusal": "I can"}) + frame({"refusal": "not."}) + end)
    else:
        peer.send(opening + frame({"content": "Hallo"}) + frame({"content": " Welt"}) + end)


@pytest.mark.parametrize("sdk", SDKS)
async def test_what_the_gateway_makes_is_read_by_the_vendors_own_accumulator(sdk: str) -> None:
    need(sdk)
    path, body, end = SDKS[sdk]
    async with RawServer(provider) as up, gateway(CONFIG.replace("URL", up.url)) as running:
        names = ("continued", "broken", "refused")
        shown = await answers(
            sdk, [Ask(name, running.url + path, KEY, {"model": name, **body}) for name in names]
        )
    continued, broken, refused = (shown[name] for name in names)
    assert (continued.text, continued.error) == ("Hallo Welt", None)
    assert broken.error is not None
    assert broken.text in ("Hallo", "")  # some accumulators show nothing of an answer that failed
    assert (refused.text + refused.refusal, refused.error) == ("I cannot.", None)
    assert (str(refused.finish).rpartition(".")[2] or refused.finish) == end
    assert bool(refused.refusal) == (sdk in WITH_REFUSALS)
