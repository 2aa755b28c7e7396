"""Bodies that are large: read and translated beside the event loop, and refused early where they hold too
much."""

import asyncio
import json
import threading
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest

from sluice.frontends.openai.dialect import OpenAI as Frontend
from sluice.model.chat import ChatRequest
from sluice.proxy.call import MAX_INLINE_BYTES
from sluice_plugins.openai.backend import OpenAI
from tests.e2e.answers import ask
from tests.e2e.gateways import HEAD, KEY, gateway
from tests.fakes.faulty import Provider, healthy
from tests.upstream.calls import until

HEADERS = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}


def config(url: str) -> str:
    return (
        f"{HEAD}\nupstreams: {{one: {{backend: openai, base_url: '{url}'}}}}\n"
        "aliases: {chat: {tiers: [[{upstream: one, model: m}]]}}\n"
    )


def body(size: int, **more: Any) -> bytes:
    return json.dumps(
        {"model": "chat", "messages": [{"role": "user", "content": "x" * size}], **more}
    ).encode()


class Held:
    """Stands in for a method: calls of the main thread go through, those of another one wait until they are
    let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()
        method = getattr(owner, name)

        def held(*args: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                self.entered.set()
                assert self.go_on.wait(30)
            return method(*args)

        monkeypatch.setattr(owner, name, held)


@pytest.mark.parametrize(("owner", "name"), [(Frontend, "parse"), (OpenAI, "request")])
async def test_other_calls_are_answered_while_a_large_body_is_worked_on(
    owner: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch, owner, name)
    async with (
        Provider(healthy) as provider,
        gateway(config(provider.url)) as g,
        aiohttp.ClientSession(g.url) as client,
    ):

        async def large() -> int:
            async with client.post(
                "/v1/chat/completions", data=body(MAX_INLINE_BYTES, stream=True), headers=HEADERS
            ) as response:
                await response.read()
                return response.status

        first = asyncio.create_task(large())
        await until(held.entered.is_set)
        assert (await ask(client, "openai stream", "chat")).complete
        assert not first.done()
        held.go_on.set()
        assert await first == 200


async def test_a_small_body_takes_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    parse = Frontend.parse

    def seen(self: Frontend, body: bytes, headers: Mapping[str, str]) -> ChatRequest:
        threads.append(threading.current_thread())
        return parse(self, body, headers)

    monkeypatch.setattr(Frontend, "parse", seen)
    async with (
        Provider(healthy) as provider,
        gateway(config(provider.url)) as g,
        aiohttp.ClientSession(g.url) as client,
    ):
        assert (await ask(client, "openai stream", "chat")).complete
    assert threads == [threading.main_thread()]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/chat", "/v1/chat/stream"])
@pytest.mark.parametrize(
    "inner",
    [
        b"[" * 1_900_000 + b"]" * 1_900_000,
        b"[" + b"[]," * 1_200_000 + b"[]]",
        b"[" + b"5e-324," * 500_000 + b"1]",
        b"[" * 3_900_000,
    ],
    ids=["one in the other", "beside each other", "numbers", "never closed"],
)
async def test_a_body_that_holds_too_much_is_refused_with_a_reason(path: str, inner: bytes) -> None:
    data = b'{"model":"chat","messages":[{"role":"user","content":"x"}],"x":' + inner + b"}"
    async with (
        Provider(healthy) as provider,
        gateway(config(provider.url)) as g,
        aiohttp.ClientSession(g.url) as client,
    ):
        async with client.post(path, data=data, headers=HEADERS) as response:
            assert response.status == 400
            assert "more than" in await response.text()
        assert provider.turns == []


async def test_bodies_that_are_no_calls_are_small() -> None:
    async with (
        Provider(healthy) as provider,
        gateway(config(provider.url)) as g,
        aiohttp.ClientSession(g.admin_url) as client,
    ):
        data = json.dumps({"id": "x" * (64 << 10)})
        headers = {"x-admin-api-key": KEY, "content-type": "application/json"}
        async with client.post("/admin/keys", data=data, headers=headers) as response:
            assert response.status == 413
