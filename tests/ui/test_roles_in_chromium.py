"""The pages of a viewer, of people whom an OpenID provider signs in, and of gateways with one worker and with
three."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest

from sluice.identity.keys import digest_of
from tests.e2e.gateway_process import KEY, GatewayProcess, serving
from tests.e2e.gateways import gateway
from tests.e2e.test_reload import running
from tests.e2e.test_shown_of_workers import call, config, shown
from tests.ui.chromium import HANG, Page, page
from tests.ui.openid import certified
from tests.ui.test_in_chromium import CONFIG, PAGES, show, sign_in

VIEWER = "sk-sluice-viewer"
WITH_VIEWER = CONFIG.replace(
    "admin: {ui: true, ",
    f'admin: {{ui: true, keys: [{{id: looks, digest: "{digest_of(VIEWER)}", role: viewer}}], ',
)
READ = ("overview", "aliases", "keys", "usage", "calls", "configuration")


async def buttons(tab: Page) -> set[str]:
    found: list[str] = await tab.js(
        "[...document.querySelectorAll('button')].map((one) => one.textContent.trim())"
    )
    return set(found)


async def test_a_viewer_is_shown_what_it_may_read_and_no_button_that_would_be_refused() -> None:
    async with page() as tab, gateway(WITH_VIEWER) as there:
        await tab.size(1280)
        await tab.open(f"{there.admin_url}/ui/")
        await sign_in(tab, VIEWER)
        await tab.until("document.querySelector('nav')?.innerText.includes('looks')")
        links = await tab.js("[...document.querySelectorAll('nav a')].map((one) => one.getAttribute('href'))")
        assert links == [f"#{name}" for name in READ]
        changing = {
            "Make a key",
            "Change",
            "Rotate",
            "Disable",
            "Enable",
            "Delete",
            "disable",
            "drain",
            "enable",
            "Apply",
            "Send",
        }
        for name in READ:
            await show(tab, name)
            await tab.until("document.querySelector('main section')")
            assert not changing & await buttons(tab), name
            assert not await tab.js("document.querySelector('[role=alert]')?.innerText"), name
        await tab.js("location.hash = '#conversations'")
        await tab.until("document.querySelector('nav a[aria-current]').getAttribute('href') === '#overview'")
        await tab.picture("viewer")
        assert not tab.problems


async def test_a_viewer_sees_no_texts_of_a_call_and_asks_for_none() -> None:
    config = WITH_VIEWER + "log: {content: full}\n"
    async with page() as tab, gateway(config) as there:
        async with aiohttp.ClientSession(there.url, headers={"x-api-key": KEY}) as session:
            body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}
            async with session.post("/v1/chat/completions", json=body) as response:
                await response.read()
        await tab.size(1280)
        await tab.open(f"{there.admin_url}/ui/")
        await sign_in(tab, VIEWER)
        await show(tab, "calls")
        await tab.until("document.querySelector('td button')")
        await tab.js("document.querySelector('td button').click()")
        await tab.until("document.querySelector('dialog')?.innerText.includes('to operators only')")
        assert "Its texts" not in await tab.js("document.querySelector('dialog').innerText")
        assert not tab.problems


async def arrived(tab: Page, condition: str) -> None:
    """Waits until it holds of the page that the tab is on its way to: what is asked of one that is left is
    not answered."""
    async with asyncio.timeout(HANG):
        while True:
            with suppress(AssertionError):
                if await tab.js(f"Boolean({condition})"):
                    return
            await asyncio.sleep(0.05)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize(("name", "role"), [("olga", "operator"), ("victor", "viewer"), ("nobody", None)])
async def test_people_sign_in_by_their_provider_and_out_again(name: str, role: str | None) -> None:
    port = free_port()
    async with page() as tab, certified(f"http://127.0.0.1:{port}/ui/oidc/callback") as issuer:
        oidc = (
            f"oidc: {{issuer: '{issuer}', client_id: sluice, name: Example, scopes: [openid, email, groups], "
            "roles: {viewer: [staff], operator: [platform]}}"
        )
        text = CONFIG.replace("admin: {ui: true, ", f"admin: {{ui: true, {oidc}, ").replace(
            'admin_listen: "127.0.0.1:0"', f'admin_listen: "127.0.0.1:{port}"'
        )
        async with gateway(text) as there:
            await tab.open(f"{there.admin_url}/ui/")
            await tab.click("Sign in with Example")
            await arrived(tab, "document.querySelector('input[name=login]')")
            await tab.type("input[name=login]", name)
            await tab.type("input[name=password]", "x")
            await tab.press("Enter", 13, "\r")
            await arrived(tab, "document.querySelector('input[name=prompt]')?.value === 'consent'")
            await tab.js("document.querySelector('form').requestSubmit()")
            await arrived(tab, "document.querySelector('.signin, .side')")
            tab.problems.clear()  # the provider's own pages'
            if role is None:
                await tab.until("document.body.innerText.includes('no role is given to you')")
                await tab.picture("oidc-refused")
                return
            await tab.until(f"document.querySelector('nav .who')?.innerText.includes('{role}')")
            assert f"{name}@example.com" in await tab.js("document.querySelector('nav .who').innerText")
            await show(tab, "keys")
            await tab.until("document.querySelector('td')")
            assert ("Make a key" in await buttons(tab)) == (role == "operator")
            await tab.open(f"{there.admin_url}/ui/")
            await tab.click("Sign out")
            await tab.until("document.querySelector('a[rel=noreferrer]')")
            assert (
                await tab.js("document.querySelector('a[rel=noreferrer]').href")
                == f"{issuer}/session/end?client_id=sluice"
            )
            await tab.picture("oidc-signed-out")
            assert not tab.problems


@asynccontextmanager
async def of_workers(workers: int) -> AsyncIterator[tuple[Page, GatewayProcess]]:
    async with page() as tab:
        with serving(config(workers)) as there:
            await running(there, workers)
            await tab.size(1280)
            await tab.open(f"{there.admin}/ui/")
            await sign_in(tab, KEY)
            await tab.until("document.querySelector('nav')")
            yield tab, there
            assert not tab.problems


async def states(there: GatewayProcess) -> dict[str, Any]:
    return {
        f"{one['upstream']}/{one['model']}": one["state"]
        for one in (await shown(there, "/admin/targets"))["targets"]
    }


@pytest.mark.parametrize("workers", [1, 3])
async def test_targets_are_switched_and_calls_of_all_workers_are_seen(workers: int) -> None:
    async with of_workers(workers) as (tab, there):
        for _ in range(12):
            await call(there)
        await show(tab, "calls")
        await tab.until("document.querySelectorAll('td button').length === 12")
        await show(tab, "overview")
        await tab.until(
            f"document.body.innerText.includes('{workers} {'process' if workers == 1 else 'workers'}')"
        )
        await tab.until("/Answered 2xx\\s+(1[2-9]|[2-9]\\d)/.test(document.querySelector('main').innerText)")
        await show(tab, "aliases")
        await tab.until("document.querySelector('td button')")
        table = "document.querySelector('main .scroll')"
        assert await tab.js(f"{table}.scrollWidth <= {table}.clientWidth")  # no button is cut off
        card = "[...document.querySelectorAll('tr')].find((one) => one.querySelector('td b')?.textContent === 'chat')"
        for verb, state in (
            ("disable", "disabled"),
            ("enable", "enabled"),
            ("drain", "drained"),
            ("enable", "enabled"),
        ):
            button = f"[...{card}.querySelectorAll('button')].find((one) => one.textContent === '{verb}')"
            await tab.until(button)
            await tab.js(f"{button}.click()")
            marked = f"/disabled|drained/.test({card}.innerText)"
            await tab.until(marked if state != "enabled" else f"!{marked}")
            async with asyncio.timeout(HANG):
                while (await states(there))["echo/m"] != state:
                    await asyncio.sleep(0.02)
        await tab.picture(f"switched-{workers}")


@pytest.mark.parametrize("workers", [1, 3])
async def test_a_changed_file_is_checked_compared_and_applied(workers: int) -> None:
    async with of_workers(workers) as (tab, there):
        await show(tab, "configuration")
        text = there.path.read_text()
        there.path.write_text(
            text.replace("aliases:\n", "aliases:\n  added: {tiers: [[{upstream: echo, model: m}]]}\n")
        )
        await tab.click("Check and compare")
        await tab.until(
            "[...document.querySelectorAll('.plus')].some((line) => line.innerText.includes('added'))"
        )
        await tab.picture(f"compared-{workers}")
        await tab.click("Apply")
        await tab.until("document.body.innerText.includes('follows the file now')")
        for _ in range(3 * workers):
            assert "added" in (await shown(there, "/admin/config"))["text"]
        there.path.write_text(text + "nonsense: 1\n")
        await tab.click("Check and compare")
        await tab.until("document.body.innerText.includes('1 problem')")
        assert await tab.js(
            "[...document.querySelectorAll('button')].find((one) => one.textContent === 'Apply').disabled"
        )


@pytest.mark.parametrize("workers", [1, 3])
async def test_every_page_works_whichever_worker_answers(workers: int) -> None:
    async with of_workers(workers) as (tab, _):
        for name in PAGES:
            await show(tab, name)
            await tab.until("document.querySelector('main section')")
            assert not await tab.js("document.querySelector('[role=alert]')?.innerText"), name
        await show(tab, "keys")
        await tab.click("Make a key")
        await tab.type("dialog input[name=id]", "shop")
        await tab.click("Make the key")
        await tab.until("document.querySelector('#new-key')?.textContent")
        await tab.press("Escape", 27)
        await tab.until("!document.querySelector('dialog') && document.body.innerText.includes('shop')")
        await show(tab, "playground")
        await tab.until("document.querySelectorAll('form select').length === 4")
        choose = "select.value = 'shop'; select.dispatchEvent(new Event('change', {bubbles: true}))"
        await tab.js(f"((select) => {{ {choose} }})(document.querySelectorAll('form select')[3])")
        async with asyncio.timeout(HANG):
            while True:  # another worker knows the key within a second
                await tab.click("Send")
                await tab.until("document.querySelector('.answers .tiles')")
                await tab.until(
                    "[...document.querySelectorAll('button')].find((one) => one.textContent === 'Send').disabled === false"
                )
                if "You said: " in await tab.js("document.querySelector('#answer').innerText"):
                    break
        await tab.js("location.hash = '#calls/key=shop'")
        await tab.until("document.querySelectorAll('td button').length > 0")
        await tab.js("document.querySelector('td button').click()")
        await tab.until("document.querySelector('dialog')?.innerText.includes('shop')")
        await tab.press("Escape", 27)
        await tab.js("location.hash = '#usage/by=key'")
        await tab.until("[...document.querySelectorAll('td')].some((one) => one.innerText === 'shop')")
        await show(tab, "keys")
        await tab.until("document.body.innerText.includes('shop')")
        await tab.click("Delete")
        await tab.click("Delete", "dialog button")
        await tab.until("!document.querySelector('dialog') && !document.body.innerText.includes('shop')")
        tab.problems = [
            problem for problem in tab.problems if "403" not in problem
        ]  # the browser says it, too
