"""Interprets an upstream's error, of any vendor: a status and a body -> an `UpstreamError`.

`sluice.wire.error_body` parses the body; `sluice.wire.error_table` is the table of what codes and words mean.
The kind of the error decides what happens to the call: errors that the caller has made are passed on, all
others lead to failover. The same error has the same kind as a response's status and within a stream. Messages
go to callers, so secrets and internal addresses are masked (`sluice.wire.masking`), and messages about the
gateway's own credentials are replaced.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any

import msgspec

from sluice.errors import ACCOUNTS_FAULT, CONNECTION, UpstreamError, UpstreamErrorKind
from sluice.wire.error_body import Reason, reason_in, reason_of
from sluice.wire.jsontext import value_of
from sluice.wire.retry_after import parse_reset, parse_retry_after, wait_in_words

MAX_MESSAGE = 500
"""Maximum characters of a provider's message that are passed on."""

_STATUS: Mapping[int, UpstreamErrorKind] = {
    401: "bad_credentials",
    402: "billing",
    403: "bad_credentials",
    404: "not_found",
    405: "not_found",
    408: "headers_timeout",
    409: "server_error",
    413: "context_length",  # too large for this model, but perhaps not for another (RFC 9110, 15.5.14)
    424: "server_error",  # Bedrock, TGI: the model failed
    425: "server_error",
    429: "rate_limited",
    499: "server_error",  # Google: CANCELLED
    498: "overloaded",  # Groq: no capacity for requests of the flex tier
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
"""The kinds that a provider's words can give to a status that is too coarse; for a status that is not listed,
those in _ANY."""

_OURS: Mapping[UpstreamErrorKind, str] = {
    "bad_credentials": "The upstream refused the gateway's credentials",
    "billing": "The upstream refused the gateway's account",
}


def upstream_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Returns the error for a response without status 200. Never raises; `body` may be cut, or not be JSON."""
    reason = reason_in(body)
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
    """Returns the error for an error object within a stream of status 200: `error` is its decoded JSON, of
    any form."""
    reason = reason_of(error)
    worded = _kind_of(reason)
    kind = (
        status_kind(reason.status, reason)
        if reason.status and worded != "stream_error"
        else (worded or "stream_error")
    )
    if kind == "headers_timeout":  # the upstream's own upstream was too slow: this one has answered
        kind = "server_error"
    wait = reason.wait
    if wait is None and kind in ("rate_limited", "overloaded", "billing"):
        wait = wait_in_words(reason.words)
    return _error(kind, reason, 200, wait)


def reported_error(payload: bytes) -> UpstreamError | None:
    """Returns the error in a frame or document, of any vendor's form; None if it is not an error. Decoders
    call it for data that is not part of an answer, or has an `error` in it."""
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
"""Members beside the message of an error that has no other sign of being one."""


def tells_error(value: Any) -> bool:
    """Returns whether a decoded frame or document that is not an answer is an error, of any vendor's form."""
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
        case {"message": str(), **rest}:  # Cohere and AWS send nothing but a message
            return not _SAY_ERROR.isdisjoint(rest) or _kind_of(reason_of(value)) is not None
        case [first, *_]:
            return tells_error(first)
        case _:
            return False


def status_kind(status: int, reason: Reason) -> UpstreamErrorKind:
    """Returns the kind of an HTTP status, refined by the provider's words if the status is too coarse."""
    worded = _kind_of(reason)
    if worded is not None and worded in _SHARPER.get(status, _ANY):
        return worded
    if status in _STATUS:
        return _STATUS[status]
    return "bad_request" if 400 <= status < 500 else "server_error"


def shown(kind: UpstreamErrorKind, words: str, secrets: Iterable[str] = ()) -> str:
    """Returns the message to show to callers; "" if the provider sent none. `secrets` are masked wherever
    they occur."""
    from sluice.wire.masking import masked

    if kind == "bad_credentials":
        return _OURS[kind]
    text = words[: 4 * MAX_MESSAGE]
    if len(text) < len(words):  # half a secret would not be recognized, and would show the other half
        text = text[: max(text.rfind(" "), text.rfind("\n"), 0)] or text[:MAX_MESSAGE]
    text = masked(text, secrets)
    text = "".join(c if c.isprintable() else " " for c in text)
    if kind == "billing":
        text = f"{_OURS[kind]}: {text}" if text else _OURS[kind]
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


def conceal(error: UpstreamError, secrets: Collection[str], *, same_dialect: bool = False) -> None:
    """Masks the upstream's own secrets in an error's message: its decoder does not know them.

    For callers of the `same_dialect`, the error's fields are kept, also masked, unless they are about the
    gateway's own account.
    """
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
    """Returns whether the parts of a phrase occur in the text, in order and close together."""
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
    """Returns the tables, which are prepared when the first error comes: a gateway without errors does not
    pay for it."""
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


_NOT_NAMES = re.compile(r"[^a-z0-9一-鿿]+")


def code_name(code: str) -> str:
    """Returns a code without its vendor's decoration: "com.amazonaws#ThrottlingException:http://…" becomes
    "throttling"."""
    name = _NOT_NAMES.sub("", code.lower().rpartition("#")[2].partition(":")[0])
    for ending in ("exception", "error"):
        name = name.removesuffix(ending) or name
    return name


_UNQUOTED = str.maketrans({"`": None, '"': None, "“": None, "”": None, "‘": "'", "’": "'", "*": None})
_QUOTE = re.compile(r"(?<!\w)'|'(?!\w)")


def _normal(text: str) -> str:
    """Returns words in the form of the table: in lower case, on one line, without quotes (but with
    apostrophes)."""
    return " ".join(_QUOTE.sub("", text.lower().translate(_UNQUOTED)).split())
