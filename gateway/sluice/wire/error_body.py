"""What the body of an error says, whichever vendor it is from: bytes, or a decoded object -> a `Reason`.

Vendors agree on little: `{"error": {"message", "type", "code"}}` (OpenAI, Anthropic, Azure, Google inside a
list), `{"error": "text"}` (Ollama, xAI), `{"detail": …}` (FastAPI), `{"message": …}` (Mistral, Cohere, AWS),
`{"object": "error"}` (vLLM, SGLang), `{"base_resp": …}` (MiniMax), `{"Response": {"Error": …}}` (Tencent),
`{"error_code", "error_msg"}` (Baidu), one of them as text inside another (OpenRouter, Google's SDKs), plain
text, a page of HTML. What they mean is for `sluice.wire.upstream_errors`.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from sluice.wire.jsontext import value_of
from sluice.wire.retry_after import parse_duration, parse_reset, parse_retry_after

MAX_WORDS = 4000
"""Characters of all that a provider says in one error that are searched for what it means."""
MAX_DEPTH = 8
MAX_NODES = 200
MAX_FIELDS = 3
"""Fields of a refused request that are told."""
MAX_STEPS = 20
"""Steps on the way to such a field."""

_GENERIC = frozenset(
    {
        "", "provider returned error", "upstream request failed", "upstream error", "bad request", "error",
        "request contains an invalid argument", "validation error", "unprocessable entity", "internal server error",
    }
)  # fmt: skip
"""Messages that say nothing where the provider's own stands further inside."""
_NOT_MESSAGES = re.compile(
    r"stack|trace|input|param|url|loc$|generation|prompt|request_?id|^(?:choices|ctx|headers)$", re.IGNORECASE
).search
"""Names of what an error object holds beside words: the caller's own input, or what is for the provider's
people."""

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
"""A code that may be shown to callers: digits could be somebody's account."""
_TAGS = re.compile(r"<[^<>]{0,400}>")


class Reason(msgspec.Struct, frozen=True):
    """The provider's error: its message, all its texts, its codes and types in lower case, the HTTP status
    where the body names one (else 0), how many seconds it wants to be left alone, where the body says so,
    the first of its codes that is a name, as it wrote it, and the document itself, decoded (else None)."""

    message: str = ""
    codes: tuple[str, ...] = ()
    status: int = 0
    words: str = ""
    wait: float | None = None
    code: str = ""
    document: Any = None


def reason_in(body: bytes) -> Reason:
    """Parses an error body; an empty Reason if it has no message or code. JSON, events of a stream, HTML and
    text are read."""
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
    if text.startswith(("{", "[")):  # cut: what it means is still to be seen, but it is not to be shown
        return Reason(words=text[:MAX_WORDS])
    return Reason(text.strip(), words=text[:MAX_WORDS])


def reason_of(value: Any) -> Reason:
    """Reads a decoded error object of any vendor's shape."""
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
    """What pydantic says of one field, and which; "" for anything else. FastAPI, Mistral and vLLM tell nothing
    else of a request that they refuse: https://fastapi.tiangolo.com/tutorial/handling-errors/"""
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
    """Texts of several words that say something, wherever they stand: the words of shapes that nobody here
    knows."""
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
    """Collects what an error object says, from the outside inwards; of `MAX_NODES` values at most."""

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
        if isinstance(title := value.get("title"), str):  # RFC 9457: what is the matter in general
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
        if inner is not None:  # an error as text in another one's message
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
            self.texts.append(code[:MAX_WORDS])  # xAI writes a sentence there
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
    """The JSON object or list that a text is; None where it is none."""
    if text[:1] not in ("{", "[") and text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value = value_of(text.encode("utf-8", "surrogatepass"))
    except ValueError:
        return None
    return value if isinstance(value, dict | list) else None
