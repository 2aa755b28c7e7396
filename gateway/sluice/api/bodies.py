"""Reads request bodies for routes: complete, decompressed, and bounded."""

from collections.abc import Awaitable, Callable
from typing import Any

from sluice.api.request import Request
from sluice.api.spool import FormSpools, SpooledForm
from sluice.errors import BadRequest, PayloadTooLarge, Unavailable, UnsupportedMediaType
from sluice.frontends import Frontend
from sluice.wire.jsontext import parse_object
from sluice.wire.multipart import boundary_of

SMALL = 64 << 10
"""Maximum bytes of a body that is not a call's, such as a key or a token."""
MEMORY_FORM_BYTES = 1 << 20
"""Maximum bytes of a form that is held in memory."""
INLINE = 32 << 10
"""Compressed bytes that are decompressed on the event loop; larger bodies take a thread."""


BodyNow = Callable[[Request], bytes | None]
"""Returns the body; None if it has not arrived, or is compressed. May raise UnsupportedMediaType."""


def body_now(request: Request) -> bytes | None:
    """Returns the body of a request with a JSON content type. Raises UnsupportedMediaType for another one, or
    none."""
    media_type = request.headers.get("content-type", "")
    if (
        media_type != "application/json"
        and media_type.partition(";")[0].strip().lower() != "application/json"
    ):
        raise UnsupportedMediaType("Send application/json")
    return any_body_now(request)


def any_body_now(request: Request) -> bytes | None:
    """Returns the body, whatever its content type: for dialects whose servers do not check it
    (`Frontend.any_content_type`).
    """
    return None if "content-encoding" in request.headers else request.body_now()


def form_now(request: Request) -> bytes | None:
    """Returns the body of a request with a form's content type. Raises UnsupportedMediaType for another one,
    or none.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise UnsupportedMediaType("Send multipart/form-data")
    return any_body_now(request)


def body_reader(frontend: Frontend) -> BodyNow:
    """Returns the function that reads a dialect's request bodies."""
    return any_body_now if frontend.any_content_type else body_now


class Bodies:
    """`limit`: bytes of a decompressed body; `beside` runs slow work in a thread. `form_limit`: bytes of a
    form; a large one is written to one of the `spools`.
    """

    def __init__(
        self, limit: int, beside: Callable[..., Awaitable[Any]], form_limit: int, spools: FormSpools
    ) -> None:
        self._limit = limit
        self._beside = beside
        self._form_limit = form_limit if limit >= MEMORY_FORM_BYTES else limit
        self._spools = spools

    async def form(self, request: Request) -> "bytes | SpooledForm":
        """Waits for the body of a form; a large one is written to a file. Raises what `late` does, and
        Unavailable."""
        pieces = getattr(request, "pieces", None)
        length = int(request.headers.get("content-length", -1))
        if (
            pieces is None
            or "content-encoding" in request.headers
            or 0 <= length <= MEMORY_FORM_BYTES
            or self._form_limit <= MEMORY_FORM_BYTES
        ):
            return await self.late(request)
        try:
            boundary = boundary_of(request.headers.get("content-type", ""))
            spooled = self._spools.open()
        except ValueError as error:
            raise BadRequest(f"The form {error}") from None
        except OSError:
            return await self.late(request)  # no temporary file can be made: the memory's limit applies
        try:
            await spooled.receive(pieces(self._form_limit), boundary, self._beside)
        except ValueError as error:
            raise BadRequest(f"The form {error}") from None
        except OSError:
            raise Unavailable("There is no room for the form") from None
        return spooled

    async def late(self, request: Request) -> bytes:
        """Waits for the body, and decompresses it. Raises UnsupportedMediaType, PayloadTooLarge,
        BadRequest."""
        coding = request.headers.get("content-encoding", "")
        if not coding:
            return await request.body()
        from sluice.wire.content_coding import BrokenCoding, ContentDecoder, UnknownCoding, decoded

        limit = self._limit
        try:
            ContentDecoder(coding)  # an unknown coding is refused before the body is read
            body = await request.body()
            small = len(body) <= INLINE
            decompressed = (
                decoded(body, coding, limit) if small else await self._beside(decoded, body, coding, limit)
            )
        except UnknownCoding:
            raise UnsupportedMediaType(
                "Send the body as it is, or as gzip, deflate, br or zstd", codings=True
            ) from None
        except BrokenCoding as broken:
            raise BadRequest(f"The body cannot be decoded by its Content-Encoding: {broken}") from None
        if decompressed is None:
            raise PayloadTooLarge(f"The body may have {limit} bytes when it is decompressed")
        return decompressed

    async def object(
        self, request: Request, read_now: BodyNow = body_now, *, most: int = SMALL
    ) -> dict[str, Any]:
        """Returns the JSON object of a body that is not a call's. Raises GatewayError (PayloadTooLarge beyond
        `most` bytes).
        """
        body = read_now(request)
        body = await self.late(request) if body is None else body
        if len(body) > most:
            raise PayloadTooLarge(f"The body may have {most} bytes")
        return parse_object(body)

    async def optional_object(self, request: Request, most: int = SMALL) -> dict[str, Any]:
        """Like `object`, but an empty object if there is no body."""
        sent = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
        return await self.object(request, most=most) if sent else {}
