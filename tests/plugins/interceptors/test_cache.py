"""The exact-match cache: which answers are kept, for whom and for how long; and that a reload keeps them."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from sluice.config.loader import load
from sluice.identity.keys import digest_of
from sluice.model.chat import ChatRequest, Message, Text, Tool
from sluice_plugins.interceptors.cache import OVERHEAD, Answers, Cache, CachedAnswer, ResponseCache, asks_of
from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.fakes.rawserver import Peer, RawServer, Request, chunked, sized

OTHER, SECOND = "sk-other", "sk-second"
KEYS = f"""
  {{id: test, tenant: acme, digest: "{digest_of(KEY)}", default_alias: chat}},
  {{id: second, tenant: acme, digest: "{digest_of(SECOND)}", default_alias: chat}},
  {{id: other, tenant: beta, digest: "{digest_of(OTHER)}", default_alias: chat}}"""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def entry(text: str, until: float = 10.0) -> CachedAnswer:
    return CachedAnswer(text, "m", None, until, len(text) + OVERHEAD)


def test_an_answer_is_given_until_its_time_is_over() -> None:
    clock = Clock()
    answers = Answers(10_000, clock)
    answers.keep(b"a", entry("yes"))
    clock.now = 9.9
    assert answers.get(b"a") == entry("yes")
    clock.now = 10.0
    assert answers.get(b"a") is None
    assert (len(answers), answers.bytes) == (0, 0)


def test_the_answer_that_was_unused_for_longest_gives_way() -> None:
    answers = Answers(3 * (OVERHEAD + 10), Clock())
    for name in (b"a", b"b", b"c"):
        answers.keep(name, entry("0123456789"))
    answers.get(b"a")
    answers.keep(b"d", entry("0123456789"))
    assert [name for name in (b"a", b"b", b"c", b"d") if answers.get(name)] == [b"a", b"c", b"d"]
    answers.keep(b"e", entry("x" * 100_000))
    assert len(answers) == 3, "what is larger than all there may be is not kept, and nothing gives way to it"
    answers.keep(b"a", entry("0"))
    assert answers.bytes == 3 * OVERHEAD + 21


@pytest.mark.parametrize("option", ["ttl", "size", "answer"])
def test_options_are_above_zero(option: str) -> None:
    with pytest.raises(ValueError, match=option):
        msgspec.structs.replace(Cache(), **{option: 0})


def test_every_field_that_makes_another_answer_is_part_of_the_key() -> None:
    chat = ChatRequest("widget", "chat", (Message("user", (Text("hi"),)),))
    others = [
        {"messages": (Message("user", (Text("ho"),)),)},
        {"tools": (Tool("f"),)},
        {"tool_choice": "none"},
        {"response_format": {"type": "json_object"}},
        {"user": "ann"},
        {"parallel_tool_calls": False},
    ]
    seen = {msgspec.json.encode(asks_of(msgspec.structs.replace(chat, **other))) for other in [{}, *others]}
    assert len(seen) == len(others) + 1
    assert asks_of(msgspec.structs.replace(chat, stream=False, include_usage=True)) == asks_of(chat)


def test_the_interceptor_of_an_alias_is_a_cache_of_its_own() -> None:
    kind = Cache()
    one, other = kind.interceptor(), kind.interceptor()
    assert isinstance(one, ResponseCache)
    assert one is not other


# --- over HTTP


def sse(*choices: dict[str, Any]) -> bytes:
    chunks = [
        json.dumps({"id": "c", "model": "m", "choices": [{"index": 0, **choice}]}).encode()
        for choice in choices
    ]
    return b"".join(b"data: %b\n\n" % chunk for chunk in chunks) + b"data: [DONE]\n\n"


class Upstream:
    """Counts its answers, each of which has another text; `reasoning` comes before it, where it is set."""

    def __init__(self) -> None:
        self.answers = 0
        self.finish = "stop"
        self.reasoning = ""

    async def __call__(self, request: Request, peer: Peer) -> None:
        self.answers += 1
        text = f"answer {self.answers}"
        if json.loads(request.body).get("stream"):
            thought = (
                [{"delta": {"reasoning_content": self.reasoning}, "finish_reason": None}]
                if self.reasoning
                else []
            )
            said: dict[str, Any] = {"delta": {"content": text}, "finish_reason": None}
            peer.send(chunked(sse(*thought, said, {"delta": {}, "finish_reason": self.finish})))
        else:
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": self.finish}
            usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
            answer = {"id": "c", "model": "m", "choices": [choice], "usage": usage}
            peer.send(sized(json.dumps(answer).encode(), 200, ("Content-Type", "application/json")))


def config(url: str, options: str = "", more: str = "") -> str:
    head = "\n".join(line for line in HEAD.splitlines() if not line.startswith("keys:"))
    return f"""{head}
keys: [{KEYS}]
upstreams: {{up: {{backend: openai, base_url: "{url}/v1"}}}}
aliases:
  chat: {{tiers: [[{{upstream: up, model: m}}]], interceptors: [{{name: cache{options}}}]}}
{more}
"""


async def ask(
    g: Running, text: str = "hi", key: str = KEY, headers: dict[str, str] | None = None, **fields: Any
) -> tuple[str, str]:
    """The answer's text, and what the cache's header says."""
    body = {"model": "chat", "messages": [{"role": "user", "content": text}], **fields}
    async with (
        aiohttp.ClientSession(g.url, headers={"x-api-key": key, **(headers or {})}) as client,
        client.post("/v1/chat/completions", json=body) as response,
    ):
        data = await response.read()
        assert response.status == 200, data
        header = response.headers.get("x-sluice-cache", "")
    if not fields.get("stream"):
        return json.loads(data)["choices"][0]["message"]["content"], header
    chunks = [
        json.loads(part.removeprefix(b"data: "))
        for part in data.split(b"\n\n")
        if part.startswith(b"data: {")
    ]
    return "".join(
        chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"]
    ), header


@pytest.mark.parametrize("first", [True, False], ids=["streamed first", "whole first"])
async def test_the_same_chat_is_answered_from_memory_streamed_or_whole(first: bool) -> None:
    upstream = Upstream()
    async with RawServer(upstream) as up, gateway(config(up.url)) as g:
        assert await ask(g, stream=first) == ("answer 1", "miss")
        assert await ask(g, stream=first) == ("answer 1", "hit")
        assert await ask(g, stream=not first) == ("answer 1", "hit")
        assert await ask(g, "ho") == ("answer 2", "miss")
        assert await ask(g, temperature=0.5) == ("answer 3", "miss")
        assert [line["target"] for line in g.requests] == ["up/m", None, None, "up/m", "up/m"]


@pytest.mark.parametrize(("scope", "shared"), [("key", []), ("tenant", [SECOND]), ("alias", [SECOND, OTHER])])
async def test_answers_are_shared_within_their_scope(scope: str, shared: list[str]) -> None:
    async with RawServer(Upstream()) as up, gateway(config(up.url, f", scope: {scope}")) as g:
        await ask(g)
        for key in (SECOND, OTHER):
            assert (await ask(g, key=key))[1] == ("hit" if key in shared else "miss")


@pytest.mark.parametrize(
    "fields",
    [
        {"logprobs": True},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"store": True},
        {"unheard_of": 1},
    ],
    ids=lambda fields: next(iter(fields)),
)
async def test_what_an_answer_s_text_is_not_enough_for_goes_to_the_target(fields: dict[str, Any]) -> None:
    upstream = Upstream()
    async with RawServer(upstream) as up, gateway(config(up.url)) as g:
        assert await ask(g, **fields) == ("answer 1", "")
        assert await ask(g, **fields) == ("answer 2", "")


async def test_headers_that_an_upstream_gets_are_part_of_the_key() -> None:
    async with RawServer(Upstream()) as up:
        forwarding = config(up.url).replace('base_url: "', 'forward: {x-mode: any}, base_url: "')
        async with gateway(forwarding) as g:
            assert await ask(g, headers={"x-mode": "a"}) == ("answer 1", "miss")
            assert await ask(g, headers={"x-mode": "b"}) == ("answer 2", "miss")
            assert await ask(g, headers={"x-mode": "a", "x-other": "b"}) == ("answer 1", "hit")


async def test_chats_with_tools_are_answered_where_the_options_say_so() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    async with RawServer(Upstream()) as up, gateway(config(up.url, ", tools: true")) as g:
        assert await ask(g, tools=tools) == ("answer 1", "miss")
        assert await ask(g, tools=tools) == ("answer 1", "hit")


async def test_an_answer_that_is_not_nothing_but_text_is_not_kept() -> None:
    upstream = Upstream()
    async with RawServer(upstream) as up, gateway(config(up.url)) as g:
        upstream.reasoning = "well"
        assert await ask(g, stream=True) == ("answer 1", "miss")
        upstream.reasoning, upstream.finish = "", "length"
        assert await ask(g, stream=True) == ("answer 2", "miss")
        upstream.finish = "stop"
        assert await ask(g, stream=True) == ("answer 3", "miss")
        assert await ask(g, stream=True) == ("answer 3", "hit")


async def test_a_longer_answer_than_may_be_is_not_kept() -> None:
    async with RawServer(Upstream()) as up, gateway(config(up.url, ", answer: 7")) as g:
        assert await ask(g) == ("answer 1", "miss")
        assert await ask(g) == ("answer 2", "miss")


async def test_a_reload_keeps_the_answers_unless_the_options_are_others(tmp_path: Path) -> None:
    def changed(options: str, more: str) -> Any:
        file = tmp_path / "changed.yaml"
        file.write_text(config(up.url, options, f"{more}\nlog: {{level: debug}}\n"))
        return load(str(file))

    async with RawServer(Upstream()) as up, gateway(config(up.url)) as g:
        await ask(g)
        await g.swap(changed("", "tenants: {acme: {}}"))  # type: ignore[union-attr]
        assert await ask(g) == ("answer 1", "hit")
        await g.swap(changed(", ttl: 1m", ""))  # type: ignore[union-attr]
        assert await ask(g) == ("answer 2", "miss")
