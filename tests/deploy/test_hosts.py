"""Three gateways, two Redis with Sentinel, a PostgreSQL and two providers, each a host with a network between them.

Limits are in Redis, conversations in PostgreSQL, the providers echo: each answer tells how many messages of its
user were sent, and so the place of its turn in the session. Callers reach the gateways by Unix sockets, past the
network. docs/stores.md says what a partition does; docs/scale.md has what `test_figures` prints.
"""

import asyncio
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis.asyncio as client

from sluice.identity.keys import digest_of
from tests.deploy.network import Network, network
from tests.e2e.test_hosts import place_of
from tests.servers import PostgresServer, postgres_binary, redis_binary

GATEWAYS = ("gateway1", "gateway2", "gateway3")
REDIS = ("redis1", "redis2")
SENTINELS = (*REDIS, "postgres")
PROVIDERS = ("provider1", "provider2")
HOSTS = (*GATEWAYS, *REDIS, "postgres", *PROVIDERS)
WITHIN = 60.0
"""Seconds within which what heals has healed: a busy machine is none of its faults."""
BURST, SHARE = 60, 20
SPENT = {
    "tokens": "tokens: {rate: 1/day, burst: 5000}",
    "money": "money: {rate: 0.001/day, burst: 5}",
    "budget": "budget: {month: 5}",
}
"""Keys by the one resource that limits them: 5000 tokens, of which each costs a tenth of a cent."""
KEYS = {name: f"sk-sluice-hosts-{name}" for name in ("free", "wide", "one", "two", "three", *SPENT)}
ADMIN = "sk-sluice-hosts-admin"
FULL = os.environ.get("SLUICE_TEST_DEPLOY") == "1"
pytestmark = [
    pytest.mark.skipif(not FULL, reason="takes long: make test-deploy"),
    pytest.mark.timeout(300),
]


def provider(listen: str) -> str:
    return f"""
server: {{listen: "{listen}:8080", admin_listen: "{listen}:8081", drain_delay: 0s}}
keys: [{{id: gateways, digest: "{digest_of(KEYS["free"])}", aliases: ["*"]}}]
limits: {{address: null}}
upstreams: {{echo: {{backend: echo}}}}
aliases: {{echo: {{tiers: [[{{upstream: echo, model: echo}}]]}}}}
"""


def gateway(name: str, it: Network, directory: Path, limits: str, state: str) -> str:
    sentinels = ",".join(f"{it.ip(host)}:26379" for host in SENTINELS)
    rates = {"wide": "100000/min", **dict.fromkeys(("one", "two", "three"), f"1/day, burst: {BURST}")}
    limited = {key: f"limits: {{requests: {{rate: {rate}}}}}" for key, rate in rates.items()}
    limited |= {key: f"limits: {{{limit}}}" for key, limit in SPENT.items()}
    keys = [
        f'{{id: {key}, digest: "{digest_of(secret)}", tenant: hosts, aliases: ["*"], default_alias: chat, '
        f"{limited.get(key, '')}}}"
        for key, secret in KEYS.items()
    ]
    upstreams = [
        f'{host}: {{backend: openai, base_url: "http://{it.ip(host)}:8080/v1", api_key: {KEYS["free"]}}}'
        for host in PROVIDERS
    ]
    targets = ", ".join(f"{{upstream: {host}, model: echo}}" for host in PROVIDERS)
    return f"""
server:
  {{listen: "unix:{directory}/{name}.sock", admin_listen: "unix:{directory}/{name}-admin.sock", drain_delay: 0s}}
state: "postgresql://postgres@{it.ip("postgres")}:5432/postgres?sslmode=disable{state}"
keys: [{", ".join(keys)}]
admin: {{digest: "{digest_of(ADMIN)}", store: memory}}
limits: {{address: null, store: "redis+sentinel://{sentinels}/main{limits}", replicas: 3}}
upstreams: {{{", ".join(upstreams)}}}
prices: {{models: {{echo: {{input: 1000, output: 1000}}}}}}
aliases: {{chat: {{tiers: [[{targets}]], history: {{messages: 1000, tokens: 1000000}}}}}}
"""


class Hosts:
    """All that runs; `net` is the network between."""

    def __init__(self, net: Network, directory: Path, callers: dict[str, aiohttp.ClientSession]) -> None:
        self.net = net
        self.directory = directory
        self._callers = callers

    async def ask(self, host: str, key: str) -> int:
        """The status of a call that keeps nothing."""
        body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}
        async with self._callers[host].post(
            "http://gateway/v1/chat/completions", json=body, headers={"x-api-key": KEYS[key]}
        ) as response:
            await response.read()
            return response.status

    async def admitted(self, key: str, calls: int, hosts: tuple[str, ...] = GATEWAYS) -> int:
        """How many of so many calls at each of these hosts, all at once."""
        found = await asyncio.gather(*[self.ask(host, key) for host in hosts for _ in range(calls)])
        assert {*found} <= {200, 429}
        return found.count(200)

    async def spent(self, host: str, key: str, words: int) -> int | None:
        """The tokens that a call has used; None where it was refused."""
        message = {"role": "user", "content": "word " * words}
        body = {"model": "chat", "messages": [message], "max_tokens": 300}
        async with self._callers[host].post(
            "http://gateway/v1/chat/completions", json=body, headers={"x-api-key": KEYS[key]}
        ) as response:
            found = await response.json()
            assert response.status in (200, 429), found
            return int(found["usage"]["total_tokens"]) if response.status == 200 else None

    async def left(self, host: str, key: str) -> float:
        """What the key has left, in tokens, as this gateway tells it."""
        async with self._callers[host].get(
            "http://gateway/v1/limits", headers={"x-api-key": KEYS[key]}
        ) as response:
            [limit] = (await response.json())["data"]
            return float(limit["remaining"]) * (1 if key == "tokens" else 1000)

    async def turn(self, host: str, session: str, message: str) -> tuple[int, bool]:
        """The place of the turn in its session, and whether its history was there."""
        body = {"sessionId": session, "message": message}
        async with self._callers[host].post(
            "http://gateway/v1/chat", json=body, headers={"x-api-key": KEYS["free"]}
        ) as response:
            answer = await response.json()
            assert response.status == 200, answer
            assert answer["message"].endswith(message)
            return place_of(answer["message"]), "x-sluice-history" not in response.headers

    async def admin(self, host: str, path: str) -> Any:
        async with self._callers[f"{host}-admin"].get(
            f"http://gateway{path}", headers={"x-admin-api-key": ADMIN}
        ) as response:
            return await response.json(content_type=None)

    async def well(self, host: str, store: str) -> bool:
        found = (await self.admin(host, "/readyz?verbose"))["stores"][store]
        return bool(found["state"] == "ok")

    async def kept(self, host: str, session: str) -> list[str]:
        """What its user has said in the session, as it is stored."""
        listed = (await self.admin(host, "/v1/admin/conversations"))["conversations"]
        [id] = [one["_id"] for one in listed if one["sessionId"] == session]
        messages = (await self.admin(host, f"/v1/admin/conversations/{id}"))["messages"]
        assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
        return [message["content"] for message in messages[::2]]

    async def redis(self, host: str, *command: str, sentinel: bool = False) -> Any:
        name = f"{self.directory}/{host}{'-sentinel' if sentinel else ''}.sock"
        async with client.Redis(unix_socket_path=name) as raw:
            return await raw.execute_command(*command)

    async def role(self, host: str) -> str:
        return str((await self.redis(host, "INFO", "replication"))["role"])


async def until(holds: Callable[[], Awaitable[bool]]) -> float:
    """Returns the seconds that it took. Nothing tells when a network or a server is back."""
    began = time.monotonic()
    async with asyncio.timeout(WITHIN):
        while not await holds():
            await asyncio.sleep(0.05)
    return time.monotonic() - began


async def answers(holds: Awaitable[object]) -> bool:
    try:
        await holds
    except (OSError, aiohttp.ClientError, client.RedisError):
        return False
    return True


def _redis(net: Network, directory: Path) -> None:
    for host in REDIS:
        replica = () if host == REDIS[0] else ("--replicaof", net.ip(REDIS[0]), "6379")
        net.start(
            host, redis_binary(), "--port", "6379", "--bind", net.ip(host), "--unixsocket", f"{directory}/{host}.sock",
            "--protected-mode", "no", "--save", "", "--repl-diskless-sync-delay", "0", "--repl-timeout", "5",
            "--repl-ping-replica-period", "1", *replica,
        )  # fmt: skip
    for host in SENTINELS:
        file = directory / f"{host}-sentinel.conf"
        file.write_text(
            f"port 26379\nbind {net.ip(host)}\nprotected-mode no\nunixsocket {directory}/{host}-sentinel.sock\n"
            f"sentinel monitor main {net.ip(REDIS[0])} 6379 2\nsentinel down-after-milliseconds main 2000\n"
            "sentinel failover-timeout main 6000\n"
        )
        net.start(host, redis_binary(), str(file), "--sentinel")


def _postgres(net: Network, directory: Path) -> None:
    data = directory / "postgres"
    data.mkdir()
    PostgresServer(str(data))  # makes the files, as a user who may run it
    with (data / "data" / "pg_hba.conf").open("a") as file:
        file.write("host all all 10.77.0.0/24 trust\n")
    user = data.owner()
    net.start(
        "postgres", "setpriv", f"--reuid={user}", f"--regid={data.group()}", "--clear-groups",
        postgres_binary("postgres"), "-D", f"{data}/data", "-h", net.ip("postgres"), "-k", str(data),
        "-c", "fsync=off", env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip


@asynccontextmanager
async def hosts(limits: str = "?timeout=1s", state: str = "&timeout=5s") -> AsyncIterator[Hosts]:
    """`limits`, `state`: options of the stores' addresses."""
    directory = Path(tempfile.mkdtemp(prefix="hosts-"))
    directory.chmod(0o755)
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)

        def shown(kind: type[BaseException] | None, *_: object) -> None:
            for file in sorted(directory.glob("*.log")) if kind is not None else ():
                print(file.name, *file.read_text(errors="replace").splitlines()[-5:], sep="\n    ")

        stack.push(shown)
        net = stack.enter_context(network(HOSTS, directory))
        _postgres(net, directory)
        _redis(net, directory)
        callers: dict[str, aiohttp.ClientSession] = {}
        it = Hosts(net, directory, callers)
        for host in REDIS:
            await until(lambda host=host: answers(it.redis(host, "PING")))  # type: ignore[misc]

        async def replicated() -> bool:
            return (await it.redis(REDIS[1], "INFO", "replication"))["master_link_status"] == "up"

        async def known() -> bool:
            found = [
                await it.redis(host, "SENTINEL", "CKQUORUM", "main", sentinel=True) for host in SENTINELS
            ]
            return all(b"OK 3 usable" in one for one in found)

        async def quorum() -> bool:
            return await answers(known()) and await known()

        await until(replicated)
        await until(quorum)
        for name in (*PROVIDERS, *GATEWAYS):
            text = (
                provider(net.ip(name)) if name in PROVIDERS else gateway(name, net, directory, limits, state)
            )
            (path := directory / f"{name}.yaml").write_text(text)
            net.start(name, sys.executable, "-m", "sluice", "serve", "--config", str(path))
        for name in [name for host in GATEWAYS for name in (host, f"{host}-admin")]:
            connector = aiohttp.UnixConnector(path=f"{directory}/{name}.sock", limit=0)
            callers[name] = await stack.enter_async_context(
                aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60))
            )
        for host in GATEWAYS:

            async def ready(host: str = host) -> bool:
                return await answers(it.admin(host, "/readyz")) and await it.ask(host, "free") == 200

            await until(ready)
        yield it


async def test_limits_are_exact_over_three_hosts_and_a_session_goes_through_all_in_its_order() -> None:
    async with hosts() as it:
        assert await it.admitted("one", BURST) == BURST

        async def talk(host: str) -> list[int]:
            return [(await it.turn(host, "s", f"{host} says {number}"))[0] for number in range(10)]

        told = await asyncio.gather(*[talk(host) for host in GATEWAYS])
        assert sorted(place for places in told for place in places) == [*range(30)], "lost or doubled"
        said = await it.kept("gateway1", "s")
        for host, places in zip(GATEWAYS, told, strict=True):
            assert [said[place] for place in places] == [f"{host} says {number}" for number in range(10)]


@pytest.mark.parametrize("key", SPENT)
async def test_what_is_spent_at_three_hosts_is_counted_once_and_never_beyond_the_limit(key: str) -> None:
    async with hosts() as it:
        used = 0
        for words in (1, 20, 60):  # whatever a call reserves: what it used counts
            found = await asyncio.gather(
                *[it.spent(host, key, words) for host in GATEWAYS for _ in range(30)]
            )
            used += sum(tokens or 0 for tokens in found)
        assert None in found, "nobody was refused"
        for number in itertools.count():  # one after another, until there is no room for the next
            tokens = await it.spent(GATEWAYS[number % 3], key, 60)
            if tokens is None:
                break
            used += tokens
        assert 4000 < used <= 5000

        async def settled() -> bool:
            return all([abs(await it.left(host, key) - (5000 - used)) <= 1 for host in GATEWAYS])

        await until(settled)


async def test_a_gateway_that_is_cut_off_from_redis_admits_its_share_and_counts_with_the_others_again() -> (
    None
):
    async with hosts() as it:
        assert await it.admitted("one", 10) == 30
        with it.net.partition(["gateway1"], REDIS):
            alone = sum([await it.ask("gateway1", "one") == 200 for _ in range(2 * SHARE)])
            assert alone == SHARE
            assert await it.admitted("one", BURST, GATEWAYS[1:]) == BURST - 30
            assert await it.turn("gateway1", "s", "hi") == (0, True)  # PostgreSQL is there
            assert await it.turn("gateway2", "s", "ho") == (1, True)
            assert not await it.well("gateway1", "limits")

        async def well() -> bool:
            return await it.ask("gateway1", "one") == 429 and await it.well("gateway1", "limits")

        await until(well)
        assert await it.admitted("two", BURST) == BURST


async def test_a_gateway_that_is_cut_off_from_postgres_says_so_and_sees_every_turn_afterwards() -> None:
    async with hosts() as it:
        assert await it.turn("gateway1", "s", "one") == (0, True)
        with it.net.partition(["gateway1"], ["postgres"]):
            assert await it.turn("gateway1", "s", "aside") == (0, False)
            assert await it.turn("gateway2", "s", "two") == (1, True)
            assert await it.turn("gateway3", "s", "three") == (2, True)
            assert await it.admitted("one", BURST) == BURST

        async def well() -> bool:
            return (await it.turn("gateway1", "other", "hi"))[1]

        await until(well)
        assert await it.turn("gateway1", "s", "four") == (3, True)
        assert await it.kept("gateway3", "s") == ["one", "two", "three", "four"]


@pytest.mark.parametrize(
    ("some", "others"), [(REDIS, ["postgres"]), (REDIS[:1], REDIS[1:])], ids=["from postgres", "primary"]
)
async def test_redis_cut_off_from_postgres_or_from_its_replica_is_noticed_by_nobody(
    some: tuple[str, ...], others: tuple[str, ...]
) -> None:
    async with hosts() as it:
        with it.net.partition(some, others):
            if others == REDIS[1:]:

                async def lost() -> bool:
                    found = await it.redis(REDIS[1], "INFO", "replication")
                    return bool(found["master_link_status"] == "down")

                await until(lost)
            assert await it.admitted("one", BURST) == BURST
            for number in range(6):
                assert await it.turn(GATEWAYS[number % 3], "s", "hi") == (number, True)
            assert await it.role(REDIS[0]) == "master"

        async def in_step() -> bool:
            found = await it.redis(REDIS[1], "INFO", "replication")
            theirs = await it.redis(REDIS[0], "INFO", "replication")
            up = found["master_link_status"] == "up"
            return bool(up and found["slave_repl_offset"] >= theirs["master_repl_offset"] - 1000)

        await until(in_step)
        assert [await it.role(host) for host in REDIS] == ["master", "slave"]
        assert await it.redis(REDIS[1], "DBSIZE") == await it.redis(REDIS[0], "DBSIZE") > 0


async def test_a_primary_that_is_cut_off_from_all_is_replaced_and_comes_back_as_a_replica() -> None:
    async with hosts() as it:
        assert await it.admitted("one", 10) == 30
        admitted = 30
        with it.net.partition(REDIS[:1], [host for host in HOSTS if host != REDIS[0]]):

            async def replaced() -> bool:
                nonlocal admitted
                admitted += await it.admitted("one", 1)
                wells = [await it.well(host, "limits") for host in GATEWAYS]
                return await it.role(REDIS[1]) == "master" and all(wells)

            took = await until(replaced)
            print(f"\nlimits counted together {took:.1f} s after the primary was cut off")
            assert await it.turn("gateway1", "s", "hi") == (0, True)
            assert await it.admitted("two", BURST) == BURST
            admitted += await it.admitted("one", BURST)
        assert BURST <= admitted <= 2 * BURST, "an outage admits at most one limit more"

        async def back() -> bool:
            return await it.role(REDIS[0]) == "slave"

        await until(back)
        assert await it.admitted("three", BURST) == BURST


LINKS = (("none", 0.0, 0.0), ("5 ms", 0.005, 0.0), ("5 ms, 1 % lost", 0.005, 0.01))
CALLS = 300


@pytest.mark.skipif(os.environ.get("SLUICE_FIGURES") != "1", reason="prints figures: SLUICE_FIGURES=1")
@pytest.mark.parametrize("state", ["", "&prepared=true"])
async def test_figures(state: str) -> None:
    """Times of calls, one after another, by what they need of the network, with the defaults of the stores."""
    async with hosts(limits="", state=state) as it:

        async def kept(number: int) -> bool:
            return (await it.turn(GATEWAYS[number % 3], f"s{number // 10}", "hi"))[1]

        async def free(number: int) -> bool:
            return await it.ask(GATEWAYS[number % 3], "free") == 200

        async def limited(number: int) -> bool:
            return await it.ask(GATEWAYS[number % 3], "wide") == 200

        print(
            "\n| delay, loss | call | median ms | p90 | p99 | without the store |\n|---|---|--:|--:|--:|--:|"
        )
        for at, (link, delay, lost) in enumerate(LINKS):
            it.net.link(delay, lost)
            for what, call in (("nothing kept", free), ("limits", limited), ("history", kept)):
                times, missed, before = list[float](), 0, await alone(it)
                for number in range(at * CALLS, (at + 1) * CALLS):
                    began = time.perf_counter()
                    missed += not await call(number)
                    times.append(1000 * (time.perf_counter() - began))
                times.sort()
                of = [f"{times[int(CALLS * share)]:.0f}" for share in (0.5, 0.9, 0.99)]
                missed += round(await alone(it) - before)
                print(f"| {link} | {what} | {' | '.join(of)} | {missed} of {CALLS} |", flush=True)


async def alone(it: Hosts) -> float:
    """Calls that the store of limits did not decide, at all gateways."""
    found = 0.0
    for host in GATEWAYS:
        async with it._callers[f"{host}-admin"].get("http://gateway/metrics") as response:
            for line in (await response.text()).splitlines():
                if line.startswith("sluice_ratelimit_store_errors_total{"):
                    found += float(line.rpartition(" ")[2])
    return found
