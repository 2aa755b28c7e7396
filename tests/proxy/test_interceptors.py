"""Interceptors around calls: in their order, answering by themselves, changing the request, watching."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from sluice.backends.transport import UpstreamResponse
from sluice.errors import BadRequest, Forbidden, GatewayError, UpstreamError
from sluice.model.chat import Message, Text, with_messages
from sluice.model.events import Finished, Started, StreamEvent, TextDelta, ToolCallDelta, ToolCallStarted
from sluice.proxy.interceptors import Interceptor, Next, by_alias, compose
from sluice.proxy.pipeline import Pipeline
from sluice.proxy.run import CallRun
from sluice.proxy.writer import ResponseWriter
from tests.proxy.scripts import ANSWER, Scene, Script

REPLY: list[StreamEvent] = [Started(model="memory"), TextDelta("po"), TextDelta("ng"), Finished("stop")]


def intercepted(scene: Scene, *interceptors: Interceptor) -> Pipeline:
    return Pipeline(
        [],
        clock=scene.world.clock,
        wall=lambda: 0.0,
        metrics=scene.metrics,
        chance=lambda: 0.5,
        sleep=scene.world.sleep,
        interceptors={"chat": interceptors},
    )


async def answered(scene: Scene, *interceptors: Interceptor, frontend: str = "widget") -> CallRun:
    """One call to its end; errors are raised. Returns its run."""
    runs: list[CallRun] = []

    async def noting(run: CallRun, next: Next) -> None:
        runs.append(run)
        await next(run)

    scene.pipeline = intercepted(scene, noting, *interceptors)
    task = asyncio.create_task(scene.pipeline.answer(scene.call(frontend), scene.client))
    await scene.play(task, 1000)
    await task
    return runs[0]


async def reply(run: CallRun, next: Next) -> None:
    run.reply(REPLY)


def test_without_interceptors_targets_are_asked_directly() -> None:
    async def ask(run: CallRun) -> None: ...

    assert by_alias({}, ask) is ask
    assert compose([], ask) is ask


async def test_interceptors_are_around_one_another_in_their_order() -> None:
    order: list[str] = []

    def named(name: str) -> Interceptor:
        async def intercept(run: CallRun, next: Next) -> None:
            order.append(name)
            await next(run)
            order.append(f"/{name}")

        return intercept

    run = await answered(Scene([Script()]), named("a"), named("b"))
    assert order == ["a", "b", "/b", "/a"]
    assert (run.call.end, run.call.text) == ("done", ANSWER)


async def test_an_alias_without_any_is_left_alone() -> None:
    scene = Scene([Script()])
    scene.route = msgspec.structs.replace(scene.route, name="other")
    scene.pipeline = intercepted(scene, reply)
    call = scene.call()
    task = asyncio.create_task(scene.pipeline.answer(call, scene.client))
    await scene.play(task, 1000)
    await task
    assert call.text == ANSWER


@pytest.mark.parametrize("frontend", ["widget", "openai"])
@pytest.mark.parametrize("stream", [True, False])
async def test_an_interceptor_answers_by_itself(frontend: str, stream: bool) -> None:
    scene = Scene([])
    scene.pipeline = intercepted(scene, reply)
    call = scene.call(frontend)
    call.chat.stream = stream
    stored: list[str] = []
    call.store_turn = stored.append  # type: ignore[assignment]
    scene.world.now += 1
    await scene.pipeline.answer(call, scene.client)
    assert scene.client.ends == 1
    assert b"po" in scene.client.data
    assert (call.end, call.phase, call.attempts, call.answered, call.cost) == ("done", "over", [], None, None)
    assert call.ttft == (1.0 if stream else None)
    assert stored == ["pong"], "it is a turn of its session like any other"


async def test_tool_calls_are_answered_too() -> None:
    calls: list[StreamEvent] = [
        Started(), ToolCallStarted(0, "c1", "f"), ToolCallDelta(0, "{}"), Finished("tool_calls"),
    ]  # fmt: skip

    async def intercept(run: CallRun, next: Next) -> None:
        run.reply(calls)

    run = await answered(Scene([]), intercept, frontend="openai")
    assert (run.call.end, run.text) == ("done", "")


async def test_an_answer_needs_its_end_and_one_choice() -> None:
    async def unfinished(run: CallRun, next: Next) -> None:
        with pytest.raises(ValueError, match="Finished"):
            run.reply(REPLY[:-1])
        run.call.chat.n = 2
        run.reply(REPLY)

    with pytest.raises(BadRequest, match="one choice"):
        await answered(Scene([]), unfinished, frontend="openai")


@pytest.mark.parametrize("frontend", ["widget", "openai"])
async def test_an_interceptor_answers_where_targets_do_not(frontend: str) -> None:
    async def stale_if_error(run: CallRun, next: Next) -> None:
        try:
            await next(run)
        except UpstreamError:
            run.reply(REPLY)

    scene = Scene([Script(refusal="connect_error"), Script(refusal="connect_error")])
    run = await answered(scene, stale_if_error, frontend=frontend)
    assert (run.call.end, len(run.call.attempts)) == ("done", 2)
    if frontend == "widget":
        assert [line["type"] for line in scene.client.lines] == ["start", "token", "token", "done"]
    else:
        assert scene.client.data.count(b'"role"') == 1


async def test_an_answer_that_has_begun_is_not_replaced() -> None:
    async def intercept(run: CallRun, next: Next) -> None:
        with pytest.raises(UpstreamError):
            await next(run)
        with pytest.raises(ValueError, match="has begun"):
            run.reply(REPLY)
        raise GatewayError

    scene = Scene([Script(ending="cut")])
    run = await answered(scene, intercept)
    assert scene.client.lines[-1]["type"] == "error"
    assert (run.call.end, scene.client.ends) == ("upstream_error", 1)


async def test_an_interceptor_changes_the_request() -> None:
    async def intercept(run: CallRun, next: Next) -> None:
        run.call.chat = with_messages(run.call.chat, [Message("user", (Text("[removed]"),))])
        run.call.headers.append(("x-guarded", "1"))
        await next(run)

    scene = Scene([Script()])
    bodies: list[bytes] = []
    transport = scene.targets[0].transport
    send = transport.send

    def noted(request, **options):  # type: ignore[no-untyped-def]
        bodies.append(request.body)
        return send(request, **options)

    transport.send = noted  # type: ignore[method-assign]
    run = await answered(scene, intercept)
    assert b"[removed]" in bodies[0]
    assert b'"hi"' not in bodies[0]
    assert ("x-guarded", "1") in run.call.headers


async def test_an_interceptor_refuses() -> None:
    async def intercept(run: CallRun, next: Next) -> None:
        raise Forbidden("Not this", code="guarded")

    scene = Scene([Script()])
    with pytest.raises(Forbidden, match="Not this"):
        await answered(scene, intercept, frontend="openai")
    assert not scene.world.responses


async def test_an_interceptor_sees_how_its_call_ended() -> None:
    seen: list[object] = []

    async def watch(run: CallRun, next: Next) -> None:
        try:
            await next(run)
        except GatewayError as error:
            seen.append(error.code)
            raise
        seen.append((run.call.end, run.text, run.call.phase))

    await answered(Scene([Script()]), watch)
    with pytest.raises(UpstreamError):
        await answered(Scene([Script(refusal="connect_error")]), watch, frontend="openai")
    assert seen == [("done", ANSWER, "settling"), "connect_error"]


async def test_an_interceptor_records_what_the_client_gets() -> None:
    """A cache's recorder: it knows a complete answer from one that ended in an error."""

    class Recorder:
        def __init__(self, writer: ResponseWriter) -> None:
            self.inner = writer
            self.data = b""
            self.complete = False

        begun = property(lambda self: self.inner.begun)
        last_write = property(lambda self: self.inner.last_write)
        blocked_since = property(lambda self: self.inner.blocked_since)

        def begin(self, content_type: str, headers: Sequence[tuple[str, str]]) -> None:
            self.inner.begin(content_type, headers)

        def write(self, data: bytes, *, last: bool = False) -> None:
            self.data += data
            self.complete = last
            self.inner.write(data, last=last)

        def fail(self, data: bytes) -> None:
            self.inner.fail(data)

        def attach(self, upstream: UpstreamResponse | None) -> None:
            self.inner.attach(upstream)

        def detach(self) -> None:
            self.inner.detach()

        def abort(self) -> None:
            self.inner.abort()

    recorders: list[Recorder] = []

    async def record(run: CallRun, next: Next) -> None:
        recorder = Recorder(run.writer)
        recorders.append(recorder)
        run.writer = recorder  # type: ignore[assignment]
        await next(run)

    whole, cut = Scene([Script()]), Scene([Script(ending="cut")])
    await answered(whole, record)
    await answered(cut, record)
    assert [recorder.complete for recorder in recorders] == [True, False]
    assert recorders[0].data == whole.client.data
    assert cut.client.lines[-1]["type"] == "error"


async def test_a_call_whose_client_leaves_leaves_its_interceptors() -> None:
    left: list[str] = []

    async def watch(run: CallRun, next: Next) -> None:
        try:
            await next(run)
        finally:
            left.append(run.call.end)

    scene = Scene([Script()])
    scene.pipeline = intercepted(scene, watch)
    call = scene.call()
    task = asyncio.create_task(scene.pipeline.answer(call, scene.client))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (left, call.end) == ([""], "client_gone")
