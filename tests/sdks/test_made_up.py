"""Made-up answers of each upstream dialect, in any cut, mean the same when a client's own SDK has read them, streamed
and whole: for each of five SDKs and seven dialects of upstreams.

tests/matrix holds the same of many more answers, without sockets and by a reader of our own.
"""

import asyncio
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings

from tests import corpus
from tests.e2e.gateways import HEAD, KEY, gateway
from tests.e2e.held import STOPS
from tests.fakes.rawserver import CHUNKED, LAST_CHUNK, Peer, RawServer, Request, chunk, sized
from tests.matrix import answers, wholes
from tests.matrix.answers import Answer
from tests.sdks import running as sdks
from tests.sdks.running import Ask, Shown
from tests.wire import cuts

pytestmark = pytest.mark.timeout(240)

MESSAGES = {"messages": [{"role": "user", "content": "?"}]}
SDKS: dict[str, tuple[str, dict[str, Any]]] = {  # the rest of the address, and what is sent
    "py_openai_helper": ("/v1", MESSAGES),
    "py_openai_responses": ("/v1", {"input": "?"}),
    "py_anthropic": ("", MESSAGES),
    "py_genai": ("", {}),
    "py_ollama": ("", {}),
}
SPOKEN = {
    "py_openai_helper": "openai", "py_openai_responses": "responses", "py_anthropic": "anthropic", "py_genai": "gemini",
    "py_ollama": "ollama",
}  # fmt: skip
"""The dialect that each speaks: its upstream alone is asked for whole answers, others for streams."""
ENDS = STOPS | {
    "completed": "stop", "max_output_tokens": "length", "STOP": "stop", "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
}  # fmt: skip
NAMES_CALLS = frozenset({"py_openai_helper", "py_anthropic"})
"""Those whose dialect tells by its reason that an answer ended in calls."""
EACH = 4 if corpus.EVERY else 1
"""Answers of each dialect."""


def made_up() -> list[tuple[str, Answer]]:
    found: list[Answer] = []

    @settings(max_examples=EACH * len(answers.WRITERS), database=None, deadline=None)
    @given(answers.answers())
    def collect(answer: Answer) -> None:
        found.append(answer)

    collect()
    return [(name, found[at % len(found)]) for at, name in enumerate([*answers.WRITERS] * EACH)]


class Provider:
    """Answers /NUMBER/… with that answer, each piece a write of its own; whole where that is what is asked for.
    `whole` counts the latter by dialect."""

    def __init__(self, made: list[tuple[str, Answer]]) -> None:
        self._made = made
        self.whole: Counter[str] = Counter()

    async def __call__(self, request: Request, peer: Peer) -> None:
        number = int(request.path.split("/")[1])
        dialect, answer = self._made[number]
        if asks_whole(dialect, request):
            self.whole[dialect] += 1
            peer.send(sized(json.dumps(wholes.WRITERS[dialect](answer)).encode()))
            return
        peer.send(CHUNKED)
        for piece in cuts.random(answers.WRITERS[dialect](answer), answer.seed, 60):
            peer.send(chunk(piece))
            await asyncio.sleep(0)
        peer.send(LAST_CHUNK)


def asks_whole(dialect: str, request: Request) -> bool:
    match dialect:
        case "gemini":
            return "stream" not in request.path
        case "ollama":
            return json.loads(request.body).get("stream") is False
        case "openai" | "anthropic" | "responses":
            return json.loads(request.body).get("stream") is not True
        case _:
            return False


def configuration(provider: str, made: list[tuple[str, Answer]]) -> str:
    upstreams = [
        f"  u{n}: {{backend: {dialect}, base_url: '{provider}/{n}', api_key: {'null' if dialect == 'ollama' else 'k'}, "
        "timeouts: {connect: 60s}}"
        for n, (dialect, _) in enumerate(made)
    ]
    aliases = [
        f"  f{n}: {{retry: {{same_target: 0}}, tiers: [[{{upstream: u{n}, model: m}}]]}}"
        for n in range(len(made))
    ]
    head = HEAD.replace("default_alias: chat", "default_alias: f0")
    return "\n".join([head, "upstreams:", *upstreams, "aliases:", *aliases, ""])


@pytest.mark.parametrize("sdk", SDKS)
async def test_a_made_up_answer_means_the_same_to_the_clients_own_sdk(sdk: str) -> None:
    sdks.need(sdk)
    path, body = SDKS[sdk]
    made = made_up()
    provider = Provider(made)
    async with RawServer(provider) as up, gateway(configuration(up.url, made)) as running:
        url = running.url + path
        ways: dict[str, dict[str, Any]] = {"streamed": {}, "whole": {"whole": True}}
        asks = [
            Ask(f"{way} {n}", url, KEY, {"model": f"f{n}", **body, **more})
            for n in range(len(made))
            for way, more in ways.items()
        ]
        shown = await sdks.answers(sdk, asks)
    for n, (dialect, answer) in enumerate(made):
        for way in ways:
            assert heard(sdk, shown[f"{way} {n}"]) == meant(sdk, dialect, answer), (
                f"{way} {dialect}: {answer}"
            )
    assert provider.whole == {SPOKEN[sdk]: EACH}


def heard(sdk: str, shown: Shown) -> dict[str, Any]:
    calls = [[name, json.loads(given) if isinstance(given, str) else given] for name, given in shown.calls]
    return {
        "error": shown.error,
        "text": shown.text + shown.refusal,
        "thought": shown.reasoning,
        "calls": calls,
        "end": ENDS.get(str(shown.finish), shown.finish),
        "counts": shown.usage,
    }


def meant(sdk: str, dialect: str, answer: Answer) -> dict[str, Any]:
    end = answer.end if answer.end != "content_filter" or dialect in answers.FILTERS else "stop"
    return {
        "error": None,
        "text": answer.text,
        "thought": answer.thought,
        "calls": [[call.name, call.arguments] for call in answer.calls],
        "end": "stop" if end == "tool_calls" and sdk not in NAMES_CALLS else end,
        "counts": answer.counts[:2],
    }
