"""Fetches keys and tokens that expire in the background, before they expire, so that requests need not wait
for them.

Each credential has one task. It fetches at the start, then after a random 75 to 85 % of the value's lifetime
(so that processes do not all fetch at the same time), and after a failure with a backoff that doubles up to a
minute. Until it expires the old value stays in use.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import msgspec

from sluice.backends.credentials import CredentialFailed, Setting

T = TypeVar("T")

MAX_FETCH_SECONDS = 30.0
"""Seconds that a fetch may take, all of its requests together."""
WAIT = 10.0
"""Seconds that a request waits for the first value."""
BACKOFF, BACKOFF_MAX = 1.0, 60.0
"""Seconds after a failed fetch: at first, and at most."""
LIFE = 3600.0
"""Seconds after which a value without an expiry is fetched again."""
SPACING = 10.0
"""Least seconds between two fetches caused by refusals."""


class Fresh(msgspec.Struct, Generic[T]):
    """A fetched value. `expires` in seconds since the epoch; None: unknown."""

    value: T
    expires: float | None = None

    __repr__ = object.__repr__  # it holds a token


Pause = Callable[[asyncio.Event, float], Awaitable[object]]


async def pause(wake: asyncio.Event, seconds: float) -> None:
    """Wait `seconds`, or until `wake` is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await wake.wait()


def _anything(value: object) -> None: ...


class Refreshed(Generic[T]):
    """A value that is fetched again before it expires. `fetch` raises CredentialFailed. Call `start` within
    the event loop.

    `check` raises ValueError for a value that cannot be sent in a request; such a value is rejected.
    """

    def __init__(
        self, fetch: Callable[[], Awaitable[Fresh[T]]], setting: Setting, pause: Pause = pause
    ) -> None:
        self._fetch = fetch
        self._setting = setting
        self._pause = pause
        self.check: Callable[[T], object] = _anything
        self._wall = setting.wall
        self._value: T | None = None
        self._expires = 0.0
        self._fetched_at = 0.0
        self._failing = False
        self._why = "nothing has been fetched yet"
        self._wake = asyncio.Event()
        self._done = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._running = asyncio.get_running_loop().create_task(self._run())

    def now(self) -> T | None:
        """Returns the current value; None if there is none or it has expired."""
        return self._value if self._wall() < self._expires else None

    def held(self) -> T | None:
        """Returns the current value, even if it has expired."""
        return self._value

    async def ready(self) -> None:
        """Wait for a value, WAIT seconds at most. Raises CredentialFailed, at once if the last fetch
        failed."""
        if self.now() is None:
            if not self._failing:
                self._fetch_now()
            await self._until_done()
            if self.now() is None:
                raise CredentialFailed(self._why)

    async def renewed(self, refused: T | None) -> bool:
        """Returns whether the current value is another than the one that was refused. Fetches one first,
        unless the last fetch was less than SPACING ago."""
        if self.now() not in (None, refused):
            return True
        if self._setting.clock() - self._fetched_at >= SPACING:
            self._fetch_now()
        await self._until_done()
        return self.now() not in (None, refused)

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    def _fetch_now(self) -> None:
        """Fetch now, unless a fetch is under way."""
        if self._done.is_set():
            self._done.clear()
            self._wake.set()

    async def _until_done(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT):
                await self._done.wait()

    async def _run(self) -> None:
        backoff = BACKOFF
        while True:
            seconds = await self._refresh()
            if seconds is None:
                seconds = backoff * (0.5 + self._setting.chance())
                backoff = min(2 * backoff, BACKOFF_MAX)
            else:
                backoff = BACKOFF
            self._done.set()
            await self._pause(self._wake, seconds)
            self._wake.clear()
            self._done.clear()

    async def _refresh(self) -> float | None:
        """Fetch once. Returns the seconds until the next fetch; None if this one failed."""
        try:
            async with asyncio.timeout(MAX_FETCH_SECONDS):
                fresh = await self._fetch()
            now = self._wall()
            life = LIFE if fresh.expires is None else fresh.expires - now
            if life <= 0:
                raise CredentialFailed("what was given has expired already")
            self.check(fresh.value)
        except (CredentialFailed, TimeoutError) as error:
            self._failed(str(error) or f"nothing was given within {MAX_FETCH_SECONDS:g} s")
            return None
        except Exception as crash:  # an unexpected answer must not end the task
            self._failed(f"the answer cannot be understood ({type(crash).__name__})")
            return None
        self._value = fresh.value
        self._expires = fresh.expires if fresh.expires is not None else float("inf")
        self._fetched_at = self._setting.clock()
        if self._failing:
            self._failing = False
            self._setting.recovered()
        return max(1.0, life * (0.75 + 0.1 * self._setting.chance()))

    def _failed(self, why: str) -> None:
        self._failing = True
        self._why = why
        self._setting.failed(why)


class Token:
    """A fetched token in one header; for most kinds of credentials `authorization: Bearer …`."""

    def __init__(
        self, tokens: Refreshed[str], line_of: Callable[[str], bytes], field: str = "authorization"
    ) -> None:
        self.fields = frozenset({field})
        self._tokens = tokens
        self._line_of = line_of
        self._token = ""
        self._line = b""
        tokens.check = self._prepare
        tokens.start()

    def sign_now(self, request: object) -> bytes | None:
        token = self._tokens.now()
        if token is None:
            return None
        if token is not self._token:
            self._prepare(token)
        return self._line

    def _prepare(self, token: str) -> None:
        self._line = self._line_of(token)
        self._token = token

    async def ready(self) -> None:
        await self._tokens.ready()

    async def renewed(self, lines: bytes) -> bool:
        now = self.sign_now(None)
        if now is not None and now != lines:
            return True
        await self._tokens.renewed(self._tokens.held())
        now = self.sign_now(None)
        return now is not None and now != lines

    def secrets(self) -> tuple[str, ...]:
        token = self._tokens.held()
        return (token,) if token else ()

    async def close(self) -> None:
        await self._tokens.close()
