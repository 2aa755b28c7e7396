"""A client of Redis Cluster (or Valkey's), which the stores use as they use redis-py's client of one server.

It keeps the map of slots, sends each command to the master of its key's slot, and follows what nodes answer:

    MOVED       the slot has another master: the map is corrected there, and looked up whole soon
    ASK         the slot is on its way to another node: this one command goes there, behind ASKING on the same connection
    TRYAGAIN    a script's keys are on both sides of such a move: it is sent again, a moment later
    CLUSTERDOWN the node does not serve: the caller gets the error, and the map is looked up soon, at others first

A node that answers one of these has not done the command, so sending it again does it once. Where nobody
knows whether it was done (a lost connection, no reply in time), nothing is sent again and the caller gets the
error: amounts are never charged twice. The map is looked up again with the next call then, at the nodes that
have not failed first.

Connections, packing and replies are redis-py's. Its own asyncio client of clusters is not used: it sends
ASKING and the command on connections that may differ, does not know the node that an ASK names until it has
the whole map, gives a lost connection within a pipeline as the result of each command, and refuses what finds
no connection free instead of waiting for one.

https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
"""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

import redis.asyncio as redis
from redis.commands import AsyncCoreCommands
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError, ResponseError, TryAgainError
from redis.exceptions import ConnectionError as NoConnection

SLOTS = 16384
TRIES = 64
"""Maximum times that a command is sent while nodes only redirect it; usually the caller's deadline is
earlier."""
PAUSE = 0.02
"""Seconds before a command is sent again, from the second redirection on."""
REFRESH = 1.0
"""Minimum seconds between two lookups of the map after redirections, which correct it themselves."""
MIN_LOOKUP_SECONDS = 0.1
"""Minimum seconds between two lookups after failures."""
KNOWN = 1000
"""Maximum nodes whose addresses are remembered to ask for the map: Redis recommends no larger clusters."""

Address = tuple[str, int]
Command = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments, the name first, and options for parsing the reply."""
MakePool = Callable[[str, int], Any]
"""Makes redis-py's pool of connections to one node."""


class Node:
    """One server: its connections, and whether its last exchange failed, which is reported to `failing`.

    An exchange that is cut off by its caller's deadline has failed, too: the host may be gone, and then it
    neither closes nor refuses a connection.
    """

    def __init__(self, address: Address, pool: Any, failing: Callable[[], None]) -> None:
        self.address = address
        self.pool = pool
        self._failing = failing
        self.failed = False
        self.callbacks: Any = redis.Redis.from_pool(pool).response_callbacks

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Returns the server's replies as they are, including errors. Raises redis-py's errors of
        connections, OSError."""
        replies: list[Any] = []
        connection = None
        try:
            connection = await self.pool.get_connection()
            await connection.send_packed_command(
                connection.pack_commands([arguments for arguments, _ in commands])
            )
            for _ in commands:
                try:
                    replies.append(await connection.read_response())
                except ResponseError as error:
                    replies.append(error)
        finally:
            self.failed = len(replies) < len(commands)
            if self.failed:
                self._failing()
            if connection is not None:
                await self.pool.release(connection)
        return replies

    def read(self, command: Command, reply: Any) -> Any:
        """Returns a reply in the form of redis-py's method for the command."""
        arguments, options = command
        callback = self.callbacks.get(arguments[0])
        if callback is None or isinstance(reply, Exception):
            return reply
        return callback(reply, **{name: value for name, value in options.items() if name != "keys"})


class Cluster(AsyncCoreCommands):
    """`seeds`: nodes that are asked for the others; one that answers is enough. `patience`: seconds for that
    answer. `drop` closes a pool's connections: idle ones now, those in use when their call is over."""

    _event_dispatcher: Any = None  # required by redis-py's protocol of clients; no command uses it

    def __init__(
        self,
        seeds: Sequence[Address],
        pool: MakePool,
        drop: Callable[[Any], Awaitable[None]],
        *,
        patience: float,
        clock: Callable[[], float] = time.monotonic,
        shuffle: Callable[[list[Address]], None] = random.shuffle,
    ) -> None:
        self._seeds = seeds
        self._make_pool = pool
        self._drop = drop
        self._patience = patience
        self._clock = clock
        self._shuffle = shuffle
        self._nodes: dict[Address, Node] = {}
        self._known: list[Address] = []
        """Includes replicas: they know the map too."""
        self._slots: list[Node | None] = []
        self._looked_at = -math.inf
        self._due = -math.inf
        """When the map is to be looked up again, by `clock`."""
        self._lock = asyncio.Lock()

    # --- the interface of redis-py's clients

    async def execute_command(self, *arguments: Any, **options: Any) -> Any:
        [reply] = await self.run([(arguments, options)])
        if isinstance(reply, Exception):
            raise reply
        return reply

    def pipeline(self, transaction: bool = True) -> "Pipeline":
        return Pipeline(self, transaction)

    async def leave(self) -> None:
        """Drops the connections to failed nodes, and looks up the map with the next call."""
        self._look_up(MIN_LOOKUP_SECONDS)
        for node in list(self._nodes.values()):
            if node.failed:
                await self._drop(node.pool)

    async def aclose(self) -> None:
        for node in self._nodes.values():
            await node.pool.disconnect()

    # --- sending

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        """Returns the reply of each command, or the error that it was answered with, in the order of the
        commands.

        Commands for one node are one exchange. Nodes are used one after another, in the order of their first
        command: what is written first is there when the next node is written to, and nothing is written after
        a node has failed.
        """
        waiting = {at: key_slot(_bytes(key_of(arguments))) for at, (arguments, _) in enumerate(commands)}
        replies: list[Any] = [None] * len(commands)
        asked: dict[int, Node] = {}  # nodes to use instead of the slot's master
        for tried in range(TRIES):
            if tried > 1:
                await asyncio.sleep(PAUSE)
            groups: dict[tuple[Node, bool], list[int]] = {}
            for at, slot in waiting.items():
                other = asked.pop(at, None)
                groups.setdefault((other or await self._master(slot), other is not None), []).append(at)
            for (node, asking), places in groups.items():
                found = await _exchange(node, [commands[at] for at in places], asking=asking)
                for at, reply in zip(places, found, strict=True):
                    replies[at] = reply
                    if not isinstance(reply, AskError | TryAgainError):
                        del waiting[at]
                        self._suspect(node, reply)
                    elif (other := self._redirected(node, reply)) is not None:
                        asked[at] = other
            if not waiting:
                break
        return replies

    async def run_whole(self, commands: Sequence[Command]) -> list[Any]:
        """Returns the replies of commands that are done together or not at all (MULTI), all in one slot.
        Raises the first error."""
        slot = key_slot(_bytes(key_of(commands[0][0])))
        whole: list[Command] = [(("MULTI",), {}), *commands, (("EXEC",), {})]
        asking: Node | None = None
        error: Exception = ClusterDownError("CLUSTERDOWN Hash slot not served")
        for tried in range(TRIES):
            if tried > 1:
                await asyncio.sleep(PAUSE)
            node = asking or await self._master(slot)
            sent: list[Command] = [(("ASKING",), {}), *whole] if asking is not None else whole
            asking = None
            replies = await node.exchange(sent)
            errors = [reply for reply in replies if isinstance(reply, Exception)]
            if not errors:
                return [
                    _raised(node.read(command, reply))
                    for command, reply in zip(commands, replies[-1], strict=True)
                ]
            error = errors[0]
            if not isinstance(error, AskError | TryAgainError):
                self._suspect(node, error)
                break
            asking = self._redirected(node, error)
        raise error

    def _suspect(self, node: Node, reply: Any) -> None:
        """Looks up the map soon if a node is cut off from the others (CLUSTERDOWN): its slots may have
        another master that it does not know, so the others are asked first."""
        if isinstance(reply, ClusterDownError):
            node.failed = True
            self._look_up(MIN_LOOKUP_SECONDS)

    def _redirected(self, node: Node, error: Exception) -> Node | None:
        """Returns the node to use instead, for a slot that is being moved; corrects the map for one that has
        been moved."""
        if isinstance(error, TryAgainError):
            return None
        assert isinstance(error, AskError)
        other = self._node((error.host or node.address[0], error.port))
        if not isinstance(error, MovedError):
            return other
        if 0 <= error.slot_id < len(self._slots):
            self._slots[error.slot_id] = other
        self._look_up(REFRESH)
        return None

    async def _master(self, slot: int) -> Node:
        """Raises ClusterDownError if nobody serves the slot, or the error of looking up the map."""
        if self._due <= self._clock():
            async with self._lock:
                if self._due <= self._clock():
                    await self._refresh()
        node = self._slots[slot]
        if node is None:
            self._look_up(MIN_LOOKUP_SECONDS)
            raise ClusterDownError("CLUSTERDOWN Hash slot not served")
        return node

    # --- the map

    def _look_up_soon(self) -> None:
        self._look_up(MIN_LOOKUP_SECONDS)

    def _look_up(self, least: float) -> None:
        self._due = min(self._due, self._looked_at + least)

    async def _refresh(self) -> None:
        """Raises the last node's error if no node returns the map and there is none yet."""
        problem: Exception = NoConnection("No node of the cluster answers")
        for address in self._to_ask():
            node = self._node(address)
            try:
                async with asyncio.timeout(self._patience):
                    [rows] = await node.exchange([(("CLUSTER", "SLOTS"), {})])
                if isinstance(rows, Exception):
                    raise rows
                if not rows:
                    raise ClusterDownError("CLUSTERDOWN Hash slot not served")
                masters, known, slots = _map_of(rows, address[0])
            except (RedisError, OSError, ValueError) as error:  # TimeoutError is an OSError
                problem = error
                continue
            await self._follow(masters, known, slots)
            return
        self._looked_at = self._clock()
        if not self._slots:
            raise problem
        self._due = self._looked_at + MIN_LOOKUP_SECONDS  # until then the present map is used

    def _to_ask(self) -> list[Address]:
        """Returns the nodes to ask, failed ones last."""
        found = [*self._known, *(seed for seed in self._seeds if seed not in self._known)]
        self._shuffle(found)
        return sorted(found, key=lambda address: address in self._nodes and self._nodes[address].failed)

    async def _follow(
        self, masters: Iterable[Address], known: list[Address], slots: list[tuple[int, int, Address]]
    ) -> None:
        self._slots = [None] * SLOTS
        for first, last, address in slots:
            self._slots[first : last + 1] = [self._node(address)] * (last + 1 - first)
        self._known = known[:KNOWN]
        self._looked_at, self._due = self._clock(), math.inf
        for address in self._nodes.keys() - set(masters):
            node = self._nodes[address]
            if not (
                node.failed and (address in known or address in self._seeds)
            ):  # otherwise it is the last to be asked again
                del self._nodes[address]
            await self._drop(node.pool)

    def _node(self, address: Address) -> Node:
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = Node(address, self._make_pool(*address), self._look_up_soon)
        return node


class Pipeline(AsyncCoreCommands):
    """Commands that are sent together: like `Cluster.run`, or like `Cluster.run_whole` if they are a
    transaction."""

    _event_dispatcher: Any = None

    def __init__(self, cluster: Cluster, transaction: bool) -> None:
        self._cluster = cluster
        self._transaction = transaction
        self._commands: list[Command] = []

    async def __aenter__(self) -> "Pipeline":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._commands = []

    def execute_command(self, *arguments: Any, **options: Any) -> "Pipeline":
        self._commands.append((arguments, options))
        return self

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands, self._commands = self._commands, []
        if not commands:
            return []
        if self._transaction:
            return await self._cluster.run_whole(commands)
        replies = await self._cluster.run(commands)
        return [_raised(reply) for reply in replies] if raise_on_error else replies


def key_of(arguments: Sequence[Any]) -> Any:
    """Returns the first key of a command, which determines its node: all keys of a command are in one slot.
    Raises ValueError for a command without one."""
    name = str(arguments[0]).upper()
    if name in ("EVAL", "EVALSHA"):
        at = 3 if int(arguments[2]) else 1  # without keys any node can run it
    elif name == "XREAD":
        at = arguments.index("STREAMS") + 1 if "STREAMS" in arguments else arguments.index(b"STREAMS") + 1
    else:
        at = 1
    if len(arguments) <= at:
        raise ValueError(f"{name} names no key, and so no node of a cluster")
    return arguments[at]


async def _exchange(node: Node, commands: Sequence[Command], *, asking: bool) -> list[Any]:
    if asking:
        replies = await node.exchange([one for command in commands for one in ((("ASKING",), {}), command)])
        refused = [isinstance(reply, Exception) for reply in replies[::2]]
        found = [
            allowed if no else reply
            for allowed, reply, no in zip(replies[::2], replies[1::2], refused, strict=True)
        ]
    else:
        found = await node.exchange(commands)
    return [node.read(command, reply) for command, reply in zip(commands, found, strict=True)]


def _raised(reply: Any) -> Any:
    if isinstance(reply, Exception):
        raise reply
    return reply


def _bytes(key: Any) -> bytes:
    return key if isinstance(key, bytes) else str(key).encode("utf-8", "surrogatepass")


def _map_of(rows: Any, host: str) -> tuple[set[Address], list[Address], list[tuple[int, int, Address]]]:
    """Returns masters, all nodes, and the ranges of slots with their masters, from a reply to CLUSTER SLOTS
    by the node `host`.

    A node may not know its own host, or be configured not to tell it: then it is the node that was asked.
    Raises ValueError for an invalid reply.
    """
    known: dict[Address, None] = {}
    slots = []
    try:
        for first, last, *nodes in rows:
            if not 0 <= int(first) <= int(last) < SLOTS:
                raise ValueError("no range of slots")
            addresses = [(_host_in(name) or host, int(port)) for name, port, *_ in nodes]
            known |= dict.fromkeys(addresses)
            slots.append((int(first), int(last), addresses[0]))
    except (TypeError, IndexError, UnicodeDecodeError) as error:
        raise ValueError("no map of slots") from error
    return {address for _, _, address in slots}, list(known), slots


def _host_in(name: bytes | None) -> str:
    found = (name or b"").decode()
    return "" if found == "?" else found
