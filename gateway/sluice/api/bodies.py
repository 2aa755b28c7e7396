"""The body of a request, as routes want it: all of it, decompressed, within bounds."""

from collections.abc import Awaitable, Callable
from typing import Any

from sluice.api.request import Request
from sluice.errors import BadRequest, PayloadTooLarge, UnsupportedMediaType
from sluice.wire.jsontext import parse_object

SMALL = 64 << 10
"""Bytes of what is no call: keys, tokens."""
INLINE = 32 << 10
"""Compressed bytes that are decompressed on the event loop; more are in a thread."""


def body_now(request: Request) -> bytes | None:
    """The body; None where it would have to wait for it, or it is compressed. Raises UnsupportedMediaType."""
    headers = request.headers
    media_type = headers.get("content-type", "")
    if media_type != "application/json" and media_type.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType("Send application/json")
    return None if "content-encoding" in headers else request.body_now()


class Bodies:
    """`limit` is in bytes, decompressed; `beside` does in a thread what would hold up the event loop."""

    def __init__(self, limit: int, beside: Callable[..., Awaitable[Any]]) -> None:
        self._limit = limit
        self._beside = beside

    async def late(self, request: Request) -> bytes:
        """The body, waited for and decompressed. Raises UnsupportedMediaType, PayloadTooLarge, BadRequest."""
        coding = request.headers.get("content-encoding", "")
        if not coding:
            return await request.body()
        from sluice.wire.content_coding import BrokenCoding, ContentDecoder, UnknownCoding, decoded

        limit = self._limit
        try:
            ContentDecoder(coding)  # one that is not known is refused before the body is read
            body = await request.body()
            small = len(body) <= INLINE
            plain = decoded(body, coding, limit) if small else await self._beside(decoded, body, coding, limit)
        except UnknownCoding:
            raise UnsupportedMediaType("Send the body as it is, or as gzip, deflate, br or zstd", codings=True) from None
        except BrokenCoding as broken:
            raise BadRequest(f"The body cannot be decoded by its Content-Encoding: {broken}") from None
        if plain is None:
            raise PayloadTooLarge(f"The body may have {limit} bytes when it is decompressed")
        return plain

    async def object(self, request: Request) -> dict[str, Any]:
        """The body of what is no call. Raises GatewayError, PayloadTooLarge beyond SMALL bytes among them."""
        body = body_now(request)
        body = await self.late(request) if body is None else body
        if len(body) > SMALL:
            raise PayloadTooLarge(f"The body may have {SMALL} bytes")
        return parse_object(body)

    async def optional_object(self, request: Request) -> dict[str, Any]:
        """The same, and an empty one where there is no body."""
        sent = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
        return await self.object(request) if sent else {}
