"""What an upstream answers, in one vocabulary for every dialect.

Grammar of one answer: one `Started`, any deltas, one `Finished`. Failure is an exception
(`gateway.errors.UpstreamError`), so nobody can forget to check for it.

`Verbatim` stands beside the grammar: where client and upstream speak the same dialect the decoder
adds, at the end of each batch, the complete frames as they came, for the encoder to forward.
"""

from typing import Literal

import msgspec

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
ToolKind = Literal["function", "server"]


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Token counts as the provider billed them. `cached_input` is part of `input`, `reasoning` of `output`."""

    input: int = 0
    output: int = 0
    cached_input: int = 0
    reasoning: int = 0


class Started(msgspec.Struct, frozen=True, gc=False):
    """The upstream began to answer. `id` and `model` as it names them, empty where it does not."""

    id: str = ""
    model: str = ""


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    text: str


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False):
    text: str


class ToolCallStarted(msgspec.Struct, frozen=True, gc=False):
    """`index` counts the answer's tool calls from 0. A `server` tool is run by the provider, never by the client."""

    index: int
    id: str
    name: str
    kind: ToolKind = "function"


class ToolCallDelta(msgspec.Struct, frozen=True, gc=False):
    """The next piece of the JSON text of one call's arguments."""

    index: int
    arguments: str


class Finished(msgspec.Struct, frozen=True, gc=False):
    """The answer is complete. `native` is the provider's own word for why.

    `cost` in US dollars is added on the way, where callers are told it.
    """

    reason: FinishReason
    usage: Usage | None = None
    native: str = ""
    cost: float | None = None


class Verbatim(msgspec.Struct, frozen=True, gc=False):
    """Complete frames of the upstream's bytes, to be forwarded as they are (same dialect only).

    `whole`: no frames, but a whole answer as it came, in one piece.
    """

    data: bytes
    whole: bool = False


StreamEvent = Started | TextDelta | ReasoningDelta | ToolCallStarted | ToolCallDelta | Finished | Verbatim
