"""The store in Redis against real servers: its own clock, expiry, faults of every kind, cancellation."""

import asyncio
import contextlib
import math
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import pytest
import redis.asyncio as client

from sluice.errors import Unavailable
from sluice.limits import Claim, Limit, Slot
from sluice.limits.faults import BucketStoreFailed
from sluice.limits.guarded import Guarded
from sluice.limits.memory import MemoryStore
from sluice.limits.redis import TIME_EVERY_SECONDS, RedisStore
from tests.servers import RedisServer, redis_binaries, redis_server

LIMIT = Limit(capacity=10, rate=0.01)
OPERATIONS = 100_000 if os.environ.get("SLUICE_FULL") == "1" else 5_000
HANG = 20
"""Seconds after which a test gives up."""


@asynccontextmanager
async def opened(
    url: str, prefix: str, timeout: float = 10
) -> AsyncIterator[tuple[RedisStore, "client.Redis"]]:
    store, raw = RedisStore(url, prefix=prefix, timeout=timeout), client.Redis.from_url(url.partition("?")[0])
    try:
        yield store, raw
    finally:
        await store.close()
        await raw.aclose()


@pytest.mark.parametrize("binary", redis_binaries() or [None], ids=lambda path: Path(path or "none").parts[1])
async def test_runs_on_every_server_at_hand(binary: str | None) -> None:
    with redis_server(binary) as server:
        async with opened(server.url, "any") as (store, _):
            assert (await store.take([Claim("a", LIMIT, 10), Claim("b", LIMIT)])).admitted
            await store.settle([Claim("b", LIMIT, 20)])
            verdict = await store.take([Claim("a", LIMIT), Claim("b", LIMIT)])
            assert verdict.denied == 1
            assert verdict.levels[1].remaining == pytest.approx(-11, abs=0.1)


async def test_one_call_is_one_round_trip(redis: RedisServer) -> None:
    async with opened(redis.url, "trips") as (store, raw):
        claims = [Claim(f"k{number}", LIMIT) for number in range(5)]
        slots = [Slot(f"s{number}", 10, "me") for number in range(100)]
        await store.take(claims, slots)
        await raw.config_resetstat()
        await store.take(claims, slots)
        await store.renew(slots)
        await store.settle(claims, slots)
        calls = {name: figures["calls"] for name, figures in (await raw.info("commandstats")).items()}
        assert calls["cmdstat_evalsha"] == 3
        assert not {"cmdstat_eval", "cmdstat_script|load", "cmdstat_ping", "cmdstat_client|setinfo"} & set(
            calls
        )


async def test_by_the_servers_own_clock_never_more_than_capacity_and_rate_allow(redis: RedisServer) -> None:
    async with opened(redis.url, "clock") as (store, raw):
        limit = Limit(capacity=20, rate=500)

        async def server_time() -> float:
            seconds, micros = await raw.time()
            return float(seconds) + micros / 1e6

        async def caller() -> int:
            return sum([(await store.take([Claim("k", limit)])).admitted for _ in range(100)])

        began = await server_time()
        admitted = sum(await asyncio.gather(*(caller() for _ in range(20))))
        ended = await server_time()
        assert 20 <= admitted <= 20 + math.floor(500 * (ended - began))


async def test_two_gateways_share_a_bucket_and_two_prefixes_do_not(redis: RedisServer) -> None:
    async with (
        opened(redis.url, "one") as (a, _),
        opened(redis.url, "one") as (b, _),
        opened(redis.url, "two") as (c, _),
    ):
        verdicts = await asyncio.gather(
            *(store.take([Claim("k", LIMIT)]) for store in (a, b) for _ in range(20))
        )
        assert sum(verdict.admitted for verdict in verdicts) == 10
        assert (await c.take([Claim("k", LIMIT, 10)])).admitted


async def test_a_bucket_expires_soon_after_it_would_be_full_and_a_full_one_is_not_kept(
    redis: RedisServer,
) -> None:
    async with opened(redis.url, "ttl") as (store, raw):
        await store.take([Claim("k", LIMIT, 5)])
        assert 500_000 < await raw.pttl("{ttl}:k") <= 501_001
        await store.settle([Claim("k", LIMIT, -5)])
        assert not await raw.exists("{ttl}:k")


async def test_a_budget_expires_with_its_period_and_a_set_of_slots_with_its_lease(redis: RedisServer) -> None:
    async with opened(redis.url, "period") as (store, raw):
        ends = (await raw.time())[0] + 86_400.0
        await store.take([Claim("day", Limit(50, 0), 1, expires=ends)], [Slot("s", 1, "me")])
        assert 86_300_000 < await raw.pttl("{period}:day") <= 86_400_000
        assert 29_000 < await raw.pttl("{period}/s") <= 31_000
        await store.settle([Claim("day", Limit(50, 0), 1, expires=ends - 2 * 86_400)], [Slot("s", 1, "me")])
        assert await raw.exists("{period}/s") == 0
        assert (
            3_500_000 < await raw.pttl("{period}:day") <= 3_601_000
        )  # by a clock that is behind it has not ended


async def test_a_renewal_holds_again_what_was_lost(redis: RedisServer) -> None:
    async with opened(redis.url, "lost") as (store, raw):
        slots = [Slot(f"s{number % 7}", 1, f"h{number}") for number in range(600)]
        await store.renew(slots)
        assert sum([await raw.zcard(f"{{lost}}/s{number}") for number in range(7)]) == 600
        assert (await store.take([], [Slot("s0", 87, "next")])).levels[0].remaining == 0


async def test_a_lease_ends_by_the_servers_own_clock(redis: RedisServer) -> None:
    store = RedisStore(redis.url, prefix="lease", timeout=HANG, lease=0.05)
    await store.take([], [Slot("s", 1, "crashed")])
    async with asyncio.timeout(HANG):
        while not (await store.take([], [Slot("s", 1, "next")])).admitted:
            await asyncio.sleep(0)
    await store.close()


async def test_all_keys_of_a_prefix_share_a_slot(redis: RedisServer) -> None:
    async with opened(redis.url, "slot") as (store, raw):
        await store.take([Claim("a{x}", LIMIT), Claim("{y}", LIMIT)])
        assert sorted(await raw.keys("{slot}:*")) == [b"{slot}:a{x}", b"{slot}:{y}"]


@pytest.mark.parametrize("state", ["", "x", "1 2 3", "1 2 3 4 5", "-1 2 3 4", "1e3 2 3 4", "nan 1 1 1"])
async def test_a_foreign_value_under_our_key_fails_that_call_and_is_left_as_it_is(
    redis: RedisServer, state: str
) -> None:
    async with opened(redis.url, "foreign") as (store, raw):
        await raw.set("{foreign}:k", state)
        with pytest.raises(BucketStoreFailed, match="cannot be checked") as caught:
            await store.take([Claim("fine", LIMIT), Claim("k", LIMIT)])
        assert caught.value.reason == "reply"
        assert await raw.get("{foreign}:k") == state.encode()
        assert (await store.take([Claim("fine", LIMIT, 10)])).admitted
        await raw.delete("{foreign}:fine")


@pytest.mark.parametrize("mode", ["take", "settle"])
async def test_a_wrong_type_under_our_key_fails_that_call_only(redis: RedisServer, mode: str) -> None:
    async with opened(redis.url, f"type-{mode}") as (store, raw):
        await raw.rpush(f"{{type-{mode}}}:k", "x")
        guarded = Guarded(store, MemoryStore(), timeout=HANG)
        for _ in range(5):
            with pytest.raises(BucketStoreFailed):
                await getattr(store, mode)([Claim("fine", LIMIT), Claim("k", LIMIT)])
            await getattr(guarded, mode)([Claim("k", LIMIT)])
        assert not guarded.down
        assert (await store.take([Claim("fine", LIMIT, 10)])).admitted


@pytest.mark.parametrize("foreign", ["string", "list"])
async def test_a_wrong_type_under_a_slots_key_fails_the_call_that_asks_for_it_only(
    redis: RedisServer, foreign: str
) -> None:
    async with opened(redis.url, f"slots-{foreign}") as (store, raw):
        tag = f"{{slots-{foreign}}}"
        await (raw.set(f"{tag}/bad", "x") if foreign == "string" else raw.rpush(f"{tag}/bad", "x"))
        good, bad = Slot("good", 1, "me"), Slot("bad", 1, "me")
        for operation in (store.take, store.settle):
            with pytest.raises(BucketStoreFailed) as caught:
                await operation([Claim("k", LIMIT)], [good, bad])
            assert caught.value.reason == "reply"
        assert await raw.keys(f"{tag}*") == [f"{tag}/bad".encode()]
        with pytest.raises(BucketStoreFailed):
            await store.renew([bad, good])
        assert await raw.zcard(f"{tag}/good") == 1


async def test_a_replica_is_no_store(own_redis: RedisServer) -> None:
    async with opened(own_redis.url, "replica") as (store, raw):
        await store.take([Claim("k", LIMIT)])
        await raw.execute_command("REPLICAOF", "127.0.0.1", "1")
        await raw.config_set("replica-serve-stale-data", "yes")
        for claims in ([], [Claim("k", LIMIT)]):
            with pytest.raises(BucketStoreFailed) as caught:
                await store.take(claims)
            assert caught.value.reason == "readonly"


async def test_a_server_that_forgot_the_script_is_given_it_again(redis: RedisServer) -> None:
    async with opened(redis.url, "flush") as (store, raw):
        for _ in range(3):
            await raw.script_flush()
            assert (await store.take([Claim("k", LIMIT)])).admitted
        assert (await store.take([Claim("k", LIMIT)])).levels[0].remaining == pytest.approx(6, abs=0.1)


async def test_a_server_without_memory_takes_nothing(own_redis: RedisServer) -> None:
    async with opened(own_redis.url, "oom") as (store, raw):
        mine, other = Slot("s", 2, "mine"), Slot("s", 2, "other")
        await store.take([Claim("a", LIMIT, 3)], [mine])
        await raw.config_set("maxmemory", 1)
        for claims, slots in (
            ([Claim("a", LIMIT), Claim("b", LIMIT)], []),
            ([Claim("a", LIMIT)], [other]),
            ([], [other]),
        ):
            with pytest.raises(BucketStoreFailed) as caught:
                await store.take(claims, slots)
            assert caught.value.reason == "oom"
        await store.renew([mine])
        await store.settle([Claim("a", LIMIT, -2)])  # what is given back frees memory sooner or later
        await raw.config_set("maxmemory", 0)
        levels = (await store.take([Claim("a", LIMIT, 0), Claim("b", LIMIT, 0)], [mine])).levels
        assert [round(level.remaining) for level in levels] == [9, 10, 1]


@contextmanager
def nobody_listens() -> Iterator[str]:
    import socket

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"redis://127.0.0.1:{bound.getsockname()[1]}"


async def test_where_nobody_listens_the_connection_fails() -> None:
    with nobody_listens() as url:
        async with opened(url, "none") as (store, _):
            with pytest.raises(BucketStoreFailed) as caught:
                await store.take([Claim("k", LIMIT)])
            assert caught.value.reason == "connection"
            assert "127.0.0.1" not in caught.value.message


class Watched:
    """A guarded store with everything it tells."""

    def __init__(self, store: RedisStore, mode: str) -> None:
        self.failures: list[str] = []
        self.deciders: list[str] = []
        self.up = asyncio.Event()
        self.guarded = Guarded(
            store, MemoryStore(), mode, probe_every=0.02,  # type: ignore[arg-type]
            failed=self.failures.append, decided=lambda who, _: self.deciders.append(who), switched=self._switched,
        )  # fmt: skip

    def _switched(self, down: bool) -> None:
        if not down:
            self.up.set()


@pytest.mark.parametrize("fault", ["stopped", "killed"])
async def test_a_server_that_goes_away_is_waited_for_by_few_calls_and_used_again_when_it_is_back(
    own_redis: RedisServer, fault: str
) -> None:
    async with opened(own_redis.url, "away", timeout=0.05) as (store, _):
        watched = Watched(store, "open")
        async with asyncio.timeout(HANG):
            while watched.deciders[-1:] != ["store"]:  # the first may have to wait for its connection
                await watched.guarded.take([Claim("k", LIMIT, 0)])
        watched.deciders[:] = ["store"]
        watched.failures.clear()
        match fault:
            case "stopped":
                own_redis.stop()
            case "killed":
                own_redis.kill()
        for _ in range(10):
            assert (await watched.guarded.take([Claim("k", LIMIT)])).levels[0].remaining > -1
        assert watched.deciders == ["store"] + ["fallback"] * 10
        assert len(watched.failures) <= 5
        match fault:
            case "stopped":
                own_redis.resume()
            case "killed":
                own_redis.start()
        async with asyncio.timeout(HANG):
            await watched.up.wait()
            while watched.deciders[-1] != "store":
                await watched.guarded.take([Claim("k", LIMIT, 0)])
        await watched.guarded.close()


async def test_a_closed_guard_refuses_while_the_server_is_gone(own_redis: RedisServer) -> None:
    async with opened(own_redis.url, "closed", timeout=0.05) as (store, _):
        watched = Watched(store, "closed")
        own_redis.kill()
        for _ in range(5):
            with pytest.raises(Unavailable):
                await watched.guarded.take([Claim("k", LIMIT)])
        await watched.guarded.close()


@asynccontextmanager
async def delaying_proxy(port: int, chance: random.Random) -> AsyncIterator[str]:
    """Passes every reply on whole and in order, each a little later than it came."""
    links: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = {}

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await asyncio.sleep(chance.random() * delay)
                writer.write(data)
        writer.close()

    async def link(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        task = asyncio.current_task()
        assert task is not None
        links[task] = writer, back
        await asyncio.gather(pump(reader, back, 0), pump(there, writer, 0.004))
        del links[task]

    server = await asyncio.start_server(link, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for client_side, server_side in links.values():
            client_side.close()
            server_side.close()
        await asyncio.gather(*links)


@pytest.mark.timeout(OPERATIONS / 50 + 60)
async def test_a_cancelled_call_never_leaves_its_reply_to_another_nor_keeps_its_connection(
    redis: RedisServer,
) -> None:
    chance = random.Random(5)
    answered, cancelled = 0, 0
    connections, callers = 16, 40

    async with delaying_proxy(redis.port, chance) as url:
        store = RedisStore(url, prefix="cancel", timeout=HANG, max_connections=connections)

        async def ask(number: int) -> None:
            """Each call's bucket has its own capacity, so each reply shows whose it is."""
            nonlocal answered
            verdict = await store.take([Claim(f"k{number}", Limit(capacity=number + 2, rate=1e-3))])
            assert verdict.levels[0].remaining == number + 1
            answered += 1

        async def caller(numbers: range) -> None:
            nonlocal cancelled
            for number in numbers:
                call = asyncio.create_task(ask(number))
                if number // callers % 2:
                    asyncio.get_running_loop().call_later(chance.random() * 0.02, call.cancel)
                await asyncio.wait([call])
                if call.cancelled():
                    cancelled += 1
                else:
                    await call

        await asyncio.gather(*(caller(range(first, OPERATIONS, callers)) for first in range(callers)))
        await asyncio.gather(*(ask(OPERATIONS + number) for number in range(connections)))
        await store.close()
    assert answered + cancelled == OPERATIONS + connections
    assert cancelled > OPERATIONS / 10
    print(f"{answered} answered, {cancelled} cancelled")


BUDGET = Limit(capacity=1e9, rate=0)
"""Never refilled, so that it tells exactly what was taken."""


@pytest.mark.timeout(OPERATIONS / 50 + 60)
@pytest.mark.parametrize("timeout", [HANG, 0.02])
async def test_who_is_cancelled_or_too_late_has_taken_nothing(
    redis: RedisServer, timeout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many are of which kind is the machine's to decide, so nothing is asserted of that."""
    monkeypatch.setattr(
        "sluice.limits.redis.MIN_REPLY_WAIT_SECONDS", HANG
    )  # however slow the machine, late replies are heard
    chance = random.Random(7)
    callers, prefix = 40, f"given-back-{timeout}"
    admitted, late, cancelled = set(), 0, 0

    async with delaying_proxy(redis.port, chance) as url:
        store = RedisStore(url, prefix=prefix, timeout=timeout)

        async def caller(numbers: range) -> None:
            nonlocal late, cancelled
            for number in numbers:
                claims, slots = (
                    [Claim("k", BUDGET, number), Claim("refills", LIMIT, 0.001)],
                    [Slot("s", 1_000_000, str(number))],
                )
                taking = asyncio.create_task(store.take(claims, slots))
                if chance.random() < 0.5:
                    asyncio.get_running_loop().call_later(chance.random() * 0.008, taking.cancel)
                await asyncio.wait([taking])
                if taking.cancelled():
                    cancelled += 1
                elif taking.exception() is not None:
                    late += 1
                elif taking.result().admitted:
                    admitted.add(number)

        await asyncio.gather(*(caller(range(first, OPERATIONS // 2, callers)) for first in range(callers)))
        await store.close()
    async with opened(redis.url, prefix) as (store, raw):
        level = (await store.take([Claim("k", BUDGET, 0)])).levels[0]
        assert level.remaining == BUDGET.capacity - sum(admitted)
        assert {int(holder) for holder in await raw.zrange(f"{{{prefix}}}/s", 0, -1)} == admitted
    assert len(admitted) + late + cancelled == OPERATIONS // 2
    print(f"{len(admitted)} admitted, {cancelled} cancelled, {late} too late")


async def test_a_settlement_is_carried_whether_anybody_waits_for_it_or_not(redis: RedisServer) -> None:
    chance = random.Random(8)
    async with delaying_proxy(redis.port, chance) as url:
        store = RedisStore(url, prefix="carried", timeout=HANG)
        slots = [Slot("s", 1000, str(number)) for number in range(500)]
        await asyncio.gather(*(store.take([Claim("k", BUDGET, 5)], [slot]) for slot in slots))
        settling = [asyncio.create_task(store.settle([Claim("k", BUDGET, -2)], [slot])) for slot in slots]
        for task in settling:
            if chance.random() < 0.7:
                asyncio.get_running_loop().call_later(chance.random() * 0.008, task.cancel)
        await asyncio.wait(settling)
        await store.close()
    async with opened(redis.url, "carried") as (store, raw):
        assert (await store.take([Claim("k", BUDGET, 0)])).levels[0].remaining == BUDGET.capacity - 1500
        assert not await raw.exists("{carried}/s")


async def test_a_slot_given_back_while_it_is_renewed_stays_given_back(redis: RedisServer) -> None:
    async with delaying_proxy(redis.port, random.Random(9)) as url:
        store = RedisStore(url, prefix="renewing", timeout=HANG, max_connections=8)

        async def caller(number: int) -> None:
            slot = Slot("s", 10, str(number))
            for _ in range(20):
                await store.take([], [slot])
                await asyncio.gather(
                    store.renew([slot]), store.settle([], [slot]), store.take([Claim("k", LIMIT, 0)])
                )

        await asyncio.gather(*(caller(number) for number in range(10)))
        await store.close()
    async with opened(redis.url, "renewing") as (_, raw):
        assert await raw.zrange("{renewing}/s", 0, -1) == []


async def test_a_late_reply_is_never_another_calls_and_the_store_goes_on(redis: RedisServer) -> None:
    chance = random.Random(6)
    outcomes: list[str] = []
    async with delaying_proxy(redis.port, chance) as url:
        store = RedisStore(url, prefix="late", timeout=0.004)

        async def caller(numbers: range) -> None:
            for number in numbers:
                try:
                    verdict = await store.take([Claim(f"k{number}", Limit(capacity=number + 2, rate=1e-3))])
                except BucketStoreFailed as error:
                    outcomes.append(error.reason)
                else:
                    assert verdict.levels[0].remaining == number + 1
                    outcomes.append("answered")

        await asyncio.gather(*(caller(range(first, 1000, 20)) for first in range(20)))
        await store.close()
    assert len(outcomes) == 1000
    assert set(outcomes) <= {"answered", "timeout", "connection"}
    print({outcome: outcomes.count(outcome) for outcome in set(outcomes)})


async def test_a_burst_leaves_together_and_is_decided_in_its_order(redis: RedisServer) -> None:
    async with opened(redis.url, "burst") as (store, raw):
        await store.take([])
        before = (await raw.info("clients"))["connected_clients"]
        verdicts = await asyncio.gather(*(store.take([Claim("k", LIMIT)]) for _ in range(1000)))
        assert [verdict.admitted for verdict in verdicts[:10]] == [True] * 10
        assert not any(verdict.admitted for verdict in verdicts[10:])
        assert (await raw.info("clients"))["connected_clients"] <= before + 3


async def test_a_burst_after_the_script_was_forgotten_is_decided_once(redis: RedisServer) -> None:
    async with opened(redis.url, "forgotten") as (store, raw):
        await store.take([])
        await raw.script_flush()
        await asyncio.gather(*(store.settle([Claim("k", LIMIT)]) for _ in range(200)))
        verdict = await store.take([Claim("k", LIMIT)])
        assert verdict.levels[0].remaining == pytest.approx(-190, abs=0.1)


async def test_one_foreign_value_in_a_burst_fails_one_call(redis: RedisServer) -> None:
    async with opened(redis.url, "one-bad") as (store, raw):
        await raw.set("{one-bad}:k50", "x")
        calls = (store.take([Claim(f"k{number}", LIMIT)]) for number in range(100))
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [number for number, answer in enumerate(found) if isinstance(answer, BucketStoreFailed)] == [
            50
        ]


async def test_closing_lets_go_of_whoever_waits(own_redis: RedisServer) -> None:
    store = RedisStore(own_redis.url, timeout=1)
    await store.take([])
    own_redis.stop()
    waiting = [asyncio.create_task(store.take([Claim("k", LIMIT)])) for _ in range(5)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION, timeout=0)
    await store.close()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(answer, BucketStoreFailed) for answer in answers)


async def test_the_servers_clock_says_in_which_period_a_budget_is(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(redis.url, "clock") as (store, raw):
        there = (await raw.time())[0]
        monkeypatch.setattr("time.time", lambda: there - 40 * 86_400.0)
        assert store.wall() == there - 40 * 86_400
        await store.greet()
        assert abs(store.wall() - there) < 3_600
        monkeypatch.setattr("time.time", lambda: there + 40 * 86_400.0)
        assert abs(store.wall() - there) < 3_600


async def test_the_servers_clock_is_read_now_and_then(redis: RedisServer) -> None:
    here, there = [0.0], [1_800_000_000_000_000]
    store = RedisStore(redis.url, prefix="often", timeout=HANG, clock=lambda: here[0], now=lambda: there[0])
    try:
        await store.greet()
        assert store.wall() == 1_800_000_000
        there[0] += 86_400_000_000
        await store.greet()
        assert store.wall() == 1_800_000_000
        here[0] += TIME_EVERY_SECONDS
        await store.greet()
        assert store.wall() == 1_800_086_400
    finally:
        await store.close()


async def test_a_budget_of_a_gateway_that_is_behind_counts(redis: RedisServer) -> None:
    async with opened(redis.url, "behind") as (store, raw):
        ended = (await raw.time())[0] - 40 * 86_400.0
        budget = Claim("month", Limit(10, 0), 6, expires=ended, holder="me")
        assert (await store.take([budget])).admitted
        await store.settle([msgspec.structs.replace(budget, held=6.0)])
        verdict = await store.take([msgspec.structs.replace(budget, holder="other")])
        assert (verdict.admitted, verdict.levels[0].remaining) == (False, 4)
