"""The page of usage, in a browser: its plot is stacked by what is grouped, and the plot's legend, the table and
the CSV have the same figures."""

import asyncio
import csv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateways import HEAD, KEY, OnSluice, gateway
from tests.ui.chromium import HANG, Page, page
from tests.ui.test_in_chromium import sign_in

ALIASES = 12
NAMES = [f"alias-{number:02}" for number in range(ALIASES)]
CONFIG = (
    HEAD.replace("admin: {digest", "admin: {ui: true, digest").replace(
        "default_alias: chat", "default_alias: alias-00"
    )
    + "usage: {tags: {project: {header: x-project, most: 20}}}\n"
    + "prices: {models: {echo/m: {input: 1000, output: 2000}}}\n"
    + "upstreams: {echo: {backend: echo, delay: 0}}\naliases:\n"
    + "".join(f"  {name}: {{tiers: [[{{upstream: echo, model: m}}]]}}\n" for name in NAMES)
)
ENTRIES = (
    "Object.fromEntries([...document.querySelectorAll('.legend .entry')].map((one) => "
    "[one.querySelector('span').textContent, one.querySelector('b').textContent]))"
)
CELLS = (
    "[...document.querySelectorAll('table tr')].map((row) => [...row.children].map((cell) => "
    "cell.querySelector('[title]')?.title || cell.innerText.replace(' ▾', '')))"
)


UNPRICED = CONFIG.replace("echo/m: {", "another/m: {")


@asynccontextmanager
async def used(config: str = CONFIG) -> AsyncIterator[tuple[Page, OnSluice]]:
    """The page, signed in, after calls: one of the first alias, two of the second, and so on; a project for
    each third of them."""
    async with page() as tab, gateway(config) as there:
        async with aiohttp.ClientSession(headers={"x-api-key": KEY}) as session:
            for number, name in enumerate(NAMES):
                for _ in range(number + 1):
                    asked = {"model": name, "messages": [{"role": "user", "content": "four words are here"}]}
                    tag = {"x-project": f"project-{number % 3}"}
                    async with session.post(
                        there.url + "/v1/chat/completions", json=asked, headers=tag
                    ) as response:
                        assert response.status == 200
        await tab.size(1280)
        await tab.open(f"{there.admin_url}/ui/")
        await sign_in(tab)
        await tab.until("document.querySelector('nav')")
        yield tab, there
        assert not tab.problems


async def show(tab: Page, asked: str) -> dict[str, str]:
    """The entries of the plot's legend, once it is drawn."""
    first, last = (datetime.now(UTC).date() + timedelta(days) for days in (-2, 1))  # whatever midnight does
    await tab.js(f"location.hash = '#usage/from={first}&to={last}&{asked}'")
    await settled(tab)
    found: dict[str, str] = await tab.js(ENTRIES)
    return found


async def settled(tab: Page) -> None:
    """Waits until what is shown is what was asked for."""
    await tab.until("document.querySelector('tfoot') && !document.querySelector('[aria-busy=true]')")
    await tab.until("document.querySelector('.legend .when')?.textContent === 'in all'")


async def test_the_plot_has_the_largest_ones_and_the_others_in_one() -> None:
    async with used() as (tab, _):
        entries = await show(tab, "by=alias&figure=requests")
        largest = [f"alias-{number:02}" for number in range(ALIASES - 1, 3, -1)]
        assert [*entries] == [*largest, "4 others"]
        assert [*entries.values()] == [*(str(number) for number in range(12, 4, -1)), "10"]
        assert "each day" in await tab.js("document.querySelectorAll('h2')[0].textContent")
        await tab.picture("usage-stacked")
        rows = await tab.js(CELLS)
        assert [row[:2] for row in rows[1:]] == [
            *([name, str(number + 1)] for number, name in reversed([*enumerate(NAMES)])),
            ["Total", "78"],
        ]


@pytest.mark.parametrize(
    ("by", "series"),
    [("tag:project", ["project-2", "project-1", "project-0"]), ("key", ["test"]), ("model", ["echo/m"])],
)
async def test_each_grouping_has_its_series_by_day_and_by_hour(by: str, series: list[str]) -> None:
    async with used() as (tab, _):
        for figure in ("requests", "cost_usd", "output_tokens"):
            assert [*await show(tab, f"by={by}&figure={figure}")] == series
        if not by.startswith("tag:"):  # which is not kept by the hour
            await tab.click("Hour", "[aria-label=Each] button")
            await tab.until("document.querySelectorAll('h2')[0].textContent.includes('each hour')")
            await settled(tab)
            assert [*await tab.js(ENTRIES)] == series


async def test_the_file_has_what_the_table_has() -> None:
    with TemporaryDirectory() as folder:
        async with used() as (tab, _):
            await tab.send(
                "Browser.setDownloadBehavior",
                behavior="allow",
                downloadPath=folder,
                browserContextId=tab.context,
            )
            for by in ("alias", "day,alias,model", "hour,key", "tag:project"):
                await show(tab, f"by={by}&figure=requests")
                head, *rows, total = await tab.js(CELLS)
                await tab.click("Download CSV")
                told = await _downloaded(tab, Path(folder))
                assert len(head) == len(told[0]) - 1  # tokens without a price stand in the cost's cell
                plain = [[cell.replace(",", "") for cell in row] for row in rows]
                order = {name: at for at, name in enumerate(told[0])}
                shown = sorted(_of_table(row, len(by.split(","))) for row in plain)
                assert shown == sorted(_of_file(row, order, by.split(",")) for row in told[1:])
                assert sum(row[-2] for row in shown) == int(total[len(by.split(","))].replace(",", "")) == 78


async def test_calls_of_a_model_without_a_price_are_shown_without_a_cost() -> None:
    async with used(UNPRICED) as (tab, _):
        await show(tab, "by=alias&figure=requests")
        costs = await tab.js(
            "[...document.querySelectorAll('table tr')].slice(1).map((row) => row.lastChild.innerText)"
        )
        assert [*costs] == ["no price"] * (ALIASES + 1)
        assert "tokens have no known price: prices.models" in await tab.js("document.body.innerText")
        await tab.js("location.hash = '#usage'")  # whose plot is of something that there is
        await tab.until(
            "[...document.querySelectorAll('h2')].some((one) => one.innerText.startsWith('Calls, each'))"
        )
        await tab.click("Cost")
        await tab.until("document.body.innerText.includes('No known price: prices.models gives models one')")
        await tab.js("location.hash = '#overview'")
        await tab.until("document.body.innerText.includes('tokens without a price')")
        assert "$0" not in await tab.js("document.querySelector('main').innerText")


async def _downloaded(tab: Page, folder: Path) -> list[list[str]]:
    """The rows of the file that has been downloaded; it is deleted."""
    async with asyncio.timeout(HANG):
        while not (found := [*folder.glob("*.csv")]):
            await tab.js("new Promise((done) => setTimeout(done, 20))")
    [file] = found
    rows = [*csv.reader(file.read_text().splitlines())]
    file.unlink()
    return rows


FIGURES = (
    "requests", "errors", "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "estimated",
)  # fmt: skip
"""In the order of the table's columns, before the cost."""


def _of_table(row: list[str], names: int) -> tuple[Any, ...]:
    figures = dict(zip((*FIGURES, "cost_usd"), row[names:], strict=True))
    return (
        *row[:names],
        *(int(figures[name]) for name in FIGURES[1:]),
        int(figures["requests"]),
        _nanos(figures),
    )


def _of_file(row: list[str], order: dict[str, int], names: list[str]) -> tuple[Any, ...]:
    figures = {name: row[at] for name, at in order.items()}
    named = [figures[name] for name in names]
    return (*named, *(int(figures[name]) for name in FIGURES[1:]), int(figures["requests"]), _nanos(figures))


def _nanos(figures: dict[str, str]) -> int:
    return round(float(figures["cost_usd"].removeprefix("$")) * 1e9)
