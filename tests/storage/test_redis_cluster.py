"""What uses Redis, on a cluster whose slots move and whose masters die; and the client by itself, told what
nodes answer."""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from sluice.conversations import ConversationsFailed, Lease, Turn
from sluice.conversations.entries import digest_of, letters
from sluice.conversations.redis import RedisConversations
from sluice.kept.redis import RedisResponses
from sluice.limits import Claim, Limit, Slot
from sluice.limits.redis import RedisStore
from sluice.model.kept import KeptResponse
from sluice.storage import Reason
from sluice.storage.address import address_of
from sluice.storage.redis import RedisClient, RedisFailed
from sluice.storage.redis_cluster import key_of
from tests.redis_clusters import Cluster, cluster_binaries, redis_cluster
from tests.servers import free_port, redis_server
from tests.storage.test_redis import HANG, PASSWORD, USERS, User, opened

_names = (f"moves{number}" for number in itertools.count())


@pytest.fixture(
    scope="module", params=cluster_binaries() or [None], ids=lambda path: (path or "none").rpartition("/")[2]
)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """One for all tests here, of every server at hand."""
    with redis_cluster(request.param) as found:
        yield found


@pytest.fixture(params=USERS)
def using(request: pytest.FixtureRequest) -> Callable[[str], User]:
    found: Callable[[str], User] = USERS[request.param]
    return found


def client_of(url: str) -> RedisClient:
    return RedisClient(address_of(url), connections=4, wait=HANG)


async def test_everybody_uses_a_cluster_and_finds_its_nodes_from_one(
    cluster: Cluster, using: Callable[[str], User]
) -> None:
    url = f"redis-cluster://127.0.0.1:{free_port()},127.0.0.1:{cluster.nodes[5].port}?connect_timeout={HANG}s"
    async with opened(using, url) as user:
        for _ in range(20):  # of some users each is of another slot
            assert await user.write() is None
            assert await user.read() is None


async def test_a_pipeline_over_all_nodes_has_its_replies_in_order(cluster: Cluster) -> None:
    client, name = client_of(cluster.url), next(_names)
    async with client.asking(HANG) as raw:
        pipeline = raw.pipeline(transaction=False)
        for number in range(100):
            pipeline.set(f"{name}:{number}", number)
        assert await pipeline.execute() == [True] * 100
        assert await pipeline.execute() == []
        for number in range(100):
            pipeline.get(f"{name}:{number}")
        pipeline.hget(f"{name}:7", "field")
        *found, error = await pipeline.execute(raise_on_error=False)
        assert found == [b"%d" % number for number in range(100)]
        assert "WRONGTYPE" in str(error)
    await client.close()


async def moving(cluster: Cluster, key: str) -> tuple[int, int, int]:
    """The slot of the key, on its way: from the node whose place is the second to the third."""
    slot = cluster.slot(key)
    to = (cluster.owner(slot) + 1) % 3
    return slot, await asyncio.to_thread(cluster.begin_move, slot, to), to


async def test_a_slot_that_moves_is_followed_key_by_key(cluster: Cluster) -> None:
    """Keys that have gone are asked for behind ASKING, those that have not where they were; afterwards all
    are there."""
    name, client = f"{{{next(_names)}}}", client_of(cluster.url)
    async with client.asking(3 * HANG) as raw:
        for number in range(10):
            await raw.set(f"{name}:{number}", number)
        slot, here, to = await moving(cluster, name)
        assert await asyncio.to_thread(cluster.move_keys, slot, here, to, 5) == 5
        for _ in range(2):
            pipeline = raw.pipeline(transaction=False)
            for number in range(10):
                pipeline.get(f"{name}:{number}")
            assert await pipeline.execute() == [b"%d" % number for number in range(10)]
            assert await asyncio.gather(*[raw.get(f"{name}:{number}") for number in range(10)]) == [
                b"%d" % number for number in range(10)
            ]
        await raw.set(f"{name}:new", "here already")
        pipeline = raw.pipeline(transaction=True)
        pipeline.set(f"{name}:whole", 1)
        pipeline.pexpire(f"{name}:whole", 60_000)
        assert await pipeline.execute() == [True, True]
        while await asyncio.to_thread(cluster.move_keys, slot, here, to):
            pass
        await asyncio.to_thread(cluster.end_move, slot, to)
        assert await raw.get(f"{name}:new") == b"here already"
        assert await raw.get(f"{name}:whole") == b"1"
        assert await raw.get(f"{name}:0") == b"0"
    await client.close()


async def test_a_script_whose_keys_are_on_both_sides_of_a_move_waits_for_its_end(cluster: Cluster) -> None:
    store = RedisStore(cluster.url, prefix=(name := next(_names)), timeout=HANG)
    claims = [Claim(key, Limit(1000.0, 1e-6)) for key in ("a", "b", "c")]
    assert (await store.take(claims)).admitted
    slot, here, to = await moving(cluster, f"{{{name}}}")
    assert await asyncio.to_thread(cluster.move_keys, slot, here, to, 1) == 1
    taken = asyncio.create_task(store.take(claims, [Slot("s", 3, "holder")]))
    refused = cluster.nodes[here]
    before = refused.ask("INFO", "errorstats").get("errorstat_TRYAGAIN", {}).get("count", 0)
    while refused.ask("INFO", "errorstats").get("errorstat_TRYAGAIN", {}).get("count", 0) < before + 2:
        await asyncio.sleep(0.01)
    assert not taken.done()
    while await asyncio.to_thread(cluster.move_keys, slot, here, to):
        pass
    await asyncio.to_thread(cluster.end_move, slot, to)
    verdict = await taken
    assert verdict.admitted
    assert [round(level.remaining) for level in verdict.levels] == [998, 998, 998, 2]
    await store.close()


async def test_limits_hold_while_their_slot_moves_about(cluster: Cluster) -> None:
    """Taken once each: 300 calls of 400 find their token, however often nodes redirect them."""
    store = RedisStore(cluster.url, prefix=(name := next(_names)), timeout=HANG)
    done = asyncio.Event()

    async def calls() -> int:
        admitted = 0
        for _ in range(100):
            admitted += (
                await store.take([Claim("k", Limit(300.0, 1e-6)), Claim("other", Limit(500.0, 1e-6))])
            ).admitted
        return admitted

    async def moves() -> None:
        while not done.is_set():
            slot, here, to = await moving(cluster, f"{{{name}}}")
            while await asyncio.to_thread(cluster.move_keys, slot, here, to, 1):
                pass
            await asyncio.to_thread(cluster.end_move, slot, to)

    moved = asyncio.create_task(moves())
    assert sum(await asyncio.gather(*[calls() for _ in range(4)])) == 300
    done.set()
    await moved
    await store.close()


async def test_turns_of_a_session_stay_in_order_while_its_slots_move_about(cluster: Cluster) -> None:
    """The session's slot and, after it, that of the list of conversations: two hosts' turns follow one another."""
    prefix = next(_names)
    stores = [RedisConversations(f"{cluster.url}&timeout={HANG}s", prefix=prefix) for _ in range(2)]
    keys = (stores[0]._key(letters(digest_of("t", "s"))), f"{prefix}:conversations")
    done = asyncio.Event()

    async def turns(number: int) -> None:
        for turn in range(20):
            lease = Lease("t", "s", f"{number}-{turn}")
            while (begun := await stores[number % 2].begin(lease, 1000)) is None:
                pass  # to ask is a round trip, in which the other turns go on
            said = Turn("user", f"{number}-{turn} after {len(begun.turns)}", 0.0)
            await stores[number % 2].finish(lease, begun.id, [said])

    async def moves() -> None:
        for key in itertools.cycle(keys):
            slot, here, to = await moving(cluster, key)
            while await asyncio.to_thread(cluster.move_keys, slot, here, to, 1):
                pass
            await asyncio.to_thread(cluster.end_move, slot, to)
            if done.is_set():
                return

    moved = asyncio.create_task(moves())
    await asyncio.gather(*[turns(number) for number in range(4)])
    done.set()
    await moved
    [one], total = await stores[1].newest(10)
    found = await stores[1].get(one.id)
    assert found is not None
    assert total == 1
    said = [turn.content for turn in found[1]]
    assert [int(text.rpartition(" ")[2]) for text in said] == list(range(80))
    for number in range(4):
        mine = [text.partition(" ")[0] for text in said if text.startswith(f"{number}-")]
        assert mine == [f"{number}-{turn}" for turn in range(20)]
    for store in stores:
        await store.close()


@pytest.mark.parametrize(
    "binary", cluster_binaries() or [None], ids=lambda path: (path or "none").rpartition("/")[2]
)
async def test_a_master_that_dies_is_followed_by_its_replica(binary: str | None) -> None:
    """While nobody serves its slots the reason is told, the others are served, and what was acknowledged is
    there."""
    with redis_cluster(binary, timeout=1500) as cluster:
        users = {name: USERS[name](cluster.url) for name in USERS}
        client, name = client_of(cluster.url), next(_names)
        for user in users.values():
            assert await user.write() is None
        slots = {
            key: cluster.owner(cluster.slot(key)) for key in (f"{name}:{number}" for number in range(60))
        }
        async with client.asking(HANG) as raw:
            for key in slots:
                await raw.set(key, key)
        await asyncio.to_thread(cluster.nodes[0].ask, "WAIT", 1, 30_000)
        cluster.nodes[0].kill()
        reasons: set[Reason] = set()
        async with asyncio.timeout(3 * HANG):
            while True:
                try:
                    async with client.asking(HANG) as raw:
                        found = {key: (await raw.get(key)).decode() for key in slots}
                    break
                except (
                    RedisFailed
                ) as failed:  # of one node after the other: each learns by itself who serves now
                    reasons.add(failed.reason)
                    await asyncio.sleep(0.05)
        assert reasons
        assert reasons <= {"connection", "clusterdown"}
        assert found == {key: key for key in slots}
        async with asyncio.timeout(3 * HANG):
            for user in users.values():
                while await user.write() is not None or await user.read() is not None:
                    await asyncio.sleep(0.05)
                await user.close()
        await client.close()


async def test_a_frozen_master_costs_its_own_keys_only(cluster: Cluster) -> None:
    client, name = client_of(cluster.url), next(_names)
    slots = {key: cluster.owner(cluster.slot(key)) for key in (f"{name}:{number}" for number in range(30))}
    async with client.asking(HANG) as raw:
        for key in slots:
            await raw.set(key, 1)
    frozen = cluster.nodes[slots[f"{name}:0"]]
    frozen.stop()
    try:
        with pytest.raises(RedisFailed) as failed:
            async with client.asking(0.05) as raw:
                await raw.get(f"{name}:0")
        assert failed.value.reason == "timeout"
        async with client.asking(HANG) as raw:
            for key, owner in slots.items():
                if owner != slots[f"{name}:0"]:
                    assert await raw.get(key) == b"1"
    finally:
        frozen.resume()
    async with client.asking(HANG) as raw:
        assert await raw.get(f"{name}:0") == b"1"
    await client.close()


async def test_a_frozen_master_costs_no_response_whose_keys_others_have(cluster: Cluster) -> None:
    prefix = next(_names)
    store = RedisResponses(cluster.url, 3600.0, lambda: 1000.0, prefix=prefix, timeout=HANG)
    frozen = cluster.owner(cluster.slot(f"{prefix}:responses:of:"))
    found = []
    for number in range(30):
        kept = KeptResponse(f"r{number}", "", 1000.0, b"[]", b"{}", (f"i{number}",))
        keys = store._key(letters(digest_of("t", kept.id))), store._item("t", *kept.items)
        if frozen not in [cluster.owner(cluster.slot(key)) for key in keys]:
            await store.put("t", kept)
            found.append(kept)
    assert found
    cluster.nodes[frozen].stop()
    try:
        for kept in found:
            assert await store.holder("t", *kept.items) == kept
    finally:
        cluster.nodes[frozen].resume()
    await store.close()


async def test_a_master_whose_host_is_gone_is_followed_by_its_replica() -> None:
    """It closes no connection and answers nothing, as a host that has lost its power."""
    with redis_cluster(timeout=1500) as cluster:
        store = RedisConversations(f"{cluster.url}&timeout=1s", prefix=next(_names))
        sessions = {
            cluster.owner(cluster.slot(store._key(letters(digest_of("t", f"s{number}"))))): f"s{number}"
            for number in range(40)
        }
        for session in sessions.values():
            await store.open("t", session)
        await asyncio.to_thread(cluster.nodes[0].ask, "WAIT", 1, 30_000)
        cluster.nodes[0].stop()
        async with asyncio.timeout(3 * HANG):
            while True:
                try:
                    await store.open("t", sessions[0])
                    break
                except ConversationsFailed:
                    await asyncio.sleep(0.05)
        await store.close()


@pytest.mark.parametrize("transaction", [False, True])
async def test_what_a_server_is_that_is_no_cluster(transaction: bool) -> None:
    with redis_server() as server:
        client = client_of(f"redis+cluster://127.0.0.1:{server.port}?connect_timeout=30")
        pipeline = client.raw.pipeline(transaction=transaction)
        pipeline.set("a", 1)
        with pytest.raises(RedisFailed) as failed:
            async with client.asking(HANG):
                await pipeline.execute()
        assert failed.value.reason == "no_cluster"
        await client.close()


async def test_passwords_and_tls_are_those_of_all_nodes(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    own = authority.issue_cert("127.0.0.1")
    own.private_key_pem.write_to_path(tmp_path / "key.pem")
    own.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    right, trust = f":{PASSWORD}@", f"&ssl_ca_certs={tmp_path}/ca.pem"
    cases = ((right, trust, None), (":wrong@", trust, "wrongpass"), ("", trust, "noauth"), (right, "", "tls"))
    with redis_cluster(
        None, "--requirepass", PASSWORD, "--masterauth", PASSWORD, password=PASSWORD, tls=tmp_path
    ) as cluster:
        for login, options, reason in cases:
            client = client_of(
                f"rediss+cluster://{login}127.0.0.1:{cluster.nodes[2].port}?connect_timeout=30{options}"
            )
            for number in range(9):
                try:
                    async with client.asking(HANG) as raw:
                        await raw.set(f"k{number}", 1)
                    found = None
                except RedisFailed as failed:
                    found = failed.reason
                assert found == reason
            await client.close()


async def test_nobody_is_there() -> None:
    client = client_of(f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{free_port()}")
    with pytest.raises(RedisFailed) as failed:
        async with client.asking(HANG) as raw:
            await raw.get("a")
    assert failed.value.reason == "connection"
    await client.close()


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("GET", "a"), "a"),
        (("EVAL", "return 1", 2, "a", "b", "c"), "a"),
        (("evalsha", "digest", "1", b"a"), b"a"),
        (("EVAL", "return 1", 0, "b"), "return 1"),
        (("XREAD", "BLOCK", 1, "COUNT", 2, b"STREAMS", "a", "1-0"), "a"),
        (("XREAD", "STREAMS", "a", "1-0"), "a"),
    ],
)
def test_the_first_key_of_a_command_tells_its_node(command: tuple[Any, ...], key: Any) -> None:
    assert key_of(command) == key


@pytest.mark.parametrize("command", [("TIME",), ("EVAL", "return 1", 1), ("XREAD", "COUNT", 1)])
def test_a_command_without_a_key_is_for_no_node(command: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError):
        key_of(command)
