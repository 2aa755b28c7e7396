"""Buckets shared by any number of gateways, in Redis 6.2 or newer or Valkey: one script, one round trip per call.

The time is the server's, so gateways need no common clock. All keys begin with `{prefix}`, a hash tag: the buckets of
any call share a slot, as a cluster demands of a script, and all of one prefix live on one shard. A server that evicts
keys mints tokens: give it `maxmemory-policy noeviction`, or enough memory (100 bytes per bucket that is not full).

Calls that come while others are under way leave together: a *flight* is a pipeline of single scripts, written and read
at once on a connection of its own, so a burst costs tens of microseconds per call and not a connection each. The
caller only waits for its place in the flight: cancelled or late, it leaves the connection alone, and its reply is
dropped when it comes. Whether it was decided is then unknown; at worst its amount is lost to the caller, never minted.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as NoReply

from gateway.limits import Claim, Verdict
from gateway.limits.bucket import Rule, refusal, rule_of, same_limits
from gateway.limits.faults import StoreFailed

SEATS = 128
"""Calls in one flight: what is behind them waits for the next, or takes another connection."""


class RedisStore:
    """`url`: redis://, rediss:// or unix://, as redis-py reads it. `timeout` in seconds, for a call as a whole.

    `now` replaces the server's clock (microseconds), for tests.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "sluice",
        timeout: float = 0.05,
        max_connections: int = 4,
        now: Callable[[], int] | None = None,
    ) -> None:
        self._prefix = f"{{{prefix}}}:"
        self._timeout = timeout
        self._now = now
        self._script = files("gateway.limits").joinpath("take.lua").read_text("utf-8")
        self._max_flights = max_connections
        self._queued: list[tuple[Sequence[Any], asyncio.Future[list[Any]]]] = []
        self._flights: set[asyncio.Task[None]] = set()
        self._digest = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()  # the name EVALSHA knows it by
        self._client: Any = redis.Redis.from_pool(
            redis.BlockingConnectionPool.from_url(
                url,
                max_connections=max_connections,
                timeout=timeout,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=None,  # the call's own deadline covers it; redis-py's costs a task per write
                socket_connect_timeout=timeout,
                protocol=2,
                encoding_errors="surrogatepass",
                driver_info=None,
            )
        )

    async def take(self, claims: Sequence[Claim]) -> Verdict:
        """Without claims it asks the server all the same: a probe. Raises StoreFailed; ValueError as MemoryStore does."""
        rules = [rule_of(claim.limit) for claim in claims]
        costs = [rule.cost(claim.amount) for claim, rule in zip(claims, rules, strict=True)]
        admitted, *backlogs = await self._run("take", claims, rules, costs)
        if not admitted:
            return refusal(claims, rules, costs, backlogs)
        return Verdict(True, tuple(rule.level(backlog) for rule, backlog in zip(rules, backlogs, strict=True)))

    async def settle(self, claims: Sequence[Claim]) -> None:
        """Raises StoreFailed; ValueError as MemoryStore does."""
        rules = [rule_of(claim.limit) for claim in claims]
        charges = [rule.charge(claim.amount) for claim, rule in zip(claims, rules, strict=True)]
        await self._run("settle", claims, rules, charges)

    async def close(self) -> None:
        for flight in self._flights:
            flight.cancel()
        await asyncio.gather(*self._flights, return_exceptions=True)
        await self._client.aclose()

    async def _run(self, mode: str, claims: Sequence[Claim], rules: Sequence[Rule], ticks: Sequence[int]) -> list[int]:
        same_limits(claims)
        numbers: list[int] = []
        for rule, added in zip(rules, ticks, strict=True):
            numbers += (rule.pace, rule.unit, rule.capacity, added)
        keys = [self._prefix + claim.key for claim in claims]
        arguments = [len(keys), *keys, mode, "" if self._now is None else self._now(), *numbers]
        try:
            async with asyncio.timeout(self._timeout):
                return [int(number) for number in await self._evaluate(arguments)]
        except (TimeoutError, NoReply) as error:
            raise StoreFailed("timeout") from error
        except (OSError, NoConnection) as error:
            raise StoreFailed("connection") from error
        except RedisError as error:
            raise StoreFailed("reply") from error

    async def _evaluate(self, arguments: Sequence[Any]) -> list[Any]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Any]] = loop.create_future()
        self._queued.append((arguments, answer))
        if len(self._flights) < self._max_flights:
            flight = loop.create_task(self._fly())
            self._flights.add(flight)
            flight.add_done_callback(self._flights.discard)
        return await answer

    async def _fly(self) -> None:
        """Carry everyone who waits, until nobody does."""
        while self._queued:
            boarding, self._queued = self._queued[:SEATS], self._queued[SEATS:]
            aboard = [(arguments, answer) for arguments, answer in boarding if not answer.done()]
            replies: list[Any]
            try:
                async with asyncio.timeout(self._timeout):
                    replies = await self._send([arguments for arguments, _ in aboard])
            except Exception as error:  # whatever it is, it is for those aboard to see
                replies = [error] * len(aboard)
            for (_, answer), reply in zip(aboard, replies, strict=True):
                if answer.done():
                    continue
                if isinstance(reply, Exception):
                    answer.set_exception(reply)
                else:
                    answer.set_result(reply)

    async def _send(self, calls: Sequence[Sequence[Any]]) -> list[Any]:
        replies = await self._pipeline([("EVALSHA", self._digest, *arguments) for arguments in calls])
        unknown = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:  # a new server, or its scripts were flushed
            again = await self._pipeline([("EVAL", self._script, *calls[index]) for index in unknown])
            for index, reply in zip(unknown, again, strict=True):
                replies[index] = reply
        return replies

    async def _pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        if len(commands) == 1:
            try:
                return [await self._client.execute_command(*commands[0])]
            except ResponseError as error:
                return [error]
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies
