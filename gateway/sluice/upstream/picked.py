"""A transport whose requests go to the endpoints that a picker names for each request (llm-d, Gateway API
inference extension).

enter   sends the request's headers and body to the picker, which answers with endpoints, or with the response for
        the caller (503, 429); tries the endpoints in order until one responds with anything but a 502, 503 or 504;
        then tells the picker which one it is
exit    ends the picker's stream, so that it knows that the request is over

The protocol is that of `sluice.wire.ext_proc`. Credentials are never sent to the picker.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from ipaddress import ip_address, ip_network
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import msgspec

from sluice.backends.read_response import ReadResponse
from sluice.backends.transport import Reader, Sink, Towards, Transport, UpstreamRequest, UpstreamResponse
from sluice.errors import StaleConnection, UpstreamError
from sluice.upstream.grpc import GrpcChannel, GrpcFailed, GrpcStream
from sluice.wire import ext_proc
from sluice.wire.ext_proc import Endpoint, Pick
from sluice.wire.fields import FRAMING_FIELDS, check_fields
from sluice.wire.forwarding import SECRETIVE
from sluice.wire.protobuf import BadProtobuf

MAX_KEPT_ENDPOINTS = 256
"""Maximum endpoints whose connections are kept; beyond it, those that have been unused for the longest time
are closed when idle."""
BODY_WAIT = 0.25
"""Seconds within which a picker that has named endpoints must begin to send the request's body back."""
ELSEWHERE = frozenset({502, 503, 504})
"""Statuses of an endpoint after which the next one is tried."""
NEXT = frozenset({"connect_error", "connect_timeout", "tls_error", "reset"})
"""Failures of an endpoint, before it responded, after which the next one is tried."""

_SCHEME = re.compile(r"(?i)\s*(?:bearer|basic|digest|negotiate|apikey|api-key|token)\s")
"""The beginnings of values that are credentials (RFC 9110 11.4)."""

Told = Callable[[str], object]
"""The result of asking the picker: picked, refused, failed, or bypassed."""


class PickedTransport:
    """`base` reaches the upstream by its name; it is used if the picker fails and `open_on_failure` is set.

    `timeout`: seconds for the picker's answer, including the connection to it. `networks`: those in which
    endpoints may be; None: any.
    """

    def __init__(
        self,
        base: Towards,
        channel: GrpcChannel,
        *,
        timeout: float,
        open_on_failure: bool = False,
        told: Told = lambda _: None,
        networks: Sequence[str] | None = None,
    ) -> None:
        self.base, self.channel = base, channel
        self._timeout = timeout
        self._open_on_failure = open_on_failure
        self._told = told
        self._networks = [ip_network(network) for network in networks] if networks is not None else None
        self._endpoints: dict[Endpoint, Towards] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def send(
        self, request: UpstreamRequest, *, connect: float, headers: float, reader: Reader | None = None
    ) -> AbstractAsyncContextManager[UpstreamResponse]:
        """See `sluice.backends.transport.Transport`. Entering also raises "connect_error" if the picker
        fails."""
        return _PickedExchange(self, request, connect, headers, reader)

    async def close(self) -> None:
        """Does not close `base`, which belongs to the caller."""
        self.channel.close()
        for transport in self._endpoints.values():
            await transport.close()

    def secrets(self) -> Any:
        return getattr(self.base, "secrets", tuple)()

    @property
    def open(self) -> int:
        return self._sum("open")

    @property
    def idle(self) -> int:
        return self._sum("idle")

    @property
    def waiting(self) -> int:
        return self._sum("waiting")

    def _sum(self, condition: str) -> int:
        return sum(getattr(transport, condition, 0) for transport in self._endpoints.values())

    # --- for the exchange

    def towards(self, endpoint: Endpoint) -> Transport:
        found = self._endpoints.pop(endpoint, None) or self.base.towards(endpoint.host, endpoint.port)
        self._endpoints[endpoint] = found  # the last used one comes last
        if len(self._endpoints) > MAX_KEPT_ENDPOINTS:
            closing = asyncio.create_task(_close(self._endpoints.pop(next(iter(self._endpoints)))))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        return found

    async def pick(self, request: UpstreamRequest) -> tuple[Pick | None, GrpcStream | None]:
        """Returns the picker's choice, and the stream on which it is told about the response; None for both
        if it is bypassed."""
        try:
            async with asyncio.timeout(self._timeout):
                pick, stream = await self._ask(request)
        except (GrpcFailed, TimeoutError, BadProtobuf) as error:
            if isinstance(error, TimeoutError):
                self.channel.leave_silent(self._timeout)
            if self._open_on_failure:
                self._told("bypassed")
                return None, None
            self._told("failed")
            why = "did not answer in time" if isinstance(error, TimeoutError) else "failed"
            raise UpstreamError("connect_error", f"The endpoint picker {self.channel.name} {why}") from error
        self._told("refused" if pick.refused is not None else "picked")
        return pick, stream

    async def _ask(self, request: UpstreamRequest) -> tuple[Pick, GrpcStream]:
        body = request.body if request.pieces is None else b""
        stream = await self.channel.begin(ext_proc.METHOD)
        answered = False
        try:
            stream.send(ext_proc.request_headers(_headers_of(request), body=bool(body)))
            if body:
                for message in ext_proc.request_body(body):
                    stream.send(message)
            pick = Pick(expects_body=bool(body))
            while not pick.done:
                # A picker that does not send the body back does not change it.
                patience = BODY_WAIT if pick.endpoints and pick.answered and not pick.body else None
                try:
                    async with asyncio.timeout(patience):
                        message = await stream.receive()
                except TimeoutError:
                    break
                pick.feed(message)
                if len(pick.body) > 2 * len(body) + (1 << 20):
                    raise BadProtobuf("the picker's body is far longer than the request's")
            pick.endpoints = tuple(filter(self._is_allowed, pick.endpoints))
            if pick.refused is None and not pick.endpoints:
                raise BadProtobuf("the picker named no endpoint")
            stream.ignore()  # the request has been sent: whatever the picker still sends is ignored
            answered = True
        finally:
            if not answered:
                stream.cancel()
        return pick, stream

    def _is_allowed(self, endpoint: Endpoint) -> bool:
        address = ip_address(endpoint.host)
        plain = getattr(address, "ipv4_mapped", None) or address
        return self._networks is None or any(plain in network for network in self._networks)


class _Waiting:
    """Reads a response's head unless it makes the next endpoint be tried. Tells which endpoint responds, if
    that is needed."""

    __slots__ = ("_last", "_reader", "_served")

    def __init__(self, reader: Reader, endpoint: Endpoint, *, last: bool) -> None:
        self._reader, self._last = reader, last
        self._served = (getattr(reader, "served", None), endpoint.name)

    def sent(self) -> None:
        self._reader.sent()

    def begin(self, response: UpstreamResponse) -> Sink | None:
        if response.status in ELSEWHERE and not self._last:
            return None
        served, name = self._served
        if served is not None:
            served(name)
        return self._reader.begin(response)


class _PickedExchange(msgspec.Struct, eq=False):
    """One request, sent to one endpoint after another."""

    _client: PickedTransport
    _request: UpstreamRequest
    _connect: float
    _headers: float
    _reader: Reader | None
    _current: "AbstractAsyncContextManager[UpstreamResponse] | None" = None
    _stream: GrpcStream | None = None

    __repr__ = object.__repr__

    async def __aenter__(self) -> UpstreamResponse:
        pick, self._stream = await self._client.pick(self._request)
        entered = False
        try:
            if pick is None:
                response = await self._enter(self._client.base, self._request, self._reader)
            elif pick.refused is not None:
                response = ReadResponse(pick.refused.status, pick.refused.headers, pick.refused.body)
            else:
                response = await self._try_all(pick)
            entered = True
            return response
        finally:
            if not entered:
                self._end()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        current, self._current = self._current, None
        self._end()
        if current is not None:
            await current.__aexit__(kind, error, traceback)

    def _end(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.finish()

    async def _try_all(self, pick: Pick) -> UpstreamResponse:
        request = _changed(self._request, pick)
        for number, endpoint in enumerate(pick.endpoints, 1):
            last = number == len(pick.endpoints)
            reader = _Waiting(self._reader, endpoint, last=last) if self._reader is not None else None
            try:
                response = await self._once_more(endpoint, request, reader)
            except UpstreamError as error:
                if last or error.kind not in NEXT:
                    raise
                continue
            if response.status in ELSEWHERE and not last:
                current, self._current = self._current, None
                if current is not None:
                    await current.__aexit__(None, None, None)
                continue
            if self._stream is not None:
                self._stream.send(
                    ext_proc.response_headers(response.status, _told_of(response.headers), endpoint)
                )
            return response
        raise UpstreamError("connect_error", "The endpoint picker named no endpoint")

    async def _once_more(
        self, endpoint: Endpoint, request: UpstreamRequest, reader: Reader | None
    ) -> UpstreamResponse:
        """Returns the endpoint's response; on a new connection if an idle one turns out to be closed."""
        transport = self._client.towards(endpoint)
        try:
            return await self._enter(transport, request, reader)
        except StaleConnection:
            return await self._enter(transport, request, reader)

    async def _enter(
        self, transport: Transport, request: UpstreamRequest, reader: Reader | None
    ) -> UpstreamResponse:
        current = transport.send(request, connect=self._connect, headers=self._headers, reader=reader)
        response = await current.__aenter__()
        self._current = current
        return response


async def _close(transport: Transport) -> None:
    await transport.close()


def _headers_of(request: UpstreamRequest) -> list[tuple[str, str]]:
    """Returns the request's headers for the picker.

    Those that probably carry credentials, by their name or their value, are left out, and so is the URL's
    query, which may contain a key. The upstream's own key belongs to the transport, and is not among a
    request's headers; headers that the configuration adds to every request (`headers`) and those of a
    signature are.
    """
    url = urlsplit(request.url)
    found = [
        (":method", request.method),
        (":path", url.path or "/"),
        (":authority", url.netloc),
        (":scheme", url.scheme),
    ]
    return found + [
        (name, value)
        for name, value in _fields_of(request)
        if not SECRETIVE.search(name.lower()) and not _SCHEME.match(value)
    ]


def _fields_of(request: UpstreamRequest) -> list[tuple[str, str]]:
    lines = [line.partition(":") for line in request.lines.decode("latin-1").split("\r\n")]
    return [*request.headers, *((name.strip(), value.strip()) for name, colon, value in lines if colon)]


def _told_of(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Returns the headers of the response that the picker gets."""
    return [(name, headers[name]) for name in ("content-type",) if name in headers]


def _changed(request: UpstreamRequest, pick: Pick) -> UpstreamRequest:
    """Returns the request with the headers that the picker sets, and with its body, if it sent one back.
    Raises UpstreamError."""
    mine = FRAMING_FIELDS | {name.lower() for name, _ in _fields_of(request)}
    more = [
        (name, value)
        for name, value in pick.headers.items()
        if name not in mine and not name.startswith((":", "x-envoy")) and not SECRETIVE.search(name)
    ]
    try:
        check_fields(more)
    except ValueError as error:
        raise UpstreamError(
            "connect_error", "The endpoint picker sets a header that cannot be sent"
        ) from error
    lines = "".join(f"{name}: {value}\r\n" for name, value in more).encode("latin-1")
    body = bytes(pick.body) if pick.whole and pick.body else request.body
    return msgspec.structs.replace(request, lines=request.lines + lines, body=body)
