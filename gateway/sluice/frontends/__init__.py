"""The interface of frontends: each is one client dialect, as a plugin by entry point `sluice.frontends`
(`registry.py`).

A frontend has routes, parses their requests, writes answers and errors, and names the headers that its
clients use. It is pure: bytes -> ChatRequest, events -> bytes, errors -> a status and a JSON object; no
sockets, no clock.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import msgspec

from sluice.errors import GatewayError
from sluice.frontends.statuses import status_of
from sluice.model.chat import ChatRequest
from sluice.model.events import Started, StreamEvent
from sluice.model.facts import NOTHING as NOTHING_KNOWN
from sluice.model.facts import Facts
from sluice.model.operations import StoredForm
from sluice.wire.multipart import FormPart

NO_FIELDS: Mapping[str, str] = {}


def _stopped() -> float:
    return 0.0


class Answer(msgspec.Struct, frozen=True):
    """The properties of a call that an encoder uses.

    `conversation` is empty if no history is kept. `model`: the alias, which the caller sees as the model
    unless `reveal` is set (then the target's own name). `created`: whole seconds since the epoch. `id`: the
    request's id. `clock` and `received` (when the request came) are monotonic, in seconds, for dialects that
    report how long an answer took.
    """

    id: str
    model: str
    created: int
    conversation: str = ""
    reveal: bool = True
    clock: Callable[[], float] = _stopped
    received: float = 0.0


class Encoder(Protocol):
    """Encodes events as the client's bytes; sans-io.

    A stream has one per call, which is kept over failed attempts (nothing is encoded before an attempt
    commits). A whole answer has one per attempt, which gets events as they come and writes nothing before the
    end.

    `continues = False`: an encoder of forwarded frames that no other encoder can continue; a cut answer then
    ends. `cuts = True`: an encoder of raw bytes without a place for an error; an error after the first byte
    closes the connection. An encoder whose stream has a state (open blocks) also has `go_on_from(other)`,
    which is called if the attempt that continues a cut answer has another encoder than the cut one, which
    forwarded frames.
    """

    @property
    def content_type(self) -> str: ...

    def start(self) -> bytes:
        """Returns the bytes that may be sent before the model is called (b"" in dialects that send nothing
        then)."""
        ...

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        """Returns the client's bytes; b"": nothing yet. After Finished the answer is complete, including the
        terminator."""
        ...

    def fail(self, error: GatewayError) -> bytes:
        """Returns the in-band error that ends a stream, including the terminator; nothing may be encoded
        after it."""
        ...

    def resume(self, started: Started) -> None:
        """Prepares for another attempt that continues a cut answer. From here on the answer is that attempt's
        model's. Nothing is repeated."""
        ...

    def restart(self) -> bytes:
        """Returns the bytes that tell the client to discard the text so far, because another answer begins;
        b"" if it could not understand them.

        If bytes are returned, the encoder itself has discarded the text, too.
        """
        ...

    def heartbeat(self) -> bytes:
        """Returns bytes that every client skips; b"" if the dialect has none (whole answers)."""
        ...


# --- routes


class RequestHead(Protocol):
    """A request without its body. Header names are lower case.

    `parameters`: the decoded values of the path's `{names}`.
    """

    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def query(self) -> Mapping[str, str]: ...
    @property
    def parameters(self) -> Mapping[str, str]: ...


class Head(msgspec.Struct, frozen=True):
    """The head of a request that no server has received."""

    headers: Mapping[str, str] = NO_FIELDS
    query: Mapping[str, str] = NO_FIELDS
    parameters: Mapping[str, str] = NO_FIELDS


Header = tuple[str, str]
Parse = Callable[[Any, RequestHead], ChatRequest]
"""Parses body and head into the request, with `stream` from the body, the path or the route. Raises
BadRequest with a reason for any invalid input, never another error.
"""


class AliasTerms(Protocol):
    """An alias's settings for requests: `system`, a prompt before messages; the longest message."""

    @property
    def system(self) -> str: ...
    @property
    def max_message_chars(self) -> int: ...


Prepare = Callable[[ChatRequest, AliasTerms], ChatRequest]
"""Adapts a request to its alias's settings. Raises BadRequest."""


class Uploaded(StoredForm, Protocol):
    """A form for a `CallRoute` that takes stored forms."""

    @property
    def parts(self) -> Sequence[FormPart]: ...


class CallRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A POST that is a call.

    `also`: other names of its path. `operation`: the operation of upstreams, if it is not a chat; `parse`
    then returns an OperationRequest, and the answer is an upstream's own, in the request's `dialect`. `form`:
    its body is a form (multipart/form-data) instead of JSON; a large one is passed to `parse` as an
    `Uploaded`. In a path `{name}` is a parameter, one segment or a part of one; `{+name}` may contain slashes
    (RFC 6570 3.2.3).
    """

    path: str
    parse: Parse
    also: tuple[str, ...] = ()
    prepare: Prepare | None = None
    operation: str = ""
    form: bool = False

    methods: ClassVar[tuple[str, ...]] = ("POST",)


class ResumeRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A GET that resumes a stream: the one of the path's parameter `stream`, or else of the header
    `Last-Event-ID`."""

    path: str
    also: tuple[str, ...] = ()

    methods: ClassVar[tuple[str, ...]] = ("GET",)


class KeptForCaller(Protocol):
    """The kept responses of one caller. Methods raise NotFound for an unknown id, Unavailable if the store is
    down."""

    async def response(self, id: str) -> bytes:
        """Returns the Response object."""
        ...

    async def input(self, id: str) -> list[dict[str, Any]]:
        """Returns the items that it answered, in their order."""
        ...

    async def delete(self, id: str) -> None: ...


class PastMessage(Protocol):
    """A message of a session's history, as it was sent or delivered. `role` is "user" or "assistant", `created`
    in seconds since the epoch; `interrupted`: an answer that was cut short.
    """

    @property
    def role(self) -> str: ...
    @property
    def content(self) -> str: ...
    @property
    def created(self) -> float: ...
    @property
    def interrupted(self) -> bool: ...


class HistoryForCaller(Protocol):
    """The conversations that the gateway keeps and one caller may read."""

    async def messages(self, session: str, limit: int) -> Sequence[PastMessage]:
        """Returns the last `limit` messages of the caller's session, oldest first; fewer where their texts are
        very long, none for a session without a turn.

        Raises Forbidden for a session that the caller may not use, Unavailable if the store is down.
        """
        ...


class Inquiry(Protocol):
    """A request to an endpoint, with its caller identified, and the facts about the gateway that an endpoint
    may use.

    `started`: when the process started, in whole seconds since the epoch.
    """

    @property
    def id(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def head(self) -> RequestHead: ...
    @property
    def started(self) -> int: ...
    @property
    def models(self) -> Sequence[str]:
        """Returns the aliases that the caller may use, in the configuration's order."""
        ...

    def facts(self, model: str) -> Facts:
        """Returns the facts about one of these."""
        return NOTHING_KNOWN

    @property
    def kept(self) -> "KeptForCaller | None":
        """The responses that are kept for the caller; None if the gateway keeps none."""
        ...

    @property
    def history(self) -> "HistoryForCaller | None":
        """The caller's conversations; None for an `open` endpoint, which has no caller."""
        return None

    async def json(self) -> dict[str, Any]:
        """Returns the body, an object. Raises GatewayError: UnsupportedMediaType, PayloadTooLarge, BadRequest
        …"""
        ...


class Reply(msgspec.Struct, frozen=True):
    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A route that is not a call, such as a list of models. `answer` raises GatewayError. GET includes HEAD.

    `open`: anybody is answered, without a key, within the limit of its address; there are no models then.
    """

    path: str
    answer: Callable[[Inquiry], Awaitable[Reply]]
    methods: tuple[str, ...] = ("GET",)
    also: tuple[str, ...] = ()
    open: bool = False


Route = CallRoute | ResumeRoute | Endpoint
PARAMETER = re.compile(r"\{(\+?)(\w+)\}")


def shape_of(path: str) -> str:
    """Returns a route's path with `*` for its parameters, as logs name it."""
    return PARAMETER.sub("*", path)


# --- the dialect


class Envelope(Protocol):
    """Renders a dialect's errors.

    `name`: its label in metrics. `marker`: a header that all its clients send. If two frontends have the same
    route, or claim, a request with this header goes to the one that has it as its marker. `id_headers`:
    headers that carry the request's id, besides `x-request-id` and `request-id`.
    """

    name: ClassVar[str]
    marker: ClassVar[str] = ""
    id_headers: ClassVar[tuple[str, ...]] = ()

    def error(self, error: GatewayError, request_id: str) -> dict[str, Any]:
        """Returns the JSON object of an error before a stream has begun; within one the encoder's `fail`
        writes it."""
        ...

    def status(self, error: GatewayError) -> int:
        """Returns the HTTP status of this error."""
        return status_of(error)

    def headers(self, pairs: Sequence[Header]) -> Sequence[Header]:
        """Returns an answer's own headers under the names that its clients use. Limits are `x-ratelimit-*`,
        as OpenAI has them, with `reset` as "12.345s". A dialect that does not override this has no cost."""
        return pairs


class Frontend(Envelope, Protocol):
    """One client dialect. It is made without arguments when the gateway starts, and keeps nothing between
    requests.

    name                   that of its entry point
    dialect                the dialect that backends may pass through verbatim ("": none)
    claims                 beginnings of paths for whose unknown paths it also answers; the longest one decides, "/" is
                           all the rest
    credential_headers     headers, in lower case, that may carry a key (besides `authorization` and `x-api-key`)
    credential_parameters  parameters of a URL's query that may, on its own routes
    request_headers        headers that its clients send, so pages may send them
    response_headers       headers that its clients read, so pages may read them
    numbered               its streams are server-sent events or lines of JSON objects, which can be numbered, and so
                           resumed if an alias is `resumable`
    any_content_type       bodies are read as JSON whatever their Content-Type, as the dialect's own server does. Only
                           for dialects whose keys come in headers, because then no page can send a request by a form
    greeting               the response of the dialect's own server to `GET /`, by which clients check that it runs
    """

    dialect: ClassVar[str] = ""
    numbered: ClassVar[bool] = False
    any_content_type: ClassVar[bool] = False
    greeting: ClassVar[str] = ""
    claims: ClassVar[tuple[str, ...]] = ()
    credential_headers: ClassVar[tuple[str, ...]] = ()
    credential_parameters: ClassVar[tuple[str, ...]] = ()
    request_headers: ClassVar[tuple[str, ...]] = ()
    response_headers: ClassVar[tuple[str, ...]] = ()

    def routes(self) -> Sequence[Route]: ...

    def encoder(self, chat: ChatRequest, answer: Answer, *, verbatim: bool = False) -> Encoder:
        """Makes the encoder of a stream or of a whole answer, depending on `chat.stream`."""
        ...

    def other_name(self, model: str) -> str:
        """Returns another name of a model, for when no alias is called `model`: clients of Ollama append
        ":latest"."""
        return ""


def in_query(name: str) -> str:
    """Returns the header that corresponds to a query parameter that may hold a key."""
    return f"?{name}"


def credential_names(frontends: Iterable[Frontend]) -> list[str]:
    """Returns further names of headers that may hold a key."""
    found: list[str] = []
    for frontend in frontends:
        found += [*frontend.credential_headers, *map(in_query, frontend.credential_parameters)]
    return found
