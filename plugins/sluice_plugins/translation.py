"""Translates the parts of requests that every dialect but OpenAI's needs translated; checks endpoints; makes
headers. Pure."""

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
"""Stands before the result of a tool that failed, in dialects without a field for that, unless it begins with
that word."""
SHOWN = "(The content of this tool's result follows.)"
"""The text of a result that has none, where its images and files follow in a user's message."""
OF_TOOLS = "From the tools' results:"
"""How such a message begins."""


class JSONSchema(msgspec.Struct):
    schema: dict[str, Any]


class ResponseFormat(msgspec.Struct):
    """OpenAI's `response_format`; `json_schema` is set exactly if `type` is "json_schema"."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JSONSchema | None = None


def check_endpoint(base_url: str, headers: Mapping[str, str]) -> None:
    """Raise ValueError for an unusable URL or header; the configuration's reader adds its place."""
    base_of(base_url)
    check_fields(headers.items())


def account_headers(
    accept: str, organization: str | None, project: str | None, more: Mapping[str, str]
) -> tuple[tuple[str, str], ...]:
    """The headers of a request to an API of OpenAI's: its account's, and `more` in place of any of the same
    name.

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
    """The image of a data: URL (RFC 2397), None for an http(s) URL. Raises BadRequest."""
    if is_http(url):
        return None
    inline = inline_data(url)
    if inline is None or not inline.media_type.startswith("image/"):
        raise BadRequest(
            "An image must be an http(s) URL, or a data: URL of an image in base64", param="messages"
        )
    return inline


def result_text(message: Message) -> str:
    """The text of a tool's result, for dialects without a field that says whether the tool failed."""
    text = message.text
    return f"{FAILED}{text}" if message.failed and not text.lower().startswith("error") else text


_TEXTS = frozenset({"application/json", "application/xml", "application/javascript", "application/yaml",
                    "application/x-yaml", "application/toml", "application/sql", "application/x-sh"})  # fmt: skip


def is_text(media_type: str) -> bool:
    """Returns whether files of this type are text, whatever their type is called."""
    return media_type.startswith("text/") or media_type in _TEXTS or media_type.endswith(("+json", "+xml"))


def type_of_name(name: Any) -> str:
    """The media type that a file's name tells; "" for none."""
    return (mimetypes.guess_type(name)[0] or "") if isinstance(name, str) else ""


def decoded_text(encoded: str) -> str:
    """Base64 decoded as UTF-8; invalid bytes become U+FFFD."""
    return b64decode(encoded).decode("utf-8", "replace")


def json_object(arguments: str) -> Raw:
    """A tool call's arguments unmodified, checked to be a JSON object; blank text becomes {}. Raises
    BadRequest."""
    text = arguments.strip() or "{}"
    try:
        msgspec.json.decode(text, type=dict[str, Any])
        return Raw(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise BadRequest("The arguments of a tool call must be a JSON object", param="messages") from None


UNREADABLE = "unreadable_arguments"
"""The name under which arguments that are no JSON object stand in one."""


def arguments_object(arguments: str) -> Raw:
    """The arguments of an earlier call as the JSON object that vendors insist on.

    Models write other things at times (half an object where the answer was cut, a list), and callers cannot
    take that back: it is put into an object as text. Blank text, `null` and PHP's `[]` are no arguments.
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
    """The requested format of the answer, text by default. Raises BadRequest."""
    try:
        parsed = msgspec.convert(wanted or {}, ResponseFormat)
    except msgspec.ValidationError as error:
        raise BadRequest(f"response_format: {error}", param="response_format") from None
    if parsed.type == "json_schema" and parsed.json_schema is None:
        raise BadRequest(
            "response_format of type json_schema needs json_schema.schema", param="response_format"
        )
    return parsed
