"""Helpers that several backends use to build requests: checks of URLs, headers of OpenAI's APIs, inline
images, texts, tool call arguments, response formats. Pure functions."""

import mimetypes
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Raw

from sluice.errors import BadRequest
from sluice.model.chat import Message
from sluice.wire.baseurl import base_of
from sluice.wire.dataurl import Inline, inline_data, is_http
from sluice.wire.fields import check_fields

FAILED = "Error: "
"""Put before the result of a tool that failed, in dialects without a field for that, unless the result begins
with this word."""
SHOWN = "(The content of this tool's result follows.)"
"""The text of a result without text, whose images and files follow in a user message."""
OF_TOOLS = "From the tools' results:"
"""The first text of that user message."""


class JSONSchema(msgspec.Struct):
    schema: dict[str, Any]


class ResponseFormat(msgspec.Struct):
    """OpenAI's `response_format`; `json_schema` is set exactly if `type` is "json_schema"."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JSONSchema | None = None


def check_endpoint(base_url: str, headers: Mapping[str, str]) -> None:
    """Raise ValueError for an unusable URL or header; the reader of the configuration adds where it
    stands."""
    base_of(base_url)
    check_fields(headers.items())


def account_headers(
    accept: str, organization: str | None, project: str | None, more: Mapping[str, str]
) -> tuple[tuple[str, str], ...]:
    """Returns the headers of a request to OpenAI's API: accept, organization and project. Headers in `more`
    replace those of the same name.

    Standard: https://platform.openai.com/docs/api-reference/authentication
    """
    headers = {"accept": accept, "content-type": "application/json"}
    if organization is not None:
        headers["openai-organization"] = organization
    if project is not None:
        headers["openai-project"] = project
    headers.update((name.lower(), value) for name, value in more.items())
    return tuple(headers.items())


def inline_image(url: str) -> Inline | None:
    """Returns the image in a data: URL (RFC 2397), None for an http(s) URL. Raises BadRequest."""
    if is_http(url):
        return None
    inline = inline_data(url)
    if inline is None or not inline.media_type.startswith("image/"):
        raise BadRequest(
            "An image must be an http(s) URL, or a data: URL of an image in base64", param="messages"
        )
    return inline


def result_text(message: Message) -> str:
    """Returns the text of a tool's result, for dialects without a field that says that the tool failed."""
    text = message.text
    return f"{FAILED}{text}" if message.failed and not text.lower().startswith("error") else text


_TEXTS = frozenset({"application/json", "application/xml", "application/javascript", "application/yaml",
                    "application/x-yaml", "application/toml", "application/sql", "application/x-sh"})  # fmt: skip


def is_text(media_type: str) -> bool:
    """Returns whether files of this media type are text, even if the type does not begin with text/."""
    return media_type.startswith("text/") or media_type in _TEXTS or media_type.endswith(("+json", "+xml"))


def type_of_name(name: Any) -> str:
    """Returns the media type that a file's name implies; "" if none."""
    return (mimetypes.guess_type(name)[0] or "") if isinstance(name, str) else ""


def decoded_text(encoded: str) -> str:
    """Returns Base64 decoded as UTF-8; invalid bytes become U+FFFD."""
    return b64decode(encoded).decode("utf-8", "replace")


def json_object(arguments: str) -> Raw:
    """Returns a tool call's arguments unmodified if they are a JSON object; blank text becomes {}. Raises
    BadRequest for anything else."""
    text = arguments.strip() or "{}"
    try:
        msgspec.json.decode(text, type=dict[str, Any])
        return Raw(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise BadRequest("The arguments of a tool call must be a JSON object", param="messages") from None


UNREADABLE = "unreadable_arguments"
"""The member that holds arguments that are not a JSON object."""


def arguments_object(arguments: str) -> Raw:
    """Returns the arguments of an earlier tool call as a JSON object, which vendors insist on.

    Models sometimes write something else (half an object in a truncated answer, a list), which a caller
    cannot change afterwards: such a text becomes a member of an object. Blank text, `null` and PHP's `[]`
    become {}.
    """
    text = arguments.strip()
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()  # half a surrogate pair
    try:
        value = msgspec.json.decode(text) if text else None
    except (msgspec.DecodeError, RecursionError):
        return Raw(msgspec.json.encode({UNREADABLE: text}))
    if type(value) is dict:
        return Raw(text)
    return Raw(b"{}" if not value and type(value) in _NOTHING else msgspec.json.encode({UNREADABLE: text}))


_NOTHING = (type(None), list, str)


def response_format(wanted: Mapping[str, Any] | None) -> ResponseFormat:
    """Returns the requested format of the answer; text if none was requested. Raises BadRequest."""
    try:
        parsed = msgspec.convert(wanted or {}, ResponseFormat)
    except msgspec.ValidationError as error:
        raise BadRequest(f"response_format: {error}", param="response_format") from None
    if parsed.type == "json_schema" and parsed.json_schema is None:
        raise BadRequest(
            "response_format of type json_schema needs json_schema.schema", param="response_format"
        )
    return parsed
