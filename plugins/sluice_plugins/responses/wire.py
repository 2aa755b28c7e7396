"""The types of events and objects in a Responses answer: the fields that are used, each of which may be
missing.

Standard: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from typing import Any

import msgspec

from sluice.model.events import Usage


class InputDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class Used(msgspec.Struct, gc=False):
    """Usage as the API reports it."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    input_tokens_details: InputDetails | None = None
    output_tokens_details: OutputDetails | None = None

    def usage(self) -> Usage:
        read, thought = self.input_tokens_details, self.output_tokens_details
        return Usage(
            input=self.input_tokens or 0,
            output=self.output_tokens or 0,
            cached_input=(read and read.cached_tokens) or 0,
            reasoning=(thought and thought.reasoning_tokens) or 0,
            total=self.total_tokens or 0,
            written_input=(read and read.cache_write_tokens) or 0,
        )


class Annotation(msgspec.Struct):
    """A citation in a text: of a URL or a file."""

    type: str = ""
    url: str | None = None
    title: str | None = None
    filename: str | None = None
    start_index: int | None = None
    end_index: int | None = None
    index: int | None = None


class ItemPart(msgspec.Struct):
    """A part of a message or of reasoning."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None
    annotations: list[Annotation] | None = None


class Item(msgspec.Struct):
    """An item of the output: a message, reasoning, a call of the caller's tool, or of a tool that the
    provider runs itself."""

    type: str = ""
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: msgspec.Raw = msgspec.Raw(b"")
    input: str | None = None
    content: list[ItemPart] | None = None
    summary: list[ItemPart] | None = None
    encrypted_content: str | None = None
    action: Any = None


class Details(msgspec.Struct):
    reason: str | None = None


class Response(msgspec.Struct):
    """A Response: the whole answer with its status and usage."""

    id: str | None = None
    model: str | None = None
    status: str | None = None
    error: Any = None
    incomplete_details: Details | None = None
    output: list[Item] | None = None
    usage: Used | None = None


class ResponsesEvent(msgspec.Struct):
    """Any event of the stream. It is one type, not a union, so that an unknown event type is not an error."""

    type: str = ""
    output_index: int | None = None
    item_id: str | None = None
    delta: str | None = None
    text: str | None = None
    refusal: str | None = None
    arguments: str | None = None
    input: str | None = None
    item: Item | None = None
    annotation: Annotation | None = None
    response: Response | None = None
    error: Any = None


decode_event = msgspec.json.Decoder(ResponsesEvent).decode
decode_response = msgspec.json.Decoder(Response).decode
