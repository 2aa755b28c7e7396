"""The interface of the server's exchange for routes, and the writer of an answer that is not streamed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from sluice.backends.transport import UpstreamResponse
from sluice.proxy.writer import ResponseWriter


class Request(ResponseWriter, Protocol):
    """The interface of the server's exchange for routes.

    `parameters`: the values of the path's `{names}`. `bytes_in`, `bytes_out`: of the bodies of the request
    and of the answer, as far as they have come and been written.
    """

    received: float
    caller: str | None
    extra: list[tuple[str, str]]
    path: str
    parameters: Mapping[str, str]
    status: int
    bytes_out: int
    rename: Callable[[Sequence[tuple[str, str]]], Sequence[tuple[str, str]]] | None

    @property
    def method(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def raw_headers(self) -> Sequence[tuple[bytes, bytes]]: ...
    @property
    def query(self) -> Mapping[str, str]: ...
    @property
    def bytes_in(self) -> int: ...
    @property
    def peer(self) -> str: ...
    def body_now(self) -> bytes | None: ...
    async def body(self) -> bytes: ...
    def reply(
        self,
        status: int,
        body: bytes,
        headers: Sequence[tuple[str, str]] = (),
        content_type: str = "application/json",
    ) -> None: ...
    async def writable(self) -> None: ...


class WholeWriter(msgspec.Struct, eq=False):
    """Writes an answer that is not streamed: head and body are sent together, with a length."""

    _request: Request
    begun: bool = False
    last_write: float = 0.0
    blocked_since: float = 0.0
    _content_type: str = ""
    _headers: Sequence[tuple[str, str]] = ()

    def begin(self, content_type: str, headers: Sequence[tuple[str, str]]) -> None:
        self._content_type = content_type
        self._headers = headers

    def write(self, data: bytes, *, last: bool = False) -> None:
        self.begun = True
        self._request.reply(200, data, self._headers, self._content_type)

    def fail(self, data: bytes) -> None:
        self.write(data, last=True)

    def attach(self, upstream: UpstreamResponse | None) -> None:
        pass

    def detach(self) -> None:
        self._request.detach()

    def abort(self) -> None:
        self._request.abort()
