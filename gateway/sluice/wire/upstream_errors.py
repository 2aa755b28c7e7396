"""Interprets an upstream's error, whichever vendor it is from: a status and a body -> an `UpstreamError`.

Vendors agree on little: `{"error": {"message", "type", "code"}}` (OpenAI, Anthropic, Azure, Google inside a
list), `{"error": "text"}` (Ollama, xAI), `{"detail": …}` (FastAPI), `{"message": …}` (Mistral, Cohere, AWS),
`{"object": "error"}` (vLLM, SGLang), `{"base_resp": …}` (MiniMax), `{"Response": {"Error": …}}` (Tencent),
`{"error_code", "error_msg"}` (Baidu), one of them as text inside another (OpenRouter, Google's SDKs), plain
text, a page of HTML. All are read here once. What the codes and words mean is data: `sluice.wire.error_table`.

The kind decides what becomes of the call: the caller's own mistakes are passed on, all else fails over. The
same error has the same kind before a 200 and inside of one.

Texts go to callers, so secrets and internal addresses are masked (`sluice.wire.masking`), and what a provider
says about the gateway's own credentials is replaced.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import msgspec

from sluice.errors import ACCOUNTS_FAULT, CONNECTION, UpstreamError, UpstreamErrorKind
from sluice.wire.jsontext import value_of
from sluice.wire.retry_after import parse_duration, parse_reset, parse_retry_after, wait_in_words

MAX_MESSAGE = 500
"""Characters of a provider's message that are passed on."""
MAX_WORDS = 4000
"""Characters of all that a provider says in one error that are searched for what it means."""
MAX_DEPTH = 8
MAX_NODES = 200

_STATUS: Mapping[int, UpstreamErrorKind] = {
    401: "bad_credentials",
    402: "billing",
    403: "bad_credentials",
    404: "not_found",
    405: "not_found",
    408: "headers_timeout",
    409: "server_error",
    413: "context_length",  # what is too large for one model may not be for another (RFC 9110, 15.5.14)
    424: "server_error",  # Bedrock, TGI: the model failed
    425: "server_error",
    429: "rate_limited",
    499: "server_error",  # Google: CANCELLED
    498: "overloaded",  # Groq: no room for requests of the flex tier
    503: "overloaded",
    529: "overloaded",
}

_OF_ACCOUNT = frozenset({"billing", "bad_credentials", "rate_limited", "content_policy"})
_ANY = frozenset({*_OF_ACCOUNT, "context_length", "not_found", "unknown_id", "overloaded"})
_SHARPER: Mapping[int, Collection[str]] = {
    401: frozenset({"billing", "rate_limited", "content_policy"}),
    402: frozenset({"rate_limited", "content_policy"}),
    403: _ANY,
    404: frozenset({"billing", "content_policy", "unknown_id"}),
    405: frozenset(),
    408: frozenset(),
    409: _ANY | {"bad_request"},
    429: frozenset({"billing", "bad_credentials", "content_policy", "context_length"}),
}
"""What a provider's words may make of a status that is too coarse; of a status that is not named here:
anything in _ANY."""

_OURS: Mapping[UpstreamErrorKind, str] = {
    "bad_credentials": "The upstream refused the gateway's credentials",
    "billing": "The upstream refused the gateway's account",
}
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
_NOT_NAMES = re.compile(r"[^a-z0-9一-鿿]+")
_TAGS = re.compile(r"<[^<>]{0,400}>")


MAX_FIELDS = 3
"""Fields of a refused request that are told."""
MAX_STEPS = 20
"""Steps on the way to such a field."""


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


def upstream_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """The error that an answer other than 200 stands for. Never raises; `body` may be cut, or not be JSON."""
    reason = read(body)
    if "x-amzn-errortype" in headers:
        reason = msgspec.structs.replace(reason, codes=(headers["x-amzn-errortype"].lower(), *reason.codes))
    kind = status_kind(status, reason)
    wait = parse_retry_after(headers)
    if wait is None:
        wait = reason.wait
    if wait is None and kind in ("rate_limited", "overloaded", "billing"):
        wait = wait_in_words(reason.words)
        if wait is None and status == 429:
            wait = parse_reset(headers)
    return _error(kind, reason, status, wait)


def stream_error(error: Any) -> UpstreamError:
    """The error that an error object inside a 200 stream stands for: `error` is its decoded JSON, of any
    shape."""
    reason = reason_of(error)
    worded = _kind_of(reason)
    kind = (
        status_kind(reason.status, reason)
        if reason.status and worded != "stream_error"
        else (worded or "stream_error")
    )
    if kind == "headers_timeout":  # of the upstream's own upstream: this one has answered
        kind = "server_error"
    wait = reason.wait
    if wait is None and kind in ("rate_limited", "overloaded", "billing"):
        wait = wait_in_words(reason.words)
    return _error(kind, reason, 200, wait)


def reported_error(payload: bytes) -> UpstreamError | None:
    """The error that a frame or document stands for, in any vendor's shape; None for one that is not to be
    read as an error.

    For decoders: it is asked of what is no part of an answer, or has an `error` in it.
    """
    try:
        value = value_of(payload)
    except ValueError:
        try:
            value = value_of(payload.decode("utf-8", "replace").encode())
        except ValueError:
            return None
    return stream_error(value) if tells_error(value) else None


_SAY_ERROR = frozenset(
    {"code", "status", "status_code", "statusCode", "type", "__type", "error_code", "errorCode", "error_type"}
)
"""What stands beside the message of an error that has no other sign."""


def tells_error(value: Any) -> bool:
    """Returns whether a decoded frame or document that is no answer stands for an error, in any vendor's
    shape."""
    match value:
        case {"error": error} if error:
            return True
        case (
            {"object": "error"}
            | {"type": "error"}
            | {"errors": [_, *_] | {"message": _}}
            | {"Response": {"Error": _}}
            | {"detail": str() | [_, *_] | {"msg": _} | {"message": _} | {"error": _}}
        ):
            return True
        case {"base_resp": {"status_code": int(code)}}:
            return code != 0
        case {"choices": _}:
            return False
        case {"error_msg": str(words)} if words:
            return True
        case {"message": str(), **rest}:  # Cohere and AWS write nothing but words
            return not _SAY_ERROR.isdisjoint(rest) or _kind_of(reason_of(value)) is not None
        case [first, *_]:
            return tells_error(first)
        case _:
            return False


def read(body: bytes) -> Reason:
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


def status_kind(status: int, reason: Reason) -> UpstreamErrorKind:
    """The kind of an HTTP status, refined by the provider's words where the status is too coarse."""
    worded = _kind_of(reason)
    if worded is not None and worded in _SHARPER.get(status, _ANY):
        return worded
    if status in _STATUS:
        return _STATUS[status]
    return "bad_request" if 400 <= status < 500 else "server_error"


def shown(kind: UpstreamErrorKind, words: str, secrets: Iterable[str] = ()) -> str:
    """The message that may be shown to callers; "" where the provider gave none. `secrets` are masked
    wherever they stand."""
    from sluice.wire.masking import masked

    if kind == "bad_credentials":
        return _OURS[kind]
    text = words[: 4 * MAX_MESSAGE]
    if len(text) < len(words):  # no half of a secret, whose other half would have told it
        text = text[: max(text.rfind(" "), text.rfind("\n"), 0)] or text[:MAX_MESSAGE]
    text = masked(text, secrets)
    text = "".join(c if c.isprintable() else " " for c in text)
    if kind == "billing":
        text = f"{_OURS[kind]}: {text}" if text else _OURS[kind]
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


def conceal(error: UpstreamError, secrets: Collection[str], *, same_dialect: bool = False) -> None:
    """Mask the upstream's own secrets in an error's message: its decoder does not know them. For callers of
    the `same_dialect` its fields are kept, masked too, unless they are about the gateway's own account."""
    if error.words:
        error.message = shown(error.kind, error.words, secrets) or error.message
        error.words = ""
    document, error.document = error.document, None
    if same_dialect and document is not None and error.kind not in ACCOUNTS_FAULT:
        from sluice.wire.error_fields import fields_of, shown_fields

        error.fields = shown_fields(fields_of(document), secrets)


_SEALS_REFUSED = re.compile(
    r"signature\W{1,3} in \W?(?:redacted_)?thinking\W? block|thinking\.signature: field required"
    r"|redacted_thinking\W? blocks\b.{0,60}cannot be modified"
    r"|encrypted[ _]content\b.{0,120}(?:could not be (?:verified|decrypted)|not issued to this caller)",
    re.IGNORECASE | re.DOTALL,
).search


def refuses_seals(error: UpstreamError) -> bool:
    """Returns whether a provider refuses a request because of reasoning in it that another model, account or
    conversation has sealed.

    https://platform.claude.com/docs/en/build-with-claude/preserved-thinking (other platforms and vendors of
    Anthropic's dialect), openai/openai-agents-python#2063 (encrypted reasoning of another account)
    """
    if error.kind != "bad_request":
        return False
    return error.provider_code == "invalid_encrypted_content" or _SEALS_REFUSED(error.message) is not None


def _error(kind: UpstreamErrorKind, reason: Reason, status: int, wait: float | None) -> UpstreamError:
    error = UpstreamError(kind, shown(kind, reason.message), status=status, retry_after=wait)
    if kind not in CONNECTION:
        error.words = reason.message[: 16 * MAX_MESSAGE]
        error.document = reason.document
        error.provider_code = reason.code
    return error


def _kind_of(reason: Reason) -> UpstreamErrorKind | None:
    codes, types, words = _tables()
    names = [code_name(code) for code in reason.codes]
    for name in (*names, *(code_name(code.partition(".")[0]) for code in reason.codes if "." in code)):
        if name in codes:
            return codes[name]
    text = _normal(reason.words or reason.message)
    if text:
        for kind, parts, pattern in words:
            if pattern.search(text) if pattern is not None else _stands(parts, text):
                return kind
    return next((types[name] for name in names if name in types), None)


def _stands(parts: tuple[str, ...], text: str) -> bool:
    """Returns whether the parts of a phrase stand in the text, in their order and not far apart."""
    start = text.find(parts[0])
    while start >= 0:
        end = start + len(parts[0])
        for part in parts[1:]:
            at = text.find(part, end, end + 160 + len(part))
            if at < 0:
                break
            end = at + len(part)
        else:
            return True
        start = text.find(parts[0], start + 1)
    return False


Words = tuple[tuple[UpstreamErrorKind, tuple[str, ...], "re.Pattern[str] | None"], ...]


@cache
def _tables() -> tuple[Mapping[str, UpstreamErrorKind], Mapping[str, UpstreamErrorKind], Words]:
    """The rows, made ready when the first error comes: a gateway without errors does not pay for them."""
    from sluice.wire import error_table as table

    words: list[tuple[UpstreamErrorKind, tuple[str, ...], re.Pattern[str] | None]] = []
    for row in table.WORDS:
        if row.match.startswith("re:"):
            words.append((row.kind, (), re.compile(row.match[3:])))
        else:
            words.append((row.kind, tuple(part.strip() for part in row.match.split("…")), None))
    codes = {code_name(row.match): row.kind for row in table.CODES}
    types = {code_name(row.match): row.kind for row in table.TYPES}
    return codes, types, tuple(words)


def code_name(code: str) -> str:
    """A code without what vendors write it with: "com.amazonaws#ThrottlingException:http://…" is
    "throttling"."""
    name = _NOT_NAMES.sub("", code.lower().rpartition("#")[2].partition(":")[0])
    for ending in ("exception", "error"):
        name = name.removesuffix(ending) or name
    return name


_UNQUOTED = str.maketrans({"`": None, '"': None, "“": None, "”": None, "‘": "'", "’": "'", "*": None})
_QUOTE = re.compile(r"(?<!\w)'|'(?!\w)")


def _normal(text: str) -> str:
    """Words as the table has them: in lower case, on one line, without quotes (but with apostrophes)."""
    return " ".join(_QUOTE.sub("", text.lower().translate(_UNQUOTED)).split())


def _inner(text: str) -> Any:
    """The JSON object or list that a text is; None where it is none."""
    if text[:1] not in ("{", "[") and text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value = value_of(text.encode("utf-8", "surrogatepass"))
    except ValueError:
        return None
    return value if isinstance(value, dict | list) else None
