"""A pipeline over a transport that a test drives: scripts of what upstreams do, a client that keeps its
answer, a clock."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from sluice.backends.protocol import UpstreamRequest
from sluice.backends.transport import Sink, UpstreamResponse
from sluice.config.types import Alias, Timeouts
from sluice.config.types import Target as Spec
from sluice.config.units import Seconds
from sluice.errors import UpstreamError
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

    def send(
        self, request: UpstreamRequest, *, connect: float, headers: float, reader: object = None
    ) -> Sending:
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


class Scene:
    """A pipeline with two targets of one alias, ready to answer one call."""

    def __init__(
        self,
        scripts: list[Script],
        *,
        recovery: Literal["error", "continue"] = "error",
        claims: Any = lambda attempt, chat: None,
        sleep: Any = None,
        **alias: Any,
    ) -> None:
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
        config = Alias(
            tiers=((self.targets[0].spec,), (self.targets[1].spec,)),
            recovery=recovery,
            heartbeat=None,
            **alias,
        )
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
            claims=claims,
            sleep=sleep or self.world.sleep,
        )

    def call(self, frontend: str = "widget") -> Call:
        chat = ChatRequest(frontend, "chat", (Message("user", (Text("hi"),)),))
        kind = Widget() if frontend == "widget" else OpenAIFrontend()
        principal = Principal("k", "k", "k", frozenset("*"))
        series = CallSeries(self.metrics, kind.name, "chat")
        conversation = "c" if frontend == "widget" else ""
        return Call(
            "id", self.world.now, kind, principal, self.route, chat, series, conversation=conversation
        )

    async def play(self, task: "asyncio.Task[None]", steps: int) -> int:
        """Let every attempt go by its script until the task is done or `steps` are used up; returns the steps
        left."""
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


async def begun(scene: Scene, count: int) -> None:
    """So many attempts have their response's head."""
    while len(scene.world.responses) < count or not all(response.sink for response in scene.world.responses):
        await asyncio.sleep(0)
