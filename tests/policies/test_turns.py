"""One turn of a conversation: the history before it, its place in the queue, and what is kept of it."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from sluice.config.types import Alias, History
from sluice.conversations import Turn
from sluice.conversations.memory import MemoryConversations
from sluice.conversations.turnstile import Turnstile
from sluice.frontends.widget.dialect import Widget
from sluice.identity.principal import Principal
from sluice.model.chat import ChatRequest, Message, Text, Thought
from sluice.policies.turns import MAX_THOUGHTS, Turns
from sluice.proxy.call import Call
from sluice.proxy.target import Route
from sluice.routing.failover import RetryPolicy
from sluice.telemetry.metrics import CallSeries, Metrics


class Waiting(MemoryConversations):
    """A store that has to wait, until `gate` is open, and fails where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.fails: Exception | None = None

    def append_now(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> bool:
        return False

    async def append(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> None:
        await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        assert super().append_now(tenant, session, id, turns)


class Desk:
    """Turns over a store, at the time 7; `failed` are the operations that did."""

    def __init__(self, store: MemoryConversations | None = None, **alias: Any) -> None:
        self.store = store or MemoryConversations()
        self.failed: list[tuple[str, str]] = []
        self.turns = Turns(
            self.store,
            Turnstile(),
            lambda: 7.0,
            lambda operation, error: self.failed.append((operation, type(error).__name__)),
            patience=0.01,
        )
        self.waited: list[int] = []
        config = Alias(tiers=(), **alias)
        self.route = Route("chat", config, [], RetryPolicy(), None, None, waiting=self.waited.append)
        self.series = CallSeries(Metrics("test"), "widget", "chat")

    def call(self, message: str, session: str | None = "s") -> Call:
        chat = ChatRequest("", "chat", (Message("user", (Text(message),)),), session=session)
        principal = Principal("k", "tenant", "k", frozenset("*"))
        return Call("id", 0.0, Widget(), principal, self.route, chat, self.series)

    async def turn(
        self, message: str, answer: str, end: str = "done", *, complete_before: bool = True
    ) -> Call:
        """One call through the policy; its end is written as the run would."""
        call = self.call(message)
        policy = self.turns(call)
        assert policy is not None
        async with policy:
            if complete_before and call.store_turn is not None and end == "done":
                call.store_turn(answer)
            call.finish(end)
            call.text = answer
        return call

    async def kept(self, session: str = "s") -> list[tuple[str, str, bool]]:
        id = await self.store.open("tenant", session)
        return [(turn.role, turn.content, turn.interrupted) for turn in await self.store.recent(id, 100)]


def prompt(call: Call) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in call.chat.messages]


def test_a_call_without_a_session_is_none_of_its_business() -> None:
    desk = Desk()
    assert desk.turns(desk.call("hi", None)) is None


async def test_a_turn_is_kept_and_stands_before_the_next() -> None:
    desk = Desk(system="Be brief")
    first = await desk.turn("one", " You said one ")
    assert prompt(first) == [("system", "Be brief"), ("user", "one")]
    second = await desk.turn("two", "You said two")
    assert prompt(second) == [
        ("system", "Be brief"),
        ("user", "one"),
        ("assistant", "You said one"),
        ("user", "two"),
    ]
    assert first.conversation == second.conversation != ""
    assert await desk.kept() == [
        ("user", "one", False), ("assistant", "You said one", False),
        ("user", "two", False), ("assistant", "You said two", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("end", "interrupted"), [("done", False), ("length", False), ("truncated", True), ("client_gone", True)]
)
async def test_an_answer_that_was_cut_is_kept_as_what_was_delivered(end: str, interrupted: bool) -> None:
    desk = Desk()
    await desk.turn("one", "Half of", end, complete_before=False)
    assert await desk.kept() == [("user", "one", False), ("assistant", "Half of", interrupted)]


async def test_a_call_that_brought_nothing_leaves_nothing() -> None:
    desk = Desk()
    await desk.turn("one", "", "upstream_error")
    assert await desk.kept() == []


async def test_a_turn_is_stored_once() -> None:
    desk = Desk()
    call = desk.call("one")
    policy = desk.turns(call)
    assert policy is not None
    async with policy:
        assert call.store_turn is not None
        assert call.store_turn("whole") is None, "memory does not wait"
        call.finish("done")
        call.text = "another text"
    assert call.store_turn is None
    assert await desk.kept() == [("user", "one", False), ("assistant", "whole", False)]


async def test_turns_of_one_session_follow_one_another_and_say_that_they_wait() -> None:
    desk = Desk()
    first, second, other = desk.call("one"), desk.call("two"), desk.call("three", "t")
    order: list[str] = []
    gate = asyncio.Event()

    async def go(call: Call, name: str) -> None:
        policy = desk.turns(call)
        assert policy is not None
        async with policy:
            order.append(name)
            await gate.wait()
            call.finish("done")
            call.text = f"said {name}"

    tasks = [
        asyncio.create_task(go(call, name))
        for call, name in ((first, "one"), (second, "two"), (other, "three"))
    ]
    for _ in range(5):
        await asyncio.sleep(0)
    assert order == ["one", "three"]
    assert (first.phase, second.phase, other.phase) == ("admitting", "waiting", "admitting")
    gate.set()
    await asyncio.gather(*tasks)
    assert second.phase == "admitting"
    assert desk.waited == [1, -1]
    assert prompt(second) == [("user", "one"), ("assistant", "said one"), ("user", "two")]


async def test_a_turn_that_is_cancelled_while_it_waits_leaves_the_queue() -> None:
    desk = Desk()
    held = desk.turns(desk.call("one"))
    assert held is not None
    await held.__aenter__()
    waiting = asyncio.create_task(desk.turn("two", "x"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await held.__aexit__(None, None, None)
    assert (await desk.turn("three", "y")).text == "y"


async def test_a_store_that_is_down_costs_the_history_and_not_the_answer() -> None:
    class Down(MemoryConversations):
        async def open(self, tenant: str, session: str) -> str:
            raise OSError

    desk = Desk(Down())
    call = await desk.turn("one", "answered")
    assert ("x-sluice-history", "unavailable") in call.headers
    assert (call.conversation, desk.failed) == ("", [("open", "OSError")])
    assert prompt(call) == [("user", "one")]


async def test_the_next_turn_waits_until_the_one_before_is_stored() -> None:
    store = Waiting()
    desk = Desk(store)
    await desk.turn("one", "said one")
    following = asyncio.create_task(desk.turn("two", "said two"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not following.done()
    store.gate.set()
    assert prompt(await following)[:2] == [("user", "one"), ("assistant", "said one")]
    await desk.turns.close()


async def test_a_store_that_fails_keeps_no_session_waiting() -> None:
    store = Waiting()
    store.fails = ValueError("a fault of the store's")
    store.gate.set()
    desk = Desk(store)
    await desk.turn("one", "x")
    await desk.turn("two", "y")
    await desk.turns.close()
    assert desk.failed == [("append", "ValueError"), ("append", "ValueError")]
    assert await desk.kept() == []


async def test_closing_waits_for_what_is_being_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Waiting()
    desk = Desk(store)
    await desk.turn("one", "x")
    closing = asyncio.create_task(desk.turns.close())
    await asyncio.sleep(0)
    assert not closing.done()
    store.gate.set()
    await closing
    assert len(await desk.kept()) == 2
    monkeypatch.setattr("sluice.policies.turns.CLOSING", 0.0)
    store.gate.clear()
    await desk.turn("two", "y")
    await desk.turns.close()
    assert desk.failed == [("append", "TimeoutError")]


async def test_the_history_is_as_much_as_the_alias_allows_and_begins_with_a_user() -> None:
    desk = Desk(history=History(messages=3, tokens=1000))
    for name in ("one", "two"):
        await desk.turn(name, f"said {name}")
    assert prompt(await desk.turn("three", "x")) == [
        ("user", "two"),
        ("assistant", "said two"),
        ("user", "three"),
    ]
    brief = Desk(history=History(tokens=3))
    await brief.turn("one", "A long answer, far beyond a budget of twelve letters")
    assert prompt(await brief.turn("two", "x")) == [("user", "two")]


async def test_sealed_reasoning_comes_back_with_a_whole_history() -> None:
    desk = Desk()
    call = desk.call("one")
    policy = desk.turns(call)
    assert policy is not None
    async with policy:
        call.thoughts = [Thought("Hm", "seal", "")]
        assert call.store_turn is not None
        call.store_turn("said one")
        call.finish("done")
    following = await desk.turn("two", "x")
    assert following.chat.messages[1].thoughts == (Thought("Hm", "seal", ""),)
    large = desk.call("three", "large")
    policy = desk.turns(large)
    assert policy is not None
    async with policy:
        large.thoughts = [Thought("x" * MAX_THOUGHTS, "seal", "")]
        assert large.store_turn is not None
        large.store_turn("said three")
        large.finish("done")
    id = await desk.store.open("tenant", "large")
    assert (await desk.store.recent(id, 10))[-1].thoughts == "", "more than can be kept"
