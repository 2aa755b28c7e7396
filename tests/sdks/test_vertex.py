"""Google's SDK with `vertexai=True`, and Anthropic's `AnthropicVertex`, are served at their base URL."""

import pytest

from tests.e2e.gateways import HEAD, KEY, gateway
from tests.sdks.running import Ask, answers, need

pytestmark = pytest.mark.timeout(240)

ECHO = "{tiers: [[{upstream: echo, model: echo}]]}"
CONFIG = f"{HEAD}\nupstreams: {{echo: {{backend: echo}}}}\naliases: {{chat: {ECHO}, org/model: {ECHO}}}\n"
HELLO = [{"role": "user", "content": "?"}]


async def test_sdks_of_vertex_ai_are_answered() -> None:
    need("py_vertex")
    async with gateway(CONFIG) as running:
        asks = [
            Ask(f"{owner} {what}", running.url, key, {"model": model, "messages": HELLO})
            for owner in ("google", "express", "anthropic")
            for what, model, key in (
                ("whole", "org/model", KEY),
                ("stream", "chat", KEY),
                ("count", "chat", KEY),
                ("list", "chat", KEY),
                ("stream unknown", "none", KEY),
                ("stream stranger", "chat", "sk-nobody"),
            )
            if not (owner == "anthropic" and what == "list")
        ]
        shown = await answers("py_vertex", asks)
    for owner, finish in (("google", "STOP"), ("express", "STOP"), ("anthropic", "end_turn")):
        for what in ("whole", "stream"):
            answer = shown[f"{owner} {what}"]
            assert (answer.error, answer.text, answer.finish) == (None, "You said: ?", finish)
        assert shown[f"{owner} count"].usage == (1, 0)
        unknown, stranger = (shown[f"{owner} stream {what}"].error for what in ("unknown", "stranger"))
        assert unknown is not None
        assert stranger is not None
        assert (unknown.status or unknown.code, stranger.status or stranger.code) == (404, 401)
    for owner in ("google", "express"):
        assert shown[f"{owner} list"].text == "publishers/google/models/chat,publishers/org/models/model"
