"""The client of clusters alone: nodes that answer what the test says, time and chance of the test's
choosing."""

import asyncio
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, ResponseError, TryAgainError
from redis.exceptions import ConnectionError as NoConnection

from sluice.storage import redis_cluster
from sluice.storage.redis_cluster import MIN_LOOKUP_SECONDS, PAUSE, REFRESH, TRIES, Cluster

A, B, C = ("a", 1), ("b", 2), ("c", 3)
Address = tuple[str, int]
Answer = Callable[[Address, tuple[Any, ...]], Any]


def rows(*ranges: tuple[int, int, Address]) -> list[Any]:
    """What CLUSTER SLOTS says: each range has its master, and a replica on the port after 100 more."""
    return [
        [first, last, [host.encode(), port, b"id", []], [host.encode(), port + 100, b"id", []]]
        for first, last, (host, port) in ranges
    ]


HALVES = rows((0, 8191, A), (8192, 16383, B))
LOW, HIGH = "b", "a"
"""Keys of the slots of A and B."""


def test_the_keys_are_where_the_tests_have_them() -> None:
    assert key_slot(LOW.encode()) < 8192 <= key_slot(HIGH.encode())


class Nodes:
    """All nodes together: `sent` has what each was sent, `answer` says what it answers, an exception as the
    lost connection."""

    def __init__(self, answer: Answer) -> None:
        self.sent: list[tuple[Address, tuple[Any, ...]]] = []
        self.answer = answer
        self.dropped: list[Address] = []

    def pool(self, host: str, port: int) -> "Pool":
        return Pool(self, (host, port))

    async def drop(self, pool: "Pool") -> None:
        self.dropped.append(pool.address)

    def commands(self, *addresses: Address) -> list[tuple[Any, ...]]:
        return [
            command
            for address, command in self.sent
            if address in (addresses or (address,)) and command[0] != "CLUSTER"
        ]

    @property
    def lookups(self) -> list[Address]:
        return [address for address, command in self.sent if command[0] == "CLUSTER"]


class Pool:
    """A pool of one connection, which is that one."""

    def __init__(self, nodes: Nodes, address: Address) -> None:
        self.nodes = nodes
        self.address = address
        self.replies: list[Any] = []
        self.connection_kwargs: dict[str, Any] = {"protocol": 2}

    def get_encoder(self) -> None: ...

    def get_protocol(self) -> int:
        return 2

    async def get_connection(self) -> "Pool":
        return self

    async def release(self, connection: "Pool") -> None:
        self.replies = []

    async def disconnect(self) -> None: ...

    def pack_commands(self, commands: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return list(commands)

    async def send_packed_command(self, commands: list[tuple[Any, ...]]) -> None:
        for command in commands:
            self.nodes.sent.append((self.address, command))
            self.replies.append(self.nodes.answer(self.address, command))

    async def read_response(self) -> Any:
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited, without waiting."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(redis_cluster.asyncio, "sleep", sleep)
    return found


def cluster_of(nodes: Nodes, clock: Clock, *seeds: Address) -> Cluster:
    return Cluster(
        seeds or (A,), nodes.pool, nodes.drop, patience=60, clock=clock, shuffle=lambda found: None
    )


def answers(*known: tuple[str, Any], slots: Any = HALVES) -> Answer:
    """The map, and to commands of a name the one answer, or those of a list one after the other; "OK" to
    others."""
    table = {name: iter(what) if isinstance(what, list) else itertools.repeat(what) for name, what in known}

    def answer(address: Address, command: tuple[Any, ...]) -> Any:
        if command[0] == "CLUSTER":
            return slots
        return next(table[command[0]]) if command[0] in table else b"OK"

    return answer


async def test_a_command_goes_to_the_master_of_its_slot(clock: Clock) -> None:
    cluster = cluster_of(nodes := Nodes(answers(("GET", b"1"))), clock)
    assert [await cluster.get(LOW), await cluster.get(HIGH)] == [b"1", b"1"]
    assert nodes.commands(A) == [("GET", LOW)]
    assert nodes.commands(B) == [("GET", HIGH)]
    assert nodes.lookups == [A]


async def test_a_slot_that_has_moved_is_asked_for_at_once_and_remembered(clock: Clock) -> None:
    moved = MovedError(f"{key_slot(LOW.encode())} c:3")
    cluster = cluster_of(nodes := Nodes(answers(("GET", [moved, b"1", b"2"]))), clock)
    assert [await cluster.get(LOW), await cluster.get(LOW)] == [b"1", b"2"]
    assert [address for address, command in nodes.sent if command[0] == "GET"] == [A, C, C]
    assert nodes.lookups == [A]
    clock.now += REFRESH
    nodes.answer = answers(("GET", b"3"))
    await cluster.get(LOW)
    assert len(nodes.lookups) == 2
    assert nodes.dropped == [C]  # no master any more


async def test_a_node_that_does_not_say_its_host_is_the_one_that_was_asked(clock: Clock) -> None:
    slots = [[0, 8191, [b"", 1, b"id"]], [8192, 16383, [None, 2, b"id", []], [b"?", 7, b"id", []]]]
    moved = MovedError(f"{key_slot(HIGH.encode())} :9")
    cluster = cluster_of(
        nodes := Nodes(answers(("GET", [b"1", moved, b"2"]), slots=slots)), clock, ("seed", 5)
    )
    assert [await cluster.get(LOW), await cluster.get(HIGH)] == [b"1", b"2"]
    assert [address for address, _ in nodes.sent] == [("seed", 5), ("seed", 1), ("seed", 2), ("seed", 9)]


async def test_a_key_on_its_way_is_asked_for_behind_asking_and_the_map_stays(clock: Clock) -> None:
    ask = AskError(f"{key_slot(LOW.encode())} c:3")
    cluster = cluster_of(nodes := Nodes(answers(("GET", [ask, b"1", b"2"]))), clock)
    assert [await cluster.get(LOW), await cluster.get(LOW)] == [b"1", b"2"]
    assert nodes.commands(C) == [("ASKING",), ("GET", LOW)]
    assert nodes.commands(A) == [("GET", LOW), ("GET", LOW)]


async def test_what_asking_is_refused_with_is_the_commands_error(clock: Clock) -> None:
    ask = AskError(f"{key_slot(LOW.encode())} c:3")
    cluster = cluster_of(
        Nodes(answers(("GET", [ask, b"1"]), ("ASKING", ResponseError("NOPERM asking")))), clock
    )
    with pytest.raises(ResponseError, match="NOPERM"):
        await cluster.get(LOW)


@pytest.mark.parametrize("transaction", [False, True])
async def test_nodes_that_only_redirect_are_given_up(
    clock: Clock, pauses: list[float], transaction: bool
) -> None:
    again = TryAgainError("multiple keys")
    cluster = cluster_of(nodes := Nodes(answers(("SET", again))), clock)
    pipeline = cluster.pipeline(transaction=transaction)
    pipeline.set(LOW, 1)
    with pytest.raises(TryAgainError):
        await pipeline.execute()
    assert len([command for command in nodes.commands() if command[0] == "SET"]) == TRIES
    assert pauses == [PAUSE] * (TRIES - 2)


async def test_two_nodes_that_name_each_other_are_given_up(clock: Clock, pauses: list[float]) -> None:
    def answer(address: Address, command: tuple[Any, ...]) -> Any:
        slot = key_slot(LOW.encode())
        return (
            HALVES
            if command[0] == "CLUSTER"
            else MovedError(f"{slot} b:2" if address == A else f"{slot} a:1")
        )

    cluster = cluster_of(nodes := Nodes(answer), clock)
    with pytest.raises(MovedError):
        await cluster.get(LOW)
    assert len(nodes.commands()) == TRIES


async def test_a_transaction_is_followed_whole(clock: Clock) -> None:
    slot = key_slot(LOW.encode())
    queued: list[Any] = [AskError(f"{slot} c:3"), b"QUEUED"]
    nodes = Nodes(answers(("SET", queued), ("EXEC", [ResponseError("EXECABORT"), [b"OK", 1]])))
    pipeline = cluster_of(nodes, clock).pipeline(transaction=True)
    pipeline.set(LOW, 1)
    pipeline.pexpire(LOW, 1000)
    assert await pipeline.execute() == [True, True]
    assert [command[0] for command in nodes.commands(C)] == ["ASKING", "MULTI", "SET", "PEXPIRE", "EXEC"]


async def test_an_error_within_a_transaction_is_raised(clock: Clock) -> None:
    nodes = Nodes(answers(("EXEC", [[b"OK", ResponseError("WRONGTYPE")]])))
    pipeline = cluster_of(nodes, clock).pipeline(transaction=True)
    pipeline.set(LOW, 1)
    pipeline.hget(LOW, "field")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await pipeline.execute()


async def test_nothing_is_written_behind_a_node_that_failed(clock: Clock) -> None:
    """A node is asked after the other, as they occur; and what may have been done is not sent again."""
    nodes = Nodes(answers(("SET", NoConnection("lost"))))
    pipeline = cluster_of(nodes, clock).pipeline(transaction=False)
    pipeline.set(LOW, 1)
    pipeline.set(HIGH, 1)
    with pytest.raises(NoConnection):
        await pipeline.execute()
    assert nodes.commands() == [("SET", LOW, 1)]


async def test_after_a_failure_the_map_is_looked_up_at_others_first_and_not_all_the_time(
    clock: Clock,
) -> None:
    lost = False

    def answer(address: Address, command: tuple[Any, ...]) -> Any:
        if lost and address == A:
            return NoConnection("lost")
        return HALVES if command[0] == "CLUSTER" else b"1"

    cluster = cluster_of(nodes := Nodes(answer), clock)
    await cluster.get(LOW)
    lost = True
    with pytest.raises(NoConnection):
        await cluster.get(LOW)
    await cluster.leave()
    assert nodes.dropped == [A]
    assert await cluster.get(HIGH) == b"1"
    assert nodes.lookups == [A]  # too soon
    clock.now += MIN_LOOKUP_SECONDS
    assert await cluster.get(HIGH) == b"1"
    assert nodes.lookups == [A, ("a", 101)]
    assert await cluster.get(HIGH) == b"1"
    assert len(nodes.lookups) == 2


async def test_a_replica_that_failed_is_not_asked_again_before_others(clock: Clock) -> None:
    """It may be a host that swallows packets: each question would take as long as a connection may."""
    lost: set[Address] = set()

    def answer(address: Address, command: tuple[Any, ...]) -> Any:
        if address in lost:
            return NoConnection("lost")
        return HALVES if command[0] == "CLUSTER" else b"1"

    cluster = cluster_of(nodes := Nodes(answer), clock)
    await cluster.get(LOW)
    lost |= {A, ("a", 101)}
    for expected in ([A, A, ("a", 101), B], [A, A, ("a", 101), B, B]):
        await cluster.leave()
        clock.now += MIN_LOOKUP_SECONDS
        assert await cluster.get(HIGH) == b"1"
        assert nodes.lookups == expected


async def test_where_nobody_gives_the_map_the_old_one_holds(clock: Clock) -> None:
    cluster = cluster_of(nodes := Nodes(answers(("GET", b"1"))), clock)
    await cluster.get(LOW)
    nodes.answer = answers(("GET", b"2"), slots=NoConnection("lost"))
    await cluster.leave()
    clock.now += MIN_LOOKUP_SECONDS
    assert await cluster.get(LOW) == b"2"
    assert len(nodes.lookups) == 5  # all that are known: two masters and their replicas
    assert await cluster.get(LOW) == b"2"
    assert len(nodes.lookups) == 5


async def test_a_slot_that_nobody_serves_is_told_and_looked_up_again(clock: Clock) -> None:
    cluster = cluster_of(nodes := Nodes(answers(slots=rows((0, 8191, A)))), clock)
    with pytest.raises(ClusterDownError):
        await cluster.get(HIGH)
    nodes.answer = answers(("GET", b"1"))
    with pytest.raises(ClusterDownError):
        await cluster.get(HIGH)
    clock.now += MIN_LOOKUP_SECONDS
    assert await cluster.get(HIGH) == b"1"


@pytest.mark.parametrize("whole", [False, True])
async def test_a_master_that_is_cut_off_from_the_cluster_is_left_for_the_one_that_took_its_place(
    clock: Clock, whole: bool
) -> None:
    """It still says of itself that it has the slots: the others are asked first."""
    down = False

    def answer(address: Address, command: tuple[Any, ...]) -> Any:
        if command[0] == "CLUSTER":
            return rows((0, 16383, B)) if down and address != A else HALVES
        if down and address == A:
            return ClusterDownError("The cluster is down")
        return [b"1"] if command[0] == "EXEC" else b"1"

    async def get() -> Any:
        if not whole:
            return await cluster.get(LOW)
        pipeline = cluster.pipeline()
        pipeline.get(LOW)
        return (await pipeline.execute())[0]

    cluster = cluster_of(nodes := Nodes(answer), clock)
    assert await get() == b"1"
    down = True
    with pytest.raises(ClusterDownError):
        await get()
    with pytest.raises(ClusterDownError):
        await get()
    assert nodes.lookups == [A]  # too soon
    clock.now += MIN_LOOKUP_SECONDS
    assert await get() == b"1"
    assert nodes.lookups == [A, ("a", 101)]
    assert nodes.sent[-1][0] == B


@pytest.mark.parametrize(
    "slots",
    [
        [],
        None,
        b"OK",
        [[0]],
        [[0, 1]],
        [[0, 16384, [b"a", 1]]],
        [[5, 4, [b"a", 1]]],
        [[0, 1, [b"a"]]],
        [[0, 1, [b"\xff", 1]]],
        [[b"x", 1, [b"a", 1]]],
        [[0, 1, b"a"]],
        [[0, 1, [b"a", None]]],
        ResponseError("NOPERM"),
        NoConnection("lost"),
    ],
)
async def test_a_node_that_gives_no_map_is_passed_over(clock: Clock, slots: Any) -> None:
    def answer(address: Address, command: tuple[Any, ...]) -> Any:
        return b"1" if command[0] != "CLUSTER" else slots if address == C else HALVES

    cluster = cluster_of(nodes := Nodes(answer), clock, C, B)
    assert await cluster.get(LOW) == b"1"
    assert nodes.lookups == [C, B]
    alone = cluster_of(Nodes(answer), clock, C)
    with pytest.raises((ResponseError, NoConnection, ValueError)):
        await alone.get(LOW)


async def test_one_looks_the_map_up_for_all(clock: Clock) -> None:
    cluster = cluster_of(nodes := Nodes(answers(("GET", b"1"))), clock)
    assert await asyncio.gather(*[cluster.get(key) for key in (LOW, HIGH) * 20]) == [b"1"] * 40
    assert nodes.lookups == [A]
