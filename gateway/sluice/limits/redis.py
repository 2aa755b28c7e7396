"""Holds buckets and slots that any number of gateways share, in Redis 6.2+ or Valkey: one script and one
round trip per call. The time is the server's, so gateways need no common clock; it also says which period of a
budget it is (`RedisStore.wall`).

All keys begin with `{prefix}`, a hash tag: the buckets of a call share a slot, as a cluster requires of a
script, and everything of one prefix is on one shard. A server that evicts keys gives callers tokens that they
should not have: set `maxmemory-policy noeviction`, or give it enough memory (100 bytes per bucket that is not
full).

Calls are batched. Those made while others are running form a batch: a pipeline of single scripts on a
connection of its own, so that a burst costs tens of microseconds per call instead of a connection each. A
caller only waits for its reply. If it is cancelled or times out, the batch still reads the reply, and what an
admitted call has taken is given back in the next batch. A settlement is sent whether its caller still waits
or not.

When a connection breaks, its calls may have been done or not. Amounts are not sent twice, so limits are never
exceeded; at worst the caller loses them. Slots and reservations are given back once more, which is harmless.
A settlement that ends a reservation may be sent again, because the reservation shows the server whether it
was done.
"""

import asyncio
import hashlib
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, Literal, NamedTuple

import msgspec
from redis.exceptions import NoScriptError, RedisError, ResponseError

from sluice.limits import Balance, Claim, Level, Slot, Verdict
from sluice.limits.bucket import SECOND, Rule, refusal, rule_of, same_limits
from sluice.limits.faults import BucketStoreFailed
from sluice.limits.guarded import TIMEOUT
from sluice.storage import LEAVE
from sluice.storage.address import address_of
from sluice.storage.redis import RedisClient, RedisFailed, reason_of

MAX_CALLS_PER_BATCH = 128
"""Maximum calls in one batch; further ones wait for the next, or use another connection."""
MIN_REPLY_WAIT_SECONDS = 1.0
"""Seconds that a batch waits for replies, longer than its callers do; then its connection is closed."""
MAX_PENDING = 10_000
"""Maximum pending give-backs; beyond it the oldest are dropped."""
RENEWALS_AT_A_TIME = 256
"""Slots that one run of the script renews, so that other calls wait for one run at most."""

TIME_EVERY_SECONDS = 10.0
"""Seconds between two readings of the server's clock."""

Mode = Literal["take", "settle", "again", "renew", "look", "time"]
Place = tuple[str, str]
"""The key of a set of slots, and a holder."""


class Reservation(NamedTuple):
    """A reservation. `number`: the index of the budget's bucket among the call's. `member`: holder, ticks and
    unit, as the set of holders has it."""

    number: int
    key: str
    member: str


class _Call:
    """One run of the script. `answer`: the future of its caller, if one waits."""

    __slots__ = ("answer", "buckets", "ended", "limits", "mode", "numbers", "places", "reservations")

    def __init__(
        self,
        mode: Mode,
        buckets: Sequence[str] = (),
        numbers: Sequence[int] = (),
        places: Sequence[Place] = (),
        limits: Sequence[int] = (),
        *,
        answer: "asyncio.Future[list[int]] | None" = None,
        reservations: Sequence[Reservation] = (),
    ) -> None:
        self.mode = mode
        self.buckets = buckets
        self.numbers = numbers
        self.places = places
        self.limits = limits
        self.answer = answer
        self.reservations = reservations
        self.ended: list[_Call] = []
        """For a renewal: the settlements that were sent after it."""

    def arguments(self, now: int | str, lease: int) -> list[Any]:
        keys = [*self.buckets, *(key for key, _ in self.places), *(one.key for one in self.reservations)]
        found: list[Any] = [len(keys), *keys]
        found += (self.mode, now, lease, len(self.buckets), len(self.places), *self.numbers)
        for (_, holder), limit in zip(self.places, self.limits, strict=True):
            found += (limit, holder)
        for one in self.reservations:
            found += (one.number + 1, one.member)
        return found

    def undo(self) -> "_Call":
        """Returns the call that gives back what this one took."""
        numbers = list(self.numbers)
        numbers[3::5] = [-ticks for ticks in numbers[3::5]]
        for one in self.reservations:  # it ends, and nothing was used
            numbers[5 * one.number + 3] = 0
        return _Call(
            "settle", self.buckets, numbers, self.places, self.limits, reservations=self.reservations
        )

    def release(self) -> "_Call | None":
        """Returns the call that gives back its places and reservations; None if it has neither. It is
        harmless if this one was not done, or has been settled."""
        if not self.places and not self.reservations:
            return None
        if not self.reservations:
            return _release(self.places)
        known = {one.number: at for at, one in enumerate(self.reservations)}
        buckets = [self.buckets[number] for number in known]
        numbers = [
            n
            for number in known
            for n in (*self.numbers[5 * number : 5 * number + 3], 0, self.numbers[5 * number + 4])
        ]
        reservations = [one._replace(number=known[one.number]) for one in self.reservations]
        return _Call(
            "again", buckets, numbers, self.places, [0] * len(self.places), reservations=reservations
        )


def _release(places: Sequence[Place]) -> _Call:
    return _Call("settle", places=places, limits=[0] * len(places))


class RedisStore:
    """Buckets and slots in Redis.

    `url`: see `sluice.storage.address`; its timeout applies if `timeout` is None. `timeout`: seconds of a
    whole call. `lease`: seconds of a slot or reservation without renewal. `clock` is monotonic.
    `now` replaces the server's clock (in microseconds), for tests. Raises ValueError if the address is invalid.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "sluice",
        timeout: float | None = None,
        lease: float = 30.0,
        max_connections: int = 4,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], int] | None = None,
    ) -> None:
        self.lease = lease
        self._tag = f"{{{prefix}}}"
        self._now = now
        self._clock = clock
        self._ahead: float | None = None
        """Seconds by which the server's clock is ahead of ours; None: it was never read."""
        self._time_read: asyncio.Future[list[int]] | None = None
        self._time_due = -math.inf
        self._script = files("sluice.limits").joinpath("take.lua").read_text("utf-8")
        self._digest = hashlib.sha1(
            self._script.encode(), usedforsecurity=False
        ).hexdigest()  # the name EVALSHA knows it by
        self._max_senders = max_connections
        self._queued: list[_Call] = []
        self._pending: deque[_Call] = deque(maxlen=MAX_PENDING)
        """Give-backs that no caller waits for. They are sent with the next batch; after a failed batch, only
        with the next call."""
        self._renewals: list[_Call] = []
        self._senders: set[asyncio.Task[None]] = set()
        address = address_of(url)
        self.timeout = timeout if timeout is not None else address.timeout or TIMEOUT
        patience = max(MIN_REPLY_WAIT_SECONDS, self.timeout)
        self._client = RedisClient(
            address, connections=max_connections, wait=patience, encoding_errors="surrogatepass"
        )

    async def take(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> Verdict:
        """Without claims and slots it is a probe. Raises BucketStoreFailed, and ValueError as MemoryStore
        does."""
        if not claims and not slots:
            await self._run(self._probe())
            return Verdict(True, ())
        rules = [rule_of(claim.limit) for claim in claims]
        costs = [rule.cost(claim.amount) for claim, rule in zip(claims, rules, strict=True)]
        admitted, *state = await self._run(self._call("take", claims, rules, costs, slots))
        if len(state) != len(claims) + 2 * len(slots):
            raise BucketStoreFailed("reply")
        backlogs, places = state[: len(claims)], state[len(claims) :]
        if not admitted:
            free = [(taken, one == 1) for taken, one in zip(places[::2], places[1::2], strict=True)]
            return refusal(claims, rules, costs, backlogs, slots=slots, places=free)
        levels = [rule.level(backlog) for rule, backlog in zip(rules, backlogs, strict=True)]
        levels += [
            Level(float(slot.capacity - taken), 0.0) for slot, taken in zip(slots, places[::2], strict=True)
        ]
        return Verdict(True, tuple(levels))

    def wall(self) -> float:
        """The server's time, as read less than TIME_EVERY_SECONDS before the last call; until it was read,
        this host's."""
        return time.time() if self._ahead is None else self._clock() + self._ahead

    async def greet(self) -> None:
        """Raises BucketStoreFailed. Waits longer than a call, to report the reason of a slow refusal."""
        patience = max(MIN_REPLY_WAIT_SECONDS, self.timeout)
        await self._run(self._probe(), patience)
        if self._time_read is not None:
            await asyncio.wait([self._time_read], timeout=patience)

    def _probe(self) -> _Call:
        return _release([(f"{self._tag}/", "")])  # a write, because a replica would answer reads

    async def settle(self, claims: Sequence[Claim], slots: Sequence[Slot] = (), again: bool = False) -> None:
        """Raises BucketStoreFailed if it may not have been done, and ValueError as MemoryStore does. A
        settlement with reservations may be sent `again` until it is answered, for up to an hour."""
        rules = [rule_of(claim.limit) for claim in claims]
        charges = [rule.charge(claim.amount) for claim, rule in zip(claims, rules, strict=True)]
        call = self._call("again" if again else "settle", claims, rules, charges, slots)
        for renewal in self._renewals:  # another connection may be faster than this one
            renewal.ended.append(call)
        await self._run(call)

    async def renew(self, slots: Sequence[Slot], claims: Sequence[Claim] = ()) -> None:
        """Holds expired ones again, even beyond the capacity, because their calls are still running. Raises
        BucketStoreFailed."""
        for first in range(0, max(len(slots), len(claims)), RENEWALS_AT_A_TIME):
            some = claims[first : first + RENEWALS_AT_A_TIME]
            rules = [rule_of(claim.limit) for claim in some]
            charges = [rule.charge(claim.amount) for claim, rule in zip(some, rules, strict=True)]
            call = self._call("renew", some, rules, charges, slots[first : first + RENEWALS_AT_A_TIME])
            self._renewals.append(call)
            await self._run(call)

    async def balances(self, claims: Sequence[Claim]) -> list[Balance]:
        """Raises BucketStoreFailed."""
        rules = [rule_of(claim.limit) for claim in claims]
        named = [msgspec.structs.replace(claim, holder="-") for claim in claims]
        call = self._call("look", named, rules, [0] * len(claims), ())
        found = (await self._run(call, max(MIN_REPLY_WAIT_SECONDS, self.timeout)))[1:]
        return [
            Balance((backlog - reserved) / rule.unit, reserved / rule.unit)
            for rule, backlog, reserved in zip(rules, found[::2], found[1::2], strict=True)
        ]

    async def close(self) -> None:
        """Sends pending give-backs, for at most MIN_REPLY_WAIT_SECONDS."""
        if self._pending:
            self._start_sender()
        if self._senders:
            await asyncio.wait(self._senders, timeout=MIN_REPLY_WAIT_SECONDS)
        for sender in self._senders:
            sender.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)
        for call in self._queued:
            _answer(call, RedisFailed("connection"))
        await self._client.close()

    def _call(
        self,
        mode: Mode,
        claims: Sequence[Claim],
        rules: Sequence[Rule],
        ticks: Sequence[int],
        slots: Sequence[Slot],
    ) -> _Call:
        buckets = [f"{self._tag}:{claim.key}" for claim in claims]
        if mode != "renew" and len(set(buckets)) < len(buckets):
            same_limits(claims)
        numbers: list[int] = []
        for claim, rule, added in zip(claims, rules, ticks, strict=True):
            numbers += (rule.pace, rule.unit, rule.capacity, added, int(claim.expires * 1000))
        places = [(f"{self._tag}/{slot.key}", slot.holder) for slot in slots]
        reservations = []
        for number, (claim, rule) in enumerate(zip(claims, rules, strict=True)):
            if claim.holder:
                reserved = rule.charge(claim.held if mode in ("settle", "again") else claim.amount)
                member = f"{claim.holder} {reserved} {rule.unit}"
                reservations.append(Reservation(number, f"{self._tag}!{claim.key}", member))
        return _Call(
            mode, buckets, numbers, places, [slot.capacity for slot in slots], reservations=reservations
        )

    async def _run(self, call: _Call, timeout: float | None = None) -> list[int]:
        call.answer = asyncio.get_running_loop().create_future()
        self._queued.append(call)
        self._start_sender()
        reply: list[int] = []
        try:
            async with asyncio.timeout(self.timeout if timeout is None else timeout):
                reply = await call.answer
                return reply
        except (RedisFailed, RedisError, OSError) as error:  # TimeoutError is an OSError
            raise BucketStoreFailed(reason_of(error)) from error
        finally:
            if not reply and _admitted(call):  # cancelled at the moment of its reply
                self._pending.append(call.undo())
                self._start_sender()

    def _start_sender(self) -> None:
        if len(self._senders) < self._max_senders:
            sender = asyncio.get_running_loop().create_task(self._send_batches())
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)

    async def _send_batches(self) -> None:
        """Sends queued calls, batch by batch, until there are none."""
        healthy = True
        while self._queued or (self._pending and healthy):
            queued, self._queued = self._queued[:MAX_CALLS_PER_BATCH], self._queued[MAX_CALLS_PER_BATCH:]
            batch = [call for call in queued if call.mode != "take" or _waits(call)]
            while self._pending and len(batch) < MAX_CALLS_PER_BATCH:
                batch.append(self._pending.popleft())
            try:
                async with asyncio.timeout(max(MIN_REPLY_WAIT_SECONDS, self.timeout)):
                    replies = await self._send(batch)
            except Exception as error:  # any error goes to the callers
                healthy = False
                if reason_of(error) in LEAVE:
                    await self._client.leave()
                for call in batch:
                    self._deliver_error(call, error)
            else:
                healthy = True
                for call, reply in zip(batch, replies, strict=True):
                    self._deliver(call, reply)
                if self._clock() >= self._time_due:
                    self._queue_time()

    def _queue_time(self) -> None:
        """Reads the server's clock with the next batch. Not with the first one: a server that wants a password
        answers one large command without it, and then closes the connection."""
        self._time_due = self._clock() + TIME_EVERY_SECONDS
        answer = self._time_read = asyncio.get_running_loop().create_future()
        answer.add_done_callback(self._note_time)
        self._queued.append(_Call("time", places=[(f"{self._tag}/", "")], limits=[0], answer=answer))

    def _note_time(self, answer: "asyncio.Future[list[int]]") -> None:
        if not answer.cancelled() and answer.exception() is None:
            self._ahead = answer.result()[0] / SECOND - self._clock()
        else:
            self._time_due = -math.inf

    def _deliver(self, call: _Call, reply: Any) -> None:
        if call.mode == "take" and not _waits(call) and not isinstance(reply, Exception) and reply[0]:
            self._pending.append(call.undo())  # its caller is gone
        self._end_renewal(call)
        _answer(call, reply)

    def _deliver_error(self, call: _Call, error: Exception) -> None:
        if call.mode == "take":
            if release := call.release():
                self._pending.append(release)
        elif call.places and call.mode != "renew":
            self._pending.append(_release(call.places))
        self._end_renewal(call)
        _answer(call, error)

    def _end_renewal(self, call: _Call) -> None:
        if call.mode == "renew":
            self._renewals.remove(call)
            held = {*call.places, *((one.key, one.member) for one in call.reservations)}
            for settled in call.ended:
                again = {*settled.places, *((one.key, one.member) for one in settled.reservations)}
                if not held.isdisjoint(again) and (release := settled.release()):
                    self._pending.append(release)

    async def _send(self, calls: Sequence[_Call]) -> list[Any]:
        now = "" if self._now is None else self._now()
        runs = [call.arguments(now, round(self.lease * SECOND)) for call in calls]
        replies = await self._pipeline([("EVALSHA", self._digest, *arguments) for arguments in runs])
        unknown = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:  # a new server, or its scripts were flushed
            again = await self._pipeline([("EVAL", self._script, *runs[index]) for index in unknown])
            for index, reply in zip(unknown, again, strict=True):
                replies[index] = reply
        for reply in replies:
            if type(reply) is not list or not reply:
                reason = reason_of(reply) if isinstance(reply, Exception) else "reply"
                if reason in LEAVE or not isinstance(reply, Exception):
                    raise RedisFailed(
                        reason
                    )  # such as of a replica in the place of the master: nothing was done
        return replies

    async def _pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        if len(commands) == 1:
            try:
                return [await self._client.raw.execute_command(*commands[0])]
            except ResponseError as error:
                return [error]
        pipeline = self._client.raw.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies


def _waits(call: _Call) -> bool:
    return call.answer is not None and not call.answer.done()


def _admitted(call: _Call) -> bool:
    answer = call.answer
    if call.mode != "take" or answer is None or not answer.done() or answer.cancelled():
        return False
    return answer.exception() is None and bool(answer.result()[0])


def _answer(call: _Call, reply: Any) -> None:
    if call.answer is None or call.answer.done():
        return
    if isinstance(reply, Exception):
        call.answer.set_exception(reply)
    else:
        call.answer.set_result(reply)
