"""A Redis Cluster of six nodes on loopback: three masters, each with a replica. Nothing of it is left
afterwards."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
from redis import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from tests.servers import RedisServer, free_port, redis_binaries

MASTERS = 3
SLOTS = 16384
HASTY = 500
"""Milliseconds of the same while the nodes join: nodes talk the oftener, the shorter it is. No replica takes
over meanwhile."""
PATIENT = 60_000
"""Milliseconds after which a node counts as failed: a busy machine is none of its faults."""
JOINS = 60.0
"""Seconds within which the nodes must have found each other."""


@cache
def cluster_binaries() -> tuple[str, ...]:
    """Every server at hand that can be told its port for the other nodes (Redis 7.0, Valkey)."""
    return tuple(
        binary
        for binary in redis_binaries()
        if b"v=6" not in run([binary, "--version"], capture_output=True).stdout
    )


class ClusterNode(RedisServer):
    """A node, with its place in the list of nodes. It keeps its name and its slots over `kill` and
    `start`."""

    def __init__(self, directory: str, binary: str, options: Sequence[str]) -> None:
        more = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            str(HASTY),
            "--cluster-announce-ip",
            "127.0.0.1",
        ]
        more += ["--cluster-replica-no-failover", "yes"]
        more += ["--repl-ping-replica-period", "1"]  # a replica that has got nothing yet is in no map
        super().__init__(directory, binary, [*more, *options])
        self._bus = 0
        self.password: str | None = None
        self.tls: Path | None = None

    def _command(self, port: int) -> list[str]:
        self._bus = self._bus or free_port()
        found = [*super()._command(port), "--cluster-port", str(self._bus)]
        if self.tls is not None:
            files = (
                ("cert", f"{self.tls}/cert.pem"),
                ("key", f"{self.tls}/key.pem"),
                ("ca-cert", f"{self.tls}/ca.pem"),
            )
            found += [
                "--port",
                "0",
                "--tls-port",
                str(port),
                "--tls-cluster",
                "yes",
                "--tls-replication",
                "yes",
            ]
            found += [
                "--tls-auth-clients",
                "no",
                *(word for name, file in files for word in (f"--tls-{name}-file", file)),
            ]
        return found

    @property
    def bus(self) -> int:
        return self._bus

    def ask(self, *command: Any) -> Any:
        tls: dict[str, Any] = (
            {"ssl": True, "ssl_ca_certs": f"{self.tls}/ca.pem"} if self.tls is not None else {}
        )
        with Redis("127.0.0.1", self.port, password=self.password, socket_timeout=30, **tls) as client:
            return client.execute_command(*command)

    def says(self, what: str, *command: Any) -> bool:
        try:
            found: str = str(self.ask(*command))
        except RedisError:
            return False
        return what in found

    @property
    def id(self) -> str:
        found: bytes = self.ask("CLUSTER", "MYID")
        return found.decode()


class Cluster:
    """`nodes`: the masters, then their replicas in the same order."""

    def __init__(self, nodes: Sequence[ClusterNode]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        """Of two of its nodes: the others are to be found."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[1:3])
        return f"redis+cluster://{hosts}?connect_timeout=30"

    @property
    def masters(self) -> Sequence[ClusterNode]:
        return self.nodes[:MASTERS]

    def join(self, timeout: int) -> None:
        first, *others = self.nodes
        for at, node in enumerate(self.masters):
            node.ask("CLUSTER", "ADDSLOTSRANGE", SLOTS * at // MASTERS, SLOTS * (at + 1) // MASTERS - 1)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", at + 1)
        for node in others:
            node.ask("CLUSTER", "MEET", "127.0.0.1", first.port, first.bus)
        names = [node.id for node in self.nodes]
        for node, master in zip(self.nodes[MASTERS:], names, strict=False):
            until(lambda node=node: all(node.says(name, "CLUSTER", "NODES") for name in names))
            node.ask("CLUSTER", "REPLICATE", master)
        until(self.whole)
        for node in self.nodes:
            node.ask("CONFIG", "SET", "cluster-node-timeout", timeout)
            node.ask("CONFIG", "SET", "cluster-replica-no-failover", "no")

    def whole(self) -> bool:
        """Whether all nodes serve, know all slots, and replicas have what their masters have."""
        return all(
            node.says("cluster_state:ok", "CLUSTER", "INFO")
            and _replicas(node.ask("CLUSTER", "SLOTS")) == [1] * MASTERS
            for node in self.nodes
        ) and all(
            node.says("master_link_status': 'up'", "INFO", "replication") for node in self.nodes[MASTERS:]
        )

    def slot(self, key: str) -> int:
        found: int = key_slot(key.encode())
        return found

    def owner(self, slot: int) -> int:
        """The place of the node that serves the slot, as the first node that answers says it."""
        ports = [node.port for node in self.nodes]
        for node in self.nodes:
            try:
                rows = node.ask("CLUSTER", "SLOTS")
            except RedisError:
                continue
            for first, last, master, *_ in rows:
                if first <= slot <= last:
                    return ports.index(int(master[1]))
        raise AssertionError("nobody serves the slot")

    def begin_move(self, slot: int, to: int) -> int:
        """From now on the slot is on its way to that node, from the one whose place is returned."""
        there, here = self.nodes[to], self.owner(slot)
        there.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self.nodes[here].id)
        self.nodes[here].ask("CLUSTER", "SETSLOT", slot, "MIGRATING", there.id)
        return here

    def move_keys(self, slot: int, here: int, to: int, most: int = 1000) -> int:
        """How many were moved, of at most `most`."""
        source = self.nodes[here]
        keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, most)
        if keys:
            source.ask("MIGRATE", "127.0.0.1", self.nodes[to].port, "", 0, 30_000, "KEYS", *keys)
        return len(keys)

    def end_move(self, slot: int, to: int) -> None:
        name = self.nodes[to].id
        for node in (self.nodes[to], *self.masters):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", name)


def _replicas(rows: Any) -> list[int]:
    """How many each range of slots has."""
    return [len(row) - 3 for row in rows]


def until(done: Callable[[], bool]) -> None:
    """Nodes tell nobody when they have found each other."""
    for _ in range(int(JOINS / 0.02)):
        if done():
            return
        time.sleep(0.02)
    raise RuntimeError("the cluster did not come about")


@contextmanager
def redis_cluster(
    binary: str | None = None,
    *options: str,
    timeout: int = PATIENT,
    password: str | None = None,
    tls: Path | None = None,
) -> Iterator[Cluster]:
    """`timeout`: milliseconds without an answer after which a node has failed and its replica takes over.

    `tls`: the directory of ca.pem, cert.pem and key.pem, where it is spoken.
    """
    if binary is None and not cluster_binaries():
        pytest.skip(
            "no redis-server 7.0 or newer, nor valkey-server: Debian's redis-server package is not installed"
        )
    with tempfile.TemporaryDirectory(prefix="cluster-") as directory, ExitStack() as stack:
        nodes = []
        for at in range(2 * MASTERS):
            own = Path(directory) / str(at)
            own.mkdir()
            node = ClusterNode(str(own), binary or cluster_binaries()[0], options)
            node.password, node.tls = password, tls
            stack.callback(node.kill)
            node.start()
            nodes.append(node)
        cluster = Cluster(nodes)
        cluster.join(timeout)
        yield cluster
