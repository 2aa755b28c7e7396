"""Echo: a simulated model inside the gateway, for development, demonstrations and measurements. It needs no
network and no model weights.

It repeats the last user message ("You said: …", from the second turn on with the turn's number, to show that
the history arrived), or writes `text`, or `tokens` numbered tokens ("tok0 tok1 …"). A message can override
the options:

    tokens=64 delay_ms=20        or, finer, as benchmarks do:  tokens=64 gap_us=20000 ttft_us=0

Its answers are deterministic, and usage is counted in words. With `fail` it fails on purpose, to show how the
gateway reacts.

Its transport replaces the upstream: the request's body is a `Script`, the response is NDJSON: a start object,
a JSON string per token, and an end object.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from sluice.backends.protocol import Headers, UpstreamRequest
from sluice.backends.transport import Reader, Sink, Transport
from sluice.config.types import Seconds
from sluice.errors import UpstreamError, UpstreamErrorKind, UpstreamGarbled, UpstreamTruncated
from sluice.model.chat import ChatRequest
from sluice.model.events import Finished, FinishReason, Started, StreamEvent, TextDelta, Usage
from sluice.wire.ndjson import JSONLines
from sluice_plugins.decoding import FrameDecoder

MAX_TOKENS = 100_000
TICK = 0.001

Failure = Literal["connect_error", "rate_limited", "overloaded", "truncated", "stream_error", "stall"]

UNITS = {"tokens": 1, "delay_ms": 1e-3, "gap_us": 1e-6, "ttft_us": 1e-6}
WISH = re.compile(rf"\b({'|'.join(UNITS)})=([0-9]{{1,9}})\b")
STATUS: dict[Failure, int] = {"rate_limited": 429, "overloaded": 503}
KIND_OF_STATUS: dict[int, UpstreamErrorKind] = {429: "rate_limited", 503: "overloaded"}
MID_STREAM = ("truncated", "stream_error", "stall")


class Script(msgspec.Struct):
    """The answer to write: `tokens` numbered tokens, or the words of `text`, at most `limit` of either.
    Delays are in seconds."""

    model: str
    text: str
    input: int
    limit: int
    tokens: int = 0
    delay: float = 0.0
    first_token_delay: float = 0.0
    fail: Failure | None = None

    def pieces(self) -> list[str]:
        if self.tokens:
            return [
                f" tok{number}" if number else "tok0" for number in range(min(self.tokens, self.limit + 1))
            ]
        # without trailing white space every run of it precedes a word, which keeps the search linear
        return re.findall(r"\s*\S+", self.text.rstrip())


class Echo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`tokens`: 0 repeats the user's message, N writes N tokens. `delay`: the time between two tokens,
    `first_token_delay` that before the first (default: `delay`). `text`: a fixed answer. `fail`: refuse the
    request, or break off within the answer."""

    dialect: ClassVar[str] = ""

    tokens: Annotated[int, Meta(ge=0, le=MAX_TOKENS)] = 0  # tokens of an answer; 0: as many as it has
    delay: Seconds = Seconds(0)  # time between two tokens
    first_token_delay: Seconds | None = None  # time before the first token
    text: str | None = None  # a fixed answer, instead of the echo
    fail: Failure | None = None  # how requests fail, to try out the gateway's reaction

    def request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        prompts = [message.text for message in chat.messages if message.role == "user"]
        last = prompts[-1] if prompts else ""
        wish = {name: int(value) * UNITS[name] for name, value in WISH.findall(last)}
        delay = wish.get("gap_us", wish.get("delay_ms", float(self.delay)))
        first = delay if self.first_token_delay is None else float(self.first_token_delay)
        script = Script(
            model=model,
            text=_reply(last, len(prompts)) if self.text is None else self.text,
            input=sum(len(message.text.split()) for message in chat.messages),
            limit=min(chat.sampling.max_tokens or MAX_TOKENS, MAX_TOKENS),
            tokens=int(wish.get("tokens", self.tokens)),
            delay=delay,
            first_token_delay=wish.get("ttft_us", first),
            fail=self.fail,
        )
        return UpstreamRequest("echo:", (), msgspec.json.encode(script))

    def decoder(self, *, verbatim: bool = False) -> "EchoDecoder":
        return EchoDecoder()

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        kind = KIND_OF_STATUS.get(status, "server_error")
        return UpstreamError(kind, status=status, retry_after=1.0 if kind == "rate_limited" else None)

    def transport(self) -> Transport:
        return EchoTransport()

    def credentials(self) -> Headers:
        return ()


def _reply(message: str, turn: int) -> str:
    return f"You said: {message}" if turn <= 1 else f"Turn {turn}, you said: {message}"


# ---- answer


class Start(msgspec.Struct, tag="start"):
    """The first line, sent without delay."""

    model: str = ""


class End(msgspec.Struct, tag="end", omit_defaults=True):
    """The last line: usage in words; `length`: whether the answer was cut at the limit."""

    input: int = 0
    output: int = 0
    length: bool = False
    error: str = ""


_LINE = msgspec.json.Decoder(str | Start | End)


class EchoDecoder(FrameDecoder[bytes]):
    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(JSONLines())

    def _end(self, events: list[StreamEvent]) -> None:
        raise UpstreamTruncated

    def _take(self, frame: bytes, events: list[StreamEvent]) -> None:
        try:
            line = _LINE.decode(frame)
        except msgspec.DecodeError:
            raise UpstreamGarbled from None
        match line:
            case str(text):
                events.append(TextDelta(text))
            case Start(model=model):
                events.append(Started(model=model))
            case End(error=""):
                self._done = True
                reason: FinishReason = "length" if line.length else "stop"
                events.append(Finished(reason, Usage(input=line.input, output=line.output), reason))
            case End(error=message):
                raise UpstreamError("stream_error", message, status=200)


# ---- the upstream


class EchoTransport:
    """Answers without a network; the timeouts `connect` and `headers` do not apply."""

    @asynccontextmanager
    async def send(
        self, request: UpstreamRequest, *, connect: float, headers: float, reader: Reader | None = None
    ) -> AsyncIterator["EchoResponse"]:
        script = msgspec.json.decode(request.body, type=Script)
        if script.fail == "connect_error":
            raise UpstreamError("connect_error")
        yield EchoResponse(script)

    async def close(self) -> None:
        pass


class EchoResponse:
    """Sends the lines of its script. `resume` and `abort` wake a waiting response, which then checks its
    state."""

    headers: Mapping[str, str] = MappingProxyType({"content-type": "application/x-ndjson"})

    def __init__(self, script: Script) -> None:
        self.status = STATUS.get(script.fail, 200) if script.fail else 200
        self._script = script
        self._paused = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def pump(self, sink: Sink) -> None:
        script = self._script
        sink(_line(Start(script.model)))
        due = asyncio.get_running_loop().time()
        wait = script.first_token_delay
        for line in _lines(script):
            due += wait
            wait = script.delay
            await self._until(due)
            sink(line)
        if script.fail == "stall":
            await self._until(float("inf"))

    async def read(self, limit: int) -> bytes:
        return b""

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._wake()

    def abort(self, error: BaseException) -> None:
        self._error = self._error or error
        self._wake()

    async def _until(self, due: float) -> None:
        """Wait until `due` on the loop's clock, and longer while paused; yields to the loop at least once.
        Raises the error given to `abort`."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)
        # the loop's timers have a resolution of a millisecond
        while self._error is None and (self._paused or loop.time() + TICK < due):
            self._waiter = loop.create_future()
            timer = None if self._paused or due == float("inf") else loop.call_at(due, self._wake)
            try:
                await self._waiter
            finally:
                if timer is not None:
                    timer.cancel()
        if self._error is not None:
            raise self._error

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _lines(script: Script) -> Iterator[bytes]:
    pieces = script.pieces()
    length = len(pieces) > script.limit
    if script.fail in MID_STREAM:
        pieces = pieces[: max(1, len(pieces) // 2)]
    sent = pieces[: script.limit]
    for piece in sent:
        yield _line(piece)
    match script.fail:
        case "stream_error":
            yield _line(End(error="This model was told to fail"))
        case "truncated" | "stall":
            pass
        case _:
            yield _line(End(input=script.input, output=len(sent), length=length))


def _line(value: str | Start | End) -> bytes:
    return msgspec.json.encode(value) + b"\n"
