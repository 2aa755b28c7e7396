"""The interface of frontends: each is one client dialect, as a plugin. Discovery is by entry point
`sluice.frontends` (`registry.py`).

A frontend brings its routes, how their requests are read, how answers and errors are written, and the names
of headers that its clients know. It is pure: bytes -> ChatRequest, events -> bytes, errors -> a status and a
JSON object; no sockets, no clock.
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
    """The properties of a call that an encoder uses. `conversation` is empty where no history is kept.

    `model` is the alias; it is what the caller sees as the model unless `reveal` (then the target's own
    name). `created` in whole seconds since the epoch. `id` is the request's id. `clock` and `received` (when
    the request came) are monotonic, in seconds: for dialects that tell how long an answer took.
    """

    id: str
    model: str
    created: int
    conversation: str = ""
    reveal: bool = True
    clock: Callable[[], float] = _stopped
    received: float = 0.0


class Encoder(Protocol):
    """Events -> the client's bytes; sans-io.

    Of a stream: one per call, kept over failed attempts (nothing is fed before commit). Of a whole answer:
    one per attempt, fed as the answer comes; it says nothing before the end. An encoder of frames that
    another one could not go on from has `continues = False`: the answer, once cut, ends then. One of bytes in
    which nothing can be told has `cuts = True`: an error behind the first of them closes the connection.

    One whose stream has a state (blocks that are open) also has `go_on_from(other)`: it is called where the
    attempt that continues a cut answer has another encoder than the cut one, which passed frames on.
    """

    content_type: str

    def start(self) -> bytes:
        """The bytes that may be sent before the model is called (b"" in dialects that send nothing then)."""
        ...

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        """b"" = nothing to say yet. After Finished the answer is complete, terminator included."""
        ...

    def fail(self, error: GatewayError) -> bytes:
        """The in-band error that ends a stream, terminator included; nothing may be encoded after it."""
        ...

    def resume(self, started: Started) -> None:
        """Another attempt goes on with an answer that was cut: from here on it is this model's. Nothing is
        said again."""
        ...

    def restart(self) -> bytes:
        """Tells the client to forget the text so far, because another answer begins; b"" where it could not
        understand.

        Where something is returned, the encoder itself has forgotten the text, too.
        """
        ...

    def heartbeat(self) -> bytes:
        """Bytes that every client skips; b"" where the dialect has none (whole answers)."""
        ...


# --- routes


class RequestHead(Protocol):
    """A request without its body: what a dialect may read beside it. Header names are lower case.

    `parameters`: what stands in the path in place of its `{names}`, decoded.
    """

    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def query(self) -> Mapping[str, str]: ...
    @property
    def parameters(self) -> Mapping[str, str]: ...


class Head(msgspec.Struct, frozen=True):
    """A request's head, where there is no server that has one."""

    headers: Mapping[str, str] = NO_FIELDS
    query: Mapping[str, str] = NO_FIELDS
    parameters: Mapping[str, str] = NO_FIELDS


Header = tuple[str, str]
Parse = Callable[[Any, RequestHead], ChatRequest]
"""Body and head -> the request, `stream` as the body, the path or the route has it. Raises BadRequest with a
reason for anything wrong, never another error."""


class AliasTerms(Protocol):
    """An alias's settings for requests: `system`, a prompt before messages; the longest message."""

    @property
    def system(self) -> str: ...
    @property
    def max_message_chars(self) -> int: ...


Prepare = Callable[[ChatRequest, AliasTerms], ChatRequest]
"""Makes of a request what its alias wants. Raises BadRequest."""


class Uploaded(StoredForm, Protocol):
    """A form of a `CallRoute` that takes stored ones."""

    @property
    def parts(self) -> Sequence[FormPart]: ...


class CallRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A POST that is a call. `also`: other names of its path. `operation`: what is asked of upstreams, where
    that is no chat; `parse` then gives an OperationRequest, and the answer is an upstream's own, which speaks
    the request's `dialect`. `form`: its body is a form (multipart/form-data), and no JSON; a large one is
    given to `parse` as an `Uploaded`.

    In a path `{name}` is a parameter, one segment or a part of one; `{+name}` may hold slashes (RFC 6570
    3.2.3).
    """

    path: str
    parse: Parse
    also: tuple[str, ...] = ()
    prepare: Prepare | None = None
    operation: str = ""
    form: bool = False

    methods: ClassVar[tuple[str, ...]] = ("POST",)


class ResumeRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A GET that goes on with a stream: of the path's parameter `stream`, or without one of the header
    `Last-Event-ID`."""

    path: str
    also: tuple[str, ...] = ()

    methods: ClassVar[tuple[str, ...]] = ("GET",)


class KeptForCaller(Protocol):
    """The kept responses of one caller. Methods raise NotFound for an unknown id, Unavailable if the store is
    down."""

    async def response(self, id: str) -> bytes:
        """The Response object."""
        ...

    async def input(self, id: str) -> list[dict[str, Any]]:
        """The items that it answered, the first one first."""
        ...

    async def delete(self, id: str) -> None: ...


class Inquiry(Protocol):
    """A request to an endpoint, its caller recognized, and what an endpoint may know of the gateway.

    `started`: when the process was, in whole seconds since the epoch.
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
        """The aliases that the caller may use, in the configuration's order."""
        ...

    def facts(self, model: str) -> Facts:
        """What is known of one of these."""
        return NOTHING_KNOWN

    @property
    def kept(self) -> "KeptForCaller | None":
        """The responses that are kept for the caller; None where none are kept for anybody."""
        ...

    async def json(self) -> dict[str, Any]:
        """The body, an object. Raises GatewayError: UnsupportedMediaType, PayloadTooLarge, BadRequest …"""
        ...


class Reply(msgspec.Struct, frozen=True):
    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A route that is no call: a list of models and the like. `answer` raises GatewayError. HEAD comes with
    GET.

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
    """A route's path with `*` for its parameters: logs name it so."""
    return PARAMETER.sub("*", path)


# --- the dialect


class Envelope(Protocol):
    """Renders a dialect's errors. `name` is its label in metrics.

    `marker`: a header that all its clients send. Where two frontends have the same route, or claim, a request
    with this header is the one's that has it as its marker. `id_headers` tell the request's id, beside
    `x-request-id` and `request-id`.
    """

    name: ClassVar[str]
    marker: ClassVar[str] = ""
    id_headers: ClassVar[tuple[str, ...]] = ()

    def error(self, error: GatewayError, request_id: str) -> dict[str, Any]:
        """The JSON object that is answered before a stream has begun; within one it is the encoder's to
        `fail`."""
        ...

    def status(self, error: GatewayError) -> int:
        """The HTTP status that goes with it."""
        return status_of(error)

    def headers(self, pairs: Sequence[Header]) -> Sequence[Header]:
        """An answer's own headers under the names that its clients know: limits are `x-ratelimit-*`, as
        OpenAI has them, with `reset` as "12.345s". A dialect that leaves this alone pays nothing for it."""
        return pairs


class Frontend(Envelope, Protocol):
    """One client dialect. Made without arguments when the gateway starts; it keeps nothing between requests.

    `name` is its entry point's. `dialect`: what backends may pass through verbatim ("" = none). `claims`:
    beginnings of paths where it also answers for what is not there; the longest one decides, "/" is all the
    rest. Header names are lower case: `credential_headers` may hold a key (beside `authorization` and
    `x-api-key`, which always may), and so may the `credential_parameters` of a URL's query, on its own
    routes; `request_headers` are those that its clients send, `response_headers` those that they read, so
    pages may. `numbered`: its streams are server-sent events or lines of JSON objects, which can be numbered,
    and so gone on with where an alias is `resumable`. `any_content_type`: bodies are read as JSON whatever
    their Content-Type says, as the dialect's own server does. Only for dialects whose keys come in headers:
    then no page can send a request by a form.
    """

    dialect: ClassVar[str] = ""
    numbered: ClassVar[bool] = False
    any_content_type: ClassVar[bool] = False
    claims: ClassVar[tuple[str, ...]] = ()
    credential_headers: ClassVar[tuple[str, ...]] = ()
    credential_parameters: ClassVar[tuple[str, ...]] = ()
    request_headers: ClassVar[tuple[str, ...]] = ()
    response_headers: ClassVar[tuple[str, ...]] = ()

    def routes(self) -> Sequence[Route]: ...

    def encoder(self, chat: ChatRequest, answer: Answer, *, verbatim: bool = False) -> Encoder:
        """Of a stream or of a whole answer, as `chat.stream` says."""
        ...

    def other_name(self, model: str) -> str:
        """How a model may also be called, where no alias is called `model`: clients of Ollama put ":latest"
        behind it."""
        return ""


def in_query(name: str) -> str:
    """What a parameter of the query that may hold a key is called among the headers that may."""
    return f"?{name}"


def credential_names(frontends: Iterable[Frontend]) -> list[str]:
    """Under which further names keys may come."""
    found: list[str] = []
    for frontend in frontends:
        found += [*frontend.credential_headers, *map(in_query, frontend.credential_parameters)]
    return found
