"""Events of an upstream's answer, in one vocabulary for all dialects.

An answer is one `Started`, any number of deltas, and one `Finished`. A failure is an exception
(`sluice.errors.UpstreamError`), so it cannot be overlooked. `Verbatim` may occur between any of these: if
client and upstream speak the same dialect, the decoder adds, at the end of each batch, the complete frames as
they came, for the encoder to forward.
"""

from typing import Literal

import msgspec

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
ToolKind = Literal["function", "server"]


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Token counts, as billed.

    `cached_input` and `written_input` are part of `input`; `reasoning` is part of `output`. `cached_input`
    was read from the provider's prompt cache, `written_input` was written to it, and `written_input_1h` is
    the part of that which is kept for an hour. `total`: the provider's own total, if reported (xAI's is more
    than the sum), else 0.
    """

    input: int = 0
    output: int = 0
    cached_input: int = 0
    reasoning: int = 0
    total: int = 0
    written_input: int = 0
    written_input_1h: int = 0

    @property
    def tokens(self) -> int:
        """The number of all tokens: the provider's own total, else the sum."""
        return self.total or self.input + self.output

    def plus(self, other: "Usage") -> "Usage":
        """The sum of the usage of two attempts."""
        total = self.tokens + other.tokens if self.total or other.total else 0
        return Usage(
            self.input + other.input,
            self.output + other.output,
            self.cached_input + other.cached_input,
            self.reasoning + other.reasoning,
            total,
            self.written_input + other.written_input,
            self.written_input_1h + other.written_input_1h,
        )


MAX_TOKENS = 1_000_000_000
"""Maximum count of tokens that is accepted for one answer."""


def believed(usage: Usage) -> Usage | None:
    """Returns the usage with whole numbers; None if a count is not a whole number from 0 to MAX_TOKENS. 12.0
    is a whole number.

    Decoders pass counts on as providers send them: a plugin may pass on a float, a string, or an integer of
    400 digits, and arithmetic on those could fail anywhere later.
    """
    input, output, cached, reasoning = usage.input, usage.output, usage.cached_input, usage.reasoning
    if type(input) is type(output) is int:
        try:
            bits = (
                input
                | output
                | cached
                | reasoning
                | usage.total
                | usage.written_input
                | usage.written_input_1h
            )
        except TypeError:  # one of the others is not an integer
            bits = -1
        if (
            0 <= bits <= MAX_TOKENS and cached is not True and reasoning is not True
        ):  # then each of them is: most usages
            return usage
    if usage.total and not (type(usage.total) is int and 0 <= usage.total <= 2 * MAX_TOKENS):
        usage = msgspec.structs.replace(usage, total=0)  # the sum is used instead
    if usage.written_input or usage.written_input_1h:  # without them, it is paid as the rest of the input
        usage = msgspec.structs.replace(
            usage,
            written_input=believed_count(usage.written_input) or 0,
            written_input_1h=believed_count(usage.written_input_1h) or 0,
        )
    if (
        type(input) is type(output) is type(cached) is type(reasoning) is int
        and 0 <= input <= MAX_TOKENS
        and 0 <= output <= MAX_TOKENS
        and 0 <= cached <= MAX_TOKENS
        and 0 <= reasoning <= MAX_TOKENS
    ):
        return usage
    counts = [believed_count(value) for value in (input, output, cached, reasoning)]
    written = usage.written_input, usage.written_input_1h
    return None if None in counts else Usage(*counts, usage.total, *written)  # type: ignore[arg-type, call-arg]


def believed_count(value: object) -> int | None:
    """Returns a count of tokens as a whole number; None if it is not one from 0 to MAX_TOKENS. 12.0 is a
    whole number."""
    if type(value) is float and value.is_integer():  # never true of an infinity
        value = int(value)
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None


class Started(msgspec.Struct, frozen=True, gc=False):
    """The upstream has begun to answer. `id` and `model`: as reported, else empty. `usage`: the prompt's, if
    it is reported first."""

    id: str = ""
    model: str = ""
    usage: Usage | None = None


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    text: str


class RefusalDelta(TextDelta, frozen=True, gc=False):
    """A piece of the text by which the model declines to answer (`refusal` of OpenAI's two APIs).

    Whatever does not distinguish refusals treats it as text: dialects without a place for it, stages,
    sessions.
    """


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False):
    text: str


class ReasoningBlock(msgspec.Struct, frozen=True, gc=False):
    """A complete block of reasoning, in the form in which the provider needs it back in the next round of a
    tool loop.

    `index` counts the answer's blocks from 0. `text`: the full text, already sent in deltas; `signature`: the
    provider's. `redacted`: the data of an encrypted block, which has no text.
    """

    index: int
    text: str = ""
    signature: str = ""
    redacted: str = ""


class Working(msgspec.Struct, frozen=True, gc=False):
    """The model is working without visible output. `model`: the model that answers from here on; "" no
    change."""

    model: str = ""


class Cited(msgspec.Struct, frozen=True, gc=False):
    """A source of the answer's text (a citation, or a search result).

    `start`, `end`: the characters of the answer's text that it supports, counted from the answer's beginning;
    -1 if the provider does not say. `quote`: the source's text, if reported. `url` is empty if the source is
    a document of the request, whose name is `title`.
    """

    url: str = ""
    title: str = ""
    start: int = -1
    end: int = -1
    quote: str = ""


class ToolCallStarted(msgspec.Struct, frozen=True, gc=False):
    """A tool call has begun. `index` counts the answer's tool calls from 0. A `server` tool is run by the
    provider, never by the client. `signature`: Google's seal on the call, which has to be sent back with
    the call."""

    index: int
    id: str
    name: str
    kind: ToolKind = "function"
    signature: str = ""


class ToolCallDelta(msgspec.Struct, frozen=True, gc=False):
    """The next piece of the JSON text of one call's arguments."""

    index: int
    arguments: str


class Finished(msgspec.Struct, frozen=True, gc=False):
    """The answer is complete. `native` is the provider's own finish reason, `stop_sequence` what ended the
    answer, if reported.

    `cost` in US dollars is added later, if it is reported to callers.
    """

    reason: FinishReason
    usage: Usage | None = None
    native: str = ""
    cost: float | None = None
    stop_sequence: str = ""


def with_refusal(reason: FinishReason, refused: bool) -> FinishReason:
    """Returns the finish reason for dialects that show a refusal only by the finish reason (Anthropic's
    `refusal`, Gemini's `SAFETY`): OpenAI ends a refusal with `stop`. docs/models.md lists what each
    dialect shows."""
    return "content_filter" if refused and reason == "stop" else reason


class Verbatim(msgspec.Struct, frozen=True, gc=False):
    """Complete frames of the upstream's bytes, to be forwarded unchanged (same dialect only). `whole`: the
    body of a whole answer instead of frames. `made`: the gateway has written it, from another dialect's
    answer."""

    data: bytes
    whole: bool = False
    made: bool = False


StreamEvent = (
    Started
    | TextDelta
    | RefusalDelta
    | ReasoningDelta
    | ReasoningBlock
    | Working
    | Cited
    | ToolCallStarted
    | ToolCallDelta
    | Finished
    | Verbatim
)
