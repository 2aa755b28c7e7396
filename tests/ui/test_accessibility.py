"""Every page breaks no rule of axe-core's: in both themes, on a phone's width, with its dialogs open, and the
widget's demo."""

import pytest

from tests.ui.axe import source, violations
from tests.ui.chromium import page
from tests.ui.test_in_chromium import PAGES, opened, show, sign_in, use
from tests.ui.test_widget_in_chromium import demonstrated

FILLED = {
    "overview": ".tile b",
    "aliases": "td",
    "playground": "form select",
    "keys": "td b",
    "usage": "canvas",
    "calls": "td button",
    "conversations": "td a",
    "configuration": "pre",
}
"""What a page has once it shows what it was loaded for."""
LOOKS = [(1280, False), (1280, True), (360, False)]


@pytest.mark.parametrize(("width", "dark"), LOOKS)
async def test_no_page_breaks_a_rule(width: int, dark: bool) -> None:
    source()
    async with opened() as (tab, there):
        await use(there)
        await tab.size(width, dark=dark)
        await tab.until("document.querySelector('input[name=key]')")
        assert await violations(tab) == []
        await sign_in(tab)
        for name in PAGES:
            await show(tab, name)
            await tab.until(f"document.querySelector('main {FILLED[name]}')")
            assert await violations(tab) == [], name
        await show(tab, "conversations")
        await tab.until("document.querySelector('td a')")
        await tab.js("document.querySelector('td a').click()")
        await tab.until("document.querySelector('.turn')")
        assert await violations(tab) == []


async def test_what_has_the_focus_by_keyboard_is_seen_to_have_it() -> None:
    async with opened() as (tab, _):
        await tab.send("Emulation.setFocusEmulationEnabled", enabled=True)
        await sign_in(tab)
        for name in PAGES:
            await show(tab, name)
            await tab.js("document.activeElement.blur()")
            for _stop in range(12):
                await tab.press("Tab", 9)
                seen = await tab.js(
                    "[document.activeElement, document.activeElement.closest('.editor')].filter(Boolean)"
                    ".some((one) => getComputedStyle(one).outlineStyle !== 'none' || one.matches('.editor'))"
                )
                outer = "document.activeElement.outerHTML.slice(0, 200)"
                assert seen or await tab.js("document.activeElement === document.body"), await tab.js(outer)


async def test_no_dialog_and_no_answer_breaks_a_rule() -> None:
    source()
    async with opened() as (tab, there):
        await use(there)
        await sign_in(tab)
        await show(tab, "keys")
        await tab.click("Make a key")
        assert await violations(tab) == []
        await tab.type("dialog input[name=id]", "shop-1")
        await tab.click("Make the key")
        await tab.until("document.querySelector('#new-key')")
        assert await violations(tab) == []
        await tab.press("Escape", 27)
        await tab.until("!document.querySelector('dialog')")
        for verb in ("Change", "Rotate", "Delete"):
            await tab.click(verb)
            await tab.until("document.querySelector('dialog form')")
            assert await violations(tab) == [], verb
            await tab.press("Escape", 27)
            await tab.until("!document.querySelector('dialog')")
        await show(tab, "calls")
        await tab.until("document.querySelector('td button')")
        await tab.js("document.querySelector('td button').click()")
        await tab.until("document.querySelector('dialog pre')")
        assert await violations(tab) == []
        await tab.press("Escape", 27)
        await show(tab, "playground")
        await tab.until("document.querySelectorAll('form select').length === 4")
        await tab.type("form textarea", "one two three")
        await tab.click("Send")
        await tab.until("document.querySelector('#answer').innerText.includes('three')")
        assert await violations(tab) == []
        await show(tab, "configuration")
        await tab.until("document.querySelector('textarea[name=text]')")
        await tab.type("textarea[name=text]", "upstreams: {a: {backend: nobody}}")
        await tab.until("document.body.innerText.includes('nobody')")
        assert await violations(tab) == []
        await show(tab, "aliases")
        await tab.click("Explain")
        await tab.until("document.querySelector('pre')")
        assert await violations(tab) == []


async def test_the_demo_and_its_widget_break_no_rule() -> None:
    source()
    async with page() as tab, demonstrated() as there:
        await tab.open(f"{there.url}/demo")
        await tab.until("document.querySelector('sluice-chat')?.shadowRoot?.querySelector('textarea')")
        assert await violations(tab) == []
