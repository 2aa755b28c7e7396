"""The pages in a browser: every one opened, in both themes and on a phone's width, and used as a person
would."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from socket import create_server
from tempfile import TemporaryDirectory

import aiohttp
import pytest

from sluice.config.loader import Loaded, load
from sluice.conversations import Turn
from tests.e2e.gateway_process import serving
from tests.e2e.gateways import HEAD, KEY, OnSluice, gateway
from tests.ui.chromium import HANG, Page, page

CONFIG = (
    HEAD.replace("admin: {digest", "admin: {ui: true, digest")
    + """
tenants: {shop: {limits: {streams: 5}}}
upstreams: {echo: {backend: echo, delay: 5ms}}
aliases:
  chat:
    tiers: [[{upstream: echo, model: small}], [{upstream: echo, model: large}]]
    resumable: true
    limits: {budget: {day: 5}}
  code: {tiers: [[{upstream: echo, model: large}]]}
"""
)
CUT = (
    "[...document.querySelectorAll('main .scroll')].filter((one) => one.scrollWidth > one.clientWidth)"
    ".map((one) => one.ariaLabel)"
)
"""The tables of which a part is out of sight."""
PAGES = ("overview", "aliases", "playground", "keys", "usage", "calls", "conversations", "configuration")


def loaded(config: str) -> Loaded:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.yaml"
        path.write_text(config)
        return load(str(path))


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[Page, OnSluice]]:
    """A page before anybody has signed in; no problem may have been shown when it is left."""
    async with page() as tab, gateway(CONFIG) as there:
        await tab.size(1280)
        await tab.open(f"{there.admin_url}/ui/")
        yield tab, there
        assert not tab.problems


async def sign_in(tab: Page, key: str = KEY) -> None:
    await tab.until("document.querySelector('input[name=key]')")
    await tab.type("input[name=key]", key)
    await tab.press("Enter", 13, "\r")


async def show(tab: Page, name: str) -> None:
    await tab.js(f"location.hash = '#{name}'")
    await tab.until(f"document.querySelector('nav a[aria-current]')?.getAttribute('href') === '#{name}'")
    await tab.until("document.querySelector('main h1')")


async def use(there: OnSluice) -> None:
    """Some calls to look at, and a conversation."""
    async with aiohttp.ClientSession(headers={"x-api-key": KEY}) as session:
        for number in range(5):
            turn = {"sessionId": "visitor-1", "message": f"Question {number}, of some length"}
            for path, body in (
                ("/v1/chat/stream", turn),
                ("/v1/chat/completions", {"model": "nobody", "messages": []}),
            ):
                async with session.post(there.url + path, json=body) as response:
                    await response.read()


async def test_every_page_opens_in_both_themes_and_on_a_phone() -> None:
    async with opened() as (tab, there):
        await use(there)
        await tab.picture("sign-in")
        await sign_in(tab)
        for width, dark in ((1280, False), (1280, True), (360, False)):
            await tab.size(width, dark=dark)
            for name in PAGES:
                await show(tab, name)
                await tab.until("document.querySelector('main section')")
                wide = await tab.js("document.documentElement.scrollWidth")
                assert wide <= width, (name, width, wide)
                if width == 1280:
                    assert await tab.js(CUT) == [], name
                await tab.picture(f"{name}-{width}{'-dark' if dark else ''}")


async def test_a_wrong_key_is_refused_and_reloading_keeps_the_session() -> None:
    async with opened() as (tab, there):
        await sign_in(tab, "sk-wrong")
        await tab.until("document.body.innerText.includes('not an admin key')")
        assert "sluice init" in await tab.js("document.body.innerText")  # where one comes from
        tab.problems = [
            problem for problem in tab.problems if "401" not in problem
        ]  # the browser says each, too
        await sign_in(tab)
        await tab.until("document.querySelector('nav')")
        await tab.open(f"{there.admin_url}/ui/")
        await tab.until("document.querySelector('nav')")
        assert await tab.js("document.cookie") == ""
        assert KEY not in await tab.js("JSON.stringify({...localStorage, ...sessionStorage})")
        await tab.click("Sign out")
        await tab.until("document.querySelector('input[name=key]')")


@pytest.mark.parametrize(
    "dialect", ["openai chat", "openai responses", "anthropic", "widget (NDJSON)", "ollama", "gemini"]
)
async def test_the_playground_streams_in_each_dialect(dialect: str) -> None:
    async with opened() as (tab, there):
        await sign_in(tab)
        await show(tab, "playground")
        await tab.until("document.querySelectorAll('form select').length === 4")
        choose = "select.value = chosen; select.dispatchEvent(new Event('change', {bubbles: true}))"
        await tab.js(
            f"((select, chosen) => {{ {choose} }})(document.querySelectorAll('form select')[2], {dialect!r})"
        )
        await tab.type("form textarea", "one two three four five six <b>seven</b>")
        await tab.click("Send")
        await tab.until("document.querySelector('#answer').innerText.includes('<b>seven</b>')")
        await tab.until(
            "![...document.querySelectorAll('button')].find((one) => one.textContent === 'Send').disabled"
        )
        figures = await tab.js("document.querySelector('.answers .tiles').innerText")
        assert "200" in figures
        await tab.picture(f"playground-{dialect.split()[0]}")
        assert there.requests[-1]["key"] == "test"
        assert there.requests[-1]["end"] == "done"


async def test_a_call_of_the_playground_can_be_cancelled() -> None:
    async with opened() as (tab, there):
        await sign_in(tab)
        await show(tab, "playground")
        await tab.until("document.querySelectorAll('form select').length === 4")
        await tab.type("form textarea", "word " * 2000)
        await tab.click("Send")
        await tab.until("document.querySelector('#answer').innerText.length > 20")
        await tab.click("Cancel")
        await tab.until("document.body.innerText.includes('cancelled')")
        async with asyncio.timeout(HANG):
            while not (ends := [line["end"] for line in there.requests if "end" in line]):
                await asyncio.sleep(0.01)
        assert ends == ["client_gone"]


async def test_a_key_is_made_shown_once_and_works() -> None:
    async with opened() as (tab, there):
        await sign_in(tab)
        await show(tab, "keys")
        await tab.click("Make a key")
        await tab.type("dialog input[name=id]", "shop-1")
        await tab.type("dialog input[name=requests]", "60/min")
        await tab.click("Make the key")
        key = await tab.until("document.querySelector('#new-key')?.textContent")
        await tab.picture("key-made")
        await tab.js("Object.defineProperty(navigator, 'clipboard', {value: undefined})")  # as without https
        await tab.js("document.addEventListener('copy', () => { window.took = String(getSelection()); })")
        await tab.click("Copy")
        await tab.until(
            "[...document.querySelectorAll('button')].some((one) => one.textContent === 'Copied')"
        )
        assert await tab.js("window.took") == key
        await tab.press("Escape", 27)
        await tab.until("!document.querySelector('dialog') && document.body.innerText.includes('shop-1')")
        assert key not in await tab.js("document.documentElement.outerHTML")
        assert there.runtime.authenticator.identify_now([(b"x-api-key", key.encode())]).key_id == "shop-1"
        await tab.click("Disable")
        await tab.until("document.body.innerText.includes('disabled')")
        await tab.click("Rotate")
        await tab.click("Rotate", "dialog button")
        assert await tab.until("document.querySelector('#new-key')?.textContent") != key


async def test_a_token_for_a_web_page_is_made_with_a_key_and_an_old_key_goes_on_for_a_while() -> None:
    config = CONFIG + f"tokens: {{secret: {'s' * 40}}}\n"
    async with page() as tab, gateway(config) as there:
        await tab.size(1280)
        await tab.open(f"{there.admin_url}/ui/")
        await sign_in(tab)
        await show(tab, "keys")
        await tab.click("Make a key")
        await tab.type("dialog input[name=id]", "shop")
        await tab.type("dialog input[name=origins]", "https://shop.example.com")
        await tab.click("Make the key")
        key = await tab.until("document.querySelector('#new-key')?.textContent")
        await tab.press("Escape", 27)
        await tab.until("!document.querySelector('dialog')")
        await tab.click("Token")
        await tab.type("dialog input[name=alias]", "chat")
        await tab.type("dialog input[name=sessionPrefix]", "visitor-1:")
        await tab.click("Make a token")
        token = await tab.until("document.querySelector('#new-token')?.textContent")
        await tab.picture("token-made")
        known = there.runtime.authenticator.identify_now
        assert (known([(b"x-widget-api-key", token.encode())]).kind) == "browser"
        await tab.type("dialog input[name=seconds]", "99999999")
        await tab.click("Make a token")
        assert "seconds" in await tab.until("document.querySelector('dialog [role=alert]')?.innerText")
        await tab.press("Escape", 27)
        await tab.until("!document.querySelector('dialog')")
        await tab.click("Rotate")
        await tab.type("dialog input[name=overlap]", "10m")
        await tab.click("Rotate", "dialog button")
        fresh = await tab.until("document.querySelector('#new-key')?.textContent")
        assert fresh != key
        for secret in (key, fresh):
            assert known([(b"x-api-key", secret.encode())]).key_id == "shop"
        tab.problems = [
            problem for problem in tab.problems if "400" not in problem
        ]  # the browser says it, too
        assert not tab.problems


async def test_a_conversation_is_found_read_and_deleted_however_old_it_is() -> None:
    async with opened() as (tab, there):
        store = there.runtime.conversations
        for number in range(230):
            turn = Turn("user", f"Where is parcel {number:03}?", float(number + 1))
            await store.append(
                "test", f"visitor-{number}", await store.open("test", f"visitor-{number}"), [turn]
            )
        await sign_in(tab)
        await show(tab, "conversations")
        await tab.until("document.body.innerText.includes('The newest 200')")
        assert "parcel 004" not in await tab.js("document.body.innerText")
        await tab.type("input[type=search]", "PARCEL 004")
        await tab.press("Enter", 13, "\r")
        await tab.until("document.querySelectorAll('td a').length === 1")
        await tab.js("document.querySelector('td a').click()")
        await tab.until("document.querySelector('dialog .turn')?.innerText.includes('parcel 004')")
        place = await tab.js("document.querySelector('dialog .turn').getBoundingClientRect().bottom")
        assert 0 < place < 900  # where it is seen
        await tab.picture("conversation")
        await tab.click("Delete", "dialog button")
        await tab.click("Really delete", "dialog button")
        await tab.until(
            "!document.querySelector('dialog') && document.body.innerText.includes('No conversation has these words')"
        )
        assert (await store.newest(1))[1] == 229


async def test_targets_show_their_share_and_teams_their_limits() -> None:
    team = "teams: {retail: {limits: {budget: {month: 20}}}}\n"
    async with page() as tab, gateway(CONFIG + team) as there:
        await use(there)
        await tab.size(1280)
        await tab.open(f"{there.admin_url}/ui/#aliases")
        await sign_in(tab)
        row = "[...document.querySelectorAll('tr')].find((one) => one.innerText.includes('echo/small'))"
        await tab.until(f"{row}?.innerText.includes('100 %')")
        await tab.picture("shares")
        await show(tab, "keys")
        await tab.until("/team retail\\s+–\\s+\\$20.00 a month/.test(document.body.innerText)")
        assert not tab.problems


async def test_explain_and_check_answer() -> None:
    async with opened() as (tab, _):
        await sign_in(tab)
        await show(tab, "aliases")
        await tab.click("Explain")
        await tab.until("document.querySelector('pre')?.innerText.includes('chat: any request')")
        await tab.picture("explained")
        await show(tab, "configuration")
        await tab.until("document.querySelector('textarea[name=text]')")
        await tab.type("textarea[name=text]", "upstreams: {a: {backend: nobody}}")
        await tab.until("document.body.innerText.includes('nobody')")
        await tab.picture("config-checked")


def tile(title: str) -> str:
    find = f"[...document.querySelectorAll('a.tile')].find((one) => one.innerText.startsWith({title!r}))"
    return f"{find}?.querySelector('b').textContent"


async def no_stream(there: OnSluice) -> None:
    async with asyncio.timeout(HANG):
        while there.operators.answering():
            await asyncio.sleep(0.01)


async def test_the_overview_is_told_by_one_stream_and_asks_for_nothing_else() -> None:
    async with opened() as (tab, there):
        await sign_in(tab)
        await tab.until(f"{tile('Calls')} === '0'")
        await use(there)
        await tab.until(f"{tile('Calls')} === '10' && {tile('Errors')} === '5'")
        await tab.until("document.querySelector('main').innerText.includes('invalid_request')")
        assert len(there.operators.answering()) == 1
        asked = {line["route"] for line in there.requests}
        assert not {route for route in asked if route.startswith("/admin")}


async def test_no_stream_is_open_while_the_page_is_hidden_or_left_or_signed_out() -> None:
    async with opened() as (tab, there):
        await sign_in(tab)
        await tab.until(f"{tile('Calls')} === '0'")
        hide = (
            "Object.defineProperty(document, 'hidden', {value: %s, configurable: true}); "
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        await tab.js(hide % "true")
        await no_stream(there)
        await use(there)
        await tab.js(hide % "false")
        await tab.until(f"{tile('Calls')} === '10'")
        await show(tab, "keys")
        await no_stream(there)
        await show(tab, "overview")
        await tab.until(f"{tile('Calls')} === '10'")
        await tab.click("Sign out")
        await tab.until("document.querySelector('input[name=key]')")
        await no_stream(there)


async def test_the_stream_goes_on_with_another_configuration() -> None:
    async with opened() as (tab, there):
        await sign_in(tab)
        aliases = "document.querySelector('a[href=\"#aliases\"]:not(.tile):not(nav a)')?.textContent"
        await tab.until(f"{aliases} === '2'")
        await there.swap(
            loaded(CONFIG + "  third: {tiers: [[{upstream: echo, model: large}]]}\nlog: {level: debug}\n")
        )
        await tab.until(f"{aliases} === '3'")
        assert there.snapshots.living == [there.snapshots.current]


FOLD = (
    "[...document.querySelectorAll('dialog details summary')].find((one) => one.textContent === 'Its texts')"
)
DIALOG = "document.querySelector('dialog')?.innerText"


async def test_a_call_shows_its_texts_when_they_are_unfolded_and_why_there_are_none() -> None:
    config = CONFIG.replace("code: {tiers", "code: {log_content: full, tiers")
    assert config != CONFIG
    async with page() as tab, gateway(config) as there:
        await tab.size(1280)
        await tab.open(f"{there.admin_url}/ui/")
        async with aiohttp.ClientSession(there.url, headers={"x-api-key": KEY}) as session:
            for model in ("nobody", "chat", "code"):
                content = "<b>bold</b> sk-proj-abcdEFGH1234567890"
                body = {"model": model, "messages": [{"role": "user", "content": content}]}
                async with session.post("/v1/chat/completions", json=body) as response:
                    await response.read()
        await sign_in(tab)
        for model, expected in (
            ("code", "You said: <b>bold</b> ***"),
            ("chat", "log.content is none"),
            ("", "did not become a call"),
        ):
            await show(tab, "calls")
            if model:
                await tab.js(f"location.hash = '#calls/alias={model}'")
            shown = [model] if model else ["code", "chat", "–"]  # the newest first
            aliases = (
                "[...document.querySelectorAll('main tbody td:nth-child(2)')].map((one) => one.innerText)"
            )
            await tab.until(f"JSON.stringify({aliases}) === JSON.stringify({shown})")
            await tab.js("[...document.querySelectorAll('td button')].at(-1).click()")
            await tab.until("document.querySelector('dialog dl')")
            if model:
                assert "You said" not in await tab.js(DIALOG)
                await tab.js(f"{FOLD}.click()")
            await tab.until(f"{DIALOG}.includes({expected!r})")
            await tab.picture(f"call-texts-{model or 'none'}")
            assert not await tab.js("document.querySelector('dialog b')")
            assert "sk-proj" not in await tab.js(DIALOG)
            await tab.press("Escape", 27)
            await tab.until("!document.querySelector('dialog')")
        read = [line for line in there.log_lines if line["event"] == "admin_action"]
        assert {line["route"] for line in read} == {"GET /admin/calls?content=true"}
        assert len(read) == 2
        assert not tab.problems


async def test_each_number_of_the_overview_leads_to_what_it_is_made_of() -> None:
    async with opened() as (tab, there):
        await use(there)
        await sign_in(tab)
        await tab.until(f"{tile('Calls')} === '10'")
        found = "[...document.querySelectorAll('main a')].map((one) => one.getAttribute('href'))"
        links = await tab.js(found)
        for href, rows in (
            ("#calls/minutes=5", 10),
            ("#calls/error=*&minutes=5", 5),
            ("#calls/retried=true&minutes=5", 1),  # the row that says: none
            ("#calls/ttft=*&minutes=5", 5),
            ("#calls/tokens_out=*&minutes=5", 5),
            ("#calls/status=2xx", 5),
            ("#calls/status=4xx", 5),
            ("#calls/status=5xx", 1),
        ):
            assert href in links
            await tab.js(f"location.hash = {href!r}")
            await tab.until(f"document.querySelectorAll('main tbody tr').length === {rows}")
        for href in {*links} - {href for href in links if href.startswith("#calls")}:
            await tab.js(f"location.hash = {href!r}")
            await tab.until("document.querySelector('main tbody td:not(.quiet)')")
            assert not await tab.js("document.querySelector('[role=alert]')?.innerText")


async def test_the_configuration_is_edited_with_problems_at_their_lines_and_applied() -> None:
    editable = CONFIG.replace("admin: {ui: true", "admin: {edit: true, ui: true")
    for name in ("API_PORT", "ADMIN_PORT"):
        editable = editable.replace('"127.0.0.1:0"', f'"127.0.0.1:${{{name}}}"', 1)
    with serving(editable) as there:
        async with page() as tab:
            await tab.size(1280)
            await tab.open(f"{there.admin}/ui/#configuration")
            await sign_in(tab)
            value = await tab.until("document.querySelector('textarea[name=text]')?.value")
            assert value == there.path.read_text()
            lines = len(value.splitlines())
            field = "document.querySelector('textarea[name=text]')"

            async def append(text: str) -> None:
                await tab.js(
                    f"({field}.focus(), {field}.setSelectionRange({field}.value.length, {field}.value.length))"
                )
                await tab.send("Input.insertText", text=text)

            await append("  third: {tiers: [[{upstream: nobody, model: x}]]}\n")
            await tab.until("document.querySelector('.places .link')")
            assert (
                await tab.js("document.querySelector('.numbers .bad').textContent.trim()") == f"● {lines + 1}"
            )
            tall = "[...document.querySelectorAll('.numbers span')].map((one) => Math.round(one.getBoundingClientRect().top))"
            assert len({*(await tab.js(tall))}) == lines + 2  # one below the other
            await tab.picture("config-problem")
            button = "[...document.querySelectorAll('button')].find((one) => one.textContent === 'Write and apply')"
            assert await tab.js(f"{button}.disabled")
            await tab.js("document.querySelector('.places .link').click()")
            assert "nobody" in await tab.js(
                f"{field}.value.slice({field}.selectionStart, {field}.selectionEnd)"
            )
            await tab.send("Input.insertText", text="  third: {tiers: [[{upstream: echo, model: x}]]}")
            added = "[...document.querySelectorAll('.plus')].some((one) => one.innerText.includes('third'))"
            await tab.until(added)
            await tab.picture("config-diff")
            await tab.click("Write and apply")
            await tab.until("document.body.innerText.includes('the gateway follows it')")
            await tab.until("[...document.querySelectorAll('section')].at(-1).querySelector('.badge.good')")
            assert "third" in there.path.read_text()
            # somebody else has changed the file meanwhile: nothing is written
            other = there.path.read_text() + "# by somebody else\n"
            await append("# mine\n")
            there.path.write_text(other)
            await tab.click("Write and apply")
            await tab.until("document.querySelector('[role=alert]')?.innerText.includes('has been changed')")
            assert there.path.read_text() == other
            tab.problems = [
                problem for problem in tab.problems if "409" not in problem
            ]  # the browser says it, too
            assert not tab.problems


async def test_a_session_of_another_tab_and_one_that_has_ended_are_noticed() -> None:
    async with opened() as (tab, _):
        await sign_in(tab)
        await tab.until(f"{tile('Calls')} === '0'")
        # another tab signs in anew: the cookie is another session's, and this page's token with it
        body = f"JSON.stringify({{key: {KEY!r}}})"
        headers = "{'content-type': 'application/json'}"
        await tab.js(
            f"fetch('session', {{method: 'POST', headers: {headers}, body: {body}}}).then((r) => r.status)"
        )
        await show(tab, "keys")
        await tab.until(
            "document.body.innerText.includes('1 in all') || document.querySelector('[role=alert]')"
        )
        await show(tab, "calls")
        await tab.until("document.body.innerText.includes('No calls since the start')")
        # the other tab signs out
        await show(tab, "overview")
        await tab.until(f"{tile('Calls')} === '0'")
        await tab.send("Network.clearBrowserCookies")
        await tab.js("new BroadcastChannel('sluice').postMessage('')")
        await tab.until("document.querySelector('input[name=key]')")
        # and in again
        await tab.js(
            f"fetch('session', {{method: 'POST', headers: {headers}, body: {body}}}).then((r) => r.status)"
        )
        await tab.js("new BroadcastChannel('sluice').postMessage('')")
        await tab.until(f"{tile('Calls')} === '0'")
        tab.problems = [
            problem for problem in tab.problems if "401" not in problem
        ]  # the browser says it, too


async def test_a_gateway_that_is_gone_is_told_and_one_that_is_started_again_asks_to_sign_in() -> None:
    with create_server(("127.0.0.1", 0)) as probe:  # a free port, for both
        port = probe.getsockname()[1]
    config = CONFIG.replace('admin_listen: "127.0.0.1:0"', f'admin_listen: "127.0.0.1:{port}"')
    async with page() as tab:
        async with gateway(config) as there:
            await tab.size(1280)
            await tab.open(f"{there.admin_url}/ui/")
            await sign_in(tab)
            await tab.until(f"{tile('Calls')} === '0'")
        await tab.until("document.querySelector('[role=alert]')?.innerText.includes('cannot be reached')")
        assert "not live" in await tab.js("document.querySelector('main .head').innerText")
        async with gateway(config):
            await tab.until("document.querySelector('input[name=key]')")
            await sign_in(tab)
            await tab.until(f"{tile('Calls')} === '0'")


async def test_one_key_of_many_is_found_by_its_id() -> None:
    async with opened() as (tab, there):
        async with aiohttp.ClientSession(headers={"x-admin-api-key": KEY}) as session:
            for number in range(250):
                made = {"id": f"team-{number:03}", "limits": {"budget": {"month": 1}}}
                async with session.post(f"{there.admin_url}/admin/keys", json=made) as answer:
                    assert answer.status == 201
        await sign_in(tab)
        await show(tab, "keys")
        await tab.until("document.body.innerText.includes('The first 200 whose budgets these are')")
        await tab.until("document.querySelector('main section input')")
        await tab.type("main section input", "team-17")
        await tab.press("Enter", 13, "\r")
        first = "document.querySelector('main section td b').textContent"
        await tab.until(f"{first} === 'team-170'")
        await tab.click("Back")
        await tab.until(f"{first} !== 'team-170'")
