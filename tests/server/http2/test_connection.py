"""HTTP/2 on a listener, by a client that speaks frame by frame; the same port serves HTTP/1.1."""

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("h2", reason="h2 is not installed (the extra http2)")

import h2.config
import h2.events
import h2.settings
from h2.errors import ErrorCodes

from sluice.server.exchange import HttpExchange
from sluice.server.http2.connection import Http2Connection, Stream
from sluice.server.http2.floods import MAX_SMALL
from sluice.server.http2.frames import SMALL_FRAME_BYTES, SMALL_PER_HEAD, FrameBounds
from sluice.server.http2.protocol import Http2Protocol
from sluice.server.http2.upgrade import PREFACE
from sluice.server.tls import WatchedCertificate
from tests.server.served import Served, served
from tests.server.test_connection import GET, Held, echo, get, post, refuse
from tests.server.test_tls import Pki
from tests.upstream.calls import until

BLOCK = 10_000


class Client:
    """One connection. `answers`: by stream, the status, the body so far, and how it ended: "end", or the code
    of a reset."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = Http2Protocol(h2.config.H2Configuration(client_side=True, header_encoding="latin-1"))
        self.h2.initiate_connection()
        self.headers: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytes] = {}
        self.ends: dict[int, Any] = {}
        self.goaway: Any = None
        self.closed = False
        self.acknowledge = True
        self.flush()

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def ask(
        self,
        path: str,
        *more: tuple[str, str],
        method: str = "GET",
        body: bytes | None = None,
        ends: bool = True,
    ) -> int:
        id: int = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "x"), *more]
        self.h2.send_headers(id, head, end_stream=body is None and ends)
        if body is not None:
            self.h2.send_data(id, body, end_stream=ends)
        self.flush()
        return id

    async def read(self) -> None:
        """Take what comes next."""
        async with asyncio.timeout(60):
            data = await self.reader.read(65536)
        self.closed = not data
        for event in self.h2.receive_data(data):
            match event:
                case (
                    h2.events.ResponseReceived(stream_id=int(id), headers=found)
                    | h2.events.InformationalResponseReceived(stream_id=int(id), headers=found)
                ):
                    self.headers[id] = {str(name): str(value) for name, value in found or ()}
                case h2.events.DataReceived(stream_id=int(id)):
                    self.bodies[id] = self.bodies.get(id, b"") + (event.data or b"")
                    if self.acknowledge and event.flow_controlled_length:
                        self.h2.acknowledge_received_data(event.flow_controlled_length, id)
                case h2.events.StreamEnded(stream_id=int(id)):
                    self.ends.setdefault(id, "end")
                case h2.events.StreamReset(stream_id=int(id)):
                    self.ends.setdefault(id, event.error_code)
                case h2.events.ConnectionTerminated():
                    self.goaway = event.error_code
        self.flush()

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            assert not self.closed, "the server has closed the connection"
            await self.read()

    async def answer(self, id: int) -> tuple[int, bytes]:
        await self.until(lambda: id in self.ends)
        assert self.ends[id] == "end", self.ends[id]
        return int(self.headers[id][":status"]), self.bodies.get(id, b"")

    async def gone(self) -> None:
        """Returns when the server has closed the connection."""
        with suppress(ConnectionError):
            while not self.closed:
                await self.read()


async def client(server: Served) -> Client:
    reader, writer = await asyncio.open_connection(*server.address)
    server.clients.append(writer)
    return Client(reader, writer)


# --- requests and answers


async def test_requests_are_answered_beside_each_other() -> None:
    held = Held()
    async with served(held, http2=True) as server:
        caller = await client(server)
        ids = [caller.ask(f"/{number}") for number in range(3)]
        await until(lambda: len(server.paths) == 3)
        assert len(server.listener.connections) == 1
        held.go.set()
        for number, id in reversed(list(enumerate(ids))):
            assert await caller.answer(id) == (200, f"first /{number}".encode())
        assert server.listener.streams == 0


async def test_an_answer_has_the_fields_of_http_1_without_those_of_connections() -> None:
    async with served(echo, http2=True) as server:
        caller = await client(server)
        id = caller.ask("/a?b=c")
        assert await caller.answer(id) == (200, b"/a")
        found = caller.headers[id]
        assert (found["content-length"], found["cache-control"], found["x-frame-options"]) == (
            "2",
            "no-store",
            "DENY",
        )
        assert not {"connection", "transfer-encoding", "keep-alive"} & set(found)
        wire = await server.wire()
        over_http_1 = (await wire.ask(get("/a?b=c"))).headers
        assert set(found) - {":status"} == set(over_http_1)


@pytest.mark.parametrize("http2", [False, True])
async def test_an_answer_has_the_dialects_names_of_its_own_headers(http2: bool) -> None:
    async def answer(exchange: HttpExchange) -> None:
        exchange.extra.append(("x-own", "0"))
        exchange.rename = lambda pairs: [(name.replace("x-own", "their"), value) for name, value in pairs]
        if exchange.path == "/whole":
            exchange.reply(200, b"", [("x-own-a", "1")])
        else:
            exchange.begin("text/plain", [("x-own-b", "2")])
            exchange.write(b"", last=True)

    async with served(answer, http2=http2) as server:
        for path, name, value in (("/whole", "their-a", "1"), ("/streamed", "their-b", "2")):
            if http2:
                caller = await client(server)
                id = caller.ask(path)
                await caller.answer(id)
                found: Any = caller.headers[id]
            else:
                found = (await (await server.wire()).ask(get(path))).headers
            assert (found["x-own"], found[name]) == ("0", value)


async def test_the_answer_to_head_has_no_body() -> None:
    async with served(echo, http2=True) as server:
        caller = await client(server)
        id = caller.ask("/abc", method="HEAD")
        assert await caller.answer(id) == (200, b"")
        assert caller.headers[id]["content-length"] == "4"


async def test_a_body_of_many_frames_arrives() -> None:
    async with served(echo, http2=True, body_limit=2 << 20) as server:
        caller = await client(server)
        body = bytes(range(256)) * 4096
        id = caller.ask("/", method="POST", ends=False)
        sent = 0
        while sent < len(body):
            await caller.until(lambda: caller.h2.local_flow_control_window(id) > 0)
            size = min(len(body) - sent, caller.h2.local_flow_control_window(id), 16384)
            caller.h2.send_data(id, body[sent : sent + size])
            sent += size
            caller.flush()
        caller.h2.end_stream(id)
        caller.flush()
        assert await caller.answer(id) == (200, body)
        assert server.listener.unfinished.size == 0


async def test_a_body_that_is_taken_in_pieces_slows_its_client() -> None:
    taken: list[int] = []
    go = asyncio.Event()

    async def slow(exchange: HttpExchange) -> None:
        await go.wait()
        taken.extend([len(piece) async for piece in exchange.pieces(2 << 20)])
        exchange.reply(200, str(sum(taken)).encode())

    async with served(slow, http2=True, body_limit=300_000) as server:
        caller = await client(server)
        id = caller.ask("/", ("content-type", "multipart/form-data; boundary=x"), method="POST", ends=False)
        await caller.until(lambda: caller.h2.local_flow_control_window(id) > 65_535)
        window = caller.h2.local_flow_control_window(id)
        sent = 0
        while sent < 1 << 20:
            while size := min((1 << 20) - sent, caller.h2.local_flow_control_window(id), 16_384):
                caller.h2.send_data(id, b"x" * size)
                sent += size
                caller.flush()
            if not go.is_set():
                assert sent == window, "nobody has taken anything yet"
                go.set()
            if sent < 1 << 20:
                await caller.read()
        caller.h2.end_stream(id)
        caller.flush()
        assert await caller.answer(id) == (200, b"1048576")


async def test_a_body_that_is_too_large_is_refused_and_the_rest_not_wanted() -> None:
    async with served(echo, http2=True, body_limit=1000) as server:
        caller = await client(server)
        said = caller.ask("/", ("content-length", "5000"), method="POST", ends=False)
        unsaid = caller.ask("/", method="POST", body=b"x" * 2000, ends=False)
        for id in (said, unsaid):
            await caller.until(lambda id=id: id in caller.ends)  # type: ignore[misc]
            assert caller.headers[id][":status"] == "413"
        last = caller.ask("/next")
        assert await caller.answer(last) == (200, b"/next")


async def test_who_waits_to_be_told_to_go_on_is_told() -> None:
    async with served(echo, http2=True) as server:
        caller = await client(server)
        id = caller.ask("/", ("expect", "100-continue"), method="POST", ends=False)
        await caller.until(lambda: id in caller.headers)
        assert caller.headers[id][":status"] == "100"
        caller.h2.send_data(id, b"abc", end_stream=True)
        caller.flush()
        assert await caller.answer(id) == (200, b"abc")


async def test_a_body_that_does_not_come_is_given_up_and_other_streams_go_on() -> None:
    async with served(echo, http2=True, body_timeout=0.05) as server:
        caller = await client(server)
        id = caller.ask("/", method="POST", body=b"abc", ends=False)
        await caller.until(lambda: id in caller.ends)
        assert caller.headers[id][":status"] == "408"
        assert await caller.answer(caller.ask("/next")) == (200, b"/next")


async def test_the_memory_for_unfinished_bodies_is_bounded_over_all_streams() -> None:
    async with served(echo, http2=True, body_limit=1000, body_memory=1500) as server:
        caller = await client(server)
        ids = [caller.ask("/", method="POST", body=b"x" * 800, ends=False) for _ in range(2)]
        await caller.until(lambda: ids[0] in caller.ends)
        assert caller.headers[ids[0]][":status"] == "503"
        caller.h2.end_stream(ids[1])
        caller.flush()
        assert await caller.answer(ids[1]) == (200, b"x" * 800)


async def test_a_handler_that_fails_resets_its_stream_alone() -> None:
    async def fail(exchange: HttpExchange) -> None:
        if exchange.path == "/begun":
            exchange.begin("text/plain")
            exchange.write(b"first")
        if exchange.path != "/well":
            raise RuntimeError
        exchange.reply(200, b"")

    async with served(fail, http2=True) as server:
        caller = await client(server)
        ids = [caller.ask(path) for path in ("/begun", "/silent", "/well")]
        await caller.until(lambda: len(caller.ends) == 3)
        assert [caller.ends[id] for id in ids] == [
            ErrorCodes.INTERNAL_ERROR,
            ErrorCodes.INTERNAL_ERROR,
            "end",
        ]
        await until(lambda: len(server.complaints) == 2)
        server.complaints.clear()


async def test_a_head_that_cannot_be_written_leaves_room_for_another_answer() -> None:
    async def fail(exchange: HttpExchange) -> None:
        for begin in (exchange.reply, exchange.begin):
            with pytest.raises(UnicodeEncodeError):
                begin(*(200, b"") if begin == exchange.reply else ("text/plain",), headers=[("x-a", "日本")])
        exchange.reply(500, b"")

    async with served(fail, http2=True) as server:
        caller = await client(server)
        assert await caller.answer(caller.ask("/")) == (500, b"")


# --- clients that leave, and that do not read


async def test_a_reset_stream_takes_its_handler_with_it_and_no_other() -> None:
    held = Held()
    async with served(held, http2=True) as server:
        caller = await client(server)
        first, second = caller.ask("/first"), caller.ask("/second")
        await until(lambda: len(server.paths) == 2)
        caller.h2.reset_stream(first, ErrorCodes.CANCEL)
        caller.flush()
        await until(lambda: server.cancelled == ["/first"])
        held.go.set()
        assert await caller.answer(second) == (200, b"first /second")
        await until(lambda: server.listener.streams == 0)


@pytest.mark.parametrize("leaves", ["orderly", "by reset", "half"])
async def test_a_client_that_leaves_takes_everything_with_it(leaves: str) -> None:
    held = Held()
    async with served(held, http2=True) as server:
        caller = await client(server)
        for number in range(3):
            caller.ask(f"/{number}")
        await until(lambda: len(server.paths) == 3)
        {
            "orderly": caller.writer.close,
            "by reset": caller.writer.transport.abort,
            "half": caller.writer.write_eof,
        }[leaves]()
        await server.emptied()
        await until(lambda: sorted(server.cancelled) == ["/0", "/1", "/2"])
        await until(lambda: server.listener.streams == 0)


async def test_a_client_that_begins_no_more_streams_gets_the_answers_of_those_that_it_has() -> None:
    held = Held()
    async with served(held, http2=True) as server:
        caller = await client(server)
        id = caller.ask("/a")
        await until(lambda: bool(server.paths))
        caller.writer.write(bytes.fromhex("0000080700000000000000000000000000"))  # GOAWAY, no error
        held.go.set()
        assert await caller.answer(id) == (200, b"first /a")
        await caller.gone()


class Endless:
    """Writes until the client holds it back, and again as soon as it may."""

    def __init__(self) -> None:
        self.written = 0
        self.held_back = asyncio.Event()

    async def __call__(self, exchange: HttpExchange) -> None:
        if exchange.path != "/endless":
            return await echo(exchange)
        exchange.begin("text/plain")
        for _ in range(2):
            while not exchange.blocked_since:
                exchange.write(b"x" * BLOCK)
                self.written += BLOCK
                await asyncio.sleep(0)
            self.held_back.set()
            await exchange.writable()
        exchange.write(b"", last=True)
        return None


async def test_a_stream_without_a_window_holds_back_its_writer_and_no_other_stream() -> None:
    endless = Endless()
    async with served(endless, http2=True, send_buffer=50_000) as server:
        caller = await client(server)
        caller.h2.increment_flow_control_window(
            1 << 20
        )  # of the connection: only the stream's window is small
        caller.acknowledge = False
        id = caller.ask("/endless")
        await endless.held_back.wait()
        assert endless.written < 65_535 + 50_000 + 2 * BLOCK
        assert await caller.answer(caller.ask("/other")) == (200, b"/other")
        before = endless.written
        endless.held_back.clear()
        await caller.until(lambda: len(caller.bodies.get(id, b"")) == 65_535)
        caller.h2.increment_flow_control_window(60_000, id)
        caller.flush()
        await endless.held_back.wait()
        assert before < endless.written < before + 60_000 + 50_000 + 2 * BLOCK
        caller.acknowledge = True
        caller.h2.increment_flow_control_window(1 << 20, id)
        caller.flush()
        await caller.answer(id)
        assert len(caller.bodies[id]) == endless.written


async def test_an_answer_that_nobody_takes_is_given_up() -> None:
    async def large(exchange: HttpExchange) -> None:
        exchange.reply(200, b"x" * 200_000)

    async with served(large, http2=True) as server:
        caller = await client(server)
        caller.acknowledge = False
        id = caller.ask("/")
        await caller.until(lambda: len(caller.bodies.get(id, b"")) == 65_535)
        server.later(86_400)
        await caller.until(lambda: id in caller.ends)
        assert caller.ends[id] == ErrorCodes.CANCEL


@pytest.mark.parametrize(("taken", "ends"), [(1, ErrorCodes.CANCEL), (65_536, "end")])
async def test_an_answer_that_is_taken_in_drops_is_given_up_and_a_slow_reader_gets_it_whole(
    taken: int, ends: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def large(exchange: HttpExchange) -> None:
        exchange.reply(200, b"x" * 600_000)

    class Clock:
        ahead = 0.0

        def monotonic(self) -> float:
            return time.monotonic() + self.ahead

    clock = Clock()
    monkeypatch.setattr("sluice.server.http2.connection.time", clock)
    async with served(large, http2=True, write_idle=60) as server:
        caller = await client(server)
        caller.acknowledge = False
        caller.h2.increment_flow_control_window(1 << 20)
        id = caller.ask("/")
        await caller.until(lambda: len(caller.bodies.get(id, b"")) == 65_535)
        size = 65_535
        while server.listener.streams:
            clock.ahead += 40
            server.later(clock.ahead)
            size = min(size + taken, 600_000)
            caller.h2.increment_flow_control_window(taken, id)
            caller.flush()
            await caller.until(lambda size=size: len(caller.bodies[id]) == size or id in caller.ends)  # type: ignore[misc]
        await caller.until(lambda: id in caller.ends)
        assert caller.ends[id] == ends


async def test_answers_that_are_not_sent_yet_count_as_streams() -> None:
    async def large(exchange: HttpExchange) -> None:
        exchange.reply(200, b"x" * 100_000)

    async with served(large, http2=True, max_connections=3) as server:
        callers = [await client(server) for _ in range(2)]
        for caller in callers:
            caller.acknowledge = False
            caller.h2.increment_flow_control_window(1 << 20)
        ids = [callers[0].ask(f"/{number}") for number in range(3)]
        for id in ids:
            await callers[0].until(lambda id=id: len(callers[0].bodies.get(id, b"")) == 65_535)  # type: ignore[misc]
        await until(lambda: not server.listener.answering())
        assert server.listener.streams == 3
        assert (await callers[1].answer(callers[1].ask("/one too many")))[0] == 503
        callers[0].h2.increment_flow_control_window(1 << 20, ids[0])
        callers[0].flush()
        assert (await callers[0].answer(ids[0]))[0] == 200
        assert server.listener.streams == 2
        callers[0].writer.close()
        await until(lambda: server.listener.streams == 0)


async def test_a_socket_that_nobody_reads_holds_back_and_is_closed_at_last() -> None:
    endless = Endless()
    async with served(endless, http2=True, send_buffer=50_000) as server:
        reader, writer = await asyncio.open_connection(*server.address, limit=4096)
        server.clients.append(writer)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller = Client(reader, writer)
        caller.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: (1 << 31) - 1})
        caller.h2.increment_flow_control_window((1 << 31) - 1 - 65_535)
        caller.ask("/endless")
        async with asyncio.timeout(60):
            await endless.held_back.wait()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        server.later(86_400)
        await server.emptied()
        await until(lambda: server.cancelled == ["/endless"])


# --- HTTP/1.1 on the same port


@pytest.mark.parametrize("size", [1, 2, 3, 5, 23])
async def test_the_first_bytes_decide_however_they_are_cut(size: int) -> None:
    async with served(echo, http2=True) as server:
        caller = await client(server)
        wire = await server.wire()
        for raw in (post("/", b"abc"), post("/", b"abc").replace(b"POST", b"PUT"), GET):
            for at in range(0, len(raw), size):
                wire.writer.write(raw[at : at + size])
                await asyncio.sleep(0)
            assert (await wire.answer()).body in (b"abc", b"/")
        assert await caller.answer(caller.ask("/2")) == (200, b"/2")
        assert len(server.listener.connections) == 2
    async with served(echo, http2=True) as server:
        reader, writer = await asyncio.open_connection(*server.address)
        server.clients.append(writer)
        for at in range(0, len(PREFACE), size):
            writer.write(PREFACE[at : at + size])
            await asyncio.sleep(0)
        assert (await reader.readexactly(9))[3] == 4, "SETTINGS"


async def test_where_it_is_off_a_preface_is_no_request() -> None:
    async with served(echo) as server:
        wire = await server.wire()
        wire.writer.write(PREFACE)
        assert (await wire.answer()).status == 400


# --- bounds


def flood_of_resets(caller: Client) -> None:
    caller.h2.reset_stream(caller.ask("/silent"), ErrorCodes.CANCEL)


def flood_of_pings(caller: Client) -> None:
    caller.h2.ping(b"12345678")


def flood_of_settings(caller: Client) -> None:
    caller.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 65_535})


def flood_of_empty_data(caller: Client) -> None:
    if not caller.h2.open_outbound_streams:
        caller.ask("/", method="POST", ends=False)
    caller.h2.send_data(1, b"")


def flood_of_windows(caller: Client) -> None:
    caller.h2.increment_flow_control_window(1)


def flood_of_windows_of_a_stream(caller: Client) -> None:
    if not caller.h2.open_outbound_streams:
        caller.ask("/silent")
    caller.h2.increment_flow_control_window(1, 1)


def flood_of_resets_of_what_is_over(caller: Client) -> None:
    if not caller.h2.open_outbound_streams:
        caller.ask("/silent")
    caller.writer.write(bytes.fromhex("00000403 00 00000001 00000008"))


@pytest.mark.parametrize(
    "flood",
    [
        flood_of_resets,
        flood_of_pings,
        flood_of_settings,
        flood_of_empty_data,
        flood_of_windows,
        flood_of_windows_of_a_stream,
        flood_of_resets_of_what_is_over,
    ],
)
async def test_a_flood_of_frames_that_ask_for_nothing_ends_the_connection(
    flood: Callable[[Client], None],
) -> None:
    held = Held()
    async with served(held, http2=True) as server:
        caller = await client(server)
        with suppress(ConnectionError):
            for number in range(3000):
                flood(caller)
                caller.flush()
                if number % 50 == 0:
                    await caller.writer.drain()
                    await asyncio.sleep(0)
        await server.emptied()
        await until(lambda: server.listener.streams == 0)
        assert server.broken == [400]
        assert len(server.paths) < 400


async def test_windows_are_used_once_for_all_frames_of_a_read(monkeypatch: pytest.MonkeyPatch) -> None:
    pumped: list[int] = []
    pump = Http2Connection._pump

    def counted(self: Http2Connection, stream: Stream) -> None:
        pumped.append(stream.id)
        pump(self, stream)

    held = Held()
    async with served(held, http2=True) as server:
        caller = await client(server)
        for number in range(100):
            caller.ask(f"/{number}")
        await until(lambda: len(server.paths) == 100)
        (connection,) = server.listener.connections
        assert isinstance(connection, Http2Connection)
        monkeypatch.setattr(Http2Connection, "_pump", counted)
        window = bytes.fromhex("00000408 00 00000000 00000001")
        settings = bytes.fromhex("00000604 00 00000000 0004 0000ffff")
        connection.data_received(window * 400 + settings * 400)
        assert len(pumped) <= 100
        pumped.clear()
        connection.data_received(bytes.fromhex("00000408 00 00000003 00000001") * 400)
        assert pumped == [3]
        held.go.set()
        await caller.until(lambda: len(caller.ends) == 100)
        assert set(caller.ends.values()) == {"end"}


async def test_a_flood_is_noticed_before_all_of_a_read_has_been_worked_through() -> None:
    async with served(echo, http2=True) as server:
        caller = await client(server)
        await caller.answer(caller.ask("/"))
        (connection,) = server.listener.connections
        assert isinstance(connection, Http2Connection)
        received: list[int] = []
        receive = connection._h2.receive_data
        connection._h2.receive_data = lambda data: (received.append(len(data)), receive(data))[1]  # type: ignore[method-assign]
        connection.data_received(bytes.fromhex("00000806 00 00000000 0123456789abcdef") * 15_000)
        assert sum(received) < 64 << 10
        assert server.broken == [400]
        await caller.gone()


@pytest.mark.parametrize("reset", [False, True])
async def test_a_flood_of_small_data_ends_the_connection(reset: bool) -> None:
    async with served(echo, http2=True) as server:
        caller = await client(server)
        id = caller.ask("/", method="POST", ends=False)
        await until(lambda: any(connection.exchange for connection in server.listener.connections))
        if reset:
            caller.h2.reset_stream(id, ErrorCodes.CANCEL)
            caller.flush()
            await until(lambda: not any(connection.exchange for connection in server.listener.connections))
        (connection,) = server.listener.connections
        assert isinstance(connection, Http2Connection)
        received: list[int] = []
        receive = connection._h2.receive_data
        connection._h2.receive_data = lambda data: (received.append(len(data)), receive(data))[1]  # type: ignore[method-assign]
        one = bytes.fromhex("00000100 00 00000001 61")
        connection._floods.frames.small = 0  # as the look of each second does
        connection.data_received(one * MAX_SMALL)
        assert server.broken == []
        connection.data_received(one * 20_000)
        assert received == [len(one) * MAX_SMALL]
        assert server.broken == [400]
        await caller.gone()


async def test_a_body_in_small_frames_is_no_flood() -> None:
    async with served(echo, http2=True) as server:
        caller = await client(server)
        id = caller.ask("/", method="POST", ends=False)
        await until(lambda: any(connection.exchange for connection in server.listener.connections))
        (connection,) = server.listener.connections
        assert isinstance(connection, Http2Connection)
        for _ in range(4):
            connection.data_received(bytes.fromhex(f"00000100 00 {id:08x} 61") * MAX_SMALL)
            connection.look(time.monotonic())
        connection.data_received(bytes.fromhex(f"00000000 01 {id:08x}"))
        assert await caller.answer(id) == (200, b"a" * 4 * MAX_SMALL)
        assert server.broken == []


async def test_a_client_that_gives_a_window_for_each_frame_is_no_flood() -> None:
    async def tokens(exchange: HttpExchange) -> None:
        exchange.begin("text/plain")
        for _ in range(3000):
            exchange.write(b"token")
            if exchange.blocked_since:
                await exchange.writable()
            await asyncio.sleep(0)
        exchange.write(b"", last=True)

    async with served(tokens, http2=True) as server:
        caller = await client(server)
        id = caller.ask("/")
        updates = 0

        def acknowledge() -> bool:
            nonlocal updates
            taken = len(caller.bodies.get(id, b"")) // 5
            for _ in range(taken - updates):
                caller.h2.increment_flow_control_window(5)
                if id not in caller.ends:
                    caller.h2.increment_flow_control_window(5, id)
            updates = taken
            caller.flush()
            return id in caller.ends

        caller.acknowledge = False
        await caller.until(acknowledge)
        assert (caller.ends[id], len(caller.bodies[id])) == ("end", 15_000)
        assert server.broken == []


async def test_streams_of_one_connection_are_bounded() -> None:
    held = Held()
    async with served(held, http2=True) as server:
        caller = await client(server)
        await caller.until(lambda: caller.h2.remote_settings.max_concurrent_streams == 100)
        caller.h2.remote_settings = h2.settings.Settings(client=False)  # who does not care
        for number in range(101):
            caller.ask(f"/{number}")
        await caller.gone()
        await until(lambda: server.listener.streams == 0)
        assert len(server.paths) <= 100


async def test_streams_of_all_connections_are_bounded() -> None:
    held = Held()
    async with served(held, http2=True, max_connections=3) as server:
        first, second = await client(server), await client(server)
        ids = [caller.ask("/silent") for caller in (first, first, second)]
        await until(lambda: len(server.paths) == 3)
        refused = second.ask("/one too many")
        assert (await second.answer(refused))[0] == 503
        assert second.headers[refused]["retry-after"] == "1"
        held.go.set()
        assert (await second.answer(ids[2]))[0] == 200
        assert (await second.answer(second.ask("/b")))[0] == 200


@pytest.mark.parametrize(
    "more",
    [[("x-a", "b" * 9000)], [("host", "a b")], [("a", "b" * 7000)] * 9, [(f"x-{n}", "") for n in range(300)]],
)
async def test_a_head_that_http_1_would_refuse_is_refused(more: list[tuple[str, str]]) -> None:
    async with served(echo, http2=True) as server:
        caller = await client(server)
        caller.h2.config.validate_outbound_headers = False
        id = caller.ask("/", *more)
        with suppress(ConnectionError):
            while id not in caller.ends and not caller.closed:
                await caller.read()
        assert server.paths == []
        assert caller.ends.get(id) == ErrorCodes.PROTOCOL_ERROR or caller.goaway is not None


def frame(kind: int, size: int, flags: int = 0, stream: int = 1) -> bytes:
    return size.to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + b"x" * size


HELD = [
    frame(0, 16_384),
    frame(1, 16_384) + frame(9, 16_384) * 3,
    (frame(1, 60_000 // 4) + frame(9, 100)) * 20,
    frame(6, 8) * 9,
]
BEYOND = [
    frame(0, 16_385),
    frame(1, 16_384) + frame(9, 16_384) * 4,
    b"\xff" * 9,
    frame(1, 10_000) + frame(9, 10_000) * 6,
]


@pytest.mark.parametrize(("raw", "held"), [*((raw, True) for raw in HELD), *((raw, False) for raw in BEYOND)])
def test_frames_and_heads_are_bounded_however_they_are_cut(raw: bytes, held: bool) -> None:
    raw = PREFACE + raw
    for size in (len(raw), 1, 7, 9, 24, 1000):
        bounds = FrameBounds()
        assert all([bounds.hold(raw[at : at + size]) for at in range(0, len(raw), size)]) is held


def test_frames_that_bring_nothing_are_counted_however_they_are_cut() -> None:
    ended = bytes.fromhex("00000000 01 00000001")  # DATA with END_STREAM
    raw = PREFACE + ended + frame(0, 0) + frame(1, 5) + frame(8, 4) * 2 + frame(3, 4) * 3
    raw += frame(4, 0) + frame(6, 8) + frame(2, 5) + frame(99, 1) + frame(0, 100)
    for size in (len(raw), 1, 7, 9, 24):
        bounds = FrameBounds()
        assert all([bounds.hold(raw[at : at + size]) for at in range(0, len(raw), size)])
        assert (bounds.fruitless, bounds.updates, bounds.resets) == (5, 2, 3)
        assert bounds.small == 2 - SMALL_PER_HEAD


def test_small_frames_of_data_are_counted_unless_they_end_a_body() -> None:
    bounds = FrameBounds()
    small = (
        frame(0, 1) * 20 + frame(0, SMALL_FRAME_BYTES - 1) + frame(0, SMALL_FRAME_BYTES) + frame(0, 16_384)
    )
    ended = bytes.fromhex("00000000 01 00000001") * 30
    assert bounds.hold(PREFACE + small + ended)
    assert bounds.small == 21
    assert bounds.hold(frame(1, 5) + small)
    assert bounds.small == 42 - SMALL_PER_HEAD


async def test_garbage_behind_the_preface_ends_the_connection() -> None:
    async with served(echo, http2=True) as server:
        reader, writer = await asyncio.open_connection(*server.address)
        server.clients.append(writer)
        writer.write(PREFACE + b"\xff" * 100)
        with suppress(ConnectionError):
            await reader.read()
        await server.emptied()
        assert server.broken == [400]


# --- the end


async def test_a_draining_server_says_which_streams_it_answers_and_ends_behind_them() -> None:
    held = Held()
    async with served(held, http2=True) as server:
        caller = await client(server)
        running = caller.ask("/running")
        await until(lambda: bool(server.paths))
        server.listener.draining = True
        server.later(0)
        held.go.set()
        await caller.until(lambda: caller.goaway is not None and running in caller.ends)
        assert caller.goaway == ErrorCodes.NO_ERROR
        assert (caller.ends[running], caller.bodies[running]) == ("end", b"first /running")
        await caller.gone()
        assert server.paths == ["/running"]


async def test_a_stream_that_comes_behind_the_goaway_may_be_sent_elsewhere() -> None:
    held = Held()
    async with served(held, http2=True) as server:
        caller = await client(server)
        caller.ask("/running")
        await until(lambda: bool(server.paths))
        server.listener.draining = True
        server.later(0)
        late = caller.ask("/late")  # the GOAWAY has not been read yet
        caller.h2.receive_data = _without_goaway(caller.h2.receive_data)
        await caller.until(lambda: late in caller.ends)
        assert caller.ends[late] == ErrorCodes.REFUSED_STREAM
        assert server.paths == ["/running"]
        held.go.set()
        await caller.gone()


def _without_goaway(receive: Callable[[bytes], list[Any]]) -> Callable[[bytes], list[Any]]:
    """A client's reading that does not see frames of the type GOAWAY."""

    def received(data: bytes) -> list[Any]:
        kept, at = b"", 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 3]) + 9
            if data[at + 3] != 7:
                kept += data[at : at + size]
            at += size
        return receive(kept)

    return received


async def test_a_shutdown_lets_running_answers_finish_and_is_bounded() -> None:
    held = Held()
    async with served(held, http2=True) as server:
        caller, idle = await client(server), await client(server)
        await idle.read()
        first = caller.ask("/first")
        await until(lambda: bool(server.paths))
        shutdown = asyncio.create_task(server.listener.shutdown(30))
        await asyncio.sleep(0)
        held.go.set()
        assert await caller.answer(first) == (200, b"first /first")
        await caller.gone()
        idle.writer.close()
        await shutdown
        assert not server.listener.connections


async def test_a_shutdown_ends_what_does_not_finish() -> None:
    held = Held()
    async with served(held, http2=True) as server:
        caller = await client(server)
        caller.ask("/endless")
        await until(lambda: bool(server.paths))
        await server.listener.shutdown(0.01)
        assert not server.listener.connections
        await until(lambda: server.cancelled == ["/endless"])


async def test_a_connection_without_streams_is_closed_in_its_time() -> None:
    async with served(echo, http2=True) as server:
        new, idle = await client(server), await client(server)
        await idle.answer(idle.ask("/"))
        await new.read()
        await until(lambda: len(server.listener.connections) == 2)
        server.later(20)
        await new.gone()
        assert len(server.listener.connections) == 1
        server.later(80)
        await idle.gone()
        await server.emptied()


# --- behind TLS


async def test_tls_agrees_on_it_and_on_http_1_with_those_who_do_not_know_it(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    certificate = WatchedCertificate(pki.options(), ("h2", "http/1.1"))
    async with served(echo, certificate, http2=True) as server:
        for protocols, agreed in ((["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), ([], None)):
            tls = pki.client()
            tls.set_alpn_protocols(protocols)
            wire = await server.wire(tls)
            assert wire.writer.get_extra_info("ssl_object").selected_alpn_protocol() == agreed
            if agreed == "h2":
                caller = Client(wire.reader, wire.writer)
                for number in range(3):
                    assert await caller.answer(caller.ask(f"/{number}")) == (200, f"/{number}".encode())
            else:
                assert (await wire.ask(get("/1"))).body == b"/1"


async def test_refusals_do_not_wait_for_bodies() -> None:
    async with served(refuse, http2=True) as server:
        caller = await client(server)
        id = caller.ask("/", method="POST", body=b"abc", ends=False)
        await caller.until(lambda: id in caller.ends)
        assert (caller.headers[id][":status"], caller.bodies[id]) == ("401", b"no")
