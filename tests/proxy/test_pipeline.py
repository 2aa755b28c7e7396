"""The pipeline over a transport that a test drives: any order of chunk, cut, stall, error, slow reader and
leaving client keeps the grammar (one start, no text after the end, one end), loses and doubles no text, and
leaves nothing behind."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sluice.config.types import Hedge
from sluice.config.units import Seconds
from sluice.errors import GatewayError, UpstreamError
from sluice.model.events import StreamEvent
from sluice.proxy.call import Call
from sluice_plugins.openai.stream import ChunkDecoder
from tests.proxy.scripts import (
    ANSWER,
    ENDING,
    OPENING,
    WORDS,
    Client,
    Ending,
    Scene,
    Script,
    Scripted,
    begun,
    frame,
)

REFUSALS = [
    "",
    "",
    "",
    "connect_error",
    "server_error",
    "rate_limited",
    "reset",
    "headers_timeout",
    "bad_request",
]
SCRIPTS = st.builds(
    Script,
    refusal=st.sampled_from(REFUSALS),
    words=st.integers(0, len(WORDS)),
    ending=st.sampled_from(["done", "done", "cut", "stall", "error", "garbage", "end", "eof"]),
)


def complete(script: Script) -> bool:
    return script.ending in ("done", "eof")


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    scripts=st.lists(SCRIPTS, min_size=1, max_size=5),
    recovery=st.sampled_from(["error", "continue"]),
    leave_after=st.integers(0, 30),
    frontend=st.sampled_from(["widget", "openai"]),
)
def test_any_order_of_what_can_happen_keeps_the_grammar(
    scripts: list[Script], recovery: Literal["error", "continue"], leave_after: int, frontend: str
) -> None:
    asyncio.run(one_call(scripts, recovery, leave_after, frontend))


async def one_call(
    scripts: list[Script], recovery: Literal["error", "continue"], leave_after: int, frontend: str
) -> None:
    scene = Scene(list(scripts), recovery=recovery)
    call = scene.call(frontend)
    task = asyncio.create_task(scene.pipeline.answer(call, scene.client))
    await scene.play(task, leave_after or 10_000)
    left = not task.done()
    if left:
        task.cancel()
    [outcome] = await asyncio.gather(task, return_exceptions=True)
    assert outcome is None or isinstance(outcome, GatewayError | asyncio.CancelledError), repr(outcome)

    assert scene.world.open == 0, "every upstream call was closed"
    assert not scene.pipeline.runs
    assert all(target.load.in_flight == 0 for target in scene.targets)
    assert call.end
    assert all(attempt.outcome for attempt in call.attempts)
    assert len(call.attempts) <= 6
    if frontend == "widget":
        check_lines(scene.client, call, outcome, left)
    else:
        check_frames(scene.client, outcome, left)


async def test_thoughts_that_a_client_does_not_get_are_not_its_first_token() -> None:
    """And its first token is counted, though the model had begun to answer before."""
    scene = Scene([Script()])
    call = scene.call("widget")
    task = asyncio.create_task(scene.pipeline.answer(call, scene.client))
    while not scene.world.responses or scene.world.responses[0].sink is None:
        await asyncio.sleep(0)
    [response] = scene.world.responses
    scene.world.now += 1
    response.push(frame({"reasoning_content": "Hm"}))
    assert call.ttft is None
    scene.world.now += 1
    response.push(frame({"content": "Hi"}))
    assert call.ttft == 2
    assert call.attempts[0].first_token == 1
    response.push(ENDING)
    response.finish()
    await task


def check_lines(client: Client, call: Call, outcome: object, left: bool) -> None:
    types = [line["type"] for line in client.lines]
    assert types[:1] == ["start"]
    assert types.count("start") == 1
    tokens = "".join(line["token"] for line in client.lines if line["type"] == "token")
    assert ANSWER.startswith(tokens), "no text is lost within, doubled or reordered"
    assert call.text == tokens
    ends = [kind for kind in types if kind in ("done", "error")]
    if client.ends:
        assert len(ends) == 1
        assert types[-1] == ends[0]
    else:
        assert not ends
        assert left or outcome is not None
    if "done" in ends:
        assert client.lines[-1]["message"] == tokens.strip()
        assert call.end == "done"


def check_frames(client: Client, outcome: object, left: bool) -> None:
    frames = [part.removeprefix(b"data: ") for part in client.data.split(b"\n\n") if part]
    texts = [json.loads(part) for part in frames if part != b"[DONE]"]
    tokens = "".join(
        chunk["choices"][0]["delta"].get("content") or "" for chunk in texts if chunk.get("choices")
    )
    assert ANSWER.startswith(tokens)
    errors = sum("error" in chunk for chunk in texts)
    assert errors + frames.count(b"[DONE]") == client.ends
    if not client.ends:
        assert left or outcome is not None


@pytest.mark.parametrize("ending", ["cut", "stall", "error", "end"])
@pytest.mark.parametrize("words", range(1, 6))
async def test_a_cut_stream_is_continued_without_a_seam(ending: Ending, words: int) -> None:
    scene = Scene([Script(words=words, ending=ending), Script()], recovery="continue")
    call = scene.call()
    task = asyncio.create_task(scene.pipeline.answer(call, scene.client))
    await scene.play(task, 10_000)
    await task
    assert scene.client.lines[-1]["message"] == ANSWER.strip()
    assert [line["token"] for line in scene.client.lines if line["type"] == "token"][:words] == WORDS[:words]
    assert call.end == "done"
    assert [attempt.outcome for attempt in call.attempts][-1] == "ok"


async def test_a_hedge_leaves_one_winner_and_one_abandoned() -> None:
    scene = Scene([Script(), Script()], hedge=Hedge(after=Seconds(0)))
    call = scene.call()
    task = asyncio.create_task(scene.pipeline.answer(call, scene.client))
    while len(scene.world.responses) < 2 or not all(response.sink for response in scene.world.responses):
        await asyncio.sleep(0)
    first, second = scene.world.responses
    second.push(OPENING + frame({"content": ANSWER}))
    first.push(OPENING + frame({"content": "late"}))
    while scene.world.open > 1:
        await asyncio.sleep(0)
    assert scene.client.upstream is second, (
        "a client that does not read holds the winner up, also when the other has gone"
    )
    second.push(ENDING)
    second.finish()
    await task
    assert scene.client.lines[-1]["message"] == ANSWER.strip()
    assert sorted(attempt.outcome for attempt in call.attempts) == ["abandoned", "ok"]
    assert scene.world.open == 0


@pytest.mark.parametrize("frontend", ["widget", "openai"])
async def test_an_answer_is_complete_even_if_the_client_leaves_before_the_upstreams_body_ends(
    frontend: str,
) -> None:
    scene = Scene([Script()])
    call = scene.call(frontend)
    task = asyncio.create_task(scene.pipeline.answer(call, scene.client))
    while not scene.world.responses or scene.world.responses[0].sink is None:
        await asyncio.sleep(0)
    scene.world.responses[0].push(OPENING + frame({"content": ANSWER}) + ENDING)
    assert scene.client.ends == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert call.end == "done"
    assert [attempt.outcome for attempt in call.attempts] == ["ok"]


@pytest.mark.parametrize("frontend", ["widget", "openai"])
async def test_a_fault_of_ours_is_an_error_like_any_other(
    frontend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashes: list[str] = []
    scene = Scene([Script()])
    scene.pipeline.crashed = lambda crash, request_id: crashes.append(type(crash).__name__)
    monkeypatch.setattr(Scripted, "send", lambda *_, **__: {}["nothing"])
    call = scene.call(frontend)
    if frontend == "widget":
        await scene.pipeline.answer(call, scene.client)
        assert [line["type"] for line in scene.client.lines] == ["start", "error"]
    else:
        with pytest.raises(GatewayError):
            await scene.pipeline.answer(call, scene.client)
    assert (call.end, crashes) == ("internal_error", ["KeyError"])


async def test_the_whole_calls_deadline_covers_waiting_and_the_waiting_client_is_kept_alive() -> None:
    scene = Scene([Script()], timeout=Seconds(0.05))

    @asynccontextmanager
    async def waits(call: Call) -> AsyncIterator[None]:
        scene.world.now += 20
        scene.pipeline.tick(scene.world.now)
        await asyncio.Event().wait()
        yield

    scene.pipeline.policies = [waits]
    scene.route = msgspec.structs.replace(
        scene.route, config=msgspec.structs.replace(scene.route.config, heartbeat=Seconds(15))
    )
    call = scene.call()
    await scene.pipeline.answer(call, scene.client)
    assert scene.client.data.startswith(b"\n"), "a heartbeat while it waits"
    assert scene.client.lines[-1]["code"] == "total_timeout"
    assert call.end == "total_timeout"


async def test_reasoning_that_was_cut_is_said_once_and_so_is_the_role() -> None:
    scene = Scene([Script(), Script()], recovery="continue")
    task = asyncio.create_task(scene.pipeline.answer(scene.call("openai"), scene.client))
    await begun(scene, 1)
    scene.world.responses[0].push(OPENING + frame({"reasoning_content": "let me think"}))
    scene.world.responses[0].finish()
    await begun(scene, 2)
    scene.world.responses[1].push(
        OPENING + frame({"reasoning_content": "let me think"}) + frame({"content": ANSWER}) + ENDING
    )
    scene.world.responses[1].finish()
    await task
    for once in (b'"role":', b"let me think", ANSWER.encode(), b"[DONE]"):
        assert scene.client.data.replace(b": ", b":").count(once) == 1


async def much_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the event loop's clock, whose timers are due now."""
    loop = asyncio.get_running_loop()
    ahead = loop.time() + 10_000
    monkeypatch.setattr(loop, "time", lambda: ahead)
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_answer_that_is_not_streamed_is_not_hedged_once_it_has_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene([Script(), Script()], hedge=Hedge(after=Seconds(1000)))
    call = scene.call("openai")
    call.chat.stream = False
    task = asyncio.create_task(scene.pipeline.answer(call, scene.client))
    await begun(scene, 1)
    scene.world.responses[0].push(OPENING + frame({"content": ANSWER}))
    await much_later(monkeypatch)
    scene.world.responses[0].push(ENDING)
    scene.world.responses[0].finish()
    await task
    assert [attempt.outcome for attempt in call.attempts] == ["ok"]


async def test_a_target_that_is_silent_until_the_alias_deadline_has_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene([Script()], timeout=Seconds(1000))
    call = scene.call("openai")
    task = asyncio.create_task(scene.pipeline.answer(call, scene.client))
    await begun(scene, 1)
    scene.world.now += 1001
    await much_later(monkeypatch)
    with pytest.raises(UpstreamError, match="too long"):
        await task
    assert [attempt.outcome for attempt in call.attempts] == ["total_timeout"]
    assert not scene.targets[0].health.healthy()


async def test_a_decoder_that_fails_is_a_fault_of_ours_and_another_target_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    feed = ChunkDecoder.feed

    def fails_once(decoder: ChunkDecoder, data: bytes) -> list[StreamEvent]:
        monkeypatch.setattr(ChunkDecoder, "feed", feed)
        raise RecursionError

    scene = Scene([Script(), Script(words=2)])
    crashes: list[str] = []
    scene.pipeline.crashed = lambda crash, request_id: crashes.append(type(crash).__name__)
    monkeypatch.setattr(ChunkDecoder, "feed", fails_once)
    call = scene.call()
    task = asyncio.create_task(scene.pipeline.answer(call, scene.client))
    await scene.play(task, 100)
    await task
    assert (call.end, [attempt.outcome for attempt in call.attempts]) == ("done", ["garbled", "ok"])
    assert crashes == ["RecursionError"]
