"""The fields of providers' errors beside the message, which their own clients use (`param`, Anthropic's
`details`, Google's `QuotaFailure`, Azure's `innererror`, Groq's `failed_generation`). Pure.

Callers of the same dialect get them, bounded and masked. Fields that name the gateway's own account, or are
for the provider's staff, are left out.
"""

import re
from collections.abc import Iterable
from typing import Any

from sluice.wire.masking import masked

MAX_DEPTH = 8
MAX_VALUES = 200
MAX_TEXT = 2000
"""Maximum characters of one text; all texts together may have four times as many."""

_KEY = re.compile(r"[\w@.$-]{1,64}\Z", re.ASCII).match
_HIDDEN = re.compile(
    r"stack|trace|debug|headers|cookie|password|secret|credential|authorization|api_?key|token\Z|signature\Z"
    r"|user_?id|account|organi[sz]ation|\Aorg(?:_?id)?\Z|project|consumer|tenant|subscription",
    re.IGNORECASE,
).search
_DEBUG_INFO = "google.rpc.DebugInfo"


def fields_of(error: Any) -> dict[str, Any]:
    """Returns the fields of a decoded error document: those of its `error` object where it has one, else its
    own (vLLM, FastAPI, Ollama). The first error counts where it is a list (Google's)."""
    if isinstance(error, list) and error:
        error = error[0]
    if not isinstance(error, dict):
        return {}
    inner = error.get("error")
    if isinstance(inner, dict):
        return inner
    return {name: value for name, value in error.items() if name not in ("object", "error")}


def shown_fields(fields: dict[str, Any], secrets: Iterable[str] = ()) -> dict[str, Any]:
    """Returns these fields as they may be shown to callers, as JSON values. `secrets` are masked wherever
    they occur."""
    shown = _Shown(tuple(secrets)).value(fields, 0)
    return shown if isinstance(shown, dict) else {}


class _Nothing:
    """Stands for a value that is left out."""


_NOTHING = _Nothing()


class _Shown:
    def __init__(self, secrets: tuple[str, ...]) -> None:
        self._secrets = secrets
        self._values = MAX_VALUES
        self._characters = 4 * MAX_TEXT

    def value(self, value: Any, depth: int) -> Any:
        self._values -= 1
        if self._values < 0 or depth > MAX_DEPTH:
            return _NOTHING
        match value:
            case None | bool():
                return value
            case int() | float():
                return value if abs(value) < 2**53 else _NOTHING
            case str():
                return self._text(value)
            case list():
                found = (self.value(item, depth + 1) for item in value[:MAX_VALUES])
                return [item for item in found if item is not _NOTHING]
            case dict():
                return self._object(value, depth)
            case _:
                return _NOTHING

    def _object(self, value: dict[str, Any], depth: int) -> Any:
        if str(value.get("@type", "")).endswith(_DEBUG_INFO):
            return _NOTHING
        shown: dict[str, Any] = {}
        for name in list(value)[:MAX_VALUES]:
            if not _KEY(name) or _HIDDEN(name) or masked(name, self._secrets) != name:
                continue
            item = self.value(value[name], depth + 1)
            if item is not _NOTHING:
                shown[name] = item
        return shown

    def _text(self, text: str) -> Any:
        if len(text) > min(
            MAX_TEXT, self._characters
        ):  # half a secret would not be recognized, and would show the other half
            return _NOTHING
        self._characters -= len(text)
        text = masked(text, self._secrets)
        return "".join(c if c.isprintable() or c == "\n" else " " for c in text)
