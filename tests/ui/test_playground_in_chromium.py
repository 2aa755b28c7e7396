"""The playground in a browser, against an upstream that thinks, calls tools and looks at images: in each dialect,
streamed and whole, and two targets side by side."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from tests.e2e.gateways import HEAD, OnSluice, gateway
from tests.ui.chromium import Page, page
from tests.ui.test_in_chromium import show, sign_in

ALIASES = """
aliases:
  chat: {tiers: [[{upstream: provider, model: thinker, vision: true}], [{upstream: echo, model: large}]]}
"""
DIALECTS = ["openai chat", "openai responses", "anthropic", "ollama", "gemini"]
PNG = "137,80,78,71"


async def answer(request: web.Request) -> web.StreamResponse:
    """Streams as OpenAI's chat completions do: reasoning, then a call of the first tool, or a sentence on what came."""
    body = await request.json()
    content = body["messages"][-1]["content"]
    saw = "an image" if isinstance(content, list) and any("image_url" in part for part in content) else "text"
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)

    async def say(delta: dict[str, Any], finish: str | None = None, **more: Any) -> None:
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        event = {
            "id": "c",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "thinker",
            "choices": choices,
        }
        await response.write(b"data: %b\n\n" % json.dumps(event | more).encode())

    await say({"role": "assistant", "reasoning_content": "I have to think. "})
    if tools := body.get("tools"):
        function = {"name": tools[0]["function"]["name"], "arguments": '{"ci'}
        await say({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]})
        await say({"tool_calls": [{"index": 0, "function": {"arguments": 'ty":"Paris"}'}}]})
    else:
        for word in f"I saw {saw}".split():
            await say({"content": f"{word} "})
    await say({}, "tool_calls" if tools else "stop")
    await say({}, choices=[], usage={"prompt_tokens": 12, "completion_tokens": 30, "total_tokens": 42})
    await response.write(b"data: [DONE]\n\n")
    return response


@asynccontextmanager
async def provided() -> AsyncIterator[tuple[Page, OnSluice]]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    upstreams = f"upstreams: {{echo: {{backend: echo}}, provider: {{backend: openai, base_url: 'http://{host}:{port}/v1'}}}}"
    config = HEAD.replace("admin: {digest", "admin: {ui: true, digest") + upstreams + ALIASES
    try:
        async with page() as tab, gateway(config) as there:
            await tab.size(1280)
            await tab.open(f"{there.admin_url}/ui/")
            await sign_in(tab)
            await show(tab, "playground")
            await tab.until("document.querySelectorAll('form select').length === 4")
            yield tab, there
            assert not tab.problems
    finally:
        await runner.cleanup()


async def choose(tab: Page, number: int, text: str) -> None:
    change = "select.value = chosen; select.dispatchEvent(new Event('change', {bubbles: true}))"
    selects = "document.querySelectorAll('form select')"
    await tab.js(f"((select, chosen) => {{ {change} }})({selects}[{number}], {text!r})")


async def toggle(tab: Page, label: str) -> None:
    find = (
        f"[...document.querySelectorAll('label.check')].find((one) => one.textContent.startsWith({label!r}))"
    )
    await tab.js(f"{find}.querySelector('input').click()")


async def send(tab: Page) -> list[str]:
    """The answers, once all of them are there."""
    await tab.click("Send")
    await tab.until("[...document.querySelectorAll('.answers')].every((one) => one.querySelector('.tiles'))")
    await tab.until(
        "![...document.querySelectorAll('button')].find((one) => one.textContent === 'Send').disabled"
    )
    return list(await tab.js("[...document.querySelectorAll('.answers')].map((one) => one.innerText)"))


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_tools_reasoning_and_images_are_shown_streamed_and_whole(dialect: str) -> None:
    async with provided() as (tab, _):
        await choose(tab, 2, dialect)
        await tab.js(
            "(() => { const all = new DataTransfer(); "
            f"all.items.add(new File([new Uint8Array([{PNG}])], 'a.png', {{type: 'image/png'}})); "
            "const input = document.querySelector('input[type=file]'); input.files = all.files; "
            "input.dispatchEvent(new Event('change', {bubbles: true})) })()"
        )
        await tab.until("document.querySelector('pre').innerText.includes('BASE64')")  # in the code to copy
        for _ in range(2):
            [text] = await send(tab)
            assert "I saw an image" in text
            assert "I have to think." in await tab.js("document.querySelector('.answers').textContent")
            assert "30" in text
            await toggle(tab, "Stream")
        await tab.click("An example")
        for _ in range(2):
            [text] = await send(tab)
            assert "calls the tool get_weather" in text
            assert '{"city":"Paris"}' in text.replace(": ", ":")
            await toggle(tab, "Stream")
        await tab.js("document.querySelector('form details').open = true")
        await tab.type("details textarea", "{}")
        await tab.until("document.querySelector('[role=alert]')?.innerText.includes('no JSON list')")


async def test_two_targets_answer_side_by_side_and_each_alone() -> None:
    async with provided() as (tab, there):
        await toggle(tab, "Side by side")
        await tab.until("document.querySelectorAll('form select').length === 6")
        await choose(tab, 1, "provider/thinker")
        await choose(tab, 3, "echo/large")
        left, right = await send(tab)
        assert (left.split("\n")[0], right.split("\n")[0]) == ("chat: provider/thinker", "chat: echo/large")
        assert "I saw text" in left
        assert "You said: Tell me" in right
        assert sorted(
            line["target"] for line in there.requests if line["route"] == "/v1/chat/completions"
        ) == [
            "echo/large",
            "provider/thinker",
        ]
        await tab.picture("playground-two")
