"""Parses the body of an error, of any vendor: bytes, or a decoded object -> a `Reason`.

Vendors' formats differ: `{"error": {"message", "type", "code"}}` (OpenAI, Anthropic, Azure, Google inside a
list), `{"error": "text"}` (Ollama, xAI), `{"detail": …}` (FastAPI), `{"message": …}` (Mistral, Cohere, AWS),
`{"object": "error"}` (vLLM, SGLang), `{"base_resp": …}` (MiniMax), `{"Response": {"Error": …}}` (Tencent),
`{"error_code", "error_msg"}` (Baidu), one of them as text inside another (OpenRouter, Google's SDKs), text,
or a page of HTML. `sluice.wire.upstream_errors` interprets the result.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from sluice.wire.jsontext import value_of
from sluice.wire.retry_after import parse_duration, parse_reset, parse_retry_after

MAX_WORDS = 4000
"""Maximum characters of one error's texts that are searched for their meaning."""
MAX_DEPTH = 8
MAX_NODES = 200
MAX_FIELDS = 3
"""Maximum fields of a refused request that the message names."""
MAX_STEPS = 20
"""Maximum steps of the path to such a field."""

_GENERIC = frozenset(
    {
        "", "provider returned error", "upstream request failed", "upstream error", "bad request", "error",
        "request contains an invalid argument", "validation error", "unprocessable entity", "internal server error",
    }
)  # fmt: skip
"""Messages without information, where the provider's own message is nested further inside."""
_NOT_MESSAGES = re.compile(
    r"stack|trace|input|param|url|loc$|generation|prompt|request_?id|^(?:choices|ctx|headers)$", re.IGNORECASE
).search
"""Members of an error object that are not its message: the caller's own input, or data for the provider's
staff."""

_MESSAGES = (
    "message",
    "Message",
    "errorMessage",
    "error_message",
    "status_msg",
    "msg",
    "error_msg",
    "error_description",
)
_WITHIN = (
    "error", "message", "detail", "details", "errors", "base_resp", "metadata", "innererror", "inner_error", "raw", "body",
    "response", "data", "cause", "choices", "Response", "Error",
)  # fmt: skip
_CODES = (
    "code",
    "reason",
    "error_code",
    "errorCode",
    "Code",
    "type",
    "error_type",
    "status",
    "__type",
    "name",
    "kind",
)
_NAMED = frozenset({"code", "error_code", "errorCode"})
_STATUSES = (
    "status_code", "code", "raw_status_code", "status", "http_code", "http_status_code", "http_status", "statusCode",
    "httpStatus",
)  # fmt: skip
_SECONDS = (
    "retryDelay",
    "quotaResetDelay",
    "retry_after",
    "retryAfter",
    "retry_after_seconds",
    "estimated_time",
    "Retry-After",
    "retry-after",
)
_MILLISECONDS = ("retry_after_ms", "retryAfterMs")
_HTTP_STATUS = re.compile(r"[45][0-9]{2}\Z").match
_NAME = re.compile(r"[A-Za-z][A-Za-z_.]{2,63}\Z").match
"""A code that may be shown to callers. It has no digits, because those could be somebody's account number."""
_TAGS = re.compile(r"<[^<>]{0,400}>")


class Reason(msgspec.Struct, frozen=True):
    """A provider's error.

    Its message; all its texts; its codes and types in lower case; the HTTP status if the body names one (else
    0); the seconds that the provider asks to wait, if it does; the first of its codes that may be shown, in
    the provider's spelling; and the decoded document (else None).
    """

    message: str = ""
    codes: tuple[str, ...] = ()
    status: int = 0
    words: str = ""
    wait: float | None = None
    code: str = ""
    document: Any = None


def reason_in(body: bytes) -> Reason:
    """Parses an error body. Returns an empty Reason if it has no message or code. JSON, events of a stream,
    HTML and text are read."""
    try:
        return reason_of(value_of(body))
    except ValueError:
        pass
    text = body[: 8 * MAX_WORDS].decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if text.startswith("<"):
        from html import unescape

        return Reason(words=unescape(_TAGS.sub(" ", text[:MAX_WORDS])))
    if text.startswith(("data:", "event:")):
        text = "\n".join(line[5:].strip() for line in text.splitlines() if line.startswith("data:"))
    found = _inner(text.strip())
    if found is not None:
        return reason_of(found)
    if text.startswith(("{", "[")):  # cut off: it is searched for its meaning, but not shown
        return Reason(words=text[:MAX_WORDS])
    return Reason(text.strip(), words=text[:MAX_WORDS])


def reason_of(value: Any) -> Reason:
    """Reads a decoded error object of any vendor."""
    found = _Found()
    found.read(value, 0)
    message = found.message
    if _is_generic(message):
        inner = next(_sentences(value, 0), "") or found.title
        if inner:
            message = inner
            found.texts.append(inner[:MAX_WORDS])
    words = "\n".join(found.texts)[:MAX_WORDS]
    return Reason(message, tuple(found.codes), found.status, words, found.wait, found.code, value)


def _located(item: Any) -> str:
    """Returns the message about one field, and the field, in an error by pydantic; "" for anything else.
    FastAPI, Mistral and vLLM have no other message when they refuse a request:
    https://fastapi.tiangolo.com/tutorial/handling-errors/"""
    match item:
        case {"loc": [*places], "msg": str(text)} if text and len(places) <= MAX_STEPS:
            if places[:1] == ["body"]:
                places = places[1:]
            named = "".join([f"[{place}]" if type(place) is int else f".{place}" for place in places])
            return f"{named.lstrip('.')}: {text}" if named else text
        case _:
            return ""


def _is_generic(message: str) -> bool:
    return message.strip().rstrip(".").lower() in _GENERIC


def _sentences(value: Any, depth: int) -> Iterator[str]:
    """Returns the texts of several words, wherever they are, in an error of an unknown format."""
    if isinstance(value, str):
        if " " in value.strip() and not _is_generic(value) and _inner(value) is None:
            yield value
    elif depth < MAX_DEPTH and isinstance(value, dict | list):
        entries = (
            value[:20]
            if isinstance(value, list)
            else [v for k, v in list(value.items())[:40] if not _NOT_MESSAGES(k)]
        )
        for entry in entries:
            yield from _sentences(entry, depth + 1)


class _Found:
    """Collects the parts of an error object from the outside inwards, of at most `MAX_NODES` values."""

    def __init__(self) -> None:
        self.message = ""
        self.texts: list[str] = []
        self.codes: list[str] = []
        self.status = 0
        self.code = ""
        self.title = ""
        self.wait: float | None = None
        self._nodes = MAX_NODES

    def read(self, value: Any, depth: int) -> None:
        self._nodes -= 1
        if depth > MAX_DEPTH or self._nodes < 0:
            return
        if isinstance(value, str):
            self._text(value, depth)
        elif isinstance(value, list):
            if located := [place for item in value[:MAX_FIELDS] if (place := _located(item))]:
                self._text("; ".join(located), depth)
            for item in value[:20]:
                self.read(item, depth + 1)
        elif isinstance(value, dict):
            self._object(value, depth)

    def _object(self, value: dict[str, Any], depth: int) -> None:
        if "base_resp" not in value and {"status_code", "status_msg"} <= value.keys():
            self.codes.append(f"base_resp {value['status_code']}")
        else:
            self._coded(value)
        self._waits(value)
        if isinstance(title := value.get("title"), str):  # RFC 9457: a summary of the problem
            self.title = title
            self.texts.append(title[:MAX_WORDS])
        for name in _MESSAGES:
            if isinstance(text := value.get(name), str):
                self._text(text, depth)
        for name in _WITHIN:
            inner = value.get(name)
            if isinstance(inner, dict | list) or (isinstance(inner, str) and name not in _MESSAGES):
                if name == "error" and isinstance(inner, str) and isinstance(value.get("message"), str):
                    self._code(inner)
                else:
                    self.read(inner, depth + 1)

    def _text(self, text: str, depth: int) -> None:
        inner = _inner(text)
        if inner is not None:  # an error as text inside another one's message
            self.read(inner, depth + 1)
        elif text.strip():
            self.texts.append(text[:MAX_WORDS])
            if _is_generic(self.message):
                self.message = text

    def _coded(self, value: dict[str, Any]) -> None:
        for name in _CODES:
            code = value.get(name)
            if isinstance(code, str):
                self._code(code)
                if not self.code and name in _NAMED and _NAME(code):
                    self.code = code
            elif type(code) is int and not _HTTP_STATUS(str(code)):
                self.codes.append(str(code))
        if not self.status:
            named = (str(code) for name in _STATUSES if type(code := value.get(name)) in (int, str))
            self.status = next((int(code) for code in named if _HTTP_STATUS(code)), 0)

    def _code(self, code: str) -> None:
        if " " in code:
            self.texts.append(code[:MAX_WORDS])  # xAI puts a sentence there
        elif code and len(code) <= 200:
            self.codes.append(code.lower())

    def _waits(self, value: dict[str, Any]) -> None:
        if self.wait is not None:
            return
        for name in _SECONDS:
            if (wait := parse_duration(value.get(name))) is not None:
                self.wait = wait
                return
        for name in _MILLISECONDS:
            if (wait := parse_duration(value.get(name))) is not None:
                self.wait = wait / 1000
                return
        headers = value.get("headers")  # OpenRouter's metadata
        if isinstance(headers, dict):
            named = {name.lower(): text for name, text in headers.items() if isinstance(text, str)}
            self.wait = parse_retry_after(named)
            if self.wait is None:
                self.wait = parse_reset(named)


def _inner(text: str) -> Any:
    """Returns the JSON object or list that a text contains; None if it is not JSON."""
    if text[:1] not in ("{", "[") and text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value = value_of(text.encode("utf-8", "surrogatepass"))
    except ValueError:
        return None
    return value if isinstance(value, dict | list) else None
