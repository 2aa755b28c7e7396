"""Streams that outlive their connection: cut at every line, resumed here and on another gateway, paid for
once."""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from sluice.identity.keys import digest_of
from sluice.resume.memory import MemoryJournals
from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.servers import RedisServer, redis_server

OTHER_KEY = "sk-sluice-other"
KEYS = f'keys: [{{id: test, digest: "{digest_of(KEY)}"}}, {{id: other, digest: "{digest_of(OTHER_KEY)}"}}]'
TURN: dict[str, object] = {"message": "hi", "model": "chat"}
COMPLETION: dict[str, object] = {
    "model": "chat",
    "stream": True,
    "messages": [{"role": "user", "content": "hi"}],
}
TOKENS = 12


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def config(store: str = "memory", alias: str = "", echo: str = f"tokens: {TOKENS}, delay: 2ms") -> str:
    head = re.sub(r"(?m)^keys:.*$", lambda _: KEYS, HEAD)
    return (
        f"{head}\nresume: {store}\nupstreams:\n  one: {{backend: echo, {echo}}}\naliases:\n"
        f"  chat: {{tiers: [[{{upstream: one, model: m}}]], resumable: true, {alias}}}\n"
    )


class Dialect:
    """How one dialect's streams are asked for, cut into frames, and resumed."""

    def __init__(self, path: str, body: dict[str, object], end: bytes) -> None:
        self.path, self.body, self.end = path, body, end

    @property
    def question(self) -> object:
        """Of a session of its own: what was said before is part of the prompt, and of its usage."""
        return {**self.body, "sessionId": uuid.uuid4().hex} if self.body is TURN else self.body

    def place(self, frames: bytes) -> tuple[str, int]:
        """The stream's id, and the number of the last of the frames that were received."""
        if self.end == b"\n":
            lines = [json.loads(line) for line in frames.splitlines()]
            return lines[0]["streamId"], lines[-1]["n"]
        stream, _, number = re.findall(rb"^id: (.*)$", frames, re.M)[-1].decode().rpartition(":")
        return stream, int(number)

    def alike(self, stream: bytes) -> bytes:
        """Without what differs between two calls."""
        stream = re.sub(rb'"(streamId|conversationId|id|created)":("[^"]*"|\d+)', rb'"\1":0', stream)
        return re.sub(rb"(?m)^id: .*:", b"id: x:", stream)


NDJSON = Dialect("/v1/chat/stream", TURN, b"\n")
SSE = Dialect("/v1/chat/completions", COMPLETION, b"\n\n")
BOTH = pytest.mark.parametrize("dialect", [NDJSON, SSE], ids=["ndjson", "sse"])


@asynccontextmanager
async def client(g: Running, key: str = KEY) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(g.url, headers={"x-api-key": key}) as session:
        yield session


async def whole(g: Running, dialect: Dialect) -> bytes:
    async with client(g) as session, session.post(dialect.path, json=dialect.question) as response:
        return await response.read()


async def cut(g: Running, dialect: Dialect, frames: int) -> bytes:
    """What was received of a call whose client left after so many frames."""
    got = b""
    async with client(g) as session:
        response = await session.post(dialect.path, json=dialect.question)
        for _ in range(frames):
            got += await response.content.readuntil(dialect.end)
        response.close()
    return got


async def resumed(g: Running, stream: str, after: int, *, key: str = KEY) -> tuple[int, bytes]:
    async with client(g, key) as session, session.get(f"/v1/chat/stream/{stream}?after={after}") as response:
        return response.status, await response.read()


def asked(*gateways: Running) -> float:
    """How often the provider was asked."""
    return sum(
        g.metric(f'sluice_upstream_attempts_total{{model="m",outcome="{outcome}",upstream="one"}}')
        for g in set(gateways)
        for outcome in ("ok", "abandoned")
    )


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def idle(g: Running) -> None:
    await until(lambda: not g.runtime.pipeline.runs and not g.runtime.detached.tasks)


async def cut_at_every_frame(here: Running, there: Running, dialect: Dialect) -> None:
    uncut = await whole(here, dialect)
    count = uncut.count(dialect.end)
    assert count >= TOKENS + 2
    for frames in range(1, count):
        before = await cut(here, dialect, frames)
        stream, number = dialect.place(before)
        assert number == frames - 1
        status, rest = await resumed(there, stream, number)
        assert status == 200
        assert dialect.alike(before + rest) == dialect.alike(uncut), f"cut behind {frames}"
    await idle(here)
    assert asked(here, there) == count  # each of the calls once


@pytest.mark.usefixtures("both_servers")
@BOTH
async def test_a_stream_that_is_cut_anywhere_is_resumed_to_the_byte(dialect: Dialect) -> None:
    async with gateway(config()) as g:
        await cut_at_every_frame(g, g, dialect)


@BOTH
async def test_a_stream_is_resumed_on_another_gateway(dialect: Dialect, redis: RedisServer) -> None:
    async with (
        gateway(config(f"{redis.url}&timeout=30")) as here,
        gateway(config(f"{redis.url}&timeout=30")) as there,
    ):
        await cut_at_every_frame(here, there, dialect)


async def test_lines_are_numbered_and_the_first_names_the_stream() -> None:
    async with gateway(config()) as g:
        lines = [json.loads(line) for line in (await whole(g, NDJSON)).splitlines()]
    assert [line["n"] for line in lines] == list(range(TOKENS + 2))
    assert [("streamId" in line) for line in lines] == [True] + [False] * (TOKENS + 1)


@pytest.mark.usefixtures("both_servers")
async def test_heartbeats_have_no_number() -> None:
    text = config(alias="heartbeat: 50ms", echo="tokens: 1, first_token_delay: 400ms")
    async with gateway(text) as g:
        body = await whole(g, NDJSON)
        assert b"\n\n" in body
        assert [json.loads(line)["n"] for line in body.splitlines() if line] == [0, 1, 2]


async def test_an_event_source_resumes_by_the_id_of_its_last_event() -> None:
    async with gateway(config()) as g:
        before = await cut(g, SSE, 4)
        stream, number = SSE.place(before)
        rests = []
        for path in ("/v1/chat/completions", f"/v1/chat/stream/{stream}?after=0"):
            async with (
                client(g) as c,
                c.get(path, headers={"Last-Event-ID": f"{stream}:{number}"}) as response,
            ):
                assert response.content_type == "text/event-stream"
                rests.append(await response.read())
        assert rests[0] == rests[1]
        assert (before + rests[0]).endswith(b"data: [DONE]\nid: %b:%d\n\n" % (stream.encode(), TOKENS + 2))


@BOTH
async def test_after_the_end_the_whole_stream_is_still_there_and_behind_it_nothing(dialect: Dialect) -> None:
    async with gateway(config()) as g:
        body = await whole(g, dialect)
        stream, number = dialect.place(body.removesuffix(dialect.end) + dialect.end)
        async with client(g) as session, session.get(f"/v1/chat/stream/{stream}") as response:
            assert await response.read() == body
        assert await resumed(g, stream, number) == (204, b"")
        assert await resumed(g, stream, number + 5) == (204, b"")


async def test_who_has_everything_so_far_waits_for_more() -> None:
    async with gateway(config(echo="tokens: 6, delay: 30ms")) as g, client(g) as session:
        before = await cut(g, NDJSON, 2)
        stream, number = NDJSON.place(before)
        async with session.get(f"/v1/chat/stream/{stream}?after={number}") as response:
            assert response.status == 200  # before there is anything to say
            assert (await g.runtime.journals.find(stream)).ended is False  # type: ignore[union-attr]
            assert json.loads(await response.content.readline())["n"] == number + 1


@pytest.mark.usefixtures("both_servers")
@BOTH
async def test_several_readers_get_the_same_and_one_that_leaves_disturbs_nobody(dialect: Dialect) -> None:
    async with gateway(config(echo="tokens: 40, delay: 5ms")) as g, client(g) as session:
        before = await cut(g, dialect, 3)
        stream, number = dialect.place(before)
        leaving = await session.get(f"/v1/chat/stream/{stream}")
        await leaving.content.readuntil(dialect.end)
        readers = [asyncio.create_task(resumed(g, stream, after)) for after in (number, number, 0)]
        leaving.close()
        first, second, longer = await asyncio.gather(*readers)
        assert first == second
        assert longer[1].endswith(first[1])
        assert len(longer[1]) > len(first[1])
        await idle(g)
        assert asked(g) == 1


async def test_the_client_that_asked_may_stay_while_another_reads() -> None:
    async with gateway(config(echo="tokens: 40, delay: 5ms")) as g, client(g) as session:
        async with session.post(NDJSON.path, json=NDJSON.question) as response:
            first = await response.content.readline()
            other = asyncio.create_task(resumed(g, NDJSON.place(first)[0], 0))
            rest = await response.read()
        assert await other == (200, rest)


@pytest.mark.parametrize("store", ["memory", "redis"])
async def test_an_expired_stream_is_not_found(store: str, redis: RedisServer) -> None:
    async with gateway(
        config(f"{redis.url}&timeout=30" if store == "redis" else store, "resume_window: 0")
    ) as g:
        stream, _ = NDJSON.place(await whole(g, NDJSON))
        while (await resumed(g, stream, 0))[0] != 404:
            await asyncio.sleep(0)


@pytest.mark.parametrize("store", ["memory", "redis"])
async def test_another_keys_stream_is_not_found(store: str, redis: RedisServer) -> None:
    async with gateway(config(f"{redis.url}&timeout=30" if store == "redis" else store)) as g:
        stream, _ = NDJSON.place(await whole(g, NDJSON))
        status, body = await resumed(g, stream, 0, key=OTHER_KEY)
        assert (status, json.loads(body)["code"]) == (404, "not_found")
        assert (await resumed(g, stream, 0))[0] == 200
        assert (await resumed(g, stream, 0, key="sk-unknown"))[0] == 401


@pytest.mark.parametrize(
    ("path", "last", "status"),
    [
        ("/v1/chat/stream/{id}?after=x", "", 400),
        ("/v1/chat/stream/{id}?after=-1", "", 400),
        ("/v1/chat/stream/{id}?after=1.5", "", 400),
        ("/v1/chat/stream/{id}?after=9999999999", "", 400),
        ("/v1/chat/stream/{id}?after=%D9%A1", "", 400),
        ("/v1/chat/stream/{id}", "{id}:x", 400),
        ("/v1/chat/stream/{id}", "another-stream-of-mine:1", 400),
        ("/v1/chat/completions", "{id}:x", 400),
        ("/v1/chat/completions", "nonsense", 400),
        ("/v1/chat/completions", "", 405),
        ("/v1/chat/stream/AAAAAAAAAAAAAAAAAAAAAAAA", "", 404),
        ("/v1/chat/stream/..%2F..", "", 404),
    ],
)
async def test_a_place_that_makes_no_sense_is_refused(path: str, last: str, status: int) -> None:
    async with gateway(config()) as g, client(g) as session:
        stream, _ = NDJSON.place(await whole(g, NDJSON))
        headers = {"Last-Event-ID": last.format(id=stream)} if last else {}
        async with session.get(path.format(id=stream), headers=headers) as response:
            assert response.status == status
            asked = response.headers["x-request-id"]
        async with session.head(path.format(id=stream), headers=headers) as response:
            assert response.status >= 400
        said = [line for line in g.log_lines if line.get("request_id") == asked]
        assert [(line["event"], line["status"]) for line in said] == [("request", status)]


async def test_a_stranger_who_resumes_is_logged() -> None:
    async with gateway(config()) as g:
        stream, _ = NDJSON.place(await whole(g, NDJSON))
        assert (await resumed(g, stream, 0, key="sk-wrong"))[0] == 401
        assert sorted(line["status"] for line in g.requests) == [200, 401]


async def test_a_stream_that_grew_too_long_goes_on_but_cannot_be_resumed() -> None:
    async with gateway(config()) as g:
        g.runtime.journals._max_stream = 300  # type: ignore[attr-defined]
        body = await whole(g, NDJSON)
        assert json.loads(body.splitlines()[-1])["type"] == "done"
        status, refusal = await resumed(g, NDJSON.place(body)[0], 0)
        assert (status, json.loads(refusal)["code"]) == (410, "stream_not_resumable")


async def test_a_call_that_nobody_reads_is_bounded() -> None:
    async with gateway(config(alias="finish_limit: 50ms", echo="tokens: 5000, delay: 10ms")) as g:
        stream, number = NDJSON.place(await cut(g, NDJSON, 2))
        await idle(g)
        assert asked(g) == 1
        status, rest = await resumed(g, stream, number)
        assert status == 200
        last = json.loads(rest.splitlines()[-1])
        assert (last["type"], last["code"]) == ("error", "stream_not_resumable")


async def test_a_reader_lifts_the_bound() -> None:
    async with gateway(config(alias="finish_limit: 100ms", echo="tokens: 60, delay: 10ms")) as g:
        stream, number = NDJSON.place(await cut(g, NDJSON, 2))
        _, rest = await resumed(g, stream, number)
        assert json.loads(rest.splitlines()[-1])["type"] == "done"


async def test_a_client_that_left_before_it_knew_the_stream_does_not_cost_an_answer() -> None:
    async with gateway(config(echo="tokens: 5000, first_token_delay: 60")) as g, client(g) as session:
        asking = asyncio.create_task(session.post(SSE.path, json=COMPLETION))
        await until(lambda: bool(g.runtime.pipeline.runs))
        asking.cancel()
        await idle(g)
        assert not g.runtime.pipeline.runs


async def test_a_store_that_is_down_breaks_no_stream(own_redis: RedisServer) -> None:
    async with gateway(config(own_redis.url, echo="tokens: 40, delay: 5ms")) as g, client(g) as session:
        async with session.post(NDJSON.path, json=NDJSON.question) as response:
            first = await response.content.readline()
            own_redis.kill()
            lines = (await response.read()).splitlines()
        assert json.loads(lines[-1])["type"] == "done"
        assert [json.loads(line)["n"] for line in lines] == list(range(1, 42))
        again = (await whole(g, NDJSON)).splitlines()
        assert json.loads(again[-1])["type"] == "done"
        assert (await resumed(g, NDJSON.place(first)[0], 0))[0] == 503
        lines = [line for line in g.log_lines if line.get("store") == "resume"]
        assert [(line["event"], line["reason"]) for line in lines] == [("store_failing", "connection")]


@pytest.mark.usefixtures("both_servers")
async def test_a_client_that_does_not_read_holds_nobody_up_and_gets_everything() -> None:
    """It is taken off the direct path, the call ends without it, and it reads the rest from the journal."""
    text = config(echo="tokens: 20000, delay: 0").replace("server: {", "server: {send_buffer: 4KiB, ")
    async with gateway(text) as g:
        assert isinstance(g.runtime.journals, MemoryJournals)
        async with client(g) as session, session.post(NDJSON.path, json=NDJSON.question) as response:
            assert response.connection is not None
            assert response.connection.transport is not None
            response.connection.transport.pause_reading()
            await until(lambda: bool(g.runtime.journals._over))  # type: ignore[attr-defined]
            response.connection.transport.resume_reading()
            numbers = [json.loads(line)["n"] async for line in response.content]
        assert numbers == list(range(20002))
        [journal] = g.runtime.journals._kept.values()
        assert journal.unread < float("inf")  # the journal was read, not only written


async def test_an_ordinary_alias_has_no_numbers_and_no_journal() -> None:
    async with gateway(config().replace("resumable: true, ", "")) as g:
        for line in (await whole(g, NDJSON)).splitlines():
            assert not {"n", "streamId"} & set(json.loads(line))
        assert b"\nid:" not in await whole(g, SSE)
        assert not g.runtime.journals._kept  # type: ignore[attr-defined]
