"""A call in flight: which phase it says it is in, which deadline ends it, and for which reason it says it
ended."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import msgspec
import pytest

from sluice.config.types import Retry
from sluice.config.units import Seconds
from sluice.errors import GatewayError, NoCapacity, RateLimited, UpstreamError
from sluice.model.events import FinishReason
from sluice.proxy.call import ENDS, Call, Phase, end_of
from sluice.telemetry.table import END_REASONS
from tests.proxy.scripts import ANSWER, ENDING, OPENING, Client, Scene, Script, begun, frame

WORD = OPENING + frame({"content": ANSWER})


class Leaving(Client):
    """Its connection can be closed, which cancels the task that answers it."""

    task: "asyncio.Task[None] | None" = None

    def abort(self) -> None:
        assert self.task is not None
        self.task.cancel()


def started(scene: Scene, call: Call) -> "asyncio.Task[None]":
    client = scene.client = Leaving()
    client.task = asyncio.create_task(scene.pipeline.answer(call, client))
    return client.task


async def over(task: "asyncio.Task[None]") -> None:
    await asyncio.gather(task, return_exceptions=True)


def noting(seen: list[Phase]) -> Callable[[Call], AbstractAsyncContextManager[None]]:
    """A policy that notes the phase when it admits, and when it settles."""

    @asynccontextmanager
    async def policy(call: Call) -> AsyncIterator[None]:
        seen.append(call.phase)
        try:
            yield
        finally:
            seen.append(call.phase)

    return policy


async def test_a_call_says_which_phase_it_is_in() -> None:
    seen: list[Phase] = []
    scene = Scene([Script()])
    scene.pipeline.policies = [noting(seen)]
    call = scene.call()
    task = started(scene, call)
    await asyncio.sleep(0)
    assert call.phase == "connecting"
    await begun(scene, 1)
    response = scene.world.responses[0]
    assert call.phase == "first_token"
    response.push(OPENING)
    assert call.phase == "first_token", "a role is no content"
    response.push(frame({"content": ANSWER}))
    assert call.phase == "streaming"
    response.push(ENDING)
    response.finish()
    await task
    assert seen == ["admitting", "settling"]
    assert (call.phase, call.end) == ("over", "done")


async def test_a_call_that_waits_before_a_retry_says_so() -> None:
    seen: list[Phase] = []

    async def noted(seconds: float) -> None:
        seen.append(call.phase)
        await asyncio.sleep(0)

    scene = Scene([Script(refusal="server_error"), Script()], retry=Retry(backoff=Seconds(1)), sleep=noted)
    call = scene.call()
    task = started(scene, call)
    await scene.play(task, 100)
    await task
    assert (seen, call.end) == (["waiting"], "done")


async def test_a_call_that_waits_for_others_says_so_and_tells_its_alias() -> None:
    scene = Scene([Script()])
    told: list[int] = []
    scene.route = msgspec.structs.replace(scene.route, waiting=told.append)
    call = scene.call()
    call.waiting(1)
    assert call.phase == "waiting"
    call.waiting(-1)
    assert call.phase == "admitting"
    assert told == [1, -1]


async def test_the_end_of_an_answer_waits_for_its_turn_to_be_stored() -> None:
    scene = Scene([Script()])
    call = scene.call()
    stored = asyncio.get_running_loop().create_future()
    texts: list[str] = []

    async def storing() -> None:
        await stored

    def store(text: str) -> "asyncio.Task[None]":
        texts.append(text)
        return asyncio.create_task(storing())

    call.store_turn = store
    task = started(scene, call)
    await begun(scene, 1)
    scene.world.responses[0].push(WORD + ENDING)
    assert (call.phase, call.end, texts) == ("storing", "done", [ANSWER])
    assert scene.client.ends == 0
    stored.set_result(None)
    while not scene.client.ends:
        await asyncio.sleep(0)
    scene.world.responses[0].finish()
    await task
    assert scene.client.lines[-1]["type"] == "done"


async def test_an_answer_ends_though_its_turn_is_not_stored_by_then() -> None:
    scene = Scene([Script()])
    call = scene.call()

    async def never() -> None:
        await asyncio.Event().wait()

    storing = asyncio.create_task(never())
    call.store_turn = lambda text: storing
    task = started(scene, call)
    await begun(scene, 1)
    scene.world.responses[0].push(WORD + ENDING)
    scene.world.responses[0].finish()
    await task
    assert scene.client.lines[-1]["type"] == "done"
    storing.cancel()


# --- deadlines


async def ticked(scene: Scene, seconds: float) -> None:
    scene.world.now += seconds
    scene.pipeline.tick(scene.world.now)
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("reads", "end"),
    [
        ([], "first_token_timeout"),
        ([OPENING], "first_token_timeout"),
        ([WORD], "idle_timeout"),
    ],
)
async def test_silence_ends_a_call_by_the_deadline_of_its_phase(reads: list[bytes], end: str) -> None:
    scene = Scene([Script()])
    scene.route = msgspec.structs.replace(scene.route, tiers=scene.route.tiers[:1])
    call = scene.call()
    task = started(scene, call)
    await begun(scene, 1)
    for data in reads:
        scene.world.responses[0].push(data)
    await ticked(scene, 4.9)
    assert not call.end
    await ticked(scene, 0.2)
    await over(task)
    assert call.end == end
    assert call.attempts[0].outcome == end


async def test_content_moves_the_deadline_on() -> None:
    scene = Scene([Script()])
    call = scene.call()
    task = started(scene, call)
    await begun(scene, 1)
    scene.world.responses[0].push(WORD)
    for _ in range(5):
        await ticked(scene, 3)
        scene.world.responses[0].push(frame({"content": "more"}))
    scene.world.responses[0].push(ENDING)
    scene.world.responses[0].finish()
    await task
    assert call.end == "done"


async def test_an_upstream_that_does_not_end_its_body_is_closed_after_the_answer_s_end() -> None:
    scene = Scene([Script()])
    call = scene.call()
    task = started(scene, call)
    await begun(scene, 1)
    scene.world.responses[0].push(WORD + ENDING)
    await ticked(scene, 0.3)
    await task
    assert (call.end, call.attempts[0].outcome, scene.world.open) == ("done", "ok", 0)


async def test_a_client_that_reads_nothing_is_closed_and_is_not_its_upstream_s_silence() -> None:
    scene = Scene([Script()])
    call = scene.call()
    task = started(scene, call)
    await begun(scene, 1)
    scene.world.responses[0].push(WORD)
    scene.client.blocked_since = scene.world.now
    await ticked(scene, 59)
    assert not call.end
    await ticked(scene, 2)
    await over(task)
    assert (call.end, call.attempts[0].outcome) == ("slow_reader", "abandoned")
    assert scene.targets[0].health.healthy()


async def test_a_client_that_read_nothing_for_a_moment_costs_its_upstream_nothing() -> None:
    scene = Scene([Script()])
    call = scene.call()
    task = started(scene, call)
    await begun(scene, 1)
    scene.world.responses[0].push(WORD)
    scene.client.blocked_since = scene.world.now
    await ticked(scene, 30)
    scene.client.blocked_since = 0.0
    await ticked(scene, 4)
    scene.world.responses[0].push(ENDING)
    scene.world.responses[0].finish()
    await task
    assert call.end == "done"


async def test_a_stream_gets_heartbeats_while_it_is_silent() -> None:
    scene = Scene([Script()])
    scene.route = msgspec.structs.replace(
        scene.route, config=msgspec.structs.replace(scene.route.config, heartbeat=Seconds(2))
    )
    call = scene.call()
    task = started(scene, call)
    await begun(scene, 1)
    before = scene.client.data
    await ticked(scene, 1)
    assert scene.client.data == before
    await ticked(scene, 1)
    assert scene.client.data == before + b"\n"
    task.cancel()
    await over(task)


# --- ends


@pytest.mark.parametrize(("reason", "end"), ENDS.items())
async def test_a_complete_answer_ends_as_its_model_finished(reason: FinishReason, end: str) -> None:
    scene = Scene([Script()])
    call = scene.call()
    task = started(scene, call)
    await begun(scene, 1)
    scene.world.responses[0].push(WORD + frame({}, reason) + b"data: [DONE]\n\n")
    assert call.end == end, "known when the client has it"
    scene.world.responses[0].finish()
    await task
    assert (call.end, call.phase) == (end, "over")


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (RateLimited(1.0, scope="key", resource="requests"), "limit"),
        (NoCapacity(1.0, "requests"), "limit"),
        (UpstreamError("truncated"), "truncated"),
        (UpstreamError("headers_timeout"), "first_token_timeout"),
        (UpstreamError("total_timeout"), "total_timeout"),
        (UpstreamError("server_error"), "upstream_error"),
        (GatewayError(), "upstream_error"),
    ],
)
def test_an_error_has_its_end(error: GatewayError, end: str) -> None:
    assert end_of(error) == end
    assert end in END_REASONS


@pytest.mark.parametrize("when", ["connecting", "first_token", "streaming"])
async def test_a_client_that_leaves_ends_its_call_in_every_phase(when: Phase) -> None:
    scene = Scene([Script()])
    call = scene.call()
    task = started(scene, call)
    await asyncio.sleep(0)
    if when != "connecting":
        await begun(scene, 1)
    if when == "streaming":
        scene.world.responses[0].push(WORD)
    assert call.phase == when
    task.cancel()
    await over(task)
    assert (call.end, call.phase, scene.world.open) == ("client_gone", "over", 0)


async def test_a_process_that_leaves_ends_its_calls_in_band() -> None:
    scene = Scene([Script()])
    call = scene.call()
    task = started(scene, call)
    await begun(scene, 1)
    scene.world.responses[0].push(WORD)
    [run] = scene.pipeline.runs
    run.drain()
    await task
    assert call.end == "drain"
    assert scene.client.lines[-1]["type"] == "error"
    assert call.error is not None


async def test_the_first_reason_counts() -> None:
    """A process that leaves behind the end of an answer takes nothing from it, and neither does a fault while
    it settles."""
    crashes: list[str] = []
    scene = Scene([Script()])

    @asynccontextmanager
    async def faulty(call: Call) -> AsyncIterator[None]:
        yield
        raise KeyError

    scene.pipeline.policies = [faulty]
    scene.pipeline.crashed = lambda crash, request_id: crashes.append(type(crash).__name__)
    call = scene.call()
    task = started(scene, call)
    await begun(scene, 1)
    scene.world.responses[0].push(WORD + ENDING)
    scene.world.responses[0].finish()
    await task
    assert (call.end, crashes, scene.client.ends) == ("done", ["KeyError"], 1)
    call.finish("client_gone")
    assert call.end == "done"


async def test_what_the_client_holds_is_in_one_place() -> None:
    """Of one attempt while it answers, and of all that were cut before."""
    scene = Scene([Script(), Script()], recovery="continue")
    call = scene.call()
    task = started(scene, call)
    await begun(scene, 1)
    [run] = scene.pipeline.runs
    assert run.text == ""
    scene.world.responses[0].push(OPENING + frame({"content": "Hello"}))
    assert run.text == "Hello"
    scene.world.responses[0].finish()
    await begun(scene, 2)
    assert (run.text, run.resumes, run.winner) == ("Hello", True, None)
    scene.world.responses[1].push(OPENING + frame({"content": "Hello you"}) + ENDING)
    assert run.text == "Hello you"
    scene.world.responses[1].finish()
    await task
    assert call.text == "Hello you"
