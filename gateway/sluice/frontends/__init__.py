"""Client dialects: bytes -> ChatRequest, events -> bytes. Pure; nothing here knows HTTP's status codes or sockets."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import msgspec

from sluice.errors import GatewayError
from sluice.model.chat import ChatRequest
from sluice.model.events import Started, StreamEvent


class Answer(msgspec.Struct, frozen=True):
    """What an encoder needs to know of its call. `conversation` is empty where no history is kept.

    `model` is the alias; it is what the caller sees as the model unless `reveal` (then the target's own name).
    `created` in whole seconds since the epoch. `id` is the request's id.
    """

    id: str
    model: str
    created: int
    conversation: str = ""
    reveal: bool = True


class Encoder(Protocol):
    """Events -> the client's bytes; sans-io.

    Of a stream: one per call, kept over failed attempts (nothing is fed before commit). Of a whole answer: one per attempt, fed
    as the answer comes; it says nothing before the end.
    """

    content_type: str

    def start(self) -> bytes:
        """What may be said before the model is called (b"" in dialects that say nothing then)."""
        ...

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        """b"" = nothing to say yet. After Finished the answer is complete, terminator included."""
        ...

    def fail(self, error: GatewayError) -> bytes:
        """The in-band error that ends a stream, terminator included; nothing may be encoded after it."""
        ...

    def resume(self, started: Started) -> None:
        """Another attempt goes on with an answer that was cut: from here on it is this model's. Nothing is said again."""
        ...

    def restart(self) -> bytes:
        """Tells the client to forget the text so far, because another answer begins; b"" where it could not understand.

        Where something is returned, the encoder itself has forgotten the text, too.
        """
        ...

    def heartbeat(self) -> bytes:
        """Bytes that every client skips; b"" where the dialect has none (whole answers)."""
        ...


class Frontend(Protocol):
    """One client dialect. `name` is its metrics label, `dialect` what backends may pass through verbatim ("" = none)."""

    name: ClassVar[str]
    dialect: ClassVar[str]

    def parse(self, body: bytes, headers: Mapping[str, str]) -> ChatRequest:
        """Raises BadRequest with a reason for anything wrong, never another error. Header names are lower case."""
        ...

    def encoder(self, chat: ChatRequest, answer: Answer, *, verbatim: bool = False) -> Encoder: ...

    def error(self, error: GatewayError, request_id: str) -> dict[str, Any]:
        """The JSON object that is answered before a stream has begun."""
        ...
