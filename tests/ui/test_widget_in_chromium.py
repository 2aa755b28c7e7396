"""The chat widget in a browser: streams, history, stop, retry, resume, markdown that is no HTML, the embed's
short way."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from sluice.identity.keys import digest_of
from tests.e2e.gateways import HEAD, KEY, OnSluice, gateway
from tests.ui.chromium import Page, page

CONFIG = (
    HEAD
    + """
upstreams: {echo: {backend: echo, delay: 5ms}}
aliases: {chat: {tiers: [[{upstream: echo, model: small}]], resumable: true}}
"""
)
ROOT = "document.querySelector('sluice-chat').shadowRoot"
TEXT = f"{ROOT}.querySelector('.log').innerText"


class Pages:
    """A site that embeds the widget, and a stand-in for the gateway whose answers the test writes."""

    def __init__(self) -> None:
        self.html = ""
        self.answers: list[Any] = []
        self.asked: list[web.Request] = []
        self.bodies: list[Any] = []

    async def page(self, request: web.Request) -> web.StreamResponse:
        head = '<!doctype html><title>shop</title><link rel="icon" href="data:,">'
        return web.Response(text=f"{head}<body>{self.html}</body>", content_type="text/html")

    async def token(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"token": f"token-{len(self.asked)}", "expiresAt": "2999-01-01T00:00:00Z"})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        self.bodies.append(await request.json() if request.method == "POST" else None)
        answer = self.answers.pop(0)
        if isinstance(answer, web.Response):
            return answer
        response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await response.prepare(request)
        for line in answer:
            if isinstance(line, asyncio.Event):
                await line.wait()
                assert request.transport is not None
                request.transport.abort()
                break
            await response.write(json.dumps(line).encode() + b"\n")
        return response


@asynccontextmanager
async def site(gateway_url: str) -> AsyncIterator[tuple[Pages, str]]:
    pages = Pages()
    app = web.Application()
    app.router.add_get("/", pages.page)
    app.router.add_post("/token", pages.token)
    app.router.add_route("*", "/v1/chat/stream{rest:.*}", pages.chat)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    pages.html = (
        f'<script src="{gateway_url}/widget/chat-widget.js" defer></script>'
        '<sluice-chat data-token-url="/token"></sluice-chat>'
    )
    try:
        yield pages, f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def embedded() -> AsyncIterator[tuple[Page, Pages, str]]:
    async with page() as tab, gateway(CONFIG) as there, site(there.url) as (pages, url):
        yield tab, pages, url


async def say(tab: Page, text: str) -> None:
    await tab.until(f"{ROOT}?.querySelector('textarea')")
    await tab.js(f"{ROOT}.querySelector('textarea').focus()")
    await tab.send("Input.insertText", text=text)
    await tab.press("Enter", 13, "\r")


def answered(*pieces: str, **done: Any) -> list[Any]:
    tokens = [{"type": "token", "token": piece} for piece in pieces]
    return [
        {"type": "start", "conversationId": "c"},
        *tokens,
        {"type": "done", "message": "".join(pieces), **done},
    ]


async def test_a_conversation_streams_and_is_there_after_a_reload() -> None:
    async with embedded() as (tab, pages, url):
        pages.answers = [answered("Hello ", "**world**"), answered("again")]
        await tab.open(url)
        await say(tab, "first")
        await tab.until(f"{ROOT}.querySelector('strong')?.textContent === 'world'")
        assert pages.asked[0].headers["x-widget-api-key"] == "token-0"
        session = pages.bodies[0]["sessionId"]
        await tab.open(url)
        await tab.until(f"{TEXT}.includes('first') && {TEXT}.includes('world')")
        await say(tab, "second")
        await tab.until(f"{TEXT}.includes('again')")
        assert pages.bodies[1]["sessionId"] == session
        assert "token-" not in await tab.js("JSON.stringify({...localStorage})")
        assert not tab.problems


HOSTILE = (
    "<img src=x onerror=window.hacked=1><script>window.hacked=1</script> [a](javascript:window.hacked=1) "
    "[b](https://ok.example/x) ![c](https://spy.example/p.png) <https://auto.example> `<b>code</b>`\n\n"
    "```js\n<script>window.hacked=1</script>\n```\n\n- one\n  - two\n\n"
    "| a | b |\n|---|---|\n| 1 | <i>2</i> |\n\n# Title\n\n> quote"
)


async def test_what_a_model_writes_is_never_html() -> None:
    async with embedded() as (tab, pages, url):
        pages.answers = [answered(HOSTILE)]
        await tab.open(url)
        await say(tab, "x")
        await tab.until(f"{ROOT}.querySelector('table')")
        assert await tab.js("window.hacked") is None
        found = await tab.js(f"[...{ROOT}.querySelectorAll('.assistant *')].map((one) => one.localName)")
        assert {"img", "script", "i", "b", "iframe", "style"}.isdisjoint(found)
        assert {"code", "pre", "ul", "li", "td", "h3", "blockquote", "a"} <= set(found)
        links = await tab.js(f"[...{ROOT}.querySelectorAll('a')].map((one) => [one.href, one.rel])")
        assert {href.split(":")[0] for href, _ in links} == {"https"}
        assert all("noopener" in rel for _, rel in links)
        await tab.picture("widget-markdown")
        assert not tab.problems


async def test_reasoning_is_folded_and_a_reset_begins_anew() -> None:
    async with embedded() as (tab, pages, url):
        start, done = {"type": "start"}, {"type": "done", "message": "right"}
        pages.answers = [
            [start, {"type": "reasoning", "text": "hm"}, {"type": "token", "token": "wrong"}, {"type": "reset"},
             {"type": "reasoning", "text": "aha"}, {"type": "token", "token": "right"}, {"type": "unknown"}, done]
        ]  # fmt: skip
        await tab.open(url)
        await say(tab, "x")
        await tab.until(f"{ROOT}.querySelector('.assistant p')?.textContent === 'right'")
        assert await tab.js(f"{ROOT}.querySelector('details').textContent") == "Reasoningaha"
        assert not await tab.js(f"{ROOT}.querySelector('details').open")


async def test_a_broken_stream_is_gone_on_with() -> None:
    async with embedded() as (tab, pages, url):
        broken = asyncio.Event()
        pages.answers = [
            [
                {"type": "start", "streamId": "st/1", "n": 0},
                {"type": "token", "token": "one ", "n": 1},
                broken,
            ],
            [{"type": "token", "token": "two", "n": 2}, {"type": "done", "message": "one two", "n": 3}],
        ]
        await tab.open(url)
        await say(tab, "x")
        await tab.until(f"{TEXT}.includes('one')")
        broken.set()
        await tab.until(f"{ROOT}.querySelector('.assistant p')?.textContent === 'one two'")
        assert pages.asked[1].raw_path == "/v1/chat/stream/st%2F1?after=1"
        assert len(pages.asked) == 2


async def test_a_refusal_says_when_to_try_again_and_an_expired_token_is_replaced() -> None:
    async with embedded() as (tab, pages, url):
        busy = web.json_response({"error": "Too many requests"}, status=429, headers={"retry-after": "1"})
        stale = web.json_response({"error": "Unauthorized"}, status=401)
        pages.answers = [busy, stale, answered("there")]
        await tab.open(url)
        await say(tab, "x")
        await tab.until(f"{ROOT}.querySelector('.retry')?.disabled")
        assert await tab.js(f"{ROOT}.querySelector('[role=alert]').innerText") != ""
        await tab.until(f"{ROOT}.querySelector('.retry') && !{ROOT}.querySelector('.retry').disabled")
        await tab.js(f"{ROOT}.querySelector('.retry').click()")
        await tab.until(f"{TEXT}.includes('there')")
        tokens = [request.headers["x-widget-api-key"] for request in pages.asked]
        assert tokens[0] == tokens[1] != tokens[2]
        assert [body["message"] for body in pages.bodies] == ["x", "x", "x"]


async def test_the_scripts_own_attributes_make_a_bubble() -> None:
    async with embedded() as (tab, pages, url):
        source = pages.html.partition('src="')[2].partition('"')[0]
        pages.html = f'<script src="{source}" data-api-url="{url}" data-api-key="sk-page" async></script>'
        pages.answers = [answered("hi")]
        await tab.open(url)
        await tab.until(f"document.querySelector('sluice-chat') && {ROOT}.querySelector('.bubble')")
        assert await tab.js(f"{ROOT}.querySelector('.panel').hidden")
        await tab.js(f"{ROOT}.querySelector('.bubble').click()")
        await say(tab, "x")
        await tab.until(f"{TEXT}.includes('hi')")
        assert pages.asked[0].headers["x-widget-api-key"] == "sk-page"
        await tab.press("Escape", 27)
        await tab.until(f"{ROOT}.querySelector('.panel').hidden")


async def test_the_demo_chats_with_the_gateway_and_can_be_stopped() -> None:
    async with page() as tab, demonstrated() as there:
        await tab.size(360)
        await tab.open(f"{there.url}/demo")
        await say(tab, "Hello from the demo")
        await tab.until(
            f"{ROOT}.querySelectorAll('.assistant')[1]?.innerText.includes('Hello from the demo')"
        )
        await tab.until(f"{ROOT}.querySelector('form button').textContent === 'Send'")
        assert await tab.js("document.documentElement.scrollWidth") <= 360
        await tab.picture("widget-demo")
        await tab.js("document.documentElement.dir = 'rtl'")
        await tab.picture("widget-demo-rtl")
        await say(tab, "word " * 700)
        await tab.until(f"{ROOT}.querySelectorAll('.assistant')[2]?.innerText.length > 30")
        await tab.js(f"{ROOT}.querySelector('form button').click()")
        await tab.until(f"{ROOT}.querySelector('form button').textContent === 'Send'")
        async with asyncio.timeout(20):
            while sum(line["route"] == "/v1/chat/stream" for line in there.requests) < 2:
                await asyncio.sleep(0.01)
        assert there.requests[-1]["end"] in ("client_gone", "done")
        assert not tab.problems


@asynccontextmanager
async def demonstrated() -> AsyncIterator[OnSluice]:
    """A gateway with the demo on, whose key knows the port that it listens on: bound once to find a free
    one."""
    from socket import create_server

    with create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = CONFIG.replace('listen: "127.0.0.1:0"', f'listen: "127.0.0.1:{port}"', 1).replace(
        "server: {", "server: {demo: page, "
    )
    key = f'{{id: page, digest: "{digest_of(KEY + "-page")}", default_alias: chat, origins: ["http://127.0.0.1:{port}"]}}'
    config = config.replace("keys: [", f"keys: [{key}, ") + f"tokens: {{secret: {'s' * 40}}}\n"
    async with gateway(config) as there:
        yield there
