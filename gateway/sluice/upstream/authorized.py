"""A transport whose requests are signed one by one, with one of several credentials.

Signing is synchronous and adds header lines to a request. A request waits, for a bounded time, only if there
is no key or token yet (at the start, or after a long failure of their source). A response that refuses the
account instead of the request (401, 403, no money, 429) puts its credential alone into a cool-down, and the
request is sent again at once with the next one; each is used at most once per attempt. The caller sees one
attempt and its last response; for a 429, the wait is the time until any credential is usable. A credential
that has changed meanwhile (a replaced file) is tried once more. A redirect within the origin is followed with
the same lines, so a signature that covers the path is not valid there.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

import msgspec

from sluice.backends.credentials import CredentialFailed
from sluice.backends.read_response import ReadResponse
from sluice.backends.transport import Reader, Sink, Transport, UpstreamRequest, UpstreamResponse
from sluice.errors import UpstreamError
from sluice.upstream.credential_pool import CredentialPool, PooledCredential, Reason, reason_of

BODY = 64 << 10
"""Maximum bytes of a refusal that are read."""
MEANING = 5.0
"""Seconds within which its body has to arrive; otherwise it is judged by its status alone."""

Meaning = Callable[[int, Mapping[str, str], bytes], UpstreamError]
"""The function `error` of a backend."""


class AuthorizedTransport:
    """Sends over `transport`, which has no credentials of its own, with those of `pool`. `meaning` interprets
    refusals."""

    def __init__(self, transport: Transport, pool: CredentialPool, meaning: Meaning) -> None:
        self.transport = transport
        self.pool = pool
        self.meaning = meaning
        self._owner = True

    def towards(self, host: str, port: int) -> "AuthorizedTransport":
        """Returns a transport with the same credentials, whose connections go to this address
        (`HttpTransport.towards`)."""
        transport: Any = self.transport
        other = AuthorizedTransport(transport.towards(host, port), self.pool, self.meaning)
        other._owner = False
        return other

    def send(
        self, request: UpstreamRequest, *, connect: float, headers: float, reader: Reader | None = None
    ) -> AbstractAsyncContextManager[UpstreamResponse]:
        """See `sluice.backends.transport.Transport`. Entering it may also raise
        UpstreamError("bad_credentials"), if there is no key or token."""
        return AuthorizedExchange(self, request, connect, headers, reader)

    def secrets(self) -> Iterator[str]:
        """Returns the secrets that error messages must not show."""
        for member in self.pool.members:
            yield from member.credential.secrets()

    async def close(self) -> None:
        for member in self.pool.members if self._owner else ():
            await member.credential.close()
        await self.transport.close()

    # --- for metrics

    @property
    def open(self) -> int:
        return getattr(self.transport, "open", 0)

    @property
    def idle(self) -> int:
        return getattr(self.transport, "idle", 0)

    @property
    def waiting(self) -> int:
        return getattr(self.transport, "waiting", 0)


class _Later:
    """Reads a response's head unless it is a refusal: the caller gets that only after its body has been read."""

    __slots__ = ("_reader",)

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def sent(self) -> None:
        self._reader.sent()

    def begin(self, response: UpstreamResponse) -> Sink | None:
        return None if _refuses(response.status) else self._reader.begin(response)


def _refuses(status: int) -> bool:
    """Returns whether a response may be about the account: Google refuses a wrong key with a 400."""
    return 400 <= status < 500


class AuthorizedExchange(msgspec.Struct, eq=False):
    """One request, sent with one credential after another until one is not refused."""

    _client: AuthorizedTransport
    _request: UpstreamRequest
    _connect: float
    _headers: float
    _reader: Reader | None
    _current: "AbstractAsyncContextManager[UpstreamResponse] | None" = None

    __repr__ = object.__repr__

    async def __aenter__(self) -> UpstreamResponse:
        pool, tried, empty = self._client.pool, list[PooledCredential](), list[PooledCredential]()
        refusal: ReadResponse | None = None
        limited = False
        while (member := pool.pick(tried)) is not None:
            tried.append(member)
            lines = member.credential.sign_now(self._request)
            if lines is None:  # another one may have a key or token now
                empty.append(member)
                continue
            response, reason = await self._try(member, lines)
            if reason is None:
                return response
            assert isinstance(response, ReadResponse)
            if not limited:  # of several refusals a 429 is reported: it has a wait, and ends by itself
                refusal, limited = response, reason == "rate_limited"
        if refusal is None:
            return await self._waited(empty)
        return _until_usable(refusal, pool) if limited and len(pool.members) > 1 else refusal

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        current, self._current = self._current, None
        if current is not None:
            await current.__aexit__(kind, error, traceback)

    async def _waited(self, empty: Sequence[PooledCredential]) -> UpstreamResponse:
        """Returns the response with the first of these credentials that gets a key or token. Raises
        UpstreamError if none does.
        """
        for member in empty:
            with contextlib.suppress(CredentialFailed):
                await member.credential.ready()
            lines = member.credential.sign_now(self._request)
            if lines is not None:
                return (await self._try(member, lines))[0]
            self._client.pool.refused(member, "unavailable")
        raise UpstreamError(
            "bad_credentials", "The gateway has no credentials for this upstream at the moment"
        )

    async def _try(self, member: PooledCredential, lines: bytes) -> "tuple[UpstreamResponse, Reason | None]":
        """Returns the response to the request with this credential, and why it was refused. Tries once more
        if the credential has changed.
        """
        pool = self._client.pool
        response = await self._send(lines)
        if not isinstance(response, ReadResponse):
            if member.troubled and response.status < 300:
                pool.accepted(member)
            return response, None
        reason, wait = self._why(response)
        if reason == "bad_credentials" and await member.credential.renewed(lines):
            renewed = member.credential.sign_now(self._request)
            if renewed is not None:
                response = await self._send(renewed)
                reason, wait = self._why(response) if isinstance(response, ReadResponse) else (None, None)
        if reason is not None:
            pool.refused(member, reason, wait)
        return response, reason

    async def _send(self, lines: bytes) -> UpstreamResponse:
        """Returns the response; a refusal has been read, and its connection returned to the pool."""
        request = msgspec.structs.replace(self._request, lines=self._request.lines + lines)
        reader = _Later(self._reader) if self._reader is not None else None
        current = self._client.transport.send(
            request, connect=self._connect, headers=self._headers, reader=reader
        )
        response = await current.__aenter__()
        if not _refuses(response.status):
            self._current = current
            return response
        try:
            body = await _body(response)
        finally:
            await current.__aexit__(None, None, None)
        return ReadResponse(response.status, response.headers, body)

    def _why(self, refusal: ReadResponse) -> "tuple[Reason | None, float | None]":
        error = self._client.meaning(refusal.status, refusal.headers, refusal.body)
        return reason_of(error), error.retry_after


async def _body(response: UpstreamResponse) -> bytes:
    try:
        async with asyncio.timeout(MEANING):
            return await response.read(BODY)
    except (UpstreamError, TimeoutError):
        return b""


def _until_usable(refusal: ReadResponse, pool: CredentialPool) -> ReadResponse:
    """Returns the 429 of one credential with the wait until any is usable."""
    headers = {**refusal.headers, "retry-after-ms": str(max(1, round(pool.wait() * 1000)))}
    return msgspec.structs.replace(refusal, headers=headers)
