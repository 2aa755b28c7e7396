"""Every recorded stream that we have a backend for, replayed by a fake provider through the running gateway.

One gateway, one upstream and alias per recording; the recording's number in the base URL says which one the
provider replays. All of them stream at once, whole, to every client dialect; shares of them also in random
cuts (seeded by the number) and byte by byte (`make test-corpus`: all of them). What a client holds at the end
must be what the vendor's own SDK made of the stream (the manifest), or the error that docs/api promises where
the stream is broken. The count passed / all is written to the terminal.

Vendors' words are mapped by the tables that the backends' own corpus tests use: finish reasons (`REASONS`),
usage (Anthropic's input_tokens leaves out its cache), and the few streams where we differ from the SDK on
purpose (`GLUED`, `UNSEEN`). The OpenAI dialect is asked for twice: in the verbatim lane, where a client of an
OpenAI-like upstream gets the vendor's own frames, and with the model's name hidden (`report_model: alias`),
where it is the alias in each of them.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import aiohttp
import msgspec
import pytest

from sluice.config.vendors import bundled_vendors
from tests import corpus
from tests.e2e.gateways import HEAD, KEY, gateway
from tests.e2e.held import (
    Held,
    of_chunks,
    of_completion,
    of_gemini,
    of_gemini_events,
    of_gemini_list,
    of_lines,
    of_message,
    of_messages,
    of_ollama,
    of_response,
    of_response_events,
)
from tests.fakes.rawserver import CHUNKED, LAST_CHUNK, Peer, RawServer, Request, chunk, sized
from tests.plugins.bedrock.test_corpus import REASONS as BEDROCK_REASONS
from tests.plugins.bedrock.test_corpus import SERVED
from tests.plugins.cohere.test_corpus import REASONS as COHERE_REASONS
from tests.plugins.gemini.test_corpus import ENDS as GEMINI_ENDS
from tests.plugins.gemini.test_corpus import REASONS as GEMINI_REASONS
from tests.plugins.openai.test_corpus import ERRORS, GLUED, HTTP_ERRORS, UNSEEN, ends_without_a_reason
from tests.plugins.openai.test_corpus import finish as openai_finish
from tests.plugins.test_corpus_anthropic_ollama import HTTP_ERRORS as HTTP_ERRORS_BY_STATUS
from tests.plugins.test_corpus_anthropic_ollama import REASONS, same_json
from tests.wire import cuts

BACKENDS = {
    "openai-chat": "openai", "azure-openai": "openai", "anthropic": "anthropic", "ollama": "ollama", "gemini": "gemini",
    "bedrock-converse": "bedrock", "bedrock-invoke": "bedrock-anthropic", "cohere-v2": "cohere",
    "openai-responses": "responses",
}  # fmt: skip
RECORDED = corpus.streams(*BACKENDS)
PRESETS = {
    recorded.vendor: vendor
    for recorded in RECORDED
    if (vendor := {"azure-openai": "azure"}.get(recorded.vendor, recorded.vendor)) in bundled_vendors()
    and vendor != "perplexity"  # its Chat Completions have ended; they are still recorded
}
"""The vendors' own entries, where they have some, as `backend: groq` brings them in."""
OPENAI_CODES = {
    "context_length": "context_length_exceeded",
    "rate_limited": "rate_limit_exceeded",
    "content_policy": "content_policy_violation",
}
ANTHROPIC_TYPES = {
    "rate_limited": "rate_limit_error", "overloaded": "overloaded_error", "bad_request": "invalid_request_error",
    "context_length": "invalid_request_error", "content_policy": "invalid_request_error",
}  # fmt: skip
HTTP_STATUS = {"bad_request": 400, "context_length": 400, "bad_credentials": 502, "not_found": 502}

pytestmark = [pytest.mark.skipif(not RECORDED, reason=corpus.ABSENT), pytest.mark.timeout(240)]


# how a client asks


class Dialect(msgspec.Struct, frozen=True):
    """How a client asks, and what it makes of the answer. `lane`: the alias's prefix, f (frames as they come)
    or h (hidden)."""

    path: str
    body: dict[str, Any]
    read: Callable[[int, bytes], Held]
    lane: str = "f"
    accept: str = "*/*"
    whole: bool = False
    objects: bool = False  # arguments of calls are objects

    @property
    def openai(self) -> bool:
        return self.path.endswith(("completions", "responses"))

    @property
    def anthropic(self) -> bool:
        return self.path.endswith("messages")

    @property
    def widget(self) -> bool:
        return self.path == "/v1/chat/stream"

    @property
    def google(self) -> bool:
        """It knows no 502."""
        return self.path.startswith("/v1beta/")

    @property
    def tells_the_cache(self) -> bool:
        return not self.path.startswith("/api/")


ASKED = {"messages": [{"role": "user", "content": "?"}]}
GENERATE = "/v1beta/models/MODEL:{}"
CONTENTS = {"contents": [{"parts": [{"text": "?"}]}]}
MESSAGE = {**ASKED, "max_tokens": 1000}
STREAMED = {**ASKED, "stream": True, "stream_options": {"include_usage": True}}
DIALECTS = {
    "ndjson": Dialect(
        "/v1/chat/stream", {"message": "?"}, of_lines, accept="application/x-ndjson; profile=full"
    ),
    "openai": Dialect("/v1/chat/completions", STREAMED, of_chunks),
    "openai-hidden": Dialect("/v1/chat/completions", STREAMED, of_chunks, "h"),
    "responses": Dialect("/v1/responses", {"input": "?", "stream": True}, of_response_events),
    "responses-whole": Dialect("/v1/responses", {"input": "?"}, of_response, whole=True),
    "openai-whole": Dialect("/v1/chat/completions", ASKED, of_completion, whole=True),
    "openai-whole-hidden": Dialect("/v1/chat/completions", ASKED, of_completion, "h", whole=True),
    "gemini": Dialect(
        GENERATE.format("streamGenerateContent?alt=sse"), CONTENTS, of_gemini_events, objects=True
    ),
    "gemini-list": Dialect(GENERATE.format("streamGenerateContent"), CONTENTS, of_gemini_list, objects=True),
    "gemini-whole": Dialect(
        GENERATE.format("generateContent"), CONTENTS, of_gemini, whole=True, objects=True
    ),
    "anthropic": Dialect("/v1/messages", {**MESSAGE, "stream": True}, of_messages),
    "anthropic-hidden": Dialect("/v1/messages", {**MESSAGE, "stream": True}, of_messages, "h"),
    "anthropic-whole": Dialect("/v1/messages", MESSAGE, of_message, whole=True),
    "ollama": Dialect("/api/chat", ASKED, of_ollama, objects=True),
    "ollama-whole": Dialect("/api/chat", {**ASKED, "stream": False}, of_ollama, whole=True, objects=True),
}


# what the manifest says it holds


def difference(recorded: corpus.Recorded, dialect: Dialect, held: Held) -> str:
    """What differs from the manifest; "" where nothing does."""
    if recorded.outcome == "http_error":
        kind = HTTP_ERRORS.get(recorded.file) or HTTP_ERRORS_BY_STATUS.get(
            recorded.http_status, "bad_request"
        )
        if b"API_KEY_INVALID" in recorded.body:
            kind = "bad_credentials"
        status = 200 if dialect.widget else HTTP_STATUS[kind]  # the widget's stream has begun by then
        status = 500 if dialect.google and status == 502 else status
        return unequal((held.status, held.error), (status, coded(kind, dialect))) or unequal(held.text, "")
    broken = None if ends_without_a_reason(recorded) else ERRORS.get(recorded.outcome)
    if recorded.outcome in GEMINI_ENDS:
        broken = frozenset({GEMINI_ENDS[recorded.outcome]})
    if broken is not None:
        if dialect.whole:
            status = 400 if "content_policy" in broken else 503 if dialect.google else 502
            return unequal((held.status, held.text), (status, "")) or missing(
                recorded, held.error, broken, dialect
            )
        # an answer that was cut before its first content is an HTTP error, for nothing has been sent by then
        return missing(recorded, held.error, broken, dialect) or said(recorded, dialect, held)
    if dialect.objects and unreadable(recorded) and recorded.expected.finish_reason in ("tool_calls", "stop"):
        return unequal((held.status, held.error), (200, "garbled"))  # a call that this dialect cannot tell
    return (
        unequal((held.status, held.error), (200, None))
        or said(recorded, dialect, held)
        or ended(recorded, dialect, held)
    )


def unreadable(recorded: corpus.Recorded) -> list[corpus.ToolCall]:
    """Calls whose arguments are no JSON object, though the decoder has put right what it can."""
    if recorded.file in GLUED or recorded.protocol == "gemini":
        return []
    return [
        call for call in recorded.expected.tool_calls or () if call.name and not is_object(call.arguments)
    ]


def is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text or "{}"), dict)
    except ValueError:
        return False


def coded(kind: str, dialect: Dialect) -> str:
    if dialect.anthropic:
        return ANTHROPIC_TYPES.get(kind, "api_error")
    return OPENAI_CODES.get(kind, kind) if dialect.openai else kind


def missing(recorded: corpus.Recorded, error: str | None, kinds: frozenset[str], dialect: Dialect) -> str:
    """OpenAI's dialect is told the provider's own code, where it has one."""
    own = (
        dialect.openai
        and error is not None
        and b'"code":"%b"' % error.encode() in recorded.body.replace(b" ", b"")
    )
    return (
        ""
        if own or error in {coded(kind, dialect) for kind in kinds}
        else f"error {error!r}, not one of {set(kinds)}"
    )


def said(recorded: corpus.Recorded, dialect: Dialect, held: Held) -> str:
    expected = recorded.expected
    text = expected.text + (expected.refusal or "")
    return (
        unequal(held.text, text)
        or unequal(held.reasoning, (expected.reasoning or "") + (expected.tool_plan or ""))
        or called(recorded, dialect, held)
    )  # fmt: skip


def called(recorded: corpus.Recorded, dialect: Dialect, held: Held) -> str:
    wanted = recorded.expected.tool_calls or []
    if dialect.objects:
        wanted = [
            call for call in wanted if call not in unreadable(recorded)
        ]  # the answer was cut by its limit
    if recorded.file in GLUED:
        names = {call.name * 2 for call in held.calls}
        joined = "".join(call.arguments for call in held.calls)
        return unequal((names, joined), ({wanted[0].name}, wanted[0].arguments))
    if recorded.protocol == "gemini":  # the SDK shows a call that comes in pieces as many
        wanted = [call for call in wanted if call.name]
        return unequal(
            [(call.name, call.kind) for call in held.calls], [(call.name, "function") for call in wanted]
        )
    own = (None, "tool_use", "function")
    kinds = ["function" if call.kind in own and call.name not in SERVED else "server" for call in wanted]
    if recorded.protocol == "openai-responses":  # what the provider ran itself is no call to the SDK
        held = msgspec.structs.replace(held, calls=[call for call in held.calls if call.kind == "function"])
    if not dialect.widget:  # it is not shown what the provider ran itself
        wanted = [call for call, kind in zip(wanted, kinds, strict=True) if kind == "function"]
        kinds = ["function"] * len(wanted)
    if wrong := unequal(
        [(call.name, call.kind) for call in held.calls], [*zip((w.name for w in wanted), kinds, strict=True)]
    ):
        return wrong
    for call, want in zip(held.calls, wanted, strict=True):
        if (want.id and call.id != want.id) or not same_json(call.arguments, want.arguments):
            return f"call {call}, not {want}"
    return ""


def ended(recorded: corpus.Recorded, dialect: Dialect, held: Held) -> str:
    expected = recorded.expected
    if recorded.protocol == "gemini":
        reason = "tool_calls" if expected.tool_calls else GEMINI_REASONS[str(expected.finish_reason)]
        told = (
            held.usage and held.usage[0] + held.usage[1] if expected.usage or not dialect.anthropic else None
        )
        return unequal((held.finish, told), (reason, expected.usage and expected.usage["total_tokens"]))
    usage = expected.usage and used(expected.usage)
    got = held.usage
    if (
        recorded.protocol != "anthropic" or not dialect.tells_the_cache
    ):  # of the others the manifest does not say what it held
        usage = UNSEEN.get(recorded.file, usage and usage[:2])
        got = got and got[:2]
    if usage and dialect.google and recorded.vendor == "xai":  # it counts thoughts apart, and so does Google
        usage = usage[0], (recorded.expected.usage or {})["total_tokens"] - usage[0]  # type: ignore[operator]
    if dialect.anthropic and usage is None:
        got = None  # about what it was: this dialect has always a usage
    reason = finish(recorded, held)
    if expected.refusal and reason == "stop" and (dialect.anthropic or dialect.google):
        reason = "content_filter"  # these have no other word for a refusal
    return unequal(held.finish, reason) or unequal(got, usage)


def finish(recorded: corpus.Recorded, held: Held) -> str | int | None:
    native = recorded.expected.finish_reason
    if BACKENDS[recorded.protocol] == "openai":
        return openai_finish(recorded)
    if recorded.protocol == "openai-responses":
        called = any(call.kind == "function" for call in held.calls)
        return "length" if native == "incomplete" else "tool_calls" if called else "stop"
    if recorded.protocol == "ollama" and any(call.kind == "function" for call in held.calls):
        return "tool_calls"  # Ollama says "stop"
    reasons = {**REASONS, **BEDROCK_REASONS, **COHERE_REASONS}
    return reasons[native if isinstance(native, str) else None]


def used(usage: dict[str, int | None]) -> tuple[int, int, int]:
    read, written = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
    return (usage["input_tokens"] or 0) + read + written, usage["output_tokens"] or 0, read


def unequal(one: object, other: object) -> str:
    return "" if one == other else f"{str(one)[-300:]!r}, not {str(other)[-300:]!r}"


# the provider

DRIPPED = None if corpus.EVERY else 4 << 10
"""Bytes of each recording that come one by one; all of them with `make test-corpus`. The decoders' own tests
take each recording byte by byte."""


def bytewise(body: bytes, number: int) -> list[bytes]:
    return cuts.bytewise(body)


CUTS: dict[str, Callable[[bytes, int], Sequence[bytes]]] = {
    "whole": lambda body, number: [body],
    "random": cuts.random,
    "bytewise": bytewise,
}


class Replaying:
    """A provider that answers /NUMBER/... with that recording, each piece that `cut` makes of it a write (and
    a segment) of its own."""

    def __init__(self, cut: Callable[[bytes, int], Sequence[bytes]]) -> None:
        self.cut = cut

    async def __call__(self, request: Request, peer: Peer) -> None:
        number = int(request.path.split("/")[1])
        recorded = RECORDED[number]
        if recorded.http_status != 200:
            return peer.send(
                sized(recorded.body, recorded.http_status, ("Content-Type", recorded.content_type))
            )
        if self.cut is bytewise:  # a close-delimited body, so that a byte is a byte on the wire, too
            peer.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nConnection: close\r\n\r\n"
                % recorded.content_type.encode()
            )
            await peer.drip(recorded.body[:DRIPPED])
            peer.send(recorded.body[DRIPPED:])
            return peer.close()
        peer.send(CHUNKED)
        for piece in self.cut(recorded.body, number):
            peer.send(chunk(piece))
            await asyncio.sleep(0)
        peer.send(LAST_CHUNK)


PATIENT = "timeouts: {connect: 200s, headers: 200s, first_token: 200s, idle: 200s, whole: 200s}"
"""All recordings are asked for at once: on a slow machine each takes its time."""


def configuration(provider: str, numbers: Sequence[int] = range(len(RECORDED))) -> str:
    upstreams = [
        f"  u{n}: {{backend: {PRESETS.get(recorded.vendor, BACKENDS[recorded.protocol])}, "
        f"base_url: '{provider}/{n}', api_key: {'null' if recorded.protocol == 'ollama' else 'sk-fake'}, {PATIENT}}}"
        for n in numbers
        for recorded in [RECORDED[n]]
    ]
    tail = "retry: {same_target: 0}, tiers: [[{upstream: "
    aliases = [f"  f{n}: {{{tail}u{n}, model: m}}]]}}" for n in numbers]
    aliases += [f"  h{n}: {{report_model: alias, {tail}u{n}, model: m}}]]}}" for n in numbers]
    return HEAD.replace("default_alias: chat", f"default_alias: f{numbers[0]}") + "\n".join(
        ["upstreams:", *upstreams, "aliases:", *aliases, ""]
    )


async def held_by(client: aiohttp.ClientSession, dialect: Dialect, number: int, session: str) -> Held:
    model = f"{dialect.lane}{number}"
    body = dialect.body if "MODEL" in dialect.path else {**dialect.body, "model": model}
    if dialect.widget:
        body["sessionId"] = session
    async with client.post(
        dialect.path.replace("MODEL", model), json=body, headers={"Accept": dialect.accept}
    ) as response:
        return dialect.read(response.status, await response.read())


READERS = ("ndjson", "openai", "anthropic")
"""Byte by byte some recordings go to each of these: all of them to every dialect with `make test-corpus`."""


@pytest.mark.parametrize("name", [*DIALECTS])
async def test_every_recorded_stream_arrives_as_its_manifest_says(
    name: str, pytestconfig: pytest.Config
) -> None:
    dialect = DIALECTS[name]
    replaying = Replaying(CUTS["whole"])
    async with (
        RawServer(replaying) as provider,
        gateway(configuration(provider.url)) as running,
        aiohttp.ClientSession(
            running.url,
            headers={"x-api-key": KEY},
            connector=aiohttp.TCPConnector(limit=0),
            read_bufsize=1 << 22,
        ) as client,
    ):
        failed = {}
        for cut, numbers in ways(name).items():
            replaying.cut = CUTS[cut]
            answers = await asyncio.gather(*(held_by(client, dialect, n, f"{cut}{n}") for n in numbers))
            wrong = {
                RECORDED[n].file: wrong
                for n, held in zip(numbers, answers, strict=True)
                if (wrong := difference(RECORDED[n], dialect, held))
            }
            report(pytestconfig, f"corpus, {cut}, to {name}: {len(numbers) - len(wrong)} / {len(numbers)}")
            if wrong:
                failed[cut] = wrong
    assert failed == {}


def ways(name: str) -> dict[str, range]:
    """The recordings that go to a dialect, by how they are cut: all of them whole, a share in the other
    ways."""
    part, every = [*DIALECTS].index(name), len(RECORDED)
    found = {"whole": range(every), "random": corpus.share(every, part)}
    if corpus.EVERY or name in READERS:
        found["bytewise"] = corpus.share(every, READERS.index(name) if name in READERS else part)
    return found


@pytest.mark.parametrize("cut", [*CUTS])
async def test_recorded_messages_pass_to_their_own_dialect_byte_by_byte(
    cut: str, pytestconfig: pytest.Config
) -> None:
    numbers = [n for n, one in enumerate(RECORDED) if one.protocol == "anthropic" and one.http_status == 200]
    body = DIALECTS["anthropic"].body
    async with (
        RawServer(Replaying(CUTS[cut])) as provider,
        gateway(configuration(provider.url, numbers)) as running,
        aiohttp.ClientSession(
            running.url, headers={"x-api-key": KEY}, connector=aiohttp.TCPConnector(limit=0)
        ) as client,
    ):
        wrong = []
        for n in numbers:
            async with client.post("/v1/messages", json={**body, "model": f"f{n}"}) as response:
                recorded = RECORDED[n].body
                same = recorded if recorded.endswith(b"\n\n") else recorded.rstrip(b"\n") + b"\n\n"
                if await response.read() != same:
                    wrong.append(RECORDED[n].file)
    report(
        pytestconfig,
        f"corpus, {cut}, messages to messages: {len(numbers) - len(wrong)} / {len(numbers)} byte by byte",
    )
    assert wrong == []


def report(config: pytest.Config, line: str) -> None:
    """Write a line to the terminal, whatever is captured."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    capture = config.pluginmanager.get_plugin("capturemanager")
    if terminal is not None:
        with capture.global_and_fixture_disabled() if capture is not None else nullcontext():
            terminal.write_line("\n" + line)
