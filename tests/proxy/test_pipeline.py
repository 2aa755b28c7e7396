"""The pipeline over a transport that a test drives: any order of chunk, cut, stall, error, slow reader and leaving client
keeps the grammar (one start, no text after the end, one end), loses and doubles no text, and leaves nothing behind."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sluice.backends.protocol import UpstreamRequest
from sluice.backends.transport import Sink, UpstreamResponse
from sluice.config.types import Alias, Hedge, Timeouts
from sluice.config.types import Target as Spec
from sluice.config.units import Seconds
from sluice.errors import GatewayError, UpstreamError
from sluice.frontends.openai.dialect import OpenAI as OpenAIFrontend
from sluice.frontends.widget.dialect import Widget
from sluice.identity.principal import Principal
from sluice.model.chat import ChatRequest, Message, Text
from sluice.proxy.call import Call
from sluice.proxy.pipeline import Pipeline
from sluice.proxy.target import Route, Target
from sluice.routing.failover import RetryPolicy
from sluice.routing.health import Health, Load
from sluice.routing.strategies import RoutedTier
from sluice.telemetry.metrics import CallSeries, Metrics, TargetSeries
from sluice_plugins.openai.backend import OpenAI

WORDS = [f" w{number}" for number in range(6)]
ANSWER = "".join(WORDS)


def frame(delta: dict[str, Any], finish: str | None = None) -> bytes:
    chunk = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


OPENING = frame({"role": "assistant", "content": ""})
ENDING = frame({}, "stop") + b"data: [DONE]\n\n"


class World:
    """Time, and what became of every attempt."""

    def __init__(self) -> None:
        self.now = 100.0
        self.open = 0
        self.responses: list[Response] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


Ending = Literal["done", "cut", "stall", "error", "garbage", "end", "eof"]


class Script(msgspec.Struct, frozen=True):
    """One attempt: refused at once with a status or kind, or so many words and then an ending."""

    refusal: str = ""
    words: int = len(WORDS)
    ending: Ending = "done"


class Response:
    """A response that the test feeds by hand; `pump` waits as a real one does."""

    status = 200
    headers: Mapping[str, str] = {}

    def __init__(self, script: Script) -> None:
        self.script = script
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sink: Sink | None = None
        self.paused = False

    async def pump(self, sink: Sink) -> None:
        self.sink = sink
        await self.over

    async def read(self, limit: int) -> bytes:
        return b""

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def abort(self, error: BaseException) -> None:
        if not self.over.done():
            self.over.set_exception(error)

    def push(self, data: bytes) -> None:
        if self.sink is None or self.over.done():
            return
        try:
            self.sink(data)
        except Exception as error:
            self.abort(error)

    def finish(self) -> None:
        if not self.over.done():
            self.over.set_result(None)


class Sending:
    def __init__(self, world: World, script: Script) -> None:
        self.world = world
        self.script = script

    async def __aenter__(self) -> UpstreamResponse:
        await asyncio.sleep(0)
        self.world.open += 1
        kind = self.script.refusal
        if kind:
            self.world.open -= 1
            raise UpstreamError(kind)  # type: ignore[arg-type]
        response = Response(self.script)
        self.world.responses.append(response)
        return response

    async def __aexit__(self, *_: object) -> None:
        self.world.open -= 1


class Scripted:
    """A transport whose calls go by the scripts, one after another; then all are refused."""

    def __init__(self, world: World, scripts: list[Script]) -> None:
        self.world = world
        self.scripts = scripts

    def send(self, request: UpstreamRequest, *, connect: float, headers: float, reader: object = None) -> Sending:
        return Sending(self.world, self.scripts.pop(0) if self.scripts else Script(refusal="connect_error"))

    async def close(self) -> None:
        pass


class Client:
    """A writer that keeps what was written."""

    def __init__(self) -> None:
        self.begun = False
        self.last_write = 0.0
        self.blocked_since = 0.0
        self.data = b""
        self.ends = 0
        self.upstream: UpstreamResponse | None = None

    def begin(self, content_type: str, headers: Sequence[tuple[str, str]]) -> None:
        assert not self.begun
        self.begun = True

    def write(self, data: bytes, *, last: bool = False) -> None:
        assert not self.ends, "nothing follows the end"
        self.data += data
        self.ends += last

    def fail(self, data: bytes) -> None:
        self.write(data, last=True)

    def attach(self, upstream: UpstreamResponse | None) -> None:
        self.upstream = upstream

    def detach(self) -> None:
        pass

    def abort(self) -> None:
        raise AssertionError("not in this test")

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.data.splitlines() if line]


class Stage:
    """A pipeline with two targets of one alias, ready to answer one call."""

    def __init__(self, scripts: list[Script], *, recovery: Literal["error", "continue"] = "error", **alias: Any) -> None:
        self.world = World()
        self.metrics = Metrics("test")
        transport = Scripted(self.world, scripts)
        backend = OpenAI(base_url="http://upstream/v1")
        timeouts = Timeouts(first_token=Seconds(5), idle=Seconds(5))
        self.targets = [
            Target(
                label=name, upstream=name, model="m", spec=Spec(upstream=name, model="m"), backend=backend,
                transport=transport, timeouts=timeouts, health=Health(self.world.clock), load=Load(),
                series=TargetSeries(self.metrics, name, "m"),
            )
            for name in ("one", "two")
        ]  # fmt: skip
        config = Alias(tiers=((self.targets[0].spec,), (self.targets[1].spec,)), recovery=recovery, heartbeat=None, **alias)
        tiers = [RoutedTier([target]) for target in self.targets]
        inter_token = self.metrics.child("inter_token_seconds", "chat")
        self.route = Route("chat", config, tiers, RetryPolicy(), None, inter_token)
        self.client = Client()
        self.pipeline = Pipeline(
            [],
            clock=self.world.clock,
            wall=lambda: 0.0,
            metrics=self.metrics,
            chance=lambda: 0.5,
            sleep=self.world.sleep,
        )

    def call(self, frontend: str = "widget") -> Call:
        chat = ChatRequest(frontend, "chat", (Message("user", (Text("hi"),)),))
        kind = Widget() if frontend == "widget" else OpenAIFrontend()
        principal = Principal("k", "k", "k", frozenset("*"))
        series = CallSeries(self.metrics, kind.name, "chat")
        conversation = "c" if frontend == "widget" else ""
        return Call("id", self.world.now, kind, principal, self.route, chat, series, conversation=conversation)

    async def play(self, task: "asyncio.Task[None]", steps: int) -> int:
        """Let every attempt go by its script until the task is done or `steps` are used up; returns the steps left."""
        played: set[int] = set()
        idle = 0
        while not task.done() and steps and idle < 50:
            await asyncio.sleep(0)
            idle += 1
            for index, response in enumerate(self.world.responses):
                if index in played or response.sink is None:
                    continue
                for data in self.reads(response.script):
                    if not steps or task.done():
                        return steps
                    steps -= 1
                    response.push(data)
                    await asyncio.sleep(0)
                if steps:
                    self.end(response)
                    played.add(index)
                    idle = 0
        return steps

    def reads(self, script: Script) -> list[bytes]:
        return [OPENING, *(frame({"content": word}) for word in WORDS[: script.words])]

    def end(self, response: Response) -> None:
        match response.script.ending:
            case "done":
                response.push(ENDING)
                response.finish()
            case "eof":  # complete but for [DONE]
                response.push(frame({}, "stop"))
                response.finish()
            case "end":
                response.finish()
            case "cut":
                response.abort(UpstreamError("truncated"))
            case "error":
                response.push(b'data: {"error":{"message":"broken"}}\n\n')
                response.push(b"")
                response.finish()
            case "garbage":
                response.push(b"<html>no</html>\n\n" * 3)
                response.finish()
            case "stall":
                self.world.now += 6
                self.pipeline.tick(self.world.now)


REFUSALS = ["", "", "", "connect_error", "server_error", "rate_limited", "reset", "headers_timeout", "bad_request"]
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


async def one_call(scripts: list[Script], recovery: Literal["error", "continue"], leave_after: int, frontend: str) -> None:
    stage = Stage(list(scripts), recovery=recovery)
    call = stage.call(frontend)
    task = asyncio.create_task(stage.pipeline.answer(call, stage.client))
    await stage.play(task, leave_after or 10_000)
    left = not task.done()
    if left:
        task.cancel()
    [outcome] = await asyncio.gather(task, return_exceptions=True)
    assert outcome is None or isinstance(outcome, GatewayError | asyncio.CancelledError), repr(outcome)

    assert stage.world.open == 0, "every upstream call was closed"
    assert not stage.pipeline.runs
    assert all(target.load.in_flight == 0 for target in stage.targets)
    assert call.end
    assert all(attempt.outcome for attempt in call.attempts)
    assert len(call.attempts) <= 6
    if frontend == "widget":
        check_lines(stage.client, call, outcome, left)
    else:
        check_frames(stage.client, outcome, left)


async def test_thoughts_that_a_client_does_not_get_are_not_its_first_token() -> None:
    """And its first token is counted, though the model had begun to answer before."""
    stage = Stage([Script()])
    call = stage.call("widget")
    task = asyncio.create_task(stage.pipeline.answer(call, stage.client))
    while not stage.world.responses or stage.world.responses[0].sink is None:
        await asyncio.sleep(0)
    [response] = stage.world.responses
    stage.world.now += 1
    response.push(frame({"reasoning_content": "Hm"}))
    assert call.ttft is None
    stage.world.now += 1
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
    tokens = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in texts if chunk.get("choices"))
    assert ANSWER.startswith(tokens)
    errors = sum("error" in chunk for chunk in texts)
    assert errors + frames.count(b"[DONE]") == client.ends
    if not client.ends:
        assert left or outcome is not None


@pytest.mark.parametrize("ending", ["cut", "stall", "error", "end"])
@pytest.mark.parametrize("words", range(1, 6))
async def test_a_cut_stream_is_continued_without_a_seam(ending: Ending, words: int) -> None:
    stage = Stage([Script(words=words, ending=ending), Script()], recovery="continue")
    call = stage.call()
    task = asyncio.create_task(stage.pipeline.answer(call, stage.client))
    await stage.play(task, 10_000)
    await task
    assert stage.client.lines[-1]["message"] == ANSWER.strip()
    assert [line["token"] for line in stage.client.lines if line["type"] == "token"][:words] == WORDS[:words]
    assert call.end == "done"
    assert [attempt.outcome for attempt in call.attempts][-1] == "ok"


async def test_a_hedge_leaves_one_winner_and_one_abandoned() -> None:
    stage = Stage([Script(), Script()], hedge=Hedge(after=Seconds(0)))
    call = stage.call()
    task = asyncio.create_task(stage.pipeline.answer(call, stage.client))
    while len(stage.world.responses) < 2 or not all(response.sink for response in stage.world.responses):
        await asyncio.sleep(0)
    first, second = stage.world.responses
    second.push(OPENING + frame({"content": ANSWER}))
    first.push(OPENING + frame({"content": "late"}))
    while stage.world.open > 1:
        await asyncio.sleep(0)
    assert stage.client.upstream is second, "a client that does not read holds the winner up, also when the other has gone"
    second.push(ENDING)
    second.finish()
    await task
    assert stage.client.lines[-1]["message"] == ANSWER.strip()
    assert sorted(attempt.outcome for attempt in call.attempts) == ["abandoned", "ok"]
    assert stage.world.open == 0


@pytest.mark.parametrize("frontend", ["widget", "openai"])
async def test_an_answer_is_complete_even_if_the_client_leaves_before_the_upstreams_body_ends(frontend: str) -> None:
    stage = Stage([Script()])
    call = stage.call(frontend)
    task = asyncio.create_task(stage.pipeline.answer(call, stage.client))
    while not stage.world.responses or stage.world.responses[0].sink is None:
        await asyncio.sleep(0)
    stage.world.responses[0].push(OPENING + frame({"content": ANSWER}) + ENDING)
    assert stage.client.ends == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert call.end == "done"
    assert [attempt.outcome for attempt in call.attempts] == ["ok"]


@pytest.mark.parametrize("frontend", ["widget", "openai"])
async def test_a_fault_of_ours_is_an_error_like_any_other(frontend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    crashes: list[str] = []
    stage = Stage([Script()])
    stage.pipeline.crashed = lambda crash, request_id: crashes.append(type(crash).__name__)
    monkeypatch.setattr(Scripted, "send", lambda *_, **__: {}["nothing"])
    call = stage.call(frontend)
    if frontend == "widget":
        await stage.pipeline.answer(call, stage.client)
        assert [line["type"] for line in stage.client.lines] == ["start", "error"]
    else:
        with pytest.raises(GatewayError):
            await stage.pipeline.answer(call, stage.client)
    assert (call.end, crashes) == ("internal_error", ["KeyError"])


async def test_the_whole_calls_deadline_covers_waiting_and_the_waiting_client_is_kept_alive() -> None:
    stage = Stage([Script()], timeout=Seconds(0.05))

    @asynccontextmanager
    async def waits(call: Call) -> AsyncIterator[None]:
        stage.world.now += 20
        stage.pipeline.tick(stage.world.now)
        await asyncio.Event().wait()
        yield

    stage.pipeline.policies = [waits]
    stage.route = msgspec.structs.replace(
        stage.route, config=msgspec.structs.replace(stage.route.config, heartbeat=Seconds(15))
    )
    call = stage.call()
    await stage.pipeline.answer(call, stage.client)
    assert stage.client.data.startswith(b"\n"), "a heartbeat while it waits"
    assert stage.client.lines[-1]["code"] == "total_timeout"
    assert call.end == "total_timeout"


async def begun(stage: Stage, count: int) -> None:
    """So many attempts have their response's head."""
    while len(stage.world.responses) < count or not all(response.sink for response in stage.world.responses):
        await asyncio.sleep(0)


async def test_reasoning_that_was_cut_is_said_once_and_so_is_the_role() -> None:
    stage = Stage([Script(), Script()], recovery="continue")
    task = asyncio.create_task(stage.pipeline.answer(stage.call("openai"), stage.client))
    await begun(stage, 1)
    stage.world.responses[0].push(OPENING + frame({"reasoning_content": "let me think"}))
    stage.world.responses[0].finish()
    await begun(stage, 2)
    stage.world.responses[1].push(OPENING + frame({"reasoning_content": "let me think"}) + frame({"content": ANSWER}) + ENDING)
    stage.world.responses[1].finish()
    await task
    for once in (b'"role":', b"let me think", ANSWER.encode(), b"[DONE]"):
        assert stage.client.data.replace(b": ", b":").count(once) == 1


async def much_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the event loop's clock, whose timers are due now."""
    loop = asyncio.get_running_loop()
    ahead = loop.time() + 10_000
    monkeypatch.setattr(loop, "time", lambda: ahead)
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_answer_that_is_not_streamed_is_not_hedged_once_it_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage([Script(), Script()], hedge=Hedge(after=Seconds(1000)))
    call = stage.call("openai")
    call.chat.stream = False
    task = asyncio.create_task(stage.pipeline.answer(call, stage.client))
    await begun(stage, 1)
    stage.world.responses[0].push(OPENING + frame({"content": ANSWER}))
    await much_later(monkeypatch)
    stage.world.responses[0].push(ENDING)
    stage.world.responses[0].finish()
    await task
    assert [attempt.outcome for attempt in call.attempts] == ["ok"]


async def test_a_target_that_is_silent_until_the_alias_deadline_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage([Script()], timeout=Seconds(1000))
    call = stage.call("openai")
    task = asyncio.create_task(stage.pipeline.answer(call, stage.client))
    await begun(stage, 1)
    stage.world.now += 1001
    await much_later(monkeypatch)
    with pytest.raises(UpstreamError, match="too long"):
        await task
    assert [attempt.outcome for attempt in call.attempts] == ["total_timeout"]
    assert not stage.targets[0].health.well()
