"""Requests that are forms: `/v1/audio/transcriptions`, `/v1/audio/translations` and `/v1/images/edits`.

A form is forwarded unchanged, except for the model's name. It is kept until it has been sent, a large one in
a file (`Uploaded`): `server.form_limit` bounds it.

Standards: https://platform.openai.com/docs/api-reference/audio/createTranscription,
https://platform.openai.com/docs/api-reference/images/createEdit
"""

from collections.abc import Sequence

from sluice.errors import BadRequest
from sluice.frontends import RequestHead, Uploaded
from sluice.frontends.checks import refused
from sluice.model.chat import TOKENS_OF_AN_IMAGE
from sluice.model.operations import FormRequest
from sluice.wire.multipart import MAX_VALUE, FormPart, boundary_of, parts_of

TEXTS = ("text", "srt", "vtt")
"""Values of `response_format` that are no JSON."""
BYTES_PER_TOKEN = 1000
"""Estimate for audio: about ten tokens per second, and ten thousand bytes per second of a usual file."""
LOOKED_AT = ("model", "response_format", "stream")
Body = bytes | Uploaded


def transcription(body: Body, head: RequestHead) -> FormRequest:
    return _sound("transcriptions", body, head)


def translation(body: Body, head: RequestHead) -> FormRequest:
    return _sound("translations", body, head)


def edit(body: Body, head: RequestHead) -> FormRequest:
    """Parses a request for edited images; the answer has all of them."""
    parts, values = _form(body, head)
    if values.get("stream", "").lower() in ("true", "1"):
        raise BadRequest(
            "stream: images are answered in one piece here", param="stream", code="unsupported_parameter"
        )
    images = sum(part.name in ("image", "image[]") for part in parts)
    if not images:
        raise refused("image", "is required")
    return _request("image_edits", body, head, parts, values, tokens=images * TOKENS_OF_AN_IMAGE)


def _sound(operation: str, body: Body, head: RequestHead) -> FormRequest:
    parts, values = _form(body, head)
    file = next((part for part in parts if part.name == "file"), None)
    if file is None:
        raise refused("file", "is required")
    tokens = (file.end - file.start) // BYTES_PER_TOKEN
    return _request(operation, body, head, parts, values, tokens=tokens)


def _form(body: Body, head: RequestHead) -> tuple[Sequence[FormPart], dict[str, str]]:
    """Returns the parts, and the values that are read. A name that another parser might take for one of them
    is refused.
    """
    try:
        parts = (
            parts_of(body, boundary_of(head.headers.get("content-type", "")))
            if isinstance(body, bytes)
            else body.parts
        )
    except ValueError as error:
        raise BadRequest(f"The form {error}") from None
    values: dict[str, str] = {}
    for part in parts:
        name = part.name.strip().lower()
        if name not in LOOKED_AT:
            continue
        if part.name != name or part.name in values or part.file or len(part.value) > MAX_VALUE:
            raise refused(name, "must be given once, as a short text under this very name")
        try:
            values[name] = part.value.decode()
        except UnicodeDecodeError:
            raise refused(name, "must be UTF-8") from None
    return parts, values


def _request(
    operation: str,
    body: Body,
    head: RequestHead,
    parts: Sequence[FormPart],
    values: dict[str, str],
    *,
    tokens: int,
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
        body=body if isinstance(body, bytes) else b"",
        stored=None if isinstance(body, bytes) else body,
        operation=operation,
        tokens=tokens,
        longest=tokens,
        media_type="text/event-stream"
        if streams
        else "text/plain; charset=utf-8"
        if text
        else "application/json",
        form=head.headers["content-type"],
        at=(named.start, named.end) if named is not None else None,
    )
