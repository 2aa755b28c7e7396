"""Runs calls with resumable streams, and resumes streams.

answer  the call runs in a task of its own. Its client is written to directly as long as it keeps up, and gets the rest
        from the journal if it does not
resume  another client reads the journal: the frames that it missed, then new ones, to the end

A call continues when its client leaves, for at most `finish_limit` while nobody reads.
"""

import asyncio
import re
import secrets
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import msgspec

from sluice.errors import BadRequest, GatewayError, NotFound, NotResumable
from sluice.frontends import Answer, Encoder, Frontend
from sluice.identity.principal import Principal
from sluice.model.chat import ChatRequest
from sluice.proxy.call import Call
from sluice.proxy.writer import ResponseWriter
from sluice.resume import Journals, StreamHead
from sluice.resume.writer import JournaledWriter, PacedWriter

ANSWERED = 204
"""The status for a client that has every frame: it makes an EventSource stop reconnecting (WHATWG, 9.2.3)."""
STREAM = re.compile(r"[A-Za-z0-9_-]{16,64}")
NUMBER = re.compile(r"[0-9]{1,9}")


class AnswerCall(Protocol):
    """`Pipeline.answer`."""

    def __call__(self, call: Call, writer: ResponseWriter) -> Coroutine[Any, Any, None]: ...


class Outliving(Protocol):
    """`Detached.outlives`."""

    def __call__(
        self, call: Call, task: "asyncio.Task[None]", unread: Callable[[], float] | None = None
    ) -> None: ...


class Resumer(PacedWriter, Protocol):
    def reply(self, status: int, body: bytes, headers: Sequence[tuple[str, str]] = ()) -> None: ...


class ResumePoint(msgspec.Struct, frozen=True):
    """A stream, and the number of the last frame that the client has (-1: none)."""

    stream: str
    after: int = -1


def resume_point(stream: str, after: str, last_event_id: str) -> ResumePoint:
    """Returns the place at which a client continues: `Last-Event-ID`, if sent, is newer than the URL's
    `after`. `stream` "": the one that the header names. Raises BadRequest for an invalid number, NotFound
    for an unknown stream."""
    name = "after"
    if last_event_id:
        named, _, after = last_event_id.rpartition(":")
        name = "Last-Event-ID"
        if stream and named != stream:
            raise BadRequest("Last-Event-ID is another stream's", param=name)
        stream = named
    if after and not NUMBER.fullmatch(after):
        raise BadRequest(f"{name} must be the number of a line that was received", param=name)
    if not STREAM.fullmatch(stream):
        raise _not_found()
    return ResumePoint(stream, int(after) if after else -1)


class ResumableStreams:
    """Resumable streams. `frontends` by name: those whose streams can be resumed. A reader that reads nothing
    for `write_idle` seconds is closed."""

    def __init__(
        self,
        journals: Journals,
        frontends: Mapping[str, Frontend],
        *,
        answer: AnswerCall,
        outlives: Outliving,
        write_idle: float,
    ) -> None:
        self._journals = journals
        self._frontends = frontends
        self._answer = answer
        self._outlives = outlives
        self._write_idle = write_idle

    async def answer(self, call: Call, client: PacedWriter) -> None:
        """Answers a streamed call. Raises GatewayError only while nothing has been sent."""
        config = call.route.config
        stream = secrets.token_urlsafe(18)
        head = StreamHead(
            _owner(call.principal),
            call.frontend.name,
            float(config.heartbeat or 0),
            float(config.resume_window),
        )
        journal = await self._journals.open(stream, head)
        writer = JournaledWriter(client, journal, stream)
        task = asyncio.create_task(self._answer(call, writer))
        task.add_done_callback(lambda _: journal.close())
        try:
            await asyncio.wait((task, writer.fell_behind), return_when=asyncio.FIRST_COMPLETED)
            if writer.fell_behind.done():
                encoder = call.frontend.encoder(call.chat, _unnamed(call.id))
                await self._follow(ResumePoint(stream, writer.written), client, head, encoder)
            await asyncio.shield(task)
        finally:
            if not task.done():
                writer.detach()
                self._outlives(call, task, lambda: writer.unread)
                if config.on_disconnect == "cancel" and (writer.unresumable or not writer.begun):
                    task.cancel()  # nobody could read its answer

    async def resume(
        self, place: ResumePoint, client: Resumer, principal: Principal, request_id: str
    ) -> None:
        """Resumes a stream. Raises NotFound (unknown, expired, or another caller's), NotResumable,
        Unavailable."""
        found = await self._journals.find(place.stream)
        if found is None or found.head.owner != _owner(principal):
            raise _not_found()
        if found.unresumable:
            raise NotResumable("This stream is not kept any more")
        if found.ended and place.after >= found.newest:
            return client.reply(ANSWERED, b"")
        frontend = self._frontends.get(found.head.frontend)
        if frontend is None:
            raise NotResumable("The dialect of this stream is not served any more")
        encoder = frontend.encoder(ChatRequest("", None, ()), _unnamed(request_id))
        client.begin(encoder.content_type, ())
        client.write(b"")
        await self._follow(place, client, found.head, encoder)

    async def _follow(
        self, place: ResumePoint, client: PacedWriter, head: StreamHead, encoder: Encoder
    ) -> None:
        """Sends the frames after `place` at the client's pace: the next batch is read when the client has
        taken the last one."""
        try:
            async with aclosing(
                self._journals.read(place.stream, place.after, head.heartbeat or None)
            ) as batches:
                async for batch in batches:
                    client.write(batch.data or (b"" if batch.last else encoder.heartbeat()), last=batch.last)
                    async with asyncio.timeout(self._write_idle):
                        await client.writable()
        except TimeoutError:
            client.abort()
        except GatewayError as error:
            client.write(encoder.fail(error), last=True)


def _owner(principal: Principal) -> str:
    """The owner of a stream; the session prefix distinguishes pages that share a key."""
    return msgspec.json.encode([principal.tenant, principal.bucket, principal.session_prefix]).decode()


def _unnamed(request_id: str) -> Answer:
    return Answer(request_id, "", 0)


def _not_found() -> NotFound:
    return NotFound("There is no such stream, or it is not kept any more")
