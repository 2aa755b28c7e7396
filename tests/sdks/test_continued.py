"""The vendors' own accumulators read what the gateway alone makes: an answer that another target has
continued, one that ends in an error within the stream, a refusal of another dialect, and heartbeats before and
within an answer."""

import asyncio
import json
from typing import Any

import pytest

from sluice.proxy.run import CallRun
from tests.e2e.gateways import HEAD, KEY, gateway
from tests.fakes.rawserver import CHUNKED, LAST_CHUNK, Peer, RawServer, Request, chunk
from tests.sdks.running import Ask, answers, need

pytestmark = pytest.mark.timeout(240)

CONFIG = f"""{HEAD.replace(", default_alias: chat", "")}
upstreams:
  cut: {{backend: openai, base_url: "URL/cut", api_key: k}}
  whole: {{backend: openai, base_url: "URL/whole", api_key: k}}
  refuses: {{backend: openai, base_url: "URL/refuses", api_key: k}}
  slow: {{backend: openai, base_url: "URL/slow", api_key: k}}
aliases:
  continued:
    {{tiers: [[{{upstream: cut, model: m}}], [{{upstream: whole, model: n}}]], retry: {{same_target: 0}}, recovery: continue}}
  broken: {{tiers: [[{{upstream: cut, model: m}}]], retry: {{same_target: 0}}, recovery: error}}
  refused: {{tiers: [[{{upstream: refuses, model: m}}]]}}
  slow: {{tiers: [[{{upstream: slow, model: m}}]], heartbeat: 10ms}}
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
    "py_langchain": ("/v1", {"messages": MESSAGES}, "stop"),
    "py_langchain_responses": ("/v1", {"input": "?"}, "completed"),
    "js_ai_sdk_openai": ("/v1", {"messages": MESSAGES}, "content_filter"),
    "js_ai_sdk_compat": ("/v1", {"messages": MESSAGES}, "content_filter"),
    "js_ai_sdk_anthropic": ("", {"messages": MESSAGES}, "content_filter"),
}
WITH_REFUSALS = (
    "py_openai_helper", "js_openai_helper", "py_openai_responses", "js_openai_responses", "py_langchain_responses",
)  # fmt: skip
"""Those that show a refusal as one."""
WITHOUT = ("py_langchain",)
"""Those that show nothing of it."""


def frame(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    value = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    return chunk(b"data: %b\n\n" % json.dumps(value).encode())


class Provider:
    """The handler of a RawServer. `beats`: heartbeats that the gateway has sent; a slow answer waits for some
    before it begins, and in its middle."""

    def __init__(self) -> None:
        self.beats: asyncio.Queue[None] = asyncio.Queue()

    async def __call__(self, request: Request, peer: Peer) -> None:
        opening = CHUNKED + frame({"role": "assistant", "content": ""})
        end = frame({}, "stop") + chunk(b"data: [DONE]\n\n") + LAST_CHUNK
        if request.path.startswith("/cut/"):
            peer.send(opening + frame({"content": "Hal"}) + frame({"content": "lo"}) + LAST_CHUNK)
        elif request.path.startswith("/refuses/"):
            peer.send(opening + frame({"refusal": "I can"}) + frame({"refusal": "not."}) + end)
        elif request.path.startswith("/slow/"):
            await self._silence()
            peer.send(opening + frame({"content": "Hallo"}))
            await self._silence()
            peer.send(frame({"content": " Welt"}) + end)
        else:
            peer.send(opening + frame({"content": "Hallo"}) + frame({"content": " Welt"}) + end)

    async def _silence(self) -> None:
        for _ in range(3):
            await self.beats.get()


@pytest.mark.parametrize("sdk", SDKS)
async def test_what_the_gateway_makes_is_read_by_the_vendors_own_accumulator(
    sdk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(sdk)
    path, body, end = SDKS[sdk]
    provider, beat = Provider(), CallRun._beat

    def counted(run: CallRun) -> None:
        beat(run)
        provider.beats.put_nowait(None)

    monkeypatch.setattr(CallRun, "_beat", counted)
    async with RawServer(provider) as up, gateway(CONFIG.replace("URL", up.url)) as running:
        names = ("continued", "broken", "refused", "slow")
        shown = await answers(
            sdk, [Ask(name, running.url + path, KEY, {"model": name, **body}) for name in names]
        )
    continued, broken, refused, slow = (shown[name] for name in names)
    assert (slow.text, slow.error) == ("Hallo Welt", None)
    assert (continued.text, continued.error) == ("Hallo Welt", None)
    assert broken.error is not None
    assert broken.text in ("Hallo", "")  # some accumulators show nothing of an answer that failed
    assert (refused.text + refused.refusal, refused.error) == ("" if sdk in WITHOUT else "I cannot.", None)
    assert (str(refused.finish).rpartition(".")[2] or refused.finish) == end
    assert bool(refused.refusal) == (sdk in WITH_REFUSALS)
