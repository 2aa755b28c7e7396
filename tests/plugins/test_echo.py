"""The embedded model: what it says, when, and how it fails on purpose."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from sluice.backends.transport import UpstreamResponse
from sluice.config.types import Seconds
from sluice.errors import UpstreamError
from sluice.model.chat import ChatRequest, Message, Role, Sampling, Text
from sluice.model.events import Finished, Started, StreamEvent, TextDelta, Usage
from sluice_plugins.echo import Echo
from tests.wire import cuts


def said(role: Role, text: str) -> Message:
    return Message(role=role, parts=(Text(text),))


def chat(*messages: Message, **more: Any) -> ChatRequest:
    return ChatRequest(
        dialect="widget", model=None, messages=messages or (said("user", "Hello big world"),), **more
    )


async def pumped(echo: Echo, asked: ChatRequest) -> list[bytes]:
    reads: list[bytes] = []
    async with echo.transport().send(echo.request(asked, "echo-1"), connect=1, headers=1) as response:
        assert response.status == 200
        await response.pump(reads.append)
    return reads


def decoded(reads: list[bytes]) -> list[StreamEvent]:
    decoder = Echo().decoder()
    events = [event for read in reads for event in decoder.feed(read)]
    return events + decoder.close()


async def answer(echo: Echo, asked: ChatRequest) -> list[StreamEvent]:
    return decoded(await pumped(echo, asked))


def words(events: list[StreamEvent]) -> list[str]:
    return [event.text for event in events if isinstance(event, TextDelta)]


async def test_says_back_what_was_said_word_by_word() -> None:
    assert await answer(Echo(), chat()) == [
        Started(model="echo-1"),
        *(TextDelta(word) for word in ("You", " said:", " Hello", " big", " world")),
        Finished("stop", Usage(3, 5), "stop"),
    ]


async def test_a_later_turn_shows_that_the_history_arrived() -> None:
    asked = chat(said("user", "one"), said("assistant", "You said: one"), said("user", "two"))
    assert "".join(words(await answer(Echo(), asked))) == "Turn 2, you said: two"


@pytest.mark.parametrize(
    ("echo", "message", "expected"),
    [
        (Echo(tokens=3), "Hi", "tok0 tok1 tok2"),
        (Echo(tokens=3), "please tokens=2", "tok0 tok1"),
        (Echo(), "tokens=4 gap_us=0 ttft_us=0", "tok0 tok1 tok2 tok3"),
        (Echo(delay=Seconds(9)), "tokens=2 delay_ms=0", "tok0 tok1"),
        (Echo(text="Always this."), "Hi", "Always this."),
        (Echo(text=""), "Hi", ""),
        (Echo(), "two  spaces\nand a line", "You said: two  spaces\nand a line"),
    ],
)
async def test_what_it_says_is_settable(echo: Echo, message: str, expected: str) -> None:
    assert "".join(words(await answer(echo, chat(said("user", message))))) == expected


@pytest.mark.parametrize("message", ["Hello big world", "tokens=100"])
async def test_max_tokens_ends_it_early(message: str) -> None:
    events = await answer(Echo(), chat(said("user", message), sampling=Sampling(max_tokens=2)))
    assert len(words(events)) == 2
    assert isinstance(events[-1], Finished)
    assert (events[-1].reason, events[-1].usage and events[-1].usage.output) == ("length", 2)


async def test_max_tokens_that_is_just_enough_is_no_early_end() -> None:
    events = await answer(Echo(tokens=2), chat(sampling=Sampling(max_tokens=2)))
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "stop"


async def test_a_long_blank_message_costs_no_time() -> None:
    assert words(await answer(Echo(), chat(said("user", " " * 1_000_000)))) == ["You", " said:"]


async def test_the_same_question_gets_the_same_bytes() -> None:
    assert await pumped(Echo(), chat()) == await pumped(Echo(), chat())


async def test_its_stream_says_the_same_in_every_cut() -> None:
    reads = await pumped(Echo(), chat(said("user", "Grüß dich 🌍")))
    for other in cuts.exhaustive(b"".join(reads)):
        assert decoded(other) == decoded(reads)


async def test_waits_before_the_first_token_and_between_the_others() -> None:
    clock = asyncio.get_running_loop().time
    times: list[float] = []
    echo = Echo(tokens=3, first_token_delay=Seconds(0.02), delay=Seconds(0.01))
    async with echo.transport().send(echo.request(chat(), "m"), connect=1, headers=1) as response:
        await response.pump(lambda data: times.append(clock()))
    began, *tokens = times[:4]
    assert [at >= began + wait - 0.002 for at, wait in zip(tokens, (0.02, 0.03, 0.04), strict=True)] == [
        True
    ] * 3


# ---- from outside


async def pumping(echo: Echo, while_open: Callable[[UpstreamResponse, list[bytes]], Any]) -> list[bytes]:
    """Pump, and hand each read to `while_open` along with the response."""
    reads: list[bytes] = []
    async with echo.transport().send(echo.request(chat(), "m"), connect=1, headers=1) as response:

        def sink(data: bytes) -> None:
            reads.append(data)
            while_open(response, reads)

        await response.pump(sink)
    return reads


async def test_a_paused_answer_waits_for_resume() -> None:
    loop = asyncio.get_running_loop()
    resumed = False

    def pause(response: UpstreamResponse, reads: list[bytes]) -> None:
        nonlocal resumed
        if len(reads) == 2:
            response.pause()
            loop.call_later(0.01, resume, response)
        if len(reads) == 3:
            assert resumed

    def resume(response: UpstreamResponse) -> None:
        nonlocal resumed
        resumed = True
        response.resume()

    assert decoded(await pumping(Echo(tokens=4), pause))[-1] == Finished("stop", Usage(3, 4), "stop")


@pytest.mark.parametrize("echo", [Echo(tokens=4), Echo(delay=Seconds(60)), Echo(fail="stall")])
async def test_abort_ends_it_at_once_in_every_phase(echo: Echo) -> None:
    error = UpstreamError("total_timeout")
    async with echo.transport().send(echo.request(chat(), "m"), connect=1, headers=1) as response:
        asyncio.get_running_loop().call_soon(response.abort, error)
        with pytest.raises(UpstreamError) as raised:
            await asyncio.wait_for(response.pump(lambda data: None), 5)
    assert raised.value is error


async def test_abort_ends_a_paused_answer() -> None:
    error = UpstreamError("idle_timeout")

    def stop(response: UpstreamResponse, reads: list[bytes]) -> None:
        response.pause()
        asyncio.get_running_loop().call_soon(response.abort, error)

    with pytest.raises(UpstreamError):
        await asyncio.wait_for(pumping(Echo(tokens=4), stop), 5)


async def test_cancelling_leaves_no_timer_behind() -> None:
    echo = Echo(delay=Seconds(60))
    async with echo.transport().send(echo.request(chat(), "m"), connect=1, headers=1) as response:
        began = asyncio.Event()
        task = asyncio.create_task(response.pump(lambda data: began.set()))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    response.resume()
    response.abort(UpstreamError("reset"))


# ---- on purpose


async def test_fails_to_connect_on_purpose() -> None:
    echo = Echo(fail="connect_error")
    with pytest.raises(UpstreamError) as raised:
        await pumped(echo, chat())
    assert raised.value.kind == "connect_error"


@pytest.mark.parametrize(("fail", "status"), [("rate_limited", 429), ("overloaded", 503)])
async def test_refuses_on_purpose(fail: Any, status: int) -> None:
    echo = Echo(fail=fail)
    async with echo.transport().send(echo.request(chat(), "m"), connect=1, headers=1) as response:
        error = echo.error(response.status, response.headers, await response.read(100))
    assert (error.status, error.kind) == (status, fail)


@pytest.mark.parametrize("fail", ["truncated", "stream_error"])
async def test_breaks_in_the_middle_on_purpose(fail: Any) -> None:
    reads = await pumped(Echo(tokens=4, fail=fail), chat())
    with pytest.raises(UpstreamError) as raised:
        decoded(reads)
    assert raised.value.kind == fail
    assert len(reads) >= 3


@pytest.mark.parametrize("line", [b"nonsense\n", b"[1]\n", b'{"type":"other"}\n'])
def test_what_is_not_its_own_is_garbled(line: bytes) -> None:
    with pytest.raises(UpstreamError, match="could not be understood"):
        Echo().decoder().feed(line)
