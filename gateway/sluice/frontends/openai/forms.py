"""Requests that are forms: `/v1/audio/transcriptions`, `/v1/audio/translations` and `/v1/images/edits`.

A form goes to the upstream as it came, but for the model's name. It is held until it was sent: `server.body_limit` bounds it.

Standards: https://platform.openai.com/docs/api-reference/audio/createTranscription,
https://platform.openai.com/docs/api-reference/images/createEdit
"""

from sluice.errors import BadRequest
from sluice.frontends import RequestHead
from sluice.frontends.checks import refused
from sluice.model.chat import TOKENS_OF_AN_IMAGE
from sluice.model.operations import FormRequest
from sluice.wire.multipart import FormPart, boundary_of, parts_of

TEXTS = ("text", "srt", "vtt")
"""Values of `response_format` that are no JSON."""
BYTES_PER_TOKEN = 1000
"""Of sound: about ten tokens a second, and ten thousand bytes of a usual file."""
LOOKED_AT = ("model", "response_format", "stream")
LONGEST = 256
"""Bytes of these values."""


def transcription(body: bytes, head: RequestHead) -> FormRequest:
    return _sound("transcriptions", body, head)


def translation(body: bytes, head: RequestHead) -> FormRequest:
    return _sound("translations", body, head)


def edit(body: bytes, head: RequestHead) -> FormRequest:
    """One answer with all its images."""
    parts, values = _form(body, head)
    if values.get("stream", "").lower() in ("true", "1"):
        raise BadRequest("stream: images are answered in one piece here", param="stream", code="unsupported_parameter")
    images = sum(part.name in ("image", "image[]") for part in parts)
    if not images:
        raise refused("image", "is required")
    return _request("image_edits", body, head, parts, values, images * TOKENS_OF_AN_IMAGE)


def _sound(operation: str, body: bytes, head: RequestHead) -> FormRequest:
    parts, values = _form(body, head)
    file = next((part for part in parts if part.name == "file"), None)
    if file is None:
        raise refused("file", "is required")
    return _request(operation, body, head, parts, values, (file.end - file.start) // BYTES_PER_TOKEN)


def _form(body: bytes, head: RequestHead) -> tuple[list[FormPart], dict[str, str]]:
    """The parts, and the values that are looked at. A name that another parser might take for one of them is refused."""
    try:
        parts = [*parts_of(body, boundary_of(head.headers.get("content-type", "")))]
    except ValueError as error:
        raise BadRequest(f"The form {error}") from None
    values: dict[str, str] = {}
    for part in parts:
        name = part.name.strip().lower()
        if name not in LOOKED_AT:
            continue
        if part.name != name or part.name in values or part.file or part.end - part.start > LONGEST:
            raise refused(name, "must be given once, as a short text under this very name")
        try:
            values[name] = body[part.start : part.end].decode()
        except UnicodeDecodeError:
            raise refused(name, "must be UTF-8") from None
    return parts, values


def _request(
    operation: str, body: bytes, head: RequestHead, parts: list[FormPart], values: dict[str, str], tokens: int
) -> FormRequest:
    if values.get("model") == "":
        raise refused("model", "must not be empty")
    named = next((part for part in parts if part.name == "model"), None)
    streams = values.get("stream", "").lower() in ("true", "1")
    text = values.get("response_format") in TEXTS
    return FormRequest(
        "openai",
        values.get("model"),
        (),
        stream=streams,
        body=body,
        operation=operation,
        tokens=tokens,
        longest=tokens,
        media_type="text/event-stream" if streams else "text/plain; charset=utf-8" if text else "application/json",
        form=head.headers["content-type"],
        at=(named.start, named.end) if named is not None else None,
    )
