"""The overview as an event stream: what it tells, when it ends, and how many may watch. No sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import pytest

from sluice.api import admin_live, admin_overview
from sluice.api.admin_live import MAX_STREAMS, AdminLive, Latest
from sluice.api.admin_overview import AdminOverview
from sluice.api.admin_requests import AdminRequest, Streamed
from sluice.errors import Unavailable
from tests.api.serving import FakeRequest, Served
from tests.api.test_operators import ADMIN, ASKED, ask, operated

HANG = 30.0


def events(text: bytes) -> list[tuple[str, Any]]:
    """The events of a stream, with their data as JSON; comments and `retry` are left out."""
    found = []
    for block in text.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


@asynccontextmanager
async def watching(there: Served) -> AsyncIterator[FakeRequest]:
    request = FakeRequest("GET", "/admin/overview/live", headers=ADMIN, key="")

    async def answered() -> None:
        await there.operators(request)

    task = asyncio.create_task(answered())
    try:
        yield request
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(request: FakeRequest, name: str, **wanted: Any) -> Any:
    """The data of the first event of this name whose `recent`, or itself, has these values."""
    async with asyncio.timeout(HANG):
        while True:
            for kind, data in events(request.answer):
                of = data.get("recent", data)
                if kind == name and all(of.get(key) == value for key, value in wanted.items()):
                    return data
            await asyncio.sleep(0.01)


async def test_it_tells_what_the_overview_says_again_and_again() -> None:
    async with operated() as there, watching(there) as request:
        first = await until(request, "overview", calls=0)
        assert request.content_type == "text/event-stream"
        assert request.answer.startswith(b"retry: ")
        once = (await ask(there, "GET", "/admin/overview")).json
        assert {*first} == {*once}
        assert (await until(request, "errors"))["calls"] == []
        await there.ask("POST", "/v1/chat/completions", ASKED | {"stream": True})
        await there.ask("POST", "/v1/chat/completions", ASKED | {"model": "nobody"})
        told = await until(request, "overview", calls=2, errors=1)
        assert told["requests"]["4xx"] == 1
        assert told["recent"]["retried"] == 0
        assert told["recent"]["first_token_p50"] == told["recent"]["first_token_p95"] > 0
        assert told["recent"]["complete"]
        steps = told["recent"]["steps"]
        assert sum(step["calls"] for step in steps) == 2
        assert sum(step["errors"] for step in steps) == 1
        assert all(step["at"] % told["recent"]["step"] == 0 and step["at"] <= told["now"] for step in steps)
        assert {step["first_token_p50"] for step in steps} >= {told["recent"]["first_token_p50"]}
        async with asyncio.timeout(HANG):
            while [len(data["calls"]) for kind, data in events(request.answer) if kind == "errors"] != [0, 1]:
                await asyncio.sleep(0.01)


async def test_whoever_may_not_read_the_overview_gets_no_stream() -> None:
    async with operated() as there:
        request = FakeRequest("GET", "/admin/overview/live", key="")
        await there.operators(request)
        assert request.status == 401
        request = FakeRequest("GET", "/admin/overview/live", headers=ADMIN, key="")
        await there.clients(request)  # it is the admin port's alone
        assert request.status == 404


async def opened(live: AdminLive, until: float) -> Streamed:
    [route] = live.routes()
    streamed = await route.answer(AdminRequest("", {}, {}, {}, {}, until))
    assert isinstance(streamed, Streamed)
    return streamed


async def test_it_does_not_wait_for_a_store_of_usage_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its own deadline is longer than the stream's heartbeat, which would end each attempt to make the
    figures."""
    monkeypatch.setattr(admin_overview, "TODAY_PATIENCE", 0.01)
    async with operated() as there:
        with monkeypatch.context() as silent:
            silent.setattr(there.runtime.usage, "flush", asyncio.Event().wait)
            async with asyncio.timeout(HANG):
                found = await AdminOverview(there.runtime).figures()
        assert found["cost_today_usd"] is None
        assert found["workers"] == 1


async def test_it_ends_with_the_session_that_opened_it() -> None:
    now = 1000.0
    async with operated() as there:
        live = AdminLive(there.runtime, AdminOverview(there.runtime), lambda: now)
        async with aclosing((await opened(live, until=1001.0)).chunks) as chunks:
            assert (await anext(chunks)).startswith(b"retry")
            assert b"event: overview" in await anext(chunks)
            now = 1001.0
            assert [chunk async for chunk in chunks] == []


async def test_it_ends_when_another_configuration_is_used() -> None:
    async with operated() as there:
        live = AdminLive(there.runtime, AdminOverview(there.runtime))
        async with aclosing((await opened(live, until=float("inf"))).chunks) as chunks:
            await anext(chunks)
            await anext(chunks)
            there.runtime.superseded.set()
            async with asyncio.timeout(HANG):
                assert [chunk async for chunk in chunks] == []


async def test_so_many_may_watch_and_no_more() -> None:
    async with operated() as there:
        live = AdminLive(there.runtime, AdminOverview(there.runtime))
        async with AsyncExitStack() as stack:
            for _ in range(MAX_STREAMS):
                chunks = (await opened(live, until=float("inf"))).chunks
                await stack.enter_async_context(aclosing(chunks))
                await anext(chunks)
            with pytest.raises(Unavailable):
                await opened(live, until=float("inf"))
        await opened(live, until=float("inf"))


async def test_many_that_watch_ask_once_and_the_next_asks_where_one_was_cancelled() -> None:
    asked = 0
    go = asyncio.Event()

    async def make() -> dict[str, bytes]:
        nonlocal asked
        asked += 1
        await go.wait()
        return {"number": b"%d" % asked}

    latest = Latest(make, lambda: 0.0)
    tasks = [asyncio.create_task(latest.get()) for _ in range(5)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    go.set()
    found = await asyncio.gather(*tasks[1:])
    assert found == [{"number": b"2"}] * 4


async def test_silence_is_broken_while_the_other_processes_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_live, "HEARTBEAT", 0.01)
    async with operated() as there:
        overview = AdminOverview(there.runtime)
        live = AdminLive(there.runtime, overview)
        monkeypatch.setattr(overview, "figures", asyncio.Event().wait)
        async with aclosing((await opened(live, until=float("inf"))).chunks) as chunks:
            await anext(chunks)
            assert (await anext(chunks)).startswith(b": ")
            assert (await anext(chunks)).startswith(b": ")


async def test_a_supervisor_that_does_not_answer_is_told_and_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with operated() as there:
        overview = AdminOverview(there.runtime)
        live = AdminLive(there.runtime, overview)

        async def fail() -> dict[str, Any]:
            raise Unavailable("The supervisor does not answer")

        monkeypatch.setattr(overview, "figures", fail)
        async with aclosing((await opened(live, until=float("inf"))).chunks) as chunks:
            await anext(chunks)
            assert events(await anext(chunks)) == [("problem", {"error": "The supervisor does not answer"})]
            monkeypatch.undo()
            assert events(await anext(chunks))[0][0] == "overview"


async def test_a_client_that_reads_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_live, "SLOW_READER_SECONDS", 0.01)
    async with operated() as there:
        request = FakeRequest("GET", "/admin/overview/live", headers=ADMIN, key="")
        monkeypatch.setattr(request, "writable", asyncio.Event().wait)
        async with asyncio.timeout(HANG):
            await there.operators(request)
        assert request.aborted
