"""The chat widget in a browser: streams, history, stop, retry, resume, markdown that is no HTML, the embed's
short way."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from json import dumps, loads
from types import SimpleNamespace
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from aiohttp import ClientSession, web

from sluice.identity.keys import digest_of
from tests.docs.blocks import Block, blocks
from tests.e2e.gateway_process import serving
from tests.e2e.gateways import HEAD, KEY, OnSluice, gateway
from tests.ui.chromium import HANG, Page, page

CONFIG = (
    HEAD
    + """
upstreams: {echo: {backend: echo, delay: 5ms}}
aliases: {chat: {tiers: [[{upstream: echo, model: small}]], resumable: true}}
"""
)
RESTARTED = (
    HEAD.replace(
        'listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0"',
        'listen: "127.0.0.1:${API_PORT}", admin_listen: "127.0.0.1:${ADMIN_PORT}"',
    ).replace("default_alias: chat}", "default_alias: chat, origins: [PAGE]}")
    + """
upstreams: {echo: {backend: echo, delay: 5ms}}
aliases: {chat: {tiers: [[{upstream: echo, model: small}]]}}
"""
)
ROOT = "document.querySelector('sluice-chat').shadowRoot"
TEXT = f"{ROOT}.querySelector('.log').innerText"


class Pages:
    """A site that embeds the widget, and a stand-in for the gateway whose answers the test writes."""

    def __init__(self) -> None:
        self.html = ""
        self.answers: list[Any] = []
        self.tokens: list[Any] = []
        """The answers of the token endpoint and of renewals, if they are not to be tokens that last."""
        self.renewed: list[web.Request] = []
        self.asked: list[web.Request] = []
        self.bodies: list[Any] = []
        self.kept: list[Any] = []
        """The answers to requests for messages, if they are not to be empty lists; the last one stays."""
        self.reads: list[web.Request] = []
        self.readable = asyncio.Event()
        """Messages are answered when it is set."""
        self.readable.set()
        self.mint: Callable[[], Awaitable[Any]] | None = None

    async def page(self, request: web.Request) -> web.StreamResponse:
        head = '<!doctype html><title>shop</title><link rel="icon" href="data:,">'
        return web.Response(text=f"{head}<body>{self.html}</body>", content_type="text/html")

    async def token(self, request: web.Request) -> web.StreamResponse:
        if self.mint is not None:
            return web.json_response(await self.mint())
        if self.tokens:
            body, status = self.tokens.pop(0)
            return web.json_response(body, status=status)
        return web.json_response({"token": f"token-{len(self.asked)}", "expiresAt": "2999-01-01T00:00:00Z"})

    async def renew(self, request: web.Request) -> web.StreamResponse:
        self.renewed.append(request)
        return await self.token(request)

    async def messages(self, request: web.Request) -> web.StreamResponse:
        self.reads.append(request)
        await self.readable.wait()
        found = self.kept.pop(0) if len(self.kept) > 1 else self.kept[0] if self.kept else []
        if isinstance(found, int):
            return web.json_response({"error": "no"}, status=found)
        messages = [
            {"role": "user" if number % 2 == 0 else "assistant", "content": text, "createdAt": "x"}
            for number, text in enumerate(found)
        ]
        return web.json_response({"sessionId": request.query["sessionId"], "messages": messages})

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
    for path in ("/token", "/chat-token"):
        app.router.add_post(path, pages.token)
    app.router.add_post("/v1/tokens/renew", pages.renew)
    app.router.add_route("*", "/v1/chat/stream{rest:.*}", pages.chat)
    app.router.add_get("/v1/chat/messages", pages.messages)
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


FORGET = """(() => { for (const [place, text] of Object.entries(localStorage))
    localStorage.setItem(place, JSON.stringify({ session: JSON.parse(text).session, messages: [] })); })()"""
"""What the browser keeps of the messages is lost; the session's name stays."""
SHOWN = (
    f"[...{ROOT}.querySelectorAll('.message')].map((one) => [...one.childNodes]"
    ".filter((part) => part.className !== 'sr').map((part) => part.textContent).join('').trim())"
)
"""The texts of the messages, without who says them."""


async def waited(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANG):
        while not condition():
            await asyncio.sleep(0.01)


async def shown(tab: Page, *texts: str) -> None:
    await tab.until(
        f"{ROOT}?.querySelector('.log') && JSON.stringify({SHOWN}) === {json.dumps(dumped(texts))}"
    )


def dumped(texts: Sequence[str]) -> str:
    return json.dumps(texts, separators=(",", ":"))


OF_PAGES = (
    HEAD.replace("default_alias: chat}", "default_alias: chat, origins: [PAGE]}")
    + f"""
upstreams: {{echo: {{backend: echo, delay: 5ms}}}}
aliases: {{chat: {{tiers: [[{{upstream: echo, model: small}}]], resumable: true}}}}
tokens: {{secret: {"s" * 40}}}
"""
)


def reads_of(there: OnSluice) -> int:
    """Requests for messages that the gateway has answered, preflights not counted."""
    return sum(
        line.get("route") == "/v1/chat/messages" and line.get("method") != "OPTIONS"
        for line in there.log_lines
    )


async def test_the_gateway_gives_a_session_back_to_its_visitor_and_to_no_other() -> None:
    async with (
        page() as tab,
        site("") as (pages, url),
        gateway(OF_PAGES.replace("PAGE", url)) as there,
        ClientSession(there.url, headers={"x-api-key": KEY}) as server,
    ):
        wanted: dict[str, Any] = {"origin": url, "sessionPrefix": "visitor-1:", "ownSessions": True}

        async def mint() -> Any:
            async with server.post("/v1/tokens", json=wanted) as answer:
                return await answer.json()

        pages.mint = mint
        pages.html = (
            f'<script src="{there.url}/widget/chat-widget.js" defer></script>'
            f'<sluice-chat data-api-url="{there.url}" data-token-url="/token"></sluice-chat>'
        )
        await tab.open(url)
        await say(tab, "first")
        await shown(tab, "first", "You said: first")
        await tab.until(f"{ROOT}.querySelector('form button').textContent === 'Send'")
        for visitor, texts in (("visitor-1:", ("first", "You said: first")), ("visitor-2:", ())):
            wanted["sessionPrefix"] = visitor
            await tab.js(FORGET)
            reads = reads_of(there)
            await tab.open(url)
            await waited(lambda reads=reads: reads_of(there) > reads)
            await shown(tab, *texts)
        await say(tab, "second")  # in a conversation of his own, though the id is the other's
        await shown(tab, "second", "You said: second")
        wanted["sessionPrefix"] = "visitor-1:"
        await tab.js(FORGET)
        await tab.open(url)
        await shown(tab, "first", "You said: first")
        assert not tab.problems


@pytest.mark.parametrize("block", blocks("html"), ids=str)
async def test_the_pages_of_the_documentation_chat(block: Block) -> None:
    """With the server's part that stands beside them."""
    [server] = [one.text for one in blocks("python") if one.page == block.page]
    async with page() as tab, site("") as (pages, url), gateway(OF_PAGES.replace("PAGE", url)) as there:
        names: dict[str, Any] = {
            "app": SimpleNamespace(post=lambda _: lambda function: function),
            "visitor_id": lambda: 17,
            "requests": SimpleNamespace(post=posted),
            "GATEWAY": there.url,
            "KEY": KEY,
        }
        exec(server.replace("https://shop.example.com", url), names)
        pages.mint = lambda: asyncio.to_thread(names["chat_token"])
        pages.html = block.text.replace("https://gateway.example.com", there.url)
        await tab.open(url)
        await tab.until(f"{ROOT}?.querySelector('button')")
        await tab.js(f"{ROOT}.querySelector('.bubble')?.click()")
        await say(tab, "hi")
        await shown(tab, "hi", "You said: hi")
        assert not tab.problems


def posted(url: str, headers: dict[str, str], json: Any) -> Any:
    """As `requests.post`."""
    request = Request(url, dumps(json).encode(), {**headers, "content-type": "application/json"})
    with build_opener(ProxyHandler({})).open(request, timeout=HANG) as response:
        text = response.read()
    return SimpleNamespace(json=lambda: loads(text))


async def test_an_expired_token_is_replaced_and_the_messages_are_asked_for_again() -> None:
    async with embedded() as (tab, pages, url):
        pages.answers = [answered("one"), answered("two")]
        await tab.open(url)
        await say(tab, "x")
        await shown(tab, "x", "one")
        await tab.js(FORGET)
        soon, later = "2000-01-01T00:00:00Z", "2999-01-01T00:00:00Z"
        pages.tokens = [
            ({"token": "old", "expiresAt": later}, 200),
            ({"token": "new", "expiresAt": soon}, 200),
        ]
        pages.kept = [401, ["x", "one"]]
        await tab.open(url)
        await shown(tab, "x", "one")
        assert [one.headers["x-widget-api-key"] for one in pages.reads] == ["old", "new"]
        assert {one.query["sessionId"] for one in pages.reads} == {pages.bodies[0]["sessionId"]}
        await say(tab, "y")
        await shown(tab, "x", "one", "y", "two")
        assert [one.headers["authorization"] for one in pages.renewed] == ["Bearer new"]


async def test_where_the_messages_cannot_be_read_those_of_the_browser_are_shown() -> None:
    async with embedded() as (tab, pages, url):
        pages.answers = [answered("one")]
        await tab.open(url)
        await say(tab, "x")
        await shown(tab, "x", "one")
        assert not pages.reads  # a new session has none
        for number, found in enumerate((503, 404, 403, []), 1):
            pages.kept = [found]
            await tab.open(url)
            await waited(lambda number=number: len(pages.reads) == number)
            await shown(tab, "x", "one")
            assert not await tab.js(f"{ROOT}.querySelector('[role=alert]')")


async def test_what_was_said_elsewhere_is_shown_and_a_turn_that_still_runs_is_looked_for_again() -> None:
    async with embedded() as (tab, pages, url):
        running = asyncio.Event()
        pages.answers = [answered("one"), [{"type": "start"}, running]]
        await tab.open(url)
        await say(tab, "hi")
        await shown(tab, "hi", "one")
        await say(tab, "hi")
        await waited(lambda: len(pages.asked) == 2)
        before = ["there", "zero", "hi", "one"]
        pages.kept = [before, [*before, "hi", "two"]]
        await tab.open(url)
        await shown(tab, *before, "hi", "two")
        assert len(pages.reads) == 2
        running.set()
        assert json.loads(await tab.js("Object.values(localStorage)[0]"))["messages"][-1] == {
            "role": "assistant",
            "text": "two",
        }


@pytest.mark.parametrize("over", [True, False])
async def test_what_is_said_before_the_messages_are_there_is_not_lost(over: bool) -> None:
    async with embedded() as (tab, pages, url):
        pages.answers = [answered("one")]
        await tab.open(url)
        await say(tab, "x")
        await shown(tab, "x", "one")
        await tab.js(FORGET)
        pages.readable.clear()
        pages.kept = [["x", "one"], ["x", "one", "y", "two"]]
        cut = asyncio.Event()
        tokens, done = (
            [{"type": "start"}, {"type": "token", "token": "two"}],
            {"type": "done", "message": "two"},
        )
        pages.answers = [[*tokens, done] if over else [*tokens, cut]]
        await tab.open(url)
        await say(tab, "y")
        await shown(tab, "y", "two")
        if over:
            await tab.until(f"{ROOT}.querySelector('form button').textContent === 'Send'")
        pages.readable.set()
        if not over:
            await tab.until(
                "performance.getEntriesByType('resource').some((one) => one.name.includes('/messages'))"
            )
            cut.set()
        await shown(tab, "x", "one", "y", "two")
        assert len(pages.reads) == 2


async def test_after_a_cut_the_whole_answer_is_fetched_where_the_gateway_has_it() -> None:
    async with embedded() as (tab, pages, url):
        for number, kept in enumerate((["x", "whole"], ["x", "whole", "x", "half"])):
            cut = asyncio.Event()
            pages.answers = [[{"type": "start"}, {"type": "token", "token": "half "}, cut]]
            pages.kept = [kept] if number == 0 else [["x", "whole"], kept]
            await tab.open(url)
            await say(tab, "x")
            await tab.until(f"{TEXT}.includes('half')")
            cut.set()
            await shown(tab, *kept)
            assert not await tab.js(f"{ROOT}.querySelector('[role=alert]')")


async def test_a_bubble_asks_for_messages_when_it_is_opened() -> None:
    async with embedded() as (tab, pages, url):
        pages.html = pages.html.replace(
            "<sluice-chat ", '<sluice-chat data-mode="bubble" data-session="s:1" '
        )
        pages.kept = [["x", "one"]]
        await tab.open(url)
        await tab.until(f"{ROOT}?.querySelector('.bubble')")
        assert not pages.reads
        for _ in range(3):
            await tab.js(f"{ROOT}.querySelector('.bubble').click()")
        await tab.until(f"{ROOT}.querySelectorAll('.message').length === 2")
        assert [one.query["sessionId"] for one in pages.reads] == ["s:1"]
        pages.html = pages.html.replace("data-session", 'data-keep="none" data-open data-session')
        await tab.open(url)
        pages.answers = [answered("y")]
        await say(tab, "x")
        await shown(tab, "x", "y")
        assert len(pages.reads) == 1


async def test_the_messages_of_one_session_are_not_shown_in_another_that_the_page_names() -> None:
    async with embedded() as (tab, pages, url):
        html = pages.html
        pages.html = html.replace("<sluice-chat ", '<sluice-chat data-session="of:a" ')
        pages.answers = [answered("secret")]
        await tab.open(url)
        await say(tab, "x")
        await shown(tab, "x", "secret")
        await tab.open(url)
        await shown(tab, "x", "secret")
        pages.html = html.replace("<sluice-chat ", '<sluice-chat data-session="of:b" ')
        await tab.open(url)
        await shown(tab)


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


async def test_a_token_that_is_about_to_end_is_renewed_in_an_open_page_and_replaced_where_it_cannot_be() -> (
    None
):
    async with embedded() as (tab, pages, url):
        soon, later = "2000-01-01T00:00:00Z", "2999-01-01T00:00:00Z"
        pages.tokens = [
            ({"token": "first", "expiresAt": soon}, 200),
            ({"token": "renewed", "expiresAt": soon}, 200),
        ]
        pages.answers = [answered("one"), answered("two"), answered("three")]
        await tab.open(url)
        for text in ("one", "two", "three"):
            if text == "three":  # it is too old to be renewed, so the page's server is asked for another
                pages.tokens = [({"error": "expired"}, 401), ({"token": "fresh", "expiresAt": later}, 200)]
            await say(tab, "x")
            await tab.until(
                f"{TEXT}.includes({text!r}) && {ROOT}.querySelector('form button').textContent === 'Send'"
            )
        used = [request.headers["x-widget-api-key"] for request in pages.asked]
        assert used == ["first", "renewed", "fresh"]
        assert [one.headers["authorization"] for one in pages.renewed] == ["Bearer first", "Bearer renewed"]


async def test_a_page_that_gets_no_token_says_so_and_offers_no_retry() -> None:
    async with embedded() as (tab, pages, url):
        refused = web.json_response({"error": "Unauthorized"}, status=401)
        pages.answers = [refused, web.json_response({"error": "Unauthorized"}, status=401)]
        await tab.open(url)
        await say(tab, "x")
        await tab.until(f"{TEXT}.includes('not available here')")
        assert len(pages.asked) == 2  # once more with another token, and no third time
        assert not await tab.js(f"{ROOT}.querySelector('.retry')")


async def test_a_cut_that_cannot_be_gone_on_with_keeps_what_came_and_offers_a_retry() -> None:
    async with embedded() as (tab, pages, url):
        cut = asyncio.Event()
        pages.answers = [[{"type": "start"}, {"type": "token", "token": "half "}, cut], answered("whole")]
        await tab.open(url)
        await say(tab, "x")
        await tab.until(f"{TEXT}.includes('half')")
        cut.set()
        await tab.until(f"{ROOT}.querySelector('[role=alert]')?.innerText.includes('connection was lost')")
        assert "half" in await tab.js(TEXT)
        await tab.js(f"{ROOT}.querySelector('.retry').click()")
        await tab.until(f"{TEXT}.includes('whole')")


async def offline(tab: Page, off: bool) -> None:
    await tab.send("Network.enable")
    speed = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    await tab.send("Network.emulateNetworkConditions", offline=off, **speed)
    await tab.until(f"navigator.onLine === {str(not off).lower()}")


async def test_a_message_without_a_network_can_be_sent_again_when_there_is_one() -> None:
    async with embedded() as (tab, pages, url):
        pages.answers = [answered("hello"), answered("again")]
        await tab.open(url)
        await say(tab, "x")
        await tab.until(f"{TEXT}.includes('hello')")
        await offline(tab, True)
        await say(tab, "y")
        await tab.until(f"{ROOT}.querySelector('[role=alert]')?.innerText.includes('connection was lost')")
        await offline(tab, False)
        await tab.js(f"{ROOT}.querySelector('.retry').click()")
        await tab.until(f"{TEXT}.includes('again')")
        assert [body["message"] for body in pages.bodies] == ["x", "y"]


async def test_a_stream_that_broke_without_a_network_is_gone_on_with_when_there_is_one() -> None:
    async with embedded() as (tab, pages, url):
        broken = asyncio.Event()
        pages.answers = [
            [{"type": "start", "streamId": "st", "n": 0}, {"type": "token", "token": "one ", "n": 1}, broken],
            [{"type": "token", "token": "two", "n": 2}, {"type": "done", "message": "one two", "n": 3}],
        ]
        await tab.open(url)
        await say(tab, "x")
        await tab.until(f"{TEXT}.includes('one')")
        await tab.js(
            "window.waits = 0; const add = window.addEventListener; "
            "window.addEventListener = (name, ...rest) => (name === 'online' && window.waits++, add(name, ...rest))"
        )
        await offline(tab, True)
        broken.set()
        await tab.until("window.waits === 1")
        assert len(pages.asked) == 1
        await offline(tab, False)
        await tab.until(f"{ROOT}.querySelector('.assistant p')?.textContent === 'one two'")
        assert pages.asked[1].query["after"] == "1"
        assert not await tab.js(f"{ROOT}.querySelector('[role=alert]')")


async def test_a_gateway_that_is_started_again_is_chatted_with_in_the_same_page() -> None:
    async with page() as tab, site("") as (pages, url):
        config = RESTARTED.replace("PAGE", url)
        with suppress(RuntimeError), serving(config) as there:  # it ends by SIGKILL, which that reports
            pages.html = (
                f'<script src="{there.api}/widget/chat-widget.js" defer></script>'
                f'<sluice-chat data-api-url="{there.api}" data-api-key="{KEY}"></sluice-chat>'
            )
            await tab.open(url)
            await say(tab, "first")
            await tab.until(f"{TEXT}.includes('You said: first')")
            await say(tab, "word " * 400)
            await tab.until(f"{ROOT}.querySelectorAll('.assistant')[1]?.innerText.length > 30")
            there.process.kill()  # in the middle of an answer
            await tab.until(f"{ROOT}.querySelector('[role=alert]')?.innerText.includes('was lost')")
        with serving(config.replace("${API_PORT}", str(there.port))):
            await tab.js(f"{ROOT}.querySelector('.retry').click()")
            await tab.until(f"{ROOT}.querySelector('form button').textContent === 'Send'")
            await say(tab, "second")
            await tab.until(f"{TEXT}.includes('you said: second')")


SEND = f"{ROOT}.querySelector('form button').textContent"


async def test_its_texts_are_in_the_language_of_the_page_and_follow_it() -> None:
    async with embedded() as (tab, _, url):
        await tab.open(url)
        await tab.until(f"{SEND} === 'Send'")
        for language, send in {
            "de-AT": "Senden", "fr": "Envoyer", "pt-BR": "Enviar", "zh-CN": "发送", "zh-TW": "傳送", "xx": "Send",
        }.items():  # fmt: skip
            await tab.js(f"document.documentElement.lang = {language!r}")
            await tab.until(f"{SEND} === {send!r}")
        await tab.js("document.querySelector('sluice-chat').lang = 'ja'")  # nearer than the page's
        await tab.until(f"{SEND} === '送信'")
        await tab.js("document.querySelector('sluice-chat').dataset.texts = JSON.stringify({send: 'Go'})")
        await tab.until(
            f"{SEND} === 'Go' && {ROOT}.querySelector('textarea').placeholder === 'メッセージを入力'"
        )
        assert not tab.problems


async def test_a_language_that_changes_while_an_answer_comes_keeps_what_was_said() -> None:
    async with embedded() as (tab, pages, url):
        cut = asyncio.Event()
        pages.answers = [
            [{"type": "start", "conversationId": "c"}, {"type": "token", "token": "so far"}, cut]
        ]
        await tab.open(url)
        await say(tab, "a question")
        await tab.until(f"{TEXT}.includes('so far')")
        await tab.js("document.documentElement.lang = 'de'")
        await tab.until(f"{SEND} === 'Anhalten'")
        who = f"[...{ROOT}.querySelectorAll('.message > .sr')].map((one) => one.textContent)"
        assert await tab.js(who) == ["Sie: ", "Assistent: "]
        assert "a question" in await tab.js(TEXT)
        cut.set()
        await tab.until(f"{TEXT}.includes('Die Verbindung ist abgebrochen.')")
        tab.problems = [one for one in tab.problems if "ERR_" not in one]  # the browser says it, too
        assert not tab.problems


@pytest.mark.parametrize(
    ("page_", "right_to_left"),
    [("lang='ar'", True), ("dir='rtl' lang='en'", True), ("dir='rtl' lang='he'", True), ("lang='de'", False)],
)
async def test_it_is_laid_out_in_the_direction_of_its_language_or_the_page(
    page_: str, right_to_left: bool
) -> None:
    async with embedded() as (tab, pages, url):
        pages.answers = [answered("an answer")]
        pages.html = f"<div {page_} style='width: 30rem'>{pages.html}</div>"
        await tab.size(800)
        await tab.open(url)
        await say(tab, "a question")
        await tab.until(f"{TEXT}.includes('an answer')")
        middle = (
            f"((selector) => {{ const box = {ROOT}.querySelector(selector).getBoundingClientRect(); "
            "return (box.left + box.right) / 2; })"
        )
        of = {
            name: await tab.js(f"{middle}({selector!r})")
            for name, selector in (
                ("panel", ".panel"), ("send", "form button"), ("user", ".user"),
                ("title", "header b"), ("clear", "header button"),
            )
        }  # fmt: skip
        sides = [of["send"] < of["panel"], of["user"] < of["panel"], of["clear"] < of["title"]]
        assert sides == [right_to_left] * 3
        bot = f"{ROOT}.querySelector('.assistant').getBoundingClientRect()"
        panel = f"{ROOT}.querySelector('.panel').getBoundingClientRect()"
        near = f"{panel}.right - {bot}.right" if right_to_left else f"{bot}.left - {panel}.left"
        assert await tab.js(near) < 30
        await tab.picture(f"widget-{'rtl' if right_to_left else 'ltr'}")
        assert not tab.problems


@pytest.mark.parametrize("language", ["en", "ar"])
async def test_the_direction_of_a_message_is_that_of_what_was_said(language: str) -> None:
    async with embedded() as (tab, pages, url):
        pages.answers = [answered("an answer"), answered("إجابة")]
        pages.html = f"<div lang={language}>{pages.html}</div>"
        await tab.open(url)
        await say(tab, "a question")
        await tab.until(f"{TEXT}.includes('an answer')")
        await say(tab, "سؤال")
        await tab.until(f"{TEXT}.includes('إجابة')")
        found = f"[...{ROOT}.querySelectorAll('.user')].map((one) => getComputedStyle(one).direction)"
        assert await tab.js(found) == ["ltr", "rtl"]
        found = (
            f"[...{ROOT}.querySelectorAll('.assistant > p')].map((one) => getComputedStyle(one).direction)"
        )
        assert await tab.js(found) == ["ltr", "rtl"]
        assert not tab.problems


async def test_the_scripts_own_attributes_make_a_bubble() -> None:
    async with embedded() as (tab, pages, url):
        source = pages.html.partition('src="')[2].partition('"')[0]
        pages.html = f'<script src="{source}" data-api-url="{url}" data-api-key="sk-page" async></script>'
        pages.answers = [answered("hi")]
        await tab.open(url)
        await tab.until(f"document.querySelector('sluice-chat') && {ROOT}.querySelector('.bubble')")
        assert await tab.js(f"{ROOT}.querySelector('.panel').hidden")
        drawn = "svg path').getBoundingClientRect().width"  # on machines without emojis, too
        assert await tab.js(f"{ROOT}.querySelector('.bubble {drawn}") > 10
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
        await tab.js(FORGET)
        await tab.open(f"{there.url}/demo")  # a GET to the page's own origin, to which browsers put no Origin
        await tab.until(
            f"{ROOT}?.querySelectorAll('.assistant')[0]?.innerText.includes('said: Hello from the demo')"
        )
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
