"""One client's connection, on real sockets and both event loops; time passes as the sweep is told."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from sluice.aio.write_batch import MAX_UNBATCHED_EXCHANGES
from sluice.errors import BadRequest, PayloadTooLarge, RequestTimeout, Unavailable
from sluice.server.exchange import HttpExchange
from tests.e2e.watched import Wire
from tests.server.served import Served, reset, served
from tests.upstream.calls import until

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
LARGE = 10 << 20


def get(path: str, *headers: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"GET {path} HTTP/{version}", "Host: x", *headers, "", ""]).encode()


def post(path: str, body: bytes, *headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: x", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def echo(exchange: HttpExchange) -> None:
    """The path for a GET, else the body; errors as the routes answer them."""
    try:
        body = await exchange.body()
    except (BadRequest, PayloadTooLarge, RequestTimeout) as error:
        exchange.reply({BadRequest: 400, PayloadTooLarge: 413, RequestTimeout: 408}[type(error)], b"")
        return
    except Unavailable as error:
        exchange.reply(503, b"", [("Retry-After", f"{error.retry_after:.0f}")])
        return
    exchange.reply(200, body or exchange.path.encode())


async def refuse(exchange: HttpExchange) -> None:
    """An answer that does not wait for the body."""
    exchange.reply(401, b"no")


class Held:
    """Answers that wait: begun with a first chunk, until `go`; what ends in /silent has not begun."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, exchange: HttpExchange) -> None:
        if not exchange.path.endswith("silent"):
            exchange.begin("text/plain")
            exchange.write(b"first ")
        await self.go.wait()
        if exchange.begun:
            exchange.write(exchange.path.encode(), last=True)
        else:
            exchange.reply(200, exchange.path.encode())


# --- one request after the other


async def test_a_connection_serves_one_request_after_the_other() -> None:
    async with served(echo) as server:
        wire = await server.wire()
        for number in range(3):
            answer = await wire.ask(get(f"/{number}"))
            assert (answer.status, answer.body) == (200, f"/{number}".encode())
            assert "connection" not in answer.headers
            assert (await wire.ask(post("/", b"abc"))).body == b"abc"
        assert len(server.listener.connections) == 1


@pytest.mark.parametrize(
    "raw",
    [
        get("/", "Connection: close"),
        get("/", version="1.0"),
        get("/", "Connection: keep-alive", version="1.0"),
    ],
)
async def test_the_last_answer_says_so_and_the_connection_is_closed(raw: bytes) -> None:
    async with served(echo) as server:
        wire = await server.wire()
        answer = await wire.ask(raw)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await wire.closed()
        await server.emptied()


async def test_a_stream_to_http_1_0_has_no_chunks_and_ends_with_the_connection() -> None:
    held = Held()
    held.go.set()
    async with served(held) as server:
        wire = await server.wire()
        answer = await wire.ask(get("/a", version="1.0"))
        assert (answer.body, answer.headers.get("transfer-encoding")) == (b"first /a", None)
        await server.emptied()


async def test_the_answer_to_head_is_a_head() -> None:
    async with served(echo) as server:
        wire = await server.wire()
        answer = await wire.ask(b"HEAD /abc HTTP/1.1\r\nHost: x\r\n\r\n", head=True)
        assert (answer.status, answer.headers["content-length"]) == (200, "4")
        assert (await wire.ask(GET)).body == b"/"


async def test_a_second_request_may_come_behind_chunks_in_the_same_read() -> None:
    async with served(echo) as server:
        wire = await server.wire()
        wire.writer.write(CHUNKED + b"3\r\nabc\r\n0\r\nA: b\r\n\r\n" + get("/next"))
        assert [(await wire.answer()).body for _ in range(2)] == [b"abc", b"/next"]


async def test_the_body_of_an_upgrade_is_no_request() -> None:
    """As a client of HTTP/2 sends its first request where there is no TLS."""
    async with served(echo) as server:
        wire = await server.wire()
        inner = get("/inner")
        answer = await wire.ask(post("/", inner, "Connection: Upgrade", "Upgrade: h2c"))
        assert answer.body == inner
        assert (await wire.ask(GET)).body == b"/"
        assert server.paths == ["/", "/"]


# --- pipelines


async def test_pipelined_requests_wait_in_order_while_the_first_is_answered() -> None:
    held = Held()
    async with served(held) as server:
        wire = await server.wire()
        wire.writer.write(get("/0"))
        await until(lambda: server.paths == ["/0"])
        wire.writer.write(b"".join(get(f"/{number}") for number in range(1, 10)))
        await until(lambda: len(server.connection._parser.waiting) == 9)
        assert server.paths == ["/0"]
        held.go.set()
        assert [(await wire.answer()).body for _ in range(10)] == [
            f"first /{number}".encode() for number in range(10)
        ]
        assert server.paths == [f"/{number}" for number in range(10)]


@pytest.mark.parametrize("cut", [60, 70_000, 200_000, 399_999])
async def test_the_body_of_a_pipelined_request_may_come_later(cut: int) -> None:
    held = Held()
    body = b"a" * 400_000

    async def answer(exchange: HttpExchange) -> None:
        await (held if exchange.path == "/held" else echo)(exchange)

    async with served(answer) as server:
        wire = await server.wire()
        wire.writer.write(get("/held"))
        await until(lambda: server.paths == ["/held"])
        raw = post("/", body)
        wire.writer.write(raw[:cut])
        await until(lambda: server.connection._parser.begun or len(server.connection._parser.waiting) == 1)
        wire.writer.write(raw[cut:] + get("/next"))
        held.go.set()
        assert [len((await wire.answer()).body) for _ in range(3)] == [
            len("first /held"),
            len(body),
            len("/next"),
        ]


async def test_a_client_that_leaves_is_heard_while_its_last_pipelined_request_is_answered() -> None:
    held = Held()
    async with served(held) as server:
        wire = await server.wire()
        wire.writer.write(get("/0") + get("/1/silent"))
        await until(lambda: server.paths == ["/0"])
        held.go.set()
        assert (await wire.answer()).body == b"first /0"
        held.go.clear()
        wire.writer.write(get("/2/silent"))
        assert (await wire.answer()).body == b"/1/silent"
        await until(lambda: server.paths[-1] == "/2/silent")
        wire.writer.close()
        await server.emptied()
        await until(lambda: server.cancelled == ["/2/silent"])


async def test_a_client_cannot_make_the_gateway_keep_what_it_pipelines() -> None:
    """What is too much is thrown away, for a connection that is not read would not say when its client
    leaves."""
    held = Held()
    async with served(held) as server:
        client = await server.mute(get("/0"))
        await until(lambda: server.paths == ["/0"])
        for _ in range(100):
            await asyncio.get_running_loop().sock_sendall(client, post("/", b"a" * 100_000))
        assert sum(waiting.size for waiting in server.connection._parser.waiting) < 2 << 20


async def test_who_pipelines_for_long_is_not_refused_for_what_was_answered() -> None:
    """There is always one that waits, and never much."""
    async with served(echo) as server:
        wire = await server.wire()
        body = b"a" * 100_000
        wire.writer.write(post("/", body))
        for _ in range(30):
            wire.writer.write(post("/", body))
            assert (await wire.answer()).status == 200
        assert (await wire.answer()).status == 200


async def test_garbage_behind_good_requests_is_refused_after_they_were_answered() -> None:
    async with served(echo) as server:
        wire = await server.wire()
        wire.writer.write(get("/1") + get("/2") + b"hello\r\n\r\n" + get("/3"))
        answers = [await wire.answer() for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 400]
        assert await wire.closed()
        assert server.paths == ["/1", "/2"]
        assert server.broken == [400]


@pytest.mark.parametrize("last", [get("/", "Connection: close"), get("/", version="1.0")])
async def test_what_is_sent_behind_the_last_request_does_not_cost_the_client_its_answer(last: bytes) -> None:
    async with served(echo) as server:
        client = await server.mute(last + GET)
        await until(lambda: len(server.paths) == 1)
        loop = asyncio.get_running_loop()
        for _ in range(20):
            await loop.sock_sendall(client, GET * 100)
        received = b""
        while data := await loop.sock_recv(client, 1 << 16):  # raises if it was reset
            received += data
        assert received.count(b"HTTP/1.1 200 OK") == 1
        assert len(server.paths) == 1


# --- deadlines


async def test_an_idle_connection_is_closed_after_its_time() -> None:
    async with served(echo) as server:
        wire = await server.wire()
        await wire.ask(GET)
        server.later(74)
        assert (await wire.ask(GET)).status == 200
        server.later(76)
        assert await wire.closed()
        await server.emptied()


async def test_who_sends_nothing_is_closed_without_a_word() -> None:
    async with served(echo) as server:
        wire = await server.wire()
        await until(lambda: len(server.listener.connections) == 1)
        server.later(14)
        assert len(server.listener.connections) == 1
        server.later(16)
        assert await wire.closed()


@pytest.mark.parametrize("before", [b"", GET, GET * 3])
async def test_a_slow_head_is_answered_408(before: bytes) -> None:
    async with served(echo) as server:
        wire = await server.wire()
        for _ in range(before.count(b"GET")):
            await wire.ask(GET)
        await until(lambda: len(server.listener.connections) == 1)
        server.connection.since -= 14  # if it was idle: that counts no more
        wire.writer.write(b"GET / HTTP/1.1\r\nHo")
        await until(lambda: server.connection._parser.begun)
        if before:
            server.later(14)
            assert server.connection.state == "head"
        server.later(16)
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert await wire.closed()
        assert server.broken == [408]
        wire.writer.close()
        await server.emptied()


async def test_a_slow_body_is_answered_408() -> None:
    async with served(echo, body_timeout=0.05) as server:
        wire = await server.wire()
        answer = await wire.ask(post("/", b"abc")[:-1])
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert await wire.closed()


async def test_a_body_that_stalls_near_its_end_is_answered_408() -> None:
    """However much of it has come: that it was fast before earns it no time."""
    async with served(echo, body_timeout=0.05) as server:
        wire = await server.wire()
        answer = await wire.ask(post("/", b"a" * (1 << 20))[:-1])
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert await wire.closed()


async def sending(server: Served, size: int, missing: int, path: str) -> Wire:
    """A client that has sent a body of `size` bytes but for the last ones, and has been heard."""
    wire = await server.wire()
    wire.writer.write(post(path, b"a" * size)[:-missing])

    def heard() -> bool:
        exchanges = [connection.exchange for connection in server.listener.connections]
        return any(e is not None and e.path == path and e.request.size == size - missing for e in exchanges)

    await until(heard)
    return wire


async def test_beyond_the_room_for_unfinished_bodies_the_one_that_was_silent_longest_is_answered_503() -> (
    None
):
    async with served(echo, body_memory=400_000) as server:
        first, second, third = [await sending(server, 100_000, 2, f"/{number}") for number in range(3)]
        first.writer.write(b"a")
        await until(lambda: server.listener.unfinished.size == 299_995)
        fourth = await server.wire()
        fourth.writer.write(post("/", b"a" * 150_000)[:-2])
        answer = await second.answer()
        assert (answer.status, answer.headers["connection"], answer.headers["retry-after"]) == (
            503,
            "close",
            "1",
        )
        assert await second.closed()
        for wire, rest, size in ((first, b"a", 100_000), (third, b"aa", 100_000), (fourth, b"aa", 150_000)):
            wire.writer.write(rest)
            answer = await wire.answer()
            assert (answer.status, len(answer.body)) == (200, size)
        assert server.listener.unfinished.size == 0


async def test_a_hundred_stalled_bodies_keep_no_more_than_there_is_room_for() -> None:
    async with served(echo, body_memory=1 << 20) as server:
        wires = [await sending(server, 1 << 18, 1, f"/{number}") for number in range(100)]
        for wire in wires[:96]:
            assert (await wire.answer()).status == 503
        kept = sum(
            len(c.exchange.request.content) for c in server.listener.connections if c.exchange is not None
        )
        assert kept == server.listener.unfinished.size == 4 * ((1 << 18) - 1)


async def test_bodies_of_clients_that_leave_make_room() -> None:
    async with served(echo, body_memory=150_000) as server:
        wires = [await sending(server, 100_000, 2, "/")]
        reset(wires.pop())
        await server.emptied()
        assert server.listener.unfinished.size == 0


async def test_requests_that_wait_for_their_turn_take_room_too() -> None:
    held = Held()

    async def answer(exchange: HttpExchange) -> None:
        await (held if exchange.path == "/silent" else echo)(exchange)

    async with served(answer, body_memory=100_000) as server:
        wire = await server.wire()
        wire.writer.write(get("/silent") + post("/", b"a" * 60_000))
        await until(lambda: server.listener.unfinished.size > 60_000)
        other = await server.wire()
        other.writer.write(post("/", b"a" * 50_000)[:-1])
        await until(lambda: server.listener.unfinished.size < 60_000)
        held.go.set()
        assert (await wire.answer()).body == b"/silent", "what is being answered is answered"
        refused = await wire.answer()
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert await wire.closed()


async def test_a_request_that_is_being_answered_has_no_deadline_here() -> None:
    held = Held()
    async with served(held) as server:
        wire = await server.wire()
        wire.writer.write(get("/silent"))
        await until(lambda: server.paths == ["/silent"])
        server.later(1000)
        held.go.set()
        assert (await wire.answer()).body == b"/silent"


# --- bodies that nobody reads


@pytest.mark.parametrize("head", [post("/", b"a" * LARGE)[:-LARGE], CHUNKED])
async def test_an_early_refusal_is_read_by_who_is_still_sending(head: bytes) -> None:
    async with served(refuse) as server:
        wire = await server.wire()
        wire.writer.write(head)
        for _ in range(160):
            wire.writer.write(
                b"10000\r\n" + b"a" * (1 << 16) + b"\r\n" if head is CHUNKED else b"a" * (1 << 16)
            )
            await wire.writer.drain()
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"], answer.body) == (401, "close", b"no")
        assert await wire.closed()


async def test_who_never_stops_sending_is_cut_off() -> None:
    async with served(refuse) as server:
        wire = await server.wire()
        wire.writer.write(CHUNKED)
        assert (await wire.answer()).status == 401
        server.later(1)
        assert server.connection.state == "linger"
        server.later(3)
        await server.emptied()


async def test_a_body_beyond_the_limit_is_not_kept() -> None:
    held = Held()

    async def answer(exchange: HttpExchange) -> None:
        await held.go.wait()
        await echo(exchange)

    async with served(answer, body_limit=1 << 20) as server:
        wire = await server.wire()
        wire.writer.write(CHUNKED)
        await until(lambda: bool(server.paths))
        for _ in range(32):
            wire.writer.write(b"10000\r\n" + b"a" * (1 << 16) + b"\r\n")
            await wire.writer.drain()
        await until(lambda: server.request.size == 2 << 20)
        assert server.request.body() == b""
        held.go.set()
        assert (await wire.answer()).status == 413
        assert await wire.closed()


@pytest.mark.parametrize("rest", [b"z\r\n", b"3\r\nabcd\r\n", b"0\r\nContent-Length: 1\r\n\r\n"])
async def test_broken_chunks_are_told_to_who_waits_for_them(rest: bytes) -> None:
    async with served(echo) as server:
        wire = await server.wire()
        wire.writer.write(CHUNKED + b"3\r\nabc\r\n")
        await until(lambda: bool(server.paths))
        wire.writer.write(rest)
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert await wire.closed()


# --- Expect: 100-continue


async def test_a_client_that_waits_is_told_to_go_on_when_its_body_is_wanted() -> None:
    async with served(echo) as server:
        wire = await server.wire()
        raw = post("/", b"abc", "Expect: 100-Continue")
        assert (await wire.ask(raw[:-3])).status == 100
        assert (await wire.ask(b"abc")).body == b"abc"
        assert (await wire.ask(raw)).status == 200, "it did not wait, so it is not told"
        server.answer = refuse
        assert (await wire.ask(raw[:-3])).status == 401
        assert await wire.closed()


async def test_a_client_of_http_1_0_is_never_told_to_go_on() -> None:
    async with served(echo) as server:
        wire = await server.wire()
        raw = post("/", b"abc", "Expect: 100-continue", version="1.0")
        wire.writer.write(raw[:-3])
        await until(lambda: bool(server.paths))
        assert (await wire.ask(b"abc")).status == 200


# --- clients that leave


@contextlib.asynccontextmanager
async def in_state(state: str) -> AsyncIterator[tuple[Served, Wire]]:
    """A server and a client whose connection is in this state."""
    held = Held()
    handlers = {"body": echo, "endless body": refuse, "idle": echo, "closing": echo}
    async with served(handlers.get(state, held)) as server:
        wire = await server.wire()
        sent, ready = {
            "new": (b"", lambda: True),
            "head": (GET[:20], lambda: server.connection._parser.begun),
            "body": (post("/", b"abc")[:-1], lambda: server.paths == ["/"]),
            "endless body": (CHUNKED, lambda: server.connection.state == "linger"),
            "idle": (GET, lambda: server.connection.state == "idle"),
            "silent": (get("/silent"), lambda: server.paths == ["/silent"]),
            "streaming": (get("/"), lambda: server.paths == ["/"]),
            "pipelined": (get("/") + GET * 3, lambda: server.paths == ["/"]),
            "garbage behind": (get("/") + b"hello\r\n", lambda: server.paths == ["/"]),
            "garbage": (b"hello\r\n", lambda: server.connection.state == "linger"),
        }[state]
        await until(lambda: len(server.listener.connections) == 1)
        wire.writer.write(sent)
        await until(ready)
        yield server, wire


STATES = [
    "new", "head", "body", "endless body", "idle", "silent", "streaming", "pipelined", "garbage behind", "garbage",
]  # fmt: skip
WAITING = {"body", "silent", "streaming", "pipelined", "garbage behind"}
"""States in which a handler runs."""


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("leaves", ["orderly", "by reset"])
async def test_a_client_that_leaves_takes_everything_with_it(state: str, leaves: str) -> None:
    async with in_state(state) as (server, wire):
        if leaves == "orderly":
            wire.writer.close()
        else:
            reset(wire)
        await server.emptied()
        await until(lambda: len(server.cancelled) == (state in WAITING))


@pytest.mark.parametrize("state", STATES)
async def test_a_half_closed_client_counts_as_gone(state: str) -> None:
    async with in_state(state) as (server, wire):
        wire.writer.write_eof()
        await server.emptied()
        await until(lambda: len(server.cancelled) == (state in WAITING))


async def test_an_answer_that_waits_for_the_turn_s_end_reaches_a_client_that_closes_its_half() -> None:
    async with served(echo) as server:
        wire = await server.wire()
        wire.writer.write(GET)
        assert (await wire.answer()).body == b"/"
        transport, writes = server.connection.transport, server.listener.writes
        assert transport is not None
        writes.users = MAX_UNBATCHED_EXCHANGES + 1
        writes.write(transport, b"HTTP/1.1 204 No Content\r\n\r\n")
        assert writes.holds(transport)
        assert not server.connection.eof_received()
        transport.close()  # as the event loop does then
        del transport  # it knows its connection
        assert (await wire.answer()).status == 204
        await server.emptied()


@pytest.mark.parametrize("state", STATES)
async def test_a_shutdown_is_bounded_in_every_state(state: str) -> None:
    async with in_state(state) as (server, _):
        await server.listener.shutdown(0.01)
        assert not server.listener.connections
        await until(lambda: len(server.cancelled) == (state in WAITING))


@pytest.mark.parametrize("state", STATES)
async def test_nothing_survives_the_sweep_of_a_day_later_but_handlers(state: str) -> None:
    async with in_state(state) as (server, _):
        server.later(86_400)
        server.later(2 * 86_400)  # who was answered 408 has had its time to read it
        if state not in WAITING:
            await server.emptied()


# --- handlers that fail


async def test_a_handler_that_fails_without_a_word_closes_its_connection() -> None:
    async def fail(exchange: HttpExchange) -> None:
        raise RuntimeError

    async with served(fail) as server:
        wire = await server.wire()
        wire.writer.write(GET * 2)
        with contextlib.suppress(ConnectionResetError):
            assert await wire.closed()
        await server.emptied()
        await until(lambda: len(server.complaints) == 1)
        assert server.paths == ["/"]
        assert isinstance(server.complaints.pop()["exception"], RuntimeError)


async def test_an_answer_that_breaks_off_is_never_complete() -> None:
    async def fail(exchange: HttpExchange) -> None:
        exchange.begin("text/plain")
        exchange.write(b"first")
        raise RuntimeError

    async with served(fail) as server:
        wire = await server.wire()
        wire.writer.write(GET)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            received = await wire.reader.read()
        assert not received.endswith(b"0\r\n\r\n")
        await until(lambda: len(server.complaints) == 1)
        server.complaints.clear()


async def test_a_head_that_cannot_be_written_leaves_room_for_another_answer() -> None:
    async def fail(exchange: HttpExchange) -> None:
        for begin in (exchange.reply, exchange.begin):
            with pytest.raises(UnicodeEncodeError):
                begin(*(200, b"") if begin == exchange.reply else ("text/plain",), headers=[("x-a", "日本")])
        assert not exchange.begun
        exchange.reply(500, b"")

    async with served(fail) as server:
        wire = await server.wire()
        assert (await wire.ask(GET)).status == 500
        assert (await wire.ask(GET)).status == 500


# --- how many, and the end


async def test_one_connection_too_many_is_told_so_and_closed() -> None:
    async with served(echo, max_connections=2) as server:
        first, second = [await server.wire() for _ in range(2)]
        for wire in (first, second):
            assert (await wire.ask(GET)).status == 200
        third = await server.wire()
        answer = await third.answer()
        assert (answer.status, answer.headers["connection"], answer.headers["retry-after"]) == (
            503,
            "close",
            "1",
        )
        assert await third.closed()
        assert (await second.ask(GET)).status == 200
        first.writer.close()
        await until(lambda: len(server.listener.connections) == 1)
        assert (await (await server.wire()).ask(GET)).status == 200
        assert server.broken == [503]


async def test_answers_of_a_draining_server_close_their_connections() -> None:
    held = Held()
    async with served(held) as server:
        idle, early, late = [await server.wire() for _ in range(3)]
        early.writer.write(get("/early"))
        await until(lambda: server.paths == ["/early"])
        server.listener.draining = True
        late.writer.write(get("/late") + GET)
        await until(lambda: len(server.paths) == 2)
        held.go.set()
        answer = await late.answer()
        assert (answer.body, answer.headers["connection"]) == (b"first /late", "close")
        assert await late.closed()
        assert (await early.answer()).body == b"first /early"
        shutdown = asyncio.create_task(server.listener.shutdown(10))
        assert await idle.closed()
        assert await early.closed()
        late.writer.close()
        await shutdown


async def test_a_shutdown_lets_running_answers_finish() -> None:
    held = Held()
    async with served(held) as server:
        wire = await server.wire()
        wire.writer.write(get("/a"))
        await until(lambda: server.paths == ["/a"])
        shutdown = asyncio.create_task(server.listener.shutdown(10))
        await asyncio.sleep(0)
        held.go.set()
        assert (await wire.answer()).body == b"first /a"
        assert await wire.closed()
        await shutdown


# --- clients that do not read


class Faucet:
    """An upstream that pours into an exchange until it is paused."""

    def __init__(self) -> None:
        self.poured = 0
        self.open = asyncio.Event()
        self.open.set()

    def pause(self) -> None:
        self.open.clear()

    def resume(self) -> None:
        self.open.set()

    async def __call__(self, exchange: HttpExchange) -> None:
        exchange.begin("text/plain")
        exchange.attach(self)  # type: ignore[arg-type]
        left = int(exchange.query.get("size", LARGE))
        while left > 0:
            await self.open.wait()
            exchange.write(b"a" * 4096)
            self.poured += 4096
            left -= 4096
            await asyncio.sleep(0)
        exchange.attach(None)
        exchange.write(b"", last=True)


async def test_a_stream_waits_for_its_reader() -> None:
    faucet = Faucet()
    async with served(faucet) as server:
        client = await server.mute(GET)
        await until(lambda: not faucet.open.is_set())
        assert faucet.poured < 1 << 20
        blocked = server.connection.exchange.blocked_since  # type: ignore[union-attr]
        assert blocked > 0
        received = 0
        while received < LARGE:
            received += len(await asyncio.get_running_loop().sock_recv(client, 1 << 20))
        await until(lambda: server.connection.state == "idle")


async def test_the_next_request_waits_until_the_answer_before_it_was_read() -> None:
    faucet = Faucet()
    async with served(faucet) as server:
        client = await server.mute(get("/1?size=200000"))
        await until(lambda: not faucet.open.is_set())
        faucet.open.set()  # an upstream that cannot be paused: its answer is whole, and unread
        faucet.pause = lambda: None  # type: ignore[method-assign]
        loop = asyncio.get_running_loop()
        await until(lambda: server.connection.exchange is None)
        poured = faucet.poured
        await loop.sock_sendall(client, get("/2") * 3)
        for _ in range(100):
            await asyncio.sleep(0)
        assert (server.paths, faucet.poured) == (["/1"], poured)
        del faucet.pause
        while len(server.paths) < 2:
            with contextlib.suppress(BlockingIOError):
                client.recv(1 << 16)
            await asyncio.sleep(0)
        assert server.paths == ["/1", "/2"]


async def test_answers_that_nobody_reads_are_not_piled_up() -> None:
    async def large(exchange: HttpExchange) -> None:
        exchange.reply(200, b"a" * 50_000)

    async with served(large) as server:
        client = await server.mute(GET)
        while not server.connection._blocked:
            with contextlib.suppress(
                BlockingIOError
            ):  # the kernel takes no more; the server may not have read it yet
                client.send(GET * 10)
            await asyncio.sleep(0)
        for _ in range(1000):
            with contextlib.suppress(BlockingIOError):
                client.send(GET * 10)
            await asyncio.sleep(0)
        assert server.connection.transport.get_write_buffer_size() < 1 << 20
        answered = len(server.paths)
        server.later(61)
        await server.emptied()
        assert len(server.paths) == answered


@pytest.mark.parametrize(
    "raw", [get("/", "Connection: close"), get("/", version="1.0"), GET, GET * 2, GET + b"hello\r\n"]
)
async def test_an_answer_that_is_never_read_ends_with_its_connection(raw: bytes) -> None:
    async def large(exchange: HttpExchange) -> None:
        exchange.reply(200, b"a" * LARGE)

    async with served(large) as server:
        await server.mute(raw)
        await until(lambda: server.paths == ["/"] and server.connection.exchange is None)
        server.later(59)
        assert len(server.listener.connections) == 1
        server.later(61)
        await server.emptied()


async def test_who_writes_at_its_own_pace_waits_for_the_reader() -> None:
    written: list[int] = []

    async def patient(exchange: HttpExchange) -> None:
        exchange.begin("text/plain")
        for number in range(1000):
            await exchange.writable()
            exchange.write(b"a" * 4096, last=number == 999)
            written.append(number)

    async with served(patient) as server:
        client = await server.mute(GET)
        await until(lambda: bool(server.paths) and bool(server.connection.exchange.blocked_since))  # type: ignore[union-attr]
        assert len(written) < 300
        received = 0
        while received < 1000 * 4096:
            received += len(await asyncio.get_running_loop().sock_recv(client, 1 << 20))
        await until(lambda: server.connection.state == "idle")
        assert isinstance(client, socket.socket)


# --- what a request says


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/a?b=c&b=d", "/a", {"b": "d"}),
        ("/?a", "/", {"a": ""}),
        ("/?a=%ff%fe&%ff=1", "/", {"a": "\ufffd\ufffd", "\ufffd": "1"}),
        ("/?a=%zz&=&;=1", "/", {"a": "%zz", "": "", ";": "1"}),
        ("/?" + "a=b&" * 2000, "/", {"a": "b"}),
        ("http://y/a?b=c", "/a", {"b": "c"}),
        ("http://y?b=c", "/", {"b": "c"}),
        ("/%2e%2e/x", "/%2e%2e/x", {}),
    ],
)
async def test_a_target_is_a_path_and_a_query(target: str, path: str, query: dict[str, str]) -> None:
    seen: list[tuple[str, dict[str, str]]] = []

    async def look(exchange: HttpExchange) -> None:
        seen.append((exchange.path, dict(exchange.query)))
        exchange.reply(200, b"")

    async with served(look) as server:
        wire = await server.wire()
        assert (await wire.ask(get(target))).status == 200
        assert seen == [(path, query)]
