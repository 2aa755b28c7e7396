"""Made-up answers of each upstream dialect, in any cut, mean the same when a client's own SDK has read them: for
each of five SDKs and seven dialects of upstreams.

tests/matrix holds the same of many more answers, without sockets and by a reader of our own.
"""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings

from tests.e2e.gateways import HEAD, KEY, gateway
from tests.e2e.held import STOPS
from tests.fakes.rawserver import CHUNKED, LAST_CHUNK, Peer, RawServer, Request, chunk
from tests.matrix import answers
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
ENDS = STOPS | {
    "completed": "stop", "max_output_tokens": "length", "STOP": "stop", "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
}  # fmt: skip
NAMES_CALLS = frozenset({"py_openai_helper", "py_anthropic"})
"""Those whose dialect tells by its reason that an answer ended in calls."""
EACH = 2
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
    """Answers /NUMBER/… with that answer, each piece a write of its own."""

    def __init__(self, made: list[tuple[str, Answer]]) -> None:
        self._made = made

    async def __call__(self, request: Request, peer: Peer) -> None:
        number = int(request.path.split("/")[1])
        dialect, answer = self._made[number]
        peer.send(CHUNKED)
        for piece in cuts.random(answers.WRITERS[dialect](answer), answer.seed, 60):
            peer.send(chunk(piece))
            await asyncio.sleep(0)
        peer.send(LAST_CHUNK)


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
    async with RawServer(Provider(made)) as up, gateway(configuration(up.url, made)) as running:
        asks = [Ask(f"f{n}", running.url + path, KEY, {"model": f"f{n}", **body}) for n in range(len(made))]
        shown = await sdks.answers(sdk, asks)
    for n, (dialect, answer) in enumerate(made):
        assert heard(sdk, shown[f"f{n}"]) == meant(sdk, dialect, answer), f"{dialect}: {answer}"


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
