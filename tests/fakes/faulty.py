"""A fake provider that speaks three dialects, and fails in every way that providers do, each way by its name.

    async with Provider(cut(40)) as provider: ...     every request is cut after 40 of its 60 tokens
    async with Provider(healthy) as provider: ...     every request gets all of ANSWER, with its usage

Which dialect a request speaks is told by its path. A prefill is continued, as models do. `BEHAVIOURS` names
all that do not need an address of their own (for those, see `rawserver`); `turns` is what was asked and said.
"""

import asyncio
import gzip
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from tests.fakes.dialects import ANSWER, TOKENS, Dialect, dialect_of
from tests.fakes.rawserver import LAST_CHUNK, Peer, RawServer, Request, chunk, sized

LINE = 64 << 20
PIECE = 64 << 10
DRIP = 0.02
"""Seconds between two pieces of what comes too slowly."""


@dataclass
class Turn:
    """One request to the provider. `tokens` counts those of its answer that were written; `number` from 0 per
    model."""

    dialect: Dialect
    request: Request
    peer: Peer
    model: str
    prefill: str
    number: int
    tokens: int = 0
    elsewhere: str = ""

    @property
    def text(self) -> str:
        """What was written of the answer."""
        return "".join(self._left()[: self.tokens])

    def _left(self) -> tuple[str, ...]:
        assert ANSWER.startswith(self.prefill), "a prefill that no model of ours has said"
        return TOKENS[self.prefill.count("w") :]

    def head(self, *lines: str) -> None:
        more = "".join(f"{line}\r\n" for line in lines)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {self.dialect.content_type}\r\nTransfer-Encoding: chunked\r\n{more}\r\n"
        self.peer.send(head.encode())

    def write(self, data: bytes) -> None:
        if data:
            self.peer.send(chunk(data))

    def say(self, count: int = len(TOKENS)) -> None:
        """The next so many tokens, each in a chunk of its own, in one segment."""
        texts = self._left()[self.tokens : self.tokens + count]
        self.tokens += len(texts)
        self.peer.send(b"".join(chunk(self.dialect.token(text)) for text in texts))

    def begin(self, count: int = 0) -> None:
        self.head()
        self.write(self.dialect.opening())
        self.say(count)

    def finish(self) -> None:
        self.write(self.dialect.finish(self.tokens))

    def end(self) -> None:
        self.write(self.dialect.end())
        self.peer.send(LAST_CHUNK)

    def body(self) -> bytes:
        """A whole answer's body, unframed."""
        said = b"".join(map(self.dialect.token, TOKENS))
        return self.dialect.opening() + said + self.dialect.finish(len(TOKENS)) + self.dialect.end()

    def refuse(self, wrong: str, *headers: tuple[str, str]) -> None:
        status, body = self.dialect.refusal(wrong)
        self.peer.send(sized(body, status, ("Content-Type", "application/json"), *headers))


Behaviour = Callable[[Turn], Awaitable[None]]


class Provider(RawServer):
    """`elsewhere` is the URL that redirects lead to."""

    def __init__(self, behaviour: Behaviour, *, elsewhere: str = "") -> None:
        super().__init__(self._answer)
        self.behaviour = behaviour
        self.elsewhere = elsewhere
        self.turns: list[Turn] = []

    async def _answer(self, request: Request, peer: Peer) -> None:
        dialect = dialect_of(request)
        model, prefill = dialect.asked(request)
        number = sum(turn.model == model for turn in self.turns)
        turn = Turn(dialect, request, peer, model, prefill, number, elsewhere=self.elsewhere)
        self.turns.append(turn)
        await self.behaviour(turn)


# --- behaviours, and those who make them


async def healthy(turn: Turn) -> None:
    turn.begin(len(TOKENS))
    turn.finish()
    turn.end()


def once(fault: Behaviour) -> Behaviour:
    """The first request of each model, then healthy."""

    async def behave(turn: Turn) -> None:
        await (healthy if turn.number else fault)(turn)

    return behave


def refusing(wrong: str, *headers: tuple[str, str]) -> Behaviour:
    async def behave(turn: Turn) -> None:
        turn.refuse(wrong, *headers)

    return behave


def cut(tokens: int, how: Callable[[Peer], None] = Peer.close) -> Behaviour:
    async def behave(turn: Turn) -> None:
        turn.begin(tokens)
        await turn.peer.drain()
        how(turn.peer)

    return behave


def stall(tokens: int) -> Behaviour:
    async def behave(turn: Turn) -> None:
        turn.begin(tokens)
        await turn.peer.stall()

    return behave


def raw(answer: bytes) -> Behaviour:
    """These bytes, then the end of the connection."""

    async def behave(turn: Turn) -> None:
        turn.peer.send(answer)
        turn.peer.close()

    return behave


def slowly(tokens: int, piece: Callable[[Turn], bytes]) -> Behaviour:
    """So many tokens, and then `piece` again and again, which never is a token."""

    async def behave(turn: Turn) -> None:
        turn.begin(tokens)
        while not turn.peer.closed.is_set():
            turn.write(piece(turn))
            await asyncio.sleep(DRIP)

    return behave


async def reset(turn: Turn) -> None:
    turn.peer.reset()


async def silent(turn: Turn) -> None:
    await turn.peer.stall()


async def head_only(turn: Turn) -> None:
    turn.head()
    await turn.peer.stall()


async def dripping_head(turn: Turn) -> None:
    turn.peer.send(b"HTTP/1.1 200 OK\r\nx-drip: ")
    while not turn.peer.closed.is_set():
        turn.peer.send(b"y")
        await asyncio.sleep(DRIP)


async def ends_too_early(turn: Turn) -> None:
    """Well-formed HTTP, to its last chunk; but the answer is not complete."""
    turn.begin(40)
    turn.peer.send(LAST_CHUNK)


async def empty(turn: Turn) -> None:
    turn.begin()
    turn.finish()
    turn.end()


async def malformed(turn: Turn) -> None:
    turn.begin(20)
    turn.write(turn.dialect.malformed())
    turn.say()
    turn.finish()
    turn.end()


async def unterminated(turn: Turn) -> None:
    """Everything but the dialect's last word."""
    turn.begin(len(TOKENS))
    turn.finish()
    turn.peer.send(LAST_CHUNK)


async def lingering(turn: Turn) -> None:
    """A whole answer, whose body then never ends."""
    turn.begin(len(TOKENS))
    turn.finish()
    turn.write(turn.dialect.end())
    await turn.peer.stall()


async def html(turn: Turn) -> None:
    turn.peer.send(
        sized(b"<!doctype html>\n<html><body>Sign in</body></html>\n", 200, ("Content-Type", "text/html"))
    )


async def short_body(turn: Turn) -> None:
    """A Content-Length that the body does not keep, before any token."""
    body = turn.dialect.opening() or b" "
    turn.peer.send(
        sized(body + turn.body(), 200, ("Content-Type", turn.dialect.content_type))[: -len(turn.body())]
    )
    turn.peer.close()


async def two_lengths(turn: Turn) -> None:
    turn.head("Content-Length: 5")
    turn.write(turn.body())
    turn.peer.send(LAST_CHUNK)


async def endless_line(turn: Turn) -> None:
    turn.head()
    turn.write(b'data: {"x":"' if turn.dialect.name != "ollama" else b'{"x":"')
    piece = chunk(b"x" * PIECE)
    for _ in range(LINE // PIECE):
        if turn.peer.closed.is_set():
            return
        turn.peer.send(piece)
        await turn.peer.drain()
    turn.peer.close()


async def many_headers(turn: Turn) -> None:
    turn.head(*(f"x-{n}: y" for n in range(5000)))
    turn.peer.send(chunk(turn.body()) + LAST_CHUNK)


async def gzip_bomb(turn: Turn) -> None:
    bomb = gzip.compress(bytes(8 << 20))
    turn.peer.send(
        sized(bomb, 200, ("Content-Type", turn.dialect.content_type), ("Content-Encoding", "gzip"))
    )


async def two_responses(turn: Turn) -> None:
    whole = sized(turn.body(), 200, ("Content-Type", turn.dialect.content_type))
    turn.peer.send(whole + sized(turn.body().replace(b"w0", b"another's"), 200))


async def redirect(turn: Turn) -> None:
    turn.peer.send(sized(b"", 307, ("Location", turn.elsewhere + turn.request.path)))


def fails_inside(tokens: int) -> Behaviour:
    async def behave(turn: Turn) -> None:
        turn.begin(tokens)
        turn.write(turn.dialect.failure())
        turn.peer.send(LAST_CHUNK)

    return behave


async def error_without_its_body(turn: Turn) -> None:
    turn.peer.send(b"HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\n{")
    await turn.peer.stall()


async def no_prefill(turn: Turn) -> None:
    await (refusing("prefill") if turn.prefill else healthy)(turn)


async def other_words(turn: Turn) -> None:
    """A healthy model that says something else."""
    turn.begin()
    turn.write(turn.dialect.token("Quite another answer"))
    turn.finish()
    turn.end()


BEHAVIOURS: Mapping[str, Behaviour] = {
    "429 with Retry-After once": once(refusing("rate", ("Retry-After-Ms", "20"))),
    "429 always": refusing("rate"),
    "429 with a long Retry-After": refusing("rate", ("Retry-After", "86400")),
    "500 once": once(refusing("server")),
    "500 always": refusing("server"),
    "503 always": refusing("overloaded"),
    "500 whose body stalls": error_without_its_body,
    "reset before headers": reset,
    "closed before headers": raw(b""),
    "never answers": silent,
    "head drips": dripping_head,
    "headers, then nothing": head_only,
    "first token too late": stall(0),
    "comments and no token": slowly(0, lambda turn: turn.dialect.comment()),
    "a frame drips": slowly(0, lambda turn: b"x"),
    "cut before a token": cut(0),
    "empty answer": empty,
    "cut after 40 tokens": cut(40),
    "reset after 40 tokens": cut(40, Peer.reset),
    "ends after 40 tokens": ends_too_early,
    "stall after 20 tokens": stall(20),
    "comments after 20 tokens": slowly(20, lambda turn: turn.dialect.comment()),
    "error in the stream": fails_inside(0),
    "error after 20 tokens": fails_inside(20),
    "one event invalid": malformed,
    "no terminator": unterminated,
    "body never ends": lingering,
    "context length": refusing("context"),
    "content policy": refusing("policy"),
    "HTML 200": html,
    "truncated Content-Length": short_body,
    "CL and TE": two_lengths,
    "64 MiB line": endless_line,
    "5000 headers": many_headers,
    "gzip bomb": gzip_bomb,
    "extra response": two_responses,
    "redirect": redirect,
    "not HTTP": raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
}
