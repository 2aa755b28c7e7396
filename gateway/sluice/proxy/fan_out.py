"""One call that its upstream takes in several requests: an embedding of many texts by a model that takes one.

The pipeline sees one request and one answer. Requests go out a few at a time, each with the upstream's
credentials; all answers are read, and joined by the operation. The first that fails, or is not answered with
2xx, is the outcome of all: the others are cancelled, and what follows (another try, another target, the
error's wait) is what follows any attempt.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType

import msgspec

from sluice.backends.protocol import FansOut
from sluice.backends.read_response import ReadResponse
from sluice.backends.transport import Reader, Transport, UpstreamRequest, UpstreamResponse
from sluice.errors import UpstreamError, UpstreamGarbled

MAX_CONCURRENT_REQUESTS = 8
"""Requests of one call that are under way at the same time."""
MAX_ANSWER_BYTES = 1 << 20
"""Bytes of one answer."""


class _Refused(Exception):
    """One of the requests was answered with a status other than 2xx."""

    def __init__(self, response: ReadResponse) -> None:
        self.response = response


class FanOutTransport(msgspec.Struct, frozen=True, eq=False):
    """Sends over `transport`, and requests with bodies `beside` their own as several."""

    transport: Transport
    operation: FansOut

    def send(
        self, request: UpstreamRequest, *, connect: float, headers: float, reader: Reader | None = None
    ) -> AbstractAsyncContextManager[UpstreamResponse]:
        """See `sluice.backends.transport.Transport`. Of several requests, `headers` seconds are for all of
        them and their answers, and `reader` is left alone."""
        if not request.beside:
            return self.transport.send(request, connect=connect, headers=headers, reader=reader)
        return _FannedOut(self, request, connect, headers)

    def secrets(self) -> Iterator[str]:
        yield from getattr(self.transport, "secrets", tuple)()

    async def close(self) -> None:
        await self.transport.close()


class _FannedOut(msgspec.Struct, eq=False):
    """The requests of one call. Entering it sends them all, waits for all answers and returns them joined;
    the first answer that is not 2xx is returned alone, and the other requests are cancelled."""

    _by: FanOutTransport
    _request: UpstreamRequest
    _connect: float
    _headers: float

    __repr__ = object.__repr__

    async def __aenter__(self) -> UpstreamResponse:
        bodies = (self._request.body, *self._request.beside)
        answers: dict[int, ReadResponse] = {}
        left = iter(enumerate(bodies))
        try:
            async with asyncio.timeout(self._headers), asyncio.TaskGroup() as group:
                for _ in range(min(MAX_CONCURRENT_REQUESTS, len(bodies))):
                    group.create_task(self._work(left, answers))
        except TimeoutError:
            raise UpstreamError("headers_timeout") from None
        except ExceptionGroup as failed:
            first = failed.exceptions[0]
            if isinstance(first, _Refused):
                return first.response
            raise first from None
        return self._by.operation.joined([answers[n] for n in range(len(bodies))])

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Does nothing: all answers were read when it was entered."""

    async def _work(self, left: Iterator[tuple[int, bytes]], answers: dict[int, ReadResponse]) -> None:
        for n, body in left:
            request = msgspec.structs.replace(self._request, body=body, beside=())
            sending = self._by.transport.send(request, connect=self._connect, headers=self._headers)
            async with sending as response:
                read = ReadResponse(response.status, response.headers, await response.read(MAX_ANSWER_BYTES))
            if response.status // 100 != 2:
                raise _Refused(read)
            if len(read.body) >= MAX_ANSWER_BYTES:
                raise UpstreamGarbled
            answers[n] = read
