"""What a provider sends in one large piece is read beside the event loop: other calls go on, and nothing of
it is lost."""

import asyncio
import json
import threading
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from sluice.proxy.call import MAX_INLINE_BYTES
from sluice.proxy.relay import Relay
from tests.e2e.answers import MODES, Answer, ask
from tests.e2e.gateways import gateway
from tests.e2e.test_faults import DIALECT, alias, configuration, named, settled
from tests.fakes.dialects import ANSWER
from tests.fakes.faulty import PIECE, Provider, Turn, healthy
from tests.fakes.rawserver import LAST_CHUNK
from tests.upstream.calls import until

TEXT = "word " * (4 * MAX_INLINE_BYTES // 5)


class Held:
    """Calls of this method of Relay in another thread than the main one are counted, and wait until they are
    let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, *, go_on: bool = True) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()
        if go_on:
            self.go_on.set()
        method = getattr(Relay, name)

        def held(*args: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                self.entered.set()
                assert self.go_on.wait(30)
            return method(*args)

        monkeypatch.setattr(Relay, name, held)


async def one_piece(turn: Turn) -> None:
    """An answer whose first token is megabytes long, and is followed by another."""
    turn.head()
    turn.write(turn.dialect.opening())
    frames = turn.dialect.token(TEXT) + turn.dialect.token("end")
    for at in range(0, len(frames), PIECE):
        turn.write(frames[at : at + PIECE])
        await turn.peer.drain()
    turn.finish()
    turn.end()


def completion() -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
    return json.dumps(
        {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice]}, indent=1
    ).encode()


async def document(turn: Turn) -> None:
    """A whole answer, whatever was asked for."""
    turn.head()
    body = completion()
    for at in range(0, len(body), PIECE):
        turn.write(body[at : at + PIECE])
        await turn.peer.drain()
    turn.peer.send(LAST_CHUNK)


@dataclass
class LargeThen:
    """A piece without a word of so many bytes, and then the frames that are given."""

    frames: bytes

    async def __call__(self, turn: Turn) -> None:
        turn.head()
        comment = b": " + b"x" * (2 * MAX_INLINE_BYTES)
        for at in range(0, len(comment), PIECE):
            turn.write(comment[at : at + PIECE])
            await turn.peer.drain()
        turn.write(b"\n\n" + self.frames)
        turn.peer.send(LAST_CHUNK)


def one(dialect: str, url: str) -> str:
    return configuration(
        dialect, {"one": url}, ["chat: {heartbeat: null, tiers: [[{upstream: one, model: m}]]}"]
    )


@DIALECT
@pytest.mark.parametrize("mode", MODES)
async def test_an_event_of_megabytes_is_told_whole(
    dialect: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch, "feed")
    async with (
        Provider(one_piece) as provider,
        gateway(one(dialect, provider.url)) as g,
        aiohttp.ClientSession(g.url) as client,
    ):
        assert await ask(client, mode, "chat") == Answer(200, TEXT + "end")
    assert held.entered.is_set()


@pytest.mark.parametrize("mode", MODES)
async def test_a_document_of_megabytes_is_told_whole(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch, "close")
    async with (
        Provider(document) as provider,
        gateway(one("openai", provider.url)) as g,
        aiohttp.ClientSession(g.url) as client,
    ):
        answer = await ask(client, mode, "chat")
        assert (answer.complete, answer.text.strip()) == (True, TEXT.strip())
    assert held.entered.is_set()


@pytest.mark.parametrize(("behaviour", "name"), [(one_piece, "feed"), (document, "close")])
async def test_others_are_answered_meanwhile(
    behaviour: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch, name, go_on=False)
    aliases = [f"{name}: {{tiers: [[{{upstream: {name}, model: m}}]]}}" for name in ("large", "small")]
    async with Provider(behaviour) as large, Provider(healthy) as small:
        config = configuration("openai", {"large": large.url, "small": small.url}, aliases)
        async with gateway(config) as g, aiohttp.ClientSession(g.url) as client:
            first = asyncio.create_task(ask(client, "openai stream", "large"))
            await until(held.entered.is_set)
            assert await ask(client, "openai stream", "small") == Answer(200, ANSWER)
            assert not first.done()
            held.go_on.set()
            assert (await first).complete


@pytest.mark.parametrize(("behaviour", "name"), [(one_piece, "feed"), (document, "close")])
async def test_a_client_may_leave_meanwhile(
    behaviour: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch, name, go_on=False)
    async with Provider(behaviour) as provider, gateway(one("openai", provider.url)) as g:
        async with aiohttp.ClientSession(g.url) as client:
            first = asyncio.create_task(ask(client, "openai stream", "chat"))
            await until(held.entered.is_set)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        await until(lambda: not g.runtime.pipeline.runs)
        held.go_on.set()
        assert (
            g.metric('sluice_stream_end_total{alias="chat",frontend="openai",reason="client_gone"}')
            + g.metric('sluice_unanswered_total{alias="chat",frontend="openai",reason="client_gone"}')
            == 1
        )
        [target] = g.runtime.routes["chat"].targets
        assert target.load.in_flight == 0


@pytest.mark.parametrize(
    ("frames", "outcome"),
    [
        (b'data: {"error":{"message":"no"}}\n\n', "server_error"),
        (b"", "truncated"),
        (
            b'data: {"choices":[{"index":0,"delta":{"content":""},"finish_reason":"network_error"}]}\n\n',
            "server_error",
        ),
    ],
    ids=["error", "cut", "failed"],
)
async def test_what_fails_behind_a_large_piece_fails_as_ever(frames: bytes, outcome: str) -> None:
    async with Provider(LargeThen(frames)) as faulty, Provider(healthy) as well:
        aliases = [alias(named("pair", mode), "faulty", "well") for mode in MODES]
        async with gateway(configuration("openai", {"faulty": faulty.url, "well": well.url}, aliases)) as g:
            async with aiohttp.ClientSession(g.url) as client:
                for mode in MODES:
                    assert await ask(client, mode, named("pair", mode)) == Answer(200, ANSWER)
            record = await settled(g)
            for mode in MODES:
                assert record.attempts(named("pair", mode)) == [f"faulty {outcome}", "well ok"]
