"""Fetches key sets, by URL (RFC 7517) or OpenID Connect Discovery 1.0, and caches them per issuer.

A set is fetched in the background: at start, then ahead of the end of its life (Cache-Control's max-age
within bounds). Requests read `keys` without waiting, with one exception: a token with an unknown key waits
for the running fetch, or starts one. A newly published key cannot be distinguished from an invented one, so
such fetches are rate limited (BURST at once, then one every SPACING) and a token that comes too early waits
for the next one instead of being refused: invented key ids, however many, delay a key rotation by SPACING at
most. At most WAITERS wait; further tokens are refused at once. While the address cannot be reached the last
keys stay in use, for a day. A key that a newer set does not list is dropped.

Only https, or http to this very machine; no redirects, no proxies, no cookies, one deadline and one size for
everything. This module and `sluice.identity.provider` alone import aiohttp's client, and they are imported
only where an issuer needs it.
"""

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable
from typing import Literal

import aiohttp
import msgspec

from sluice.config.types import Issuer
from sluice.errors import ConfigError, Unavailable
from sluice.identity.jwks import MAX_FILE, Jwk, check_url, parse_jwks, unfit

DEADLINE, CONNECT, READ = 10.0, 3.0, 5.0
"""Seconds for a whole fetch (discovery and set), for connecting, and between two reads."""
WAIT = 5.0
"""Maximum seconds that a request waits for keys."""
SPACING, BURST = 4.0, 3
"""Seconds between two fetches started by tokens with unknown keys, shorter than WAIT; how many are allowed at
once."""
WAITERS = 100
"""Maximum requests of one issuer that wait for keys at a time."""
LIFE, SHORTEST, LONGEST = 300.0, 60.0, 3600.0
"""Seconds for which a set is used: the default, and the bounds for its server's max-age."""
AHEAD = 0.2
"""The share of its life by which a set may be fetched early, so that processes do not fetch at the same time.
"""
BACKOFF, BACKOFF_MAX = 1.0, 60.0
STALE = 24 * 3600.0
"""Seconds that keys stay in use while their address cannot be reached."""

Outcome = Literal["ok", "unreachable", "timeout", "bad_status", "too_large", "invalid", "wrong_issuer"]
OUTCOMES: tuple[Outcome, ...] = (
    "ok",
    "unreachable",
    "timeout",
    "bad_status",
    "too_large",
    "invalid",
    "wrong_issuer",
)

_MAX_AGE = re.compile(r'(?:^|[\s,])max-age="?([0-9]{1,9})', re.IGNORECASE)


class FetchFailed(Exception):
    """`outcome`: its value in the metric."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome: Outcome = outcome


class KeySet(msgspec.Struct, frozen=True):
    """A fetched set; `life`: seconds."""

    keys: tuple[Jwk, ...]
    life: float = LIFE


class _Provider(msgspec.Struct, frozen=True):
    """The fields of OpenID Provider Metadata (Discovery 1.0 section 3) that are used."""

    issuer: str
    jwks_uri: str


async def fetch(issuer: Issuer) -> KeySet:
    """Returns the issuer's keys as they are published now. Raises FetchFailed, and nothing else for anything
    that a server does."""
    try:
        async with asyncio.timeout(DEADLINE), client() as session:
            url = issuer.jwks_url or await _discover(session, issuer.issuer)
            data, cache_control = await get(session, url)
        keys = parse_jwks(data)
    except TimeoutError:
        raise FetchFailed("timeout") from None
    except (aiohttp.ClientError, OSError):
        raise FetchFailed("unreachable") from None
    except (ValueError, RecursionError):
        raise FetchFailed("invalid") from None
    usable = tuple(key for key in keys if any(key.verifies(algorithm) for algorithm in issuer.algorithms))
    return KeySet(usable, life_of(cache_control))


async def _discover(session: aiohttp.ClientSession, issuer: str) -> str:
    """Returns the address of the key set. The document must name exactly the requested issuer (section 4.3)."""
    url = issuer.removesuffix("/") + "/.well-known/openid-configuration"
    data, _ = await get(session, url)
    provider = msgspec.json.decode(data, type=_Provider)
    if provider.issuer != issuer:
        raise FetchFailed("wrong_issuer")
    check_url(provider.jwks_uri)
    if url.startswith("https:") and not provider.jwks_uri.startswith("https:"):
        raise FetchFailed("invalid")  # a document from elsewhere must not lead to this machine
    return provider.jwks_uri


async def get(session: aiohttp.ClientSession, url: str) -> tuple[bytes, str]:
    """Fetches the document, and its Cache-Control. Raises FetchFailed."""
    async with session.get(url, allow_redirects=False) as response:
        if response.status != 200:
            raise FetchFailed("bad_status")
        return await read(response), ",".join(response.headers.getall("Cache-Control", ()))


async def read(response: aiohttp.ClientResponse) -> bytes:
    """Returns the body of a response, at most MAX_FILE bytes. Raises FetchFailed."""
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > MAX_FILE:
            raise FetchFailed("too_large")
    return bytes(data)


def client() -> aiohttp.ClientSession:
    """Returns a new client for one fetch: fetches are minutes apart, so no connection is worth keeping open."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "sluice"},
        timeout=aiohttp.ClientTimeout(total=DEADLINE, connect=CONNECT, sock_connect=CONNECT, sock_read=READ),
        auto_decompress=False,  # a body that is compressed all the same is not JSON, and cannot be a decompression bomb
        trust_env=False,
    )


def life_of(cache_control: str) -> float:
    """Returns the seconds for which a response with this Cache-Control (RFC 9111 section 5.2.2) is used,
    within the bounds."""
    found = _MAX_AGE.search(cache_control)
    return min(LONGEST, max(SHORTEST, float(found[1]))) if found else LIFE


Report = Callable[[str, Outcome, int], None]


class RemoteKeys:
    """Keeps the keys of one issuer fresh: a KeySource. To be made and used within one event loop.

    `report` is called after every fetch with the issuer, the outcome, and the number of keys now. `clock`
    gives seconds, `chance` numbers in [0, 1). `sleep` is used to wait until a set has to be renewed, `rest`
    to wait before a fetch that comes too soon after another. Raises ConfigError for an algorithm that does
    not use public keys.
    """

    def __init__(
        self,
        issuer: Issuer,
        report: Report = lambda issuer, outcome, keys: None,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rest: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if problem := unfit(issuer.algorithms):
            raise ConfigError([f"jwt issuer {issuer.issuer}: {problem}"])
        self.keys: tuple[Jwk, ...] = ()
        self._issuer = issuer
        self._report = report
        self._clock = clock
        self._chance = chance
        self._sleep = sleep
        self._rest = rest
        self._waiting = 0
        self._fetched: float | None = (
            None  # when the keys were fetched; None: there are none that may be used
        )
        self._spaced = float(
            "-inf"
        )  # the time from which on the fetches that tokens have caused are all SPACING ago
        self._failures = 0
        self._life = LIFE
        self._fetching: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts to fetch, until `close`. Idempotent."""
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep())

    async def close(self) -> None:
        tasks = [task for task in (self._keeping, self._fetching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def worth_asking(self) -> bool:
        return self._fetched is None or self._waiting < WAITERS

    async def renew(self) -> None:
        """Waits for the running fetch, or for the next one that may be made. Raises Unavailable if there are
        no keys."""
        if self._fetching is None and (self._fetched is not None or self._too_soon() <= 0):
            after = max(0.0, self._too_soon())
            self._spaced = max(self._spaced, self._clock()) + SPACING
            self._begin(after)
        if self._fetching is not None:
            self._waiting += 1
            try:
                await asyncio.wait((self._fetching,), timeout=WAIT)
            finally:
                self._waiting -= 1
        if self._fetched is None:
            raise Unavailable("The keys of the token's issuer cannot be had now")

    def _too_soon(self) -> float:
        """Returns the seconds until tokens may cause another fetch; zero or less: now."""
        return self._spaced - SPACING * (BURST - 1) - self._clock()

    def _begin(self, after: float = 0.0) -> asyncio.Task[None]:
        """Returns the running fetch, or starts one in `after` seconds."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch(after))
            self._fetching.add_done_callback(self._fetch_ended)
        return self._fetching

    def _fetch_ended(self, fetching: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _fetch(self, after: float) -> None:
        if after > 0:
            await self._rest(after)
        self._failures += 1  # until it has succeeded
        try:
            found = await fetch(self._issuer)
        except FetchFailed as failed:
            if self._fetched is not None and self._clock() - self._fetched > STALE:
                self.keys, self._fetched = (), None
            self._report(self._issuer.issuer, failed.outcome, len(self.keys))
            return
        self._failures = 0
        self._fetched = self._clock()
        self.keys, self._life = found.keys, found.life
        self._report(self._issuer.issuer, "ok", len(self.keys))

    async def _keep(self) -> None:
        while True:
            await asyncio.wait((self._begin(),))
            await self._sleep(self._pause())

    def _pause(self) -> float:
        """Returns the seconds to the next fetch: before the end of the set's life, or later with each failure
        in a row."""
        if self._failures == 0:
            return self._life * (1 - AHEAD * self._chance())
        bound: float = min(BACKOFF_MAX, BACKOFF * 2 ** min(self._failures - 1, 10))
        return bound * (1 - self._chance() / 2)
