"""The gateway before providers that others mocked: answers in every client dialect, and the faults that the
mocks inject.

What a mock writes that is not its dialect stands in ILL_WRITTEN, with what becomes of it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.matrix import clients, hearing
from tests.matrix.talk import Call, Result, Results, Said, Talk, Tool, User
from tests.mocks.servers import mock, rules_of
from tests.upstream.calls import until

LANES: Mapping[str, Mapping[str, str]] = {
    "aimock": {
        "openai": "backend: openai, base_url: URL/v1",
        "azure": "backend: azure-deployments, base_url: 'URL/openai?api-version=2024-10-21'",
        "responses": "backend: responses, base_url: URL/v1",
        "anthropic": "backend: anthropic, base_url: URL",
        "gemini": "backend: gemini, base_url: URL",
        "vertex": "backend: gemini, base_url: URL, project: p",
        "ollama": "backend: ollama, base_url: URL",
        "cohere": "backend: cohere, base_url: URL",
        "bedrock": "backend: bedrock, region: eu-central-1, base_url: URL",
        "bedrock-anthropic": "backend: bedrock-anthropic, region: eu-central-1, base_url: URL",
    },
    "llmock": {
        "openai": "backend: openai, base_url: URL/v1",
        "responses": "backend: responses, base_url: URL/v1",
        "anthropic": "backend: anthropic, base_url: URL/anthropic",
        "gemini": "backend: gemini, base_url: URL/gemini",
        "cohere": "backend: cohere, base_url: URL/cohere",
        "mistral": "backend: mistral, base_url: URL/mistral/v1",
        "groq": "backend: groq, base_url: URL/groq/openai/v1",
        "together": "backend: together, base_url: URL/together/v1",
        "perplexity": "backend: openai, base_url: URL/perplexity/v1",
        "ai21": "backend: ai21, base_url: URL/ai21/v1",
        "xai": "backend: xai, base_url: URL/xai/v1",
    },
    "stubllm": {
        "openai": "backend: openai, base_url: URL/v1",
        "anthropic": "backend: anthropic, base_url: URL",
        "gemini": "backend: gemini, base_url: URL",
    },
    "fakellm": {
        "openai": "backend: openai, base_url: URL/v1",
        "anthropic": "backend: anthropic, base_url: URL",
    },
    "llm-mock-api": {
        "openai": "backend: openai, base_url: URL/v1",
        "responses": "backend: responses, base_url: URL/v1",
        "anthropic": "backend: anthropic, base_url: URL",
    },
    "mock-llm": {"openai": "backend: openai, base_url: URL/v1"},
}
"""By mock and dialect: the upstream."""
PAIRS = [(name, lane) for name, lanes in LANES.items() for lane in lanes]
MOCKS = [name for name in LANES if name != "llmock"]
"""Those whose answers and faults are chosen by the caller's words (`rules/`)."""
PATHS: Mapping[str, str] = {
    "openai": "/v1/chat/completions",
    "anthropic": "/v1/messages",
    "responses": "/v1/responses",
    "ollama": "/api/chat",
}
CLIENTS = (*PATHS, "gemini")
ASKED = [(client, stream) for client in CLIENTS for stream in (True, False)]

WEATHER = Tool(
    "get_weather",
    "Tells the weather",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"type": "string"}},
        "required": ["city"],
    },
)
CALLED = ("get_weather", {"city": "Paris", "unit": "°C"})
HELLO = "Hello from a mock – ünïcödé 日本 🎉."
CALLING = User(("Please call the tool",))
RESULT = (CALLING, Said("", (Call("call_1", *CALLED),)), Results((Result("21"),)))


class Meant(msgspec.Struct, frozen=True):
    text: str = ""
    thought: str = ""
    calls: tuple[tuple[str, Any], ...] = ()


TALKS: Mapping[str, tuple[Talk, Meant]] = {
    "hello": (Talk((User(("Say something",)),)), Meant(HELLO)),
    "tool": (Talk((CALLING,), tools=(WEATHER,)), Meant(calls=(CALLED,))),
    "result": (Talk(RESULT, tools=(WEATHER,)), Meant("It is 21 degrees in Paris.")),
    "think": (Talk((User(("Please think first",)),)), Meant("Four.", "Two and two are four.")),
}
KNOWN: Mapping[str, tuple[str, ...]] = {
    "aimock": ("hello", "tool", "result", "think"),
    "stubllm": ("hello", "tool"),
    "fakellm": ("hello", "tool", "result"),
    "llm-mock-api": ("hello", "tool", "think"),
    "mock-llm": ("hello",),
}
LACKING: Mapping[tuple[str, str], frozenset[str]] = {
    ("aimock", "bedrock-anthropic"): frozenset({"stream"}),  # its chunks have no `bytes`
    ("stubllm", "anthropic"): frozenset({"stream"}),  # without the last words and a call's arguments
    ("stubllm", "gemini"): frozenset({"tool stream"}),  # without a finishReason
    ("aimock", "cohere"): frozenset({"think"}),  # in the text
    ("aimock", "ollama"): frozenset({"think"}),  # only where the request says `think`
    ("llm-mock-api", "openai"): frozenset({"think"}),  # not at all
}
"""What a mock does not write as its dialect has it."""


class Fault(msgspec.Struct, frozen=True):
    """What the gateway makes of a mock's fault: the outcomes that an attempt may have, and the codes that
    callers may be told where there is no other target. `streams`: it may happen to streams alone; `begun`: it
    may come behind the first words."""

    outcomes: frozenset[str]
    codes: frozenset[str]
    streams: bool = False
    begun: bool = False


def _fault(outcomes: str, codes: str, **more: bool) -> Fault:
    return Fault(frozenset(outcomes.split()), frozenset(codes.split()), **more)


GONE = "connect_error stale_connection truncated"
FAULTS: Mapping[str, Fault] = {
    "be limited": _fault("rate_limited", "rate_limit_exceeded"),
    "break down": _fault("server_error", "server_error"),
    "be overloaded": _fault("server_error", "overloaded"),
    "refuse the key": _fault("bad_credentials", "bad_credentials"),
    "drop the call": _fault(GONE, "reset"),
    "write junk": _fault(
        "garbled truncated server_error", "garbled truncated server_error"
    ),  # mock-llm reads it, too
    "be cut": _fault(GONE, "reset truncated", streams=True, begun=True),
    "hang up": _fault(GONE, "reset truncated", streams=True, begun=True),
}
"""By the caller's words."""
CUT = "These are words that are not all told to anybody."
NEVER = _fault("", "")


def configuration(name: str, url: str, lanes: Iterable[str], options: str = "") -> str:
    """An alias for each lane, and one with a second target (`-then`)."""
    upstreams, aliases = ["  well: {backend: echo, text: From the second target.}"], []
    for lane in lanes:
        upstream = LANES[name][lane].replace("URL", url)
        upstreams.append(
            f"  {lane}: {{{upstream}, api_key: sk-of-mock, {options}breaker: {{failures: 1000}}}}"
        )
        first = f"[{{upstream: {lane}, model: m-{lane}}}]"
        rest = "heartbeat: null, retry: {same_target: 0}"
        aliases += [
            f"  {lane}: {{tiers: [{first}], {rest}}}",
            f"  {lane}-then: {{tiers: [{first}, [{{upstream: well, model: echo}}]], {rest}}}",
        ]
    head = HEAD.replace(", default_alias: chat", "")
    return "\n".join([head, "upstreams:", *upstreams, "aliases:", *aliases, ""])


class Caller:
    """Asks a gateway in any client dialect."""

    def __init__(self, g: Running, session: aiohttp.ClientSession) -> None:
        self.g = g
        self._session = session

    async def ask(self, client: str, alias: str, talk: Talk, *, stream: bool) -> tuple[int, bytes]:
        body = clients.WRITERS[client](msgspec.structs.replace(talk, stream=stream))
        path = PATHS.get(client, "")
        if client == "gemini":
            how = "streamGenerateContent?alt=sse" if stream else "generateContent"
            path = f"/v1beta/models/{alias}:{how}"
        else:
            body["model"] = alias
        async with self._session.post(path, json=body) as response:
            return response.status, await response.read()


@asynccontextmanager
async def before(name: str, url: str, lanes: Iterable[str], options: str = "") -> AsyncIterator[Caller]:
    headers = {"authorization": f"Bearer {KEY}"}
    async with (
        gateway(configuration(name, url, lanes, options)) as g,
        aiohttp.ClientSession(g.url, headers=headers) as session,
    ):
        yield Caller(g, session)


@pytest.fixture(scope="module", params=MOCKS)
def one(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Name and URL of a mock that is running."""
    with mock(request.param) as url:
        yield request.param, url


def lacks(name: str, lane: str, known: str, *, stream: bool, client: str) -> bool:
    """Whether the mock does not write this. A caller of its own dialect who asks for a whole answer gets one;
    others get what was asked for as a stream."""
    lacking = LACKING.get((name, lane), frozenset())
    whole = not stream and client in lane
    return known in lacking or (not whole and bool({"stream", f"{known} stream"} & lacking))


async def test_answers_mean_the_same_in_every_client_dialect(one: tuple[str, str]) -> None:
    name, url = one
    async with before(name, url, LANES[name]) as caller:

        async def unlike(lane: str, known: str, client: str, stream: bool) -> list[Any]:
            talk, meant = TALKS[known]
            status, body = await caller.ask(client, lane, talk, stream=stream)
            what = heard(client, body, stream=stream) if status == 200 else body
            return [(lane, known, client, stream, what)] if what != meant else []

        asked = [  # all at once, as some mocks take their time for each piece
            unlike(lane, known, client, stream)
            for lane in LANES[name]
            for known in KNOWN[name]
            for client, stream in ASKED
            if not lacks(name, lane, known, stream=stream, client=client)
        ]
        assert [one for found in await asyncio.gather(*asked) for one in found] == []


def heard(client: str, body: bytes, *, stream: bool) -> Meant:
    found = hearing.READERS[client](body, stream=stream)
    thought = "" if found.calls else found.thought  # Cohere's plan of its calls
    return Meant(found.text, thought, tuple([(call.name, call.arguments) for call in found.calls]))


async def test_faults_are_told_as_what_they_are_and_lead_to_the_next_target(one: tuple[str, str]) -> None:
    name, url = one
    rules = rules_of(name).read_text()
    known = {words: fault for words, fault in FAULTS.items() if words in rules}
    # fakellm's streams never fail, and all but whole answers of one dialect are asked for as streams
    lanes, streams = (("openai",), (False,)) if name == "fakellm" else (tuple(LANES[name]), (True, False))
    asked = [(words, stream) for words in known for stream in streams]
    async with before(name, url, lanes) as caller:

        async def unlike(lane: str) -> list[Any]:
            found = []
            for words, stream in asked:
                told = await caller.ask("openai", lane, saying(words), stream=stream)
                then = await caller.ask("openai", f"{lane}-then", saying(words), stream=stream)
                found += [] if alone_fits(known[words], told, stream=stream) else [(lane, words, told)]
                found += [] if then_fits(known[words], then) else [(lane, words, then)]
            return found

        assert [one for lane in await asyncio.gather(*map(unlike, lanes)) for one in lane] == []
        await until(lambda: len(caller.g.requests) == 2 * len(asked) * len(lanes))
        for lane in lanes:
            lines = [line for line in caller.g.requests if line["alias"] == lane]
            for (words, stream), line in zip(asked, lines, strict=True):
                outcomes = known[words].outcomes | ({"ok"} if known[words].streams and not stream else set())
                assert {attempt.split()[1] for attempt in line["attempts"]} <= outcomes, (lane, words)


def saying(words: str) -> Talk:
    return Talk((User((f"Please {words}",)),))


def alone_fits(fault: Fault, told: tuple[int, bytes], *, stream: bool) -> bool:
    """Whether a caller without a second target gets one error of the right code, or else (a stream's fault, a
    whole answer) the answer."""
    status, body = told
    if status != 200:
        return json.loads(body)["error"]["code"] in fault.codes
    if stream:
        *_, last = [json.loads(frame.removeprefix(b"data: ")) for frame in body.strip().split(b"\n\n")]
        return fault.begun and last["error"]["code"] in fault.codes and body.count(b'"error"') == 1
    return fault.streams and json.loads(body)["choices"][0]["message"]["content"] == CUT


def then_fits(fault: Fault, told: tuple[int, bytes]) -> bool:
    """Whether the second target's answer comes, or else what has begun ends in an error, or (a stream's
    fault, a whole answer) is complete."""
    status, body = told
    return status == 200 and (
        b'"model":"echo"' in body or (fault.begun and (b'"error"' in body or CUT.encode() in body))
    )


@pytest.mark.parametrize("name", ["aimock", "stubllm"])
async def test_a_late_first_token_is_not_waited_for(name: str) -> None:
    brief = "timeouts: {headers: 500ms, first_token: 500ms, whole: 500ms}, "
    with mock(name) as url:
        async with before(name, url, LANES[name], brief) as caller:

            async def ask(lane: str) -> tuple[tuple[int, bytes], tuple[int, bytes]]:
                told = await caller.ask("openai", lane, saying("begin late"), stream=True)
                return told, await caller.ask("openai", f"{lane}-then", saying("begin late"), stream=True)

            for lane, (alone, then) in zip(
                LANES[name], await asyncio.gather(*map(ask, LANES[name])), strict=True
            ):
                assert alone[0] == 504, lane
                assert json.loads(alone[1])["error"]["code"] in ("headers_timeout", "first_token_timeout"), (
                    lane
                )
                assert then_fits(NEVER, then), lane


# --- llmock: scripted from outside, and a judge of its client


@pytest.fixture(scope="module")
def llmock() -> Iterator[str]:
    with mock("llmock") as url:
        yield url


class Script(msgspec.Struct, frozen=True):
    """What happens to the first request of each lane. `code`: what a caller is told who has no other target;
    "": there is one, and the answer is complete. `options`: the upstreams'."""

    behavior: dict[str, Any]
    code: str = ""
    options: str = ""


def _fails(status: int, **more: Any) -> dict[str, Any]:
    return {"type": "fail", "status": status, **more}


def _stream(kind: str, after: int) -> dict[str, Any]:
    return {"type": "stream_fault", "kind": kind, "after_chunks": after}


TOO_LONG = _fails(400, code="context_length_exceeded", message="maximum context length")
SCRIPTS: Mapping[str, Script] = {
    "a limit that passes": Script(_fails(429, retry_after=0.3)),
    "a breakdown that passes": Script(_fails(500)),
    "an overload that passes": Script(_fails(503)),
    "what no try can mend": Script(_fails(400, message="No such field"), "bad_request"),
    "a refused key": Script(_fails(401), "bad_credentials"),
    "too long a prompt": Script(TOO_LONG, "context_length_exceeded"),
    "a slow first token": Script({"type": "slow_first_token", "seconds": 0.2}),
    "a stream that is cut at once": Script(_stream("disconnect", 0)),
    "a stream that is cut": Script(_stream("disconnect", 3)),
    "a stream that ends at once": Script(_stream("truncate", 0)),
    "a stream that ends early": Script(_stream("truncate", 3)),
    "a stream with junk": Script(_stream("malformed", 3), options=", strict: true"),
}


@pytest.mark.parametrize("what", SCRIPTS)
async def test_llmock_finds_no_fault_with_its_client(llmock: str, what: str) -> None:
    script = SCRIPTS[what]
    talk = Talk((User((f"Tell me something of {what}",)),))
    async with (
        gateway(twice(llmock, script)) as g,
        aiohttp.ClientSession(g.url, headers={"authorization": f"Bearer {KEY}"}) as session,
        aiohttp.ClientSession(llmock) as control,
    ):
        caller = Caller(g, session)
        (await control.post("/_llmock/reset")).release()
        expected = {lane: await caller.ask("openai", lane, talk, stream=True) for lane in LANES["llmock"]}
        (await control.post("/_llmock/reset")).release()
        for lane in LANES["llmock"]:
            scripted = {"behaviors": [{**script.behavior, "match": {"model": f"m-{lane}", "stream": True}}]}
            (await control.post("/_llmock/scenario", json=scripted)).raise_for_status()
        for lane in LANES["llmock"]:
            status, body = await caller.ask("openai", lane, talk, stream=True)
            if script.code:
                assert json.loads(body)["error"]["code"] == script.code, lane
            else:
                assert status == 200, (lane, body)
                assert heard("openai", body, stream=True) == heard(
                    "openai", expected[lane][1], stream=True
                ), lane
        async with control.get("/_llmock/verdict") as response:
            verdict = await response.json()
    # where we leave an answer with junk, llmock may see the next request before it sees that we left
    excused = {"malformed_chunk_ignored"} if "junk" in what else set()
    assert {finding["code"] for finding in verdict["findings"]} <= excused
    assert verdict["faults_injected"] == (0 if "slow" in what else len(LANES["llmock"]))


def twice(url: str, script: Script) -> str:
    """Aliases whose second target is the first once more, by another upstream: what it answers to one and the
    same request is always the same."""
    upstreams, aliases = [], []
    for lane, upstream in LANES["llmock"].items():
        names = (lane,) if script.code else (lane, f"{lane}-2")
        options = f"{upstream.replace('URL', url)}, api_key: sk-of-mock{script.options}"
        upstreams += [f"  {name}: {{{options}}}" for name in names]
        tiers = ", ".join([f"[{{upstream: {name}, model: m-{lane}}}]" for name in names])
        aliases.append(f"  {lane}: {{tiers: [{tiers}], heartbeat: null, retry: {{backoff: 0.1}}}}")
    head = HEAD.replace(", default_alias: chat", "")
    return "\n".join([head, "upstreams:", *upstreams, "aliases:", *aliases, ""])
