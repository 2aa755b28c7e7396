"""A response that has been read completely, in the form of one that is still to be read."""

from collections.abc import Mapping

import msgspec

from sluice.backends.transport import Sink


class ReadResponse(msgspec.Struct):
    """See `sluice.backends.transport.UpstreamResponse`. `pump` passes the whole `body` to its sink at once."""

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
