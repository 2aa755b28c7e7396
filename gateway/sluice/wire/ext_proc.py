"""Envoy's external processing, as far as asking an endpoint picker takes it: messages to bytes and back.
Pure.

https://github.com/envoyproxy/envoy/blob/main/api/envoy/service/ext_proc/v3/external_processor.proto has the
messages and the numbers of their fields, https://github.com/kubernetes-sigs/gateway-api-inference-extension
the protocol of pickers (docs/proposals/004-endpoint-picker-protocol, 1.0.0).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address

import msgspec

from sluice.wire.protobuf import BadProtobuf, data, fields, number, text

METHOD = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
DESTINATION = "x-gateway-destination-endpoint"
SERVED = "x-gateway-destination-endpoint-served"
NAMESPACE = "envoy.lb"
FULL_DUPLEX_STREAMED = 4
"""A mode of sending bodies (processing_mode.proto): the one that pickers know."""
PIECE = 256 << 10
"""Bytes of a body in one message: gRPC servers take 4 MiB by default."""
ENDPOINTS = 16
"""Endpoints of one answer that are used."""
MAX_LISTED = 256
"""Endpoints of one answer that are looked at."""
MAX_HEADERS, MAX_HEADER_BYTES = 100, 32 << 10
"""Headers that a picker sets, and their names and values together."""
MAX_ENDPOINT = 64
"""Characters: an IPv6 address in brackets and a port have at most 53."""


class Endpoint(msgspec.Struct, frozen=True):
    """A model server, `host` an IP address."""

    host: str
    port: int

    @property
    def name(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Refused(msgspec.Struct, frozen=True):
    """The picker's immediate response: what the caller is to be answered."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""


class Pick(msgspec.Struct):
    """The picker's answer so far. `headers` are to be set on the request; `body` takes the place of its own
    once `whole`.

    `done`: nothing more has to be waited for.
    """

    endpoints: tuple[Endpoint, ...] = ()
    headers: dict[str, str] = {}
    body: bytearray = msgspec.field(default_factory=bytearray)
    whole: bool = False
    refused: Refused | None = None
    answered: bool = False  # the request's headers
    expects_body: bool = False  # the request had one, which the picker gives back

    @property
    def done(self) -> bool:
        return self.refused is not None or (self.answered and (self.whole or not self.expects_body))

    def feed(self, message: bytes) -> None:
        """Takes a ProcessingResponse. Raises BadProtobuf."""
        for field, value in fields(message):
            match field, value:
                case 1, bytes():
                    self.answered = True
                    self._common(_inner(value, 1))
                case 3, bytes():
                    common = _inner(value, 1)
                    self._common(common)
                    if not _inner(common, 3):  # it leaves the body as it is
                        self.whole = True
                case 7, bytes():
                    self.refused = _refused(value)
                case 8, bytes():
                    if not self.endpoints and (listed := _dynamic(value)):
                        self.endpoints = endpoints_in(listed)

    def _common(self, message: bytes) -> None:
        """A CommonResponse: headers that are set, a piece of the body, or all of it."""
        for field, value in fields(message):
            if field == 2 and isinstance(value, bytes):
                self.headers |= _set_headers(value)
                if not self.endpoints and DESTINATION in self.headers:
                    self.endpoints = endpoints_in(self.headers[DESTINATION])
                check_size(self.headers)
            elif field == 3 and isinstance(value, bytes):
                self._body(value)

    def _body(self, mutation: bytes) -> None:
        for field, value in fields(mutation):
            if field == 1 and isinstance(value, bytes):
                self.body[:] = value
                self.whole = True
            elif field == 3 and isinstance(value, bytes):  # streamed_response
                for inner, part in fields(value):
                    if inner == 1 and isinstance(part, bytes):
                        self.body += part
                    elif inner == 2:
                        self.whole = bool(part)


def endpoints_in(listed: str) -> tuple[Endpoint, ...]:
    """The endpoints of "ip:port,ip:port", without those that are none or can be no server's: link-local ones
    (a cloud's metadata service is at 169.254.169.254), multicast and 0.0.0.0."""
    found = []
    for one in listed.split(",", MAX_LISTED)[:MAX_LISTED]:
        place = _PLACE.fullmatch(one.strip()) if len(one) <= MAX_ENDPOINT else None
        if place is None or not 0 < int(place["port"]) < 65536:
            continue
        try:
            address = ip_address(place["host"] or place["host6"])
        except ValueError:
            continue
        plain = getattr(address, "ipv4_mapped", None) or address
        if not (plain.is_link_local or plain.is_multicast or plain.is_unspecified):
            found.append(Endpoint(str(address), int(place["port"])))
    return tuple(dict.fromkeys(found))[:ENDPOINTS]


_PLACE = re.compile(r"(?:(?P<host>[0-9a-fA-F.:]+)|\[(?P<host6>[0-9a-fA-F.:]+)\]):(?P<port>[0-9]{1,5})")


def check_size(headers: Mapping[str, str]) -> None:
    """Raises BadProtobuf for more headers than a request may be given."""
    size = sum(len(name) + len(value) for name, value in headers.items())
    if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        raise BadProtobuf("more headers than a request may be given")


def request_headers(headers: Iterable[tuple[str, str]], *, body: bool) -> bytes:
    """The first ProcessingRequest: the request's headers, with its pseudo-headers, and how its body is going
    to be sent."""
    config = number(1, FULL_DUPLEX_STREAMED) + number(3, 1)
    return data(2, data(1, _headers(headers)) + number(3, not body)) + data(11, config)


def request_body(body: bytes) -> Iterator[bytes]:
    """The ProcessingRequests that bring the request's body."""
    for at in range(0, max(len(body), 1), PIECE):
        yield data(4, data(1, body[at : at + PIECE]) + number(2, at + PIECE >= len(body)))


def response_headers(status: int, headers: Iterable[tuple[str, str]], served: Endpoint) -> bytes:
    """The ProcessingRequest that tells who has served the request, and how: the head of its response."""
    struct = data(1, text(1, SERVED) + data(2, text(3, served.name)))
    metadata = data(1, text(1, NAMESPACE) + data(2, struct))
    return data(3, data(1, _headers(((":status", str(status)), *headers)))) + data(8, metadata)


def _headers(headers: Iterable[tuple[str, str]]) -> bytes:
    """A HeaderMap."""
    return b"".join(
        [
            data(1, text(1, name.lower()) + data(3, value.encode("utf-8", "replace")))
            for name, value in headers
        ]
    )


def _inner(message: bytes, wanted: int) -> bytes:
    """The last of the fields of this number, which holds a message."""
    return next(
        (value for field, value in [*fields(message)][::-1] if field == wanted and isinstance(value, bytes)),
        b"",
    )


def _set_headers(mutation: bytes) -> dict[str, str]:
    """The headers that a HeaderMutation sets, by lower-case name."""
    found = {}
    for field, option in fields(mutation):
        if field == 1 and isinstance(option, bytes):
            name = value = b""
            for inner, part in fields(_inner(option, 1)):
                if isinstance(part, bytes):
                    if inner == 1:
                        name = part
                    elif inner == 3 or (inner == 2 and not value):
                        value = part
            found[name.decode("latin-1").lower()] = value.decode("latin-1")
    return found


def _refused(message: bytes) -> Refused:
    status, headers, body = 0, dict[str, str](), b""
    for field, value in fields(message):
        if field == 1 and isinstance(value, bytes):
            status = next((code for inner, code in fields(value) if inner == 1 and isinstance(code, int)), 0)
        elif field == 2 and isinstance(value, bytes):
            headers = _set_headers(value)
            check_size(headers)
        elif field == 3 and isinstance(value, bytes):
            body = value
    if not 200 <= status <= 599:
        raise BadProtobuf("an immediate response without a status")
    return Refused(status, headers, body)


def _dynamic(struct: bytes) -> str:
    """The destination among the dynamic metadata (a google.protobuf.Struct), "" where there is none."""
    space = _member(struct, NAMESPACE)
    value = _member(_inner(space, 5), DESTINATION)
    return _inner(value, 3).decode("utf-8", "replace")


def _member(struct: bytes, name: str) -> bytes:
    """The Value of this name in a Struct."""
    for field, entry in fields(struct):
        if field == 1 and isinstance(entry, bytes) and _inner(entry, 1) == name.encode():
            return _inner(entry, 2)
    return b""
