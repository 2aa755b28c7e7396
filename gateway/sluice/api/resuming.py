"""Resumes streams of calls to resumable aliases, in the dialect in which each was begun."""

from sluice.api.callers import Callers
from sluice.api.request import Request
from sluice.api.table import Handler, ServedPath
from sluice.errors import GatewayError, MethodNotAllowed
from sluice.frontends import Frontend
from sluice.identity.principal import Principal
from sluice.resume.streams import ResumableStreams, ResumePoint, resume_point
from sluice.telemetry.records import Records


class Resuming:
    """Answers the frontends' routes that resume streams."""

    def __init__(self, callers: Callers, streams: ResumableStreams, records: Records) -> None:
        self._callers = callers
        self._streams = streams
        self._records = records

    def handler(self, frontend: Frontend, place: ServedPath) -> Handler:
        async def resume(request: Request, request_id: str) -> None:
            """Resumes the stream. Raises MethodNotAllowed for HEAD, and if neither the path nor
            `Last-Event-ID` names a stream.
            """
            last = request.headers.get("last-event-id", "")
            stream = request.parameters.get("stream", "")
            if request.method != "GET" or not (stream or last):
                others = {"OPTIONS", *place.methods} - {"GET"}
                raise MethodNotAllowed(place.allowed if stream else ", ".join(sorted(others)))
            principal = await self._callers.identify(request, frontend.credential_parameters)
            await self._resume(
                resume_point(stream, request.query.get("after", ""), last), request, principal, request_id
            )

        return resume

    async def _resume(
        self, point: ResumePoint, request: Request, principal: Principal, request_id: str
    ) -> None:
        refused = False
        try:
            await self._streams.resume(point, request, principal, request_id)
        except GatewayError:  # recorded as a refused request
            refused = True
            raise
        finally:
            if not refused:
                self._records.resumed(request, request_id, principal, point.stream)
