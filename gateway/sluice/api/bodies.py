"""The body of a request, as routes want it: all of it, decompressed, within bounds."""

from collections.abc import Awaitable, Callable
from typing import Any

from sluice.api.request import Request
from sluice.api.spool import FormSpools, SpooledForm
from sluice.errors import BadRequest, PayloadTooLarge, Unavailable, UnsupportedMediaType
from sluice.frontends import Frontend
from sluice.wire.jsontext import parse_object
from sluice.wire.multipart import boundary_of

SMALL = 64 << 10
"""Bytes of what is no call: keys, tokens."""
LEAST = 1 << 20
"""Bytes of a form that is not held in memory."""
INLINE = 32 << 10
"""Compressed bytes that are decompressed on the event loop; more are in a thread."""


BodyNow = Callable[[Request], bytes | None]
"""Gives the body; None where it would have to wait for it, or it is compressed. May raise UnsupportedMediaType."""


def body_now(request: Request) -> bytes | None:
    """The body of a request that says it is JSON. Raises UnsupportedMediaType where it says something else, or nothing."""
    media_type = request.headers.get("content-type", "")
    if media_type != "application/json" and media_type.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType("Send application/json")
    return any_body_now(request)


def any_body_now(request: Request) -> bytes | None:
    """The body, whatever the request calls it: for dialects whose servers do not look (`Frontend.any_content_type`)."""
    return None if "content-encoding" in request.headers else request.body_now()


def form_now(request: Request) -> bytes | None:
    """The body of a request that says it is a form. Raises UnsupportedMediaType where it says something else, or nothing."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise UnsupportedMediaType("Send multipart/form-data")
    return any_body_now(request)


def body_reader(frontend: Frontend) -> BodyNow:
    """The reader of a dialect's request bodies."""
    return any_body_now if frontend.any_content_type else body_now


class Bodies:
    """`limit` is in bytes, decompressed; `beside` does in a thread what would hold up the event loop. `form_limit`: bytes of a
    form, which is in one of the `spools` where it is not small."""

    def __init__(self, limit: int, beside: Callable[..., Awaitable[Any]], form_limit: int, spools: FormSpools) -> None:
        self._limit = limit
        self._beside = beside
        self._form_limit = form_limit if limit >= LEAST else limit
        self._spools = spools

    async def form(self, request: Request) -> "bytes | SpooledForm":
        """The body of a form, waited for: a large one in a file. Raises what `late` does, and Unavailable."""
        pieces = getattr(request, "pieces", None)
        length = int(request.headers.get("content-length", -1))
        if pieces is None or "content-encoding" in request.headers or 0 <= length <= LEAST or self._form_limit <= LEAST:
            return await self.late(request)
        try:
            boundary = boundary_of(request.headers.get("content-type", ""))
            spooled = self._spools.open()
        except ValueError as error:
            raise BadRequest(f"The form {error}") from None
        except OSError:
            return await self.late(request)  # there is no place for temporary files: what fits into memory has to do
        try:
            await spooled.receive(pieces(self._form_limit), boundary, self._beside)
        except ValueError as error:
            raise BadRequest(f"The form {error}") from None
        except OSError:
            raise Unavailable("There is no room for the form") from None
        return spooled

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
            decompressed = decoded(body, coding, limit) if small else await self._beside(decoded, body, coding, limit)
        except UnknownCoding:
            raise UnsupportedMediaType("Send the body as it is, or as gzip, deflate, br or zstd", codings=True) from None
        except BrokenCoding as broken:
            raise BadRequest(f"The body cannot be decoded by its Content-Encoding: {broken}") from None
        if decompressed is None:
            raise PayloadTooLarge(f"The body may have {limit} bytes when it is decompressed")
        return decompressed

    async def object(self, request: Request, read_now: BodyNow = body_now) -> dict[str, Any]:
        """The body of what is no call. Raises GatewayError, PayloadTooLarge beyond SMALL bytes among them."""
        body = read_now(request)
        body = await self.late(request) if body is None else body
        if len(body) > SMALL:
            raise PayloadTooLarge(f"The body may have {SMALL} bytes")
        return parse_object(body)

    async def optional_object(self, request: Request) -> dict[str, Any]:
        """Like `object`, but an empty object if there is no body."""
        sent = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
        return await self.object(request) if sent else {}
