"""A response that has been read whole, as callers see a response that they read themselves."""

from collections.abc import Mapping

import msgspec

from sluice.backends.transport import Sink


class ReadResponse(msgspec.Struct):
    """See `sluice.backends.transport.UpstreamResponse`. It is `body` that is pumped, at once."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    __repr__ = object.__repr__

    async def pump(self, sink: Sink) -> None:
        if self.body:
            sink(self.body)

    async def read(self, limit: int) -> bytes:
        return self.body[:limit]

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def abort(self, error: BaseException) -> None: ...
