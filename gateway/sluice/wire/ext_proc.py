"""The messages of Envoy's external processing that are exchanged with an endpoint picker: to bytes and back.
Pure.

https://github.com/envoyproxy/envoy/blob/main/api/envoy/service/ext_proc/v3/external_processor.proto defines
the messages and their field numbers, https://github.com/kubernetes-sigs/gateway-api-inference-extension the
protocol of pickers (docs/proposals/004-endpoint-picker-protocol, 1.0.0).
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
"""The mode of sending bodies (processing_mode.proto) that pickers support."""
PIECE = 256 << 10
"""Maximum bytes of a body in one message: gRPC servers accept 4 MiB by default."""
ENDPOINTS = 16
"""Maximum endpoints of one answer that are used."""
MAX_LISTED = 256
"""Maximum endpoints of one answer that are examined."""
MAX_HEADERS, MAX_HEADER_BYTES = 100, 32 << 10
"""Maximum headers that a picker may set, and maximum bytes of their names and values together."""
MAX_ENDPOINT = 64
"""Maximum characters of an endpoint: an IPv6 address in brackets and a port have at most 53."""


class Endpoint(msgspec.Struct, frozen=True):
    """A model server; `host` is an IP address."""

    host: str
    port: int

    @property
    def name(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Refused(msgspec.Struct, frozen=True):
    """The picker's immediate response, which is the answer to the caller."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""


class Pick(msgspec.Struct):
    """The picker's answer so far.

    `headers` are to be set on the request. `body` replaces the request's body once it is `whole`. `done`:
    there is nothing more to wait for.
    """

    endpoints: tuple[Endpoint, ...] = ()
    headers: dict[str, str] = {}
    body: bytearray = msgspec.field(default_factory=bytearray)
    whole: bool = False
    refused: Refused | None = None
    answered: bool = False  # to the request's headers
    expects_body: bool = False  # the request has a body, which the picker sends back

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
                    if not _inner(common, 3):  # the picker leaves the body unchanged
                        self.whole = True
                case 7, bytes():
                    self.refused = _refused(value)
                case 8, bytes():
                    if not self.endpoints and (listed := _dynamic(value)):
                        self.endpoints = endpoints_in(listed)

    def _common(self, message: bytes) -> None:
        """Takes a CommonResponse: headers to set, and a part of the body or all of it."""
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
    """Returns the endpoints of "ip:port,ip:port". Invalid ones are left out, and addresses that no model
    server can have: link-local ones (169.254.169.254 is the metadata service of clouds), multicast and
    0.0.0.0."""
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
    """Raises BadProtobuf if these are more headers than a picker may set."""
    size = sum(len(name) + len(value) for name, value in headers.items())
    if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        raise BadProtobuf("more headers than a request may be given")


def request_headers(headers: Iterable[tuple[str, str]], *, body: bool) -> bytes:
    """Returns the first ProcessingRequest: the request's headers, with its pseudo-headers, and how its body
    will be sent."""
    config = number(1, FULL_DUPLEX_STREAMED) + number(3, 1)
    return data(2, data(1, _headers(headers)) + number(3, not body)) + data(11, config)


def request_body(body: bytes) -> Iterator[bytes]:
    """Yields the ProcessingRequests with the request's body."""
    for at in range(0, max(len(body), 1), PIECE):
        yield data(4, data(1, body[at : at + PIECE]) + number(2, at + PIECE >= len(body)))


def response_headers(status: int, headers: Iterable[tuple[str, str]], served: Endpoint) -> bytes:
    """Returns the ProcessingRequest that reports which server has answered, and the head of its response."""
    struct = data(1, text(1, SERVED) + data(2, text(3, served.name)))
    metadata = data(1, text(1, NAMESPACE) + data(2, struct))
    return data(3, data(1, _headers(((":status", str(status)), *headers)))) + data(8, metadata)


def _headers(headers: Iterable[tuple[str, str]]) -> bytes:
    """Returns a HeaderMap."""
    return b"".join(
        [
            data(1, text(1, name.lower()) + data(3, value.encode("utf-8", "replace")))
            for name, value in headers
        ]
    )


def _inner(message: bytes, wanted: int) -> bytes:
    """Returns the last field with this number, which must hold a message."""
    return next(
        (value for field, value in [*fields(message)][::-1] if field == wanted and isinstance(value, bytes)),
        b"",
    )


def _set_headers(mutation: bytes) -> dict[str, str]:
    """Returns the headers that a HeaderMutation sets, by lower-case name."""
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
    """Returns the destination in the dynamic metadata (a google.protobuf.Struct); "" if there is none."""
    space = _member(struct, NAMESPACE)
    value = _member(_inner(space, 5), DESTINATION)
    return _inner(value, 3).decode("utf-8", "replace")


def _member(struct: bytes, name: str) -> bytes:
    """Returns the Value of this name in a Struct."""
    for field, entry in fields(struct):
        if field == 1 and isinstance(entry, bytes) and _inner(entry, 1) == name.encode():
            return _inner(entry, 2)
    return b""
